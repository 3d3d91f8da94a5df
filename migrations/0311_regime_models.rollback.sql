alter table ml.labels drop constraint labels_task_check,
add constraint labels_task_check check (task in ('classification', 'regression'));
alter table ml.model_versions drop constraint model_versions_task_check,
add constraint model_versions_task_check check (task in ('classification', 'regression')),
drop constraint model_versions_format_check,
add constraint model_versions_format_check check (format in ('lightgbm', 'onnx'));
alter table ml.gates drop constraint gates_task_check,
add constraint gates_task_check check (task in ('classification', 'regression'));
