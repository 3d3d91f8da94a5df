-- What the columns of drift's older tables and views mean; newer ones say it beside their definition
-- (the migration, or the view). Applied last in the schema, when all of them are there.

comment on column drift.binnings_in_use.binning_id is 'The binning, as in drift.binnings.';
comment on column drift.binnings_in_use.kind is 'What it bins.';
comment on column drift.binnings_in_use.symbol is 'The symbol whose rows are counted in it.';
