-- Why a prediction is what it is.
create or replace function ml.explain(model text, symbol text, as_of timestamptz default null)
returns table (feature text, value double precision, contribution double precision)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
declare
    v_p record := ml._predict(model, symbol, as_of);
begin
    if v_p.version_id is null then
        perform ml._no_champion(model, v_p.canonical);
    end if;
    return query select e.feature, e.value, e.contribution from ml.explain_version(v_p.version_id, v_p.features) e;
end
$$;
comment on function ml.explain(text, text, timestamptz) is
'What each feature adds to the raw score (log odds for classes) of ml.predict with the same arguments, largest first; the row "base" is the expected raw score, and all rows sum to the raw score. Trees (LightGBM, XGBoost, gradient boosting, random forest): exact SHAP values (Lundberg et al. 2020, Nature Machine Intelligence 2), of a forest summing to its mean vote (the uncalibrated probability); linear models: weight times scaled value; the deep ones: occlusion by the training median, over all times of the sequence. Errors: as ml.predict, and AP505 no promoted version.';

create or replace function ml._attention(version_id bigint, features double precision [])
returns double precision []
language plpython3u stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.serving.score import attention
    return attention(plpy, GD, version_id, features)
$python$;
