drop index market.candles_history_ts_idx, market.trades_history_ts_idx, market.order_book_snapshots_history_ts_idx,
market.liquidation_events_history_ts_idx, market.funding_rates_history_ts_idx, market.open_interest_history_ts_idx;
drop table if exists market._candles_rows, market._trades_1m_rows, market._book_1m_rows,
market._liquidations_1m_rows, market.dirty_buckets cascade;
drop type market._candles_row, market._trades_1m_row, market._book_1m_row,
market._liquidations_1m_row;
delete from market.aggregates;
alter table market.aggregates add column definition text not null;
comment on table market.aggregates is 'The aggregates, each with the one SELECT that defines it. {range} stands where a recomputation limits symbol and time. native: a continuous aggregate of TimescaleDB''s Community edition.';
comment on column market.aggregates.name is null;
comment on column market.aggregates.source is null;
comment on column market.aggregates.width is null;
comment on column market.aggregates.native is null;
-- Marks what a statement changed. Arguments: the names of the aggregates of this table.
create function market._mark_changed() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_name text;
    v_width interval;
    v_changed text;
    v_insert text;
    v_minutes constant text := ' where timeframe = interval ''1 minute''';
    v_where text;
    v_kept_from timestamptz;
begin
    v_where := case when tg_argv[0] like '\_candles\_%' then v_minutes else '' end;
    v_changed := case tg_op
        when 'INSERT' then 'select symbol, ts from new_rows' || v_where
        when 'DELETE' then 'select symbol, ts from old_rows' || v_where
        else 'select symbol, ts from old_rows' || v_where
            || ' union all select symbol, ts from new_rows' || v_where
    end;
    -- Under a snapshot of the whole transaction a mark seen may be gone: then never rely on it.
    v_insert := case current_setting('transaction_isolation')
        when 'read committed' then
            'with changed as materialized ('
            '    select distinct c.symbol, public.time_bucket(%2$L::interval, c.ts) as bucket'
            '    from (%3$s) c where c.ts >= %4$L::timestamptz'
            '), held as materialized ('
            '    select m.symbol, m.bucket from changed d'
            '    join market.%1$I m on m.symbol = d.symbol and m.bucket = d.bucket'
            '    for key share of m skip locked'
            ')'
            ' insert into market.%1$I (symbol, bucket)'
            ' select d.symbol, d.bucket from changed d'
            ' where not exists ('
            '    select from held h where h.symbol = d.symbol and h.bucket = d.bucket)'
            ' order by d.symbol, d.bucket'
        else
            'insert into market.%1$I (symbol, bucket)'
            ' select distinct c.symbol, public.time_bucket(%2$L::interval, c.ts) from (%3$s) c'
            ' where c.ts >= %4$L::timestamptz'
            ' order by 1, 2'
    end;
    foreach v_name in array tg_argv loop
        select a.width, a.kept_from into strict v_width, v_kept_from
        from market.aggregates a where a.name = v_name;
        execute format(v_insert, v_name || '_marks', v_width, v_changed, v_kept_from);
    end loop;
    return null;
end
$$;

create function market._forget_all() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_name text;
begin
    foreach v_name in array tg_argv loop
        execute format('truncate market.%I, market.%I', v_name || '_rows', v_name || '_marks');
    end loop;
    return null;
end
$$;

-- The stretches of an aggregate that its continuous aggregate does not hold as they are now:
-- disjoint, in whole buckets; the last one begins at the watermark and has no end.
-- TimescaleDB counts microseconds since 1970, and stands for no bound by the ends of bigint.
create function market._stale(name text)
returns table ("from" timestamptz, "to" timestamptz)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
rows 2
as $$
declare
    v_ids record;
    v_width interval;
    v_kept_from timestamptz;
