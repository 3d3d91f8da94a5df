-- depends: 0310_regime
--
-- 0311: models whose answer is one of six regimes, and their artifact of JSON parameters.
alter table ml.labels drop constraint labels_task_check,
add constraint labels_task_check check (task in ('classification', 'regression', 'regime'));
alter table ml.model_versions drop constraint model_versions_task_check,
add constraint model_versions_task_check check (task in ('classification', 'regression', 'regime')),
drop constraint model_versions_format_check,
add constraint model_versions_format_check check (format in ('lightgbm', 'onnx', 'json'));
alter table ml.gates drop constraint gates_task_check,
add constraint gates_task_check check (task in ('classification', 'regression', 'regime'));
