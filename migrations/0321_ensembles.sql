-- depends: 0320_serving
--
-- 0321: ensembles: several models of one label, combined by methods that learn from what came of it.
create table ml.ensemble_methods (
    method text primary key,
    position integer not null unique,
    enabled boolean not null default true,
    params jsonb not null default '{}',
    description text not null
);
comment on table ml.ensemble_methods is 'Ways of weighing an ensemble''s members; each is one class of alphaplus.server.serving.ensemble.';
comment on column ml.ensemble_methods.method is 'The name, as in ml.predict_ensemble; auto is the mixture of all of them.';
comment on column ml.ensemble_methods.position is 'Where it stands among the methods that auto mixes.';
comment on column ml.ensemble_methods.enabled is 'Whether new ensemble versions have it.';
comment on column ml.ensemble_methods.params is 'Its parameters'' defaults.';
comment on column ml.ensemble_methods.description is 'What it does, and its source.';

create table ml.ensembles (
    ensemble text primary key,
    label text not null references ml.labels (label),
    members text [] not null check (cardinality(members) between 1 and 32),
    method text not null default 'auto',
    settings jsonb not null default '{}',
    description text not null default '',
    created_at timestamptz not null default clock_timestamp(),
    created_by text not null default session_user
);
comment on table ml.ensembles is 'Ensembles: several models of one label, and how they are combined. Their fitted versions are in ml.ensemble_versions.';
comment on column ml.ensembles.ensemble is 'The name; no model has it.';
comment on column ml.ensembles.label is 'What the members predict.';
comment on column ml.ensembles.members is 'The models, in the order of all arrays of weights.';
comment on column ml.ensembles.method is 'The method that answers where none is asked for.';
comment on column ml.ensembles.settings is 'weights: {model: weight} for voting; regime_weights: {regime or its mapping: {model: weight}}; params: {method: {name: number}}.';
comment on column ml.ensembles.description is 'What it is for.';
comment on column ml.ensembles.created_at is 'When it was made.';
comment on column ml.ensembles.created_by is 'Who made it.';

create table ml.ensemble_versions (
    ensemble_version_id bigint generated always as identity primary key,
    ensemble text not null references ml.ensembles (ensemble),
    symbol text collate "C",
    version integer not null,
    members text [] not null,
    methods text [] not null,
    method text not null,
    regimes text [] not null,
    settings jsonb not null,
    stacking double precision [],
    metrics jsonb not null default '{}',
    row_count bigint not null default 0,
    as_of timestamptz not null,
    created_at timestamptz not null default clock_timestamp(),
    created_by text not null default session_user,
    archived_at timestamptz,
    unique nulls not distinct (ensemble, symbol, version)
);
comment on table ml.ensemble_versions is 'Versions of ensembles: immutable but for the archive mark. What they learn online is a function of the rounds and outcomes known at a time, and not part of the version.';
comment on column ml.ensemble_versions.ensemble_version_id is 'The id.';
comment on column ml.ensemble_versions.ensemble is 'The ensemble.';
comment on column ml.ensemble_versions.symbol is 'The symbol it is fitted to; null: all.';
comment on column ml.ensemble_versions.version is 'Its number within ensemble and symbol.';
comment on column ml.ensemble_versions.members is 'The models, as of then.';
comment on column ml.ensemble_versions.methods is 'The methods that auto mixes.';
comment on column ml.ensemble_versions.method is 'The method that answers where none is asked for.';
comment on column ml.ensemble_versions.regimes is 'The regimes, in the order of all arrays of regime probabilities.';
comment on column ml.ensemble_versions.settings is 'The ensemble''s settings, as of then.';
comment on column ml.ensemble_versions.stacking is 'The stacker''s coefficients: members'' log odds, regimes, constant; null: not fitted.';
comment on column ml.ensemble_versions.metrics is 'Log losses over the rounds it was fitted on, by method, of members, of the base rate.';
comment on column ml.ensemble_versions.row_count is 'Rounds with an outcome that it was fitted on.';
comment on column ml.ensemble_versions.as_of is 'What was known by then made it; -infinity: nothing was fitted.';
comment on column ml.ensemble_versions.created_at is 'When it was made.';
comment on column ml.ensemble_versions.created_by is 'Who made it.';
comment on column ml.ensemble_versions.archived_at is 'When it was put away.';

