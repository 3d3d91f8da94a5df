-- Events row by row, for families that need more than a minute's totals. Each function returns one
-- value: the rows of [from, to) one after the other as record_send writes them, which is a tenth of
-- the work of a column each; times are big-endian microseconds since 2000-01-01 UTC. Rows that a
-- correction replaced or a deletion removed come too, with the time at which they ceased to hold.
-- search_path: not pinned, so that these SQL functions are inlined; every name is qualified.
create or replace function feature._trade_rows(
    symbol text, "from" timestamptz, "to" timestamptz
)
returns table (rows bytea)
language sql stable parallel safe
as $$
    select string_agg(
        record_send(row(v.ts, v.known_at, v.superseded_at, v.price, v.size, v.buy)), ''::bytea
        order by v.ts, v.trade_id, v.known_at
    )
    from (
        select
            t.ts, t.trade_id, t.known_at, timestamptz 'infinity' as superseded_at,
            t.price, t.size, t.side = 'buy' as buy
        from market.trades t
        where t.symbol = $1 and t.ts >= $2 and t.ts < $3
        union all
        select h.ts, h.trade_id, h.known_at, h.superseded_at, h.price, h.size, h.side = 'buy'
        from market.trades_history h
        where h.symbol = $1 and h.ts >= $2 and h.ts < $3
    ) v
$$;

create or replace function feature._top_rows(
    symbol text, "from" timestamptz, "to" timestamptz
)
returns table (rows bytea)
language sql stable parallel safe
as $$
    select string_agg(
        record_send(row(
            v.ts, v.known_at, v.superseded_at, coalesce(v.bid, 'NaN'), coalesce(v.bid_size, 'NaN'),
            coalesce(v.ask, 'NaN'), coalesce(v.ask_size, 'NaN'), v.after_gap
        )), ''::bytea
        order by v.ts, v.sequence, v.known_at
    )
    from (
        select
            b.ts, b.sequence, b.known_at, timestamptz 'infinity' as superseded_at,
            b.bid_prices[1] as bid, b.bid_sizes[1] as bid_size,
            b.ask_prices[1] as ask, b.ask_sizes[1] as ask_size, b.after_gap
        from market.order_book_snapshots b
        where b.symbol = $1 and b.ts >= $2 and b.ts < $3
        union all
        select
            h.ts, h.sequence, h.known_at, h.superseded_at,
            h.bid_prices[1], h.bid_sizes[1], h.ask_prices[1], h.ask_sizes[1], h.after_gap
        from market.order_book_snapshots_history h
        where h.symbol = $1 and h.ts >= $2 and h.ts < $3
    ) v
$$;
