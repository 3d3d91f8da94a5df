-- Events row by row, for families that need more than a minute's totals. Each function returns one
-- value: the rows of [from, to) one after the other, each field eight bytes as they lie in memory,
-- which costs a fraction of a column each. Times are microseconds since 2000-01-01 UTC. Rows that a
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
            feature._bytes(array[
                feature._bits(t.ts), feature._bits(t.known_at), feature._bits('infinity'),
                t.price, case t.side when 'buy' then t.size else -t.size end
            ], 21) as fields
        from market.trades t
        where t.symbol = $1 and t.ts >= $2 and t.ts < $3
        union all
        select
            h.ts, h.trade_id, h.known_at,
            feature._bytes(array[
                feature._bits(h.ts), feature._bits(h.known_at), feature._bits(h.superseded_at),
                h.price, case h.side when 'buy' then h.size else -h.size end
            ], 21)
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
            feature._bytes(array[
                feature._bits(b.ts), feature._bits(b.known_at), feature._bits('infinity'),
                coalesce(b.bid_prices[1], 'NaN'),
                coalesce(case when b.after_gap then -b.bid_sizes[1] else b.bid_sizes[1] end, 'NaN'),
                coalesce(b.ask_prices[1], 'NaN'), coalesce(b.ask_sizes[1], 'NaN')
            ], 21) as fields
        from market.order_book_snapshots b
        where b.symbol = $1 and b.ts >= $2 and b.ts < $3
        union all
        select
            h.ts, h.sequence, h.known_at,
            feature._bytes(array[
                feature._bits(h.ts), feature._bits(h.known_at), feature._bits(h.superseded_at),
                coalesce(h.bid_prices[1], 'NaN'),
                coalesce(case when h.after_gap then -h.bid_sizes[1] else h.bid_sizes[1] end, 'NaN'),
                coalesce(h.ask_prices[1], 'NaN'), coalesce(h.ask_sizes[1], 'NaN')
            ], 21)
        from market.order_book_snapshots_history h
        where h.symbol = $1 and h.ts >= $2 and h.ts < $3
    ) v
$$;
