-- Vectors: stored where they were materialised, computed where they were not; the same numbers.
comment on column feature.vectors.values is
'In the order of feature.sets.features; NaN where not knowable.';

-- constraint_exclusion: TimescaleDB leaves chunks out by itself. PostgreSQL would read the CHECKs of
-- those that are left again for every plan, a fifth of the planning.
create or replace function feature._compute(family text, symbol text, at bigint)
returns double precision []
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
set constraint_exclusion = off
as $python$
    from alphaplus.server.store import vectors
    return vectors.live(plpy, GD, family, symbol, at)
$python$;

create or replace function feature._compute_many(
    set_ids integer [], definitions text [], symbol text, times bigint []
)
returns double precision []
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
set constraint_exclusion = off
as $python$
    from alphaplus.server.store import vectors
    return vectors.live_many(plpy, GD, set_ids, definitions, symbol, times)
$python$;

create or replace function feature._compute_rows(
    family text, symbol text, start bigint, stop bigint
)
returns table (at bigint, vector double precision [])
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
rows 10000
as $python$
    from alphaplus.server.store import vectors
    return vectors.rows(plpy, GD, family, symbol, start, stop)
$python$;

-- Belongs to alphaplus_copy (privileges.sql), the one role that may COPY from a file: which here is
-- memory of this very backend and nothing else, into feature.vectors, its chunks, or the temporary
-- table on the way there.
create or replace function feature._copy_vectors(handle integer, "into" regclass) returns void
language plpython3u volatile security definer set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.store import write
    write.copy_from_memory(plpy, handle, into)
$python$;

-- Runs as its owner, to whom the vectors belong.
create or replace function feature._store(
    set_id integer, family text, symbol text, start bigint, stop bigint
)
returns bigint
language plpython3u volatile security definer set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.store import write
    return write.store(plpy, GD, set_id, family, symbol, start, stop)
$python$;

-- One grid time of many symbols.
create or replace function feature._store_at(
    set_id integer, family text, symbols text [], at bigint
)
returns bigint
language plpython3u volatile security definer set search_path = pg_catalog, pg_temp
set constraint_exclusion = off
as $python$
    from alphaplus.server.store import write
    return write.store_at(plpy, GD, set_id, family, symbols, at)
$python$;

-- All grid times of a stretch of many symbols.
create or replace function feature._store_many(
    set_id integer, family text, symbols text [], start bigint, stop bigint, packed boolean
)
returns bigint
language plpython3u volatile security definer set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.store import write
    return write.store_many(plpy, GD, set_id, family, symbols, start, stop, packed)
$python$;

create or replace function feature._set(feature_set text, version integer default null)
returns feature.sets
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    v_set feature.sets;
begin
    select s.* into v_set
    from feature.sets s
    where s.name = feature_set and (_set.version is null or s.version = _set.version)
    order by s.version desc
    limit 1;
    if not found then
        raise exception 'unknown feature set %', quote_literal(feature_set)
            || coalesce(' version ' || version, '')
        using errcode = 'AP202', hint = 'List them with: select name, version from feature.sets';
    end if;
    return v_set;
end
$$;

create or replace function feature.grid_time(grid interval, as_of timestamptz) returns timestamptz
language sql immutable parallel safe
return case when grid > interval '0' then public.time_bucket(grid, as_of) end;
comment on function feature.grid_time(interval, timestamptz) is
'The last grid time not after as_of; null for a grid that is none.';

-- The stored vector, null where there is none or late rows have made it void.
create or replace function feature._stored(set_id integer, symbol text, ts timestamptz)
returns double precision []
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select v.values
        from feature.valid_vectors v
        where v.set_id = $1 and v.symbol = $2 and v.ts = $3
    );
end
$$;

create or replace function feature._row(
    feature_set text, version integer, symbol text, as_of timestamptz
)
returns table (canonical text, ts timestamptz, vector double precision [])
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
declare
    v_set feature.sets := feature._set(feature_set, version);
    v_symbol text := market.resolve(_row.symbol);
    v_ts timestamptz := public.time_bucket(v_set.grid, coalesce(as_of, now()));
    v_vector double precision [] := feature._stored(v_set.set_id, v_symbol, v_ts);
