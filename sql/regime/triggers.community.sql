-- Rows that arrive for a time whose regimes are stored leave a mark, on the Community edition: row by
-- row, without a transition table (sql/market/back_end.community.sql says why); see regime.pending.

-- Up to when regimes are stored, as setting alphaplus.regimes_through: a row in order costs one
-- comparison.
create or replace function regime._say_stored() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform set_config(
        'alphaplus.regimes_through',
        (select coalesce(max(w.through), '-infinity')::text from regime.watermarks w), false
    );
    return null;
end
$$;

-- One mark an hour, table and symbol in a transaction.
create or replace function regime._mark_pending_row() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_symbol constant text := case when tg_op = 'DELETE' then old.symbol else new.symbol end;
    v_ts constant timestamptz := case when tg_op = 'DELETE' then old.ts else new.ts end;
    v_first constant timestamptz := date_trunc('hour', v_ts, 'UTC');
    c_name constant text := 'alphaplus.regime_' || to_hex(hashtext(tg_argv[0] || v_symbol));
    v_key constant text := concat_ws('/', v_symbol, v_first, pg_current_xact_id()::text);
begin
    if current_setting(c_name, true) is not distinct from v_key then
        return null;
    end if;
    insert into regime.pending (symbol, ts_from, ts_to)
    select w.symbol, v_first, v_first + interval '1 hour' - interval '1 microsecond'
    from regime.watermarks w
    where w.symbol = v_symbol and v_first < w.through;
    perform set_config(c_name, v_key, false);
    return null;
end
$$;

create or replace trigger regime_say_stored before insert on market.candles
for each statement execute function regime._say_stored();
create or replace trigger regime_inserted after insert on market.candles
for each row when (new.ts < current_setting('alphaplus.regimes_through')::timestamptz)
execute function regime._mark_pending_row('candles');
create or replace trigger regime_changed after update or delete on market.candles
for each row execute function regime._mark_pending_row('candles');
create or replace trigger regime_say_stored before insert on market.trades
for each statement execute function regime._say_stored();
create or replace trigger regime_inserted after insert on market.trades
for each row when (new.ts < current_setting('alphaplus.regimes_through')::timestamptz)
execute function regime._mark_pending_row('trades');
create or replace trigger regime_changed after update or delete on market.trades
for each row execute function regime._mark_pending_row('trades');
