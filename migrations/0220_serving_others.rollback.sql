create or replace function ml._keep_serving() returns trigger
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
comment on table ml.serving is
'The champions without a regime and the feature set their vectors are of, kept by a trigger in the transaction that changes ml.aliases. symbol null: pooled.';
drop function if exists ml.predict_stored(text, text, timestamptz);
drop function if exists ml.cache_status();
alter table ml.serving drop column others;
