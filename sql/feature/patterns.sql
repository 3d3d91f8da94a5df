-- Candlestick patterns as rows; the feature set patterns_1m holds them as a vector.
create or replace function feature._pattern_rows(
    symbol text, width bigint, start bigint, stop bigint
)
returns table (
    at bigint, pattern text, title text, direction text, strength double precision
)
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
rows 1000
as $python$
    from alphaplus.server.features import patterns
    return patterns.rows(plpy, GD, symbol, width, start, stop)
$python$;

create or replace function feature.patterns(
    symbol text, as_of timestamptz default null, timeframe interval default '1 minute'
)
returns table (
    symbol text, ts timestamptz, pattern text, title text, direction text, strength double precision
)
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
    select s.name, s.ts, r.pattern, r.title, r.direction, r.strength
    from (
        select
            market.resolve($1) as name,
            feature._timeframe($3) as width,
            public.time_bucket(feature._timeframe($3), coalesce($2, now())) as ts
    ) s
    cross join lateral feature._pattern_rows(
        s.name, ops._micros(s.width), ops._micros(s.ts), ops._micros(s.ts) + 1
    ) r
$$;
comment on function feature.patterns(text, timestamptz, interval) is
'The candlestick patterns (of TA-Lib''s 61) that the last bar closed and known at ts ends, ts being the last multiple of the timeframe not after as_of (default: now); no row where there is none. pattern: TA-Lib''s name in lower case; direction: bullish, bearish, or neutral where the shape says nothing of direction (dojis, spinning top, high wave); strength: TA-Lib''s number / 100 (1; 0.8 where two edges are equal; 2 for a confirmed Hikkake). Errors: AP101, AP102, AP210 unknown timeframe, AP211 an infinite time.';

create or replace function feature.patterns_history(
    symbol text, "from" timestamptz, "to" timestamptz, timeframe interval default '1 minute'
)
returns table (
    symbol text, ts timestamptz, pattern text, title text, direction text, strength double precision
)
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
    select s.name, ops._at(r.at), r.pattern, r.title, r.direction, r.strength
    from (
        select market.resolve($1) as name, feature._timeframe($4) as width
    ) s
    cross join lateral feature._pattern_rows(
        s.name, ops._micros(s.width),
        ops._micros($2), ops._micros($3)
    ) r
$$;
comment on function feature.patterns_history(text, timestamptz, timestamptz, interval) is
'The rows of feature.patterns at each multiple of the timeframe in [from, to), each as known at its own time. Errors: AP101, AP102, AP210, AP211 a time that is null or infinite.';
