-- depends: 0360_analytics
--
-- 0370: back-tests of predictions: strategies, what trading costs, and every trial with its results.

create table backtest.costs (
    costs text primary key,
    fee_bps double precision not null check (fee_bps between -100 and 1000),
    half_spread_bps double precision not null check (half_spread_bps between 0 and 1000),
    impact double precision not null check (impact between 0 and 100),
    funding boolean not null default true,
    description text not null
);
comment on table backtest.costs is 'What trading costs, by name; strategies refer to it.';
comment on column backtest.costs.costs is 'Name of the costs.';
comment on column backtest.costs.fee_bps is 'Fee for each fill, basis points of its notional; negative: a rebate.';
comment on column backtest.costs.half_spread_bps is 'Half the spread paid at each fill at a trade''s or bar''s price, basis points; fills from the order book pay the book''s own.';
comment on column backtest.costs.impact is 'Y of the square-root law: a fill of q moves the price by Y x daily volatility x sqrt(q / daily volume). About 1 in the literature; 0: none.';
comment on column backtest.costs.funding is 'Whether open positions pay and receive funding (market.funding_rates).';
comment on column backtest.costs.description is 'What it stands for.';

create table backtest.strategies (
    strategy text primary key,
    family text not null,
    model text not null references ml.models (model),
    symbols text [] collate "C" not null check (cardinality(symbols) > 0),
    enter_long double precision,
    exit_long double precision,
    enter_short double precision,
    exit_short double precision,
    hold interval check (hold > interval '0'),
    sizing text not null default 'fixed' check (sizing in ('fixed', 'confidence', 'volatility')),
    size double precision not null default 1 check (size > 0 and size <= 100),
    target_volatility double precision not null default 0.02 check (target_volatility > 0 and target_volatility <= 10),
    capital double precision not null default 100000 check (capital > 0 and capital < 1e15),
    fill text not null default 'trade' check (fill in ('trade', 'book', 'bar')),
    latency interval not null default interval '1 second' check (latency >= interval '0'),
    max_wait interval not null default interval '5 minutes' check (max_wait > interval '0'),
    bar interval not null default interval '1 hour' check (bar >= interval '1 minute'),
    costs text not null references backtest.costs (costs),
    description text not null default '',
    created_at timestamptz not null default clock_timestamp(),
    created_by text not null default session_user,
    check (enter_long is not null or enter_short is not null),
    check (enter_long is null or exit_long is not null or hold is not null),
    check (enter_short is null or exit_short is not null or hold is not null)
);
comment on table backtest.strategies is
'How predictions of a model are traded; set with backtest.create_strategy, tried with backtest.run.';
comment on column backtest.strategies.strategy is 'Name of the strategy.';
comment on column backtest.strategies.family is 'What its trials are counted with: all of a family compete, and the best of them is judged as the best of so many.';
comment on column backtest.strategies.model is 'The model whose predictions it trades.';
comment on column backtest.strategies.symbols is 'The instruments it trades, each by itself.';
comment on column backtest.strategies.enter_long is 'Buys when flat and the prediction is at least this; null: never.';
comment on column backtest.strategies.exit_long is 'Sells what it bought when the prediction is below this; null: holds for hold.';
comment on column backtest.strategies.enter_short is 'Sells short when flat and the prediction is at most this; null: never.';
comment on column backtest.strategies.exit_short is 'Buys back when the prediction is above this; null: holds for hold.';
comment on column backtest.strategies.hold is 'Longest time in a position; null: until the prediction says so.';
comment on column backtest.strategies.sizing is 'fixed: size x capital; confidence: times how far the prediction is from one half, doubled; volatility: times target_volatility over the last day''s volatility, at most three times.';
comment on column backtest.strategies.size is 'Share of the capital in one position.';
comment on column backtest.strategies.target_volatility is 'Daily volatility for which size is meant (sizing by volatility).';
comment on column backtest.strategies.capital is 'Capital in quote currency; profits are not reinvested.';
comment on column backtest.strategies.fill is 'Where a fill''s price comes from: the next trade, the next order book (best ask or bid), or the open of the next bar.';
comment on column backtest.strategies.latency is 'From decision to when an order can fill.';
comment on column backtest.strategies.max_wait is 'An entry that finds no fill for so long is given up.';
comment on column backtest.strategies.bar is 'Step of the equity curve.';
comment on column backtest.strategies.costs is 'What trading costs.';
comment on column backtest.strategies.description is 'What it is for.';
comment on column backtest.strategies.created_at is 'When it was made.';
comment on column backtest.strategies.created_by is 'Who made it.';

