-- The back end of TimescaleDB's Community edition: the aggregates' rows are its own continuous
-- aggregates with their policies, and market rows and stored vectors are compressed by policy. No
-- statement trigger on a hypertable has a transition table here (triggers.community.sql): an INSERT one
-- makes COPY skip TimescaleDB's own invalidations from 2.23 on, a DELETE one refuses compression. What
-- changed since the refresh is in TimescaleDB's logs of invalidations, and is computed from the rows
-- when it is read. The last ten minutes stay with what is computed when read: what is materialised and
-- changes again has to be materialised again.

-- One continuous aggregate a timeframe.
create or replace function market._make_bars(bars market.aggregates) returns void
language plpgsql volatile parallel unsafe set search_path = pg_catalog, pg_temp
as $$
begin
    execute format('
        create materialized view market.%1$I
        with (timescaledb.continuous, timescaledb.materialized_only = true) as
        select
            s.symbol,
            public.time_bucket(interval %2$L, s.ts) as bucket,
            market.usable_at(interval %2$L, s.ts, s.known_at) as usable_at,
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
        where s.timeframe = interval ''1 minute''
        group by 1, 2, 3
        with no data', bars.name || '_rows', bars.width
    );
end
$$;

-- All timeframes as one relation.
create or replace function market._unite_bars() returns void
language plpgsql volatile parallel unsafe set search_path = pg_catalog, pg_temp
set client_min_messages = warning
as $$
begin
    execute (
        select 'create or replace view market._candles_rows as ' || string_agg(
            format('select interval %L as timeframe, r.* from market.%I r', a.width, a.name || '_rows'),
            ' union all ' order by a.width
        )
        from market.aggregates a
        where a.source = 'market.candles'::regclass
    );
end
$$;

-- Tables that dirty buckets kept give way to continuous aggregates.
set local role alphaplus_owner;
do $$
declare
    v_bars market.aggregates;
begin
    if not exists (select from market.aggregates a where not a.native) then
        return;
    end if;
    if exists (select from market.aggregates a where a.kept_from > '-infinity') then
        raise exception 'a continuous aggregate cannot take over what was aggregated of rows that were dropped'
        using errcode = 'AP105', hint = 'Dirty buckets keep it, on either edition: select ops.set_setting(''market.edition'', ''"apache"''), then make migrate.';
    end if;
    drop table market._trades_1m_rows, market._book_1m_rows, market._liquidations_1m_rows,
    market._candles_rows;
    delete from market.dirty_buckets;
    create materialized view market._trades_1m_rows
    with (timescaledb.continuous, timescaledb.materialized_only = true) as
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
    group by 1, 2, 3
    with no data;
    create materialized view market._book_1m_rows
    with (timescaledb.continuous, timescaledb.materialized_only = true) as
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
    group by 1, 2, 3
    with no data;
    create materialized view market._liquidations_1m_rows
    with (timescaledb.continuous, timescaledb.materialized_only = true) as
    select
        s.symbol,
        public.time_bucket(interval '1 minute', s.ts) as bucket,
        market.usable_at(interval '1 minute', s.ts, s.known_at) as usable_at,
        count(*) as event_count,
        sum(case when s.side = 'sell' then s.notional else 0 end order by s.ts, s.event_id) as long_notional,
        sum(case when s.side = 'buy' then s.notional else 0 end order by s.ts, s.event_id) as short_notional,
        max(s.notional) as max_notional
    from market.liquidation_events s
    group by 1, 2, 3
    with no data;
    for v_bars in
        select a.* from market.aggregates a where a.source = 'market.candles'::regclass order by a.width
    loop
        perform market._make_bars(v_bars);
    end loop;
    update market.aggregates set native = true;
end
$$;
do $$
begin
    perform market._unite_bars();
end
$$;
reset role;

