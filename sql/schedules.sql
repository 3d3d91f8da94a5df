-- What the clock calls, as delivered; an operator's changes stay. Then pg_cron's entries follow.
insert into ops.settings (name, value, description)
values
('market.default_exchange', '"binance"', 'The venue whose instruments go by their bare native symbol.'),
('ml.cache_bytes', '268435456', 'Most bytes of models that one backend keeps.'),
('ml.max_staleness', '"1 hour"', 'How old the newest market row may be before predicting is refused.'),
('ml.expired_policy', '"flag"', 'What an expired version''s prediction becomes: flag, null or fallback.'),
('ml.out_of_support_policy', '"flag"', 'What a prediction far from the training rows becomes: flag, null or fallback.'),
('ops.keep_runs', '"14 days"', 'How long finished runs and queue jobs are kept.'),
('market.keep_quarantine', '"90 days"', 'How long refused rows are kept.')
on conflict (name) do nothing;

insert into ops.schedules (name, cron, command, expected_interval, description)
values
('refresh aggregates', '* * * * *', 'call market.refresh_aggregates()', interval '1 minute', 'Aggregates follow new, late, corrected and deleted rows.'),
('refresh features', '* * * * *', 'call feature.refresh()', interval '1 minute', 'Vectors of new bars, and again where late rows can have changed them.'),
('requeue stalled', '*/2 * * * *', 'call ml.requeue_stalled()', interval '2 minutes', 'Jobs of dead trainers go back to the queue.'),
('retrain due', '0 2 * * *', 'call ml.retrain_due()', interval '1 day', 'Models whose newest version is older than a day are trained again.'),
('join outcomes', '*/5 * * * *', 'call ml.join_outcomes()', interval '5 minutes', 'Recorded predictions get their outcome once it is known.'),
('housekeeping', '30 1 * * *', 'call ops.housekeeping()', interval '1 day', 'Old runs, queue jobs and quarantined rows are deleted.')
on conflict (name) do nothing;

call ops.sync_cron();
