"""All indicators and patterns of a million one-minute candles, stored; and live at the newest bar.

Peer: what one would do instead, on the same machine: read the candles with connectorx into pandas,
TA-Lib there (and pandas where TA-Lib has no such indicator), resample for the higher timeframes,
and COPY the columns back, as CSV written by pyarrow, and as a hand-made binary COPY.
"""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import pandas as pd
import psycopg
import pyarrow as pa
import pyarrow.csv
from alphaplus.loaders import pgcopy
from alphaplus.server.features import patterns, series, technical
from psycopg import conninfo as pq
from talib import _ta_lib as ta

from tests.bench._common import database, percentiles, row
from tests.unit.features.test_technical import direct

Floats = npt.NDArray[np.float64]

PANDAS = ("rv_", "vwap", "parkinson", "garman", "rogers", "yang", "volume_z", "autocorr", "hurst")
BARS = int(os.environ.get("BENCH_BARS", "1000000"))
START = pd.Timestamp("2024-01-01", tz="UTC")
EPOCH = pd.Timestamp("2000-01-01", tz="UTC")
MINUTE = 60_000_000


def fill(conn: psycopg.Connection[Any]) -> None:
    """A random walk with changing volatility: candles of one minute, known at their close."""
    rng = np.random.default_rng(7)
    volatility = 0.0005 * np.exp(
        np.convolve(rng.normal(0, 0.05, BARS), np.exp(-np.arange(2000) / 500), "same")
    )
    close = 30_000 * np.exp(np.cumsum(rng.normal(0, 1, BARS) * volatility))
    open_ = np.concatenate([[30_000.0], close[:-1]])
    high = np.maximum(open_, close) * (1 + np.abs(rng.normal(0, 0.5, BARS)) * volatility)
    low = np.minimum(open_, close) * (1 - np.abs(rng.normal(0, 0.5, BARS)) * volatility)
    volume = rng.gamma(2.0, 5.0, BARS)
    prices = [np.round(x, 2) for x in (open_, high, low, close)]
    prices[1] = np.maximum.reduce(prices)
    prices[2] = np.minimum.reduce(prices)
    ts = (START - EPOCH) // pd.Timedelta("1us") + np.arange(BARS, dtype=np.int64) * MINUTE
    conn.execute(
        "insert into market.instruments (symbol, exchange, native_symbol, base, quote)"
        " values ('BENCH', 'bench', 'BENCH', 'B', 'USD')"
    )
    with conn.cursor().copy(
        "copy market.candles (symbol, timeframe, ts, known_at, open, high, low, close, volume)"
        " from stdin (format binary)"
    ) as copy:
        copy.write(pgcopy.HEADER)
        for at in range(0, BARS, 100_000):
            part = slice(at, at + 100_000)
            columns: list[pgcopy.Column] = [
                pgcopy.Text("BENCH"),
                pgcopy.Interval(MINUTE),
                ts[part],
                ts[part] + MINUTE,
                *(price[part] for price in prices),
                volume[part],
            ]
            copy.write(pgcopy.rows(columns, len(ts[part])))
        copy.write(pgcopy.TRAILER)
    conn.execute("call market.refresh_aggregates()")
    conn.execute("vacuum analyze market.candles")


