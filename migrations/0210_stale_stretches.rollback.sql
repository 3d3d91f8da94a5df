do $do$
declare
    v_name text;
begin
    for v_name in select a.name from market.aggregates a where a.native order by a.name loop
        execute format('drop view market.%I', v_name);
        execute format(
            'alter materialized view market.%I set (timescaledb.materialized_only = false)',
            v_name || '_rows'
        );
        execute format(
            'alter materialized view market.%I rename to %I', v_name || '_rows', v_name
        );
    end loop;
end
$do$;
create or replace procedure market._create_aggregate(name text, source regclass, width interval, definition text)
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
drop procedure market._make_rows(text);
drop procedure market._make_view(text);
drop function market._stale(text);
