-- Ensembles: what they are made of, their versions, and which of these serves.
insert into ml.ensemble_methods (method, position, params, description)
values
('voting', 1, '{}', 'Equal weights, or those given in settings.weights.'),
('regime_weights', 2, '{"alpha": 0.002, "hedge": 0.0001}', 'Weights for each regime (starting rows: settings.regime_weights), mixed by the regimes'' probabilities and learned softly; hedged with the same learner without regimes.'),
('blending', 3, '{"half_life": 100, "temperature": 8, "floor": 0.02, "cap": 0.6}', 'Softmax of exponentially averaged log losses, with a floor and a cap.'),
('boa', 4, '{}', 'Bernstein online aggregation, Wintenberger (2017), Machine Learning 106.'),
('ml_poly', 5, '{}', 'Polynomial weights with a learning rate each: Gaillard, Stoltz and van Erven (2014), COLT.'),
('fixed_share', 6, '{"alpha": 0.002}', 'Tracks the member that is right now: Herbster and Warmuth (1998), Machine Learning 32. The weights to look at.'),
('stacking', 7, '{}', 'Logistic regression on the members'' log odds and the regimes'' probabilities, fitted on predictions that no member was trained on (ml.fit_ensemble).'),
('auto', 8, '{"switch": 0.001}', 'A Bayes mixture of the others: its log loss is at most that of the best of them plus ln M and the price of switching.')
on conflict (method) do nothing;

create or replace function ml._ensemble(ensemble text) returns ml.ensembles
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    v_found ml.ensembles;
begin
    select e.* into v_found from ml.ensembles e where e.ensemble = _ensemble.ensemble;
    if not found then
        raise exception 'unknown ensemble %', coalesce(quote_literal(ensemble), 'null')
        using errcode = 'AP520', hint = 'List them with: select ensemble, label, members from ml.ensembles';
    end if;
    return v_found;
end
$$;

-- The weights of a settings object {model: weight} in the members' order; null where it is none.
create or replace function ml._weights_of(weights jsonb, members text []) returns jsonb
language sql immutable parallel safe set search_path = pg_catalog, pg_temp
return case when jsonb_typeof(weights) = 'object' then (
    select jsonb_agg(coalesce((weights ->> m.member)::double precision, 0) order by m.i)
    from unnest(members) with ordinality m (member, i)
) end;

create or replace function ml._ensemble_setup(v ml.ensemble_versions) returns jsonb
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    v_rows jsonb;
    v_params jsonb;
begin
    if v.setup is not null then
        return v.setup;
    end if;
    select jsonb_agg(coalesce(
        (
            -- The state's own row, else that of a name that stands for it.
            select ml._weights_of(w.value, v.members)
            from jsonb_each(v.settings -> 'regime_weights') w
            where w.key = r.state or exists (
                select from regime.mappings n where n.name = w.key and r.state = any (n.states)
            )
            order by w.key <> r.state, w.key
            limit 1
        ),
        to_jsonb(array_fill(1::double precision, array[cardinality(v.members)]))
    ) order by r.i)
    into v_rows
    from unnest(v.regimes) with ordinality r (state, i);
    select jsonb_object_agg(
        m.method, m.params || coalesce(v.settings -> 'params' -> m.method, '{}')
    )
    into v_params
    from ml.ensemble_methods m;
    return jsonb_build_object(
        'members', v.members, 'regimes', v.regimes, 'methods', v.methods,
        'weights', ml._weights_of(v.settings -> 'weights', v.members),
        'regime_weights', v_rows, 'stacking', v.stacking, 'params', v_params,
        'horizon', (
            select (extract(epoch from l.horizon) * 1000000)::bigint
            from ml.ensembles e join ml.labels l on l.label = e.label
            where e.ensemble = v.ensemble
        )
    );
end
$$;

create or replace function ml.preset_regime_weights(preset text, members text [])
returns jsonb
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    -- Members of the algorithms named share their algorithm's weight, the others what is left over.
    with m as (
        select u.member, x.algorithm
        from unnest(members) u (member)
        join ml.models x on x.model = u.member
    ),
    shares as (
        select
            r.regime, m.member, w.weight / count(*) over (partition by r.regime, m.algorithm) as named,
            (w.weight is null)::integer as is_other
        from (select distinct p.regime from ml.regime_weight_presets p where p.preset = $1) r
        cross join m
        left join ml.regime_weight_presets w
            on w.preset = $1 and w.regime = r.regime and w.algorithm = m.algorithm
    ),
    whole as (
        select
            s.regime, s.member, s.named,
            greatest(0, 1 - coalesce(sum(s.named) over (partition by s.regime), 0))
            / nullif(sum(s.is_other) over (partition by s.regime), 0) as rest
        from shares s
    )
    select jsonb_object_agg(q.regime, q.weights)
    from (
        select w.regime, jsonb_object_agg(w.member, coalesce(w.named, w.rest)) as weights
        from whole w
        group by w.regime
    ) q
