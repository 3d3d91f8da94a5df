-- depends: 0330_drift
--
-- 0331: the life of models: what each version would have said, who gets which version, when to train
-- anew, what was decided and why, how good they are live, what is kept for how long.

create table ml.shadow_predictions (
    version_id bigint not null,
    symbol text collate "C" not null,
    ts timestamptz not null,
    prediction double precision not null,
    known_at timestamptz not null default clock_timestamp(),
    target double precision,
    target_known_at timestamptz,
    primary key (version_id, symbol, ts)
);
select public.create_hypertable('ml.shadow_predictions', public.by_range('ts', interval '7 days'), create_default_indexes => false);
create index shadow_predictions_open_idx on ml.shadow_predictions (version_id, symbol, ts) where target is null;
comment on table ml.shadow_predictions is
'What every champion, challenger, shadow and lately replaced champion says at every grid time, recorded by the clock from stored vectors, and what came of it. All versions of a line on the same rows.';
comment on column ml.shadow_predictions.version_id is 'The version.';
comment on column ml.shadow_predictions.symbol is 'The instrument.';
comment on column ml.shadow_predictions.ts is 'The grid time that the vector is of.';
comment on column ml.shadow_predictions.prediction is 'Calibrated probability, or value.';
comment on column ml.shadow_predictions.known_at is 'When it was recorded.';
comment on column ml.shadow_predictions.target is 'What came of it; null: not known yet.';
comment on column ml.shadow_predictions.target_known_at is 'When that was written.';

create table ml.shadow_progress (
    version_id bigint not null references ml.model_versions (version_id) on delete cascade,
    symbol text collate "C" not null,
    since timestamptz not null,
    through timestamptz not null,
    primary key (version_id, symbol)
);
comment on table ml.shadow_progress is
'Up to which grid time the clock recorded a versions predictions and outcomes.';
comment on column ml.shadow_progress.version_id is 'The version.';
comment on column ml.shadow_progress.symbol is 'The instrument.';
comment on column ml.shadow_progress.since is 'From when on.';
comment on column ml.shadow_progress.through is 'Predictions of earlier grid times are recorded.';

create table ml.traffic (
    model text not null references ml.models (model) on delete cascade,
    symbol text collate "C",
    regime text,
    alias text not null check (alias in ('champion', 'challenger', 'shadow')),
    weight double precision not null check (weight >= 0 and weight < 'infinity'),
    updated_at timestamptz not null default clock_timestamp(),
    updated_by text not null default session_user,
    constraint traffic_key unique nulls not distinct (model, symbol, regime, alias)
);
comment on table ml.traffic is
'A/B: which share of callers gets which version of a line. No row for a line: all get its champion.';
comment on column ml.traffic.model is 'The model.';
comment on column ml.traffic.symbol is 'The lines symbol; null: pooled.';
comment on column ml.traffic.regime is 'The lines regime; null: all.';
comment on column ml.traffic.alias is 'Whoever has this alias of the line gets the share.';
comment on column ml.traffic.weight is 'Its weight; shares are weights over their sum.';
comment on column ml.traffic.updated_at is 'When it was set.';
comment on column ml.traffic.updated_by is 'By whom.';

create table ml.retraining_policies (
    model text references ml.models (model) on delete cascade,
    policy text not null default 'clock' check (policy in ('clock', 'drift', 'both', 'none')),
    min_severity text not null default 'high' check (min_severity in ('low', 'medium', 'high', 'critical')),
    cooldown interval not null default interval '1 day' check (cooldown >= interval '0'),
    promotion text not null default 'compare' check (promotion in ('compare', 'gates', 'never')),
    rollback boolean not null default true,
    alpha double precision not null default 0.025 check (alpha > 0 and alpha < 1),
    min_pairs integer not null default 50 check (min_pairs > 0),
    reason text not null default '',
    updated_at timestamptz not null default clock_timestamp(),
    updated_by text not null default session_user,
    constraint retraining_policies_key unique nulls not distinct (model)
);
comment on table ml.retraining_policies is
'When a model is trained anew, and what promotes or takes back a version without a hand. The models own row holds, else the one without a model.';
comment on column ml.retraining_policies.model is 'The model; null: all without a row of their own.';
comment on column ml.retraining_policies.policy is 'clock: by its schedules; drift: when drift is high or critical; both; none: by hand only.';
comment on column ml.retraining_policies.min_severity is 'From which severity on drift asks for a retraining.';
comment on column ml.retraining_policies.cooldown is 'How long after one retraining because of drift another of the line is not asked for.';
comment on column ml.retraining_policies.promotion is 'compare: a challenger is promoted when ml.compare shows it to be better; gates: as soon as all gates pass; never: by hand.';
comment on column ml.retraining_policies.rollback is 'Whether a promoted version is taken back when ml.compare shows it to be worse than the one before.';
comment on column ml.retraining_policies.alpha is 'Chance that an equal challenger is ever promoted, however often one looks.';
comment on column ml.retraining_policies.min_pairs is 'So many paired outcomes are needed at least.';
comment on column ml.retraining_policies.reason is 'Why it is so.';
comment on column ml.retraining_policies.updated_at is 'When it was set.';
comment on column ml.retraining_policies.updated_by is 'By whom.';

