-- The back end of the Apache edition, which has no continuous aggregates: the aggregates' rows lie in
-- tables, statement triggers (triggers.apache.sql) note the buckets that changed in
-- market.dirty_buckets, what is noted is computed from the rows when it is read, and the refresh
-- recomputes what is noted and takes the notes off.

-- What was compressed is decompressed, as a statement trigger with a transition table on DELETE refuses
-- compression. What continuous aggregates held comes into tables, all of it to be computed anew; but what was
-- aggregated of rows that were dropped is kept as it is.
set local role alphaplus_owner;
do $$
declare
    v_table record;
    v_bars market.aggregates;
begin
    if not exists (select from market.aggregates a where a.native) then
        return;
    end if;

    for v_table in
        select format('%I.%I', h.hypertable_schema, h.hypertable_name)::regclass as relation
        from timescaledb_information.hypertables h
        where h.hypertable_schema in ('market', 'feature') and h.compression_enabled
    loop
        perform public.remove_compression_policy(v_table.relation, if_exists => true);
        perform public.decompress_chunk(c.chunk, if_compressed => true)
        from public.show_chunks(v_table.relation) as c (chunk);
        execute format('alter table %s set (timescaledb.compress = false)', v_table.relation);
    end loop;

    create temporary table kept_rows on commit drop as
    select r.* from market._trades_1m_rows r
    where r.bucket < (select a.kept_from from market.aggregates a where a.name = '_trades_1m');
    drop materialized view market._trades_1m_rows;
    create table market._trades_1m_rows of market._trades_1m_row (primary key (symbol, bucket, usable_at));
    insert into market._trades_1m_rows select k.* from pg_temp.kept_rows k;
    drop table pg_temp.kept_rows;
    insert into market.dirty_buckets (source, width, symbol, bucket)
    select distinct 'market.trades'::regclass, interval '1 minute', s.symbol, public.time_bucket(interval '1 minute', s.ts)
    from market.trades s
    where s.ts >= (select a.kept_from from market.aggregates a where a.name = '_trades_1m');

    create temporary table kept_rows on commit drop as
    select r.* from market._book_1m_rows r
    where r.bucket < (select a.kept_from from market.aggregates a where a.name = '_book_1m');
    drop materialized view market._book_1m_rows;
    create table market._book_1m_rows of market._book_1m_row (primary key (symbol, bucket, usable_at));
    insert into market._book_1m_rows select k.* from pg_temp.kept_rows k;
    drop table pg_temp.kept_rows;
    insert into market.dirty_buckets (source, width, symbol, bucket)
    select distinct 'market.order_book_snapshots'::regclass, interval '1 minute', s.symbol, public.time_bucket(interval '1 minute', s.ts)
    from market.order_book_snapshots s
    where s.ts >= (select a.kept_from from market.aggregates a where a.name = '_book_1m');

    create temporary table kept_rows on commit drop as
    select r.* from market._liquidations_1m_rows r
    where r.bucket < (select a.kept_from from market.aggregates a where a.name = '_liquidations_1m');
    drop materialized view market._liquidations_1m_rows;
    create table market._liquidations_1m_rows of market._liquidations_1m_row (primary key (symbol, bucket, usable_at));
    insert into market._liquidations_1m_rows select k.* from pg_temp.kept_rows k;
    drop table pg_temp.kept_rows;
    insert into market.dirty_buckets (source, width, symbol, bucket)
    select distinct 'market.liquidation_events'::regclass, interval '1 minute', s.symbol, public.time_bucket(interval '1 minute', s.ts)
    from market.liquidation_events s
    where s.ts >= (select a.kept_from from market.aggregates a where a.name = '_liquidations_1m');

    create table market._candles_rows of market._candles_row (primary key (timeframe, symbol, bucket, usable_at));
    for v_bars in select a.* from market.aggregates a where a.source = 'market.candles'::regclass loop
        execute format(
            'insert into market._candles_rows select $1, r.* from market.%I r where r.bucket < $2',
            v_bars.name || '_rows'
        ) using v_bars.width, v_bars.kept_from;
        execute format('drop materialized view market.%I', v_bars.name || '_rows');
    end loop;
    insert into market.dirty_buckets (source, width, symbol, bucket)
    select distinct a.source, a.width, s.symbol, public.time_bucket(a.width, s.ts)
    from market.candles s
    join market.aggregates a on a.source = 'market.candles'::regclass and s.ts >= a.kept_from
    where s.timeframe = interval '1 minute';
    update market.aggregates set native = false;
end
$$;
reset role;
comment on table market._trades_1m_rows is 'Rows of market._trades_1m as of the last refresh.';
comment on table market._book_1m_rows is 'Rows of market._book_1m as of the last refresh.';
comment on table market._liquidations_1m_rows is 'Rows of market._liquidations_1m as of the last refresh.';
comment on table market._candles_rows is 'Rows of market._candles as of the last refresh.';

