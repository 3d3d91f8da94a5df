-- Predictions at the close of a bar, and the newest one for whoever asks.

create or replace function ml.set_live_prediction(
    model text, symbols text [] default null, horizon interval default null,
    enabled boolean default true
)
returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_id bigint;
    v_horizon interval;
    v_symbols text [];
begin
    select l.horizon into v_horizon
    from ml.models m join ml.labels l on l.label = m.label
    where m.model = set_live_prediction.model;
    if not found then
        perform ml._no_champion(model, null);
    end if;
    if horizon is not null and horizon <> v_horizon then
        raise exception 'model % looks % ahead, not %', model, v_horizon, horizon
        using errcode = 'AP938', hint = 'select model, horizon from ml.models join ml.labels using (label)';
    end if;
    if symbols is not null then
        v_symbols := array(select distinct market.resolve(u.s) from unnest(symbols) u (s) order by 1);
    end if;
    insert into ml.live_predictions as p (model, symbols, horizon, enabled)
    values (set_live_prediction.model, v_symbols, v_horizon, coalesce(set_live_prediction.enabled, true))
    on conflict on constraint live_predictions_model_symbols_key do update
    set enabled = excluded.enabled
    returning p.rule_id into v_id;
    return v_id;
end
$$;
comment on function ml.set_live_prediction(text, text [], interval, boolean) is
'Makes or changes the rule that a model predicts these symbols (null: all of live streams) at the close of
each bar of its grid. Returns rule_id. Errors: AP101 unknown symbol, AP302 unknown model, AP938 the model
has another horizon.';

create or replace function ml._live_symbols(rule ml.live_predictions, close timestamptz, grid interval)
returns text []
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(
        rule.symbols,
        array(
            select distinct i.symbol
            from market.streams s
            cross join lateral unnest(s.symbols) u (native)
            join market.instruments i on i.native_symbol = upper(u.native)
            where s.heartbeat_at > clock_timestamp() - interval '10 minutes'
                and i.exchange = split_part(s.exchange, '-', 1)
            order by 1
        )
    )
$$;
comment on function ml._live_symbols(ml.live_predictions, timestamptz, interval) is 'The symbols of a rule.';

create or replace function ml._store_live(
    rule_id bigint, close timestamptz, symbols text [], started_at timestamptz,
    materialised_at timestamptz
)
returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set timezone = 'UTC'
as $$
declare
    v_rule ml.live_predictions;
    v_label record;
    v_policy text := ops.setting_text('ml.gap_policy', 'flag');
    v_stored integer;
    v_out jsonb;
begin
    select * into strict v_rule from ml.live_predictions p where p.rule_id = _store_live.rule_id for update;
    if v_rule.last_close >= close then
        return 0; -- another was faster
    end if;
    select l.label, l.task, l.horizon, s.set_id, s.grid, s.lookback into strict v_label
    from ml.models m
    join ml.labels l on l.label = m.label
    join feature.sets s on s.name = m.feature_set and s.version = m.feature_version
    where m.model = v_rule.model;
    with asked as materialized (
        select p.symbol, p.prediction, p.version_id, p.trained_to, p.in_sample, p.reason,
            exists (
                select from market.gaps_over(p.symbol, close - v_label.lookback, close, close) g
            ) as incomplete
        from ml.predict_many(
            v_rule.model,
            format('select u as symbol, %L::timestamptz as ts from unnest(%L::text[]) u', close, symbols),
            on_error => 'null'
        ) p
    ),
    stored as (
        insert into ml.predictions (
            as_of, symbol, model, horizon, version_id, prediction, probability, risk_level,
            feature_as_of, features, partition_used, details
        )
        select
            close, a.symbol, v_rule.model, v_label.horizon, a.version_id, a.prediction,
            case when v_label.task = 'classification' then a.prediction end,
            case when v_label.task = 'classification' then ml.risk_level(v_rule.model, a.prediction) end,
            close, v.values, 'live rule',
            jsonb_build_object(
                'rule', v_rule.rule_id, 'incomplete', a.incomplete, 'trained_to', a.trained_to,
                'label', v_label.label, 'grid', v_label.grid
            )
        from asked a
        left join feature.valid_vectors v
            on v.set_id = v_label.set_id and v.symbol = a.symbol and v.ts = close
        where a.prediction is not null and not (a.incomplete and v_policy <> 'flag')
        returning 1
    )
    select
        (select count(*) from stored),
        coalesce((
            select jsonb_object_agg(r.reason, r.n)
            from (
                select
                    case when a.prediction is not null then 'incomplete data' else coalesce(a.reason, 'none') end as reason,
                    count(*) as n
                from asked a
                where a.prediction is null or a.incomplete and v_policy <> 'flag'
                group by 1
            ) r
        ), '{}')
    into v_stored, v_out;
    insert into ml.live_runs
    values (v_rule.rule_id, close, started_at, materialised_at, clock_timestamp(),
        cardinality(symbols), v_stored, v_out);
    update ml.live_predictions p set last_close = close where p.rule_id = v_rule.rule_id;
    return v_stored;
end
$$;
comment on function ml._store_live(bigint, timestamptz, text [], timestamptz, timestamptz) is
'Predicts a rule''s symbols at a close and writes it down, once whoever calls it; how many.';