begin
    if v_vector is null then
        v_vector := feature._compute(
            feature._source(v_set), v_symbol, ops._micros(v_ts)
        );
    end if;
    return query select v_symbol, v_ts, v_vector;
end
$$;

create or replace function feature._history(
    feature_set text, version integer, symbol text, "from" timestamptz, "to" timestamptz
)
returns table (canonical text, ts timestamptz, vector double precision [])
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
declare
    v_set feature.sets := feature._set(feature_set, version);
    v_symbol text := market.resolve(_history.symbol);
begin
    return query
        select v_symbol, ops._at(r.at), r.vector
        from feature._compute_rows(
            feature._source(v_set), v_symbol, ops._micros("from"), ops._micros("to")
        ) r;
end
$$;

create or replace function feature.vector(
    feature_set text, symbol text, as_of timestamptz default null, version integer default null
)
returns double precision []
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
begin
    -- plpgsql keeps its plan; an SQL function that is not inlined would plan anew at each call.
    return (select r.vector from feature._row($1, $4, $2, $3) r);
end
$$;
comment on function feature.vector(text, text, timestamptz, integer) is
'The vector of a feature set (default: its newest version) for a symbol as known at the last grid time not after as_of (default: now), in the order of feature.sets.features, NaN where not knowable. The stored one where there is one, computed otherwise. Errors: AP101 unknown symbol, AP202 unknown feature set, AP211 an infinite time, AP214 a version that only an older release computed, at a time of which no vector is stored.';

create or replace function feature.vector(
    feature_sets text [], symbol text, as_of timestamptz default null
)
returns double precision []
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
declare
    v_symbol constant text := market.resolve($2);
    v_as_of constant timestamptz := coalesce($3, now());
    v_name text;
    v_set feature.sets;
    v_ids integer [];
    v_definitions text [];
    v_times bigint [];
begin
    foreach v_name in array coalesce($1, '{}') loop
        v_set := feature._set(v_name);
        v_ids := v_ids || v_set.set_id;
        v_definitions := v_definitions || feature._source(v_set);
        v_times := v_times || ops._micros(public.time_bucket(v_set.grid, v_as_of));
    end loop;
    return feature._compute_many(v_ids, v_definitions, v_symbol, v_times);
end
$$;
comment on function feature.vector(text [], text, timestamptz) is
'The vectors of several feature sets (their newest versions) one after the other, each as the function of one set gives it: what has to be computed is read once for all of them. Errors: AP101 unknown symbol, AP202 unknown feature set.';

-- All that can be known of [from, to) is stored now. A stretch that does not touch what was stored
-- before begins anew where it lies later; earlier ones stay out of account.
create or replace function feature._cover(
    set_id integer, symbols text [], "from" timestamptz, "to" timestamptz
)
returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
    insert into feature.watermarks as m (set_id, symbol, since, through)
    select $1, u.symbol, $3, $4
    from unnest($2) u (symbol)
    on conflict on constraint watermarks_pkey do update
    set through = greatest(m.through, excluded.through),
        since = case
            when excluded.since <= m.through and excluded.through >= m.since
                then least(m.since, excluded.since)
            when excluded.since > m.through then excluded.since
            else m.since
        end
$$;

-- A stretch of one symbol, stored anew.
create or replace function feature._store_stretch(
    set_id integer, symbol text, "from" timestamptz, "to" timestamptz, since timestamptz
)
returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    v_set feature.sets;
    v_block double precision;
