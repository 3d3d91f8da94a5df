-- Versions held against what happened: on any rows, and beside each other.

create or replace function ml._version_spec(version_id bigint)
returns table (
    kind text, horizon bigint, params jsonb, step bigint, set_id integer,
    definition text, set_kind text, k integer, noise jsonb, task text, spec jsonb
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    return query
        select
            l.kind, ops._micros(v.horizon), l.params, ops._micros(s.grid), s.set_id,
            feature._source(s), s.kind, cardinality(s.features), null::jsonb, v.task, v.spec
        from ml.model_versions v
        join ml.labels l on l.label = v.label
        join feature.sets s on s.name = v.feature_set and s.version = v.feature_version
        where v.version_id = _version_spec.version_id;
end
$$;
comment on function ml._version_spec(bigint) is
'How the rows of a version are made: its own label, horizon and feature set, whatever its model says now.';

create or replace function ml._evaluated(
    version_id bigint, symbols text [], start bigint, stop bigint, as_of bigint,
    base double precision, rival bigint
)
returns table (symbol text, rows bigint, metrics jsonb)
language plpython3u stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.serving import evaluate
    return evaluate.evaluate(plpy, GD, version_id, symbols, (start, stop, as_of), base, rival)
$python$;
comment on function ml._evaluated(
    bigint, text [], bigint, bigint, bigint, double precision, bigint
) is 'ml.evaluate, all arguments given; times in microseconds since 1970.';

create or replace function ml._evaluation_symbols(version ml.model_versions, symbols text [])
returns text []
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select case
        when symbols is not null then array(select market.resolve(u.symbol) from unnest(symbols) as u (symbol))
        else ml._training_symbols(version.symbol)
    end
$$;
comment on function ml._evaluation_symbols(ml.model_versions, text []) is
'The symbols given, resolved; else those that the version was trained on.';

-- The mean outcome over the span that a version was trained on, for comparison.
create or replace function ml._known_mean(version ml.model_versions, symbols text [], "until" timestamptz)
returns double precision
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
declare
    v_mean double precision := (version.spec ->> 'base_rate')::double precision;
begin
    if v_mean is null then
        select avg(t.target) into v_mean
        from unnest(symbols) as u (symbol)
        cross join lateral ml.label_values(
            version.label, u.symbol, least(version.train_from, "until" - interval '7 days'),
            least(version.train_to, "until"), "until",
            (select s.grid from feature.sets s where s.name = version.feature_set and s.version = version.feature_version)
        ) t;
    end if;
    return coalesce(v_mean, case version.task when 'classification' then 0.5 else 0 end);
end
$$;
comment on function ml._known_mean(ml.model_versions, text [], timestamptz) is
'The base rate, or mean, that the version''s spec has; else that of the span it was trained on.';

create or replace function ml.evaluate(
    version_id bigint, "from" timestamptz default null, "to" timestamptz default null,
    symbols text [] default null, as_of timestamptz default null
)
returns table (
    symbol text, rows bigint, from_ts timestamptz, to_ts timestamptz, trained_to timestamptz,
    in_sample boolean, metrics jsonb
)
language plpgsql stable parallel restricted security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_version ml.model_versions;
    v_symbols text [];
    v_as_of constant timestamptz := ops._moment(coalesce(as_of, now()));
    v_from timestamptz;
    v_to timestamptz;
begin
    select
        v.version_id, v.model, v.symbol, v.task, v.feature_set, v.feature_version, v.label, v.horizon,
        v.spec, v.train_from, v.train_to
    into
        v_version.version_id, v_version.model, v_version.symbol, v_version.task, v_version.feature_set,
        v_version.feature_version, v_version.label, v_version.horizon, v_version.spec,
        v_version.train_from, v_version.train_to
    from ml.model_versions v where v.version_id = evaluate.version_id;
    if not found then
        raise exception 'unknown model version %', coalesce(version_id::text, 'null')
        using errcode = 'AP404', hint = 'select version_id, model, symbol from ml.registry';
    end if;
    v_symbols := ml._evaluation_symbols(v_version, symbols);
    v_from := coalesce("from", v_version.train_to + v_version.horizon);
    v_to := least(coalesce("to", v_as_of), v_as_of);
    if v_from >= v_to or not isfinite(v_from) or not isfinite(v_to) then
        raise exception 'no time between % and %', v_from, v_to
        using errcode = 'AP432',
            hint = 'Rows need features and an outcome known by as_of: choose another span or symbol, or wait until the horizon is over.';
    end if;
    return query
        select
            e.symbol, e.rows, v_from, v_to, v_version.train_to,
            v_from < v_version.train_to + v_version.horizon and v_to > v_version.train_from, e.metrics
        from ml._evaluated(
            v_version.version_id, v_symbols,
            ops._micros(v_from),
            ops._micros(v_to),
            ops._micros(v_as_of),
            ml._known_mean(v_version, v_symbols, v_from), null
        ) e;
end
$$;
comment on function ml.evaluate(bigint, timestamptz, timestamptz, text [], timestamptz) is
'Metrics of any version on any rows: those in [from, to) (default: all after what it was trained on, to
as_of) of the symbols (default: its own) whose outcome was known by as_of (default: now). A row for all
symbols (symbol null), and where there are several one for each. in_sample: rows are among those it was
trained on, so the metrics say little. metrics as in ml.model_versions: auc, log_loss, brier, ece beside
ece_chance, ic and rank_ic by day, …, baseline. Errors: AP404 unknown version, AP101/AP102 symbol, AP432
too few rows.';

