-- depends: 0331_lifecycle
--
-- 0360: what dashboards read of recorded predictions, kept as sums by when it became known, so that
-- a question as of an earlier time is answered from sums too; and since when an outcome is known.

alter table ml.predictions add column outcome_known_at timestamptz;
comment on column ml.predictions.outcome_known_at is
'When the outcome was written down; as of an earlier time it is not known.';
update ml.predictions p
set outcome_known_at = greatest(p.created_at, p.outcome_at)
where p.outcome is not null;
create index predictions_created_idx on ml.predictions (created_at);
create index predictions_outcome_known_idx on ml.predictions (outcome_known_at)
where outcome_known_at is not null;

create table analytics.prediction_sums (
    known_from timestamptz not null,
    width interval not null check (width in (interval '1 hour', interval '1 day')),
    ts timestamptz not null,
    model text not null,
    symbol text collate "C" not null,
    version_id bigint not null,
    regime text not null,
    n double precision not null,
    fallbacks double precision not null,
    latency_ms double precision not null,
    latencies double precision not null,
    latency_max double precision,
    outcomes double precision not null,
    classes double precision not null,
    hits double precision not null,
    events double precision not null,
    said double precision not null,
    log_loss double precision not null,
    square double precision not null,
    absolute double precision not null,
    primary key (width, known_from, ts, model, symbol, version_id, regime)
);
comment on table analytics.prediction_sums is
'Sums over recorded predictions and their outcomes, by the hour and by the day (UTC) in which they became known. Read them through analytics.inference and analytics.model_health.';
comment on column analytics.prediction_sums.known_from is 'Start of the hour or day in which what is summed became known.';
comment on column analytics.prediction_sums.width is 'One hour or one day; a day is the sum of its hours.';
comment on column analytics.prediction_sums.ts is 'Start of the hour of the predictions'' as_of.';
comment on column analytics.prediction_sums.model is 'The model.';
comment on column analytics.prediction_sums.symbol is 'The instrument.';
comment on column analytics.prediction_sums.version_id is 'The version that answered; 0: a base rate, or an ensemble.';
comment on column analytics.prediction_sums.regime is 'The regime at the prediction; empty: not known.';
comment on column analytics.prediction_sums.n is 'Predictions that became known.';
comment on column analytics.prediction_sums.fallbacks is 'Of them answered by a fallback.';
comment on column analytics.prediction_sums.latency_ms is 'Sum of their latencies in milliseconds.';
comment on column analytics.prediction_sums.latencies is 'How many have a latency.';
comment on column analytics.prediction_sums.latency_max is 'The longest latency in milliseconds.';
comment on column analytics.prediction_sums.outcomes is 'Outcomes that became known.';
comment on column analytics.prediction_sums.classes is 'Of them outcomes of probabilities.';
comment on column analytics.prediction_sums.hits is 'Probabilities on the right side of one half.';
comment on column analytics.prediction_sums.events is 'Sum of the outcomes.';
comment on column analytics.prediction_sums.said is 'Sum of the predictions that have an outcome.';
comment on column analytics.prediction_sums.log_loss is 'Sum of log losses in nats, of probabilities cut to [1e-15, 1 - 1e-15].';
comment on column analytics.prediction_sums.square is 'Sum of squared errors.';
comment on column analytics.prediction_sums.absolute is 'Sum of absolute errors.';

