-- What is trained when, and whether it was. Usage: psql -f sql/psql/calendar.sql
\set ON_ERROR_STOP on
select at, schedule, model, symbol, regime, status, missed, version_id, detail
from ops.training_calendar();
