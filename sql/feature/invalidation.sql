-- What later rows make of stored vectors: a row that arrives now but says it was known at a time
-- whose vectors are already stored (a history load) changes those vectors, so the stretch is noted
-- in feature.pending. Live rows lie past the watermark and cost one look at a small table for each
-- statement. The triggers are in triggers.sql.
create or replace function feature._mark_pending() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    insert into feature.pending (set_id, symbol, ts_from, ts_to, reason)
    select m.set_id, m.symbol, min(n.usable), least(max(n.ts) + max(s.lookback) + interval '1 day', max(m.through)), tg_table_name
    from (
        select r.symbol, r.ts, market.usable_at(interval '1 minute', r.ts, r.known_at) as usable
        from new_rows r
        where r.ts < (select max(x.through) from feature.watermarks x)
    ) n
    join feature.watermarks m on m.symbol = n.symbol
    join feature.sets s on s.set_id = m.set_id
    where n.usable < m.through
    group by m.set_id, m.symbol;
    return null;
end
$$;
