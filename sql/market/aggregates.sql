-- The aggregates: what each is made of, and reading a stretch of one symbol. Rows are partial: one per
-- symbol, bucket and usable_at, the first whole minute at which the source rows could be used. Merging
-- the partials with usable_at <= t gives the bucket as it was known at t; on-time data has one partial
-- a bucket.
--
-- Per aggregate: _<name>_of computes it from the rows; _<name>_rows holds it as of the last refresh;
-- _<name>_fresh computes what changed since; _<name>_between is both, and the view _<name> is both for
-- all symbols. What keeps _<name>_rows, says what is stale (market._stale) and refreshes it is the back
-- end's: back_end.apache.sql or back_end.community.sql.
--
-- Not pinned, so that they are inlined: _of and _between. A read costs no more with more chunks: what is
-- refreshed comes from an index, and the hypertable is only touched, and planned for, where something
-- changed.

create or replace function market._trades_1m_of(symbol text, first timestamptz, stop timestamptz)
returns setof market._trades_1m_row
language sql stable parallel safe
as $$
    select
        s.symbol,
        public.time_bucket(interval '1 minute', s.ts) as bucket,
        market.usable_at(interval '1 minute', s.ts, s.known_at) as usable_at,
        -- Sums in a fixed order: a rest of the last digit must not depend on the plan.
        (array_agg(s.price order by s.ts, s.trade_id))[1] as open,
        max(s.price) as high,
        min(s.price) as low,
        (array_agg(s.price order by s.ts, s.trade_id))[count(*)] as close,
        sum(s.size order by s.ts, s.trade_id) as volume,
        sum(s.price * s.size order by s.ts, s.trade_id) as quote_volume,
        sum(case when s.side = 'buy' then s.size else 0 end order by s.ts, s.trade_id) as buy_volume,
        sum(case when s.side = 'buy' then s.price * s.size else 0 end order by s.ts, s.trade_id) as buy_quote_volume,
        count(*) as trade_count,
        min(s.ts) as first_ts,
        (array_agg(s.trade_id order by s.ts, s.trade_id))[1] as first_id,
        max(s.ts) as last_ts,
        (array_agg(s.trade_id order by s.ts, s.trade_id))[count(*)] as last_id
    from market.trades s
    where s.symbol = $1 and s.ts >= $2 and s.ts < $3
    group by 1, 2, 3
$$;

create or replace function market._trades_1m_fresh(
    symbol text, "from" timestamptz, "to" timestamptz
)
returns setof market._trades_1m_row
-- Planned for the values at hand: that leaves all chunks out but those that changed.
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_custom_plan
rows 10
as $$
declare
    v_span record;
begin
    for v_span in
        select u.first, u.stop from market._stale('market.trades', interval '1 minute', $1, $2, $3) u
    loop
        return query
            select a.* from market._trades_1m_of($1, v_span.first, v_span.stop) a
            where a.bucket >= $2 and a.bucket < $3;
    end loop;
end
$$;

create or replace function market._trades_1m_between(
    symbol text, "from" timestamptz, "to" timestamptz
)
returns setof market._trades_1m_row
language sql stable parallel safe
as $$
    select r.* from market._trades_1m_rows r
    where r.symbol = $1 and r.bucket >= $2 and r.bucket < $3 and not exists (
        select from market._stale('market.trades', interval '1 minute', $1, $2, $3) u
        where r.bucket >= u.first and r.bucket < u.stop
    )
    union all
    select f.* from market._trades_1m_fresh($1, $2, $3) f
$$;

create or replace function market._book_1m_of(symbol text, first timestamptz, stop timestamptz)
returns setof market._book_1m_row
language sql stable parallel safe
as $$
    select
        s.symbol,
        public.time_bucket(interval '1 minute', s.ts) as bucket,
        market.usable_at(interval '1 minute', s.ts, s.known_at) as usable_at,
        count(*) as snapshot_count,
        count(s.bid_prices[1] + s.ask_prices[1]) as two_sided_count,
        sum(s.ask_prices[1] - s.bid_prices[1] order by s.ts, s.sequence) as spread_sum,
        sum((s.ask_prices[1] + s.bid_prices[1]) / 2 order by s.ts, s.sequence) as mid_sum,
        sum((s.ask_prices[1] - s.bid_prices[1]) / (s.ask_prices[1] + s.bid_prices[1]) * 2 order by s.ts, s.sequence) as relative_spread_sum,
        sum((s.bid_sizes[1] - s.ask_sizes[1]) / nullif(s.bid_sizes[1] + s.ask_sizes[1], 0) order by s.ts, s.sequence) as imbalance_sum,
        max(s.ts) as last_ts,
        public.last(s.sequence, row(s.ts, s.sequence)) as last_sequence,
        public.last(s.bid_prices, row(s.ts, s.sequence)) as bid_prices,
        public.last(s.bid_sizes, row(s.ts, s.sequence)) as bid_sizes,
        public.last(s.ask_prices, row(s.ts, s.sequence)) as ask_prices,
        public.last(s.ask_sizes, row(s.ts, s.sequence)) as ask_sizes
    from market.order_book_snapshots s
    where s.symbol = $1 and s.ts >= $2 and s.ts < $3
    group by 1, 2, 3
