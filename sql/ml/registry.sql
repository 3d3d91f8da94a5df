-- The registry: versions are immutable rows, an alias is a pointer, its history is append-only.
-- A pointer is a row, so promotion obeys the transaction it is in, and every session's next
-- statement sees it.

create or replace function ml._register(
    model text,
    symbol text,
    regime text,
    artifact bytea,
    sha256 bytea,
    version jsonb,
    job_id bigint default null,
    measured jsonb default '{}',
    measured_folds jsonb default null
)
returns bigint
language plpgsql volatile parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
declare
    v_model ml.models;
    v_set feature.sets;
    v_label ml.labels;
    v_features text [];
    v_id bigint;
    v_missing text;
begin
    select * into v_model from ml.models m where m.model = _register.model;
    if not found then
        raise exception 'unknown model %', coalesce(quote_literal(model), 'null')
        using errcode = 'AP302', hint = 'select model from ml.models';
    end if;
    select * into v_set from feature.sets s
    where s.name = v_model.feature_set and s.version = v_model.feature_version;
    select * into v_label from ml.labels l where l.label = v_model.label;

    if octet_length(artifact) > ml._max_artifact_bytes() then
        raise exception 'the artifact has % bytes, the limit is %',
            octet_length(artifact), ml._max_artifact_bytes()
        using errcode = 'AP413',
            hint = 'Train a smaller model, or raise the setting registry.max_artifact_bytes.';
    end if;
    if sha256 is distinct from pg_catalog.sha256(artifact) then
        raise exception 'the artifact does not have the SHA-256 it was sent with'
        using errcode = 'AP414', hint = 'It was damaged on its way: send it again.';
    end if;
    select array_agg(f.feature order by f.n)
    into v_features
    from jsonb_array_elements_text(version -> 'features') with ordinality as f (feature, n);
    if v_features is distinct from v_set.features then
        raise exception 'the version''s features are not those of feature set % version %',
            v_set.name, v_set.version
        using errcode = 'AP412',
            detail = format('Expected %s, got %s.', v_set.features, v_features),
            hint = 'Train on the features of the set, all of them and in their order.';
    end if;
    select string_agg(k, ', ')
    into v_missing
    from unnest(array[
        'algorithm', 'format', 'spec', 'metrics', 'train_from', 'train_to', 'as_of', 'row_count',
        'training_sha256', 'library_versions', 'code_version'
    ]) as k
    where version -> k is null or jsonb_typeof(version -> k) = 'null';
    if v_missing is not null then
        raise exception 'the version lacks %', v_missing
        using errcode = 'AP415', hint = 'A trainer of this release sends them all.';
    end if;
    perform ml._check_artifact(
        artifact, version ->> 'format', version -> 'spec', v_set.features, v_label.task
    );

    perform ml._lock_key(model, symbol, regime);
    insert into ml.model_versions (
        model, symbol, regime, version, algorithm, task, format, artifact, sha256,
        feature_set, feature_version, feature_sha256, features, label, horizon,
        spec, params, metrics, claimed_metrics, fold_metrics, importance, reference_stats,
        train_from, train_to, as_of, row_count, training_sha256, library_versions, code_version,
        parent_id, job_id, expires_after
    )
    values (
        v_model.model, _register.symbol, _register.regime,
        1 + coalesce((
            select max(v.version) from ml.model_versions v
            where v.model = _register.model
                and v.symbol is not distinct from _register.symbol
                and v.regime is not distinct from _register.regime
        ), 0),
        version ->> 'algorithm', v_label.task, version ->> 'format', artifact, _register.sha256,
        v_set.name, v_set.version, v_set.sha256, v_set.features, v_label.label, v_label.horizon,
        version -> 'spec', coalesce(version -> 'params', '{}'), measured,
        version -> 'metrics', coalesce(measured_folds, '[]'), coalesce(version -> 'importance', '{}'),
        coalesce(version -> 'reference_stats', '{}'),
        (version ->> 'train_from')::timestamptz, (version ->> 'train_to')::timestamptz,
        (version ->> 'as_of')::timestamptz, (version ->> 'row_count')::bigint,
        decode(version ->> 'training_sha256', 'hex'), version -> 'library_versions',
        version ->> 'code_version', (version ->> 'parent_id')::bigint, _register.job_id,
        v_model.expires_after
    )
    returning version_id into v_id;
    return v_id;
