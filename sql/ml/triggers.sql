-- What guards the registry's tables, keeps ml.serving and drops what a finished job leaves.

-- Versions are immutable: only the archive mark may be set. The served version stays.
create or replace function ml._guard_version() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_op = 'UPDATE' then
        if to_jsonb(new) - array['archived_at', 'archived_by', 'archive_reason']
            is distinct from to_jsonb(old) - array['archived_at', 'archived_by', 'archive_reason'] then
            raise exception 'model version % cannot be changed', old.version_id
            using errcode = 'AP401', detail = 'Versions are immutable.',
            hint = 'Train a new version with: call ml.retrain(model, symbol)';
        end if;
        if new.archived_at is null then
            return new;
        end if;
    end if;
    if exists (select from ml.aliases a where a.version_id = old.version_id and a.alias = 'champion') then
        raise exception 'model version % is being served and cannot be %', old.version_id,
            case tg_op when 'DELETE' then 'deleted' else 'archived' end
        using errcode = 'AP402', detail = 'It is the champion of its model.',
        hint = 'Promote another version, or roll back with: call ml.rollback(model, symbol)';
    end if;
    if tg_op = 'DELETE' then
        return old;
    end if;
    return new;
end
$$;

-- The history of aliases and of gates is only ever added to.
create or replace function ml._append_only() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception '%.% is append-only', tg_table_schema, tg_table_name
    using errcode = 'AP403', hint = 'Add a row that says what happened instead of changing one.';
end
$$;

-- Keeps ml.serving in step with ml.aliases. The pooled champion's row names the symbols that have one
-- of their own, so that who serves a symbol is found by looking at each row alone.
create or replace function ml._keep_serving() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC'
as $$
declare
    v_gone boolean := tg_op <> 'INSERT' and old.alias = 'champion' and old.regime is null;
    v_comes boolean := tg_op <> 'DELETE' and new.alias = 'champion' and new.regime is null;
    v_model text := case tg_op when 'DELETE' then old.model else new.model end;
begin
    if not (v_gone or v_comes) then
        return null;
    end if;
    -- One change of a model's champions at a time, whatever its symbol (an update, not a lock: under
    -- a snapshot of the whole transaction the later one has to fail).
    update ml.models m set model = m.model where m.model = v_model;
    if v_gone then
        delete from ml.serving s where s.model = old.model and s.symbol is not distinct from old.symbol;
    end if;
    if v_comes then
        insert into ml.serving (model, symbol, set_id, version_id, trained_to)
        select
            new.model, new.symbol, s.set_id, v.version_id, least(v.as_of, v.train_to + v.horizon)
        from ml.model_versions v
        join feature.sets s on s.name = v.feature_set and s.version = v.feature_version
        where v.version_id = new.version_id;
    end if;
    update ml.serving p
    set others = array(
        select o.symbol from ml.serving o
        where o.model = p.model and o.symbol is not null
        order by o.symbol
    )
    where p.model = v_model and p.symbol is null;
    return null;
end
$$;

create or replace function ml._drop_checkpoints() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    delete from ml.training_checkpoints c where c.job_id = new.job_id;
    return null;
end
$$;

create or replace trigger guard_version before update or delete on ml.model_versions
for each row execute function ml._guard_version();
create or replace trigger mark_performance after insert or update of outcome on ml.predictions
for each row execute function ml._mark_performance();
create or replace trigger mark_performance_inserted after insert on ml.shadow_predictions
referencing new table as changed_rows
for each statement execute function ml._mark_shadow_performance();
create or replace trigger mark_performance_updated after update on ml.shadow_predictions
referencing new table as changed_rows
for each statement execute function ml._mark_shadow_performance();
create or replace trigger append_only before update or delete or truncate on ml.alias_history
for each statement execute function ml._append_only();
create or replace trigger append_only before update or delete or truncate on ml.gate_results
for each statement execute function ml._append_only();
create or replace trigger keep_serving after insert or update or delete on ml.aliases
for each row execute function ml._keep_serving();
create or replace trigger drop_checkpoints after update of status on ml.training_jobs
for each row when (new.status in ('succeeded', 'failed', 'cancelled'))
execute function ml._drop_checkpoints();
create or replace trigger append_only before update or delete or truncate on ml.ensemble_history
for each statement execute function ml._append_only();
create or replace trigger check_model before insert or update on ml.models
for each row execute function ml._check_model();
