drop trigger keep_deleted on market.candles;
drop trigger keep_superseded on market.candles;
create trigger keep_superseded before update or delete on market.candles
for each row execute function market._keep_superseded('candles_history');
drop trigger keep_deleted on market.trades;
drop trigger keep_superseded on market.trades;
create trigger keep_superseded before update or delete on market.trades
for each row execute function market._keep_superseded('trades_history');
drop trigger keep_deleted on market.order_book_snapshots;
drop trigger keep_superseded on market.order_book_snapshots;
create trigger keep_superseded before update or delete on market.order_book_snapshots
for each row execute function market._keep_superseded('order_book_snapshots_history');
drop trigger keep_deleted on market.liquidation_events;
drop trigger keep_superseded on market.liquidation_events;
create trigger keep_superseded before update or delete on market.liquidation_events
for each row execute function market._keep_superseded('liquidation_events_history');
drop trigger keep_deleted on market.funding_rates;
drop trigger keep_superseded on market.funding_rates;
create trigger keep_superseded before update or delete on market.funding_rates
for each row execute function market._keep_superseded('funding_rates_history');
drop trigger keep_deleted on market.open_interest;
drop trigger keep_superseded on market.open_interest;
create trigger keep_superseded before update or delete on market.open_interest
for each row execute function market._keep_superseded('open_interest_history');
drop function market._keep_deleted();
