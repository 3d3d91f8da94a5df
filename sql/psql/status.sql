-- What is going on: health, clock, queue, data. Usage: psql -f sql/psql/status.sql
\set ON_ERROR_STOP on
\echo '== not green'
select status, check_name, subject, detail from ops.health where status <> 'green';
\echo '== clock'
select schedule, cron, enabled, last_status, last_started_at, last_duration, skipped_last_day, in_pg_cron
from ops.schedule_status order by schedule;
\echo '== training jobs'
select status, count(*), min(requested_at) as oldest from ml.training_jobs group by status order by status;
\echo '== trainers'
select worker_id, last_heartbeat, is_connected, job_id, model, symbol, progress from ops.trainers;
\echo '== data'
select subject as symbol, status, detail from ops.health where check_name = 'data' order by subject;
