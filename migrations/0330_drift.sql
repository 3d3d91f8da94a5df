-- depends: 0329_alerts
--
-- 0330: drift: one store of distributions, references of versions, checks and what came of them.

create table drift.binnings (
    binning_id integer generated always as identity primary key,
    kind text not null check (kind in ('features', 'score', 'label')),
    set_id integer references feature.sets (set_id) on delete cascade,
    version_id bigint references ml.model_versions (version_id) on delete cascade,
    symbol text collate "C",
    names text [] not null,
    edges double precision [] not null,
    created_at timestamptz not null default clock_timestamp()
);
comment on table drift.binnings is
'Sets of bins in which values are counted. A version counts in the bins of its reference; versions whose references fit share them, and so their histograms.';
comment on column drift.binnings.binning_id is 'Number of the set of bins.';
comment on column drift.binnings.kind is 'What is counted: the features of a set, a versions predictions, or a labels outcomes.';
comment on column drift.binnings.set_id is 'The feature set; null for scores and labels.';
comment on column drift.binnings.version_id is 'The version whose scores or labels are counted; null for features.';
comment on column drift.binnings.symbol is 'The symbol whose reference the bins were made from; null: pooled.';
comment on column drift.binnings.names is 'What is counted, in order.';
comment on column drift.binnings.edges is 'Inner edges, one row a name, filled up with infinity: bin i holds values above edge i - 1 up to edge i. A last bin holds what is not known.';
comment on column drift.binnings.created_at is 'When it was made.';

create table drift.histograms (
    binning_id integer not null references drift.binnings (binning_id) on delete cascade,
    symbol text collate "C" not null,
    width interval not null,
    ts timestamptz not null,
    n integer not null,
    counts bytea not null,
    primary key (binning_id, symbol, width, ts)
);
comment on table drift.histograms is
'The one store of distributions: counts per hour, and merged per day and per 30 days, so that any window is a merge of few rows.';
comment on column drift.histograms.binning_id is 'In whose bins.';
comment on column drift.histograms.symbol is 'The instrument.';
comment on column drift.histograms.width is '1 hour, 1 day or 30 days.';
comment on column drift.histograms.ts is 'Start of the bucket; buckets of all widths are counted from 2000-01-01 UTC.';
comment on column drift.histograms.n is 'How many rows were counted.';
comment on column drift.histograms.counts is 'Little-endian int4, one row a name: its bins, then the bin of what is not known.';

create table drift.coverage (
    binning_id integer not null references drift.binnings (binning_id) on delete cascade,
    symbol text collate "C" not null,
    since timestamptz not null,
    through timestamptz not null,
    primary key (binning_id, symbol)
);
comment on table drift.coverage is
'From when to when the hourly histograms of a binning and symbol are kept.';
comment on column drift.coverage.binning_id is 'The set of bins.';
comment on column drift.coverage.symbol is 'The instrument.';
comment on column drift.coverage.since is 'From the hour that begins then …';
comment on column drift.coverage.through is '… up to, not including, the one that begins then.';

create table drift.histogram_marks (
    mark_id bigint generated always as identity primary key,
    set_id integer not null,
    symbol text collate "C" not null,
    ts_from timestamptz not null,
    ts_to timestamptz not null
);
create index histogram_marks_set_idx on drift.histogram_marks (set_id, symbol);
create index binnings_set_idx on drift.binnings (set_id);
create index binnings_version_idx on drift.binnings (version_id);
comment on table drift.histogram_marks is
'Hours whose stored vectors changed after they were counted; counted again by the next drift.refresh().';
comment on column drift.histogram_marks.mark_id is 'Number of the mark.';
comment on column drift.histogram_marks.set_id is 'The feature set.';
comment on column drift.histogram_marks.symbol is 'The instrument.';
comment on column drift.histogram_marks.ts_from is 'First grid time that changed.';
comment on column drift.histogram_marks.ts_to is 'Last grid time that changed.';

create table drift.version_references (
    version_id bigint primary key references ml.model_versions (version_id) on delete cascade,
    binning_id integer references drift.binnings (binning_id),
    symbols text [] collate "C" not null default '{}',
    grid interval,
    row_count bigint not null default 0,
    ts_from timestamptz,
    ts_to timestamptz,
    error text,
    taken_at timestamptz not null default clock_timestamp()
);
comment on table drift.version_references is
'Which versions references were taken, of what, or why not.';
comment on column drift.version_references.version_id is 'The version.';
comment on column drift.version_references.binning_id is 'In whose bins its features are counted; null: the reference could not be taken.';
comment on column drift.version_references.symbols is 'The symbols it was trained on.';
comment on column drift.version_references.grid is 'Time between two rows.';
comment on column drift.version_references.row_count is 'Rows of the training set that were counted.';
comment on column drift.version_references.ts_from is 'First of them.';
comment on column drift.version_references.ts_to is 'Last of them.';
comment on column drift.version_references.error is 'Why it could not be taken.';
comment on column drift.version_references.taken_at is 'When.';

