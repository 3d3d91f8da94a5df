"""Vectors kept as blocks are the vectors stored as rows, which are the vectors as computed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.db.feature.test_technical import MINUTE, START, candles, names, put

Connection = psycopg.Connection[Any]
MINUTES = 2500  # in four blocks, as START is no block's
EPOCH = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
SET = "patterns_1m"
ALL = (START - 60 * MINUTE, START + (MINUTES + 60) * MINUTE)


@pytest.fixture
def market(db: Connection) -> Iterator[Connection]:
    for symbol in ("AAA", "BBB"):
        db.execute(
            "insert into market.instruments (symbol, exchange, native_symbol, base, quote)"
            " values (%s, 'test', %s, %s, 'USD')",
            (symbol, symbol, symbol),
        )
    put(db, "AAA", MINUTE, candles(1, MINUTES), START)
    put(db, "BBB", MINUTE, candles(2, 300), START)
    db.execute("call market.refresh_aggregates()")
    yield db


def matrix(
    db: Connection, start: dt.datetime, end: dt.datetime, symbols: list[str] | None = None
) -> dict[str, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """By symbol: microseconds and vectors, as feature.matrix has them."""
    parts: dict[str, list[Any]] = {}
    with db.cursor(binary=True) as cursor:
        for symbol, n, ts, vectors in cursor.execute(
            "select symbol, n, ts, vectors from feature.matrix(%s, %s, %s, %s)",
            (SET, symbols, start, end),
        ):
            assert len(ts) == 8 * n
            values = np.frombuffer(vectors, "<f8").reshape(n, -1)
            parts.setdefault(symbol, []).append((np.frombuffer(ts, "<i8"), values))
    return {
        symbol: (np.concatenate([t for t, _ in p]), np.concatenate([v for _, v in p]))
        for symbol, p in parts.items()
    }


def computed(
    db: Connection, start: dt.datetime, end: dt.datetime, symbol: str
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The same from what is in the market's tables, whatever is stored."""
    rows = db.execute(
        "select at, vector from feature._compute_rows(%s, %s, ops._micros(%s), ops._micros(%s))",
        (SET, symbol, start, end),
    ).fetchall()
    since = round(EPOCH.timestamp() * 1e6)
    times = np.array([micros - since for micros, _ in rows], dtype=np.int64)
    width = len(names(db, SET))
    return times, np.array([v for _, v in rows], dtype=np.float64).reshape(len(rows), width)


def blocks(db: Connection) -> list[tuple[str, int, int]]:
    """(symbol, first minute from START, vectors) of every block."""
    return [
        (symbol, round((ts_from - START) / MINUTE), n)
        for symbol, ts_from, n in db.execute(
            "select symbol, ts_from, n from feature.vector_blocks order by symbol, ts_from"
        )
    ]


def store(db: Connection, start: int = 0, end: int = MINUTES + 60, symbol: str = "AAA") -> None:
    ends = (START + start * MINUTE, START + end * MINUTE)
    db.execute("call feature.materialise(%s, %s, %s, %s)", (SET, symbol, *ends))


minutes = st.integers(-60, MINUTES + 60)
spans = st.tuples(minutes, minutes).map(sorted).map(tuple)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("store"), spans),
        st.tuples(st.just("store many"), st.tuples(spans, st.booleans())),
        st.tuples(st.just("pack"), st.none()),
        st.tuples(st.just("late"), st.integers(0, MINUTES - 1)),
    ),
    min_size=2,
    max_size=7,
)


