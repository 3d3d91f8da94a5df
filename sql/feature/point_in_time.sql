-- Point-in-time joins: for each (symbol, time) the newest row of a table that had happened and was
-- known by then. Few pairs are looked up one by one in the table's index; where they are many for
-- the rows that they span, the times of these rows are read once and merged with them.

-- Which of the rows of one ts is the newest: expressions on r, the greatest first. The table's
-- primary key decides, texts by length and then byte by byte, so that numbers written as text are
-- in their order; in a table without one known_at, and then its columns from left to right.
create or replace function feature._newest_first(relation regclass, out keys text [])
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    with keyed as (
        select k.attnum, k.place
        from pg_index i
        cross join lateral unnest(i.indkey::int2 []) with ordinality as k (attnum, place)
        where i.indrelid = relation and i.indisprimary
    ),
    ranked as (
        select 0 as place, array['r.known_at'] as parts
        where not exists (select from keyed)
        union all
        select
            coalesce(k.place, a.attnum),
            case
                when t.typcategory = 'S' then array[
                    format('length(r.%I)', a.attname), format('r.%I collate "C"', a.attname)
                ]
                when t.typcategory in ('N', 'B', 'D', 'T', 'E', 'I')
                    then array[format('r.%I', a.attname)]
                else array[format('r.%I::text collate "C"', a.attname)]
            end
        from pg_attribute a
        join pg_type t on t.oid = a.atttypid
        left join keyed k on k.attnum = a.attnum
        where a.attrelid = relation and a.attnum > 0 and not a.attisdropped
            and (k.attnum is not null or not exists (select from keyed))
            and a.attname not in ('symbol', 'ts', 'known_at')
    )
    select coalesce(array_agg(p.part order by r.place, p.number), '{}') into keys
    from ranked r
    cross join lateral unnest(r.parts) with ordinality as p (part, number);
end
$$;

-- The statement of some pairs: $1 symbols, $2 times, $3 places, $4 max_age; merged: $4 the ts of
-- each pair's row, as microseconds since 2000, null where it has none.
create or replace function feature._as_of_sql(
    relation regclass, history text, keys text [], columns text [], since timestamptz,
    until timestamptz, merged boolean default false, ties boolean default true
)
returns text
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    v_pick text;
    v_known text;
    v_outputs text;
    v_order text;
    v_now text;
    v_then text;
    v_first text;
begin
    if columns is null then
        v_pick := format('to_jsonb(r) - array[%L, %L]', 'symbol', 'superseded_at');
    else
        select 'jsonb_build_object(' || string_agg(format('%L, r.%I', c, c), ', ') || ')'
        into v_pick from unnest(columns) as c;
    end if;
    -- The bounds are constants: of a hypertable only the chunks between them are planned.
    v_known := format(
        'r.symbol = k.symbol and r.known_at <= k.ts and r.ts >= %L and r.ts < %L', since, until
    );
    select
        coalesce(string_agg(format(', %s as o%s', e.key, e.place), '' order by e.place), ''),
        coalesce(string_agg(format(', %s desc nulls last', e.key), '' order by e.place), ''),
        coalesce(string_agg(format(', u.o%s desc nulls last', e.place), '' order by e.place), '')
    into v_outputs, v_order, v_first
    from unnest(keys) with ordinality as e (key, place);
    v_first := 'u.ts desc' || v_first || ', u.known_at desc, u.ends desc';
    v_now := format(
        'select r.ts, r.known_at, timestamptz %1$L as ends, %2$s as row%3$s',
        'infinity', v_pick, v_outputs
    );
    v_then := format('select r.ts, r.known_at, r.superseded_at, %1$s%2$s', v_pick, v_outputs);
    if merged then
        v_known := format(
            $q$%s and r.ts = timestamptz '2000-01-01 00:00:00+00'
            + k.newest * interval '1 microsecond'$q$, v_known
        );
        v_now := format(
            '%1$s, k.place, k.symbol, k.ts as asked from keys k join %2$s r on %3$s', v_now,
            relation, v_known
        );
        if history is not null then
            v_now := format(
                '%1$s union all %2$s, k.place, k.symbol, k.ts from keys k join %3$s r'
                ' on %4$s and r.superseded_at > k.ts', v_now, v_then, history, v_known
            );
        end if;
        return format(
            $q$with keys as materialized (
                select * from unnest($1, $2, $3, $4) as k (symbol, ts, place, newest)
            )
            (select%3$s u.place, u.symbol, u.asked, u.ts, u.known_at, u.row from (%1$s) u%2$s)
            union all
            select k.place, k.symbol, k.ts, null, null, null from keys k where k.newest is null$q$,
            v_now, case when ties then ' order by u.place, ' || v_first end,
            case when ties then ' distinct on (u.place)' end
        );
    end if;
    v_known := v_known || ' and r.ts < k.ts and r.ts >= k.ts - $4';
    v_now := format(
        '(%1$s from %2$s r where %3$s order by r.ts desc%4$s limit 1)', v_now, relation, v_known,
        v_order
    );
    if history is not null then
        v_then := format(
            '(%1$s from %2$s r where %3$s and r.superseded_at > k.ts'
            ' order by r.ts desc%4$s, r.known_at desc, r.superseded_at desc limit 1)',
            v_then, history, v_known, v_order
        );
        v_now := format(
            '(select u.* from (%1$s union all %2$s) u order by %3$s limit 1)', v_now, v_then, v_first
        );
    end if;
    return format(
        $q$select k.place, k.symbol, k.ts, n.ts, n.known_at, n.row
        from unnest($1, $2, $3) as k (symbol, ts, place) left join lateral %s n on true$q$, v_now
    );
