drop table analytics.tiles;
drop table analytics.snapshots;
drop table analytics.state_scales;
drop table analytics.states;
