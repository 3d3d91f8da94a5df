-- Triggers on feature's tables, and on market's where late rows change stored vectors; their
-- functions are in invalidation.sql, blocks.sql and sets.sql.
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
create or replace trigger keep_sets before delete on feature.sets
for each row execute function feature._keep_sets();
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
create or replace trigger unpack_truncated after truncate on feature.vectors
for each statement execute function feature._unpack_all();
