alter table ml.ensemble_versions drop column setup;
