-- Why a prediction is what it is.
create or replace function ml.explain(
    model text, symbol text, as_of timestamptz default null, version bigint default null
)
returns table (feature text, value double precision, contribution double precision)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
declare
    v_p ml.served;
    v_e ml.ensemble_answer;
begin
    if exists (select from ml.ensembles e where e.ensemble = explain.model) then
        v_e := (ml._serve_ensemble(model, symbol, as_of, null, version)).answer;
        return query
            with parts as (
                select
                    m.key as member, (m.value ->> 'probability')::double precision as said,
                    (v_e.weights ->> m.key)::double precision
                    * (m.value ->> 'probability')::double precision as part
                from jsonb_each(v_e.members) m
            )
            select q.member, q.said, q.part
            from (
                select p.member, p.said, p.part, 1 as place from parts p
                union all
                select 'base', null, v_e.probability - coalesce(sum(p.part), 0), 2 from parts p
            ) q
            order by q.place, abs(q.part) desc;
        return;
    end if;
    select s.* into v_p from ml._serve(array[model], symbol, as_of, version) s;
    if (v_p.answer).version_id is null then
        raise exception 'there is no version to explain for % of model %: %',
            (v_p.answer).symbol, model, (v_p.answer).reason
        using errcode = 'AP505',
        hint = case
            when (v_p.answer).reason = 'no promoted version'
                then 'Train one with: call ml.retrain(model, symbol); then call ml.promote(version)'
            else 'Ask as of a later time, or name the version: version => version_id'
        end;
    end if;
    return query
        select e.feature, e.value, e.contribution
        from ml.explain_version((v_p.answer).version_id, v_p.features) e;
end
$$;
comment on function ml.explain(text, text, timestamptz, bigint) is
'What each feature adds to the raw score (log odds for classes) of ml.predict with the same arguments, largest first; the row "base" is the expected raw score, and all rows sum to the raw score. Trees (LightGBM, XGBoost, gradient boosting, random forest): exact SHAP values (Lundberg et al. 2020, Nature Machine Intelligence 2), of a forest summing to its mean vote (the uncalibrated probability); linear models: weight times scaled value; the deep ones: occlusion by the training median, over all times of the sequence. Of an ensemble: each awake member, what it said, and its weight times that; they and the base sum to the probability. Errors: as ml.predict, and AP505 no version that may answer.';

create or replace function ml._attention(version_id bigint, features double precision [])
returns double precision []
language plpython3u stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.serving.score import attention
    return attention(plpy, GD, version_id, features)
$python$;
