-- Times and lengths of time at the boundary to Python: bigint microseconds, times since 1970. These
-- are inlined, so that a plan sees the time itself; they resolve no name through the search path.
create or replace function ops._micros(ts timestamptz) returns bigint
language sql immutable parallel safe
return case
    when ts >= timestamptz '1700-01-01 00:00:00+00' and ts < timestamptz '2262-01-01 00:00:00+00'
        then (extract(epoch from ts - timestamptz '1970-01-01 00:00:00+00') * 1000000)::bigint
end;
comment on function ops._micros(timestamptz) is
'A time in whole microseconds since 1970-01-01 UTC; null where it is null, infinite, or not of the years 1700 to 2261, in which sums of times and lengths stay within range.';

create or replace function ops._micros(length interval) returns bigint
language sql immutable parallel safe
return (extract(epoch from length) * 1000000)::bigint;
comment on function ops._micros(interval) is
'A length of time in whole microseconds; a month counts as 30 days.';

-- By way of seconds as double precision, which tell microseconds apart until the year 2242: a sum of
-- a timestamp and an interval is not immutable, and a plan could not leave chunks out by it.
-- The smallest bigint is the time of a row that stands for an error (alphaplus.server.errors).
create or replace function ops._failure() returns text
language plpython3u volatile parallel safe set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server import errors
    return errors.failure(GD)
$python$;

-- Its argument keeps a planner from evaluating it early.
create or replace function ops._failed(micros bigint) returns timestamptz
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    v_found constant jsonb := ops._failure()::jsonb;
begin
    if v_found ->> 'detail' is null then
        raise exception '%', coalesce(v_found ->> 'message', 'a time is out of range')
        using errcode = coalesce(v_found ->> 'sqlstate', 'AP211'),
            hint = coalesce(v_found ->> 'hint', 'Give a time of the years 1700 to 2261.');
    end if;
    raise exception '%', v_found ->> 'message'
    using errcode = v_found ->> 'sqlstate', detail = v_found ->> 'detail',
        hint = coalesce(v_found ->> 'hint', '');
end
$$;
comment on function ops._failed(bigint) is
'Raises the error that a function of rows ran into between two of them, with its own code and words.';

create or replace function ops._at(micros bigint) returns timestamptz
language sql immutable parallel safe
return case
    when micros > -9223372036854775808 then to_timestamp(micros / 1000000.0::double precision)
    when micros is not null then ops._failed(micros)
end;
comment on function ops._at(bigint) is
'The time of microseconds since 1970-01-01 UTC, as ops._micros gives them.';

-- A window of days or hours before a time, where the sum may leave what PostgreSQL can hold.
create or replace function ops._before(at timestamptz, seconds double precision) returns timestamptz
language sql immutable parallel safe
return case
    when seconds is null or seconds = 'NaN' then null
    when not isfinite(at) then at
    when seconds > 2e10 or at < timestamptz '1000-01-01 00:00:00+00' and seconds > 0 then '-infinity'
    when seconds < -2e10 or at > timestamptz '9999-01-01 00:00:00+00' and seconds < 0 then 'infinity'
    else at - seconds * interval '1 second'
end;
comment on function ops._before(timestamptz, double precision) is
'The time so many seconds before another; -infinity or infinity where that is centuries away.';

create or replace function ops._length(micros bigint) returns interval
language sql immutable parallel safe
return micros * interval '1 microsecond';
comment on function ops._length(bigint) is
'The length of time of microseconds, as ops._micros gives them.';

-- TimescaleDB cannot compare its tables' times with those at the ends of PostgreSQL's range.
create or replace function ops._within(at timestamptz) returns timestamptz
language sql immutable parallel safe
return case
    when at < timestamptz '1700-01-01 00:00:00+00' then timestamptz '1700-01-01 00:00:00+00'
    when at > timestamptz '2262-01-01 00:00:00+00' then timestamptz '2262-01-01 00:00:00+00'
    else at
end;
comment on function ops._within(timestamptz) is
'A bound of a search: the time itself, or the nearest one of the years 1700 to 2261.';

create or replace function ops._moment(at timestamptz) returns timestamptz
language plpgsql volatile parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    if at < timestamptz '1700-01-01 00:00:00+00' or at >= timestamptz '2262-01-01 00:00:00+00' then
        raise exception 'a time is infinite, or not of the years 1700 to 2261: %', at
        using errcode = 'AP211', hint = 'Give a time that has a date, or none for now.';
    end if;
    return coalesce(at, clock_timestamp());
end
$$;
comment on function ops._moment(timestamptz) is
'The time at which something is to run; null: now. Errors: AP211 an infinite time.';