@contextmanager
def watched(pid: int) -> Iterator[list[float]]:
    """The greatest own memory (MiB) that a backend reaches, while it can be seen from here."""
    peak = [0.0]
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.05):
            try:
                for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                    if line.startswith("RssAnon:"):
                        peak[0] = max(peak[0], int(line.split()[1]) / 1024)
            except OSError:
                return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def others(c: dict[str, Floats]) -> dict[str, Floats]:
    """What TA-Lib has not, as one would write it with pandas."""
    o, h, lo, cl, v = (pd.Series(c[name]) for name in series.CHANNELS)
    price = pd.Series(np.log(c["close"]))
    returns = price.diff()
    hl, co = pd.Series(np.log(h / lo)), pd.Series(np.log(cl / o))
    rs = pd.Series(np.log(h / o) * np.log(h / cl) + np.log(lo / o) * np.log(lo / cl))
    overnight = pd.Series(np.log(o / cl.shift()))
    k = 0.34 / (1.34 + 21 / 19)
    high, low = h.rolling(20).max(), lo.rolling(20).min()
    middle = {n: (h.rolling(n).max() + lo.rolling(n).min()) / 2 for n in (9, 26, 52)}
    upper, _, lower = ta.BBANDS(c["close"], 20)
    lags = np.array([1, 2, 4, 8, 16])
    spread = np.stack([(price.diff(n) ** 2).rolling(128).mean() for n in lags])
    x = np.log(lags) - np.log(lags).mean()
    out = {
        "rv_20": returns.rolling(20).std(),
        "rv_60": returns.rolling(60).std(),
        "vwap_60": ((h + lo + cl) / 3 * v).rolling(60).sum() / v.rolling(60).sum(),
        "parkinson_20": np.sqrt((hl**2).rolling(20).mean() / (4 * np.log(2))),
        "garman_klass_20": np.sqrt((hl**2 / 2 - (2 * np.log(2) - 1) * co**2).rolling(20).mean()),
        "rogers_satchell_20": np.sqrt(rs.rolling(20).mean()),
        "yang_zhang_20": np.sqrt(
            overnight.rolling(20).var() + k * co.rolling(20).var() + (1 - k) * rs.rolling(20).mean()
        ),
        "donchian_position_20": (cl - low) / (high - low),
        "bb_percent_20": (cl - lower) / (upper - lower),
        "ichimoku_senkou_a": ((middle[9] + middle[26]) / 2).shift(26),
        "ichimoku_senkou_b": middle[52].shift(26),
        "volume_z_60": (v - v.rolling(60).mean()) / v.rolling(60).std(ddof=0),
        "autocorrelation_1": returns.rolling(60).corr(returns.shift(1)),
        "autocorrelation_5": returns.rolling(60).corr(returns.shift(5)),
        "hurst_128": (x[:, None] * np.log(spread)).sum(axis=0) / (x @ x) / 2,
    }
    return {name: np.asarray(values, dtype=np.float64) for name, values in out.items()}


def indicators(c: dict[str, Floats], names: tuple[str, ...]) -> list[Floats]:
    """The named indicators of a series, scale-free."""
    found = direct(c)
    if set(names) - set(found):
        found |= others(c)
    mean = pd.Series(c["volume"]).rolling(20).mean().to_numpy(np.float64)
    kinds = {output.name: output.kind for output in technical.OUTPUTS}
    scale = {
        "price": lambda x: x / c["close"] - 1,
        "delta": lambda x: x / c["close"],
        "volume": lambda x: x / mean,
        "force": lambda x: x / (c["close"] * mean),
        "pure": lambda x: x,
    }
    return [scale[kinds[name]](found[name]) for name in names]


