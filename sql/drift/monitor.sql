-- Monitoring: checks that are written down, alerts, and what is done about them.

create or replace function drift._raise(
    kind text, version_id bigint, symbol text, severity text, score double precision,
    first_feature text, check_id bigint, ts timestamptz, message text, payload jsonb
)
returns bigint
language plpgsql volatile parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
declare
    v_version ml.model_versions := ml._version(version_id);
    v_alert bigint;
    v_drift bigint;
    v_payload jsonb;
begin
    v_payload := payload || jsonb_build_object(
        'version_id', version_id, 'kind', kind, 'score', score, 'first_feature', first_feature
    );
    select r.alert_id into v_alert
    from ops.raise_alert(
        'drift', severity,
        format('drift:%s:%s:%s', v_version.model, coalesce(symbol, '*'), kind),
        message, v_payload, ts, symbol, v_version.model
    ) r;
    insert into drift.alerts (
        kind, version_id, model, symbol, severity, score, first_feature, check_id, alert_id, payload
    )
    values (
        _raise.kind, _raise.version_id, v_version.model, _raise.symbol, _raise.severity,
        _raise.score, _raise.first_feature, _raise.check_id, v_alert, v_payload
    )
    returning drift_id into v_drift;
    perform drift._act(v_drift);
    return v_drift;
end
$$;
comment on function drift._raise(text, bigint, text, text, double precision, text, bigint, timestamptz, text, jsonb) is
'Writes a drift alert, raises it in the outbox, and decides what is done about it.';

-- Decides, and where that is to be at once, does.
create or replace function drift._act(drift_id bigint)
returns bigint
language plpgsql volatile parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
declare
    v_alert drift.alerts;
    v_version ml.model_versions;
    v_policy ml.retraining_policies;
    v_action text;
    v_outcome text;
    v_due timestamptz := clock_timestamp();
    v_id bigint;
    v_before record;
begin
    select * into v_alert from drift.alerts a where a.drift_id = _act.drift_id;
    v_version := ml._version(v_alert.version_id);
    v_policy := ml._policy(v_alert.model);
    v_action := (array['record', 'watch', 'schedule', 'retrain'])[
        array_position(array['low', 'medium', 'high', 'critical'], v_alert.severity)
    ];
    if v_action in ('record', 'watch')
        and v_policy.policy in ('drift', 'both')
        and ops._severity_rank(v_alert.severity) >= ops._severity_rank(v_policy.min_severity) then
        v_action := 'schedule';
    end if;
    if v_action in ('schedule', 'retrain') then
        perform ml._lock_key(v_version.model, v_version.symbol, v_version.regime);
        select a.action_id, a.at, a.job_id into v_before
        from drift.actions a
        join drift.alerts d on d.drift_id = a.drift_id
        join ml.model_versions v on v.version_id = d.version_id
        where a.action in ('schedule', 'retrain')
            and v.model = v_version.model and v.symbol is not distinct from v_version.symbol
            and v.regime is not distinct from v_version.regime
            and a.at > clock_timestamp() - coalesce(
                v_policy.cooldown, ops.setting_interval('drift.cooldown', interval '1 day')
            )
        order by a.action_id desc
        limit 1;
        if coalesce(v_policy.policy, 'clock') not in ('drift', 'both') then
            v_action := 'suppressed';
            v_outcome := format('the policy of %s is %s: it is trained by its schedule',
                v_alert.model, coalesce(v_policy.policy, 'clock'));
        elsif ops._severity_rank(v_alert.severity) < ops._severity_rank(v_policy.min_severity) then
            v_action := 'suppressed';
            v_outcome := format('below %s, from which on drift asks for a retraining', v_policy.min_severity);
        elsif v_before.action_id is not null then
            v_action := 'suppressed';
            v_outcome := format('action %s of %s asked for a retraining of it already',
                v_before.action_id, date_trunc('second', v_before.at));
        end if;
    end if;
    if v_action = 'schedule' then
        v_due := drift._next_slot(v_version.model, v_version.symbol, v_due);
    end if;
    insert into drift.actions (drift_id, action, due_at, state, outcome, finished_at)
    values (
        _act.drift_id, v_action, v_due,
        case when v_action in ('schedule', 'retrain') then 'open' else 'done' end,
        coalesce(v_outcome, case v_action when 'record' then 'written down' when 'watch' then 'told' end),
        case when v_action not in ('schedule', 'retrain') then clock_timestamp() end
    )
    returning action_id into v_id;
    if v_action = 'retrain' then
        perform drift._do(v_id);
    end if;
    return v_id;
