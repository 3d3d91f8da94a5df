alter table drift.reference_features drop column squares;
