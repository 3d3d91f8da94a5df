-- Settings: one table, read and written through two functions.

create or replace function ops.setting(name text, fallback jsonb default null)
returns jsonb
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    v_value jsonb;
begin
    select s.value into v_value from ops.settings s where s.name = setting.name;
    if found then
        return v_value;
    end if;
    if fallback is null then
        raise exception 'unknown setting %', coalesce(quote_literal(name), 'null')
        using errcode = 'AP701', hint = 'select name, value, description from ops.settings';
    end if;
    return fallback;
end
$$;
comment on function ops.setting(text, jsonb) is
'The value of a setting, or the fallback where there is none of that name. Errors: AP701 unknown
setting and no fallback.';

create or replace function ops.setting_text(name text, fallback text)
returns text
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    -- plpgsql keeps its plan; an SQL function that is not inlined would plan anew at each call.
    return coalesce((select s.value #>> '{}' from ops.settings s where s.name = $1), $2);
end
$$;
comment on function ops.setting_text(text, text) is
'A setting as text, or the fallback where it is not set.';

create or replace function ops.setting_interval(name text, fallback interval)
returns interval
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    return coalesce((select (s.value #>> '{}')::interval from ops.settings s where s.name = $1), $2);
end
$$;
comment on function ops.setting_interval(text, interval) is
'A setting as an interval, or the fallback where it is not set.';

create or replace function ops.set_setting(name text, value jsonb, description text default null)
returns jsonb
language plpgsql volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_old jsonb;
begin
    if value is null then
        raise exception 'setting % needs a value', name
        using errcode = 'AP702', hint = 'A JSON null is ''null''::jsonb.';
    end if;
    select s.value into v_old from ops.settings s where s.name = set_setting.name for update;
    if not found then
        if description is null or name is null then
            raise exception 'unknown setting %', coalesce(quote_literal(name), 'null')
            using errcode = 'AP701',
                hint = 'Spelled rightly? A new setting needs a description as third argument.';
        end if;
        insert into ops.settings (name, value, description)
        values (set_setting.name, set_setting.value, set_setting.description);
        return value;
    end if;
    if jsonb_typeof(v_old) not in (jsonb_typeof(value), 'null') then
        raise exception 'setting % is a %, not a %', name, jsonb_typeof(v_old), jsonb_typeof(value)
        using errcode = 'AP702', hint = format('It is now %s.', v_old);
    end if;
    if jsonb_typeof(v_old) = 'string' and pg_input_is_valid(v_old #>> '{}', 'interval')
        and not pg_input_is_valid(value #>> '{}', 'interval') then
        raise exception 'setting % is a length of time, not %', name, value
        using errcode = 'AP702', hint = format('It is now %s.', v_old);
    end if;
    update ops.settings s
    set value = set_setting.value,
        description = coalesce(set_setting.description, s.description),
        updated_at = clock_timestamp(),
        updated_by = session_user
    where s.name = set_setting.name;
    return value;
end
$$;
comment on function ops.set_setting(text, jsonb, text) is
'Changes a setting, or makes a new one where a description is given; answers the value. The type
of an existing setting stays, and a length of time stays one. Errors: AP701 unknown setting, AP702 value of another type or null.';

insert into ops.settings (name, value, description)
values
('ops.run_timeout', '"30 minutes"', 'A scheduled run that goes on for longer is cancelled.'),
('ops.lock_timeout', '"5 minutes"', 'Who waits longer for another session that changes the same thing is told who it is.'),
('ops.keep_runs', '"30 days"', 'How long rows of ops.runs and of pg_cron''s log are kept.'),
('ops.keep_jobs', '"30 days"', 'How long finished entries of the job queue are kept; ml.training_jobs keeps its rows.'),
('ops.stale_after', '"15 minutes"', 'A symbol that received rows within the last day is stale when none came for so long.'),
('ops.queue_lag', '"15 minutes"', 'A training job that waits for longer makes ops.health red.'),
('ops.dirty_buckets', '100000', 'More changed and not yet refreshed buckets of an aggregate make ops.health red.'),
('ops.pending_lag', '"30 minutes"', 'Stored vectors that wait for longer to be computed again make ops.health red.')
on conflict (name) do nothing;
