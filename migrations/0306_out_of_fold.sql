-- depends: 0305_trainers
--
-- 0306: the predictions by which a version is judged are kept with it, and what is claimed of it is
-- kept apart from what the database measured.
alter table ml.model_versions add column claimed_metrics jsonb not null default '{}';
comment on column ml.model_versions.claimed_metrics is
'Metrics as whoever handed the version in says; they promote nothing.';
comment on column ml.model_versions.metrics is
'Metrics that the database measured on out-of-fold predictions; empty where none were handed in.';

create table ml.version_predictions (
    version_id bigint primary key references ml.model_versions (version_id) on delete cascade,
    symbols text [] not null,
    ts bigint [] not null,
    symbol integer [] not null,
    fold integer [] not null,
    raw double precision [] not null,
    prediction double precision [] not null,
    target double precision [] not null,
    base_rate double precision [] not null
);
comment on table ml.version_predictions is
'Out-of-fold predictions of versions, by columns; ml.out_of_fold(version_id) gives them as rows.';
comment on column ml.version_predictions.version_id is 'The version.';
comment on column ml.version_predictions.symbols is 'The symbols of its training set.';
comment on column ml.version_predictions.ts is 'Times of the rows, microseconds since 1970, ascending.';
comment on column ml.version_predictions.symbol is 'Number of each row''s symbol in symbols.';
comment on column ml.version_predictions.fold is 'Walk-forward fold that predicted the row.';
comment on column ml.version_predictions.raw is 'Raw score before calibration.';
comment on column ml.version_predictions.prediction is 'Calibrated probability, or value.';
comment on column ml.version_predictions.target is 'What happened, by the database''s own labels.';
comment on column ml.version_predictions.base_rate is
'Mean outcome that was known when the row''s fold began.';

create table ml.evaluations (
    evaluation_id bigint generated always as identity primary key,
    version_id bigint not null references ml.model_versions (version_id) on delete cascade,
    symbols text [] not null,
    from_ts timestamptz not null,
    to_ts timestamptz not null,
    as_of timestamptz not null,
    in_sample boolean not null,
    metrics jsonb not null,
    evaluated_by text not null default session_user,
    evaluated_at timestamptz not null default clock_timestamp()
);
create index evaluations_version_idx on ml.evaluations (version_id, evaluation_id);
comment on table ml.evaluations is 'Evaluations of versions that were written down (ml.record_evaluation).';
comment on column ml.evaluations.evaluation_id is 'Number of the evaluation.';
comment on column ml.evaluations.version_id is 'The version.';
comment on column ml.evaluations.symbols is 'The symbols whose rows it was evaluated on.';
comment on column ml.evaluations.from_ts is 'First time of the rows.';
comment on column ml.evaluations.to_ts is 'End of the rows'' times, exclusive.';
comment on column ml.evaluations.as_of is 'Outcomes and features as known at this time.';
comment on column ml.evaluations.in_sample is 'Whether rows were among those it was trained on.';
comment on column ml.evaluations.metrics is 'The metrics, as in ml.model_versions.';
comment on column ml.evaluations.evaluated_by is 'Who asked for it.';
comment on column ml.evaluations.evaluated_at is 'When.';
