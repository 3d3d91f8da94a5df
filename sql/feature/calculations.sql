-- What users' SELECTs may call beside PostgreSQL's own functions: feature.<name>. Each is a function of
-- its arguments alone. alphaplus.server.sets.reads lists them.
-- search_path: not pinned for those that are to be inlined; every name is qualified.

create or replace function feature.safe_div(
    numerator double precision, denominator double precision
)
returns double precision
language sql immutable parallel safe
return numerator / nullif(denominator, 0);
comment on function feature.safe_div(double precision, double precision) is
'numerator / denominator, null where the denominator is 0.';

create or replace function feature.safe_ln(x double precision) returns double precision
language sql immutable parallel safe
return case when x > 0 then ln(x) end;
comment on function feature.safe_ln(double precision) is
'Natural logarithm, null of what is not above 0.';

create or replace function feature.zscore(
    x double precision, mean double precision, deviation double precision
)
returns double precision
language sql immutable parallel safe
return (x - mean) / nullif(deviation, 0);
comment on function feature.zscore(double precision, double precision, double precision) is
'(x - mean) / deviation, null where the deviation is 0. Rolling: feature.zscore(x, avg(x) over w, stddev(x) over w) … window w as (order by ts rows 59 preceding).';

create or replace function feature.ewma(x double precision [], half_life double precision)
returns double precision
language sql immutable parallel safe set search_path = pg_catalog, pg_temp
return (
    select sum(u.x * power(0.5, u.age / half_life)) / sum(power(0.5, u.age / half_life))
    from (
        select v.x, cardinality($1) - v.n as age from unnest($1) with ordinality as v (x, n)
        where v.x is not null
    ) as u
    where half_life > 0
);
comment on function feature.ewma(double precision [], double precision) is
'Exponentially weighted mean of an array whose newest element is the last: weights 0.5^(age / half_life), half_life in elements, which sum to 1 (pandas: ewm(halflife=…).mean()); nulls are left out. feature.ewma(array_agg(close) over (order by ts rows 119 preceding), 12): ten half-lives hold 99.9 % of the weight.';

create or replace function feature.quantile(x double precision [], share double precision)
returns double precision
language sql immutable parallel safe set search_path = pg_catalog, pg_temp
return (
    select percentile_cont(case when share between 0 and 1 then share end) within group (order by u.x)
    from unnest($1) as u (x)
);
comment on function feature.quantile(double precision [], double precision) is
'The quantile of a share from 0 to 1 of an array, interpolated as percentile_cont does; nulls are left out. feature.quantile(array_agg(volume) over (order by ts rows 59 preceding), 0.9).';

create or replace function feature._zone(zone text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    perform timestamptz '2000-01-01 00:00:00+00' at time zone zone;
    return zone;
exception when invalid_parameter_value then
    raise exception 'unknown time zone %', quote_literal(left(zone, 80))
    using errcode = 'AP235', hint = 'List them with: select name from pg_timezone_names';
end
$$;

create or replace function feature.time_of_day(ts timestamptz, zone text default 'UTC')
returns double precision
language sql immutable parallel safe
return extract(epoch from (ts at time zone feature._zone(zone))::time)::double precision / 86400;
comment on function feature.time_of_day(timestamptz, text) is
'How much of the day has passed at a place, 0 to 1: 0.75 is 18:00 there. As two features that meet at midnight: sin(2 * pi() * feature.time_of_day(ts)) and cos. Errors: AP235 unknown time zone.';

create or replace function feature.session_start(
    ts timestamptz, zone text default 'UTC', begins time default time '00:00'
)
returns timestamptz
language sql immutable parallel safe
return (
    (((ts at time zone feature._zone(zone)) - begins::interval)::date + begins)
    at time zone zone
);
comment on function feature.session_start(timestamptz, text, time) is
'When the session began in which a time lies: sessions begin every day at begins, the time at a place. The session before: feature.session_start(feature.session_start(ts, …) - interval ''1 hour'', …). The high of the previous one: (select max(d.high) from market.candles_1h d where d.ts < feature.session_start(c.ts) and d.ts >= feature.session_start(c.ts) - interval ''1 day''). Errors: AP235 unknown time zone.';
