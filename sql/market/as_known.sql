-- The rows of a table that happened in [from, to) and were known by as_of, in the version that held
-- then; candles by then closed. What a user's feature set or label reads in place of the table. A migration that adds a
-- column to a table adds it to its function here.
-- search_path: not pinned, so that these SQL functions are inlined; every name is qualified.

create or replace function market._candles_known(
    symbol text, "from" timestamptz, "to" timestamptz, as_of timestamptz
)
returns setof market.candles
language sql stable parallel safe rows 100
as $$
    select
        r.symbol, r.timeframe, r.ts, r.known_at, r.received_at, r.open, r.high, r.low, r.close,
        r.volume, r.quote_volume, r.trade_count, r.taker_buy_volume
    from market.candles r
    where r.symbol = $1 and r.ts >= $2 and r.ts < $3 and r.known_at <= $4
        and r.ts + r.timeframe <= $3
    union all
    select
        r.symbol, r.timeframe, r.ts, r.known_at, r.received_at, r.open, r.high, r.low, r.close,
        r.volume, r.quote_volume, r.trade_count, r.taker_buy_volume
    from market.candles_history r
    where r.symbol = $1 and r.ts >= $2 and r.ts < $3
        and r.known_at <= $4 and r.superseded_at > $4
        and r.ts + r.timeframe <= $3
$$;

create or replace function market._trades_known(
    symbol text, "from" timestamptz, "to" timestamptz, as_of timestamptz
)
returns setof market.trades
language sql stable parallel safe rows 100
as $$
    select
        r.symbol, r.ts, r.trade_id, r.known_at, r.received_at, r.price, r.size, r.side
    from market.trades r
    where r.symbol = $1 and r.ts >= $2 and r.ts < $3 and r.known_at <= $4
    union all
    select
        r.symbol, r.ts, r.trade_id, r.known_at, r.received_at, r.price, r.size, r.side
    from market.trades_history r
    where r.symbol = $1 and r.ts >= $2 and r.ts < $3
        and r.known_at <= $4 and r.superseded_at > $4
$$;

create or replace function market._order_book_snapshots_known(
    symbol text, "from" timestamptz, "to" timestamptz, as_of timestamptz
)
returns setof market.order_book_snapshots
language sql stable parallel safe rows 100
as $$
    select
        r.symbol, r.ts, r.sequence, r.known_at, r.received_at, r.bid_prices, r.bid_sizes,
        r.ask_prices, r.ask_sizes, r.after_gap
    from market.order_book_snapshots r
    where r.symbol = $1 and r.ts >= $2 and r.ts < $3 and r.known_at <= $4
    union all
    select
        r.symbol, r.ts, r.sequence, r.known_at, r.received_at, r.bid_prices, r.bid_sizes,
        r.ask_prices, r.ask_sizes, r.after_gap
    from market.order_book_snapshots_history r
    where r.symbol = $1 and r.ts >= $2 and r.ts < $3
        and r.known_at <= $4 and r.superseded_at > $4
$$;

create or replace function market._liquidation_events_known(
    symbol text, "from" timestamptz, "to" timestamptz, as_of timestamptz
)
returns setof market.liquidation_events
language sql stable parallel safe rows 100
as $$
    select
        r.symbol, r.ts, r.event_id, r.known_at, r.received_at, r.side, r.price, r.size,
        r.notional
    from market.liquidation_events r
    where r.symbol = $1 and r.ts >= $2 and r.ts < $3 and r.known_at <= $4
    union all
    select
        r.symbol, r.ts, r.event_id, r.known_at, r.received_at, r.side, r.price, r.size,
        r.notional
    from market.liquidation_events_history r
    where r.symbol = $1 and r.ts >= $2 and r.ts < $3
        and r.known_at <= $4 and r.superseded_at > $4
$$;

create or replace function market._funding_rates_known(
    symbol text, "from" timestamptz, "to" timestamptz, as_of timestamptz
)
returns setof market.funding_rates
language sql stable parallel safe rows 100
as $$
    select
        r.symbol, r.ts, r.known_at, r.received_at, r.rate, r.funding_interval
    from market.funding_rates r
    where r.symbol = $1 and r.ts >= $2 and r.ts < $3 and r.known_at <= $4
    union all
    select
        r.symbol, r.ts, r.known_at, r.received_at, r.rate, r.funding_interval
    from market.funding_rates_history r
    where r.symbol = $1 and r.ts >= $2 and r.ts < $3
        and r.known_at <= $4 and r.superseded_at > $4
$$;

create or replace function market._open_interest_known(
    symbol text, "from" timestamptz, "to" timestamptz, as_of timestamptz
)
returns setof market.open_interest
language sql stable parallel safe rows 100
as $$
    select
        r.symbol, r.ts, r.known_at, r.received_at, r.open_interest, r.value
    from market.open_interest r
    where r.symbol = $1 and r.ts >= $2 and r.ts < $3 and r.known_at <= $4
    union all
    select
        r.symbol, r.ts, r.known_at, r.received_at, r.open_interest, r.value
    from market.open_interest_history r
    where r.symbol = $1 and r.ts >= $2 and r.ts < $3
        and r.known_at <= $4 and r.superseded_at > $4
$$;

-- Where a symbol's data begin: rows, those that were superseded, and buckets of rows that were
-- dropped. Each by its index.
create or replace function market._first(symbol text) returns bigint
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
begin
    return ops._micros(least(
        (select t.ts from market.trades t where t.symbol = $1 order by t.ts limit 1),
        (select t.ts from market.trades_history t where t.symbol = $1 order by t.ts limit 1),
        (select c.ts from market.candles c where c.symbol = $1 order by c.ts limit 1),
        (select c.ts from market.candles_history c where c.symbol = $1 order by c.ts limit 1),
        (select b.ts from market.order_book_snapshots b where b.symbol = $1 order by b.ts limit 1),
        (select b.ts from market.order_book_snapshots_history b where b.symbol = $1 order by b.ts limit 1),
        (select r.bucket from market._trades_1m_rows r where r.symbol = $1 order by r.bucket limit 1),
        (select r.bucket from market._book_1m_rows r where r.symbol = $1 order by r.bucket limit 1)
    ));
end
$$;
comment on function market._first(text) is
'The time from which on anything of a symbol''s trades, bars or books is there, in microseconds since 1970; null: nothing.';
