"""Candles for Superset, which has none: a picture drawn by a template of rectangles.

The tile's query is wrapped so that each row says where its rectangles stand, in per cent of the
picture; the template only puts them down. So it fits any width, and any theme: what is not coloured
has the colour of the text.
"""

from __future__ import annotations

from alphaplus.screens.tiles import Tile

COLOURS = {
    "bull_trending": "#2a9d64", "bear_trending": "#d1495b", "sideways": "#8d99ae",
    "high_volatility": "#f4a261", "low_volatility": "#4f9dde", "crash": "#6d2e8f",
}  # fmt: skip

# Rows of four kinds, told by the column that is not null: a candle, a line of the price, a time, a
# regime of the legend.
_SQL = """
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
    null, to_char(t.bottom + t.height * t.i / 4, 'FM999,999,999,990.0099'), null, null, null, null, null,
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
"""

TEMPLATE = """<div class="ap-candles">
<div class="ap-legend">{{#with data.[0]}}<b>{{subject}}</b>{{/with}} (time UTC, price in quote currency)
{{#each data}}{{#if legend}}<span style="white-space: nowrap; margin-left: 12px"><span
style="background-color: {{shade}}; opacity: 0.45">&nbsp;&nbsp;&nbsp;&nbsp;</span> {{legend}}</span>{{/if}}{{/each}}</div>
<svg width="100%" height="100%">
<svg x="0%" y="3%" width="92%" height="88%" overflow="visible">
{{#each data}}{{#if candle}}<rect x="{{x}}%" y="0%" width="{{width}}%" height="100%" fill="{{shade}}" fill-opacity="0.22"></rect>{{/if}}{{/each}}
{{#each data}}{{#if price}}<line x1="0%" x2="100%" y1="{{high_y}}%" y2="{{high_y}}%" stroke="currentColor" stroke-opacity="0.15"></line><text x="100.5%" y="{{high_y}}%" fill="currentColor" font-size="11" dominant-baseline="middle">{{price}}</text>{{/if}}{{/each}}
{{#each data}}{{#if candle}}<g><title>{{words}}</title><line x1="{{middle}}%" x2="{{middle}}%" y1="{{high_y}}%" y2="{{low_y}}%" stroke="{{colour}}"></line><rect x="{{body_x}}%" y="{{body_y}}%" width="{{body_width}}%" height="{{body_height}}%" fill="{{colour}}"></rect></g>{{/if}}{{/each}}
{{#each data}}{{#if at}}<text x="{{middle}}%" y="106%" fill="currentColor" font-size="11" text-anchor="middle">{{at}}</text>{{/if}}{{/each}}
</svg></svg></div>"""

STYLE = """.ap-candles { height: 100%; display: flex; flex-direction: column }
.ap-candles svg { flex: 1; min-height: 0 }
.ap-legend { font-size: 12px; line-height: 20px }"""


def picture(tile: Tile) -> str:
    """The tile's query as rows that the template draws."""
    shades = ", ".join(f"('{name}', '{colour}')" for name, colour in COLOURS.items())
    return _SQL.replace("{query}", tile.query.strip()).replace("{shades}", shades).strip()
