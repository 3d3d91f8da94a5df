-- Ask for a new version; a trainer makes it.
-- Usage: psql -v model=liquidation_15m [-v symbol=BTCUSDT] [-v regime=…] -f sql/psql/retrain.sql   (no symbol: pooled)
\set ON_ERROR_STOP on
\if :{?model} \else
\warn 'usage: psql -v model=liquidation_15m [-v symbol=BTCUSDT] [-v regime=r] -f sql/psql/retrain.sql   (no symbol: one model for all)'
do $$ begin raise exception 'a variable is missing; the usage is above' using errcode = 'AP700', hint = 'Give it with psql -v name=value.'; end $$;
\endif
\if :{?symbol} \else
\set symbol ''
\endif
\if :{?regime} \else
\set regime ''
\endif
call ml.retrain(:'model', nullif(:'symbol', ''), nullif(:'regime', ''));
select job_id, model, symbol, regime, status, status_text, queue_position
from ml.jobs where model = :'model' order by job_id desc limit 3;
