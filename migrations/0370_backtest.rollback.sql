drop table backtest.metrics;
drop table backtest.equity;
drop table backtest.trades;
drop table backtest.trials;
drop table backtest.strategies;
drop table backtest.costs;
