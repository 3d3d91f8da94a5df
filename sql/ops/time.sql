-- Times and lengths of time at the boundary to Python: bigint microseconds, times since 1970. These
-- are inlined, so that a plan sees the time itself; they resolve no name through the search path.
create or replace function ops._micros(ts timestamptz) returns bigint
language sql immutable parallel safe
return case
    when isfinite(ts)
        then (extract(epoch from ts - timestamptz '1970-01-01 00:00:00+00') * 1000000)::bigint
end;
comment on function ops._micros(timestamptz) is
'A time in whole microseconds since 1970-01-01 UTC; null where it is null or infinite.';

create or replace function ops._micros(length interval) returns bigint
language sql immutable parallel safe
return (extract(epoch from length) * 1000000)::bigint;
comment on function ops._micros(interval) is
'A length of time in whole microseconds; a month counts as 30 days.';

-- By way of seconds as double precision, which tell microseconds apart until the year 2242: a sum of
-- a timestamp and an interval is not immutable, and a plan could not leave chunks out by it.
create or replace function ops._at(micros bigint) returns timestamptz
language sql immutable parallel safe
return to_timestamp(micros / 1000000.0::double precision);
comment on function ops._at(bigint) is
'The time of microseconds since 1970-01-01 UTC, as ops._micros gives them.';

create or replace function ops._length(micros bigint) returns interval
language sql immutable parallel safe
return micros * interval '1 microsecond';
comment on function ops._length(bigint) is
'The length of time of microseconds, as ops._micros gives them.';
