-- What back-tests came to, as dashboards read it.
create or replace view backtest.results as
select
    t.trial_id,
    t.strategy,
    t.family,
    t.source,
    t.from_ts,
    t.to_ts,
    t.predictions,
    t.trades,
    m.net_return,
    m.sharpe,
    m.sharpe_low,
    m.sharpe_high,
    m.max_drawdown,
    m.hit_rate,
    m.exposure,
    m.turnover_per_day,
    m.buy_and_hold_return,
    m.random_entry_p,
    t.settings,
    t.ran_at,
    t.ran_by
from backtest.trials t
cross join lateral (
    select
        max(x.value) filter (where x.metric = 'net_return') as net_return,
        max(x.value) filter (where x.metric = 'sharpe') as sharpe,
        max(x.low) filter (where x.metric = 'sharpe') as sharpe_low,
        max(x.high) filter (where x.metric = 'sharpe') as sharpe_high,
        max(x.value) filter (where x.metric = 'max_drawdown') as max_drawdown,
        max(x.value) filter (where x.metric = 'hit_rate') as hit_rate,
        max(x.value) filter (where x.metric = 'exposure') as exposure,
        max(x.value) filter (where x.metric = 'turnover_per_day') as turnover_per_day,
        max(x.value) filter (where x.metric = 'buy_and_hold_return') as buy_and_hold_return,
        max(x.value) filter (where x.metric = 'random_entry_p') as random_entry_p
    from backtest.metrics x
    where x.trial_id = t.trial_id
) m;
comment on view backtest.results is 'Every trial with its main figures.';
comment on column backtest.results.trial_id is 'The trial.';
comment on column backtest.results.strategy is 'The strategy.';
comment on column backtest.results.family is 'What it is counted with.';
comment on column backtest.results.source is 'Whose predictions.';
comment on column backtest.results.from_ts is 'Decisions from this time on.';
comment on column backtest.results.to_ts is 'Decisions before this time.';
comment on column backtest.results.predictions is 'Predictions it decided on.';
comment on column backtest.results.trades is 'Trades.';
comment on column backtest.results.net_return is 'Profit after all costs over the capital.';
comment on column backtest.results.sharpe is 'Sharpe ratio of the bars, annualised.';
comment on column backtest.results.sharpe_low is 'Lower end of its 95 % interval.';
comment on column backtest.results.sharpe_high is 'Upper end.';
comment on column backtest.results.max_drawdown is 'Deepest fall below the highest equity, as a share of it.';
comment on column backtest.results.hit_rate is 'Share of trades that earned something after costs.';
comment on column backtest.results.exposure is 'Share of bars that end in a position.';
comment on column backtest.results.turnover_per_day is 'Notional traded over the capital, per day.';
comment on column backtest.results.buy_and_hold_return is 'Return of holding the instruments alike over the same time.';
comment on column backtest.results.random_entry_p is 'Share of random entries that did as well.';
comment on column backtest.results.settings is 'The strategy and costs as they were.';
comment on column backtest.results.ran_at is 'When it ran.';
comment on column backtest.results.ran_by is 'Who ran it.';
