-- Searches of parameters, as operators see them; and putting away what is no longer wanted.

create or replace view ml.search_trials as
select
    j.job_id,
    j.model,
    j.symbol,
    t.number + 1 as trial,
    lower(t.state::text) as state,
    v.value as loss,
    p.params,
    t.datetime_start at time zone 'UTC' as started_at,
    t.datetime_complete at time zone 'UTC' as finished_at,
    r.version_id
from optuna.studies as s
inner join ml.training_jobs as j on s.study_name = 'job ' || j.job_id
inner join optuna.trials as t on s.study_id = t.study_id
left join optuna.trial_values as v on t.trial_id = v.trial_id and v.objective = 0
left join ml.model_versions as r on j.job_id = r.job_id
left join lateral (
    select
        jsonb_object_agg(
            q.param_name,
            -- Of choices the place is kept.
            case when q.distribution_json::jsonb ->> 'name' = 'CategoricalDistribution'
                then q.distribution_json::jsonb #> array['attributes', 'choices', q.param_value::integer::text]
                else to_jsonb(q.param_value) end
        ) as params
    from optuna.trial_params as q
    where q.trial_id = t.trial_id
) as p on true;
comment on view ml.search_trials is
'Every trial of every search: its parameters and what it came to. loss is the mean log loss, or the squared
error in units of the variance, on folds before the first test fold.';
comment on column ml.search_trials.job_id is 'The training job that searched.';
comment on column ml.search_trials.model is 'Its model.';
comment on column ml.search_trials.symbol is 'Its symbol; null: pooled.';
comment on column ml.search_trials.trial is 'Number of the trial, from 1.';
comment on column ml.search_trials.state is 'complete, pruned (behind the others), fail, running or waiting.';
comment on column ml.search_trials.loss is 'What it came to; null: it is not complete.';
comment on column ml.search_trials.params is 'The parameters that were tried.';
comment on column ml.search_trials.started_at is 'When it began.';
comment on column ml.search_trials.finished_at is 'When it ended.';
comment on column ml.search_trials.version_id is 'The version that the job made.';

create or replace view ml.parameters_and_metrics as
select
    l.version_id,
    l.model,
    l.symbol,
    l.algorithm,
    p.key as parameter,
    p.value #>> '{}' as value,
    l.auc,
    l.log_loss,
    l.ece,
    l.rank_ic,
    l.rmse,
    l.r2
from ml.leaderboard as l
cross join lateral jsonb_each(l.params) as p (key, value);
comment on view ml.parameters_and_metrics is
'A row for each parameter of each version beside what the database measured, to pivot.';
comment on column ml.parameters_and_metrics.version_id is 'The version.';
comment on column ml.parameters_and_metrics.model is 'The model.';
comment on column ml.parameters_and_metrics.symbol is 'The symbol; null: pooled.';
comment on column ml.parameters_and_metrics.algorithm is 'What it was trained with.';
comment on column ml.parameters_and_metrics.parameter is 'Name of the parameter.';
comment on column ml.parameters_and_metrics.value is 'Its value, as text.';
comment on column ml.parameters_and_metrics.auc is 'Area under the ROC curve.';
comment on column ml.parameters_and_metrics.log_loss is 'Mean log loss, in nats.';
comment on column ml.parameters_and_metrics.ece is 'Expected calibration error.';
comment on column ml.parameters_and_metrics.rank_ic is 'Rank information coefficient, mean over days.';
comment on column ml.parameters_and_metrics.rmse is 'Root mean squared error.';
comment on column ml.parameters_and_metrics.r2 is 'Out-of-sample R².';

create or replace procedure ml.archive_model(model text, reason text default null)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_version bigint;
begin
    perform ml._known_model(model);
    for v_version in
        select v.version_id from ml.model_versions v
        where v.model = archive_model.model and v.archived_at is null
        order by v.version_id
    loop
        call ml.archive(v_version, archive_model.reason);
    end loop;
end
$$;
comment on procedure ml.archive_model(text, text) is
'Puts all versions of a model away (ml.archive): they stay readable, are trained no more by
ml.retrain_due, and can no longer serve. Its champions have to be taken out first (ml.clear_alias). Errors:
AP302 unknown model, AP402 one is being served.';

create or replace function ml._known_model(model text)
returns void
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (select from ml.models m where m.model = _known_model.model) then
        raise exception 'unknown model %', coalesce(quote_literal(model), 'null')
        using errcode = 'AP302', hint = 'select model from ml.models';
    end if;
end
$$;
comment on function ml._known_model(text) is 'Refuses (AP302) a model that there is not.';

create or replace procedure ml.drop_model(model text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_versions bigint;
    v_jobs bigint;
begin
    perform ml._known_model(model);
    select count(*) into v_versions from ml.model_versions v where v.model = drop_model.model;
    select count(*) into v_jobs from ml.training_jobs j
    where j.model = drop_model.model and j.status in ('queued', 'running');
    if v_versions > 0 or v_jobs > 0 then
        raise exception 'model % has % versions and % jobs at work', quote_literal(model), v_versions, v_jobs
        using errcode = 'AP436',
            hint = 'What was registered stays for the record: call ml.archive_model(model). Jobs: ml.cancel_job.';
    end if;
    delete from ml.gates g where g.model = drop_model.model;
    delete from ml.risk_levels r where r.model = drop_model.model;
    delete from ml.training_jobs j where j.model = drop_model.model;
    delete from ml.models m where m.model = drop_model.model;
end
$$;
comment on procedure ml.drop_model(text) is
'Drops a model that has no version, with its gates, risk levels and ended jobs. Errors: AP302 unknown model,
AP436 it has versions, or jobs at work.';

create or replace procedure ml.drop_trials(job_id bigint)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_study integer;
    v_trials integer [];
begin
    if exists (
        select from ml.training_jobs j
        where j.job_id = drop_trials.job_id and j.status in ('queued', 'running')
    ) then
        raise exception 'training job % has not ended', job_id
        using errcode = 'AP437', hint = 'Its search goes on with its trials; ml.cancel_job ends it.';
    end if;
    select s.study_id into v_study from optuna.studies s where s.study_name = 'job ' || job_id;
    v_trials := array(select t.trial_id from optuna.trials t where t.study_id = v_study);
    delete from optuna.trial_heartbeats x where x.trial_id = any (v_trials);
    delete from optuna.trial_intermediate_values x where x.trial_id = any (v_trials);
    delete from optuna.trial_values x where x.trial_id = any (v_trials);
    delete from optuna.trial_params x where x.trial_id = any (v_trials);
    delete from optuna.trial_system_attributes x where x.trial_id = any (v_trials);
    delete from optuna.trial_user_attributes x where x.trial_id = any (v_trials);
    delete from optuna.trials x where x.study_id = v_study;
    delete from optuna.study_system_attributes x where x.study_id = v_study;
    delete from optuna.study_user_attributes x where x.study_id = v_study;
    delete from optuna.study_directions x where x.study_id = v_study;
    delete from optuna.studies x where x.study_id = v_study;
end
$$;
comment on procedure ml.drop_trials(bigint) is
'Deletes the trials of an ended job''s search; what was found stays in the version''s metrics. Errors: AP437
the job has not ended.';
