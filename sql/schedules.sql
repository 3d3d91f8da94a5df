-- Settings and schedules as delivered; an operator's changes stay.
insert into ops.settings (name, value, description)
values
('market.default_exchange', '"binance"', 'The venue whose instruments go by their bare native symbol.'),
('ml.cache_bytes', '268435456', 'Most bytes of models that one backend keeps.'),
('ml.share_models', 'true', 'Whether backends share the trees of a LightGBM model, packed in one file of the server''s folder for temporary files, or each keeps a copy of its own.'),
('ml.shared_bytes', '1073741824', 'Most bytes of those files together; the folder is the whole server''s: the least of its databases'' settings holds.'),
('ml.base_rate_window', '"7 days"', 'Over how long the base rate that answers for a missing model is taken.'),
('ml.max_staleness', '"1 hour"', 'How old the newest market row may be before predicting is refused.'),
('ml.expired_policy', '"flag"', 'What an expired version''s prediction becomes: flag, null or fallback.'),
('ml.gap_policy', '"flag"', 'What a prediction over a hole of the live record becomes: flag (its reason says so), null or refuse.'),
('ml.out_of_support_policy', '"flag"', 'What a prediction far from the training rows becomes: flag, null or fallback.'),
('market.plausible_from', '"2000-01-01"', 'The loader refuses rows before this day; alphaplus load --since says another one.'),
('market.load_line', '4194304', 'Most bytes of a line that the loader reads.'),
('market.load_cell', '65536', 'Most characters of a cell that the loader reads.'),
('market.load_members', '1000', 'Most files in an archive that the loader reads.'),
('market.load_ratio', '250', 'Most bytes that one packed byte may unpack to, from the first 64 MiB on.'),
('market.load_unpacked', '274877906944', 'Most bytes of an archive''s members together.'),
('market.load_document', '134217728', 'Most bytes of a JSON array, which is read whole.'),
('market.keep_quarantine', '"180 days"', 'How long refused rows are kept in market.quarantine.'),
('market.edition', '"auto"', 'Back end of the aggregates: "auto" (continuous aggregates where TimescaleDB has them) or "apache" (dirty buckets, before a database moves to the Apache edition). make migrate changes over.'),
('market.keep_rows', '{}', 'How long market rows are kept, by table, as {"trades": "90 days"}; what is not named stays.')
on conflict (name) do nothing;

-- pg_cron's jobs belong to alphaplus_owner, who owns everything here and nothing elsewhere, and to the
-- operator those that he writes. Of all of these the owner sees the jobs and cuts the log.
do $$
begin
    if exists (select from pg_catalog.pg_extension e where e.extname = 'pg_cron') then
        grant usage on schema cron to alphaplus_owner, alphaplus_operator;
        grant execute on function cron.schedule(text, text, text) to alphaplus_owner, alphaplus_operator;
        grant execute on function cron.unschedule(bigint) to alphaplus_owner, alphaplus_operator;
        drop policy if exists alphaplus_owner on cron.job;
        create policy alphaplus_owner on cron.job for select to alphaplus_owner
        using (username like 'alphaplus%');
        drop policy if exists alphaplus_owner on cron.job_run_details;
        create policy alphaplus_owner on cron.job_run_details to alphaplus_owner
        using (username like 'alphaplus%');
    end if;
end
$$;

