-- What bars were known when: loaded, made from loaded minutes, made from trades. How the spans of
-- time work is said in revisions.sql. search_path: not pinned where the function is to be inlined.

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
-- Planned for the values at hand: that leaves all chunks out but those asked for.
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_custom_plan
set timezone = 'UTC' -- a day of timeframe is 24 hours
as $$
#variable_conflict use_column
begin
    return query
        select
            s.ts,
            market.usable_at(interval '1 minute', s.ts + s.timeframe - interval '1 minute', s.known_at),
            timestamptz 'infinity', s.open, s.high, s.low, s.close, s.volume, s.quote_volume,
            s.trade_count, s.taker_buy_volume
        from market.candles s
        where s.symbol = $1 and s.timeframe = $2 and s.ts >= $3 and s.ts < $4;
    if exists (
        select from market.candles_history h
        where h.symbol = $1 and h.timeframe = $2 and h.ts >= $3 and h.ts < $4
    ) then
        return query
            select r.*
            from (
                select
                    s.ts,
                    market.usable_at(
                        interval '1 minute', s.ts + s.timeframe - interval '1 minute', s.known_at
                    ) as usable_at,
                    market.usable_at(
                        interval '1 minute', s.ts + s.timeframe - interval '1 minute',
                        s.superseded_at
                    ) as expires_at,
                    s.open, s.high, s.low, s.close, s.volume, s.quote_volume, s.trade_count,
                    s.taker_buy_volume
                from market.candles_history s
                where s.symbol = $1 and s.timeframe = $2 and s.ts >= $3 and s.ts < $4
            ) r
            where r.usable_at < r.expires_at;
    end if;
end
$$;

-- Bars of a timeframe made from one-minute bars: the current partials, and for buckets of which
-- anything was superseded the current and the superseded rows themselves, so that a correction counts
-- once whether or not the aggregate has been refreshed since.
create or replace function market._candles_superseded(
    symbol text, timeframe interval, "from" timestamptz, "to" timestamptz
)
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
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
rows 10
as $$
#variable_conflict use_column
begin
    if not exists (
        select from market.candles_history h
        where h.symbol = $1 and h.timeframe = interval '1 minute' and h.ts >= $3
            and h.ts < $4 + $2
    ) then
        return;
    end if;
    return query
        select
            a.bucket, a.usable_at, timestamptz 'infinity', a.open, a.high, a.low, a.close,
            a.volume, a.quote_volume, a.trade_count, a.taker_buy_volume, a.first_ts, a.last_ts
        from (
            select distinct public.time_bucket($2, h.ts) as bucket
            from market.candles_history h
            where h.symbol = $1 and h.timeframe = interval '1 minute' and h.ts >= $3
                and h.ts < $4 + $2
        ) d
        cross join lateral market._candles_of($1, $2, d.bucket, d.bucket + $2) a
        where d.bucket >= $3 and d.bucket < $4
        union all
        select
            h.bucket, h.usable_at, h.expires_at, public.first(h.open, h.ts), max(h.high),
            min(h.low), public.last(h.close, h.ts), sum(h.volume order by h.ts),
            sum(h.quote_volume order by h.ts), sum(h.trade_count)::bigint,
            sum(h.taker_buy_volume order by h.ts), min(h.ts), max(h.ts)
        from (
            select
                s.*, public.time_bucket($2, s.ts) as bucket,
                market.usable_at($2, s.ts, s.known_at) as usable_at,
                market.usable_at($2, s.ts, s.superseded_at) as expires_at
            from market.candles_history s
            where s.symbol = $1 and s.timeframe = interval '1 minute' and s.ts >= $3
                and s.ts < $4 + $2
        ) h
        where h.usable_at < h.expires_at and h.bucket >= $3 and h.bucket < $4
        group by h.bucket, h.usable_at, h.expires_at;
end
$$;

create or replace function market._candles_versions(
    symbol text, timeframe interval, "from" timestamptz, "to" timestamptz
)
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
    from market._candles_between($1, $2, $3, $4) a
    where a.bucket <> all(array(
        select public.time_bucket($2, h.ts)
        from market.candles_history h
        where h.symbol = $1 and h.timeframe = interval '1 minute' and h.ts >= $3
            and h.ts < $4 + $2
    ))
    union all
    select r.* from market._candles_superseded($1, $2, $3, $4) r
$$;

-- The stretches of [from, to) in which bars from trades can count at some time not before since
-- (null: all of it): a bucket with a loaded bar, or one made from loaded minutes, that stands
-- today and was known by then needs none.
create or replace function market._bar_gaps(
    symbol text, timeframe interval, "from" timestamptz, "to" timestamptz, since timestamptz
)
returns table (gap_from timestamptz, gap_to timestamptz)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
rows 1
as $$
declare
    v_first timestamptz := public.time_bucket($2, $3);
    v_known timestamptz [];
