-- depends: 0010_aggregates
--
-- 0011: marks that do not pile up, and rows that come back.
--
-- A mark already there stands for the new rows too, provided that it stays until they commit: it
-- is locked, which the refresh respects by skipping it, and which inserters do not feel among each
-- other. Where it cannot be locked the refresh is about to remove it, and a new one is written.
create or replace function market._mark_changed() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_name text;
    v_width interval;
    v_changed text;
    v_insert text;
begin
    v_changed := case tg_op
        when 'INSERT' then 'select symbol, ts from new_rows'
        when 'DELETE' then 'select symbol, ts from old_rows'
        else 'select symbol, ts from old_rows union all select symbol, ts from new_rows'
    end;
    -- Under a snapshot of the whole transaction a mark seen may be gone: then never rely on it.
    v_insert := case current_setting('transaction_isolation')
        when 'read committed' then
            'with changed as materialized ('
            '    select distinct c.symbol, public.time_bucket(%2$L::interval, c.ts) as bucket'
            '    from (%3$s) c'
            '), held as materialized ('
            '    select m.symbol, m.bucket from changed d'
            '    join market.%1$I m on m.symbol = d.symbol and m.bucket = d.bucket'
            '    for key share of m skip locked'
            ')'
            ' insert into market.%1$I (symbol, bucket)'
            ' select d.symbol, d.bucket from changed d'
            ' where not exists ('
            '    select from held h where h.symbol = d.symbol and h.bucket = d.bucket)'
        else
            'insert into market.%1$I (symbol, bucket)'
            ' select distinct c.symbol, public.time_bucket(%2$L::interval, c.ts) from (%3$s) c'
    end;
    foreach v_name in array tg_argv loop
        select a.width into strict v_width from market.aggregates a where a.name = v_name;
        execute format(v_insert, v_name || '_marks', v_width, v_changed);
    end loop;
    return null;
end
$$;

-- A row that was deleted and is loaded again as history holds from the time at which it says it
-- was known. What it replaces ends there, so that no time has two versions of a row. Rows that
-- arrive live are known after the deletion and touch nothing.
create function market._end_superseded() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_any boolean;
begin
    execute format('select exists (select from market.%I)', tg_argv[0]) into v_any;
    if not v_any then
        return null;
    end if;
    execute format(
        'with back as ('
        '    select h.ctid as id, h.known_at, n.known_at as until'
        '    from new_rows n join market.%1$I h on (%2$s) = (%3$s)'
        '    where h.superseded_at > n.known_at'
        '), gone as ('
        '    delete from market.%1$I h using back b where h.ctid = b.id and b.known_at >= b.until'
        ')'
        ' update market.%1$I h set superseded_at = b.until'
        ' from back b where h.ctid = b.id and b.known_at < b.until',
        tg_argv[0],
        (select string_agg('n.' || k, ', ') from unnest(tg_argv[1:]) k),
        (select string_agg('h.' || k, ', ') from unnest(tg_argv[1:]) k)
    );
    return null;
end
$$;

create trigger end_superseded after insert on market.candles referencing new table as new_rows
for each statement execute function market._end_superseded('candles_history', 'symbol', 'timeframe', 'ts');
create trigger end_superseded after insert on market.trades referencing new table as new_rows
for each statement execute function market._end_superseded('trades_history', 'symbol', 'ts', 'trade_id');
create trigger end_superseded after insert on market.order_book_snapshots referencing new table as new_rows
for each statement execute function market._end_superseded('order_book_snapshots_history', 'symbol', 'ts', 'sequence');
create trigger end_superseded after insert on market.liquidation_events referencing new table as new_rows
for each statement execute function market._end_superseded('liquidation_events_history', 'symbol', 'ts', 'event_id');
create trigger end_superseded after insert on market.funding_rates referencing new table as new_rows
for each statement execute function market._end_superseded('funding_rates_history', 'symbol', 'ts');
create trigger end_superseded after insert on market.open_interest referencing new table as new_rows
for each statement execute function market._end_superseded('open_interest_history', 'symbol', 'ts');
