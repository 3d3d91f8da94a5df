-- depends: 0311_regime_models
--
-- 0312: how well the simulator's regimes can be recognised at all.
alter table market.simulation_truth add column posterior double precision [];
comment on column market.simulation_truth.posterior is 'Probabilities of the regimes bull, bear, sideways, high_volatility, low_volatility and crash in the minute, by the forward filter that is given the hidden volatility and thinness of the book, the returns up to the minute''s end and all true parameters: the limit for any classifier.';
