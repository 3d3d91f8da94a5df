-- Predicting reads and never writes. The functions that touch an artifact run with the owner's
-- rights, so that who predicts need not be able to read artifacts; they are STABLE, as which
-- version serves is looked up in the statement's own snapshot.
create or replace function ml.predict_version(version_id bigint, features double precision [])
returns double precision
language plpython3u stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
as $python$
    # Asked for in every prediction by key: the import is done once.
    if "score" not in SD:
        from alphaplus.server.serving.score import score
        SD["score"] = score
    return SD["score"](plpy, GD, version_id, features)
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
    from alphaplus.server.serving.score import score_with_trust
    return score_with_trust(plpy, GD, version_id, features)
$python$;

comment on function ml.score_version(bigint, double precision []) is
'What one version says of a vector: raw score, prediction (calibrated probability, or value), confidence with its interval [lower, upper] as the version''s spec defines them, and the distance to the training rows in units of the support threshold (above 1: out of support). Errors: AP501 to AP504.';

create or replace function ml.explain_version(version_id bigint, features double precision [])
returns table (feature text, value double precision, contribution double precision)
language plpython3u stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.serving.score import explain
    return explain(plpy, GD, version_id, features)
$python$;

comment on function ml.explain_version(bigint, double precision []) is
'ml.explain for one version and a vector. Errors: AP501 to AP504.';

create or replace function ml.warm_versions(version_ids bigint []) returns integer
language plpython3u stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.serving.score import warm
    return warm(plpy, GD, version_ids)
$python$;

comment on function ml.warm_versions(bigint []) is
'Load versions into this backend; returns how many. Errors: AP501 to AP503.';

create or replace function ml.cache_status()
returns table (
    version_id bigint, bytes bigint, shared boolean, total_bytes bigint, limit_bytes bigint,
    hits bigint, misses bigint, evictions bigint
)
language plpython3u stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.serving.score import status
    return status(plpy, GD)
$python$;
comment on function ml.cache_status() is
'The models that this backend holds, least recently used first; the limit is the setting ml.cache_bytes, read whenever a model is loaded. shared: the trees are packed in one file that all backends map (bytes: its length), unless the setting ml.share_models is false or the model has what the packed form does not hold (categorical splits, linear leaves); else bytes is what the C allocator handed out when the model was loaded.';

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
    -- qualified. ml.serving is ml.champion's chain without regimes: one row serves a symbol.
    select ml.predict_version(c.version_id, v.values), c.version_id
    from ml.serving c
    join feature.vectors v on v.set_id = c.set_id and v.symbol = $2 and v.ts = $3
    where c.model = $1 and (c.symbol = $2 or c.symbol is null and $2 <> all (c.others))
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
    v_classify regproc := to_regproc('regime.classify');
    v_regime text;
begin
    if v_classify is null then
        return null;
    end if;
    execute format('select c.regime from %s($1, $2) c', v_classify)
    into v_regime using symbol, as_of;
    return v_regime;
exception when others then
    if sqlstate like 'AP%' then
        return null;
    end if;
    raise;
end
$$;

-- The newest market row behind a vector. Within the stretch first: a lower bound lets all but the
-- last chunks be left out, which is most of the time this takes on a long history.
create or replace function ml._data_until(
    symbol text, grid interval, ts timestamptz, within interval
)
returns timestamptz
language plpgsql stable parallel safe
-- Planned for the values at hand, or each chunk would be looked at.
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_custom_plan
set timezone = 'UTC' -- a day of timeframe or grid is 24 hours
as $$
declare
    v_trades timestamptz;
    v_candles timestamptz;
    v_closed timestamptz := ts - grid;
    v_from timestamptz;
begin
    foreach v_from in array array[ts - within, timestamptz '-infinity'] loop
        select c.ts + c.timeframe into v_candles
        from market.candles c
        where c.symbol = _data_until.symbol and c.timeframe = grid
            and c.known_at <= _data_until.ts and c.ts <= v_closed
            and c.ts > case when v_from = '-infinity' then v_from else v_from - grid end
        order by c.ts desc limit 1;
        -- No trade before ts is newer than a bar that closed at ts.
        exit when v_candles = ts;
        select t.ts into v_trades
        from market.trades t
        where t.symbol = _data_until.symbol and t.known_at <= _data_until.ts
            and t.ts < _data_until.ts and t.ts > v_from
        order by t.ts desc limit 1;
        exit when coalesce(v_trades, v_candles) is not null;
    end loop;
    return greatest(v_trades, v_candles);