$$;

create or replace function market._book_1m_fresh(
    symbol text, "from" timestamptz, "to" timestamptz
)
returns setof market._book_1m_row
-- Planned for the values at hand: that leaves all chunks out but those that changed.
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_custom_plan
rows 10
as $$
declare
    v_span record;
begin
    for v_span in
        select u.first, u.stop from market._stale('market.order_book_snapshots', interval '1 minute', $1, $2, $3) u
    loop
        return query
            select a.* from market._book_1m_of($1, v_span.first, v_span.stop) a
            where a.bucket >= $2 and a.bucket < $3;
    end loop;
end
$$;

create or replace function market._book_1m_between(
    symbol text, "from" timestamptz, "to" timestamptz
)
returns setof market._book_1m_row
language sql stable parallel safe
as $$
    select r.* from market._book_1m_rows r
    where r.symbol = $1 and r.bucket >= $2 and r.bucket < $3 and not exists (
        select from market._stale('market.order_book_snapshots', interval '1 minute', $1, $2, $3) u
        where r.bucket >= u.first and r.bucket < u.stop
    )
    union all
    select f.* from market._book_1m_fresh($1, $2, $3) f
$$;

create or replace function market._liquidations_1m_of(symbol text, first timestamptz, stop timestamptz)
returns setof market._liquidations_1m_row
language sql stable parallel safe
as $$
    select
        s.symbol,
        public.time_bucket(interval '1 minute', s.ts) as bucket,
        market.usable_at(interval '1 minute', s.ts, s.known_at) as usable_at,
        count(*) as event_count,
        sum(case when s.side = 'sell' then s.notional else 0 end order by s.ts, s.event_id) as long_notional,
        sum(case when s.side = 'buy' then s.notional else 0 end order by s.ts, s.event_id) as short_notional,
        max(s.notional) as max_notional
    from market.liquidation_events s
    where s.symbol = $1 and s.ts >= $2 and s.ts < $3
    group by 1, 2, 3
$$;

create or replace function market._liquidations_1m_fresh(
    symbol text, "from" timestamptz, "to" timestamptz
)
returns setof market._liquidations_1m_row
-- Planned for the values at hand: that leaves all chunks out but those that changed.
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_custom_plan
rows 10
as $$
declare
    v_span record;
begin
    for v_span in
        select u.first, u.stop from market._stale('market.liquidation_events', interval '1 minute', $1, $2, $3) u
    loop
        return query
            select a.* from market._liquidations_1m_of($1, v_span.first, v_span.stop) a
            where a.bucket >= $2 and a.bucket < $3;
    end loop;
end
$$;

create or replace function market._liquidations_1m_between(
    symbol text, "from" timestamptz, "to" timestamptz
)
returns setof market._liquidations_1m_row
language sql stable parallel safe
as $$
    select r.* from market._liquidations_1m_rows r
    where r.symbol = $1 and r.bucket >= $2 and r.bucket < $3 and not exists (
        select from market._stale('market.liquidation_events', interval '1 minute', $1, $2, $3) u
        where r.bucket >= u.first and r.bucket < u.stop
    )
    union all
    select f.* from market._liquidations_1m_fresh($1, $2, $3) f
$$;

-- Bars of a timeframe, made from loaded one-minute bars.
create or replace function market._candles_of(symbol text, timeframe interval, first timestamptz, stop timestamptz)
returns setof market._candles_row
language sql stable parallel safe
as $$
    select
        $2,
        s.symbol,
        public.time_bucket($2, s.ts) as bucket,
        market.usable_at($2, s.ts, s.known_at) as usable_at,
        public.first(s.open, s.ts) as open,
        max(s.high) as high,
        min(s.low) as low,
        public.last(s.close, s.ts) as close,
        sum(s.volume order by s.ts) as volume,
        sum(s.quote_volume order by s.ts) as quote_volume,
        sum(s.trade_count order by s.ts)::bigint as trade_count,
        sum(s.taker_buy_volume order by s.ts) as taker_buy_volume,
        count(*) as bar_count,
        min(s.ts) as first_ts,
        max(s.ts) as last_ts
    from market.candles s
    where s.timeframe = interval '1 minute' and s.symbol = $1 and s.ts >= $3 and s.ts < $4
    group by 2, 3, 4
$$;

create or replace function market._candles_fresh(
    symbol text, timeframe interval, "from" timestamptz, "to" timestamptz
)
returns setof market._candles_row
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_custom_plan
rows 10
as $$
declare
    v_span record;
