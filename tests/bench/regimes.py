"""Regimes: one answer, stored and computed from the carry, and a year of hours of many symbols.

The peer of a stored answer is the same symbol's answer from the bars alone; the answers are equal.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import psycopg

from tests.bench import _common

SYMBOLS, HOURS = 50, 8760


def _bars(conn: psycopg.Connection[Any], symbols: int) -> None:
    conn.execute(
        "insert into market.instruments (symbol, exchange, native_symbol, base, quote)"
        " select format('R%%sUSDT', n), 'bench', format('R%%sUSDT', n), format('R%%s', n), 'USDT'"
        " from generate_series(1, %s) n",
        (symbols,),
    )
    conn.execute("select setseed(0.5)")
    conn.execute(
        "insert into market.candles (symbol, timeframe, ts, known_at, open, high, low, close, volume)"
        " select format('R%%sUSDT', n), '1 hour', t, t + interval '1 hour', p, p * 1.004, p * 0.996,"
        " p, 1 + random() from (select n, t, 100 * exp(sum(0.01 * (random() - 0.5))"
        " over (partition by n order by t)) as p from generate_series(1, %s) n,"
        " generate_series(timestamptz '2024-01-01', timestamptz '2024-01-01' + interval '8759 hours',"
        " '1 hour') t) x",
        (symbols,),
    )


def run(conninfo: str) -> list[dict[str, Any]]:
    """See the module."""
    rows = []
    with (
        _common.database(conninfo, "regimes") as own,
        psycopg.connect(own, autocommit=True) as conn,
    ):
        _bars(conn, SYMBOLS)
        query = "select regime, confidence, since from regime.classify('R1USDT', %s)"
        late = "2024-12-30 12:30+00"
        computed = conn.execute(query, (late,)).fetchone()
        bare, _ = _common.percentiles(lambda: conn.execute(query, (late,)).fetchone(), 20, 3)
        start = time.perf_counter()
        conn.execute("call regime.refresh()")
        taken = time.perf_counter() - start
        (count,) = conn.execute("select sum(bar_count) from regime.blocks").fetchone() or (0,)
        if count != SYMBOLS * HOURS or conn.execute(query, (late,)).fetchone() != computed:
            raise RuntimeError("what is stored is not what was computed")
        stored, _ = _common.percentiles(lambda: conn.execute(query, (late,)).fetchone(), 300)
        conn.execute(
            "insert into market.candles (symbol, timeframe, ts, known_at, open, high, low, close,"
            " volume) select symbol, timeframe, ts + interval '1 hour', known_at + interval '1 hour',"
            " open, high, low, close, volume from market.candles where symbol = 'R1USDT'"
            " order by ts desc limit 1"
        )
        (newest,) = conn.execute(
            "select max(ts) + interval '70 minutes' from market.candles where symbol = 'R1USDT'"
        ).fetchone() or (None,)
        carried, _ = _common.percentiles(lambda: conn.execute(query, (newest,)).fetchone(), 200)
    rows.append(
        _common.row(
            "regime, stored, p50", stored, "ms", peer="from the bars alone", peer_value=bare,
            goal="value <= 0.5",
        )
    )  # fmt: skip
    rows.append(
        _common.row(
            "regime of a bar not stored yet, p50", np.round(carried, 3).item(), "ms",
            peer="from the bars alone", peer_value=bare, goal="value <= 2",
        )
    )  # fmt: skip
    rows.append(
        _common.row(
            "regimes of 1,000 symbols x a year of hours, on one core (from 50)",
            taken * 1000 / SYMBOLS, "s", goal="value <= 120",
        )
    )  # fmt: skip
    return rows
