-- Settings and thresholds as delivered; an operator's changes stay.
insert into ops.settings (name, value, description)
values
('drift.alpha', '0.01', 'False discovery rate of drift checks across features.'),
('drift.fdr_method', '"by"', 'How p-values of many features are adjusted: by (Benjamini and Yekutieli) or e-bh; both valid whatever their dependence.'),
('drift.window', '"1 day"', 'The window that drift checks look at.'),
('drift.bins', '50', 'Bins of a reference.'),
('drift.reference_rows', '300000', 'Rows of a training set, the last ones, that its reference is taken of.'),
('drift.backfill', '"35 days"', 'How far back a new set of bins is counted.'),
('drift.cooldown', '"1 day"', 'How long after a retraining was asked for because of drift another of the same line is not.'),
('drift.run_length', '11000', 'Outcomes without a change until a performance detector raises a false alarm, on average at least.'),
('drift.keep_checks', '"180 days"', 'How long checks and their details are kept.')
on conflict (name) do nothing;

insert into drift.thresholds (statistic, severity, threshold, description)
values
('ks', 'low', 0.10, 'The seeds'' drift score above which to go on monitoring.'),
('ks', 'medium', 0.15, 'The seeds'' KS threshold, and the drift score above which to monitor closely.'),
('ks', 'high', 0.20, 'The seeds'' drift score above which retraining is scheduled.'),
('ks', 'critical', 0.30, 'The seeds'' drift score above which retraining is immediate.'),
('psi', 'medium', 0.25, 'The seeds'' PSI threshold.'),
('nulls', 'medium', 0.10, 'A tenth more or fewer rows in which it is not known.'),
('nulls', 'critical', 0.50, 'Half of the rows more or fewer in which it is not known.')
on conflict on constraint thresholds_model_feature_statistic_severity_key do nothing;

-- The clock trains, and only ml.compare promotes, until an operator says otherwise.
insert into ml.retraining_policies (model, policy, promotion, reason)
values (null, 'clock', 'compare', 'As delivered: the clock, where drift has not been shown to win.')
on conflict on constraint retraining_policies_key do nothing;
