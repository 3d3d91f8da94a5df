-- Open alerts, worst first; acknowledge one. Usage: psql [-v acknowledge=12] [-v note=seen] -f sql/psql/alerts.sql
\set ON_ERROR_STOP on
\if :{?acknowledge} \else
\set acknowledge ''
\endif
\if :{?note} \else
\set note ''
\endif
select ops.acknowledge_alert(a.id, nullif(:'note', ''))
from (select nullif(:'acknowledge', '')::bigint as id) a
where a.id is not null;
select alert_id, severity, kind, model, symbol, message, occurrences, acknowledged, assigned_to
from ops.open_alerts;
