-- What a model sees now against what it was trained on, worst first. Usage: psql -v model=liquidation_15m [-v symbol=BTCUSDT] [-v window=1d] -f sql/psql/drift_check.sql
\set ON_ERROR_STOP on
\if :{?model} \else
\warn 'usage: psql -v model=liquidation_15m [-v symbol=BTCUSDT] [-v window=1d] -f sql/psql/drift_check.sql'
do $$ begin raise exception 'a variable is missing; the usage is above' using errcode = 'AP700', hint = 'Give it with psql -v name=value.'; end $$;
\endif
\if :{?symbol} \else
\set symbol ''
\endif
\if :{?window} \else
\set window '1 day'
\endif
select feature, kind, round(ks::numeric, 3) as ks, round(psi::numeric, 3) as psi,
    round(wasserstein::numeric, 3) as wasserstein, round(p_adjusted::numeric, 5) as p_adjusted,
    severity, round(blame::numeric, 3) as blame
from drift.check(:'model', nullif(:'symbol', ''), :'window'::interval);
