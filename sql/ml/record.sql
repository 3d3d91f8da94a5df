-- Writing predictions down, joining what came of them, and doing one again.
create or replace function ml.record_prediction(
    model text, symbol text, as_of timestamptz default null, version bigint default null
)
returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set intervalstyle = 'postgres'
as $$
declare
    v_start timestamptz := clock_timestamp();
    v_both ml.served [];
    v_served ml.served;
    v_p ml.answer;
    v_volume text := ml._volume_model(model);
    v_expected double precision;
    v_latency interval;
    v_details jsonb := '{}'::jsonb;
    v_risk text;
    v_id bigint;
begin
    if exists (select from ml.ensembles e where e.ensemble = record_prediction.model) then
        return ml._record_ensemble(model, symbol, as_of, version);
    end if;
    v_both := array(
        select s
        from ml._serve(
            case when version is null then array_remove(array[model, v_volume], null)
                else array[model] end,
            symbol, as_of, version
        ) s
    );
    v_served := v_both[1];
    v_expected := ((v_both[2]).answer).prediction;
    v_p := v_served.answer;
    v_latency := clock_timestamp() - v_start;
    if v_p.prediction is null then
        raise exception 'there is no prediction to record for % at %', v_p.symbol, v_p.as_of
        using errcode = 'AP509', detail = v_p.reason,
        hint = 'Promote a version, or set the policy to flag or fallback.';
    end if;
    if v_served.features is null then
        select feature.vector(s.name, v_p.symbol, v_p.feature_as_of, s.version)
        into v_served.features
        from feature.sets s
        where s.set_id = v_served.vector_set;
    end if;
    if v_p.probability is not null then
        v_risk := ml.risk_level(v_p.model, v_p.probability);
    end if;
    if exists (
        select from ml.model_versions v
        where v.version_id = v_p.version_id and v.algorithm in ('lstm', 'gru', 'cnn', 'transformer')
    ) then
        v_details := jsonb_build_object(
            'attention', ml._attention(v_p.version_id, v_served.features),
            'contributions', (
                select jsonb_object_agg(e.feature, e.contribution)
                from ml.explain_version(v_p.version_id, v_served.features) e
            )
        );
    end if;
    insert into ml.predictions (
        as_of, symbol, model, horizon, version_id, prediction, probability, confidence, risk_level,
        expected_volume, regime, feature_as_of, features, partition_used, is_fallback, details, created_by
    ) values (
        v_p.as_of, v_p.symbol, v_p.model, v_p.horizon, v_p.version_id, v_p.prediction,
        v_p.probability, v_p.confidence, v_risk, greatest(v_expected, 0 * v_expected),
        v_p.regime, v_p.feature_as_of, v_served.features,
        v_p.partition_used, v_p.is_fallback,
        jsonb_build_object(
            'staleness', v_p.staleness, 'staleness_s', v_p.staleness_s, 'expired', v_p.expired, 'out_of_support', v_p.out_of_support,
            'lower', v_p.lower, 'upper', v_p.upper, 'reason', v_p.reason,
            'chosen', v_p.chosen, 'trained_to', v_p.trained_to, 'in_sample', v_p.in_sample,
            'latency_ms', extract(epoch from v_latency) * 1000,
            -- What its outcome is to be, whatever the model's next version predicts.
            'label', (select coalesce(v.label, m.label)
                from ml.models m
                left join ml.model_versions v on v.version_id = v_p.version_id
                where m.model = v_p.model),
            'grid', (select s.grid
                from ml.models m
                left join ml.model_versions v on v.version_id = v_p.version_id
                join feature.sets s on s.name = coalesce(v.feature_set, m.feature_set)
                    and s.version = coalesce(v.feature_version, m.feature_version)
                where m.model = v_p.model)
        ) || v_details, session_user
    )
    returning prediction_id into v_id;
    return v_id;
end
$$;
comment on function ml.record_prediction(text, text, timestamptz, bigint) is
'Make the prediction of ml.predict and write it to ml.predictions with its vector and version, so that it can be replayed and compared with what came of it; returns prediction_id. Errors: as ml.predict, and AP509 nothing to record.';

