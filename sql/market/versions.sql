-- What was known when. Each function returns partial rows with the span [usable_at, expires_at) of
-- whole minutes in which they hold; the state as of t is the merge of the rows with
-- usable_at <= t < expires_at. Rows come from the current tables (expires_at = infinity) and from
-- what corrections and deletions superseded (<table>_history).
-- search_path: not pinned, so that these SQL functions are inlined; every name is qualified.

create or replace function market.trades_1m_versions(symbol text, "from" timestamptz, "to" timestamptz)
returns table (
    bucket timestamptz,
    usable_at timestamptz,
    expires_at timestamptz,
    open double precision,
    high double precision,
    low double precision,
    close double precision,
    volume double precision,
    quote_volume double precision,
    buy_volume double precision,
    buy_quote_volume double precision,
    trade_count bigint,
    first_ts timestamptz,
    first_id text,
    last_ts timestamptz,
    last_id text
)
language sql stable parallel safe
as $$
    select
        a.bucket,
        a.usable_at,
        timestamptz 'infinity',
        a.open,
        a.high,
        a.low,
        a.close,
        a.volume,
        a.quote_volume,
        a.buy_volume,
        a.buy_quote_volume,
        a.trade_count,
        a.first_ts,
        a.first_id,
        a.last_ts,
        a.last_id
    from market._trades_1m_between($1, $2, $3) a
    union all
    select
        h.bucket,
        h.usable_at,
        h.expires_at,
        public.first(h.price, row(h.ts, h.trade_id)),
        max(h.price),
        min(h.price),
        public.last(h.price, row(h.ts, h.trade_id)),
        sum(h.size),
        sum(h.price * h.size),
        sum(case when h.side = 'buy' then h.size else 0 end),
        sum(case when h.side = 'buy' then h.price * h.size else 0 end),
        count(*),
        min(h.ts),
        public.first(h.trade_id, row(h.ts, h.trade_id)),
        max(h.ts),
        public.last(h.trade_id, row(h.ts, h.trade_id))
    from (
        select
            s.*,
            public.time_bucket(interval '1 minute', s.ts) as bucket,
            market.usable_at(interval '1 minute', s.ts, s.known_at) as usable_at,
            market.usable_at(interval '1 minute', s.ts, s.superseded_at) as expires_at
        from market.trades_history s
        where s.symbol = $1 and s.ts >= $2 and s.ts < $3
    ) h
    where h.usable_at < h.expires_at
    group by 1, 2, 3
$$;
comment on function market.trades_1m_versions(text, timestamptz, timestamptz) is
'One-minute trade aggregates of buckets in [from, to) with the span in which they were known: one or more partial rows a bucket, to be merged. Prices in quote currency, volumes in base units.';

create or replace function market.book_1m_versions(symbol text, "from" timestamptz, "to" timestamptz)
returns table (
    bucket timestamptz,
    usable_at timestamptz,
    expires_at timestamptz,
    snapshot_count bigint,
    two_sided_count bigint,
    spread_sum double precision,
    mid_sum double precision,
    relative_spread_sum double precision,
    imbalance_sum double precision,
    last_ts timestamptz,
    last_sequence bigint,
    bid_prices double precision [],
    bid_sizes double precision [],
    ask_prices double precision [],
    ask_sizes double precision []
)
language sql stable parallel safe
as $$
    select
        a.bucket,
        a.usable_at,
        timestamptz 'infinity',
        a.snapshot_count,
        a.two_sided_count,
        a.spread_sum,
        a.mid_sum,
        a.relative_spread_sum,
        a.imbalance_sum,
        a.last_ts,
        a.last_sequence,
        a.bid_prices,
        a.bid_sizes,
        a.ask_prices,
        a.ask_sizes
    from market._book_1m_between($1, $2, $3) a
    union all
    select
        h.bucket,
        h.usable_at,
        h.expires_at,
        count(*),
        count(h.bid_prices[1] + h.ask_prices[1]),
        sum(h.ask_prices[1] - h.bid_prices[1]),
        sum((h.ask_prices[1] + h.bid_prices[1]) / 2),
        sum((h.ask_prices[1] - h.bid_prices[1]) / (h.ask_prices[1] + h.bid_prices[1]) * 2),
        sum((h.bid_sizes[1] - h.ask_sizes[1]) / nullif(h.bid_sizes[1] + h.ask_sizes[1], 0)),
        max(h.ts),
        public.last(h.sequence, row(h.ts, h.sequence)),
        public.last(h.bid_prices, row(h.ts, h.sequence)),
        public.last(h.bid_sizes, row(h.ts, h.sequence)),
        public.last(h.ask_prices, row(h.ts, h.sequence)),
        public.last(h.ask_sizes, row(h.ts, h.sequence))
    from (
        select
            s.*,
            public.time_bucket(interval '1 minute', s.ts) as bucket,
            market.usable_at(interval '1 minute', s.ts, s.known_at) as usable_at,
            market.usable_at(interval '1 minute', s.ts, s.superseded_at) as expires_at
        from market.order_book_snapshots_history s
        where s.symbol = $1 and s.ts >= $2 and s.ts < $3
    ) h
    where h.usable_at < h.expires_at
    group by 1, 2, 3
