-- depends: 0190_vector_blocks
--
-- 0191: marks lie in the order of time, so that a refresh, which takes them as they lie, writes an
-- aggregate's rows in that order too: of a large load they lay scattered, and a live window read a
-- page for each of its minutes.
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
