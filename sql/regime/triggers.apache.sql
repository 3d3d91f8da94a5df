-- Rows that arrive for a time whose regimes are stored leave a mark, on the Apache edition: a statement
-- at a time; see regime.pending.

create or replace function regime._mark_pending() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_op = 'DELETE' then
        insert into regime.pending (symbol, ts_from, ts_to)
        select w.symbol, min(r.ts), max(r.ts)
        from old_rows r
        join regime.watermarks w on w.symbol = r.symbol and r.ts < w.through
        group by w.symbol;
    else
        insert into regime.pending (symbol, ts_from, ts_to)
        select w.symbol, min(r.ts), max(r.ts)
        from new_rows r
        join regime.watermarks w on w.symbol = r.symbol and r.ts < w.through
        group by w.symbol;
    end if;
    return null;
end
$$;

create or replace trigger regime_inserted after insert on market.candles
referencing new table as new_rows
for each statement execute function regime._mark_pending();
create or replace trigger regime_updated after update on market.candles
referencing new table as new_rows
for each statement execute function regime._mark_pending();
create or replace trigger regime_deleted after delete on market.candles
referencing old table as old_rows
for each statement execute function regime._mark_pending();
create or replace trigger regime_inserted after insert on market.trades
referencing new table as new_rows
for each statement execute function regime._mark_pending();
create or replace trigger regime_updated after update on market.trades
referencing new table as new_rows
for each statement execute function regime._mark_pending();
create or replace trigger regime_deleted after delete on market.trades
referencing old table as old_rows
for each statement execute function regime._mark_pending();
