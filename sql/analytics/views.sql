-- What dashboards read: each view is the function of its name as of now.
create or replace view analytics.comprehensive_analysis as
select a.*
from market.instruments as i
cross join lateral analytics.comprehensive_analysis(i.symbol) as a;
comment on view analytics.comprehensive_analysis is
'All that is known of every symbol now, a row each; analytics.comprehensive_analysis(symbol, as_of) gives one at any time.';
comment on column analytics.comprehensive_analysis.symbol is 'The canonical symbol.';
comment on column analytics.comprehensive_analysis.as_of is 'The time of the answer.';
comment on column analytics.comprehensive_analysis.ts is 'Close of the last bar known then.';
comment on column analytics.comprehensive_analysis.price is 'Last price, in quote currency.';
comment on column analytics.comprehensive_analysis.change_1h is 'Relative change of price over the last hour that it has, 0.01 = one per cent.';
comment on column analytics.comprehensive_analysis.change_24h is 'Relative change over the last 24 hours that it has.';
comment on column analytics.comprehensive_analysis.trend is 'up, down or sideways.';
comment on column analytics.comprehensive_analysis.regime is 'Market regime of the hour (regime.states).';
comment on column analytics.comprehensive_analysis.regime_confidence is 'Its probability, 0 to 1.';
comment on column analytics.comprehensive_analysis.regime_since is 'Since when it lasts.';
comment on column analytics.comprehensive_analysis.liquidity_score is '0 (nothing in the book) to 1, see feature.liquidity_score.';
comment on column analytics.comprehensive_analysis.volatility_score is '0 (calmest minute of the day) to 1, see feature.volatility_score.';
comment on column analytics.comprehensive_analysis.volume_24h is 'Volume in base units over the last 24 hours that it has.';
comment on column analytics.comprehensive_analysis.volume_ratio is 'Volume of the last bar over the mean bar of the day.';
comment on column analytics.comprehensive_analysis.buy_share is 'Share of volume whose aggressor bought, 0 to 1.';
comment on column analytics.comprehensive_analysis.breakout is 'up, down or none: a bar of unusual volume that left the day''s range.';
comment on column analytics.comprehensive_analysis.volume_divergence is 'bullish, bearish or none: price and net buying disagree.';
comment on column analytics.comprehensive_analysis.patterns is 'Candlestick patterns of the last bar with the direction model''s probability, as a JSON array.';
comment on column analytics.comprehensive_analysis.liquidation_probability is 'Chance of large forced liquidations within 15 minutes.';
comment on column analytics.comprehensive_analysis.liquidation_risk is 'low, medium, high or critical.';
comment on column analytics.comprehensive_analysis.liquidation_risks is 'The same at every horizon that has a model, as a JSON array.';
comment on column analytics.comprehensive_analysis.ensemble_probability is 'The ensemble''s probability at 15 minutes.';
comment on column analytics.comprehensive_analysis.ensemble_confidence is 'Its confidence, 0 to 1.';
comment on column analytics.comprehensive_analysis.ensemble_method is 'The method that mixed it.';
comment on column analytics.comprehensive_analysis.ensemble_risk is 'Its risk level.';
comment on column analytics.comprehensive_analysis.sentiment_score is 'Mean sentiment of the day''s texts, -1 to 1.';
comment on column analytics.comprehensive_analysis.texts is 'How many texts there were.';
comment on column analytics.comprehensive_analysis.drift is 'Whether the last check of a model that serves the symbol found drift.';
comment on column analytics.comprehensive_analysis.drift_severity is 'The worst of them.';
comment on column analytics.comprehensive_analysis.staleness is 'as_of less ts.';
comment on column analytics.comprehensive_analysis.stale is 'What is older than ops.stale_after or not there: price, order book, regime, models, sentiment.';
comment on column analytics.comprehensive_analysis.notes is 'Why something is null.';

