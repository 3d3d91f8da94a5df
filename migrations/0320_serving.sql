-- depends: 0301_doors
--
-- 0320: an answer is one type, whichever function gives it, and says what it was trained on. The
-- functions that gave a list of columns of their own are made anew in sql/.
drop function if exists ml.predict(text, text, timestamptz);
drop function if exists ml.predict_liquidation(text, interval, timestamptz);
drop function if exists ml._predict_liquidation(text, interval, timestamptz);
drop function if exists ml.forecast_order_book(text, interval, timestamptz);
drop function if exists ml._forecast_order_book(text, interval, timestamptz);
drop function if exists ml._predict(text, text, timestamptz, integer, double precision []);
drop function if exists ml._expected_volume(text, text, timestamptz, integer, double precision []);
drop function if exists ml.predict_stored(text, text, timestamptz);
drop function if exists ml.predict_many(text, text);
drop function if exists ml.predict_history(text, text, timestamptz, timestamptz);
drop function if exists ml.explain(text, text, timestamptz);
drop function if exists ml.record_prediction(text, text, timestamptz);

create type ml.answer as (
    symbol text,
    as_of timestamptz,
    model text,
    horizon interval,
    prediction double precision,
    probability double precision,
    confidence double precision,
    lower double precision,
    upper double precision,
    version_id bigint,
    regime text,
    partition_used text,
    feature_as_of timestamptz,
    staleness interval,
    expired boolean,
    out_of_support boolean,
    is_fallback boolean,
    reason text,
    staleness_s double precision,
    version_number integer,
    chosen text,
    trained_to timestamptz,
    in_sample boolean,
    missing_share double precision
);
comment on type ml.answer is 'What a model says of a symbol at a time, and how far to trust it; see ml.predict.';
comment on column ml.answer.symbol is 'The canonical symbol.';
comment on column ml.answer.as_of is 'The time asked for; only what was known by then is used.';
comment on column ml.answer.model is 'The model asked for.';
comment on column ml.answer.horizon is 'How far ahead the label looks.';
comment on column ml.answer.prediction is 'Calibrated probability, or value in the label''s unit; null where nothing may be said.';
comment on column ml.answer.probability is 'The prediction of a classification, null for a regression.';
comment on column ml.answer.confidence is '1 less the width of the interval, in [0, 1].';
comment on column ml.answer.lower is 'Lower end of the version''s interval, at or below the prediction.';
comment on column ml.answer.upper is 'Upper end of the version''s interval, at or above the prediction.';
comment on column ml.answer.version_id is 'The row of ml.model_versions that answered; null for a base rate.';
comment on column ml.answer.regime is 'The symbol''s market regime then, where it can be told.';
comment on column ml.answer.partition_used is 'symbol and regime, symbol, pooled, or base rate.';
comment on column ml.answer.feature_as_of is 'The grid time whose vector was read.';
comment on column ml.answer.staleness is 'as_of less the newest market row known then.';
comment on column ml.answer.expired is 'The version is past its expiry at as_of.';
comment on column ml.answer.out_of_support is 'The vector is far from the training rows, or too many of its features are unknown.';
comment on column ml.answer.is_fallback is 'No version that may serve answered: a base rate, another partition''s, or an expired one.';
comment on column ml.answer.reason is 'Why the answer is a fallback, doubtful or null; null where there is nothing to say.';
comment on column ml.answer.staleness_s is 'staleness in seconds.';
comment on column ml.answer.version_number is 'The version''s number within its model, symbol and regime (ml.model_versions.version).';
comment on column ml.answer.chosen is 'How the version was chosen: champion, champion then, trained by then, asked for, base rate.';
comment on column ml.answer.trained_to is 'End of the data the version was trained on.';
comment on column ml.answer.in_sample is 'as_of lies before trained_to: the version may have seen the outcome.';
comment on column ml.answer.missing_share is 'Share of the features that are unknown, among those usually known in training.';

create type ml.served as (
    answer ml.answer,
    features double precision [],
    vector_set integer,
    task text,
    label text
);
comment on type ml.served is 'An answer with the vector it was made from; for functions that explain or record it.';
comment on column ml.served.answer is 'The answer.';
comment on column ml.served.features is 'The vector, or sequence of vectors, that was scored.';
comment on column ml.served.vector_set is 'The feature set of the vector; null for a sequence.';
comment on column ml.served.task is 'classification or regression.';
comment on column ml.served.label is 'The label that the prediction is of.';

create type ml.scored as (
    version_id bigint,
    raw double precision,
    prediction double precision,
    confidence double precision,
    lower double precision,
    upper double precision,
    distance double precision,
    missing_share double precision,
    missing integer,
    problem text,
    features double precision [],
    set_id integer,
    feature_as_of timestamptz,
    symbol text,
    regime text,
    version_number integer,
    expires_at timestamptz,
    trained_to timestamptz
);
comment on type ml.scored is 'What one version says of a vector, as ml.score_versions and ml._score_at give it.';
comment on column ml.scored.version_id is 'The version.';
comment on column ml.scored.raw is 'Raw score: log odds for classes.';
comment on column ml.scored.prediction is 'Calibrated probability, or value; null where no feature is known.';
comment on column ml.scored.confidence is '1 less the width of the interval.';
comment on column ml.scored.lower is 'Lower end of the interval.';
comment on column ml.scored.upper is 'Upper end of the interval.';
comment on column ml.scored.distance is 'Distance to the training rows in units of the support threshold.';
comment on column ml.scored.missing_share is 'Share of the usually known features that are unknown.';
comment on column ml.scored.missing is 'How many features are unknown.';
comment on column ml.scored.problem is 'Why the version gives no prediction, null where it does.';
comment on column ml.scored.features is 'The vector or sequence that was scored.';
comment on column ml.scored.set_id is 'Its feature set.';
comment on column ml.scored.feature_as_of is 'Its grid time.';
comment on column ml.scored.symbol is 'The version''s symbol, null where it is pooled.';
comment on column ml.scored.regime is 'The version''s regime, null where it has none.';
comment on column ml.scored.version_number is 'The version''s number within its line.';
comment on column ml.scored.expires_at is 'When the version expires.';
comment on column ml.scored.trained_to is 'End of the data the version was trained on.';

create table ml.base_rates (
    label text not null references ml.labels (label) on delete cascade,
    symbol text collate "C" not null,
    grid interval not null,
    as_of timestamptz not null,
    window_length interval not null,
    base_rate double precision,
    computed_at timestamptz not null default clock_timestamp(),
    primary key (label, symbol, grid, as_of, window_length)
);
create index base_rates_symbol_idx on ml.base_rates (symbol, as_of);
comment on table ml.base_rates is 'Base rates of labels as known at full hours, kept so that a fallback costs a look-up (call ml.keep_base_rates); rows that arrive late for a time take its base rates away.';
comment on column ml.base_rates.label is 'The label.';
comment on column ml.base_rates.symbol is 'The canonical symbol.';
comment on column ml.base_rates.grid is 'The grid of the feature set, which is the label''s bar length.';
comment on column ml.base_rates.as_of is 'The full hour as of which it was computed.';
comment on column ml.base_rates.window_length is 'The time before as_of over which outcomes were counted.';
comment on column ml.base_rates.base_rate is 'The base rate, null where no outcome was known.';
comment on column ml.base_rates.computed_at is 'When it was computed.';

alter table ml.serving add column trained_to timestamptz;
comment on column ml.serving.trained_to is 'End of the data the version was trained on.';
update ml.serving s
set trained_to = least(v.as_of, v.train_to + v.horizon)
from ml.model_versions v
where v.version_id = s.version_id;
