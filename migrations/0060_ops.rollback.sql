drop index ops.runs_running_idx;
alter table ops.runs drop column backend_start;
