-- A pattern seen in the candles, beside what the model expects.
create or replace function ml._enhance_pattern(
    asked_symbol text, asked_pattern text, asked_as_of timestamptz, asked_timeframe interval,
    asked_horizon interval, asked_model text
)
returns table (
    symbol text, ts timestamptz, timeframe interval, pattern text, title text, direction text,
    strength double precision, model text, horizon interval, probability_up double precision,
    pattern_confidence double precision, agrees boolean, model_confidence double precision,
    model_version bigint, is_fallback boolean
)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_model text;
    v_horizon interval := coalesce(
        asked_horizon, case when asked_model is null then interval '15 minutes' end
    );
    v_several text [];
    v_as_of timestamptz := coalesce(asked_as_of, now());
begin
    if asked_pattern is not null and not exists (
        select from feature.sets s
        where s.name = 'patterns_1m'
            and s.features && array[lower(asked_pattern), 'cdl' || lower(asked_pattern)]
    ) then
        raise exception 'unknown pattern %', quote_literal(asked_pattern)
        using errcode = 'AP213',
            hint = 'Use TA-Lib''s name, with or without cdl; all are listed by: select unnest(features) from feature.sets where name = ''patterns_1m''.';
    end if;
    select array_agg(m.model order by m.model), min(l.horizon)
    into v_several, v_horizon
    from ml.models m
    join ml.labels l on l.label = m.label
    where l.kind = 'direction' and (v_horizon is null or l.horizon = v_horizon)
        and (asked_model is null or m.model = asked_model);
    if v_several is null then
        raise exception 'no direction model%', concat(
            ' ' || quote_literal(asked_model),
            ' for a horizon of ' || coalesce(
                asked_horizon, case when asked_model is null then interval '15 minutes' end
            )
        )
        using errcode = 'AP507',
            hint = 'List them with: select m.model, l.horizon from ml.models m join ml.labels l using (label) where l.kind = ''direction''.';
    end if;
    if cardinality(v_several) > 1 then
        raise exception '% direction models have a horizon of %', cardinality(v_several), v_horizon
        using errcode = 'AP510', detail = format('They are: %s.', array_to_string(v_several, ', ')),
            hint = format('Name one of them: model => %L.', v_several[1]);
    end if;
    v_model := v_several[1];
    return query
        select
            f.symbol, f.ts, asked_timeframe, f.pattern, f.title, f.direction, f.strength,
            v_model, v_horizon, p.probability,
            case f.direction when 'bullish' then p.probability when 'bearish' then 1 - p.probability end,
            case f.direction when 'bullish' then p.probability > 0.5 when 'bearish' then p.probability < 0.5 end,
            p.confidence, p.version_id, p.is_fallback
        from feature.patterns(asked_symbol, v_as_of, asked_timeframe) f
        cross join lateral ml.predict(v_model, f.symbol, v_as_of) p
        where asked_pattern is null
            or f.pattern = lower(asked_pattern)
            or 'cdl' || lower(asked_pattern) = f.pattern
        order by f.strength desc, f.pattern;
end
$$;
create or replace function ml.enhance_pattern(
    symbol text, pattern text default null, as_of timestamptz default null,
    timeframe interval default '1 minute', horizon interval default null, model text default null
)
returns table (
    symbol text, ts timestamptz, timeframe interval, pattern text, title text, direction text,
    strength double precision, model text, horizon interval, probability_up double precision,
    pattern_confidence double precision, agrees boolean, model_confidence double precision,
    model_version bigint, is_fallback boolean
)
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
    select
        e.symbol, e.ts, e.timeframe, e.pattern, e.title, e.direction, e.strength, e.model,
        e.horizon, e.probability_up, e.pattern_confidence, e.agrees, e.model_confidence,
        e.model_version, e.is_fallback
    from ml._enhance_pattern($1, $2, $3, $4, $5, $6) e
$$;
comment on function ml.enhance_pattern(text, text, timestamptz, interval, interval, text) is
'The candlestick patterns detected at as_of (default: now; one pattern, by TA-Lib''s name with or without cdl, or all), each beside what a direction model says: that named by model, else the one there is for the horizon (default: 15 minutes, or the horizon of the model named). probability_up, the calibrated probability of a higher price; pattern_confidence, the probability of a move the pattern''s way (probability_up for a bullish one, 1 less it for a bearish one, null for a neutral one); agrees, whether that is above one half. No row where no pattern is there. Errors: AP101, AP102, AP210 unknown timeframe, AP213 unknown pattern, AP507 no direction model of that name or horizon, AP510 several of that horizon and none named, and those of ml.predict.';