create table ml.ensemble_champions (
    ensemble text not null references ml.ensembles (ensemble),
    symbol text collate "C",
    ensemble_version_id bigint not null references ml.ensemble_versions (ensemble_version_id),
    updated_at timestamptz not null default clock_timestamp(),
    constraint ensemble_champions_key unique nulls not distinct (ensemble, symbol)
);
comment on table ml.ensemble_champions is 'Which version of an ensemble serves a symbol (null: all symbols without their own).';
comment on column ml.ensemble_champions.ensemble is 'The ensemble.';
comment on column ml.ensemble_champions.symbol is 'The symbol; null: all.';
comment on column ml.ensemble_champions.ensemble_version_id is 'The version that serves.';
comment on column ml.ensemble_champions.updated_at is 'Since when.';

create table ml.ensemble_history (
    history_id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    actor text not null default session_user,
    action text not null check (action in ('promote', 'rollback')),
    ensemble text not null,
    symbol text collate "C",
    previous_id bigint,
    ensemble_version_id bigint not null,
    reason text
);
comment on table ml.ensemble_history is 'Who promoted or rolled back which ensemble version, when and why. Append-only.';
comment on column ml.ensemble_history.history_id is 'The order of things.';
comment on column ml.ensemble_history.at is 'When.';
comment on column ml.ensemble_history.actor is 'Who.';
comment on column ml.ensemble_history.action is 'What.';
comment on column ml.ensemble_history.ensemble is 'The ensemble.';
comment on column ml.ensemble_history.symbol is 'The symbol; null: all.';
comment on column ml.ensemble_history.previous_id is 'The version before.';
comment on column ml.ensemble_history.ensemble_version_id is 'The version from then on.';
comment on column ml.ensemble_history.reason is 'Why.';

create table ml.ensemble_rounds (
    ensemble text not null references ml.ensembles (ensemble) on delete cascade,
    symbol text collate "C" not null,
    ts timestamptz not null,
    known_at timestamptz not null,
    probabilities jsonb not null,
    regimes jsonb not null default '{}',
    source text not null check (source in ('recorded', 'back-filled', 'out of fold')),
    primary key (ensemble, symbol, ts)
);
comment on table ml.ensemble_rounds is 'What an ensemble''s members said of a symbol at a time: what its methods learn from, once the outcome is known.';
comment on column ml.ensemble_rounds.ensemble is 'The ensemble.';
comment on column ml.ensemble_rounds.symbol is 'The canonical symbol.';
comment on column ml.ensemble_rounds.ts is 'The time of the prediction.';
comment on column ml.ensemble_rounds.known_at is 'Since when it may be used.';
comment on column ml.ensemble_rounds.probabilities is '{model: probability} of the members that were awake.';
comment on column ml.ensemble_rounds.regimes is '{regime: probability}, as known then.';
comment on column ml.ensemble_rounds.source is 'Recorded when it was made; made later by the versions of that time; or out-of-fold predictions.';

create table ml.ensemble_outcomes (
    label text not null references ml.labels (label),
    symbol text collate "C" not null,
    ts timestamptz not null,
    known_at timestamptz not null,
    outcome double precision not null,
    primary key (label, symbol, ts, known_at)
);
comment on table ml.ensemble_outcomes is 'What came of a label at a time, each version since when it was known: a correction is another row.';
comment on column ml.ensemble_outcomes.label is 'The label.';
comment on column ml.ensemble_outcomes.symbol is 'The canonical symbol.';
comment on column ml.ensemble_outcomes.ts is 'The time that the label looks ahead from.';
comment on column ml.ensemble_outcomes.known_at is 'Since when it was known.';
comment on column ml.ensemble_outcomes.outcome is 'The label''s value.';

create table ml.ensemble_states (
    ensemble_version_id bigint not null references ml.ensemble_versions (ensemble_version_id) on delete cascade,
    symbol text collate "C" not null,
    through timestamptz not null,
    state text not null,
    computed_at timestamptz not null default clock_timestamp(),
    primary key (ensemble_version_id, symbol, through)
);
comment on table ml.ensemble_states is 'What an ensemble version had learned of a symbol by a time, so that answering does not begin at the first round. A function of rounds and outcomes: rows that change what was known by then take it away.';
comment on column ml.ensemble_states.ensemble_version_id is 'The version.';
comment on column ml.ensemble_states.symbol is 'The canonical symbol.';
comment on column ml.ensemble_states.through is 'What was known by then is in it.';
comment on column ml.ensemble_states.state is 'Weights, regrets, waiting rounds and frequencies, as alphaplus.server.serving.ensemble writes them.';
comment on column ml.ensemble_states.computed_at is 'When it was computed.';

