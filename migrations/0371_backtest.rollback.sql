drop table backtest.live_trades;
drop table backtest.live_positions;
drop table backtest.followed;
