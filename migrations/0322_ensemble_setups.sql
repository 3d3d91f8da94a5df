-- depends: 0321_ensembles
--
-- 0322: what a version of an ensemble is made of is written once, with the version, in the form in
-- which it is used at each answer.
alter table ml.ensemble_versions add column setup jsonb;
comment on column ml.ensemble_versions.setup is
'Members, methods, regimes, weights, parameters and horizon in microseconds, as alphaplus.server.serving.ensemble takes them.';
