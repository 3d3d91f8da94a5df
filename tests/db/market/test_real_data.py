"""Every family on market data that others recorded: live is history, and nothing is seen early."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from alphaplus.loaders.load import Loader, Options
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Conn = psycopg.Connection[Any]
MINUTE, HOUR, DAY = dt.timedelta(minutes=1), dt.timedelta(hours=1), dt.timedelta(days=1)
FEED = dt.datetime(2024, 8, 9, tzinfo=dt.UTC)  # end of the recorded feeds, six minutes long
MONTH = dt.datetime(2022, 1, 20, tzinfo=dt.UTC)  # before the sell-off of January 2022
YEAR = dt.datetime(2026, 2, 1, tzinfo=dt.UTC)  # all venues have begun

# set, symbol, the middle of the times asked about, the grid, how many grid times
CASES = {
    "technical_1m": ("BTCUSDT@local", MONTH, MINUTE, 300),
    "patterns_1m": ("BTCUSDT@local", MONTH, MINUTE, 300),
    "technical_1h": ("HYPEUSDT", YEAR, HOUR, 72),
    "factors_1d": ("BTCUSDT@bybit", YEAR, DAY, 60),
    "order_book": ("ETHUSDT", FEED, MINUTE, 16),
    "microstructure": ("BTCUSDT", FEED, MINUTE, 30),
    "liquidation": ("BTCUSDT", FEED, MINUTE, 30),
}
# What the recorded feeds cannot say: there are no liquidations, and no sweep of the book.
UNKNOWN = {
    "liquidation": {
        "long_liquidations", "short_liquidations", "liquidation_intensity", "funding_rate",
        "open_interest_change", "funding_x_momentum", "order_flow_toxicity", "buy_volume_ratio",
        "sell_volume_ratio", "toxicity_x_volatility",
    },
    "order_book": {"resilience", "buy_impact", "sell_impact"},
    "microstructure": {"kyle_lambda", "hasbrouck_lambda", "vpin"},
}  # fmt: skip


@pytest.fixture(scope="module")
def market(db_module: Conn, shared_data: Path) -> Iterator[Conn]:
    conn = db_module
    month = shared_data / "candles_1m" / "btc-perp-20211231-20220201_1m.csv.gz"
    Loader(conn, Options(symbol="BTCUSDT")).load(month)
    for name in ("btc", "eth"):
        Loader(conn, Options()).load(shared_data / "book_feed" / f"usdm_{name}usdt_20240808.gz")
    for name in ("candles", "funding_rates", "open_interest"):
        Loader(conn, Options()).load(shared_data / "perps_hourly" / f"{name}.parquet")
    # The feeds last six minutes: bars of the month's last hours stand before them.
    conn.execute(
        "insert into market.candles (symbol, timeframe, ts, known_at, open, high, low, close, volume)"
        " select 'BTCUSDT', timeframe, ts + d, known_at + d, open, high, low, close, volume"
        " from market.candles, lateral (select %s::timestamptz - timestamptz '2022-02-01 05:00+00')"
        " as g (d) where symbol = 'BTCUSDT@local' and ts >= '2022-01-31 23:00+00'"
        " and ts < '2022-02-01 05:00+00'",
        (FEED,),
    )
    conn.execute("call market.refresh_aggregates()")
    yield conn


def times(name: str) -> list[dt.datetime]:
    _, middle, grid, count = CASES[name]
    return [middle + grid * (i - count // 2) for i in range(count)]


def live(conn: Conn, name: str, symbol: str, t: dt.datetime) -> np.ndarray[Any, Any]:
    row = conn.execute("select feature.vector(%s, %s, %s)", (name, symbol, t)).fetchone()
    assert row is not None
    return np.array(row[0], dtype=float)


def history(conn: Conn, name: str) -> dict[dt.datetime, np.ndarray[Any, Any]]:
    grid = times(name)
    rows = conn.execute(
        "select ts, vector from feature._history(%s, null, %s, %s, %s)",
        (name, CASES[name][0], grid[0], grid[-1] + CASES[name][2]),
    ).fetchall()
    return {ts: np.array(vector, dtype=float) for ts, vector in rows}


@pytest.mark.parametrize("name", list(CASES))
def test_live_is_history(market: Conn, name: str) -> None:
    symbol, _, grid, _ = CASES[name]
    whole = history(market, name)
    for t in times(name)[:: max(1, len(times(name)) // 30)]:
        want = whole.get(t)
        # At any moment of the step, too.
        now = live(market, name, symbol, t + grid / 3)
        if want is None:
            assert np.isnan(now).all()
        else:
            np.testing.assert_allclose(now, want, rtol=1e-9, atol=1e-9)
    names = market.execute("select features from feature.sets where name = %s", (name,)).fetchone()
    assert names is not None
    known = np.isfinite(np.array(list(whole.values()))).any(axis=0)
    assert set(np.array(names[0])[~known]) == UNKNOWN.get(name, set())


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    place=st.floats(0, 1),
    change=st.sampled_from(["delete", "alter", "append", "late"]),
)
@pytest.mark.parametrize("name", list(CASES))
def test_what_happens_or_becomes_known_later_changes_nothing(
    market: Conn, name: str, place: float, change: str
) -> None:
    symbol, _, grid, count = CASES[name]
    t = times(name)[round(place * (count - 1))]
    before = live(market, name, symbol, t)
    until = t + 40 * grid
    with market.transaction(force_rollback=True):
        if change == "late":
            # Rows before t, corrected and removed today.
            spans, until = (t - 5 * grid, t - 2 * grid, t), t
        else:
            spans = (t, t, until)
        for table, column, length in (
            ("candles", "volume = volume * 3 + 1", "timeframe"),
            ("trades", "size = size * 3", "interval '0'"),
            ("order_book_snapshots", "bid_sizes = ask_sizes", "interval '0'"),
            ("funding_rates", "rate = rate + 1", "interval '0'"),
            (
                "open_interest",
                "value = value * 7, open_interest = open_interest * 7",
                "interval '0'",
            ),
        ):
            within = f"symbol = %s and ts + {length} > %s and ts < %s"
            if change in ("delete", "late"):
                market.execute(
                    f"delete from market.{table} where {within}",
                    (symbol, *spans[:2]) if change == "late" else (symbol, t, until),
                )
            if change in ("alter", "late"):
                market.execute(
                    f"update market.{table} set {column} where {within}", (symbol, spans[1], until)
                )
        if change == "append":
            market.execute(
                "insert into market.trades (symbol, ts, trade_id, known_at, price, size, side)"
                " select %s, %s::timestamptz + g * %s::interval, 'later' || g,"
                "  %s::timestamptz + g * %s::interval, 7 + g, 1000, 'sell' from generate_series(0, 50) g",
                (symbol, t, grid / 3, t, grid / 3),
            )
            market.execute(
                "insert into market.candles (symbol, timeframe, ts, known_at, open, high, low, close,"
                " volume) select %(s)s, %(g)s, %(t)s::timestamptz + n * %(g)s,"
                "  %(t)s::timestamptz + (n + 1) * %(g)s, 1, 9, 1, 5, 1e9 from generate_series(0, 30) n"
                " on conflict (symbol, timeframe, ts) do update set close = excluded.close,"
                " low = excluded.low, open = excluded.open, high = excluded.high",
                {"s": symbol, "g": grid, "t": t},
            )
        np.testing.assert_allclose(live(market, name, symbol, t), before, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", list(CASES))
def test_the_audits_find_the_sets_clean(market: Conn, name: str) -> None:
    grid = times(name)
    span = (name, CASES[name][0], grid[0], grid[-1])
    assert market.execute(
        "select * from feature.audit_lookahead(%s, %s, %s, %s, 8)", span
    ).fetchall() == []  # fmt: skip
    enough = market.execute(
        "select feature from feature.audit_warmup(%s, %s, %s, %s, 1) where not enough", span
    ).fetchall()
    assert enough == []