end
$$;

-- For many pairs at once the ts of each one's row, as an array literal of microseconds since 2000,
-- and whether any of these may be the ts of several rows. Given of each pair the place of its symbol
-- in names, its time, and the oldest ts that counts, as array_send writes them.
create or replace function feature._as_of_newest(
    relation text, history text, names text [], codes bytea, times bytea, floors bytea,
    since timestamptz, until timestamptz, out newest text, out ties boolean
)
language plpython3u stable parallel restricted
set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.store import point_in_time
    return point_in_time.newest(
        plpy, relation, history, names, (codes, times, floors), (since, until)
    )
$python$;

create or replace function feature._as_of(
    relation regclass, symbols text [], times timestamptz [], columns text [], max_age interval
)
returns table (
    place bigint, symbol text, ts timestamptz, row_ts timestamptz, row_known_at timestamptz,
    "row" jsonb
)
language plpgsql stable parallel restricted
-- A day of max_age is 24 hours, and a time in a row is written the same, whoever asks.
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
rows 1000
as $$
declare
    c_many constant integer := 2000; -- pairs for which it pays to look whether to merge
    c_block constant integer := 100000; -- pairs merged at once
    c_dense constant integer := 16; -- rows a pair up to which merging is faster
    c_most constant integer := 4000000; -- rows merged at once
    v_columns text [];
    v_keys text [] := feature._newest_first(relation);
    v_bad text;
    v_history text;
    v_given text [];
    v_names text [];
    v_first timestamptz;
    v_last timestamptz;
    v_days double precision;
    v_blocks integer;
    v_block record;
    v_slice record;
    v_found bigint;
    v_newest bigint [];
    v_ties boolean;
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
    select string_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ')
    into v_bad
    from pg_catalog.pg_attribute a
    join pg_catalog.pg_type t on t.oid = a.atttypid
    where a.attrelid = relation and (
        a.attname in ('ts', 'known_at') and a.atttypid <> 'timestamptz'::regtype
        or a.attname = 'symbol' and t.typcategory <> 'S'
    );
    if v_bad is not null then
        raise exception '% cannot be joined as of a time', relation
        using errcode = 'AP207', detail = format('Its columns: %s.', v_bad),
            hint = 'symbol must be a text, ts and known_at timestamptz: join a view that makes them so.';
    end if;
    select string_agg(quote_nullable(c), ', ') into v_bad
    from unnest(columns) as c where c is null or not c = any (v_columns);
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
    select format('%I.%I', n.nspname, c.relname || '_history') into v_history
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where c.oid = relation;
    if to_regclass(v_history) is not null then
        execute format(
            'select exists (select from %s h where h.ts >= $1 and h.ts < $2)', v_history
        ) into v_superseded using v_first - max_age, v_last;
    end if;
    if not v_superseded then
        v_history := null;
    end if;
    select array_agg(n.name), array_agg(market.resolve(n.name)) into v_given, v_names
    from (select distinct a.name from unnest(symbols) as a (name)) n;
    v_days := coalesce(extract(epoch from v_last - v_first), 0) / 86400 + 1;
    v_blocks := ceil(cardinality(times)::double precision / c_block);
    for v_block in
        select
            array_agg(d.canonical) as symbols, array_agg(u.t) as times, array_agg(u.place) as places,
            array_agg(d.code::integer - 1) as codes, count(*) as n, min(u.t) as first_ts,
            max(u.t) as last_ts, bool_and(isfinite(u.t)) as finite
        from unnest(symbols, times) with ordinality as u (name, t, place)
        join unnest(v_given, v_names) with ordinality as d (name, canonical, code)
            on d.name is not distinct from u.name
        group by case
            when isfinite(u.t)
                then floor(extract(epoch from u.t - v_first) / 86400 / v_days * v_blocks)
        end
    loop
        v_found := null;
        if v_block.finite and v_block.n >= c_many then
            execute format(
                'select count(*) from (select from %s r where r.symbol = any ($1) and r.ts >= %L'
                ' and r.ts < %L limit $2) x',
                relation, v_block.first_ts - max_age, v_block.last_ts
            ) into v_found using v_names, least(v_block.n * c_dense, c_most) + 1;
        end if;
        if v_found <= least(v_block.n * c_dense, c_most) then
            select n.newest::bigint [], n.ties into v_newest, v_ties
            from feature._as_of_newest(
                relation::text, v_history, v_names, array_send(v_block.codes),
                array_send(v_block.times),
                array_send(array(
                    select u.t - max_age from unnest(v_block.times) with ordinality as u (t, i)
                    order by u.i
                )),
                v_block.first_ts - max_age, v_block.last_ts
            ) n;
            return query execute feature._as_of_sql(
                relation, v_history, v_keys, columns, v_block.first_ts - max_age,
                v_block.last_ts, true, v_ties
            ) using v_block.symbols, v_block.times, v_block.places, v_newest;
            continue;
        end if;
        -- A probe passes by every chunk that its statement plans, so the pairs are cut into slices
        -- of time: few chunks for each, and not more slices than their plans are worth.
        v_days := 1 + case
            when v_block.finite
                then extract(epoch from v_block.last_ts - v_block.first_ts) / 86400 else 0
        end;
        for v_slice in
            select
                array_agg(u.symbol) as symbols, array_agg(u.t) as times,
                array_agg(u.place) as places, min(u.t) as first_ts, max(u.t) as last_ts
            from unnest(v_block.symbols, v_block.times, v_block.places) as u (symbol, t, place)
            group by case
                when isfinite(u.t) then floor(
                    extract(epoch from u.t - v_block.first_ts) / 86400 / v_days
                    * greatest(1, least(v_days, sqrt(v_block.n * v_days * 0.01)))::integer
                )
            end
        loop
            return query execute feature._as_of_sql(
                relation, v_history, v_keys, columns, v_slice.first_ts - max_age,
                v_slice.last_ts
            ) using v_slice.symbols, v_slice.times, v_slice.places, max_age;
        end loop;
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
'Point-in-time join: for each (symbol, time) pair the newest row of a table with symbol, ts and known_at that happened before the time (at most max_age before it, a day being 24 hours) and was known by it, in the version that held then (a table <relation>_history with superseded_at is read too). Of several rows of one ts the one with the greatest key is the newest (the primary key''s columns in their order; text by length, then byte by byte, so that trade ids that are numbers are in their order); in a table without a primary key the one known last, then by its columns from left to right. So the answer does not hang on where rows lie. One row for each pair in their order, row_ts null where there is none; row: the columns asked for (default all) as jsonb, times in UTC. Join several tables by several calls. Many pairs for the rows they span (up to 16 rows a pair) are merged with them in one pass instead of looked up one by one; the answer is the same. Errors: AP101 unknown symbol, AP207 no such columns, pairs of unequal number, or an invalid max_age.';