create or replace procedure ml.join_outcomes(as_of timestamptz default null)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_now timestamptz := ops._moment(as_of);
    v_todo record;
begin
    for v_todo in
        select
            p.symbol, l.label, w.grid, min(p.feature_as_of) as first_ts,
            max(p.feature_as_of) as last_ts, min(p.as_of) as first_as_of,
            max(p.as_of) as last_as_of, array_agg(p.prediction_id) as ids
        from ml.predictions p
        left join ml.models m on m.model = p.model
        left join ml.model_versions v on v.version_id = p.version_id
        left join feature.sets s on s.name = coalesce(v.feature_set, m.feature_set)
            and s.version = coalesce(v.feature_version, m.feature_version)
        -- As it was predicted: a prediction of before these were written down says it by its
        -- version, and one of a base rate was made as the model's next version is to be.
        cross join lateral (
            select
                coalesce(p.details ->> 'label', v.label, m.label) as label,
                coalesce((p.details ->> 'grid')::interval, s.grid) as grid
        ) w
        join ml.labels l on l.label = w.label
        where p.outcome is null and p.feature_as_of + l.horizon <= v_now
            and p.as_of > v_now - interval '30 days'
        group by p.symbol, l.label, w.grid
    loop
        update ml.predictions p
        set outcome = v.target, outcome_at = v.label_end
        from ml.label_values(
            v_todo.label, v_todo.symbol, v_todo.first_ts, v_todo.last_ts + v_todo.grid, v_now, v_todo.grid
        ) v
        where p.prediction_id = any (v_todo.ids) and p.feature_as_of = v.ts
            and p.as_of between v_todo.first_as_of and v_todo.last_as_of;
    end loop;
    call ml.join_ensemble_outcomes(v_now);
end
$$;
comment on procedure ml.join_outcomes(timestamptz) is
'For the clock: give recorded predictions of the last 30 days their outcome, once their label is known by as_of (default: now): the label and the grid of the version that made them, whatever the model predicts by then.';

create or replace function ml.replay(prediction_id bigint)
returns table (recorded double precision, replayed double precision, version_id bigint)
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
    select
        p.prediction,
        case p.partition_used
            when 'ensemble' then ml._replay_ensemble(p.details)
            else ml.predict_version(p.version_id, p.features)
        end,
        p.version_id
    from ml.predictions p
    where p.prediction_id = $1 and (p.version_id is not null or p.partition_used = 'ensemble')
$$;
comment on function ml.replay(bigint) is
'A recorded prediction made again from its stored vector by the version that made it: recorded and replayed are the same to the last bit. An ensemble''s is made again from its members'' vectors and what it had learned by then. No row for a base-rate fallback.';

create or replace view ml.deep_learning_predictions as
select
    p.prediction_id as id,
    p.as_of as "timestamp",
    p.symbol,
    s.grid::text as timeframe,
    v.algorithm as model_type,
    p.version_id::text as model_version,
    v.task as prediction_type,
    p.prediction as prediction_value,
    p.confidence as confidence_score,
    coalesce((v.spec #>> '{inputs,length}')::integer, 1) as input_sequence_length,
    p.horizon as output_horizon,
    jsonb_build_object(
        'algorithm', v.algorithm, 'inputs', v.spec -> 'inputs', 'output', v.spec -> 'output'
    ) as model_architecture,
    v.params as training_parameters,
    p.details - array['attention', 'contributions'] as inference_metadata,
    nullif(p.details -> 'attention', 'null') as attention_weights,
    p.details -> 'contributions' as feature_contributions,
    p.created_at
from ml.predictions as p
inner join ml.model_versions as v on p.version_id = v.version_id
inner join feature.sets as s on v.feature_set = s.name and v.feature_version = s.version
where v.algorithm in ('lstm', 'gru', 'cnn', 'transformer');
comment on view ml.deep_learning_predictions is
'Recorded predictions of the deep models. inference_metadata: latency_ms of the prediction, staleness, expired, out_of_support; attention_weights: one a grid time, oldest first (Transformer); feature_contributions: by occlusion, with base summing to the raw score.';