-- The stretches of one symbol, in whole buckets, that are not as of now in the aggregate's rows. A few
-- stretches are read one by one, many in one go.
create or replace function market._stale(
    source regclass, width interval, symbol text, "from" timestamptz, "to" timestamptz
)
returns table (first timestamptz, stop timestamptz)
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan
set enable_seqscan = off -- by index, as the table may have been empty when the plan was made
rows 2
as $$
#variable_conflict use_column
begin
    if not exists (
        select from market.dirty_buckets d
        where d.source = $1 and d.width = $2 and d.symbol = $3 and d.bucket >= $4 and d.bucket < $5
    ) then
        return;
    end if;
    return query
        with islands as (
            select min(n.bucket) as low, max(n.bucket) + $2 as high
            from (
                select b.bucket, b.bucket - row_number() over (order by b.bucket) * $2 as island
                from (
                    select distinct d.bucket
                    from market.dirty_buckets d
                    where d.source = $1 and d.width = $2 and d.symbol = $3
                        and d.bucket >= $4 and d.bucket < $5
                ) b
            ) n
            group by n.island
        )
        select min(i.low), max(i.high)
        from islands i
        group by case when (select count(*) from islands) <= 16 then i.low end;
end
$$;

create or replace view market._trades_1m as
select r.* from market._trades_1m_rows r
where not exists (
    select from market.dirty_buckets d
    where d.source = 'market.trades'::regclass and d.width = interval '1 minute'
        and d.symbol = r.symbol and d.bucket = r.bucket
)
union all
select a.*
from (
    select distinct b.symbol, b.bucket
    from market.dirty_buckets b
    where b.source = 'market.trades'::regclass and b.width = interval '1 minute'
) d
cross join lateral market._trades_1m_of(d.symbol, d.bucket, d.bucket + interval '1 minute') a;

create or replace view market._book_1m as
select r.* from market._book_1m_rows r
where not exists (
    select from market.dirty_buckets d
    where d.source = 'market.order_book_snapshots'::regclass and d.width = interval '1 minute'
        and d.symbol = r.symbol and d.bucket = r.bucket
)
union all
select a.*
from (
    select distinct b.symbol, b.bucket
    from market.dirty_buckets b
    where b.source = 'market.order_book_snapshots'::regclass and b.width = interval '1 minute'
) d
cross join lateral market._book_1m_of(d.symbol, d.bucket, d.bucket + interval '1 minute') a;

create or replace view market._liquidations_1m as
select r.* from market._liquidations_1m_rows r
where not exists (
    select from market.dirty_buckets d
    where d.source = 'market.liquidation_events'::regclass and d.width = interval '1 minute'
        and d.symbol = r.symbol and d.bucket = r.bucket
)
union all
select a.*
from (
    select distinct b.symbol, b.bucket
    from market.dirty_buckets b
    where b.source = 'market.liquidation_events'::regclass and b.width = interval '1 minute'
) d
cross join lateral market._liquidations_1m_of(d.symbol, d.bucket, d.bucket + interval '1 minute') a;

create or replace view market._candles as
select r.* from market._candles_rows r
where not exists (
    select from market.dirty_buckets d
    where d.source = 'market.candles'::regclass and d.width = r.timeframe
        and d.symbol = r.symbol and d.bucket = r.bucket
)
union all
select a.*
from (
    select distinct b.width, b.symbol, b.bucket
    from market.dirty_buckets b
    where b.source = 'market.candles'::regclass
) d
cross join lateral market._candles_of(d.symbol, d.width, d.bucket, d.bucket + d.width) a;

-- Commits, so it cannot pin search_path: every name in it is qualified.
create or replace procedure market._refresh(name text, batch integer)
language plpgsql
as $$
declare
    v_source regclass;
    v_width interval;
    v_symbols text [];
    v_buckets timestamptz [];