create table drift.reference_features (
    version_id bigint not null references ml.model_versions (version_id) on delete cascade,
    symbol text collate "C" not null,
    kind text not null check (kind in ('feature', 'score', 'label')),
    feature text not null,
    ordinal integer not null,
    binning_id integer not null references drift.binnings (binning_id),
    edges double precision [] not null,
    counts bigint [] not null,
    nulls bigint not null,
    centres double precision [] not null,
    quantiles double precision [] not null,
    mean double precision,
    deviation double precision,
    is_category boolean not null default false,
    inflation double precision [] not null,
    shap_share double precision,
    primary key (version_id, symbol, kind, feature)
);
comment on table drift.reference_features is
'Distribution of each feature, and of scores and labels, that a version was trained on: what later windows are compared with.';
comment on column drift.reference_features.version_id is 'The version.';
comment on column drift.reference_features.symbol is 'The symbol; a pooled version has rows for each of its symbols.';
comment on column drift.reference_features.kind is 'What it is a distribution of.';
comment on column drift.reference_features.feature is 'The features name; score and label for these.';
comment on column drift.reference_features.ordinal is 'Its place in the binning, from 1.';
comment on column drift.reference_features.binning_id is 'In whose bins it is counted.';
comment on column drift.reference_features.edges is 'Inner edges of its bins: bin i holds values above edge i - 1 up to edge i.';
comment on column drift.reference_features.counts is 'Rows in each bin.';
comment on column drift.reference_features.nulls is 'Rows in which it is not known.';
comment on column drift.reference_features.centres is 'Mean of the values in each bin.';
comment on column drift.reference_features.quantiles is 'Its quantiles at 0, 1, 5, 25, 50, 75, 95, 99 and 100 %.';
comment on column drift.reference_features.mean is 'Mean.';
comment on column drift.reference_features.deviation is 'Standard deviation.';
comment on column drift.reference_features.is_category is 'It takes so few values that each has a bin of its own: the chi-squared test applies.';
comment on column drift.reference_features.inflation is 'Pairs of a number of rows and by how much the long-run variance of that many rows in a row exceeds that of independent ones: their quotient is the effective sample size.';
comment on column drift.reference_features.shap_share is 'Its share of the mean absolute SHAP values of the version on a sample of these rows; null where it has none.';

create table drift.thresholds (
    threshold_id integer generated always as identity primary key,
    model text references ml.models (model) on delete cascade,
    feature text,
    statistic text not null check (statistic in ('ks', 'psi', 'js', 'wasserstein', 'nulls')),
    severity text not null check (severity in ('low', 'medium', 'high', 'critical')),
    threshold double precision not null check (threshold > 0),
    description text not null default '',
    unique nulls not distinct (model, feature, statistic, severity)
);
comment on table drift.thresholds is
'From which effect on a drift has which severity. The most specific row holds: of model and feature, of the model, of the feature, general.';
comment on column drift.thresholds.threshold_id is 'Number of the row.';
comment on column drift.thresholds.model is 'For one model; null: all.';
comment on column drift.thresholds.feature is 'For one feature; null: all.';
comment on column drift.thresholds.statistic is 'ks: largest difference of the distribution functions; psi: population stability index; js: Jensen-Shannon distance; wasserstein: in standard deviations; nulls: difference of the shares not known.';
comment on column drift.thresholds.severity is 'What it is from there on.';
comment on column drift.thresholds.threshold is 'The effect from which on.';
comment on column drift.thresholds.description is 'Where it comes from.';

create table drift.checks (
    check_id bigint generated always as identity primary key,
    version_id bigint not null references ml.model_versions (version_id) on delete cascade,
    model text not null,
    symbol text collate "C",
    ts_from timestamptz not null,
    ts_to timestamptz not null,
    row_count bigint not null,
    features integer not null,
    drifted integer not null,
    severity text check (severity in ('low', 'medium', 'high', 'critical')),
    score double precision not null,
    first_feature text,
    at timestamptz not null default clock_timestamp()
);
create index checks_model_idx on drift.checks (model, symbol, at desc);
create index checks_version_idx on drift.checks (version_id);
comment on table drift.checks is
'One row per check that the clock, or somebody, had written down.';
comment on column drift.checks.check_id is 'Number of the check.';
comment on column drift.checks.version_id is 'The version.';
comment on column drift.checks.model is 'Its model.';
comment on column drift.checks.symbol is 'The instrument; null: all of a pooled version.';
comment on column drift.checks.ts_from is 'The window checked: from …';
comment on column drift.checks.ts_to is '… up to, not including.';
comment on column drift.checks.row_count is 'Rows in it.';
comment on column drift.checks.features is 'How many features were looked at.';
comment on column drift.checks.drifted is 'How many of them drifted.';
comment on column drift.checks.severity is 'The worst; null: none drifted.';
comment on column drift.checks.score is 'The largest effect among those that drifted.';
comment on column drift.checks.first_feature is 'What drifted and matters most: drift times SHAP share.';
comment on column drift.checks.at is 'When it was done.';