begin
    select s.* into strict v_set from feature.sets s where s.set_id = _store_stretch.set_id;
    v_block := 1024 * date_part('epoch', v_set.grid);
    -- Two at once (the clock's and one by hand) take turns, stretch by stretch, but where they
    -- store different times: shared, not to meet one that packs, and each block of times alone.
    perform ops._lock('feature.materialise:' || v_set.set_id || ':' || symbol, true);
    perform ops._lock('feature.materialise:' || v_set.set_id || ':' || symbol || ':' || b.n)
    from generate_series(
        floor(date_part('epoch', "from") / v_block)::bigint,
        ceil(date_part('epoch', "to") / v_block)::bigint - 1
    ) b (n);
    delete from feature.vectors v
    where v.set_id = v_set.set_id and v.symbol = _store_stretch.symbol
        and v.ts >= "from" and v.ts < "to";
    perform feature._store(
        v_set.set_id, feature._source(v_set), symbol, ops._micros("from"), ops._micros("to")
    );
    perform feature._cover(v_set.set_id, array[symbol], since, "to");
end
$$;

-- One grid time of some symbols, stored anew.
create or replace function feature._store_close(set_id integer, symbols text [], at timestamptz)
returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    v_set feature.sets;
begin
    select s.* into strict v_set from feature.sets s where s.set_id = _store_close.set_id;
    -- In the order of their names, so that two at once take turns.
    perform ops._lock('feature.materialise:' || v_set.set_id || ':' || u.symbol)
    from unnest(symbols) u (symbol);
    delete from feature.vectors v
    where v.set_id = v_set.set_id and v.symbol = any (symbols) and v.ts = _store_close.at;
    perform feature._store_at(v_set.set_id, feature._source(v_set), symbols, ops._micros(at));
    perform feature._cover(v_set.set_id, symbols, at, at + v_set.grid);
end
$$;

-- These commit between stretches, so they cannot pin search_path; every name is qualified.
create or replace procedure feature.materialise(
    feature_set text, symbol text, "from" timestamptz, "to" timestamptz, version integer default null
)
language plpgsql
as $$
declare
    v_set feature.sets := feature._set(feature_set, version);
    v_symbol text := market.resolve(materialise.symbol);
    v_start timestamptz := public.time_bucket(v_set.grid, "from");
    v_at timestamptz := v_start;
    v_stop timestamptz;
begin
    if pg_catalog.isfinite("from") and pg_catalog.isfinite("to") then
        null;
    else
        raise exception 'a time is null or infinite'
        using errcode = 'AP211', hint = 'Say from when to when, each with a date.';
    end if;
    while v_at < "to" loop
        v_stop := least("to", v_at + v_set.grid * 20000);
        perform feature._store_stretch(v_set.set_id, v_symbol, v_at, v_stop, v_start);
        commit;
        v_at := v_stop;
    end loop;
end
$$;
comment on procedure feature.materialise(text, text, timestamptz, timestamptz, integer) is
'Compute and store the vectors of a set for grid times in [from, to), each as known at its time. Commits as it goes. Several sessions can share the work: each a symbol, or a part of the time. Errors: AP101, AP202, AP211 a time that is null or infinite.';

create or replace procedure feature.materialise(
    feature_set text, symbols text [], "from" timestamptz, "to" timestamptz,
    version integer default null, packed boolean default false
)
language plpgsql
as $$
declare
    v_set feature.sets := feature._set(feature_set, version);
    v_all text [] := array(
        select distinct market.resolve(u.name)
        from pg_catalog.unnest(
            coalesce(symbols, array(select i.symbol from market.instruments i))
        ) u (name)
        order by 1
    );
    v_some text [];
    v_start timestamptz := public.time_bucket(v_set.grid, "from");
    v_at timestamptz := v_start;
    v_stop timestamptz;
    v_step integer;
begin
    if pg_catalog.isfinite("from") and pg_catalog.isfinite("to") then
        null;
    else
        raise exception 'a time is null or infinite'
        using errcode = 'AP211', hint = 'Say from when to when, each with a date.';
    end if;
    while v_at < "to" loop
        v_stop := least("to", v_at + v_set.grid * 20000);
        -- As many as are five million numbers.
        v_step := greatest(1, least(100, 5000000 / (
            pg_catalog.cardinality(v_set.features)
            * pg_catalog.date_part('epoch', v_stop - v_at) / pg_catalog.date_part('epoch', v_set.grid)
        )))::integer;
        for v_first in 1 .. pg_catalog.cardinality(v_all) by v_step loop
            v_some := v_all[v_first : v_first + v_step - 1];
            -- In the order of their names, so that two at once take turns.
            perform ops._lock('feature.materialise:' || v_set.set_id || ':' || u.symbol)
            from pg_catalog.unnest(v_some) u (symbol);
            delete from feature.vectors v
            where v.set_id = v_set.set_id and v.symbol = any (v_some)
                and v.ts >= v_at and v.ts < v_stop;
            perform feature._store_many(
                v_set.set_id, feature._source(v_set), v_some,
                ops._micros(v_at),
                ops._micros(v_stop),
                packed
            );
            perform feature._cover(v_set.set_id, v_some, v_start, v_stop);
            commit;
        end loop;
        v_at := v_stop;
    end loop;
end
$$;
comment on procedure feature.materialise(text, text [], timestamptz, timestamptz, integer, boolean) is
'Compute and store the vectors of a set for grid times in [from, to) of many symbols (null::text[]: all), as feature.materialise of one does, but read and written many symbols at a time: for bars of an hour or a day many times as fast. packed: keep them as blocks of numbers too, as feature.pack would. Commits as it goes. Errors: AP101, AP102 symbol, AP202, AP211 a time that is null or infinite.';

create or replace procedure feature.materialise_at(
    feature_set text, as_of timestamptz default null, symbols text [] default null,
    version integer default null
)
language plpgsql
as $$
declare
    v_set feature.sets := feature._set(feature_set, version);
    v_at timestamptz := public.time_bucket(v_set.grid, coalesce(as_of, pg_catalog.now()));
    v_all text [] := array(
        select distinct market.resolve(u.name)
        from pg_catalog.unnest(
            coalesce(symbols, array(select i.symbol from market.instruments i))
        ) u (name)
        order by 1
    );
    v_some text [];
begin
    for v_first in 1 .. pg_catalog.cardinality(v_all) by 100 loop
        v_some := v_all[v_first : v_first + 99];
        perform feature._store_close(v_set.set_id, v_some, v_at);
        commit;
    end loop;
end
$$;
comment on procedure feature.materialise_at(text, timestamptz, text [], integer) is
'Compute and store the vectors of a set at one grid time, the last not after as_of (default: now), for many symbols (null: all): what to call at the close of a bar, since a hundred symbols share one statement and one commit. Commits as it goes; two callers with different symbols do not wait for each other. Times before it are not filled: see feature.materialise. Errors: AP101, AP102 symbol, AP202 unknown feature set.';

create or replace function feature._extent(symbol text, grid interval)
returns table (first_ts timestamptz, last_ts timestamptz)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select min(e.first_ts), max(e.last_ts)
    from (
        select min(c.ts) as first_ts, max(c.ts) + $2 as last_ts
        from market.candles c where c.symbol = $1 and c.timeframe = $2
        union all
        select min(t.bucket), max(t.bucket) + interval '1 minute'
        from market._trades_1m t
        where t.symbol = $1
        union all
        select min(c.ts), max(c.ts) + interval '1 minute'
        from market.candles c
        where c.symbol = $1 and c.timeframe = interval '1 minute' and $2 > interval '1 minute'
    ) e
$$;

create or replace procedure feature.refresh()
language plpgsql
as $$
declare
    v_set record;
    v_work record;
    v_late record;
    v_retry record;
    v_failed record;
    v_close record;
    v_start timestamptz;
    v_at timestamptz;
    v_stop timestamptz;
    v_symbols text [];
    v_times timestamptz [];
    v_state text;
    v_message text;
begin
    for v_set in
        select s.set_id, s.name, s.version, s.grid
        from feature.sets s
        where s.set_id in (select u.set_id from ml.sets_in_use u)
        order by s.set_id
    loop
        v_symbols := '{}';
        v_times := '{}';
        for v_work in select i.symbol from market.instruments i order by i.symbol loop
            for v_retry in
                select e.ts, coalesce(m.since, e.ts) as since
                from feature.set_errors e
                join feature.watermarks m on m.set_id = e.set_id and m.symbol = e.symbol
                where e.set_id = v_set.set_id and e.symbol = v_work.symbol and e.ts < m.through
                    and e.retry_at <= pg_catalog.clock_timestamp()
                order by e.ts
                limit 200
            loop
                begin
                    perform feature._store_stretch(
                        v_set.set_id, v_work.symbol, v_retry.ts, v_retry.ts + v_set.grid, v_retry.since
                    );
                exception when others then
                    get stacked diagnostics v_state = returned_sqlstate, v_message = message_text;
                    perform feature._note_error(
                        v_set.set_id, v_work.symbol, v_retry.ts, v_state, v_message
                    );
                end;
                commit;
            end loop;
            -- Where nothing could be computed the end has not moved on.
            select
                pg_catalog.count(*) > 0 as some,
                pg_catalog.bool_or(e.retry_at > pg_catalog.clock_timestamp()) as waits
            into v_failed
            from feature.set_errors e
            left join feature.watermarks m on m.set_id = e.set_id and m.symbol = e.symbol
            where e.set_id = v_set.set_id and e.symbol = v_work.symbol
                and e.ts >= coalesce(m.through, e.ts);
            continue when v_failed.waits;
            -- Marks that come while this works stay for the next time: only those seen here go.
            select
                pg_catalog.min(p.ts_from) as start, pg_catalog.max(p.ts_to) as stop,
                pg_catalog.array_agg(p.pending_id) as ids
            into v_late
            from feature.pending p
            where p.set_id = v_set.set_id and p.symbol = v_work.symbol;
            select
                least(v_late.start, coalesce(m.through, e.first_ts)),
                greatest(v_late.stop, public.time_bucket(v_set.grid, e.last_ts)) + v_set.grid
            into v_start, v_stop
            from feature._extent(v_work.symbol, v_set.grid) e
            left join feature.watermarks m
                on m.set_id = v_set.set_id and m.symbol = v_work.symbol
            where e.last_ts is not null;
            if not found or v_start >= v_stop then
                delete from feature.pending p where p.pending_id = any (v_late.ids);
                continue;
            end if;
            if v_late.ids is null and not v_failed.some and v_stop = v_start + v_set.grid then
                -- One new time, as at the close of a bar: together with the other symbols'.
                v_symbols := v_symbols || v_work.symbol;
                v_times := v_times || v_start;
                continue;
            end if;
            v_at := v_start;
            v_state := null;
            while v_at < v_stop and v_state is null loop
                begin
                    perform feature._store_stretch(
                        v_set.set_id, v_work.symbol, v_at, least(v_stop, v_at + v_set.grid * 20000),
                        v_start
                    );
                exception when others then
                    -- Of this set and symbol alone: the others go on.
                    get stacked diagnostics
                        v_state = returned_sqlstate, v_message = message_text;
                    perform feature._note_error(
                        v_set.set_id, v_work.symbol, v_at, v_state, v_message
                    );
                end;
                commit;
                v_at := v_at + v_set.grid * 20000;
            end loop;
            if v_state is null then
                delete from feature.pending p where p.pending_id = any (v_late.ids);
            end if;
            commit;
        end loop;
        for v_close in
            select u.ts, pg_catalog.array_agg(u.symbol order by u.symbol) as symbols
            from rows from (
                pg_catalog.unnest(v_symbols), pg_catalog.unnest(v_times)
            ) as u (symbol, ts)
            group by u.ts
            order by u.ts
        loop
            begin
                perform feature._store_close(v_set.set_id, v_close.symbols, v_close.ts);
            exception when others then
                -- Which of them it was shows the next time, symbol by symbol.
                get stacked diagnostics v_state = returned_sqlstate, v_message = message_text;
                perform feature._note_error(v_set.set_id, u.symbol, v_close.ts, v_state, v_message)
                from pg_catalog.unnest(v_close.symbols) u (symbol);
            end;
            commit;
        end loop;
    end loop;
end
$$;
comment on procedure feature.refresh() is
'Store the vectors of every feature set that a model is trained or served with, for every symbol with bars, from where they end to the newest closed bar; and again where rows that arrived late can have changed them. A set that fails for a symbol stops no other: feature.set_errors has it, ops.health shows it, and it is tried again, after a minute, two, four, … up to a day. Commits as it goes; meant for the clock.';
