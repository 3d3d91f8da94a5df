-- What notes the buckets that changed, on the Apache edition (see back_end.apache.sql), and the
-- functions it calls. On Community no statement trigger has a transition table: triggers.community.sql.

-- changed: the rows as they were, or as they are. A note that another transaction made, and that no
-- refresh has taken, is relied on: it is locked, so that inserters do not block each other and a
-- refresh leaves it for later. Under a snapshot of the whole transaction a note seen may be gone: then
-- never rely on it.
create or replace function market._note_dirty() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    insert into market.dirty_buckets (source, width, symbol, bucket)
    with touched as materialized (
        select distinct a.source, a.width, c.symbol, public.time_bucket(a.width, c.ts) as bucket
        from changed c
        join market.aggregates a on a.source = tg_argv[0]::regclass and c.ts >= a.kept_from
    ),
    held as materialized (
        select d.width, d.symbol, d.bucket
        from touched t
        join market.dirty_buckets d
            on d.source = t.source and d.width = t.width and d.symbol = t.symbol and d.bucket = t.bucket
        where current_setting('transaction_isolation') = 'read committed'
        for key share of d skip locked
    )
    select t.source, t.width, t.symbol, t.bucket
    from touched t
    where not exists (
        select from held h
        where h.width = t.width and h.symbol = t.symbol and h.bucket = t.bucket
    )
    order by t.width, t.symbol, t.bucket;
    return null;
end
$$;

-- The same of candles, of which the one-minute bars are aggregated.
create or replace function market._note_dirty_candles() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    insert into market.dirty_buckets (source, width, symbol, bucket)
    with touched as materialized (
        select distinct a.source, a.width, c.symbol, public.time_bucket(a.width, c.ts) as bucket
        from changed c
        join market.aggregates a on a.source = 'market.candles'::regclass and c.ts >= a.kept_from
        where c.timeframe = interval '1 minute'
    ),
    held as materialized (
        select d.width, d.symbol, d.bucket
        from touched t
        join market.dirty_buckets d
            on d.source = t.source and d.width = t.width and d.symbol = t.symbol and d.bucket = t.bucket
        where current_setting('transaction_isolation') = 'read committed'
        for key share of d skip locked
    )
    select t.source, t.width, t.symbol, t.bucket
    from touched t
    where not exists (
        select from held h
        where h.width = t.width and h.symbol = t.symbol and h.bucket = t.bucket
    )
    order by t.width, t.symbol, t.bucket;
    return null;
end
$$;

-- A truncated table has no aggregates.
create or replace function market._forget_all() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    delete from market.dirty_buckets d where d.source = tg_argv[0]::regclass;
    case tg_argv[0]
        when 'market.trades' then truncate market._trades_1m_rows;
        when 'market.order_book_snapshots' then truncate market._book_1m_rows;
        when 'market.liquidation_events' then truncate market._liquidations_1m_rows;
        when 'market.candles' then truncate market._candles_rows;
    end case;
    return null;
end
$$;

create or replace trigger note_inserted after insert on market.trades
referencing new table as changed
for each statement execute function market._note_dirty('market.trades');
create or replace trigger note_deleted after delete on market.trades
referencing old table as changed
for each statement execute function market._note_dirty('market.trades');
create or replace trigger note_updated_from after update on market.trades
referencing old table as changed
for each statement execute function market._note_dirty('market.trades');
create or replace trigger note_updated_to after update on market.trades
referencing new table as changed
for each statement execute function market._note_dirty('market.trades');
create or replace trigger forget_all after truncate on market.trades
for each statement execute function market._forget_all('market.trades');

