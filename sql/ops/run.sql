-- Running schedules. A run writes its own row, committed before the work begins, so that the row
-- is there whatever becomes of the work. It names its session, by process and start: when
-- the session dies, so does the claim.

create or replace function ops._going(run ops.runs)
returns boolean
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select exists (
        select
        from pg_stat_activity a
        where a.pid = run.backend_pid and a.datname = current_database()
            -- (null to those who may not see it)
            and coalesce(a.backend_start = run.backend_start, true)
            -- A run that is one statement: its session has not gone on to something else.
            and not coalesce(
                run.call_started is not null
                and (a.state like 'idle%' or a.query_start > run.call_started), false
            )
    )
$$;
comment on function ops._going(ops.runs) is 'Whether the session that began a run is still at it.';

create or replace function ops._is_running(schedule text)
returns boolean
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select exists (
        select from ops.runs r
        where r.schedule = $1 and r.status = 'running' and ops._going(r)
    )
$$;
comment on function ops._is_running(text) is 'Whether a session is at a run of a schedule.';

create or replace function ops.begin_run(
    schedule text,
    at timestamptz default clock_timestamp(),
    call_started timestamptz default null,
    out run_id bigint,
    out command text,
    out after_crash boolean
)
language plpgsql volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_running record;
    v_first boolean;
    v_run_as name;
    v_timeout interval := ops.setting_interval('ops.run_timeout', interval '30 minutes');
begin
    select s.command, s.run_as into command, v_run_as from ops.schedules s where s.name = begin_run.schedule;
    if not found then
        raise exception 'unknown schedule %', coalesce(quote_literal(schedule), 'null')
        using errcode = 'AP711', hint = format(
            'Schedules: %s.', (select string_agg(s.name, ', ' order by s.name) from ops.schedules s)
        );
    end if;
    -- What a role wrote is run as that role and as no other: the delivered ones by any that may run one.
    if v_run_as not in ('alphaplus_owner', session_user) then
        raise exception 'schedule % is the business of %, who wrote it', schedule, v_run_as
        using errcode = 'AP722', hint = 'Run it as that role; pg_cron does.';
    end if;
    after_crash := false;
    v_first := ops._try_lock('ops.run:' || schedule);
    select r.run_id, r.started_at, r.backend_pid into v_running
    from ops.runs r
    where r.schedule = begin_run.schedule and r.status = 'running' and ops._going(r)
    order by r.run_id desc
    limit 1;
    if found or not v_first then
        if v_running.started_at < at - v_timeout then
            begin
                perform pg_cancel_backend(v_running.backend_pid);
            exception when insufficient_privilege then
                raise warning 'run % of % is over its time, but belongs to another role',
                    v_running.run_id, schedule;
            end;
        end if;
        insert into ops.runs (schedule, status, started_at, finished_at, backend_pid, detail)
        values (
            schedule, 'skipped', at, at, pg_backend_pid(),
            coalesce(
                format('run %s is still going since %s', v_running.run_id, v_running.started_at),
                'another session holds it'
            )
        );
        return;
    end if;
    update ops.runs r
    set status = 'failed', finished_at = at,
        detail = case
            when r.started_at < at - v_timeout then format('cancelled after %s', v_timeout)
            else 'its session ended before the run was recorded as finished: it failed, was cancelled or was killed'
        end,
        sqlstate = case when r.started_at < at - v_timeout then '57014' end
    where r.schedule = begin_run.schedule and r.status = 'running';
    after_crash := found;
    insert into ops.runs (schedule, status, started_at, backend_pid, backend_start, call_started)
    values (
        schedule, 'running', at, pg_backend_pid(),
        (select a.backend_start from pg_stat_activity a where a.pid = pg_backend_pid()),
        begin_run.call_started
    )
    returning runs.run_id into run_id;
end
$$;
comment on function ops.begin_run(text, timestamptz, timestamptz) is
'Claims a schedule for this session and writes its row in ops.runs; run_id is null, and the row
says skipped, where another session''s run is still going (one over ops.run_timeout is cancelled).
after_crash: the run before was never recorded as finished. For schedulers of one''s own; ops.run does it all.
call_started: statement_timestamp() where the run is this one statement and over with it; null: over
with ops.end_run or the session. Errors: AP711 unknown schedule, AP722 another role''s schedule.';

create or replace function ops.end_run(
    run_id bigint, status text, detail text default null, sqlstate text default null
)
returns void
language plpgsql volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_schedule text;
begin
    update ops.runs r
    set status = end_run.status, finished_at = greatest(clock_timestamp(), r.started_at),
        detail = left(end_run.detail, 10000), sqlstate = end_run.sqlstate
    where r.run_id = end_run.run_id and r.status = 'running'
    returning r.schedule into v_schedule;
    if not found then
        raise exception 'run % is not running', coalesce(run_id::text, 'null')
        using errcode = 'AP712', hint = 'select * from ops.runs order by run_id desc limit 10';
    end if;
end
$$;
comment on function ops.end_run(bigint, text, text, text) is
'Ends a run begun with ops.begin_run in this session: status succeeded or failed, with the error''s
text and SQLSTATE. Errors: AP712 that run is not running.';

create or replace function ops._note_that_it_commits(schedule text)
returns void
language sql volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
    update ops.schedules s set commits = true where s.name = $1 and not s.commits
