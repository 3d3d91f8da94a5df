-- depends: 0010_aggregates
--
-- 0030: how far vectors are stored, and marks where rows that arrive later could change them.
create table feature.watermarks (
    set_id integer not null references feature.sets (set_id) on delete cascade,
    symbol text collate "C" not null,
    through timestamptz not null,
    primary key (set_id, symbol)
);
comment on table feature.watermarks is 'Up to which grid time the vectors of a set and symbol are stored (exclusive).';

alter table feature.pending add column pending_id bigint generated always as identity primary key;

-- A row that arrives now but says it was known at a time whose vectors are already stored (a
-- history load) changes those vectors: mark the stretch. Live rows lie past the watermark and cost
-- one look at a small table per statement.
create function feature._mark_pending() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    insert into feature.pending (set_id, symbol, ts_from, ts_to, reason)
    select m.set_id, m.symbol, min(n.usable), least(max(n.ts) + max(s.lookback) + interval '1 day', max(m.through)), tg_table_name
    from (
        select r.symbol, r.ts, market.usable_at(interval '1 minute', r.ts, r.known_at) as usable
        from new_rows r
        where r.ts < (select max(x.through) from feature.watermarks x)
    ) n
    join feature.watermarks m on m.symbol = n.symbol
    join feature.sets s on s.set_id = m.set_id
    where n.usable < m.through
    group by m.set_id, m.symbol;
    return null;
end
$$;

do $do$
declare
    v_table text;
begin
    foreach v_table in array array[
        'candles', 'trades', 'order_book_snapshots', 'liquidation_events', 'funding_rates', 'open_interest'
    ] loop
        execute format(
            'create trigger mark_pending_insert after insert on market.%I referencing new table as new_rows'
            ' for each statement execute function feature._mark_pending()', v_table
        );
        execute format(
            'create trigger mark_pending_update after update on market.%I referencing new table as new_rows'
            ' for each statement execute function feature._mark_pending()', v_table
        );
    end loop;
end
$do$;
