"""Splits, dividends, renames: adjusted as of, and never by what became known later."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alphaplus.loaders.load import Loader
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Conn = psycopg.Connection[Any]
DAY = dt.timedelta(days=1)
START = dt.datetime(2014, 6, 2, tzinfo=dt.UTC)


def rows(conn: Conn, query: str, *args: Any) -> list[Any]:
    return conn.execute(query, args).fetchall()  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def shares(db_module: Conn) -> Conn:
    db_module.execute(
        "truncate market.candles, market.corporate_actions, market.corporate_actions_history"
    )
    db_module.execute("delete from market.instruments")
    for name in ("AAPL@local", "META@local", "FB@local"):
        db_module.execute(
            "insert into market.instruments (symbol, exchange, native_symbol, base, kind, aliases)"
            " values (%s, 'local', %s, %s, 'stock', array[%s])", (name, *[name.split("@")[0]] * 3),
        )  # fmt: skip
    return db_module


def bars(conn: Conn, symbol: str, closes: list[float], start: dt.datetime = START) -> None:
    for i, close in enumerate(closes):
        ts = start + i * DAY
        conn.execute(
            "insert into market.candles (symbol, timeframe, ts, known_at, open, high, low, close, volume)"
            " values (%s, '1 day', %s, %s, %s, %s, %s, %s, 1000)",
            (symbol, ts, ts + DAY, close, close, close, close),
        )


def act(
    conn: Conn, symbol: str, day: int, kind: str, known: int | None = None, **values: Any
) -> None:
    names = ", ".join(values)
    conn.execute(
        f"insert into market.corporate_actions (symbol, ts, kind, known_at, {names})"  # type: ignore[arg-type]
        f" values (%s, %s, %s, %s, {', '.join(['%s'] * len(values))})",
        (symbol, START + day * DAY, kind, START + (day if known is None else known) * DAY,
         *values.values()),
    )  # fmt: skip


def adjusted(conn: Conn, symbol: str, as_of: int, dividends: bool = True) -> list[float]:
    return [
        close
        for (close,) in rows(
            conn,
            "select close from market.adjusted_candles(%s, '1 day', %s, %s, %s, %s) order by ts",
            symbol, START - 10 * DAY, START + 100 * DAY, START + as_of * DAY, dividends,
        )
    ]  # fmt: skip


def test_a_split_of_seven_for_one(shares: Conn) -> None:
    """AAPL, June 2014: as traded, and adjusted once the split had happened and was known."""
    bars(shares, "AAPL@local", [628.65, 637.54, 644.82, 647.35, 645.57, 93.70, 94.25])
    act(shares, "AAPL@local", 5, "split", ratio=7.0)
    before = [628.65, 637.54, 644.82, 647.35, 645.57]
    assert adjusted(shares, "AAPL@local", 5) == pytest.approx([x / 7 for x in before])
    assert adjusted(shares, "AAPL@local", 4) == pytest.approx(before[:4])
    assert adjusted(shares, "AAPL@local", 7) == pytest.approx(
        [x / 7 for x in before] + [93.70, 94.25]
    )
    got = rows(
        shares,
        "select volume, factor from market.adjusted_candles('AAPL', '1 day', %s, %s, %s) limit 1",
        START, START + 9 * DAY, START + 7 * DAY,
    )  # fmt: skip
    assert got == [(pytest.approx(7000), pytest.approx(1 / 7))]


def test_a_dividend_and_its_correction(shares: Conn) -> None:
    bars(shares, "AAPL@local", [100.0, 102.0, 99.0, 98.0])
    act(shares, "AAPL@local", 2, "dividend", amount=3.0)
    factor = 1 - 3 / 102
    assert adjusted(shares, "AAPL@local", 4) == pytest.approx([100 * factor, 102 * factor, 99, 98])
    assert adjusted(shares, "AAPL@local", 4, dividends=False) == pytest.approx([100, 102, 99, 98])
    shares.execute("update market.corporate_actions set amount = 2")
    # what was known then stays; now it is the corrected amount
    assert adjusted(shares, "AAPL@local", 4) == pytest.approx([100 * factor, 102 * factor, 99, 98])
    today = rows(
        shares, "select close from market.adjusted_candles('AAPL', '1 day', %s, %s) order by ts",
        START, START + 9 * DAY,
    )  # fmt: skip
    assert today[0][0] == pytest.approx(100 * (1 - 2 / 102))


def test_a_rename_goes_on_under_the_new_name(shares: Conn) -> None:
    bars(shares, "FB@local", [10.0, 11.0])
    bars(shares, "META@local", [12.0], START + 2 * DAY)
    act(shares, "FB@local", 2, "rename", new_symbol="META@local")
    assert adjusted(shares, "META@local", 3) == pytest.approx([10, 11, 12])
    assert adjusted(shares, "FB@local", 3) == pytest.approx([10, 11])
    got = rows(
        shares,
        "select traded_as from market.adjusted_candles('META', '1 day', %s, %s, %s) order by ts",
        START, START + 9 * DAY, START + 5 * DAY,
    )  # fmt: skip
    assert [name for (name,) in got] == ["FB@local", "FB@local", "META@local"]
    assert rows(
        shares, "select status, new_symbol from market.listing('FB', %s)", START + 3 * DAY
    ) == [("renamed", "META@local")]
    assert rows(shares, "select status from market.listing('FB', %s)", START + DAY) == [("listed",)]
    act(shares, "META@local", 9, "delisting", **{"source": "test"})
    assert rows(shares, "select status from market.listing('META', %s)", START + 9 * DAY) == [
        ("delisted",)
    ]


def test_what_cannot_be_has_a_code(shares: Conn) -> None:
    for query, code in (
        ("select market.adjusted_candles('NOBODY', '1 day', now(), now())", "AP101"),
        ("select market.adjusted_candles('AAPL', null, now(), now())", "AP903"),
        ("select market.adjusted_candles('AAPL', '1 day', '-infinity', now())", "AP903"),
        ("select market.listing(null)", "AP101"),
    ):
        with pytest.raises(psycopg.Error) as error:
            shares.execute(query)  # type: ignore[call-overload]
        assert error.value.sqlstate == code


@settings(max_examples=15, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(
    actions=st.lists(
        st.tuples(st.integers(1, 9), st.integers(0, 14), st.sampled_from([2.0, 3.0, 0.5, 7.0])),
        max_size=4, unique_by=lambda a: a[0],
    ),
    as_of=st.integers(1, 10),
)  # fmt: skip
def test_what_becomes_known_later_changes_no_earlier_answer(
    shares: Conn, actions: list[tuple[int, int, float]], as_of: int
) -> None:
    shares.execute(
        "truncate market.candles, market.corporate_actions, market.corporate_actions_history"
    )
    closes = [100.0 + i for i in range(10)]
    bars(shares, "AAPL@local", closes)
    usable = [a for a in actions if a[1] <= as_of and a[0] <= as_of]
    for day, known, ratio in actions:
        act(shares, "AAPL@local", day, "split", known, ratio=ratio)
    want = []
    for i, close in enumerate(closes[:as_of]):
        for day, _, ratio in usable:
            if day > i:
                close /= ratio
        want.append(close)
    got = adjusted(shares, "AAPL@local", as_of)
    assert got == pytest.approx(want)
    shares.execute("delete from market.corporate_actions")
    assert adjusted(shares, "AAPL@local", as_of) == got


def test_a_split_nobody_told_of_is_flagged(shares: Conn, tmp_path: Path) -> None:
    path = tmp_path / "AAPL-1d.csv"
    path.write_text(
        "date,open,high,low,close,volume\n2014-06-05,646,647,642,647,1\n"
        "2014-06-06,649,651,644,645.57,1\n2014-06-09,92.7,93.88,91.75,93.7,1\n"
        "2014-06-10,94.7,95.05,93.57,94.25,1\n"
    )
    report = Loader(shares, dry=True).load(path)
    (words,) = report.summary[0]["possible_splits"]
    assert "2014-06-09" in words and "7:1" in words
    crash = tmp_path / "BTC-USD-1d.csv"
    crash.write_text(
        "date,open,high,low,close,volume\n2020-03-12,7900,7950,4800,4900,1\n2020-03-13,4900,5900,3900,5600,1\n"
    )
    assert "possible_splits" not in Loader(shares, dry=True).load(crash).summary[0]
