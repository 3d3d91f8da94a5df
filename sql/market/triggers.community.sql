-- What keeps deleted rows and lets them come again, on the Community edition: row by row, without a
-- transition table (back_end.community.sql says why). A row in order costs one comparison: before a
-- statement a setting of the session says up to when anything was ever superseded, and the trigger
-- on a row is only called for rows up to then.

-- Deleted rows go to <table>_history; its name is the trigger's argument, as in a hypertable
-- tg_table_name is a chunk.
create or replace function market._keep_deleted_row() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    execute format(
        'insert into market.%1$I select * from jsonb_populate_record(null::market.%1$I, $1)', tg_argv[0]
    ) using to_jsonb(old) || jsonb_build_object('superseded_at', clock_timestamp());
    return null;
end
$$;

-- Up to when rows of the table were superseded, as setting alphaplus.<table>_history.
create or replace function market._say_superseded() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_until timestamptz;
begin
    execute format('select max(h.ts) from market.%I h', tg_argv[0]) into v_until;
    perform set_config('alphaplus.' || tg_argv[0], coalesce(v_until, '-infinity')::text, false);
    return null;
end
$$;

-- A row that was deleted and is loaded again as history holds from the time at which it says it was
-- known; what it replaces ends there (as market._end_superseded says of a statement).
create or replace function market._end_superseded_row() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    execute format(
        'with back as ('
        '    select h.ctid as id, h.known_at from market.%1$I h'
        '    where (%2$s) = (%3$s) and h.superseded_at > $1.known_at'
        '), gone as ('
        '    delete from market.%1$I h using back b where h.ctid = b.id and b.known_at >= $1.known_at'
        ')'
        ' update market.%1$I h set superseded_at = $1.known_at'
        ' from back b where h.ctid = b.id and b.known_at < $1.known_at',
        tg_argv[0],
        (select string_agg('h.' || k, ', ') from unnest(tg_argv[1:]) k),
        (select string_agg('$1.' || k, ', ') from unnest(tg_argv[1:]) k)
    ) using new;
    return null;
end
$$;

create or replace trigger keep_deleted after delete on market.candles
for each row execute function market._keep_deleted_row('candles_history');
create or replace trigger say_superseded before insert on market.candles
for each statement execute function market._say_superseded('candles_history');
create or replace trigger end_superseded after insert on market.candles
for each row when (new.ts <= current_setting('alphaplus.candles_history')::timestamptz)
execute function market._end_superseded_row('candles_history', 'symbol', 'timeframe', 'ts');
create or replace trigger keep_deleted after delete on market.trades
for each row execute function market._keep_deleted_row('trades_history');
create or replace trigger say_superseded before insert on market.trades
for each statement execute function market._say_superseded('trades_history');
create or replace trigger end_superseded after insert on market.trades
for each row when (new.ts <= current_setting('alphaplus.trades_history')::timestamptz)
execute function market._end_superseded_row('trades_history', 'symbol', 'ts', 'trade_id');
create or replace trigger keep_deleted after delete on market.order_book_snapshots
for each row execute function market._keep_deleted_row('order_book_snapshots_history');
create or replace trigger say_superseded before insert on market.order_book_snapshots
for each statement execute function market._say_superseded('order_book_snapshots_history');
create or replace trigger end_superseded after insert on market.order_book_snapshots
for each row when (new.ts <= current_setting('alphaplus.order_book_snapshots_history')::timestamptz)
execute function market._end_superseded_row('order_book_snapshots_history', 'symbol', 'ts', 'sequence');
create or replace trigger keep_deleted after delete on market.liquidation_events
for each row execute function market._keep_deleted_row('liquidation_events_history');
create or replace trigger say_superseded before insert on market.liquidation_events
for each statement execute function market._say_superseded('liquidation_events_history');
create or replace trigger end_superseded after insert on market.liquidation_events
for each row when (new.ts <= current_setting('alphaplus.liquidation_events_history')::timestamptz)
execute function market._end_superseded_row('liquidation_events_history', 'symbol', 'ts', 'event_id');
create or replace trigger keep_deleted after delete on market.funding_rates
for each row execute function market._keep_deleted_row('funding_rates_history');
create or replace trigger say_superseded before insert on market.funding_rates
for each statement execute function market._say_superseded('funding_rates_history');
create or replace trigger end_superseded after insert on market.funding_rates
for each row when (new.ts <= current_setting('alphaplus.funding_rates_history')::timestamptz)
execute function market._end_superseded_row('funding_rates_history', 'symbol', 'ts');
create or replace trigger keep_deleted after delete on market.open_interest
for each row execute function market._keep_deleted_row('open_interest_history');
create or replace trigger say_superseded before insert on market.open_interest
for each statement execute function market._say_superseded('open_interest_history');
create or replace trigger end_superseded after insert on market.open_interest
for each row when (new.ts <= current_setting('alphaplus.open_interest_history')::timestamptz)
execute function market._end_superseded_row('open_interest_history', 'symbol', 'ts');
