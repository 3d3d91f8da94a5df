-- What feature families read, one row per call: bars as records one after the other, as record_send
-- writes them; of the rest each column the concatenated big-endian float8 of one channel, ordered by
-- bucket. A million values cross into numpy this way in a fifth of a
-- second. Times are int8 microseconds since 2000-01-01 UTC. NaN stands for null.
-- search_path: not pinned, so that these SQL functions are inlined; every name is qualified.
create or replace function feature._send(x double precision) returns bytea
language sql immutable parallel safe
return pg_catalog.float8send(coalesce(x, 'NaN'));

-- All channels of a bar in one record: a column each would take three times as long.
create or replace function feature._bars(
    symbol text, timeframe interval, "from" timestamptz, "to" timestamptz,
    since timestamptz default null
)
returns table (rows bytea)
language sql stable parallel safe
as $$
    select string_agg(
        record_send(row(
            v.bucket, v.usable_at, v.expires_at, v.first_ts, v.last_ts, v.priority::bigint,
            coalesce(v.open, 'NaN'), coalesce(v.high, 'NaN'), coalesce(v.low, 'NaN'),
            coalesce(v.close, 'NaN'), coalesce(v.volume, 'NaN'),
            coalesce(v.quote_volume, v.volume * (v.high + v.low + v.close) / 3, 'NaN'),
            coalesce(v.taker_buy_volume, 'NaN'),
            coalesce(
                v.taker_buy_quote_volume,
                v.taker_buy_volume * coalesce(v.quote_volume / nullif(v.volume, 0), v.close),
                'NaN'
            ),
            coalesce(v.trade_count::double precision, 'NaN')
        )), ''::bytea order by v.bucket, v.usable_at, v.first_ts, v.tie, v.expires_at
    )
    from market.candle_versions($1, $2, $3, $4, $5) v
$$;

-- The bars of many symbols, a row each in their order. bare: it has nothing but bars loaded at this
-- length, none of them superseded; of the others nothing is read but at most as many bars as it
-- could have. rows: ts, known_at, open, high, low, close and volume of each bar, in no order.
create or replace function feature._bars_of_many(
    symbols text [], timeframe interval, "from" timestamptz, "to" timestamptz
)
returns table (symbol text, bare boolean, rows bytea)
language sql stable parallel safe
as $$
    select
        u.symbol, u.own is not null and b.bare, b.rows
    from (
        -- Each with a limit, or the planner would read whole tables once rather than look here.
        select
            n.symbol,
            case when (
                select true from market.trades t
                where t.symbol = n.symbol and t.ts >= $3 and t.ts < $4 limit 1
            ) or (
                select true from market.trades_history h where h.symbol = n.symbol limit 1
            ) or (
                select true from market.candles_history h where h.symbol = n.symbol limit 1
            ) then null else n.symbol end as own
        from unnest($1) n (symbol)
        offset 0
    ) u
    cross join lateral (
        select
            coalesce(bool_and(s.timeframe = $2), true)
            and count(*) <= date_part('epoch', $4 - $3) / date_part('epoch', $2) + 1 as bare,
            string_agg(feature._bytes(array[
                feature._bits(s.ts), feature._bits(s.known_at),
                s.open, s.high, s.low, s.close, s.volume
            ], 21), ''::bytea) as rows
        from (
            select
                c.timeframe, c.ts, c.known_at, c.open, c.high, c.low, c.close, c.volume
            from market.candles c
            where c.symbol = u.own and c.ts >= $3 and c.ts < $4
            limit (date_part('epoch', $4 - $3) / date_part('epoch', $2) + 2)::bigint
        ) s
    ) b
$$;

create or replace function feature._book(symbol text, "from" timestamptz, "to" timestamptz)
returns table (
    bucket bytea, usable bytea, expires bytea, last_ts bytea, two_sided_count bytea,
    relative_spread_sum bytea, imbalance_sum bytea, mid_sum bytea, n bigint,
    bid_prices bytea, bid_sizes bytea, ask_prices bytea, ask_sizes bytea
)
language sql stable parallel safe
as $$
    select
        string_agg(timestamptz_send(v.bucket), ''::bytea order by v.bucket, v.usable_at, v.last_ts, v.last_sequence, v.expires_at),
        string_agg(timestamptz_send(v.usable_at), ''::bytea order by v.bucket, v.usable_at, v.last_ts, v.last_sequence, v.expires_at),
        string_agg(timestamptz_send(v.expires_at), ''::bytea order by v.bucket, v.usable_at, v.last_ts, v.last_sequence, v.expires_at),
        string_agg(timestamptz_send(v.last_ts), ''::bytea order by v.bucket, v.usable_at, v.last_ts, v.last_sequence, v.expires_at),
        string_agg(feature._send(v.two_sided_count), ''::bytea order by v.bucket, v.usable_at, v.last_ts, v.last_sequence, v.expires_at),
        string_agg(feature._send(v.relative_spread_sum), ''::bytea order by v.bucket, v.usable_at, v.last_ts, v.last_sequence, v.expires_at),
        string_agg(feature._send(v.imbalance_sum), ''::bytea order by v.bucket, v.usable_at, v.last_ts, v.last_sequence, v.expires_at),
        string_agg(feature._send(v.mid_sum), ''::bytea order by v.bucket, v.usable_at, v.last_ts, v.last_sequence, v.expires_at),
        count(*),
        string_agg(array_send(v.bid_prices), ''::bytea order by v.bucket, v.usable_at, v.last_ts, v.last_sequence, v.expires_at),
        string_agg(array_send(v.bid_sizes), ''::bytea order by v.bucket, v.usable_at, v.last_ts, v.last_sequence, v.expires_at),
        string_agg(array_send(v.ask_prices), ''::bytea order by v.bucket, v.usable_at, v.last_ts, v.last_sequence, v.expires_at),
        string_agg(array_send(v.ask_sizes), ''::bytea order by v.bucket, v.usable_at, v.last_ts, v.last_sequence, v.expires_at)
    from market.book_1m_versions($1, $2, $3) v
