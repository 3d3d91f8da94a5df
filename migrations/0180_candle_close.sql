-- depends: 0150_vector_sets
--
-- 0180: a day is 24 hours of UTC. ts + timeframe was counted in the session's TimeZone, where a day
-- may have 23 or 25: a daily candle known at its close was refused, or one known before it taken.
alter table market.candles drop constraint candles_known_after_close;
alter table market.candles add constraint candles_known_after_close check (
    timezone('UTC', known_at) >= timezone('UTC', ts) + timeframe
);
