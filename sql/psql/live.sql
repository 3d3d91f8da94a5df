-- Live streams: how they are, what is missing, what was predicted at closes, and what is open.
-- Usage: psql [-v hours=24] -f sql/psql/live.sql
\set ON_ERROR_STOP on
\if :{?hours} \else
\set hours 24
\endif
select stream, status, detail, messages, rows_stored, reconnects, open_gaps
from market.stream_health order by stream;
select symbol, channel, how, from_ts, to_ts, found_at, repaired_at, repaired_rows
from market.gaps
where found_at > now() - :'hours'::integer * interval '1 hour'
order by found_at desc limit 20;
select model, close, symbols, stored, round(close_to_stored_ms) as close_to_stored_ms
from ml.live_latency order by close desc limit 10;
select alert_id, severity, kind, symbol, message, occurrences from ops.open_alerts
order by last_ts desc limit 20;
