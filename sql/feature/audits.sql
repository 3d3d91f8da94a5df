-- Where features come from, and whether they are what they say.
create or replace function feature._lineage(definition text, query text)
returns table (feature text, columns text [])
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.sets import lineage
    return lineage.rows(plpy, GD, definition, query)
$python$;

create or replace function feature.lineage(feature_set text, version integer default null)
returns table (feature text, column_name text)
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
    select coalesce(m.prefix || '_', '') || l.feature, c.name
    from feature._set($1, $2) s
    left join feature.set_members m on m.set_id = s.set_id
    join feature.sets o on o.set_id = coalesce(m.member_id, s.set_id)
    cross join lateral feature._lineage(
        o.definition, case o.kind when 'select' then o.definition end
    ) l
    cross join lateral unnest(l.columns) c (name)
    order by m.position
$$;
comment on function feature.lineage(text, integer) is
'The columns of the market''s tables (schema.table.column) that each feature of a set comes from, a row each. Of a set made by feature.create_set by column lineage of its SELECT (sqlglot), of the others by changing one input at a time and seeing which features change; bars come from candles where they were loaded, else from trades. Errors: AP202 unknown feature set.';

create or replace function feature._audit_lookahead(
    definition text, symbol text, start bigint, stop bigint, samples integer,
    tolerance double precision, seed integer
)
returns table (
    feature text, at bigint, with_later double precision,
    without_later double precision
)
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.sets import audit
    return audit.look_ahead(plpy, GD, definition, symbol, start, stop, samples, tolerance, seed)
$python$;

create or replace function feature.audit_lookahead(
    feature_set text, symbol text, "from" timestamptz, "to" timestamptz,
    samples integer default 20, tolerance double precision default 1e-9,
    version integer default null, seed integer default 1
)
returns table (
    feature text, ts timestamptz, with_later_rows double precision,
    without_later_rows double precision
)
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
    select a.feature, ops._at(a.at), a.with_later, a.without_later
    from feature._set($1, $7) s
    cross join lateral feature._audit_lookahead(
        feature._source(s), market.resolve($2),
        ops._micros($3), ops._micros($4), $5, $6, $8
    ) a
$$;
comment on function feature.audit_lookahead(text, text, timestamptz, timestamptz, integer, double precision, integer, integer) is
'Does a feature set look ahead? At random grid times of [from, to) each feature is computed twice: with the later rows of the stretch in reach, and without any row that happened after the time or became known later. A row for each feature and time where the two differ by more than tolerance (relative); none: clean. Changes nothing: what is left out is not read. Errors: AP101 unknown symbol, AP202 unknown feature set, AP211 a time that is null or infinite, AP212 fewer than one sample or an invalid tolerance.';

create or replace function feature._audit_warmup(
    definition text, symbol text, start bigint, stop bigint, samples integer,
    tolerance double precision, seed integer, declared bigint
)
returns table (
    feature text, needed bigint, declared bigint, enough boolean
)
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.sets import audit
    return audit.warm_up(
        plpy, GD, definition, symbol, start, stop, samples, tolerance, seed, declared
    )
$python$;

create or replace function feature.audit_warmup(
    feature_set text, symbol text, "from" timestamptz, "to" timestamptz,
    samples integer default 3, tolerance double precision default 1e-9,
    version integer default null, seed integer default 1
)
returns table (feature text, needed interval, declared interval, enough boolean)
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
    select
        a.feature, ops._length(a.needed), ops._length(a.declared), a.enough
    from feature._set($1, $7) s
    cross join lateral feature._audit_warmup(
        feature._source(s), market.resolve($2),
        ops._micros($3), ops._micros($4), $5, $6, $8,
        ops._micros(coalesce(s.reach, s.lookback))
    ) a
$$;
comment on function feature.audit_warmup(text, text, timestamptz, timestamptz, integer, double precision, integer, integer) is
'How much history does each feature need? At random grid times of [from, to) the set is computed as if the data began the declared reach (or lookback) before, then 3/4, 1/2, 3/8, 1/4, … of it: needed is the shortest of these from which on the value stays the same (null: never known); enough: twice the declared history gives no other value, to tolerance (relative). Changes nothing: what is left out is not read. Errors: AP101 unknown symbol, AP202 unknown feature set, AP211 a time that is null or infinite, AP212 fewer than one sample or an invalid tolerance.';
