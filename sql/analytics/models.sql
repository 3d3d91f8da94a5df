-- The health of what is served, the jobs that trained it, what was promoted and why, and its drift.
create or replace function analytics._lines(as_of timestamptz)
returns table (model text, symbol text, regime text, version_id bigint, since timestamptz)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select l.model, l.symbol, l.regime, l.version_id, l.at
    from (
        select distinct on (h.model, h.symbol, h.regime)
            h.model, h.symbol, h.regime, h.version_id, h.at
        from ml.alias_history h
        where h.alias = 'champion' and h.at <= $1
        order by h.model, h.symbol, h.regime, h.history_id desc
    ) l
    where l.version_id is not null
$$;
comment on function analytics._lines(timestamptz) is 'The champions at a time, and since when.';

create or replace function analytics.model_health(as_of timestamptz default null, days integer default 7)
returns table (
    model text, symbol text, regime text, status text, reason text, version_id bigint,
    version integer, algorithm text, champion_since timestamptz, trained_to timestamptz,
    expires_at timestamptz, measured_auc double precision, measured_log_loss double precision,
    measured_base_rate_log_loss double precision, measured_rmse double precision,
    predictions bigint, outcomes bigint, accuracy double precision, log_loss double precision,
    base_rate_log_loss double precision, brier double precision, rmse double precision,
    ece double precision, fallback_share double precision, last_prediction timestamptz,
    drift_severity text, drift_score double precision, drift_checked_at timestamptz,
    open_alerts bigint, running_job bigint
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
rows 20
as $$
#variable_conflict use_column
declare
    v_as_of constant timestamptz := analytics._asked($1);
    v_from constant timestamptz := public.time_bucket(
        interval '1 day', v_as_of
    ) - (least(greatest(coalesce($2, 7), 1), 36500) - 1) * interval '24 hours';
begin
    return query
        with live as materialized (
            select
                s.version_id, sum(s.n) as n, sum(s.outcomes) as outcomes, sum(s.classes) as classes,
                sum(s.hits) as hits, sum(s.events) as events, sum(s.log_loss) as log_loss,
                sum(s.square) as square, sum(s.fallbacks) as fallbacks,
                max(s.ts) filter (where s.n > 0) as last_hour
            from analytics._sums(v_as_of, v_from) s
            group by s.version_id
        ),
        calibrated as materialized (
            select e.version_id, sum(abs(e.said - e.events)) / nullif(sum(e.n), 0) as ece
            from (
                select
                    x.version_id, x.cell, sum(x.n) as n, sum(x.events) as events, sum(x.said) as said
                from analytics._cells('calibration', v_as_of, v_from) x
                group by x.version_id, x.cell
            ) e
            group by e.version_id
        ),
        found as (
            select
                l.model, l.symbol, l.regime, l.version_id, v.version, v.algorithm, l.since,
                least(v.as_of, v.train_to + v.horizon) as trained_to,
                v.as_of + v.expires_after as expires_at, v.metrics, s.n, s.outcomes, s.classes,
                s.hits, s.events, s.log_loss, s.square, s.fallbacks, s.last_hour, c.ece,
                d.severity, d.score, d.at as checked_at, a.open_alerts, j.job_id
            from analytics._lines(v_as_of) l
            join ml.model_versions v on v.version_id = l.version_id
            left join live s on s.version_id = l.version_id
            left join calibrated c on c.version_id = l.version_id
            left join lateral (
                select x.severity, x.score, x.at
                from drift.checks x
                where x.version_id = l.version_id and x.at <= v_as_of
                order by x.at desc, x.check_id desc
                limit 1
            ) d on true
            cross join lateral (
                select count(*) as open_alerts
                from ops.alerts x
                where x.model = l.model and (x.symbol is null or l.symbol is null or x.symbol = l.symbol)
                    and x.known_at <= v_as_of and (x.resolved_at is null or x.resolved_at > v_as_of)
            ) a
            left join lateral (
                select x.job_id
                from ml.training_jobs x
                where x.model = l.model and x.symbol is not distinct from l.symbol
                    and x.regime is not distinct from l.regime and x.requested_at <= v_as_of
                    and (x.finished_at is null or x.finished_at > v_as_of)
                order by x.job_id desc
                limit 1
            ) j on true
        )
        select
            f.model, f.symbol, f.regime,
            case
                when f.severity in ('high', 'critical') then 'red'
                when f.expires_at <= v_as_of then 'red'
                when f.severity is not null or f.open_alerts > 0 then 'yellow'
                when f.outcomes >= 100 and f.classes > 0
                    and f.log_loss / f.classes > analytics._entropy(f.events / f.outcomes) then 'yellow'
                when f.fallbacks > 0.5 * f.n then 'yellow'
                else 'green'
            end,
            nullif(concat_ws(
                '; ',
                case when f.expires_at <= v_as_of then format('expired at %s', f.expires_at) end,
                'drift of the data: ' || f.severity,
                case when f.open_alerts > 0 then format('%s open alerts', f.open_alerts) end,
                case when f.outcomes >= 100 and f.classes > 0
                    and f.log_loss / f.classes > analytics._entropy(f.events / f.outcomes)
                    then 'its probabilities say less than the base rate' end,
                case when f.fallbacks > 0.5 * f.n then 'most answers are fallbacks' end,
                case when f.n is null then 'no recorded predictions in this time' end
            ), ''),
            f.version_id, f.version, f.algorithm, f.since, f.trained_to, f.expires_at,
            (f.metrics ->> 'auc')::double precision, (f.metrics ->> 'log_loss')::double precision,
            (f.metrics #>> '{baseline,log_loss}')::double precision,
            (f.metrics ->> 'rmse')::double precision,
            coalesce(f.n, 0)::bigint, coalesce(f.outcomes, 0)::bigint,
            f.hits / nullif(f.classes, 0), f.log_loss / nullif(f.classes, 0),
            case when f.classes > 0 then analytics._entropy(f.events / f.outcomes) end,
            case when f.classes > 0 then f.square / f.outcomes end,
            case when f.classes = 0 then sqrt(f.square / nullif(f.outcomes, 0)) end,
            f.ece, f.fallbacks / nullif(f.n, 0), p.as_of, f.severity, f.score, f.checked_at,
            f.open_alerts, f.job_id
        from found f
        left join lateral (
            select x.as_of
            from ml.predictions x
            where x.model = f.model and x.version_id = f.version_id and x.created_at <= v_as_of
                and x.as_of >= f.last_hour and x.as_of < f.last_hour + interval '1 hour'
            order by x.as_of desc
            limit 1
        ) p on true
        order by f.model, f.symbol nulls first, f.regime nulls first;
end
$$;
comment on function analytics.model_health(timestamptz, integer) is
'Every champion as known at as_of (default: now): what it was measured at before it was let in, what its recorded predictions of the last days (UTC days, today counting) did, its drift, alerts and jobs. status: red (expired, or drift high or critical), yellow (drift, open alerts, log loss of at least 100 outcomes above that of their event rate, mostly fallbacks), else green; reason says which. Errors: AP960.';

create or replace function analytics.training(as_of timestamptz default null, days integer default 30)
returns table (
    job_id bigint, model text, symbol text, regime text, status text, progress double precision,
    requested_at timestamptz, started_at timestamptz, finished_at timestamptz,
    waited interval, duration interval, attempts integer, worker text, requested_by text,
    version_id bigint, version integer, row_count bigint, feature_count integer,
    auc double precision, log_loss double precision, base_rate_log_loss double precision,
    brier double precision, ece double precision, rmse double precision, baseline_rmse double precision,
    gates_passed bigint, gates_failed text [], promoted_at timestamptz, error text
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
rows 100
as $$
#variable_conflict use_column
declare
    v_as_of constant timestamptz := analytics._asked($1);
    v_days constant integer := least(greatest(coalesce($2, 30), 1), 36500);
begin
    return query
        select
            j.job_id, j.model, j.symbol, j.regime,
            case
                when j.finished_at <= v_as_of then j.status
                when j.started_at <= v_as_of then 'running'
                else 'queued'
            end,
            case when j.finished_at <= v_as_of or v_as_of >= now() then j.progress end,
            j.requested_at, t.started, t.finished, coalesce(t.started, v_as_of) - j.requested_at,
            coalesce(t.finished, v_as_of) - t.started, j.attempts, j.worker, j.requested_by,
            v.version_id, v.version, v.row_count, cardinality(v.features),
            (v.metrics ->> 'auc')::double precision, (v.metrics ->> 'log_loss')::double precision,
            (v.metrics #>> '{baseline,log_loss}')::double precision,
            (v.metrics ->> 'brier')::double precision, (v.metrics ->> 'ece')::double precision,
            (v.metrics ->> 'rmse')::double precision,
            (v.metrics #>> '{baseline,rmse}')::double precision,
            g.passed, g.failed, p.at, case when j.finished_at <= v_as_of then j.error end
        from ml.training_jobs j
        cross join lateral (
            select
                case when j.started_at <= v_as_of then j.started_at end as started,
                case when j.finished_at <= v_as_of then j.finished_at end as finished
        ) t
        left join ml.model_versions v on v.job_id = j.job_id and v.created_at <= v_as_of
        left join lateral (
            select
                count(*) filter (where r.passed) as passed,
                array_agg(r.gate order by r.gate) filter (where not r.passed) as failed
            from ml.gate_results r
            where r.version_id = v.version_id and r.at = (
                select max(l.at) from ml.gate_results l
                where l.version_id = v.version_id and l.at <= v_as_of
            )
        ) g on v.version_id is not null
        left join lateral (
            select min(h.at) as at
            from ml.alias_history h
            where h.version_id = v.version_id and h.alias = 'champion' and h.at <= v_as_of
        ) p on v.version_id is not null
        where j.requested_at <= v_as_of and (
            j.requested_at > v_as_of - v_days * interval '24 hours' or j.finished_at is null
        )
        order by j.job_id desc;
end
$$;
comment on function analytics.training(timestamptz, integer) is
'Training jobs asked for in the last days before as_of (default: now) or still open, newest first: how long they waited and took, what came out and what it was measured at, which gates it passed, when it was promoted. As of an earlier time, as far as it was known then. Errors: AP960.';

create or replace function analytics.promotions(as_of timestamptz default null, days integer default 365)
returns table (
    at timestamptz, model text, symbol text, regime text, alias text, action text,
    version_id bigint, version integer, previous_version_id bigint, previous_version integer,
    auc double precision, previous_auc double precision, log_loss double precision,
    previous_log_loss double precision, gates_passed bigint, gates_failed text [],
    held_for interval, actor text, reason text
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
rows 100
as $$
#variable_conflict use_column
declare
    v_as_of constant timestamptz := analytics._asked($1);
    v_days constant integer := least(greatest(coalesce($2, 365), 1), 36500);
begin
    return query
        select
            h.at, h.model, h.symbol, h.regime, h.alias, h.action, h.version_id, v.version,
            h.previous_version_id, o.version, (v.metrics ->> 'auc')::double precision,
            (o.metrics ->> 'auc')::double precision, (v.metrics ->> 'log_loss')::double precision,
            (o.metrics ->> 'log_loss')::double precision, g.passed, g.failed,
            coalesce(h.until, v_as_of) - h.at, h.actor, h.reason
        from (
            select
                x.*,
                lead(x.at) over (
                    partition by x.model, x.symbol, x.regime, x.alias order by x.history_id
                ) as until
            from ml.alias_history x
            where x.at <= v_as_of
        ) h
        left join ml.model_versions v on v.version_id = h.version_id
        left join ml.model_versions o on o.version_id = h.previous_version_id
        left join lateral (
            select
                count(*) filter (where r.passed) as passed,
                array_agg(r.gate order by r.gate) filter (where not r.passed) as failed
            from ml.gate_results r
            where r.version_id = h.version_id and r.at = (
                select max(l.at) from ml.gate_results l
                where l.version_id = h.version_id and l.at <= h.at
            )
        ) g on true
        where h.at > v_as_of - v_days * interval '24 hours'
        order by h.history_id desc;
end
$$;
comment on function analytics.promotions(timestamptz, integer) is
'Every change of an alias in the last days before as_of (default: now), newest first: from which version to which, what both were measured at, the gates'' verdicts then, how long it held, who and why. Errors: AP960.';

create or replace function analytics.drift(as_of timestamptz default null, days integer default 30)
returns table (
    check_id bigint, at timestamptz, model text, symbol text, version_id bigint, version integer,
    is_champion boolean, ts_from timestamptz, ts_to timestamptz, row_count bigint,
    features integer, drifted integer, drifted_share double precision, severity text,
    score double precision, first_feature text, alerts bigint, action text
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
rows 100
as $$
#variable_conflict use_column
declare
    v_as_of constant timestamptz := analytics._asked($1);
    v_days constant integer := least(greatest(coalesce($2, 30), 1), 36500);
begin
    return query
        select
            c.check_id, c.at, c.model, c.symbol, c.version_id, v.version,
            l.version_id is not null, c.ts_from, c.ts_to, c.row_count, c.features, c.drifted,
            c.drifted::double precision / nullif(c.features, 0), c.severity, c.score,
            c.first_feature, a.alerts, a.action
        from drift.checks c
        join ml.model_versions v on v.version_id = c.version_id
        left join (
            select distinct x.version_id from analytics._lines(v_as_of) x
        ) l on l.version_id = c.version_id
        cross join lateral (
            select
                count(*) as alerts,
                (array_agg(n.action order by n.action_id desc)
                    filter (where n.action is not null))[1] as action
            from drift.alerts d
            left join drift.actions n on n.drift_id = d.drift_id and n.at <= v_as_of
            where d.check_id = c.check_id and d.at <= v_as_of
        ) a
        where c.at <= v_as_of and c.at > v_as_of - v_days * interval '24 hours'
        order by c.at desc, c.check_id desc;
end
$$;
comment on function analytics.drift(timestamptz, integer) is
'Drift checks of the last days before as_of (default: now), newest first: which version against which stretch of data, how many features drifted, the worst effect, and what was done about it. Errors: AP960.';

create or replace function analytics.drift_features(as_of timestamptz default null, days integer default 30)
returns table (
    check_id bigint, at timestamptz, model text, symbol text, version_id bigint, feature text,
    kind text, severity text, drifted boolean, effect double precision, ks double precision,
    psi double precision, wasserstein double precision, p_adjusted double precision,
    null_share double precision, reference_null_share double precision, blame double precision
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
rows 1000
as $$
#variable_conflict use_column
declare
    v_as_of constant timestamptz := analytics._asked($1);
    v_days constant integer := least(greatest(coalesce($2, 30), 1), 36500);
begin
    return query
        select
            c.check_id, c.at, c.model, c.symbol, c.version_id, d.feature, d.kind, d.severity,
            d.drifted, d.effect, d.ks, d.psi, d.wasserstein, d.p_adjusted, d.null_share,
            d.reference_null_share, d.blame
        from drift.checks c
        join drift.details d on d.check_id = c.check_id
        where c.at <= v_as_of and c.at > v_as_of - v_days * interval '24 hours'
        order by c.at desc, c.check_id desc, d.blame desc nulls last, d.feature;
end
$$;
comment on function analytics.drift_features(timestamptz, integer) is
'What the drift checks of the last days before as_of (default: now) found of each feature; the cells of a heat map. Errors: AP960.';
