-- depends: 0303_schedules
--
-- 0304: what takes turns does so by rows that readers cannot lock. The keys of advisory locks are
-- anybody's to compute, to see in pg_locks and to hold.
create table ops.locks (
    name text primary key
);
comment on table ops.locks is
'One row per thing that sessions take turns at: a line of versions, a set of a symbol, an aggregate, a schedule. Locked by ops._lock until the transaction ends; nobody else may lock these rows.';
comment on column ops.locks.name is 'What it is, as <room>:<thing>.';
