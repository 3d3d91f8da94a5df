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

create or replace view analytics.model_health as
select * from analytics.model_health();
comment on view analytics.model_health is
'Every champion now: measured, live, drift and alerts; analytics.model_health(as_of, days) at any time.';
comment on column analytics.model_health.model is 'The model.';
comment on column analytics.model_health.symbol is 'Symbol of the line; null: pooled.';
comment on column analytics.model_health.regime is 'Regime of the line; null: all.';
comment on column analytics.model_health.status is 'green, yellow or red.';
comment on column analytics.model_health.reason is 'Why it is not green, or what is missing.';
comment on column analytics.model_health.version_id is 'The champion.';
comment on column analytics.model_health.version is 'Its number within its line.';
comment on column analytics.model_health.algorithm is 'Its algorithm.';
comment on column analytics.model_health.champion_since is 'Since when it serves.';
comment on column analytics.model_health.trained_to is 'End of the data it was trained on.';
comment on column analytics.model_health.expires_at is 'When it expires.';
comment on column analytics.model_health.measured_auc is 'AUC out of fold, before it was let in.';
comment on column analytics.model_health.measured_log_loss is 'Log loss out of fold, nats.';
comment on column analytics.model_health.measured_base_rate_log_loss is 'That of the base rate on the same rows.';
comment on column analytics.model_health.measured_rmse is 'Root mean squared error out of fold (values).';
comment on column analytics.model_health.predictions is 'Recorded predictions of the last seven days.';
comment on column analytics.model_health.outcomes is 'Outcomes of that time that are known.';
comment on column analytics.model_health.accuracy is 'Share on the right side of one half.';
comment on column analytics.model_health.log_loss is 'Log loss of recorded predictions, nats.';
comment on column analytics.model_health.base_rate_log_loss is 'Log loss of always saying their event rate.';
comment on column analytics.model_health.brier is 'Brier score of recorded predictions.';
comment on column analytics.model_health.rmse is 'Root mean squared error of recorded values.';
comment on column analytics.model_health.ece is 'Expected calibration error over tenths of probability.';
comment on column analytics.model_health.fallback_share is 'Share of answers that were fallbacks.';
comment on column analytics.model_health.last_prediction is 'as_of of the last recorded prediction.';
comment on column analytics.model_health.drift_severity is 'Severity of its last drift check; null: none.';
comment on column analytics.model_health.drift_score is 'Worst effect of that check.';
comment on column analytics.model_health.drift_checked_at is 'When it was checked.';
comment on column analytics.model_health.open_alerts is 'Open alerts of the model.';
comment on column analytics.model_health.running_job is 'Training job of the line that is queued or running.';

create or replace view analytics.training as
select * from analytics.training();
comment on view analytics.training is
'Training jobs of the last 30 days; analytics.training(as_of, days) at any time.';
comment on column analytics.training.job_id is 'Number of the job.';
comment on column analytics.training.model is 'The model.';
comment on column analytics.training.symbol is 'Symbol; null: pooled.';
comment on column analytics.training.regime is 'Regime; null: all.';
comment on column analytics.training.status is 'queued, running, succeeded, failed or cancelled.';
comment on column analytics.training.progress is '0 to 1.';
comment on column analytics.training.requested_at is 'When it was asked for.';
comment on column analytics.training.started_at is 'When a trainer took it.';
comment on column analytics.training.finished_at is 'When it ended.';
comment on column analytics.training.waited is 'How long it waited for a trainer.';
comment on column analytics.training.duration is 'How long it ran.';
comment on column analytics.training.attempts is 'How often it was tried.';
comment on column analytics.training.worker is 'The trainer.';
comment on column analytics.training.requested_by is 'Who asked.';
comment on column analytics.training.version_id is 'What came out.';
comment on column analytics.training.version is 'Its number within its line.';
comment on column analytics.training.row_count is 'Rows it was trained on.';
comment on column analytics.training.feature_count is 'Features.';
comment on column analytics.training.auc is 'AUC out of fold.';
comment on column analytics.training.log_loss is 'Log loss out of fold, nats.';
comment on column analytics.training.base_rate_log_loss is 'That of the base rate.';
comment on column analytics.training.brier is 'Brier score out of fold.';
comment on column analytics.training.ece is 'Expected calibration error out of fold.';
comment on column analytics.training.rmse is 'Root mean squared error out of fold (values).';
comment on column analytics.training.baseline_rmse is 'That of the mean.';
comment on column analytics.training.gates_passed is 'Gates it passed.';
comment on column analytics.training.gates_failed is 'Gates it did not.';
comment on column analytics.training.promoted_at is 'When it became champion.';
comment on column analytics.training.error is 'Why it failed.';

