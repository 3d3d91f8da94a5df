-- depends: 0381_corporate_actions
--
-- 0390: labels have versions.
alter table ml.labels add column name text,
add column version integer not null default 1 check (version > 0);
alter table ml.labels add constraint labels_version_key unique (name, version);

comment on column ml.labels.label is 'What models name it by: its name, from the second version on name@version.';
comment on column ml.labels.name is 'Name that ml.create_label was given; null: of a label that came otherwise.';
comment on column ml.labels.version is 'Version of the label of that name. One that model versions predict never changes.';
comment on column ml.labels.task is 'classification, regression, regime or text; follows from the kind.';
comment on column ml.labels.kind is 'What is looked at: ml.label_kinds.';
comment on column ml.labels.horizon is 'How far the label looks from its time; purging and embargo follow from it.';
comment on column ml.labels.params is 'Parameters of the kind (ml.label_kinds).';
comment on column ml.labels.description is 'What it is, in words.';
comment on column ml.labels.created_at is 'When it was declared.';
comment on column ml.labels.created_by is 'Who declared it.';
