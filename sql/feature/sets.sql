-- Feature sets that users add: one call, one SELECT.
create or replace function feature._source(s feature.sets) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    -- plpgsql keeps its plan; an SQL function that is not inlined would plan anew at each call.
    return case
        when s.kind in ('select', 'joined') then s.kind || ':' || s.set_id else s.definition
    end;
end
$$;

-- A set as it was declared; lengths of time in microseconds.
create or replace function feature._set_declared(
    set_id integer, out name text, out version integer, out features text [], out definition text,
    out grid bigint, out lookback bigint, out symbols jsonb, out sources jsonb
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    select
        s.name, s.version, s.features, s.definition, ops._micros(s.grid), ops._micros(s.lookback),
        s.other_symbols, (
            select coalesce(jsonb_object_agg(o.source, feature._source_columns(o)), '{}')
            from feature.sources o
            join feature.set_sources x on x.source = o.source and x.set_id = s.set_id
        )
    into name, version, features, definition, grid, lookback, symbols, sources
    from feature.sets s where s.set_id = _set_declared.set_id;
end
$$;

-- Whether only an older release computed the set: see alphaplus.server.store.vectors.
create or replace function feature._retired(s feature.sets) returns boolean
language sql immutable parallel safe
return s.kind = 'builtin' and s.definition = s.name || '@' || s.version;

-- The moment that a user's SELECT is run for; kept in Python, out of the reach of SQL.
create or replace function feature._moment(alias text)
returns table (
    symbols text [], start bigint, stop bigint, as_of bigint, until bigint, label_start bigint
)
language plpython3u stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.sets import user
    return [user.moment(plpy, GD, alias)]
$python$;

-- The two functions that run a user's SELECT. They belong to alphaplus_select (privileges.sql), which
-- reads the rows of that moment and nothing else, whoever calls. STABLE, so nothing that they execute
-- may write. Days, hours and dates in it are those of UTC, whoever asks. _set_rows: of the given
-- times those at which the set has a row, with its vector, nulls where not knowable; back:
-- microseconds of history; stop: for the audit, rows that happened up to then are in reach too.
create or replace function feature._set_rows(
    set_id integer, symbol text, times bigint [], back bigint, stop bigint
)
returns table (at bigint, vector double precision [])
language plpython3u stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set datestyle = 'ISO, MDY'
as $python$
    from alphaplus.server.sets import user
    return user.run(plpy, GD, set_id, symbol, times, back, stop)
$python$;

create or replace function feature._set_columns(query text)
returns table (name text, type bigint)
language plpython3u stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set datestyle = 'ISO, MDY'
as $python$
    from alphaplus.server.sets import user
    return user.columns(plpy, GD, query)
$python$;

create or replace function feature._check_set(
    set_id integer, symbol text, first bigint, last bigint
)
returns table (what text, finding text, ok boolean)
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.sets import check
    return check.findings(plpy, GD, set_id, symbol, first, last)
$python$;

create or replace function feature.check_set(
    name text, symbol text default null, version integer default null
)
returns table (what text, finding text, ok boolean)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
declare
    v_set constant feature.sets := feature._set(name, version);
    v_wanted constant text := case when symbol is not null then market.resolve(symbol) end;
    v_on record;
begin
    if v_set.kind <> 'select' then
        return query select 'kind', 'not of feature.create_set: see feature.audit_lookahead, audit_warmup', true;
        return;
    end if;
    -- The symbol of which most is there, and lately.
    select i.symbol, e.first_ts, e.last_ts into v_on
    from market.instruments i
    cross join lateral feature._extent(i.symbol, v_set.grid) e
    where e.last_ts is not null and (v_wanted is null or i.symbol = v_wanted)
    order by e.last_ts desc, e.first_ts, i.symbol
    limit 1;
    return query
        select c.what, c.finding, c.ok
        from feature._check_set(
            v_set.set_id, v_on.symbol, ops._micros(v_on.first_ts), ops._micros(v_on.last_ts)
        ) c;
end
$$;
comment on function feature.check_set(text, text, integer) is
'What a set made by feature.create_set does on the data that are there, at a dozen times of a symbol (default: that with the newest bars): nulls (a feature that is never known), errors, history (how much its windows need), cost (by itself, and over a stretch where its text allows one statement for many times), later rows (whether it would be another number could it see them). ok: nothing to look at. It is what feature.create_set says when a set is made. Errors: AP101 unknown symbol, AP202 unknown set.';

create or replace function feature._create_set(
    name text, query text, lookback bigint, grid bigint, description text,
    formulas jsonb, unchecked boolean, symbols jsonb
)
returns integer
language plpython3u volatile set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.sets import user
    return user.create(
        plpy, GD, name, query, lookback, grid, description, formulas, unchecked,
        symbols
    )
$python$;

create or replace function feature.create_set(
    name text, query text, lookback interval, grid interval default interval '1 minute',
    description text default '', formulas jsonb default '{}', unchecked boolean default false,
    symbols jsonb default '{}'
)
returns integer
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_set_id integer;
    v_check record;
begin
    if name is null or name !~ '^[a-z][a-z0-9_]{0,47}$' then
        raise exception 'a feature set cannot be named %', coalesce(quote_literal(name), 'null')
        using errcode = 'AP203',
            hint = 'Use up to 48 lower-case letters, digits and underscores, beginning with a letter.';
    end if;
    if exists (
        select from pg_catalog.pg_proc p
        where p.pronamespace = 'feature'::regnamespace
            and p.proname in (create_set.name, create_set.name || '_history')
            and not exists (
                select from feature.sets s
                where s.name = create_set.name and s.kind in ('select', 'joined')
            )
    ) then
        raise exception 'the name % is taken by a function of this house', quote_literal(name)
        using errcode = 'AP203', hint = 'Choose another name.';
    end if;
    if lookback is null or lookback <= interval '0' or lookback > interval '400 days' then
        raise exception 'a lookback of % is not possible', coalesce(lookback::text, 'null')
        using errcode = 'AP203',
            hint = 'Say how far back from its time a vector reads: more than 0, up to 400 days.';
    end if;
    if grid is null or grid < interval '1 minute' or grid > interval '1 day'
        or mod(extract(epoch from grid), 60) <> 0 or mod(86400, extract(epoch from grid)) <> 0 then
        raise exception 'a grid of % is not possible', coalesce(grid::text, 'null')
        using errcode = 'AP203',
            hint = 'Use whole minutes that divide a day: 1 minute, 5 minutes, 1 hour, 1 day, …';
    end if;
    -- Two at once take turns, and have a version each.
    perform ops._lock('feature.create_set:' || name);
    v_set_id := feature._create_set(
        name, query, ops._micros(lookback), ops._micros(grid),
        coalesce(description, ''), formulas, coalesce(unchecked, false), symbols
    );
    begin
        for v_check in select c.what, c.finding, c.ok from feature.check_set(name) c loop
            if v_check.ok then
                raise notice '%: %: %', name, v_check.what, v_check.finding;
            else
                raise warning '%: %: %', name, v_check.what, v_check.finding;
            end if;
        end loop;
    exception when others then
        raise warning '% was made, and could not be tried: %', name, sqlerrm;
    end;
    return v_set_id;
end
$$;
comment on function feature.create_set(
    text, text, interval, interval, text, jsonb, boolean, jsonb
) is
'Adds a feature set, or a new version of one: query is one read-only SELECT over market.candles, trades, order_book_snapshots, liquidation_events, funding_rates and open_interest that gives ts and one number per feature (a column symbol is left out). At each grid time t it is run on the rows of the symbol in [t - lookback, t) as they were known at t, and its newest row, if it lies in [t - grid, t), is the vector: so it cannot look ahead, and live equals history. Of several newest rows of one ts the one with the greatest key of its table (trade_id, event_id: by length, then byte by byte; sequence; timeframe) is the vector, or, where the SELECT groups rows or unites them, the one with the greatest values from left to right; where it orders rows by ts alone to take them one by one (limit, rows frames, lag, last), the key is added. Days, hours and dates are those of UTC. Afterwards it is like any other set: feature.<name>, feature.<name>_history, feature.vector, feature.materialise, ml.models. formulas: {"feature": {"formula": …, "unit": …, "source": …}} for the reference. unchecked: take a query that the look-ahead check cannot show to be safe (feature.audit_lookahead tells). The same definition again gives the same set. Returns its id. Errors: AP203 name, lookback, grid or formulas; AP204 not such a SELECT; AP205 it looks ahead, with line, column and reason.';

create or replace function feature.drop_set(name text, version integer default null) returns integer
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_used text;
    v_ids integer [];
    v_newest integer;
begin
    perform feature._set(name, version);
    select array_agg(s.set_id) into v_ids
    from feature.sets s
    where s.name = drop_set.name and (drop_set.version is null or s.version = drop_set.version)
        and s.kind in ('select', 'joined');
    if v_ids is null then
        raise exception 'feature set % is part of this house', quote_literal(name)
        using errcode = 'AP206', hint = 'Only sets made by feature.create_set and feature.join_sets can be dropped.';
    end if;
    select string_agg(distinct u.model, ', ') into v_used
    from feature.sets s
    join (
        select m.model, m.feature_set, m.feature_version from ml.models m
        union all
        select v.model, v.feature_set, v.feature_version from ml.model_versions v
        union all
        select 'set ' || j.name, x.name, x.version
        from feature.set_members b
        join feature.sets j on j.set_id = b.set_id
        join feature.sets x on x.set_id = b.member_id
    ) u on u.feature_set = s.name and u.feature_version = s.version
    where s.set_id = any (v_ids);
    if v_used is not null then
        raise exception 'feature set % is in use', quote_literal(name)
        using errcode = 'AP206', detail = format('By %s.', v_used),
            hint = 'Drop those first, or make a new version of the set.';
    end if;
    -- Nobody stores a vector of theirs from here on.
    perform from feature.sets s where s.set_id = any (v_ids) for update;
    delete from feature.vectors v where v.set_id = any (v_ids);
    delete from feature.sets s where s.set_id = any (v_ids);
    execute format(
        'drop function if exists feature.%I(text, timestamptz),'
        ' feature.%I(text, timestamptz, timestamptz)', name, name || '_history'
    );
    select s.set_id into v_newest
    from feature.sets s where s.name = drop_set.name order by s.version desc limit 1;
    if found then
        perform feature._make_set_functions(v_newest);
    end if;
    return cardinality(v_ids);
end
$$;
comment on function feature.drop_set(text, integer) is
'Drops a set made by feature.create_set or feature.join_sets, or one version of it, with its stored vectors; returns how many versions. Errors: AP202 unknown set, AP206 it is in use by a model or another set, or part of this house.';

-- Of a joined set, what its members are computed by.
create or replace function feature._set_joined(set_id integer)
returns table (place integer, definition text, prefix text, member_id integer)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select m.position, feature._source(s), m.prefix, m.member_id
    from feature.set_members m
    join feature.sets s on s.set_id = m.member_id
    where m.set_id = $1
$$;

create or replace function feature.join_sets(
    name text, sets text [], prefixes text [] default null, grid interval default null,
    description text default ''
)
returns integer
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_prefixes text [] := coalesce(prefixes, array(
        select split_part(u.name, '@', 1) from unnest(sets) with ordinality as u (name, n) order by u.n
    ));
    v_members integer [] := array[]::integer [];
    v_features text [];
    v_grid interval;
    v_lookback interval;
    v_bad text;
    v_set feature.sets;
    v_newest feature.sets;
    v_digest bytea;
    v_fits boolean;
    v_name text;
begin
    if name is null or name !~ '^[a-z][a-z0-9_]{0,47}$' then
        raise exception 'a feature set cannot be named %', coalesce(quote_literal(name), 'null')
        using errcode = 'AP203',
            hint = 'Use up to 48 lower-case letters, digits and underscores, beginning with a letter.';
    end if;
    select
        cardinality(sets) between 2 and 20 and cardinality(v_prefixes) = cardinality(sets)
        and count(distinct p.prefix) = cardinality(sets)
        and bool_and(p.prefix ~ '^[a-z][a-z0-9_]*$')
    into v_fits
    from unnest(v_prefixes) p (prefix);
    if v_fits is not true then
        raise exception 'sets are joined by two to twenty names, each with a prefix of its own'
        using errcode = 'AP230', hint = 'Give array[''technical_1m'', ''my_set@2''], and prefixes => array[''t'', ''mine''].';
    end if;
    if exists (
        select from pg_catalog.pg_proc p
        where p.pronamespace = 'feature'::regnamespace
            and p.proname in (join_sets.name, join_sets.name || '_history')
            and not exists (
                select from feature.sets s
                where s.name = join_sets.name and s.kind in ('select', 'joined')
            )
    ) then
        raise exception 'the name % is taken by a function of this house', quote_literal(name)
        using errcode = 'AP203', hint = 'Choose another name.';
    end if;
    perform ops._lock('feature.create_set:' || name);
    foreach v_name in array sets loop
        v_set := feature._set(
            split_part(v_name, '@', 1), nullif(substring(v_name from '@([0-9]{1,9})$'), '')::integer
        );
        if v_set.kind not in ('builtin', 'select') or feature._retired(v_set) then
            raise exception 'set % cannot be joined', quote_literal(v_name)
            using errcode = 'AP230', hint = 'Join sets that this release computes, and no joined ones.';
        end if;
        v_members := v_members || v_set.set_id;
    end loop;
    select
        array_agg(m.prefix || '_' || f.feature order by m.n, f.place), min(s.grid),
        max(s.lookback + s.grid),
        sha256(convert_to(string_agg(encode(s.sha256, 'hex') || m.prefix, ',' order by m.n, f.place), 'UTF8'))
    into v_features, v_grid, v_lookback, v_digest
    from unnest(v_members, v_prefixes) with ordinality as m (set_id, prefix, n)
    join feature.sets s on s.set_id = m.set_id
    cross join lateral unnest(s.features) with ordinality as f (feature, place);
    v_grid := coalesce(join_sets.grid, v_grid);
    if v_grid < interval '1 minute' or v_grid > interval '1 day'
        or mod(extract(epoch from v_grid), 60) <> 0 or mod(86400, extract(epoch from v_grid)) <> 0 then
        raise exception 'a grid of % is not possible', v_grid::text
        using errcode = 'AP203',
            hint = 'Use whole minutes that divide a day: 1 minute, 5 minutes, 1 hour, 1 day, …';
    end if;
    select f.name into v_bad from unnest(v_features) f (name) where length(f.name) > 63 limit 1;
    if found or cardinality(v_features) > 1500 then
        raise exception 'the names of the joined features are too long, or too many'
        using errcode = 'AP230', detail = coalesce(v_bad, cardinality(v_features)::text),
            hint = 'Up to 63 letters and 1500 features: give shorter prefixes.';
    end if;
    v_digest := sha256(v_digest || convert_to(v_grid::text, 'UTF8'));
    select s.* into v_newest
    from feature.sets s where s.name = join_sets.name order by s.version desc limit 1;
    if v_newest.sha256 = v_digest then
        return v_newest.set_id;
    end if;
    insert into feature.sets
        (name, version, features, definition, kind, grid, lookback, sha256, description)
    values (
        join_sets.name, coalesce(v_newest.version, 0) + 1, v_features,
        array_to_string(sets, ', '), 'joined', v_grid, v_lookback, v_digest,
        coalesce(join_sets.description, '')
    )
    returning * into v_set;
    insert into feature.set_members (set_id, position, member_id, prefix)
    select v_set.set_id, m.n, m.set_id, m.prefix
    from unnest(v_members, v_prefixes) with ordinality as m (set_id, prefix, n);
    -- Whose late rows can change its vectors.
    insert into feature.set_symbols (set_id, symbol, of_symbol)
    select distinct v_set.set_id, x.symbol, x.of_symbol
    from feature.set_symbols x where x.set_id = any (v_members);
    insert into feature.set_sources (set_id, source)
    select distinct v_set.set_id, x.source from feature.set_sources x where x.set_id = any (v_members);
    insert into feature.definitions
        (feature_set, feature_version, feature, position, formula, unit, source)
    select
        v_set.name, v_set.version, m.prefix || '_' || d.feature,
        row_number() over (order by m.n, d.position), d.formula, d.unit, d.source
    from unnest(v_members, v_prefixes) with ordinality as m (set_id, prefix, n)
    join feature.sets s on s.set_id = m.set_id
    join feature.definitions d on d.feature_set = s.name and d.feature_version = s.version;
    perform feature._make_set_functions(v_set.set_id);
    return v_set.set_id;
end
$$;
comment on function feature.join_sets(text, text [], text [], interval, text) is
'Makes one set of several (two to twenty names, each the newest version or name@version), so that a model can be trained on and served with all of them: features are named prefix_feature (prefixes: default the names), at each grid time (default: the finest member''s grid) each member''s vector of its own last grid time. Built-in sets, users'' sets, several timeframes. The same again gives the same set, others a new version; a new version of a member is joined by calling it again. Returns its id. Errors: AP202 unknown set, AP203 name or grid, AP230 not sets with prefixes, a set that cannot be joined, or names too long.';