create or replace view analytics.volume_analysis as
select v.*
from market.instruments as i
cross join lateral analytics.volume_analysis(i.symbol) as v;
comment on view analytics.volume_analysis is
'Volume of every symbol over its last 24 hours; analytics.volume_analysis(symbol, as_of, window) gives one at any time.';
comment on column analytics.volume_analysis.symbol is 'The canonical symbol.';
comment on column analytics.volume_analysis.ts is 'Close of the last bar.';
comment on column analytics.volume_analysis.timeframe is 'Length of the bars.';
comment on column analytics.volume_analysis.bars is 'Bars in the window.';
comment on column analytics.volume_analysis.close is 'Last price.';
comment on column analytics.volume_analysis.volume is 'Volume in base units.';
comment on column analytics.volume_analysis.quote_volume is 'Volume in quote currency.';
comment on column analytics.volume_analysis.buy_volume is 'Volume whose aggressor bought, base units.';
comment on column analytics.volume_analysis.sell_volume is 'Volume whose aggressor sold, base units.';
comment on column analytics.volume_analysis.buy_share is 'buy_volume over both, 0 to 1.';
comment on column analytics.volume_analysis.net_volume is 'Bought less sold, base units.';
comment on column analytics.volume_analysis.last_volume is 'Volume of the last bar.';
comment on column analytics.volume_analysis.mean_volume is 'Mean volume of the bars before it.';
comment on column analytics.volume_analysis.volume_ratio is 'last_volume over mean_volume.';
comment on column analytics.volume_analysis.volume_zscore is 'Standard deviations of last_volume above the mean.';
comment on column analytics.volume_analysis.breakout is 'up, down or none.';
comment on column analytics.volume_analysis.price_change is 'Relative change of price over the window.';
comment on column analytics.volume_analysis.volume_divergence is 'bullish, bearish or none.';
comment on column analytics.volume_analysis.price_flow_correlation is 'Correlation of a bar''s return with its net buying.';
comment on column analytics.volume_analysis.point_of_control is 'Price at which most was traded.';
comment on column analytics.volume_analysis.value_area_low is 'Lower end of the prices of 70 % of the volume.';
comment on column analytics.volume_analysis.value_area_high is 'Upper end of them.';
comment on column analytics.volume_analysis.sentiment_score is 'Mean sentiment of the window''s texts.';
comment on column analytics.volume_analysis.texts is 'How many texts.';
comment on column analytics.volume_analysis.reason is 'Why there is nothing, where there is nothing.';

create or replace view analytics.model_health as
select * from analytics.model_health();
comment on view analytics.model_health is
'Every champion now: measured, live, drift and alerts; analytics.model_health(as_of, days) at any time.';
comment on column analytics.model_health.model is 'The model.';
comment on column analytics.model_health.symbol is 'Symbol of the line; null: pooled.';
comment on column analytics.model_health.regime is 'Regime of the line; null: all.';
comment on column analytics.model_health.status is 'green, yellow or red.';
comment on column analytics.model_health.reason is 'Why it is not green, or what is missing.';
comment on column analytics.model_health.version_id is 'The champion.';
comment on column analytics.model_health.version is 'Its number within its line.';
comment on column analytics.model_health.algorithm is 'Its algorithm.';
comment on column analytics.model_health.champion_since is 'Since when it serves.';
comment on column analytics.model_health.trained_to is 'End of the data it was trained on.';
comment on column analytics.model_health.expires_at is 'When it expires.';
comment on column analytics.model_health.measured_auc is 'AUC out of fold, before it was let in.';
comment on column analytics.model_health.measured_log_loss is 'Log loss out of fold, nats.';
comment on column analytics.model_health.measured_base_rate_log_loss is 'That of the base rate on the same rows.';
comment on column analytics.model_health.measured_rmse is 'Root mean squared error out of fold (values).';
comment on column analytics.model_health.predictions is 'Recorded predictions of the last seven days.';
comment on column analytics.model_health.outcomes is 'Outcomes of that time that are known.';
comment on column analytics.model_health.accuracy is 'Share on the right side of one half.';
comment on column analytics.model_health.log_loss is 'Log loss of recorded predictions, nats.';
comment on column analytics.model_health.base_rate_log_loss is 'Log loss of always saying their event rate.';
comment on column analytics.model_health.brier is 'Brier score of recorded predictions.';
comment on column analytics.model_health.rmse is 'Root mean squared error of recorded values.';
comment on column analytics.model_health.ece is 'Expected calibration error over tenths of probability.';
comment on column analytics.model_health.fallback_share is 'Share of answers that were fallbacks.';
comment on column analytics.model_health.last_prediction is 'as_of of the last recorded prediction.';
comment on column analytics.model_health.drift_severity is 'Severity of its last drift check; null: none.';
comment on column analytics.model_health.drift_score is 'Worst effect of that check.';
comment on column analytics.model_health.drift_checked_at is 'When it was checked.';
comment on column analytics.model_health.open_alerts is 'Open alerts of the model.';
comment on column analytics.model_health.running_job is 'Training job of the line that is queued or running.';

