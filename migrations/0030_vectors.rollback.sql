do $do$
declare
    v_table text;
begin
    foreach v_table in array array[
        'candles', 'trades', 'order_book_snapshots', 'liquidation_events', 'funding_rates', 'open_interest'
    ] loop
        execute format('drop trigger mark_pending_insert on market.%I', v_table);
        execute format('drop trigger mark_pending_update on market.%I', v_table);
    end loop;
end
$do$;
drop function feature._mark_pending();
drop table feature.watermarks;
alter table feature.pending drop column pending_id;
