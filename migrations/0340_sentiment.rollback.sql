alter table feature.sets drop constraint sets_kind_check;
alter table feature.sets add constraint sets_kind_check check (kind in ('builtin', 'select'));
alter table ml.model_versions drop constraint model_versions_format_check;
alter table ml.model_versions add constraint model_versions_format_check check (format in ('lightgbm', 'onnx'));
drop table sentiment.terms, sentiment.labelled_texts, sentiment.author_keys, sentiment.asset_names,
sentiment.blend_weights, sentiment.hourly_marks, sentiment.hourly_rows, sentiment.unscored,
sentiment.scores, sentiment.texts cascade;
