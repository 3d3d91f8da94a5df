alter table ml.gates drop column relative;
alter table drift.histograms alter column counts set compression default;
