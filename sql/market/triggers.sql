-- Triggers on market's own tables; their functions are in history.sql. Applied when this file or a
-- trigger it makes has changed, because creating a trigger waits for whoever writes to the table.
create or replace trigger keep_superseded before update on market.candles
for each row execute function market._keep_superseded('candles_history');
create or replace trigger keep_deleted after delete on market.candles
referencing old table as old_rows
for each statement execute function market._keep_deleted('candles_history');
create or replace trigger end_superseded after insert on market.candles
referencing new table as new_rows
for each statement execute function market._end_superseded('candles_history', 'symbol', 'timeframe', 'ts');
create or replace trigger keep_superseded before update on market.trades
for each row execute function market._keep_superseded('trades_history');
create or replace trigger keep_deleted after delete on market.trades
referencing old table as old_rows
for each statement execute function market._keep_deleted('trades_history');
create or replace trigger end_superseded after insert on market.trades
referencing new table as new_rows
for each statement execute function market._end_superseded('trades_history', 'symbol', 'ts', 'trade_id');
create or replace trigger keep_superseded before update on market.order_book_snapshots
for each row execute function market._keep_superseded('order_book_snapshots_history');
create or replace trigger keep_deleted after delete on market.order_book_snapshots
referencing old table as old_rows
for each statement execute function market._keep_deleted('order_book_snapshots_history');
create or replace trigger end_superseded after insert on market.order_book_snapshots
referencing new table as new_rows
for each statement execute function market._end_superseded('order_book_snapshots_history', 'symbol', 'ts', 'sequence');
create or replace trigger keep_superseded before update on market.liquidation_events
for each row execute function market._keep_superseded('liquidation_events_history');
create or replace trigger keep_deleted after delete on market.liquidation_events
referencing old table as old_rows
for each statement execute function market._keep_deleted('liquidation_events_history');
create or replace trigger end_superseded after insert on market.liquidation_events
referencing new table as new_rows
for each statement execute function market._end_superseded('liquidation_events_history', 'symbol', 'ts', 'event_id');
create or replace trigger keep_superseded before update on market.funding_rates
for each row execute function market._keep_superseded('funding_rates_history');
create or replace trigger keep_deleted after delete on market.funding_rates
referencing old table as old_rows
for each statement execute function market._keep_deleted('funding_rates_history');
create or replace trigger end_superseded after insert on market.funding_rates
referencing new table as new_rows
for each statement execute function market._end_superseded('funding_rates_history', 'symbol', 'ts');
create or replace trigger keep_superseded before update on market.open_interest
for each row execute function market._keep_superseded('open_interest_history');
create or replace trigger keep_deleted after delete on market.open_interest
referencing old table as old_rows
for each statement execute function market._keep_deleted('open_interest_history');
create or replace trigger end_superseded after insert on market.open_interest
referencing new table as new_rows
for each statement execute function market._end_superseded('open_interest_history', 'symbol', 'ts');
