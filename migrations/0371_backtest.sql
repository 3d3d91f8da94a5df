-- depends: 0370_backtest
--
-- 0371: strategies that are followed live, on paper: what each does as it comes about.

create table backtest.followed (
    strategy text primary key references backtest.strategies (strategy),
    source text not null check (source in ('recorded', 'shadow')),
    since timestamptz not null,
    through timestamptz not null,
    stopped_at timestamptz,
    followed_by text not null default session_user
);
comment on table backtest.followed is 'Strategies that trade live on paper: backtest.follow, backtest.unfollow, and the clock''s backtest.step.';
comment on column backtest.followed.strategy is 'The strategy.';
comment on column backtest.followed.source is 'Whose predictions: recorded or shadow.';
comment on column backtest.followed.since is 'Decisions from this time on.';
comment on column backtest.followed.through is 'What was known before this time has been acted on.';
comment on column backtest.followed.stopped_at is 'When it was stopped; null: it goes on.';
comment on column backtest.followed.followed_by is 'Who started it.';

create table backtest.live_positions (
    strategy text not null references backtest.followed (strategy) on delete cascade,
    symbol text collate "C" not null,
    state jsonb not null,
    primary key (strategy, symbol)
);
comment on table backtest.live_positions is 'Where each followed strategy stands in each instrument.';
comment on column backtest.live_positions.strategy is 'The strategy.';
comment on column backtest.live_positions.symbol is 'The instrument.';
comment on column backtest.live_positions.state is 'What it holds since when, and which predictions wait for a fill or for their turn; times in microseconds since 1970.';

create table backtest.live_trades (
    strategy text not null references backtest.followed (strategy) on delete cascade,
    symbol text collate "C" not null,
    decided_at timestamptz not null,
    side smallint not null check (side in (-1, 1)),
    prediction double precision not null,
    entered_at timestamptz not null,
    entry_price double precision not null,
    exit_decided_at timestamptz not null,
    exited_at timestamptz not null,
    exit_price double precision not null,
    exit_reason text not null check (exit_reason in ('prediction', 'held')),
    quantity double precision not null,
    gross double precision not null,
    fees double precision not null,
    spread double precision not null,
    impact double precision not null,
    funding double precision not null,
    net double precision not null,
    recorded_at timestamptz not null default clock_timestamp(),
    primary key (strategy, symbol, decided_at)
);
comment on table backtest.live_trades is 'Closed trades of followed strategies, written down as they were closed. Compare with a back-test of the same time: backtest.live_differences.';
comment on column backtest.live_trades.strategy is 'The strategy.';
comment on column backtest.live_trades.symbol is 'The instrument.';
comment on column backtest.live_trades.decided_at is 'When the prediction was known.';
comment on column backtest.live_trades.side is '1: long, -1: short.';
comment on column backtest.live_trades.prediction is 'The prediction it was decided on.';
comment on column backtest.live_trades.entered_at is 'Time of the row it filled at.';
comment on column backtest.live_trades.entry_price is 'Price there, quote currency.';
comment on column backtest.live_trades.exit_decided_at is 'When the exit was decided.';
comment on column backtest.live_trades.exited_at is 'Time of the row it was closed at.';
comment on column backtest.live_trades.exit_price is 'Price there.';
comment on column backtest.live_trades.exit_reason is 'prediction: it said so; held: hold was over.';
comment on column backtest.live_trades.quantity is 'Base units.';
comment on column backtest.live_trades.gross is 'Profit before costs, quote currency.';
comment on column backtest.live_trades.fees is 'Fees of both fills.';
comment on column backtest.live_trades.spread is 'Spread paid at both fills.';
comment on column backtest.live_trades.impact is 'Impact of both fills on their own prices.';
comment on column backtest.live_trades.funding is 'Funding paid; negative: received.';
comment on column backtest.live_trades.net is 'gross less all costs.';
comment on column backtest.live_trades.recorded_at is 'When it was written down.';
