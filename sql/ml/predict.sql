-- Predicting reads and never writes. The functions that touch an artifact run with the owner's
-- rights, so that who predicts need not be able to read artifacts; they are STABLE, as which
-- version serves is looked up in the statement's own snapshot.
create or replace function ml.predict_version(version_id bigint, features double precision [])
returns double precision
language plpython3u stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.predict import score
    return score(plpy, GD, version_id, features)
$python$;
comment on function ml.predict_version(bigint, double precision []) is
'The calibrated probability, or the value, that one version gives a vector (NaN or null: not known). The model is kept in this backend. Errors: AP501 unknown version, AP502 the artifact is not the one registered, AP503 it cannot be read, AP504 another number of values.';

create or replace function ml.score_version(
    version_id bigint, features double precision [], out raw double precision,
    out prediction double precision, out confidence double precision, out lower double precision,
    out upper double precision, out distance double precision
)
language plpython3u stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.predict import score_with_trust
    return score_with_trust(plpy, GD, version_id, features)
$python$;

comment on function ml.score_version(bigint, double precision []) is
'What one version says of a vector: raw score, prediction (calibrated probability, or value), confidence with its interval [lower, upper] as the version''s spec defines them, and the distance to the training rows in units of the support threshold (above 1: out of support). Errors: AP501 to AP504.';

create or replace function ml.explain_version(version_id bigint, features double precision [])
returns table (feature text, value double precision, contribution double precision)
language plpython3u stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.predict import explain
    return explain(plpy, GD, version_id, features)
$python$;

comment on function ml.explain_version(bigint, double precision []) is
'ml.explain for one version and a vector. Errors: AP501 to AP504.';

create or replace function ml.warm_versions(version_ids bigint []) returns integer
language plpython3u stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.predict import warm
    return warm(plpy, GD, version_ids)
$python$;

comment on function ml.warm_versions(bigint []) is
'Load versions into this backend; returns how many. Errors: AP501 to AP503.';

create or replace function ml.cache_status()
returns table (
    version_id bigint, bytes bigint, total_bytes bigint, limit_bytes bigint, hits bigint,
    misses bigint, evictions bigint
)
language plpython3u stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.predict import status
    return status(plpy, GD)
$python$;
comment on function ml.cache_status() is
'The models that this backend holds, least recently used first; the limit is the setting ml.cache_bytes, read when the backend first predicts.';

create or replace function ml.warm(model text default null) returns integer
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
    select ml.warm_versions(array(
        select distinct a.version_id from ml.aliases a
        where a.alias = 'champion' and ($1 is null or a.model = $1)
    ))
$$;
comment on function ml.warm(text) is
'Load the champions of a model (default: all models) into this backend, so that its first prediction is quick; returns how many.';

create or replace function ml._no_champion(model text, symbol text) returns bigint
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (select from ml.models m where m.model = _no_champion.model) then
        raise exception 'unknown model %', coalesce(quote_literal(model), 'null')
        using errcode = 'AP302', hint = 'List them with: select model, label from ml.models';
    end if;
    raise exception 'model % has no promoted version%', quote_literal(model),
        coalesce(' for ' || symbol, ' for all symbols')
    using errcode = 'AP505',
    hint = 'Train one with: call ml.retrain(model, symbol); then call ml.promote(version)';
end
$$;

create or replace function ml.predict(
    model text, features double precision [], symbol text default null
)
returns double precision
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
    select ml.predict_version(coalesce(ml.champion($1, $3), ml._no_champion($1, $3)), $2)
$$;
comment on function ml.predict(text, double precision [], text) is
'The calibrated probability, or the value, that a model''s champion (of the symbol, else pooled) gives a vector of one''s own, in the order of its feature set. Errors: AP302 unknown model, AP504 another number of values, AP505 no promoted version.';

create or replace function ml.predict_stored(model text, symbol text, ts timestamptz)
returns double precision
language sql stable parallel restricted
as $$
    -- search_path: not pinned, so that it is inlined; every name is qualified.
    select ml.predict_version(ml.champion(m.model, $2), v.values)
    from ml.models m
    join feature.sets s on s.name = m.feature_set and s.version = m.feature_version
    join feature.vectors v on v.set_id = s.set_id and v.symbol = $2 and v.ts = $3
    where m.model = $1
$$;
comment on function ml.predict_stored(text, text, timestamptz) is
'The champion''s prediction from the vector stored at exactly (symbol, ts): the quickest way; symbol is the canonical one. Null where no vector is stored or no version promoted.';

