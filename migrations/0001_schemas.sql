-- 0001: the rooms of the house. Schema ops is made before the first migration, by the applier,
-- because yoyo keeps its own tables there.
create schema market;
create schema feature;
create schema regime;
create schema ml;
create schema drift;
create schema sentiment;
create schema analytics;
create schema backtest;
create schema bi;

comment on schema market is 'What happened: instruments, candles, trades, order books, liquidations, funding, open interest.';
comment on schema feature is 'What was known at a time: feature sets and their vectors.';
comment on schema regime is 'The state of the market: trending, ranging, volatile, calm, crash.';
comment on schema ml is 'Models, jobs, gates, predictions, ensembles.';
comment on schema drift is 'How far today''s data and scores have moved from those a model was trained on.';
comment on schema sentiment is 'Texts about the market and their sentiment.';
comment on schema analytics is 'What business intelligence tools read.';
comment on schema backtest is 'What a prediction would have earned: strategies, trials, fills, equity.';
comment on schema bi is 'Views and predictions of users'' own; readers may read them.';
