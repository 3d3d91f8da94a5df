-- depends: 0030_vectors
--
-- 0050: what serves whom in one row, so that a prediction by key reads one row beside the vector's.
create table ml.serving (
    model text not null,
    symbol text collate "C",
    set_id integer not null references feature.sets (set_id),
    version_id bigint not null references ml.model_versions (version_id),
    constraint serving_key unique nulls not distinct (model, symbol)
);
comment on table ml.serving is
'The champions without a regime and the feature set their vectors are of, kept by a trigger in the transaction that changes ml.aliases. symbol null: pooled.';

create function ml._keep_serving() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_op <> 'INSERT' and old.alias = 'champion' and old.regime is null then
        delete from ml.serving s where s.model = old.model and s.symbol is not distinct from old.symbol;
    end if;
    if tg_op <> 'DELETE' and new.alias = 'champion' and new.regime is null then
        insert into ml.serving (model, symbol, set_id, version_id)
        select new.model, new.symbol, s.set_id, v.version_id
        from ml.model_versions v
        join feature.sets s on s.name = v.feature_set and s.version = v.feature_version
        where v.version_id = new.version_id;
    end if;
    return null;
end
$$;
create trigger keep_serving after insert or update or delete on ml.aliases
for each row execute function ml._keep_serving();

insert into ml.serving (model, symbol, set_id, version_id)
select a.model, a.symbol, s.set_id, v.version_id
from ml.aliases a
join ml.model_versions v on v.version_id = a.version_id
join feature.sets s on s.name = v.feature_set and s.version = v.feature_version
where a.alias = 'champion' and a.regime is null;
