-- How recorded predictions do, by hour, and how well their probabilities are calibrated.
create or replace function analytics._asked(as_of timestamptz) returns timestamptz
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    if not isfinite(as_of) then
        raise exception 'as_of is %, it must be a time', as_of
        using errcode = 'AP960', hint = 'Leave it out for now, or give a time with its zone.';
    end if;
    return coalesce(as_of, now());
end
$$;
comment on function analytics._asked(timestamptz) is 'The time asked for, or now. Errors: AP960.';

create or replace function analytics._model(model text) returns text
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    if model is not null and not exists (select from ml.models m where m.model = $1)
        and not exists (select from ml.ensembles e where e.ensemble = $1)
    then
        raise exception 'unknown model or ensemble %', quote_literal(model)
        using errcode = 'AP961', hint = 'List them with: select model from ml.models union select ensemble from ml.ensembles.';
    end if;
    return model;
end
$$;
comment on function analytics._model(text) is 'The name of a model or an ensemble, or null. Errors: AP961.';

create or replace function analytics._inference(
    asked_model text, asked_from timestamptz, asked_to timestamptz, asked_as_of timestamptz
)
returns table (
    ts timestamptz, model text, predictions bigint, per_second double precision,
    fallback_share double precision, latency_mean_ms double precision,
    latency_p50_ms double precision, latency_p95_ms double precision,
    latency_max_ms double precision, outcomes bigint, accuracy double precision,
    log_loss double precision, base_rate_log_loss double precision, brier double precision,
    event_rate double precision, mean_prediction double precision, rmse double precision,
    mae double precision
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
rows 200
as $$
#variable_conflict use_column
declare
    v_as_of constant timestamptz := analytics._asked($4);
    v_to constant timestamptz := coalesce($3, v_as_of + interval '1 microsecond');
    v_from constant timestamptz := coalesce(
        $2, public.time_bucket(interval '1 hour', v_as_of - interval '7 days')
    );
begin
    return query
        with sums as (
            select
                s.ts, s.model, sum(s.n) as n, sum(s.fallbacks) as fallbacks,
                sum(s.latency_ms) as latency_ms, sum(s.latencies) as latencies,
                max(s.latency_max) as latency_max, sum(s.outcomes) as outcomes,
                sum(s.classes) as classes, sum(s.hits) as hits, sum(s.events) as events,
                sum(s.said) as said, sum(s.log_loss) as log_loss, sum(s.square) as square,
                sum(s.absolute) as absolute
            from analytics._sums(v_as_of, v_from, v_to, analytics._model($1)) s
            group by s.ts, s.model
        ),
        running as (
            select
                c.ts, c.model, c.cell,
                sum(sum(c.n)) over (partition by c.ts, c.model order by c.cell) as upto,
                sum(sum(c.n)) over (partition by c.ts, c.model) as total
            from analytics._cells('latency', v_as_of, v_from, v_to, $1) c
            group by c.ts, c.model, c.cell
        ),
        latency as (
            select
                r.ts, r.model,
                2 ^ ((min(r.cell) filter (where r.upto >= 0.5 * r.total) + 0.5) / 8) as p50,
                2 ^ ((min(r.cell) filter (where r.upto >= 0.95 * r.total) + 0.5) / 8) as p95
            from running r
            group by r.ts, r.model
        )
        select
            s.ts, s.model, s.n::bigint, s.n / 3600, s.fallbacks / nullif(s.n, 0),
            s.latency_ms / nullif(s.latencies, 0), least(l.p50, s.latency_max),
            least(l.p95, s.latency_max), s.latency_max, s.outcomes::bigint,
            s.hits / nullif(s.classes, 0), s.log_loss / nullif(s.classes, 0),
            case when s.classes > 0 then analytics._entropy(s.events / s.outcomes) end,
            case when s.classes > 0 then s.square / s.outcomes end,
            case when s.classes > 0 then s.events / s.outcomes end,
            s.said / nullif(s.outcomes, 0),
            case when s.classes = 0 then sqrt(s.square / nullif(s.outcomes, 0)) end,
            case when s.classes = 0 then s.absolute / nullif(s.outcomes, 0) end
        from sums s
        left join latency l on l.ts = s.ts and l.model = s.model
        order by s.ts, s.model;
end
$$;
comment on function analytics._inference(text, timestamptz, timestamptz, timestamptz) is
'See analytics.inference, which calls it: there a parameter may have the name of a column.';

create or replace function analytics.inference(
    model text default null, "from" timestamptz default null, "to" timestamptz default null,
    as_of timestamptz default null
)
returns table (
    ts timestamptz, model text, predictions bigint, per_second double precision,
    fallback_share double precision, latency_mean_ms double precision,
    latency_p50_ms double precision, latency_p95_ms double precision,
    latency_max_ms double precision, outcomes bigint, accuracy double precision,
    log_loss double precision, base_rate_log_loss double precision, brier double precision,
    event_rate double precision, mean_prediction double precision, rmse double precision,
    mae double precision
)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
rows 200
as $$
    select x.* from analytics._inference($1, $2, $3, $4) x
$$;
comment on function analytics.inference(text, timestamptz, timestamptz, timestamptz) is
'Recorded predictions by model and hour of their as_of in [from, to) (default: seven days before as_of), as known at as_of (default: now): how many and how fast, how long they took (quantiles to within 5 %), and what came of those with an outcome: accuracy, log loss in nats beside that of always saying the hour''s event rate, Brier score; of values root mean squared and mean absolute error. Errors: AP960 as_of is not finite, AP961 unknown model.';

create or replace function analytics._entropy(rate double precision) returns double precision
language sql immutable parallel safe
return case
    when rate > 0 and rate < 1 then -(rate * ln(rate) + (1 - rate) * ln(1 - rate)) else 0
end;
comment on function analytics._entropy(double precision) is
'Log loss in nats of always saying the rate at which an event comes.';

create or replace function analytics._calibration(
    asked_model text, asked_as_of timestamptz, asked_days integer
)
returns table (
    model text, version_id bigint, bin integer, lower double precision, upper double precision,
    predictions bigint, mean_probability double precision, observed double precision,
    observed_low double precision, observed_high double precision, gap double precision,
    ece double precision
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
rows 50
as $$
#variable_conflict use_column
declare
    v_as_of constant timestamptz := analytics._asked($2);
    v_days constant integer := least(greatest(coalesce($3, 30), 1), 36500);
begin
    return query
        select
            c.model, nullif(c.version_id, 0), c.cell + 1, c.cell / 10.0::double precision,
            (c.cell + 1) / 10.0::double precision, c.n::bigint, c.said / c.n, c.events / c.n,
            -- Wilson (1927), 95 %.
            least(c.events / c.n, greatest(0, (c.events / c.n + 1.920729410347062 / c.n - w.half) / (1 + 3.841458820694124 / c.n))),
            greatest(c.events / c.n, least(1, (c.events / c.n + 1.920729410347062 / c.n + w.half) / (1 + 3.841458820694124 / c.n))),
            (c.said - c.events) / c.n,
            sum(abs(c.said - c.events)) over (partition by c.model, c.version_id)
            / sum(c.n) over (partition by c.model, c.version_id)
        from (
            select
                x.model, x.version_id, x.cell, sum(x.n) as n, sum(x.events) as events,
                sum(x.said) as said
            from analytics._cells(
                'calibration', v_as_of,
                public.time_bucket(interval '1 day', v_as_of) - (v_days - 1) * interval '24 hours',
                'infinity', analytics._model($1)
            ) x
            group by x.model, x.version_id, x.cell
            having sum(x.n) > 0
        ) c
        cross join lateral (
            select 1.959963984540054 * sqrt(
                c.events / c.n * (1 - c.events / c.n) / c.n + 0.960364705173531 / c.n ^ 2
            ) as half
        ) w
        order by c.model, c.version_id, c.cell;
end
$$;
comment on function analytics._calibration(text, timestamptz, integer) is
'See analytics.calibration, which calls it: there a parameter may have the name of a column.';

create or replace function analytics.calibration(
    model text default null, as_of timestamptz default null, days integer default 30
)
returns table (
    model text, version_id bigint, bin integer, lower double precision, upper double precision,
    predictions bigint, mean_probability double precision, observed double precision,
    observed_low double precision, observed_high double precision, gap double precision,
    ece double precision
)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
rows 50
as $$
    select x.* from analytics._calibration($1, $2, $3) x
$$;
comment on function analytics.calibration(text, timestamptz, integer) is
'Reliability of recorded probabilities by version and tenth of probability, of the predictions of the last days (UTC days, the one of as_of counting) whose outcome was known at as_of (default: now): mean probability beside the observed share with its 95 % interval (Wilson 1927, JASA 22; too narrow where labels overlap), gap = said less observed, ece = expected calibration error of the version over its tenths. Errors: AP960, AP961.';

create or replace view analytics.inference as
select * from analytics.inference();
comment on view analytics.inference is
'Recorded predictions of the last seven days by model and hour; analytics.inference(model, from, to, as_of) for any time.';
comment on column analytics.inference.ts is 'Start of the hour (UTC).';
comment on column analytics.inference.model is 'The model or ensemble.';
comment on column analytics.inference.predictions is 'Recorded predictions.';
comment on column analytics.inference.per_second is 'The same per second.';
comment on column analytics.inference.fallback_share is 'Share answered by a fallback.';
comment on column analytics.inference.latency_mean_ms is 'Mean latency, milliseconds.';
comment on column analytics.inference.latency_p50_ms is 'Median latency, to within 5 %.';
comment on column analytics.inference.latency_p95_ms is '95 % quantile of latency, to within 5 %.';
comment on column analytics.inference.latency_max_ms is 'Longest latency.';
comment on column analytics.inference.outcomes is 'Predictions of the hour whose outcome is known.';
comment on column analytics.inference.accuracy is 'Share on the right side of one half.';
comment on column analytics.inference.log_loss is 'Log loss, nats.';
comment on column analytics.inference.base_rate_log_loss is 'Log loss of always saying the hour''s event rate.';
comment on column analytics.inference.brier is 'Brier score.';
comment on column analytics.inference.event_rate is 'Share of events.';
comment on column analytics.inference.mean_prediction is 'Mean prediction of those with an outcome.';
comment on column analytics.inference.rmse is 'Root mean squared error (values).';
comment on column analytics.inference.mae is 'Mean absolute error (values).';

create or replace view analytics.calibration as
select * from analytics.calibration();
comment on view analytics.calibration is
'Reliability of recorded probabilities of the last 30 days; analytics.calibration(model, as_of, days) at any time.';
comment on column analytics.calibration.model is 'The model or ensemble.';
comment on column analytics.calibration.version_id is 'The version; null: base rates, or an ensemble.';
comment on column analytics.calibration.bin is 'Tenth of probability, 1 to 10.';
comment on column analytics.calibration.lower is 'Lower end of the tenth.';
comment on column analytics.calibration.upper is 'Upper end.';
comment on column analytics.calibration.predictions is 'Predictions in it whose outcome is known.';
comment on column analytics.calibration.mean_probability is 'Their mean probability.';
comment on column analytics.calibration.observed is 'Share of them whose event came.';
comment on column analytics.calibration.observed_low is 'Lower end of its 95 % interval.';
comment on column analytics.calibration.observed_high is 'Upper end.';
comment on column analytics.calibration.gap is 'mean_probability less observed.';
comment on column analytics.calibration.ece is 'Expected calibration error of the version.';
