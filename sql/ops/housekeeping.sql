-- What grows is cut, by setting.

create or replace procedure ops.housekeeping(at timestamptz default clock_timestamp())
language plpgsql security definer
-- procrastinate's triggers name their tables without a schema.
set search_path = procrastinate, pg_catalog, pg_temp
as $$
declare
    v_runs interval := ops.setting_interval('ops.keep_runs', interval '30 days');
    v_jobs interval := ops.setting_interval('ops.keep_jobs', interval '30 days');
    v_quarantine interval := ops.setting_interval('market.keep_quarantine', interval '180 days');
    v_kept record;
begin
    -- The last run of each kind stays, however old: ops.health reads it.
    delete from ops.runs r
    where r.finished_at < at - v_runs
        and r.run_id not in (
            select max(x.run_id) from ops.runs x group by x.schedule, x.status
        );
    delete from market.quarantine q where q.created_at < at - v_quarantine;
    -- The events of a queue entry go with it.
    delete from procrastinate.procrastinate_jobs j
    where j.status in ('succeeded', 'failed', 'cancelled', 'aborted')
        and (select max(e.at) from procrastinate.procrastinate_events e where e.job_id = j.id) < at - v_jobs;
    if ops._has_cron() then
        execute 'delete from cron.job_run_details d where d.end_time < $1' using at - v_runs;
    end if;
    for v_kept in
        select k.key, k.value::interval as value
        from jsonb_each_text(ops.setting('market.keep_rows', '{}')) k
    loop
        begin
            call market.drop_rows(v_kept.key, at - v_kept.value);
        exception when sqlstate 'AP107' then
            raise warning '%', sqlerrm;
        end;
    end loop;
end
$$;
comment on procedure ops.housekeeping(timestamptz) is
'Deletes what is older than the settings say: rows of ops.runs and of pg_cron''s job_run_details
(ops.keep_runs), finished entries of the job queue (ops.keep_jobs; ml.training_jobs keeps its
rows), rows of market.quarantine (market.keep_quarantine), market rows (market.keep_rows;
their aggregates stay, see market.drop_rows).';
