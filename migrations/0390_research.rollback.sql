drop table feature.set_errors, feature.set_members;
delete from feature.sets where kind = 'joined';
alter table feature.sets drop constraint sets_kind_check,
add constraint sets_kind_check check (kind in ('builtin', 'select', 'text'));
drop table feature.set_sources, feature.set_symbols;
alter table feature.sets drop column other_symbols;
drop table feature.sources;
drop schema research cascade;
alter table ml.labels drop constraint labels_version_key;
alter table ml.labels drop column name, drop column version;
