-- Where a prediction comes from, in one row.

create or replace view ml.prediction_lineage as
select
    p.prediction_id,
    p.as_of,
    p.symbol,
    p.model,
    p.prediction,
    p.outcome,
    p.is_fallback,
    p.feature_as_of,
    p.features,
    v.version_id,
    v.version,
    v.algorithm,
    v.feature_set,
    v.feature_version,
    encode(v.feature_sha256, 'hex') as feature_sha256,
    v.train_from,
    v.train_to,
    v.as_of as trained_as_of,
    v.row_count as trained_rows,
    encode(v.training_sha256, 'hex') as training_sha256,
    encode(v.sha256, 'hex') as artifact_sha256,
    v.code_version,
    v.library_versions,
    v.parent_id,
    v.job_id,
    j.requested_by,
    j.requested_at,
    g.gates,
    h.promoted_at,
    h.promoted_by,
    h.promotion_reason,
    d.decision,
    d.evidence,
    x.action_id,
    x.drift_id,
    w.severity as drift_severity,
    w.first_feature as drift_feature,
    w.alert_id
from ml.predictions as p
left join ml.model_versions as v on p.version_id = v.version_id
left join ml.training_jobs as j on v.job_id = j.job_id
left join lateral (
    select jsonb_object_agg(r.gate, jsonb_build_object('passed', r.passed, 'detail', r.detail)) as gates
    from ml.gate_results as r
    where
        r.version_id = v.version_id
        and r.at = (select max(l.at) from ml.gate_results as l where l.version_id = v.version_id)
) as g on true
left join lateral (
    select
        a.at as promoted_at,
        a.actor as promoted_by,
        a.reason as promotion_reason
    from ml.alias_history as a
    where
        a.version_id = v.version_id and a.alias = 'champion'
        and a.action in ('promote', 'rollback') and a.at <= p.created_at
    order by a.history_id desc
    limit 1
) as h on true
left join lateral (
    select
        e.decision,
        e.evidence
    from ml.decisions as e
    where e.version_id = v.version_id
    order by e.decision_id desc
    limit 1
) as d on true
left join lateral (
    select
        a.action_id,
        a.drift_id
    from drift.actions as a
    where a.job_id = v.job_id
    order by a.action_id
    limit 1
) as x on true
left join drift.alerts as w on x.drift_id = w.drift_id;
comment on view ml.prediction_lineage is
'Every recorded prediction with all it came from: vector, version, data range and digest of the training
set, code, parent, job and who asked for it, gate verdicts, promotion and its grounds, and the drift
alert that asked for the training, where one did.';
