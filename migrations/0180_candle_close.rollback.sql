alter table market.candles drop constraint candles_known_after_close;
alter table market.candles add constraint candles_known_after_close check (known_at >= ts + timeframe);