end
$$;
comment on function drift._act(bigint) is
'What is done about a drift alert: low: written down; medium: told; high: retraining at the next slot;
critical: retraining now. Not where the model''s policy leaves retraining to the clock, nor twice
within the cooldown.';

create or replace function drift._next_slot(model text, symbol text, after timestamptz)
returns timestamptz
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(
        (
            select min(n.due)
            from ops.training_schedules s
            cross join lateral ops.cron_next_due(s.cron, $3) as n (due)
            where s.enabled and s.model = $1
                and (s.symbol is null or $2 is null or s.symbol = $2)
        ),
        -- Without one: the night's first hour of training.
        public.time_bucket(interval '1 day', $3) + interval '1 day 2 hours'
    )
$$;
comment on function drift._next_slot(text, text, timestamptz) is
'When a model is next trained by its schedules; without one, at 02:00 of the next day (UTC).';

create or replace function drift._do(action_id bigint)
returns void
language plpgsql volatile parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
declare
    v_version ml.model_versions;
    v_job bigint;
    v_error text;
begin
    select v.* into v_version
    from drift.actions a
    join drift.alerts d on d.drift_id = a.drift_id
    join ml.model_versions v on v.version_id = d.version_id
    where a.action_id = _do.action_id;
    begin
        call ml.retrain(v_version.model, v_version.symbol, v_version.regime, job_id => v_job);
        update drift.actions a
        set state = 'running', job_id = v_job, outcome = format('asked for by job %s', v_job)
        where a.action_id = _do.action_id;
    exception when others then
        get stacked diagnostics v_error = message_text;
        update drift.actions a
        set state = 'failed', outcome = v_error, finished_at = clock_timestamp()
        where a.action_id = _do.action_id;
    end;
end
$$;
comment on function drift._do(bigint) is 'Asks for the retraining that an action is.';

create or replace procedure drift.act()
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_action record;
begin
    for v_action in
        select a.action_id
        from drift.actions a
        where a.state = 'open' and a.due_at <= clock_timestamp()
        order by a.due_at
        for update skip locked
    loop
        perform drift._do(v_action.action_id);
    end loop;
    -- What came of those whose job is over.
    update drift.actions a
    set state = case j.status when 'succeeded' then 'done' else 'failed' end,
        version_id = v.version_id,
        outcome = case j.status
            when 'succeeded' then format('job %s made version %s: %s', j.job_id, v.version_id,
                coalesce(
                    (
                        select format('%s: %s', d.decision, d.reason)
                        from ml.decisions d
                        where d.version_id = v.version_id
                        order by d.decision_id desc limit 1
                    ),
                    j.message
                ))
            else format('job %s %s: %s', j.job_id, j.status, coalesce(j.error, j.message))
        end,
        finished_at = j.finished_at
    from ml.training_jobs j
    left join ml.model_versions v on v.job_id = j.job_id
    where a.state = 'running' and j.job_id = a.job_id
        and j.status in ('succeeded', 'failed', 'cancelled');
end
$$;
comment on procedure drift.act() is
'For the clock: asks for the retrainings of drift alerts whose slot has come, and writes down what came
of those asked for.';

create or replace function drift._monitor(
    version_id bigint, symbol text, "from" timestamptz, "to" timestamptz
)
returns bigint
language plpgsql volatile parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
declare
    v_version ml.model_versions := ml._version(version_id);
    v_symbols text [] := array[symbol];
    v_check bigint;
    v_found record;
    v_named text;
