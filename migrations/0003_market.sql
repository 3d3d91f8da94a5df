-- depends: 0002_ops
--
-- 0003: market data. Every time-series table has two clocks: ts, when it happened, and known_at,
-- when it could first have been used here. A row is never known before it happened; where the
-- source's own receive clock ran early, received_at keeps what it said.
--
-- The tables hold the current version of each row. A corrected or deleted row moves to
-- <table>_history with superseded_at, so that a question asked as of an earlier time still gets
-- the earlier answer.
create type market.side as enum ('buy', 'sell');

comment on type market.side is 'Side of a trade''s aggressor, or of a forced order: a liquidated long is a forced sell.';

create table market.instruments (
    symbol text collate "C" primary key,
    exchange text not null,
    native_symbol text not null,
    base text not null,
    quote text not null,
    kind text not null default 'perpetual'
    check (kind in ('spot', 'perpetual', 'future', 'option', 'index')),
    contract_size double precision not null default 1 check (contract_size > 0),
    is_inverse boolean not null default false,
    tick_size double precision check (tick_size > 0),
    lot_size double precision check (lot_size > 0),
    aliases text [] not null default '{}',
    priority integer not null default 100,
    is_simulated boolean not null default false,
    created_at timestamptz not null default clock_timestamp(),
    unique (exchange, native_symbol, kind)
);
create index instruments_aliases_idx on market.instruments using gin (aliases);

create table market.candles (
    symbol text collate "C" not null,
    timeframe interval not null check (timeframe > interval '0'),
    ts timestamptz not null,
    known_at timestamptz not null default clock_timestamp(),
    received_at timestamptz,
    open double precision not null,
    high double precision not null,
    low double precision not null,
    close double precision not null,
    volume double precision not null,
    quote_volume double precision,
    trade_count bigint,
    taker_buy_volume double precision,
    primary key (symbol, timeframe, ts),
    constraint candles_known_after_close check (timezone('UTC', known_at) >= timezone('UTC', ts) + timeframe),
    constraint candles_range check (high >= low and open between low and high and close between low and high and low > 0),
    constraint candles_volume check (volume >= 0)
);

create table market.trades (
    symbol text collate "C" not null,
    ts timestamptz not null,
    trade_id text collate "C" not null,
    known_at timestamptz not null default clock_timestamp(),
    received_at timestamptz,
    price double precision not null check (price > 0),
    size double precision not null check (size > 0),
    side market.side not null,
    primary key (symbol, ts, trade_id),
    constraint trades_known_after check (known_at >= ts)
);

create table market.order_book_snapshots (
    symbol text collate "C" not null,
    ts timestamptz not null,
    sequence bigint not null default 0,
    known_at timestamptz not null default clock_timestamp(),
    received_at timestamptz,
    bid_prices double precision [] not null,
    bid_sizes double precision [] not null,
    ask_prices double precision [] not null,
    ask_sizes double precision [] not null,
    after_gap boolean not null default false,
    primary key (symbol, ts, sequence),
    constraint order_book_known_after check (known_at >= ts),
    constraint order_book_shape check (
        cardinality(bid_prices) = cardinality(bid_sizes)
        and cardinality(ask_prices) = cardinality(ask_sizes)
    ),
    constraint order_book_not_crossed check (bid_prices[1] < ask_prices[1])
);

create table market.liquidation_events (
    symbol text collate "C" not null,
    ts timestamptz not null,
    event_id text collate "C" not null,
    known_at timestamptz not null default clock_timestamp(),
    received_at timestamptz,
    side market.side not null,
    price double precision not null check (price > 0),
    size double precision not null check (size > 0),
    notional double precision not null check (notional > 0),
    primary key (symbol, ts, event_id),
    constraint liquidation_events_known_after check (known_at >= ts)
);

create table market.funding_rates (
    symbol text collate "C" not null,
    ts timestamptz not null,
    known_at timestamptz not null default clock_timestamp(),
    received_at timestamptz,
    rate double precision not null,
    funding_interval interval,
    primary key (symbol, ts),
    constraint funding_rates_known_after check (known_at >= ts)
);

create table market.open_interest (
    symbol text collate "C" not null,
    ts timestamptz not null,
    known_at timestamptz not null default clock_timestamp(),
    received_at timestamptz,
    open_interest double precision check (open_interest >= 0),
    value double precision check (value >= 0),
    primary key (symbol, ts),
    constraint open_interest_known_after check (known_at >= ts),
    constraint open_interest_something check (open_interest is not null or value is not null)
);