$$;
comment on function market.book_1m_versions(text, timestamptz, timestamptz) is
'One-minute order-book aggregates of buckets in [from, to) with the span in which they were known: sums over snapshots of spread, mid, relative spread and top-level imbalance, and the levels of the last snapshot.';

create or replace function market.liquidations_1m_versions(symbol text, "from" timestamptz, "to" timestamptz)
returns table (
    bucket timestamptz,
    usable_at timestamptz,
    expires_at timestamptz,
    event_count bigint,
    long_notional double precision,
    short_notional double precision,
    max_notional double precision
)
language sql stable parallel safe
as $$
    select
        a.bucket,
        a.usable_at,
        timestamptz 'infinity',
        a.event_count,
        a.long_notional,
        a.short_notional,
        a.max_notional
    from market._liquidations_1m_between($1, $2, $3) a
    union all
    select
        h.bucket,
        h.usable_at,
        h.expires_at,
        count(*),
        sum(case when h.side = 'sell' then h.notional else 0 end),
        sum(case when h.side = 'buy' then h.notional else 0 end),
        max(h.notional)
    from (
        select
            s.*,
            public.time_bucket(interval '1 minute', s.ts) as bucket,
            market.usable_at(interval '1 minute', s.ts, s.known_at) as usable_at,
            market.usable_at(interval '1 minute', s.ts, s.superseded_at) as expires_at
        from market.liquidation_events_history s
        where s.symbol = $1 and s.ts >= $2 and s.ts < $3
    ) h
    where h.usable_at < h.expires_at
    group by 1, 2, 3
$$;
comment on function market.liquidations_1m_versions(text, timestamptz, timestamptz) is
'One-minute forced-liquidation totals of buckets in [from, to) with the span in which they were known: notional in quote currency, long = forced sells, short = forced buys.';

create or replace function market.funding_versions(symbol text, "from" timestamptz, "to" timestamptz)
returns table (
    ts timestamptz,
    usable_at timestamptz,
    expires_at timestamptz,
    rate double precision,
    funding_interval interval
)
language sql stable parallel safe
as $$
    select s.ts, market.usable_at(interval '1 minute', s.ts, s.known_at), timestamptz 'infinity', s.rate, s.funding_interval
    from market.funding_rates s
    where s.symbol = $1 and s.ts >= $2 and s.ts < $3
    union all
    select
        s.ts,
        market.usable_at(interval '1 minute', s.ts, s.known_at),
        market.usable_at(interval '1 minute', s.ts, s.superseded_at),
        s.rate, s.funding_interval
    from market.funding_rates_history s
    where s.symbol = $1 and s.ts >= $2 and s.ts < $3
        and market.usable_at(interval '1 minute', s.ts, s.known_at)
        < market.usable_at(interval '1 minute', s.ts, s.superseded_at)
$$;
comment on function market.funding_versions(text, timestamptz, timestamptz) is
'Funding rates stamped in [from, to) (fraction of notional per funding_interval) with the span in which they were known.';