begin
    insert into drift.checks (
        version_id, model, symbol, ts_from, ts_to, row_count, features, drifted, score
    )
    values (version_id, v_version.model, symbol, "from", "to", 0, 0, 0, 0)
    returning check_id into v_check;
    insert into drift.details (
        check_id, feature, kind, ks, psi, js, wasserstein, chi2, null_share, reference_null_share,
        n, n_effective, p_value, p_adjusted, drifted, severity, effect, blame
    )
    select
        v_check, c.feature, c.kind, c.ks, c.psi, c.js, c.wasserstein, c.chi2, c.null_share,
        c.reference_null_share, c.n, c.n_effective, c.p_value, c.p_adjusted, c.drifted, c.severity,
        c.effect, c.blame
    from drift._check(
        version_id, v_symbols, drift._micros("from"), drift._micros("to"),
        drift._options(v_version.model)
    ) c;
    select
        coalesce(max(d.n), 0) as rows, count(*) as features, count(*) filter (where d.drifted) as drifted,
        coalesce(max(d.effect) filter (where d.drifted), 0) as score,
        (array['low', 'medium', 'high', 'critical'])[max(
            array_position(array['low', 'medium', 'high', 'critical'], d.severity)
        )] as severity,
        (array_agg(d.feature order by d.blame desc nulls last, d.effect desc) filter (where d.drifted))[1] as first,
        (array_agg(
            format('%s (KS %s)', d.feature, round(d.effect::numeric, 3))
            order by d.blame desc nulls last, d.effect desc
        ) filter (where d.drifted))[1:3] as named
    into v_found
    from drift.details d
    where d.check_id = v_check;
    update drift.checks c
    set row_count = v_found.rows, features = v_found.features, drifted = v_found.drifted,
        severity = v_found.severity, score = v_found.score, first_feature = v_found.first
    where c.check_id = v_check;
    if v_found.severity is not null then
        v_named := array_to_string(v_found.named, ', ');
        perform drift._raise(
            'data', version_id, symbol, v_found.severity, v_found.score, v_found.first, v_check, "to",
            format(
                '%s of %s features of %s for %s drifted from the reference of version %s, first %s',
                v_found.drifted, v_found.features, v_version.model, symbol, version_id, v_named
            ),
            jsonb_build_object('check_id', v_check, 'drifted', v_found.drifted, 'window', jsonb_build_array("from", "to"))
        );
    end if;
    return v_check;
end
$$;
comment on function drift._monitor(bigint, text, timestamptz, timestamptz) is
'One check of one version and symbol, written down, with its alert.';

create or replace procedure drift.refresh(as_of timestamptz default null)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    call drift.take_references();
    call ml.record_shadows(as_of);
    call ml.join_shadow_outcomes(as_of);
    call drift.refresh_histograms();
    call drift.update_detectors(as_of);
    call drift.update_estimates(as_of);
end
$$;
comment on procedure drift.refresh(timestamptz) is
'For the clock: takes references of new versions, records shadow predictions and their outcomes,
counts the hours that are over, shows outcomes to the detectors and estimates performance.';

create or replace procedure drift.monitor(as_of timestamptz default null)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_to timestamptz := ops._moment(as_of);
    v_window interval := ops.setting_interval('drift.window', interval '1 day');
    v_work record;
    v_last timestamptz;
    v_error text;
begin
    begin
        call drift.refresh(as_of);
    exception when others then
        get stacked diagnostics v_error = message_text;
        perform ops.raise_alert(
            'monitoring', 'high', 'drift refresh', format('keeping the distributions failed: %s', v_error)
        );
    end;
    for v_work in
        select w.version_id, w.model, w.set_id, y.symbol
        from ml.shadowed w
        join drift.version_references r on r.version_id = w.version_id and r.binning_id is not null
        cross join lateral unnest(r.symbols) as y (symbol)
        where w.part = 'champion'
        order by w.model, y.symbol
    loop
        select m.through into v_last
        from feature.watermarks m
        where m.set_id = v_work.set_id and m.symbol = v_work.symbol;
        -- What arrives no more is ops.health's to tell; an hour's rows are checked once.
        continue when v_last is null or v_last < v_to - v_window
            or exists (
                select from drift.checks c
                where c.version_id = v_work.version_id and c.symbol = v_work.symbol
                    and c.ts_to = least(v_to, v_last)
            );
        begin
            perform drift._monitor(
                v_work.version_id, v_work.symbol,
                drift._window_start(least(v_to, v_last), v_window), least(v_to, v_last)
            );
        exception when others then
            get stacked diagnostics v_error = message_text;
            perform ops.raise_alert(
                'monitoring', 'high', format('drift check:%s:%s', v_work.model, v_work.symbol),
                format('the drift check of %s for %s failed: %s', v_work.model, v_work.symbol, v_error),
                symbol => v_work.symbol, model => v_work.model
            );
        end;
    end loop;
    call drift.act();
