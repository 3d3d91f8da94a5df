-- What is let in as a model's artifact. Whoever registers it, it is data: read strictly, and tried
-- in a process of its own.

create or replace function ml._max_artifact_bytes()
returns bigint
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select (ml._setting('registry.max_artifact_bytes', '67108864') #>> '{}')::bigint
$$;
comment on function ml._max_artifact_bytes() is 'Largest artifact that is registered, in bytes.';

create or replace function ml._check_onnx(artifact bytea, features integer) returns void
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.serving import onnx
    onnx.refuse(plpy, artifact, features)
$python$;
comment on function ml._check_onnx(bytea, integer) is
'Refuses ONNX that is not made of the operators, sizes and depths that are let in: AP411.';

create or replace function ml._check_lightgbm(artifact bytea, features integer) returns void
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.serving import lightgbm_text
    lightgbm_text.refuse(plpy, artifact, features)
$python$;
comment on function ml._check_lightgbm(bytea, integer) is
'Refuses a LightGBM text model that the library could not read safely: AP411.';

create or replace function ml._try_artifact(
    artifact bytea, format text, spec jsonb, features text [], task text,
    seconds double precision, memory bigint
)
returns void
language plpython3u volatile parallel unsafe set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.serving import trial
    trial.refuse(plpy, artifact, format, spec, features, task, seconds, memory)
$python$;
comment on function ml._try_artifact(
    bytea, text, jsonb, text [], text, double precision, bigint
) is
'Loads a version as serving does and predicts with it (one row, many, odd values; explanations too)
in a child process with so many seconds and bytes: AP411 where that fails.';

create or replace function ml._check_artifact(
    artifact bytea, format text, spec jsonb, features text [], task text
)
returns void
language plpgsql volatile parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
declare
    v_count constant integer := cardinality(features);
    v_head bytea := substr(artifact, 1, 4096);
    v_text text;
    v_inputs integer;
begin
    if coalesce(octet_length(artifact), 0) = 0 then
        raise exception 'the artifact is empty'
        using errcode = 'AP411', hint = 'Send LightGBM''s text model, or ONNX.';
    end if;
    if get_byte(artifact, 0) = 128 or substr(artifact, 1, 2) in ('PK'::bytea, '\x1f8b'::bytea) then
        raise exception 'the artifact looks like a pickle or an archive'
        using errcode = 'AP411', detail = 'The server reads no format that can carry code.',
            hint = 'Export to LightGBM''s text model or to ONNX.';
    end if;
    if format = 'lightgbm' then
        begin
            v_text := convert_from(v_head, 'UTF8');
        exception when character_not_in_repertoire or untranslatable_character then
            v_text := '';
        end;
        if v_text !~ '^tree\nversion=v\d+\n' then
            raise exception 'the artifact is no LightGBM text model'
            using errcode = 'AP411', hint = 'Use Booster.model_to_string().';
        end if;
        v_inputs := substring(v_text from '\nmax_feature_idx=(\d{1,9})\n')::integer + 1;
        if v_inputs is distinct from v_count then
            raise exception 'the artifact takes % features, the feature set has %',
                coalesce(v_inputs::text, 'an unknown number of'), v_count
            using errcode = 'AP412',
                hint = 'Train on the features of the set, all of them and in their order.';
        end if;
        -- Names of the set in other places: every answer would be wrong.
        select string_agg(f.name, ', ' order by f.n) into v_text
        from unnest(string_to_array(substring(
            convert_from(substr(artifact, 1, greatest(position(convert_to(E'\nTree=', 'UTF8') in artifact), 4096)), 'UTF8')
            from '\nfeature_names=([^\n]*)'), ' ')) with ordinality as f (name, n)
        where f.name = any (features) and f.name <> features[f.n];
        if v_text is not null then
            raise exception 'the artifact''s own features are in another order than the set''s'
            using errcode = 'AP412', detail = format('Elsewhere in the set: %s.', left(v_text, 500)),
                hint = 'ml.register_external puts a model''s columns into the set''s order.';
        end if;
        perform ml._check_lightgbm(artifact, v_count);
    elsif format = 'onnx' then
        -- ModelProto's first field is ir_version, a varint.
        if get_byte(artifact, 0) <> 8 then
            raise exception 'the artifact is no ONNX model'
            using errcode = 'AP411', hint = 'Send what onnx''s SerializeToString() gives.';
        end if;
        perform ml._check_inputs(spec, v_count);
        perform ml._check_onnx(artifact, v_count);
    elsif format = 'json' and task = 'text' then
        -- Terms and numbers, each of them checked.
        perform sentiment._check_artifact(artifact);
        return;
    elsif format = 'json' and task = 'regime' then
        -- Numbers, each of them checked: there is nothing to be tried in a process of its own.
        perform regime._check_artifact(artifact);
        return;
    else
        raise exception 'unknown artifact format %', format
        using errcode = 'AP411', hint = 'Formats: lightgbm, onnx; of a regime classifier json.';
    end if;
    if task in ('regime', 'text') then
        raise exception 'a % model is no % artifact', task, format
        using errcode = 'AP411', hint = 'Train one with call ml.retrain on a model of regime.create_model.';
    end if;
    -- What serves, or served, was tried.
    if exists (
        select from ml.model_versions v
        where v.sha256 = pg_catalog.sha256(_check_artifact.artifact)
            and v.format = _check_artifact.format and v.spec = _check_artifact.spec
            and v.features = _check_artifact.features and v.task = _check_artifact.task
    ) then
        return;
    end if;
    perform ml._try_artifact(
        artifact, format, spec, features, task,
        (ml._setting('registry.trial_seconds', '20') #>> '{}')::double precision,
        (ml._setting('registry.trial_bytes', '2147483648') #>> '{}')::bigint
    );
end
$$;
comment on function ml._check_artifact(bytea, text, jsonb, text [], text) is
'Refuses what is no sound LightGBM text model of these features, or ONNX made of what is let in, or
does not pass its trial in a process of its own: AP411, AP412.';

create or replace function ml._check_inputs(spec jsonb, feature_count integer)
returns void
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    v_inputs constant jsonb := spec -> 'inputs';
begin
    if jsonb_typeof(v_inputs) is distinct from 'object'
        or v_inputs ->> 'kind' is null or v_inputs ->> 'kind' not in ('row', 'sequence')
        or v_inputs ->> 'features' is distinct from feature_count::text
        or v_inputs ->> 'kind' = 'sequence'
        and coalesce(v_inputs ->> 'length', '') !~ '^[1-9]\d{0,3}$' then
        raise exception 'the spec does not say what the model takes: %',
            coalesce(v_inputs::text, 'no inputs')
        using errcode = 'AP412',
            hint = format(
                'For instance {"inputs": {"kind": "row", "features": %s}}; for sequences kind sequence and the length.',
                feature_count
            );
    end if;
end
$$;
comment on function ml._check_inputs(jsonb, integer) is
'Refuses a spec whose inputs are no rows or sequences of so many features: AP412.';
