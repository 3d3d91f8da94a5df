"""Liquidity and volatility scores: their definitions, both clocks, what is not known."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.db.market_data import at, fill, instrument

Conn = psycopg.Connection[Any]
SYMBOL = "AAAUSDT"
MINUTES = 1600


@pytest.fixture(scope="module")
def market(db_module: Conn) -> Iterator[Conn]:
    fill(db_module, SYMBOL, MINUTES, seed=8, per_minute=5.0, gaps=((1000, 1040),))
    db_module.execute("call market.refresh_aggregates()")
    yield db_module


def score(conn: Conn, name: str, minute: float, symbol: str = SYMBOL) -> float | None:
    row = conn.execute(f"select feature.{name}(%s, %s)", (symbol, at(minute))).fetchone()
    assert row is not None
    return None if row[0] is None else float(row[0])


def volatility_score(conn: Conn, minute: int) -> float | None:
    """Minute by minute from the trades."""
    rows = conn.execute(
        "select (extract(epoch from ts - %s) / 60)::float8, price from market.trades"
        " where symbol = %s and ts >= %s and ts < %s order by ts, trade_id",
        (at(0), SYMBOL, at(minute - 1470), at(minute)),
    ).fetchall()
    close: dict[int, float] = {}
    for when, price in rows:
        close[math.floor(when)] = price
    quiet = 0  # minutes without a trade in a row; more than five are a hole
    seen = sorted(close)
    for one, other in zip(seen, [*seen[1:], minute], strict=True):
        quiet = other - one - 1
        if 0 < quiet <= 5:
            for m in range(one + 1, other):
                close[m] = close[one]
    found = []
    for end in range(minute - 1440, minute):
        if all(m in close for m in range(end - 30, end + 1)):
            r = [math.log(close[m] / close[m - 1]) for m in range(end - 29, end + 1)]
            found.append(math.sqrt(sum(x * x for x in r) / 30))
        else:
            found.append(math.nan)
    last, known = found[-1], [x for x in found[:-1] if not math.isnan(x)]
    if math.isnan(last) or len(known) + 1 < 720:
        return None
    return sum((x < last) + (x == last) / 2 for x in known) / len(known)


def test_volatility_is_ranked_in_its_own_day(market: Conn) -> None:
    seen = []
    for minute in (1100, 1333, 1480, 1550, 1590):
        want = volatility_score(market, minute)
        got = score(market, "volatility_score", minute + 0.7)
        assert got == (None if want is None else pytest.approx(want, abs=2 / 1440))
        seen.append(got)
    assert len({s for s in seen if s is not None}) > 2
    assert score(market, "volatility_score", 1020) is None  # in the gap
    assert score(market, "volatility_score", 300) is None  # too little of a day


def test_liquidity_is_the_books_share(market: Conn) -> None:
    for minute in (500, 900, 1500):
        row = market.execute(
            "select bid_prices, bid_sizes, ask_prices, ask_sizes from market.order_book_snapshots"
            " where symbol = %s and ts < %s order by ts desc limit 1",
            (SYMBOL, at(minute)),
        ).fetchone()
        traded = market.execute(
            "select sum(price * size) / 60 from market.trades"
            " where symbol = %s and ts >= %s and ts < %s",
            (SYMBOL, at(minute - 60), at(minute)),
        ).fetchone()
        assert row is not None and traded is not None
        mid = (row[0][0] + row[2][0]) / 2
        depth = sum(
            price * size
            for prices, sizes in (row[:2], row[2:])
            for price, size in zip(prices, sizes, strict=True)
            if abs(price / mid - 1) <= 25e-4
        )
        assert score(market, "liquidity_score", minute + 0.5) == pytest.approx(
            depth / (depth + traded[0]), rel=1e-9
        )
    assert score(market, "liquidity_score", 1030) is None


def test_scores_look_at_nothing_after_their_time(market: Conn) -> None:
    names = ("liquidity_score", "volatility_score")
    before = [score(market, name, 1500) for name in names]
    assert None not in before
    with market.transaction(force_rollback=True):
        for table in ("trades", "order_book_snapshots"):
            market.execute(f"delete from market.{table} where ts >= %s", (at(1500),))
        market.execute("update market.trades set price = price * 2 where ts < %s", (at(1400),))
        assert [score(market, name, 1500) for name in names] == before


def test_a_symbol_that_is_not_known(market: Conn) -> None:
    instrument(market, "NEWUSDT")
    for name in ("liquidity_score", "volatility_score"):
        assert score(market, name, 100, "NEWUSDT") is None
        with pytest.raises(psycopg.Error) as caught:
            score(market, name, 100, "NOPE")
        assert caught.value.sqlstate == "AP101"
