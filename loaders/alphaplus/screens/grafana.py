"""Grafana's dashboards from the list of tiles, by Grafana's own Python builders.

They are files to be imported into a Grafana with a PostgreSQL data source; the page asks which. The
time range is Grafana's; symbol and model are variables, as_of is a text ("now", or a time).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from alphaplus.screens.tiles import FOLDER, Dashboard, Screens, Tile, load, render
from grafana_foundation_sdk.builders import (
    barchart,
    candlestick,
    common,
    stat,
    statetimeline,
    timeseries,
    xychart,
)
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.builders import text as texts
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common as words
from grafana_foundation_sdk.models import dashboard as model

SOURCE = "grafana-postgresql-datasource"
STATES = {"queued": 1, "running": 2, "succeeded": 3, "failed": 4, "cancelled": 5}
_STATE_COLOURS = ("#8d99ae", "#4f9dde", "#2a9d64", "#d1495b", "#f4a261")
_UNITS = {
    "milliseconds": "ms", "seconds, mean": "s", "basis points": "none",
    "probability": "percentunit", "share": "percentunit",
}  # fmt: skip
# Grafana's own words for its filters.
_PUT = {
    "symbol": "nullif(${symbol:sqlstring}, '')::text",
    "model": "nullif(${model:sqlstring}, '')::text",
    "as_of": "analytics.moment(${as_of:sqlstring}::text)",
    "from": "$__timeFrom()::timestamptz",
    "to": "$__timeTo()::timestamptz",
}


class Query(Dataquery):
    """A statement for the PostgreSQL data source."""

    def __init__(self, sql: str, form: str) -> None:
        self.sql = sql
        self.form = form

    def build(self) -> Query:
        """Itself: there is nothing to build."""
        return self

    def to_json(self) -> dict[str, object]:
        """As Grafana keeps it."""
        return {
            "refId": "A", "datasource": {"type": SOURCE, "uid": "${source}"}, "rawQuery": True,
            "editorMode": "code", "format": self.form, "rawSql": self.sql,
        }  # fmt: skip


def templated(query: str) -> str:
    """A query whose parameters are Grafana's variables."""
    return render(query, _PUT.__getitem__)


def statement(tile: Tile) -> tuple[str, str]:
    """What a panel asks: the statement and the form of its answer."""
    inner = templated(tile.query)
    if tile.kind in ("line", "step", "area", "bar", "scatter"):
        named = ", ".join(f'q."{c}"' for c in ([tile.series] if tile.series else []) + tile.y)
        return (
            f'select q."{tile.x}" as "time", {named}\nfrom (\n{inner}\n) q\norder by 1',
            "time_series",
        )
    if tile.kind == "candles":
        wanted = ", ".join(f"q.{name}" for name in [*tile.y, "volume"])
        return f'select q.{tile.x} as "time", {wanted}\nfrom (\n{inner}\n) q\norder by 1', "table"
    if tile.kind == "gantt":
        state = " ".join(f"when '{name}' then {number}" for name, number in STATES.items())
        return (
            f'select q.{tile.x} as "time", q.{tile.y[0]} as metric,'
            f" case q.{tile.series} {state} end as value\nfrom (\n{inner}\n) q\nunion all\n"
            f"select q.{tile.x_to}, q.{tile.y[0]}, null\nfrom (\n{inner}\n) q\norder by 1"
        ), "time_series"
    return inner, "table"


def shades(tile: Tile) -> str:
    """Stretches of one regime under the candles, as annotations."""
    return (
        'select min(r.ts) as "time", max(r.ts) as timeend, r.regime as text, r.regime as tags\n'
        "from (\n    select q.ts, q.regime, row_number() over (order by q.ts)\n"
        "        - row_number() over (partition by q.regime order by q.ts) as run\n"
        f"    from (\n{templated(tile.query)}\n    ) q\n) r\nwhere r.regime is not null\n"
        "group by r.regime, r.run\norder by 1"
    )


def panel(tile: Tile, hint: str) -> Any:
    """A tile as Grafana's panel, without its place."""
    sql, form = statement(tile)
    made = _plain_panel(tile)
    unit = "percentunit" if tile.format.endswith("%") else _UNITS.get(tile.y_unit, "none")
    if tile.kind not in ("table", "heatmap"):
        made = made.unit("short" if unit == "none" else unit)
    made = made.title(tile.title).description(hint).no_value(hint)
    return made.datasource(model.DataSourceRef(SOURCE, "${source}")).with_target(Query(sql, form))


