drop table ops.migration_checksums, ops.logic, ops.sql_files, ops.runs, ops.schedules, ops.settings;
