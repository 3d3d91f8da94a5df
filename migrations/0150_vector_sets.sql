-- depends: 0110_checkpoints
--
-- 0150: a foreign key looks up the set of each vector by itself, a quarter of the time that storing
-- them takes. What stores vectors now holds their set's row once per statement
-- (alphaplus.server.vectors), and a set that has vectors cannot be deleted.
alter table feature.vectors drop constraint vectors_set_id_fkey;
create function feature._keep_sets() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if exists (select from feature.vectors v where v.set_id = old.set_id) then
        raise exception 'feature set % has vectors', quote_literal(old.name)
        using errcode = 'AP206', hint = 'Delete them first, or call feature.drop_set.';
    end if;
    return old;
end
$$;
create trigger keep_sets before delete on feature.sets
for each row execute function feature._keep_sets();
