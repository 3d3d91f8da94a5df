-- depends: 0060_ops
--
-- 0061: a schedule's command is one call with literal arguments. The clock runs it as
-- alphaplus_owner, so an operator who may write a schedule must not be able to write anything else
-- into it. Changes of ops.schedules reach pg_cron at once.
alter table ops.schedules drop constraint schedules_command_check;
alter table ops.schedules add constraint schedules_command_is_one_call check (
    command ~ '^call [a-z_][a-z_0-9]*\.[a-z_][a-z_0-9]*\((([a-z_]+ => )?(''[^'']*''|-?[0-9.]+|null|true|false)(, (?=[a-z0-9''-])|(?=\))))*\)$'
);

create function ops._schedules_changed() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform ops.sync_schedules();
    return null;
end
$$;
create trigger sync_schedules after insert or update or delete on ops.schedules
for each statement execute function ops._schedules_changed();
