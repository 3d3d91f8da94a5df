-- Feature sets become rows and functions. Python declares (alphaplus.server.features), SQL writes.

-- The families that the code declares, a row each; lengths of time in microseconds.
create or replace function feature._declared()
returns table (
    name text, version integer, features text [], grid bigint, lookback bigint, reach bigint,
    sha256 bytea, description text, formulas text [], units text [], sources text []
)
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.features import registry
    return registry.declared()
$python$;

-- What the features of a set are, anew.
create or replace function feature._define(
    feature_set text, version integer, features text [], formulas text [], units text [],
    sources text []
)
returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
    delete from feature.definitions d where d.feature_set = $1 and d.feature_version = $2;
    insert into feature.definitions
        (feature_set, feature_version, feature, position, formula, unit, source)
    select $1, $2, f.feature, f.place, f.formula, f.unit, f.source
    from unnest($3, $4, $5, $6) with ordinality as f (feature, formula, unit, source, place)
$$;

-- One declared family. Other versions of it are no longer computed: that is what a definition
-- name@version says; and what is next trained on one is trained on this.
create or replace function feature._register(
    family text, family_version integer, features text [], grid bigint, lookback bigint,
    reach bigint, digest bytea, description text, formulas text [], units text [], sources text []
)
returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    v_old feature.sets;
    v_set_id integer;
begin
    select s.* into v_old
    from feature.sets s where s.name = family and s.version = family_version;
    if v_old.sha256 <> digest and (
        exists (select from feature.vectors v where v.set_id = v_old.set_id)
        or exists (
            select from ml.model_versions v
            where v.feature_set = family and v.feature_version = family_version
        )
    ) then
        raise exception 'feature set % version % is in use and its definition has changed',
            family, family_version
        using errcode = 'AP201',
            detail = 'Vectors or models made with the old definition exist.',
            hint = 'Raise Family.version in the code; the old version''s models stay as they are.';
    end if;
    insert into feature.sets as s
        (name, version, features, definition, kind, grid, lookback, reach, sha256, description)
    values (
        family, family_version, _register.features, family, 'builtin',
        ops._length(_register.grid), ops._length(_register.lookback),
        ops._length(_register.reach), digest,
        _register.description
    )
    on conflict (name, version) do update
    set features = excluded.features, definition = excluded.definition, grid = excluded.grid,
        lookback = excluded.lookback, reach = excluded.reach, sha256 = excluded.sha256, description = excluded.description
    returning s.set_id into v_set_id;
    update feature.sets s set definition = s.name || '@' || s.version
    where s.name = family and s.version <> family_version and s.kind = 'builtin'
        and s.definition <> s.name || '@' || s.version;
    update ml.models m set feature_version = family_version
    where m.feature_set = family and m.feature_version <> family_version;
    perform feature._define(
        family, family_version, _register.features, formulas, units, sources
    );
    perform feature._make_set_functions(v_set_id);
end
$$;

-- feature.<set> and feature.<set>_history: the vector as named columns. No dollar quotes around a
-- body: what a user chose, the names of a set and of its features, is in it.
create or replace function feature._make_set_functions(set_id integer) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    c_form constant text := ' language sql stable parallel restricted'
        ' set search_path = pg_catalog, pg_temp as ';
    v_set feature.sets;
    v_columns text;
    v_picks text;
    v_table text;
    v_one text;
    v_many text;