-- pg_cron runs a job as whoever scheduled it, so this one must be the owner's before it is called.
-- (Of the rows above a superuser's triggers made all jobs already, each as its role.)
alter function ops.sync_schedules() owner to alphaplus_owner;

-- The schedules as delivered; an operator's changes of time or state outlive a deploy. Commands and
-- descriptions are ours. Applied after all schemas, as what is called has to be there.
insert into ops.schedules (name, cron, command, expected_interval, commits, description, run_as)
select
    d.name, d.cron, d.command, d.expected_interval::interval, d.commits, d.description,
    'alphaplus_owner'
from (
    values
    (
        'refresh aggregates', '* * * * *', 'call market.refresh_aggregates()', '1 minute', true,
        'Brings aggregates up to date with what arrived, changed or went.'
    ),
    (
        'refresh features', '* * * * *', 'call feature.refresh()', '1 minute', true,
        'Stores the feature vectors of new grid times, and anew those that late rows changed.'
    ),
    (
        'refresh regimes', '*/5 * * * *', 'call regime.refresh()', '5 minutes', true,
        'Stores the regimes of new bars, and anew those that late rows changed.'
    ),
    (
        'score texts', '* * * * *', 'call sentiment.score_pending()', '1 minute', true,
        'Scores the texts that arrived.'
    ),
    (
        'sentiment events', '2-59/5 * * * *', 'call sentiment.raise_events()', '5 minutes', false,
        'Raises an alert for each burst of texts and each jump of sentiment.'
    ),
    (
        'refresh sentiment', '* * * * *', 'call sentiment.refresh()', '1 minute', false,
        'Brings the hours of scores up to date.'
    ),
    (
        'pack features', '40 0 * * *', 'call feature.pack()', '1 day', true,
        'Keeps the vectors that models are trained on as blocks, which are read many times as fast.'
    ),
    (
        'retrain due', '*/10 * * * *', 'call ml.retrain_due()', '10 minutes', false,
        'Asks for training where a line of versions is older than a day (its model''s training ->> ''every'').'
    ),
    (
        'requeue stalled', '* * * * *', 'call ml.requeue_stalled()', '1 minute', false,
        'Gives the jobs of silent trainers to others.'
    ),
    (
        'join outcomes', '*/5 * * * *', 'call ml.join_outcomes()', '5 minutes', false,
        'Writes what came about beside recorded predictions.'
    ),
    (
        'refresh analytics', '*/5 * * * *', 'call analytics.refresh()', '5 minutes', false,
        'Sums recorded predictions for dashboards, and writes down the quality of features each hour.'
    ),
    (
        'step strategies', '* * * * *', 'call backtest.step()', '1 minute', false,
        'Lets strategies that are followed live act on what became known.'
    ),
    (
        'refresh snapshots', '*/5 * * * *', 'call analytics.refresh_snapshots()', '5 minutes', true,
        'Keeps the newest analytics.comprehensive_analysis of each symbol.'
    ),
    (
        'refresh states', '3,18,33,48 * * * *', 'call analytics.refresh_states()', '15 minutes', true,
        'Keeps the states that analytics.similar_states looks through.'
    ),
    (
        'refresh all states', '40 1 * * *', 'call analytics.refresh_states(null, true)', '1 day', true,
        'The same for all of history, so that what was loaded late for earlier months is seen.'
    ),
    (
        'refresh ensembles', '*/5 * * * *', 'call ml.refresh_ensembles()', '5 minutes', false,
        'Keeps what ensembles have learned, so that their answers begin there.'
    ),
    (
        'keep base rates', '1,31 * * * *', 'call ml.keep_base_rates()', '30 minutes', false,
        'Keeps the base rates that answer where no version serves.'
    ),
    (
        'drift refresh', '*/5 * * * *', 'call drift.refresh()', '5 minutes', false,
        'Takes references, records shadow predictions, counts distributions, watches outcomes.'
    ),
    (
        'drift monitor', '7 * * * *', 'call drift.monitor()', '1 hour', false,
        'Checks every champion for drift, raises alerts and acts on them.'
    ),
    (
        'decide', '*/5 * * * *', 'call ml.decide()', '5 minutes', false,
        'Challengers: refused, promoted when shown to be better; worse champions are taken back.'
    ),
    (
        'performance', '*/5 * * * *', 'call ml.refresh_performance()', '5 minutes', false,
        'Sums how good predictions were.'
    ),
    (
        'training schedules', '* * * * *', 'call ops.run_training_schedules()', '1 minute', false,
        'Asks for the trainings that are due (ops.training_schedules; setting training.schedules_on).'
    ),
    (
        'retention', '50 1 * * *', 'call ops.apply_retention()', '1 day', false,
        'Deletes what is older than ops.retention says.'
    ),
    (
        'predict live', '* * * * *', 'call ml.record_live()', '1 minute', true,
        'Predicts at the close of bars, as ml.live_predictions says.'
    ),
    (
        'check alerts', '* * * * *', 'call ops.check_alerts()', '1 minute', false,
        'Raises the alerts of ops.alert_rules.'
    ),
    (
        'trade quantiles', '*/15 * * * *', 'call market.refresh_trade_quantiles()', '15 minutes',
        false, 'Says anew what a whale is at each symbol.'
    ),
    (
        'housekeeping', '20 1 * * *', 'call ops.housekeeping()', '1 day', false,
        'Cuts logs, finished queue entries and old quarantine.'
    )
) as d (name, cron, command, expected_interval, commits, description)
where exists (
    select
    from pg_catalog.pg_proc p
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where d.command = format('call %s.%s()', n.nspname, p.proname)
)
on conflict (name) do update
set command = excluded.command, commits = excluded.commits, description = excluded.description,
    run_as = 'alphaplus_owner';

select ops.sync_schedules();
