alter table ml.labels drop constraint labels_version_key, drop column name, drop column version;
