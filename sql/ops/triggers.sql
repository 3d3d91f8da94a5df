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
