-- What ensembles learn from: rounds, their outcomes, and the state that follows from both.
create or replace function ml._ensemble_fold(
    setup jsonb, kept text, round_ts bigint [], round_known bigint [], round_x double precision [],
    round_regimes double precision [], outcome_ts bigint [], outcome_known bigint [],
    outcomes double precision []
)
returns text
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.serving import ensemble_calls
    return ensemble_calls.fold(
        plpy, setup, kept, round_ts, round_known, round_x, round_regimes, outcome_ts, outcome_known, outcomes
    )
$python$;

create or replace function ml._ensemble_say(
    setup jsonb, state text, x double precision [], regimes double precision [], method text,
    out probability double precision, out lower double precision, out upper double precision,
    out weights double precision [], out methods text [], out method_weights double precision [],
    out outcomes bigint
)
language plpython3u immutable parallel safe set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.serving import ensemble_calls
    return ensemble_calls.say(setup, state, x, regimes, method)
$python$;

create or replace function ml._ensemble_regrets(setup jsonb, state text)
returns table (
    kind text, name text, outcomes double precision, mixture_loss double precision,
    loss double precision, bound double precision
)
language plpython3u immutable parallel safe set search_path = pg_catalog, pg_temp
rows 16
as $python$
    from alphaplus.server.serving import ensemble_calls
    return ensemble_calls.regrets(setup, state)
$python$;

create or replace function ml._ensemble_fit(
    x double precision [], regimes double precision [], outcomes double precision [],
    members integer, states integer
)
returns double precision []
language plpython3u immutable parallel safe set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.serving import ensemble_calls
    return ensemble_calls.fit(x, regimes, outcomes, members, states)
$python$;

create or replace function ml._us(ts timestamptz) returns bigint
language sql immutable parallel safe set search_path = pg_catalog, pg_temp
return (extract(epoch from ts) * 1000000)::bigint;