$$;
comment on function ops._note_that_it_commits(text) is
'Notes that a schedule''s procedure commits, so that ops.run does not first try it where it cannot.';

-- search_path: not pinned, because it commits.
create or replace procedure ops.run(
    schedule text, at timestamptz default clock_timestamp(), quiet boolean default false
)
language plpgsql
as $$
declare
    v_run_id bigint;
    v_command text;
    v_after_crash boolean;
    v_done boolean := false;
    v_sqlstate text;
    v_message text;
    v_detail text;
    v_hint text;
    v_commits boolean;
    v_run_as name;
begin
    select s.run_as into v_run_as from ops.schedules s where s.name = run.schedule;
    if v_run_as not in ('alphaplus_owner', current_user) then
        raise exception 'schedule % is the business of %, who wrote it', schedule, v_run_as
        using errcode = 'AP722', hint = 'Run it as that role; pg_cron does.';
    end if;
    select b.run_id, b.command, b.after_crash
    into v_run_id, v_command, v_after_crash
    from ops.begin_run(schedule, at, pg_catalog.statement_timestamp()) b;
    commit;
    if v_run_id is null then
        if not quiet then
            raise notice 'schedule % is still going; this run was skipped', schedule;
        end if;
        return;
    end if;
    select s.commits into v_commits from ops.schedules s where s.name = run.schedule;

    -- An error cannot be caught around a procedure that commits: it ends this call, and the next run
    -- finds the row still running. That one therefore first tries the command where it cannot commit,
    -- to get the error's words into the log.
    if not coalesce(v_commits, false) or v_after_crash then
        begin
            execute v_command;
            v_done := true;
        exception when query_canceled or others then
            get stacked diagnostics
                v_sqlstate = returned_sqlstate, v_message = message_text,
                v_detail = pg_exception_detail, v_hint = pg_exception_hint;
        end;
        if v_sqlstate = '2D000' then
            -- It wanted to commit, which EXECUTE does not allow.
            perform ops._note_that_it_commits(schedule);
            v_sqlstate := null;
            v_message := null;
            v_detail := null;
            v_hint := null;
        end if;
    end if;
    if not v_done and v_sqlstate is null then
        -- A CALL that is part of a procedure's text may commit, and EXECUTE may not: so the command
        -- becomes the text of a procedure of this session's own.
        execute pg_catalog.format(
            'create or replace procedure pg_temp._run_command() language plpgsql as %L',
            'begin ' || v_command || '; end'
        );
        call pg_temp._run_command();
    end if;
    perform ops.end_run(
        v_run_id, case when v_sqlstate is null then 'succeeded' else 'failed' end,
        pg_catalog.concat_ws(e'\n', v_message, nullif(v_detail, ''), nullif(v_hint, '')), v_sqlstate
    );
    commit;
    if v_sqlstate is not null and quiet then
        raise warning 'schedule %: %', schedule, v_message using errcode = v_sqlstate;
    elsif v_sqlstate is not null then
        raise exception '%', v_message
        using errcode = v_sqlstate, detail = v_detail, hint = v_hint;
    end if;
end
$$;
comment on procedure ops.run(text, timestamptz, boolean) is
'Runs a schedule''s command now, once: a run that is still going is not started again (the row in
ops.runs says skipped). The row is committed before the work begins and ends as succeeded or failed
with the error''s words and SQLSTATE; the error itself is passed on, as a warning where quiet. A
procedure that commits as it goes and fails leaves a row that the next run marks as failed. Commits:
call it outside a transaction block. Errors: AP711 unknown schedule, AP722 another role''s schedule, and
those of the command.';

create or replace function ops.due(at timestamptz default clock_timestamp())
returns table (schedule text, due_at timestamptz, last_started_at timestamptz)
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select d.name, d.due_at, d.started_at
    from (
        select s.name, ops.cron_last_due(s.cron, $1) as due_at, r.started_at,
            coalesce(r.started_at, s.updated_at) as since
        from ops.schedules s
        left join lateral (
            select max(x.started_at) as started_at
            from ops.runs x
            where x.schedule = s.name and x.status <> 'skipped'
                -- (a run dated later was made by a clock that was set ahead and back)
                and x.started_at <= $1 + interval '1 minute'
        ) r on true
        where s.enabled
    ) d
    where d.due_at > d.since
    order by d.started_at nulls first, d.name
$$;
comment on function ops.due(timestamptz) is
'The enabled schedules that were due since their last run, longest waiting first. However often one
was missed, it is here once: overdue runs coalesce. Runs dated more than a minute after at are none:
a clock that jumped ahead and back keeps nothing from running.';

-- search_path: not pinned, because it commits.
create or replace procedure ops.tick(at timestamptz default clock_timestamp())
language plpgsql
as $$
declare
    v_schedules text [];
    v_schedule text;
begin
    select pg_catalog.array_agg(d.schedule) into v_schedules
    from ops.due(at) d
    join ops.schedules s on s.name = d.schedule
    where s.run_as in ('alphaplus_owner', session_user);
    foreach v_schedule in array coalesce(v_schedules, '{}') loop
        call ops.run(v_schedule, at, true);
    end loop;
end
$$;
comment on procedure ops.tick(timestamptz) is
'For any scheduler in place of pg_cron (cron, systemd, Kubernetes; once a minute): runs what is due,
each schedule once: those delivered and the caller''s own (call it as each role that has some).
A failing schedule is a warning and does not keep the others from running.';
