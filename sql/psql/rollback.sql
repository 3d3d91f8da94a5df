-- Serve the version before, or a given one again.
-- Usage: psql -v model=liquidation_15m -v symbol=BTCUSDT [-v steps=1 | -v to_version=7] [-v regime=…] [-v reason='why'] -f sql/psql/rollback.sql
\set ON_ERROR_STOP on
\if :{?model} \else
\warn 'usage: psql -v model=liquidation_15m -v symbol=BTCUSDT [-v steps=1 | -v to_version=7] [-v regime=r] [-v reason=why] -f sql/psql/rollback.sql'
do $$ begin raise exception 'a variable is missing; the usage is above' using errcode = 'AP700', hint = 'Give it with psql -v name=value.'; end $$;
\endif
\if :{?symbol} \else
\set symbol ''
\endif
\if :{?steps} \else
\set steps 1
\endif
\if :{?to_version} \else
\set to_version ''
\endif
\if :{?regime} \else
\set regime ''
\endif
\if :{?reason} \else
\set reason ''
\endif
call ml.rollback(
    model => :'model', symbol => nullif(:'symbol', ''), steps => :'steps'::integer,
    to_version => nullif(:'to_version', '')::bigint, regime => nullif(:'regime', ''), reason => nullif(:'reason', '')
);
select at, model, symbol, regime, action, previous_version_id, version_id, actor, reason
from ml.alias_history
where model = :'model'
order by history_id desc
limit 3;