create or replace function ml.record_evaluation(
    version_id bigint, "from" timestamptz default null, "to" timestamptz default null,
    symbols text [] default null, as_of timestamptz default null
)
returns bigint
language plpgsql volatile parallel unsafe security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_version ml.model_versions := ml._version(version_id);
    v_symbols text [] := ml._evaluation_symbols(v_version, symbols);
    v_as_of constant timestamptz := ops._moment(coalesce(as_of, now()));
    v_from constant timestamptz := coalesce("from", v_version.train_to + v_version.horizon);
    v_to constant timestamptz := least(coalesce("to", v_as_of), v_as_of);
    v_rival bigint;
    v_metrics jsonb;
    v_id bigint;
begin
    if v_from >= v_to or not isfinite(v_from) or not isfinite(v_to) then
        raise exception 'no time between % and %', v_from, v_to
        using errcode = 'AP432',
            hint = 'Rows need features and an outcome known by as_of: choose another span or symbol, or wait until the horizon is over.';
    end if;
    -- The champion, where it has not seen these rows either.
    select a.version_id into v_rival
    from ml.aliases a
    join ml.model_versions c on c.version_id = a.version_id
    where a.model = v_version.model and a.symbol is not distinct from v_version.symbol
        and a.regime is not distinct from v_version.regime and a.alias = 'champion'
        and a.version_id <> v_version.version_id and c.label = v_version.label
        and v_from >= c.train_to + c.horizon;
    select e.metrics into v_metrics
    from ml._evaluated(
        v_version.version_id, v_symbols,
        ops._micros(v_from),
        ops._micros(v_to),
        ops._micros(v_as_of),
        ml._known_mean(v_version, v_symbols, v_from), v_rival
    ) e
    where e.symbol is null;
    insert into ml.evaluations (version_id, symbols, from_ts, to_ts, as_of, in_sample, metrics)
    values (
        v_version.version_id, v_symbols, v_from, v_to, v_as_of,
        v_from < v_version.train_to + v_version.horizon and v_to > v_version.train_from, v_metrics
    )
    returning evaluation_id into v_id;
    return v_id;
end
$$;
comment on function ml.record_evaluation(bigint, timestamptz, timestamptz, text [], timestamptz) is
'ml.evaluate, written down in ml.evaluations, beside the champion where it has not seen these rows
either; its number. The gates of a version that came without out-of-fold predictions (registered from
elsewhere) take the newest one on rows that it was not trained on. Errors: as ml.evaluate.';

create or replace function ml._compared(
    a bigint, b bigint, symbols text [], start bigint, stop bigint, as_of bigint,
    out rows bigint, out difference double precision, out low double precision,
    out high double precision, out p_value double precision, out blocks integer,
    out metrics_a jsonb, out metrics_b jsonb
)
language plpython3u stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.serving import evaluate
    return evaluate.compare(plpy, GD, a, b, symbols, (start, stop, as_of))
$python$;
comment on function ml._compared(
    bigint, bigint, text [], bigint, bigint, bigint
) is 'Two versions on the same rows; times in microseconds since 1970.';

