-- How good predictions were: kept sums per hour, and views that merge them.
create or replace procedure ml.refresh_performance()
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_marks jsonb;
begin
    -- Marks that come while this works stay for the next time.
    with taken as (
        delete from ml.performance_marks m returning m.source, m.symbol, m.ts
    )
    select jsonb_agg(to_jsonb(t)) into v_marks from taken t;
    if v_marks is null then
        return;
    end if;
    delete from ml.performance p
    using jsonb_to_recordset(v_marks) as m (source text, symbol text, ts timestamptz)
    where p.source = m.source and p.symbol = m.symbol and p.ts = m.ts;
    insert into ml.performance (
        source, version_id, model, symbol, regime, ts, n, outcomes, hits, log_loss, square, absolute,
        positives, negatives, probability, latency_ms, latencies, latency_max, fallbacks
    )
    with rows as (
        select
            'recorded' as source, coalesce(p.version_id, 0) as version_id, p.model, p.symbol,
            coalesce(p.regime, '') as regime, m.ts, p.prediction, p.probability, p.outcome,
            (p.details ->> 'latency_ms')::float8 as latency, p.is_fallback
        from jsonb_to_recordset(v_marks) as m (source text, symbol text, ts timestamptz)
        join ml.predictions p on m.source = 'recorded' and p.symbol = m.symbol
            and p.as_of >= m.ts and p.as_of < m.ts + interval '1 hour'
        union all
        select
            'shadow', s.version_id, v.model, s.symbol, '', m.ts, s.prediction,
            case when v.task = 'classification' then s.prediction end, s.target, null, false
        from jsonb_to_recordset(v_marks) as m (source text, symbol text, ts timestamptz)
        join ml.shadow_predictions s on m.source = 'shadow' and s.symbol = m.symbol
            and s.ts >= m.ts and s.ts < m.ts + interval '1 hour'
        join ml.model_versions v on v.version_id = s.version_id
    ),
    cells as (
        select
            r.*,
            least(99, floor(r.probability * 100))::integer as cell,
            least(greatest(r.probability, 1e-15), 1 - 1e-15) as c
        from rows r
    ),
    parts as (
        select
            x.source, x.version_id, x.model, x.symbol, x.regime, x.ts, x.cell,
            count(*) filter (where x.outcome = 1) as positives,
            count(*) filter (where x.outcome = 0) as negatives,
            coalesce(sum(x.c) filter (where x.outcome is not null), 0) as probability
        from cells x
        where x.cell is not null
        group by x.source, x.version_id, x.model, x.symbol, x.regime, x.ts, x.cell
    ),
    filled as (
        select
            g.source, g.version_id, g.model, g.symbol, g.regime, g.ts,
            array_agg(coalesce(p.positives, 0)::integer order by k.cell) as positives,
            array_agg(coalesce(p.negatives, 0)::integer order by k.cell) as negatives,
            array_agg(coalesce(p.probability, 0) order by k.cell) as probability
        from (select distinct q.source, q.version_id, q.model, q.symbol, q.regime, q.ts from parts q) g
        cross join generate_series(0, 99) as k (cell)
        left join parts p on p.source = g.source and p.version_id = g.version_id
            and p.model = g.model and p.symbol = g.symbol and p.regime = g.regime and p.ts = g.ts
            and p.cell = k.cell
        group by g.source, g.version_id, g.model, g.symbol, g.regime, g.ts
    )
    select
        x.source, x.version_id, x.model, x.symbol, x.regime, x.ts, count(*), count(x.outcome),
        coalesce(sum(((x.c >= 0.5)::integer = x.outcome)::integer), 0),
        coalesce(sum(-x.outcome * ln(x.c) - (1 - x.outcome) * ln(1 - x.c)), 0),
        coalesce(sum((coalesce(x.probability, x.prediction) - x.outcome) ^ 2), 0),
        coalesce(sum(abs(coalesce(x.probability, x.prediction) - x.outcome)), 0),
        coalesce(f.positives, '{}'), coalesce(f.negatives, '{}'), coalesce(f.probability, '{}'),
        coalesce(sum(x.latency), 0), count(x.latency), max(x.latency),
        count(*) filter (where x.is_fallback)
    from cells x
    left join filled f on f.source = x.source and f.version_id = x.version_id and f.model = x.model
        and f.symbol = x.symbol and f.regime = x.regime and f.ts = x.ts
    group by x.source, x.version_id, x.model, x.symbol, x.regime, x.ts, f.positives, f.negatives,
        f.probability
    on conflict on constraint performance_pkey do update
    set n = excluded.n, outcomes = excluded.outcomes, hits = excluded.hits,
        log_loss = excluded.log_loss, square = excluded.square, absolute = excluded.absolute,
        positives = excluded.positives, negatives = excluded.negatives,
        probability = excluded.probability, latency_ms = excluded.latency_ms,
        latencies = excluded.latencies, latency_max = excluded.latency_max,
        fallbacks = excluded.fallbacks;
