-- What changed vectors make invalid. What late rows do is by edition: triggers.apache.sql and
-- triggers.community.sql.

-- A set that has vectors cannot be deleted (feature.vectors has no foreign key).
create or replace function feature._keep_sets() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if exists (select from feature.vectors v where v.set_id = old.set_id) then
        raise exception 'feature set % has vectors', quote_literal(old.name)
        using errcode = 'AP206', hint = 'Delete them first, or call feature.drop_set.';
    end if;
    return old;
end
$$;

-- Blocks of vectors (feature.vector_blocks) go with the first change to a vector in them.
create or replace function feature._unpack_all() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    delete from feature.vector_blocks;
    return null;
end
$$;

create or replace trigger keep_sets before delete on feature.sets
for each row execute function feature._keep_sets();
create or replace trigger unpack_truncated after truncate on feature.vectors
for each statement execute function feature._unpack_all();
