-- depends: 0007_queue
--
-- 0008: what the market simulator knows and its users must find out.
create table market.simulation_runs (
    run_id bigint generated always as identity primary key,
    symbol text collate "C" not null,
    seed bigint not null,
    config jsonb not null,
    first_ts timestamptz not null,
    last_ts timestamptz not null,
    created_at timestamptz not null default clock_timestamp()
);

create table market.simulation_truth (
    symbol text collate "C" not null,
    ts timestamptz not null,
    regime text not null,
    volatility double precision not null,
    intensity double precision not null,
    hazard_5m double precision,
    hazard_15m double precision,
    hazard_30m double precision,
    hazard_60m double precision,
    primary key (symbol, ts)
);

comment on table market.simulation_runs is 'What was simulated, with which seed and parameters.';
comment on table market.simulation_truth is 'The simulator''s own state at the start of each minute: regime, volatility (log return per root minute), liquidation intensity (events per minute), and for every tenth minute the expected liquidated notional (quote currency) in the next h given the whole state, by nested simulation: the best score there is for liquidation_<h>.';