end
$$;
comment on function ml._register(text, text, text, bytea, bytea, jsonb, bigint, jsonb, jsonb) is
'Checks and writes one version; see ml.register_version. measured: metrics that the database found;
those in version are what is claimed.';

create or replace function ml.register_version(
    model text,
    symbol text,
    artifact bytea,
    sha256 bytea,
    version jsonb,
    regime text default null
)
returns bigint
language plpgsql volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_symbol text;
begin
    if symbol is not null then
        v_symbol := market.resolve(symbol);
    end if;
    return ml._register(model, v_symbol, regime, artifact, sha256, version);
end
$$;
comment on function ml.register_version(text, text, bytea, bytea, jsonb, text) is
'Registers a version that was trained elsewhere and returns its version_id. artifact: LightGBM text
model or ONNX; sha256: of the artifact. version: {algorithm, format, features (must be the feature
set''s, in its order), spec, params, metrics, fold_metrics, importance, reference_stats, train_from,
train_to, as_of, row_count, training_sha256 (hex), library_versions, code_version, parent_id}.
Its metrics are kept as claimed and promote nothing: ml.evaluate measures. It serves nobody until it
is promoted.
Errors: AP302 unknown model, AP411 no artifact of a known format (a pickle is refused), AP412 other
features, AP413 too large (setting registry.max_artifact_bytes), AP414 SHA-256, AP415 key missing.';

-- PL/pgSQL, because its plans stay for the session; a scalar SQL function with a subquery is never
-- inlined, and planned anew in every statement.
create or replace function ml.champion(model text, symbol text, regime text default null)
returns bigint
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    v_version_id bigint;
begin
    if regime is not null and exists (
        select from ml.aliases a
        where a.model = champion.model and a.symbol = champion.symbol and a.regime is not null
    ) then
        -- A version trained for trending serves bull_trending, after one trained for that alone.
        select a.version_id into v_version_id
        from unnest(regime.names_of(champion.regime)) with ordinality n (name, place)
        join ml.aliases a
            on a.model = champion.model and a.symbol = champion.symbol
            and a.regime = n.name and a.alias = 'champion'
        order by n.place
        limit 1;
    end if;
    if v_version_id is null then
        select a.version_id into v_version_id
        from ml.aliases a
        where a.model = champion.model and a.symbol = champion.symbol
            and a.regime is null and a.alias = 'champion';
    end if;
    if v_version_id is null then
        select a.version_id into v_version_id
        from ml.aliases a
        where a.model = champion.model and a.symbol is null
            and a.regime is null and a.alias = 'champion';
    end if;
    return v_version_id;
end
$$;
comment on function ml.champion(text, text, text) is
'The version_id that serves a model for a symbol: the champion of symbol and regime, else of the
symbol, else the pooled one, else null. symbol is the canonical one (market.resolve).';

-- Replays the history: a promotion is pushed, a rollback pops down to where it went.
create or replace function ml._alias_stack(
    model text, symbol text, regime text, alias text default 'champion'
)
returns bigint []
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    v_stack bigint [] := array[]::bigint [];
    v_row record;
begin
    for v_row in
        select h.version_id, h.action
        from ml.alias_history h
        where h.model = _alias_stack.model
            and h.symbol is not distinct from _alias_stack.symbol
            and h.regime is not distinct from _alias_stack.regime
            and h.alias = _alias_stack.alias
        order by h.history_id
    loop
        if v_row.action = 'rollback' then
            v_stack := v_stack[
                :(
                    select max(i) from generate_subscripts(v_stack, 1) i
                    where v_stack[i] = v_row.version_id and i < cardinality(v_stack)
                )
            ];
        elsif v_row.action in ('promote', 'challenge', 'shadow') then
            v_stack := v_stack || v_row.version_id;
        elsif v_row.action = 'clear' then
            v_stack := array[]::bigint [];
        end if;
    end loop;
    return v_stack;
end
$$;
comment on function ml._alias_stack(text, text, text, text) is
'Versions that held the alias, oldest first, the present one last; what was rolled back is gone.';

create or replace function ml._set_alias(
    version_id bigint,
    alias text,
    action text,
    reason text,
    actor text default session_user
)
returns bigint
language plpgsql volatile parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
declare
    v_version ml.model_versions;
    v_previous bigint;