-- The columns of many times of one symbol, and the places (from 1) of times that are left to look up.
create or replace function feature._as_of_columns(
    relation text, symbol text, times bytea, columns text [], max_age bigint, since timestamptz,
    until timestamptz, out "values" bytea [], out left_over integer []
)
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.store import point_in_time
    return point_in_time.columns(plpy, relation, symbol, times, columns, max_age, (since, until))
$python$;

create or replace function feature._patched("values" bytea, places integer [], found double precision [])
returns bytea
language plpython3u immutable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.store import point_in_time
    return point_in_time.patched(values, places, found)
$python$;

create or replace function feature.as_of_columns(
    relation regclass, symbol text, times timestamptz [], columns text [],
    max_age interval default interval '1 day'
)
returns table (name text, "values" bytea)
language plpgsql stable parallel restricted
set search_path = pg_catalog, pg_temp
set timezone = 'UTC' -- a day of max_age is 24 hours
rows 10
as $$
declare
    v_symbol constant text := market.resolve(symbol);
    v_first constant timestamptz := (select min(t) from unnest(times) t);
    v_last constant timestamptz := (select max(t) from unnest(times) t);
    v_history text;
    v_superseded boolean := false;
    v_bad text;
    v_values bytea [];
    v_places integer [];
    v_found double precision [];
