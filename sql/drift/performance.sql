-- Performance: detectors on the outcome stream, and estimates before outcomes are there.

create or replace function drift._detect(
    state double precision [], losses double precision [], baseline double precision,
    threshold double precision,
    out new_state double precision [], out value double precision, out alarms integer []
)
language plpython3u immutable parallel safe
set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.drift import betting
    return betting.detect(state, losses, baseline, threshold)
$python$;
comment on function drift._detect(double precision [], double precision [], double precision, double precision) is
'An e-detector''s state after some losses (0 to 1), its value, and the places (from 0) of alarms.';

create or replace function drift.detect(
    losses double precision [], baseline double precision,
    run_length double precision default 11000
)
returns table (outcome integer)
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    if baseline is null or not (baseline > 0 and baseline < 1) or run_length is null
        or not (run_length > 1 and run_length < 'infinity') then
        raise exception 'the baseline must be between 0 and 1, the run length above 1'
        using errcode = 'AP638', hint = 'For instance drift.detect(errors, 0.4, 10000).';
    end if;
    return query
        select u.at + 1
        from drift._detect('{}', array_remove(losses, null), baseline, run_length) d
        cross join lateral unnest(d.alarms) as u (at);
end
$$;
comment on function drift.detect(double precision [], double precision, double precision) is
'The outcomes (from 1) at which a performance detector raises an alarm: losses from 0 to 1 by time,
whose mean is to be no higher than the baseline. Without a change the average number of outcomes until
an alarm is at least run_length, whatever their dependence; it starts anew after each. What the clock
does for every champion (drift.detectors). Errors: AP638 baseline or run length. Source: Shin, Ramdas
and Rinaldo (2024), E-detectors.';

create or replace function drift._baseline(
    version_id bigint, out metric text, out baseline double precision, out ceiling double precision
)
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select
        case when v.task = 'classification' then 'brier' else 'squared_error' end,
        case
            when v.task = 'classification'
                then greatest((m.found ->> 'brier_high')::float8, (m.found ->> 'brier')::float8)
            else greatest((m.found ->> 'rmse_high')::float8, (m.found ->> 'rmse')::float8) ^ 2 / c.ceiling
        end,
        c.ceiling
    from ml.model_versions v
    cross join lateral (select ml._loss_ceiling(v.version_id) as ceiling) c
    cross join lateral (select ml._validation(v.version_id) as found) m
    where v.version_id = $1
$$;
comment on function drift._baseline(bigint) is
'The loss of a version''s detector, and its mean that is no drift: the upper end of the interval of its
own validation figure.';

create or replace procedure drift.update_detectors(as_of timestamptz default null)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_now timestamptz := ops._moment(as_of);
    v_work record;
    v_found record;
    v_detector drift.detectors;
    v_new record;
    v_length double precision := (ops.setting('drift.run_length', '11000') #>> '{}')::float8;
begin
    for v_work in
        select w.version_id, w.model, p.symbol, b.metric, b.baseline, b.ceiling, w.grid, w.horizon
        from ml.shadowed w
        join ml.shadow_progress p on p.version_id = w.version_id
        cross join lateral drift._baseline(w.version_id) b
        where w.part = 'champion' and b.baseline > 0 and b.baseline < 1
        order by w.version_id, p.symbol
    loop
        insert into drift.detectors (version_id, symbol, metric, baseline, ceiling, state, threshold)
        values (
            v_work.version_id, v_work.symbol, v_work.metric, v_work.baseline, v_work.ceiling, '{}',
            v_length
        )
        on conflict on constraint detectors_pkey do nothing;
        select * into v_detector
        from drift.detectors d
        where d.version_id = v_work.version_id and d.symbol = v_work.symbol
            and d.metric = v_work.metric
        for update;
        select array_agg(l.loss order by l.ts) as losses, array_agg(l.ts order by l.ts) as times
        into v_new
        from (
            select
                p.ts,
                least(1, (p.prediction - p.target) ^ 2 / v_work.ceiling) as loss
            from ml.shadow_predictions p
            where p.version_id = v_work.version_id and p.symbol = v_work.symbol
                and p.target is not null and p.ts + v_work.horizon <= v_now
                and p.ts > coalesce(v_detector.last_ts, '-infinity')
                and public.time_bucket(ml._spacing(v_work.version_id), p.ts) = p.ts
        ) l;
        continue when v_new.times is null;
        select * into v_found
        from drift._detect(
            v_detector.state, v_new.losses, v_detector.baseline, v_detector.threshold
        );
        update drift.detectors d
        set state = v_found.new_state, value = v_found.value,
            outcomes = d.outcomes + cardinality(v_new.times),
            loss_sum = d.loss_sum + (select sum(x) from unnest(v_new.losses) as x),
            last_ts = v_new.times[cardinality(v_new.times)],
            alarms = d.alarms + cardinality(v_found.alarms),
            last_alarm_at = coalesce(v_new.times[v_found.alarms[cardinality(v_found.alarms)] + 1], d.last_alarm_at)
        where d.version_id = v_work.version_id and d.symbol = v_work.symbol
            and d.metric = v_work.metric;
        if cardinality(v_found.alarms) > 0 then
            perform drift._performance_alert(
                v_work.version_id, v_work.symbol, v_new.times[v_found.alarms[1] + 1]
            );
        end if;
    end loop;
end
$$;
comment on procedure drift.update_detectors(timestamptz) is
'For the clock: shows the detectors of every champion the outcomes that arrived since (those that do
not overlap), and raises an alert of kind performance where one fires.';

