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
