-- What comes next: the regime, volatility and volume over a horizon, from what was known at a time.
create or replace function regime._horizon(horizon interval) returns bigint
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    if horizon is null or not horizon > interval '0' or horizon > interval '10 years' then
        raise exception 'not a horizon: %', coalesce(horizon::text, 'null')
        using errcode = 'AP616', hint = 'A length of time above 0, such as interval ''4 hours''.';
    end if;
    return (extract(epoch from horizon) * 1000000)::bigint;
end
$$;
comment on function regime._horizon(interval) is
'A horizon in microseconds. Errors: AP616 it is none.';

create or replace function regime._level(
    symbol text, width bigint, horizon bigint, as_of bigint, what text
)
returns table (
    level double precision, lower double precision, upper double precision,
    weights double precision [], coverage double precision, bar_count bigint, bar bigint
)
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
rows 1
as $python$
    from alphaplus.server.regime import service
    return service.level(plpy, symbol, width, horizon, as_of, what)
$python$;
comment on function regime._level(text, bigint, bigint, bigint, text) is
'Forecast of volatility or volume over a horizon; see regime.volatility.';

create or replace function regime._state_ahead(
    symbol text, width bigint, horizon bigint, as_of bigint, spec jsonb
)
returns table (probabilities double precision [], bar bigint)
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
rows 1
as $python$
    from alphaplus.server.regime import service
    return service.state_ahead(plpy, GD, symbol, width, horizon, as_of, spec)
$python$;
comment on function regime._state_ahead(text, bigint, bigint, bigint, jsonb) is
'Probabilities of the regimes after a horizon; see regime.forecast.';

create or replace function regime.forecast(
    symbol text, horizon interval, as_of timestamptz default null,
    timeframe interval default interval '1 hour'
)
returns table (
    regime text, confidence double precision, probabilities jsonb, at timestamptz, version text
)
language plpgsql stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC' -- a day of a timeframe is 24 hours
rows 1
as $$
#variable_conflict use_column
declare
    v_symbol constant text := market.resolve(forecast.symbol);
    v_as_of constant timestamptz := regime._finite(coalesce(forecast.as_of, now()));
    v_width constant bigint := regime._width(forecast.timeframe);
    v_horizon constant bigint := regime._horizon(forecast.horizon);
    v_by record;
    v_found record;
begin
    select c.version, c.spec into v_by from regime._classifier(v_symbol, forecast.timeframe) c;
    select a.probabilities, a.bar into v_found
    from regime._state_ahead(
        v_symbol, v_width, v_horizon, regime._us(v_as_of), v_by.spec
    ) a;
    if v_found.bar is null then
        -- classify says why.
        perform regime.classify(v_symbol, v_as_of, forecast.timeframe);
        return;
    end if;
    return query
        select
            s.state, v_found.probabilities[s.position], regime._as_json(v_found.probabilities),
            regime._at(v_found.bar) + forecast.horizon, v_by.version
        from regime.states s
        order by v_found.probabilities[s.position] desc
        limit 1;
end
$$;
comment on function regime.forecast(text, interval, timestamptz, interval) is
'The likeliest regime a horizon after the last bar known by as_of (default: now), its probability
(confidence), and the probabilities of all six, summing to 1. How long a regime lasts depends on its
age: hazards of leaving and where to are those of the symbol''s own last 3,500 bars. Errors: AP101,
AP102 symbol, AP600 timeframe, AP602 no bars, AP603 too few bars, AP608 no such time, AP609, AP616 horizon.';

create or replace function regime.volatility(
    symbol text, horizon interval, as_of timestamptz default null,
    timeframe interval default interval '1 hour'
)
returns table (
    volatility double precision, lower double precision, upper double precision, level double precision,
    coverage double precision, weights jsonb, bar timestamptz
)
language plpgsql stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC' -- a day of a timeframe is 24 hours
rows 1
as $$
#variable_conflict use_column
declare
    v_symbol constant text := market.resolve(volatility.symbol);
    v_as_of constant timestamptz := regime._finite(coalesce(volatility.as_of, now()));
begin
    return query
        select
            l.level, l.lower, l.upper, 0.9::double precision, l.coverage,
            jsonb_build_object('naive', l.weights[1], 'ewma', l.weights[2], 'har', l.weights[3]),
            regime._at(l.bar)
        from regime._level(
            v_symbol, regime._width(volatility.timeframe), regime._horizon(volatility.horizon),
            regime._us(v_as_of), 'volatility'
        ) l;
    if not found then
        raise exception 'too few bars of % for % at %', volatility.timeframe, v_symbol, v_as_of
        using errcode = 'AP603',
            detail = 'A forecast needs 500 bars and the horizon, the last not older than five bars.',
            hint = 'Load more history, or ask at a shorter timeframe.';
    end if;
end
$$;
comment on function regime.volatility(text, interval, timestamptz, interval) is
'Forecast of the volatility of the log price over the horizon after the last bar known by as_of
(default: now), with an interval that held 90 % of past outcomes whatever the market did (level;
coverage: of the last 500). By ranges of bars, from naive, exponential and HAR forecasts weighted by
their past QLIKE (weights). lower and upper are null until there are 100 past errors. Errors: AP101,
AP102 symbol, AP600 timeframe, AP603 too few bars, AP608 no such time, AP609, AP616 horizon. Sources: Parkinson (1980);
Corsi (2009); Patton (2011); Gibbs & Candes (2021).';

create or replace function regime.liquidity(
    symbol text, horizon interval, as_of timestamptz default null,
    timeframe interval default interval '1 hour'
)
returns table (
    volume double precision, lower double precision, upper double precision, level double precision,
    coverage double precision, weights jsonb, bar timestamptz
)
language plpgsql stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC' -- a day of a timeframe is 24 hours
rows 1
as $$
#variable_conflict use_column
declare
    v_symbol constant text := market.resolve(liquidity.symbol);
    v_as_of constant timestamptz := regime._finite(coalesce(liquidity.as_of, now()));
begin
    return query
        select
            l.level, l.lower, l.upper, 0.9::double precision, l.coverage,
            jsonb_build_object('naive', l.weights[1], 'ewma', l.weights[2], 'har', l.weights[3]),
            regime._at(l.bar)
        from regime._level(
            v_symbol, regime._width(liquidity.timeframe), regime._horizon(liquidity.horizon),
            regime._us(v_as_of), 'volume'
        ) l;
    if not found then
        raise exception 'too few bars of % for % at %', liquidity.timeframe, v_symbol, v_as_of
        using errcode = 'AP603',
            detail = 'A forecast needs 500 bars and the horizon, the last not older than five bars.',
            hint = 'Load more history, or ask at a shorter timeframe.';
    end if;
end
$$;
comment on function regime.liquidity(text, interval, timestamptz, interval) is
'Forecast of the volume (base units) traded over the horizon after the last bar known by as_of
(default: now), as regime.volatility forecasts volatility. Errors: those of regime.volatility.';
