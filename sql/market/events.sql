-- The calendar, as it was known at a time.

create or replace function market.events_known(as_of timestamptz default null, kind text default null)
returns setof market.events
language sql stable parallel safe rows 100
set search_path = pg_catalog, pg_temp
as $$
    select e.*
    from (
        select distinct on (x.source, x.source_id) x.*
        from market.events x
        where x.known_at <= coalesce($1, now())
        order by x.source, x.source_id, x.known_at desc
    ) e
    where not e.cancelled and ($2 is null or e.kind = $2)
$$;
comment on function market.events_known(timestamptz, text) is
'The calendar as known as of as_of (default: now): of each event the newest version known by then, those
cancelled by then left out. kind: only these. An event announced later is not there.';

create or replace function market.add_event(
    kind text, ts timestamptz, known_at timestamptz, title text default '',
    symbol text default null, amount double precision default null,
    share_of_float double precision default null, source text default 'user',
    source_id text default null, cancelled boolean default false, details jsonb default '{}'
)
returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_id bigint;
    v_symbol text;
begin
    if kind is null or kind !~ '^[a-z][a-z0-9_]{0,62}$' or not coalesce(isfinite(ts), false)
        or not coalesce(isfinite(known_at), false)
        or amount is not null and not (amount >= 0 and amount < 'infinity')
        or share_of_float is not null and not (share_of_float >= 0 and share_of_float <= 1) then
        raise exception 'an event needs a kind, a time, since when it is known, and amounts that can be'
        using errcode = 'AP932',
            hint = 'select market.add_event(''unlock'', ''2026-12-01'', now(), symbol => ''ARBUSDT'', share_of_float => 0.02)';
    end if;
    if symbol is not null then
        v_symbol := market.resolve(symbol);
    end if;
    insert into market.events (
        source, source_id, kind, symbol, ts, known_at, title, amount, share_of_float, cancelled,
        details
    )
    values (
        coalesce(nullif(btrim(source), ''), 'user'),
        coalesce(
            nullif(btrim(source_id), ''),
            md5(concat_ws('|', kind, v_symbol, extract(epoch from ts), title))
        ),
        kind, v_symbol, ts, known_at, coalesce(title, ''), amount, share_of_float,
        coalesce(cancelled, false), coalesce(details, '{}')
    )
    on conflict on constraint events_source_source_id_known_at_key do nothing
    returning event_id into v_id;
    return v_id;
end
$$;
comment on function market.add_event(
    text, timestamptz, timestamptz, text, text, double precision, double precision, text, text,
    boolean, jsonb
) is
'Writes an event, or a new version of one (same source and source_id, later known_at); null where this
version is there already. symbol: a symbol or alias; amount in base units, share_of_float 0 to 1.
Errors: AP101 unknown symbol, AP932 kind, times or amounts that cannot be.';
