drop table analytics.superseded_outcomes;
