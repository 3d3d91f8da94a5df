drop function if exists feature._declared();
drop function if exists feature._register(
    text, integer, text [], bigint, bigint, bigint, bytea, text, text [], text [], text []
);
alter table feature.sets drop column reach;
