drop table ml.regime_weight_presets;
