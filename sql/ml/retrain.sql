-- Asking for training: jobs are rows here, the queue behind them is procrastinate's.

create or replace function ml._setting(name text, fallback jsonb)
returns jsonb
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select coalesce((select s.value from ops.settings s where s.name = _setting.name), fallback)
$$;
comment on function ml._setting(text, jsonb) is
'The setting''s value, or the fallback where ops.settings has no such row.';

-- procrastinate's functions name their tables without a schema, so they need it on the path.
create or replace function ml._enqueue(job_id bigint, lock_key text, delay interval default null)
returns bigint
language plpgsql volatile parallel unsafe security definer
set search_path = procrastinate, pg_catalog, pg_temp
as $$
declare
    v_ids bigint [];
begin
    v_ids := procrastinate.procrastinate_defer_jobs_v1(array[row(
        'training', 'alphaplus.train', 0, lock_key, 'train:' || job_id,
        pg_catalog.jsonb_build_object('job_id', job_id),
        pg_catalog.clock_timestamp() + delay
    )::procrastinate.procrastinate_job_to_defer_v1]);
    return v_ids[1];
end
$$;
comment on function ml._enqueue(bigint, text, interval) is
'Puts a training job into procrastinate''s queue, in the caller''s transaction; its queue id.';

create or replace function ml._key(model text, symbol text, regime text)
returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select jsonb_build_array(model, symbol, regime)::text
$$;
comment on function ml._key(text, text, text) is
'Name of a line of versions, for locks: model, symbol (null: pooled) and regime (null: all).';

-- Two-part keys: locks on a line of versions must not meet those of other parts of the house.
create or replace function ml._lock_key(model text, symbol text, regime text)
returns void
language sql volatile parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
    select ops._lock('ml:' || ml._key(model, symbol, regime))
$$;
comment on function ml._lock_key(text, text, text) is
'Serialises what changes a line of versions, until the transaction ends.';

create or replace procedure ml.retrain(
    model text,
    symbol text,
    regime text default null,
    as_of timestamptz default null,
    options jsonb default '{}',
    inout job_id bigint default null
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_symbol text collate "C";
    v_as_of timestamptz := coalesce(as_of, clock_timestamp());
    v_bad text;
begin
    if not exists (select from ml.models m where m.model = retrain.model) then
        raise exception 'unknown model %', coalesce(quote_literal(model), 'null')
        using errcode = 'AP302',
            hint = format(
                'Known models: %s.', coalesce((select string_agg(m.model, ', ' order by m.model) from ml.models m), 'none yet')
            );
    end if;
    if symbol is not null then
        v_symbol := market.resolve(symbol);
    end if;
    if regime is not null then
        regime := regime.canonical(regime);
        if symbol is null then
            raise exception 'training for regime % needs a symbol', quote_literal(regime)
            using errcode = 'AP305', detail = 'A pooled version serves all regimes.',
                hint = format('Name one: call ml.retrain(%L, ''BTCUSDT'', %L)', model, regime);
        end if;
    end if;
    if as_of > clock_timestamp() or not isfinite(as_of) then
        raise exception 'as_of % is in the future, or no time', as_of
        using errcode = 'AP303', hint = 'Leave as_of out to train on all that is known now.';
    end if;
    if jsonb_typeof(options) <> 'object' then
        raise exception 'options are %, not an object', jsonb_typeof(options)
        using errcode = 'AP304', hint = 'For instance options => ''{"folds": 4}''.';
    end if;
    select string_agg(o.key, ', ') into v_bad
    from jsonb_object_keys(coalesce(options, '{}')) as o (key) where o.key in ('noise', 'every');
    if v_bad is not null then
        raise exception '% belongs to the model, not to a job', v_bad
        using errcode = 'AP304', hint = 'update ml.models set training = training || …';
    end if;
    perform ml._check_training(m.algorithm, l.task, m.params, m.training, options)
    from ml.models m join ml.labels l on l.label = m.label
    where m.model = retrain.model;

    -- Whoever asks for the same while it is still waiting gets the job that waits.
    perform ml._lock_key(model, v_symbol, regime);
    select j.job_id
    into job_id
    from ml.training_jobs j
    where j.model = retrain.model
        and j.symbol is not distinct from v_symbol
        and j.regime is not distinct from retrain.regime
        and j.options = coalesce(retrain.options, '{}')
        and j.status = 'queued'
        and not j.cancel_requested
        -- One that was begun keeps its as_of: its checkpoints and trials are of that set.
        and (retrain.as_of is null and j.started_at is null or j.as_of = retrain.as_of)
    order by j.job_id desc
    limit 1
    for update;
    if found then
        if retrain.as_of is null then
            update ml.training_jobs j set as_of = v_as_of where j.job_id = retrain.job_id;
        end if;
        return;
    end if;

    insert into ml.training_jobs (model, symbol, regime, as_of, options)
    values (retrain.model, v_symbol, retrain.regime, v_as_of, coalesce(retrain.options, '{}'))
    returning training_jobs.job_id into job_id;
    update ml.training_jobs j
    set queue_job_id = ml._enqueue(retrain.job_id, ml._key(retrain.model, v_symbol, retrain.regime))
    where j.job_id = retrain.job_id;
end
$$;
comment on procedure ml.retrain(text, text, text, timestamptz, jsonb, bigint) is
'Asks for a new version of a model for a symbol (null: pooled over all) and returns the job''s id;
training happens outside, when this transaction is committed and a trainer is free. Follow it in
ml.jobs, stop it with ml.cancel_job. as_of: train on what was known then (null: now). options
override ml.models.training and .params for this job; ml.training_parameters lists them all: algorithm
(lightgbm, xgboost, gradient_boosting, random_forest, logistic_regression, lstm, gru, cnn, transformer),
params (of the algorithm), search ({"trials": n, "minutes": m, "space": {...}}, by Optuna), folds, lookback
(counted from the end of the data), seed, calibration and others. ml.models.params hold for the model''s
own algorithm only. A job that already waits for the same is returned instead of a second one.
Errors: AP302 unknown model, AP101/AP102 symbol, AP303 as_of in the future, AP304 options are no object,
AP420 unknown option or parameter (with the nearest right name), AP421 no value for it, AP305
a regime without a symbol, AP601 unknown regime. regime: train on the rows of that regime only (one of
regime.states, or a name of regime.mappings such as trending), by the hourly verdict known by as_of.';

create or replace function ml.cancel_job(job_id bigint)
returns text
language plpgsql volatile parallel unsafe security definer
set search_path = procrastinate, pg_catalog, pg_temp
as $$
declare
    v_job ml.training_jobs;
begin
    select * into v_job from ml.training_jobs j where j.job_id = cancel_job.job_id for update;
    if not found then
        raise exception 'unknown training job %', job_id
        using errcode = 'AP306', hint = 'select job_id, status from ml.jobs';
    end if;
    if v_job.status in ('succeeded', 'failed', 'cancelled') then
        return v_job.status;
    end if;
    perform procrastinate.procrastinate_cancel_job_v1(v_job.queue_job_id, true, false);
    if v_job.status = 'queued' then
        update ml.training_jobs j
        set status = 'cancelled', cancel_requested = true, finished_at = clock_timestamp(),
            message = format('cancelled by %s before it started', session_user)
        where j.job_id = cancel_job.job_id;
        return 'cancelled';
    end if;
    update ml.training_jobs j
    set cancel_requested = true, message = format('cancellation asked for by %s', session_user)
    where j.job_id = cancel_job.job_id;
    return 'cancelling';
end
$$;
comment on function ml.cancel_job(bigint) is
'Cancels a training job: a waiting one at once, a running one within seconds (its trainer asks at
every heartbeat, also while it fits). Returns cancelled, cancelling, or the status of a job that
has already ended. Errors: AP306 unknown job.';

