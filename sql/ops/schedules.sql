-- The clock: what runs when, and how a run is written down. pg_cron's entries are one
-- `call ops.run('name')` each; any other scheduler may call the same, or `call ops.tick()`.

-- Is this run still going? Its backend must be there, be the same, and be doing something.
create or replace function ops._alive(run ops.runs) returns boolean
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select exists (
        select from pg_stat_activity a
        where a.pid = run.backend_pid and a.backend_start = run.backend_start
            and a.state is distinct from 'idle'
    )
$$;

-- Runs that broke off: their error cost them the transaction in which they would have said so.
create or replace procedure ops._close_broken(schedule text default null)
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    update ops.runs r
    set status = 'failed', finished_at = clock_timestamp(),
        detail = 'broke off; the reason is in the server''s log'
    where r.status = 'running' and r.schedule = coalesce(_close_broken.schedule, r.schedule)
        and r.backend_pid <> pg_backend_pid() and not ops._alive(r);
end
$$;

-- Commits, so it cannot pin search_path; every name is qualified.
create or replace procedure ops.run(schedule text)
language plpgsql
as $$
declare
    v_command text;
    v_run_id bigint;
    v_other bigint;
    v_started timestamptz := pg_catalog.clock_timestamp();
begin
    select s.command into v_command from ops.schedules s where s.name = run.schedule;
    if not found then
        raise exception 'unknown schedule %', pg_catalog.quote_literal(schedule)
        using errcode = 'AP701', hint = 'List them with: select * from ops.schedule_status';
    end if;
    perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('ops.run ' || schedule, 0));
    update ops.runs r
    set status = 'failed', finished_at = pg_catalog.clock_timestamp(),
        detail = 'broke off; the reason is in the server''s log'
    where r.schedule = run.schedule and r.status = 'running' and not ops._alive(r);
    select r.run_id into v_other
    from ops.runs r where r.schedule = run.schedule and r.status = 'running'
    limit 1;
    if found then
        insert into ops.runs (schedule, status, finished_at, backend_pid, detail)
        values (
            schedule, 'skipped', pg_catalog.clock_timestamp(), pg_catalog.pg_backend_pid(),
            pg_catalog.format('run %s is still going', v_other)
        );
        commit;
        return;
    end if;
    insert into ops.runs (schedule, backend_pid, backend_start)
    values (
        schedule, pg_catalog.pg_backend_pid(),
        (select a.backend_start from pg_catalog.pg_stat_activity a where a.pid = pg_catalog.pg_backend_pid())
    )
    returning run_id into v_run_id;
    commit;
    execute v_command;
    update ops.runs r
    set status = 'succeeded', finished_at = pg_catalog.clock_timestamp()
    where r.run_id = v_run_id;
    commit;
end
$$;
comment on procedure ops.run(text) is
'Run a schedule''s command now and write the run down in ops.runs. While a run of the same schedule is still going it is not started again (the attempt is written down as skipped); a run that broke off is marked failed by the next. Errors: AP701 unknown schedule, and whatever the command raises.';

create or replace view ops.schedule_status as
select
    s.name,
    s.cron,
    s.command,
    s.enabled,
    s.expected_interval,
    l.status as last_status,
    l.started_at as last_started_at,
    l.finished_at - l.started_at as last_duration,
    l.detail as last_detail,
    o.finished_at as last_success_at,
    coalesce(o.finished_at, s.updated_at) + s.expected_interval as due_at,
    s.description
from ops.schedules s
left join lateral (
    select r.* from ops.runs r
    where r.schedule = s.name and r.status <> 'skipped'
    order by r.started_at desc limit 1
) l on true
left join lateral (
    select r.finished_at from ops.runs r
    where r.schedule = s.name and r.status = 'succeeded'
    order by r.started_at desc limit 1
) o on true;
comment on view ops.schedule_status is
'Every schedule with its last run, its last success, and when it is due again.';

create or replace procedure ops.tick(as_of timestamptz default null)
language plpgsql
as $$
declare
    v_name text;
    v_names text [];
begin
    -- What is overdue runs once, however many times it was missed.
    select pg_catalog.array_agg(s.name order by s.due_at, s.name) into v_names
    from ops.schedule_status s
    where s.enabled and s.due_at <= coalesce(as_of, pg_catalog.clock_timestamp());
    if v_names is null then
        return;
    end if;
    foreach v_name in array v_names loop
        call ops.run(v_name);
    end loop;
end
$$;
comment on procedure ops.tick(timestamptz) is
'For schedulers other than pg_cron: run every schedule that is due (as of a time, default now), each once. Call it every minute.';

create or replace procedure ops.sync_cron()
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    v_schedule record;
begin
    if to_regclass('cron.job') is null then
        return;
    end if;
    for v_schedule in select s.name, s.cron, s.enabled from ops.schedules s loop
        if v_schedule.enabled then
            perform cron.schedule_in_database(
                'alphaplus ' || v_schedule.name, v_schedule.cron,
                format('call ops.run(%L)', v_schedule.name), current_database(), 'alphaplus_owner'
            );
        end if;
    end loop;
    perform cron.unschedule(j.jobid)
    from cron.job j
    where j.jobname like 'alphaplus %' and not exists (
        select from ops.schedules s where s.enabled and 'alphaplus ' || s.name = j.jobname
    );
end
$$;
comment on procedure ops.sync_cron() is
'Make pg_cron''s entries those of ops.schedules that are enabled, one call each, run as alphaplus_owner. Does nothing where pg_cron is not in this database. Needs a superuser; `make migrate` calls it.';

create or replace procedure ops.housekeeping()
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    v_keep interval := ops.setting_interval('ops.keep_runs', interval '14 days');
begin
    delete from ops.runs r where r.started_at < clock_timestamp() - v_keep and r.status <> 'running';
    delete from procrastinate.procrastinate_jobs j
    where j.status in ('succeeded', 'failed', 'cancelled', 'aborted')
        and not exists (
            select from procrastinate.procrastinate_events e
            where e.job_id = j.id and e.at > clock_timestamp() - v_keep
        );
    delete from market.quarantine q
    where q.created_at < clock_timestamp() - ops.setting_interval('market.keep_quarantine', interval '90 days');
    if to_regclass('cron.job_run_details') is not null
        and has_table_privilege('cron.job_run_details', 'delete') then
        delete from cron.job_run_details d where d.end_time < clock_timestamp() - v_keep;
    end if;
end
$$;
comment on procedure ops.housekeeping() is
'Delete finished runs, finished queue jobs and pg_cron''s job_run_details older than the setting ops.keep_runs (14 days), and quarantined rows older than market.keep_quarantine (90 days).';
