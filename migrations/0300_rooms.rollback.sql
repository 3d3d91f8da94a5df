drop schema bi;
drop schema backtest;