create or replace procedure ml.train_all(
    models text [] default null, symbols text [] default null, options jsonb default '{}'
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_key record;
    v_job bigint;
begin
    for v_key in
        -- Models of texts are of no instrument: they are trained where they are named, once.
        select distinct m.model, case when l.task <> 'text' then s.symbol end as symbol
        from ml.models m
        join ml.labels l on l.label = m.label
        cross join (
            select market.resolve(u.symbol) as symbol from unnest(symbols) as u (symbol)
            union all
            select i.symbol from market.instruments i where symbols is null
        ) s
        where models is null and l.task <> 'text' or m.model = any (models)
        order by 1, 2
    loop
        v_job := null;
        call ml.retrain(v_key.model, v_key.symbol, options => train_all.options, job_id => v_job);
    end loop;
end
$$;
comment on procedure ml.train_all(text [], text [], jsonb) is
'Asks for training of every model (or those named) for every instrument (or those named). Jobs
that already wait are not doubled. Models of texts belong to no instrument: only where they are named
they are trained too, once. options as in ml.retrain.';

create or replace procedure ml.retrain_due()
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_key record;
    v_job bigint;
begin
    for v_key in
        select v.model, v.symbol, v.regime
        from ml.model_versions v
        join ml.models m on m.model = v.model
        where v.archived_at is null
            -- (a model whose policy is drift, or none, is not the clock's to train)
            and coalesce((ml._policy(v.model)).policy, 'clock') in ('clock', 'both')
        group by v.model, v.symbol, v.regime, m.training
        having max(v.as_of)
            < clock_timestamp() - coalesce((m.training ->> 'every')::interval, interval '1 day')
            -- where vectors are stored, some must be younger than what the newest version saw
            and coalesce(
                (
                    select max(w.through - s.grid)
                    from feature.watermarks w
                    join feature.sets s on s.set_id = w.set_id
                    join ml.models x on x.feature_set = s.name and x.feature_version = s.version
                    where x.model = v.model and (w.symbol = v.symbol or v.symbol is null)
                ) > max(v.as_of),
                true
            )
        order by max(v.as_of)
    loop
        if not exists (
            select from ml.training_jobs j
            where j.model = v_key.model
                and j.symbol is not distinct from v_key.symbol
                and j.regime is not distinct from v_key.regime
                and (
                    j.status in ('queued', 'running')
                    or j.status = 'failed' and j.finished_at > clock_timestamp() - interval '1 hour'
                )
        ) then
            v_job := null;
            call ml.retrain(v_key.model, v_key.symbol, v_key.regime, job_id => v_job);
        end if;
    end loop;
end
$$;
comment on procedure ml.retrain_due() is
'For the clock: asks for training of every line of versions (model, symbol, regime) whose newest
version''s as_of is older than the model''s training ->> ''every'' (1 day where it says nothing).
Lines with a job waiting, running, or failed within the last hour, or without data newer than their
newest version, are left alone.';
