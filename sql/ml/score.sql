-- Scoring: what versions say of vectors. The functions that touch an artifact run with the owner's
-- rights, so that who predicts need not be able to read artifacts; they are STABLE, as which
-- version serves is looked up in the statement's own snapshot.
create or replace function ml.predict_version(version_id bigint, features double precision [])
returns double precision
language plpython3u stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
as $python$
    # Asked for in every prediction by key: the import is done once.
    if "score" not in SD:
        from alphaplus.server.serving.score import score
        SD["score"] = score
    return SD["score"](plpy, GD, version_id, features)
$python$;
comment on function ml.predict_version(bigint, double precision []) is
'The calibrated probability, or the value, that one version gives a vector (NaN or null: not known); null where nothing of the vector is known. The model is kept in this backend. Errors: AP501 unknown version, AP502 the artifact is not the one registered, AP503 it cannot be read, AP504 another number of values.';

create or replace function ml.score_served(version_id bigint, features double precision [])
returns double precision
language plpython3u stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
as $python$
    # Asked for in every prediction by key: the import is done once.
    if "score" not in SD:
        from alphaplus.server.serving.score import score_known
        SD["score"] = score_known
    return SD["score"](plpy, GD, version_id, features)
$python$;
comment on function ml.score_served(bigint, double precision []) is
'ml.predict_version of a version whose row the same statement has read (ml.serving, ml.champion): it is not looked at again. Errors: AP501 to AP504.';

create or replace function ml.score_versions(
    version_ids bigint [], vectors double precision [], lengths integer []
)
returns table (
    version_id bigint, raw double precision, prediction double precision,
    confidence double precision, lower double precision, upper double precision,
    distance double precision, missing_share double precision, missing integer, problem text
)
language plpython3u stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
rows 1
as $python$
    if "score" not in SD:
        from alphaplus.server.serving.score import score_versions
        SD["score"] = score_versions
    return SD["score"](plpy, GD, version_ids, vectors, lengths)
$python$;
comment on function ml.score_versions(bigint [], double precision [], integer []) is
'What several versions say, each of its own vector, in one call: vectors holds them one after the other, lengths how many values each has. missing: how many features are unknown; missing_share: their share of those usually known in training. A version that cannot answer has a problem and holds nobody up. For versions whose rows the same statement has read.';

create or replace function ml.score_version(
    version_id bigint, features double precision [], out raw double precision,
    out prediction double precision, out confidence double precision, out lower double precision,
    out upper double precision, out distance double precision
)
language plpython3u stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.serving.score import score_with_trust
    return score_with_trust(plpy, GD, version_id, features)
$python$;

comment on function ml.score_version(bigint, double precision []) is
'What one version says of a vector: raw score, prediction (calibrated probability, or value), confidence with its interval [lower, upper] as the version''s spec defines them, and the distance to the training rows in units of the support threshold (above 1: out of support). Errors: AP501 to AP504.';

create or replace function ml.explain_version(version_id bigint, features double precision [])
returns table (feature text, value double precision, contribution double precision)
language plpython3u stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.serving.score import explain
    return explain(plpy, GD, version_id, features)
$python$;

comment on function ml.explain_version(bigint, double precision []) is
'ml.explain for one version and a vector. Errors: AP501 to AP504.';

create or replace function ml.warm_versions(version_ids bigint []) returns integer
language plpython3u stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.serving.score import warm
    return warm(plpy, GD, version_ids)
$python$;

comment on function ml.warm_versions(bigint []) is
'Load versions into this backend; returns how many. Errors: AP501 to AP503.';

create or replace function ml.cache_status()
returns table (
    version_id bigint, bytes bigint, shared boolean, total_bytes bigint, limit_bytes bigint,
    hits bigint, misses bigint, evictions bigint
)
language plpython3u stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.serving.score import status
    return status(plpy, GD)
$python$;
comment on function ml.cache_status() is
'The models that this backend holds, least recently used first; the limit is the setting ml.cache_bytes, read whenever a model is loaded. shared: the trees are packed in one file that all backends map (bytes: its length), unless the setting ml.share_models is false or the model has what the packed form does not hold (categorical splits, linear leaves); else bytes is what the C allocator handed out when the model was loaded.';

create or replace function ml.warm(model text default null) returns integer
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
    select ml.warm_versions(array(
        select distinct a.version_id from ml.aliases a
        where a.alias = 'champion' and ($1 is null or a.model = $1)
    ))
$$;
comment on function ml.warm(text) is
'Load the champions of a model (default: all models) into this backend, so that its first prediction is quick; returns how many.';

