-- What may be asked of training: every option and parameter with its type and bounds. Nothing else
-- reaches a library: parameters of LightGBM and others name files, sockets and machines.
create or replace view ml.training_parameters as
with declared (
    algorithms, parameter, type, task, minimum, above, maximum, setting, choices, nullable, description
) as (
    values
    -- Boosted trees.
    (array['lightgbm', 'xgboost', 'gradient_boosting'], 'rounds', 'integer', null::text, 1::float8, false, null::float8, 'training.max_rounds', null::text [], false, 'Trees, at most.'),
    (array['lightgbm', 'xgboost', 'gradient_boosting'], 'early_stopping', 'integer', null, 1, false, 1e6, null, null, false, 'Rounds without gain on later rows after which training stops.'),
    (array['lightgbm', 'xgboost', 'gradient_boosting'], 'min_rounds', 'integer', null, 1, false, null, 'training.max_rounds', null, false, 'Trees, at least.'),
    (array['lightgbm', 'gradient_boosting'], 'learning_rate', 'number', null, 0, true, 1, null, null, false, 'Share of each tree that is added.'),
    (array['lightgbm', 'xgboost', 'gradient_boosting', 'random_forest', 'logistic_regression', 'lstm', 'gru', 'cnn', 'transformer'], 'transform', 'choice', 'regression', null, false, null, null, array['log1p'], true, 'log1p: the logarithm of 1 + the target is fitted.'),
    (array['lightgbm'], 'num_leaves', 'integer', null, 2, false, null, 'training.max_leaves', null, false, 'Leaves of a tree, at most.'),
    (array['lightgbm'], 'max_depth', 'integer', null, -1, false, 64, null, null, false, 'Levels of a tree, at most; -1: no bound but num_leaves.'),
    (array['lightgbm'], 'min_data_in_leaf', 'integer', null, 1, false, 1e9, null, null, false, 'Rows in a leaf, at least.'),
    (array['lightgbm'], 'min_sum_hessian_in_leaf', 'number', null, 0, false, 1e9, null, null, false, 'Sum of second derivatives in a leaf, at least.'),
    (array['lightgbm'], 'min_gain_to_split', 'number', null, 0, false, 1e9, null, null, false, 'Gain of a split, at least.'),
    (array['lightgbm'], 'feature_fraction', 'number', null, 0, true, 1, null, null, false, 'Share of the features that a tree may use.'),
    (array['lightgbm'], 'feature_fraction_bynode', 'number', null, 0, true, 1, null, null, false, 'Share of the features that a split may use.'),
    (array['lightgbm'], 'bagging_fraction', 'number', null, 0, true, 1, null, null, false, 'Share of the rows that a tree is fitted on.'),
    (array['lightgbm'], 'bagging_freq', 'integer', null, 0, false, 1e6, null, null, false, 'Rounds after which rows are drawn anew; 0: never.'),
    (array['lightgbm'], 'lambda_l1', 'number', null, 0, false, 1e9, null, null, false, 'L1 penalty of leaf values.'),
    (array['lightgbm'], 'lambda_l2', 'number', null, 0, false, 1e9, null, null, false, 'L2 penalty of leaf values.'),
    (array['lightgbm'], 'path_smooth', 'number', null, 0, false, 1e9, null, null, false, 'Draws leaf values towards those of the nodes above.'),
    (array['lightgbm'], 'max_delta_step', 'number', null, 0, false, 1e9, null, null, false, 'Largest leaf value; 0: no bound.'),
    (array['lightgbm'], 'max_bin', 'integer', null, 2, false, null, 'training.max_bins', null, false, 'Bins of a feature, at most.'),
    (array['lightgbm'], 'min_data_in_bin', 'integer', null, 1, false, 1e9, null, null, false, 'Rows in a bin, at least.'),
    (array['lightgbm'], 'extra_trees', 'boolean', null, null, false, null, null, null, false, 'Thresholds are drawn at random.'),
    (array['lightgbm'], 'boosting', 'choice', null, null, false, null, null, array['gbdt', 'dart', 'goss'], false, 'How trees are added. dart and goss train all their rounds or are stopped as gbdt is (goss).'),
    (array['lightgbm'], 'data_sample_strategy', 'choice', null, null, false, null, null, array['bagging', 'goss'], false, 'How rows are drawn.'),
    (array['lightgbm'], 'drop_rate', 'number', null, 0, false, 1, null, null, false, 'dart: share of the trees that are dropped.'),
    (array['lightgbm'], 'max_drop', 'integer', null, -1, false, 1e6, null, null, false, 'dart: trees dropped in a round, at most; -1: no bound.'),
    (array['lightgbm', 'xgboost'], 'skip_drop', 'number', null, 0, false, 1, null, null, false, 'dart: chance that a round drops nothing.'),
    (array['lightgbm'], 'uniform_drop', 'boolean', null, null, false, null, null, null, false, 'dart: all trees are as likely to be dropped.'),
    (array['lightgbm'], 'top_rate', 'number', null, 0, false, 1, null, null, false, 'goss: share of rows with large gradients that is kept.'),
    (array['lightgbm'], 'other_rate', 'number', null, 0, false, 1, null, null, false, 'goss: share of the other rows that is kept.'),
    (array['lightgbm'], 'boost_from_average', 'boolean', null, null, false, null, null, null, false, 'Scores begin at the mean.'),
    (array['lightgbm', 'xgboost'], 'scale_pos_weight', 'number', 'classification', 0, true, 1e6, null, null, false, 'Weight of the event; the scores are calibrated afterwards.'),
    (array['lightgbm'], 'is_unbalance', 'boolean', 'classification', null, false, null, null, null, false, 'Both classes weigh the same.'),
    (array['lightgbm'], 'objective', 'choice', 'classification', null, false, null, null, array['binary', 'cross_entropy'], false, 'What is minimised.'),
    (array['lightgbm'], 'objective', 'choice', 'regression', null, false, null, null, array['regression', 'regression_l1', 'huber', 'fair', 'poisson', 'quantile', 'mape', 'gamma', 'tweedie'], false, 'What is minimised.'),
    (array['lightgbm'], 'alpha', 'number', 'regression', 0, true, 1e6, null, null, false, 'Of the objectives huber and quantile.'),
    (array['lightgbm'], 'fair_c', 'number', 'regression', 0, true, 1e6, null, null, false, 'Of the objective fair.'),
    (array['lightgbm'], 'poisson_max_delta_step', 'number', 'regression', 0, true, 1e6, null, null, false, 'Of the objective poisson.'),
    (array['lightgbm', 'xgboost'], 'tweedie_variance_power', 'number', 'regression', 1, false, 1.999, null, null, false, 'Of the objective tweedie.'),
    (array['xgboost'], 'max_depth', 'integer', null, 1, false, 32, null, null, false, 'Levels of a tree, at most.'),
    (array['xgboost'], 'max_leaves', 'integer', null, 0, false, null, 'training.max_leaves', null, false, 'Leaves of a tree, at most; 0: no bound but max_depth.'),
    (array['xgboost'], 'eta', 'number', null, 0, true, 1, null, null, false, 'Share of each tree that is added.'),
    (array['xgboost'], 'learning_rate', 'number', null, 0, true, 1, null, null, false, 'The same as eta.'),
    (array['xgboost'], 'subsample', 'number', null, 0, true, 1, null, null, false, 'Share of the rows that a tree is fitted on.'),
    (array['xgboost'], 'colsample_bytree', 'number', null, 0, true, 1, null, null, false, 'Share of the features that a tree may use.'),
    (array['xgboost'], 'colsample_bylevel', 'number', null, 0, true, 1, null, null, false, 'Share of the features that a level may use.'),
    (array['xgboost'], 'colsample_bynode', 'number', null, 0, true, 1, null, null, false, 'Share of the features that a split may use.'),
    (array['xgboost'], 'lambda', 'number', null, 0, false, 1e9, null, null, false, 'L2 penalty of leaf values.'),
    (array['xgboost'], 'alpha', 'number', null, 0, false, 1e9, null, null, false, 'L1 penalty of leaf values.'),
    (array['xgboost'], 'gamma', 'number', null, 0, false, 1e9, null, null, false, 'Gain of a split, at least.'),
    (array['xgboost'], 'min_child_weight', 'number', null, 0, false, 1e9, null, null, false, 'Sum of second derivatives in a leaf, at least.'),
    (array['xgboost'], 'max_delta_step', 'number', null, 0, false, 1e9, null, null, false, 'Largest leaf value; 0: no bound.'),
    (array['xgboost'], 'max_bin', 'integer', null, 2, false, null, 'training.max_bins', null, false, 'Bins of a feature, at most.'),
    (array['xgboost'], 'grow_policy', 'choice', null, null, false, null, null, array['depthwise', 'lossguide'], false, 'Which node is split next.'),
    (array['xgboost'], 'booster', 'choice', null, null, false, null, null, array['gbtree', 'dart'], false, 'How trees are added; dart trains all its rounds.'),
    (array['xgboost'], 'rate_drop', 'number', null, 0, false, 1, null, null, false, 'dart: share of the trees that are dropped.'),
    (array['xgboost'], 'sample_type', 'choice', null, null, false, null, null, array['uniform', 'weighted'], false, 'dart: how dropped trees are chosen.'),
    (array['xgboost'], 'normalize_type', 'choice', null, null, false, null, null, array['tree', 'forest'], false, 'dart: how dropped trees are weighed afterwards.'),
    (array['xgboost'], 'objective', 'choice', 'classification', null, false, null, null, array['binary:logistic'], false, 'What is minimised.'),
    (array['xgboost'], 'objective', 'choice', 'regression', null, false, null, null, array['reg:squarederror', 'reg:absoluteerror', 'reg:pseudohubererror', 'reg:tweedie', 'reg:gamma', 'count:poisson'], false, 'What is minimised.'),
    (array['gradient_boosting'], 'max_leaf_nodes', 'integer', null, 2, false, null, 'training.max_leaves', null, false, 'Leaves of a tree, at most.'),
    (array['gradient_boosting'], 'max_depth', 'integer', null, 1, false, 64, null, null, true, 'Levels of a tree, at most.'),
    (array['gradient_boosting'], 'min_samples_leaf', 'integer', null, 1, false, 1e9, null, null, false, 'Rows in a leaf, at least.'),
    (array['gradient_boosting'], 'l2_regularization', 'number', null, 0, false, 1e9, null, null, false, 'L2 penalty of leaf values.'),
    (array['gradient_boosting'], 'max_features', 'number', null, 0, true, 1, null, null, false, 'Share of the features that a split may use.'),
    (array['gradient_boosting'], 'max_bins', 'integer', null, 2, false, 255, null, null, false, 'Bins of a feature, at most.'),
    (array['gradient_boosting'], 'loss', 'choice', 'classification', null, false, null, null, array['log_loss'], false, 'What is minimised.'),
    (array['gradient_boosting'], 'loss', 'choice', 'regression', null, false, null, null, array['squared_error', 'absolute_error', 'gamma', 'poisson', 'quantile'], false, 'What is minimised.'),
    (array['gradient_boosting'], 'quantile', 'number', 'regression', 0, false, 1, null, null, true, 'Of the loss quantile.'),
    (array['random_forest'], 'n_estimators', 'integer', null, 1, false, null, 'training.max_rounds', null, false, 'Trees.'),
    (array['random_forest'], 'max_depth', 'integer', null, 1, false, 64, null, null, false, 'Levels of a tree, at most.'),
    (array['random_forest'], 'max_leaf_nodes', 'integer', null, 2, false, null, 'training.max_leaves', null, true, 'Leaves of a tree, at most.'),
    (array['random_forest'], 'max_features', 'number', null, 0, true, 1, null, array['sqrt', 'log2'], false, 'Share of the features that a split may use, or sqrt or log2 of their number.'),
    (array['random_forest'], 'max_samples', 'number', null, 0, true, 1, null, null, true, 'Share of the rows that a tree is fitted on.'),
    (array['random_forest'], 'min_samples_leaf', 'integer', null, 1, false, 1e9, null, null, false, 'Rows in a leaf, at least.'),
    (array['random_forest'], 'min_samples_split', 'integer', null, 2, false, 1e9, null, null, false, 'Rows in a node that is split, at least.'),
    (array['random_forest'], 'min_impurity_decrease', 'number', null, 0, false, 1e9, null, null, false, 'Gain of a split, at least.'),
    (array['random_forest'], 'class_weight', 'choice', 'classification', null, false, null, null, array['balanced', 'balanced_subsample'], true, 'balanced: both classes weigh the same.'),
    (array['random_forest'], 'criterion', 'choice', 'classification', null, false, null, null, array['gini', 'entropy', 'log_loss'], false, 'What a split is judged by.'),
    (array['random_forest'], 'criterion', 'choice', 'regression', null, false, null, null, array['squared_error', 'absolute_error', 'friedman_mse', 'poisson'], false, 'What a split is judged by.'),
    (array['logistic_regression'], 'C', 'number', null, 0, true, 1e9, null, null, false, 'Inverse of the L2 penalty.'),
    (array['logistic_regression'], 'max_iter', 'integer', null, 1, false, 100000, null, null, false, 'Steps, at most.'),
    (array['logistic_regression'], 'max_rows', 'integer', null, 0, false, 1e9, null, null, false, 'Training rows, thinned evenly in time; 0: all.'),
    (array['terms'], 'C', 'number', 'text', 0, true, 1e6, null, null, false, 'Inverse of the L2 penalty.'),
    (array['terms'], 'min_texts', 'integer', 'text', 1, false, 1e6, null, null, false, 'Texts that a term must be in, at least.'),
    (array['terms'], 'class_weight', 'choice', 'text', null, false, null, null, array['balanced'], true, 'balanced: all classes weigh the same.'),
    -- Deep models.
    (array['lstm', 'gru', 'cnn', 'transformer'], 'sequence_length', 'integer', null, 1, false, 4096, null, null, false, 'Grid times that one prediction reads.'),
    (array['lstm', 'gru', 'cnn', 'transformer'], 'hidden', 'integer', null, 1, false, 4096, null, null, false, 'Width of the hidden layers.'),
    (array['lstm', 'gru', 'cnn', 'transformer'], 'layers', 'integer', null, 1, false, 32, null, null, false, 'Hidden layers.'),
    (array['lstm', 'gru', 'cnn', 'transformer'], 'heads', 'integer', null, 1, false, 64, null, null, false, 'Attention heads (transformer).'),
    (array['lstm', 'gru', 'cnn', 'transformer'], 'kernel', 'integer', null, 2, false, 64, null, null, false, 'Width of a convolution (cnn).'),
    (array['lstm', 'gru', 'cnn', 'transformer'], 'dropout', 'number', null, 0, false, 0.95, null, null, false, 'Share of the units that a step leaves out.'),
    (array['lstm', 'gru', 'cnn', 'transformer'], 'epochs', 'integer', null, 1, false, null, 'training.max_epochs', null, false, 'Passes over the training rows, at most.'),
    (array['lstm', 'gru', 'cnn', 'transformer'], 'patience', 'integer', null, 1, false, 10000, null, null, false, 'Epochs without gain on later rows after which training stops.'),
    (array['lstm', 'gru', 'cnn', 'transformer'], 'batch', 'integer', null, 1, false, 65536, null, null, false, 'Sequences in a step.'),
    (array['lstm', 'gru', 'cnn', 'transformer'], 'learning_rate', 'number', null, 0, true, 10, null, null, false, 'Of AdamW.'),
    (array['lstm', 'gru', 'cnn', 'transformer'], 'weight_decay', 'number', null, 0, false, 10, null, null, false, 'Of AdamW.'),
    (array['lstm', 'gru', 'cnn', 'transformer'], 'clip_norm', 'number', null, 0, true, 1e6, null, null, false, 'Norm of the gradient, at most.'),
    (array['lstm', 'gru', 'cnn', 'transformer'], 'class_weight', 'choice', 'classification', null, false, null, null, array['balanced'], true, 'balanced: both classes weigh the same while fitting.'),
    (array['lstm', 'gru', 'cnn', 'transformer'], 'loss', 'choice', 'regression', null, false, null, null, array['mse', 'huber'], false, 'What is minimised.'),
    (array['lstm', 'gru', 'cnn', 'transformer'], 'device', 'choice', null, null, false, null, null, array['auto', 'cpu', 'cuda', 'cuda:0', 'cuda:1', 'cuda:2', 'cuda:3', 'cuda:4', 'cuda:5', 'cuda:6', 'cuda:7'], false, 'Where to train; auto: the GPU where there is one.'),
    (array['lstm', 'gru', 'cnn', 'transformer'], 'precision', 'choice', null, null, false, null, null, array['auto', 'mixed', 'single'], false, 'auto: mixed on a GPU, single on the CPU.'),
    (array['lstm', 'gru', 'cnn', 'transformer'], 'processes', 'integer', null, 0, false, 64, null, null, false, 'Processes that share the fit; 0: one for each GPU.'),
    (array['lstm', 'gru', 'cnn', 'transformer'], 'checkpoint_seconds', 'number', null, 0, false, 86400, null, null, false, 'Seconds between two states that are kept.'),
    -- Options of training itself, whatever the algorithm.
    (array[null], 'algorithm', 'choice', null, null, false, null, null, array['lightgbm', 'xgboost', 'gradient_boosting', 'random_forest', 'logistic_regression', 'lstm', 'gru', 'cnn', 'transformer', 'regime_filter', 'terms'], false, 'In place of the model''s own.'),
    (array[null], 'params', 'object', null, null, false, null, null, null, true, 'Parameters of the algorithm, over the model''s own.'),
    (array[null], 'search', 'object', null, null, false, null, null, null, true, 'Search of parameters: trials, minutes, folds, space.'),
    (array[null], 'combinatorial', 'object', null, null, false, null, null, null, true, 'Combinatorial purged folds measured beside walk-forward: groups, tested; their paths are in metrics -> combinatorial.'),
    (array[null], 'folds', 'integer', null, 2, false, null, 'training.max_folds', null, false, 'Walk-forward folds.'),
    (array[null], 'lookback', 'interval', null, null, false, null, null, null, true, 'How far back the set goes, counted from the end of the data.'),
    (array[null], 'embargo', 'interval', null, null, false, null, null, null, true, 'Time after the labels of a fold''s training rows before its test begins.'),
    (array[null], 'weights', 'object', null, null, false, null, null, null, true, 'Sample weights: uniqueness (true or false), half_life (an interval).'),
    (array[null], 'seed', 'integer', null, 0, false, 999999999, null, null, false, 'All randomness comes from it.'),
    (array[null], 'threads', 'integer', null, 0, false, null, 'training.max_threads', null, false, 'Cores of the trainer; 0: all.'),
    (array[null], 'min_rows', 'integer', null, 50, false, 1e9, null, null, false, 'Fewer rows are refused.'),
    (array[null], 'sequence_length', 'integer', null, 1, false, 4096, null, null, false, 'The parameter of that name.'),
    (array[null], 'calibration', 'choice', null, null, false, null, null, array['auto', 'none', 'platt', 'isotonic'], false, 'How scores become probabilities.'),
    (array[null], 'baselines', 'boolean', null, null, false, null, null, null, false, 'Whether persistence and a linear model are measured beside it.'),
    (array[null], 'auto_promote', 'boolean', null, null, false, null, null, null, false, 'Whether a version that passes its gates is promoted.'),
    (array[null], 'noise', 'any', null, null, false, null, null, null, true, 'Which rows noise filtering drops (of a model only).'),
    (array[null], 'every', 'interval', null, null, false, null, null, null, true, 'Age at which ml.retrain_due asks for a new version (of a model only).'),
    (array['search'], 'trials', 'integer', null, 1, false, null, 'training.max_trials', null, false, 'Trials, at most.'),
    (array['search'], 'minutes', 'number', null, 0, true, null, 'training.max_minutes', null, false, 'Minutes, at most.'),
    (array['search'], 'folds', 'integer', null, 1, false, 20, null, null, false, 'Folds before the first test fold on which trials are judged.'),
    (array['search'], 'space', 'object', null, null, false, null, null, null, true, 'Ranges by parameter: choices, or [float | log_float | int | log_int, low, high].'),
    (array['combinatorial'], 'groups', 'integer', null, 3, false, 20, null, null, false, 'Groups that time is cut into; 6 unless given.'),
    (array['combinatorial'], 'tested', 'integer', null, 1, false, 19, null, null, false, 'Of them tested by each model, fewer than groups; 2 unless given.'),
    (array['weights'], 'uniqueness', 'boolean', null, null, false, null, null, null, false, 'Rows weigh by how little their labels overlap.'),
    (array['weights'], 'half_life', 'interval', null, null, false, null, null, null, true, 'Age at which a row weighs half.')
)

