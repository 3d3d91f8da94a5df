alter table feature.sets drop constraint features_are_plain_names;
alter table feature.definitions
alter column feature_set type text,
alter column feature type text;
alter table feature.sets alter column name type text;
drop domain feature.plain_name;
