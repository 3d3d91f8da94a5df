-- What late rows and changed vectors make invalid, on the Apache edition: a statement at a time. On
-- Community no statement trigger has a transition table: triggers.community.sql.
-- A row that arrives now but says it was known at a time whose vectors are already stored (a history
-- load) changes those vectors, so the stretch is noted in feature.pending. Live rows lie past the
-- watermark and cost one look at a small table for each statement.
create or replace function feature._mark_pending() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    insert into feature.pending (set_id, symbol, ts_from, ts_to, reason)
    select m.set_id, m.symbol, min(n.usable), least(max(n.ts) + max(coalesce(s.reach, s.lookback)) + interval '1 day', max(m.through)), tg_table_name
    from (
        select r.symbol, r.ts, market.usable_at(interval '1 minute', r.ts, r.known_at) as usable
        from new_rows r
        where r.ts < (select max(x.through) from feature.watermarks x)
    ) n
    join (
        select w.set_id, w.symbol, w.through, w.symbol as read_symbol from feature.watermarks w
        union all
        -- Sets that read other symbols' rows.
        select w.set_id, w.symbol, w.through, x.symbol
        from feature.set_symbols x
        join feature.watermarks w
            on w.set_id = x.set_id and w.symbol = coalesce(x.of_symbol, w.symbol)
    ) m on m.read_symbol = n.symbol
    join feature.sets s on s.set_id = m.set_id
    where n.usable < m.through
    group by m.set_id, m.symbol;
    return null;
end
$$;

create or replace function feature._unpack_inserted() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    -- Whoever packs these symbols is waited for, and waits.
    perform ops._lock('feature.materialise:' || c.set_id || ':' || c.symbol, true)
    from (select distinct n.set_id, n.symbol from new_rows n order by n.set_id, n.symbol) c;
    delete from feature.vector_blocks b
    using (
        select n.set_id, n.symbol, min(n.ts) as first_ts, max(n.ts) as last_ts
        from new_rows n
        group by n.set_id, n.symbol
    ) c
    where b.set_id = c.set_id and b.symbol = c.symbol
        and b.ts_from <= c.last_ts and b.ts_to > c.first_ts;
    return null;
end
$$;

create or replace function feature._unpack_deleted() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform ops._lock('feature.materialise:' || c.set_id || ':' || c.symbol, true)
    from (select distinct o.set_id, o.symbol from old_rows o order by o.set_id, o.symbol) c;
    delete from feature.vector_blocks b
    using (
        select o.set_id, o.symbol, min(o.ts) as first_ts, max(o.ts) as last_ts
        from old_rows o
        group by o.set_id, o.symbol
    ) c
    where b.set_id = c.set_id and b.symbol = c.symbol
        and b.ts_from <= c.last_ts and b.ts_to > c.first_ts;
    return null;
end
$$;

create or replace trigger mark_pending_insert after insert on market.candles
referencing new table as new_rows
for each statement execute function feature._mark_pending();
create or replace trigger mark_pending_update after update on market.candles
referencing new table as new_rows
for each statement execute function feature._mark_pending();
create or replace trigger mark_pending_insert after insert on market.trades
referencing new table as new_rows
for each statement execute function feature._mark_pending();
create or replace trigger mark_pending_update after update on market.trades
referencing new table as new_rows
for each statement execute function feature._mark_pending();
create or replace trigger mark_pending_insert after insert on market.order_book_snapshots
referencing new table as new_rows
for each statement execute function feature._mark_pending();
create or replace trigger mark_pending_update after update on market.order_book_snapshots
referencing new table as new_rows
for each statement execute function feature._mark_pending();
create or replace trigger mark_pending_insert after insert on market.liquidation_events
referencing new table as new_rows
for each statement execute function feature._mark_pending();
create or replace trigger mark_pending_update after update on market.liquidation_events
referencing new table as new_rows
for each statement execute function feature._mark_pending();
create or replace trigger mark_pending_insert after insert on market.funding_rates
referencing new table as new_rows
for each statement execute function feature._mark_pending();
create or replace trigger mark_pending_update after update on market.funding_rates
referencing new table as new_rows
for each statement execute function feature._mark_pending();
create or replace trigger mark_pending_insert after insert on market.open_interest
referencing new table as new_rows
for each statement execute function feature._mark_pending();
create or replace trigger mark_pending_update after update on market.open_interest
referencing new table as new_rows
for each statement execute function feature._mark_pending();
create or replace trigger unpack_inserted after insert on feature.vectors
referencing new table as new_rows
for each statement execute function feature._unpack_inserted();
create or replace trigger unpack_deleted after delete on feature.vectors
referencing old table as old_rows
for each statement execute function feature._unpack_deleted();
-- One trigger for what was and one for what is: a moved vector leaves one block and enters another.
create or replace trigger unpack_updated_from after update on feature.vectors
referencing old table as old_rows
for each statement execute function feature._unpack_deleted();
create or replace trigger unpack_updated_to after update on feature.vectors
referencing new table as new_rows
for each statement execute function feature._unpack_inserted();