select
    a.algorithm,
    d.parameter,
    d.type,
    d.task,
    d.minimum,
    d.above as minimum_excluded,
    coalesce((select (s.value #>> '{}')::float8 from ops.settings as s where s.name = d.setting), d.maximum) as maximum,
    d.setting,
    d.choices,
    d.nullable,
    d.description
from declared as d
cross join lateral unnest(d.algorithms) as a (algorithm);
comment on view ml.training_parameters is
'What ml.models.params, .training and the options of ml.retrain may hold: parameters by algorithm;
where algorithm is null the options of training itself; search, weights and combinatorial are those options'' own.';
comment on column ml.training_parameters.algorithm is
'The algorithm whose parameter it is; null: an option of training; search, weights, combinatorial: a key of that option.';
comment on column ml.training_parameters.parameter is 'Name of the parameter or option.';
comment on column ml.training_parameters.type is
'integer, number, boolean, choice, interval, object or any.';
comment on column ml.training_parameters.task is
'The task it is for (classification, regression); null: both.';
comment on column ml.training_parameters.minimum is 'Smallest value; null: none.';
comment on column ml.training_parameters.minimum_excluded is 'Whether the value must be above the minimum.';
comment on column ml.training_parameters.maximum is 'Largest value; null: none.';
comment on column ml.training_parameters.setting is 'The setting that holds the maximum; null: it is fixed.';
comment on column ml.training_parameters.choices is 'The values of a choice.';
comment on column ml.training_parameters.nullable is 'Whether null may be given.';
comment on column ml.training_parameters.description is 'What it does.';

create or replace function ml._nearest(word text, words text [])
returns text
language plpython3u immutable parallel safe set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.training import spelling
    return spelling.nearest(word, words)
$python$;
comment on function ml._nearest(text, text []) is 'The word most like it; null: none is like it.';

create or replace function ml._check_value(
    place text, value jsonb, parameter ml.training_parameters
)
returns void
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    v_kind constant text := jsonb_typeof(value);
    v_number numeric;
    v_words text;
begin
    if parameter.nullable and v_kind = 'null' or parameter.type = 'any' then
        return;
    end if;
    if parameter.type in ('integer', 'number') and v_kind = 'number' then
        v_number := (value #>> '{}')::numeric;
        if (parameter.type = 'number' or v_number = trunc(v_number))
            and (parameter.minimum is null or v_number > parameter.minimum::numeric
                or v_number = parameter.minimum::numeric and not parameter.minimum_excluded)
            and (parameter.maximum is null or v_number <= parameter.maximum::numeric) then
            return;
        end if;
    elsif parameter.choices is not null and v_kind = 'string' then
        if value #>> '{}' = any (parameter.choices) then
            return;
        end if;
    elsif parameter.type = 'boolean' and v_kind = 'boolean' or parameter.type = 'object' and v_kind = 'object' then
        return;
    elsif parameter.type = 'interval' and v_kind = 'string'
        and pg_input_is_valid(value #>> '{}', 'interval') then
        if (value #>> '{}')::interval between interval '0' and interval '200 years'
            and isfinite((value #>> '{}')::interval)
            -- A number alone would be seconds, which nobody means.
            and value #>> '{}' !~ '^[\s\d.+-]*$'
            and ((value #>> '{}')::interval > interval '0' or parameter.parameter = 'embargo') then
            return;
        end if;
    end if;
    v_words := case parameter.type
        when 'choice' then 'one of ' || array_to_string(parameter.choices, ', ')
        when 'interval' then 'a length of time with its unit, such as "10 days"'
        when 'boolean' then 'true or false'
        when 'object' then 'an object'
        else concat(
            case parameter.type when 'integer' then 'a whole number' else 'a number' end,
            case when parameter.minimum is not null then concat(
                case when parameter.minimum_excluded then ' above ' else ' from ' end, parameter.minimum
            ) end,
            case when parameter.maximum is not null then ' to ' || parameter.maximum end,
            case when parameter.choices is not null
                then ', or one of ' || array_to_string(parameter.choices, ', ') end
        ) end || case when parameter.nullable then ', or null' else '' end;
    raise exception 'no value for %: %', place, left(value::text, 200)
    using errcode = 'AP421',
        hint = format(
            '%s is %s.%s', parameter.parameter, v_words,
            case when parameter.setting is not null
                then format(' The setting %s is the limit.', parameter.setting) else '' end
        );
end
$$;
comment on function ml._check_value(text, jsonb, ml.training_parameters) is
'Refuses a value that is not of the parameter''s type, within its bounds: AP421.';

create or replace function ml._check_parameters(
    algorithm text, task text, given jsonb, place text
)
returns void
language plpgsql stable parallel restricted
set search_path = pg_catalog, pg_temp
as $$
declare
    v_item record;
    v_parameter ml.training_parameters;
    v_known text [];
    v_nearest text;
begin
    if given is null or jsonb_typeof(given) = 'null' then
        return;
    end if;
    if jsonb_typeof(given) <> 'object' then
        raise exception '% is no object: %', place, left(given::text, 200)
        using errcode = 'AP421', hint = format('For instance %s: {}.', place);
    end if;
    for v_item in select e.key, e.value from jsonb_each(given) as e (key, value) order by e.key loop
        select p.* into v_parameter
        from ml.training_parameters p
        where p.algorithm is not distinct from _check_parameters.algorithm
            and p.parameter = v_item.key
            and (p.task is null or p.task = _check_parameters.task or _check_parameters.task is null);
        if not found then
            v_known := array(
                select distinct p.parameter from ml.training_parameters p
                where p.algorithm is not distinct from _check_parameters.algorithm
                    and (p.task is null or p.task = _check_parameters.task or _check_parameters.task is null)
                order by 1
            );
            v_nearest := ml._nearest(v_item.key, v_known);
            raise exception '%: unknown %', place, quote_literal(left(v_item.key, 100))
            using errcode = 'AP420',
                hint = concat(
                    case when v_nearest is not null then format('Is %s meant? ', v_nearest) end,
                    format('Known: %s (ml.training_parameters says what they are).', array_to_string(v_known, ', '))
                );
        end if;
        perform ml._check_value(place || '.' || v_item.key, v_item.value, v_parameter);
    end loop;
end
$$;
comment on function ml._check_parameters(text, text, jsonb, text) is
'Refuses parameters that ml.training_parameters does not list for the algorithm (null: options of
training) and task: AP420 unknown, with the nearest right name; AP421 no value for it.';

create or replace function ml._check_space(algorithm text, task text, space jsonb)
returns void
language plpgsql stable parallel restricted
set search_path = pg_catalog, pg_temp
as $$
declare
    v_item record;
    v_value jsonb;
    v_ranged boolean;
begin
    if space is null or jsonb_typeof(space) = 'null' then
        return;
    end if;
    for v_item in select e.key, e.value from jsonb_each(space) as e (key, value) loop
        if jsonb_typeof(v_item.value) <> 'array' or jsonb_array_length(v_item.value) = 0 then
            raise exception 'no value for search.space.%: %', v_item.key, left(v_item.value::text, 200)
            using errcode = 'AP421',
                hint = 'Give choices, or [kind, low, high] with kind float, log_float, int or log_int.';
        end if;
        v_ranged := jsonb_array_length(v_item.value) = 3
            and v_item.value ->> 0 in ('float', 'log_float', 'int', 'log_int');
        for v_value in
            select e.value from jsonb_array_elements(v_item.value) with ordinality as e (value, n)
            where not v_ranged or e.n > 1
        loop
            perform ml._check_parameters(
                algorithm, task, jsonb_build_object(v_item.key, v_value), 'search.space'
            );
            if v_ranged and (
                jsonb_typeof(v_value) <> 'number'
                or v_item.value ->> 0 like 'log\_%' and (v_value #>> '{}')::numeric <= 0
            ) then
                raise exception 'no value for search.space.%: %', v_item.key, left(v_item.value::text, 200)
                using errcode = 'AP421', hint = 'low and high are numbers; of a logarithmic range above 0.';
            end if;
        end loop;
        if v_ranged and (v_item.value ->> 1)::numeric > (v_item.value ->> 2)::numeric then
            raise exception 'no value for search.space.%: %', v_item.key, left(v_item.value::text, 200)
            using errcode = 'AP421', hint = 'low is at most high.';
        end if;
    end loop;
end
$$;
comment on function ml._check_space(text, text, jsonb) is
'Refuses a search space whose values the algorithm''s parameters could not take: AP420, AP421.';

create or replace function ml._check_training(
    own_algorithm text, task text, params jsonb, training jsonb, options jsonb default '{}'
)
returns void
language plpgsql stable parallel restricted
set search_path = pg_catalog, pg_temp
as $$
declare
    v_whole jsonb;
    v_algorithm text;
begin
    perform ml._check_parameters(
        null, task, jsonb_build_object('algorithm', coalesce(own_algorithm, 'null')), 'model'
    );
    perform ml._check_parameters(null, task, training, 'training');
    perform ml._check_parameters(null, task, options, 'options');
    v_whole := coalesce(training, '{}') || coalesce(options, '{}');
    v_algorithm := coalesce(v_whole ->> 'algorithm', own_algorithm);
    perform ml._check_parameters(own_algorithm, task, params, 'params');
    perform ml._check_parameters(v_algorithm, task, v_whole -> 'params', 'params');
    perform ml._check_parameters('search', task, v_whole -> 'search', 'search');
    perform ml._check_space(v_algorithm, task, v_whole #> '{search,space}');
    perform ml._check_parameters('weights', task, v_whole -> 'weights', 'weights');
    perform ml._check_parameters(
        'combinatorial', task, v_whole -> 'combinatorial', 'combinatorial'
    );
end
$$;
comment on function ml._check_training(text, text, jsonb, jsonb, jsonb) is
'Refuses a model''s algorithm, params and training, with a job''s options over them, where
ml.training_parameters does not list them: AP420, AP421.';
