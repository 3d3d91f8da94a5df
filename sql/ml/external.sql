-- Models trained elsewhere: matched by name, tried, probed; and versions taken out again.

create or replace function ml._external(
    given bytea, features text [], wanted text [], task text, wished jsonb,
    out artifact bytea, out format text, out spec jsonb, out names text []
)
language plpython3u immutable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.serving import external
    return external.accept(plpy, given, features, wanted, task, wished)
$python$;
comment on function ml._external(bytea, text [], text [], text, jsonb) is
'A foreign artifact with its columns where the feature set has them, its format, and its whole spec: AP434
where names, kinds or objective do not fit.';

create or replace function ml._external_probe(
    artifact bytea, format text, spec jsonb, wanted text [], task text, names text [],
    probe_rows double precision [], outputs double precision []
)
returns void
language plpython3u immutable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.serving import external
    external.check(plpy, artifact, format, spec, wanted, task, names, probe_rows, outputs)
$python$;
comment on function ml._external_probe(
    bytea, text, jsonb, text [], text, text [], double precision [], double precision []
) is 'Holds an artifact''s predictions of some rows against those that are said of it, to 1e-6: AP434.';

create or replace function ml.register_external(
    model text,
    artifact bytea,
    features text [],
    probe_rows double precision [],
    probe_outputs double precision [],
    trained_from timestamptz,
    trained_to timestamptz,
    symbol text default null,
    spec jsonb default '{}',
    algorithm text default 'external',
    claimed_metrics jsonb default '{}'
)
returns bigint
language plpgsql volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_model ml.models;
    v_set feature.sets;
    v_label ml.labels;
    v_symbol text;
    v_made record;
begin
    select * into v_model from ml.models m where m.model = register_external.model;
    if not found then
        raise exception 'unknown model %', coalesce(quote_literal(model), 'null')
        using errcode = 'AP302', hint = 'select model from ml.models';
    end if;
    if symbol is not null then
        v_symbol := market.resolve(symbol);
    end if;
    if trained_from is null or trained_to is null or not isfinite(trained_from)
        or not isfinite(trained_to) or trained_from > trained_to or trained_to > clock_timestamp() then
        raise exception 'trained from % to %', coalesce(trained_from::text, 'null'), coalesce(trained_to::text, 'null')
        using errcode = 'AP435',
            hint = 'Say which rows it has seen: what is evaluated on them is in sample.';
    end if;
    if coalesce(octet_length(artifact), 0) = 0 or octet_length(artifact) > ml._max_artifact_bytes() then
        raise exception 'the artifact has % bytes, the limit is %',
            coalesce(octet_length(artifact), 0), ml._max_artifact_bytes()
        using errcode = 'AP413',
            hint = 'Train a smaller model, or raise the setting registry.max_artifact_bytes.';
    end if;
    select * into v_set from feature.sets s
    where s.name = v_model.feature_set and s.version = v_model.feature_version;
    select * into v_label from ml.labels l where l.label = v_model.label;
    select * into v_made
    from ml._external(artifact, features, v_set.features, v_label.task, coalesce(spec, '{}'));
    -- In a process of its own before it is loaded in this one.
    perform ml._check_artifact(
        v_made.artifact, v_made.format, v_made.spec, v_set.features, v_label.task
    );
    perform ml._external_probe(
        v_made.artifact, v_made.format, v_made.spec, v_set.features, v_label.task, v_made.names,
        probe_rows, probe_outputs
    );
    return ml._register(
        v_model.model, v_symbol, null, v_made.artifact, pg_catalog.sha256(v_made.artifact),
        jsonb_build_object(
            'algorithm', coalesce(algorithm, 'external'), 'format', v_made.format,
            'features', to_jsonb(v_set.features), 'spec', v_made.spec,
            'metrics', coalesce(claimed_metrics, '{}'), 'train_from', trained_from,
            'train_to', trained_to, 'as_of', trained_to + v_label.horizon, 'row_count', 0,
            'training_sha256', '', 'library_versions', jsonb_build_object(),
            'code_version', 'external',
            'params', jsonb_build_object('own_features', to_jsonb(v_made.names))
        )
    );