-- The rounds of a version and symbol that became known in ["from", "to"), as arrays.
create or replace function ml._ensemble_rounds(
    v ml.ensemble_versions, symbol text, "from" timestamptz, "to" timestamptz,
    out us bigint [], out known bigint [], out x double precision [], out regimes double precision []
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    select
        array_agg(ml._us(r.ts) order by r.ts), array_agg(ml._us(r.known_at) order by r.ts)
    into us, known
    from ml.ensemble_rounds r
    where r.ensemble = v.ensemble and r.symbol = $2 and r.known_at >= $3 and r.known_at < $4;
    select array_agg(coalesce((r.probabilities ->> m.member)::float8, 'NaN') order by r.ts, m.i)
    into x
    from ml.ensemble_rounds r
    cross join unnest(v.members) with ordinality m (member, i)
    where r.ensemble = v.ensemble and r.symbol = $2 and r.known_at >= $3 and r.known_at < $4;
    select array_agg(coalesce((r.regimes ->> s.state)::float8, 0) order by r.ts, s.i)
    into regimes
    from ml.ensemble_rounds r
    cross join unnest(v.regimes) with ordinality s (state, i)
    where r.ensemble = v.ensemble and r.symbol = $2 and r.known_at >= $3 and r.known_at < $4;
end
$$;

-- What a version had learned of a symbol by a time: from the newest state kept that still holds, and
-- what became known since. A function of the rounds and outcomes known by as_of, and of nothing else:
-- an outcome counts from when it was first known on, with the value known by as_of.
create or replace function ml._ensemble_state(
    v ml.ensemble_versions, symbol text, as_of timestamptz
)
returns text
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
declare
    v_label text;
    v_kept record;
    v_through timestamptz := timestamptz '-infinity';
    v_state text;
    v_rounds record;
    v_ts bigint [];
    v_known bigint [];
    v_values double precision [];
begin
    select e.label into v_label from ml.ensembles e where e.ensemble = v.ensemble;
    for v_kept in
        select s.through, s.state
        from ml.ensemble_states s
        where s.ensemble_version_id = v.ensemble_version_id and s.symbol = $2 and s.through <= $3
        order by s.through desc
    loop
        -- It holds unless one of its outcomes was corrected since.
        if not exists (
            select from ml.ensemble_outcomes o
            where o.label = v_label and o.symbol = $2
                and o.known_at > v_kept.through and o.known_at <= $3
                and exists (
                    select from ml.ensemble_outcomes p
                    where p.label = v_label and p.symbol = $2 and p.ts = o.ts
                        and p.known_at <= v_kept.through
                )
        ) then
            v_through := v_kept.through;
            v_state := v_kept.state;
            exit;
        end if;
    end loop;
    v_rounds := ml._ensemble_rounds(v, symbol, v_through, as_of);
    select
        array_agg(ml._us(q.ts) order by q.first_known, q.ts),
        array_agg(ml._us(q.first_known) order by q.first_known, q.ts),
        array_agg(q.outcome order by q.first_known, q.ts)
    into v_ts, v_known, v_values
    from (
        select
            o.ts, min(o.known_at) as first_known,
            (array_agg(o.outcome order by o.known_at desc))[1] as outcome
        from ml.ensemble_outcomes o
        where o.label = v_label and o.symbol = $2 and o.known_at <= $3
            and o.known_at > v_through
        group by o.ts
    ) q;
    if v_state is not null and v_ts is null and v_rounds.us is null then
        return v_state;
    end if;
    return ml._ensemble_fold(
        ml._ensemble_setup(v), v_state, v_rounds.us, v_rounds.known, v_rounds.x, v_rounds.regimes, v_ts, v_known,
        v_values
    );
end
$$;

-- The regimes' probabilities as known at a time, and the likeliest; null where none can be told.
create or replace function ml._regimes_at(
    symbol text, as_of timestamptz, out regime text, out probabilities jsonb
)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
begin
    select c.regime, c.probabilities into regime, probabilities
    from regime.classify(symbol, as_of) c;
exception when others then
    if sqlstate like 'AP%' then
        return;
    end if;
    raise;
end
$$;

create or replace function ml._note_outcomes(
    label text, symbol text, "from" timestamptz, "to" timestamptz, as_of timestamptz,
    at_label_end boolean
)
returns bigint
language plpgsql volatile set search_path = pg_catalog, pg_temp set timezone = 'UTC'
as $$
declare
    v_count bigint;
    v_grid interval;
begin
    select min(s.grid) into v_grid
    from ml.models m
    join feature.sets s on s.name = m.feature_set and s.version = m.feature_version
    where m.label = _note_outcomes.label;
    -- Only where some ensemble has a round, and where it is new or another.
    insert into ml.ensemble_outcomes (label, symbol, ts, known_at, outcome)
    select
        $1, $2, q.ts, case when at_label_end then q.label_end else as_of end, q.target
    from ml.label_values($1, $2, "from", "to", as_of, v_grid) q
    where exists (
            select from ml.ensemble_rounds r
            join ml.ensembles e on e.ensemble = r.ensemble and e.label = $1
            where r.symbol = $2 and public.time_bucket(v_grid, r.ts) = q.ts
        )
        and q.target is distinct from (
            select o.outcome from ml.ensemble_outcomes o
            where o.label = $1 and o.symbol = $2 and o.ts = q.ts
            order by o.known_at desc limit 1
        )
    on conflict do nothing;
    get diagnostics v_count = row_count;
    return v_count;
end
$$;

-- Out-of-fold predictions of the version that serves a symbol.
create or replace function ml._held_out_of(model text, symbol text)
returns table (ts timestamptz, prediction double precision)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select o.ts, o.prediction
    from (select ml.champion($1, $2) as version_id) c
    cross join lateral ml.out_of_fold(c.version_id) o
    where c.version_id is not null and o.symbol = $2
$$;

create or replace procedure ml.fill_ensemble(
    ensemble text, symbol text, "from" timestamptz, "to" timestamptz, every interval default null
)
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC'
as $$
#variable_conflict use_variable
declare
    v_e ml.ensembles := ml._ensemble(ensemble);
    v_symbol text := market.resolve(symbol);
    v_every interval := every;
    v_horizon interval;
begin
    if not (coalesce(isfinite("from"), false) and coalesce(isfinite("to"), false)) then
        raise exception 'a time is null or infinite'
        using errcode = 'AP211', hint = 'Say from when to when, each with a date.';
    end if;
    select l.horizon into v_horizon from ml.labels l where l.label = v_e.label;
    v_every := coalesce(v_every, v_horizon);
    if v_every <= interval '0' or v_every > interval '30 days' then
        raise exception 'a round every % is not possible', v_every
        using errcode = 'AP527', hint = 'Leave it out: a round each horizon.';
    end if;
    insert into ml.ensemble_rounds (
        ensemble, symbol, ts, known_at, probabilities, regimes, source
    )
    select
        v_e.ensemble, v_symbol, q.ts, q.ts, q.probabilities,
        coalesce((ml._regimes_at(v_symbol, q.ts)).probabilities, '{}'),
        case when q.held then 'out of fold' else 'back-filled' end
    from (
        select f.ts, jsonb_object_agg(f.member, f.prediction) as probabilities, bool_or(f.held) as held
        from (
            select
                b.ts, u.member, coalesce(b.then_said, b.held_said) as prediction,
                b.then_said is null as held
            from unnest(v_e.members) u (member)
            cross join lateral (
                select ts, t.prediction as then_said, o.prediction as held_said
                from (
                    select h.ts, h.prediction
                    from ml.predict_history(
                        u.member, v_symbol, "from", "to", choose => 'then', on_error => 'null'
                    ) h
                    where h.prediction is not null
                ) t
                full join (
                    select d.ts, d.prediction
                    from ml._held_out_of(u.member, v_symbol) d
                    where d.ts >= "from" and d.ts < "to" and d.prediction is not null
                ) o using (ts)
            ) b
            where public.time_bucket(v_every, b.ts) = b.ts
        ) f
        group by f.ts
    ) q
    on conflict do nothing;
    perform ml._note_outcomes(v_e.label, v_symbol, "from", "to", "to", true);
end
$$;
comment on procedure ml.fill_ensemble(text, text, timestamptz, timestamptz, interval) is
'Give an ensemble rounds of a symbol at the grid times in [from, to) that are multiples of every (default: the label''s horizon), from stored vectors: what the versions of each time say (ml.predict, chosen: champion then, trained by then), else their out-of-fold predictions, so that no member was trained on what it is judged by; and their outcomes, as known when the label ended. Rounds that are there stay. Errors: AP101, AP102 symbol, AP211 times, AP520 unknown ensemble, AP527 every.';

create or replace procedure ml.join_ensemble_outcomes(as_of timestamptz default null)
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC'
as $$
declare
    v_now timestamptz := ops._moment(as_of);
    v_work record;
begin
    for v_work in
        select e.label, r.symbol, min(r.ts) as first_ts, max(r.ts) as last_ts
        from ml.ensemble_rounds r
        join ml.ensembles e on e.ensemble = r.ensemble
        join ml.labels l on l.label = e.label
        -- Corrections are looked for as long as recorded predictions'.
        where r.ts > v_now - interval '30 days' and r.ts + l.horizon <= v_now
        group by e.label, r.symbol
        order by e.label, r.symbol
    loop
        begin
            perform ml._note_outcomes(
                v_work.label, v_work.symbol, v_work.first_ts - interval '1 day',
                v_work.last_ts + interval '1 day', v_now, false
            );
        exception when others then
            -- One label's fault does not hold up the others.
            raise warning 'outcomes of % for %: %', v_work.label, v_work.symbol, ml._plain(sqlerrm);
        end;
    end loop;
end
$$;
comment on procedure ml.join_ensemble_outcomes(timestamptz) is
'For the clock: note what came of ensembles'' rounds of the last 30 days, as known by as_of (default: now), and what corrections made of it since; each is known from as_of on.';

create or replace procedure ml.refresh_ensembles(as_of timestamptz default null)
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC'
as $$
declare
    v_now timestamptz := ops._moment(as_of);
    v_work record;
begin
    for v_work in
        select distinct r.ensemble, r.symbol from ml.ensemble_rounds r order by r.ensemble, r.symbol
    loop
        insert into ml.ensemble_states (ensemble_version_id, symbol, through, state)
        select
            (s.v).ensemble_version_id, v_work.symbol, v_now,
            ml._ensemble_state(s.v, v_work.symbol, v_now)
        from (select ml._ensemble_serving(v_work.ensemble, v_work.symbol, null) as v) s
        where (s.v).ensemble_version_id is not null
        on conflict do nothing;
        -- Of the older ones one a day stays, for questions about then.
        delete from ml.ensemble_states s
        using ml.ensemble_versions v
        where v.ensemble_version_id = s.ensemble_version_id and v.ensemble = v_work.ensemble
            and s.symbol = v_work.symbol and s.through < v_now - interval '1 hour'
            and exists (
                select from ml.ensemble_states o
                where o.ensemble_version_id = s.ensemble_version_id and o.symbol = s.symbol
                    and o.through > s.through
                    and date_trunc('day', o.through) = date_trunc('day', s.through)
            );
    end loop;
end
$$;
comment on procedure ml.refresh_ensembles(timestamptz) is
'For the clock: keep what every ensemble had learned by as_of (default: now), so that answers begin there and not at the first round.';

create or replace function ml.fit_ensemble(
    ensemble text, symbol text, as_of timestamptz default null
)
returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
declare
    v_e ml.ensembles := ml._ensemble(ensemble);
    v_symbol text := market.resolve(symbol);
    v_now timestamptz := ops._moment(as_of);
    v_base ml.ensemble_versions;
    v_x double precision [];
    v_regimes double precision [];
    v_y double precision [];
    v_rate double precision;
    v_count bigint;
    v_metrics jsonb;
    v_state text;
begin
    v_base := ml._ensemble_serving(ensemble, v_symbol, null);
    with known as (
        select r.ts, r.probabilities, r.regimes, o.outcome
        from ml.ensemble_rounds r
        cross join lateral (
            select o.outcome from ml.ensemble_outcomes o
            where o.label = v_e.label and o.symbol = r.symbol and o.ts = r.ts
                and o.known_at <= v_now
            order by o.known_at desc limit 1
        ) o
        where r.ensemble = v_e.ensemble and r.symbol = v_symbol and r.ts < v_now
    )
    select
        (
            select array_agg(coalesce((k.probabilities ->> m.member)::float8, 'NaN') order by k.ts, m.i)
            from known k cross join unnest(v_e.members) with ordinality m (member, i)
        ),
        (
            select array_agg(coalesce((k.regimes ->> s.state)::float8, 0) order by k.ts, s.i)
            from known k cross join unnest(v_base.regimes) with ordinality s (state, i)
        ),
        (select array_agg(k.outcome order by k.ts) from known k),
        (select count(*) from known), (select avg(k.outcome) from known k)
    into v_x, v_regimes, v_y, v_count, v_rate;
    if v_count < 200 or v_rate in (0, 1) then
        raise exception 'ensemble % has % rounds of % whose outcome is known', ensemble, v_count, v_symbol
        using errcode = 'AP528', detail = 'The stacker needs 200, with both classes among them.',
        hint = 'call ml.fill_ensemble(ensemble, symbol, from, to)';
    end if;
    v_state := ml._ensemble_state(v_base, v_symbol, v_now);
    select jsonb_build_object(
        'outcomes', v_count, 'event_rate', v_rate,
        'base_rate', -(v_rate * ln(v_rate) + (1 - v_rate) * ln(1 - v_rate)),
        'methods', jsonb_object_agg(g.name, g.loss / nullif(g.outcomes, 0)) filter (where g.kind = 'method')
            || jsonb_build_object('auto', max(g.mixture_loss / nullif(g.outcomes, 0)) filter (where g.kind = 'method')),
        'members', jsonb_object_agg(g.name, g.loss / nullif(g.outcomes, 0)) filter (where g.kind = 'member')
    )
    into v_metrics
    from ml._ensemble_regrets(ml._ensemble_setup(v_base), v_state) g;
    return ml._new_ensemble_version(
        ensemble, v_symbol, v_now,
        ml._ensemble_fit(
            v_x, v_regimes, v_y, cardinality(v_e.members), cardinality(v_base.regimes)
        ),
        v_metrics, v_count
    );
end
$$;
comment on function ml.fit_ensemble(text, text, timestamptz) is
'Fit the stacker of an ensemble to a symbol''s rounds whose outcome was known by as_of (default: now), of which no member was trained on its outcome, and write the version with the log losses of all methods and members over them; returns its ensemble_version_id. It serves nobody until ml.promote_ensemble. Errors: AP101, AP102 symbol, AP520 unknown ensemble, AP528 too few rounds.';
