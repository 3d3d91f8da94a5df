-- Health. It reads what the runs themselves wrote (ops.runs) and the data, never pg_cron's log: a
-- clock that has stopped writes no log.

create or replace function ops._schedule_health(at timestamptz)
returns table (status text, check_name text, subject text, detail text)
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select
        case
            when at >= coalesce(r.started_at, s.updated_at) + 2 * s.expected_interval then 'red'
            when r.status = 'running' and r.started_at < at - ops.setting_interval('ops.run_timeout', interval '30 minutes') then 'red'
            when r.status = 'failed' and r.previous = 'failed' then 'red'
            when r.status = 'failed' then 'yellow'
            when at >= coalesce(r.started_at, s.updated_at) + 1.5 * s.expected_interval then 'yellow'
            else 'green'
        end,
        'schedule',
        s.name,
        case
            when r.started_at is null then format('never ran; expected every %s', s.expected_interval)
            when at >= r.started_at + 1.5 * s.expected_interval
                then format('last run began %s, expected every %s: has the clock stopped?', r.started_at, s.expected_interval)
            when r.status = 'running' then format('running since %s', r.started_at)
            when r.status = 'failed' then format('failed at %s: %s', r.started_at, r.detail)
            else format('%s at %s', r.status, r.started_at)
        end
    from ops.schedules s
    left join lateral (
        select x.started_at, x.status, x.detail,
            lead(x.status) over (order by x.started_at desc, x.run_id desc) as previous
        from ops.runs x
        where x.schedule = s.name and x.status <> 'skipped'
            and x.started_at <= at + interval '1 minute'
        order by x.started_at desc, x.run_id desc
        limit 1
    ) r on true
    where s.enabled
$$;
comment on function ops._schedule_health(timestamptz) is
'One row per enabled schedule: red from two intervals without a run on, whatever the reason.';

create or replace function ops._clock_health(at timestamptz)
returns table (status text, check_name text, subject text, detail text)
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select
        'yellow', 'clock', 'system time',
        format(
            'the clock was set back: %s runs are dated later than now, the last %s; rows stamped by it meanwhile'
            ' are known only from then on', count(*), max(r.started_at)
        )
    from ops.runs r
    where r.started_at > at + interval '1 minute'
    having count(*) > 0
$$;
comment on function ops._clock_health(timestamptz) is
'A row where runs are dated later than the time asked about: the system''s clock went ahead and back.';

create or replace function ops._queue_health(at timestamptz)
returns table (status text, check_name text, subject text, detail text)
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select
        case
            when q.oldest < at - ops.setting_interval('ops.queue_lag', interval '15 minutes') then 'red'
            when q.waiting > 0 and t.last_heartbeat is distinct from greatest(t.last_heartbeat, at - interval '1 minute') then 'yellow'
            else 'green'
        end,
        'queue',
        'training',
        case
            when q.waiting > 0 then format('%s jobs wait, the oldest since %s; %s', q.waiting, q.oldest,
                case when t.last_heartbeat > at - interval '1 minute' then 'a trainer is at work'
                    else 'no trainer is connected (start one: python -m alphaplus.trainer)' end)
            else 'no job waits'
        end
    from (
        select count(*) as waiting, min(j.requested_at) as oldest
        from ml.training_jobs j
        where j.status = 'queued'
    ) q, (select max(w.last_heartbeat) as last_heartbeat from ops.trainers w) t
    union all
    select
        case when j.heartbeat_at < at - 2 * ml._lease_timeout() then 'red' else 'green' end,
        'trainer',
        coalesce(j.worker, 'unknown'),
        format('job %s (%s): last heard of at %s', j.job_id, j.model, j.heartbeat_at)
    from ml.training_jobs j
    where j.status = 'running'
$$;
comment on function ops._queue_health(timestamptz) is
'How long training jobs wait, and when the trainers at work were last heard of.';

