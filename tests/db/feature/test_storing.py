"""Vectors are stored by COPY into chunks: each of them once, the numbers of the history form."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psycopg
import pytest

from tests.db.feature.test_technical import MINUTE, candles, put

CHUNK = dt.timedelta(days=30)
COUNT = 3000
Connection = psycopg.Connection[Any]


def boundary(db: Connection) -> dt.datetime:
    """Where a chunk of feature.vectors ends and the next begins."""
    row = db.execute(
        "select public.time_bucket(d.time_interval, timestamptz '2024-03-01', origin =>"
        " '1970-01-01') from timescaledb_information.dimensions d"
        " where d.hypertable_schema = 'feature' and d.hypertable_name = 'vectors'"
    ).fetchone()
    assert row is not None
    end: dt.datetime = row[0] + CHUNK
    return end


def stored(db: Connection, name: str, symbol: str) -> dict[dt.datetime, list[float]]:
    return dict(
        db.execute(
            "select v.ts, v.values from feature.vectors v join feature.sets s using (set_id)"
            " where s.name = %s and v.symbol = %s order by 1",
            (name, symbol),
        ).fetchall()
    )


def computed(
    db: Connection, name: str, symbol: str, start: dt.datetime, stop: dt.datetime
) -> dict[dt.datetime, list[float]]:
    return dict(
        db.execute(
            "select h.ts, h.vector from feature._history(%s, null, %s, %s, %s) h",
            (name, symbol, start, stop),
        ).fetchall()
    )


def chunks(db: Connection) -> int:
    row = db.execute(
        "select count(*) from timescaledb_information.chunks c"
        " where c.hypertable_schema = 'feature' and c.hypertable_name = 'vectors'"
    ).fetchone()
    assert row is not None
    return int(row[0])


@pytest.fixture(scope="module")
def market(db_module: Connection) -> Connection:
    db = db_module
    db.execute(
        "insert into market.instruments (symbol, exchange, native_symbol, base, quote)"
        " values ('EDGE', 'test', 'EDGE', 'E', 'USD')"
    )
    start = boundary(db) - COUNT // 2 * MINUTE
    put(db, "EDGE", MINUTE, candles(9, COUNT), start)
    db.execute("call market.refresh_aggregates()")
    return db


@pytest.mark.parametrize("before", [0, 1, 511, 512, 700])
def test_across_the_end_of_a_chunk(market: Connection, before: int) -> None:
    """Many in a chunk, few, one and none: all are there, once, in the chunk they belong to."""
    market.execute("truncate feature.vectors")
    edge = boundary(market)
    start, stop = edge - before * MINUTE, edge + 900 * MINUTE
    market.execute("call feature.materialise('patterns_1m', 'EDGE', %s, %s)", (start, stop))
    want = computed(market, "patterns_1m", "EDGE", start, stop)
    got = stored(market, "patterns_1m", "EDGE")
    assert len(want) > before + 900 - 70  # there are holes in the bars
    assert list(got) == list(want)
    np.testing.assert_array_equal(np.array(list(got.values())), np.array(list(want.values())))
    assert chunks(market) == (2 if before else 1)


def test_again_over_what_is_stored(market: Connection) -> None:
    """Storing a stretch anew replaces it and leaves the rest."""
    market.execute("truncate feature.vectors")
    edge = boundary(market)
    span = (edge - 600 * MINUTE, edge + 600 * MINUTE)
    market.execute("call feature.materialise('patterns_1m', 'EDGE', %s, %s)", span)
    before = stored(market, "patterns_1m", "EDGE")
    market.execute("update feature.vectors set values = array_fill(7.0::float8, '{61}')")
    again = (edge - 550 * MINUTE, edge + 20 * MINUTE)
    market.execute("call feature.materialise('patterns_1m', 'EDGE', %s, %s)", again)
    for ts, values in stored(market, "patterns_1m", "EDGE").items():
        assert values == (before[ts] if again[0] <= ts < again[1] else [7.0] * 61), ts


def test_by_the_operator(market: Connection, connect_as: Callable[[str, str], Connection]) -> None:
    """Who may call the procedure needs no right on the chunks, nor on files."""
    market.execute("truncate feature.vectors")
    edge = boundary(market)
    with connect_as("alphaplus_operator", market.info.dbname) as conn:
        conn.autocommit = True
        conn.execute(
            "call feature.materialise('patterns_1m', 'EDGE', %s, %s)",
            (edge - 600 * MINUTE, edge + 600 * MINUTE),
        )
    assert len(stored(market, "patterns_1m", "EDGE")) > 1100
    held = market.execute(
        "select distinct through from feature.watermarks where symbol = 'EDGE'"
    ).fetchall()
    assert held[0][0] >= edge + 600 * MINUTE


def test_blocks_of_what_is_stored_anew_are_gone(market: Connection) -> None:
    """Also where nothing was stored and the vectors go past the table's triggers."""
    market.execute("truncate feature.vectors")
    market.execute("delete from feature.watermarks")
    edge = boundary(market)
    start, stop = edge, edge + 1000 * MINUTE
    span = ("EDGE", start, stop)
    market.execute("call feature.materialise('patterns_1m', %s, %s, %s)", span)
    want = stored(market, "patterns_1m", "EDGE")
    hole = (edge + 200 * MINUTE, edge + 900 * MINUTE)
    market.execute("delete from feature.vectors where ts >= %s and ts < %s", hole)
    market.execute("call feature.pack('patterns_1m')")
    packed = market.execute("select sum(n) from feature.vector_blocks").fetchone()
    assert packed is not None and 0 < packed[0] < 400
    market.execute("call feature.materialise('patterns_1m', 'EDGE', %s, %s)", hole)
    rows = market.execute(
        "select m.n, m.ts, m.vectors from feature.matrix('patterns_1m', array[%s], %s, %s) m", span
    ).fetchall()
    assert sum(n for n, _, _ in rows) == len(want)
    numbers = np.concatenate([np.frombuffer(v, "<f8").reshape(n, -1) for n, _, v in rows])
    np.testing.assert_array_equal(numbers, np.array(list(want.values())))