end
$$;

create or replace function ml._base_rate_of(
    task text, kind text, horizon bigint, params jsonb, symbol text, step bigint, as_of bigint,
    window_length bigint
)
returns double precision
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.training import dataset
    return dataset.base_rate(
        plpy, GD, task, kind, horizon, params, symbol, step, as_of, window_length
    )
$python$;

create or replace function ml._base_rate(label text, symbol text, grid interval, as_of timestamptz)
returns double precision
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
    select ml._base_rate_of(
        l.task, l.kind, ops._micros(l.horizon), l.params, $2, ops._micros($3), ops._micros($4),
        ops._micros(
            greatest(ops.setting_interval('ml.base_rate_window', interval '7 days'), l.horizon * 20)
        )
    )
    from ml.labels l
    where l.label = $1
$$;
comment on function ml._base_rate(text, text, interval, timestamptz) is
'Mean of a label over the intervals, one after the other, that ended in the last week (setting ml.base_rate_window; at least 20 horizons) before as_of, as known then; of classes Jeffreys'' estimate, (events + 1/2) / (intervals + 1). Null where no outcome is known.';

-- given_features: the vector of the set given_set at as_of, where the caller has it: then it is not
-- computed again, and the symbol's data have been looked at.
create or replace function ml._predict(
    model text, symbol text, as_of timestamptz,
    given_set integer default null, given_features double precision [] default null,
    out canonical text, out asked_as_of timestamptz, out served_model text, out horizon interval,
    out prediction double precision, out probability double precision,
    out confidence double precision, out lower double precision, out upper double precision,
    out version_id bigint, out regime text, out partition_used text, out feature_as_of timestamptz,
    out staleness interval, out expired boolean, out out_of_support boolean,
    out is_fallback boolean, out reason text, out features double precision [],
    out vector_set integer
)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
set constraint_exclusion = off
as $$
declare
    v_model record;
    v_version record;
    v_score record;
    v_until timestamptz;
    v_most interval;
    v_policies text [];
    v_policy text;
    v_why text;
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
    v_most := ops.setting_interval('ml.max_staleness', interval '1 hour') + v_model.grid;
    if given_set is null then
        v_until := ml._data_until(canonical, v_model.grid, feature_as_of, v_most);
        staleness := asked_as_of - v_until;
        if v_until is null or staleness > v_most then
            raise exception 'no data for % at %', canonical, asked_as_of
            using errcode = 'AP506',
            detail = case
                when v_until is null then 'No row was known then.'
                else format('The newest row known then is of %s.', v_until)
            end,
            hint = case
                when v_until is null then 'Load data for the symbol first: alphaplus load'
                else format(
                    'Ask as of a time that has data: as_of => %L; or raise the setting ml.max_staleness.',
                    v_until
                )
            end;
        end if;
    end if;
    regime := ml._regime(canonical, feature_as_of);
    version_id := ml.champion(v_model.model, canonical, regime);
    is_fallback := version_id is null;
    expired := false;
    -- From the narrowest partition's champion to the pooled one, until one may answer.
    while version_id is not null loop
        select
            v.symbol, v.regime, v.as_of + v.expires_after as expires_at,
            (v.spec #>> '{inputs,length}')::integer as length, s.name, s.version, s.set_id, s.grid,
            feature._retired(s) as retired
        into strict v_version
        from ml.model_versions v
        join feature.sets s on s.name = v.feature_set and s.version = v.feature_version
        where v.version_id = _predict.version_id;
        v_policy := 'flag';
        -- The set that it was trained on, whatever the model's next version is to be trained on.
        feature_as_of := public.time_bucket(v_version.grid, asked_as_of);
        vector_set := v_version.set_id;
        if v_version.length is not null then
            vector_set := null;
            features := case
                when v_version.retired then ml._stored_sequence(
                    v_version.set_id, canonical, feature_as_of, v_version.grid, v_version.length
                )
                else ml._sequence(
                    v_version.set_id, canonical, feature_as_of, v_version.grid, v_version.length
                )
            end;
        elsif vector_set = given_set then
            features := given_features;
        elsif v_version.retired then
            features := (
                select v.values
                from feature.vectors v
                where v.set_id = v_version.set_id and v.symbol = canonical
                    and v.ts = feature_as_of
            );
        else
            features := feature.vector(
                v_version.name, canonical, feature_as_of, v_version.version
            );
        end if;
        if features is null then
            v_why := case
                when v_version.retired then format(
                    'version %s of feature set %s is no longer computed',
                    v_version.version, v_version.name
                )
                else format('a gap in the last %s vectors', v_version.length)
            end;
            v_policy := 'fallback';
        end if;
        if v_policy <> 'fallback' then
            expired := coalesce(asked_as_of > v_version.expires_at, false);
            v_score := ml.score_version(version_id, features);
            out_of_support := v_score.distance > 1;
            if expired or out_of_support then
                v_why := case
                    when expired then format('version %s expired at %s', version_id, v_version.expires_at)
                    else format(
                        'the vector is %s times the training threshold away',
                        round(v_score.distance::numeric, 2)
                    )
                end;
                reason := coalesce(reason, v_why);
                is_fallback := is_fallback or expired;
                -- Where both hold, the stricter.
                v_policies := array[
                    case when expired then ops.setting_text('ml.expired_policy', 'flag') end,
                    case when out_of_support
                        then ops.setting_text('ml.out_of_support_policy', 'flag') end
                ];
                v_policy := case
                    when 'fallback' = any (v_policies) then 'fallback'
                    when 'null' = any (v_policies) then 'null'
                    else 'flag'
                end;
            end if;
            if v_policy = 'flag' then
                prediction := v_score.prediction;
                confidence := v_score.confidence;
                lower := v_score.lower;
                upper := v_score.upper;
            end if;
        end if;
        if v_policy <> 'fallback' then
            partition_used := case
                when v_version.regime is not null then 'symbol and regime'
                when v_version.symbol is not null then 'symbol'
                else 'pooled'
            end;
            exit;
        end if;
        reason := coalesce(reason, v_why);
        is_fallback := true;
        version_id := case
            when v_version.regime is not null then ml.champion(v_model.model, canonical)
            when v_version.symbol is not null then ml.champion(v_model.model, null)
        end;
    end loop;
    if version_id is null then
        feature_as_of := public.time_bucket(v_model.grid, asked_as_of);
        vector_set := v_model.set_id;
        features := case
            when vector_set = given_set then given_features
            else feature.vector(
                v_model.feature_set, canonical, feature_as_of, v_model.feature_version
            )
        end;
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
language sql stable parallel restricted
rows 1
as $$
    -- search_path: not pinned, so that it is inlined into the caller's plan; names are qualified.
    select
        p.canonical, p.asked_as_of, p.served_model, p.horizon, p.prediction, p.probability,
        p.confidence, p.lower, p.upper, p.version_id, p.regime, p.partition_used, p.feature_as_of,
        p.staleness, p.expired, p.out_of_support, p.is_fallback, p.reason
    from ml._predict($1, $2, $3) p
$$;
comment on function ml.predict(text, text, timestamptz) is
'What a model says of a symbol as of a time (default: now), whatever its kind. prediction: calibrated probability, or value in the label''s unit; [lower, upper]: where the event''s frequency (value) lies at the version''s level, by held-out rows with like predictions (a probability can lie outside: then these rows say that it is off); confidence: 1 - width of that interval (spec of the version). partition_used: symbol and regime, symbol, pooled, or base rate (no version promoted; is_fallback). expired, out_of_support: do not trust it; what then happens is set by ml.expired_policy and ml.out_of_support_policy: flag (default), null or fallback (the next partition''s champion, at last the base rate; version_id is then that of who answers, or null; reason says why). staleness: as_of less the newest market row behind the vector. Errors: AP101 unknown symbol, AP302 unknown model, AP506 no data, AP502/AP503 unusable artifact.';
