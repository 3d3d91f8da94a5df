-- What the classifiers read: bars with the spans of time in which each version of them was known.
-- search_path: not pinned, so that it is inlined; every name is qualified. Times come as record_send
-- writes them, which takes a third of the time of numbers: microseconds since 2000-01-01 UTC.
create or replace function regime._bars(
    symbols text [], width bigint, start bigint, stop bigint
)
returns table (symbol text, rows bytea)
language sql stable parallel safe
as $$
    select u.symbol, v.rows
    from unnest($1) u (symbol)
    cross join lateral (
        select
            string_agg(
                record_send(row(
                    r.bucket, r.usable_at, r.expires_at, r.first_ts, r.last_ts, r.priority::bigint,
                    r.high, r.low, r.close, coalesce(r.volume, 'NaN')
                )), ''::bytea order by r.bucket, r.usable_at, r.first_ts, r.tie, r.expires_at
            ) as rows
        from market.candle_versions(
            u.symbol, $2 * interval '1 microsecond',
            timestamptz 'epoch' + $3 * interval '1 microsecond',
            timestamptz 'epoch' + $4 * interval '1 microsecond'
        ) r
        where r.high > 0 and r.low > 0 and r.close > 0
    ) v
$$;

create or replace function regime._us(at timestamptz) returns bigint
language sql immutable parallel safe
return (extract(epoch from at) * 1000000)::bigint;
comment on function regime._us(timestamptz) is 'A time in microseconds since 1970.';

create or replace function regime._at(us bigint) returns timestamptz
language sql immutable parallel safe
return timestamptz 'epoch' + us * interval '1 microsecond';
comment on function regime._at(bigint) is 'The time of microseconds since 1970.';

create or replace function regime._width(timeframe interval) returns bigint
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    v_width bigint;
begin
    v_width := case timeframe
        when interval '1 minute' then 60000000
        when interval '5 minutes' then 300000000
        when interval '15 minutes' then 900000000
        when interval '1 hour' then 3600000000
        when interval '4 hours' then 14400000000
        when interval '1 day' then 86400000000
    end;
    if v_width is null then
        raise exception 'no regimes for bars of %', coalesce(timeframe::text, 'null')
        using errcode = 'AP600',
            hint = 'Timeframes: 1 minute, 5 minutes, 15 minutes, 1 hour, 4 hours, 1 day.';
    end if;
    return v_width;
end
$$;
comment on function regime._width(interval) is
'The length of a timeframe in microseconds. Errors: AP600 no such timeframe.';

create or replace function regime._finite(at timestamptz) returns timestamptz
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    if at is null or not isfinite(at) or at < timestamptz '1970-01-01 00:00:00+00'
        or at >= timestamptz '2262-01-01 00:00:00+00' then
        raise exception 'not a time that can be asked about: %', coalesce(at::text, 'null')
        using errcode = 'AP608', hint = 'Give a time of the years 1970 to 2261.';
    end if;
    return at;
end
$$;
comment on function regime._finite(timestamptz) is
'The time, or AP608 where it is null, infinite, before 1970 or after 2261.';
