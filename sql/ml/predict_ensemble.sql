-- What an ensemble says.
create or replace function ml._similar_states_say(
    symbol text, as_of timestamptz, horizon interval,
    out probability double precision, out lower double precision, out upper double precision,
    out reason text
)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
declare
    v_o record;
begin
    if ops._micros(horizon) % 300000000 <> 0 then
        reason := format('states do not make up %s', horizon);
        return;
    end if;
    select o.* into v_o from analytics.similar_outcomes($1, $2, 20, $3) o;
    if v_o.moments < 20 then
        reason := coalesce(v_o.reason, 'too few moments are similar');
        return;
    end if;
    probability := v_o.probability_up;
    lower := least(v_o.up_low, probability);
    upper := greatest(v_o.up_high, probability);
    reason := format('of %s similar moments %s rose', v_o.moments, v_o.ups);
end
$$;
comment on function ml._similar_states_say(text, timestamptz, interval) is
'The member that answers where all others of an ensemble sleep: analytics.similar_outcomes; a null probability where there are not 20 moments, and why.';

create or replace function ml._serve_ensemble(
    ensemble text, symbol text, as_of timestamptz, method text, version bigint
)
returns ml.ensemble_served
language plpgsql stable parallel restricted
set search_path = pg_catalog, pg_temp set timezone = 'UTC' set datestyle = 'ISO, MDY'
as $$
declare
    v_e ml.ensembles := ml._ensemble(ensemble);
    v_ask constant timestamptz := coalesce(as_of, now());
    v_v ml.ensemble_versions;
    v_method text;
    v_served ml.served [];
    v_a ml.answer;
    v_said record;
    v_out ml.ensemble_served;
    v_o ml.ensemble_answer;
begin
    v_o.symbol := market.resolve(symbol);
    v_o.as_of := v_ask;
    v_o.ensemble := v_e.ensemble;
    select l.horizon into v_o.horizon from ml.labels l where l.label = v_e.label;
    v_v := case
        when version is not null then ml._ensemble_version(version)
        else ml._ensemble_serving(ensemble, v_o.symbol, as_of)
    end;
    if version is not null and (
        v_v.ensemble <> v_e.ensemble or v_v.symbol is not null and v_v.symbol <> v_o.symbol
    ) then
        raise exception 'version % is no version of ensemble % for %', version, ensemble, v_o.symbol
        using errcode = 'AP522',
        hint = 'List them with: select ensemble_version_id, ensemble, symbol from ml.ensemble_versions';
    end if;
    v_o.ensemble_version_id := v_v.ensemble_version_id;
    v_method := coalesce(method, v_v.method, v_e.method);
    if v_method <> 'auto' and not v_method = any (v_v.methods) then
        raise exception 'method % is not one of ensemble %', quote_literal(v_method), ensemble
        using errcode = 'AP529', detail = format('It has %s and auto.', array_to_string(v_v.methods, ', ')),
        hint = 'select method, description from ml.ensemble_methods';
    end if;
    v_o.method := v_method;
    -- All members in one call: each set of features is read once.
    v_served := array(select s from ml._serve(v_v.members, v_o.symbol, as_of) s);
    v_out.probabilities := array_fill('NaN'::double precision, array[cardinality(v_v.members)]);
    v_o.members := '{}';
    v_o.slept := '{}';
    v_out.vectors := '{}';
    v_o.in_sample := false;
    for i in 1 .. cardinality(v_v.members) loop
        v_a := (v_served[i]).answer;
        v_o.staleness_s := v_a.staleness_s;
        if v_a.probability is not null and v_a.version_id is not null and not v_a.expired then
            v_out.probabilities[i] := v_a.probability;
            v_o.members := v_o.members || jsonb_build_object(v_a.model, jsonb_build_object(
                'probability', v_a.probability, 'confidence', v_a.confidence,
                'version_id', v_a.version_id, 'chosen', v_a.chosen
            ));
            v_out.vectors := v_out.vectors
                || jsonb_build_object(v_a.model, to_jsonb((v_served[i]).features));
            v_o.trained_to := greatest(v_o.trained_to, v_a.trained_to);
            v_o.in_sample := v_o.in_sample or v_a.in_sample;
        else
            v_o.slept := v_o.slept || jsonb_build_object(v_a.model, coalesce(
                v_a.reason, 'it has no probability'
            ));
        end if;
    end loop;
    select r.regime, r.probabilities into v_o.regime, v_o.regime_probabilities
    from ml._regimes_at(v_o.symbol, v_ask) r;
    v_out.regimes := array(
        select coalesce((v_o.regime_probabilities ->> s.state)::double precision, 0)
        from unnest(v_v.regimes) with ordinality s (state, i) order by s.i
    );
    v_out.setup := ml._ensemble_setup(v_v);
    v_out.state := ml._ensemble_state(v_v, v_o.symbol, v_ask);
    v_said := ml._ensemble_say(
        v_out.setup, v_out.state, v_out.probabilities, v_out.regimes, v_method
    );
    v_o.probability := v_said.probability;
    v_o.lower := v_said.lower;
    v_o.upper := v_said.upper;
    v_o.confidence := 1 - (v_said.upper - v_said.lower);
    v_o.outcomes := v_said.outcomes;
    v_o.is_fallback := v_said.probability is null;
    select jsonb_object_agg(w.member, w.weight) into v_o.weights
    from unnest(v_v.members, v_said.weights, v_out.probabilities) w (member, weight, p)
    where w.p <> 'NaN';
    select jsonb_object_agg(w.name, w.weight) into v_o.method_weights
    from unnest(v_said.methods, v_said.method_weights) w (name, weight);
    v_o.reason := case
        when v_o.members = '{}' then 'all members sleep'
        when v_said.probability is null then format(
            'method %s says nothing yet: it is not fitted, or no regime is known', v_method
        )
        when v_o.slept <> '{}' then format(
            '%s of %s members sleep', (select count(*) from jsonb_object_keys(v_o.slept)),
            cardinality(v_v.members)
        )
    end;
    if v_o.members = '{}' and v_v.settings ->> 'fallback' = 'similar_states' then
        select f.* into v_said from ml._similar_states_say(v_o.symbol, v_ask, v_o.horizon) f;
        if v_said.probability is not null then
            v_o.probability := v_said.probability;
            v_o.lower := v_said.lower;
            v_o.upper := v_said.upper;
            v_o.confidence := 1 - (v_said.upper - v_said.lower);
            v_o.method := 'similar_states';
            v_o.weights := '{"similar_states": 1}';
            v_o.method_weights := '{}';
        end if;
        v_o.reason := v_o.reason || '; ' || v_said.reason;
    end if;
    if v_o.probability is not null then
        v_o.risk_level := ml.risk_level(v_v.members[1], v_o.probability);
    end if;
    v_out.answer := v_o;
    return v_out;
