-- feature.vector of several sets under a name of its own, for drivers that do not know an argument's
-- type: between two functions of one name they would have to guess.
create or replace function feature.vector_of_sets(
    feature_sets text [], symbol text, as_of timestamptz default null
)
returns double precision []
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
    select feature.vector($1, $2, $3)
$$;
comment on function feature.vector_of_sets(text [], text, timestamptz) is
'feature.vector of several feature sets, one vector after the other. Errors: as there.';
