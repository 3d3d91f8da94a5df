-- depends: 0361_analytics
--
-- 0362: outcomes that were corrected, so that as of an earlier time the one that was known then counts.
create table analytics.superseded_outcomes (
    prediction_id bigint not null,
    as_of timestamptz not null,
    model text not null,
    symbol text collate "C" not null,
    version_id bigint,
    regime text,
    prediction double precision not null,
    probability double precision,
    outcome double precision not null,
    known_at timestamptz not null,
    superseded_at timestamptz not null,
    check (superseded_at > known_at)
);
create index superseded_outcomes_id_idx on analytics.superseded_outcomes (prediction_id);
create index superseded_outcomes_known_idx on analytics.superseded_outcomes (known_at);
create index superseded_outcomes_until_idx on analytics.superseded_outcomes (superseded_at);
comment on table analytics.superseded_outcomes is
'Outcomes of recorded predictions that were corrected or withdrawn, with when each was known and until when it counted. Written by the trigger mark_known of ml.predictions.';
comment on column analytics.superseded_outcomes.prediction_id is 'The prediction.';
comment on column analytics.superseded_outcomes.as_of is 'Its time.';
comment on column analytics.superseded_outcomes.model is 'Its model.';
comment on column analytics.superseded_outcomes.symbol is 'Its instrument.';
comment on column analytics.superseded_outcomes.version_id is 'The version that answered; null: a base rate, or an ensemble.';
comment on column analytics.superseded_outcomes.regime is 'The regime at the prediction; null: not known.';
comment on column analytics.superseded_outcomes.prediction is 'What it said.';
comment on column analytics.superseded_outcomes.probability is 'The same of a class; null: a value.';
comment on column analytics.superseded_outcomes.outcome is 'The outcome that counted then.';
comment on column analytics.superseded_outcomes.known_at is 'Since when it was known.';
comment on column analytics.superseded_outcomes.superseded_at is 'Since when another one, or none, counts.';

-- What a dashboard asks for is a stretch of the predictions' times.
create index prediction_cells_ts_idx on analytics.prediction_cells (kind, width, ts);
create index prediction_sums_ts_idx on analytics.prediction_sums (width, ts);