-- How old the newest market row behind a vector is.
create or replace function ml._data_until(symbol text, grid interval, ts timestamptz)
returns timestamptz
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select greatest(
        (
            select t.ts from market.trades t
            where t.symbol = $1 and t.ts < $3 and t.known_at <= $3 order by t.ts desc limit 1
        ),
        (
            select c.ts + c.timeframe from market.candles c
            where c.symbol = $1 and c.timeframe = $2 and c.ts <= $3 - $2 and c.known_at <= $3
            order by c.ts desc limit 1
        )
    )
$$;

create or replace function ml._base_rate(label text, symbol text, grid interval, as_of timestamptz)
returns double precision
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
    select avg(v.target)
    from ml.labels l
    cross join lateral ml.label_values(
        $1, $2, $4 - greatest(interval '1 day', l.horizon * 20), $4, $4, $3
    ) v
    where l.label = $1
$$;

create or replace function ml._predict(
    model text, symbol text, as_of timestamptz,
    out canonical text, out asked_as_of timestamptz, out served_model text, out horizon interval,
    out prediction double precision, out probability double precision,
    out confidence double precision, out lower double precision, out upper double precision,
    out version_id bigint, out regime text, out partition_used text, out feature_as_of timestamptz,
    out staleness interval, out expired boolean, out out_of_support boolean,
    out is_fallback boolean, out reason text, out features double precision []
)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
declare
    v_model record;
    v_version record;
    v_score record;
    v_until timestamptz;
    v_policy text;
begin
    select
        m.model, m.label, m.feature_set, m.feature_version, l.horizon, l.task, s.grid, s.set_id
    into v_model
    from ml.models m
    join ml.labels l on l.label = m.label
    join feature.sets s on s.name = m.feature_set and s.version = m.feature_version
    where m.model = _predict.model;
    if not found then
        raise exception 'unknown model %', coalesce(quote_literal(model), 'null')
        using errcode = 'AP302', hint = 'List them with: select model, label from ml.models';
    end if;
    canonical := market.resolve(symbol);
    asked_as_of := coalesce(as_of, now());
    served_model := v_model.model;
    horizon := v_model.horizon;
    feature_as_of := public.time_bucket(v_model.grid, asked_as_of);
    v_until := ml._data_until(canonical, v_model.grid, feature_as_of);
    staleness := asked_as_of - v_until;
    if v_until is null or staleness > ops.setting_interval('ml.max_staleness', interval '1 hour') + v_model.grid then
        raise exception 'no data for % at %', canonical, asked_as_of
        using errcode = 'AP506',
        detail = coalesce(
            format('The newest row known then is of %s.', v_until), 'No row was known then.'
        ),
        hint = coalesce(
            format('Ask as of a time that has data: as_of => %L; or raise the setting ml.max_staleness.', v_until),
            'Load data for the symbol first: alphaplus load'
        );
    end if;
    features := feature.vector(v_model.feature_set, canonical, feature_as_of, v_model.feature_version);
    version_id := ml.champion(v_model.model, canonical, regime);
    is_fallback := version_id is null;
    expired := false;
    if version_id is not null then
        select v.symbol, v.regime, v.as_of + v.expires_after as expires_at into strict v_version
        from ml.model_versions v where v.version_id = _predict.version_id;
        partition_used := case
            when v_version.regime is not null then 'symbol and regime'
            when v_version.symbol is not null then 'symbol'
            else 'pooled'
        end;
        expired := asked_as_of > v_version.expires_at;
        v_score := ml.score_version(version_id, features);
        prediction := v_score.prediction;
        confidence := v_score.confidence;
        lower := v_score.lower;
        upper := v_score.upper;
        out_of_support := v_score.distance > 1;
        if expired or out_of_support then
            v_policy := ops.setting_text(
                case when expired then 'ml.expired_policy' else 'ml.out_of_support_policy' end, 'flag'
            );
            reason := case
                when expired then format('version %s expired at %s', version_id, v_version.expires_at)
                else format('the vector is %s times the training threshold away', round(v_score.distance::numeric, 2))
            end;
            is_fallback := expired or v_policy = 'fallback';
            if v_policy <> 'flag' then
                prediction := null;
                confidence := null;
                lower := null;
                upper := null;
            end if;
        end if;
    end if;
    if version_id is null or (prediction is null and v_policy = 'fallback') then
        partition_used := 'base rate';
        reason := coalesce(reason, 'no promoted version');
        prediction := ml._base_rate(v_model.label, canonical, v_model.grid, feature_as_of);
        if prediction is null then
            reason := reason || '; no outcome known yet to take a base rate from';
        end if;
    end if;
    if v_model.task = 'classification' then
        probability := prediction;
    end if;