create table drift.details (
    check_id bigint not null references drift.checks (check_id) on delete cascade,
    feature text not null,
    kind text not null,
    ks double precision,
    psi double precision,
    js double precision,
    wasserstein double precision,
    chi2 double precision,
    null_share double precision,
    reference_null_share double precision,
    n bigint not null,
    n_effective double precision,
    p_value double precision,
    p_adjusted double precision,
    drifted boolean not null,
    severity text,
    effect double precision,
    blame double precision,
    primary key (check_id, feature, kind)
);
comment on table drift.details is
'What each check found of each feature.';
comment on column drift.details.check_id is 'The check.';
comment on column drift.details.feature is 'The feature; score and label for these.';
comment on column drift.details.kind is 'feature, score or label.';
comment on column drift.details.ks is 'Kolmogorov-Smirnovs statistic, from the bins.';
comment on column drift.details.psi is 'Population stability index.';
comment on column drift.details.js is 'Jensen-Shannon distance, 0 to 1.';
comment on column drift.details.wasserstein is 'Wasserstein-1 distance in standard deviations of the reference.';
comment on column drift.details.chi2 is 'Pearsons statistic at the effective sizes, of categories; null otherwise.';
comment on column drift.details.null_share is 'Share of the windows rows in which it is not known.';
comment on column drift.details.reference_null_share is 'The same of the reference.';
comment on column drift.details.n is 'Rows of the window in which it is known.';
comment on column drift.details.n_effective is 'What they are worth as independent rows.';
comment on column drift.details.p_value is 'Of no drift, at the effective sizes.';
comment on column drift.details.p_adjusted is 'The same over all features of the check (drift.fdr_method).';
comment on column drift.details.drifted is 'p_adjusted is at or below drift.alpha, and an effect reaches a threshold.';
comment on column drift.details.severity is 'By the thresholds; null where it has not drifted.';
comment on column drift.details.effect is 'The largest of ks and of the difference of null shares.';
comment on column drift.details.blame is 'Effect times SHAP share, as a share of all features that drifted.';

create table drift.alerts (
    drift_id bigint generated always as identity primary key,
    kind text not null check (kind in ('data', 'performance', 'concept')),
    version_id bigint not null references ml.model_versions (version_id) on delete cascade,
    model text not null,
    symbol text collate "C",
    severity text not null check (severity in ('low', 'medium', 'high', 'critical')),
    score double precision not null,
    first_feature text,
    check_id bigint references drift.checks (check_id) on delete set null,
    alert_id bigint references ops.alerts (alert_id) on delete set null,
    payload jsonb not null default '{}',
    at timestamptz not null default clock_timestamp()
);
create index alerts_model_idx on drift.alerts (model, symbol, at desc);
create index alerts_version_idx on drift.alerts (version_id);
comment on table drift.alerts is
'Drifts that were noticed: of data, of performance, of what a label means. Delivery and who looks after them is in ops.alerts.';
comment on column drift.alerts.drift_id is 'Number of the drift alert.';
comment on column drift.alerts.kind is 'What drifted: features or scores, the outcomes, or what follows from the features.';
comment on column drift.alerts.version_id is 'The version concerned.';
comment on column drift.alerts.model is 'Its model.';
comment on column drift.alerts.symbol is 'The instrument; null: all of a pooled version.';
comment on column drift.alerts.severity is 'How bad.';
comment on column drift.alerts.score is 'The effect: of data the largest KS; of performance how much the loss is above the validations, relative to it.';
comment on column drift.alerts.first_feature is 'The feature to look at first; null where no feature is to blame.';
comment on column drift.alerts.check_id is 'The check that noticed it.';
comment on column drift.alerts.alert_id is 'Its row in the outbox.';
comment on column drift.alerts.payload is 'The facts.';
comment on column drift.alerts.at is 'When it was noticed.';