def test_two_sessions_share_the_time_and_wait_where_it_overlaps(
    market: Connection, connect_as: Callable[[str, str], Connection]
) -> None:
    market.execute("truncate feature.vectors, feature.watermarks")
    start = boundary(market) - 1500 * MINUTE
    middle, stop = start + 1500 * MINUTE, start + 3000 * MINUTE
    call = "call feature.materialise('patterns_1m', 'EDGE', %s, %s)"
    row = market.execute("select set_id from feature.sets where name = 'patterns_1m'").fetchone()
    assert row is not None
    # The first who ever takes a lock makes its row, and has it alone until then.
    market.execute("select ops._lock(%s, true)", (f"feature.materialise:{row[0]}:EDGE",))
    # What a session holds that stores the first half.
    first, last = (int(t.timestamp()) // (1024 * 60) for t in (start, middle - MINUTE))
    with connect_as("alphaplus_operator", market.info.dbname) as other:
        with other.transaction():
            for key in ("", *(f":{n}" for n in range(first, last + 1))):
                other.execute(
                    "select ops._lock(%s, %s)",
                    (f"feature.materialise:{row[0]}:EDGE{key}", not key),
                )
            market.execute("set lock_timeout = '200ms'")
            market.execute(call, (middle + 1024 * MINUTE, stop))
            with pytest.raises(psycopg.Error, match="another session is at"):
                market.execute(call, (middle - MINUTE, stop))
            with pytest.raises(psycopg.Error, match="another session is at"):
                market.execute("call feature.pack('patterns_1m')")
            market.execute("reset lock_timeout")
        # Anew: a stretch that begins later and that the first half does not touch would keep it out
        # of account where the first half is stored first.
        market.execute("truncate feature.vectors, feature.watermarks")
        with ThreadPoolExecutor() as pool:
            list(
                pool.map(
                    lambda one: one[0].execute(call, one[1]),
                    ((other, (start, middle)), (market, (middle, stop))),
                )
            )
    found = stored(market, "patterns_1m", "EDGE")
    want = computed(market, "patterns_1m", "EDGE", start, stop)
    assert list(found) == list(want)
    np.testing.assert_array_equal(np.array(list(found.values())), np.array(list(want.values())))
    # Who ends last joins the stretches.
    covered = market.execute("select since, through from feature.watermarks").fetchall()
    assert covered == [(start, stop)]
