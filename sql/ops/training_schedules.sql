-- When models are trained: schedules as rows, run by one entry of the clock.

create or replace procedure ops.run_training_schedules(at timestamptz default null)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_at timestamptz := ops._moment(at);
    v_work record;
    v_due timestamptz;
    v_next timestamptz;
    v_missed integer;
    v_free integer;
    v_job bigint;
    v_before bigint;
    v_symbol text;
    v_error text;
begin
    -- Two at once would queue the same twice.
    perform ops._lock('ops:training_schedules');
    if (ops.setting('training.schedules_on', 'false') #>> '{}')::boolean then
        for v_work in
            select s.schedule_id, s.name, s.cron, greatest(s.updated_at, r.due_at) as since
            from ops.training_schedules s
            left join lateral (
                select max(x.due_at) as due_at
                from ops.training_runs x where x.schedule_id = s.schedule_id
            ) r on true
            where s.enabled
            order by s.schedule_id
        loop
            begin
                v_due := ops.cron_last_due(v_work.cron, v_at);
                continue when v_due is null or v_due <= v_work.since;
                -- However often it was missed, it is one run: of the last time it was due.
                v_missed := 0;
                v_next := v_due;
                while v_missed < 1000 loop
                    v_next := ops.cron_last_due(v_work.cron, v_next - interval '1 minute');
                    exit when v_next is null or v_next <= v_work.since;
                    v_missed := v_missed + 1;
                end loop;
                update ops.training_runs r
                set due_at = v_due, missed = r.missed + 1 + v_missed
                where r.schedule_id = v_work.schedule_id and r.status = 'waiting';
                if not found then
                    insert into ops.training_runs (schedule_id, due_at, missed)
                    values (v_work.schedule_id, v_due, v_missed);
                end if;
            exception when others then
                -- One that cannot be read does not keep the others from theirs.
                get stacked diagnostics v_error = message_text;
                perform ops.raise_alert(
                    'training', 'medium', 'training schedule:' || v_work.name,
                    format('when training schedule %s is due cannot be told: %s', v_work.name, v_error)
                );
            end;
        end loop;
    end if;

    select (ops.setting('training.max_concurrent', '2') #>> '{}')::integer - count(*)
    into v_free
    from ml.training_jobs j
    where j.status in ('queued', 'running');
    for v_work in
        select r.run_id, s.name, s.model, s.symbol, s.regime, s.options
        from ops.training_runs r
        join ops.training_schedules s on s.schedule_id = r.schedule_id
        where r.status = 'waiting' and s.enabled
        order by r.due_at, r.run_id
    loop
        exit when v_free <= 0;
        v_job := null;
        begin
            v_symbol := case when v_work.symbol is not null then market.resolve(v_work.symbol) end;
            select j.job_id into v_before
            from ml.training_jobs j
            where j.model = v_work.model and j.symbol is not distinct from v_symbol
                and j.regime is not distinct from v_work.regime
                and j.status in ('queued', 'running')
            order by j.job_id
            limit 1;
            if found then
                update ops.training_runs r
                set status = 'skipped', job_id = v_before,
                    detail = format('job %s is at it already', v_before)
                where r.run_id = v_work.run_id;
                continue;
            end if;
            call ml.retrain(
                v_work.model, v_work.symbol, v_work.regime, options => v_work.options, job_id => v_job
            );
            update ops.training_runs r
            set status = 'queued', job_id = v_job
            where r.run_id = v_work.run_id;
            v_free := v_free - 1;
        exception when others then
            get stacked diagnostics v_error = message_text;
            update ops.training_runs r
            set status = 'failed', detail = left(v_error, 1000)
            where r.run_id = v_work.run_id;
            perform ops.raise_alert(
                'training', 'medium', 'training schedule:' || v_work.name,
                format('training schedule %s could not be run: %s', v_work.name, v_error),
                symbol => v_work.symbol, model => v_work.model
            );
        end;
    end loop;
end
$$;
comment on procedure ops.run_training_schedules(timestamptz) is
'For the clock, every minute: asks for the trainings that are due by ops.training_schedules (where the
setting training.schedules_on is true). Times missed while nothing ran are one run; what waits or runs
already is not queued twice; at most training.max_concurrent trainings are queued or running at once,
the others wait in ops.training_runs. A schedule whose job is refused raises an alert.';

create or replace procedure ops.set_training_schedule(
    name text, cron text default null, model text default null, symbol text default null,
    regime text default null, enabled boolean default null, options jsonb default null,
    description text default null
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    v_old ops.training_schedules;
begin
    if cron is not null then
        perform ops.cron_last_due(cron, clock_timestamp());
    end if;
    select * into v_old from ops.training_schedules s where s.name = set_training_schedule.name;
    if v_old.schedule_id is null and (
        coalesce(btrim(name), '') = '' or cron is null or model is null
    ) then
        raise exception 'a training schedule needs a name, a cron expression and a model'
        using errcode = 'AP644',
            hint = 'call ops.set_training_schedule(''BTC nightly'', ''0 2 * * *'', ''liquidation_15m'', ''BTCUSDT'')';
    end if;
    if model is not null and not exists (select from ml.models m where m.model = set_training_schedule.model) then
        raise exception 'unknown model %', quote_literal(model)
        using errcode = 'AP302', hint = 'select model from ml.models';
    end if;
    if symbol is not null then
        perform market.resolve(symbol);
    end if;
    if jsonb_typeof(options) <> 'object' then
        raise exception 'the options of a training schedule are an object'
        using errcode = 'AP646', hint = 'As of ml.retrain, for instance ''{"folds": 4}''.';
    end if;
    if v_old.schedule_id is null then
        insert into ops.training_schedules (name, model, symbol, regime, cron, enabled, options, description)
        values (
            name, model, symbol, regime, cron, coalesce(enabled, true), coalesce(options, '{}'),
            coalesce(description, '')
        );
    else
        update ops.training_schedules s
        set cron = coalesce(set_training_schedule.cron, s.cron),
            model = coalesce(set_training_schedule.model, s.model),
            symbol = coalesce(set_training_schedule.symbol, s.symbol),
            regime = coalesce(set_training_schedule.regime, s.regime),
            enabled = coalesce(set_training_schedule.enabled, s.enabled),
            options = coalesce(set_training_schedule.options, s.options),
            description = coalesce(set_training_schedule.description, s.description),
            updated_at = clock_timestamp(), updated_by = session_user
        where s.schedule_id = v_old.schedule_id;
    end if;
end
$$;
comment on procedure ops.set_training_schedule(text, text, text, text, text, boolean, jsonb, text) is
'Adds a training schedule, or changes what is given of one: enabled => false pauses it. Delete its row
to remove it. Errors: AP101, AP102 symbol, AP302 unknown model, AP644 name, cron or model
missing, AP646 options, AP703 no cron expression.';

create or replace function ops.training_calendar(
    "from" timestamptz default null, "to" timestamptz default null
)
returns table (
    at timestamptz, schedule text, model text, symbol text, regime text, status text, missed integer,
    job_id bigint, version_id bigint, detail text
)
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select
        r.due_at, s.name, s.model, s.symbol, s.regime,
        case when r.status = 'queued' then coalesce(j.status, r.status) else r.status end,
        r.missed, r.job_id, v.version_id, coalesce(r.detail, j.error, j.message)
    from ops.training_runs r
    join ops.training_schedules s on s.schedule_id = r.schedule_id
    left join ml.training_jobs j on j.job_id = r.job_id
    left join ml.model_versions v on v.job_id = r.job_id
    where r.due_at >= coalesce($1, now() - interval '1 day') and r.due_at < coalesce($2, now() + interval '1 day')
    union all
    select n.due, s.name, s.model, s.symbol, s.regime,
        case when (ops.setting('training.schedules_on', 'false') #>> '{}')::boolean
            then 'to come' else 'switched off' end,
        0, null, null, null
    from ops.training_schedules s
    cross join lateral (
        with recursive next (due, n) as (
            select ops.cron_next_due(s.cron, greatest(now(), coalesce($1, now()))), 1
            union all
            select ops.cron_next_due(s.cron, x.due), x.n + 1
            from next x
            where x.due < coalesce($2, now() + interval '1 day') and x.n < 100
        )
        select x.due from next x
        where x.due < coalesce($2, now() + interval '1 day')
    ) n
    where s.enabled
    order by 1, 2
$$;
comment on function ops.training_calendar(timestamptz, timestamptz) is
'What is trained when, and whether it was (default: a day back and a day ahead): times that were due
with what became of them (waiting, queued, running, succeeded, failed, cancelled, skipped), and times
to come (at most 100 of a schedule; switched off: the setting training.schedules_on is false).';

-- The seeds' jobs, for the models that are there; they run where training.schedules_on is true.
insert into ops.training_schedules (name, model, symbol, regime, cron, description)
values
('BTCUSDT trending', 'direction_15m', 'BTCUSDT', 'trending', '0 3 * * *', 'The seeds'' daily job.'),
('BTCUSDT sideways', 'direction_15m', 'BTCUSDT', 'sideways', '0 4 * * *', 'The seeds'' daily job.'),
('BTCUSDT volatile', 'direction_15m', 'BTCUSDT', 'volatile', '0 5 * * *', 'The seeds'' daily job.'),
('BTCUSDT consolidation', 'direction_15m', 'BTCUSDT', 'consolidation', '0 6 * * *', 'The seeds'' daily job.'),
('ETHUSDT trending', 'direction_15m', 'ETHUSDT', 'trending', '0 7 * * *', 'The seeds'' daily job.'),
('ETHUSDT sideways', 'direction_15m', 'ETHUSDT', 'sideways', '0 8 * * *', 'The seeds'' daily job.'),
('liquidation predictor BTC', 'liquidation_15m', 'BTCUSDT', null, '0 2 * * *', 'The seeds'' liquidation_predictor_BTC/USDT.'),
('liquidation predictor ETH', 'liquidation_15m', 'ETHUSDT', null, '0 3 * * *', 'The seeds'' liquidation_predictor_ETH/USDT.'),
('order book forecaster', 'order_book_imbalance_1m', null, null, '0 */6 * * *', 'The seeds'' order_book_forecaster, every six hours.')
on conflict (name) do nothing;
