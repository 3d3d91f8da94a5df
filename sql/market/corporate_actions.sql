-- Series across splits, dividends and renames, as known at a time.

-- The actions as known at a time: those known by then, in the version that held then.
create or replace function market._actions_known(as_of timestamptz)
returns setof market.corporate_actions
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select a.* from market.corporate_actions a where a.known_at <= $1
    union all
    select h.symbol, h.ts, h.kind, h.known_at, h.ratio, h.amount, h.new_symbol, h.source
    from market.corporate_actions_history h
    where h.known_at <= $1 and h.superseded_at > $1
$$;

create or replace function market.adjusted_candles(
    symbol text,
    timeframe interval,
    "from" timestamptz,
    "to" timestamptz,
    as_of timestamptz default null,
    dividends boolean default true
)
returns table (
    ts timestamptz,
    open double precision,
    high double precision,
    low double precision,
    close double precision,
    volume double precision,
    factor double precision,
    traded_as text
)
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp set timezone = 'UTC' set plan_cache_mode = force_custom_plan
as $$
#variable_conflict use_column
declare
    v_symbol text := market.resolve($1);
    v_as_of timestamptz := coalesce($5, now());
begin
    if $2 is null or $3 is null or $4 is null or not isfinite($3) or not isfinite($4) then
        raise exception 'timeframe, from and to must be given and finite'
        using errcode = 'AP903', hint = 'As in market.adjusted_candles(''AAPL@local'', ''1 day'', ''2014-01-01'', ''2015-01-01'').';
    end if;
    return query
    with recursive
    -- The symbol and those it was renamed from, each with its time.
    names as (
        select v_symbol collate "C" as name, timestamptz '-infinity' as since, timestamptz 'infinity' as until, 1 as depth
        union all
        select a.symbol, timestamptz '-infinity', least(n.until, a.ts), n.depth + 1
        from names n
        join market._actions_known(v_as_of) a
            on a.kind = 'rename' and a.new_symbol = n.name and a.ts <= v_as_of
        where n.depth < 50
    ),
    spans as (
        select n.name, coalesce((
            select max(o.until) from names o where o.depth = n.depth + 1
        ), timestamptz '-infinity') as since, n.until
        from names n
    ),
    bars as (
        select s.name, b.*
        from spans s
        cross join lateral market._candles_known(s.name, $3, v_as_of, v_as_of) b
        where b.timeframe = $2 and b.ts >= s.since and b.ts < s.until and b.ts < $4
            and b.ts + $2 <= v_as_of
    ),
    actions as (
        select
            a.ts, a.kind,
            case a.kind
                when 'split' then 1 / a.ratio
                -- What the price falls by, of the last close before it.
                else coalesce(1 - a.amount / nullif((
                    select b.close
                    from spans p
                    cross join lateral market._candles_known(p.name, a.ts - interval '60 days', v_as_of, v_as_of) b
                    where b.timeframe = $2 and b.ts >= p.since and b.ts < p.until
                        and b.ts < a.ts
                    order by b.ts desc limit 1
                ), 0), 1)
            end as price_factor,
            case a.kind when 'split' then a.ratio else 1 end as volume_factor
        from spans s
        join market._actions_known(v_as_of) a
            on a.symbol = s.name and a.ts > s.since and a.ts <= s.until
        where a.ts <= v_as_of and (a.kind = 'split' or a.kind = 'dividend' and $6)
    )
    select
        b.ts, b.open * f.price, b.high * f.price, b.low * f.price, b.close * f.price,
        b.volume * f.size, f.price, b.name
    from bars b
    cross join lateral (
        select
            coalesce(exp(sum(ln(a.price_factor))), 1) as price,
            coalesce(exp(sum(ln(a.volume_factor))), 1) as size
        from actions a
        where a.ts > b.ts and a.price_factor > 0
    ) f
    order by b.ts;
end
$$;
comment on function market.adjusted_candles(text, interval, timestamptz, timestamptz, timestamptz, boolean) is
'Bars of [from, to) adjusted for the splits and, with dividends, the dividends that had happened and were known as of as_of (default: now), under the symbol''s earlier names too. Prices before a split of ratio r are divided by r and volumes multiplied; before a dividend prices are multiplied by 1 - amount / last close before it (CRSP''s method, backwards from as_of). factor: what prices were multiplied by; traded_as: the symbol at the time. An action that becomes known later never changes an earlier as-of answer. Errors: AP101 unknown symbol, AP903 timeframe or span missing.';

create or replace function market.listing(symbol text, as_of timestamptz default null)
returns table (status text, since timestamptz, new_symbol text)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_symbol text := market.resolve($1);
    v_as_of timestamptz := coalesce($2, now());
begin
    return query
        select case a.kind when 'rename' then 'renamed' else 'delisted' end, a.ts, a.new_symbol
        from market._actions_known(v_as_of) a
        where a.symbol = v_symbol and a.kind in ('rename', 'delisting') and a.ts <= v_as_of
        order by a.ts desc limit 1;
    if not found then
        return query
            select
                case when i.delisted_at <= v_as_of then 'delisted'
                    when i.expiry <= v_as_of then 'expired' else 'listed' end,
                case when i.delisted_at <= v_as_of then i.delisted_at
                    when i.expiry <= v_as_of then i.expiry else i.listed_at end,
                null::text
            from market.instruments i where i.symbol = v_symbol;
    end if;
end
$$;
comment on function market.listing(text, timestamptz) is
'Whether a symbol was listed, expired, renamed (to new_symbol) or delisted as known as of a time (default: now), and since when. Errors: AP101 unknown symbol.';