create or replace view analytics.training as
select * from analytics.training();
comment on view analytics.training is
'Training jobs of the last 30 days; analytics.training(as_of, days) at any time.';
comment on column analytics.training.job_id is 'Number of the job.';
comment on column analytics.training.model is 'The model.';
comment on column analytics.training.symbol is 'Symbol; null: pooled.';
comment on column analytics.training.regime is 'Regime; null: all.';
comment on column analytics.training.status is 'queued, running, succeeded, failed or cancelled.';
comment on column analytics.training.progress is '0 to 1.';
comment on column analytics.training.requested_at is 'When it was asked for.';
comment on column analytics.training.started_at is 'When a trainer took it.';
comment on column analytics.training.finished_at is 'When it ended.';
comment on column analytics.training.waited is 'How long it waited for a trainer.';
comment on column analytics.training.duration is 'How long it ran.';
comment on column analytics.training.attempts is 'How often it was tried.';
comment on column analytics.training.worker is 'The trainer.';
comment on column analytics.training.requested_by is 'Who asked.';
comment on column analytics.training.version_id is 'What came out.';
comment on column analytics.training.version is 'Its number within its line.';
comment on column analytics.training.row_count is 'Rows it was trained on.';
comment on column analytics.training.feature_count is 'Features.';
comment on column analytics.training.auc is 'AUC out of fold.';
comment on column analytics.training.log_loss is 'Log loss out of fold, nats.';
comment on column analytics.training.base_rate_log_loss is 'That of the base rate.';
comment on column analytics.training.brier is 'Brier score out of fold.';
comment on column analytics.training.ece is 'Expected calibration error out of fold.';
comment on column analytics.training.rmse is 'Root mean squared error out of fold (values).';
comment on column analytics.training.baseline_rmse is 'That of the mean.';
comment on column analytics.training.gates_passed is 'Gates it passed.';
comment on column analytics.training.gates_failed is 'Gates it did not.';
comment on column analytics.training.promoted_at is 'When it became champion.';
comment on column analytics.training.error is 'Why it failed.';

create or replace view analytics.drift as
select * from analytics.drift();
comment on view analytics.drift is
'Drift checks of the last 30 days; analytics.drift(as_of, days) at any time.';
comment on column analytics.drift.check_id is 'Number of the check.';
comment on column analytics.drift.at is 'When it ran.';
comment on column analytics.drift.model is 'The model.';
comment on column analytics.drift.symbol is 'Symbol of the line; null: pooled.';
comment on column analytics.drift.version_id is 'The version whose training data is compared with.';
comment on column analytics.drift.version is 'Its number within its line.';
comment on column analytics.drift.is_champion is 'Whether it serves now.';
comment on column analytics.drift.ts_from is 'Start of the stretch looked at.';
comment on column analytics.drift.ts_to is 'Its end.';
comment on column analytics.drift.row_count is 'Vectors in it.';
comment on column analytics.drift.features is 'Features compared.';
comment on column analytics.drift.drifted is 'How many drifted.';
comment on column analytics.drift.drifted_share is 'Their share.';
comment on column analytics.drift.severity is 'low to critical; null: no drift.';
comment on column analytics.drift.score is 'Worst effect.';
comment on column analytics.drift.first_feature is 'Feature to blame most.';
comment on column analytics.drift.alerts is 'Alerts of the check.';
comment on column analytics.drift.action is 'What was done last: record, watch, schedule, retrain, suppressed.';

create or replace view analytics.drift_features as
select * from analytics.drift_features();
comment on view analytics.drift_features is
'What the drift checks of the last 30 days found of each feature; analytics.drift_features(as_of, days) at any time.';
comment on column analytics.drift_features.check_id is 'The check.';
comment on column analytics.drift_features.at is 'When it ran.';
comment on column analytics.drift_features.model is 'The model.';
comment on column analytics.drift_features.symbol is 'Symbol of the line; null: pooled.';
comment on column analytics.drift_features.version_id is 'The version.';
comment on column analytics.drift_features.feature is 'The feature.';
comment on column analytics.drift_features.kind is 'feature, score or label.';
comment on column analytics.drift_features.severity is 'low to critical; null: none.';
comment on column analytics.drift_features.drifted is 'Whether it drifted.';
comment on column analytics.drift_features.effect is 'Largest statistic over its threshold.';
comment on column analytics.drift_features.ks is 'Kolmogorov-Smirnov distance.';
comment on column analytics.drift_features.psi is 'Population stability index.';
comment on column analytics.drift_features.wasserstein is 'Wasserstein distance in standard deviations of the reference.';
comment on column analytics.drift_features.p_adjusted is 'p value for the effective sample size, adjusted for the number of features.';
comment on column analytics.drift_features.null_share is 'Share of nulls.';
comment on column analytics.drift_features.reference_null_share is 'Share of nulls in training.';
comment on column analytics.drift_features.blame is 'Share of the model''s drift that is due to it.';