end
$$;
comment on procedure ml.refresh_performance() is
'For the clock: sums the hours whose predictions or outcomes changed (ml.performance).';

create or replace function ml.live_performance(
    model text default null, symbol text default null, "from" timestamptz default null,
    "to" timestamptz default null, source text default 'recorded', by_hour boolean default false,
    by_regime boolean default false
)
returns table (
    model text, version_id bigint, symbol text, regime text, ts timestamptz, predictions bigint,
    outcomes bigint, accuracy double precision, auc double precision, brier double precision,
    log_loss double precision, ece double precision, rmse double precision, mae double precision,
    latency_ms double precision, latency_max double precision, fallbacks bigint
)
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    with chosen as materialized (
        select
            p.model, p.version_id, p.symbol, case when $7 then p.regime end as regime,
            case when $6 then p.ts end as hour, p.n, p.outcomes, p.hits, p.log_loss, p.square,
            p.absolute, p.latency_ms, p.latencies, p.latency_max, p.fallbacks, p.positives,
            p.negatives, p.probability
        from ml.performance p
        where p.source = $5 and ($1 is null or p.model = $1)
            and ($2 is null or p.symbol = market.resolve($2))
            and p.ts >= coalesce($3, '-infinity') and p.ts < coalesce($4, 'infinity')
    ),
    sums as (
        select
            c.model, c.version_id, c.symbol, c.regime, c.hour, sum(c.n) as n,
            sum(c.outcomes) as outcomes, sum(c.hits) as hits, sum(c.log_loss) as log_loss,
            sum(c.square) as square, sum(c.absolute) as absolute, sum(c.latency_ms) as latency_ms,
            sum(c.latencies) as latencies, max(c.latency_max) as latency_max,
            sum(c.fallbacks) as fallbacks, bool_or(cardinality(c.positives) > 0) as is_class
        from chosen c
        group by c.model, c.version_id, c.symbol, c.regime, c.hour
    ),
    cells as (
        select
            c.model, c.version_id, c.symbol, c.regime, c.hour, u.cell,
            sum(u.positives)::float8 as positives, sum(u.negatives)::float8 as negatives,
            sum(u.probability) as probability
        from chosen c
        cross join lateral unnest(c.positives, c.negatives, c.probability)
            with ordinality as u (positives, negatives, probability, cell)
        group by c.model, c.version_id, c.symbol, c.regime, c.hour, u.cell
    ),
    ranked as (
        select
            k.*,
            coalesce(sum(k.negatives) over (
                partition by k.model, k.version_id, k.symbol, k.regime, k.hour order by k.cell
                rows between unbounded preceding and 1 preceding
            ), 0) as below
        from cells k
    ),
    curves as (
        select
            r.model, r.version_id, r.symbol, r.regime, r.hour,
            sum(r.positives * (r.below + r.negatives / 2))
            / nullif(sum(r.positives) * sum(r.negatives), 0) as auc,
            sum(abs(r.positives - r.probability))
            / nullif(sum(r.positives + r.negatives), 0) as ece
        from ranked r
        group by r.model, r.version_id, r.symbol, r.regime, r.hour
    )
    select
        s.model, nullif(s.version_id, 0), s.symbol, s.regime, s.hour, s.n::bigint, s.outcomes::bigint,
        case when s.is_class then s.hits / nullif(s.outcomes, 0) end, v.auc,
        case when s.is_class then s.square / nullif(s.outcomes, 0) end,
        case when s.is_class then s.log_loss / nullif(s.outcomes, 0) end, v.ece,
        case when not s.is_class then sqrt(s.square / nullif(s.outcomes, 0)) end,
        case when not s.is_class then s.absolute / nullif(s.outcomes, 0) end,
        s.latency_ms / nullif(s.latencies, 0), s.latency_max, s.fallbacks::bigint
    from sums s
    left join curves v on v.model = s.model and v.version_id = s.version_id and v.symbol = s.symbol
        and v.regime is not distinct from s.regime and v.hour is not distinct from s.hour
    order by s.model, s.version_id, s.symbol, s.regime, s.hour
$$;
comment on function ml.live_performance(text, text, timestamptz, timestamptz, text, boolean, boolean) is
'How good predictions were, per model, version and symbol (and hour, regime where asked for), from kept
sums: accuracy, AUC and expected calibration error (from percents of probability), Brier''s score, log
loss; of values root mean squared and mean absolute error; mean and longest latency in milliseconds.
source: recorded (ml.predictions) or shadow (what the clock recorded). version_id null: the base rate.
Errors: AP101, AP102 symbol.';

create or replace view ml.performance_by_hour as
select * from ml.live_performance(by_hour => true, by_regime => true);
comment on view ml.performance_by_hour is 'ml.live_performance of recorded predictions by regime and hour.';