create or replace function ml._compared_out_of_fold(
    a bigint, b bigint,
    out rows bigint, out difference double precision, out low double precision,
    out high double precision, out p_value double precision, out blocks integer,
    out metrics_a jsonb, out metrics_b jsonb
)
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.serving import evaluate
    return evaluate.compare_out_of_fold(plpy, a, b)
$python$;
comment on function ml._compared_out_of_fold(bigint, bigint) is
'Two versions on the rows that both were tested on while they were trained.';

create or replace function ml.compare_versions(
    a bigint, b bigint, "from" timestamptz default null, "to" timestamptz default null,
    symbols text [] default null, as_of timestamptz default null
)
returns table (
    method text, rows bigint, loss text, loss_a double precision, loss_b double precision,
    difference double precision, low double precision, high double precision,
    p_value double precision, blocks integer, metrics_a jsonb, metrics_b jsonb
)
language plpgsql stable parallel restricted security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_a record;
    v_b record;
    v_as_of constant timestamptz := ops._moment(coalesce(as_of, now()));
    v_from timestamptz;
    v_to timestamptz;
    v_first ml.model_versions;
    v_found record;
    v_method text := 'unseen';
begin
    select v.version_id, v.label, v.task, v.symbol, v.horizon, v.train_to into v_a
    from ml.model_versions v where v.version_id = a;
    select v.version_id, v.label, v.task, v.symbol, v.horizon, v.train_to into v_b
    from ml.model_versions v where v.version_id = b;
    if v_a.version_id is null or v_b.version_id is null then
        raise exception 'unknown model version %',
            coalesce((case when v_a.version_id is null then a else b end)::text, 'null')
        using errcode = 'AP404', hint = 'select version_id, model, symbol from ml.registry';
    end if;
    if v_a.label <> v_b.label then
        raise exception 'version % predicts %, version % predicts %', a, v_a.label, b, v_b.label
        using errcode = 'AP433', hint = 'Versions of one label can be compared.';
    end if;
    v_first.symbol := v_a.symbol;
    if "from" is null and symbols is null
        and exists (select from ml.version_predictions p where p.version_id = a)
        and exists (select from ml.version_predictions p where p.version_id = b) then
        v_method := 'out_of_fold';
        select * into v_found from ml._compared_out_of_fold(a, b);
    else
        v_from := coalesce("from", greatest(v_a.train_to, v_b.train_to) + v_a.horizon);
        v_to := least(coalesce("to", v_as_of), v_as_of);
        if v_from < greatest(v_a.train_to, v_b.train_to) + v_a.horizon then
            v_method := 'in_sample';
        end if;
        select * into v_found from ml._compared(
            a, b, ml._evaluation_symbols(v_first, symbols),
            ops._micros(v_from),
            ops._micros(v_to),
            ops._micros(v_as_of)
        );
    end if;
    return query select
        v_method, v_found.rows,
        case v_a.task when 'classification' then 'log_loss' else 'squared_error' end,
        case v_a.task when 'classification' then (v_found.metrics_a ->> 'log_loss')::float8
            else (v_found.metrics_a ->> 'rmse')::float8 ^ 2 end,
        case v_a.task when 'classification' then (v_found.metrics_b ->> 'log_loss')::float8
            else (v_found.metrics_b ->> 'rmse')::float8 ^ 2 end,
        v_found.difference, v_found.low, v_found.high, v_found.p_value, v_found.blocks,
        v_found.metrics_a, v_found.metrics_b;
end
$$;
comment on function ml.compare_versions(
    bigint, bigint, timestamptz, timestamptz, text [], timestamptz
) is
'Two versions of one label on the same rows: difference is the loss of b less that of a (below 0: b is
better) with a 95 % interval by a bootstrap of blocks of time and a two-sided p_value. method: unseen
(rows in [from, to) that neither was trained on), out_of_fold (from is null and both have out-of-fold
predictions: the rows that both were tested on), in_sample (rows that one was trained on: it says
little). Errors: AP404 unknown version, AP433 other labels, AP432 too few rows.';

