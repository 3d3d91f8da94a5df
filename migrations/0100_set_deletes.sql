-- depends: 0071_marks_again
--
-- 0100: deleted rows go to <table>_history in one statement, not row by row: deleting a million
-- trades took a hundred seconds.
create function market._keep_deleted() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_columns text;
begin
    select string_agg(quote_ident(a.attname), ', ' order by a.attnum) into v_columns
    from pg_attribute a
    where a.attrelid = format('market.%I', tg_argv[0])::regclass and a.attnum > 0
        and not a.attisdropped and a.attname <> 'superseded_at';
    execute format(
        'insert into market.%1$I (%2$s, superseded_at) select %2$s, $1 from old_rows',
        tg_argv[0], v_columns
    ) using clock_timestamp();
    return null;
end
$$;

drop trigger keep_superseded on market.candles;
create trigger keep_superseded before update on market.candles
for each row execute function market._keep_superseded('candles_history');
create trigger keep_deleted after delete on market.candles referencing old table as old_rows
for each statement execute function market._keep_deleted('candles_history');
drop trigger keep_superseded on market.trades;
create trigger keep_superseded before update on market.trades
for each row execute function market._keep_superseded('trades_history');
create trigger keep_deleted after delete on market.trades referencing old table as old_rows
for each statement execute function market._keep_deleted('trades_history');
drop trigger keep_superseded on market.order_book_snapshots;
create trigger keep_superseded before update on market.order_book_snapshots
for each row execute function market._keep_superseded('order_book_snapshots_history');
create trigger keep_deleted after delete on market.order_book_snapshots referencing old table as old_rows
for each statement execute function market._keep_deleted('order_book_snapshots_history');
drop trigger keep_superseded on market.liquidation_events;
create trigger keep_superseded before update on market.liquidation_events
for each row execute function market._keep_superseded('liquidation_events_history');
create trigger keep_deleted after delete on market.liquidation_events referencing old table as old_rows
for each statement execute function market._keep_deleted('liquidation_events_history');
drop trigger keep_superseded on market.funding_rates;
create trigger keep_superseded before update on market.funding_rates
for each row execute function market._keep_superseded('funding_rates_history');
create trigger keep_deleted after delete on market.funding_rates referencing old table as old_rows
for each statement execute function market._keep_deleted('funding_rates_history');
drop trigger keep_superseded on market.open_interest;
create trigger keep_superseded before update on market.open_interest
for each row execute function market._keep_superseded('open_interest_history');
create trigger keep_deleted after delete on market.open_interest referencing old table as old_rows
for each statement execute function market._keep_deleted('open_interest_history');
