-- depends: 0306_out_of_fold
--
-- 0307: a turn that lasts longer than a transaction (a file being loaded, a stream being read) is held
-- by a session, whose process and start stand in the row.
alter table ops.locks add column pid integer, add column backend_start timestamptz;
comment on column ops.locks.pid is
'The server process of the session that holds it beyond a transaction (ops._hold); null: none does.';
comment on column ops.locks.backend_start is
'When that session began (pg_stat_activity): a later session with the same process number is another.';
