-- What changed vectors make invalid. What late rows do is by edition: triggers.apache.sql and
-- triggers.community.sql.

-- Late rows of a user's source void stored vectors as market rows do; they may be of one symbol or for
-- all, and may be taken back.
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
create or replace function feature._unpack_all() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    delete from feature.vector_blocks;
    return null;
end
$$;

create or replace trigger keep_sets before delete on feature.sets
for each row execute function feature._keep_sets();
create or replace trigger unpack_truncated after truncate on feature.vectors
for each statement execute function feature._unpack_all();