begin
    select s.* into strict v_set from feature.sets s where s.set_id = _make_set_functions.set_id;
    select
        string_agg(format('%I double precision', f.name), ', ' order by f.place),
        string_agg(format('nullif(r.vector[%s], %L)', f.place, 'NaN'), ', ' order by f.place)
    into v_columns, v_picks
    from unnest(v_set.features) with ordinality as f (name, place);
    select
        string_agg(
            E'\n  ' || d.feature || ' [' || d.unit || '] ' || d.formula || ' (' || d.source || ')',
            '' order by d.position
        )
    into v_table
    from feature.definitions d
    where d.feature_set = v_set.name and d.feature_version = v_set.version;
    v_one := format('feature.%I(text, timestamptz)', v_set.name);
    v_many := format('feature.%I(text, timestamptz, timestamptz)', v_set.name || '_history');
    if v_set.kind <> 'builtin' then
        -- A new version may have other columns.
        execute format('drop function if exists %s, %s', v_one, v_many);
    end if;
    execute format(
        'create or replace function feature.%I(symbol text, as_of timestamptz default null)'
        ' returns table (symbol text, ts timestamptz, %s)%s%L',
        v_set.name, v_columns, c_form, format(
            'select r.canonical, r.ts, %s from feature._row(%L, %s, $1, $2) r',
            v_picks, v_set.name, v_set.version
        )
    );
    execute format(
        'create or replace function feature.%I(symbol text, "from" timestamptz, "to" timestamptz)'
        ' returns table (symbol text, ts timestamptz, %s)%s%L',
        v_set.name || '_history', v_columns, c_form, format(
            'select r.canonical, r.ts, %s from feature._history(%L, %s, $1, $2, $3) r',
            v_picks, v_set.name, v_set.version
        )
    );
    execute format(
        'comment on function %s is %L', v_one,
        rtrim(coalesce(nullif(v_set.description, ''), 'The feature set ' || v_set.name), '.')
        || '. One row: the features as known at ts, the last grid time not after as_of (default:'
        || ' now); null where not knowable. Errors: AP101, AP102, AP211 an infinite time.'
        || v_table
    );
    execute format(
        'comment on function %s is %L', v_many,
        format(
            'The columns of feature.%s at each grid time in [from, to), each as known at its own'
            ' time: the numbers the live function gave then.', v_set.name
        )
    );
    if v_set.kind <> 'builtin' then
        execute format('revoke all on function %s, %s from public', v_one, v_many);
        execute format(
            'grant execute on function %s, %s'
            ' to alphaplus_reader, alphaplus_app, alphaplus_operator', v_one, v_many
        );
    end if;
end
$$;

-- What the code declares and what users have added, with their functions.
create or replace function feature._sync() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    perform feature._register(
        d.name, d.version, d.features, d.grid, d.lookback, d.reach, d.sha256, d.description,
        d.formulas, d.units, d.sources
    )
    from feature._declared() d;
    perform feature._make_set_functions(s.set_id)
    from (
        select distinct on (s.name) s.set_id
        from feature.sets s
        where s.kind in ('select', 'joined')
        order by s.name, s.version desc
    ) s;
end
$$;

-- A user's set, or a new version of one: its id, or that of the newest where it is the same.
create or replace function feature._add_set(
    name text, features text [], definition text, grid bigint, lookback bigint, sha256 bytea,
    description text, formulas text [], units text [], sources text [], symbols jsonb,
    reads text []
)
returns integer
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    v_newest feature.sets;
    v_added feature.sets;
begin
    select s.* into v_newest
    from feature.sets s where s.name = _add_set.name order by s.version desc limit 1;
    if v_newest.sha256 = _add_set.sha256 then
        return v_newest.set_id;
    end if;
    insert into feature.sets
        (name, version, features, definition, kind, grid, lookback, sha256, description, other_symbols)
    values (
        _add_set.name, coalesce(v_newest.version, 0) + 1, _add_set.features, _add_set.definition,
        'select', ops._length(_add_set.grid), ops._length(_add_set.lookback), _add_set.sha256,
        _add_set.description, _add_set.symbols
    )
    returning * into v_added;
    -- Whose late rows can change its vectors.
    insert into feature.set_symbols (set_id, symbol, of_symbol)
    select distinct v_added.set_id, x.symbol, x.of_symbol
    from jsonb_each(_add_set.symbols) a
    cross join lateral (
        select null::text as of_symbol, e.symbol
        from jsonb_array_elements_text(
            case jsonb_typeof(a.value) when 'array' then a.value else '[]' end
        ) as e (symbol)
        union all
        select o.key, e.symbol
        from jsonb_each(case jsonb_typeof(a.value) when 'object' then a.value else '{}' end) o
        cross join lateral jsonb_array_elements_text(o.value) as e (symbol)
    ) x;
    insert into feature.set_sources (set_id, source)
    select v_added.set_id, r.source from unnest(reads) as r (source);
    perform feature._define(
        v_added.name, v_added.version, v_added.features, formulas, units, sources
    );
    perform feature._make_set_functions(v_added.set_id);
    return v_added.set_id;
end
$$;

-- Columns of the tables that a user's SELECT may read.
create or replace function feature._set_tables(tables text [])
returns table (relation text, columns text [])
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select c.relname::text, array_agg(a.attname::text order by a.attnum)
    from pg_class c
    join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    where c.relnamespace = 'market'::regnamespace and c.relkind in ('r', 'p', 'v')
        and c.relname = any ($1)
    group by c.relname
$$;

-- Every function there is; refused: it writes, or is not the server's or an extension's own.
create or replace function feature._set_calls()
returns table (name text, refused boolean)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select
        p.proname::text,
        bool_or(
            p.provolatile = 'v' or p.pronamespace <> 'pg_catalog'::regnamespace and not exists (
                select from pg_depend d
                where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
            )
        )
    from pg_proc p
    group by p.proname
$$;
