-- A trainer at the queue: it shows a token, takes jobs, and gives them back by their leases
-- (jobs.sql). It has no right on the queue's tables, so it forges neither entries nor other
-- trainers' jobs. procrastinate's functions name their tables without a schema.

create or replace function ml._digest(token uuid)
returns bytea
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select sha256(convert_to(token::text, 'UTF8'))
$$;
comment on function ml._digest(uuid) is 'SHA-256 of a token or lease: what is kept of it.';

create or replace function ml._trainer_start(name text)
returns uuid
language plpgsql volatile parallel unsafe security definer
set search_path = procrastinate, pg_catalog, pg_temp
as $$
declare
    v_token constant uuid := gen_random_uuid();
    v_worker bigint;
begin
    -- Those that fell silent long ago.
    delete from procrastinate.procrastinate_workers w
    where w.last_heartbeat < clock_timestamp() - greatest(10 * ml._lease_timeout(), interval '5 minutes');
    delete from ml.trainers t
    where not exists (select from procrastinate.procrastinate_workers w where w.id = t.worker_id);
    select w.worker_id into v_worker from procrastinate.procrastinate_register_worker_v1() w;
    insert into ml.trainers (token_digest, worker_id, name)
    values (ml._digest(v_token), v_worker, left(coalesce(_trainer_start.name, ''), 200));
    return v_token;
end
$$;
comment on function ml._trainer_start(text) is
'For the trainer: says that it is here; the token that it shows from then on.';

create or replace function ml._trainer_beat(token uuid)
returns boolean
language plpgsql volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    update procrastinate.procrastinate_workers w
    set last_heartbeat = clock_timestamp()
    from ml.trainers t
    where t.token_digest = ml._digest(token) and w.id = t.worker_id;
    return found;
end
$$;
comment on function ml._trainer_beat(uuid) is
'For the trainer: says that it is still here; false: it is not known (any more) and starts again.';

create or replace function ml._trainer_stop(token uuid)
returns void
language plpgsql volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    delete from procrastinate.procrastinate_workers w
    using ml.trainers t
    where t.token_digest = ml._digest(token) and w.id = t.worker_id;
    delete from ml.trainers t where t.token_digest = ml._digest(token);
end
$$;
comment on function ml._trainer_stop(uuid) is 'For the trainer: says that it goes.';

create or replace function ml._next_job(
    token uuid, out state text, out lease uuid, out job jsonb, out champion_artifact bytea
)
language plpgsql volatile parallel unsafe security definer
set search_path = procrastinate, pg_catalog, pg_temp
as $$
declare
    v_trainer ml.trainers;
    v_entry procrastinate.procrastinate_jobs;
begin
    select * into v_trainer from ml.trainers t where t.token_digest = ml._digest(token);
    if not found or not ml._trainer_beat(token) then
        raise exception 'unknown trainer'
        using errcode = 'AP430', hint = 'Start again: its token is no longer known.';
    end if;
    -- A place among training.max_concurrent, whoever asked for the job; two trainers that look at once
    -- are told one after the other.
    if exists (
        select from procrastinate.procrastinate_jobs q
        where q.queue_name = 'training' and q.status = 'todo'
    ) then
        perform ops._lock('ml:next job');
        if (
            select count(*) >= (ops.setting('training.max_concurrent', '2') #>> '{}')::integer
            from ml.training_jobs j
            where j.status = 'running' and j.heartbeat_at > clock_timestamp() - ml._lease_timeout()
        ) then
            state := 'later';
            return;
        end if;
    end if;
    loop
        v_entry := procrastinate.procrastinate_fetch_job_v2(array['training'], v_trainer.worker_id);
        if v_entry.id is null then
            state := case when exists (
                select from procrastinate.procrastinate_jobs q
                where q.queue_name = 'training' and q.status = 'todo'
            ) then 'later' else 'none' end;
            return;
        end if;
        select c.state, c.lease, c.job, c.champion_artifact
        into state, lease, job, champion_artifact
        from ml._claim_job((v_entry.args ->> 'job_id')::bigint, v_trainer.name) c;
        if state = 'claimed' then
            return;
        end if;
        perform ml._queue_end(
            v_entry.id, 'succeeded', case when state = 'busy' then interval '5 seconds' end
        );
    end loop;
end
$$;
comment on function ml._next_job(uuid) is
'For the trainer: the next job of the queue with its lease (state claimed; job holds all that training
needs); state later: some wait for others, for their time or for a place among training.max_concurrent
that run at once over all trainers; none: none waits. Errors: AP430 unknown
trainer.';

create or replace function ml._queue_end(
    queue_job_id bigint, status text, again interval default null
)
returns void
language plpgsql volatile parallel unsafe
set search_path = procrastinate, pg_catalog, pg_temp
as $$
begin
    perform from procrastinate.procrastinate_jobs q
    where q.id = _queue_end.queue_job_id and q.status = 'doing' for update;
    if not found then
        return;
    end if;
    if again is null then
        perform procrastinate.procrastinate_finish_job_v1(
            queue_job_id, status::procrastinate.procrastinate_job_status, false
        );
        return;
    end if;
    perform procrastinate.procrastinate_retry_job_v2(
        queue_job_id, clock_timestamp() + again, null, null, null
    );
    perform pg_notify('procrastinate_any_queue_v1', json_build_object(
        'type', 'job_inserted', 'job_id', queue_job_id)::text);
end
$$;
comment on function ml._queue_end(bigint, text, interval) is
'Ends the queue''s entry of a job, or puts it back for later, where it is being worked on.';
