-- Indicators of one timeframe by name, in their own units. The feature sets technical_1m and
-- technical_1h hold them scale-free, with higher timeframes beside (see seed.sql).
create or replace function feature._technical_rows(
    symbol text, width bigint, start bigint, stop bigint
)
returns table (at bigint, vector double precision [])
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
rows 10000
as $python$
    from alphaplus.server.features import technical
    return technical.rows(plpy, GD, symbol, width, start, stop)
$python$;

create or replace function feature._timeframe(timeframe interval) returns interval
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    if timeframe in (
        interval '1 minute', interval '5 minutes', interval '15 minutes', interval '1 hour',
        interval '4 hours', interval '1 day'
    ) then
        return timeframe;
    end if;
    raise exception 'no bars of length %', coalesce(timeframe::text, 'null')
    using errcode = 'AP210', hint = 'Timeframes: 1 min, 5 min, 15 min, 1 hour, 4 hours, 1 day.';
end
$$;

-- The indicators in order, and what each is.
create or replace function feature._technical_declared()
returns table (name text, words text)
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.features import technical
    return technical.declared()
$python$;

-- feature.technical and feature.technical_history, with one column an indicator.
create or replace function feature._sync_technical() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    c_form constant text := ' language sql stable parallel restricted'
        ' set search_path = pg_catalog, pg_temp as ';
    v_columns text;
    v_picks text;
    v_table text;
begin
    select
        string_agg(format('%I double precision', d.name), ', ' order by d.place),
        string_agg(format('r.vector[%s]', d.place), ', ' order by d.place),
        string_agg(E'\n  ' || d.words, '' order by d.place)
    into v_columns, v_picks, v_table
    from feature._technical_declared() with ordinality as d (name, words, place);
    execute format(
        'create or replace function feature.technical(symbol text,'
        ' as_of timestamptz default null, timeframe interval default %L)'
        ' returns table (symbol text, ts timestamptz, %s)%s%L',
        '1 minute', v_columns, c_form, format(
            'select s.name, s.ts, %s from (select market.resolve($1) as name,'
            ' feature._timeframe($3) as width,'
            ' public.time_bucket(feature._timeframe($3), coalesce($2, now())) as ts) s'
            ' left join lateral feature._technical_rows('
            's.name, ops._micros(s.width), ops._micros(s.ts), ops._micros(s.ts) + 1)'
            ' r on true', v_picks
        )
    );
    execute format(
        'create or replace function feature.technical_history(symbol text, "from" timestamptz,'
        ' "to" timestamptz, timeframe interval default %L)'
        ' returns table (symbol text, ts timestamptz, %s)%s%L',
        '1 minute', v_columns, c_form, format(
            'select s.name, ops._at(r.at), %s'
            ' from (select market.resolve($1) as name, feature._timeframe($4) as width) s'
            ' cross join lateral feature._technical_rows('
            's.name, ops._micros(s.width), ops._micros($2), ops._micros($3)) r', v_picks
        )
    );
    execute format(
        'comment on function feature.technical(text, timestamptz, interval) is %L',
        'Technical indicators of the bars of one timeframe (1 min, 5 min, 15 min, 1 hour, 4 hours,'
        ' 1 day), in their own units, from bars closed and known at ts, the last multiple of the'
        ' timeframe not after as_of (default: now). Null until an indicator has the bars it needs,'
        ' and when the last bar is more than 5 bars old. Each is computed from the bars since 720'
        ' before the start of ts''s block of 480 bars (UTC), at any time and in history alike.'
        ' Errors: AP101, AP102, AP210 unknown timeframe.' || v_table
    );
    execute format(
        'comment on function'
        ' feature.technical_history(text, timestamptz, timestamptz, interval) is %L',
        'The columns of feature.technical at each multiple of the timeframe in [from, to), each as'
        ' known at its own time: the numbers the live function gave then. Errors: AP101, AP102,'
        ' AP210.'
    );
end
$$;

set local role alphaplus_owner;
select feature._sync_technical();
reset role;
