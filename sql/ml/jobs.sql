-- The life of a training job, as trainers and operators see it. The functions with a leading
-- underscore are the trainer's only door: it has no rights on any table here, and whatever it says
-- of a job it says with the lease that it was given when it took the job (ml._next_job).

create or replace function ml._kept(lease uuid)
returns uuid
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select left(encode(sha256(convert_to(lease::text, 'UTF8')), 'hex'), 32)::uuid
$$;
comment on function ml._kept(uuid) is
'What is kept of a lease: who can read ml.training_jobs cannot say anything of a job.';

create or replace function ml._lease_timeout()
returns interval
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select (ml._setting('training.lease_timeout', '"30 seconds"') #>> '{}')::interval
$$;
comment on function ml._lease_timeout() is
'How long a trainer may stay silent before its job is given to another.';

create or replace function ml._max_attempts()
returns integer
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select (ml._setting('training.max_attempts', '3') #>> '{}')::integer
$$;
comment on function ml._max_attempts() is 'How often a job is tried before it counts as failed.';

create or replace function ml._claim_job(
    job_id bigint,
    worker text,
    out state text,
    out lease uuid,
    out job jsonb,
    out champion_artifact bytea
)
language plpgsql volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_job ml.training_jobs;
    v_model ml.models;
    v_champion ml.model_versions;
begin
    select * into v_job from ml.training_jobs j where j.job_id = _claim_job.job_id for update;
    if not found or v_job.status in ('succeeded', 'failed', 'cancelled') then
        state := 'done';
        return;
    end if;
    if v_job.status = 'running' and v_job.heartbeat_at > clock_timestamp() - ml._lease_timeout() then
        state := 'busy';
        return;
    end if;
    if v_job.cancel_requested then
        update ml.training_jobs j
        set status = 'cancelled', finished_at = clock_timestamp(), lease = null,
            message = 'cancelled'
        where j.job_id = _claim_job.job_id;
        state := 'done';
        return;
    end if;
    if v_job.attempts >= ml._max_attempts() then
        update ml.training_jobs j
        set status = 'failed', finished_at = clock_timestamp(), lease = null, message = 'failed',
            error = coalesce(j.error, 'its trainers went away without a word')
        where j.job_id = _claim_job.job_id;
        state := 'done';
        return;
    end if;

    state := 'claimed';
    lease := gen_random_uuid();
    update ml.training_jobs j
    set status = 'running', attempts = j.attempts + 1, worker = _claim_job.worker,
        lease = ml._kept(_claim_job.lease), heartbeat_at = clock_timestamp(), progress = 0,
        started_at = clock_timestamp(), message = 'started', error = null
    where j.job_id = _claim_job.job_id
    returning j.* into v_job;
    select * into v_model from ml.models m where m.model = v_job.model;
    select v.* into v_champion
    from ml.aliases a
    join ml.model_versions v on v.version_id = a.version_id
    where a.model = v_job.model
        and a.symbol is not distinct from v_job.symbol
        and a.regime is not distinct from v_job.regime
        and a.alias = 'champion';
    champion_artifact := v_champion.artifact;
    select jsonb_build_object(
        'job_id', v_job.job_id, 'model', v_job.model, 'symbol', v_job.symbol,
        'regime', v_job.regime, 'as_of', v_job.as_of, 'attempt', v_job.attempts,
        'algorithm', v_model.algorithm, 'params', v_model.params,
        'training', v_model.training || v_job.options,
        'label', l.label, 'task', l.task, 'label_kind', l.kind,
        'horizon', extract(epoch from l.horizon),
        'feature_set', s.name, 'feature_version', s.version, 'features', s.features,
        'grid', extract(epoch from s.grid),
        'lease_timeout', extract(epoch from ml._lease_timeout()),
        'max_minutes', (ml._setting('training.max_minutes', '1440') #>> '{}')::float8,
        'max_bytes', (ml._setting('training.max_bytes', '8589934592') #>> '{}')::float8,
        'max_artifact_bytes', ml._max_artifact_bytes(),
        'champion', case when v_champion.version_id is not null then jsonb_build_object(
            'version_id', v_champion.version_id, 'format', v_champion.format,
            'algorithm', v_champion.algorithm, 'features', v_champion.features,
            'feature_set', v_champion.feature_set,
            'feature_version', v_champion.feature_version,
            'spec', v_champion.spec, 'params', v_champion.params, 'train_to', v_champion.train_to,
            'as_of', v_champion.as_of
        ) end
    )
    into job
    from ml.labels l, feature.sets s
    where l.label = v_model.label
        and s.name = v_model.feature_set
        and s.version = v_model.feature_version;
end
$$;
comment on function ml._claim_job(bigint, text) is
'Takes the lease on a job, for ml._next_job. state is claimed, busy (another trainer holds a live
lease) or done (ended, cancelled or gone). job holds all that training needs, the line''s champion
with its artifact included, so that both are scored on the same rows.';

create or replace function ml._held_job(job_id bigint, lease uuid)
returns ml.training_jobs
language plpgsql volatile parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
declare
    v_job ml.training_jobs;
begin
    select * into v_job
    from ml.training_jobs j
    where j.job_id = _held_job.job_id and j.lease = ml._kept(_held_job.lease) and j.status = 'running';
    if not found then
        raise exception 'the lease on training job % is lost', job_id
        using errcode = 'AP311', hint = 'Another trainer has it now, or it has ended.';
    end if;
    return v_job;
end
$$;
comment on function ml._held_job(bigint, uuid) is 'The running job that this lease holds, or AP311.';

create or replace function ml._job_from(job ml.training_jobs)
returns timestamptz
language sql stable parallel restricted
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(
        (
            select ops._at(p.stop)
            from ml._training_span(job.model, ml._training_symbols(job.symbol), null, null, job.as_of) p
        ), job.as_of
    ) - (
        select ((m.training || job.options) ->> 'lookback')::interval
        from ml.models m where m.model = job.model
    )
$$;
comment on function ml._job_from(ml.training_jobs) is
'Where a job''s training set starts: the end of the data known by as_of less the option lookback;
null: at the first row.';

create or replace function ml._job_matrix(
    job_id bigint,
    lease uuid,
    "from" timestamptz default null,
    "to" timestamptz default null
)
returns bytea
language plpgsql volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_job ml.training_jobs := ml._held_job(job_id, lease);
begin
    return ml._training_bytes(
        v_job.model, v_job.symbol, v_job.as_of, coalesce("from", ml._job_from(v_job)), "to",
        v_job.regime
    );
end
$$;
comment on function ml._job_matrix(bigint, uuid, timestamptz, timestamptz) is
'For the trainer: ml._training_bytes of the job it holds, and of no other; of its grid times in
[from, to) where these are given, for sets too large for one value.';

create or replace function ml._job_span(
    job_id bigint, lease uuid, out first_ts timestamptz, out stop_ts timestamptz,
    out row_count bigint
)
language plpgsql volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_job ml.training_jobs := ml._held_job(job_id, lease);
    v_symbols text [] := ml._training_symbols(v_job.symbol);
begin
    select
        ops._at(p.start), ops._at(p.stop),
        greatest(0, ceil((p.stop - p.start)::double precision / s.step) * cardinality(v_symbols))::bigint
    into first_ts, stop_ts, row_count
    from ml._training_spec(v_job.model) s
    cross join lateral ml._training_span(
        v_job.model, v_symbols, ml._job_from(v_job), null, v_job.as_of
    ) p;
end
$$;
comment on function ml._job_span(bigint, uuid) is
'For the trainer: from when to when the set of the job it holds can reach, and how many rows it has
at most.';

create or replace function ml._job_folds(
    job_id bigint, lease uuid, ts bytea, label_end bytea
)
returns table (
    fold integer, train_from bigint, train_to bigint, test_from bigint, test_to bigint
)
language plpgsql volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_job ml.training_jobs := ml._held_job(job_id, lease);
    v_folds integer;
begin
    select coalesce(((m.training || v_job.options) ->> 'folds')::integer, 5)
    into v_folds
    from ml.models m where m.model = v_job.model;
    return query
    select f.fold, f.train_from, f.train_to, f.test_from, f.test_to
    from ml._folds(ts, label_end, v_folds) f;
end
$$;
comment on function ml._job_folds(bigint, uuid, bytea, bytea) is
'For the trainer: the walk-forward folds of ml.folds over the rows it has read (their times as in
ml.training_matrix), without computing the set again; microseconds since 1970.';

create or replace function ml._job_progress(
    job_id bigint,
    lease uuid,
    progress float8 default null,
    message text default null,
    details jsonb default null
)
returns text
language plpgsql volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_cancel boolean;
begin
    update ml.training_jobs j
    set heartbeat_at = clock_timestamp(),
        progress = greatest(j.progress, least(1, coalesce(_job_progress.progress, j.progress))),
        message = case when j.cancel_requested then j.message
            else coalesce(_job_progress.message, j.message) end,
        details = j.details || coalesce(_job_progress.details, '{}')
    where j.job_id = _job_progress.job_id
        and j.lease = ml._kept(_job_progress.lease)
        and j.status = 'running'
    returning j.cancel_requested into v_cancel;
    return case when not found then 'lost' when v_cancel then 'cancel' else 'ok' end;
end
$$;
comment on function ml._job_progress(bigint, uuid, float8, text, jsonb) is
'For the trainer: heartbeat and progress. Answers ok, cancel (stop and say so with _fail_job) or
lost (the lease is no longer yours: stop and say nothing).';

create or replace function ml._fail_job(
    job_id bigint, lease uuid, kind text, error text default null
)
returns text
language plpgsql volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_job ml.training_jobs;
    v_status text;
begin
    select * into v_job
    from ml.training_jobs j
    where j.job_id = _fail_job.job_id and j.lease = ml._kept(_fail_job.lease) and j.status = 'running'
    for update;
    if not found then
        return 'lost';
    end if;
    v_status := case
        when kind = 'cancelled' or v_job.cancel_requested then 'cancelled'
        when kind = 'released' then 'queued'
        when kind = 'retry' and v_job.attempts < ml._max_attempts() then 'queued'
        else 'failed'
    end;
    update ml.training_jobs j
    set status = v_status,
        lease = null,
        heartbeat_at = null,
        attempts = j.attempts - (kind = 'released')::integer,
        error = left(coalesce(_fail_job.error, j.error), 10000),
        finished_at = case when v_status <> 'queued' then clock_timestamp() end,
        message = case
            when v_status = 'queued' and kind = 'released' then 'its trainer was stopped; waits for another'
            when v_status = 'queued' then format('attempt %s failed, waits for the next', j.attempts)
            else v_status end
    where j.job_id = _fail_job.job_id;
    perform ml._queue_end(
        v_job.queue_job_id,
        case v_status when 'cancelled' then 'aborted' else 'failed' end,
        case when v_status = 'queued' then
            case when kind = 'released' then interval '0' else interval '5 seconds' end
        end
    );
    return v_status;
end
$$;
comment on function ml._fail_job(bigint, uuid, text, text) is
'For the trainer: gives a job back. kind is retry (tried again while attempts are left), error
(trying again would not help), cancelled, or released (the trainer is shutting down; the attempt
does not count). Answers the job''s new status, or lost.';

create or replace function ml._finish_job(
    job_id bigint, lease uuid, version jsonb, artifact bytea, sha256 bytea, out_of_fold bytea
)
returns bigint
language plpgsql volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_job ml.training_jobs;
    v_model ml.models;
    v_label ml.labels;
    v_version_id bigint;
    v_passed boolean;
    v_auto boolean;
    v_measured record;
begin
    select * into v_job from ml.training_jobs j where j.job_id = _finish_job.job_id for update;
    if v_job.status = 'succeeded' and v_job.lease = ml._kept(lease) then
        -- The answer to the first call was lost on its way.
        select v.version_id into v_version_id
        from ml.model_versions v where v.job_id = _finish_job.job_id;
        return v_version_id;
    end if;
    perform ml._held_job(job_id, lease);
    if v_job.cancel_requested then
        raise exception 'training job % was cancelled', job_id
        using errcode = 'AP312', hint = 'Give up; who wants it after all calls ml.retrain again.';
    end if;
    select * into v_model from ml.models m where m.model = v_job.model;
    select * into v_label from ml.labels l where l.label = v_model.label;
    -- A text model is measured on texts, which no vector holds; a regime classifier is a filter over rows in their order, with six probabilities a row: it is
    -- measured where it runs.
    if v_label.task in ('regime', 'text') then
        v_version_id := ml._register(v_job.model, v_job.symbol, v_job.regime, artifact, sha256,
            version || jsonb_build_object('as_of', v_job.as_of), v_job.job_id,
            version -> 'metrics', coalesce(version -> 'fold_metrics', '[]'));
    else
        select * into v_measured from ml._measured(
            v_label.task, extract(epoch from v_label.horizon)::float8,
            ml._training_targets(v_job.model, v_job.symbol, v_job.as_of, ml._job_from(v_job)),
            out_of_fold, version #> '{metrics,champion}'
        );
        v_version_id := ml._register(v_job.model, v_job.symbol, v_job.regime, artifact, sha256,
            version || jsonb_build_object('as_of', v_job.as_of), v_job.job_id,
            v_measured.metrics
            || jsonb_strip_nulls(jsonb_build_object(
                'interval_coverage', ml._interval_coverage(
                    version -> 'spec', v_measured.prediction, v_measured.target
                )
            ))
            -- What the trainer alone knows and no gate reads.
            || jsonb_strip_nulls(jsonb_build_object(
                'search', version #> '{metrics,search}', 'noise', version #> '{metrics,noise}'
            )), v_measured.fold_metrics);
        insert into ml.version_predictions (
            version_id, symbols, ts, symbol, fold, raw, prediction, target, base_rate
        )
        values (
            v_version_id, ml._training_symbols(v_job.symbol), v_measured.ts, v_measured.symbol,
            v_measured.fold, v_measured.raw, v_measured.prediction, v_measured.target, v_measured.base_rate
        );
    end if;
    if exists (
        select from ml.gates g
        where g.enabled and g.metric = 'feature_ks' and (g.model is null or g.model = v_job.model)
    ) then
        -- A gate reads it; where it cannot be taken, the gate says that its metric is missing.
        begin
            perform drift.take_reference(v_version_id);
        exception when others then
            raise log 'reference of version %: %', v_version_id, sqlerrm;
        end;
    end if;
    select bool_and(g.passed) into v_passed from ml.evaluate_gates(v_version_id) g;
    v_passed := coalesce(v_passed, true);
    select coalesce(((v_model.training || v_job.options) ->> 'auto_promote')::boolean, false)
    into v_auto;
    if v_auto and v_passed then
        perform ml._set_alias(v_version_id, 'champion', 'promote',
            format('all gates passed; job %s asked for by %s', job_id, v_job.requested_by),
            'auto_promote');
    end if;
    update ml.training_jobs j
    set status = 'succeeded', progress = 1, finished_at = clock_timestamp(),
        heartbeat_at = clock_timestamp(), error = null,
        message = format(
            'version %s: gates %s%s', v_version_id, case when v_passed then 'passed' else 'not passed' end,
            case when v_auto and v_passed then ', promoted' else '' end
        )
    where j.job_id = _finish_job.job_id;
    perform ml._queue_end(v_job.queue_job_id, 'succeeded');
    return v_version_id;
end
$$;
comment on function ml._finish_job(bigint, uuid, jsonb, bytea, bytea, bytea) is
'For the trainer: hands in what a job made, all in one transaction: measures its out-of-fold predictions
by the database''s own outcomes, registers the version, runs the gates, and, where the model''s policy
(training ->> ''auto_promote'') says so and all gates pass, promotes it: the database''s decision, not the
trainer''s. A second call with the same lease answers the same version. Errors: AP311 lease lost, AP312
cancelled, AP431 no out-of-fold predictions of the set, those of ml.register_version.';

-- procrastinate's functions name their tables without a schema, so they need it on the path.
create or replace function ml._requeue_stalled()
returns integer
language plpgsql volatile parallel unsafe security definer
set search_path = procrastinate, pg_catalog, pg_temp
as $$
declare
    v_job record;
    v_count integer := 0;
    v_queue text;
begin
    for v_job in
        select j.job_id, j.model, j.symbol, j.regime, j.status, j.attempts, j.queue_job_id,
            j.cancel_requested, j.worker
        from ml.training_jobs j
        where j.status = 'running' and j.heartbeat_at < clock_timestamp() - ml._lease_timeout()
            or j.status = 'queued' and not exists (
                select from procrastinate.procrastinate_jobs q
                left join procrastinate.procrastinate_workers w on w.id = q.worker_id
                where q.id = j.queue_job_id
                    and (
                        q.status = 'todo'
                        or q.status = 'doing'
                        and w.last_heartbeat > clock_timestamp() - ml._lease_timeout()
                    )
            )
        order by j.job_id
        for update skip locked
    loop
        if v_job.cancel_requested then
            update ml.training_jobs j
            set status = 'cancelled', finished_at = clock_timestamp(), lease = null,
                message = 'cancelled'
            where j.job_id = v_job.job_id;
            v_queue := 'aborted';
        elsif v_job.attempts >= ml._max_attempts() then
            update ml.training_jobs j
            set status = 'failed', finished_at = clock_timestamp(), lease = null,
                message = 'failed',
                error = coalesce(j.error, format(
                    'trainer %s went away without a word at attempt %s', v_job.worker, v_job.attempts))
            where j.job_id = v_job.job_id;
            v_queue := 'failed';
        else
            update ml.training_jobs j
            set status = 'queued', lease = null, heartbeat_at = null,
                message = 'its trainer went away; waits for another'
            where j.job_id = v_job.job_id and j.status = 'running';
            v_queue := 'todo';
        end if;
        v_count := v_count + 1;
        if v_queue = 'todo' then
            if exists (
                select from procrastinate.procrastinate_jobs q
                where q.id = v_job.queue_job_id and q.status in ('doing', 'failed')
                    and not q.abort_requested
            ) then
                perform procrastinate.procrastinate_retry_job_v2(
                    v_job.queue_job_id, clock_timestamp(), null, null, null);
                perform pg_notify('procrastinate_any_queue_v1', json_build_object(
                    'type', 'job_inserted', 'job_id', v_job.queue_job_id)::text);
            elsif not exists (
                select from procrastinate.procrastinate_jobs q
                where q.id = v_job.queue_job_id and q.status = 'todo'
            ) then
                update ml.training_jobs j
                set queue_job_id = ml._enqueue(
                    v_job.job_id, ml._key(v_job.model, v_job.symbol, v_job.regime))
                where j.job_id = v_job.job_id;
            end if;
        elsif exists (
            select from procrastinate.procrastinate_jobs q
            where q.id = v_job.queue_job_id and q.status = 'doing'
        ) then
            perform procrastinate.procrastinate_finish_job_v1(
                v_job.queue_job_id, v_queue::procrastinate.procrastinate_job_status, false);
        end if;
    end loop;
    -- A queue entry left in 'doing' by a dead worker holds its lock against later jobs.
    for v_job in
        select q.id
        from procrastinate.procrastinate_jobs q
        join ml.training_jobs j on j.queue_job_id = q.id
        left join procrastinate.procrastinate_workers w on w.id = q.worker_id
        where q.status = 'doing'
            and j.status in ('succeeded', 'failed', 'cancelled')
            and (w.id is null or w.last_heartbeat < clock_timestamp() - ml._lease_timeout())
        for update of q skip locked
    loop
        perform procrastinate.procrastinate_finish_job_v1(v_job.id, 'succeeded', false);
    end loop;
    return v_count;
end
$$;
comment on function ml._requeue_stalled() is
'Gives jobs of silent trainers, and waiting jobs the queue has lost, back to the queue; fails those
with no attempt left. Returns how many. Trainers call it themselves every few seconds.';

create or replace procedure ml.requeue_stalled()
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
    select ml._requeue_stalled()
$$;
comment on procedure ml.requeue_stalled() is
'For the clock: gives training jobs whose trainer has been silent for longer than the setting
training.lease_timeout back to the queue, and fails those that were tried training.max_attempts
times. Trainers do the same by themselves while any is running.';

create or replace view ml.jobs as
select
    j.job_id,
    j.model,
    j.symbol,
    j.regime,
    j.status,
    case
        when j.status = 'running' and j.heartbeat_at < clock_timestamp() - ml._lease_timeout()
            then 'trainer silent since ' || date_trunc('second', clock_timestamp() - j.heartbeat_at)
        when j.status = 'queued' and not exists (
            select from procrastinate.procrastinate_workers w
            where w.last_heartbeat > clock_timestamp() - interval '1 minute'
        )
            then 'waiting; no trainer is connected (start one: python -m alphaplus.trainer)'
        else j.message
    end as status_text,
    j.progress,
    case when j.status = 'running' and j.progress > 0.02
        then make_interval(secs => extract(epoch from clock_timestamp() - j.started_at) * (1 - j.progress) / j.progress)
    end as eta,
    q.status::text as queue_status,
    case when j.status = 'queued' then row_number() over (partition by j.status order by j.job_id) end as queue_position,
    j.attempts,
    j.cancel_requested,
    j.as_of,
    j.options,
    j.requested_by,
    j.requested_at,
    j.started_at,
    j.heartbeat_at,
    j.finished_at,
    coalesce(j.finished_at, case when j.status = 'running' then clock_timestamp() end) - j.started_at as duration,
    j.worker,
    v.version_id,
    j.error,
    j.details
from ml.training_jobs j
left join procrastinate.procrastinate_jobs q on q.id = j.queue_job_id
left join ml.model_versions v on v.job_id = j.job_id;
comment on view ml.jobs is
'Training jobs with what they are doing: status_text in words, progress 0 to 1, eta while running,
place in the queue while waiting, the version a succeeded one made, the error of a failed one
(tried training.max_attempts times, it stays here as a dead letter).';

create or replace function ml._save_checkpoint(
    job_id bigint, lease uuid, stage text, state bytea
)
returns void
language plpgsql volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform ml._held_job(job_id, lease);
    insert into ml.training_checkpoints as c (job_id, stage, state)
    values (_save_checkpoint.job_id, _save_checkpoint.stage, _save_checkpoint.state)
    on conflict on constraint training_checkpoints_pkey
    do update set state = excluded.state, updated_at = clock_timestamp();
end
$$;
comment on function ml._save_checkpoint(bigint, uuid, text, bytea) is
'For the trainer: keeps the state of a stage of the job it holds, in place of the last one. Errors:
AP311 lease lost.';

create or replace function ml._load_checkpoint(job_id bigint, lease uuid, stage text)
returns bytea
language plpgsql volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform ml._held_job(job_id, lease);
    return (
        select c.state from ml.training_checkpoints c
        where c.job_id = _load_checkpoint.job_id and c.stage = _load_checkpoint.stage
    );
end
$$;
comment on function ml._load_checkpoint(bigint, uuid, text) is
'For the trainer: the last state of a stage of the job it holds, whichever trainer saved it; null:
none. Errors: AP311 lease lost.';
