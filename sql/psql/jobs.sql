-- Training jobs, newest first. Usage: psql -f sql/psql/jobs.sql [-v status=failed] [-v rows=50]
\set ON_ERROR_STOP on
\if :{?rows} \else
\set rows 30
\endif
\if :{?status} \else
\set status ''
\endif
select job_id, model, symbol, regime, status, status_text, round(progress::numeric, 2) as progress,
    eta, queue_position, attempts, requested_by, requested_at, duration, version_id, left(error, 80) as error
from ml.jobs
where status = :'status' or :'status' = ''
order by job_id desc
limit :rows;
