-- Features of the calendar.

create or replace function feature.events(symbol text, as_of timestamptz default null)
returns table (
    seconds_to_unlock double precision, unlock_share double precision,
    unlock_amount double precision, seconds_since_listing double precision,
    seconds_to_macro double precision, seconds_since_macro double precision,
    seconds_to_maintenance double precision, events_next_day double precision
)
language sql stable parallel safe rows 1
set search_path = pg_catalog, pg_temp
as $$
    with asked as materialized (
        select market.resolve($1) as symbol, coalesce($2, now()) as at
    ),
    known as materialized (
        select e.kind, extract(epoch from e.ts - a.at)::float8 as away, e.share_of_float, e.amount
        from asked a
        cross join lateral market.events_known(a.at) e
        where e.symbol is null or e.symbol = a.symbol
    ),
    unlock as (
        select k.away, k.share_of_float, k.amount
        from known k where k.kind = 'unlock' and k.away > 0
        order by k.away limit 1
    )
    select
        (select u.away from unlock u), (select u.share_of_float from unlock u),
        (select u.amount from unlock u),
        (select min(-k.away) from known k where k.kind = 'listing' and k.away <= 0),
        (select min(k.away) from known k where k.kind = 'macro' and k.away > 0),
        (select min(-k.away) from known k where k.kind = 'macro' and k.away <= 0),
        (select min(k.away) from known k where k.kind = 'maintenance' and k.away > 0),
        (select count(*)::float8 from known k where k.away > 0 and k.away <= 86400)
$$;
comment on function feature.events(text, timestamptz) is
'Features of the calendar as known as of as_of (default: now): seconds to the next unlock, its share of
the float and amount, seconds since the listing, to and since a macro release, to maintenance, and
events of the coming day. Null where there is none. Errors: AP101 unknown symbol.';
