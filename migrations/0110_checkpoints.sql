-- depends: 0071_marks_again
--
-- 0110: what a fit needs to go on after its trainer was killed, and a place for searches' trials.
create table ml.training_checkpoints (
    job_id bigint not null references ml.training_jobs (job_id) on delete cascade,
    stage text not null,
    state bytea not null,
    updated_at timestamptz not null default clock_timestamp(),
    primary key (job_id, stage)
);
alter table ml.training_checkpoints alter column state set storage external;
comment on table ml.training_checkpoints is 'State of the fits of running training jobs, by stage; gone when the job has ended.';

create function ml._drop_checkpoints() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    delete from ml.training_checkpoints c where c.job_id = new.job_id;
    return null;
end
$$;
create trigger drop_checkpoints after update of status on ml.training_jobs
for each row when (new.status in ('succeeded', 'failed', 'cancelled'))
execute function ml._drop_checkpoints();

-- Optuna makes its own tables here, with the trainer's role.
create schema optuna;
grant usage, create on schema optuna to alphaplus_trainer;
comment on schema optuna is 'Studies and trials of hyperparameter searches (Optuna''s tables).';