begin
    select g.mat_hypertable_id as rows_id, g.raw_hypertable_id as source_id into strict v_ids
    from _timescaledb_catalog.continuous_agg g
    where g.user_view_schema = 'market' and g.user_view_name = _stale.name || '_rows';
    select a.width, a.kept_from into strict v_width, v_kept_from
    from market.aggregates a where a.name = _stale.name;
    return query
        select greatest(lower(r.stretch), v_kept_from), upper(r.stretch)
        from unnest((
            select range_agg(tstzrange(
                case when l.low < 0 then '-infinity' else public.time_bucket(
                    v_width, _timescaledb_functions.to_timestamp(l.low)
                ) end,
                case when l.high > 4102444800000000 then 'infinity' else v_width + public.time_bucket(
                    v_width, _timescaledb_functions.to_timestamp(l.high)
                ) end
            ))
            from (
                select i.lowest_modified_value as low, i.greatest_modified_value as high
                from _timescaledb_catalog.continuous_aggs_hypertable_invalidation_log i
                where i.hypertable_id = v_ids.source_id
                union all
                select i.lowest_modified_value, i.greatest_modified_value
                from _timescaledb_catalog.continuous_aggs_materialization_invalidation_log i
                where i.materialization_id = v_ids.rows_id
                union all
                select w.watermark, 9223372036854775807
                from _timescaledb_catalog.continuous_aggs_watermark w
                where w.mat_hypertable_id = v_ids.rows_id
            ) l
            where l.high >= 0  -- what lies before 1970 is never taken off the logs
        )) r (stretch)
        where upper(r.stretch) > v_kept_from;
end
$$;

-- Makes what holds an aggregate's rows, and the view of its name, as its row in market.aggregates
-- says: natively or by marks.
create procedure market._make_rows(name text)
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    v_aggregate market.aggregates;
begin
    select a.* into strict v_aggregate from market.aggregates a where a.name = _make_rows.name;
    if v_aggregate.native then
        execute format(
            'create materialized view market.%I'
            ' with (timescaledb.continuous, timescaledb.materialized_only = true) as %s with no data',
            name || '_rows', replace(v_aggregate.definition, '{range}', 'true')
        );
    else
        execute format(
            'create table market.%I as %s with no data', name || '_rows',
            replace(v_aggregate.definition, '{range}', 'false')
        );
        execute format(
            'alter table market.%I add primary key (symbol, bucket, usable_at)', name || '_rows'
        );
        execute format(
            'create table market.%I (symbol text collate "C" not null, bucket timestamptz not null)',
            name || '_marks'
        );
        execute format(
            'create index %I on market.%I (symbol, bucket)', name || '_marks_idx', name || '_marks'
        );
    end if;
    call market._make_view(name);
end
$$;

create procedure market._make_view(name text)
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    v_aggregate market.aggregates;
    v_columns text;
begin
    select a.* into strict v_aggregate from market.aggregates a where a.name = _make_view.name;
    if v_aggregate.native then
        execute format(
            'create or replace view market.%1$I as'
            ' select r.* from market.%2$I r where not exists ('
            '     select from market._stale(%1$L) u where r.bucket >= u."from" and r.bucket < u."to")'
            ' union all'
            ' select a.* from market._stale(%1$L) u cross join lateral (%3$s) a',
            name, name || '_rows',
            replace(v_aggregate.definition, '{range}', 's.ts >= u."from" and s.ts < u."to"')
        );
        return;
    end if;
    select string_agg(
        case when a.attname in ('symbol', 'bucket') then 'd.' else 'a.' end || quote_ident(a.attname),
        ', ' order by a.attnum
    ) into v_columns
    from pg_attribute a
    where a.attrelid = format('market.%I', name || '_rows')::regclass and a.attnum > 0;
    execute format(
        'create or replace view market.%1$I as'
        ' select r.* from market.%2$I r where not exists ('
        '     select from market.%3$I m where m.symbol = r.symbol and m.bucket = r.bucket)'
        ' union all'
        ' select %4$s from (select distinct m.symbol, m.bucket from market.%3$I m) d'
        ' cross join lateral (%5$s) a',
        name, name || '_rows', name || '_marks', v_columns,
        replace(v_aggregate.definition, '{range}', format(
            's.symbol = d.symbol and s.ts >= d.bucket and s.ts < d.bucket + %L::interval',
            v_aggregate.width
        ))
    );
end
$$;

