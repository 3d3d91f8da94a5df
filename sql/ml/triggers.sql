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

-- Rows that are noticed to be late for a time take away what was computed as of then or later.
create or replace function ml._void_base_rates() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    delete from ml.base_rates b where b.symbol = new.symbol and b.as_of >= new.ts_from;
    return null;
end
$$;

-- Rows that change what was known by a time take the states of then and later away.
create or replace function ml._void_ensemble_states() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_old jsonb := case when tg_op <> 'INSERT' then to_jsonb(old) end;
    v_new jsonb := case when tg_op <> 'DELETE' then to_jsonb(new) end;
    v_row jsonb;
begin
    foreach v_row in array array_remove(array[v_old, v_new], null) loop
        delete from ml.ensemble_states s
        using ml.ensemble_versions v
        where v.ensemble_version_id = s.ensemble_version_id and s.symbol = v_row ->> 'symbol'
            and case tg_table_name
                when 'ensemble_rounds' then v.ensemble = v_row ->> 'ensemble'
                    and s.through > (v_row ->> 'known_at')::timestamptz
                else v.ensemble in (
                    select e.ensemble from ml.ensembles e where e.label = v_row ->> 'label'
                ) and s.through >= (v_row ->> 'known_at')::timestamptz
            end;
    end loop;
    return null;
end
$$;

create or replace function ml._guard_ensemble_version() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    -- The setup is written once, after the row it is made of.
    if to_jsonb(new) - array['archived_at', 'setup']
        is distinct from to_jsonb(old) - array['archived_at', 'setup']
        or old.setup is not null and new.setup is distinct from old.setup then
        raise exception 'ensemble version % cannot be changed', old.ensemble_version_id
        using errcode = 'AP526', hint = 'Make a new one: ml.create_ensemble or ml.fit_ensemble.';
    end if;
    return new;
end
$$;

-- A label is what its kind can be, and stays what it was for those who were trained on it.
create or replace function ml._check_label() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_task text;
begin
    if tg_op = 'UPDATE' and (new.kind, new.task, new.horizon, new.params, new.label)
        is not distinct from (old.kind, old.task, old.horizon, old.params, old.label) then
        return new;
    end if;
    if to_regprocedure('ml._label_task(text, bigint, jsonb)') is null then
        return new; -- sql/ is being applied, and what it seeds is its own
    end if;
    v_task := ml._label_task(new.kind, ops._micros(new.horizon), new.params);
    if v_task is distinct from new.task then
        raise exception 'a label of kind % is for %, not for %', quote_literal(new.kind), v_task, new.task
        using errcode = 'AP224', hint = 'ml.create_label says it by itself; select kind, task from ml.label_kinds';
    end if;
    if tg_op = 'UPDATE' and ml._label_is_used(old.label) then
        raise exception 'label % is what model versions predict, and cannot change', quote_literal(old.label)
        using errcode = 'AP225', hint = 'Make a new version of it: ml.create_label with the same name.';
    end if;
    return new;
end
$$;
comment on function ml._check_label() is 'Refuses a label that its kind does not know, and a change of one that versions predict.';

-- A model is looked at when it is written down.
create or replace function ml._check_model() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    v_task text;
begin
    if tg_op = 'UPDATE' and (new.algorithm, new.params, new.training, new.label)
        is not distinct from (old.algorithm, old.params, old.training, old.label) then
        return new;
    end if;
    select l.task into v_task from ml.labels l where l.label = new.label;
    perform ml._check_training(new.algorithm, v_task, new.params, new.training);
    return new;
end
$$;
comment on function ml._check_model() is 'Refuses a model that could not be trained as it says.';

create or replace function ml._mark_performance() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    insert into ml.performance_marks (source, symbol, ts)
    values ('recorded', new.symbol, public.time_bucket(interval '1 hour', new.as_of))
    on conflict on constraint performance_marks_pkey do nothing;
    return null;
end
$$;
comment on function ml._mark_performance() is 'Marks the hour of a prediction that came or got its outcome.';

create or replace function ml._mark_shadow_performance() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    insert into ml.performance_marks (source, symbol, ts)
    select distinct 'shadow', c.symbol, public.time_bucket(interval '1 hour', c.ts)
    from changed_rows c
    on conflict on constraint performance_marks_pkey do nothing;
    return null;
end
$$;
comment on function ml._mark_shadow_performance() is 'Marks the hours of shadow predictions that came or got outcomes.';

create or replace function ml._keep_scores() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_sign integer;
    v_row ml.predictions;
    v_p double precision;
begin
    foreach v_sign in array array[-1, 1] loop
        if v_sign = -1 then
            continue when tg_op = 'INSERT';
            v_row := old;
        else
            continue when tg_op = 'DELETE';
            v_row := new;
        end if;
        continue when v_row.outcome is null;
        v_p := least(greatest(v_row.probability, 1e-9), 1 - 1e-9);
        insert into ml.scores as s (
            day, model, symbol, regime, method, n, log_loss, brier, hits, events, said
        )
        values (
            timezone('UTC', v_row.as_of)::date, v_row.model, v_row.symbol,
            coalesce(v_row.regime, ''), coalesce(v_row.details ->> 'method', ''), v_sign,
            v_sign * case
                when v_p is null then (v_row.prediction - v_row.outcome) ^ 2
                when v_row.outcome > 0.5 then -ln(v_p)
                else -ln(1 - v_p)
            end,
            v_sign * (v_row.prediction - v_row.outcome) ^ 2,
            case when (v_row.prediction > 0.5) = (v_row.outcome > 0.5) then v_sign else 0 end,
            v_sign * v_row.outcome, v_sign * v_row.prediction
        )
        on conflict on constraint scores_pkey do update
        set n = s.n + excluded.n, log_loss = s.log_loss + excluded.log_loss,
            brier = s.brier + excluded.brier, hits = s.hits + excluded.hits,
            events = s.events + excluded.events, said = s.said + excluded.said;
    end loop;
    return null;
end
$$;

create or replace trigger check_label before insert or update on ml.labels
for each row execute function ml._check_label();
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
create or replace trigger void_base_rates after insert on feature.pending
for each row execute function ml._void_base_rates();
create or replace trigger void_states after insert or update or delete on ml.ensemble_rounds
for each row execute function ml._void_ensemble_states();
create or replace trigger void_states after insert or update or delete on ml.ensemble_outcomes
for each row execute function ml._void_ensemble_states();
create or replace trigger guard_version before update on ml.ensemble_versions
for each row execute function ml._guard_ensemble_version();
create or replace trigger keep_scores after insert or update of outcome or delete on ml.predictions
for each row execute function ml._keep_scores();
