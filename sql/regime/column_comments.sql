-- What the columns of regime's older tables and views mean; newer ones say it beside their definition
-- (the migration, or the view). Applied last in the schema, when all of them are there.

comment on column regime.episodes.symbol is 'The symbol, as in market.instruments.';
comment on column regime.episodes.timeframe is 'Length of the bars.';
comment on column regime.episodes.version is 'The classifier that said it.';
comment on column regime.episodes.regime is 'The regime.';
comment on column regime.episodes.start is 'Close of its first bar.';
comment on column regime.episodes."end" is 'Start of the next episode; null: it lasts.';
comment on column regime.episodes.duration is 'How long it took, or has taken so far.';
comment on column regime.episodes.confirmed_at is 'When it had lasted long enough to count.';
comment on column regime.episodes.is_open is 'Whether it lasts.';

comment on column regime.history.symbol is 'The symbol, as in market.instruments.';
comment on column regime.history.timeframe is 'Length of the bars.';
comment on column regime.history.ts is 'Opening time of the bar.';
comment on column regime.history.regime is 'The regime as known at its close.';
comment on column regime.history.confidence is 'Probability of it.';
comment on column regime.history.probabilities is 'One a state of regime.states; they sum to 1.';
comment on column regime.history.since is 'When it began.';
comment on column regime.history.known_at is 'When it could first be known.';
comment on column regime.history.version is 'The classifier that said it.';
comment on column regime.history.verdict is 'The regime in hindsight; null: not known yet.';
comment on column regime.history.verdict_known_at is 'When the verdict was known.';

comment on column regime.revision.symbol is 'The symbol, as in market.instruments.';
comment on column regime.revision.timeframe is 'Length of the bars.';
comment on column regime.revision.version is 'The classifier.';
comment on column regime.revision.bar_count is 'Bars with a verdict.';
comment on column regime.revision.agreement is 'Share of them whose nowcast is the verdict.';
comment on column regime.revision.revision is 'The rest.';
comment on column regime.revision.agreement_after_12 is 'Agreement of bars more than 12 bars in their verdict.';
comment on column regime.revision.nowcast_changes is 'Changes of the nowcast.';
comment on column regime.revision.verdict_changes is 'Changes of the verdict.';
comment on column regime.revision.median_wait is 'Median time from nowcast to verdict.';