def outside(conninfo: str) -> tuple[npt.NDArray[np.int64], Floats]:
    """Read, compute: times and (n, indicators and patterns)."""
    import connectorx

    p = pq.conninfo_to_dict(conninfo)
    login = f"{p['user']}:{quote(str(p.get('password') or 'x'), safe='')}"
    mode = "?sslmode=require" if str(p.get("sslmode", "")) not in ("", "disable", "prefer") else ""
    frame = connectorx.read_sql(
        f"postgresql://{login}@{p['host']}:{p['port']}/{p['dbname']}{mode}",
        "select ts, open, high, low, close, volume from market.candles"
        " where symbol = 'BENCH' and timeframe = interval '1 minute' order by ts",
    )
    frame["ts"] = pd.to_datetime(frame["ts"], utc=True)
    channels = {name: frame[name].to_numpy(np.float64) for name in series.CHANNELS}
    columns = []
    micros = ((frame["ts"] - EPOCH) // pd.Timedelta("1us")).to_numpy(np.int64) + MINUTE
    for plan in technical.PLANS["technical_1m"]:
        if plan.timeframe == "1m":
            columns += indicators(channels, plan.names)
            continue
        width = pd.Timedelta(plan.width, unit="us")
        bars = (
            frame.set_index("ts")
            .resample(width)
            .agg({"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"})
        )
        values = indicators(
            {name: bars[name].to_numpy(np.float64) for name in series.CHANNELS}, plan.names
        )
        closed = ((bars.index - EPOCH) // pd.Timedelta("1us")).to_numpy(np.int64) + plan.width
        place = np.searchsorted(closed, micros, "right") - 1
        columns += [np.where(place >= 0, x[np.maximum(place, 0)], np.nan) for x in values]
    prices = [channels[name] for name in series.CHANNELS[:4]]
    columns += [getattr(ta, name.upper())(*prices) / 100 for name in patterns.NAMES]
    return micros, np.stack(columns, axis=1)


def back_as_csv(conn: psycopg.Connection[Any], ts: npt.NDArray[np.int64], values: Floats) -> None:
    """COPY the columns back as CSV."""
    columns = ", ".join(f"f{i} double precision" for i in range(values.shape[1]))
    conn.execute(
        f"create table public.peer_csv (symbol text, ts timestamptz, {columns},"
        " primary key (symbol, ts))"
    )
    stamps = pd.to_datetime(ts, unit="us", origin=EPOCH.tz_localize(None))
    options = pyarrow.csv.WriteOptions(include_header=False)
    with conn.cursor().copy("copy public.peer_csv from stdin (format csv)") as copy:
        for at in range(0, len(ts), 50_000):
            part = slice(at, at + 50_000)
            table = pa.table(
                {"symbol": pa.array(["BENCH"] * len(ts[part])), "ts": pa.array(stamps[part])}
                | {f"f{i}": values[part, i] for i in range(values.shape[1])}
            )
            buffer = io.BytesIO()
            pyarrow.csv.write_csv(table, buffer, options)
            copy.write(buffer.getvalue())


def back_as_binary(
    conn: psycopg.Connection[Any], ts: npt.NDArray[np.int64], values: Floats
) -> None:
    """COPY back what feature.vectors holds, in COPY's binary format made by numpy."""
    conn.execute(
        "create table public.peer_binary (symbol text, ts timestamptz, values float8[],"
        " primary key (symbol, ts))"
    )
    with conn.cursor().copy("copy public.peer_binary from stdin (format binary)") as copy:
        copy.write(pgcopy.HEADER)
        for at in range(0, len(ts), 20_000):
            part = slice(at, at + 20_000)
            columns: list[pgcopy.Column] = [pgcopy.Text("BENCH"), ts[part], values[part]]
            copy.write(pgcopy.rows(columns, len(ts[part])))
        copy.write(pgcopy.TRAILER)


def same(conn: psycopg.Connection[Any], ts: npt.NDArray[np.int64], values: Floats) -> int:
    """Compare stored vectors with the peer's at random times; how many numbers were compared."""
    rng = np.random.default_rng(1)
    compared = 0
    ours = technical.FAMILIES[0].names
    by_pandas = np.array([name.startswith(PANDAS) for name in (*ours, *patterns.NAMES)])
    for position in sorted(rng.choice(np.arange(12_000, len(ts)), 500, replace=False).tolist()):
        stored: list[float] = []
        for name in ("technical_1m", "patterns_1m"):
            found = conn.execute(
                "select v.values from feature.vectors v join feature.sets s using (set_id)"
                " where s.name = %s and v.symbol = 'BENCH'"
                " and v.ts = '2000-01-01+00'::timestamptz + %s * interval '1 microsecond'",
                (name, int(ts[position])),
            ).fetchone()
            assert found is not None
            stored += found[0]
        mine, peer = np.array(stored), values[position]
        both = np.isfinite(mine) & np.isfinite(peer)
        assert np.isfinite(mine).mean() > 0.95
        # pandas' rolling moments lose digits; TA-Lib's do not.
        close = np.isclose(mine, peer, rtol=np.where(by_pandas, 1e-4, 1e-7), atol=1e-8) | ~both
        assert close.all(), [
            (name, a, b)
            for name, a, b, ok in zip((*ours, *patterns.NAMES), mine, peer, close, strict=True)
            if not ok
        ]
        compared += int(both.sum())
    return compared


def at_once(own: str, names: tuple[str, ...], span: tuple[Any, Any]) -> tuple[float, float]:
    """Store the sets of the whole span, a session each: seconds, and the greatest memory (MiB)."""
    memory: list[float] = []

    def one(name: str) -> None:
        with psycopg.connect(own, autocommit=True) as conn:
            conn.execute("select 1")
            ready.wait()
            with watched(conn.info.backend_pid) as peak:
                conn.execute("call feature.materialise(%s, 'BENCH', %s, %s)", (name, *span))
            memory.append(peak[0])

    ready = threading.Barrier(len(names) + 1)
    with ThreadPoolExecutor(len(names)) as pool:
        done = [pool.submit(one, name) for name in names]
        ready.wait()
        begin = time.perf_counter()
        for each in done:
            each.result()
        return time.perf_counter() - begin, max(memory)


def run(conninfo: str) -> list[dict[str, Any]]:
    """Measure; the rows of bench.json."""
    rows: list[dict[str, Any]] = []
    with (
        database(conninfo, "technical") as own,
        psycopg.connect(own, autocommit=True) as conn,
    ):
        fill(conn)
        span = (START.to_pydatetime(), (START + pd.Timedelta(BARS + 1, unit="min")).to_pydatetime())
        taken: dict[str, float] = {}
        names = ("technical_1m", "patterns_1m")
        with watched(conn.info.backend_pid) as peak:
            for name in names:
                begin = time.perf_counter()
                conn.execute("call feature.materialise(%s, 'BENCH', %s, %s)", (name, *span))
                taken[name] = time.perf_counter() - begin
        ours = sum(taken.values())
        conn.execute("truncate feature.vectors")
        by_two, memory = at_once(own, names, span)

        begin = time.perf_counter()
        ts, values = outside(own)
        computed = time.perf_counter() - begin
        begin = time.perf_counter()
        back_as_binary(conn, ts, values)
        binary = computed + time.perf_counter() - begin
        conn.execute("drop table public.peer_binary")
        begin = time.perf_counter()
        back_as_csv(conn, ts, values)
        text = computed + time.perf_counter() - begin
        conn.execute("drop table public.peer_csv")
        compared = same(conn, ts, values)

        million = BARS / 1e6
        label = f"{values.shape[1]} indicators and patterns of {BARS:,} candles, stored"
        rows.append(
            row(
                label, ours, "s",
                peer="connectorx, pandas, TA-Lib, COPY of CSV by pyarrow", peer_value=text,
                ratio=text / ours, goal="ratio >= 2",
            )
        )  # fmt: skip
        rows.append(
            row(
                f"{label} (beside a hand-made binary COPY)", ours, "s",
                peer="connectorx, pandas, TA-Lib, binary COPY by numpy", peer_value=binary,
                ratio=binary / ours,
            )
        )  # fmt: skip
        rows.append(
            row(
                f"{label} by two sessions at once, a set each", by_two, "s",
                peer="connectorx, pandas, TA-Lib, COPY of CSV by pyarrow", peer_value=text,
                ratio=text / by_two,
            )
        )  # fmt: skip
        rows += [row(f"{name}: a million grid times", taken[name] / million, "s") for name in taken]
        rows.append(row("numbers compared with the peer's, all equal", compared, "numbers"))
        memory = max(memory, peak[0])
        if memory:
            rows.append(row("memory of a backend that did it", memory, "MiB", goal="value <= 500"))
        newest = START + pd.Timedelta(BARS + 7, unit="min")  # nothing is stored there
        for name in names:
            moment = (newest - pd.Timedelta(6, unit="min")).to_pydatetime()
            query = "select feature._compute(%s, 'BENCH', ops._micros(%s))"
            call = partial(conn.execute, query, (name, moment))
            p50, p99 = percentiles(call, 200)
            rows.append(row(f"{name}: one vector computed live, p50", p50, "ms"))
            rows.append(row(f"{name}: one vector computed live, p99", p99, "ms"))
    return rows