end
$$;

create or replace function ml._ensemble_of(horizon interval, ensemble text) returns text
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    v_found text;
begin
    if ensemble is not null then
        return (ml._ensemble(ensemble)).ensemble;
    end if;
    select e.ensemble into v_found
    from ml.ensembles e
    join ml.labels l on l.label = e.label
    where l.horizon = _ensemble_of.horizon
    order by l.kind <> 'liquidation', e.ensemble
    limit 1;
    if not found then
        raise exception 'no ensemble for a horizon of %', coalesce(horizon::text, 'null')
        using errcode = 'AP530',
        detail = format('Horizons there are: %s.', coalesce((
            select string_agg(distinct l.horizon::text, ', ')
            from ml.ensembles e join ml.labels l on l.label = e.label
        ), 'none')),
        hint = 'Make one: select ml.create_ensemble(name, label, members)';
    end if;
    return v_found;
end
$$;

create or replace function ml.predict_ensemble(
    symbol text, horizon interval default interval '15 minutes', as_of timestamptz default null,
    method text default null, ensemble text default null, version bigint default null,
    on_error text default 'error'
)
returns setof ml.ensemble_answer
language plpgsql stable parallel restricted
set search_path = pg_catalog, pg_temp set intervalstyle = 'postgres'
rows 1
as $$
declare
    v_state text;
    v_message text;
    v_detail text;
    v_hint text;
    v_o ml.ensemble_answer;
begin
    if on_error is null or on_error not in ('error', 'null') then
        raise exception 'on_error is %, it must be error or null', coalesce(quote_literal(on_error), 'null')
        using errcode = 'AP512',
        hint = 'error: raise it. null: a row of nulls whose reason says what is wrong.';
    end if;
    begin
        return query select (s.answer).*
            from ml._serve_ensemble(ml._ensemble_of(horizon, ensemble), symbol, as_of, method, version) s;
        return;
    exception when others then
        get stacked diagnostics
            v_state = returned_sqlstate, v_message = message_text,
            v_detail = pg_exception_detail, v_hint = pg_exception_hint;
    end;
    v_message := ml._plain(v_message);
    if on_error = 'error' or v_state not like 'AP%' then
        raise exception using
            errcode = v_state, message = v_message, detail = coalesce(v_detail, ''),
            hint = coalesce(v_hint, '');
    end if;
    v_o.symbol := symbol;
    v_o.as_of := coalesce(as_of, now());
    v_o.horizon := horizon;
    v_o.is_fallback := true;
    v_o.reason := v_message || coalesce('; ' || nullif(v_hint, ''), '');
    return next v_o;