create or replace function drift._performance_alert(version_id bigint, symbol text, ts timestamptz)
returns bigint
language plpgsql volatile parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
declare
    v_version ml.model_versions := ml._version(version_id);
    v_recent double precision;
    v_excess double precision;
    v_severity text;
    v_detector drift.detectors;
begin
    select * into v_detector from drift.detectors d
    where d.version_id = _performance_alert.version_id and d.symbol = _performance_alert.symbol
    order by d.metric limit 1;
    select avg(least(1, (p.prediction - p.target) ^ 2 / v_detector.ceiling)) into v_recent
    from (
        select s.prediction, s.target
        from ml.shadow_predictions s
        where s.version_id = _performance_alert.version_id and s.symbol = _performance_alert.symbol
            and s.ts <= _performance_alert.ts and s.target is not null
        order by s.ts desc
        limit 500
    ) p;
    v_excess := v_recent / v_detector.baseline - 1;
    -- It is no doubt that there is a drift: how much it costs says how bad it is.
    v_severity := case
        when v_excess >= 0.5 then 'critical' when v_excess >= 0.1 then 'high' else 'medium'
    end;
    return drift._raise(
        'performance', version_id, _performance_alert.symbol, v_severity, v_excess, null, null, ts,
        format(
            '%s of %s for %s is %s over its last outcomes, above %s of its validation',
            replace(v_detector.metric, '_', ' '), v_version.model, _performance_alert.symbol,
            round(v_recent::numeric, 4), round(v_detector.baseline::numeric, 4)
        ),
        jsonb_build_object(
            'metric', v_detector.metric, 'recent', v_recent, 'baseline', v_detector.baseline,
            'outcomes', v_detector.outcomes
        )
    );
end
$$;
comment on function drift._performance_alert(bigint, text, timestamptz) is
'Raises the alert of a detector that fired.';