-- It commits between rules, so it cannot pin search_path; every name is qualified.
create or replace procedure ml.record_live(at timestamptz default null)
language plpgsql
as $$
declare
    v_rule ml.live_predictions;
    v_set record;
    v_close timestamptz;
    v_symbols text [];
    v_started timestamptz;
    v_done timestamptz;
begin
    for v_rule in select p.* from ml.live_predictions p where p.enabled order by p.rule_id loop
        select s.name, s.version, s.grid into v_set
        from ml.models m
        join feature.sets s on s.name = m.feature_set and s.version = m.feature_version
        where m.model = v_rule.model;
        v_close := public.time_bucket(v_set.grid, coalesce(at, pg_catalog.clock_timestamp()));
        continue when v_rule.last_close >= v_close;
        v_symbols := ml._live_symbols(v_rule, v_close, v_set.grid);
        continue when pg_catalog.cardinality(v_symbols) = 0;
        v_started := pg_catalog.clock_timestamp();
        call feature.materialise_at(v_set.name, v_close, v_symbols, v_set.version);
        v_done := pg_catalog.clock_timestamp();
        perform ml._store_live(v_rule.rule_id, v_close, v_symbols, v_started, v_done);
        commit;
    end loop;
end
$$;
comment on procedure ml.record_live(timestamptz) is
'For the clock and the dispatcher: where a bar of a rule''s grid has closed by at (default: now) and is not
predicted yet, materialises the vectors of all its symbols and records the predictions, set by set. Each
close once, whoever is first. Errors: as feature.materialise_at.';

create or replace view ml.live_latency as
select
    p.model,
    r.close,
    r.symbols,
    r.stored,
    r.left_out,
    extract(epoch from r.started_at - r.close) * 1000 as close_to_start_ms,
    extract(epoch from r.materialised_at - r.started_at) * 1000 as materialise_ms,
    extract(epoch from r.stored_at - r.materialised_at) * 1000 as predict_ms,
    extract(epoch from r.stored_at - r.close) * 1000 as close_to_stored_ms
from ml.live_runs as r
inner join ml.live_predictions as p on r.rule_id = p.rule_id;
comment on view ml.live_latency is 'How long each stage of predicting at a close took; event to visible is market.stream_health.latency_ms.';
comment on column ml.live_latency.model is 'The model.';
comment on column ml.live_latency.close is 'The close.';
comment on column ml.live_latency.symbols is 'Symbols asked for.';
comment on column ml.live_latency.stored is 'Predictions written.';
comment on column ml.live_latency.left_out is 'Symbols without one, by reason.';
comment on column ml.live_latency.close_to_start_ms is 'From the close until work began.';
comment on column ml.live_latency.materialise_ms is 'Computing and storing the vectors.';
comment on column ml.live_latency.predict_ms is 'Predicting and writing.';
comment on column ml.live_latency.close_to_stored_ms is 'All of it.';

create or replace function ml.latest(model text, symbol text)
returns table (
    prediction double precision, probability double precision, risk_level text, as_of timestamptz,
    age interval, is_hit boolean, version_id bigint, prediction_id bigint, details jsonb
)
language plpgsql volatile security definer rows 1
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_symbol text := market.resolve($2);
    v_now timestamptz := clock_timestamp();
    v_grid interval;
begin
    select s.grid into v_grid
    from ml.models m
    join feature.sets s on s.name = m.feature_set and s.version = m.feature_version
    where m.model = $1;
    if not found then
        perform ml._no_champion($1, null);
    end if;
    return query
        select
            p.prediction, p.probability, p.risk_level, p.as_of, v_now - p.as_of,
            p.as_of >= public.time_bucket(v_grid, v_now), p.version_id, p.prediction_id, p.details
        from ml.predictions p
        where p.model = $1 and p.symbol = v_symbol and p.as_of <= v_now
        order by p.as_of desc, p.prediction_id desc
        limit 1;
    if pg_is_in_recovery() then
        return;
    end if;
    if found and exists (
        select from ml.predictions p
        where p.model = $1 and p.symbol = v_symbol
            and p.as_of >= public.time_bucket(v_grid, v_now) and p.as_of <= v_now
    ) then
        perform nextval('ml.latest_hits');
    else
        perform nextval('ml.latest_misses');
    end if;
end
$$;
comment on function ml.latest(text, text) is
'The newest recorded prediction of a model for a symbol, with its age; is_hit: it is of the newest closed
bar of the model''s grid. No row where none is recorded. Hits and misses are counted (ml.latest_rate; not
on a standby). Errors: AP101 unknown symbol, AP302 unknown model.';

create or replace view ml.latest_rate as
select
    h.hits,
    m.misses,
    h.hits::double precision / nullif(h.hits + m.misses, 0) as hit_rate
from (
    select case when x.is_called then x.last_value + 1 else 0 end as hits from ml.latest_hits as x
) as h
cross join (
    select case when x.is_called then x.last_value + 1 else 0 end as misses
    from ml.latest_misses as x
) as m;
comment on view ml.latest_rate is 'How often ml.latest had the newest closed bar''s prediction.';
comment on column ml.latest_rate.hits is 'Answers of the newest closed bar.';
comment on column ml.latest_rate.misses is 'Older answers, and none.';
comment on column ml.latest_rate.hit_rate is 'Hits of all; null: never asked.';
