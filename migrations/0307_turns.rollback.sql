alter table ops.locks drop column pid, drop column backend_start;