create table backtest.trials (
    trial_id bigint generated always as identity primary key,
    strategy text not null,
    family text not null,
    settings jsonb not null,
    settings_sha256 bytea not null,
    source text not null check (source in ('auto', 'recorded', 'shadow', 'walk-forward')),
    from_ts timestamptz not null,
    to_ts timestamptz not null,
    as_of timestamptz not null,
    seed bigint not null,
    predictions bigint not null,
    trades bigint not null,
    given_up bigint not null,
    returns double precision [] not null,
    first_bar timestamptz not null,
    ran_at timestamptz not null default clock_timestamp(),
    ran_by text not null default session_user
);
create index trials_family_idx on backtest.trials (family, trial_id);
comment on table backtest.trials is 'Every back-test that was ever run: what was tried is counted here. Append-only.';
comment on column backtest.trials.trial_id is 'Number of the trial.';
comment on column backtest.trials.strategy is 'The strategy.';
comment on column backtest.trials.family is 'Its family then.';
comment on column backtest.trials.settings is 'The strategy and its costs as they were.';
comment on column backtest.trials.settings_sha256 is 'SHA-256 of settings, source and time: the same trial run twice is one trial.';
comment on column backtest.trials.source is 'Whose predictions: recorded, shadow, walk-forward, or auto (recorded ones, before them walk-forward).';
comment on column backtest.trials.from_ts is 'Decisions from this time on.';
comment on column backtest.trials.to_ts is 'Decisions before this time.';
comment on column backtest.trials.as_of is 'What was known at this time.';
comment on column backtest.trials.seed is 'Seed of the bootstrap and of the random entries.';
comment on column backtest.trials.predictions is 'Predictions it decided on.';
comment on column backtest.trials.trades is 'Trades it made.';
comment on column backtest.trials.given_up is 'Entries that found no fill.';
comment on column backtest.trials.returns is 'Change of equity by bar over the capital.';
comment on column backtest.trials.first_bar is 'Start of the first bar.';
comment on column backtest.trials.ran_at is 'When it ran.';
comment on column backtest.trials.ran_by is 'Who ran it.';

create table backtest.trades (
    trial_id bigint not null references backtest.trials (trial_id) on delete cascade,
    trade integer not null,
    symbol text collate "C" not null,
    side smallint not null check (side in (-1, 1)),
    prediction double precision not null,
    decided_at timestamptz not null,
    entered_at timestamptz not null,
    entry_price double precision not null,
    exit_decided_at timestamptz not null,
    exited_at timestamptz not null,
    exit_price double precision not null,
    exit_reason text not null check (exit_reason in ('prediction', 'held', 'end')),
    quantity double precision not null,
    gross double precision not null,
    fees double precision not null,
    spread double precision not null,
    impact double precision not null,
    funding double precision not null,
    net double precision not null,
    primary key (trial_id, trade)
);
comment on table backtest.trades is 'The trades of each trial, with what each cost.';
comment on column backtest.trades.trial_id is 'The trial.';
comment on column backtest.trades.trade is 'Number of the trade, by time of decision.';
comment on column backtest.trades.symbol is 'The instrument.';
comment on column backtest.trades.side is '1: long, -1: short.';
comment on column backtest.trades.prediction is 'The prediction it was decided on.';
comment on column backtest.trades.decided_at is 'When that was known.';
comment on column backtest.trades.entered_at is 'Time of the row it filled at.';
comment on column backtest.trades.entry_price is 'Price there, quote currency.';
comment on column backtest.trades.exit_decided_at is 'When the exit was decided.';
comment on column backtest.trades.exited_at is 'Time of the row it was closed at.';
comment on column backtest.trades.exit_price is 'Price there.';
comment on column backtest.trades.exit_reason is 'prediction: it said so; held: hold was over; end: the back-test was.';
comment on column backtest.trades.quantity is 'Base units.';
comment on column backtest.trades.gross is 'Profit before costs, quote currency.';
comment on column backtest.trades.fees is 'Fees of both fills.';
comment on column backtest.trades.spread is 'Spread paid at both fills.';
comment on column backtest.trades.impact is 'Impact of both fills on their own prices.';
comment on column backtest.trades.funding is 'Funding paid; negative: received.';
comment on column backtest.trades.net is 'gross less all costs.';

create table backtest.equity (
    trial_id bigint not null references backtest.trials (trial_id) on delete cascade,
    ts timestamptz not null,
    equity double precision not null,
    drawdown double precision not null,
    position double precision not null,
    turnover double precision not null,
    primary key (trial_id, ts)
);
comment on table backtest.equity is 'The equity of each trial at the end of each bar.';
comment on column backtest.equity.trial_id is 'The trial.';
comment on column backtest.equity.ts is 'End of the bar.';
comment on column backtest.equity.equity is 'Capital and profits, open positions at the last price, quote currency.';
comment on column backtest.equity.drawdown is 'Below the highest equity so far, as a share of it.';
comment on column backtest.equity.position is 'Gross notional of open positions over the capital.';
comment on column backtest.equity.turnover is 'Notional traded in the bar over the capital.';

create table backtest.metrics (
    trial_id bigint not null references backtest.trials (trial_id) on delete cascade,
    metric text not null,
    value double precision,
    low double precision,
    high double precision,
    primary key (trial_id, metric)
);
comment on table backtest.metrics is 'What each trial came to.';
comment on column backtest.metrics.trial_id is 'The trial.';
comment on column backtest.metrics.metric is 'Name, see backtest.run.';
comment on column backtest.metrics.value is 'Value.';
comment on column backtest.metrics.low is 'Lower end of its 95 % interval, where it has one.';
comment on column backtest.metrics.high is 'Upper end.';
