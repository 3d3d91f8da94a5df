-- depends: 0005_feature
--
-- 0006: labels, models, versions, jobs, gates, aliases, predictions.
create table ml.labels (
    label text primary key,
    task text not null check (task in ('classification', 'regression')),
    kind text not null,
    horizon interval not null check (horizon > interval '0'),
    params jsonb not null default '{}',
    description text not null,
    created_at timestamptz not null default clock_timestamp(),
    created_by text not null default session_user
);

create table ml.models (
    model text primary key,
    label text not null references ml.labels (label),
    feature_set text not null,
    feature_version integer not null,
    algorithm text not null default 'lightgbm',
    params jsonb not null default '{}',
    training jsonb not null default '{}',
    expires_after interval not null default interval '7 days' check (expires_after > interval '0'),
    description text not null default '',
    created_at timestamptz not null default clock_timestamp(),
    created_by text not null default session_user,
    foreign key (feature_set, feature_version) references feature.sets (name, version)
);

create table ml.training_jobs (
    job_id bigint generated always as identity primary key,
    model text not null references ml.models (model),
    symbol text collate "C",
    regime text,
    status text not null default 'queued'
    check (status in ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    progress double precision not null default 0 check (progress between 0 and 1),
    message text not null default 'waiting for a trainer',
    as_of timestamptz not null,
    options jsonb not null default '{}',
    queue_job_id bigint,
    attempts integer not null default 0,
    cancel_requested boolean not null default false,
    requested_by text not null default session_user,
    requested_at timestamptz not null default clock_timestamp(),
    started_at timestamptz,
    heartbeat_at timestamptz,
    finished_at timestamptz,
    worker text,
    lease uuid,
    error text,
    details jsonb not null default '{}'
);
create index training_jobs_status_idx on ml.training_jobs (status, requested_at);

create table ml.model_versions (
    version_id bigint generated always as identity primary key,
    model text not null references ml.models (model),
    symbol text collate "C",
    regime text,
    version integer not null,
    algorithm text not null,
    task text not null check (task in ('classification', 'regression')),
    format text not null check (format in ('lightgbm', 'onnx')),
    artifact bytea not null,
    sha256 bytea not null,
    feature_set text not null,
    feature_version integer not null,
    feature_sha256 bytea not null,
    features text [] not null,
    label text not null,
    horizon interval not null,
    spec jsonb not null default '{}',
    params jsonb not null default '{}',
    metrics jsonb not null default '{}',
    fold_metrics jsonb not null default '[]',
    importance jsonb not null default '{}',
    reference_stats jsonb not null default '{}',
    train_from timestamptz not null,
    train_to timestamptz not null,
    as_of timestamptz not null,
    row_count bigint not null,
    training_sha256 bytea not null,
    library_versions jsonb not null,
    code_version text not null,
    parent_id bigint references ml.model_versions (version_id),
    job_id bigint references ml.training_jobs (job_id),
    expires_after interval not null,
    created_by text not null default session_user,
    created_at timestamptz not null default clock_timestamp(),
    archived_at timestamptz,
    archived_by text,
    archive_reason text,
    constraint model_versions_hash check (sha256 = pg_catalog.sha256(artifact)),
    unique nulls not distinct (model, symbol, regime, version),
    unique (job_id),
    foreign key (feature_set, feature_version) references feature.sets (name, version)
);
alter table ml.model_versions alter column artifact set storage external;

create table ml.aliases (
    model text not null references ml.models (model),
    symbol text collate "C",
    regime text,
    alias text not null check (alias in ('champion', 'challenger', 'shadow')),
    version_id bigint not null references ml.model_versions (version_id),
    updated_at timestamptz not null default clock_timestamp(),
    constraint aliases_key unique nulls not distinct (model, symbol, regime, alias)
);
create index aliases_version_idx on ml.aliases (version_id);

create table ml.alias_history (
    history_id bigint generated always as identity primary key,
    model text not null,
    symbol text collate "C",
    regime text,
    alias text not null,
    version_id bigint,
    previous_version_id bigint,
    action text not null check (action in ('promote', 'rollback', 'challenge', 'shadow', 'clear', 'archive')),
    reason text,
    actor text not null default session_user,
    at timestamptz not null default clock_timestamp()
);
create index alias_history_key_idx on ml.alias_history (model, symbol, regime, alias, history_id desc);

create table ml.gates (
    gate text primary key,
    task text check (task in ('classification', 'regression')),
    model text references ml.models (model),
    metric text not null,
    comparison text not null check (comparison in ('>=', '<=', '>', '<')),
    threshold double precision not null,
    against text not null default 'absolute' check (against in ('absolute', 'champion', 'baseline')),
    enabled boolean not null default true,
    description text not null
);

create table ml.gate_results (
    result_id bigint generated always as identity primary key,
    version_id bigint not null references ml.model_versions (version_id),
    champion_id bigint references ml.model_versions (version_id),
    gate text not null,
    metric text not null,
    value double precision,
    reference_value double precision,
    threshold double precision not null,
    comparison text not null,
    against text not null,
    passed boolean not null,
    detail text not null,
    actor text not null default session_user,
    at timestamptz not null default clock_timestamp()
);
create index gate_results_version_idx on ml.gate_results (version_id, at desc);

create table ml.risk_levels (
    model text references ml.models (model),
    risk_level text not null check (risk_level in ('low', 'medium', 'high', 'critical')),
    min_probability double precision not null check (min_probability between 0 and 1),
    constraint risk_levels_key unique nulls not distinct (model, risk_level)
);

create table ml.predictions (
    prediction_id bigint generated always as identity,
    as_of timestamptz not null,
    symbol text collate "C" not null,
    model text not null,
    horizon interval not null,
    version_id bigint,
    prediction double precision not null,
    probability double precision check (probability between 0 and 1),
    confidence double precision check (confidence between 0 and 1),
    risk_level text,
    expected_volume double precision,
    regime text,
    feature_as_of timestamptz,
    features double precision [],
    partition_used text,
    is_fallback boolean not null default false,
    details jsonb not null default '{}',
    created_by text not null default session_user,
    created_at timestamptz not null default clock_timestamp(),
    outcome double precision,
    outcome_at timestamptz,
    primary key (as_of, prediction_id)
);
select public.create_hypertable('ml.predictions', public.by_range('as_of', interval '7 days'), create_default_indexes => false);
create index predictions_key_idx on ml.predictions (model, symbol, as_of desc);

-- What serves whom in one row, so that a prediction by key reads one row beside the vector's.
create table ml.serving (
    model text not null,
    symbol text collate "C",
    set_id integer not null references feature.sets (set_id),
    version_id bigint not null references ml.model_versions (version_id),
    others text [] collate "C" not null default '{}',
    constraint serving_key unique nulls not distinct (model, symbol)
);

create table ml.training_checkpoints (
    job_id bigint not null references ml.training_jobs (job_id) on delete cascade,
    stage text not null,
    state bytea not null,
    updated_at timestamptz not null default clock_timestamp(),
    primary key (job_id, stage)
);
alter table ml.training_checkpoints alter column state set storage external;

-- Optuna makes its own tables here, with the trainer's role.
create schema optuna;
grant usage, create on schema optuna to alphaplus_trainer;
comment on schema optuna is 'Studies and trials of hyperparameter searches (Optuna''s tables).';

comment on table ml.labels is 'What is to be predicted. The horizon is declared here, once; purge and embargo follow from it.';
comment on table ml.models is 'A model: label, feature set and how it is trained. Its fitted versions are in ml.model_versions, one line of versions per symbol and regime (null: pooled).';
comment on table ml.training_jobs is 'Training jobs: what was asked, by whom, and how far it is. The queue itself is procrastinate''s.';
comment on table ml.model_versions is 'A fitted model: immutable artifact with its SHA-256, the features, data and code it came from, and its metrics.';
comment on column ml.model_versions.spec is 'How to call the artifact: inputs, scaling, calibration, sequence length, support threshold.';
comment on column ml.model_versions.training_sha256 is 'SHA-256 of the training set''s bytes, to prove that it can be made again.';
comment on table ml.aliases is 'Which version plays which part, per model, symbol and regime. The champion is served.';
comment on table ml.alias_history is 'Who changed an alias, when and why. Append-only.';
comment on table ml.gates is 'What a version must reach to be promoted. against: absolute, or as a difference to the champion''s or the baseline''s value on the same rows.';
comment on table ml.gate_results is 'Each gate''s verdict on each version. Append-only.';
comment on table ml.risk_levels is 'From which probability on a risk level holds; rows with null model are the default.';
comment on table ml.predictions is 'Predictions written down by ml.record_prediction, with what is needed to replay them, and their outcomes once known.';
comment on table ml.serving is
'The champions without a regime and the feature set their vectors are of, kept by a trigger in the transaction that changes ml.aliases. symbol null: pooled, for all symbols but others.';
comment on column ml.serving.others is
'Of the pooled champion (symbol null): the symbols that have a champion of their own.';
comment on table ml.training_checkpoints is 'State of the fits of running training jobs, by stage; gone when the job has ended.';
