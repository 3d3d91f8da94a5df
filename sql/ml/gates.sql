-- Gates: what a version must reach before it may serve.
create or replace function ml._interval_coverage(
    spec jsonb, prediction double precision [], target double precision []
)
returns double precision
language plpython3u immutable parallel safe set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.serving import intervals
    return intervals.coverage(spec, prediction or [], target or [])
$python$;


create or replace function ml._feature_ks(version_id bigint)
returns double precision
language sql stable parallel restricted
set search_path = pg_catalog, pg_temp
as $$
    select max(c.ks)
    from ml.model_versions v
    join ml.version_predictions p on p.version_id = v.version_id
    join drift.version_references r on r.version_id = v.version_id and r.binning_id is not null
    cross join lateral (
        select min(u.ts) as first, max(u.ts) as last
        from unnest(p.ts, p.fold) as u (ts, fold)
        where u.fold = (select max(f) from unnest(p.fold) as f)
    ) h
    cross join lateral drift._check(
        v.version_id, r.symbols, drift._micros(ops._at(h.first)), drift._micros(ops._at(h.last)) + 1,
        drift._options(v.model)
    ) c
    where v.version_id = $1 and c.kind = 'feature'
$$;
comment on function ml._feature_ks(bigint) is
'The largest Kolmogorov-Smirnov distance of a feature between the last held-out fold and all that a
version was trained on: how far the market has moved while it was trained; null without a reference,
or where no vectors are stored.';

