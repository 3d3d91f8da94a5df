drop sequence ml.latest_misses;
drop sequence ml.latest_hits;
drop table market.events;
drop table market.trade_size_quantiles;
drop table ops.alert_channels;
drop table ops.alert_rules;
drop table ml.live_runs;
drop table ml.live_predictions;
