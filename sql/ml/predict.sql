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
'The models that this backend holds, least recently used first; the limit is the setting ml.cache_bytes, read whenever a model is loaded; bytes is what the C allocator handed out when the model was loaded.';

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

create or replace function ml.predict(model text, features double precision [])
returns double precision
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
    select ml.predict_version(coalesce(ml.champion($1, null), ml._no_champion($1, null)), $2)
$$;
comment on function ml.predict(text, double precision []) is
'The calibrated probability, or the value, that a model''s pooled champion gives a vector of one''s own, in the order of its feature set (null or NaN: not known). For a symbol''s own champion: ml.predict_vector. Errors: AP302 unknown model, AP504 another number of values, AP505 no promoted version.';

-- Not another ml.predict: three literals would fit both.
create or replace function ml.predict_vector(
    model text, symbol text, features double precision []
)
returns double precision
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
    select ml.predict_version(coalesce(ml.champion($1, s), ml._no_champion($1, s)), $3)
    from market.resolve($2) as s
$$;
comment on function ml.predict_vector(text, text, double precision []) is
'ml.predict of a vector by the champion that serves the symbol (its own, else the pooled one). Errors: AP101 unknown symbol, AP302 unknown model, AP504 another number of values, AP505 no promoted version.';

create or replace function ml.predict_stored(model text, symbol text, ts timestamptz)
returns table (prediction double precision, version_id bigint)
language sql stable parallel restricted
rows 1
as $$
    -- search_path: not pinned, so that it is inlined into the caller's plan; every name is
    -- qualified. The joins are ml.champion's chain, which as a scalar function is not inlined.
    select
        ml.predict_version(coalesce(own.version_id, pooled.version_id), v.values),
        coalesce(own.version_id, pooled.version_id)
    from ml.models m
    join feature.sets s on s.name = m.feature_set and s.version = m.feature_version
    join feature.vectors v on v.set_id = s.set_id
    left join ml.aliases own
        on own.model = m.model and own.symbol = v.symbol
        and own.regime is null and own.alias = 'champion'
    left join ml.aliases pooled
        on pooled.model = m.model and pooled.symbol is null
        and pooled.regime is null and pooled.alias = 'champion'
    where m.model = $1 and v.symbol = $2 and v.ts = $3
        and coalesce(own.version_id, pooled.version_id) is not null
$$;
comment on function ml.predict_stored(text, text, timestamptz) is
'The champion''s prediction (of the symbol, else pooled) from the vector stored at exactly (symbol, ts): the quickest way, inlined into the calling plan; symbol is the canonical one. For models that take one vector, not a sequence. No row where no vector is stored or no version promoted.';

-- Rows one after the other, oldest first, ending at ts; null where one is not stored.
create or replace function ml._stored_sequence(
    set_id integer, symbol text, ts timestamptz, grid interval, length integer
)
returns double precision []
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select case when count(distinct q.ts) = $5 then array_agg(q.x order by q.ts, q.i) end
    from (
        select v.ts, e.x, e.i
        from feature.vectors v cross join lateral unnest(v.values) with ordinality as e (x, i)
        where v.set_id = $1 and v.symbol = $2 and v.ts > $3 - $4 * $5 and v.ts <= $3
    ) q
$$;

-- As _stored_sequence, computing what is not stored; null across a gap.
create or replace function ml._sequence(
    set_id integer, symbol text, ts timestamptz, grid interval, length integer
)
returns double precision []
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
declare
    v_set feature.sets;
    v_found double precision [];
    v_rows integer;
begin
    if not exists (
        select from feature.pending p
        where p.set_id = _sequence.set_id and p.symbol = _sequence.symbol
            and p.ts_from <= ts and p.ts_to > ts - grid * length
    ) then
        v_found := ml._stored_sequence(set_id, symbol, ts, grid, length);
    end if;
    if v_found is null then
        select s.* into strict v_set from feature.sets s where s.set_id = _sequence.set_id;
        select array_agg(e.x order by h.ts, e.i), count(distinct h.ts) into v_found, v_rows
        from feature._history(
            v_set.name, v_set.version, symbol, ts - grid * (length - 1), ts + grid
        ) h
        cross join lateral unnest(h.vector) with ordinality as e (x, i);
        if v_rows is distinct from length then
            v_found := null;
        end if;
    end if;
    return v_found;
end
$$;

-- The symbol's regime, where the regime room is there and can tell.
create or replace function ml._regime(symbol text, as_of timestamptz) returns text
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
declare
    v_regime text;
begin
    if to_regproc('regime.classify') is null then
        return null;
    end if;
    execute 'select c.regime from regime.classify($1, $2) c' into v_regime using symbol, as_of;
    return v_regime;
exception when others then
    if sqlstate like 'AP%' then
        return null;
    end if;
    raise;
