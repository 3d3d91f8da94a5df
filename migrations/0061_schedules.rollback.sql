drop trigger sync_schedules on ops.schedules;
drop function ops._schedules_changed();
alter table ops.schedules drop constraint schedules_command_is_one_call;
alter table ops.schedules add constraint schedules_command_check check (
    command ~* '^call [a-z_.]+\(.*\)$'
);
