-- Candles drawn by a template of rectangles (candles.html): each row says where its rectangles stand, in
-- per cent of the picture. The query of the tile and the colours of the regimes are put in. Rows of
-- four kinds, told by the column that is not null: a candle, a line of the price, a time, a regime of
-- the legend.
with bars as (
    {query}
),

scaled as (
    select
        b.*, row_number() over (order by b.ts) - 1 as place, count(*) over () as n,
        min(b.low) over () as bottom, nullif(max(b.high) over () - min(b.low) over (), 0) as height,
        lag(b.regime) over (order by b.ts) is distinct from b.regime as begins
    from bars b
),

steps as (
    select s.bottom, s.height, g.i
    from (select x.bottom, x.height from scaled x limit 1) s
    cross join generate_series(0, 4) g (i)
),

shades (regime, colour) as (
    values {shades}
)

select
    s.ts as candle, null::text as price, null::text as at, null::text as legend,
    round((100.0 * s.place / s.n)::numeric, 3) as x,
    round((100.0 * (s.place + 0.5) / s.n)::numeric, 3) as middle,
    round((100.0 * (s.place + 0.15) / s.n)::numeric, 3) as body_x,
    round((70.0 / s.n)::numeric, 3) as body_width, round((100.2 / s.n)::numeric, 3) as width,
    coalesce(round((100 - 100 * (s.high - s.bottom) / s.height)::numeric, 3), 50) as high_y,
    coalesce(round((100 - 100 * (s.low - s.bottom) / s.height)::numeric, 3), 50) as low_y,
    coalesce(round((100 - 100 * (greatest(s.open, s.close) - s.bottom) / s.height)::numeric, 3), 50) as body_y,
    greatest(
        0.3, coalesce(round((100 * abs(s.open - s.close) / s.height)::numeric, 3), 0)
    ) as body_height,
    case when s.close >= s.open then '#2a9d64' else '#d1495b' end as colour,
    coalesce(h.colour, 'none') as shade,
    concat_ws(
        ', ', to_char(s.ts at time zone 'UTC', 'YYYY-MM-DD HH24:MI'), s.regime, 'open ' || s.open,
        'high ' || s.high, 'low ' || s.low, 'close ' || s.close, 'volume ' || s.volume
    ) as words, concat_ws(', candles of ', s.symbol, s.timeframe) as subject
from scaled s
left join shades h on h.regime = s.regime
union all
select
    null, (
        -- Six figures
        select trim_scale(round(v.v, greatest(0, 5 - floor(log(greatest(abs(v.v), 1e-9)))::integer)))::text
        from (select (t.bottom + t.height * t.i / 4)::numeric as v) v
    ), null, null, null, null, null,
    null, null, 100 - 25 * t.i, null, null, null, null, null, null, null
from steps t
where t.height is not null
union all
select
    null, null, to_char(s.ts at time zone 'UTC', 'MM-DD HH24:MI'), null, null,
    round((100.0 * (s.place + 0.5) / s.n)::numeric, 3), null, null, null, null, null, null, null, null,
    null, null, null
from scaled s
where s.place % greatest(1, s.n / 4) = s.n / 8 % greatest(1, s.n / 4)
union all
select
    null, null, null, replace(r.regime, '_', ' '), null, null, null, null, null, null, null, null, null,
    null, h.colour, null, null
from (select distinct x.regime from scaled x where x.regime is not null) r
join shades h on h.regime = r.regime
