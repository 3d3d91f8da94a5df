-- What keeps the versions of market rows. The tables hold the current version of each row; a
-- corrected or deleted row moves to <table>_history with superseded_at, so that a question asked as
-- of an earlier time still gets the earlier answer.

-- A correction is known from now on, and what it corrected stays readable as of before. The
-- history table's name is the trigger's argument: inside a hypertable tg_table_name is a chunk.
create or replace function market._keep_superseded() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_superseded_at timestamptz := clock_timestamp();
begin
    if tg_op = 'UPDATE' then
        if new is not distinct from old then
            return new;
        end if;
        if new.known_at is not distinct from old.known_at then
            new.known_at := greatest(v_superseded_at, old.known_at);
        end if;
        v_superseded_at := new.known_at;
    end if;
    execute format(
        'insert into market.%1$I select * from jsonb_populate_record(null::market.%1$I, $1)', tg_argv[0]
    ) using to_jsonb(old) || jsonb_build_object('superseded_at', v_superseded_at);
    if tg_op = 'DELETE' then
        return old;
    end if;
    return new;
end
$$;

-- Deleted rows go to <table>_history in one statement: row by row, deleting a million trades took a
-- hundred seconds.
create or replace function market._keep_deleted() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_columns text;
begin
    select string_agg(quote_ident(a.attname), ', ' order by a.attnum) into v_columns
    from pg_attribute a
    where a.attrelid = format('market.%I', tg_argv[0])::regclass and a.attnum > 0
        and not a.attisdropped and a.attname <> 'superseded_at';
    execute format(
        'insert into market.%1$I (%2$s, superseded_at) select %2$s, $1 from old_rows',
        tg_argv[0], v_columns
    ) using clock_timestamp();
    return null;
end
$$;

-- A row that was deleted and is loaded again as history holds from the time at which it says it
-- was known. What it replaces ends there, so that no time has two versions of a row. Rows that
-- arrive live are known after the deletion and touch nothing.
create or replace function market._end_superseded() returns trigger
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

create or replace trigger keep_superseded before update on market.candles
for each row execute function market._keep_superseded('candles_history');
create or replace trigger keep_superseded before update on market.trades
for each row execute function market._keep_superseded('trades_history');
create or replace trigger keep_superseded before update on market.order_book_snapshots
for each row execute function market._keep_superseded('order_book_snapshots_history');
create or replace trigger keep_superseded before update on market.liquidation_events
for each row execute function market._keep_superseded('liquidation_events_history');
create or replace trigger keep_superseded before update on market.funding_rates
for each row execute function market._keep_superseded('funding_rates_history');
create or replace trigger keep_superseded before update on market.open_interest
for each row execute function market._keep_superseded('open_interest_history');
create or replace trigger keep_superseded before update on market.corporate_actions
for each row execute function market._keep_superseded('corporate_actions_history');
create or replace trigger keep_deleted after delete on market.corporate_actions
referencing old table as old_rows
for each statement execute function market._keep_deleted('corporate_actions_history');
create or replace trigger end_superseded after insert on market.corporate_actions
referencing new table as new_rows
for each statement execute function market._end_superseded('corporate_actions_history', 'symbol', 'ts', 'kind');
