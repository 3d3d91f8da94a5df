-- Before it no label could have regimes: such models go, with their versions.
delete from ml.predictions where model in (
    select m.model from ml.models m join ml.labels l on l.label = m.label where l.task = 'regime'
);
delete from ml.serving where model in (
    select m.model from ml.models m join ml.labels l on l.label = m.label where l.task = 'regime'
);
delete from ml.aliases where model in (
    select m.model from ml.models m join ml.labels l on l.label = m.label where l.task = 'regime'
);
delete from ml.gate_results where version_id in (
    select v.version_id from ml.model_versions v
    where v.model in (select m.model from ml.models m join ml.labels l on l.label = m.label where l.task = 'regime')
);
delete from ml.model_versions where model in (
    select m.model from ml.models m join ml.labels l on l.label = m.label where l.task = 'regime'
);
delete from ml.training_jobs where model in (
    select m.model from ml.models m join ml.labels l on l.label = m.label where l.task = 'regime'
);
delete from ml.risk_levels where model in (
    select m.model from ml.models m join ml.labels l on l.label = m.label where l.task = 'regime'
);
delete from ml.gates where model in (
    select m.model from ml.models m join ml.labels l on l.label = m.label where l.task = 'regime'
);
delete from ml.models where label in (select l.label from ml.labels l where l.task = 'regime');
delete from ml.labels where task = 'regime';
delete from ml.gates where task = 'regime';
alter table ml.labels drop constraint labels_task_check,
add constraint labels_task_check check (task in ('classification', 'regression'));
alter table ml.model_versions drop constraint model_versions_task_check,
add constraint model_versions_task_check check (task in ('classification', 'regression')),
drop constraint model_versions_format_check,
add constraint model_versions_format_check check (format in ('lightgbm', 'onnx'));
alter table ml.gates drop constraint gates_task_check,
add constraint gates_task_check check (task in ('classification', 'regression'));