def _plain_panel(tile: Tile) -> Any:
    legend = common.VizLegendOptions().display_mode(words.LegendDisplayMode.LIST)
    legend = legend.placement(words.LegendPlacement.BOTTOM).show_legend(
        bool(tile.series) or len(tile.y) > 1
    )
    kind = tile.kind
    if kind == "number":
        return stat.Panel()
    if kind == "table":
        return tables.Panel()
    if kind == "heatmap":
        colours = build.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(
            [
                model.Threshold(color="transparent", value=None),
                model.Threshold(color="#f4a261", value=0.5),
                model.Threshold(color="#d1495b", value=1.0),
            ]
        )  # fmt: skip
        cell = words.TableColoredBackgroundCellOptions()
        return (
            tables.Panel()
            .thresholds(colours)
            .cell_options(cell)
            .with_transformation(_matrix(tile.x, tile.y[0], tile.value))
        )
    if kind == "candles":
        fields = candlestick.CandlestickFieldMap()
        for name in ("open", "high", "low", "close", "volume"):
            fields = getattr(fields, name)(name)
        return candlestick.Panel().fields(fields)
    if kind == "gantt":
        mapped = {
            str(number): model.ValueMappingResult(text=name, color=colour)
            for (name, number), colour in zip(STATES.items(), _STATE_COLOURS, strict=True)
        }
        return statetimeline.Panel().mappings([model.ValueMap(options=mapped)])
    if kind == "curve":
        drawn = xychart.Panel().axis_label(tile.y_unit).legend(legend)
        if tile.series:
            return drawn.with_transformation(
                model.DataTransformerConfig("partitionByValues", options={"fields": [tile.series]})
            )
        return drawn
    if kind in ("columns", "rows"):
        lying = words.VizOrientation.HORIZONTAL if kind == "rows" else words.VizOrientation.VERTICAL
        bars = barchart.Panel().orientation(lying).axis_label(tile.y_unit).legend(legend)
        if tile.stacked:
            bars = bars.stacking(words.StackingMode.NORMAL)
        if tile.series:
            return bars.with_transformation(_matrix(tile.series, tile.x, tile.y[0]))
        return bars
    lines = timeseries.Panel().axis_label(tile.y_unit).legend(legend)
    if kind == "bar":
        lines = lines.draw_style(words.GraphDrawStyle.BARS).fill_opacity(80)
    elif kind == "scatter":
        lines = lines.draw_style(words.GraphDrawStyle.POINTS)
    elif kind == "step":
        lines = lines.line_interpolation(words.LineInterpolation.STEP_AFTER)
    elif kind == "area":
        lines = lines.fill_opacity(30)
    if tile.markers:
        lines = lines.show_points(words.VisibilityMode.ALWAYS)
    if tile.stacked:
        lines = lines.stacking(common.StackingConfig().mode(words.StackingMode.NORMAL))
    for value, bound in ((tile.y_min, lines.min), (tile.y_max, lines.max)):
        if value is not None:
            lines = bound(value)
    return lines


def _matrix(column: str, row: str, value: str) -> model.DataTransformerConfig:
    return model.DataTransformerConfig(
        "groupingToMatrix",
        options={"columnField": column, "rowField": row, "valueField": value},
    )


def dashboard(page: Dashboard, screens: Screens) -> dict[str, Any]:
    """A page as Grafana imports it."""
    made = (
        build.Dashboard(f"AlphaPlus: {page.title}")
        .uid(f"alphaplus-{page.name}")
        .description(page.about)
        .tags(["alphaplus"])
        .timezone("utc")
        .time("now-7d", "now")
        .editable()
        .with_variable(build.DatasourceVariable("source").label("Database").type(SOURCE))
    )
    for f in screens.filters:
        if f.name == "as_of":
            made = made.with_variable(
                build.TextBoxVariable("as_of").label(f.title).default_value("now")
            )
            continue
        values = (
            f"select '(all)' as __text, '' as __value union all select * from (select x.{f.name},"
            f" x.{f.name} from ({f.query}) x) y (a, b)"
        )
        made = made.with_variable(
            build.QueryVariable(f.name)
            .label(f.title)
            .query(values)
            .datasource(model.DataSourceRef(SOURCE, "${source}"))
            .refresh(model.VariableRefresh.ON_DASHBOARD_LOAD)
        )
    made = made.with_panel(
        texts.Panel()
        .title("")
        .content(page.about)
        .transparent(True)
        .grid_pos(model.GridPos(h=2, w=24, x=0, y=0))
    )
    across, down, tallest = 24, 2, 0
    for tile in page.tiles:
        width, height = 2 * tile.width, max(3, round(tile.height * 1.25))
        if across + width > 24:
            across, down, tallest = 0, down + tallest, 0
        place = model.GridPos(h=height, w=width, x=across, y=down)
        made = made.with_panel(panel(tile, screens.needs[tile.needs].hint).grid_pos(place))
        across, tallest = across + width, max(tallest, height)
    result: dict[str, Any] = json.loads(JSONEncoder(sort_keys=True, indent=1).encode(made.build()))
    result["annotations"] = {
        "list": [_regimes(tile) for tile in page.tiles if tile.kind == "candles"]
    }
    for number, one in enumerate(result["panels"], 1):
        one["id"] = number
    return result


def _regimes(tile: Tile) -> dict[str, Any]:
    query = Query(shades(tile), "table").to_json()
    return {
        "name": "Regimes", "enable": True, "hide": False, "iconColor": "#8d99ae",
        "datasource": query.pop("datasource"), "target": query,
    }  # fmt: skip


def files(screens: Screens) -> dict[str, str]:
    """The file names and their texts."""
    return {
        f"{page.name}.json": json.dumps(dashboard(page, screens), sort_keys=True, indent=1) + "\n"
        for page in screens.dashboards
    }


def write(check: bool = False, folder: Path = FOLDER / "grafana") -> list[Path]:
    """Write the files that are not as they should be (or only look); which those were."""
    made = files(load())
    stale = [name for name, text in made.items() if _text(folder / name) != text]
    if not check:
        folder.mkdir(exist_ok=True)
        for name in stale:
            (folder / name).write_text(made[name])
    return [folder / name for name in stale]


def _text(path: Path) -> str | None:
    return path.read_text() if path.exists() else None