create table analytics.prediction_cells (
    known_from timestamptz not null,
    width interval not null check (width in (interval '1 hour', interval '1 day')),
    kind text not null check (kind in ('calibration', 'latency')),
    ts timestamptz not null,
    model text not null,
    symbol text collate "C" not null,
    version_id bigint not null,
    cell integer not null,
    n double precision not null,
    events double precision not null,
    said double precision not null,
    primary key (width, known_from, kind, ts, model, symbol, version_id, cell)
);
comment on table analytics.prediction_cells is
'Histograms of recorded predictions by when they became known. Read them through analytics.calibration and analytics.inference.';
comment on column analytics.prediction_cells.known_from is 'Start of the hour or day in which what is counted became known.';
comment on column analytics.prediction_cells.width is 'One hour or one day.';
comment on column analytics.prediction_cells.kind is 'calibration: probabilities with an outcome, in tenths; latency: latencies, eight cells for each doubling of a millisecond.';
comment on column analytics.prediction_cells.ts is 'Start of the day (calibration) or hour (latency) of the predictions'' as_of.';
comment on column analytics.prediction_cells.model is 'The model.';
comment on column analytics.prediction_cells.symbol is 'The instrument; empty: all (latency).';
comment on column analytics.prediction_cells.version_id is 'The version; 0: a base rate, an ensemble, or all (latency).';
comment on column analytics.prediction_cells.cell is 'Number of the cell: floor(10 p), or floor(8 log2(milliseconds)).';
comment on column analytics.prediction_cells.n is 'How many.';
comment on column analytics.prediction_cells.events is 'Calibration: sum of the outcomes.';
comment on column analytics.prediction_cells.said is 'Calibration: sum of the probabilities.';

create table analytics.known_marks (
    ts timestamptz not null
);
create index known_marks_idx on analytics.known_marks (ts);
comment on table analytics.known_marks is
'Hours in which predictions or outcomes became known, or changed, since they were summed; analytics.refresh sums them again, and until then readers read the rows themselves.';
comment on column analytics.known_marks.ts is 'Start of the hour.';

create table analytics.kept (
    only_row boolean primary key default true check (only_row),
    through timestamptz not null
);
comment on table analytics.kept is 'Up to when sums are kept: one row.';
comment on column analytics.kept.only_row is 'Always true.';
comment on column analytics.kept.through is 'Every earlier hour is in analytics.prediction_sums unless it is marked.';
insert into analytics.kept (through) values ('-infinity');
insert into analytics.known_marks (ts)
select distinct public.time_bucket(interval '1 hour', k.at)
from ml.predictions p
cross join lateral (values (p.created_at), (p.outcome_known_at)) as k (at)
where k.at is not null;

create table analytics.feature_checks (
    checked_at timestamptz not null,
    feature_set text not null,
    feature_version integer not null,
    symbol text collate "C" not null,
    ts_from timestamptz not null,
    ts_to timestamptz not null,
    feature text not null,
    position integer not null,
    row_count bigint not null,
    null_share double precision,
    mean double precision,
    variance double precision,
    min_value double precision,
    max_value double precision,
    distinct_values bigint,
    last_value double precision,
    last_known timestamptz,
    staleness interval,
    primary key (feature_set, feature_version, symbol, checked_at, feature)
);
comment on table analytics.feature_checks is
'Quality of features over the last 24 hours of their stored vectors, written down each hour by analytics.refresh. Read it through analytics.feature_quality.';
comment on column analytics.feature_checks.checked_at is 'When it was written down.';
comment on column analytics.feature_checks.feature_set is 'The feature set.';
comment on column analytics.feature_checks.feature_version is 'Its version.';
comment on column analytics.feature_checks.symbol is 'The instrument.';
comment on column analytics.feature_checks.ts_from is 'First grid time looked at.';
comment on column analytics.feature_checks.ts_to is 'Up to when vectors were stored, exclusive.';
comment on column analytics.feature_checks.feature is 'The feature.';
comment on column analytics.feature_checks.position is 'Its place in the set, from 1.';
comment on column analytics.feature_checks.row_count is 'Vectors looked at.';
comment on column analytics.feature_checks.null_share is 'Share of vectors in which it is not known.';
comment on column analytics.feature_checks.mean is 'Mean of the known values.';
comment on column analytics.feature_checks.variance is 'Sample variance.';
comment on column analytics.feature_checks.min_value is 'Least value.';
comment on column analytics.feature_checks.max_value is 'Largest value.';
comment on column analytics.feature_checks.distinct_values is 'How many different values; 1: constant.';
comment on column analytics.feature_checks.last_value is 'Value in the newest vector; null: not known there.';
comment on column analytics.feature_checks.last_known is 'Newest vector in which it is known.';
comment on column analytics.feature_checks.staleness is 'How far that is behind the newest vector.';