end
$$;
comment on function ml.predict_ensemble(text, interval, timestamptz, text, text, bigint, text) is
'What an ensemble (ensemble, else that of a label of the horizon, liquidations first) says of a symbol as of a time (default: now). method: one of ml.ensemble_methods (default: the ensemble''s own); auto is a Bayes mixture of all. Members answer as ml.predict has them answer at as_of; one that is missing, expired, fails, or has only a base rate sleeps (slept says why) and the weights of the awake ones, which sum to one, are renormalised. Where all sleep and the ensemble''s settings have fallback similar_states, analytics.similar_outcomes answers (method similar_states, is_fallback). Weights are a function of the rounds and outcomes known by as_of, and of the regime''s probabilities then. [lower, upper]: where the event''s frequency lies at 90 %, by the rounds in which about the same was said: Wilson''s interval, rounds nearer than the horizon counting less, put at the probability, which it always contains; confidence: 1 less its width. It writes nothing. on_error => ''null'': in place of an error a row of nulls with the reason. Errors: as ml.predict, AP512 on_error, AP520 unknown ensemble, AP522 version, AP529 method, AP530 no ensemble for the horizon.';

create or replace function ml._record_ensemble(
    ensemble text, symbol text, as_of timestamptz, version bigint
)
returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set timezone = 'UTC' set intervalstyle = 'postgres'
as $$
declare
    v_start timestamptz := clock_timestamp();
    v_s ml.ensemble_served := ml._serve_ensemble(ensemble, symbol, as_of, null, version);
    v_a ml.ensemble_answer := v_s.answer;
    v_grid interval;
    v_id bigint;
begin
    if v_a.probability is null then
        raise exception 'there is no prediction to record for % at %', v_a.symbol, v_a.as_of
        using errcode = 'AP509', detail = v_a.reason,
        hint = 'Promote a version, or set the policy to flag or fallback.';
    end if;
    select min(s.grid) into v_grid
    from ml.models m
    join feature.sets s on s.name = m.feature_set and s.version = m.feature_version
    join ml.ensembles e on e.ensemble = v_a.ensemble and m.label = e.label;
    insert into ml.predictions (
        as_of, symbol, model, horizon, prediction, probability, confidence, risk_level, regime,
        feature_as_of, partition_used, is_fallback, details, created_by
    )
    select
        v_a.as_of, v_a.symbol, v_a.ensemble, v_a.horizon, v_a.probability, v_a.probability,
        v_a.confidence, v_a.risk_level, v_a.regime, public.time_bucket(v_grid, v_a.as_of),
        'ensemble', v_a.is_fallback,
        jsonb_build_object(
            'ensemble_version_id', v_a.ensemble_version_id, 'method', v_a.method,
            'weights', v_a.weights, 'method_weights', v_a.method_weights, 'members', v_a.members,
            'slept', v_a.slept, 'regimes', to_jsonb(v_s.regimes), 'setup', v_s.setup,
            'state', v_s.state, 'vectors', v_s.vectors, 'lower', v_a.lower, 'upper', v_a.upper,
            'reason', v_a.reason, 'trained_to', v_a.trained_to, 'in_sample', v_a.in_sample,
            'staleness_s', v_a.staleness_s, 'label', e.label, 'grid', v_grid,
            'asked', jsonb_build_object(
                'symbol', v_a.symbol, 'as_of', v_a.as_of, 'horizon', v_a.horizon
            ),
            'latency_ms', extract(epoch from clock_timestamp() - v_start) * 1000
        ), session_user
    from ml.ensembles e
    where e.ensemble = v_a.ensemble
    returning prediction_id into v_id;
    insert into ml.ensemble_rounds (
        ensemble, symbol, ts, known_at, probabilities, regimes, source
    )
    select
        v_a.ensemble, v_a.symbol, public.time_bucket(v_grid, v_a.as_of), v_a.as_of,
        jsonb_object_agg(m.key, m.value -> 'probability'),
        coalesce(v_a.regime_probabilities, '{}'), 'recorded'
    from jsonb_each(v_a.members) m
    where not v_a.in_sample
    having count(*) > 0
    on conflict do nothing;
    return v_id;
end
$$;

-- An ensemble's recorded prediction made again: its members from their vectors, the rest from what had
-- been learned by then.
create or replace function ml._replay_ensemble(details jsonb) returns double precision
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
declare
    v_x double precision [];