begin
    if since is null then
        return query select $3, $4;
        return;
    end if;
    v_known := array(
        select c.ts
        from market.candles c
        where c.symbol = $1 and c.timeframe = $2 and c.ts >= $3 and c.ts < $4
            and market.usable_at(interval '1 minute', c.ts + $2 - interval '1 minute', c.known_at)
            <= greatest($5, c.ts + $2)
    );
    v_known := v_known || array(
        select a.bucket from market._candles_between($1, $2, $3, $4) a
        where a.usable_at <= greatest($5, a.bucket + $2)
    );
    if cardinality(v_known) = 0 then
        return query select $3, $4;
        return;
    end if;
    return query
        with gaps as (
            select greatest(min(b.bucket), $3) as low, least(max(b.bucket) + $2, $4) as high
            from (
                select g.bucket, g.bucket - row_number() over (order by g.bucket) * $2 as island
                from (
                    select generate_series(v_first, $4 - interval '1 microsecond', $2)
                    except
                    select unnest(v_known)
                ) g (bucket)
            ) b
            group by b.island
        )
        -- Many small gaps are read in one go.
        select min(g.low), max(g.high)
        from gaps g
        group by case when (select count(*) from gaps) <= 4 then g.low end;
end
$$;

create or replace function market.candle_versions(
    symbol text, timeframe interval, "from" timestamptz, "to" timestamptz,
    since timestamptz default null
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
    last_ts timestamptz,
    tie text
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
-- By index: a plan kept from when the tables were empty would read all of them.
set enable_seqscan = off
as $$
begin
    "from" := ops._within("from");
    "to" := ops._within("to");
    since := ops._within(since);
    return query
        select
            v.ts, v.usable_at, v.expires_at, 0, v.open, v.high, v.low, v.close, v.volume,
            v.quote_volume, v.trade_count, v.taker_buy_volume, null::double precision, v.ts, v.ts,
            ''
        from market._loaded_versions($1, $2, $3, $4) v;
    if timeframe = interval '1 minute' then
        return query
            select
                v.bucket, v.usable_at, v.expires_at, 2, v.open, v.high, v.low, v.close, v.volume,
                v.quote_volume, v.trade_count, v.buy_volume, v.buy_quote_volume,
                v.first_ts, v.last_ts, v.first_id
            from market._bar_gaps($1, $2, $3, $4, $5) g
            cross join lateral market.trades_1m_versions($1, g.gap_from, g.gap_to) v;
        return;
    end if;
    if not exists (
        select from market.aggregates a where a.source = 'market.candles'::regclass and a.width = $2
    ) then
        return;
    end if;
    return query
        select
            v.bucket, v.usable_at, v.expires_at, 1, v.open, v.high, v.low, v.close, v.volume,
            v.quote_volume, v.trade_count, v.taker_buy_volume, null::double precision,
            v.first_ts, v.last_ts, ''
        from market._candles_versions($1, $2, $3, $4) v;
    -- Bars from trades, of the longer lengths: the one-minute partials moved to the longer bucket.
    return query
        select
            t.bar, greatest(t.bar + $2, t.usable_at), t.expires_at, 2,
            public.first(t.open, row(t.first_ts, t.first_id)), max(t.high), min(t.low),
            public.last(t.close, row(t.last_ts, t.last_id)), sum(t.volume order by t.first_ts, t.first_id),
            sum(t.quote_volume order by t.first_ts, t.first_id), sum(t.trade_count)::bigint,
            sum(t.buy_volume order by t.first_ts, t.first_id),
            sum(t.buy_quote_volume order by t.first_ts, t.first_id),
            min(t.first_ts), max(t.last_ts), ''
        from (
            select v.*, public.time_bucket($2, v.bucket) as bar
            from market._bar_gaps($1, $2, $3, $4, $5) g
            cross join lateral market.trades_1m_versions($1, g.gap_from, g.gap_to) v
        ) t
        where greatest(t.bar + $2, t.usable_at) < t.expires_at
        group by 1, 2, 3;
end
$$;
comment on function market.candle_versions(text, interval, timestamptz, timestamptz, timestamptz) is
'Bars of a length, opening in [from, to), with the span in which they were known, as partial rows to be merged per bucket. since: only times not before it are asked about (null: any at all), and bars from trades are left out where a better source was known by then. Where several sources have a bucket the lowest priority counts: 0 loaded at this length, 1 made from loaded one-minute bars, 2 made from trades. Prices in quote currency, volumes in base units, quote volumes in quote currency.';
