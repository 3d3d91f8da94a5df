-- The regime of a symbol: now, its last episodes, and how often it was revised.
-- Usage: psql -v symbol=BTCUSDT [-v as_of='2026-02-10 12:00+00'] [-v timeframe='1 hour'] -f sql/psql/regimes.sql
\set ON_ERROR_STOP on
\if :{?symbol} \else
\warn 'usage: psql -v symbol=BTCUSDT [-v as_of=time] [-v timeframe=length] -f sql/psql/regimes.sql'
do $$ begin raise exception 'a variable is missing; the usage is above' using errcode = 'AP700', hint = 'Give it with psql -v name=value.'; end $$;
\endif
\if :{?as_of} \else
\set as_of ''
\endif
\if :{?timeframe} \else
\set timeframe '1 hour'
\endif
select regime, round(confidence::numeric, 3) as confidence, since, bar, version, in_sample
from regime.classify(:'symbol', nullif(:'as_of', '')::timestamptz, :'timeframe');
select regime, start, "end", duration, confirmed_at
from regime.episodes
where symbol = market.resolve(:'symbol') and timeframe = :'timeframe'::interval
order by start desc limit 10;
select bar_count, round(agreement, 3) as agreement, round(agreement_after_12, 3) as after_12_bars,
    nowcast_changes, verdict_changes, median_wait
from regime.revision
where symbol = market.resolve(:'symbol') and timeframe = :'timeframe'::interval;
