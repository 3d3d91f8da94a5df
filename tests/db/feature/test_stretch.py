"""Sets over a stretch: one statement for many times gives what each time by itself would."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.db.market_data import at, fill

Conn = psycopg.Connection[Any]
SYMBOL, CLEAN = "AAAUSDT", "BBBUSDT"
N = 420
SETS = {
    "windows": (
        "select ts, close / lag(close, 7) over (order by ts) - 1 as r, avg(volume) over w as v,"
        " stddev(close) over w as sd, (close > open)::int as up from market.candles"
        " where timeframe = '1 minute' window w as (order by ts rows 29 preceding)",
        "40 minutes", "1 minute",
    ),
    "chained": (
        "with m as (select ts, close, max(close) over (order by ts rows 20 preceding) as top"
        " from market.candles where timeframe = '1 minute'), d as (select ts, close / top - 1 as d"
        " from m where close < 1e9) select ts, min(d) over (order by ts rows 10 preceding) as worst,"
        " d from d",
        "32 minutes", "1 minute",
    ),
    "by_span": (
        "select ts, sum(volume) over (order by ts range between interval '15 minutes' preceding and"
        " current row) as v, sum(volume) over (partition by public.time_bucket('30 minutes', ts)"
        " order by ts) as c from market.candles where timeframe = '1 minute'",
        "31 minutes", "1 minute",
    ),
    "bars": ("select ts, close, lag(close) over (order by ts) as before from market.candles_5m",
             "30 minutes", "5 minutes"),
    "grouped": (
        "select public.time_bucket('5 minutes', ts) + interval '5 minutes' - interval"
        " '1 microsecond' as ts, max(price) / min(price) - 1 as rng, public.last(price, ts) as last,"
        " count(*) as n from market.trades group by 1",
        "11 minutes", "5 minutes",
    ),
    "ticks": (
        "select ts, price, avg(size) over (order by ts rows 12 preceding) as size"
        " from market.trades", "6 minutes", "1 minute",
    ),
    "books": ("select ts, bid_prices[1] as bid, ask_sizes[1] as size from market.order_book_snapshots",
              "5 minutes", "2 minutes"),
    "failing": (
        "select ts, 1 / (extract(minute from ts)::int - 17) as x, close from market.candles"
        " where timeframe = '1 minute'", "5 minutes", "1 minute",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def market(db_module: Conn) -> Iterator[Conn]:
    """A market with latency, gaps, late rows, corrections, deletions, and rows of one time."""
    conn = db_module
    conn.execute("set client_min_messages = error")
    fill(conn, SYMBOL, N, seed=3, per_minute=6, latency=0.4, gaps=((200, 212),))
    rng = np.random.default_rng(5)
    price = 100 * np.exp(np.cumsum(rng.normal(0, 1e-3, N)))
    for i in range(N):
        if 250 <= i < 262 or rng.random() < 0.02:
            continue
        known = at(i + 1) + dt.timedelta(minutes=int(rng.choice([0] * 40 + [3, 40])))
        conn.execute(
            "insert into market.candles (symbol, timeframe, ts, known_at, open, high, low, close,"
            " volume) values (%s, '1 minute', %s, %s, %s, %s, %s, %s, %s)",
            (SYMBOL, at(i), known, price[i - 1] if i else 100, price[i] * 1.01, price[i] * 0.98,
             price[i], float(rng.lognormal())),
        )  # fmt: skip
    conn.execute(
        "update market.candles set close = high, known_at = ts + interval '25 minutes'"
        " where symbol = %s and extract(minute from ts) = 7",
        (SYMBOL,),
    )
    conn.execute(
        "insert into market.trades (symbol, ts, trade_id, known_at, price, size, side)"
        " select symbol, ts, 'twin' || trade_id, known_at, price + 1, size, side from market.trades"
        " where extract(minute from ts)::int % 9 = 0",
    )
    fill(conn, CLEAN, N, seed=4, per_minute=6)
    conn.execute(
        "insert into market.candles (symbol, timeframe, ts, known_at, open, high, low, close, volume)"
        " select %s, '1 minute', t, t + interval '1 minute', 1 + x, 3, 1, 1 + x, 10 * x"
        " from (select t, random() as x from generate_series(%s::timestamptz, %s, '1 minute') t) r",
        (CLEAN, at(0), at(N - 1)),
    )
    conn.execute("call market.refresh_aggregates()")
    for name, (query, lookback, grid) in SETS.items():
        conn.execute("select feature.create_set(%s, %s, %s, %s)", (name, query, lookback, grid))
    yield conn


def known(
    conn: Conn, name: str, low: int, high: int, symbol: str = SYMBOL
) -> dict[Any, list[float]]:
    rows = conn.execute(
        "select h.ts, h.vector from feature._history(%s, 1, %s, %s, %s) h",
        (name, symbol, at(low), at(high)),
    ).fetchall()
    return dict(rows)


def alone(conn: Conn, name: str, low: int, high: int) -> dict[Any, list[float]]:
    """The same, one time a call: each is run by itself."""
    step = conn.execute(
        "select extract(epoch from grid)::int / 60 from feature.sets where name = %s", (name,)
    ).fetchone()
    assert step is not None
    found: dict[Any, list[float]] = {}
    for m in range(-(-low // step[0]) * step[0], high, step[0]):
        found |= known(conn, name, m, m + 1)
    return found


@settings(
    max_examples=24, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(name=st.sampled_from(sorted(SETS)), low=st.integers(0, 330), size=st.integers(17, 80))
def test_a_stretch_is_each_of_its_times(market: Conn, name: str, low: int, size: int) -> None:
    size = size * 5 if name in ("bars", "grouped") else size * 2 if name == "books" else size
    low, high = max(0, min(low, N - size)), min(N, low + size)
    many, single = known(market, name, low, high), alone(market, name, low, high)
    assert many.keys() == single.keys()
    for ts, vector in many.items():
        exact = name != "grouped"  # sums of a group are in whatever order its rows are met
        np.testing.assert_allclose(vector, single[ts], rtol=0 if exact else 1e-12, err_msg=str(ts))


def test_most_times_are_told_by_the_stretch(market: Conn) -> None:
    """Otherwise it would be right, and slow: the times that are asked for are counted."""
    market.execute("set track_functions = 'all'")
    for name in ("windows", "by_span", "bars", "grouped", "chained"):
        before = calls(market)
        got = known(market, name, 0, 400, CLEAN)
        assert len(got) >= 78
        assert calls(market) - before < 50, (
            name
        )  # the first, whose lookback is not full, one by one


def calls(conn: Conn) -> int:
    conn.execute("select pg_stat_force_next_flush()")
    row = conn.execute(
        "select coalesce(sum(calls), 0) from pg_stat_user_functions where funcname = '_moments'"
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_a_stretch_tells_its_failures(market: Conn) -> None:
    market.execute("call feature.materialise('failing', %s, %s, %s)", (SYMBOL, at(0), at(60)))
    rows = market.execute(
        "select e.ts from feature.set_errors e join feature.sets s using (set_id)"
        " where s.name = 'failing' order by 1"
    ).fetchall()
    assert {row[0] for row in rows} <= {at(m) for m in range(18, 24)} and (at(18),) in rows
