-- Liquidations: probability, level of risk, expected volume.
create or replace function ml.risk_level(model text, probability double precision) returns text
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select r.risk_level
        from ml.risk_levels r
        where r.min_probability <= $2
            and case
                when exists (select from ml.risk_levels o where o.model = $1) then r.model = $1
                else r.model is null
            end
        order by r.min_probability desc
        limit 1
    );
end
$$;
comment on function ml.risk_level(text, double precision) is
'low, medium, high or critical: the highest level in ml.risk_levels that the probability reaches; a model''s own rows replace the default ones.';

-- Expected liquidated notional beside a liquidation model: what ml.predict says by the volume model of
-- the same horizon (first one of the same feature set), at last its label's trailing mean; null for
-- other models.
create or replace function ml._expected_volume(
    model text, symbol text, as_of timestamptz, vector_set integer, features double precision []
)
returns double precision
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
declare
    v_volume text;
    v_expected double precision;
begin
    select m.model into v_volume
    from ml.models o
    join ml.labels ol on ol.label = o.label and ol.kind = 'liquidation'
    join ml.labels l on l.kind = 'liquidation_volume' and l.horizon = ol.horizon
    join ml.models m on m.label = l.label
    where o.model = _expected_volume.model
    order by (m.feature_set, m.feature_version) is distinct from (o.feature_set, o.feature_version),
        m.model
    limit 1;
    if found then
        select p.prediction into v_expected
        from ml._predict(v_volume, symbol, as_of, vector_set, features) p;
    end if;
    return case when v_expected < 0 then 0 else v_expected end;
end
$$;

create or replace function ml._predict_liquidation(
    asked_symbol text, asked_horizon interval, asked_as_of timestamptz
)
returns table (
    symbol text, as_of timestamptz, horizon interval, probability double precision,
    confidence double precision, risk_level text, expected_volume double precision, regime text,
    model_version bigint, is_fallback boolean, feature_as_of timestamptz, staleness interval,
    lower double precision, upper double precision, expired boolean, out_of_support boolean,
    partition_used text, reason text
)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_model text;
    v_p record;
    v_expected double precision;
begin
    select m.model into v_model
    from ml.models m join ml.labels l on l.label = m.label
    where l.kind = 'liquidation' and l.horizon = asked_horizon
    order by m.model limit 1;
    if not found then
        raise exception 'no liquidation model for a horizon of %', coalesce(asked_horizon::text, 'null')
        using errcode = 'AP507',
        detail = format('Horizons configured: %s.', coalesce((
            select string_agg(distinct l.horizon::text, ', ') from ml.models m
            join ml.labels l on l.label = m.label where l.kind = 'liquidation'
        ), 'none')),
        hint = 'Use one of these, or add a label and a model for this one (ml.labels, ml.models).';
    end if;
    v_p := ml._predict(v_model, asked_symbol, asked_as_of);
    v_expected := ml._expected_volume(
        v_model, v_p.canonical, v_p.asked_as_of, v_p.vector_set, v_p.features
    );
    return query select
        v_p.canonical, v_p.asked_as_of, v_p.horizon, v_p.probability, v_p.confidence,
        ml.risk_level(v_model, v_p.probability), v_expected, v_p.regime, v_p.version_id,
        v_p.is_fallback, v_p.feature_as_of, v_p.staleness, v_p.lower, v_p.upper, v_p.expired,
        v_p.out_of_support, v_p.partition_used, v_p.reason;
end
$$;

create or replace function ml.predict_liquidation(
    symbol text, horizon interval default interval '15 minutes', as_of timestamptz default null
)
returns table (
    symbol text, as_of timestamptz, horizon interval, probability double precision,
    confidence double precision, risk_level text, expected_volume double precision, regime text,
    model_version bigint, is_fallback boolean, feature_as_of timestamptz, staleness interval,
    lower double precision, upper double precision, expired boolean, out_of_support boolean,
    partition_used text, reason text
)
language sql stable parallel restricted
rows 1
as $$
    -- search_path: not pinned, so that it is inlined into the caller's plan; names are qualified.
    select p.* from ml._predict_liquidation($1, $2, $3) p
$$;
comment on function ml.predict_liquidation(text, interval, timestamptz) is
'The chance that forced liquidations of a symbol in the horizon after as_of (default: now) exceed its own trailing quantile (label liquidation_<h>), calibrated, with the risk level of ml.risk_levels and the expected liquidated notional in quote currency (model liquidation_volume_<h>, else its trailing mean). confidence, lower, upper, expired, out_of_support, partition_used, staleness: see ml.predict. is_fallback: no promoted version (then the trailing base rate known at as_of), or an expired one. Errors: AP101 unknown symbol, AP506 no data at as_of, AP507 horizon not configured, AP502/AP503 unusable artifact.';
