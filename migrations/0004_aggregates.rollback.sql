drop trigger if exists mark_inserted on market.trades;
drop trigger if exists mark_deleted on market.trades;
drop trigger if exists mark_updated on market.trades;
drop trigger if exists forget_all on market.trades;
drop trigger if exists mark_inserted on market.order_book_snapshots;
drop trigger if exists mark_deleted on market.order_book_snapshots;
drop trigger if exists mark_updated on market.order_book_snapshots;
drop trigger if exists forget_all on market.order_book_snapshots;
drop trigger if exists mark_inserted on market.liquidation_events;
drop trigger if exists mark_deleted on market.liquidation_events;
drop trigger if exists mark_updated on market.liquidation_events;
drop trigger if exists forget_all on market.liquidation_events;
drop trigger if exists mark_inserted on market.candles;
drop trigger if exists mark_deleted on market.candles;
drop trigger if exists mark_updated on market.candles;
drop trigger if exists forget_all on market.candles;
do $$
declare
    v_aggregate record;
begin
    for v_aggregate in select * from market.aggregates loop
        if v_aggregate.native then
            execute format('drop view market.%I', v_aggregate.name);
            execute format('drop materialized view market.%I', v_aggregate.name || '_rows');
        else
            execute format('drop view market.%I', v_aggregate.name);
            execute format('drop table market.%I', v_aggregate.name || '_rows');
            execute format('drop table market.%I', v_aggregate.name || '_marks');
        end if;
    end loop;
end
$$;
drop procedure market._watch(regclass);
drop procedure market._create_aggregate(text, regclass, interval, text);
drop procedure market._make_rows(text);
drop procedure market._make_view(text);
drop function market._native_works();
drop function market._stale(text);
drop function market._forget_all();
drop function market._mark_changed();
drop table market.aggregates;
drop function market.usable_at(interval, timestamptz, timestamptz);