$$;

create or replace function feature._liquidations(symbol text, "from" timestamptz, "to" timestamptz)
returns table (
    bucket bytea, usable bytea, expires bytea, long_notional bytea, short_notional bytea,
    event_count bytea
)
language sql stable parallel safe
as $$
    select
        string_agg(timestamptz_send(v.bucket), ''::bytea order by v.bucket, v.usable_at, v.tie, v.expires_at),
        string_agg(timestamptz_send(v.usable_at), ''::bytea order by v.bucket, v.usable_at, v.tie, v.expires_at),
        string_agg(timestamptz_send(v.expires_at), ''::bytea order by v.bucket, v.usable_at, v.tie, v.expires_at),
        string_agg(feature._send(v.long_notional), ''::bytea order by v.bucket, v.usable_at, v.tie, v.expires_at),
        string_agg(feature._send(v.short_notional), ''::bytea order by v.bucket, v.usable_at, v.tie, v.expires_at),
        string_agg(feature._send(v.event_count), ''::bytea order by v.bucket, v.usable_at, v.tie, v.expires_at)
    from market.liquidations_1m_versions($1, $2, $3) v
$$;

-- Since when, at the earliest, a quiet stretch of liquidations means none rather than no feed: the
-- first time at which an event at least an hour old was known.
create or replace function feature._liquidation_cover(symbol text, as_of timestamptz)
returns bytea
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    -- plpgsql keeps its plan; an SQL function that is not inlined would plan anew at each call.
    return (
        select timestamptz_send(min(greatest(f.bucket + interval '1 hour', f.usable_at)))
        from (
            select a.bucket, a.usable_at
            from market._liquidations_1m a
            where a.symbol = $1 and a.usable_at <= $2 and a.bucket < $2
            union all
            select
                public.time_bucket(interval '1 minute', h.ts),
                market.usable_at(interval '1 minute', h.ts, h.known_at)
            from market.liquidation_events_history h
            where h.symbol = $1 and h.known_at <= $2 and h.ts < $2
        ) f
    );
end
$$;

create or replace function feature._funding(symbol text, "from" timestamptz, "to" timestamptz)
returns table (ts bytea, usable bytea, expires bytea, rate bytea)
language sql stable parallel safe
as $$
    select
        string_agg(timestamptz_send(v.ts), ''::bytea order by v.ts, v.usable_at, v.expires_at),
        string_agg(timestamptz_send(v.usable_at), ''::bytea order by v.ts, v.usable_at, v.expires_at),
        string_agg(timestamptz_send(v.expires_at), ''::bytea order by v.ts, v.usable_at, v.expires_at),
        string_agg(
            feature._send(v.rate * coalesce(28800 / nullif(date_part('epoch', v.funding_interval), 0), 1)),
            ''::bytea order by v.ts, v.usable_at, v.expires_at
        )
    from market.funding_versions($1, $2, $3) v
$$;

create or replace function feature._open_interest(symbol text, "from" timestamptz, "to" timestamptz)
returns table (ts bytea, usable bytea, expires bytea, open_interest bytea, value bytea)
language sql stable parallel safe
as $$
    select
        string_agg(timestamptz_send(v.ts), ''::bytea order by v.ts, v.usable_at, v.expires_at),
        string_agg(timestamptz_send(v.usable_at), ''::bytea order by v.ts, v.usable_at, v.expires_at),
        string_agg(timestamptz_send(v.expires_at), ''::bytea order by v.ts, v.usable_at, v.expires_at),
        string_agg(feature._send(v.open_interest), ''::bytea order by v.ts, v.usable_at, v.expires_at),
        string_agg(feature._send(v.value), ''::bytea order by v.ts, v.usable_at, v.expires_at)
    from market.open_interest_versions($1, $2, $3) v
$$;
