-- depends: 0191_marks_in_order
--
-- 0210: late rows show at once on the Community edition too. A continuous aggregate that reads its
-- own tail shows a row behind its watermark after the next refresh only: until then a vector lacked
-- it, and one stored meanwhile kept lacking it. TimescaleDB's invalidation logs say which stretches
-- of time changed, as marks do on the Apache edition. So there the two are now built alike:
-- market._x_rows holds what the last refresh made (a continuous aggregate, materialised only, or a
-- table), and the view market._x takes from it what did not change since and computes the rest.

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
begin
    select g.mat_hypertable_id as rows_id, g.raw_hypertable_id as source_id into strict v_ids
    from _timescaledb_catalog.continuous_agg g
    where g.user_view_schema = 'market' and g.user_view_name = _stale.name || '_rows';
    select a.width into strict v_width from market.aggregates a where a.name = _stale.name;
    return query
        select lower(r.stretch), upper(r.stretch)
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
        )) r (stretch);
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

create or replace procedure market._create_aggregate(
    name text, source regclass, width interval, definition text
)
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    insert into market.aggregates values (
        name, source, width, definition,
        current_setting('timescaledb.license', true) = 'timescale'
    );
    call market._make_rows(name);
end
$$;

do $do$
declare
    v_name text;
begin
    for v_name in select a.name from market.aggregates a where a.native order by a.name loop
        execute format(
            'alter materialized view market.%I rename to %I', v_name, v_name || '_rows'
        );
        execute format(
            'alter materialized view market.%I set (timescaledb.materialized_only = true)',
            v_name || '_rows'
        );
        call market._make_view(v_name);
    end loop;
end
$do$;
