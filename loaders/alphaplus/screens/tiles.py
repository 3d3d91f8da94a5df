"""The list of tiles, and their queries with what the filters say put in."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_type_hints

import psycopg

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "docker" / "dashboards"
PARAMETERS = ("symbol", "model", "as_of", "from", "to")
KINDS = {
    "number", "table", "line", "step", "area", "bar", "columns", "rows", "scatter", "heatmap",
    "gantt", "candles", "curve",
}  # fmt: skip


@dataclass(frozen=True)
class Need:
    """Data that tiles cannot be without: a query that finds some, and what to do without."""

    exists: str
    hint: str


@dataclass(frozen=True)
class Filter:
    """A filter of every dashboard: its title, and the query of its values."""

    name: str
    title: str
    query: str


@dataclass(frozen=True)
class Tile:
    """One picture, number or table."""

    dashboard: str
    name: str
    title: str
    kind: str
    width: int
    height: int
    needs: str
    query: str
    x: str = ""
    x_to: str = ""
    y: list[str] = field(default_factory=list)
    series: str = ""
    value: str = ""
    x_unit: str = ""
    y_unit: str = ""
    unit: str = ""
    format: str = ""
    order: str = "value"
    stacked: bool = False
    markers: bool = False
    y_min: float | None = None
    y_max: float | None = None

    @property
    def columns(self) -> list[str]:
        """The columns of its query that its picture names."""
        named = [self.x, self.x_to, *self.y, self.series, self.value]
        return [name for name in named if name]


@dataclass(frozen=True)
class Dashboard:
    """A page of tiles, in their order."""

    name: str
    title: str
    about: str
    tiles: list[Tile]


@dataclass(frozen=True)
class Screens:
    """All of docker/dashboards/tiles.toml."""

    dashboards: list[Dashboard]
    filters: list[Filter]
    needs: dict[str, Need]

    @property
    def tiles(self) -> list[Tile]:
        """The tiles of all dashboards."""
        return [tile for dashboard in self.dashboards for tile in dashboard.tiles]


def load(path: Path = FOLDER / "tiles.toml") -> Screens:
    """The list, checked: what it names is there, and no name is there twice."""
    raw = tomllib.loads(path.read_text())
    needs = {name: Need(**row) for name, row in raw["needs"].items()}
    tiles = [_tile(row) for row in raw["tiles"]]
    names = [tile.name for tile in tiles]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{path.name}: two tiles are named {', '.join(twice)}")
    for tile in tiles:
        for wrong, what in (
            (tile.kind not in KINDS, f"unknown kind {tile.kind}"),
            (tile.needs not in needs, f"unknown need {tile.needs}"),
            (tile.dashboard not in raw["dashboards"], f"unknown dashboard {tile.dashboard}"),
            (not 1 <= tile.width <= 12, "width is 1 to 12"),
        ):
            if wrong:
                raise ValueError(f"{path.name}: tile {tile.name}: {what}")
    return Screens(
        [
            Dashboard(name, row["title"], row["about"], [t for t in tiles if t.dashboard == name])
            for name, row in raw["dashboards"].items()
        ],
        [Filter(name, row["title"], row["query"]) for name, row in raw["filters"].items()],
        needs,
    )


def _tile(row: dict[str, Any]) -> Tile:
    hints = get_type_hints(Tile)
    for name, value in row.items():
        kind = hints.get(name)
        allowed = tuple(get_args(kind)) or (kind,) if kind != list[str] else (list,)
        if kind is None or not isinstance(value, allowed):
            raise ValueError(f"tiles.toml: tile {row.get('name')}: {name} = {value!r}")
    return Tile(**row)


def quoted(value: str) -> str:
    """A text as a literal of SQL."""
    return "'" + value.replace("'", "''") + "'"


def render(query: str, put: Callable[[str], str]) -> str:
    """A query with each of its parameters replaced by what ``put`` gives for its name."""
    return re.sub(r"\{(" + "|".join(PARAMETERS) + r")\}", lambda m: put(m[1]), query).strip()


def plain(query: str, **values: str | None) -> str:
    """A query for values as they are; what is left out is null."""

    def put(name: str) -> str:
        value = values.get(name)
        if name == "as_of":
            return f"analytics.moment({quoted(value) if value else 'null'})"
        kind = "text" if name in ("symbol", "model") else "timestamptz"
        return f"{quoted(value) if value else 'null'}::{kind}"

    return render(query, put)


def notes(dashboard: Dashboard, needs: dict[str, Need]) -> str:
    """A query for what a dashboard lacks: the titles of the tiles, and what to do.

    Its first row is there always (its hint null), so that a page that lacks nothing has its words.
    """
    rows = ["select null::text as tiles, null::text as hint"]
    for name in _in_order(tile.needs for tile in dashboard.tiles):
        titles = ", ".join(tile.title for tile in dashboard.tiles if tile.needs == name)
        rows.append(
            f"select {quoted(titles)}, {quoted(needs[name].hint)}"
            f" where not exists ({needs[name].exists})"
        )
    return "\nunion all\n".join(rows)


def _in_order(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def register(conn: psycopg.Connection[Any], screens: Screens) -> int:
    """Note every tile in the database, so that no migration breaks one unnoticed; how many.

    See analytics.register_tile. ``conn`` is the operator's.
    """
    with conn.transaction():
        for page in screens.dashboards:
            conn.execute("select analytics.forget_tiles(%s)", (page.title,))
            for tile in page.tiles:
                conn.execute(
                    "select analytics.register_tile(%s, %s, %s)",
                    (page.title, tile.title, plain(tile.query)),
                )
    return len(screens.tiles)
