-- What the columns of ops's older tables and views mean; newer ones say it beside their definition
-- (the migration, or the view). Applied last in the schema, when all of them are there.

comment on column ops._yoyo_log.id is 'Number of the entry.';
comment on column ops._yoyo_log.migration_hash is 'Hash of the migration''s name.';
comment on column ops._yoyo_log.migration_id is 'The migration.';
comment on column ops._yoyo_log.operation is 'apply, rollback, mark or unmark.';
comment on column ops._yoyo_log.username is 'Who did it.';
comment on column ops._yoyo_log.hostname is 'On which machine.';
comment on column ops._yoyo_log.comment is 'A comment.';
comment on column ops._yoyo_log.created_at_utc is 'When, UTC.';

comment on column ops._yoyo_migration.migration_hash is 'Hash of the migration''s name.';
comment on column ops._yoyo_migration.migration_id is 'The migration.';
comment on column ops._yoyo_migration.applied_at_utc is 'When it was applied, UTC.';

comment on column ops._yoyo_version.version is 'Version of yoyo''s own tables.';
comment on column ops._yoyo_version.installed_at_utc is 'When they were made, UTC.';

comment on column ops.health.status is 'red, yellow or green.';
comment on column ops.health.check_name is 'What was looked at: schedule, queue, trainer, data, aggregate and so on.';
comment on column ops.health.subject is 'Of what.';
comment on column ops.health.detail is 'In words.';

comment on column ops.loads.load_id is 'The load, as in market.loads.';
comment on column ops.loads.kind is 'Kind of data that was asked for.';
comment on column ops.loads.format is 'The layout that was recognised.';
comment on column ops.loads.file is 'The file.';
comment on column ops.loads.status is 'running, done, failed or interrupted.';
comment on column ops.loads.rows_read is 'Rows read.';
comment on column ops.loads.rows_loaded is 'Rows stored.';
comment on column ops.loads.rows_duplicate is 'Rows that were there already.';
comment on column ops.loads.rows_quarantined is 'Rows refused, in market.quarantine.';
comment on column ops.loads.error is 'Its error; null: none.';
comment on column ops.loads.loaded_by is 'Who loaded it.';
comment on column ops.loads.started_at is 'When it began.';
comment on column ops.loads.duration is 'How long it took, or has taken so far.';

comment on column ops.logic.kind is 'What it is: function, procedure, view or trigger.';
comment on column ops.logic.identity is 'Its name, of functions with the types of their arguments.';

comment on column ops.migration_checksums.migration is 'The migration.';
comment on column ops.migration_checksums.sha256 is 'SHA-256 of its file when it was applied.';
comment on column ops.migration_checksums.applied_at is 'When it was applied.';

comment on column ops.open_alerts.alert_id is 'The alert, as in ops.alerts.';
comment on column ops.open_alerts.severity is 'info, low, medium, high or critical.';
comment on column ops.open_alerts.kind is 'Kind of alert.';
comment on column ops.open_alerts.symbol is 'The symbol it is about; null: none.';
comment on column ops.open_alerts.model is 'The model it is about; null: none.';
comment on column ops.open_alerts.message is 'What is the matter.';
comment on column ops.open_alerts.ts is 'When it was first raised.';
comment on column ops.open_alerts.last_ts is 'When it was last raised.';
comment on column ops.open_alerts.occurrences is 'How often.';
comment on column ops.open_alerts.acknowledged is 'Whether somebody has seen it.';
comment on column ops.open_alerts.acknowledged_by is 'Who.';
comment on column ops.open_alerts.assigned_to is 'Whose it is.';
comment on column ops.open_alerts.muted is 'Whether it is muted now.';
comment on column ops.open_alerts.dedup_key is 'One alert is open for each.';
comment on column ops.open_alerts.payload is 'The figures behind it.';

