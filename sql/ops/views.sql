-- What operators look at.

create or replace view ops.schedule_status as
select
    s.name as schedule,
    s.cron,
    s.command,
    s.enabled,
    s.expected_interval,
    case when ops._is_running(s.name) then 'running' else r.status end as last_status,
    r.started_at as last_started_at,
    r.finished_at - r.started_at as last_duration,
    o.finished_at as last_success_at,
    f.started_at as last_failure_at,
    f.sqlstate as last_failure_sqlstate,
    f.detail as last_failure,
    n.skipped as skipped_last_day,
    j.schedule is not null and j.active as in_pg_cron,
    s.description
from ops.schedules s
left join lateral (
    select x.*
    from ops.runs x
    where x.schedule = s.name and x.status <> 'skipped'
    order by x.started_at desc
    limit 1
) r on true
left join lateral (
    select x.finished_at
    from ops.runs x
    where x.schedule = s.name and x.status = 'succeeded'
    order by x.started_at desc
    limit 1
) o on true
left join lateral (
    select x.started_at, x.sqlstate, x.detail
    from ops.runs x
    where x.schedule = s.name and x.status = 'failed'
    order by x.started_at desc
    limit 1
) f on true
left join lateral (
    select count(*) as skipped
    from ops.runs x
    where x.schedule = s.name and x.status = 'skipped'
        and x.started_at > clock_timestamp() - interval '1 day'
) n on true
left join ops.cron_jobs() j on j.schedule = s.name;
comment on view ops.schedule_status is
'Every schedule with its last run, its last success and failure, how many of its runs were skipped
in the last day because one was still going, and whether pg_cron calls it.';

create or replace view ops.trainers as
select
    w.id as worker_id,
    w.last_heartbeat,
    w.last_heartbeat > clock_timestamp() - interval '1 minute' as is_connected,
    j.job_id,
    j.model,
    j.symbol,
    j.progress,
    j.message
from procrastinate.procrastinate_workers w
left join procrastinate.procrastinate_jobs q on q.worker_id = w.id and q.status = 'doing'
left join ml.training_jobs j on j.queue_job_id = q.id;
comment on view ops.trainers is
'Trainers at the queue, when each was last heard of, and the job it is at.';

create or replace view ops.recent_runs as
select
    r.run_id,
    r.schedule,
    r.status,
    r.started_at,
    coalesce(r.finished_at, clock_timestamp()) - r.started_at as duration,
    r.sqlstate,
    r.detail
from ops.runs r
where r.started_at > clock_timestamp() - interval '1 day';
comment on view ops.recent_runs is 'Runs of schedules within the last day.';

create or replace view ops.loads as
select
    l.load_id,
    l.kind,
    l.format,
    l.file,
    l.status,
    l.rows_read,
    l.rows_loaded,
    l.rows_duplicate,
    l.rows_quarantined,
    l.error,
    l.loaded_by,
    l.started_at,
    l.finished_at - l.started_at as duration
from market.loads l;
comment on view ops.loads is 'Files loaded: what was read, loaded, there already, refused, and how long it took.';

create or replace view ops.health as
select h.status, h.check_name, h.subject, h.detail
from ops.health_at() h;
comment on view ops.health is
'Health now, worst first; see ops.health_at. All is well where no row has status red.';