-- The stretches that the continuous aggregates of a table do not hold as they are now: disjoint, in
-- whole buckets; the last one begins at the watermark and has no end. TimescaleDB counts microseconds
-- since 1970, and stands for no bound by the ends of bigint; what lies before 1970 never leaves its logs.
create or replace function market._stale_all(source regclass)
returns table (width interval, first timestamptz, stop timestamptz)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
rows 2
as $$
    select r.width, greatest(lower(s.stretch), r.kept_from), upper(s.stretch)
    from (
        select
            a.width, a.kept_from,
            range_agg(tstzrange(
                case when l.low < 0 then '-infinity' else public.time_bucket(
                    a.width, _timescaledb_functions.to_timestamp(l.low)
                ) end,
                case when l.high > 4102444800000000 then 'infinity' else a.width + public.time_bucket(
                    a.width, _timescaledb_functions.to_timestamp(l.high)
                ) end
            )) as stretches
        from market.aggregates a
        join _timescaledb_catalog.continuous_agg g
            on g.user_view_schema = 'market' and g.user_view_name = a.name || '_rows'
        cross join lateral (
            select i.lowest_modified_value as low, i.greatest_modified_value as high
            from _timescaledb_catalog.continuous_aggs_hypertable_invalidation_log i
            where i.hypertable_id = g.raw_hypertable_id
            union all
            select i.lowest_modified_value, i.greatest_modified_value
            from _timescaledb_catalog.continuous_aggs_materialization_invalidation_log i
            where i.materialization_id = g.mat_hypertable_id
            union all
            select w.watermark, 9223372036854775807
            from _timescaledb_catalog.continuous_aggs_watermark w
            where w.mat_hypertable_id = g.mat_hypertable_id
        ) l
        where a.source = $1 and l.high >= 0
        group by a.width, a.kept_from
    ) r
    cross join lateral unnest(r.stretches) as s (stretch)
    where upper(s.stretch) > r.kept_from
$$;

-- Those of one aggregate in [from, to).
create or replace function market._stale(
    source regclass, width interval, symbol text, "from" timestamptz, "to" timestamptz
)
returns table (first timestamptz, stop timestamptz)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
rows 2
as $$
#variable_conflict use_column
begin
    return query
        select
            greatest(u.first, case when isfinite($4) then public.time_bucket($2, $4) else $4 end),
            least(u.stop, $5 + $2)
        from market._stale_all($1) u
        where u.width = $2 and u.first < $5 and u.stop > $4;
end
$$;

create or replace view market._trades_1m as
select r.* from market._trades_1m_rows r
where not exists (
    select from market._stale_all('market.trades') u where r.bucket >= u.first and r.bucket < u.stop
)
union all
select a.*
from market._stale_all('market.trades') u
cross join lateral (
    select distinct s.symbol from market.trades s where s.ts >= u.first and s.ts < u.stop
) n
cross join lateral market._trades_1m_of(n.symbol, u.first, u.stop) a;

create or replace view market._book_1m as
select r.* from market._book_1m_rows r
where not exists (
    select from market._stale_all('market.order_book_snapshots') u where r.bucket >= u.first and r.bucket < u.stop
)
union all
select a.*
from market._stale_all('market.order_book_snapshots') u
cross join lateral (
    select distinct s.symbol from market.order_book_snapshots s where s.ts >= u.first and s.ts < u.stop
) n
cross join lateral market._book_1m_of(n.symbol, u.first, u.stop) a;

create or replace view market._liquidations_1m as
select r.* from market._liquidations_1m_rows r
where not exists (
    select from market._stale_all('market.liquidation_events') u where r.bucket >= u.first and r.bucket < u.stop
)
union all
select a.*
from market._stale_all('market.liquidation_events') u
cross join lateral (
    select distinct s.symbol from market.liquidation_events s where s.ts >= u.first and s.ts < u.stop
) n
cross join lateral market._liquidations_1m_of(n.symbol, u.first, u.stop) a;

create or replace view market._candles as
select r.* from market._candles_rows r
where not exists (
    select from market._stale_all('market.candles') u
    where u.width = r.timeframe and r.bucket >= u.first and r.bucket < u.stop
)
union all
select a.*
from market._stale_all('market.candles') u
cross join lateral (
    select distinct s.symbol
    from market.candles s
    where s.timeframe = interval '1 minute' and s.ts >= u.first and s.ts < u.stop
) n
cross join lateral market._candles_of(n.symbol, u.width, u.first, u.stop) a;

-- Calls what commits, so it cannot pin search_path: every name in it is qualified. TimescaleDB lets
-- nobody but the owner refresh, and not from a definer's procedure.
create or replace procedure market._refresh(name text, batch integer)
language plpgsql
as $$
declare
    v_aggregate market.aggregates;
