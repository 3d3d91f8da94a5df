-- depends: 0211_kept_from
--
-- 0212: from 2.23 on TimescaleDB (2.29.2 is the newest that was tried) does not note the rows that
-- COPY brings into a table with statement triggers, so a continuous aggregate misses them for good
-- where they are late. There the aggregates are kept by marks, as on the Apache edition.
create function market._native_works() returns boolean
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select current_setting('timescaledb.license', true) is not distinct from 'timescale'
        and string_to_array(substring(e.extversion from '^[0-9.]+'), '.')::integer [] < array[2, 23]
    from pg_extension e
    where e.extname = 'timescaledb'
$$;

create or replace procedure market._create_aggregate(
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

do $do$
declare
    v_aggregate market.aggregates;
    v_source regclass;
begin
    if market._native_works() or current_setting('timescaledb.license', true) <> 'timescale' then
        return;
    end if;
    for v_aggregate in
        update market.aggregates a set native = false
        where a.native and a.kept_from = '-infinity' returning a.*
    loop
        execute format('drop view market.%I', v_aggregate.name);
        execute format('drop materialized view market.%I', v_aggregate.name || '_rows');
        call market._make_rows(v_aggregate.name);
        execute format(
            'insert into market.%I (symbol, bucket)'
            ' select distinct s.symbol, public.time_bucket(%L::interval, s.ts) from %s s%s order by 1, 2',
            v_aggregate.name || '_marks', v_aggregate.width, v_aggregate.source,
            case when v_aggregate.source = 'market.candles'::regclass
                then ' where s.timeframe = interval ''1 minute''' else '' end
        );
    end loop;
    for v_source in
        select distinct a.source from market.aggregates a where not a.native and not exists (
            select from pg_trigger t where t.tgrelid = a.source and t.tgname = 'mark_inserted'
        )
    loop
        call market._watch(v_source);
    end loop;
end
$do$;
