drop table regime.watermarks;
drop table regime.pending;
drop table regime.blocks;
drop table regime.classifiers;
drop table regime.thresholds;
drop table regime.threshold_names;
drop table regime.mappings;
drop table regime.states;
