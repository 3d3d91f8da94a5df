drop index analytics.prediction_sums_ts_idx;
drop index analytics.prediction_cells_ts_idx;
drop table analytics.superseded_outcomes;
