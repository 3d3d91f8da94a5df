drop table ml.evaluations;
drop table ml.version_predictions;
alter table ml.model_versions drop column claimed_metrics;
