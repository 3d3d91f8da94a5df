drop schema optuna cascade;
drop trigger drop_checkpoints on ml.training_jobs;
drop function ml._drop_checkpoints();
drop table ml.training_checkpoints;