create or replace function market.open_interest_versions(symbol text, "from" timestamptz, "to" timestamptz)
returns table (
    ts timestamptz,
    usable_at timestamptz,
    expires_at timestamptz,
    open_interest double precision,
    value double precision
)
language sql stable parallel safe
as $$
    select s.ts, market.usable_at(interval '1 minute', s.ts, s.known_at), timestamptz 'infinity', s.open_interest, s.value
    from market.open_interest s
    where s.symbol = $1 and s.ts >= $2 and s.ts < $3
    union all
    select
        s.ts,
        market.usable_at(interval '1 minute', s.ts, s.known_at),
        market.usable_at(interval '1 minute', s.ts, s.superseded_at),
        s.open_interest, s.value
    from market.open_interest_history s
    where s.symbol = $1 and s.ts >= $2 and s.ts < $3
        and market.usable_at(interval '1 minute', s.ts, s.known_at)
        < market.usable_at(interval '1 minute', s.ts, s.superseded_at)
$$;
comment on function market.open_interest_versions(text, timestamptz, timestamptz) is
'Open interest stamped in [from, to) (base units, and value in quote currency) with the span in which it was known.';

-- Bars as loaded, of any length.
create or replace function market._loaded_versions(
    symbol text, timeframe interval, "from" timestamptz, "to" timestamptz
)
returns table (
    ts timestamptz,
    usable_at timestamptz,
    expires_at timestamptz,
    open double precision,
    high double precision,
    low double precision,
    close double precision,
    volume double precision,
    quote_volume double precision,
    trade_count bigint,
    taker_buy_volume double precision
)
language sql stable parallel safe
as $$
    select
        s.ts,
        market.usable_at(interval '1 minute', s.ts + s.timeframe - interval '1 minute', s.known_at),
        timestamptz 'infinity',
        s.open, s.high, s.low, s.close, s.volume, s.quote_volume, s.trade_count, s.taker_buy_volume
    from market.candles s
    where s.symbol = $1 and s.timeframe = $2 and s.ts >= $3 and s.ts < $4
    union all
    select
        s.ts,
        market.usable_at(interval '1 minute', s.ts + s.timeframe - interval '1 minute', s.known_at),
        market.usable_at(interval '1 minute', s.ts + s.timeframe - interval '1 minute', s.superseded_at),
        s.open, s.high, s.low, s.close, s.volume, s.quote_volume, s.trade_count, s.taker_buy_volume
    from market.candles_history s
    where s.symbol = $1 and s.timeframe = $2 and s.ts >= $3 and s.ts < $4
        and market.usable_at(interval '1 minute', s.ts + s.timeframe - interval '1 minute', s.known_at)
        < market.usable_at(interval '1 minute', s.ts + s.timeframe - interval '1 minute', s.superseded_at)
$$;

-- One function a bar length made from one-minute bars: current partials, and what history adds.
do $do$
declare
    v_bar record;
begin
    for v_bar in select a.name, a.width from market.aggregates a where a.name ~ '^_candles_' loop
        execute format($body$
create or replace function market.%1$I(symbol text, "from" timestamptz, "to" timestamptz)
returns table (
    bucket timestamptz,
    usable_at timestamptz,
    expires_at timestamptz,
    open double precision,
    high double precision,
    low double precision,
    close double precision,
    volume double precision,
    quote_volume double precision,
    trade_count bigint,
    taker_buy_volume double precision,
    first_ts timestamptz,
    last_ts timestamptz
)
language sql stable parallel safe
as $$
    select
        a.bucket, a.usable_at, timestamptz 'infinity', a.open, a.high, a.low, a.close, a.volume,
        a.quote_volume, a.trade_count, a.taker_buy_volume, a.first_ts, a.last_ts
    from market.%2$I($1, $2, $3) a
    union all
    select
        h.bucket, h.usable_at, h.expires_at, public.first(h.open, h.ts), max(h.high), min(h.low),
        public.last(h.close, h.ts), sum(h.volume), sum(h.quote_volume), sum(h.trade_count)::bigint,
        sum(h.taker_buy_volume), min(h.ts), max(h.ts)
    from (
        select
            s.*, public.time_bucket(interval %3$L, s.ts) as bucket,
            market.usable_at(interval %3$L, s.ts, s.known_at) as usable_at,
            market.usable_at(interval %3$L, s.ts, s.superseded_at) as expires_at
        from market.candles_history s
        where s.symbol = $1 and s.timeframe = interval '1 minute' and s.ts >= $2 and s.ts < $3
    ) h
    where h.usable_at < h.expires_at
    group by 1, 2, 3
$$
$body$, v_bar.name || '_versions', v_bar.name || '_between', v_bar.width);
    end loop;
