create or replace function market._stale(name text)
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

create or replace function market._mark_changed() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_name text;
    v_width interval;
    v_changed text;
    v_insert text;
    v_minutes constant text := ' where timeframe = interval ''1 minute''';
    v_where text;
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
            '    from (%3$s) c'
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
            ' order by 1, 2'
    end;
    foreach v_name in array tg_argv loop
        select a.width into strict v_width from market.aggregates a where a.name = v_name;
        execute format(v_insert, v_name || '_marks', v_width, v_changed);
    end loop;
    return null;
end
$$;

alter table market.aggregates drop column kept_from;
