-- depends: 0008_simulation
--
-- 0310: market regimes: states and their names, thresholds, who classifies what, what is kept.
create table regime.states (
    state text primary key,
    position smallint not null unique check (position between 1 and 6),
    description text not null
);

create table regime.mappings (
    naming text not null,
    name text not null,
    states text [] not null check (cardinality(states) > 0),
    description text not null,
    primary key (naming, name)
);

create table regime.thresholds (
    rule_set text not null,
    name text not null,
    value double precision not null check (value > '-infinity' and value < 'infinity'),
    updated_at timestamptz not null default clock_timestamp(),
    updated_by text not null default session_user,
    primary key (rule_set, name)
);

create table regime.threshold_names (
    name text primary key,
    default_value double precision not null,
    least double precision not null,
    most double precision not null,
    unit text not null,
    description text not null,
    check (default_value between least and most)
);
alter table regime.thresholds add foreign key (name) references regime.threshold_names (name);

create table regime.classifiers (
    symbol text collate "C",
    timeframe interval not null
    check (timeframe in (
        interval '1 minute', interval '5 minutes', interval '15 minutes', interval '1 hour',
        interval '4 hours', interval '1 day'
    )),
    method text not null check (method in ('rules', 'learned')),
    rule_set text not null default 'default',
    model text,
    is_kept boolean not null default true,
    updated_at timestamptz not null default clock_timestamp(),
    updated_by text not null default session_user,
    constraint classifiers_key unique nulls not distinct (symbol, timeframe),
    check (method <> 'learned' or model is not null)
);

create table regime.blocks (
    symbol text collate "C" not null,
    timeframe interval not null,
    version text not null,
    verdict_version text not null,
    block_start timestamptz not null,
    through timestamptz not null,
    bar_count integer not null check (bar_count > 0),
    ts timestamptz [] not null,
    known_at timestamptz [] not null,
    states smallint [] not null,
    since timestamptz [] not null,
    bull_trending double precision [] not null,
    bear_trending double precision [] not null,
    sideways double precision [] not null,
    high_volatility double precision [] not null,
    low_volatility double precision [] not null,
    crash double precision [] not null,
    verdicts smallint [] not null,
    verdict_known_at timestamptz [] not null,
    changes timestamptz [] not null,
    carry double precision [] not null,
    computed_at timestamptz not null default clock_timestamp(),
    primary key (symbol, timeframe, version, block_start),
    check (
        cardinality(ts) = bar_count
        and cardinality(known_at) = bar_count
        and cardinality(states) = bar_count
        and cardinality(since) = bar_count
        and cardinality(bull_trending) = bar_count
        and cardinality(bear_trending) = bar_count
        and cardinality(sideways) = bar_count
        and cardinality(high_volatility) = bar_count
        and cardinality(low_volatility) = bar_count
        and cardinality(crash) = bar_count
        and cardinality(verdicts) = bar_count
        and cardinality(verdict_known_at) = bar_count
    )
);

create table regime.pending (
    pending_id bigint generated always as identity primary key,
    symbol text collate "C" not null,
    ts_from timestamptz not null,
    ts_to timestamptz not null,
    created_at timestamptz not null default clock_timestamp()
);
create index pending_symbol_idx on regime.pending (symbol, ts_from);

-- Up to where nowcasts of a symbol are stored: rows before it that arrive later leave a mark.
create table regime.watermarks (
    symbol text collate "C" primary key,
    through timestamptz not null
);

