-- The order book a moment from now: three regressions in one row.
create or replace function ml._forecast_order_book(
    asked_symbol text, asked_horizon interval, asked_as_of timestamptz, on_error text
)
returns table (
    symbol text, as_of timestamptz, horizon interval, spread_bps double precision,
    spread_lower double precision, spread_upper double precision, imbalance double precision,
    imbalance_lower double precision, imbalance_upper double precision,
    mid_change_bps double precision, mid_change_lower double precision,
    mid_change_upper double precision, regime text, versions jsonb, is_fallback boolean,
    feature_as_of timestamptz, staleness interval, reason text, staleness_s double precision,
    trained_to timestamptz, in_sample boolean
)
language plpgsql stable parallel restricted
set search_path = pg_catalog, pg_temp set intervalstyle = 'postgres'
as $$
#variable_conflict use_column
declare
    v_models jsonb;
    v_answers ml.answer [];
    v_spread ml.answer;
    v_imbalance ml.answer;
    v_mid ml.answer;
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
    -- In one call: each set of features is read once.
    v_answers := array(
        select s.answer
        from ml._serve(
            array[v_models ->> 'spread', v_models ->> 'imbalance', v_models ->> 'mid'],
            asked_symbol, asked_as_of, null, on_error
        ) s
    );
    v_spread := v_answers[1];
    v_imbalance := v_answers[2];
    v_mid := v_answers[3];
    return query select
        v_spread.symbol, v_spread.as_of, v_spread.horizon,
        -- What is null stays null: greatest and least would pass it over.
        case when v_spread.prediction is not null then greatest(v_spread.prediction, 0) end,
        case when v_spread.lower is not null then greatest(v_spread.lower, 0) end,
        case when v_spread.upper is not null then greatest(v_spread.upper, 0) end,
        case when v_imbalance.prediction is not null
            then greatest(least(v_imbalance.prediction, 1), -1) end,
        case when v_imbalance.lower is not null then greatest(v_imbalance.lower, -1) end,
        case when v_imbalance.upper is not null then least(v_imbalance.upper, 1) end,
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
        ), ''),
        v_spread.staleness_s,
        greatest(v_spread.trained_to, v_imbalance.trained_to, v_mid.trained_to),
        v_spread.in_sample or v_imbalance.in_sample or v_mid.in_sample;
end
$$;

create or replace function ml.forecast_order_book(
    symbol text, horizon interval default interval '1 minute', as_of timestamptz default null,
    on_error text default 'error'
)
returns table (
    symbol text, as_of timestamptz, horizon interval, spread_bps double precision,
    spread_lower double precision, spread_upper double precision, imbalance double precision,
    imbalance_lower double precision, imbalance_upper double precision,
    mid_change_bps double precision, mid_change_lower double precision,
    mid_change_upper double precision, regime text, versions jsonb, is_fallback boolean,
    feature_as_of timestamptz, staleness interval, reason text, staleness_s double precision,
    trained_to timestamptz, in_sample boolean
)
language sql stable parallel restricted
rows 1
as $$
    -- search_path: not pinned, so that it is inlined into the caller's plan; names are qualified.
    select f.* from ml._forecast_order_book($1, $2, $3, $4) f
$$;
comment on function ml.forecast_order_book(text, interval, timestamptz, text) is
'The order book of a symbol a horizon after as_of (default: now): relative spread and mid-price change in basis points, top-level imbalance in [-1, 1], each the mean over the last minute of the horizon (models order_book_spread_<h>, order_book_imbalance_<h>, order_book_mid_<h>), with the 90 % conformal interval of each. versions: the version ids. is_fallback: at least one of the three is the trailing mean, for want of a promoted version (reason says which). trained_to: the latest of the three; which versions answer for as_of, and on_error: see ml.predict. Errors: AP101 unknown symbol, AP506 no data at as_of, AP507 horizon not configured.';