comment on column ops.recent_runs.run_id is 'The run, as in ops.runs.';
comment on column ops.recent_runs.schedule is 'The schedule, as in ops.schedules.';
comment on column ops.recent_runs.status is 'running, succeeded, failed or skipped.';
comment on column ops.recent_runs.started_at is 'When it began.';
comment on column ops.recent_runs.duration is 'How long it took, or has taken so far.';
comment on column ops.recent_runs.sqlstate is 'Its error''s SQLSTATE; null: none.';
comment on column ops.recent_runs.detail is 'Its error, or why it was skipped.';

comment on column ops.runs.run_id is 'Number of the run.';
comment on column ops.runs.schedule is 'The schedule, as in ops.schedules.';
comment on column ops.runs.status is 'running, succeeded, failed or skipped.';
comment on column ops.runs.started_at is 'When it began.';
comment on column ops.runs.finished_at is 'When it ended; null: it has not.';
comment on column ops.runs.backend_pid is 'The server process that runs it.';
comment on column ops.runs.detail is 'Its error, or why it was skipped.';
comment on column ops.runs.sqlstate is 'Its error''s SQLSTATE; null: none.';
comment on column ops.runs.backend_start is 'When that process began, to tell it from a later one of the same number.';

comment on column ops.schedule_status.schedule is 'The schedule, as in ops.schedules.';
comment on column ops.schedule_status.cron is 'When: a cron expression, UTC.';
comment on column ops.schedule_status.command is 'The call.';
comment on column ops.schedule_status.enabled is 'Whether it is on.';
comment on column ops.schedule_status.expected_interval is 'How far apart its runs are expected.';
comment on column ops.schedule_status.last_status is 'running, or how its last run ended.';
comment on column ops.schedule_status.last_started_at is 'When that began.';
comment on column ops.schedule_status.last_duration is 'How long that took.';
comment on column ops.schedule_status.last_success_at is 'When a run last succeeded.';
comment on column ops.schedule_status.last_failure_at is 'When a run last failed.';
comment on column ops.schedule_status.last_failure_sqlstate is 'Its error''s SQLSTATE.';
comment on column ops.schedule_status.last_failure is 'Its error.';
comment on column ops.schedule_status.skipped_last_day is 'Runs skipped within a day because one was still going.';
comment on column ops.schedule_status.in_pg_cron is 'Whether pg_cron calls it.';
comment on column ops.schedule_status.description is 'What it is, in words.';

comment on column ops.schedules.name is 'Name of the schedule.';
comment on column ops.schedules.cron is 'When: a cron expression, UTC.';
comment on column ops.schedules.command is 'The call.';
comment on column ops.schedules.expected_interval is 'How far apart its runs are expected.';
comment on column ops.schedules.enabled is 'Whether it is on.';
comment on column ops.schedules.description is 'What it is, in words.';
comment on column ops.schedules.updated_at is 'When it was last changed.';
comment on column ops.schedules.updated_by is 'Who last changed it.';

comment on column ops.settings.name is 'Name of the setting.';
comment on column ops.settings.value is 'Its value, as JSON.';
comment on column ops.settings.description is 'What it is, in words.';
comment on column ops.settings.updated_at is 'When it was last changed.';
comment on column ops.settings.updated_by is 'Who last changed it.';

comment on column ops.sql_files.path is 'The file, below sql/.';
comment on column ops.sql_files.sha256 is 'SHA-256 of the file as applied.';
comment on column ops.sql_files.applied_at is 'When it was applied.';

comment on column ops.trainers.worker_id is 'The trainer''s number at the queue.';
comment on column ops.trainers.last_heartbeat is 'When it was last heard of.';
comment on column ops.trainers.is_connected is 'Whether that is less than a minute ago.';
comment on column ops.trainers.job_id is 'The job it is at; null: none.';
comment on column ops.trainers.model is 'The model, as in ml.models.';
comment on column ops.trainers.symbol is 'The symbol, as in market.instruments.';
comment on column ops.trainers.progress is 'How far that is, 0 to 1.';
comment on column ops.trainers.message is 'What it is doing.';

-- What yoyo keeps for itself.
comment on table ops._yoyo_log is 'What yoyo did, migration by migration.';
comment on table ops._yoyo_migration is 'The migrations that are applied.';
comment on table ops._yoyo_version is 'The version of yoyo''s own tables.';