create or replace view analytics.inference as
select * from analytics.inference();
comment on view analytics.inference is
'Recorded predictions of the last seven days by model and hour; analytics.inference(model, from, to, as_of) for any time.';
comment on column analytics.inference.ts is 'Start of the hour (UTC).';
comment on column analytics.inference.model is 'The model or ensemble.';
comment on column analytics.inference.predictions is 'Recorded predictions.';
comment on column analytics.inference.per_second is 'The same per second.';
comment on column analytics.inference.fallback_share is 'Share answered by a fallback.';
comment on column analytics.inference.latency_mean_ms is 'Mean latency, milliseconds.';
comment on column analytics.inference.latency_p50_ms is 'Median latency, to within 5 %.';
comment on column analytics.inference.latency_p95_ms is '95 % quantile of latency, to within 5 %.';
comment on column analytics.inference.latency_max_ms is 'Longest latency.';
comment on column analytics.inference.outcomes is 'Predictions of the hour whose outcome is known.';
comment on column analytics.inference.accuracy is 'Share on the right side of one half.';
comment on column analytics.inference.log_loss is 'Log loss, nats.';
comment on column analytics.inference.base_rate_log_loss is 'Log loss of always saying the hour''s event rate.';
comment on column analytics.inference.brier is 'Brier score.';
comment on column analytics.inference.event_rate is 'Share of events.';
comment on column analytics.inference.mean_prediction is 'Mean prediction of those with an outcome.';
comment on column analytics.inference.rmse is 'Root mean squared error (values).';
comment on column analytics.inference.mae is 'Mean absolute error (values).';

create or replace view analytics.promotions as
select * from analytics.promotions();
comment on view analytics.promotions is
'Changes of aliases of the last year; analytics.promotions(as_of, days) at any time.';
comment on column analytics.promotions.at is 'When.';
comment on column analytics.promotions.model is 'The model.';
comment on column analytics.promotions.symbol is 'Symbol of the line; null: pooled.';
comment on column analytics.promotions.regime is 'Regime of the line; null: all.';
comment on column analytics.promotions.alias is 'champion, challenger or shadow.';
comment on column analytics.promotions.action is 'promote, rollback, challenge, shadow, clear or archive.';
comment on column analytics.promotions.version_id is 'The version that has the alias since.';
comment on column analytics.promotions.version is 'Its number within its line.';
comment on column analytics.promotions.previous_version_id is 'The version that had it before.';
comment on column analytics.promotions.previous_version is 'Its number.';
comment on column analytics.promotions.auc is 'AUC out of fold of the new one.';
comment on column analytics.promotions.previous_auc is 'Of the one before.';
comment on column analytics.promotions.log_loss is 'Log loss out of fold of the new one.';
comment on column analytics.promotions.previous_log_loss is 'Of the one before.';
comment on column analytics.promotions.gates_passed is 'Gates it had passed.';
comment on column analytics.promotions.gates_failed is 'Gates it had not.';
comment on column analytics.promotions.held_for is 'How long it held.';
comment on column analytics.promotions.actor is 'Who.';
comment on column analytics.promotions.reason is 'Why.';

