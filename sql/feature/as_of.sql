-- Point-in-time joins: for each (symbol, time) the newest row of a table that had happened and was
-- known by then.
create or replace function feature._as_of_sql(
    relation regclass, columns text [], since timestamptz, until timestamptz, superseded boolean
)
returns text
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    v_pick text;
    v_one text;
    v_other text := '';
begin
    if columns is null then
        v_pick := format('to_jsonb(r) - array[%L, %L]', 'symbol', 'superseded_at');
    else
        select 'jsonb_build_object(' || string_agg(format('%L, r.%I', c, c), ', ') || ')'
        into v_pick from unnest(columns) as c;
    end if;
    -- The bounds are constants: of a hypertable only the chunks between them are planned.
    v_one := format(
        $q$(select r.ts, r.known_at, %1$s as row from %2$s r
        where r.symbol = k.symbol and r.ts < k.ts and r.ts >= k.ts - $4 and r.known_at <= k.ts
            and r.ts >= %3$L and r.ts < %4$L
        order by r.ts desc limit 1)$q$, v_pick, relation, since, until
    );
    if superseded then
        v_other := format(
            $q$ union all (select r.ts, r.known_at, %1$s from %2$s_history r
            where r.symbol = k.symbol and r.ts < k.ts and r.ts >= k.ts - $4
                and r.known_at <= k.ts and r.superseded_at > k.ts
            order by r.ts desc limit 1)$q$, v_pick, relation
        );
        v_one := format('select u.* from (%s%s) u order by u.ts desc, u.known_at desc limit 1', v_one, v_other);
    end if;
    return format(
        $q$select k.place, k.symbol, k.ts, n.ts, n.known_at, n.row
        from unnest($1, $2, $3) as k (symbol, ts, place) left join lateral (%s) n on true$q$, v_one
    );
end
$$;

create or replace function feature._as_of(
    relation regclass, symbols text [], times timestamptz [], columns text [], max_age interval
)
returns table (
    place bigint, symbol text, ts timestamptz, row_ts timestamptz, row_known_at timestamptz,
    "row" jsonb
)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
rows 1000
as $$
declare
    v_columns text [];
    v_bad text;
    v_first timestamptz;
    v_last timestamptz;
    v_days double precision;
    v_slices integer;
    v_slice record;
    v_superseded boolean := false;
begin
    select array_agg(a.attname::text order by a.attnum) into v_columns
    from pg_catalog.pg_attribute a
    where a.attrelid = relation and a.attnum > 0 and not a.attisdropped;
    if v_columns is null or not v_columns @> array['symbol', 'ts', 'known_at'] then
        raise exception '% cannot be joined as of a time', relation
        using errcode = 'AP207', detail = 'It lacks one of the columns symbol, ts and known_at.',
            hint = 'Join a table of market, or one of your own with these columns.';
    end if;
    select string_agg(quote_literal(c), ', ') into v_bad
    from unnest(columns) as c where not c = any (v_columns);
    if v_bad is not null then
        raise exception '% has no column %', relation, v_bad
        using errcode = 'AP207', hint = format('Its columns: %s.', array_to_string(v_columns, ', '));
    end if;
    if cardinality(symbols) is distinct from cardinality(times) then
        raise exception '% symbols, but % times', coalesce(cardinality(symbols), 0),
            coalesce(cardinality(times), 0)
        using errcode = 'AP207', hint = 'Give one time for each symbol, in the same order.';
    end if;
    if max_age is null or max_age <= interval '0' then
        raise exception 'a max_age of % is not possible', coalesce(max_age::text, 'null')
        using errcode = 'AP207', hint = 'Say how old a row may be: interval ''1 day''.';
    end if;
    select min(u.t), max(u.t) into v_first, v_last
    from unnest(times) as u (t) where isfinite(u.t);
    if to_regclass(format('%s_history', relation)) is not null then
        execute format(
            'select exists (select from %s_history h where h.ts >= $1 and h.ts < $2)', relation
        ) into v_superseded using v_first - max_age, v_last;
    end if;
    -- A probe passes by every chunk that its statement plans, so the keys are cut into slices of
    -- time: few chunks for each, and not more slices than their plans are worth.
    v_days := coalesce(extract(epoch from v_last - v_first), 0) / 86400 + 1;
    v_slices := greatest(1, least(v_days, sqrt(cardinality(times) * v_days * 0.01)))::integer;
    for v_slice in
        select
            array_agg(d.canonical order by u.place) as symbols,
            array_agg(u.t order by u.place) as times, array_agg(u.place order by u.place) as places,
            min(u.t) as first_ts, max(u.t) as last_ts
        from unnest(symbols, times) with ordinality as u (name, t, place)
        join (
            select n.name, market.resolve(n.name) as canonical
            from (select distinct a.name from unnest(symbols) as a (name)) n
        ) d on d.name is not distinct from u.name
        group by floor(extract(epoch from u.t - v_first) / 86400 / v_days * v_slices)
    loop
        return query execute feature._as_of_sql(
            relation, columns, v_slice.first_ts - max_age, v_slice.last_ts, v_superseded
        ) using v_slice.symbols, v_slice.times, v_slice.places, max_age;
    end loop;
end
$$;

create or replace function feature.as_of(
    relation regclass, symbols text [], times timestamptz [], columns text [] default null,
    max_age interval default interval '1 day'
)
returns table (
    symbol text, ts timestamptz, row_ts timestamptz, row_known_at timestamptz, "row" jsonb
)
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
rows 1000
as $$
    select a.symbol, a.ts, a.row_ts, a.row_known_at, a.row
    from feature._as_of($1, $2, $3, $4, $5) a
    order by a.place
$$;
comment on function feature.as_of(regclass, text [], timestamptz [], text [], interval) is
'Point-in-time join: for each (symbol, time) pair the newest row of a table with symbol, ts and known_at that happened before the time (at most max_age before it) and was known by it, in the version that held then (a table <relation>_history with superseded_at is read too). One row for each pair in their order, row_ts null where there is none; row: the columns asked for (default all) as jsonb. Join several tables by several calls. Errors: AP101 unknown symbol, AP207 no such columns, pairs of unequal number, or a max_age that is none.';
