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

-- The model of the expected liquidated notional beside a liquidation model: that of the same horizon
-- (first one of the same feature set); null for other models.
create or replace function ml._volume_model(model text) returns text
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select m.model
        from ml.models o
        join ml.labels ol on ol.label = o.label and ol.kind = 'liquidation'
        join ml.labels l on l.kind = 'liquidation_volume' and l.horizon = ol.horizon
        join ml.models m on m.label = l.label
        where o.model = _volume_model.model
        order by (m.feature_set, m.feature_version) is distinct from (o.feature_set, o.feature_version),
            m.model
        limit 1
    );
end
$$;

create or replace function ml._predict_liquidation(
    asked_symbol text, asked_horizon interval, asked_as_of timestamptz, version bigint, on_error text
)
returns table (
    symbol text, as_of timestamptz, horizon interval, probability double precision,
    confidence double precision, risk_level text, expected_volume double precision, regime text,
    model_version bigint, is_fallback boolean, feature_as_of timestamptz, staleness interval,
    lower double precision, upper double precision, expired boolean, out_of_support boolean,
    partition_used text, reason text, staleness_s double precision, version_id bigint,
    version_number integer, chosen text, trained_to timestamptz, in_sample boolean,
    missing_share double precision
)
language plpgsql stable parallel restricted
set search_path = pg_catalog, pg_temp set intervalstyle = 'postgres'
as $$
#variable_conflict use_column
declare
    v_model text;
    v_volume text;
    v_both ml.answer [];
    v_p ml.answer;
    v_v ml.answer;
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
    v_volume := ml._volume_model(v_model);
    -- Both in one call, unless a version is named: each set of features is read once.
    v_both := array(
        select s.answer
        from ml._serve(
            case when version is null then array_remove(array[v_model, v_volume], null)
                else array[v_model] end,
            asked_symbol, asked_as_of, version, on_error
        ) s
    );
    v_p := v_both[1];
    v_v := v_both[2];
    if version is not null and v_volume is not null then
        select (s.answer).* into v_v
        from ml._serve(array[v_volume], asked_symbol, asked_as_of, null, on_error) s;
    end if;
    return query select
        v_p.symbol, v_p.as_of, v_p.horizon, v_p.probability, v_p.confidence,
        ml.risk_level(v_model, v_p.probability), greatest(v_v.prediction, 0 * v_v.prediction),
        v_p.regime, v_p.version_id,
        v_p.is_fallback, v_p.feature_as_of, v_p.staleness, v_p.lower, v_p.upper, v_p.expired,
        v_p.out_of_support, v_p.partition_used, v_p.reason, v_p.staleness_s, v_p.version_id,
        v_p.version_number, v_p.chosen, v_p.trained_to, v_p.in_sample, v_p.missing_share;
end
$$;

create or replace function ml.predict_liquidation(
    symbol text, horizon interval default interval '15 minutes', as_of timestamptz default null,
    version bigint default null, on_error text default 'error'
)
returns table (
    symbol text, as_of timestamptz, horizon interval, probability double precision,
    confidence double precision, risk_level text, expected_volume double precision, regime text,
    model_version bigint, is_fallback boolean, feature_as_of timestamptz, staleness interval,
    lower double precision, upper double precision, expired boolean, out_of_support boolean,
    partition_used text, reason text, staleness_s double precision, version_id bigint,
    version_number integer, chosen text, trained_to timestamptz, in_sample boolean,
    missing_share double precision
)
language sql stable parallel restricted
rows 1
as $$
    -- search_path: not pinned, so that it is inlined into the caller's plan; names are qualified.
    select p.* from ml._predict_liquidation($1, $2, $3, $4, $5) p
$$;
comment on function ml.predict_liquidation(text, interval, timestamptz, bigint, text) is
'The chance that forced liquidations of a symbol in the horizon after as_of (default: now) exceed its own trailing quantile (label liquidation_<h>), calibrated, with the risk level of ml.risk_levels and the expected liquidated notional in quote currency (model liquidation_volume_<h>, else its trailing mean). version_id (model_version is the same under its old name) is the row of ml.model_versions that answered, version_number its number within its line; which one answers for as_of, trained_to, in_sample and the other columns: see ml.predict. is_fallback: no version could serve (then the trailing base rate known at as_of), or an expired one. Errors: as ml.predict, and AP507 horizon not configured.';
