-- depends: 0150_vector_sets
--
-- 0190: stored vectors once more as blocks of numbers, as they lie in a reader's memory: what reads
-- many at once reads these, a tenth of the work of taking rows apart. A block holds all vectors of a
-- set and symbol in its stretch, holes known to be holes, and goes with the first change to one of them. And where the stored
-- stretch of a set and symbol begins, so that what is missing in it is known to be unknowable.
alter table feature.watermarks add column since timestamptz;
comment on column feature.watermarks.since is
'From where on, up to through, every vector that can be known is stored; null: not recorded.';

create table feature.vector_blocks (
    set_id integer not null references feature.sets (set_id) on delete cascade,
    symbol text collate "C" not null,
    ts_from timestamptz not null,
    ts_to timestamptz not null,
    first_ts timestamptz not null,
    last_ts timestamptz not null,
    n integer not null,
    ts bytea not null,
    vectors bytea not null,
    primary key (set_id, symbol, ts_from)
);
-- Numbers hardly compress, and reading them is what the table is for.
alter table feature.vector_blocks alter column ts set storage external;
alter table feature.vector_blocks alter column vectors set storage external;
comment on table feature.vector_blocks is
'The vectors of a set and symbol with ts in [ts_from, ts_to), all that can be known, as blocks of numbers; made by feature.pack, deleted with the first change to one of them.';
comment on column feature.vector_blocks.ts is
'n little-endian int8: microseconds since 2000-01-01 UTC.';
comment on column feature.vector_blocks.vectors is
'n by k little-endian float8, row by row, k the number of the set''s features.';

create function feature._unpack_inserted() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    -- Whoever packs these symbols is waited for, and waits.
    perform pg_advisory_xact_lock_shared(hashtextextended(
        'feature.materialise:' || c.set_id || ':' || c.symbol, 0
    ))
    from (select distinct n.set_id, n.symbol from new_rows n order by n.set_id, n.symbol) c;
    delete from feature.vector_blocks b
    using (
        select n.set_id, n.symbol, min(n.ts) as first_ts, max(n.ts) as last_ts
        from new_rows n
        group by n.set_id, n.symbol
    ) c
    where b.set_id = c.set_id and b.symbol = c.symbol
        and b.ts_from <= c.last_ts and b.ts_to > c.first_ts;
    return null;
end
$$;
create function feature._unpack_deleted() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform pg_advisory_xact_lock_shared(hashtextextended(
        'feature.materialise:' || c.set_id || ':' || c.symbol, 0
    ))
    from (select distinct o.set_id, o.symbol from old_rows o order by o.set_id, o.symbol) c;
    delete from feature.vector_blocks b
    using (
        select o.set_id, o.symbol, min(o.ts) as first_ts, max(o.ts) as last_ts
        from old_rows o
        group by o.set_id, o.symbol
    ) c
    where b.set_id = c.set_id and b.symbol = c.symbol
        and b.ts_from <= c.last_ts and b.ts_to > c.first_ts;
    return null;
end
$$;
create function feature._unpack_all() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    delete from feature.vector_blocks;
    return null;
end
$$;
create trigger unpack_inserted after insert on feature.vectors
referencing new table as new_rows for each statement execute function feature._unpack_inserted();
create trigger unpack_deleted after delete on feature.vectors
referencing old table as old_rows for each statement execute function feature._unpack_deleted();
-- One trigger for what was and one for what is: a moved vector leaves one block and enters another.
create trigger unpack_updated_from after update on feature.vectors
referencing old table as old_rows for each statement execute function feature._unpack_deleted();
create trigger unpack_updated_to after update on feature.vectors
referencing new table as new_rows for each statement execute function feature._unpack_inserted();
create trigger unpack_truncated after truncate on feature.vectors
for each statement execute function feature._unpack_all();