end
$do$;

create or replace function market.candle_versions(
    symbol text, timeframe interval, "from" timestamptz, "to" timestamptz
)
returns table (
    bucket timestamptz,
    usable_at timestamptz,
    expires_at timestamptz,
    priority integer,
    open double precision,
    high double precision,
    low double precision,
    close double precision,
    volume double precision,
    quote_volume double precision,
    trade_count bigint,
    taker_buy_volume double precision,
    taker_buy_quote_volume double precision,
    first_ts timestamptz,
    last_ts timestamptz
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    return query
        select
            v.ts, v.usable_at, v.expires_at, 0, v.open, v.high, v.low, v.close, v.volume,
            v.quote_volume, v.trade_count, v.taker_buy_volume, null::double precision, v.ts, v.ts
        from market._loaded_versions($1, $2, $3, $4) v;
    if timeframe = interval '1 minute' then
        return query
            select
                v.bucket, v.usable_at, v.expires_at, 2, v.open, v.high, v.low, v.close, v.volume,
                v.quote_volume, v.trade_count, v.buy_volume, v.buy_quote_volume,
                v.first_ts, v.last_ts
            from market.trades_1m_versions($1, $3, $4) v;
        return;
    elsif timeframe = interval '5 minutes' then
        return query
            select
                v.bucket, v.usable_at, v.expires_at, 1, v.open, v.high, v.low, v.close, v.volume,
                v.quote_volume, v.trade_count, v.taker_buy_volume, null::double precision,
                v.first_ts, v.last_ts
            from market._candles_5m_versions($1, $3, $4) v;
    elsif timeframe = interval '15 minutes' then
        return query
            select
                v.bucket, v.usable_at, v.expires_at, 1, v.open, v.high, v.low, v.close, v.volume,
                v.quote_volume, v.trade_count, v.taker_buy_volume, null::double precision,
                v.first_ts, v.last_ts
            from market._candles_15m_versions($1, $3, $4) v;
    elsif timeframe = interval '1 hour' then
        return query
            select
                v.bucket, v.usable_at, v.expires_at, 1, v.open, v.high, v.low, v.close, v.volume,
                v.quote_volume, v.trade_count, v.taker_buy_volume, null::double precision,
                v.first_ts, v.last_ts
            from market._candles_1h_versions($1, $3, $4) v;
    elsif timeframe = interval '4 hours' then
        return query
            select
                v.bucket, v.usable_at, v.expires_at, 1, v.open, v.high, v.low, v.close, v.volume,
                v.quote_volume, v.trade_count, v.taker_buy_volume, null::double precision,
                v.first_ts, v.last_ts
            from market._candles_4h_versions($1, $3, $4) v;
    elsif timeframe = interval '1 day' then
        return query
            select
                v.bucket, v.usable_at, v.expires_at, 1, v.open, v.high, v.low, v.close, v.volume,
                v.quote_volume, v.trade_count, v.taker_buy_volume, null::double precision,
                v.first_ts, v.last_ts
            from market._candles_1d_versions($1, $3, $4) v;
    else
        return;
    end if;
    -- Bars from trades, of the longer lengths: the one-minute partials moved to the longer bucket.
    return query
        select
            t.bar, greatest(t.bar + $2, t.usable_at), t.expires_at, 2,
            public.first(t.open, row(t.first_ts, t.first_id)), max(t.high), min(t.low),
            public.last(t.close, row(t.last_ts, t.last_id)), sum(t.volume), sum(t.quote_volume),
            sum(t.trade_count)::bigint, sum(t.buy_volume), sum(t.buy_quote_volume),
            min(t.first_ts), max(t.last_ts)
        from (
            select v.*, public.time_bucket($2, v.bucket) as bar
            from market.trades_1m_versions($1, $3, $4) v
        ) t
        where greatest(t.bar + $2, t.usable_at) < t.expires_at
        group by 1, 2, 3;
end
$$;
comment on function market.candle_versions(text, interval, timestamptz, timestamptz) is
'Bars of a length, opening in [from, to), with the span in which they were known, as partial rows to be merged per bucket. Where several sources have a bucket the lowest priority counts: 0 loaded at this length, 1 made from loaded one-minute bars, 2 made from trades. Prices in quote currency, volumes in base units, quote volumes in quote currency.';
