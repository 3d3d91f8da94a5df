-- What alphaplus.server.store asks: the stored vectors and blocks as bytes, and their writing. Times
-- are bigint microseconds since 1970; inside the bytes they are PostgreSQL's own, since 2000.
-- search_path: not pinned where a function is inlined, so that chunks are left out by its times;
-- every name is qualified.

-- The stored vectors of several sets, each at its own time; null where there is none that is valid.
create or replace function feature._stored_many(
    set_ids integer [], symbol text, times bigint []
)
returns table (vector double precision [])
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
rows 10
as $$
begin
    return query
        select feature._stored(s.set_id, $2, ops._at(s.at))
        from unnest($1, $3) with ordinality as s (set_id, at, place)
        order by s.place;
end
$$;

-- Times and vectors of a set and symbol that are stored and valid, from the first time to the last,
-- in no order: sorting the few that need it in numpy takes a tenth of the time.
create or replace function feature._valid_rows(
    set_id integer, symbol text, first bigint, last bigint
)
returns table (ts bytea, vectors bytea)
language sql stable parallel safe
as $$
    select
        pg_catalog.string_agg(
            feature._bytes(array[feature._bits(v.ts)], 21), ''::pg_catalog.bytea
        ),
        pg_catalog.string_agg(feature._bytes(v.values, 1), ''::pg_catalog.bytea)
    from feature.valid_vectors v
    where v.set_id = $1 and v.symbol = $2
        and v.ts between ops._at($3) and ops._at($4)
$$;

-- The same of many symbols, a row each.
create or replace function feature._valid_rows_of_many(
    set_id integer, symbols text [], first bigint, last bigint
)
returns table (symbol text, ts bytea, vectors bytea)
language sql stable parallel safe
as $$
    select
        v.symbol,
        pg_catalog.string_agg(
            feature._bytes(array[feature._bits(v.ts)], 21), ''::pg_catalog.bytea
        ),
        pg_catalog.string_agg(feature._bytes(v.values, 1), ''::pg_catalog.bytea)
    from feature.valid_vectors v
    where v.set_id = $1 and v.symbol = any ($2)
        and v.ts between ops._at($3) and ops._at($4)
    group by v.symbol
$$;

-- What is stored, valid or not: what blocks are made of. (A block in which something is void is not
-- read, and goes when it is computed anew.)
create or replace function feature._stored_rows(
    set_id integer, symbol text, first bigint, last bigint
)
returns table (ts bytea, vectors bytea)
language sql stable parallel safe
as $$
    select
        pg_catalog.string_agg(
            feature._bytes(array[feature._bits(v.ts)], 21), ''::pg_catalog.bytea
        ),
        pg_catalog.string_agg(feature._bytes(v.values, 1), ''::pg_catalog.bytea)
    from feature.vectors v
    where v.set_id = $1 and v.symbol = $2
        and v.ts between ops._at($3) and ops._at($4)
$$;

-- The valid blocks of a set and symbol that meet [first, last], in order.
create or replace function feature._blocks(
    set_id integer, symbol text, first bigint, last bigint
)
returns table (start bigint, stop bigint, ts bytea, vectors bytea)
language sql stable parallel safe
as $$
    select ops._micros(b.ts_from), ops._micros(b.ts_to), b.ts, b.vectors
    from feature.valid_blocks b
    where b.set_id = $1 and b.symbol = $2 and b.ts_to > ops._at($3) and b.ts_from <= ops._at($4)
    order by b.ts_from
$$;

-- The valid blocks of which every vector lies in [first, last], by symbol in order.
create or replace function feature._blocks_within(
    set_id integer, symbols text [], first bigint, last bigint
)
returns table (symbol text, start bigint, stop bigint, n integer)
language sql stable parallel safe
as $$
    select b.symbol, ops._micros(b.ts_from), ops._micros(b.ts_to), b.n
    from feature.valid_blocks b
    where b.set_id = $1 and b.symbol = any ($2) and b.first_ts >= ops._at($3)
        and b.last_ts <= ops._at($4)
    order by b.symbol, b.ts_from
$$;

-- From where on (null: not recorded) up to where everything that can be known is stored; settled:
-- no late row can have changed that. No row where nothing was ever stored.
create or replace function feature._covered(set_id integer, symbol text)
returns table (since bigint, through bigint, settled boolean)
language sql stable parallel safe
as $$
    select
        ops._micros(m.since), ops._micros(m.through),
        not exists (select from feature.pending p where p.set_id = $1 and p.symbol = $2)
    from feature.watermarks m
    where m.set_id = $1 and m.symbol = $2
$$;

-- The first time of which a vector is stored: looks through all chunks.
create or replace function feature._first_stored(set_id integer, symbol text) returns bigint
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select ops._micros(min(v.ts)) from feature.vectors v where v.set_id = $1 and v.symbol = $2
$$;

-- The stretches of the blocks that there are, valid or not.
create or replace function feature._packed(set_id integer, symbol text)
returns table (start bigint, stop bigint)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select ops._micros(b.ts_from), ops._micros(b.ts_to)
    from feature.vector_blocks b
    where b.set_id = $1 and b.symbol = $2
$$;

create or replace function feature._unpack(
    set_id integer, symbol text, start bigint, stop bigint
)
returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
    delete from feature.vector_blocks b
    where b.set_id = $1 and b.symbol = $2 and b.ts_from < ops._at($4) and b.ts_to > ops._at($3)
$$;

-- The vectors at n times of the stretch [start, stop) as a block; times: start, stop, first, last.
create or replace function feature._keep_block(
    set_id integer, symbol text, times bigint [], n integer, ts bytea, vectors bytea
)
returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
    insert into feature.vector_blocks
        (set_id, symbol, ts_from, ts_to, first_ts, last_ts, n, ts, vectors)
    values ($1, $2, ops._at($3[1]), ops._at($3[2]), ops._at($3[3]), ops._at($3[4]), $4, $5, $6)
$$;

create or replace function feature._chunk_interval() returns bigint
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select ops._micros(d.time_interval)
    from timescaledb_information.dimensions d
    where d.hypertable_schema = 'feature' and d.hypertable_name = 'vectors'
$$;

-- direct: whether a COPY may go straight into the chunk. On the Community edition it goes by the table:
-- its triggers take the place of what the writer does itself, and TimescaleDB 2.29 lets nobody
-- but a superuser copy a file into a chunk.
create or replace function feature._vector_chunks()
returns table (name text, direct boolean, start bigint, stop bigint)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select
        format('%I.%I', c.chunk_schema, c.chunk_name),
        not c.is_compressed and not exists (select from market.aggregates a where a.native),
        ops._micros(c.range_start), ops._micros(c.range_end)
    from timescaledb_information.chunks c
    where c.hypertable_schema = 'feature' and c.hypertable_name = 'vectors'
$$;

-- A temporary table on the way into feature.vectors, once a session, and out of it again.
create or replace function feature._make_staging() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    if to_regclass('pg_temp._vectors') is null then
        execute 'create temporary table _vectors (set_id int4, symbol text, ts timestamptz,'
            ' computed_at timestamptz, values float8[]) on commit delete rows';
        execute 'grant insert on pg_temp._vectors to alphaplus_copy';
    end if;
end
$$;

create or replace function feature._take_staging() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    c_staging constant regclass := to_regclass('pg_temp._vectors');
begin
    execute format(
        'insert into feature.vectors (set_id, symbol, ts, computed_at, values)'
        ' select set_id, symbol, ts, computed_at, values from %s', c_staging
    );
    execute format('truncate %s', c_staging);
end
$$;