create or replace function ml._gate_verdicts(version_id bigint)
returns table (
    gate text,
    metric text,
    value float8,
    reference_value float8,
    threshold float8,
    comparison text,
    against text,
    passed boolean,
    detail text,
    champion_id bigint
)
language sql stable parallel restricted
set search_path = pg_catalog, pg_temp
as $$
    with v as (
        select
            mv.version_id, mv.model, mv.task,
            -- What the database measured: out of fold, else the newest evaluation on unseen rows.
            case when mv.metrics ? 'rows' or mv.metrics ? 'auc' or mv.metrics ? 'rmse' then mv.metrics
                else coalesce((
                    select e.metrics from ml.evaluations e
                    where e.version_id = mv.version_id and not e.in_sample
                    order by e.evaluation_id desc limit 1
                ), mv.metrics) end as metrics,
            (
                select a.version_id from ml.aliases a
                where a.model = mv.model
                    and a.symbol is not distinct from mv.symbol
                    and a.regime is not distinct from mv.regime
                    and a.alias = 'champion'
            ) as champion_id
        from ml.model_versions mv
        where mv.version_id = $1
    ),
    looked_up as (
        select
            g.gate, g.metric, g.threshold, g.comparison, g.against, g.relative, v.champion_id,
            v.version_id,
            (v.metrics #>> '{champion,version_id}')::bigint as compared_with,
            case
                when g.metric = 'feature_ks' then ml._feature_ks(v.version_id)::text
                when g.against = 'champion' then v.metrics #>> array['champion', 'challenger', g.metric]
                else v.metrics ->> g.metric
            end::float8 as value,
            case g.against
                when 'champion' then v.metrics #>> array['champion', 'values', g.metric]
                when 'baseline' then v.metrics #>> array['baseline', g.metric]
            end::float8 as reference_value
        from v
        join ml.gates g on (g.task is null or g.task = v.task)
            and (g.model is null or g.model = v.model)
        where g.enabled
            -- Where nothing was handed in to measure intervals by, nobody says that they hold.
            and (g.metric <> 'interval_coverage' or v.metrics ? 'interval_coverage')
            -- A model's own gate takes the place of the general one.
            and not (
                g.model is null and exists (
                    select from ml.gates own
                    where own.model = v.model
                        and own.metric = g.metric
                        and own.against = g.against
                        and own.comparison = g.comparison
                )
            )
    ),
    -- What is no finite number is no metric: NaN and infinity pass any threshold of one side.
    finite as (
        select
            l.gate, l.metric, l.threshold, l.comparison, l.against, l.relative, l.champion_id,
            l.version_id, l.compared_with,
            case when abs(l.value) < 'infinity' then l.value end as value,
            case when abs(l.reference_value) < 'infinity' then l.reference_value end as reference_value
        from looked_up l
    ),
    judged as (
        select
            l.*,
            (l.value - case when l.against = 'absolute' then 0 else l.reference_value end)
            / case
                when l.relative and l.against <> 'absolute' then nullif(abs(l.reference_value), 0) else 1
            end as difference,
            l.against = 'champion'
            and (l.champion_id is null or l.champion_id = l.version_id) as no_rival,
            l.against = 'champion'
            and l.compared_with is distinct from l.champion_id as other_rival
        from finite l
    )
    select
        j.gate, j.metric, j.value, j.reference_value, j.threshold, j.comparison, j.against,
        p.passed,
        format('%s: %s', j.gate, case
            when j.no_rival then 'there is no other champion'
            when j.other_rival then format(
                'it was compared with %s, the champion is version %s now: train it again',
                coalesce('version ' || j.compared_with, 'none'), j.champion_id
            )
            when j.difference is null then format('metric %s is missing', j.metric)
            else format(
                '%s %s%s, %s %s %s', j.metric, round(j.value::numeric, 5),
                case when j.against <> 'absolute' then format(
                    ' against the %s''s %s: %sdifference %s', j.against,
                    round(j.reference_value::numeric, 5), case when j.relative then 'relative ' end,
                    round(j.difference::numeric, 5)
                ) else '' end,
                case when p.passed then 'as needed' else 'needed' end, j.comparison, j.threshold
            )
        end),
        j.champion_id
    from judged j
    cross join lateral (
        select case
            when j.no_rival then true
            when j.other_rival then false
            else coalesce(case j.comparison
                when '>=' then j.difference >= j.threshold
                when '<=' then j.difference <= j.threshold
                when '>' then j.difference > j.threshold
                when '<' then j.difference < j.threshold
            end, false)
        end as passed
    ) p
    order by j.gate
$$;
comment on function ml._gate_verdicts(bigint) is 'Each gate''s verdict on a version; writes nothing.';

create or replace function ml.evaluate_gates(version_id bigint)
returns table (
    gate text,
    metric text,
    value float8,
    reference_value float8,
    threshold float8,
    comparison text,
    against text,
    passed boolean,
    detail text
)
language plpgsql volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_at timestamptz := clock_timestamp();
begin
    perform ml._version(version_id);
    insert into ml.gate_results (
        version_id, champion_id, gate, metric, value, reference_value, threshold, comparison,
        against, passed, detail, at
    )
    select
        evaluate_gates.version_id, g.champion_id, g.gate, g.metric, g.value, g.reference_value,
        g.threshold, g.comparison, g.against, g.passed, g.detail, v_at
    from ml._gate_verdicts(evaluate_gates.version_id) g;
    return query
    select
        g.gate, g.metric, g.value, g.reference_value, g.threshold, g.comparison, g.against,
        g.passed, g.detail
    from ml._gate_verdicts(evaluate_gates.version_id) g;
end
$$;
comment on function ml.evaluate_gates(bigint) is
'Runs the gates (ml.gates: those of the version''s task and model) on a version and writes each
verdict to ml.gate_results. value is the version''s metric on held-out rows; reference_value the
champion''s or the baseline''s on the same rows (against), and then the difference (relative: as a
share of that value) is compared with the threshold. Metric feature_ks: see ml._feature_ks. A version that was compared with another champion than the present one does not
pass. Errors: AP404 unknown version.';

create or replace function ml.gate_report(version_id bigint)
returns table (
    gate text,
    metric text,
    value float8,
    reference_value float8,
    threshold float8,
    comparison text,
    against text,
    passed boolean,
    detail text
)
language sql stable parallel safe security definer
set search_path = pg_catalog, pg_temp
as $$
    select
        g.gate, g.metric, g.value, g.reference_value, g.threshold, g.comparison, g.against,
        g.passed, g.detail
    from ml._gate_verdicts($1) g
$$;
comment on function ml.gate_report(bigint) is
'What ml.evaluate_gates would say now, writing nothing.';
