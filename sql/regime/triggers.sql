-- Triggers on market's tables where late rows change stored regimes; their function is in
-- invalidation.sql.
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
