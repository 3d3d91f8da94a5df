-- Triggers for the store of distributions; their function is in histograms.sql.
create or replace trigger mark_histograms_inserted after insert on feature.vectors
referencing new table as changed_rows
for each statement execute function drift._mark_histograms();
create or replace trigger mark_histograms_deleted after delete on feature.vectors
referencing old table as changed_rows
for each statement execute function drift._mark_histograms();
create or replace trigger mark_histograms_updated after update on feature.vectors
referencing new table as changed_rows
for each statement execute function drift._mark_histograms();