begin
    if pg_catalog.current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'aggregates are refreshed under read committed only'
        using errcode = 'AP103',
        detail = pg_catalog.format(
            'This transaction is %s.', pg_catalog.current_setting('transaction_isolation')
        ),
        hint = 'set default_transaction_isolation = ''read committed''';
    end if;
    select a.source, a.width into strict v_source, v_width
    from market.aggregates a where a.name = _refresh.name;
    loop
        -- One refresher at a time; who comes second leaves the work to the first.
        exit when not ops._try_lock('market:' || name);
        -- A truncation of the source locks the source, then the notes: so do we.
        execute pg_catalog.format('lock table only %s in access share mode', v_source);
        -- A note commits together with the rows it stands for, and whoever relies on a note of
        -- another holds its lock until he commits. So all rows of the notes deleted here are
        -- visible to the next statement; a note not visible yet, or held, is left for later.
        -- In the order in which rows are read: neighbours in time come to lie side by side.
        with gone as (
            delete from market.dirty_buckets
            where ctid = any(array(
                select d.ctid from market.dirty_buckets d
                where d.source = v_source and d.width = v_width
                limit batch for update skip locked
            ))
            returning symbol, bucket
        ),
        pairs as (
            select distinct g.symbol, g.bucket from gone g
        )
        select
            pg_catalog.array_agg(p.symbol order by p.symbol, p.bucket),
            pg_catalog.array_agg(p.bucket order by p.symbol, p.bucket)
        into v_symbols, v_buckets
        from pairs p;
        exit when v_symbols is null;
        case name

            when '_trades_1m' then
                delete from market._trades_1m_rows r using unnest(v_symbols, v_buckets) as d (symbol, bucket)
                where r.symbol = d.symbol and r.bucket = d.bucket;
                insert into market._trades_1m_rows
                select a.*
                from unnest(v_symbols, v_buckets) as d (symbol, bucket)
                cross join lateral market._trades_1m_of(d.symbol, d.bucket, d.bucket + interval '1 minute') a;

            when '_book_1m' then
                delete from market._book_1m_rows r using unnest(v_symbols, v_buckets) as d (symbol, bucket)
                where r.symbol = d.symbol and r.bucket = d.bucket;
                insert into market._book_1m_rows
                select a.*
                from unnest(v_symbols, v_buckets) as d (symbol, bucket)
                cross join lateral market._book_1m_of(d.symbol, d.bucket, d.bucket + interval '1 minute') a;

            when '_liquidations_1m' then
                delete from market._liquidations_1m_rows r using unnest(v_symbols, v_buckets) as d (symbol, bucket)
                where r.symbol = d.symbol and r.bucket = d.bucket;
                insert into market._liquidations_1m_rows
                select a.*
                from unnest(v_symbols, v_buckets) as d (symbol, bucket)
                cross join lateral market._liquidations_1m_of(d.symbol, d.bucket, d.bucket + interval '1 minute') a;

            else
                delete from market._candles_rows r using unnest(v_symbols, v_buckets) as d (symbol, bucket)
                where r.timeframe = v_width and r.symbol = d.symbol and r.bucket = d.bucket;
                insert into market._candles_rows
                select a.*
                from unnest(v_symbols, v_buckets) as d (symbol, bucket)
                cross join lateral market._candles_of(d.symbol, v_width, d.bucket, d.bucket + v_width) a;
        end case;
        commit;
    end loop;
    commit;
end
$$;

-- Whether something before a time is not aggregated yet.
create or replace function market._waits(aggregate market.aggregates, until timestamptz)
returns boolean
language sql stable parallel safe set search_path = pg_catalog, pg_temp
return exists (
    select from market.dirty_buckets d
    where d.source = aggregate.source and d.width = aggregate.width and d.bucket < until
);

-- After rows of the source were dropped: here there is nothing to do.
create or replace function market._rows_dropped(aggregate market.aggregates) returns void
language sql volatile parallel unsafe set search_path = pg_catalog, pg_temp
as $$
$$;

-- How far an aggregate is refreshed, for ops.health: dirty buckets, and up to when where that is known.
create or replace function market._aggregate_state(
    aggregate market.aggregates, at timestamptz, out dirty bigint, out behind boolean, out detail text
)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select count(*), false, format('%s changed buckets wait for the refresh', count(*))
    from market.dirty_buckets d
    where d.source = (aggregate).source and d.width = (aggregate).width
$$;

create or replace procedure market.add_timeframe(timeframe interval)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_seconds constant bigint := extract(epoch from timeframe);
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
    -- Nobody writes meanwhile: what is there has to be noted, what comes is noted by the triggers.
    lock table market.candles in share row exclusive mode;
    insert into market.aggregates (name, source, width, native) values (
        '_candles_' || case when mod(v_seconds, 3600) = 0 then v_seconds / 3600 || 'h' else v_seconds / 60 || 'm' end,
        'market.candles', v_seconds * interval '1 second', false
    );
    insert into market.dirty_buckets (source, width, symbol, bucket)
    select distinct 'market.candles'::regclass, v_seconds * interval '1 second', s.symbol, public.time_bucket(v_seconds * interval '1 second', s.ts)
    from market.candles s
    where s.timeframe = interval '1 minute';
end
$$;
comment on procedure market.add_timeframe(interval) is
'Keep bars of one more timeframe, made from loaded one-minute bars: market.candle_versions answers for it. timeframe: whole minutes that divide a day, more than one. Asked for again it does nothing. Errors: AP740 no such timeframe.';
