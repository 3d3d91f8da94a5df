drop table ops.retention, ops.training_runs, ops.training_schedules, ml.performance_marks, ml.performance,
ml.decisions, ml.retraining_policies, ml.traffic, ml.shadow_progress;
drop table ml.shadow_predictions;