begin
    select * into v_version
    from ml.model_versions v where v.version_id = _set_alias.version_id;
    perform ml._lock_key(v_version.model, v_version.symbol, v_version.regime);
    -- Read again under the lock: it may have been archived while we waited.
    perform from ml.model_versions v
    where v.version_id = _set_alias.version_id and v.archived_at is null
    for share;
    if not found then
        raise exception 'model version % is archived', version_id
        using errcode = 'AP405', hint = 'Train a new one: call ml.retrain(model, symbol)';
    end if;
    select a.version_id
    into v_previous
    from ml.aliases a
    where a.model = v_version.model
        and a.symbol is not distinct from v_version.symbol
        and a.regime is not distinct from v_version.regime
        and a.alias = _set_alias.alias;
    if v_previous = version_id then
        return v_previous;
    end if;
    insert into ml.aliases as a (model, symbol, regime, alias, version_id)
    values (v_version.model, v_version.symbol, v_version.regime, _set_alias.alias, _set_alias.version_id)
    on conflict on constraint aliases_key do update
    set version_id = excluded.version_id, updated_at = clock_timestamp();
    insert into ml.alias_history (
        model, symbol, regime, alias, version_id, previous_version_id, action, reason, actor
    )
    values (
        v_version.model, v_version.symbol, v_version.regime, _set_alias.alias,
        _set_alias.version_id, v_previous, _set_alias.action, _set_alias.reason, _set_alias.actor
    );
    if alias = 'champion' then
        -- Who has won the title is no longer its challenger.
        with gone as (
            delete from ml.aliases a
            where a.version_id = _set_alias.version_id and a.alias <> 'champion'
            returning a.alias
        )
        insert into ml.alias_history (
            model, symbol, regime, alias, previous_version_id, action, reason, actor
        )
        select
            v_version.model, v_version.symbol, v_version.regime, g.alias,
            _set_alias.version_id, 'clear', 'became champion', _set_alias.actor
        from gone g;
    end if;
    return v_previous;
end
$$;
comment on function ml._set_alias(bigint, text, text, text, text) is
'Points an alias of the version''s line at it and writes the history; the version before.';

create or replace function ml._version(version_id bigint)
returns ml.model_versions
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    v_version ml.model_versions;
begin
    select * into v_version from ml.model_versions v where v.version_id = _version.version_id;
    if not found then
        raise exception 'unknown model version %', coalesce(version_id::text, 'null')
        using errcode = 'AP404', hint = 'select version_id, model, symbol from ml.registry';
    end if;
    return v_version;
end
$$;
comment on function ml._version(bigint) is 'The version''s row, or AP404.';

