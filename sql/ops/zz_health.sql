-- Is all well? Reads what runs wrote down themselves, not pg_cron's own log.
create or replace function ops.health_at(as_of timestamptz)
returns table (check_name text, status text, detail text, since timestamptz)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select
        'schedule ' || s.name,
        case
            when coalesce(s.last_success_at, s.due_at - s.expected_interval) + 2 * s.expected_interval < $1
                then 'red'
            when s.last_status = 'failed' then 'yellow'
            else 'green'
        end,
        case
            when coalesce(s.last_success_at, s.due_at - s.expected_interval) + 2 * s.expected_interval < $1
                then format(
                    'no success for %s; expected every %s',
                    date_trunc('second', $1 - coalesce(s.last_success_at, s.due_at - s.expected_interval)),
                    s.expected_interval
                )
            when s.last_status = 'failed' then 'the last run failed: ' || coalesce(s.last_detail, '')
            else 'last success ' || coalesce(s.last_success_at::text, 'not due yet')
        end,
        s.last_success_at
    from ops.schedule_status s
    where s.enabled
    union all
    select
        'training queue',
        case
            when count(*) filter (where j.status = 'queued' and j.requested_at < $1 - interval '1 hour') > 0 then 'red'
            when count(*) filter (where j.status = 'running' and j.heartbeat_at < $1 - interval '2 minutes') > 0 then 'red'
            when count(*) filter (where j.status = 'failed' and j.finished_at > $1 - interval '1 day') > 0 then 'yellow'
            else 'green'
        end,
        format(
            '%s waiting, %s running, %s failed in a day',
            count(*) filter (where j.status = 'queued'),
            count(*) filter (where j.status = 'running'),
            count(*) filter (where j.status = 'failed' and j.finished_at > $1 - interval '1 day')
        ),
        min(j.requested_at) filter (where j.status in ('queued', 'running'))
    from ml.training_jobs j
    union all
    select
        'model ' || a.model || coalesce(' ' || a.symbol, ''),
        case when v.as_of + v.expires_after < $1 then 'yellow' else 'green' end,
        format('version %s, trained as of %s, expires %s', v.version_id, v.as_of, v.as_of + v.expires_after),
        a.updated_at
    from ml.aliases a
    join ml.model_versions v on v.version_id = a.version_id
    where a.alias = 'champion'
    union all
    select
        'extension ' || e.name,
        case when x.extname is null then 'red' else 'green' end,
        coalesce('version ' || x.extversion, 'missing'),
        null
    from unnest(array['timescaledb', 'vector', 'plpython3u']) as e (name)
    left join pg_extension x on x.extname = e.name
$$;
comment on function ops.health_at(timestamptz) is
'ops.health as of a time.';

create or replace view ops.health as
select h.check_name, h.status, h.detail, h.since
from ops.health_at(clock_timestamp()) h
order by array_position(array['red', 'yellow', 'green'], h.status), h.check_name;
comment on view ops.health is
'One row per check, worst first: red, yellow, green. A schedule turns red once twice its expected interval has passed without a success, whether the clock, the run or pg_cron stopped. Expired champions are yellow.';
