-- The simulator's markets.

create or replace procedure market.forget_simulation(symbol text)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_table text;
begin
    if not exists (
        select from market.instruments i
        where i.symbol = forget_simulation.symbol and i.is_simulated
    ) then
        raise exception '% is no simulated symbol', coalesce(quote_literal(symbol), 'null')
        using errcode = 'AP438',
            hint = 'Rows of real markets are corrected (alphaplus load --correct), or dropped by market.drop_rows.';
    end if;
    foreach v_table in array array[
        'trades', 'order_book_snapshots', 'liquidation_events', 'funding_rates', 'open_interest'
    ] loop
        execute format('delete from market.%I t where t.symbol = $1', v_table) using symbol;
        execute format('delete from market.%I t where t.symbol = $1', v_table || '_history') using symbol;
    end loop;
    delete from market.simulation_truth t where t.symbol = forget_simulation.symbol;
end
$$;
comment on procedure market.forget_simulation(text) is
'Deletes the rows of a simulated symbol and their history: a simulation made anew is no correction of the
old one. Errors: AP438 the symbol is not simulated.';