end
$$;
comment on procedure drift.monitor(timestamptz) is
'For the clock, every hour: checks every champion for each of its symbols over drift.window, writes
drift.checks and drift.details, raises drift.alerts (and ops.alerts, announced by one NOTIFY) where
something drifted, and acts on them by the models'' policies (drift.actions). One check that fails
raises an alert of its own and does not keep the others from theirs.';

create or replace function drift.summary(days integer default 7, as_of timestamptz default null)
returns table (
    model text, symbol text, checks bigint, with_drift bigint, worst text,
    largest_effect double precision, first_feature text, performance_alerts bigint,
    retrainings bigint, suppressed bigint, last_check timestamptz
)
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select
        c.model, c.symbol, count(*), count(*) filter (where c.severity is not null),
        (array['low', 'medium', 'high', 'critical'])[max(
            array_position(array['low', 'medium', 'high', 'critical'], c.severity)
        )],
        max(c.score), mode() within group (order by c.first_feature) filter (where c.first_feature is not null),
        coalesce(max(a.performance), 0), coalesce(max(a.retrainings), 0),
        coalesce(max(a.suppressed), 0), max(c.at)
    from drift.checks c
    left join lateral (
        select
            count(*) filter (where d.kind = 'performance') as performance,
            count(*) filter (where x.action in ('schedule', 'retrain')) as retrainings,
            count(*) filter (where x.action = 'suppressed') as suppressed
        from drift.alerts d
        left join drift.actions x on x.drift_id = d.drift_id
        where d.model = c.model and d.symbol is not distinct from c.symbol
            and d.at > ops._before(coalesce($2, now()), $1 * 86400.0)
            and d.at <= coalesce($2, 'infinity')
    ) a on true
    where c.at > ops._before(coalesce($2, now()), $1 * 86400.0) and c.at <= coalesce($2, 'infinity')
    group by c.model, c.symbol
    order by max(c.score) desc, c.model, c.symbol
$$;
comment on function drift.summary(integer, timestamptz) is
'The checks of the last days by model and symbol: how many, how many found drift, the worst, the feature
to look at, alerts of performance, and retrainings asked for or kept back.';

create or replace function drift.history(
    model text, feature text default null, symbol text default null, days integer default 30
)
returns table (
    at timestamptz, ts_from timestamptz, ts_to timestamptz, version_id bigint, symbol text,
    feature text, ks double precision, psi double precision, js double precision,
    wasserstein double precision, p_adjusted double precision, drifted boolean, severity text,
    blame double precision
)
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select
        c.at, c.ts_from, c.ts_to, c.version_id, c.symbol, d.feature, d.ks, d.psi, d.js,
        d.wasserstein, d.p_adjusted, d.drifted, d.severity, d.blame
    from drift.checks c
    join drift.details d on d.check_id = c.check_id
    where c.model = $1 and ($3 is null or c.symbol = market.resolve($3))
        and ($2 is null or d.feature = $2)
        and c.at > ops._before(now(), $4 * 86400.0)
    order by c.at desc, d.blame desc nulls last, d.feature
$$;
comment on function drift.history(text, text, text, integer) is
'What the checks of the last days found of a model''s features (or of one), newest first. Errors: AP101,
AP102 symbol.';

create or replace function drift.blame(
    model text, symbol text default null, "window" interval default null,
    as_of timestamptz default null, version bigint default null
)
returns table (
    feature text, blame double precision, effect double precision, shap_share double precision,
    severity text
)
language sql stable parallel restricted
set search_path = pg_catalog, pg_temp
as $$
    select c.feature, c.blame, c.effect, r.share, c.severity
    from drift.check($1, $2, $3, $4, $5) c
    left join lateral (
        select avg(f.shap_share) as share
        from drift.reference_features f
        where f.version_id = c.version_id and f.kind = 'feature' and f.feature = c.feature
    ) r on true
    where c.drifted and c.kind = 'feature'
    order by c.blame desc, c.effect desc
$$;
comment on function drift.blame(text, text, interval, timestamptz, bigint) is
'The features that drifted, by how much that matters to the model: effect times SHAP share, as a share
of all of them. Arguments and errors as drift.check.';