-- From 2.23 on TimescaleDB (2.29.2 is the newest that was tried) does not note the rows that COPY
-- brings into a table with statement triggers, so a continuous aggregate misses them for good where
-- they are late. There the aggregates are kept by marks, as on the Apache edition.
create function market._native_works() returns boolean
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select current_setting('timescaledb.license', true) is not distinct from 'timescale'
        and string_to_array(substring(e.extversion from '^[0-9.]+'), '.')::integer [] < array[2, 23]
    from pg_extension e
    where e.extname = 'timescaledb'
$$;

create procedure market._create_aggregate(
    name text, source regclass, width interval, definition text
)
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    insert into market.aggregates (name, source, width, definition, native)
    values (name, source, width, definition, market._native_works());
    call market._make_rows(name);
end
$$;

-- The triggers of a table, once all its aggregates are declared.
create procedure market._watch(source regclass)
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    v_names text;
begin
    select string_agg(quote_literal(a.name), ', ' order by a.name) into v_names
    from market.aggregates a
    where a.source = _watch.source and not a.native;
    if v_names is null then
        return;
    end if;
    execute format(
        'create trigger mark_inserted after insert on %s referencing new table as new_rows'
        ' for each statement execute function market._mark_changed(%s)', source, v_names
    );
    execute format(
        'create trigger mark_deleted after delete on %s referencing old table as old_rows'
        ' for each statement execute function market._mark_changed(%s)', source, v_names
    );
    execute format(
        'create trigger mark_updated after update on %s'
        ' referencing old table as old_rows new table as new_rows'
        ' for each statement execute function market._mark_changed(%s)', source, v_names
    );
    execute format(
        'create trigger forget_all after truncate on %s'
        ' for each statement execute function market._forget_all(%s)', source, v_names
    );
end
$$;

call market._create_aggregate('_trades_1m', 'market.trades', interval '1 minute', $definition$
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
where {range}
group by 1, 2, 3
$definition$);

call market._create_aggregate('_book_1m', 'market.order_book_snapshots', interval '1 minute', $definition$
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
where {range}
group by 1, 2, 3
$definition$);

call market._create_aggregate('_liquidations_1m', 'market.liquidation_events', interval '1 minute', $definition$
select
    s.symbol,
    public.time_bucket(interval '1 minute', s.ts) as bucket,
    market.usable_at(interval '1 minute', s.ts, s.known_at) as usable_at,
    count(*) as event_count,
    sum(case when s.side = 'sell' then s.notional else 0 end order by s.ts, s.event_id) as long_notional,
    sum(case when s.side = 'buy' then s.notional else 0 end order by s.ts, s.event_id) as short_notional,
    max(s.notional) as max_notional
from market.liquidation_events s
where {range}
group by 1, 2, 3
$definition$);

do $do$
declare
    v_bar record;
begin
    for v_bar in
        select * from (values
            ('_candles_5m', interval '5 minutes'), ('_candles_15m', interval '15 minutes'),
            ('_candles_1h', interval '1 hour'), ('_candles_4h', interval '4 hours'),
            ('_candles_1d', interval '1 day')
        ) as bars (name, width)
    loop
        call market._create_aggregate(v_bar.name, 'market.candles', v_bar.width, format($definition$
select
    s.symbol,
    public.time_bucket(interval %1$L, s.ts) as bucket,
    market.usable_at(interval %1$L, s.ts, s.known_at) as usable_at,
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
where s.timeframe = interval '1 minute' and {range}
group by 1, 2, 3
$definition$, v_bar.width));
    end loop;
end
$do$;

call market._watch('market.trades');
call market._watch('market.order_book_snapshots');
call market._watch('market.liquidation_events');
call market._watch('market.candles');

-- All of it is computed anew.
do $$
declare
    v_aggregate market.aggregates;
begin
    for v_aggregate in select a.* from market.aggregates a where not a.native order by a.name loop
        execute format(
            'insert into market.%I (symbol, bucket)'
            ' select distinct s.symbol, public.time_bucket(%L::interval, s.ts) from %s s%s order by 1, 2',
            v_aggregate.name || '_marks', v_aggregate.width, v_aggregate.source,
            case when v_aggregate.source = 'market.candles'::regclass
                then ' where s.timeframe = interval ''1 minute''' else '' end
        );
    end loop;
end
$$;