create or replace function drift._expected(version_id bigint, symbol text, "from" timestamptz, "to" timestamptz)
returns table (
    metric text, estimate double precision, predictions bigint, realised double precision,
    outcomes bigint
)
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    with p as materialized (
        select
            s.prediction, s.target, v.task,
            least(greatest(s.prediction, 1e-15), 1 - 1e-15) as c,
            coalesce(
                drift._expected_square(v.version_id, s.symbol, s.prediction),
                (ml._validation(v.version_id) ->> 'rmse')::float8 ^ 2
            ) as square
        from ml.shadow_predictions s
        join ml.model_versions v on v.version_id = s.version_id
        where s.version_id = $1 and s.symbol = $2 and s.ts >= $3 and s.ts < $4
    ),
    -- Each prediction against all with a smaller one, ties half: the chance that a positive
    -- outranks a negative.
    ranked as (
        select
            p.c, p.target,
            sum(1 - p.c) over (order by p.prediction groups between unbounded preceding and 1 preceding) as below,
            sum(1 - p.c) over (order by p.prediction groups current row) as beside,
            count(*) filter (where p.target = 0) over (order by p.prediction groups between unbounded preceding and 1 preceding) as negatives_below,
            count(*) filter (where p.target = 0) over (order by p.prediction groups current row) as negatives_beside
        from p
        where p.task = 'classification'
    )
    select m.metric, m.estimate, m.predictions, m.realised, m.outcomes
    from (
        select
            count(*) as predictions, count(p.target) as outcomes,
            avg(greatest(p.c, 1 - p.c)) as accuracy,
            avg(((p.c >= 0.5)::integer = p.target)::integer) as accuracy_real,
            avg(p.c * (1 - p.c)) as brier, avg((p.c - p.target) ^ 2) as brier_real,
            avg(-p.c * ln(p.c) - (1 - p.c) * ln(1 - p.c)) as log_loss,
            avg(-p.target * ln(p.c) - (1 - p.target) * ln(1 - p.c)) as log_loss_real
        from p
        where p.task = 'classification'
        having count(*) > 0
    ) c
    cross join lateral (
        select
            sum(r.c * (coalesce(r.below, 0) + (r.beside - (1 - r.c)) / 2))
            / nullif(sum(r.c) * sum(1 - r.c) - sum(r.c * (1 - r.c)), 0) as auc,
            sum(r.target * (r.negatives_below + r.negatives_beside / 2.0))
            / nullif(sum(r.target) * count(*) filter (where r.target = 0), 0) as auc_real
        from ranked r
    ) a
    cross join lateral (
        values
        ('accuracy', c.accuracy, c.predictions, c.accuracy_real::float8, c.outcomes),
        ('brier', c.brier, c.predictions, c.brier_real, c.outcomes),
        ('log_loss', c.log_loss, c.predictions, c.log_loss_real, c.outcomes),
        ('auc', a.auc, c.predictions, a.auc_real::float8, c.outcomes)
    ) as m (metric, estimate, predictions, realised, outcomes)
    union all
    select 'squared_error', avg(p.square), count(*), avg((p.prediction - p.target) ^ 2), count(p.target)
    from p
    where p.task = 'regression'
    having count(*) > 0
$$;
comment on function drift._expected(bigint, text, timestamptz, timestamptz) is
'Performance estimated from predictions alone, and what it was where outcomes are known. Of classes by
their calibrated probabilities (confidence-based performance estimation); of values by what
predictions of that size were wrong by on held-out rows.';

create or replace function drift._expected_square(version_id bigint, symbol text, prediction double precision)
returns double precision
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    -- (a bin holds its upper edge)
    select r.squares[1 + (select count(*) from unnest(r.edges) as e where e < $3)]
    from drift.reference_features r
    where r.version_id = $1 and r.symbol = $2 and r.kind = 'score' and r.squares is not null
$$;
comment on function drift._expected_square(bigint, text, double precision) is
'Mean squared error of held-out predictions of about this size; null where none are stored.';

create or replace procedure drift.update_estimates(as_of timestamptz default null)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_now timestamptz := ops._moment(as_of);
    v_work record;
begin
    for v_work in
        select w.version_id, p.symbol, d.ts
        from ml.shadowed w
        join ml.shadow_progress p on p.version_id = w.version_id
        cross join lateral (
            select distinct public.time_bucket(interval '1 day', s.ts) as ts
            from ml.shadow_predictions s
            where s.version_id = w.version_id and s.symbol = p.symbol
                and s.ts > least(v_now, p.through) - interval '8 days'
        ) d
        -- A day whose outcomes are all there does not change any more.
        where not exists (
            select from drift.estimates e
            where e.version_id = w.version_id and e.symbol = p.symbol and e.ts = d.ts
                and e.outcomes = e.predictions and d.ts + interval '1 day' <= p.through
        )
    loop
        insert into drift.estimates as e (
            version_id, symbol, ts, metric, estimate, predictions, realised, outcomes
        )
        select v_work.version_id, v_work.symbol, v_work.ts, x.metric, x.estimate, x.predictions,
            x.realised, x.outcomes
        from drift._expected(
            v_work.version_id, v_work.symbol, v_work.ts, v_work.ts + interval '1 day'
        ) x
        on conflict on constraint estimates_pkey do update
        set estimate = excluded.estimate, predictions = excluded.predictions,
            realised = excluded.realised, outcomes = excluded.outcomes,
            updated_at = clock_timestamp();
    end loop;
end
$$;
comment on procedure drift.update_estimates(timestamptz) is
'For the clock: estimates the performance of the last days, and writes beside it what it was once the
outcomes are known.';