create or replace function ops._data_health(at timestamptz)
returns table (status text, check_name text, subject text, detail text)
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select
        case when n.stopped is not null then 'red' else 'green' end,
        'data',
        i.symbol,
        case
            when n.known_at is null then 'no data yet'
            when n.stopped is not null then format('last row arrived %s; no %s', n.known_at, n.stopped)
            when n.arrives then format('last row arrived %s (%s)', n.known_at, n.newest)
            else format('history up to %s (%s); nothing arrives', n.known_at, n.newest)
        end
    from market.instruments i
    left join lateral (
        select
            max(l.known_at) as known_at,
            (array_agg(l.what order by l.known_at desc, l.what))[1] as newest,
            bool_or(l.arrives) as arrives,
            string_agg(
                format('%s since %s', l.what, l.known_at), ', ' order by l.what
            ) filter (
                where l.arrives
                and l.known_at < at - l.every - ops.setting_interval('ops.stale_after', interval '15 minutes')
            ) as stopped
        from (
            select r.what, r.every, r.known_at, r.known_at > at - greatest(interval '1 day', 3 * r.every) as arrives
            from (
                -- The bar lengths that the symbol has, one step through the index each.
                select format('bars of %s', b.timeframe) as what, b.every, b.known_at
                from (
                    with recursive lengths as (
                        (select c.timeframe from market.candles c where c.symbol = i.symbol order by c.timeframe limit 1)
                        union all
                        select (
                            select c.timeframe from market.candles c
                            where c.symbol = i.symbol and c.timeframe > s.timeframe
                            order by c.timeframe limit 1
                        )
                        from lengths s
                        where s.timeframe is not null
                    )

                    select
                        s.timeframe,
                        case when s.timeframe > interval '1 minute' then s.timeframe else interval '0' end as every,
                        (
                            select c.known_at from market.candles c
                            where c.symbol = i.symbol and c.timeframe = s.timeframe and c.known_at <= at
                            order by c.ts desc limit 1
                        ) as known_at
                    from lengths s
                    where s.timeframe is not null
                ) b
                union all
                (select 'trades', interval '0', t.known_at from market.trades t
                 where t.symbol = i.symbol and t.known_at <= at order by t.ts desc limit 1)
                union all
                (select 'order books', interval '0', b.known_at from market.order_book_snapshots b
                 where b.symbol = i.symbol and b.known_at <= at order by b.ts desc limit 1)
            ) r
            where r.known_at is not null
        ) l
    ) n on true
$$;
comment on function ops._data_health(timestamptz) is
'Per symbol, when its last row arrived and of what: trades, order books or bars of any length. Red where
a kind of rows used to arrive (within the last day, or three bars) and has stopped for longer than
ops.stale_after beside the length of its bars; a symbol with history only is not stale.';

