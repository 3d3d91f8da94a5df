create or replace function market._mark_changed() returns trigger
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
            ' select distinct c.symbol, public.time_bucket(%L::interval, c.ts) from (%s) c%s',
            v_name || '_marks', v_width, v_changed,
            case when v_name like '\_candles\_%' then ' where c.timeframe = interval ''1 minute''' else '' end
        );
    end loop;
    return null;
end
$$;
