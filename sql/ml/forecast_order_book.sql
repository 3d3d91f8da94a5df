-- The order book a moment from now: three regressions in one row.
create or replace function ml._forecast_order_book(
    asked_symbol text, asked_horizon interval, asked_as_of timestamptz
)
returns table (
    symbol text, as_of timestamptz, horizon interval, spread_bps double precision,
    spread_lower double precision, spread_upper double precision, imbalance double precision,
    imbalance_lower double precision, imbalance_upper double precision,
    mid_change_bps double precision, mid_change_lower double precision,
    mid_change_upper double precision, regime text, versions jsonb, is_fallback boolean,
    feature_as_of timestamptz, staleness interval, reason text
)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_models jsonb;
    v_spread record;
    v_imbalance record;
    v_mid record;
begin
    select jsonb_object_agg(l.kind, m.model) into v_models
    from ml.models m
    join ml.labels l on l.label = m.label
    where l.kind in ('spread', 'imbalance', 'mid') and l.horizon = asked_horizon;
    if v_models is null or not v_models ?& array['spread', 'imbalance', 'mid'] then
        raise exception 'no order-book models for a horizon of %', coalesce(asked_horizon::text, 'null')
        using errcode = 'AP507',
        detail = format('Horizons configured: %s.', coalesce((
            select string_agg(distinct l.horizon::text, ', ') from ml.models m
            join ml.labels l on l.label = m.label where l.kind = 'spread'
        ), 'none')),
        hint = 'Use one of these, or add labels of kind spread, imbalance and mid and their models.';
    end if;
    v_spread := ml._predict(v_models ->> 'spread', asked_symbol, asked_as_of);
    v_imbalance := ml._predict(v_models ->> 'imbalance', asked_symbol, asked_as_of);
    v_mid := ml._predict(v_models ->> 'mid', asked_symbol, asked_as_of);
    return query select
        v_spread.canonical, v_spread.asked_as_of, v_spread.horizon,
        greatest(v_spread.prediction, 0), greatest(v_spread.lower, 0), greatest(v_spread.upper, 0),
        greatest(least(v_imbalance.prediction, 1), -1),
        greatest(v_imbalance.lower, -1), least(v_imbalance.upper, 1),
        v_mid.prediction, v_mid.lower, v_mid.upper, v_spread.regime,
        jsonb_build_object(
            'spread', v_spread.version_id, 'imbalance', v_imbalance.version_id,
            'mid', v_mid.version_id
        ),
        v_spread.is_fallback or v_imbalance.is_fallback or v_mid.is_fallback,
        v_spread.feature_as_of, v_spread.staleness,
        nullif(concat_ws('; ',
            'spread: ' || v_spread.reason, 'imbalance: ' || v_imbalance.reason,
            'mid: ' || v_mid.reason
        ), '');
end
$$;

create or replace function ml.forecast_order_book(
    symbol text, horizon interval default interval '1 minute', as_of timestamptz default null
)
returns table (
    symbol text, as_of timestamptz, horizon interval, spread_bps double precision,
    spread_lower double precision, spread_upper double precision, imbalance double precision,
    imbalance_lower double precision, imbalance_upper double precision,
    mid_change_bps double precision, mid_change_lower double precision,
    mid_change_upper double precision, regime text, versions jsonb, is_fallback boolean,
    feature_as_of timestamptz, staleness interval, reason text
)
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
rows 1
as $$
    select f.* from ml._forecast_order_book($1, $2, $3) f
$$;
comment on function ml.forecast_order_book(text, interval, timestamptz) is
'The order book of a symbol a horizon after as_of (default: now): relative spread and mid-price change in basis points, top-level imbalance in [-1, 1], each the mean over the last minute of the horizon (models order_book_spread_<h>, order_book_imbalance_<h>, order_book_mid_<h>), with the 90 % conformal interval of each. versions: the version ids. is_fallback: at least one of the three is the trailing mean, for want of a promoted version (reason says which). Errors: AP101 unknown symbol, AP506 no data at as_of, AP507 horizon not configured.';
