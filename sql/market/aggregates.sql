-- Refreshing the aggregates. These procedures commit, so they cannot pin search_path: every name
-- in them is qualified.
create or replace procedure market.refresh_aggregate(name text, batch integer default 20000)
language plpgsql
as $$
declare
    v_native boolean;
    v_width interval;
    v_definition text;
    v_columns text;
    v_symbols text [];
    v_buckets timestamptz [];
begin
    select a.native, a.width, a.definition into strict v_native, v_width, v_definition
    from market.aggregates a where a.name = refresh_aggregate.name;
    if v_native then
        call public.refresh_continuous_aggregate(
            pg_catalog.format('market.%I', name)::pg_catalog.regclass, null, null
        );
        return;
    end if;
    select pg_catalog.string_agg(
        case when a.attname in ('symbol', 'bucket') then 'd.' else 'a.' end
        || pg_catalog.quote_ident(a.attname), ', ' order by a.attnum
    ) into v_columns
    from pg_catalog.pg_attribute a
    where a.attrelid = pg_catalog.format('market.%I', name || '_rows')::pg_catalog.regclass
        and a.attnum > 0 and not a.attisdropped;
    loop
        -- One refresher at a time; who comes second leaves the work to the first.
        exit when not pg_catalog.pg_try_advisory_xact_lock(
            pg_catalog.hashtextextended('market.' || name, 0)
        );
        -- A mark commits together with the rows it stands for. So the rows of the marks deleted
        -- here are visible to the next statement, and a mark not visible yet is left for later.
        execute pg_catalog.format(
            'with gone as (delete from market.%1$I where ctid = any(array('
            '    select m.ctid from market.%1$I m limit $1)) returning symbol, bucket),'
            ' pairs as (select distinct symbol, bucket from gone)'
            ' select pg_catalog.array_agg(symbol), pg_catalog.array_agg(bucket) from pairs',
            name || '_marks'
        ) into v_symbols, v_buckets using batch;
        exit when v_symbols is null;
        execute pg_catalog.format(
            'delete from market.%I r using unnest($1, $2) as d (symbol, bucket)'
            ' where r.symbol = d.symbol and r.bucket = d.bucket', name || '_rows'
        ) using v_symbols, v_buckets;
        execute pg_catalog.format(
            'insert into market.%I select %s from unnest($1, $2) as d (symbol, bucket)'
            ' cross join lateral (%s) a',
            name || '_rows', v_columns, pg_catalog.replace(v_definition, '{range}', pg_catalog.format(
                's.symbol = d.symbol and s.ts >= d.bucket and s.ts < d.bucket + %L::interval', v_width
            ))
        ) using v_symbols, v_buckets;
        commit;
    end loop;
    commit;
end
$$;

comment on procedure market.refresh_aggregate(text, integer) is
'Bring one aggregate (market.aggregates.name) up to date, batch marks at a time; see market.refresh_aggregates.';

create or replace procedure market.refresh_aggregates()
language plpgsql
as $$
declare
    v_names text [];
    v_name text;
begin
    select pg_catalog.array_agg(a.name order by a.name) into v_names from market.aggregates a;
    foreach v_name in array v_names loop
        call market.refresh_aggregate(v_name);
    end loop;
end
$$;
comment on procedure market.refresh_aggregates() is
'Bring every aggregate up to date with what was inserted, corrected or deleted since the last time; only changed buckets are recomputed. Commits as it goes; a second call while one runs returns at once. On the Apache edition reads are right before it too, only slower.';
