-- Stored vectors that change mark the hours of the store of distributions, on the Apache edition: a
-- statement at a time.

create or replace function drift._mark_histograms() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    -- New vectors lie past what is counted, but for those that are stored anew: one look at a small
    -- table per statement.
    insert into drift.histogram_marks (set_id, symbol, ts_from, ts_to)
    select c.set_id, c.symbol, c.first_ts, c.last_ts
    from (
        select n.set_id, n.symbol, min(n.ts) as first_ts, max(n.ts) as last_ts
        from changed_rows n
        group by n.set_id, n.symbol
    ) c
    where exists (
        select
        from drift.binnings b
        join drift.coverage k on k.binning_id = b.binning_id and k.symbol = c.symbol
        where b.set_id = c.set_id and k.through > c.first_ts and k.since <= c.last_ts
    );
    return null;
end
$$;
comment on function drift._mark_histograms() is
'Marks the hours of stored vectors that change after they were counted.';

create or replace trigger mark_histograms_inserted after insert on feature.vectors
referencing new table as changed_rows
for each statement execute function drift._mark_histograms();
create or replace trigger mark_histograms_deleted after delete on feature.vectors
referencing old table as changed_rows
for each statement execute function drift._mark_histograms();
create or replace trigger mark_histograms_updated after update on feature.vectors
referencing new table as changed_rows
for each statement execute function drift._mark_histograms();
