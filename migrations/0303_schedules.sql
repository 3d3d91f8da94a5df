-- depends: 0302_searches
--
-- 0303: a schedule runs as the role that wrote it, so that its rights, and its name in the logs, are
-- that role's. The delivered ones are the owner's.
alter table ops.schedules add column run_as name not null default 'alphaplus_operator';
alter table ops.schedules alter column run_as set default current_user;
comment on column ops.schedules.run_as is
'The role that wrote the command, as which the clock runs it: alphaplus_owner for those delivered.';
