-- Models, gates, risk levels and settings as delivered. What is there already stays as it is, so
-- an operator's changes outlive the next deploy. Applied after the labels and feature sets, which
-- the models need; a model whose label or feature set is not there yet is left out.

insert into ops.settings (name, value, description)
values
('training.lease_timeout', '"30 seconds"', 'How long a trainer may be silent before its job goes to another.'),
('training.max_attempts', '3', 'How often a training job is tried before it counts as failed.'),
('training.max_rounds', '100000', 'Trees of a model, at most.'),
('training.max_leaves', '4096', 'Leaves of a tree, at most.'),
('training.max_bins', '4096', 'Bins of a feature, at most.'),
('training.max_epochs', '1000', 'Passes of a deep model over its training rows, at most.'),
('training.max_folds', '50', 'Walk-forward folds, at most.'),
('training.max_trials', '10000', 'Trials of a search, at most.'),
('training.max_threads', '256', 'Cores that a job may ask of a trainer, at most.'),
('training.max_minutes', '1440', 'A training job that runs for longer fails.'),
('training.max_bytes', '8589934592', 'Largest training set, in bytes of its features.'),
('registry.max_artifact_bytes', '67108864', 'Largest model artifact that is registered, in bytes.'),
('registry.trial_seconds', '20', 'A model is registered only when it loads and predicts within so many seconds.'),
('registry.trial_bytes', '2147483648', 'Memory (address space, in bytes) of the process in which a model is tried before it is registered.')
on conflict (name) do nothing;

insert into ml.models (model, label, feature_set, feature_version, params, description)
select
    l.label as model, l.label, s.name as feature_set, s.version,
    -- Small trees, many and slow: labels that overlap and events that cluster leave far fewer
    -- independent observations than rows, and LightGBM's own defaults fit their noise.
    -- The trainer's defaults are the seeds'.
    '{"num_leaves": 4, "learning_rate": 0.02, "feature_fraction": 0.5, "lambda_l2": 50,
        "rounds": 300, "min_rounds": 150}'::jsonb
    || case when d.family = 'liquidation_volume' then '{"objective": "tweedie"}' else '{}' end::jsonb,
    format(d.description, l.horizon)
from (
    values
    ('liquidation', 'liquidation', 'Chance of large forced liquidations within %s.'),
    ('liquidation_volume', 'liquidation', 'Notional of forced liquidations within %s, in quote currency.'),
    ('direction', 'technical_1m', 'Chance of a higher price after %s.'),
    ('volatility', 'technical_1m', 'Chance of a burst of volatility within %s.'),
    ('direction', 'technical_1h', 'Chance of a higher price after %s.'),
    ('volatility', 'technical_1h', 'Chance of a burst of volatility within %s.')
) as d (family, feature_set, description)
join ml.labels l on l.label ~ ('^' || d.family || '_\d+[mh]$')
    and (d.feature_set = 'technical_1h') = (l.horizon > interval '1 hour')
join feature.sets s on d.feature_set = s.name
    and s.version = (select max(m.version) from feature.sets m where m.name = d.feature_set)
on conflict (model) do nothing;

-- The order-book forecaster's three; on the order-book features where there are such.
insert into ml.models (model, label, feature_set, feature_version, params, description)
select
    l.label, l.label, s.name, s.version,
    '{"num_leaves": 8, "learning_rate": 0.03, "feature_fraction": 0.6, "lambda_l2": 20,
        "rounds": 300}'::jsonb,
    l.description
from ml.labels l
cross join lateral (
    select f.name, f.version from feature.sets f
    where f.name in ('order_book', 'liquidation')
    order by f.name desc, f.version desc limit 1
) s
where l.label like 'order\_book\_%'
on conflict (model) do nothing;

-- The seeds' gates on F1, precision and recall are for balanced classes; on a rare event no honest
-- model reaches 0.6, so they come switched off. So does theirs on the drift of features: the distance
-- of a fold of dependent rows is above 0.15 by chance (docs/drift.md).
insert into ml.gates (gate, task, metric, comparison, threshold, against, enabled, relative, description)
values
('auc', 'classification', 'auc', '>=', 0.52, 'absolute', true, false, 'It ranks better than chance.'),
('auc_significant', 'classification', 'auc_low', '>', 0.5, 'absolute', true, false, 'Chance is outside the 95 % interval of the AUC (block bootstrap).'),
('log_loss_baseline', 'classification', 'log_loss', '<', 0, 'baseline', true, false, 'Its probabilities say more than the base rate.'),
('calibration', 'classification', 'ece_beyond_chance', '<=', 0.05, 'absolute', true, false, 'Expected calibration error, 0 where the chance of overlapping labels explains it (a test of 5 %).'),
('interval_coverage', 'classification', 'interval_coverage', '>=', 0.6, 'absolute', true, false, 'Share of held-out rows whose interval holds their own probability and the frequency of the event at it.'),
('interval_coverage_value', 'regression', 'interval_coverage', '>=', 0.6, 'absolute', true, false, 'Share of held-out rows whose interval of 90 % holds the outcome.'),
('auc_champion', 'classification', 'auc', '>=', -0.005, 'champion', true, false, 'Not worse than the champion on the same rows.'),
('log_loss_champion', 'classification', 'log_loss', '<=', 0.002, 'champion', true, false, 'Not worse than the champion on the same rows.'),
('f1', 'classification', 'f1', '>=', 0.60, 'absolute', false, false, 'F1 at the operating point.'),
('precision', 'classification', 'precision', '>=', 0.58, 'absolute', false, false, 'Precision at the operating point.'),
('recall', 'classification', 'recall', '>=', 0.50, 'absolute', false, false, 'Recall at the operating point.'),
('f1_champion', 'classification', 'f1', '>=', 0.03, 'champion', false, true, 'F1 better than the champion''s on the same rows by a share of it.'),
('feature_drift', null, 'feature_ks', '<=', 0.15, 'absolute', false, false, 'No feature of the last held-out fold lies further from what it was trained on.'),
('rmse_baseline', 'regression', 'rmse', '<', 0, 'baseline', true, false, 'Better than the mean.'),
('rank', 'regression', 'spearman', '>=', 0.02, 'absolute', true, false, 'It ranks better than chance.'),
('r2_champion', 'regression', 'r2', '>=', -0.01, 'champion', true, false, 'Not worse than the champion on the same rows.')
on conflict (gate) do nothing;

-- Probabilities of the default models' events; a model may have its own rows.
insert into ml.risk_levels (model, risk_level, min_probability)
values (null, 'low', 0), (null, 'medium', 0.3), (null, 'high', 0.6), (null, 'critical', 0.8)
on conflict on constraint risk_levels_key do nothing;