begin
    if details ->> 'method' = 'similar_states' then
        return (
            select f.probability
            from ml._similar_states_say(
                details #>> '{asked,symbol}', (details #>> '{asked,as_of}')::timestamptz,
                (details #>> '{asked,horizon}')::interval
            ) f
        );
    end if;
    select array_agg(
        coalesce(
            ml.predict_version(
                (details -> 'members' -> m.member ->> 'version_id')::bigint,
                array(
                    select (e.value #>> '{}')::double precision
                    from jsonb_array_elements(details -> 'vectors' -> m.member)
                        with ordinality e (value, i)
                    order by e.i
                )
            ),
            'NaN'
        ) order by m.i
    )
    into v_x
    from (
        select m.member, m.i
        from jsonb_array_elements_text(details -> 'setup' -> 'members') with ordinality m (member, i)
        where details -> 'members' ? m.member
    ) m;
    -- Sleepers where they were.
    select array_agg(coalesce(a.x, 'NaN') order by m.i)
    into v_x
    from jsonb_array_elements_text(details -> 'setup' -> 'members') with ordinality m (member, i)
    left join (
        select w.member, v_x[w.place] as x
        from (
            select n.member, row_number() over (order by n.i) as place
            from jsonb_array_elements_text(details -> 'setup' -> 'members')
                with ordinality n (member, i)
            where details -> 'members' ? n.member
        ) w
    ) a on a.member = m.member;
    return (ml._ensemble_say(
        details -> 'setup', details ->> 'state', v_x,
        array(
            select (e.value #>> '{}')::double precision
            from jsonb_array_elements(details -> 'regimes') with ordinality e (value, i)
            order by e.i
        ),
        details ->> 'method'
    )).probability;
end
$$;

create or replace view ml.ensemble_weights as
select
    p.as_of,
    p.symbol,
    p.model as ensemble,
    p.details ->> 'method' as method,
    w.key as member,
    (w.value #>> '{}')::double precision as weight,
    (p.details -> 'members' -> w.key ->> 'probability')::double precision as probability,
    p.regime
from ml.predictions as p
cross join lateral jsonb_each(p.details -> 'weights') as w
where p.partition_used = 'ensemble';
comment on view ml.ensemble_weights is
'The weights of the awake members of recorded ensemble predictions, a row each.';
comment on column ml.ensemble_weights.as_of is 'The time of the prediction.';
comment on column ml.ensemble_weights.symbol is 'The canonical symbol.';
comment on column ml.ensemble_weights.ensemble is 'The ensemble.';
comment on column ml.ensemble_weights.method is 'The method that answered.';
comment on column ml.ensemble_weights.member is 'The model.';
comment on column ml.ensemble_weights.weight is 'Its weight; those of the awake sum to one.';
comment on column ml.ensemble_weights.probability is 'What it said.';
comment on column ml.ensemble_weights.regime is 'The regime then.';

create or replace view ml.regret as
select
    v.ensemble,
    s.symbol,
    s.ensemble_version_id,
    s.through,
    g.kind,
    g.name,
    g.outcomes,
    g.mixture_loss,
    g.loss,
    g.mixture_loss - g.loss as regret,
    g.bound,
    g.mixture_loss - g.loss <= g.bound as within_bound
from ml.ensemble_states as s
inner join ml.ensemble_versions as v on s.ensemble_version_id = v.ensemble_version_id
cross join lateral ml._ensemble_regrets(ml._ensemble_setup(v), s.state) as g
where
    s.through = (
        select max(o.through) from ml.ensemble_states as o
        where o.ensemble_version_id = s.ensemble_version_id and o.symbol = s.symbol
    );
comment on view ml.regret is
'What auto lost, in nats of log loss, more than each method and member over the same outcomes (a member: those while it was awake), as of the newest kept state, with the bound that holds for every method: ln M and the price of switching. Source: Vovk (1990); Herbster and Warmuth (1998).';
comment on column ml.regret.ensemble is 'The ensemble.';
comment on column ml.regret.symbol is 'The canonical symbol.';
comment on column ml.regret.ensemble_version_id is 'Its version.';
comment on column ml.regret.through is 'What was known by then is counted.';
comment on column ml.regret.kind is 'method or member.';
comment on column ml.regret.name is 'Which.';
comment on column ml.regret.outcomes is 'Outcomes counted.';
comment on column ml.regret.mixture_loss is 'Total log loss of auto over them.';
comment on column ml.regret.loss is 'Total log loss of the method or member over them.';
comment on column ml.regret.regret is 'mixture_loss less loss.';
comment on column ml.regret.bound is 'The most that regret can be; null for members.';
comment on column ml.regret.within_bound is 'Whether it is.';
