-- 0300: two more rooms: back-tests, and what users keep for their BI tools.
-- depends: 0225_runs_in_a_call
create schema backtest;
create schema bi;

comment on schema backtest is 'What a prediction would have earned: strategies, trials, fills, equity.';
comment on schema bi is 'Views and predictions of users'' own; readers may read them.';
