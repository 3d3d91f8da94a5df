drop schema optuna cascade;
create schema optuna;
grant usage, create on schema optuna to alphaplus_trainer;
comment on schema optuna is 'Studies and trials of hyperparameter searches (Optuna''s tables).';