create table ml.decisions (
    decision_id bigint generated always as identity primary key,
    model text not null,
    symbol text collate "C",
    regime text,
    version_id bigint not null references ml.model_versions (version_id),
    against_id bigint references ml.model_versions (version_id),
    decision text not null check (decision in ('promote', 'refuse', 'rollback')),
    reason text not null,
    evidence jsonb not null default '{}',
    actor text not null default session_user,
    at timestamptz not null default clock_timestamp()
);
create index decisions_version_idx on ml.decisions (version_id);
create index decisions_against_idx on ml.decisions (against_id);
comment on table ml.decisions is
'Promotions, refusals and rollbacks that the database decided, with the evidence of that moment. Append-only.';
comment on column ml.decisions.decision_id is 'Number of the decision.';
comment on column ml.decisions.model is 'The model.';
comment on column ml.decisions.symbol is 'The lines symbol; null: pooled.';
comment on column ml.decisions.regime is 'The lines regime; null: all.';
comment on column ml.decisions.version_id is 'The version decided on.';
comment on column ml.decisions.against_id is 'The version it was compared with.';
comment on column ml.decisions.decision is 'promote: made champion; refuse: not promoted; rollback: taken back.';
comment on column ml.decisions.reason is 'Why, in words.';
comment on column ml.decisions.evidence is 'Gate verdicts, or the comparison with its confidence interval.';
comment on column ml.decisions.actor is 'Who ran what decided.';
comment on column ml.decisions.at is 'When.';

create table ml.performance (
    source text not null check (source in ('recorded', 'shadow')),
    version_id bigint not null,
    model text not null,
    symbol text collate "C" not null,
    regime text not null default '',
    ts timestamptz not null,
    n bigint not null,
    outcomes bigint not null,
    hits double precision not null,
    log_loss double precision not null,
    square double precision not null,
    absolute double precision not null,
    positives integer [] not null,
    negatives integer [] not null,
    probability double precision [] not null,
    latency_ms double precision not null,
    latencies bigint not null,
    latency_max double precision,
    fallbacks bigint not null,
    primary key (source, version_id, symbol, regime, ts)
);
create index performance_model_idx on ml.performance (model, symbol, ts);
comment on table ml.performance is
'How good predictions were, per hour: sums and counts that merge into any longer time.';
comment on column ml.performance.source is 'recorded: of ml.predictions; shadow: of ml.shadow_predictions.';
comment on column ml.performance.version_id is 'The version; 0: a base rate answered.';
comment on column ml.performance.model is 'The model.';
comment on column ml.performance.symbol is 'The instrument.';
comment on column ml.performance.regime is 'The regime at the prediction; empty: not known.';
comment on column ml.performance.ts is 'Start of the hour (of the predictions).';
comment on column ml.performance.n is 'Predictions.';
comment on column ml.performance.outcomes is 'Of them with a known outcome.';
comment on column ml.performance.hits is 'Classes: predictions on the right side of one half.';
comment on column ml.performance.log_loss is 'Sum of log losses.';
comment on column ml.performance.square is 'Sum of squared errors; of classes Briers.';
comment on column ml.performance.absolute is 'Sum of absolute errors.';
comment on column ml.performance.positives is 'Classes: outcomes that came about, per percent of probability.';
comment on column ml.performance.negatives is 'Outcomes that did not.';
comment on column ml.performance.probability is 'Sums of the probabilities, per percent.';
comment on column ml.performance.latency_ms is 'Sum of latencies in milliseconds.';
comment on column ml.performance.latencies is 'How many have one.';
comment on column ml.performance.latency_max is 'The longest.';
comment on column ml.performance.fallbacks is 'How many a fallback answered.';