create or replace trigger note_inserted after insert on market.order_book_snapshots
referencing new table as changed
for each statement execute function market._note_dirty('market.order_book_snapshots');
create or replace trigger note_deleted after delete on market.order_book_snapshots
referencing old table as changed
for each statement execute function market._note_dirty('market.order_book_snapshots');
create or replace trigger note_updated_from after update on market.order_book_snapshots
referencing old table as changed
for each statement execute function market._note_dirty('market.order_book_snapshots');
create or replace trigger note_updated_to after update on market.order_book_snapshots
referencing new table as changed
for each statement execute function market._note_dirty('market.order_book_snapshots');
create or replace trigger forget_all after truncate on market.order_book_snapshots
for each statement execute function market._forget_all('market.order_book_snapshots');

create or replace trigger note_inserted after insert on market.liquidation_events
referencing new table as changed
for each statement execute function market._note_dirty('market.liquidation_events');
create or replace trigger note_deleted after delete on market.liquidation_events
referencing old table as changed
for each statement execute function market._note_dirty('market.liquidation_events');
create or replace trigger note_updated_from after update on market.liquidation_events
referencing old table as changed
for each statement execute function market._note_dirty('market.liquidation_events');
create or replace trigger note_updated_to after update on market.liquidation_events
referencing new table as changed
for each statement execute function market._note_dirty('market.liquidation_events');
create or replace trigger forget_all after truncate on market.liquidation_events
for each statement execute function market._forget_all('market.liquidation_events');

create or replace trigger note_inserted after insert on market.candles
referencing new table as changed
for each statement execute function market._note_dirty_candles();
create or replace trigger note_deleted after delete on market.candles
referencing old table as changed
for each statement execute function market._note_dirty_candles();
create or replace trigger note_updated_from after update on market.candles
referencing old table as changed
for each statement execute function market._note_dirty_candles();
create or replace trigger note_updated_to after update on market.candles
referencing new table as changed
for each statement execute function market._note_dirty_candles();
create or replace trigger forget_all after truncate on market.candles
for each statement execute function market._forget_all('market.candles');

-- Deleted rows and those that come again, a statement at a time.
create or replace trigger keep_deleted after delete on market.candles
referencing old table as old_rows
for each statement execute function market._keep_deleted('candles_history');
create or replace trigger end_superseded after insert on market.candles
referencing new table as new_rows
for each statement execute function market._end_superseded('candles_history', 'symbol', 'timeframe', 'ts');
create or replace trigger keep_deleted after delete on market.trades
referencing old table as old_rows
for each statement execute function market._keep_deleted('trades_history');
create or replace trigger end_superseded after insert on market.trades
referencing new table as new_rows
for each statement execute function market._end_superseded('trades_history', 'symbol', 'ts', 'trade_id');
create or replace trigger keep_deleted after delete on market.order_book_snapshots
referencing old table as old_rows
for each statement execute function market._keep_deleted('order_book_snapshots_history');
create or replace trigger end_superseded after insert on market.order_book_snapshots
referencing new table as new_rows
for each statement execute function market._end_superseded('order_book_snapshots_history', 'symbol', 'ts', 'sequence');
create or replace trigger keep_deleted after delete on market.liquidation_events
referencing old table as old_rows
for each statement execute function market._keep_deleted('liquidation_events_history');
create or replace trigger end_superseded after insert on market.liquidation_events
referencing new table as new_rows
for each statement execute function market._end_superseded('liquidation_events_history', 'symbol', 'ts', 'event_id');
create or replace trigger keep_deleted after delete on market.funding_rates
referencing old table as old_rows
for each statement execute function market._keep_deleted('funding_rates_history');
create or replace trigger end_superseded after insert on market.funding_rates
referencing new table as new_rows
for each statement execute function market._end_superseded('funding_rates_history', 'symbol', 'ts');
create or replace trigger keep_deleted after delete on market.open_interest
referencing old table as old_rows
for each statement execute function market._keep_deleted('open_interest_history');
create or replace trigger end_superseded after insert on market.open_interest
referencing new table as new_rows
for each statement execute function market._end_superseded('open_interest_history', 'symbol', 'ts');