begin
    select a.* into strict v_aggregate from market.aggregates a where a.name = _refresh.name;
    if not pg_catalog.pg_has_role((
        select c.relowner from pg_catalog.pg_class c
        where c.oid = pg_catalog.format('market.%I', name || '_rows')::pg_catalog.regclass
    ), 'usage') then
        raise notice '% is left to the clock, which runs as its owner', name;
        return;
    end if;
    -- One refresher at a time; who comes second leaves the work to the first.
    if not ops._hold('market:' || name) then
        return;
    end if;
    commit;
    call public.refresh_continuous_aggregate(
        pg_catalog.format('market.%I', name || '_rows')::pg_catalog.regclass,
        nullif(v_aggregate.kept_from, '-infinity'),
        public.time_bucket(v_aggregate.width, pg_catalog.now() - interval '10 minutes')
    );
    perform ops._let_go('market:' || name);
    commit;
end
$$;

-- Whether something before a time is not aggregated yet.
create or replace function market._waits(aggregate market.aggregates, until timestamptz)
returns boolean
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    v_waits boolean;
begin
    execute format(
        'select exists (select from market._stale_all($1) u join %s s on s.ts >= u.first and s.ts < u.stop'
        ' where u.width = $2 and s.ts < $3%s)',
        aggregate.source, case when aggregate.source = 'market.candles'::regclass
            then ' and s.timeframe = interval ''1 minute''' else '' end
    ) into v_waits using aggregate.source, aggregate.width, until;
    return v_waits;
end
$$;

-- The clock refreshes too, and more often: the policy is for a server without one. What was aggregated
-- of rows that were dropped stays out of its window, which is two buckets or more.
create or replace function market._set_policy(aggregate market.aggregates) returns void
language plpgsql volatile parallel unsafe set search_path = pg_catalog, pg_temp
set client_min_messages = warning
as $$
declare
    v_rows constant regclass := format('market.%I', aggregate.name || '_rows');
begin
    if now() - aggregate.kept_from > 3 * aggregate.width + interval '1 hour' then
        perform public.add_continuous_aggregate_policy(
            v_rows,
            start_offset => case when aggregate.kept_from > '-infinity'
                then date_trunc('minute', now() - aggregate.kept_from) end,
            end_offset => interval '10 minutes', schedule_interval => interval '15 minutes',
            initial_start => date_trunc('hour', now()) + interval '1 hour', if_not_exists => true
        );
    end if;
end
$$;

-- After rows of the source were dropped: the policy's window begins later.
create or replace function market._rows_dropped(aggregate market.aggregates) returns void
language plpgsql volatile parallel unsafe set search_path = pg_catalog, pg_temp
as $$
begin
    perform public.remove_continuous_aggregate_policy(
        format('market.%I', aggregate.name || '_rows')::regclass, if_exists => true
    );
    perform market._set_policy(aggregate);
end
$$;

