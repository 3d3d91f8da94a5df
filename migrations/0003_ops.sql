-- depends: 0002_market
--
-- 0003: settings, schedules and the log of what the clock did.
create table ops.settings (
    name text primary key,
    value jsonb not null,
    description text not null,
    updated_at timestamptz not null default clock_timestamp(),
    updated_by text not null default session_user
);

create table ops.schedules (
    name text primary key,
    cron text not null,
    command text not null check (command ~* '^call [a-z_.]+\(.*\)$'),
    expected_interval interval not null check (expected_interval > interval '0'),
    enabled boolean not null default true,
    description text not null,
    updated_at timestamptz not null default clock_timestamp(),
    updated_by text not null default session_user
);

create table ops.runs (
    run_id bigint generated always as identity primary key,
    schedule text not null,
    status text not null default 'running' check (status in ('running', 'succeeded', 'failed', 'skipped')),
    started_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz,
    backend_pid integer,
    detail text,
    sqlstate text
);
create index runs_schedule_idx on ops.runs (schedule, started_at desc);

create table ops.sql_files (
    path text primary key,
    sha256 bytea not null,
    applied_at timestamptz not null default clock_timestamp()
);

create table ops.logic (
    kind text not null check (kind in ('function', 'view')),
    identity text not null,
    primary key (kind, identity)
);

create table ops.migration_checksums (
    migration text primary key,
    sha256 bytea not null,
    applied_at timestamptz not null default clock_timestamp()
);

comment on table ops.settings is 'Settings of AlphaPlus by name, each with its description.';
comment on table ops.schedules is 'What the clock calls: one row per pg_cron entry; the command is a single call that can be run by hand with the same words.';
comment on table ops.runs is 'One row per run of a schedule, written by the run itself; ops.health reads this, not pg_cron''s log.';
comment on table ops.sql_files is 'The files under sql/ as last applied, to tell a database from a checkout.';
comment on table ops.migration_checksums is 'What each migration''s file held when it was applied.';
comment on table ops.logic is 'The functions, procedures and views that sql/ made, so that those no longer in it are dropped.';
