"""Small random markets for tests: written straight into the tables."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import psycopg

START = dt.datetime(2024, 6, 1, tzinfo=dt.UTC)


def at(minutes: float) -> dt.datetime:
    """A time so many minutes after the start."""
    return START + dt.timedelta(microseconds=round(minutes * 60e6))


def instrument(conn: psycopg.Connection[Any], symbol: str) -> None:
    conn.execute(
        "insert into market.instruments (symbol, exchange, native_symbol, base, quote, aliases)"
        " values (%s, 'test', %s, %s, 'USDT', %s) on conflict do nothing",
        (symbol, symbol, symbol.removesuffix("USDT"), [symbol.removesuffix("USDT") + "/USDT"]),
    )


def fill(
    conn: psycopg.Connection[Any],
    symbol: str,
    minutes: int,
    *,
    seed: int = 1,
    per_minute: float = 4.0,
    latency: float = 0.0,
    gaps: tuple[tuple[int, int], ...] = (),
    start: int = 0,
) -> None:
    """Trades, books, liquidations, funding and open interest of a symbol for some minutes.

    latency: seconds between happening and being known. gaps: minutes [from, to) with nothing.
    """
    rng = np.random.default_rng(seed)
    instrument(conn, symbol)
    n = int(rng.poisson(per_minute * minutes))
    moments = np.sort(rng.random(n) * minutes)
    inside = np.zeros(n, dtype=bool)
    for low, high in gaps:
        inside |= (moments >= low) & (moments < high)
    moments = moments[~inside] + start
    n = len(moments)
    price = 100.0 * np.exp(np.cumsum(rng.normal(0, 3e-4, n)))
    sizes = rng.lognormal(0, 1, n)
    sides = np.where(rng.random(n) < 0.5, "buy", "sell")
    known = dt.timedelta(seconds=latency)

    def gap(minute: float) -> bool:
        return any(low <= minute < high for low, high in gaps)

    with conn.cursor() as cursor:
        with cursor.copy(
            "copy market.trades (symbol, ts, trade_id, known_at, price, size, side) from stdin"
        ) as copy:
            for i in range(n):
                ts = at(moments[i])
                copy.write_row(
                    (symbol, ts, f"{seed}-{i}", ts + known, price[i], sizes[i], sides[i])
                )
        with cursor.copy(
            "copy market.order_book_snapshots (symbol, ts, sequence, known_at, bid_prices, bid_sizes,"
            " ask_prices, ask_sizes) from stdin"
        ) as copy:
            for m in range(minutes):
                if gap(m):
                    continue
                ts = at(start + m + 0.5)
                mid = price[min(np.searchsorted(moments, start + m), n - 1)]
                levels = int(rng.integers(5, 20))
                steps = np.cumsum(rng.random(levels) * 2e-4 + 1e-5)
                copy.write_row(
                    (
                        symbol,
                        ts,
                        seed,
                        ts + known,
                        (mid * (1 - steps)).tolist(),
                        rng.lognormal(2, 1, levels).tolist(),
                        (mid * (1 + steps)).tolist(),
                        rng.lognormal(2, 1, levels).tolist(),
                    )
                )
        with cursor.copy(
            "copy market.liquidation_events (symbol, ts, event_id, known_at, side, price, size,"
            " notional) from stdin"
        ) as copy:
            for i in range(minutes // 4 + 1):
                m = 0.1 if i == 0 else rng.random() * minutes
                if gap(m):
                    continue
                ts, size = at(start + m), float(rng.lognormal(2, 1))
                side = "sell" if rng.random() < 0.5 else "buy"
                copy.write_row(
                    (symbol, ts, f"{seed}-{i}", ts + known, side, 100.0, size, 100 * size)
                )
        for m in range(0, minutes, 240):
            ts = at(start + m)
            cursor.execute(
                "insert into market.funding_rates (symbol, ts, known_at, rate, funding_interval)"
                " values (%s, %s, %s, %s, '4 hours') on conflict do nothing",
                (symbol, ts, ts + known, float(rng.normal(0, 1e-4))),
            )
        for m in range(0, minutes, 5):
            ts = at(start + m)
            cursor.execute(
                "insert into market.open_interest (symbol, ts, known_at, open_interest)"
                " values (%s, %s, %s, %s) on conflict do nothing",
                (symbol, ts, ts + known, float(1000 + rng.normal(0, 10))),
            )