-- How far an aggregate is refreshed, for ops.health: what changed behind the watermark, and whether
-- rows wait before it for longer than they may.
create or replace function market._aggregate_state(
    aggregate market.aggregates, at timestamptz, out dirty bigint, out behind boolean, out detail text
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    v_refreshed timestamptz;
begin
    select
        max(u.first) filter (where u.stop = 'infinity'),
        coalesce(ceil(sum(extract(epoch from u.stop - u.first)) filter (where u.stop < 'infinity' and u.first > '-infinity')
        / extract(epoch from aggregate.width)), 0)
    into v_refreshed, dirty
    from market._stale_all(aggregate.source) u
    where u.width = aggregate.width;
    execute format(
        'select exists (select from %s s where s.ts >= $1 and s.ts < $2%s)', aggregate.source,
        case when aggregate.source = 'market.candles'::regclass
            then ' and s.timeframe = interval ''1 minute''' else '' end
    ) into behind
    using v_refreshed, public.time_bucket(aggregate.width, at - interval '10 minutes');
    detail := format(
        'kept by TimescaleDB%s; %s changed buckets before that wait for the refresh',
        case when v_refreshed > '-infinity' then format(' up to %s', v_refreshed) else ', still empty' end,
        dirty
    );
end
$$;

-- Compression (columnstore): a chunk is compressed once it is older than setting market.compress_after.
-- By instrument and in the order of time, as it is read. Late rows, corrections and deletions reach
-- compressed chunks too. What is compressed stays so when the setting becomes null.
create or replace function market._compress() returns void
language plpgsql volatile parallel unsafe set search_path = pg_catalog, pg_temp
set client_min_messages = warning
as $$
declare
    v_after constant interval := (ops.setting('market.compress_after') #>> '{}')::interval;
    v_table record;
begin
    for v_table in
        select t.relation, t.segment, t.sorted
        from (
            values
            ('market.candles', 'symbol, timeframe', 'ts'),
            ('market.trades', 'symbol', 'ts, trade_id'),
            ('market.order_book_snapshots', 'symbol', 'ts, sequence'),
            ('market.liquidation_events', 'symbol', 'ts, event_id'),
            ('market.funding_rates', 'symbol', 'ts'),
            ('market.open_interest', 'symbol', 'ts'),
            ('feature.vectors', 'set_id, symbol', 'ts')
        ) as t (relation, segment, sorted)
    loop
        if v_after is null then
            perform public.remove_compression_policy(v_table.relation::regclass, if_exists => true);
            continue;
        end if;
        if not exists (
            select from timescaledb_information.hypertables h
            where format('%I.%I', h.hypertable_schema, h.hypertable_name) = v_table.relation
                and h.compression_enabled
        ) then
            execute format(
                'alter table %s set (timescaledb.compress, timescaledb.compress_segmentby = %L,'
                ' timescaledb.compress_orderby = %L)', v_table.relation, v_table.segment, v_table.sorted
            );
        end if;
        if not exists (
            select from timescaledb_information.jobs j
            where format('%I.%I', j.hypertable_schema, j.hypertable_name) = v_table.relation
                and j.config ->> 'compress_after' is not null
                and (j.config ->> 'compress_after')::interval = v_after
        ) then
            perform public.remove_compression_policy(v_table.relation::regclass, if_exists => true);
            perform public.add_compression_policy(v_table.relation::regclass, compress_after => v_after);
        end if;
    end loop;
end
$$;

insert into ops.settings (name, value, description) values
('market.compress_after', '"30 days"', 'Age at which chunks of market rows and stored vectors are compressed (Community edition); null: not. make migrate takes a change up.')
on conflict (name) do nothing;

set local role alphaplus_owner;
do $$
begin
    perform market._set_policy(a) from market.aggregates a;
    perform market._compress();
end
$$;
reset role;
comment on view market._trades_1m_rows is 'Rows of market._trades_1m as of the last refresh.';
comment on view market._book_1m_rows is 'Rows of market._book_1m as of the last refresh.';
comment on view market._liquidations_1m_rows is 'Rows of market._liquidations_1m as of the last refresh.';
comment on view market._candles_rows is 'Rows of market._candles as of the last refresh.';

create or replace procedure market.add_timeframe(timeframe interval)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_seconds constant bigint := extract(epoch from timeframe);
    v_added market.aggregates;
begin
    if timeframe is null or not isfinite(timeframe) or v_seconds <= 60 or mod(v_seconds, 60) <> 0
        or mod(86400, v_seconds) <> 0 then
        raise exception 'no bars of %', coalesce(timeframe::text, 'null')
        using errcode = 'AP740', hint = 'A timeframe is whole minutes that divide a day: interval ''30 minutes''.';
    end if;
    if exists (
        select from market.aggregates a
        where a.source = 'market.candles'::regclass and a.width = add_timeframe.timeframe
    ) then
        return;
    end if;
    insert into market.aggregates (name, source, width, native) values (
        '_candles_' || case when mod(v_seconds, 3600) = 0 then v_seconds / 3600 || 'h' else v_seconds / 60 || 'm' end,
        'market.candles', v_seconds * interval '1 second', true
    )
    returning * into v_added;
    perform market._make_bars(v_added);
    perform market._unite_bars();
    perform market._set_policy(v_added);
end
$$;
comment on procedure market.add_timeframe(interval) is
'Keep bars of one more timeframe, made from loaded one-minute bars: market.candle_versions answers for it. timeframe: whole minutes that divide a day, more than one. Asked for again it does nothing. Errors: AP740 no such timeframe.';