comment on table regime.watermarks is 'Up to which time regimes of a symbol are stored, at whatever timeframe goes furthest; rows before it that arrive later leave a mark in regime.pending.';
comment on column regime.watermarks.symbol is 'Symbol.';
comment on column regime.watermarks.through is 'Closing time of the last bar whose regime is stored.';
comment on table regime.states is 'The six market regimes, in the order in which arrays of probabilities hold them.';
comment on column regime.states.state is 'Name of the state.';
comment on column regime.states.position is 'Place in an array of probabilities, from 1.';
comment on column regime.states.description is 'What the state means.';
comment on table regime.mappings is 'Other namings of the states: a name stands for one or several of the six. Usable wherever a regime is named.';
comment on column regime.mappings.naming is 'Which naming the name belongs to: three_state, four_state, or one of your own.';
comment on column regime.mappings.name is 'The name, for instance trending. Two namings may share a name if it stands for the same states.';
comment on column regime.mappings.states is 'The states it stands for (regime.states.state).';
comment on column regime.mappings.description is 'What the name means.';
comment on table regime.threshold_names is 'The thresholds that the rules and the verdict use: meaning, unit, default and range.';
comment on column regime.threshold_names.name is 'Name of the threshold.';
comment on column regime.threshold_names.default_value is 'Value where a rule set has no row of its own.';
comment on column regime.threshold_names.least is 'Smallest value that is accepted.';
comment on column regime.threshold_names.most is 'Largest value that is accepted.';
comment on column regime.threshold_names.unit is 'Unit of the value.';
comment on column regime.threshold_names.description is 'What the threshold does.';
comment on table regime.thresholds is 'Thresholds that differ from the default, by rule set. A change makes a new version of the rules; regime.replay shows history under changed thresholds without storing anything.';
comment on column regime.thresholds.rule_set is 'Name of the rule set; default is used unless regime.classifiers says otherwise.';
comment on column regime.thresholds.name is 'Threshold (regime.threshold_names.name).';
comment on column regime.thresholds.value is 'Its value in this rule set, in the unit of regime.threshold_names.';
comment on column regime.thresholds.updated_at is 'When the value was last set.';
comment on column regime.thresholds.updated_by is 'Who set it.';
comment on table regime.classifiers is 'Which classifier serves a symbol (null: all others) at a bar length. Set with regime.use.';
comment on column regime.classifiers.symbol is 'Symbol, or null for all symbols without a row of their own.';
comment on column regime.classifiers.timeframe is 'Length of the bars that are classified.';
comment on column regime.classifiers.method is 'rules: thresholds; learned: the champion of a model.';
comment on column regime.classifiers.rule_set is 'Rule set (regime.thresholds) of the rules, and of the verdict in either method.';
comment on column regime.classifiers.model is 'Model (ml.models) whose champion classifies, for method learned; the rules answer while it has none.';
comment on column regime.classifiers.is_kept is 'Whether regime.refresh keeps history for it.';
comment on column regime.classifiers.updated_at is 'When the row was last changed.';
comment on column regime.classifiers.updated_by is 'Who changed it.';
comment on table regime.blocks is 'Regimes of up to 720 bars of one symbol, timeframe and classifier version, as arrays by bar. Read them through regime.history and regime.classify.';
comment on column regime.blocks.symbol is 'Symbol.';
comment on column regime.blocks.timeframe is 'Length of a bar.';
comment on column regime.blocks.version is 'Version of the classifier: rules/<rule set>/<hash of its thresholds> or learned/<version_id>.';
comment on column regime.blocks.verdict_version is 'Rule set whose thresholds define the verdict, with their hash: <rule set>/<hash>.';
comment on column regime.blocks.block_start is 'Opening time of the block''s first possible bar: a multiple of 720 bars since 1970.';
comment on column regime.blocks.through is 'Closing time of the last bar.';
comment on column regime.blocks.bar_count is 'Number of bars in the arrays.';
comment on column regime.blocks.ts is 'Closing time of each bar, ascending.';
comment on column regime.blocks.known_at is 'When each nowcast could first be computed: its bar had closed and was known.';
comment on column regime.blocks.states is 'Regime of each bar as known then (regime.states.position); 0: too few bars to tell.';
comment on column regime.blocks.since is 'Closing time of the bar at which the regime began.';
comment on column regime.blocks.bull_trending is 'Probability of the state at each bar, as known then.';
comment on column regime.blocks.bear_trending is 'Probability of the state at each bar, as known then.';
comment on column regime.blocks.sideways is 'Probability of the state at each bar, as known then.';
comment on column regime.blocks.high_volatility is 'Probability of the state at each bar, as known then.';
comment on column regime.blocks.low_volatility is 'Probability of the state at each bar, as known then.';
comment on column regime.blocks.crash is 'Probability of the state at each bar, as known then.';
comment on column regime.blocks.verdicts is 'Regime of each bar in hindsight (regime.states.position); 0: not known yet.';
comment on column regime.blocks.verdict_known_at is 'When each verdict could be computed: from then on no later bar changes it. infinity: not known yet.';
comment on column regime.blocks.changes is 'Times at which an older bar became known or was corrected: between such a time and the next bar the regime is computed from what was known then.';
comment on column regime.blocks.carry is 'State of the classifier after the last bar, from which the next bar goes on.';
comment on column regime.blocks.computed_at is 'When the block was last computed.';
comment on table regime.pending is 'Stretches of which bars arrived or changed after their regimes were stored; regime.refresh computes these again. Until then regime.classify computes from the bars.';
comment on column regime.pending.pending_id is 'Number of the mark.';
comment on column regime.pending.symbol is 'Symbol.';
comment on column regime.pending.ts_from is 'First time that may have changed.';
comment on column regime.pending.ts_to is 'Last time of a row that changed.';
comment on column regime.pending.created_at is 'When the mark was made.';
