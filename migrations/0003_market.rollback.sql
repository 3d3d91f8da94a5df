drop table market.sequence_gaps, market.quarantine, market.loads;
drop table market.candles;
drop table market.trades;
drop table market.order_book_snapshots;
drop table market.liquidation_events;
drop table market.funding_rates;
drop table market.open_interest;
drop table market.candles_history, market.trades_history, market.order_book_snapshots_history,
market.liquidation_events_history, market.funding_rates_history, market.open_interest_history;
drop table market.instruments;
drop type market.side;
