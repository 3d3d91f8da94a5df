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

create or replace trigger sync_schedules after insert or update or delete on ops.schedules
for each statement execute function ops._schedules_changed();
create or replace trigger keep_interval before update on ops.schedules
for each row execute function ops._keep_interval();
create or replace trigger sync_own_schedules after insert or update or delete on ops.schedules
for each statement execute function ops._own_schedules_changed();
create or replace trigger guard_schedule before update or delete on ops.schedules
for each row execute function ops._guard_schedule();
