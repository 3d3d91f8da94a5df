drop trigger keep_interval on ops.schedules;
drop function ops._keep_interval();
alter table ops.runs drop column call_started;
