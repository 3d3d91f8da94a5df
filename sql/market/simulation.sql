-- The simulator's markets.

create or replace procedure market.forget_simulation(symbol text)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (
        select from market.instruments i
        where i.symbol = forget_simulation.symbol and i.is_simulated
    ) then
        raise exception '% is no simulated symbol', coalesce(quote_literal(symbol), 'null')
        using errcode = 'AP438',
            hint = 'Rows of real markets are corrected (alphaplus load --correct), or dropped by market.drop_rows.';
    end if;
    delete from market.trades t where t.symbol = forget_simulation.symbol;
    delete from market.trades_history t where t.symbol = forget_simulation.symbol;
    delete from market.order_book_snapshots t where t.symbol = forget_simulation.symbol;
    delete from market.order_book_snapshots_history t where t.symbol = forget_simulation.symbol;
    delete from market.liquidation_events t where t.symbol = forget_simulation.symbol;
    delete from market.liquidation_events_history t where t.symbol = forget_simulation.symbol;
    delete from market.funding_rates t where t.symbol = forget_simulation.symbol;
    delete from market.funding_rates_history t where t.symbol = forget_simulation.symbol;
    delete from market.open_interest t where t.symbol = forget_simulation.symbol;
    delete from market.open_interest_history t where t.symbol = forget_simulation.symbol;
    delete from market.simulation_truth t where t.symbol = forget_simulation.symbol;
end
$$;
comment on procedure market.forget_simulation(text) is
'Deletes the rows of a simulated symbol and their history: a simulation made anew is no correction of the
old one. Errors: AP438 the symbol is not simulated.';