begin
    if coalesce(cardinality(columns), 0) = 0 then
        raise exception 'no columns are asked for'
        using errcode = 'AP743', hint = 'Name columns of numbers: array[''price''].';
    end if;
    -- It refuses what feature.as_of refuses.
    perform from feature._as_of(
        relation, array[v_symbol], array[timestamptz '2000-01-01 00:00:00+00'], columns, max_age
    );
    select string_agg(format('%s %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ')
    into v_bad
    from pg_attribute a
    join pg_type t on t.oid = a.atttypid
    where a.attrelid = relation and a.attname = any (columns) and t.typcategory <> 'N';
    if v_bad is not null then
        raise exception 'no columns of numbers: %', v_bad
        using errcode = 'AP741', hint = 'feature.as_of gives columns of any type, as jsonb.';
    end if;
    if array_position(times, null) is not null or not (isfinite(v_first) and isfinite(v_last)) then
        raise exception 'times must be given and finite'
        using errcode = 'AP742', hint = 'Leave out null and infinity; feature.as_of answers for them.';
    end if;
    if cardinality(times) = 0 then
        return query select c.name, ''::bytea from unnest(columns) as c (name);
        return;
    end if;
    select format('%I.%I', n.nspname, c.relname || '_history') into v_history
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.oid = relation;
    if to_regclass(v_history) is not null then
        execute format(
            'select exists (select from %s h where h.symbol = $1 and h.ts >= $2 and h.ts < $3)', v_history
        ) into v_superseded using v_symbol, v_first - max_age, v_last;
    end if;
    select r.values, r.left_over into v_values, v_places
    from feature._as_of_columns(
        relation::text, v_symbol, array_send(times), columns,
        (extract(epoch from max_age) * 1000000)::bigint, v_first - max_age, v_last
    ) r;
    if v_superseded then -- what was corrected or deleted may be what was known: look all up
        v_places := array(select generate_series(0, cardinality(times) - 1));
    end if;
    for i in 1 .. cardinality(columns) loop
        if cardinality(v_places) > 0 then
            v_found := array(
                select (a.row ->> columns[i])::double precision
                from feature._as_of(
                    relation, array_fill(v_symbol, array[cardinality(v_places)]),
                    array(select times[p.place + 1] from unnest(v_places) with ordinality as p (place, n) order by p.n),
                    columns[i:i], max_age
                ) a
                order by a.place
            );
            v_values[i] := feature._patched(v_values[i], v_places, v_found);
        end if;
        name := columns[i];
        "values" := v_values[i];
        return next;
    end loop;
end
$$;
comment on function feature.as_of_columns(regclass, text, timestamptz [], text [], interval) is
'Point-in-time join of one symbol''s many times with columns of numbers: for each time what feature.as_of finds, as one block a column (float8, little-endian, in the order of times; NaN: no row, or null), which numpy reads as it is. The table''s rows are read once and merged with the times; of several rows of one ts, and where rows were corrected, single pairs are looked up. Errors: AP101 unknown symbol, AP207 no such columns or an invalid max_age, AP741 a column of no numbers, AP742 a time that is null or infinite, AP743 no columns.';