end
$$;

create or replace function ml.predict(model text, symbol text, as_of timestamptz default null)
returns table (
    symbol text, as_of timestamptz, model text, horizon interval, prediction double precision,
    probability double precision, confidence double precision, lower double precision,
    upper double precision, version_id bigint, regime text, partition_used text,
    feature_as_of timestamptz, staleness interval, expired boolean, out_of_support boolean,
    is_fallback boolean, reason text
)
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
    select
        p.canonical, p.asked_as_of, p.served_model, p.horizon, p.prediction, p.probability,
        p.confidence, p.lower, p.upper, p.version_id, p.regime, p.partition_used, p.feature_as_of,
        p.staleness, p.expired, p.out_of_support, p.is_fallback, p.reason
    from ml._predict($1, $2, $3) p
$$;
comment on function ml.predict(text, text, timestamptz) is
'What a model says of a symbol as of a time (default: now), whatever its kind. prediction: calibrated probability, or value in the label''s unit; [lower, upper]: where the event''s frequency (value) lies at the version''s level; confidence: 1 - width of that interval (spec of the version). partition_used: symbol and regime, symbol, pooled, or base rate (no version promoted; is_fallback). expired, out_of_support: do not trust it; what then happens is set by ml.expired_policy and ml.out_of_support_policy: flag (default), null or fallback. staleness: as_of less the newest market row behind the vector. Errors: AP101 unknown symbol, AP302 unknown model, AP506 no data, AP502/AP503 unusable artifact.';

create or replace function ml.risk_level(model text, probability double precision) returns text
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select r.risk_level
    from ml.risk_levels r
    where r.min_probability <= $2
        and case
            when exists (select from ml.risk_levels o where o.model = $1) then r.model = $1
            else r.model is null
        end
    order by r.min_probability desc
    limit 1
$$;
comment on function ml.risk_level(text, double precision) is
'low, medium, high or critical: the highest level in ml.risk_levels that the probability reaches; a model''s own rows replace the default ones.';

create or replace function ml._predict_liquidation(
    asked_symbol text, asked_horizon interval, asked_as_of timestamptz
)
returns table (
    symbol text, as_of timestamptz, horizon interval, probability double precision,
    confidence double precision, risk_level text, expected_volume double precision, regime text,
    model_version bigint, is_fallback boolean, feature_as_of timestamptz, staleness interval,
    lower double precision, upper double precision, expired boolean, out_of_support boolean,
    partition_used text, reason text
)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_model text;
    v_volume_model text;
    v_volume_version bigint;
    v_p record;
    v_expected double precision;
begin
    select m.model into v_model
    from ml.models m join ml.labels l on l.label = m.label
    where l.kind = 'liquidation' and l.horizon = asked_horizon
    order by m.model limit 1;
    if not found then
        raise exception 'no liquidation model for a horizon of %', coalesce(asked_horizon::text, 'null')
        using errcode = 'AP507',
        detail = format('Horizons configured: %s.', coalesce((
            select string_agg(distinct l.horizon::text, ', ') from ml.models m
            join ml.labels l on l.label = m.label where l.kind = 'liquidation'
        ), 'none')),
        hint = 'Use one of these, or add a label and a model for this one (ml.labels, ml.models).';
    end if;
    v_p := ml._predict(v_model, asked_symbol, asked_as_of);
    select m.model into v_volume_model
    from ml.models m join ml.labels l on l.label = m.label
    join ml.models o on o.model = v_model
    where l.kind = 'liquidation_volume' and l.horizon = asked_horizon
        and m.feature_set = o.feature_set and m.feature_version = o.feature_version
    order by m.model limit 1;
    v_volume_version := ml.champion(v_volume_model, v_p.canonical, v_p.regime);
    if v_volume_version is not null then
        v_expected := greatest(0, ml.predict_version(v_volume_version, v_p.features));
    elsif v_volume_model is not null then
        v_expected := (
            select ml._base_rate(m.label, v_p.canonical, s.grid, v_p.feature_as_of)
            from ml.models m
            join feature.sets s on s.name = m.feature_set and s.version = m.feature_version
            where m.model = v_volume_model
        );
    end if;
    return query select
        v_p.canonical, v_p.asked_as_of, v_p.horizon, v_p.probability, v_p.confidence,
        ml.risk_level(v_model, v_p.probability), v_expected, v_p.regime, v_p.version_id,
        v_p.is_fallback, v_p.feature_as_of, v_p.staleness, v_p.lower, v_p.upper, v_p.expired,
        v_p.out_of_support, v_p.partition_used, v_p.reason;