create or replace procedure ml.promote(
    version_id bigint, reason text default null, force boolean default false
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_version ml.model_versions := ml._version(version_id);
    v_failed text;
begin
    perform ml._lock_key(v_version.model, v_version.symbol, v_version.regime);
    if force and reason is null then
        raise exception 'a promotion past the gates needs a reason'
        using errcode = 'AP407',
            hint = format('call ml.promote(%s, ''why'', force => true)', version_id);
    end if;
    select string_agg(g.detail, '; ' order by g.gate)
    into v_failed
    from ml.evaluate_gates(promote.version_id) g
    where not g.passed;
    if v_failed is not null and not force then
        raise exception 'model version % does not pass its gates', version_id
        using errcode = 'AP406', detail = v_failed || '.',
            hint = format(
                'select * from ml.gate_report(%1$s). To promote it anyway: call ml.promote(%1$s, ''why'', force => true)',
                version_id
            );
    end if;
    perform ml._set_alias(version_id, 'champion', 'promote',
        case when v_failed is null then reason else format('%s [forced past: %s]', reason, v_failed) end);
end
$$;
comment on procedure ml.promote(bigint, text, boolean) is
'Makes a version the champion of its line (model, symbol, regime): the next statement of any
session serves it once this is committed. Two at once go one after the other. It must pass the
gates (ml.gates), which are run again here; force => true goes past them and needs a reason.
Errors: AP404 unknown version, AP405 archived, AP406 gates not passed, AP407 force without reason.';

create or replace procedure ml.rollback(
    model text,
    symbol text,
    steps integer default 1,
    to_version bigint default null,
    regime text default null,
    reason text default null
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_symbol text;
    v_stack bigint [];
    v_targets bigint [] := array[]::bigint [];
    v_target bigint;
    v_below integer;
begin
    if symbol is not null then
        v_symbol := market.resolve(symbol);
    end if;
    if steps is null or steps < 1 then
        raise exception 'steps is %, it must be at least 1', coalesce(steps::text, 'null')
        using errcode = 'AP408', hint = 'Say how many promotions to undo, or give to_version.';
    end if;
    perform ml._lock_key(model, v_symbol, regime);
    v_stack := ml._alias_stack(model, v_symbol, regime);
    -- One step at a time, each with its line in the history, so that two calls of one step and one
    -- call of two are the same.
    loop
        exit when to_version is not null and cardinality(v_targets) > 0
            and v_stack[cardinality(v_stack)] = to_version;
        exit when to_version is null and cardinality(v_targets) = steps;
        select max(s.i)
        into v_below
        from unnest(v_stack) with ordinality as s (id, i)
        join ml.model_versions v on v.version_id = s.id and v.archived_at is null
        where s.i < cardinality(v_stack) and s.id <> v_stack[cardinality(v_stack)];
        if v_below is null then
            raise exception '% cannot be rolled back %', concat_ws(', ', model, v_symbol, regime),
                case when to_version is null then format('%s step(s)', steps)
                    else format('to version %s', to_version) end
            using errcode = 'AP408',
                detail = format('Versions to go back to, nearest first: %s.', v_targets),
                hint = case
                    when cardinality(v_stack) <= 1 then format(
                        'There was no champion before this one. To take it out of service: call ml.clear_alias(%L, %L, ''champion''%s)',
                        model, v_symbol, case when regime is null then '' else format(', regime => %L', regime) end
                    )
                    else 'See ml.alias_history; a version that was never champion is promoted.'
                end;
        end if;
        v_stack := v_stack[:v_below];
        v_targets := v_targets || v_stack[v_below];
    end loop;
    foreach v_target in array v_targets loop
        perform ml._set_alias(v_target, 'champion', 'rollback', reason);
    end loop;
end
$$;
comment on procedure ml.rollback(text, text, integer, bigint, text, text) is
'Takes the championship back, as from a stack: after promotions of a, b and c, one step gives b, two
give a, whether in one call or two; to_version goes down to that one. A step goes to the nearest
earlier champion that is another version and not archived. No gates: what served may serve again.
Errors: AP101/AP102 symbol, AP408 nothing (or not that one) to roll back to.';

create or replace procedure ml.set_alias(version_id bigint, alias text, reason text default null)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_version ml.model_versions := ml._version(version_id);
begin
    if alias is null or alias not in ('challenger', 'shadow') then
        raise exception 'alias must be challenger or shadow, not %', coalesce(alias, 'null')
        using errcode = 'AP409', hint = 'The champion is made by ml.promote and ml.rollback.';
    end if;
    if ml._alias_of(v_version.version_id) = 'champion' then
        raise exception 'model version % is the champion', version_id
        using errcode = 'AP409', hint = 'It cannot be its own ' || alias || '.';
    end if;
    perform ml._set_alias(version_id, alias,
        case alias when 'challenger' then 'challenge' else 'shadow' end, reason);
end
$$;
comment on procedure ml.set_alias(bigint, text, text) is
'Names a version the challenger or the shadow of its line.
Errors: AP404 unknown version, AP405 archived, AP409 other alias, or it is the champion.';

create or replace function ml._alias_of(version_id bigint)
returns text
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select min(a.alias) from ml.aliases a where a.version_id = _alias_of.version_id
$$;
comment on function ml._alias_of(bigint) is 'The version''s alias, null where it has none.';

create or replace procedure ml.clear_alias(
    model text, symbol text, alias text, regime text default null, reason text default null
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_symbol text;
    v_previous bigint;
begin
    if symbol is not null then
        v_symbol := market.resolve(symbol);
    end if;
    perform ml._lock_key(model, v_symbol, regime);
    delete from ml.aliases a
    where a.model = clear_alias.model
        and a.symbol is not distinct from v_symbol
        and a.regime is not distinct from clear_alias.regime
        and a.alias = clear_alias.alias
    returning a.version_id into v_previous;
    if not found then
        raise exception '% has no %', ml._key(model, v_symbol, regime), alias
        using errcode = 'AP409', hint = 'select * from ml.registry where alias is not null';
    end if;
    insert into ml.alias_history (
        model, symbol, regime, alias, previous_version_id, action, reason
    )
    values (
        clear_alias.model, v_symbol, clear_alias.regime, clear_alias.alias, v_previous, 'clear',
        clear_alias.reason
    );
end
$$;
comment on procedure ml.clear_alias(text, text, text, text, text) is
'Takes an alias (champion, challenger, shadow) from whoever has it; so a line''s first champion, which
cannot be rolled back, is taken out of service. A symbol without a champion of its own is served by
the pooled one where there is one (is_fallback false), else by the base rate (is_fallback true); what
was promoted before is no longer rolled back to.
Errors: AP101/AP102 symbol, AP409 nobody has it.';

create or replace procedure ml.archive(version_id bigint, reason text default null)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_version ml.model_versions := ml._version(version_id);
begin
    perform ml._lock_key(v_version.model, v_version.symbol, v_version.regime);
    update ml.model_versions v
    set archived_at = clock_timestamp(), archived_by = session_user, archive_reason = archive.reason
    where v.version_id = archive.version_id and v.archived_at is null;
    if not found then
        return;
    end if;
    insert into ml.alias_history (
        model, symbol, regime, alias, version_id, previous_version_id, action, reason
    )
    select
        v_version.model, v_version.symbol, v_version.regime, coalesce(a.alias, 'none'), null,
        v_version.version_id, 'archive', archive.reason
    from (values (1)) as one (row)
    left join ml.aliases a on a.version_id = v_version.version_id;
    delete from ml.aliases a where a.version_id = archive.version_id;
end
$$;
comment on procedure ml.archive(bigint, text) is
'Puts a version away: it can no longer be promoted, rolled back to, or be challenger or shadow, but
stays readable. The champion is refused. A second call changes nothing.
Errors: AP404 unknown version, AP402 it is being served.';

create or replace view ml.registry as
select
    v.version_id,
    v.model,
    v.symbol,
    v.regime,
    v.version,
    a.alias,
    v.algorithm,
    v.task,
    v.format,
    v.label,
    v.horizon,
    v.feature_set,
    v.feature_version,
    cardinality(v.features) as feature_count,
    v.train_from,
    v.train_to,
    v.as_of,
    v.row_count,
    least(v.as_of, v.train_to + v.horizon) + v.expires_after as expires_at,
    v.metrics,
    (v.metrics ->> 'auc')::float8 as auc,
    (v.metrics ->> 'log_loss')::float8 as log_loss,
    (v.metrics #>> '{baseline,log_loss}')::float8 as base_rate_log_loss,
    (v.metrics ->> 'rmse')::float8 as rmse,
    (v.metrics ->> 'r2')::float8 as r2,
    g.passed as gates_passed,
    octet_length(v.artifact) as artifact_bytes,
    encode(v.sha256, 'hex') as sha256,
    v.code_version,
    v.library_versions,
    v.parent_id,
    v.job_id,
    v.created_by,
    v.created_at,
    v.archived_at,
    v.archived_by,
    v.archive_reason
from ml.model_versions v
left join lateral (
    select string_agg(a.alias, ', ' order by a.alias) as alias
    from ml.aliases a where a.version_id = v.version_id
) a on true
left join lateral (
    -- The last run of the gates.
    select bool_and(r.passed) as passed
    from ml.gate_results r
    where r.version_id = v.version_id
        and r.at = (
            select max(l.at) from ml.gate_results l where l.version_id = v.version_id
        )
) g on true;
comment on view ml.registry is
'All model versions without their artifacts: alias (champion, challenger, shadow), where from, how
good on held-out rows (metrics), whether the last run of the gates passed, when it expires.';

create or replace view ml.alias_log as
select
    h.history_id,
    h.at,
    h.actor,
    h.action,
    h.model,
    h.symbol,
    h.regime,
    h.alias,
    h.previous_version_id,
    h.version_id,
    h.reason
from ml.alias_history h;
comment on view ml.alias_log is
'Who changed which alias from which version to which, when and why; append-only. Newest last.';

create or replace view ml.sets_in_use as
select
    s.set_id,
    s.name,
    s.version
from feature.sets as s
where
    not feature._retired(s)
    and (
        exists (
            select from ml.models as m
            where m.feature_set = s.name and m.feature_version = s.version
        )
        or exists (
            select from ml.aliases as a
            inner join ml.model_versions as v on a.version_id = v.version_id
            where v.feature_set = s.name and v.feature_version = s.version
        )
    );
comment on view ml.sets_in_use is
'The feature sets whose vectors are kept up to date: those that a model''s next version is to be trained on, and those of versions that have an alias, which are served with the set they were trained on; less those that only an older release computed.';