create or replace view analytics.drift as
select * from analytics.drift();
comment on view analytics.drift is
'Drift checks of the last 30 days; analytics.drift(as_of, days) at any time.';
comment on column analytics.drift.check_id is 'Number of the check.';
comment on column analytics.drift.at is 'When it ran.';
comment on column analytics.drift.model is 'The model.';
comment on column analytics.drift.symbol is 'Symbol of the line; null: pooled.';
comment on column analytics.drift.version_id is 'The version whose training data is compared with.';
comment on column analytics.drift.version is 'Its number within its line.';
comment on column analytics.drift.is_champion is 'Whether it serves now.';
comment on column analytics.drift.ts_from is 'Start of the stretch looked at.';
comment on column analytics.drift.ts_to is 'Its end.';
comment on column analytics.drift.row_count is 'Vectors in it.';
comment on column analytics.drift.features is 'Features compared.';
comment on column analytics.drift.drifted is 'How many drifted.';
comment on column analytics.drift.drifted_share is 'Their share.';
comment on column analytics.drift.severity is 'low to critical; null: no drift.';
comment on column analytics.drift.score is 'Worst effect.';
comment on column analytics.drift.first_feature is 'Feature to blame most.';
comment on column analytics.drift.alerts is 'Alerts of the check.';
comment on column analytics.drift.action is 'What was done last: record, watch, schedule, retrain, suppressed.';

create or replace view analytics.drift_features as
select * from analytics.drift_features();
comment on view analytics.drift_features is
'What the drift checks of the last 30 days found of each feature; analytics.drift_features(as_of, days) at any time.';
comment on column analytics.drift_features.check_id is 'The check.';
comment on column analytics.drift_features.at is 'When it ran.';
comment on column analytics.drift_features.model is 'The model.';
comment on column analytics.drift_features.symbol is 'Symbol of the line; null: pooled.';
comment on column analytics.drift_features.version_id is 'The version.';
comment on column analytics.drift_features.feature is 'The feature.';
comment on column analytics.drift_features.kind is 'feature, score or label.';
comment on column analytics.drift_features.severity is 'low to critical; null: none.';
comment on column analytics.drift_features.drifted is 'Whether it drifted.';
comment on column analytics.drift_features.effect is 'Largest statistic over its threshold.';
comment on column analytics.drift_features.ks is 'Kolmogorov-Smirnov distance.';
comment on column analytics.drift_features.psi is 'Population stability index.';
comment on column analytics.drift_features.wasserstein is 'Wasserstein distance in standard deviations of the reference.';
comment on column analytics.drift_features.p_adjusted is 'p value for the effective sample size, adjusted for the number of features.';
comment on column analytics.drift_features.null_share is 'Share of nulls.';
comment on column analytics.drift_features.reference_null_share is 'Share of nulls in training.';
comment on column analytics.drift_features.blame is 'Share of the model''s drift that is due to it.';

create or replace view analytics.promotions as
select * from analytics.promotions();
comment on view analytics.promotions is
'Changes of aliases of the last year; analytics.promotions(as_of, days) at any time.';
comment on column analytics.promotions.at is 'When.';
comment on column analytics.promotions.model is 'The model.';
comment on column analytics.promotions.symbol is 'Symbol of the line; null: pooled.';
comment on column analytics.promotions.regime is 'Regime of the line; null: all.';
comment on column analytics.promotions.alias is 'champion, challenger or shadow.';
comment on column analytics.promotions.action is 'promote, rollback, challenge, shadow, clear or archive.';
comment on column analytics.promotions.version_id is 'The version that has the alias since.';
comment on column analytics.promotions.version is 'Its number within its line.';
comment on column analytics.promotions.previous_version_id is 'The version that had it before.';
comment on column analytics.promotions.previous_version is 'Its number.';
comment on column analytics.promotions.auc is 'AUC out of fold of the new one.';
comment on column analytics.promotions.previous_auc is 'Of the one before.';
comment on column analytics.promotions.log_loss is 'Log loss out of fold of the new one.';
comment on column analytics.promotions.previous_log_loss is 'Of the one before.';
comment on column analytics.promotions.gates_passed is 'Gates it had passed.';
comment on column analytics.promotions.gates_failed is 'Gates it had not.';
comment on column analytics.promotions.held_for is 'How long it held.';
comment on column analytics.promotions.actor is 'Who.';
comment on column analytics.promotions.reason is 'Why.';
