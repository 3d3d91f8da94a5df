-- What is served, and its measured metrics. Usage: psql -f sql/psql/models.sql [-v model=liquidation_15m]
\set ON_ERROR_STOP on
\if :{?model} \else
\set model ''
\endif
\echo '== champions'
select a.model, a.symbol, a.regime, a.version_id, v.version, v.algorithm,
    round((v.metrics ->> 'auc')::numeric, 3) as auc,
    round((v.metrics ->> 'log_loss')::numeric, 4) as log_loss,
    round((v.metrics #>> '{baseline,log_loss}')::numeric, 4) as base_rate_log_loss,
    round((v.metrics ->> 'rmse')::numeric, 4) as rmse,
    round((v.metrics #>> '{baseline,rmse}')::numeric, 4) as mean_rmse,
    v.train_to, least(v.as_of, v.train_to + v.horizon) + v.expires_after as expires, a.updated_at as since
from ml.aliases a
join ml.model_versions v on v.version_id = a.version_id
where a.alias = 'champion' and (a.model = :'model' or :'model' = '')
order by a.model, a.symbol, a.regime;
\echo '== newest versions'
select v.version_id, v.model, v.symbol, v.regime, v.version, v.row_count, v.created_at, v.archived_at is not null as archived,
    (select string_agg(g.gate, ', ' order by g.gate) from ml.gate_results g
     where g.version_id = v.version_id and not g.passed
         -- Those of the last run: a gate that was missed earlier may have been passed since.
         and g.at = (select max(l.at) from ml.gate_results l where l.version_id = v.version_id)
    ) as gates_not_passed
from ml.model_versions v
where v.model = :'model' or :'model' = ''
order by v.version_id desc
limit 30;
\echo '== last changes'
select at, model, symbol, regime, alias, action, previous_version_id, version_id, actor, reason
from ml.alias_history
where model = :'model' or :'model' = ''
order by history_id desc
limit 20;
