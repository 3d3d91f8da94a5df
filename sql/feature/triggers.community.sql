-- What late rows and changed vectors make invalid, on the Community edition: row by row, without a
-- transition table (sql/market/back_end.community.sql says why). A row in order costs one comparison.

-- Up to when vectors are stored, as setting alphaplus.stored_through.
create or replace function feature._say_stored() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform set_config(
        'alphaplus.stored_through',
        (select coalesce(max(w.through), '-infinity')::text from feature.watermarks w), false
    );
    return null;
end
$$;

-- A row that arrives now but says it was known at a time whose vectors are already stored (a history
-- load) changes those vectors, so the stretch is noted in feature.pending, in whole hours: many rows
-- of one hour, table and symbol are noted once a transaction. The table's name is the argument.
create or replace function feature._mark_pending_row() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    c_name constant text := 'alphaplus.noted_' || to_hex(hashtext(tg_argv[0] || new.symbol));
    v_usable timestamptz := market.usable_at(interval '1 minute', new.ts, new.known_at);
    v_first timestamptz := date_trunc('hour', v_usable, 'UTC');
    v_last timestamptz := date_trunc('hour', greatest(v_usable, new.ts), 'UTC') + interval '1 hour';
    v_key text := concat_ws('/', v_first, v_last, pg_current_xact_id()::text);
begin
    if current_setting(c_name, true) is not distinct from v_key then
        return null;
    end if;
    insert into feature.pending (set_id, symbol, ts_from, ts_to, reason)
    select distinct m.set_id, m.symbol, v_first, least(v_last + coalesce(s.reach, s.lookback) + interval '1 day', m.through), tg_argv[0]
    from (
        select w.set_id, w.symbol, w.through, w.symbol as read_symbol from feature.watermarks w
        union all
        -- Sets that read other symbols' rows.
        select w.set_id, w.symbol, w.through, x.symbol
        from feature.set_symbols x
        join feature.watermarks w
            on w.set_id = x.set_id and w.symbol = coalesce(x.of_symbol, w.symbol)
    ) m
    join feature.sets s on s.set_id = m.set_id
    where m.read_symbol = new.symbol and v_first < m.through;
    perform set_config(c_name, v_key, false);
    return null;
end
$$;

-- A changed vector takes the block that it is in along. Whoever packs this symbol is waited for, once
-- a transaction.
create or replace function feature._unpack_row() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_was feature.vectors := case when tg_op <> 'INSERT' then old end;
    v_is feature.vectors := case when tg_op <> 'DELETE' then new end;
    v_key text;
    v_vector feature.vectors;
begin
    foreach v_vector in array array[v_was, v_is] loop
        continue when v_vector.set_id is null;
        v_key := concat_ws('/', v_vector.set_id, v_vector.symbol, pg_current_xact_id()::text);
        if current_setting('alphaplus.unpacking', true) is distinct from v_key then
            perform ops._lock('feature.materialise:' || v_vector.set_id || ':' || v_vector.symbol, true);
            perform set_config('alphaplus.unpacking', v_key, false);
        end if;
        delete from feature.vector_blocks b
        where b.set_id = v_vector.set_id and b.symbol = v_vector.symbol
            and b.ts_from <= v_vector.ts and b.ts_to > v_vector.ts;
    end loop;
    return null;
end
$$;

create or replace trigger say_stored before insert on market.candles
for each statement execute function feature._say_stored();
create or replace trigger mark_pending_insert after insert on market.candles
for each row when (new.ts < current_setting('alphaplus.stored_through')::timestamptz)
execute function feature._mark_pending_row('candles');
create or replace trigger mark_pending_update after update on market.candles
for each row execute function feature._mark_pending_row('candles');
create or replace trigger say_stored before insert on market.trades
for each statement execute function feature._say_stored();
create or replace trigger mark_pending_insert after insert on market.trades
for each row when (new.ts < current_setting('alphaplus.stored_through')::timestamptz)
execute function feature._mark_pending_row('trades');
create or replace trigger mark_pending_update after update on market.trades
for each row execute function feature._mark_pending_row('trades');
create or replace trigger say_stored before insert on market.order_book_snapshots
for each statement execute function feature._say_stored();
create or replace trigger mark_pending_insert after insert on market.order_book_snapshots
for each row when (new.ts < current_setting('alphaplus.stored_through')::timestamptz)
execute function feature._mark_pending_row('order_book_snapshots');
create or replace trigger mark_pending_update after update on market.order_book_snapshots
for each row execute function feature._mark_pending_row('order_book_snapshots');
create or replace trigger say_stored before insert on market.liquidation_events
for each statement execute function feature._say_stored();
create or replace trigger mark_pending_insert after insert on market.liquidation_events
for each row when (new.ts < current_setting('alphaplus.stored_through')::timestamptz)
execute function feature._mark_pending_row('liquidation_events');
create or replace trigger mark_pending_update after update on market.liquidation_events
for each row execute function feature._mark_pending_row('liquidation_events');
create or replace trigger say_stored before insert on market.funding_rates
for each statement execute function feature._say_stored();
create or replace trigger mark_pending_insert after insert on market.funding_rates
for each row when (new.ts < current_setting('alphaplus.stored_through')::timestamptz)
execute function feature._mark_pending_row('funding_rates');
create or replace trigger mark_pending_update after update on market.funding_rates
for each row execute function feature._mark_pending_row('funding_rates');
create or replace trigger say_stored before insert on market.open_interest
for each statement execute function feature._say_stored();
create or replace trigger mark_pending_insert after insert on market.open_interest
for each row when (new.ts < current_setting('alphaplus.stored_through')::timestamptz)
execute function feature._mark_pending_row('open_interest');
create or replace trigger mark_pending_update after update on market.open_interest
for each row execute function feature._mark_pending_row('open_interest');
create or replace trigger unpack_changed after insert or update or delete on feature.vectors
for each row execute function feature._unpack_row();
