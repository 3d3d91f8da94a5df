-- depends: 0006_queue
--
-- 0010: aggregates, declared once, for both editions of TimescaleDB.
--
-- An aggregate's rows are partial: one per (symbol, bucket, usable_at), where usable_at is the
-- first whole minute at which the source rows could be used. Merging the partials with
-- usable_at <= t gives the bucket as it was known at t; on-time data has one partial a bucket.
--
-- Community edition: a native continuous aggregate. Apache edition: a table kept by marks.
-- Statement triggers mark the (symbol, bucket) pairs that changed; the view of the aggregate's
-- name reads unmarked buckets from the table and computes marked ones, so it is never stale; the
-- refresh recomputes marked buckets and removes their marks.
create function market.usable_at(width interval, ts timestamptz, known_at timestamptz)
returns timestamptz
language sql immutable parallel safe
return greatest(
    pg_catalog.to_timestamp(
        (pg_catalog.floor(
            pg_catalog.date_part('epoch', ts - timestamptz '2000-01-01 00:00:00+00')
            / pg_catalog.date_part('epoch', width)
        ) + 1) * pg_catalog.date_part('epoch', width) + 946684800
    ),
    pg_catalog.to_timestamp(
        pg_catalog.ceil(
            pg_catalog.date_part('epoch', known_at - timestamptz '2000-01-01 00:00:00+00') / 60
        ) * 60 + 946684800
    )
);
comment on function market.usable_at(interval, timestamptz, timestamptz) is
'First whole minute (UTC) at which a row of time ts, known at known_at, can be used in a bucket of the given width: not before the bucket has closed, not before the row was known. width: whole minutes that divide a day.';

create table market.aggregates (
    name text primary key check (name ~ '^_[a-z0-9_]+$'),
    source regclass not null,
    width interval not null,
    definition text not null,
    native boolean not null
);
comment on table market.aggregates is 'The aggregates, each with the one SELECT that defines it. {range} stands where a recomputation limits symbol and time. native: a continuous aggregate of TimescaleDB''s Community edition.';

-- Marks what a statement changed. Arguments: the names of the aggregates of this table.
create function market._mark_changed() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_name text;
    v_width interval;
    v_changed text;
begin
    v_changed := case tg_op
        when 'INSERT' then 'select * from new_rows'
        when 'DELETE' then 'select * from old_rows'
        else 'select * from old_rows union all select * from new_rows'
    end;
    foreach v_name in array tg_argv loop
        select a.width into strict v_width from market.aggregates a where a.name = v_name;
        execute format(
            'insert into market.%I (symbol, bucket)'
            ' select distinct c.symbol, public.time_bucket(%L::interval, c.ts) from (%s) c',
            v_name || '_marks', v_width, v_changed
        );
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

create procedure market._create_aggregate(name text, source regclass, width interval, definition text)
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    v_native boolean := current_setting('timescaledb.license', true) = 'timescale';
    v_columns text;
begin
    if v_native then
        execute format(
            'create materialized view market.%I'
            ' with (timescaledb.continuous, timescaledb.materialized_only = false) as %s with no data',
            name, replace(definition, '{range}', 'true')
        );
    else
        execute format(
            'create table market.%I as %s with no data', name || '_rows',
            replace(definition, '{range}', 'false')
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
        select string_agg(
            case when a.attname in ('symbol', 'bucket') then 'd.' else 'a.' end || quote_ident(a.attname),
            ', ' order by a.attnum
        ) into v_columns
        from pg_attribute a
        where a.attrelid = format('market.%I', name || '_rows')::regclass and a.attnum > 0;
        execute format(
            'create view market.%1$I as'
            ' select r.* from market.%2$I r where not exists ('
            '     select from market.%3$I m where m.symbol = r.symbol and m.bucket = r.bucket)'
            ' union all'
            ' select %4$s from (select distinct m.symbol, m.bucket from market.%3$I m) d'
            ' cross join lateral (%5$s) a',
            name, name || '_rows', name || '_marks', v_columns,
            replace(definition, '{range}', format(
                's.symbol = d.symbol and s.ts >= d.bucket and s.ts < d.bucket + %L::interval', width
            ))
        );
    end if;
    insert into market.aggregates values (name, source, width, definition, v_native);
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
    public.first(s.price, row(s.ts, s.trade_id)) as open,
    max(s.price) as high,
    min(s.price) as low,
    public.last(s.price, row(s.ts, s.trade_id)) as close,
    sum(s.size order by s.ts, s.trade_id) as volume,
    sum(s.price * s.size order by s.ts, s.trade_id) as quote_volume,
    sum(case when s.side = 'buy' then s.size else 0 end order by s.ts, s.trade_id) as buy_volume,
    sum(case when s.side = 'buy' then s.price * s.size else 0 end order by s.ts, s.trade_id) as buy_quote_volume,
    count(*) as trade_count,
    min(s.ts) as first_ts,
    public.first(s.trade_id, row(s.ts, s.trade_id)) as first_id,
    max(s.ts) as last_ts,
    public.last(s.trade_id, row(s.ts, s.trade_id)) as last_id
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
