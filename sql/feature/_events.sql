-- Events row by row, for families that need more than a minute's totals. Each function returns one
-- value: the rows of [from, to) one after the other, each field eight bytes in network order, which
-- costs a fraction of a column each. Times are microseconds since 2000-01-01 UTC. Rows that a
-- correction replaced or a deletion removed come too, with the time at which they ceased to hold
-- (infinity, the greatest int8, for those that stand).
-- search_path: not pinned, so that these SQL functions are inlined; every name is qualified.

-- Fields: ts, known_at, superseded_at, price, size (negative where the seller was the aggressor).
create or replace function feature._trade_rows(
    symbol text, "from" timestamptz, "to" timestamptz
)
returns table (rows bytea)
language sql stable parallel safe
as $$
    select string_agg(v.fields, ''::bytea order by v.ts, v.trade_id, v.known_at)
    from (
        select
            t.ts, t.trade_id, t.known_at,
            timestamptz_send(t.ts) || timestamptz_send(t.known_at) || '\x7fffffffffffffff'::bytea
            || float8send(t.price) || float8send(case t.side when 'buy' then t.size else -t.size end)
            as fields
        from market.trades t
        where t.symbol = $1 and t.ts >= $2 and t.ts < $3
        union all
        select
            h.ts, h.trade_id, h.known_at,
            timestamptz_send(h.ts) || timestamptz_send(h.known_at)
            || timestamptz_send(h.superseded_at)
            || float8send(h.price) || float8send(case h.side when 'buy' then h.size else -h.size end)
        from market.trades_history h
        where h.symbol = $1 and h.ts >= $2 and h.ts < $3
    ) v
$$;

-- Fields: ts, known_at, superseded_at, best bid, its size, best ask, its size (NaN where there is
-- none; a negative bid size says that the feed had a gap before).
create or replace function feature._top_rows(
    symbol text, "from" timestamptz, "to" timestamptz
)
returns table (rows bytea)
language sql stable parallel safe
as $$
    select string_agg(v.fields, ''::bytea order by v.ts, v.sequence, v.known_at)
    from (
        select
            b.ts, b.sequence, b.known_at,
            timestamptz_send(b.ts) || timestamptz_send(b.known_at) || '\x7fffffffffffffff'::bytea
            || feature._send(b.bid_prices[1])
            || feature._send(case when b.after_gap then -b.bid_sizes[1] else b.bid_sizes[1] end)
            || feature._send(b.ask_prices[1]) || feature._send(b.ask_sizes[1]) as fields
        from market.order_book_snapshots b
        where b.symbol = $1 and b.ts >= $2 and b.ts < $3
        union all
        select
            h.ts, h.sequence, h.known_at,
            timestamptz_send(h.ts) || timestamptz_send(h.known_at)
            || timestamptz_send(h.superseded_at)
            || feature._send(h.bid_prices[1])
            || feature._send(case when h.after_gap then -h.bid_sizes[1] else h.bid_sizes[1] end)
            || feature._send(h.ask_prices[1]) || feature._send(h.ask_sizes[1])
        from market.order_book_snapshots_history h
        where h.symbol = $1 and h.ts >= $2 and h.ts < $3
    ) v
$$;