select public.create_hypertable('market.candles', public.by_range('ts', interval '30 days'), create_default_indexes => false);
select public.create_hypertable('market.trades', public.by_range('ts', interval '1 day'), create_default_indexes => false);
select public.create_hypertable('market.order_book_snapshots', public.by_range('ts', interval '1 day'), create_default_indexes => false);
select public.create_hypertable('market.liquidation_events', public.by_range('ts', interval '7 days'), create_default_indexes => false);
select public.create_hypertable('market.funding_rates', public.by_range('ts', interval '90 days'), create_default_indexes => false);
select public.create_hypertable('market.open_interest', public.by_range('ts', interval '30 days'), create_default_indexes => false);

create table market.candles_history (like market.candles, superseded_at timestamptz not null);
create table market.trades_history (like market.trades, superseded_at timestamptz not null);
create table market.order_book_snapshots_history (like market.order_book_snapshots, superseded_at timestamptz not null);
create table market.liquidation_events_history (like market.liquidation_events, superseded_at timestamptz not null);
create table market.funding_rates_history (like market.funding_rates, superseded_at timestamptz not null);
create table market.open_interest_history (like market.open_interest, superseded_at timestamptz not null);

create index on market.candles_history (symbol, timeframe, ts);
create index on market.trades_history (symbol, ts);
create index on market.order_book_snapshots_history (symbol, ts);
create index on market.liquidation_events_history (symbol, ts);
create index on market.funding_rates_history (symbol, ts);
create index on market.open_interest_history (symbol, ts);

create table market.loads (
    load_id bigint generated always as identity primary key,
    kind text not null,
    format text,
    file text not null,
    file_sha256 bytea,
    options jsonb not null default '{}',
    status text not null default 'running' check (status in ('running', 'done', 'failed', 'interrupted')),
    resume_line bigint not null default 0,
    resume_state jsonb,
    rows_read bigint not null default 0,
    rows_loaded bigint not null default 0,
    rows_duplicate bigint not null default 0,
    rows_quarantined bigint not null default 0,
    counters jsonb not null default '{}',
    error text,
    loaded_by text not null default session_user,
    started_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz
);

create table market.quarantine (
    quarantine_id bigint generated always as identity primary key,
    load_id bigint references market.loads (load_id),
    kind text not null,
    file text not null,
    line bigint not null,
    reason text not null,
    detail text,
    raw text,
    created_at timestamptz not null default clock_timestamp(),
    unique (file, line, kind, reason)
);

create table market.sequence_gaps (
    symbol text collate "C" not null,
    ts timestamptz not null,
    stream text not null,
    expected bigint not null,
    received bigint not null,
    load_id bigint references market.loads (load_id),
    primary key (symbol, ts, stream, expected)
);

comment on table market.instruments is 'One row per tradable contract at a venue. symbol is the name every other table uses: the native symbol for the default exchange (setting market.default_exchange), native_symbol@exchange for the others. aliases are further names (BTC/USDT:USDT, XBTUSD); market.resolve(text) finds the symbol for any of them.';
comment on column market.instruments.contract_size is 'Base units (quote units where is_inverse) in one contract; sizes in market.* are already in base units.';
comment on column market.instruments.priority is 'Lower wins when a bare name fits several venues.';
comment on table market.candles is 'Bars as loaded. ts is the opening time, the bar covers [ts, ts + timeframe). Prices in quote currency, volume and taker_buy_volume in base units, quote_volume in quote currency.';
comment on table market.trades is 'Trades, price in quote currency, size in base units, side = aggressor.';
comment on table market.order_book_snapshots is 'Top-N levels per side, best first. Prices in quote currency, sizes in base units. after_gap: first snapshot after missing updates.';
comment on table market.liquidation_events is 'Forced orders. side is the forced order''s: sell = a long was liquidated. notional = price x size in quote currency.';
comment on table market.funding_rates is 'Funding as a fraction of notional paid by longs at ts, for funding_interval.';
comment on table market.open_interest is 'Open contracts in base units (open_interest) and in quote currency (value); at least one is there.';
comment on table market.loads is 'One row per file loaded: what was read, loaded, refused, and where to resume.';
comment on table market.quarantine is 'Rows that a load refused, with file, line and reason. Nothing is dropped silently.';
comment on table market.sequence_gaps is 'Holes found in sequence numbers of order-book feeds.';
comment on table market.candles_history is 'Superseded versions of market.candles rows.';
comment on table market.trades_history is 'Superseded versions of market.trades rows.';
comment on table market.order_book_snapshots_history is 'Superseded versions of market.order_book_snapshots rows.';
comment on table market.liquidation_events_history is 'Superseded versions of market.liquidation_events rows.';
comment on table market.funding_rates_history is 'Superseded versions of market.funding_rates rows.';
comment on table market.open_interest_history is 'Superseded versions of market.open_interest rows.';