$$;
comment on function ml.preset_regime_weights(text, text []) is
'Starting weights by regime {regime: {model: weight}} that a preset (ml.regime_weight_presets) gives these members by their algorithms; null: there is no such preset. Members of no algorithm that it names share what is left over.';

create or replace function ml.create_ensemble(
    ensemble text, label text, members text [], method text default 'auto',
    settings jsonb default '{}', description text default ''
)
returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_problem text;
    v_id bigint;
begin
    v_problem := case
        when ensemble is null or ensemble !~ '^[A-Za-z][A-Za-z0-9_]{0,62}$'
            then 'its name has to be letters, digits and underscores'
        when exists (select from ml.models m where m.model = create_ensemble.ensemble)
            then 'a model has its name'
        when not exists (
            select from ml.labels l
            where l.label = create_ensemble.label and l.task = 'classification'
        ) then format('%s is no label of a classification', coalesce(quote_literal(label), 'null'))
        when coalesce(cardinality(members), 0) not between 1 and 32 then 'it needs 1 to 32 members'
        when (select count(distinct m) from unnest(members) m) <> cardinality(members)
            then 'a member is named twice, or is null'
        when settings is null or jsonb_typeof(settings) <> 'object' then 'settings is no object'
        when jsonb_typeof(settings -> 'regime_weights') not in ('object', 'string', 'null')
            then 'regime_weights is neither an object nor the name of a preset'
        when jsonb_typeof(settings -> 'regime_weights') = 'string' and not exists (
            select from ml.regime_weight_presets p where p.preset = settings ->> 'regime_weights'
        ) then format('%s is no preset of ml.regime_weight_presets', settings -> 'regime_weights')
    end;
    if v_problem is null and jsonb_typeof(settings -> 'regime_weights') = 'string' then
        settings := settings || jsonb_build_object(
            'regime_weights', ml.preset_regime_weights(settings ->> 'regime_weights', members)
        );
    end if;
    if v_problem is null then
        select format('member %s is no model of label %s', quote_literal(u.m), create_ensemble.label)
        into v_problem
        from unnest(members) u (m)
        where not exists (
            select from ml.models m where m.model = u.m and m.label = create_ensemble.label
        )
        limit 1;
    end if;
    if v_problem is null then
        select format('%s is not a weight of at least 0 of a member', quote_literal(w.key))
        into v_problem
        from (
            select w.key, w.value
            from jsonb_each(
                case jsonb_typeof(settings -> 'weights') when 'object' then settings -> 'weights' end
            ) w
            union all
            select w.key, w.value
            from jsonb_each(
                case jsonb_typeof(settings -> 'regime_weights')
                    when 'object' then settings -> 'regime_weights' end
            ) r
            cross join lateral jsonb_each(
                case jsonb_typeof(r.value) when 'object' then r.value else '{"?": 0}' end
            ) w
        ) w
        where w.key <> all (members) or jsonb_typeof(w.value) <> 'number'
            or (w.value #>> '{}')::numeric < 0
        limit 1;
    end if;
    if v_problem is null and settings ? 'fallback' and not (
        settings -> 'fallback' = '"similar_states"' and exists (
            select from ml.labels l where l.label = create_ensemble.label and l.kind = 'direction'
        )
    ) then
        v_problem := 'fallback is similar_states, of a label of directions, or left out';
    end if;
    if v_problem is null and not exists (
        select from ml.ensemble_methods m where m.method = create_ensemble.method
    ) then
        v_problem := format('%s is no method', coalesce(quote_literal(method), 'null'));
    end if;
    if v_problem is not null then
        raise exception 'the ensemble cannot be made: %', v_problem
        using errcode = 'AP521',
        hint = 'Members: select model, label from ml.models; methods: select method, description from ml.ensemble_methods.';
    end if;
    insert into ml.ensembles as e (ensemble, label, members, method, settings, description)
    values (
        create_ensemble.ensemble, create_ensemble.label, create_ensemble.members,
        create_ensemble.method, create_ensemble.settings, create_ensemble.description
    )
    on conflict on constraint ensembles_pkey do update
    set members = excluded.members, method = excluded.method, settings = excluded.settings,
        description = excluded.description
    where e.label = excluded.label;
    if not found then
        raise exception 'ensemble % is of another label', ensemble
        using errcode = 'AP521', hint = 'What it has learned is of that label: give it another name.';
    end if;
    v_id := ml._new_ensemble_version(ensemble, null, '-infinity', null, '{}', 0);
    perform ml._set_ensemble_champion(v_id, 'promote', 'made');
    return v_id;
end
$$;
comment on function ml.create_ensemble(text, text, text [], text, jsonb, text) is
'Make an ensemble of models of one classification label, or change its members, method and settings, and serve the new version from now on; returns its ensemble_version_id. method: the one that answers where none is asked for (ml.ensemble_methods). settings: weights {model: weight} for voting and as everybody''s start; regime_weights {regime, or a name of regime.mappings: {model: weight}}, or the name of a preset (ml.regime_weight_presets, such as "seeds"), where regime_weights starts; params {method: {name: number}}; fallback "similar_states": what followed similar moments answers where all members sleep (labels of directions). Errors: AP521 it cannot be made so.';

create or replace function ml._new_ensemble_version(
    ensemble text, symbol text, as_of timestamptz, stacking double precision [], metrics jsonb,
    row_count bigint
)
returns bigint
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    v_e ml.ensembles := ml._ensemble(ensemble);
    v_id bigint;
begin
    perform from ml.ensembles e where e.ensemble = v_e.ensemble for update;
    insert into ml.ensemble_versions (
        ensemble, symbol, version, members, methods, method, regimes, settings, stacking, metrics,
        row_count, as_of
    )
    select
        v_e.ensemble, _new_ensemble_version.symbol,
        1 + coalesce((
            select max(o.version) from ml.ensemble_versions o
            where o.ensemble = v_e.ensemble
                and o.symbol is not distinct from _new_ensemble_version.symbol
        ), 0),
        v_e.members,
        array(
            select m.method from ml.ensemble_methods m
            where m.enabled and m.method <> 'auto' order by m.position
        ),
        v_e.method, array(select s.state from regime.states s order by s.position),
        v_e.settings, _new_ensemble_version.stacking, _new_ensemble_version.metrics,
        _new_ensemble_version.row_count, _new_ensemble_version.as_of
    returning ensemble_version_id into v_id;
    update ml.ensemble_versions v
    set setup = ml._ensemble_setup(v)
    where v.ensemble_version_id = v_id;
    return v_id;
end
$$;

create or replace function ml._set_ensemble_champion(
    ensemble_version_id bigint, action text, reason text
)
returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    v_v ml.ensemble_versions;
    v_previous bigint;
begin
    select v.* into strict v_v
    from ml.ensemble_versions v
    where v.ensemble_version_id = _set_ensemble_champion.ensemble_version_id;
    perform from ml.ensembles e where e.ensemble = v_v.ensemble for update;
    select c.ensemble_version_id into v_previous
    from ml.ensemble_champions c
    where c.ensemble = v_v.ensemble and c.symbol is not distinct from v_v.symbol;
    insert into ml.ensemble_champions as c (ensemble, symbol, ensemble_version_id)
    values (v_v.ensemble, v_v.symbol, v_v.ensemble_version_id)
    on conflict on constraint ensemble_champions_key do update
    set ensemble_version_id = excluded.ensemble_version_id, updated_at = clock_timestamp();
    insert into ml.ensemble_history (
        action, ensemble, symbol, previous_id, ensemble_version_id, reason
    )
    values (
        _set_ensemble_champion.action, v_v.ensemble, v_v.symbol, v_previous,
        v_v.ensemble_version_id, _set_ensemble_champion.reason
    );
end
$$;

create or replace function ml._ensemble_version(ensemble_version_id bigint)
returns ml.ensemble_versions
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    v_found ml.ensemble_versions;
begin
    select v.* into v_found
    from ml.ensemble_versions v
    where v.ensemble_version_id = _ensemble_version.ensemble_version_id;
    if not found then
        raise exception 'unknown ensemble version %', coalesce(ensemble_version_id::text, 'null')
        using errcode = 'AP522',
        hint = 'List them with: select ensemble_version_id, ensemble, symbol, metrics from ml.ensemble_versions';
    end if;
    return v_found;
end
$$;

create or replace procedure ml.promote_ensemble(
    ensemble_version_id bigint, reason text default null, force boolean default false
)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_v ml.ensemble_versions := ml._ensemble_version(ensemble_version_id);
    v_loss double precision := (v_v.metrics -> 'methods' ->> v_v.method)::double precision;
    v_failed text;
begin
    if v_v.archived_at is not null then
        raise exception 'ensemble version % is archived', ensemble_version_id
        using errcode = 'AP523', hint = 'Fit a new one: select ml.fit_ensemble(ensemble, symbol)';
    end if;
    -- The gates: better than the base rate, and not worse than equal weights.
    v_failed := concat_ws('; ',
        case when v_loss is null then 'it was fitted on nothing' end,
        case when v_loss >= (v_v.metrics ->> 'base_rate')::double precision then format(
            'log loss %s is not below the base rate''s %s', round(v_loss::numeric, 5),
            round((v_v.metrics ->> 'base_rate')::numeric, 5)
        ) end,
        case when v_loss > (v_v.metrics -> 'methods' ->> 'voting')::double precision + 0.002 then format(
            'log loss %s is above equal weights'' %s', round(v_loss::numeric, 5),
            round((v_v.metrics -> 'methods' ->> 'voting')::numeric, 5)
        ) end
    );
    if v_failed <> '' and not (coalesce(force, false) and reason is not null) then
        raise exception 'ensemble version % does not pass its gates: %', ensemble_version_id, v_failed
        using errcode = 'AP524',
        hint = format('To promote it anyway: call ml.promote_ensemble(%s, ''why'', force => true)', ensemble_version_id);
    end if;
    perform ml._set_ensemble_champion(
        ensemble_version_id, 'promote',
        case when v_failed = '' then reason else format('%s [forced past: %s]', reason, v_failed) end
    );
end
$$;
comment on procedure ml.promote_ensemble(bigint, text, boolean) is
'Let a version of an ensemble serve. Its gates: the log loss of its method over the rounds it was fitted on is below the base rate''s and not above equal weights'' by more than 0.002; force => true with a reason goes past them. Errors: AP522 unknown version, AP523 archived, AP524 gates.';

create or replace procedure ml.rollback_ensemble(
    ensemble text, symbol text default null, reason text default null
)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_symbol text := case when symbol is not null then market.resolve(symbol) end;
    v_now bigint;
    v_to bigint;
begin
    perform ml._ensemble(ensemble);
    select c.ensemble_version_id into v_now
    from ml.ensemble_champions c
    where c.ensemble = rollback_ensemble.ensemble and c.symbol is not distinct from v_symbol;
    -- What it took the place of when it was last promoted.
    select h.previous_id into v_to
    from ml.ensemble_history h
    where h.ensemble = rollback_ensemble.ensemble and h.symbol is not distinct from v_symbol
        and h.ensemble_version_id = v_now and h.action = 'promote'
    order by h.history_id desc
    limit 1;
    if v_to is null then
        raise exception 'ensemble % has no earlier champion%', ensemble, coalesce(' for ' || v_symbol, '')
        using errcode = 'AP525', hint = 'See ml.ensemble_history; another version is promoted: call ml.promote_ensemble(version)';
    end if;
    perform ml._set_ensemble_champion(v_to, 'rollback', reason);
end
$$;
comment on procedure ml.rollback_ensemble(text, text, text) is
'Let the version serve again whose place the present champion of an ensemble (and symbol) took. Errors: AP101, AP102 symbol, AP520 unknown ensemble, AP525 there is none.';

-- Who serves a symbol at a time: the champion of then; where the ensemble was not in service yet, the
-- champion of now or the newest version, made of what was known by then.
create or replace function ml._ensemble_serving(ensemble text, symbol text, as_of timestamptz)
returns ml.ensemble_versions
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    v_line record;
    v_found ml.ensemble_versions;
    v_id bigint;
begin
    for v_line in
        select c.symbol, c.ensemble_version_id, c.updated_at
        from ml.ensemble_champions c
        where c.ensemble = _ensemble_serving.ensemble
            and (c.symbol is null or c.symbol = _ensemble_serving.symbol)
        order by c.symbol is null
    loop
        v_id := v_line.ensemble_version_id;
        if as_of is not null and v_line.updated_at > as_of then
            select h.ensemble_version_id into v_id
            from ml.ensemble_history h
            where h.ensemble = _ensemble_serving.ensemble
                and h.symbol is not distinct from v_line.symbol and h.at <= _ensemble_serving.as_of
            order by h.history_id desc
            limit 1;
            if not found then
                select v.ensemble_version_id into v_id
                from ml.ensemble_versions v
                where v.ensemble = _ensemble_serving.ensemble
                    and v.symbol is not distinct from v_line.symbol
                    and v.as_of <= _ensemble_serving.as_of and v.archived_at is null
                    and (
                        v.ensemble_version_id = v_line.ensemble_version_id
                        or exists (
                            select from ml.ensemble_history h
                            where h.ensemble_version_id = v.ensemble_version_id
                        )
                    )
                order by v.ensemble_version_id = v_line.ensemble_version_id desc,
                    v.as_of desc, v.ensemble_version_id desc
                limit 1;
            end if;
        end if;
        if v_id is not null then
            select v.* into v_found
            from ml.ensemble_versions v where v.ensemble_version_id = v_id;
            return v_found;
        end if;
    end loop;
    return null;
end
$$;

insert into ml.regime_weight_presets (preset, regime, algorithm, weight)
values
('seeds', 'trending', 'lstm', 0.45), ('seeds', 'ranging', 'lightgbm', 0.50), ('seeds', 'volatile', 'transformer', 0.50)
on conflict do nothing;
