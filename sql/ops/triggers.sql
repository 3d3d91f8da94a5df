-- What follows from a change of ops.schedules.

-- Changes of ops.schedules reach pg_cron at once.
create or replace function ops._schedules_changed() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform ops.sync_schedules();
    return null;
end
$$;

-- With the rights of whoever changed it, as which its jobs run.
create or replace function ops._own_schedules_changed() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    perform ops._sync_own_schedules();
    return null;
end
$$;

create or replace function ops._guard_schedule() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    if old.run_as not in ('alphaplus_owner', current_user) and current_user <> 'alphaplus_owner'
        and not (select r.rolsuper from pg_roles r where r.rolname = current_user) then
        raise exception 'schedule % is the business of %, who wrote it', old.name, old.run_as
        using errcode = 'AP722', hint = 'That role, or a superuser, changes it.';
    end if;
    return case tg_op when 'DELETE' then old else new end;
end
$$;

-- A schedule's expected interval follows its cron expression.
create or replace function ops._keep_interval() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    if new.cron is distinct from old.cron and new.expected_interval = old.expected_interval then
        new.expected_interval := coalesce(ops.cron_interval(new.cron), new.expected_interval);
    end if;
    return new;
end
$$;

-- What a setting may be, whoever writes it and how. A name that is not here keeps its type
-- (ops.set_setting); a length of time is never negative.
create or replace function ops._check_setting() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    v_text constant text := new.value #>> '{}';
    v_rule record;
    v_bad text;
    v_kept record;
begin
    select r.* into v_rule
    from (
        values
        ('ops.run_timeout', 'interval', '1 second', '30 days'),
        ('ops.lock_timeout', 'interval', '10 milliseconds', '1 day'),
        ('ops.keep_runs', 'interval', '1 day', '1000 years'),
        ('ops.keep_jobs', 'interval', '1 day', '1000 years'),
        ('ops.stale_after', 'interval', '1 second', '10 years'),
        ('ops.queue_lag', 'interval', '1 second', '10 years'),
        ('ops.pending_lag', 'interval', '1 second', '10 years'),
        ('ops.dirty_buckets', 'integer', '0', '1000000000000'),
        ('market.keep_quarantine', 'interval', '1 day', '1000 years'),
        ('ml.base_rate_window', 'interval', '1 minute', '100 years'),
        ('ml.max_staleness', 'interval', '1 second', '1000 years'),
        ('ml.cache_bytes', 'integer', '0', '1000000000000000'),
        ('ml.shared_bytes', 'integer', '0', '1000000000000000'),
        ('training.lease_timeout', 'interval', '1 second', '1 day'),
        ('training.max_attempts', 'integer', '1', '1000'),
        ('registry.max_artifact_bytes', 'integer', '1', '1073741824')
    ) as r (name, kind, low, high)
    where r.name = new.name;
    if new.name = 'market.keep_rows' then
        if jsonb_typeof(new.value) <> 'object' then
            v_bad := 'an object of tables, each with a length of time';
        else
            for v_kept in select k.key, k.value from jsonb_each(new.value) k loop
                v_bad := case
                    when to_regclass(format('market.%I', v_kept.key)) is null
                        then format('of tables of market, which %s is not', v_kept.key)
                    when jsonb_typeof(v_kept.value) <> 'string' or v_kept.value #>> '{}' !~ '[a-z]'
                        or not pg_input_is_valid(v_kept.value #>> '{}', 'interval')
                        then format('a length of time with its unit for %s', v_kept.key)
                    when (v_kept.value #>> '{}')::interval < interval '1 day'
                        then format('a day or more for %s: what is older is deleted', v_kept.key)
                end;
                exit when v_bad is not null;
            end loop;
        end if;
    elsif new.name = 'market.edition' then
        if v_text not in ('auto', 'apache') then
            v_bad := '"auto" or "apache"';
        end if;
    elsif v_rule.kind = 'interval' then
        v_bad := case
            when jsonb_typeof(new.value) <> 'string' or v_text !~ '[a-z:]'
                or not pg_input_is_valid(v_text, 'interval') then 'a length of time with its unit'
            when v_text::interval not between v_rule.low::interval and v_rule.high::interval
                then format('between %s and %s', v_rule.low, v_rule.high)
        end;
    elsif v_rule.kind = 'integer' then
        v_bad := case
            when jsonb_typeof(new.value) <> 'number' or v_text !~ '^-?[0-9]+$' then 'a whole number'
            when v_text::numeric not between v_rule.low::numeric and v_rule.high::numeric
                then format('between %s and %s', v_rule.low, v_rule.high)
        end;
    elsif jsonb_typeof(new.value) = 'string' and pg_input_is_valid(v_text, 'interval')
        and v_text::interval < interval '0' then
        v_bad := 'no negative length of time';
    end if;
    if v_bad is not null then
        raise exception 'setting % cannot be %', new.name, new.value
        using errcode = 'AP724', hint = format('It is %s.', v_bad);
    end if;
    return new;
end
$$;
-- What is deleted is gone: a policy keeps at least a day, and predictions as long as their outcomes
-- are joined (30 days; see ml.join_outcomes).
create or replace function ops._check_retention() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    v_least constant interval := case new.target
        when 'predictions' then interval '30 days'
        when 'shadow predictions' then interval '7 days'
        else interval '1 day'
    end;
begin
    if new.keep < v_least or new.keep > interval '1000 years' then
        raise exception '% cannot be kept for %', new.target, new.keep
        using errcode = 'AP727',
            hint = format('Keep %s or more: what is older is deleted. To keep all: enabled = false.', v_least);
    end if;
    return new;
end
$$;
create or replace trigger check_retention before insert or update of keep on ops.retention
for each row execute function ops._check_retention();

create or replace trigger check_setting before insert or update on ops.settings
for each row execute function ops._check_setting();

create or replace trigger sync_schedules after insert or update or delete on ops.schedules
for each statement execute function ops._schedules_changed();
create or replace trigger keep_interval before update on ops.schedules
for each row execute function ops._keep_interval();
create or replace trigger sync_own_schedules after insert or update or delete on ops.schedules
for each statement execute function ops._own_schedules_changed();
create or replace trigger guard_schedule before update or delete on ops.schedules
for each row execute function ops._guard_schedule();