create or replace function drift.estimated_performance(
    model text, symbol text default null, days integer default 7, as_of timestamptz default null
)
returns table (
    ts timestamptz, version_id bigint, symbol text, metric text, estimate double precision,
    predictions bigint, realised double precision, outcomes bigint
)
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select e.ts, e.version_id, e.symbol, e.metric, e.estimate, e.predictions, e.realised, e.outcomes
    from drift.estimates e
    join ml.model_versions v on v.version_id = e.version_id
    where v.model = $1 and ($2 is null or e.symbol = market.resolve($2))
        and e.ts > ops._before(coalesce($4, now()), $3 * 86400.0)
    order by e.ts desc, e.version_id, e.symbol, e.metric
$$;
comment on function drift.estimated_performance(text, text, integer, timestamptz) is
'How good a model''s versions are, day by day: estimated before outcomes are known, and realised once
they are. Errors: AP101, AP102 symbol.';

create or replace function drift.calibration(
    model text, symbol text default null, segment_by text default 'score',
    "window" interval default interval '7 days', as_of timestamptz default null,
    version bigint default null
)
returns table (
    segment text, n bigint, predicted double precision, observed double precision,
    difference double precision, p_value double precision, p_adjusted double precision,
    version_id bigint
)
language plpgsql stable parallel restricted
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    v_to timestamptz := coalesce(as_of, now());
    v_from timestamptz := drift._window_start(v_to, "window");
    v_which record := drift._checked_version(model, symbol, version);
    v_spacing interval := ml._spacing(v_which.version_id);
    v_reference drift.reference_features;
    v_set integer;
begin
    if segment_by is distinct from 'score' then
        select r.* into v_reference
        from drift.reference_features r
        where r.version_id = v_which.version_id and r.feature = segment_by and r.kind = 'feature'
        limit 1;
        if not found then
            raise exception 'no segment %', coalesce(quote_literal(segment_by), 'null')
            using errcode = 'AP639', hint = 'score, or one of the version''s features.';
        end if;
    end if;
    select b.set_id into v_set
    from drift.version_references r
    join drift.binnings b on b.binning_id = r.binning_id
    where r.version_id = v_which.version_id;
    return query
        with rows as (
            select
                case
                    when v_reference.version_id is null
                        then width_bucket(s.prediction, array[0.1, 0.2, 0.4, 0.6, 0.8])
                    else width_bucket(v.values[v_reference.ordinal], v_reference.quantiles[4:6])
                end as part,
                s.prediction, s.target
            from ml.shadow_predictions s
            left join feature.vectors v
                on v_reference.version_id is not null and v.set_id = v_set
                and v.symbol = s.symbol and v.ts = s.ts
            where s.version_id = v_which.version_id and s.symbol = any (v_which.symbols)
                and s.ts >= v_from and s.ts < v_to and s.target is not null
                and public.time_bucket(v_spacing, s.ts) = s.ts
        ),
        parts as (
            select r.part, count(*) as n, avg(r.prediction) as predicted, avg(r.target) as observed,
                sum(r.target - r.prediction) as excess,
                case when bool_and(r.prediction between 0 and 1)
                    then sum(r.prediction * (1 - r.prediction))
                    else count(*) * var_samp(r.target - r.prediction) end as variance
            from rows r
            where r.part is not null
            group by r.part
        ),
        tested as (
            select p.*, case when p.variance > 0
                then erfc(abs(p.excess) / sqrt(2 * p.variance)) end as p_value
            from parts p
        ),
        adjusted as (
            select drift.by(array_agg(t.p_value order by t.part)) as p, array_agg(t.part order by t.part) as part
            from tested t
        )
        select
            case when v_reference.version_id is null
                then (array[
                    'below 0.1', '0.1 to 0.2', '0.2 to 0.4', '0.4 to 0.6', '0.6 to 0.8', '0.8 and above'
                ])[t.part + 1]
                else format('%s: quarter %s of its reference', segment_by, t.part + 1)
            end,
            t.n, t.predicted, t.observed, t.observed - t.predicted, t.p_value,
            a.p[array_position(a.part, t.part)], v_which.version_id
        from tested t
        cross join adjusted a
        order by t.part;
end
$$;
comment on function drift.calibration(text, text, text, interval, timestamptz, bigint) is
'Calibration by segment: what a model''s champion (or another version) predicted in the window before
as_of, and what came about, in segments of the score or by the quarters of a feature''s reference. A
difference that stays where the features have not drifted is a change of what follows from them
(concept drift). p_value: of right probabilities (of values: of no bias), at outcomes that do not
overlap; p_adjusted: over the segments (Benjamini and Yekutieli). Errors: AP101, AP102 symbol, AP302
unknown model, AP505 no champion, AP636 no reference, AP637 no window, AP639 no such segment.';
