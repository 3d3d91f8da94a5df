"""Every tile of every dashboard: its query runs for the reader, on no data and on some."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from alphaplus.screens import grafana, superset, tiles

from tests.db import screens_world

Conn = psycopg.Connection[Any]
SCREENS = tiles.load()
QUERIES = {**{t.name: t.query for t in SCREENS.tiles}, **superset.sources(SCREENS)}


@pytest.fixture(scope="module")
def world(db_module: Conn) -> Conn:
    screens_world.fill(db_module)
    return db_module


def for_grafana(query: str) -> str:
    """What Grafana makes of a statement: its variables and macros replaced as it does."""
    for word, value in (
        ("${symbol:sqlstring}", "''"), ("${model:sqlstring}", "''"), ("${as_of:sqlstring}", "'now'"),
        ("$__timeFrom()", "'2024-06-20T00:00:00Z'"), ("$__timeTo()", "'2024-06-30T00:00:00Z'"),
    ):  # fmt: skip
        query = query.replace(word, value)
    assert "$" not in query
    return query


def rows(conn: Conn, query: str) -> list[dict[str, Any]]:
    with conn.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        return cursor.execute(query.encode()).fetchall()


def test_on_an_empty_database_every_tile_answers_and_says_what_to_do(
    db: Conn, connect_as: Callable[[str, str], Conn]
) -> None:
    reader = connect_as("alphaplus_reader", db.info.dbname)
    for name, query in QUERIES.items():
        found = rows(reader, tiles.plain(query))
        if name.startswith("notes_"):
            lacking = {row["hint"] for row in found if row["hint"]}
            page = next(d for d in SCREENS.dashboards if f"notes_{d.name}" == name)
            assert lacking == {SCREENS.needs[t.needs].hint for t in page.tiles}
    for tile in SCREENS.tiles:
        if tile.kind not in ("number",):
            assert rows(reader, tiles.plain(tile.query)) == [], tile.name


@pytest.mark.parametrize("name", sorted(QUERIES))
def test_every_tile_shows_something_of_a_small_world(
    world: Conn, connect_as: Callable[[str, str], Conn], name: str
) -> None:
    reader = connect_as("alphaplus_reader", world.info.dbname)
    found = rows(reader, tiles.plain(QUERIES[name]))
    if name.startswith("notes_"):
        assert [row for row in found if row["hint"]] == []
        return
    assert found
    tile = next((t for t in SCREENS.tiles if t.name == name), None)
    if tile and QUERIES[name] == tile.query:
        assert set(tile.columns) <= set(found[0])
        for column in [*tile.y, *([tile.value] if tile.value else [])]:
            assert any(row[column] is not None for row in found), column


@pytest.mark.parametrize("tile", SCREENS.tiles, ids=lambda t: t.name)
def test_every_filter_is_heeded_and_can_be_anything(
    world: Conn, connect_as: Callable[[str, str], Conn], tile: tiles.Tile
) -> None:
    reader = connect_as("alphaplus_reader", world.info.dbname)
    for values in (
        {"symbol": screens_world.SYMBOL, "model": screens_world.MODEL},
        {"as_of": "2000-01-01 00:00+00"},
        {"as_of": "now", "from": "2000-01-01 00:00+00", "to": "2000-01-02 00:00+00"},
        {"from": str(screens_world.END - dt.timedelta(hours=6)), "to": str(screens_world.END)},
    ):
        found = rows(reader, tiles.plain(tile.query, **values))
        if values.get("as_of", "").startswith("2000"):
            assert tile.kind == "number" or found == [], "something was known before anything was"


def test_a_moment_that_is_none_has_a_code_and_a_hint(db: Conn) -> None:
    for text in ("yesterday-ish", "2026-13-45"):
        with pytest.raises(psycopg.Error) as caught:
            db.execute("select analytics.moment(%s)", (text,))
        assert caught.value.sqlstate == "AP990"
        assert caught.value.diag.message_hint
    for query, code in (
        ("select analytics.moment('infinity')", "AP960"),
        ("select * from analytics.candles(timeframe => '7 minutes')", "AP991"),
        ("select * from analytics.candles(\"from\" => '-infinity')", "AP992"),
        ("select * from analytics.books(\"to\" => 'infinity')", "AP992"),
        ("select * from analytics.candles('what')", "AP101"),
    ):
        with pytest.raises(psycopg.Error) as caught:
            db.execute(query.encode())
        assert caught.value.sqlstate == code, query
        assert caught.value.diag.message_hint
    assert db.execute("select analytics.moment(null), analytics.moment(' Now ')").fetchone() == (
        None, None,
    )  # fmt: skip


def test_an_unknown_model_has_a_code_and_a_hint(world: Conn) -> None:
    for name in ("importance", "folds", "reliability", "recent_predictions"):
        with pytest.raises(psycopg.Error) as caught:
            world.execute(f"select * from analytics.{name}('what')".encode())
        assert caught.value.sqlstate == "AP961", name
        assert caught.value.diag.message_hint


@pytest.mark.parametrize("page", SCREENS.dashboards, ids=lambda d: d.name)
def test_every_query_of_grafana_runs(
    world: Conn, db: Conn, connect_as: Callable[[str, str], Conn], page: tiles.Dashboard
) -> None:
    made = grafana.dashboard(page, SCREENS)
    asked = [t["rawSql"] for p in made["panels"] for t in p.get("targets", [])]
    assert len(asked) == len(page.tiles)
    asked += [a["target"]["rawSql"] for a in made["annotations"]["list"]]
    variables = [v for v in made["templating"]["list"] if v["type"] == "query"]
    full = connect_as("alphaplus_reader", world.info.dbname)
    empty = connect_as("alphaplus_reader", db.info.dbname)
    for query in [*asked, *(v["query"] for v in variables)]:
        rows(empty, for_grafana(query))
        # What is kept of jobs, promotions and checks bears the time of the test, outside the range.
        rows(full, for_grafana(query))
    for tile, query in zip(page.tiles, asked, strict=False):
        if page.name == "market":
            assert rows(full, for_grafana(query)), tile.name
    for variable in variables:
        assert len(rows(full, variable["query"])) > 1


def test_every_tile_is_known_to_hang_on_what_it_reads(
    db: Conn, connect_as: Callable[[str, str], Conn]
) -> None:
    operator = connect_as("alphaplus_operator", db.info.dbname)
    for _ in range(2):
        assert tiles.register(operator, SCREENS) == len(SCREENS.tiles)
    assert db.execute("select count(*) from analytics.tiles").fetchone() == (len(SCREENS.tiles),)
    found = {
        row["name"] for row in rows(db, "select name from analytics.exposures where kind = 'tile'")
    }
    assert found == {f"{d.title} / {t.title}" for d in SCREENS.dashboards for t in d.tiles}


def test_quotes_in_a_filter_stay_in_their_literal(world: Conn) -> None:
    evil = "x'; drop table ml.models; --"
    for tile in SCREENS.tiles:
        query = tiles.plain(tile.query, symbol=evil, model=evil)
        try:
            world.execute(query.encode())
        except psycopg.Error as error:
            assert str(error.sqlstate).startswith("AP"), (tile.name, error)
    assert world.execute("select count(*) > 0 from ml.models").fetchone() == (True,)
