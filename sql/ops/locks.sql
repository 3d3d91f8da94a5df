-- Taking turns. A lock is a row of ops.locks, which no role but the owner may lock, so that who only
-- reads cannot hold up who writes; it ends with the transaction. Who waits for longer than the setting
-- ops.lock_timeout (or the session's own lock_timeout) is told who holds it.

create or replace function ops._holders()
returns text
language sql stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
as $$
    select coalesce('Held by ' || string_agg(h.words, '; or by '), 'It has just been let go.')
    from (
        select format(
            '%s, process %s%s, since %s: %s', a.usename, a.pid,
            coalesce(' (' || nullif(a.application_name, '') || ')', ''), a.xact_start, left(a.query, 200)
        ) as words
        from pg_stat_activity a
        where a.pid <> pg_backend_pid() and exists (
            select from pg_locks l
            where l.pid = a.pid and l.granted and l.relation = 'ops.locks'::regclass
                and l.mode in ('RowShareLock', 'RowExclusiveLock')
        )
        order by a.xact_start
        limit 3
    ) h
$$;
comment on function ops._holders() is
'In words, the sessions that hold a lock of ops.locks, the oldest first.';

create or replace function ops._lock(name text, shared boolean default false)
returns void
language plpgsql volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_own constant text := current_setting('lock_timeout');
begin
    begin
        if v_own = '0' then
            perform set_config('lock_timeout', (
                1000 * extract(epoch from ops.setting_interval('ops.lock_timeout', interval '5 minutes'))
            )::bigint::text, true);
        end if;
        if shared then
            insert into ops.locks (name) values ($1) on conflict do nothing;
            perform from ops.locks k where k.name = $1 for key share;
        else
            -- One statement that makes the row where it is missing and locks it where it is there.
            insert into ops.locks as k (name) values ($1)
            on conflict on constraint locks_pkey do update set name = k.name;
            perform from ops.locks k where k.name = $1 for update;
        end if;
        perform set_config('lock_timeout', v_own, true);
    exception when lock_not_available then
        raise exception 'another session is at %', name
        using errcode = 'AP723', detail = ops._holders(),
            hint = 'Wait for it, or end it with pg_terminate_backend; how long is waited: setting ops.lock_timeout.';
    end;
end
$$;
comment on function ops._lock(text, boolean) is
'Waits for its turn at something and holds it until the transaction ends; shared: together with others
that share it. Errors: AP723 another session held it for longer than ops.lock_timeout.';

create or replace function ops._try_lock(name text)
returns boolean
language plpgsql volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_own constant text := current_setting('lock_timeout');
begin
    perform from ops.locks k where k.name = $1;
    if not found then
        -- Who makes it at the same time holds it.
        perform set_config('lock_timeout', '50', true);
        insert into ops.locks (name) values ($1) on conflict do nothing;
        perform set_config('lock_timeout', v_own, true);
    end if;
    perform from ops.locks k where k.name = $1 for update skip locked;
    return found;
exception when lock_not_available then
    return false;
end
$$;
comment on function ops._try_lock(text) is
'Whether it is this session''s turn at something, held until the transaction ends; waits for nobody.';

create or replace function ops._hold(name text)
returns boolean
language plpgsql volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if not ops._try_lock($1) then
        return false;
    end if;
    update ops.locks k
    set pid = me.pid, backend_start = me.backend_start
    from pg_stat_activity me
    where k.name = $1 and me.pid = pg_backend_pid()
        and not exists (
            select from pg_stat_activity a
            where a.pid = k.pid and a.backend_start = k.backend_start and a.pid <> me.pid
        );
    return found;
end
$$;
comment on function ops._hold(text) is
'Whether it is this session''s turn at something, held until ops._let_go or the end of the session, over
as many transactions as it takes; waits for nobody.';

create or replace function ops._let_go(name text)
returns void
language sql volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
    delete from ops.locks k
    using pg_stat_activity me
    where k.name = $1 and me.pid = pg_backend_pid()
        and k.pid = me.pid and k.backend_start = me.backend_start
$$;
comment on function ops._let_go(text) is 'Ends the turn that this session holds by ops._hold, if it does.';

create or replace function ops._holder(name text)
returns text
language sql volatile parallel restricted security definer
set search_path = pg_catalog, pg_temp
as $$
    select format(
        'held by %s, process %s%s, connected since %s', a.usename, a.pid,
        coalesce(' (' || nullif(a.application_name, '') || ')', ''), date_trunc('second', a.backend_start)
    )
    from ops.locks k
    join pg_stat_activity a on a.pid = k.pid and a.backend_start = k.backend_start
    where k.name = $1
$$;
comment on function ops._holder(text) is
'In words, the session that holds something by ops._hold; null: none.';