create table ml.scores (
    day date not null,
    model text not null,
    symbol text collate "C" not null,
    regime text not null default '',
    method text not null default '',
    n bigint not null,
    log_loss double precision not null,
    brier double precision not null,
    hits bigint not null,
    events double precision not null,
    said double precision not null,
    primary key (day, model, symbol, regime, method)
);
comment on table ml.scores is 'Recorded predictions with a known outcome, added up by day: what the views of performance read. Kept by triggers on ml.predictions.';
comment on column ml.scores.day is 'Day of as_of, UTC.';
comment on column ml.scores.model is 'The model or ensemble.';
comment on column ml.scores.symbol is 'The canonical symbol.';
comment on column ml.scores.regime is 'The regime at the time; empty: not known.';
comment on column ml.scores.method is 'The ensemble''s method; empty: a model.';
comment on column ml.scores.n is 'Predictions with an outcome.';
comment on column ml.scores.log_loss is 'Sum of log losses, nats; of values: squared errors.';
comment on column ml.scores.brier is 'Sum of squared errors of probabilities.';
comment on column ml.scores.hits is 'Those on the right side of one half.';
comment on column ml.scores.events is 'Sum of outcomes.';
comment on column ml.scores.said is 'Sum of predictions.';

create index ensemble_rounds_known_idx on ml.ensemble_rounds (ensemble, symbol, known_at);
create index ensemble_outcomes_known_idx on ml.ensemble_outcomes (label, symbol, known_at);
create index scores_model_idx on ml.scores (model, day);

create type ml.ensemble_answer as (
    symbol text,
    as_of timestamptz,
    horizon interval,
    probability double precision,
    confidence double precision,
    lower double precision,
    upper double precision,
    risk_level text,
    regime text,
    regime_probabilities jsonb,
    method text,
    weights jsonb,
    members jsonb,
    slept jsonb,
    reason text,
    ensemble text,
    ensemble_version_id bigint,
    method_weights jsonb,
    outcomes bigint,
    is_fallback boolean,
    trained_to timestamptz,
    in_sample boolean,
    staleness_s double precision
);
comment on type ml.ensemble_answer is 'What an ensemble says of a symbol at a time; see ml.predict_ensemble.';
comment on column ml.ensemble_answer.symbol is 'The canonical symbol.';
comment on column ml.ensemble_answer.as_of is 'The time asked for.';
comment on column ml.ensemble_answer.horizon is 'How far ahead the label looks.';
comment on column ml.ensemble_answer.probability is 'The chance of the event; null where all members sleep.';
comment on column ml.ensemble_answer.confidence is '1 less the width of the interval.';
comment on column ml.ensemble_answer.lower is 'Lower end of the interval at 90 %.';
comment on column ml.ensemble_answer.upper is 'Upper end of the interval at 90 %.';
comment on column ml.ensemble_answer.risk_level is 'Of ml.risk_levels.';
comment on column ml.ensemble_answer.regime is 'The regime as known then, where it can be told.';
comment on column ml.ensemble_answer.regime_probabilities is '{regime: probability}.';
comment on column ml.ensemble_answer.method is 'The method that answered.';
comment on column ml.ensemble_answer.weights is '{model: weight} of the awake members, summing to one.';
comment on column ml.ensemble_answer.members is '{model: {probability, confidence, version_id, chosen}} of the awake members.';
comment on column ml.ensemble_answer.slept is '{model: reason} of the others.';
comment on column ml.ensemble_answer.reason is 'Why the answer is doubtful or null.';
comment on column ml.ensemble_answer.ensemble is 'The ensemble.';
comment on column ml.ensemble_answer.ensemble_version_id is 'The version that answered.';
comment on column ml.ensemble_answer.method_weights is '{method: weight} in auto.';
comment on column ml.ensemble_answer.outcomes is 'Outcomes it has learned from.';
comment on column ml.ensemble_answer.is_fallback is 'No member answered.';
comment on column ml.ensemble_answer.trained_to is 'The latest of the members''.';
comment on column ml.ensemble_answer.in_sample is 'as_of lies before it.';
comment on column ml.ensemble_answer.staleness_s is 'Seconds from the newest market row known then to as_of.';

create type ml.ensemble_served as (
    answer ml.ensemble_answer,
    setup jsonb,
    state text,
    probabilities double precision [],
    regimes double precision [],
    vectors jsonb
);
comment on type ml.ensemble_served is 'An ensemble''s answer with all that it was made from; for recording it.';
comment on column ml.ensemble_served.answer is 'The answer.';
comment on column ml.ensemble_served.setup is 'Members, regimes, weights and parameters, as the Python side takes them.';
comment on column ml.ensemble_served.state is 'What had been learned by then.';
comment on column ml.ensemble_served.probabilities is 'The members'' probabilities, NaN where one slept.';
comment on column ml.ensemble_served.regimes is 'The regimes'' probabilities.';
comment on column ml.ensemble_served.vectors is '{model: vector} of the awake members.';
