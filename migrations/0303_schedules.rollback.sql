alter table ops.schedules drop column run_as;