end
$$;

create or replace function ml.predict_liquidation(
    symbol text, horizon interval default interval '15 minutes', as_of timestamptz default null
)
returns table (
    symbol text, as_of timestamptz, horizon interval, probability double precision,
    confidence double precision, risk_level text, expected_volume double precision, regime text,
    model_version bigint, is_fallback boolean, feature_as_of timestamptz, staleness interval,
    lower double precision, upper double precision, expired boolean, out_of_support boolean,
    partition_used text, reason text
)
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
rows 1
as $$
    select p.* from ml._predict_liquidation($1, $2, $3) p
$$;
comment on function ml.predict_liquidation(text, interval, timestamptz) is
'The chance that forced liquidations of a symbol in the horizon after as_of (default: now) exceed its own trailing quantile (label liquidation_<h>), calibrated, with the risk level of ml.risk_levels and the expected liquidated notional in quote currency (model liquidation_volume_<h>, else its trailing mean). confidence, lower, upper, expired, out_of_support, partition_used, staleness: see ml.predict. is_fallback: no promoted version (then the trailing base rate known at as_of), or an expired one. Errors: AP101 unknown symbol, AP506 no data at as_of, AP507 horizon not configured, AP502/AP503 unusable artifact.';

create or replace function ml.explain(model text, symbol text, as_of timestamptz default null)
returns table (feature text, value double precision, contribution double precision)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
declare
    v_p record := ml._predict(model, symbol, as_of);
begin
    if v_p.version_id is null then
        perform ml._no_champion(model, v_p.canonical);
    end if;
    return query select e.feature, e.value, e.contribution from ml.explain_version(v_p.version_id, v_p.features) e;
end
$$;
comment on function ml.explain(text, text, timestamptz) is
'What each feature adds to the raw score (log odds for classes) of ml.predict with the same arguments, largest first; the row "base" is the expected raw score, and all rows sum to the raw score. Trees: exact SHAP values (Lundberg et al. 2020, Nature Machine Intelligence 2). Errors: as ml.predict, and AP505 no promoted version.';

create or replace function ml._check_query(query text, out reason text, out hint text)
returns setof record
language plpython3u stable parallel safe set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server import sqlcheck
    return [(str(problem), problem.hint) for problem in sqlcheck.read_only(query)]
$python$;

create or replace function ml.predict_many(model text, query text)
returns table (symbol text, ts timestamptz, prediction double precision, version_id bigint)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
rows 1000
as $$
#variable_conflict use_column
declare
    v_set_id integer;
    v_problem record;
begin
    select s.set_id into v_set_id
    from ml.models m
    join feature.sets s on s.name = m.feature_set and s.version = m.feature_version
    where m.model = $1;
    if not found then
        perform ml._no_champion($1, null);
    end if;
    select c.reason, c.hint into v_problem from ml._check_query($2) c limit 1;
    if found then
        raise exception 'the query cannot be used: %', v_problem.reason
        using errcode = 'AP508', hint = v_problem.hint;
    end if;
    return query execute format(
        'with asked as materialized (%s),'
        ' served as materialized ('
        '     select a.symbol, ml.champion($1, a.symbol) as version_id'
        '     from (select distinct symbol from asked) a)'
        ' select q.symbol::text, q.ts, ml.predict_version(s.version_id, v.values), s.version_id'
        ' from asked q join served s on s.symbol = q.symbol'
        ' join feature.vectors v on v.set_id = $2 and v.symbol = q.symbol and v.ts = q.ts'
        ' where s.version_id is not null', rtrim($2, E'; \n\t')
    ) using $1, v_set_id;
end
$$;
comment on function ml.predict_many(text, text) is
'The champion''s prediction for many rows at once: query is one SELECT giving symbol (canonical) and ts; rows without a stored vector or a promoted version are left out. Runs with the caller''s rights and writes nothing. Errors: AP302 unknown model, AP508 not one read-only SELECT.';