end
$$;
comment on function ml.register_external(
    text, bytea, text [], double precision [], double precision [], timestamptz, timestamptz, text,
    jsonb, text, jsonb
) is
'Registers a model that was trained elsewhere and returns its version_id. artifact: LightGBM''s text model
or ONNX (docs/models.md: what is let in). features: names of its columns in its own order (null: those
that it carries; a LightGBM model is put into the set''s order and may lack features, ONNX takes all of
them in their order). probe_rows (one row a vector, in the artifact''s order; null: not known) and
probe_outputs (probability or value that it gives for each, where it was trained) must agree to 1e-6.
trained_from, trained_to: times of the rows it has seen. spec: output ({"kind": "probability" |
"log_odds" | "identity" | "exp" | "expm1", "scale"}), inputs, scaling, calibration where there is any.
claimed_metrics are shown as claimed and promote nothing: ml.record_evaluation measures. Errors: AP302
unknown model, AP101/AP102 symbol, AP411 artifact refused, AP413 too large, AP434 names, kind or probe do
not fit, AP435 no times.';

create or replace function ml.export_version(
    version_id bigint,
    out artifact bytea, out format text, out sha256 bytea, out about jsonb
)
language plpgsql volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_version ml.model_versions := ml._version(version_id);
    v_center double precision [];
    v_scale double precision [];
    v_rows double precision [] := '{}'::double precision [];
begin
    artifact := v_version.artifact;
    format := v_version.format;
    sha256 := v_version.sha256;
    if v_version.spec #>> '{inputs,kind}' is distinct from 'sequence' then
        select array_agg(coalesce(c.value::text::float8, 0) order by c.n) into v_center
        from jsonb_array_elements(v_version.spec #> '{support,center}') with ordinality as c (value, n);
        select array_agg(coalesce(c.value::text::float8, 1) order by c.n) into v_scale
        from jsonb_array_elements(v_version.spec #> '{support,scale}') with ordinality as c (value, n);
        -- Rows around the middle of the training rows, one feature after the other to either side.
        select array_agg(r.probe_row order by r.i) into v_rows
        from (
            select i, array_agg(
                coalesce(v_center[f], 0) + coalesce(v_scale[f], 1) * (((i * 7 + f * 3) % 11) - 5) / 4.0
                order by f
            ) as probe_row
            from generate_series(1, 8) as i, generate_series(1, cardinality(v_version.features)) as f
            group by i
        ) r;
    end if;
    about := jsonb_build_object(
        'version_id', v_version.version_id, 'model', v_version.model, 'symbol', v_version.symbol,
        'regime', v_version.regime, 'algorithm', v_version.algorithm, 'task', v_version.task,
        'format', v_version.format, 'sha256', encode(v_version.sha256, 'hex'),
        'label', v_version.label, 'horizon', extract(epoch from v_version.horizon),
        'feature_set', v_version.feature_set, 'feature_version', v_version.feature_version,
        'features', to_jsonb(v_version.features), 'spec', v_version.spec, 'params', v_version.params,
        'metrics', v_version.metrics, 'claimed_metrics', v_version.claimed_metrics,
        'train_from', v_version.train_from, 'train_to', v_version.train_to, 'as_of', v_version.as_of,
        'training_sha256', encode(v_version.training_sha256, 'hex'),
        'library_versions', v_version.library_versions, 'code_version', v_version.code_version,
        'probe', case when cardinality(v_rows) > 0 then jsonb_build_object(
            'rows', to_jsonb(v_rows), 'outputs', to_jsonb(ml.score_many(v_version.version_id, v_rows))
        ) end
    );
end
$$;
comment on function ml.export_version(bigint) is
'A version taken out: its artifact with its SHA-256, and about: spec, features, params, metrics, data
range, and a probe (rows and what the version predicts for them), by which whoever takes it can see that
it says the same. Of the shell: alphaplus model export. Errors: AP404 unknown version.';
