"""A user's set over history: one statement for many grid times, beside each time by itself and
beside pandas on the same bars."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd
import psycopg

from tests.bench._common import database, row

DAYS = 14
QUERY = """
select ts, close / lag(close, 15) over (order by ts) - 1 as momentum,
    avg(volume) over w as volume, stddev(close) over w as deviation,
    (close - avg(close) over w) / nullif(stddev(close) over w, 0) as z
from market.candles where timeframe = interval '1 minute'
window w as (order by ts rows 59 preceding)
"""
ALONE = 60  # grid times that are run by themselves


def run(conninfo: str) -> list[dict[str, Any]]:
    """See the module."""
    with database(conninfo, "own_sets") as made, psycopg.connect(made, autocommit=True) as conn:
        conn.execute("set client_min_messages = error")
        conn.execute(
            "insert into market.instruments (symbol, exchange, native_symbol, base, quote)"
            " values ('OWN', 'bench', 'OWN', 'OWN', 'USD')"
        )
        conn.execute(
            "insert into market.candles (symbol, timeframe, ts, known_at, open, high, low, close,"
            " volume) select 'OWN', '1 minute', t, t + interval '1 minute', 100, 200, 50,"
            " 100 + 20 * random(), 10 * random() from generate_series(timestamptz '2024-01-01"
            " 00:00+00', timestamptz '2024-01-01 00:00+00' + make_interval(days => %s) - interval"
            " '1 minute', '1 minute') t",
            (DAYS,),
        )
        conn.execute("analyze market.candles")
        conn.execute("select feature.create_set('own', %s, '2 hours')", (QUERY,))
        history = (
            "select ts, momentum, volume, deviation, z from feature.own_history('OWN', %s, %s)"
        )
        start = pd.Timestamp("2024-01-03", tz="UTC")
        conn.execute(history, (start, start + pd.Timedelta("1h"))).fetchall()  # warm
        begin = time.perf_counter()
        end = pd.Timestamp("2024-01-01", tz="UTC") + pd.Timedelta(days=DAYS)
        found = conn.execute(history, (start, end)).fetchall()
        many = (time.perf_counter() - begin) / len(found)
        begin = time.perf_counter()
        for i in range(ALONE):  # one time a call is run by itself
            t = start + pd.Timedelta(minutes=i)
            assert conn.execute(history, (t, t + pd.Timedelta("1min"))).fetchall() == [found[i]]
        alone = (time.perf_counter() - begin) / ALONE
        bars = conn.execute(
            "select ts, close, volume from market.candles where symbol = 'OWN' order by ts"
        ).fetchall()
        begin = time.perf_counter()
        frame = pd.DataFrame(bars, columns=["ts", "close", "volume"]).set_index("ts")
        rolled = frame["close"].rolling(60)
        peer = pd.DataFrame({
            "momentum": frame["close"] / frame["close"].shift(15) - 1,
            "volume": frame["volume"].rolling(60).mean(),
            "deviation": rolled.std(),
            "z": (frame["close"] - rolled.mean()) / rolled.std(),
        }).shift(1, freq="min")  # fmt: skip
        pandas = (time.perf_counter() - begin) / len(found)
        ours = pd.DataFrame(found, columns=["ts", *peer.columns]).set_index("ts")
        np.testing.assert_allclose(ours, peer.loc[ours.index], rtol=1e-6, atol=1e-9)
        return [
            row(
                "own set: a grid time over a stretch", many * 1e3, "ms",
                peer="each time by itself", peer_value=alone * 1e3, goal="ratio <= 0.05",
            ),
            row(
                "own set: a grid time over a stretch", many * 1e3, "ms",
                peer="pandas, bars in memory", peer_value=pandas * 1e3,
            ),
        ]  # fmt: skip