create or replace view analytics.data_quality as
select * from analytics.data_quality();
comment on view analytics.data_quality is
'Market data by symbol and table now; analytics.data_quality(as_of) at any time.';
comment on column analytics.data_quality.symbol is 'The canonical symbol.';
comment on column analytics.data_quality.source is 'The table in schema market.';
comment on column analytics.data_quality.status is 'good, gaps, stale or history.';
comment on column analytics.data_quality.last_ts is 'Time of the newest row (of bars: its close).';
comment on column analytics.data_quality.last_known_at is 'When it became known.';
comment on column analytics.data_quality.age is 'Now less last_ts.';
comment on column analytics.data_quality.rows_24h is 'Rows of the last 24 hours that there are.';
comment on column analytics.data_quality.missing_24h is 'Minutes of them without a bar.';
comment on column analytics.data_quality.mean_delay is 'Mean time from event to knowledge.';
comment on column analytics.data_quality.corrected_24h is 'Row versions of that time that were superseded.';
comment on column analytics.data_quality.quarantined is 'Rows of that kind refused in a day, all symbols.';
comment on column analytics.data_quality.sequence_gaps is 'Holes in the feed''s numbers.';
comment on column analytics.data_quality.detail is 'The same in words.';

create or replace view analytics.liquidations as
select * from analytics.liquidations();
comment on view analytics.liquidations is
'Forced liquidations of the last seven days by symbol and hour; analytics.liquidations(symbol, as_of, days) at any time.';
comment on column analytics.liquidations.symbol is 'The canonical symbol.';
comment on column analytics.liquidations.ts is 'Start of the hour (UTC).';
comment on column analytics.liquidations.events is 'Forced orders.';
comment on column analytics.liquidations.long_notional is 'Liquidated longs, quote currency.';
comment on column analytics.liquidations.short_notional is 'Liquidated shorts, quote currency.';
comment on column analytics.liquidations.notional is 'Both.';
comment on column analytics.liquidations.long_share is 'Longs'' share, 0 to 1.';
comment on column analytics.liquidations.max_notional is 'Largest of them.';
comment on column analytics.liquidations.predictions is 'Recorded predictions of the 15-minute risk in that hour.';
comment on column analytics.liquidations.mean_probability is 'Their mean.';
comment on column analytics.liquidations.max_probability is 'Their largest.';

create or replace view analytics.calibration as
select * from analytics.calibration();
comment on view analytics.calibration is
'Reliability of recorded probabilities of the last 30 days; analytics.calibration(model, as_of, days) at any time.';
comment on column analytics.calibration.model is 'The model or ensemble.';
comment on column analytics.calibration.version_id is 'The version; null: base rates, or an ensemble.';
comment on column analytics.calibration.bin is 'Tenth of probability, 1 to 10.';
comment on column analytics.calibration.lower is 'Lower end of the tenth.';
comment on column analytics.calibration.upper is 'Upper end.';
comment on column analytics.calibration.predictions is 'Predictions in it whose outcome is known.';
comment on column analytics.calibration.mean_probability is 'Their mean probability.';
comment on column analytics.calibration.observed is 'Share of them whose event came.';
comment on column analytics.calibration.observed_low is 'Lower end of its 95 % interval.';
comment on column analytics.calibration.observed_high is 'Upper end.';
comment on column analytics.calibration.gap is 'mean_probability less observed.';
comment on column analytics.calibration.ece is 'Expected calibration error of the version.';

create or replace view analytics.feature_quality as
select * from analytics.feature_quality();
comment on view analytics.feature_quality is
'Quality of features as last written down; analytics.feature_quality(feature_set, symbol, as_of) at any time.';
comment on column analytics.feature_quality.feature_set is 'The feature set.';
comment on column analytics.feature_quality.feature_version is 'Its version.';
comment on column analytics.feature_quality.symbol is 'The canonical symbol.';
comment on column analytics.feature_quality.feature is 'The feature.';
comment on column analytics.feature_quality.status is 'good, sparse, constant, stale or unknown.';
comment on column analytics.feature_quality.row_count is 'Vectors looked at.';
comment on column analytics.feature_quality.null_share is 'Share in which it is not known.';
comment on column analytics.feature_quality.mean is 'Mean.';
comment on column analytics.feature_quality.variance is 'Sample variance.';
comment on column analytics.feature_quality.min_value is 'Least value.';
comment on column analytics.feature_quality.max_value is 'Largest value.';
comment on column analytics.feature_quality.distinct_values is 'Different values.';
comment on column analytics.feature_quality.last_value is 'Value in the newest vector.';
comment on column analytics.feature_quality.last_known is 'Newest vector in which it is known.';
comment on column analytics.feature_quality.staleness is 'How far that is behind the newest vector.';
comment on column analytics.feature_quality.ts_from is 'Start of the stretch.';
comment on column analytics.feature_quality.ts_to is 'Its end.';
comment on column analytics.feature_quality.checked_at is 'When it was written down.';