@given(steps, spans)
@example([("store many", ((-60, 2500), True)), ("late", 1200), ("pack", None)], (0, 2400))
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_however_they_were_stored_and_packed_they_are_as_computed(
    market: Connection, done: list[tuple[str, Any]], span: tuple[int, int]
) -> None:
    for table in ("vectors", "watermarks", "pending"):
        market.execute(f"delete from feature.{table}")
    for what, which in done:
        if what == "store":
            store(market, *which)
        elif what == "store many":
            market.execute(
                "call feature.materialise(%s, null::text[], %s, %s, packed => %s)",
                (SET, *(START + minute * MINUTE for minute in which[0]), which[1]),
            )
        elif what == "pack":
            market.execute("call feature.pack(%s)", (SET,))
        else:
            market.execute(
                "update market.candles set close = high, known_at = ts + interval '1 minute'"
                " where symbol = 'AAA' and ts = %s",
                (START + which * MINUTE,),
            )
    for first, last in (span, (-60, MINUTES + 60)):
        start, end = START + first * MINUTE, START + last * MINUTE
        times, values = computed(market, start, end, "AAA")
        found = matrix(market, start, end, ["AAA"])
        if not len(times):
            assert not found
            continue
        np.testing.assert_array_equal(found["AAA"][0], times)
        np.testing.assert_array_equal(found["AAA"][1], values)


def test_blocks_are_what_is_read(market: Connection) -> None:
    """Only a block that was tampered with shows it: numbers of whole blocks, and of cut ones."""
    store(market)
    store(market, 0, 360, "BBB")
    before = matrix(market, *ALL)
    market.execute("call feature.pack(%s)", (SET,))
    assert sum(n for _, _, n in blocks(market)) == sum(len(t) for t, _ in before.values())
    assert [s for s, _, _ in blocks(market)].count("AAA") >= 3
    again = matrix(market, *ALL)
    for symbol, (times, values) in before.items():
        np.testing.assert_array_equal(again[symbol][0], times)
        np.testing.assert_array_equal(again[symbol][1], values)
    market.execute(
        "update feature.vector_blocks set vectors = set_byte(vectors, 7, 64) where symbol = 'AAA'"
    )
    for start, end in (ALL, (ALL[0], START + MINUTES * MINUTE), (START + 3 * MINUTE, ALL[1])):
        times, values = matrix(market, start, end)["AAA"]
        truth = dict(zip(before["AAA"][0].tolist(), before["AAA"][1], strict=True))
        changed = [t for t, v in zip(times.tolist(), values, strict=True)
                   if not np.array_equal(v, truth[t], equal_nan=True)]  # fmt: skip
        assert changed
    # What is packed is not packed again.
    market.execute("call feature.pack(%s)", (SET,))
    assert len(matrix(market, *ALL)["AAA"][0]) == len(before["AAA"][0])


