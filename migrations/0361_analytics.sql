-- depends: 0360_analytics
--
-- 0361: states of the market as vectors, for what happened after ones like today's; the newest answer
-- of analytics.comprehensive_analysis by symbol; tiles of dashboards, so that it is known what they
-- hang on.

create table analytics.states (
    symbol text collate "C" not null,
    timeframe interval not null,
    ts timestamptz not null,
    known_at timestamptz,
    price double precision,
    regime smallint not null references regime.states (position),
    raw double precision [] not null,
    state public.vector(12),
    primary key (symbol, timeframe, ts)
);
create index states_state_idx on analytics.states using hnsw (state public.vector_l2_ops);
comment on table analytics.states is
'The state of each market at each grid time, as known then: features of regime_1h (or regime_15m), and the same in units of what is usual in their regime. Kept by analytics.refresh_states; read through analytics.similar_states.';
comment on column analytics.states.symbol is 'The instrument.';
comment on column analytics.states.timeframe is 'Length of the bars; the grid.';
comment on column analytics.states.ts is 'The grid time: close of the last bar in it.';
comment on column analytics.states.known_at is 'When the bar that closed then was known; null: not within one bar.';
comment on column analytics.states.price is 'Its close as known then, in quote currency; null where it was not known within one bar.';
comment on column analytics.states.regime is 'Most probable regime as known then (regime.states.position).';
comment on column analytics.states.raw is 'The features (analytics.state_features); NaN where not knowable.';
comment on column analytics.states.state is 'The features less their mean in the regime, over their deviation there, both over the months before, cut to four deviations; null where there is too little before.';

create table analytics.state_scales (
    symbol text collate "C" not null,
    timeframe interval not null,
    month timestamptz not null,
    regime smallint not null check (regime between 1 and 6),
    n double precision [] not null,
    total double precision [] not null,
    square double precision [] not null,
    primary key (symbol, timeframe, month, regime)
);
comment on table analytics.state_scales is
'Sums over the states before each month (UTC) by regime: what the states of that month are measured by.';
comment on column analytics.state_scales.symbol is 'The instrument.';
comment on column analytics.state_scales.timeframe is 'Length of the bars.';
comment on column analytics.state_scales.month is 'The month whose states are measured by these sums.';
comment on column analytics.state_scales.regime is 'The regime (regime.states.position).';
comment on column analytics.state_scales.n is 'Known values of each feature before the month.';
comment on column analytics.state_scales.total is 'Their sum.';
comment on column analytics.state_scales.square is 'The sum of their squares.';

create table analytics.snapshots (
    symbol text collate "C" primary key,
    as_of timestamptz not null,
    took interval not null,
    answer jsonb not null
);
comment on table analytics.snapshots is
'The newest answer of analytics.comprehensive_analysis by symbol, written by the clock (analytics.refresh_snapshots); read it through the view.';
comment on column analytics.snapshots.symbol is 'The instrument.';
comment on column analytics.snapshots.as_of is 'The time it is an answer of.';
comment on column analytics.snapshots.took is 'How long it took to compute.';
comment on column analytics.snapshots.answer is 'The row, columns by name.';

create table analytics.tiles (
    dashboard text not null,
    tile text not null,
    query text not null,
    registered_at timestamptz not null default clock_timestamp(),
    registered_by text not null default session_user,
    primary key (dashboard, tile)
);
comment on table analytics.tiles is
'Tiles of dashboards with their queries, set by analytics.register_tile; what they hang on is in analytics.exposures. Their text is parsed, and planned by the applier as alphaplus_reader; it is not executed.';
comment on column analytics.tiles.dashboard is 'The dashboard.';
comment on column analytics.tiles.tile is 'The tile.';
comment on column analytics.tiles.query is 'Its SELECT.';
comment on column analytics.tiles.registered_at is 'When it was registered.';
comment on column analytics.tiles.registered_by is 'Who did.';