begin
    for v_span in select u.first, u.stop from market._stale('market.candles', $2, $1, $3, $4) u loop
        return query
            select a.* from market._candles_of($1, $2, v_span.first, v_span.stop) a
            where a.bucket >= $3 and a.bucket < $4;
    end loop;
end
$$;

create or replace function market._candles_between(
    symbol text, timeframe interval, "from" timestamptz, "to" timestamptz
)
returns setof market._candles_row
language sql stable parallel safe
as $$
    select r.* from market._candles_rows r
    where r.timeframe = $2 and r.symbol = $1 and r.bucket >= $3 and r.bucket < $4 and not exists (
        select from market._stale('market.candles', $2, $1, $3, $4) u
        where r.bucket >= u.first and r.bucket < u.stop
    )
    union all
    select f.* from market._candles_fresh($1, $2, $3, $4) f
$$;

-- These procedures commit, so they cannot pin search_path: every name in them is qualified.
create or replace procedure market.refresh_aggregate(name text, batch integer default 20000)
language plpgsql
as $$
begin
    if not exists (select from market.aggregates a where a.name = refresh_aggregate.name) then
        raise exception 'unknown aggregate %', coalesce(pg_catalog.quote_literal(name), 'null')
        using errcode = 'AP108', hint = 'List them with: select name from market.aggregates';
    end if;
    call market._refresh(name, batch);
end
$$;
comment on procedure market.refresh_aggregate(text, integer) is
'Bring one aggregate (market.aggregates.name) up to date, batch dirty buckets at a time; see market.refresh_aggregates. Errors: AP103 the transaction is not read committed, AP108 unknown aggregate.';

create or replace procedure market.refresh_aggregates()
language plpgsql
as $$
declare
    v_names text [];
    v_name text;
begin
    select pg_catalog.array_agg(a.name order by a.name) into v_names from market.aggregates a;
    foreach v_name in array v_names loop
        call market._refresh(v_name, 20000);
    end loop;
end
$$;
comment on procedure market.refresh_aggregates() is
'Bring every aggregate up to date with what was inserted, corrected or deleted since the last time; only changed buckets are recomputed. Commits as it goes; on the Apache edition a second call while one runs returns at once. Reads are right before it too, only slower: what changed is computed from the rows when it is read. On Community only the owner (so the clock) can refresh: others get a notice. Errors: AP103 the transaction is not read committed.';

create or replace procedure market.drop_rows("table" text, older_than timestamptz)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_source regclass;
    v_until timestamptz;
    v_aggregate market.aggregates;
begin
    select format('market.%I', h.hypertable_name)::regclass into v_source
    from timescaledb_information.hypertables h
    where h.hypertable_schema = 'market' and h.hypertable_name = "table";
    if not found then
        raise exception 'no table of market rows: %', coalesce(quote_literal("table"), 'null')
        using errcode = 'AP106', hint = format('One of %s.', (
            select string_agg(h.hypertable_name, ', ' order by h.hypertable_name)
            from timescaledb_information.hypertables h where h.hypertable_schema = 'market'
        ));
    end if;
    if older_than is null or older_than > now() - interval '1 day' then
        raise exception 'rows younger than a day are not dropped: %', coalesce(older_than::text, 'null')
        using errcode = 'AP725', hint = 'Say before which time, with its date.';
    end if;
    -- Nobody writes meanwhile: what is dropped has to be aggregated.
    execute format('lock table %s in share row exclusive mode', v_source);
    select max(c.range_end) into v_until
    from timescaledb_information.chunks c
    where c.hypertable_schema = 'market' and c.hypertable_name = "table" and c.range_end <= older_than;
    if v_until is null then
        return;
    end if;
    for v_aggregate in select a.* from market.aggregates a where a.source = v_source order by a.name loop
        if market._waits(v_aggregate, v_until) then
            raise exception 'rows of % before % are not aggregated yet', v_source, v_until
            using errcode = 'AP107', hint = 'call market.refresh_aggregates(), as alphaplus_owner on the Community edition, or wait a minute for the clock.';
        end if;
    end loop;
    update market.aggregates a set kept_from = v_until
    where a.source = v_source and a.kept_from < v_until;
    perform public.drop_chunks(v_source, older_than => v_until);
    for v_aggregate in select a.* from market.aggregates a where a.source = v_source order by a.name loop
        perform market._rows_dropped(v_aggregate);
    end loop;
end
$$;
comment on procedure market.drop_rows(text, timestamptz) is
'Drop the chunks of a table of market rows that lie wholly before a time, and keep what was aggregated of them: bars, flow and book by the minute stay readable, and so do stored vectors. Rows that arrive later for that time do not change its aggregates. Versions that corrections replaced stay in <table>_history. By the clock: setting market.keep_rows. Errors: AP106 no such table, AP107 not all of it is aggregated yet, AP725 a time within the last day.';
