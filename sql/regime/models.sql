-- Learned classifiers: models like any other, whose label is the regime.
insert into ml.labels (label, task, kind, horizon, params, description)
select
    'regime_' || t.suffix, 'regime', 'regime', 12 * t.timeframe,
    jsonb_build_object('bar_seconds', date_part('epoch', t.timeframe)),
    format('Regime of the %s bar that closes at the time, 0 to 5 in the order of regime.states: the simulator''s own, else the verdict in hindsight; rows are purged by 12 bars.', t.timeframe)
from (values
    ('5m', interval '5 minutes'), ('15m', interval '15 minutes'), ('1h', interval '1 hour')
) as t (suffix, timeframe)
on conflict (label) do nothing;

insert into ml.gates (gate, task, metric, comparison, threshold, against, enabled, description)
values
('regime_log_loss', 'regime', 'log_loss', '<', 0, 'baseline', true, 'Its probabilities say more than how frequent the regimes are.'),
('regime_balanced_accuracy', 'regime', 'balanced_accuracy', '>=', 0.5, 'absolute', true, 'Mean share of bars recognised, over the six regimes.'),
('regime_calibration', 'regime', 'ece', '<=', 0.1, 'absolute', true, 'Expected calibration error of the likeliest regime.'),
('regime_champion', 'regime', 'log_loss', '<=', 0.02, 'champion', true, 'Not worse than the champion on the same rows.')
on conflict (gate) do nothing;

create or replace function regime._check_artifact(artifact bytea) returns void
language plpython3u immutable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.regime import service
    service.check_artifact(plpy, artifact)
$python$;
comment on function regime._check_artifact(bytea) is
'Refuses (AP411) what is no regime classifier of JSON parameters: each number''s place, finiteness and range is checked.';

create or replace function regime.create_model(
    model text, timeframe interval default interval '1 hour', description text default null
)
returns text
language plpgsql volatile parallel unsafe set search_path = pg_catalog, pg_temp
as $$
declare
    v_suffix constant text := case timeframe
        when interval '5 minutes' then '5m' when interval '15 minutes' then '15m'
        when interval '1 hour' then '1h' end;
begin
    perform regime._width(timeframe);
    if v_suffix is null then
        raise exception 'no regime model of bars of %', timeframe
        using errcode = 'AP613', hint = 'Models: 5 minutes, 15 minutes, 1 hour; the rules serve all timeframes.';
    end if;
    if model is null or model !~ '^[a-z][a-z0-9_]{0,62}$' then
        raise exception 'not a name for a model: %', coalesce(quote_literal(model), 'null')
        using errcode = 'AP614', hint = 'Small letters, digits and underscores, a letter first.';
    end if;
    insert into ml.models (
        model, label, feature_set, feature_version, algorithm, training, expires_after, description
    )
    select
        create_model.model, 'regime_' || v_suffix, s.name, s.version, 'regime_filter',
        '{"every": "7 days"}', interval '90 days',
        coalesce(create_model.description, format('Market regime of %s bars.', timeframe))
    from feature.sets s
    where s.name = 'regime_' || v_suffix
    order by s.version desc
    limit 1
    on conflict on constraint models_pkey do nothing;
    if not exists (
        select from ml.models m
        where m.model = create_model.model and m.label = 'regime_' || v_suffix
    ) then
        raise exception 'model % is there already and predicts something else', quote_literal(model)
        using errcode = 'AP615', hint = 'Choose another name.';
    end if;
    return model;
end
$$;
comment on function regime.create_model(text, interval, text) is
'Makes a model of the regime of bars of a timeframe, to be trained with ml.retrain (by the
simulator''s regimes where it made the symbol, else by the verdict), promoted with ml.promote and put
to use with regime.use(''learned'', symbol, timeframe, model => …). Calling it again changes nothing.
Errors: AP600, AP613 timeframe, AP614 not a name, AP615 the name is taken.';

create or replace function regime._artifact(version_id bigint)
returns table (artifact bytea, sound boolean)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select v.artifact, v.sha256 = sha256(v.artifact) from ml.model_versions v where v.version_id = $1
$$;
comment on function regime._artifact(bigint) is
'A version''s artifact, and whether it is the one registered.';

create or replace function regime._thresholds_of(symbol text, width bigint) returns jsonb
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select regime.rule_thresholds(regime._rule_set_of($1, $2 * interval '1 microsecond'))
$$;
comment on function regime._thresholds_of(text, bigint) is
'The thresholds of a symbol''s rule set at bars of so many microseconds.';

create or replace function regime._simulated(symbol text, first bigint, stop bigint)
returns table (ts bigint, regime text)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select regime._us(s.ts), s.regime
    from market.simulation_truth s
    where s.symbol = $1 and s.ts >= regime._at($2) and s.ts < regime._at($3)
    union all
    (select null, null from market.simulation_truth s where s.symbol = $1 limit 1)
$$;
comment on function regime._simulated(text, bigint, bigint) is
'The simulator''s regimes of [first, stop), and a row of nulls if it made the symbol at all.';
