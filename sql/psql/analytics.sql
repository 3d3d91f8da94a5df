-- What is looked at, in one page. Usage: psql -f sql/psql/analytics.sql
\set ON_ERROR_STOP on
\echo '== models'
select model, symbol, status, reason, predictions, outcomes,
    round(log_loss::numeric, 4) as log_loss, round(base_rate_log_loss::numeric, 4) as base_rate_log_loss
from analytics.model_health;
\echo '== market'
select symbol, price, trend, regime, round(liquidity_score::numeric, 2) as liquidity,
    round(volatility_score::numeric, 2) as volatility, liquidation_risk, stale
from analytics.comprehensive_analysis;
\echo '== data'
select symbol, source, status, last_ts, age, detail from analytics.data_quality where status <> 'good';
\echo '== back-tests'
select trial_id, strategy, trades, round(net_return::numeric, 4) as net_return,
    round(sharpe::numeric, 2) as sharpe, round(random_entry_p::numeric, 3) as random_entry_p
from backtest.results
order by trial_id desc
limit 20;
\echo '== followed live'
select f.strategy, f.source, f.since, f.through, f.stopped_at, count(t.strategy) as trades,
    round(sum(t.net)::numeric, 2) as net
from backtest.followed f
left join backtest.live_trades t on t.strategy = f.strategy
group by f.strategy
order by f.strategy;
\echo '== what followed moments like now, over a day'
select i.symbol, o.moments, round(o.return_p05::numeric, 4) as p05, round(o.return_p50::numeric, 4) as median,
    round(o.return_p95::numeric, 4) as p95, round(o.probability_up::numeric, 3) as probability_up,
    round(o.base_probability_up::numeric, 3) as base_rate, o.reason
from market.instruments i
cross join lateral analytics.similar_outcomes(i.symbol) o
order by i.symbol;
\echo '== what tiles and views hang on'
select kind, name, owner, count(*) as things,
    string_agg(depends_on, ', ' order by depends_on) filter (where depends_on_kind = 'model') as models
from analytics.exposures
group by kind, name, owner
order by kind, name;