create table drift.actions (
    action_id bigint generated always as identity primary key,
    drift_id bigint not null references drift.alerts (drift_id) on delete cascade,
    action text not null check (action in ('record', 'watch', 'schedule', 'retrain', 'suppressed')),
    due_at timestamptz not null default clock_timestamp(),
    job_id bigint references ml.training_jobs (job_id),
    state text not null default 'open' check (state in ('open', 'running', 'done', 'failed')),
    outcome text,
    version_id bigint references ml.model_versions (version_id) on delete set null,
    at timestamptz not null default clock_timestamp(),
    finished_at timestamptz
);
create index actions_drift_idx on drift.actions (drift_id);
create index actions_open_idx on drift.actions (due_at) where state in ('open', 'running');
comment on table drift.actions is
'What was done about each drift alert, and what came of it.';
comment on column drift.actions.action_id is 'Number of the action.';
comment on column drift.actions.drift_id is 'The drift alert.';
comment on column drift.actions.action is 'record: written down; watch: told; schedule: retraining at the next slot; retrain: retraining now; suppressed: the cooldown or the policy kept a retraining from being asked for.';
comment on column drift.actions.due_at is 'When it is to be done.';
comment on column drift.actions.job_id is 'The training job that it asked for.';
comment on column drift.actions.state is 'open: to be done; running: its job is; done; failed.';
comment on column drift.actions.outcome is 'What came of it, in words.';
comment on column drift.actions.version_id is 'The version that its job made.';
comment on column drift.actions.at is 'When it was decided.';
comment on column drift.actions.finished_at is 'When it was over.';

create table drift.detectors (
    version_id bigint not null references ml.model_versions (version_id) on delete cascade,
    symbol text collate "C" not null,
    metric text not null check (metric in ('brier', 'error', 'log_loss', 'squared_error')),
    baseline double precision not null,
    ceiling double precision not null default 1,
    state double precision [] not null,
    value double precision not null default 0,
    threshold double precision not null,
    outcomes bigint not null default 0,
    loss_sum double precision not null default 0,
    last_ts timestamptz,
    alarms integer not null default 0,
    last_alarm_at timestamptz,
    since timestamptz not null default clock_timestamp(),
    primary key (version_id, symbol, metric)
);
comment on table drift.detectors is
'The state of the performance detectors: one e-detector (Shiryaev-Roberts, a mixture of bets) per version, symbol and loss, updated as outcomes arrive.';
comment on column drift.detectors.version_id is 'The version.';
comment on column drift.detectors.symbol is 'The instrument.';
comment on column drift.detectors.metric is 'The loss, scaled to 0 to 1: brier, error (0 or 1), log_loss (over ln 1000, at most 1), squared_error (over its ceiling, at most 1).';
comment on column drift.detectors.baseline is 'The mean loss that is no drift: the versions own validation figure at the upper end of its interval.';
comment on column drift.detectors.ceiling is 'The loss that counts as 1.';
comment on column drift.detectors.state is 'The detectors value per bet.';
comment on column drift.detectors.value is 'Their mean; an alarm at threshold.';
comment on column drift.detectors.threshold is 'Average run length without a change is at least this many outcomes.';
comment on column drift.detectors.outcomes is 'How many outcomes it has seen.';
comment on column drift.detectors.loss_sum is 'Their losses, summed.';
comment on column drift.detectors.last_ts is 'Grid time of the last one.';
comment on column drift.detectors.alarms is 'How often it raised an alarm; it starts anew after each.';
comment on column drift.detectors.last_alarm_at is 'When it last did.';
comment on column drift.detectors.since is 'When it was begun.';

create table drift.estimates (
    version_id bigint not null references ml.model_versions (version_id) on delete cascade,
    symbol text collate "C" not null,
    ts timestamptz not null,
    metric text not null,
    estimate double precision,
    predictions bigint not null,
    realised double precision,
    outcomes bigint not null default 0,
    updated_at timestamptz not null default clock_timestamp(),
    primary key (version_id, symbol, ts, metric)
);
comment on table drift.estimates is
'Performance estimated before the labels are there, and what it was when they were.';
comment on column drift.estimates.version_id is 'The version.';
comment on column drift.estimates.symbol is 'The instrument.';
comment on column drift.estimates.ts is 'Start of the day (UTC).';
comment on column drift.estimates.metric is 'accuracy, brier, log_loss, auc (classes); absolute_error, squared_error (values).';
comment on column drift.estimates.estimate is 'Estimated from the predictions alone: of classes by their calibrated probabilities (CBPE), of values by what predictions of this size were wrong by on held-out rows (as DLE).';
comment on column drift.estimates.predictions is 'From so many predictions.';
comment on column drift.estimates.realised is 'What it was, once the outcomes were known.';
comment on column drift.estimates.outcomes is 'From so many outcomes.';
comment on column drift.estimates.updated_at is 'When it was last written.';
