-- The clock. Usage:
--   psql -f sql/psql/schedule.sql                                            list
--   psql -v name='retrain due' -v enabled=false -f sql/psql/schedule.sql     switch one off or on
--   psql -v name='retrain due' -v cron='0 3 * * *' -f sql/psql/schedule.sql  change its time
--   psql -v name='retrain due' -v run=true -f sql/psql/schedule.sql          run it now
--   psql -v model=liquidation_15m -v symbol=BTCUSDT [-v cron='0 2 * * *'] -f sql/psql/schedule.sql   retrain daily
\set ON_ERROR_STOP on
\if :{?name}
select :'name' not in (select name from ops.schedules) as unknown \gset
\if :unknown
\warn 'unknown schedule; run without -v name to list them'
do $$ begin raise exception 'unknown schedule' using errcode = 'AP711', hint = 'List them: psql -f sql/psql/schedule.sql'; end $$;
\endif
\if :{?enabled}
update ops.schedules set enabled = :'enabled'::boolean, updated_at = clock_timestamp(), updated_by = session_user
where name = :'name';
\endif
\if :{?cron}
update ops.schedules set cron = :'cron', updated_at = clock_timestamp(), updated_by = session_user
where name = :'name';
\endif
\if :{?run}
call ops.run(:'name');
\endif
\elif :{?model}
\if :{?symbol} \else
\set symbol ''
\endif
\if :{?cron} \else
\set cron ''
\endif
call ops.schedule_retraining(:'model', nullif(:'symbol', ''), nullif(:'cron', ''));
\endif
select schedule, cron, command, enabled, last_status, last_started_at, last_duration, last_failure, in_pg_cron
from ops.schedule_status order by schedule;
