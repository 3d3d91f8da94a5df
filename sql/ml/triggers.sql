-- Triggers on the registry's tables and on feature.pending; their functions are in guards.sql,
-- predict_stored.sql and base_rate.sql.
create or replace trigger guard_version before update or delete on ml.model_versions
for each row execute function ml._guard_version();
create or replace trigger append_only before update or delete or truncate on ml.alias_history
for each statement execute function ml._append_only();
create or replace trigger append_only before update or delete or truncate on ml.gate_results
for each statement execute function ml._append_only();
create or replace trigger keep_serving after insert or update or delete on ml.aliases
for each row execute function ml._keep_serving();
create or replace trigger drop_checkpoints after update of status on ml.training_jobs
for each row when (new.status in ('succeeded', 'failed', 'cancelled'))
execute function ml._drop_checkpoints();
create or replace trigger trained_to before insert or update on ml.serving
for each row execute function ml._serving_trained_to();
create or replace trigger void_base_rates after insert on feature.pending
for each row execute function ml._void_base_rates();
