-- What was known when. Each function returns partial rows with the span [usable_at, expires_at) of
-- whole minutes in which they hold; the state as of t is the merge of the rows with
-- usable_at <= t < expires_at. Rows come from the current tables (expires_at = infinity) and from
-- what corrections and deletions superseded (<table>_history). A bucket of which anything was
-- superseded comes row by row, so that its sums can be taken in the order they were taken before.
-- search_path: not pinned, so that these SQL functions are inlined; every name is qualified.

create or replace function market._trades_1m_superseded(symbol text, "from" timestamptz, "to" timestamptz)
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
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
rows 10
as $$
#variable_conflict use_column
begin
    if not exists (
        select from market.trades_history h
        where h.symbol = $1 and h.ts >= $2 and h.ts < $3
    ) then
        return;
    end if;
    return query
        select
            r.bucket,
            r.usable_at,
            r.expires_at,
            r.price,
            r.price,
            r.price,
            r.price,
            r.size,
            r.price * r.size,
            case when r.side = 'buy' then r.size else 0 end,
            case when r.side = 'buy' then r.price * r.size else 0 end,
            1::bigint,
            r.ts,
            r.trade_id,
            r.ts,
            r.trade_id
        from (
            select
                s.*,
                t.bucket,
                market.usable_at(interval '1 minute', s.ts, s.known_at) as usable_at,
                timestamptz 'infinity' as expires_at
            from (
                select distinct public.time_bucket(interval '1 minute', h.ts) as bucket
                from market.trades_history h
                where h.symbol = $1 and h.ts >= $2 and h.ts < $3
            ) t
            cross join lateral (
                select c.*
                from market.trades c
                where c.symbol = $1 and c.ts >= t.bucket and c.ts < t.bucket + interval '1 minute'
            ) s
        ) r
        union all
        select
            r.bucket,
            r.usable_at,
            r.expires_at,
            r.price,
            r.price,
            r.price,
            r.price,
            r.size,
            r.price * r.size,
            case when r.side = 'buy' then r.size else 0 end,
            case when r.side = 'buy' then r.price * r.size else 0 end,
            1::bigint,
            r.ts,
            r.trade_id,
            r.ts,
            r.trade_id
        from (
            select
                s.*,
                public.time_bucket(interval '1 minute', s.ts) as bucket,
                market.usable_at(interval '1 minute', s.ts, s.known_at) as usable_at,
                market.usable_at(interval '1 minute', s.ts, s.superseded_at) as expires_at
            from market.trades_history s
            where s.symbol = $1 and s.ts >= $2 and s.ts < $3
        ) r
        where r.usable_at < r.expires_at;
end
$$;

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
    where a.bucket <> all(array(
        select public.time_bucket(interval '1 minute', h.ts)
        from market.trades_history h
        where h.symbol = $1 and h.ts >= $2 and h.ts < $3
    ))
    union all
    select r.* from market._trades_1m_superseded($1, $2, $3) r
$$;
comment on function market.trades_1m_versions(text, timestamptz, timestamptz) is
'One-minute trade aggregates of buckets in [from, to) with the span in which they were known: one or more partial rows a bucket, to be merged. Prices in quote currency, volumes in base units.';

create or replace function market._book_1m_superseded(symbol text, "from" timestamptz, "to" timestamptz)
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
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
rows 10
as $$
#variable_conflict use_column
begin
    if not exists (
        select from market.order_book_snapshots_history h
        where h.symbol = $1 and h.ts >= $2 and h.ts < $3
    ) then
        return;
    end if;
    return query
        select
            r.bucket,
            r.usable_at,
            r.expires_at,
            1::bigint,
            (r.bid_prices[1] + r.ask_prices[1] is not null)::integer::bigint,
            r.ask_prices[1] - r.bid_prices[1],
            (r.ask_prices[1] + r.bid_prices[1]) / 2,
            (r.ask_prices[1] - r.bid_prices[1]) / (r.ask_prices[1] + r.bid_prices[1]) * 2,
            (r.bid_sizes[1] - r.ask_sizes[1]) / nullif(r.bid_sizes[1] + r.ask_sizes[1], 0),
            r.ts,
            r.sequence,
            r.bid_prices,
            r.bid_sizes,
            r.ask_prices,
            r.ask_sizes
        from (
            select
                s.*,
                t.bucket,
                market.usable_at(interval '1 minute', s.ts, s.known_at) as usable_at,
                timestamptz 'infinity' as expires_at
            from (
                select distinct public.time_bucket(interval '1 minute', h.ts) as bucket
                from market.order_book_snapshots_history h
                where h.symbol = $1 and h.ts >= $2 and h.ts < $3
            ) t
            cross join lateral (
                select c.*
                from market.order_book_snapshots c
                where c.symbol = $1 and c.ts >= t.bucket and c.ts < t.bucket + interval '1 minute'
            ) s
        ) r
        union all
        select
            r.bucket,
            r.usable_at,
            r.expires_at,
            1::bigint,
            (r.bid_prices[1] + r.ask_prices[1] is not null)::integer::bigint,
            r.ask_prices[1] - r.bid_prices[1],
            (r.ask_prices[1] + r.bid_prices[1]) / 2,
            (r.ask_prices[1] - r.bid_prices[1]) / (r.ask_prices[1] + r.bid_prices[1]) * 2,
            (r.bid_sizes[1] - r.ask_sizes[1]) / nullif(r.bid_sizes[1] + r.ask_sizes[1], 0),
            r.ts,
            r.sequence,
            r.bid_prices,
            r.bid_sizes,
            r.ask_prices,
            r.ask_sizes
        from (
            select
                s.*,
                public.time_bucket(interval '1 minute', s.ts) as bucket,
                market.usable_at(interval '1 minute', s.ts, s.known_at) as usable_at,
                market.usable_at(interval '1 minute', s.ts, s.superseded_at) as expires_at
            from market.order_book_snapshots_history s
            where s.symbol = $1 and s.ts >= $2 and s.ts < $3
        ) r
        where r.usable_at < r.expires_at;
