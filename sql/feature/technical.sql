-- Indicators of one timeframe by name, in their own units. The feature sets technical_1m and
-- technical_1h hold them scale-free, with higher timeframes beside (see seed.sql).
create or replace function feature._technical_rows(
    symbol text, timeframe interval, start double precision, stop double precision
)
returns table (seconds double precision, vector double precision [])
language plpython3u stable parallel restricted
set search_path = pg_catalog, pg_temp set intervalstyle = 'postgres' -- Python gets its text
rows 10000
as $python$
    from alphaplus.server.features import technical
    return technical.rows(plpy, GD, symbol, timeframe, (start, stop))
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

create or replace function feature._sync_technical() returns void
language plpython3u volatile set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.features import technical
    technical.sync(plpy)
$python$;

set local role alphaplus_owner;
select feature._sync_technical();
reset role;