create or replace function ops._aggregate_health(at timestamptz)
returns table (status text, check_name text, subject text, detail text)
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    v_aggregate market.aggregates;
    v_limit bigint := (ops.setting('ops.dirty_buckets', '100000') #>> '{}')::bigint;
    v_lag interval := ops.setting_interval('ops.pending_lag', interval '30 minutes');
begin
    check_name := 'aggregate';
    for v_aggregate in select a.* from market.aggregates a order by a.name loop
        subject := substr(v_aggregate.name, 2);
        select case when s.behind or s.dirty > v_limit then 'red' else 'green' end, s.detail
        into status, detail
        from market._aggregate_state(v_aggregate, at - v_lag) s;
        return next;
    end loop;
    check_name := 'vectors';
    subject := 'feature.pending';
    select
        case when min(p.created_at) < at - ops.setting_interval('ops.pending_lag', interval '30 minutes')
            then 'red' else 'green' end,
        format('%s stretches wait%s', count(*), coalesce(', the oldest since ' || min(p.created_at), ''))
    into status, detail
    from feature.pending p;
    return next;
end
$$;
comment on function ops._aggregate_health(timestamptz) is
'How much that changed is not refreshed yet: buckets of aggregates, stretches of stored vectors.';

create or replace function ops._system_health(at timestamptz)
returns table (status text, check_name text, subject text, detail text)
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select
        case
            when e.extversion is not null then 'green'
            when n.name = 'pg_cron' then 'yellow'
            else 'red'
        end,
        'extension',
        n.name,
        case
            when e.extversion is not null then 'version ' || e.extversion
            when n.name = 'pg_cron' then 'not in this database: something else has to call ops.tick() once a minute'
            else 'missing'
        end
    from unnest(array['timescaledb', 'vector', 'plpython3u', 'pg_cron']) as n (name)
    left join pg_extension e on e.extname = n.name
    union all
    select
        'yellow',
        'job',
        format('%s %s', j.job_id, coalesce(j.hypertable_name, j.proc_name)),
        format(
            '%s of TimescaleDB failed at %s: %s', j.proc_name, r.last_run_started_at,
            coalesce(e.err_message, 'see the server''s log')
        )
    from timescaledb_information.jobs j
    join timescaledb_information.job_stats r on r.job_id = j.job_id
    left join lateral (
        select x.err_message
        from timescaledb_information.job_errors x
        where x.job_id = j.job_id
        order by x.start_time desc
        limit 1
    ) e on true
    where j.job_id >= 1000 and r.last_run_status = 'Failed'
    union all
    select
        case when c.finished_at is null or c.finished_at <= at then 'yellow' else 'green' end,
        'model',
        concat_ws(' ', a.model, a.symbol, a.regime),
        format('version %s, data up to %s, expires %s', v.version, v.train_to, least(v.as_of, v.train_to + v.horizon) + v.expires_after)
    from ml.aliases a
    join ml.model_versions v on v.version_id = a.version_id
    cross join lateral (select least(v.as_of, v.train_to + v.horizon) + v.expires_after as finished_at) c
    where a.alias = 'champion'
$$;
comment on function ops._system_health(timestamptz) is
'Extensions, jobs of TimescaleDB (its policies) whose last run failed, and champions past their
expires_after.';

create or replace function ops.health_at(at timestamptz default clock_timestamp())
returns table (status text, check_name text, subject text, detail text)
language plpgsql stable parallel restricted
set search_path = pg_catalog, pg_temp
as $$
declare
    v_part text;
    v_state text;
    v_message text;
    v_rows jsonb;
    v_all jsonb := jsonb_build_array();
begin
    -- A part that cannot be told is a row of its own; the others say what they know.
    for v_part in
        select p.name
        from unnest(array[
            'ops._schedule_health', 'ops._clock_health', 'ops._queue_health', 'ops._data_health', 'ops._aggregate_health',
            'ops._system_health', 'ops.server_health', 'feature._set_health'
        ]) p (name)
    loop
        begin
            execute format('select coalesce(jsonb_agg(to_jsonb(h)), ''[]'') from %s($1) h', v_part) into v_rows using $1;
            v_all := v_all || v_rows;
        exception when others then
            get stacked diagnostics v_state = returned_sqlstate, v_message = message_text;
            v_all := v_all || jsonb_build_object(
                'status', 'red', 'check_name', 'health', 'subject', v_part,
                'detail', format('cannot be told: %s (%s)', v_message, v_state)
            );
        end;
    end loop;
    return query
    select h.status, h.check_name, h.subject, h.detail
    from jsonb_to_recordset(v_all) h (status text, check_name text, subject text, detail text)
    order by array_position(array['red', 'yellow', 'green'], h.status), h.check_name, h.subject;
end
$$;
comment on function ops.health_at(timestamptz) is
'Health as of a time, worst first: status red, yellow or green, check_name (schedule, clock, queue, trainer,
data, aggregate, vectors, set, extension, job, model, disk, wal, replication, health), subject, detail in words. A schedule is red when two of
its intervals passed without a run: it reads the rows that runs write themselves, so a stopped clock
shows. ops.health is the same for now.';
