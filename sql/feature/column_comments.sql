-- What the columns of feature's older tables and views mean; newer ones say it beside their definition
-- (the migration, or the view). Applied last in the schema, when all of them are there.

comment on column feature.definitions.feature_set is 'Name of the feature set.';
comment on column feature.definitions.feature_version is 'Version of the feature set.';
comment on column feature.definitions.feature is 'Name of the feature.';
comment on column feature.definitions.position is 'Its place in feature.sets.features, from 1.';
comment on column feature.definitions.formula is 'How it is computed.';
comment on column feature.definitions.unit is 'Its unit.';
comment on column feature.definitions.source is 'Where the formula is from.';
comment on column feature.definitions.lookback is 'How far back it reads; null: as far as the set.';

comment on column feature.importance.model is 'The model, as in ml.models.';
comment on column feature.importance.symbol is 'The version''s symbol; null: pooled.';
comment on column feature.importance.regime is 'The version''s regime; null: all.';
comment on column feature.importance.version_id is 'The version, as in ml.model_versions.';
comment on column feature.importance.algorithm is 'How it was trained, as lightgbm or gru.';
comment on column feature.importance.alias is 'The part it plays: champion, challenger or shadow.';
comment on column feature.importance.feature_set is 'Name of the feature set.';
comment on column feature.importance.feature_version is 'Version of the feature set.';
comment on column feature.importance.kind is 'Kind of importance: gain, split or weight.';
comment on column feature.importance.feature is 'Name of the feature.';
comment on column feature.importance.importance is 'Its importance, in the unit of its kind.';
comment on column feature.importance.share is 'Its share of the version''s sum of that kind.';
comment on column feature.importance.rank is 'Its rank in the version, 1 the heaviest.';

comment on column feature.pending.set_id is 'The feature set, as in feature.sets.';
comment on column feature.pending.symbol is 'The symbol, as in market.instruments.';
comment on column feature.pending.ts_from is 'First time of the stretch.';
comment on column feature.pending.ts_to is 'End of the stretch, exclusive.';
comment on column feature.pending.reason is 'What changed.';
comment on column feature.pending.created_at is 'When the change was noted.';
comment on column feature.pending.pending_id is 'Number of the row.';

comment on column feature.quality_recent.feature_set is 'Name of the feature set.';
comment on column feature.quality_recent.feature_version is 'Version of the feature set.';
comment on column feature.quality_recent.symbol is 'The symbol, as in market.instruments.';
comment on column feature.quality_recent.feature is 'Name of the feature.';
comment on column feature.quality_recent.row_count is 'Stored vectors of the last 24 hours.';
comment on column feature.quality_recent.null_share is 'Share of them in which it is not known.';
comment on column feature.quality_recent.mean is 'Mean of its known values.';
comment on column feature.quality_recent.variance is 'Sample variance of its known values.';
comment on column feature.quality_recent.min_value is 'Smallest value.';
comment on column feature.quality_recent.max_value is 'Largest value.';
comment on column feature.quality_recent.distinct_values is 'Number of distinct values; 1: constant.';
comment on column feature.quality_recent.last_value is 'Its value in the newest vector; null: not known.';
comment on column feature.quality_recent.last_known is 'When it was last known.';
comment on column feature.quality_recent.staleness is 'How far that is behind the newest vector.';
comment on column feature.quality_recent.through is 'Up to when vectors are stored.';

comment on column feature.sets.set_id is 'Number of the set.';
comment on column feature.sets.name is 'Its name.';
comment on column feature.sets.version is 'Its version; a new definition is a new one.';
comment on column feature.sets.features is 'Names of its features, in the order of its vectors.';
comment on column feature.sets.definition is 'Name of the built-in family, or the SELECT.';
comment on column feature.sets.sha256 is 'SHA-256 of what defines it.';
comment on column feature.sets.description is 'What it is, in words.';
comment on column feature.sets.created_at is 'When the row was written.';
comment on column feature.sets.created_by is 'Who wrote it.';

comment on column feature.vector_blocks.set_id is 'The feature set, as in feature.sets.';
comment on column feature.vector_blocks.symbol is 'The symbol, as in market.instruments.';
comment on column feature.vector_blocks.ts_from is 'First time of the stretch that the block covers.';
comment on column feature.vector_blocks.ts_to is 'End of the stretch, exclusive.';
comment on column feature.vector_blocks.first_ts is 'Time of the first vector in it.';
comment on column feature.vector_blocks.last_ts is 'Time of the last vector in it.';
comment on column feature.vector_blocks.n is 'Number of vectors.';

comment on column feature.vectors.set_id is 'The feature set, as in feature.sets.';
comment on column feature.vectors.symbol is 'The symbol, as in market.instruments.';
comment on column feature.vectors.ts is 'The grid time as of which the vector is.';
comment on column feature.vectors.computed_at is 'When it was computed.';

comment on column feature.vectors_long.feature_set is 'Name of the feature set.';
comment on column feature.vectors_long.feature_version is 'Version of the feature set.';
comment on column feature.vectors_long.symbol is 'The symbol, as in market.instruments.';
comment on column feature.vectors_long.ts is 'The grid time as of which the value is.';
comment on column feature.vectors_long.feature is 'Name of the feature.';
comment on column feature.vectors_long.value is 'Its value; null: not knowable.';
comment on column feature.vectors_long.computed_at is 'When it was computed.';

comment on column feature.watermarks.set_id is 'The feature set, as in feature.sets.';
comment on column feature.watermarks.symbol is 'The symbol, as in market.instruments.';
comment on column feature.watermarks.through is 'Grid time up to which vectors are stored, exclusive.';