end
$$;

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
    where a.bucket <> all(array(
        select public.time_bucket(interval '1 minute', h.ts)
        from market.order_book_snapshots_history h
        where h.symbol = $1 and h.ts >= $2 and h.ts < $3
    ))
    union all
    select r.* from market._book_1m_superseded($1, $2, $3) r
$$;
comment on function market.book_1m_versions(text, timestamptz, timestamptz) is
'One-minute order-book aggregates of buckets in [from, to) with the span in which they were known: sums over snapshots of spread, mid, relative spread and top-level imbalance, and the levels of the last snapshot.';

create or replace function market._liquidations_1m_superseded(symbol text, "from" timestamptz, "to" timestamptz)
returns table (
    bucket timestamptz,
    usable_at timestamptz,
    expires_at timestamptz,
    event_count bigint,
    long_notional double precision,
    short_notional double precision,
    max_notional double precision,
    tie text
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
rows 10
as $$
#variable_conflict use_column
begin
    if not exists (
        select from market.liquidation_events_history h
        where h.symbol = $1 and h.ts >= $2 and h.ts < $3
    ) then
        return;
    end if;
    return query
        select
            r.bucket,
            r.usable_at,
            r.expires_at,
            1::bigint,
            case when r.side = 'sell' then r.notional else 0 end,
            case when r.side = 'buy' then r.notional else 0 end,
            r.notional,
            concat(r.ts, r.event_id)
        from (
            select
                s.*,
                t.bucket,
                market.usable_at(interval '1 minute', s.ts, s.known_at) as usable_at,
                timestamptz 'infinity' as expires_at
            from (
                select distinct public.time_bucket(interval '1 minute', h.ts) as bucket
                from market.liquidation_events_history h
                where h.symbol = $1 and h.ts >= $2 and h.ts < $3
            ) t
            cross join lateral (
                select c.*
                from market.liquidation_events c
                where c.symbol = $1 and c.ts >= t.bucket and c.ts < t.bucket + interval '1 minute'
            ) s
        ) r
        union all
        select
            r.bucket,
            r.usable_at,
            r.expires_at,
            1::bigint,
            case when r.side = 'sell' then r.notional else 0 end,
            case when r.side = 'buy' then r.notional else 0 end,
            r.notional,
            concat(r.ts, r.event_id)
        from (
            select
                s.*,
                public.time_bucket(interval '1 minute', s.ts) as bucket,
                market.usable_at(interval '1 minute', s.ts, s.known_at) as usable_at,
                market.usable_at(interval '1 minute', s.ts, s.superseded_at) as expires_at
            from market.liquidation_events_history s
            where s.symbol = $1 and s.ts >= $2 and s.ts < $3
        ) r
        where r.usable_at < r.expires_at;
end
$$;

create or replace function market.liquidations_1m_versions(symbol text, "from" timestamptz, "to" timestamptz)
returns table (
    bucket timestamptz,
    usable_at timestamptz,
    expires_at timestamptz,
    event_count bigint,
    long_notional double precision,
    short_notional double precision,
    max_notional double precision,
    tie text
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
        a.max_notional,
        ''
    from market._liquidations_1m_between($1, $2, $3) a
    where a.bucket <> all(array(
        select public.time_bucket(interval '1 minute', h.ts)
        from market.liquidation_events_history h
        where h.symbol = $1 and h.ts >= $2 and h.ts < $3
    ))
    union all
    select r.* from market._liquidations_1m_superseded($1, $2, $3) r
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
    where s.symbol = $1 and s.ts >= ops._within($2) and s.ts < ops._within($3)
    union all
    select
        s.ts,
        market.usable_at(interval '1 minute', s.ts, s.known_at),
        market.usable_at(interval '1 minute', s.ts, s.superseded_at),
        s.rate, s.funding_interval
    from market.funding_rates_history s
    where s.symbol = $1 and s.ts >= ops._within($2) and s.ts < ops._within($3)
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
    where s.symbol = $1 and s.ts >= ops._within($2) and s.ts < ops._within($3)
    union all
    select
        s.ts,
        market.usable_at(interval '1 minute', s.ts, s.known_at),
        market.usable_at(interval '1 minute', s.ts, s.superseded_at),
        s.open_interest, s.value
    from market.open_interest_history s
    where s.symbol = $1 and s.ts >= ops._within($2) and s.ts < ops._within($3)
        and market.usable_at(interval '1 minute', s.ts, s.known_at)
        < market.usable_at(interval '1 minute', s.ts, s.superseded_at)
$$;
comment on function market.open_interest_versions(text, timestamptz, timestamptz) is
'Open interest stamped in [from, to) (base units, and value in quote currency) with the span in which it was known.';
