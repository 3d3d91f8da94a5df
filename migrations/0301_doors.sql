-- depends: 0008_simulation
--
-- 0301: names that become names of functions are letters, digits and underscores, checked where
-- they are stored.
create domain feature.plain_name as text
constraint letters_digits_underscore check (value ~ '^[A-Za-z_][A-Za-z0-9_]{0,62}$');
comment on domain feature.plain_name is
'A name that may stand in SQL as it is: up to 63 letters, digits and underscores, no digit first.';

alter table feature.sets alter column name type feature.plain_name;
alter table feature.definitions
alter column feature_set type feature.plain_name,
alter column feature type feature.plain_name;
-- (a CHECK, as an array of a domain would have to be cast wherever it is read)
alter table feature.sets add constraint features_are_plain_names check (
    array_to_string(features, ',', '')
    ~ '^[A-Za-z_][A-Za-z0-9_]{0,62}(,[A-Za-z_][A-Za-z0-9_]{0,62})*$'
);
