-- What later rows and changed vectors make invalid.

-- A row that arrives now but says it was known at a time whose vectors are already stored (a history
-- load) changes those vectors, so the stretch is noted in feature.pending. Live rows lie past the
-- watermark and cost one look at a small table for each statement.
create or replace function feature._mark_pending() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    insert into feature.pending (set_id, symbol, ts_from, ts_to, reason)
    select m.set_id, m.symbol, min(n.usable), least(max(n.ts) + max(coalesce(s.reach, s.lookback)) + interval '1 day', max(m.through)), tg_table_name
    from (
        select r.symbol, r.ts, market.usable_at(interval '1 minute', r.ts, r.known_at) as usable
        from new_rows r
        where r.ts < (select max(x.through) from feature.watermarks x)
    ) n
    join (
        select w.set_id, w.symbol, w.through, w.symbol as read_symbol from feature.watermarks w
        union all
        -- Sets that read other symbols' rows.
        select w.set_id, w.symbol, w.through, x.symbol
        from feature.set_symbols x
        join feature.watermarks w
            on w.set_id = x.set_id and w.symbol = coalesce(x.of_symbol, w.symbol)
    ) m on m.read_symbol = n.symbol
    join feature.sets s on s.set_id = m.set_id
    where n.usable < m.through
    group by m.set_id, m.symbol;
    return null;
end
$$;

-- The same of a user's source, whose rows may be of one symbol or for all, and may be taken back.
create or replace function feature._mark_source() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_source feature.sources;
    v_bad text;
    v_symbol text;
begin
    select s.* into v_source from feature.sources s where s.relation = tg_relid;
    if not found then
        return null;
    end if;
    v_symbol := case when v_source.symbol_column is null then 'null::text'
        else format('r.%I', v_source.symbol_column) end;
    if tg_op <> 'DELETE' and v_source.symbol_column is not null then
        execute format(
            'select min(r.%1$I) from changed_rows r'
            ' where not exists (select from market.instruments i where i.symbol = r.%1$I)',
            v_source.symbol_column
        ) into v_bad;
        if v_bad is not null then
            raise exception 'source % has rows of %, which is no symbol', quote_literal(v_source.source), quote_literal(v_bad)
            using errcode = 'AP231', hint = 'Write symbols as market.instruments does: market.resolve gives it for an alias.';
        end if;
    end if;
    execute format(
        'insert into feature.pending (set_id, symbol, ts_from, ts_to, reason)'
        ' select m.set_id, m.symbol, greatest(m.since,'
        ' min(market.usable_at(interval ''1 minute'', n.ts, n.known_at))),'
        ' least(max(n.ts) + max(s.lookback) + interval ''1 day'', max(m.through)), %1$L'
        ' from (select %2$s as symbol, r.%3$I as ts, r.%4$I as known_at from changed_rows r'
        ' where r.%3$I < (select max(x.through) from feature.watermarks x)) n'
        ' join feature.set_sources x on x.source = %5$L'
        ' join feature.watermarks m on m.set_id = x.set_id'
        ' and m.symbol = coalesce(n.symbol, m.symbol)'
        ' join feature.sets s on s.set_id = m.set_id'
        ' where market.usable_at(interval ''1 minute'', n.ts, n.known_at) < m.through'
        ' group by m.set_id, m.symbol, m.since',
        'source ' || v_source.source, v_symbol, v_source.ts_column, v_source.known_at_column,
        v_source.source
    );
    return null;
end
$$;
comment on function feature._mark_source() is
'Refuses rows of what is no symbol (AP231), and voids the vectors that late rows of a source can have changed.';

-- No row of it is known any more: whatever was stored of sets that read it is void.
create or replace function feature._mark_source_emptied() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    insert into feature.pending (set_id, symbol, ts_from, ts_to, reason)
    select
        m.set_id, m.symbol, (
            select min(v.ts) from feature.vectors v
            where v.set_id = m.set_id and v.symbol = m.symbol
        ), m.through, 'source ' || s.source
    from feature.sources s
    join feature.set_sources x on x.source = s.source
    join feature.watermarks m on m.set_id = x.set_id
    where s.relation = tg_relid and exists (
        select from feature.vectors v where v.set_id = m.set_id and v.symbol = m.symbol
    );
    return null;
end
$$;
comment on function feature._mark_source_emptied() is 'Voids all vectors of sets that read a source that was truncated.';

-- A set that has vectors cannot be deleted (feature.vectors has no foreign key).
create or replace function feature._keep_sets() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if exists (select from feature.vectors v where v.set_id = old.set_id) then
        raise exception 'feature set % has vectors', quote_literal(old.name)
        using errcode = 'AP206', hint = 'Delete them first, or call feature.drop_set.';
    end if;
    return old;
end
$$;

-- Blocks of vectors (feature.vector_blocks) go with the first change to a vector in them.
create or replace function feature._unpack_inserted() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    -- Whoever packs these symbols is waited for, and waits.
    perform ops._lock('feature.materialise:' || c.set_id || ':' || c.symbol, true)
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
    perform ops._lock('feature.materialise:' || c.set_id || ':' || c.symbol, true)
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

create or replace trigger mark_pending_insert after insert on market.candles
referencing new table as new_rows
for each statement execute function feature._mark_pending();
create or replace trigger mark_pending_update after update on market.candles
referencing new table as new_rows
for each statement execute function feature._mark_pending();
create or replace trigger mark_pending_insert after insert on market.trades
referencing new table as new_rows
for each statement execute function feature._mark_pending();
create or replace trigger mark_pending_update after update on market.trades
referencing new table as new_rows
for each statement execute function feature._mark_pending();
create or replace trigger mark_pending_insert after insert on market.order_book_snapshots
referencing new table as new_rows
for each statement execute function feature._mark_pending();
create or replace trigger mark_pending_update after update on market.order_book_snapshots
referencing new table as new_rows
for each statement execute function feature._mark_pending();
create or replace trigger mark_pending_insert after insert on market.liquidation_events
referencing new table as new_rows
for each statement execute function feature._mark_pending();
create or replace trigger mark_pending_update after update on market.liquidation_events
referencing new table as new_rows
for each statement execute function feature._mark_pending();
create or replace trigger mark_pending_insert after insert on market.funding_rates
referencing new table as new_rows
for each statement execute function feature._mark_pending();
create or replace trigger mark_pending_update after update on market.funding_rates
referencing new table as new_rows
for each statement execute function feature._mark_pending();
create or replace trigger mark_pending_insert after insert on market.open_interest
referencing new table as new_rows
for each statement execute function feature._mark_pending();
create or replace trigger mark_pending_update after update on market.open_interest
referencing new table as new_rows
for each statement execute function feature._mark_pending();
create or replace trigger keep_sets before delete on feature.sets
for each row execute function feature._keep_sets();
create or replace trigger unpack_inserted after insert on feature.vectors
referencing new table as new_rows
for each statement execute function feature._unpack_inserted();
create or replace trigger unpack_deleted after delete on feature.vectors
referencing old table as old_rows
for each statement execute function feature._unpack_deleted();
-- One trigger for what was and one for what is: a moved vector leaves one block and enters another.
create or replace trigger unpack_updated_from after update on feature.vectors
referencing old table as old_rows
for each statement execute function feature._unpack_deleted();
create or replace trigger unpack_updated_to after update on feature.vectors
referencing new table as new_rows
for each statement execute function feature._unpack_inserted();
create or replace trigger unpack_truncated after truncate on feature.vectors
for each statement execute function feature._unpack_all();