end
$$;

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
    regime := ml._regime(canonical, feature_as_of);
    version_id := ml.champion(v_model.model, canonical, regime);
    is_fallback := version_id is null;
    expired := false;
    if version_id is not null then
        select
            v.symbol, v.regime, v.as_of + v.expires_after as expires_at,
            (v.spec #>> '{inputs,length}')::integer as length
        into strict v_version
        from ml.model_versions v where v.version_id = _predict.version_id;
        if v_version.length is not null then
            features := ml._sequence(
                v_model.set_id, canonical, feature_as_of, v_model.grid, v_version.length
            );
            if features is null then
                reason := format('a gap in the last %s vectors', v_version.length);
                version_id := null;
                is_fallback := true;
            end if;
        end if;
    end if;
    if version_id is not null then
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

-- Expected liquidated notional beside a liquidation model: from the volume model of the same
-- horizon and feature set, else its label's trailing mean; null for other models.
create or replace function ml._expected_volume(
    model text, symbol text, regime text, feature_as_of timestamptz, features double precision []
)
returns double precision
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
declare
    v_volume record;
    v_version_id bigint;
begin
    select m.model, m.label, s.grid, cardinality(s.features) as width into v_volume
    from ml.models o
    join ml.labels ol on ol.label = o.label and ol.kind = 'liquidation'
    join ml.labels l on l.kind = 'liquidation_volume' and l.horizon = ol.horizon
    join ml.models m on m.label = l.label
        and m.feature_set = o.feature_set and m.feature_version = o.feature_version
    join feature.sets s on s.name = m.feature_set and s.version = m.feature_version
    where o.model = _expected_volume.model
    order by m.model limit 1;
    if not found then
        return null;
    end if;
    v_version_id := ml.champion(v_volume.model, symbol, regime);
    if v_version_id is null or cardinality(features) is distinct from v_volume.width then
        return ml._base_rate(v_volume.label, symbol, v_volume.grid, feature_as_of);
    end if;
    return greatest(0, ml.predict_version(v_version_id, features));
end
$$;

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
    v_expected := ml._expected_volume(
        v_model, v_p.canonical, v_p.regime, v_p.feature_as_of, v_p.features
    );
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

create or replace function ml.score_many(version_id bigint, vectors double precision [])
returns double precision []
language plpython3u stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.predict import score_many
    return score_many(plpy, GD, version_id, vectors)
$python$;
comment on function ml.score_many(bigint, double precision []) is
'ml.predict_version for many vectors in one call: vectors is a two-dimensional array, one row a vector; the predictions in the same order. Errors: AP501 to AP504.';

create or replace function ml.predict_many(model text, query text)
returns table (symbol text, ts timestamptz, prediction double precision, version_id bigint)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
rows 1000
as $$
#variable_conflict use_column
declare
    v_set_id integer;
    v_grid interval;
    v_problem record;
begin
    select s.set_id, s.grid into v_set_id, v_grid
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
    -- LightGBM takes a row in a few microseconds, one call each; ONNX wants them by the thousand.
    return query execute format($q$
        with asked as materialized (
            select g.symbol::text collate "C" as symbol, g.ts from (%s) as g
        ),
        served as materialized (
            select a.symbol, v.version_id, v.format, (v.spec #>> '{inputs,length}')::integer as length
            from (select distinct symbol from asked) a
            join ml.model_versions v on v.version_id = ml.champion($1, a.symbol)
        ),
        vectors as (
            select
                s.version_id, q.symbol, q.ts,
                row_number() over (partition by s.version_id) / 1000 as part,
                case
                    when s.length is null then v.values
                    else ml._stored_sequence($2, q.symbol, q.ts, $3, s.length)
                end as x
            from asked q
            join served s on s.symbol = q.symbol and s.format <> 'lightgbm'
            join feature.vectors v on v.set_id = $2 and v.symbol = q.symbol and v.ts = q.ts
        ),
        parts as materialized (
            select
                p.version_id, array_agg(p.symbol) as symbols, array_agg(p.ts) as times,
                ml.score_many(p.version_id, array_agg(p.x)) as scores
            from vectors p
            where p.x is not null
            group by p.version_id, p.part
        )
        select q.symbol, q.ts, ml.predict_version(s.version_id, v.values), s.version_id
        from asked q
        join served s on s.symbol = q.symbol and s.format = 'lightgbm'
        join feature.vectors v on v.set_id = $2 and v.symbol = q.symbol and v.ts = q.ts
        union all
        select u.symbol, u.ts, u.score, p.version_id
        from parts p
        cross join lateral unnest(p.symbols, p.times, p.scores) as u (symbol, ts, score)
        $q$, rtrim($2, E'; \n\t')
    ) using $1, v_set_id, v_grid;
end
$$;
comment on function ml.predict_many(text, text) is
'The champion''s prediction for many rows at once: query is one SELECT giving symbol (canonical) and ts, all names qualified by their schema; rows without a stored vector (a sequence model: with a gap in its vectors) or a promoted version are left out. Runs with the caller''s rights and writes nothing. Errors: AP302 unknown model, AP508 not one read-only SELECT.';

create or replace function ml._attention(version_id bigint, features double precision [])
returns double precision []
language plpython3u stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.predict import attention
    return attention(plpy, GD, version_id, features)
$python$;

create or replace function ml._check_onnx(artifact bytea) returns void
language plpython3u immutable parallel safe set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server import onnx
    onnx.refuse(plpy, artifact)
$python$;