create or replace view ml.leaderboard as
select
    v.model,
    v.symbol,
    v.regime,
    rank() over (
        partition by v.model, v.symbol, v.regime
        order by coalesce(m.log_loss, m.rmse) nulls last, v.version_id
    ) as place,
    v.version_id,
    v.version as version_number,
    v.algorithm,
    (select string_agg(a.alias, ', ' order by a.alias) from ml.aliases as a where a.version_id = v.version_id) as alias,
    m.source as measured_on,
    m.rows,
    m.auc,
    m.auc_low,
    m.auc_high,
    m.log_loss,
    m.base_rate_log_loss,
    m.brier,
    m.ece,
    m.ece_chance,
    m.ic,
    m.rank_ic,
    m.rmse,
    m.r2,
    v.params,
    v.train_to as trained_to,
    v.created_at
from ml.model_versions as v
left join lateral (
    select e.metrics from ml.evaluations as e
    where e.version_id = v.version_id and not e.in_sample
    order by e.evaluation_id desc
    limit 1
) as e on true
cross join lateral (
    select
        case when v.metrics ? 'rows' then 'out of fold' when e.metrics is not null then 'evaluation' else 'claimed only' end as source,
        case when v.metrics ? 'rows' then v.metrics else coalesce(e.metrics, v.metrics) end as found
) as f
cross join lateral (
    select
        f.source,
        (f.found ->> 'rows')::bigint as rows,
        (f.found ->> 'auc')::float8 as auc,
        (f.found ->> 'auc_low')::float8 as auc_low,
        (f.found ->> 'auc_high')::float8 as auc_high,
        (f.found ->> 'log_loss')::float8 as log_loss,
        (f.found #>> '{baseline,log_loss}')::float8 as base_rate_log_loss,
        (f.found ->> 'brier')::float8 as brier,
        (f.found ->> 'ece')::float8 as ece,
        (f.found ->> 'ece_chance')::float8 as ece_chance,
        (f.found ->> 'ic')::float8 as ic,
        (f.found ->> 'rank_ic')::float8 as rank_ic,
        (f.found ->> 'rmse')::float8 as rmse,
        (f.found ->> 'r2')::float8 as r2
) as m
where v.archived_at is null;
comment on view ml.leaderboard is
'Versions of each model, symbol and regime, best first by log loss or RMSE, with parameters beside what
the database measured. Their rows differ: ml.compare_versions puts two on the same.';
comment on column ml.leaderboard.model is 'The model.';
comment on column ml.leaderboard.symbol is 'The symbol; null: pooled.';
comment on column ml.leaderboard.regime is 'The regime; null: all.';
comment on column ml.leaderboard.place is 'Place among the versions of model, symbol and regime.';
comment on column ml.leaderboard.version_id is 'Number of the version, in all functions.';
comment on column ml.leaderboard.version_number is 'Number of the version within model, symbol and regime.';
comment on column ml.leaderboard.algorithm is 'What it was trained with.';
comment on column ml.leaderboard.alias is 'champion, challenger or shadow.';
comment on column ml.leaderboard.measured_on is 'out of fold, evaluation, or claimed only (nothing measured).';
comment on column ml.leaderboard.rows is 'Rows it was measured on.';
comment on column ml.leaderboard.auc is 'Area under the ROC curve.';
comment on column ml.leaderboard.auc_low is 'Lower end of its 95 % interval.';
comment on column ml.leaderboard.auc_high is 'Upper end of its 95 % interval.';
comment on column ml.leaderboard.log_loss is 'Mean log loss, in nats.';
comment on column ml.leaderboard.base_rate_log_loss is 'That of the base rate known at the time.';
comment on column ml.leaderboard.brier is 'Brier score.';
comment on column ml.leaderboard.ece is 'Expected calibration error.';
comment on column ml.leaderboard.ece_chance is 'What a true probability stays below in 95 % of cases.';
comment on column ml.leaderboard.ic is 'Information coefficient, mean over days.';
comment on column ml.leaderboard.rank_ic is 'The same of ranks.';
comment on column ml.leaderboard.rmse is 'Root mean squared error.';
comment on column ml.leaderboard.r2 is 'Out-of-sample R², against the mean known at the time.';
comment on column ml.leaderboard.params is 'Parameters of the algorithm.';
comment on column ml.leaderboard.trained_to is 'Last time that it was trained on.';
comment on column ml.leaderboard.created_at is 'When it was registered.';
