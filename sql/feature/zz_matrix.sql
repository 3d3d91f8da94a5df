-- A feature set of many symbols as binary columns: what a data frame is made of.
create or replace function feature._matrix(
    spec jsonb, symbols text [], start double precision, stop double precision
)
returns table (symbol text, n bigint, ts bytea, columns bytea [])
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server import training
    return training.columns(plpy, GD, spec, symbols, (start, stop))
$python$;

create or replace function feature.matrix(
    feature_set text, symbols text [], "from" timestamptz, "to" timestamptz,
    version integer default null
)
returns table (symbol text, n bigint, ts bytea, columns bytea [])
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
    select m.symbol, m.n, m.ts, m.columns
    from feature._set($1, $5) s
    cross join lateral feature._matrix(
        jsonb_build_object(
            'set_id', s.set_id, 'definition', feature._source(s), 'set_kind', s.kind,
            'k', cardinality(s.features), 'step', date_part('epoch', s.grid)
        ),
        array(
            select market.resolve(u.name)
            from unnest(coalesce($2, array(select i.symbol from market.instruments i))) u (name)
            order by 1
        ),
        date_part('epoch', $3 - timestamptz '2000-01-01 00:00:00+00'),
        date_part('epoch', $4 - timestamptz '2000-01-01 00:00:00+00')
    ) m
$$;
comment on function feature.matrix(text, text [], timestamptz, timestamptz, integer) is
'A feature set for many symbols (null: all) at the grid times in [from, to) at which anything is known, one row a symbol: n times, ts as big-endian int8 microseconds since 2000-01-01 UTC, and per feature a column of n big-endian float8, NaN where not knowable. In Python: numpy.frombuffer(ts, ">i8"). Stored vectors are read, the others computed, each as known at its own time. Errors: AP101, AP102 symbol, AP202 unknown feature set.';
