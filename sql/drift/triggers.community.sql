-- Stored vectors that change mark the hours of the store of distributions, on the Community edition: row
-- by row, without a transition table (sql/market/back_end.community.sql says why).

-- Up to when vectors are counted, as setting alphaplus.counted_through: a vector past it costs one
-- comparison.
create or replace function drift._say_counted() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform set_config(
        'alphaplus.counted_through',
        (select coalesce(max(k.through), '-infinity')::text from drift.coverage k), false
    );
    return null;
end
$$;

-- One mark an hour, set and symbol in a transaction.
create or replace function drift._mark_histograms_row() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_changed constant feature.vectors := case when tg_op = 'DELETE' then old else new end;
    v_first constant timestamptz := date_trunc('hour', v_changed.ts, 'UTC');
    v_key constant text := concat_ws(
        '/', v_changed.set_id, v_changed.symbol, v_first, pg_current_xact_id()::text
    );
begin
    if current_setting('alphaplus.counted_change', true) is not distinct from v_key then
        return null;
    end if;
    insert into drift.histogram_marks (set_id, symbol, ts_from, ts_to)
    select v_changed.set_id, v_changed.symbol, v_first, v_first + interval '1 hour' - interval '1 microsecond'
    where exists (
        select
        from drift.binnings b
        join drift.coverage k on k.binning_id = b.binning_id and k.symbol = v_changed.symbol
        where b.set_id = v_changed.set_id and k.through > v_first and k.since < v_first + interval '1 hour'
    );
    perform set_config('alphaplus.counted_change', v_key, false);
    return null;
end
$$;
comment on function drift._mark_histograms_row() is
'Marks the hours of stored vectors that change after they were counted.';

create or replace trigger say_counted before insert on feature.vectors
for each statement execute function drift._say_counted();
create or replace trigger mark_histograms_inserted after insert on feature.vectors
for each row when (new.ts < current_setting('alphaplus.counted_through')::timestamptz)
execute function drift._mark_histograms_row();
create or replace trigger mark_histograms_changed after update or delete on feature.vectors
for each row execute function drift._mark_histograms_row();
