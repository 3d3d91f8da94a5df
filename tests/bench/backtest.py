"""Back-tests: a million predictions by twenty thresholds, beside a plain loop over them.

The peer walks through the predictions one by one, as one would write it down, for one threshold; its
trades are the same, and its time is taken twenty times.
"""

from __future__ import annotations

import json
import time
from bisect import bisect_right
from typing import Any

import numpy as np
import psycopg

from tests.bench import _common

PREDICTIONS = 1_000_000
THRESHOLDS = [round(0.80 + 0.009 * i, 4) for i in range(20)]
START = "2024-01-01 00:00+00"


def _fill(conn: psycopg.Connection[Any]) -> None:
    conn.execute(
        "insert into market.instruments (symbol, exchange, native_symbol, base, quote)"
        " values ('BUSDT', 'bench', 'BUSDT', 'B', 'USDT')"
    )
    conn.execute("select setseed(0.5)")
    conn.execute("set session_replication_role = replica")
    conn.execute(
        "insert into market.candles (symbol, timeframe, ts, known_at, open, high, low, close, volume)"
        " select 'BUSDT', interval '5 minutes', t, t + interval '5 minutes', p, p * 1.001, p * 0.999,"
        " p, 10 from (select t, 100 * exp(sum(0.002 * (random() - 0.5)) over (order by t)) as p from"
        " generate_series(%s::timestamptz, %s::timestamptz + %s * interval '1 minute', '5 minutes') t) x",
        (START, START, PREDICTIONS),
    )
    conn.execute(
        "insert into ml.predictions (as_of, created_at, model, symbol, horizon, prediction, probability)"
        " select t, t + interval '1 second', 'direction_15m', 'BUSDT', interval '15 minutes', p, p"
        " from (select %s::timestamptz + i * interval '1 minute' as t, random() as p"
        " from generate_series(1, %s) i) x",
        (START, PREDICTIONS),
    )
    conn.execute("set session_replication_role = origin")
    conn.execute("analyze ml.predictions")
    conn.execute("analyze market.candles")
    conn.execute(
        "select backtest.create_strategy('bench', 'direction_15m', array['BUSDT'], %s)",
        (
            json.dumps(
                {"enter_long": 0.9, "exit_long": 0.3, "hold": "4 hours", "latency": "2 seconds",
                 "max_wait": "10 minutes", "fill": "bar", "bar": "1 hour"}
            ),
        ),
    )  # fmt: skip


def _loop(
    known: list[int], value: list[float], ts: list[int], line: float
) -> list[tuple[int, int]]:
    """Entries and exits (times of bars) by the rules of the strategy, one prediction at a time."""
    second, hold, wait, after = 1_000_000, 4 * 3_600_000_000, 600_000_000, 300_000_000
    trades = []
    free, entry = -1, 0
    for t, p in zip(known, value, strict=True):
        if entry:
            over = entry + hold
            if over < t:
                at = bisect_right(ts, max(over, entry + after) + 2 * second)
            elif t > entry + after and p < 0.3:
                at = bisect_right(ts, t + 2 * second)
            else:
                continue
            if at >= len(ts):
                break
            trades.append((entry, ts[at]))
            free, entry = ts[at] + after, 0
        if not entry and t > free and p >= line:
            at = bisect_right(ts, t + 2 * second)
            if at < len(ts) and ts[at] <= t + 2 * second + wait:
                entry = ts[at]
    return trades


def run(conninfo: str) -> list[dict[str, Any]]:
    """See the module."""
    with (
        _common.database(conninfo, "backtest") as own,
        psycopg.connect(own, autocommit=True) as conn,
    ):
        conn.execute("update ops.schedules set enabled = false")
        _fill(conn)
        stop = "2027-01-01 00:00+00"
        start = time.perf_counter()
        rows = conn.execute(
            "select trial_id, trades from backtest.run_variants('bench', %s, %s, %s, 'recorded',"
            " '2028-01-01 00:00+00')",
            (json.dumps([{"enter_long": line} for line in THRESHOLDS]), START, stop),
        ).fetchall()
        taken = time.perf_counter() - start
        data = conn.execute(
            "select array_agg(ops._micros(created_at) order by created_at),"
            " array_agg(prediction order by created_at) from ml.predictions"
        ).fetchone()
        bars = conn.execute(
            "select array_agg(ops._micros(ts) order by ts) from market.candles"
        ).fetchone()
        assert data is not None and bars is not None
        start = time.perf_counter()
        right = _loop(data[0], data[1], bars[0], THRESHOLDS[10])
        plain = len(THRESHOLDS) * (time.perf_counter() - start)
        got = conn.execute(
            "select ops._micros(entered_at), ops._micros(exited_at) from backtest.trades"
            " where trial_id = %s and exit_reason <> 'end' order by trade",
            (rows[10][0],),
        ).fetchall()
        if got != right[: len(got)] or not 0 <= len(right) - len(got) <= 1 or len(got) < 1000:
            at = next((i for i, (a, b) in enumerate(zip(got, right, strict=False)) if a != b), -1)
            raise RuntimeError(f"{len(got)} trades, the loop has {len(right)}; first at {at}")
        total = int(np.sum([r[1] for r in rows]))
    return [
        _common.row(
            f"{PREDICTIONS:,} predictions by {len(THRESHOLDS)} thresholds, {total:,} trades", taken, "s",
            peer="a loop in Python", peer_value=plain, goal="value <= 10",
        )
    ]  # fmt: skip
