drop table market.simulation_truth;
drop table market.simulation_runs;