create table ml.performance_marks (
    source text not null,
    symbol text collate "C" not null,
    ts timestamptz not null,
    primary key (source, symbol, ts)
);
comment on table ml.performance_marks is
'Hours whose predictions or outcomes changed since they were summed.';
comment on column ml.performance_marks.source is 'recorded or shadow.';
comment on column ml.performance_marks.symbol is 'The instrument.';
comment on column ml.performance_marks.ts is 'Start of the hour.';

create table ops.training_schedules (
    schedule_id integer generated always as identity primary key,
    name text not null unique,
    model text not null,
    symbol text,
    regime text,
    cron text not null,
    enabled boolean not null default true,
    options jsonb not null default '{}',
    description text not null default '',
    updated_at timestamptz not null default clock_timestamp(),
    updated_by text not null default session_user
);
comment on table ops.training_schedules is
'When which model is trained for which symbol and regime.';
comment on column ops.training_schedules.schedule_id is 'Number of the schedule.';
comment on column ops.training_schedules.name is 'Its name.';
comment on column ops.training_schedules.model is 'The model; it may come later than its schedule.';
comment on column ops.training_schedules.symbol is 'The instrument as users write it; null: pooled.';
comment on column ops.training_schedules.regime is 'For this regime only; null: all.';
comment on column ops.training_schedules.cron is 'Five-field cron expression, UTC.';
comment on column ops.training_schedules.enabled is 'Switched on; besides, training.schedules_on must be true.';
comment on column ops.training_schedules.options is 'Options of ml.retrain.';
comment on column ops.training_schedules.description is 'What it is for.';
comment on column ops.training_schedules.updated_at is 'When it was last changed: what was due before is not made up for.';
comment on column ops.training_schedules.updated_by is 'By whom.';

create table ops.training_runs (
    run_id bigint generated always as identity primary key,
    schedule_id integer not null references ops.training_schedules (schedule_id) on delete cascade,
    due_at timestamptz not null,
    missed integer not null default 0,
    status text not null default 'waiting' check (status in ('waiting', 'queued', 'skipped', 'failed')),
    job_id bigint references ml.training_jobs (job_id),
    detail text,
    at timestamptz not null default clock_timestamp(),
    unique (schedule_id, due_at)
);
create index training_runs_waiting_idx on ops.training_runs (due_at) where status = 'waiting';
comment on table ops.training_runs is
'What became of each time that a training schedule was due. Times missed while nothing ran are one run, of the last of them.';
comment on column ops.training_runs.run_id is 'Number of the run.';
comment on column ops.training_runs.schedule_id is 'The schedule.';
comment on column ops.training_runs.due_at is 'When it was due.';
comment on column ops.training_runs.missed is 'How many earlier times it stands for.';
comment on column ops.training_runs.status is 'waiting: for a free place among training.max_concurrent; queued: its job exists; skipped: the same job was there already; failed: the job was refused.';
comment on column ops.training_runs.job_id is 'The job.';
comment on column ops.training_runs.detail is 'Why it was skipped or refused.';
comment on column ops.training_runs.at is 'When it was noticed.';

create table ops.retention (
    target text primary key check (target in ('archived versions', 'predictions', 'shadow predictions', 'vectors', 'histograms', 'checks', 'alerts', 'performance')),
    keep interval not null check (keep > interval '0'),
    enabled boolean not null default true,
    description text not null,
    last_cut_at timestamptz,
    last_cut_rows bigint
);
comment on table ops.retention is
'What is kept for how long. What a kept prediction needs to be made again, and what serves or may be rolled back to, stays in any case.';
comment on column ops.retention.target is 'What.';
comment on column ops.retention.keep is 'For how long.';
comment on column ops.retention.enabled is 'Whether it is cut at all.';
comment on column ops.retention.description is 'What is cut, and what is not.';
comment on column ops.retention.last_cut_at is 'When it was last cut.';
comment on column ops.retention.last_cut_rows is 'How many rows went then.';
