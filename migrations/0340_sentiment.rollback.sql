-- Before it no model could read texts: such models go, with their versions.
delete from ml.predictions where model in (
    select m.model from ml.models m
    where (m.feature_set, m.feature_version) in (
        select s.name, s.version from feature.sets s where s.kind = 'text'
    )
);
delete from ml.serving where model in (
    select m.model from ml.models m
    where (m.feature_set, m.feature_version) in (
        select s.name, s.version from feature.sets s where s.kind = 'text'
    )
);
delete from ml.aliases where model in (
    select m.model from ml.models m
    where (m.feature_set, m.feature_version) in (
        select s.name, s.version from feature.sets s where s.kind = 'text'
    )
);
delete from ml.gate_results where version_id in (
    select v.version_id from ml.model_versions v
    where v.model in (select m.model from ml.models m
    where (m.feature_set, m.feature_version) in (
        select s.name, s.version from feature.sets s where s.kind = 'text'
    ))
);
delete from ml.model_versions where model in (
    select m.model from ml.models m
    where (m.feature_set, m.feature_version) in (
        select s.name, s.version from feature.sets s where s.kind = 'text'
    )
);
delete from ml.training_jobs where model in (
    select m.model from ml.models m
    where (m.feature_set, m.feature_version) in (
        select s.name, s.version from feature.sets s where s.kind = 'text'
    )
);
delete from ml.risk_levels where model in (
    select m.model from ml.models m
    where (m.feature_set, m.feature_version) in (
        select s.name, s.version from feature.sets s where s.kind = 'text'
    )
);
delete from ml.gates where model in (
    select m.model from ml.models m
    where (m.feature_set, m.feature_version) in (
        select s.name, s.version from feature.sets s where s.kind = 'text'
    )
);
delete from ml.models where (feature_set, feature_version) in (
    select s.name, s.version from feature.sets s where s.kind = 'text'
);
delete from feature.sets where kind = 'text';
alter table feature.sets drop constraint sets_kind_check;
alter table feature.sets add constraint sets_kind_check check (kind in ('builtin', 'select'));
delete from ml.gates where task = 'text';
delete from ml.labels where task = 'text';
alter table ml.labels drop constraint labels_task_check,
add constraint labels_task_check check (task in ('classification', 'regression', 'regime'));
alter table ml.model_versions drop constraint model_versions_task_check,
add constraint model_versions_task_check check (task in ('classification', 'regression', 'regime'));
alter table ml.gates drop constraint gates_task_check,
add constraint gates_task_check check (task in ('classification', 'regression', 'regime'));
drop table sentiment.terms, sentiment.labelled_texts, sentiment.author_keys, sentiment.asset_names,
sentiment.blend_weights, sentiment.hourly_marks, sentiment.hourly_rows, sentiment.unscored cascade;
drop table sentiment.scores cascade;
drop table sentiment.texts cascade;
