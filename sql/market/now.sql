-- What a user's SELECT reads in place of a table: its rows of one symbol as known at one moment, which
-- alphaplus.server.sets.user says for as long as it runs the SELECT, and nothing in the SELECT can
-- change. They run as the owner, and alphaplus_select, as which users' SELECTs run, may call them and
-- read nothing else: whatever a SELECT holds, it reaches no later row and no other table.
do $do$
declare
    v_table text;
begin
    foreach v_table in array array[
        'candles', 'trades', 'order_book_snapshots', 'liquidation_events', 'funding_rates',
        'open_interest'
    ] loop
        execute format(
            $sql$
            create or replace function market.%1$I() returns setof market.%2$I
            language plpgsql stable parallel restricted security definer rows 100
            set search_path = pg_catalog, pg_temp
            as $$
            declare
                v_now record;
            begin
                select
                    m.symbol, timestamptz '1970-01-01 00:00:00+00' + m.start * interval '1 microsecond' as start,
                    timestamptz '1970-01-01 00:00:00+00' + m.stop * interval '1 microsecond' as stop,
                    timestamptz '1970-01-01 00:00:00+00' + m.as_of * interval '1 microsecond' as as_of,
                    timestamptz '1970-01-01 00:00:00+00' + m.until * interval '1 microsecond' as until
                into v_now
                from feature._moment() m;
                return query
                    select r.* from market.%3$I(v_now.symbol, v_now.start, v_now.stop, v_now.as_of) r;
                -- For the audit: beside those, what happened later.
                if v_now.until is not null then
                    return query
                        select r.* from market.%3$I(v_now.symbol, v_now.stop, v_now.until, v_now.until) r;
                end if;
            end
            $$
            $sql$,
            '_' || v_table || '_now', v_table, '_' || v_table || '_known'
        );
    end loop;
end
$do$;

-- What a label's SELECT reads as market.label_interval: the one interval that it is asked for.
create or replace function market._label_interval_now()
returns table (ts timestamptz, label_end timestamptz)
language plpgsql stable parallel restricted security definer rows 1
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
        select
            timestamptz '1970-01-01 00:00:00+00' + m.label_start * interval '1 microsecond',
            timestamptz '1970-01-01 00:00:00+00' + m.stop * interval '1 microsecond'
        from feature._moment() m
        where m.label_start is not null;
end
$$;
