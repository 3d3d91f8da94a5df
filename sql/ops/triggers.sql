-- Triggers on ops' tables; their functions are in schedules.sql.
create or replace trigger sync_schedules after insert or update or delete on ops.schedules
for each statement execute function ops._schedules_changed();
create or replace trigger keep_interval before update on ops.schedules
for each row execute function ops._keep_interval();
