alter table market.simulation_truth drop column posterior;
