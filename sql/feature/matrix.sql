-- A feature set of many symbols as blocks of numbers: what a data frame is made of.
create or replace function feature._matrix(
    spec jsonb, symbols text [], start bigint, stop bigint
)
returns table (symbol text, at bigint, n bigint, ts bytea, vectors bytea)
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.store import blocks
    return blocks.matrix(plpy, GD, spec, symbols, start, stop)
$python$;

-- search_path: not pinned, so that it is inlined; every name is qualified. A function that is not
-- keeps all its rows before the first one leaves, here hundreds of megabytes on disk: inlined, each
-- stretch leaves for the client when it is made. In order without a sort: the rows come from a
-- function in the select list one by one, and each looks up its block.
create or replace function feature.matrix(
    feature_set text, symbols text [], "from" timestamptz, "to" timestamptz,
    version integer default null
)
returns table (symbol text, n bigint, ts bytea, vectors bytea)
language sql stable parallel restricted
as $$
    -- Blocks that are wanted whole do not pass through Python: here they are not even read.
    select
        case when ops._at((p.m).at) is not null then (p.m).symbol end, (p.m).n,
        coalesce((p.m).ts, b.ts), coalesce((p.m).vectors, b.vectors)
    from feature._set($1, $5) s
    cross join lateral (
        select
            feature._matrix(
                jsonb_build_object(
                    'set_id', s.set_id, 'definition', feature._source(s), 'set_kind', s.kind,
                    'k', cardinality(s.features), 'step', ops._micros(s.grid)
                ),
                array(
                    select market.resolve(u.name)
                    from unnest(
                        coalesce($2, array(select i.symbol from market.instruments i))
                    ) u (name)
                    order by 1
                ),
                ops._micros($3), ops._micros($4)
            ) as m
    ) p
    left join lateral (
        select v.ts, v.vectors
        from feature.vector_blocks v
        where (p.m).ts is null and v.set_id = s.set_id and v.symbol = (p.m).symbol
            and v.ts_from = ops._at((p.m).at)
        offset 0
    ) b on true
$$;
comment on function feature.matrix(text, text [], timestamptz, timestamptz, integer) is
'A feature set for many symbols (null: all) at the grid times in [from, to) at which anything is known, by symbol and time, a row a stretch: n times, ts as n little-endian int8 microseconds since 2000-01-01 UTC, vectors as n by k little-endian float8 row by row, k the number of features, NaN where not knowable. In Python: numpy.frombuffer(vectors, "<f8").reshape(n, -1). Stored vectors are read, those packed by feature.pack many times as fast, the others computed, each as known at its own time. Errors: AP101, AP102 symbol, AP202 unknown feature set.';

-- Runs as its owner: blocks are nobody else's to write.
create or replace function feature._pack(
    set_id integer, k integer, step bigint, symbol text
)
returns bigint
language plpython3u volatile security definer set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.store import blocks
    return blocks.pack(plpy, GD, set_id, k, step, symbol)
$python$;

-- Commits after each symbol, so it cannot pin search_path; every name is qualified.
create or replace procedure feature.pack(
    feature_set text default null, symbols text [] default null, version integer default null
)
language plpgsql
as $$
declare
    v_set_id integer := case
        when feature_set is not null then (feature._set(feature_set, version)).set_id
    end;
    v_some text [] := array(select market.resolve(u.name) from pg_catalog.unnest(symbols) u (name));
    v_work record;
begin
    for v_work in
        select
            s.set_id, pg_catalog.cardinality(s.features) as k,
            ops._micros(s.grid) as step, m.symbol
        from feature.sets s
        join feature.watermarks m on m.set_id = s.set_id
        where (
                s.set_id = v_set_id
                or feature_set is null and s.set_id in (select u.set_id from ml.sets_in_use u)
            )
            and (symbols is null or m.symbol = any (v_some))
        order by s.set_id, m.symbol
    loop
        perform feature._pack(v_work.set_id, v_work.k, v_work.step, v_work.symbol);
        commit;
    end loop;
end
$$;
comment on procedure feature.pack(text, text [], integer) is
'Keep the stored vectors of a set (null: of every set that a model is trained or served with) and some symbols (null: all) once more as blocks of numbers, which feature.matrix and the training sets read many times as fast as rows, for about as much room again. Only what is not packed yet is read; a block goes with the first change to one of its vectors, so packing is never needed for right answers. Commits as it goes; meant for the clock. Errors: AP101, AP102 symbol, AP202 unknown feature set.';
