alter table feature.sets drop constraint sets_kind_check;
alter table feature.sets add constraint sets_kind_check check (kind in ('builtin', 'select'));
alter table ml.labels drop constraint labels_task_check,
add constraint labels_task_check check (task in ('classification', 'regression', 'regime'));
alter table ml.model_versions drop constraint model_versions_task_check,
add constraint model_versions_task_check check (task in ('classification', 'regression', 'regime'));
alter table ml.gates drop constraint gates_task_check,
add constraint gates_task_check check (task in ('classification', 'regression', 'regime'));
drop table sentiment.terms, sentiment.labelled_texts, sentiment.author_keys, sentiment.asset_names,
sentiment.blend_weights, sentiment.hourly_marks, sentiment.hourly_rows, sentiment.unscored,
sentiment.scores, sentiment.texts cascade;