WRITES: dict[str, tuple[str, set[int]]] = {
    "insert": (
        "insert into feature.vectors (set_id, symbol, ts, values)"
        " select v.set_id, v.symbol, v.ts - interval '1000 days', v.values from feature.vectors v"
        " where v.symbol = 'AAA' and v.ts = %s",
        set(),
    ),
    "update": ("update feature.vectors set values = values where symbol = 'AAA' and ts = %s", {1}),
    "move": (
        "update feature.vectors set ts = ts + interval '1 microsecond'"
        " where symbol = 'AAA' and ts = %s",
        {1},
    ),
    "delete": ("delete from feature.vectors where symbol = 'AAA' and ts = %s", {1}),
    "merge": (
        "insert into feature.vectors (set_id, symbol, ts, values) select v.set_id, v.symbol, v.ts,"
        " v.values from feature.vectors v where v.symbol = 'AAA' and v.ts = %s"
        " on conflict (set_id, symbol, ts) do update set values = excluded.values",
        {1},
    ),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_changed_row_takes_its_block_along_and_no_other(market: Connection, write: str) -> None:
    store(market)
    store(market, 0, 360, "BBB")
    market.execute("call feature.pack(%s)", (SET,))
    before = blocks(market)
    own = [block for block in before if block[0] == "AAA"]
    statement, places = WRITES[write]
    market.execute(statement, (START + (own[1][1] + 5) * MINUTE,))
    gone = [own[place] for place in places]
    assert blocks(market) == [block for block in before if block not in gone]
    # A new row in a stretch that is packed.
    market.execute(
        "insert into feature.vectors (set_id, symbol, ts, values)"
        " select v.set_id, v.symbol, %s, v.values from feature.vectors v"
        " where v.symbol = 'AAA' limit 1",
        (START + own[2][1] * MINUTE + dt.timedelta(seconds=30),),
    )
    gone.append(own[2])
    assert blocks(market) == [block for block in before if block not in gone]
    market.execute("truncate feature.vectors")
    assert blocks(market) == []


def test_packing_and_storing_take_turns(
    market: Connection, connect_as: Callable[[str, str], Connection]
) -> None:
    """Else a block could be made of what another transaction is about to change."""
    store(market)
    with connect_as("alphaplus_operator", market.info.dbname) as other:
        with other.transaction():
            other.execute(
                "update feature.vectors set values = values where ts = %s", (START + 9 * MINUTE,)
            )
            market.execute("set lock_timeout = '200ms'")
            with pytest.raises(psycopg.Error) as busy:
                market.execute("call feature.pack(%s)", (SET,))
            assert busy.value.sqlstate == "AP723"
            market.execute("reset lock_timeout")
        other.execute("call feature.pack(%s)", (SET,))
    assert blocks(market)


def test_a_hole_between_two_stored_stretches_is_computed(market: Connection) -> None:
    store(market, 100, 200)
    store(market, 400, 500)
    for packed in (False, True):
        if packed:
            market.execute("call feature.pack(%s)", (SET,))
        times, values = computed(market, *ALL, "AAA")
        found = matrix(market, *ALL, ["AAA"])["AAA"]
        np.testing.assert_array_equal(found[0], times)
        np.testing.assert_array_equal(found[1], values)


def test_a_training_set_is_the_same_packed_or_not(market: Connection) -> None:
    market.execute(
        "insert into ml.models (model, label, feature_set, feature_version)"
        " values ('packed', 'direction_5m', %s, 2)",
        (SET,),
    )
    store(market)
    query = "select n, sha256 from ml.training_matrix('packed', 'AAA', %s)"
    before = market.execute(query, (ALL[1],)).fetchone()
    market.execute("call feature.pack()")  # every set that a model uses
    assert blocks(market)
    assert market.execute(query, (ALL[1],)).fetchone() == before
    assert before is not None and before[0] > 1000


def test_packing_what_is_not_there(market: Connection) -> None:
    with pytest.raises(psycopg.Error) as error:
        market.execute("call feature.pack('nothing')")
    assert error.value.sqlstate == "AP202"
    with pytest.raises(psycopg.Error) as error:
        market.execute("call feature.pack(%s, array['CCC'])", (SET,))
    assert error.value.sqlstate == "AP101"
    market.execute("call feature.pack(%s, array['BBB'])", (SET,))  # nothing is stored of it
    assert blocks(market) == []


def test_many_symbols_are_stored_and_packed_in_one_go(market: Connection) -> None:
    """The rows and blocks that storing each, then packing, makes."""
    store(market)
    store(market, symbol="BBB")
    market.execute("call feature.pack(%s)", (SET,))
    query = (
        "select set_id, symbol, ts, values::text from feature.vectors order by symbol, ts",
        "select set_id, symbol, ts_from, ts_to, first_ts, last_ts, n, ts, vectors"
        " from feature.vector_blocks order by symbol, ts_from",
        "select symbol, since, through from feature.watermarks order by 1",
    )
    want = [market.execute(one).fetchall() for one in query]
    assert all(want)
    market.execute("truncate feature.vectors, feature.watermarks")
    for packed in (False, True):
        market.execute(
            "call feature.materialise(%s, array['BBB', 'AAA', 'BBB'], %s, %s, packed => %s)",
            (SET, START, START + (MINUTES + 60) * MINUTE, packed),
        )
        got = [market.execute(one).fetchall() for one in query]
        assert got[0] == want[0]
        assert got[2] == want[2]
        assert got[1] == (want[1] if packed else [])
    with pytest.raises(psycopg.Error) as error:
        market.execute("call feature.materialise(%s, array['CCC'], %s, %s)", (SET, *ALL))
    assert error.value.sqlstate == "AP101"
