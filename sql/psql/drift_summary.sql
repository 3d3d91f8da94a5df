-- What the drift checks of the last days found, and what was done. Usage: psql [-v days=7] -f sql/psql/drift_summary.sql
\set ON_ERROR_STOP on
\if :{?days} \else
\set days '7'
\endif
select * from drift.summary(days => :days);
select a.action_id, d.model, d.symbol, d.severity, d.first_feature, a.action, a.state, a.outcome
from drift.actions a join drift.alerts d using (drift_id)
where a.at > now() - make_interval(days => :days) order by a.action_id desc;
