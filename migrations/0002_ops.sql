-- depends: 0001_schemas
--
-- 0002: settings, schedules, the log of what the clock did, and what the applier keeps.
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
    command text not null,
    expected_interval interval not null check (expected_interval > interval '0'),
    enabled boolean not null default true,
    commits boolean not null default false,
    description text not null,
    updated_at timestamptz not null default clock_timestamp(),
    updated_by text not null default session_user,
    -- One call with literal arguments: the clock runs it as alphaplus_owner, so an operator who may
    -- write a schedule must not be able to write anything else into it.
    constraint schedules_command_is_one_call check (
        command ~ '^call [a-z_][a-z_0-9]*\.[a-z_][a-z_0-9]*\((([a-z_]+ => )?(''[^'']*''|-?[0-9.]+|null|true|false)(, (?=[a-z0-9''-])|(?=\))))*\)$'
    )
);

create table ops.runs (
    run_id bigint generated always as identity primary key,
    schedule text not null,
    status text not null default 'running' check (status in ('running', 'succeeded', 'failed', 'skipped')),
    started_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz,
    backend_pid integer,
    detail text,
    sqlstate text,
    backend_start timestamptz,
    call_started timestamptz
);
create index runs_schedule_idx on ops.runs (schedule, started_at desc);
create index runs_running_idx on ops.runs (schedule) where status = 'running';

create table ops.sql_files (
    path text primary key,
    sha256 bytea not null,
    applied_at timestamptz not null default clock_timestamp()
);

create table ops.logic (
    kind text not null check (kind in ('function', 'view', 'trigger')),
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
comment on column ops.schedules.commits is
'The procedure called commits as it goes, so ops.run cannot catch its errors. Set by ops.run itself where it turns out that it does.';
comment on table ops.runs is 'One row per run of a schedule, written by the run itself; ops.health reads this, not pg_cron''s log.';
comment on column ops.runs.call_started is
'When the statement began that the run is (ops.run), to tell a session that still runs it from one that has gone on to something else; null: a scheduler of one''s own says when it ends.';
comment on table ops.sql_files is 'The files under sql/ as last applied, to tell a database from a checkout.';
comment on table ops.migration_checksums is 'What each migration''s file held when it was applied.';
comment on table ops.logic is 'The functions, procedures, views and triggers that sql/ made, so that those no longer in it are dropped.';
