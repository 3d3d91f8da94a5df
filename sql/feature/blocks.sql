-- Blocks of vectors (feature.vector_blocks) go with the first change to a vector in them. The
-- triggers are in triggers.sql; what packs vectors into blocks is feature.pack.
create or replace function feature._unpack_inserted() returns trigger
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

create or replace function feature._unpack_deleted() returns trigger
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

create or replace function feature._unpack_all() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    delete from feature.vector_blocks;
    return null;
end
$$;
