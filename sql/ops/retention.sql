-- What is kept for how long.

create or replace function ops._cut(target text, before timestamptz)
returns bigint
language plpgsql volatile parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
declare
    v_rows bigint := 0;
begin
    case target
        when 'archived versions' then
            -- A version without its artifact cannot be had: the row goes whole, or stays.
            delete from ml.model_versions v
            where v.archived_at < before
                and not exists (select from ml.predictions p where p.version_id = v.version_id)
                and not exists (select from ml.aliases a where a.version_id = v.version_id)
                and not exists (select from ml.model_versions c where c.parent_id = v.version_id)
                and not exists (select from ml.gate_results g where v.version_id in (g.version_id, g.champion_id))
                and not exists (select from ml.decisions d where v.version_id in (d.version_id, d.against_id));
        when 'predictions' then
            delete from ml.predictions p where p.as_of < before;
        when 'shadow predictions' then
            delete from ml.shadow_predictions p where p.ts < before;
        when 'vectors' then
            -- What a version was trained on, and what a model is yet to be trained on, stays.
            delete from feature.vectors v
            using feature.sets s
            where s.set_id = v.set_id and v.ts < before
                and not exists (select from ml.sets_in_use u where u.set_id = v.set_id)
                and not exists (
                    select from ml.model_versions x
                    where x.feature_set = s.name and x.feature_version = s.version
                        and x.archived_at is null
                );
        when 'histograms' then
            delete from drift.histograms h
            where h.ts + h.width < before
                and not exists (select from drift.binnings_in_use u where u.binning_id = h.binning_id);
        when 'checks' then
            delete from drift.checks c where c.at < before;
        when 'alerts' then
            delete from ops.alerts a where a.resolved_at < before;
        when 'performance' then
            delete from ml.performance p where p.ts < before;
    end case;
    get diagnostics v_rows = row_count;
    return v_rows;
end
$$;
comment on function ops._cut(text, timestamptz) is
'Deletes what is older of one kind, less what is protected; how many rows.';

create or replace procedure ops.apply_retention(at timestamptz default null)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_policy ops.retention;
    v_at timestamptz := ops._moment(at);
    v_rows bigint;
    v_error text;
begin
    for v_policy in select * from ops.retention r where r.enabled order by r.target loop
        begin
            v_rows := ops._cut(v_policy.target, v_at - v_policy.keep);
            update ops.retention r
            set last_cut_at = clock_timestamp(), last_cut_rows = v_rows
            where r.target = v_policy.target;
        exception when others then
            get stacked diagnostics v_error = message_text;
            perform ops.raise_alert(
                'retention', 'medium', 'retention:' || v_policy.target,
                format('%s could not be cut: %s', v_policy.target, v_error)
            );
        end;
    end loop;
end
$$;
comment on procedure ops.apply_retention(timestamptz) is
'For the clock, every day: deletes what is older than ops.retention says. Never: versions that serve, may
be rolled back to, made a kept prediction, or are named in a gate''s verdict or a decision; vectors of
sets in use or of versions not archived. One kind that fails raises an alert and does not keep the
others.';

insert into ops.retention (target, keep, enabled, description)
values
('archived versions', '365 days', true, 'Archived versions that made no kept prediction and are named nowhere, with their artifacts.'),
('predictions', '365 days', false, 'Recorded predictions with their vectors; switched off, as they are the record.'),
('shadow predictions', '90 days', true, 'What each version would have said.'),
('vectors', '365 days', true, 'Stored vectors of sets that no model and no version uses any more.'),
('histograms', '90 days', true, 'Histograms in bins that no serving version uses any more.'),
('checks', '180 days', true, 'Drift checks and their details; alerts and actions stay.'),
('alerts', '365 days', true, 'Resolved alerts.'),
('performance', '1095 days', true, 'Hourly sums of how good predictions were.')
on conflict (target) do nothing;

insert into ops.settings (name, value, description)
values
('training.schedules_on', 'false', 'Whether the schedules of ops.training_schedules run.'),
('training.max_concurrent', '2', 'Most trainings that run at once, over all trainers and whoever asked for them; schedules queue no more than that either.')
on conflict (name) do nothing;
