-- depends: 0312_simulation_posterior
--
-- 0313: starting weights of ensembles by regime and algorithm.

create table ml.regime_weight_presets (
    preset text not null,
    regime text not null,
    algorithm text not null,
    weight double precision not null check (weight > 0 and weight <= 1),
    primary key (preset, regime, algorithm)
);
comment on table ml.regime_weight_presets is
'Where the weights of ensembles by regime start, by the members'' algorithms: settings ->> regime_weights names a preset, and what its rows leave over is shared by the other members.';
comment on column ml.regime_weight_presets.preset is 'Name of the preset.';
comment on column ml.regime_weight_presets.regime is 'A state of regime.states, or a name of regime.mappings.';
comment on column ml.regime_weight_presets.algorithm is 'The algorithm of members, as in ml.models.';
comment on column ml.regime_weight_presets.weight is 'The share of the members of this algorithm together.';
