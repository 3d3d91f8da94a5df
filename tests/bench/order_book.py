"""Microstructure and order-book features of a million trades and 100,000 book snapshots, stored.

Peer: the usual way, polars (and numpy, where polars has no such thing) over the same trades and
books in Parquet files, and a binary COPY of the columns back into the database.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import psycopg
from alphaplus.loaders import pgcopy
from alphaplus.server.features import microstructure, order_book

from tests.bench import _book_peer
from tests.bench._common import database, row
from tests.bench.technical import EPOCH, START, watched

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]

TRADES = int(os.environ.get("BENCH_TRADES", "1000000"))
BOOKS = TRADES // 10
LEVELS = 10
MINUTE = 60_000_000
PER_MINUTE = 20  # trades
LATENCY = 0.05  # seconds, mean, between happening and being known
FAMILIES = {
    "microstructure": microstructure.FAMILY.names,
    "order_book": order_book.FAMILY.names,
}


def made() -> tuple[dict[str, Any], dict[str, Any]]:
    """Trades and books: ts, known_at in microseconds since 2000, numbers in numpy arrays."""
    rng = np.random.default_rng(11)
    begin = int((START - EPOCH).total_seconds()) * 1_000_000
    minutes = TRADES // PER_MINUTE
    ts = np.sort(rng.integers(0, minutes * MINUTE, TRADES))
    sign = np.where(rng.random(TRADES) < 0.5, 1.0, -1.0)
    sign[1:] = np.where(rng.random(TRADES - 1) < 0.3, sign[:-1], sign[1:])
    size = np.round(rng.lognormal(-1, 1.2, TRADES), 4) + 1e-4
    walk = rng.normal(0, 3e-5, TRADES) + 1e-5 * sign * np.sqrt(size)
    mid = 30_000 * np.exp(np.cumsum(walk))
    price = np.round(mid * (1 + 1e-5 * sign), 1)

    def known(times: Times) -> Times:
        late = rng.exponential(LATENCY * 1e6, len(times)).astype(np.int64)
        return times + late

    trades = {
        "ts": ts + begin, "known_at": known(ts + begin), "price": price, "size": size,
        "buy": sign > 0,
    }  # fmt: skip
    at = np.sort(rng.integers(0, minutes * MINUTE, BOOKS))
    middle = np.interp(at, ts, mid)
    thin = np.exp(np.convolve(rng.normal(0, 0.3, BOOKS), np.exp(-np.arange(30) / 8), "same"))
    books: dict[str, Any] = {"ts": at + begin, "known_at": known(at + begin)}
    for side, way in (("bid", -1), ("ask", 1)):
        steps = np.cumsum(rng.exponential(0.7e-4, (BOOKS, LEVELS)), axis=1)
        books[f"{side}_prices"] = np.round(middle[:, None] * (1 + way * (1e-5 + steps)), 2)
        books[f"{side}_sizes"] = np.round(
            rng.lognormal(0, 0.8, (BOOKS, LEVELS)) * thin[:, None], 4
        ) + 1e-4  # fmt: skip
    return trades, books


def fill(conn: psycopg.Connection[Any], trades: dict[str, Any], books: dict[str, Any]) -> None:
    """Into the tables."""
    conn.execute(
        "insert into market.instruments (symbol, exchange, native_symbol, base, quote)"
        " values ('BENCH', 'bench', 'BENCH', 'B', 'USD')"
    )

    def copied(statement: str, columns: list[pgcopy.Column], n: int) -> None:
        with conn.cursor().copy(f"copy {statement} from stdin (format binary)") as copy:
            copy.write(pgcopy.HEADER)
            copy.write(pgcopy.rows(columns, n))
            copy.write(pgcopy.TRAILER)

    step = 100_000
    for at in range(0, TRADES, step):
        part = slice(at, at + step)
        n = len(trades["ts"][part])
        names = np.array([f"{i:09d}" for i in range(at, at + n)], dtype="S9")
        side = np.where(trades["buy"][part], b"buy", b"sell")
        copied(
            "market.trades (symbol, ts, trade_id, known_at, price, size, side)",
            [
                pgcopy.Text("BENCH"), trades["ts"][part], pgcopy.Text(names),
                trades["known_at"][part], trades["price"][part], trades["size"][part],
                pgcopy.Text(side),
            ],
            n,
        )  # fmt: skip
    for at in range(0, BOOKS, step):
        part = slice(at, at + step)
        n = len(books["ts"][part])
        copied(
            "market.order_book_snapshots (symbol, ts, sequence, known_at, bid_prices, bid_sizes,"
            " ask_prices, ask_sizes)",
            [
                pgcopy.Text("BENCH"), books["ts"][part], np.arange(at, at + n),
                books["known_at"][part], books["bid_prices"][part], books["bid_sizes"][part],
                books["ask_prices"][part], books["ask_sizes"][part],
            ],
            n,
        )  # fmt: skip
    conn.execute("call market.refresh_aggregates()")
    conn.execute("vacuum analyze market.trades")
    conn.execute("vacuum analyze market.order_book_snapshots")


def parquet(folder: Path, trades: dict[str, Any], books: dict[str, Any]) -> None:
    """Into Parquet: a column per level and channel, as one stores books for data frames."""
    pl.DataFrame(
        {name: trades[name] for name in ("ts", "known_at", "price", "size", "buy")}
    ).write_parquet(folder / "trades.parquet")
    columns = {"ts": books["ts"], "known_at": books["known_at"]}
    for channel in order_book._SIDES:
        for level in range(LEVELS):
            columns[f"{channel}_{level}"] = books[channel][:, level]
    pl.DataFrame(columns).write_parquet(folder / "books.parquet")


def stored(conn: psycopg.Connection[Any], name: str) -> tuple[Times, Floats]:
    """What the database holds of a family: times and vectors."""
    rows = conn.execute(
        "select (extract(epoch from v.ts - '2000-01-01+00'::timestamptz) * 1000000)::int8, v.values"
        " from feature.vectors v join feature.sets s using (set_id) where s.name = %s order by 1",
        (name,),
    ).fetchall()
    return np.array([r[0] for r in rows], dtype=np.int64), np.array([r[1] for r in rows])


def back(conn: psycopg.Connection[Any], ts: Times, values: Floats) -> None:
    """The peer's COPY into a table like feature.vectors."""
    conn.execute(
        "create table if not exists public.peer (family bigint, symbol text, ts timestamptz, values float8[],"
        " primary key (family, symbol, ts))"
    )
    with conn.cursor().copy("copy public.peer from stdin (format binary)") as copy:
        copy.write(pgcopy.HEADER)
        for at in range(0, len(ts), 20_000):
            part = slice(at, at + 20_000)
            columns: list[pgcopy.Column] = [
                np.full(len(ts[part]), values.shape[1]), pgcopy.Text("BENCH"), ts[part], values[part]
            ]  # fmt: skip
            copy.write(pgcopy.rows(columns, len(ts[part])))
        copy.write(pgcopy.TRAILER)


def same(conn: psycopg.Connection[Any], peer: dict[str, tuple[Times, Floats]], late: Times) -> int:
    """Assert that the stored vectors are the peer's; how many numbers were compared.

    Not at the first bars, whose windows begin before the data, and not at the few times at which a
    trade or book of the last minute was still on its way: the peer has it all the same.
    """
    compared = 0
    for name, names in FAMILIES.items():
        (ts, mine), (peer_ts, theirs) = stored(conn, name), peer[name]
        times, i, j = np.intersect1d(ts, peer_ts, return_indices=True)
        kept = ~np.isin(times, late) & (times > times[0] + 70 * MINUTE)
        assert kept.mean() > 0.9
        mine, theirs = mine[i][kept], theirs[j][kept].astype(np.float64)
        for k, feature in enumerate(names):
            a, b = mine[:, k], theirs[:, k]
            known = np.isfinite(a)
            # the peer's running totals lose digits
            fine = np.isclose(a[known], b[known], rtol=1e-6, atol=1e-9)
            assert fine.all(), (feature, a[known][~fine][:3], b[known][~fine][:3])
            assert known.mean() > 0.3, feature
            assert (np.isfinite(b) == known).mean() > 0.999, feature
            compared += int(known.sum())
    return compared


def ours(own: str) -> tuple[float, dict[str, float], float]:
    """Both families by two sessions at once, each half of the time: seconds, those that each family
    took of the two together, the greater memory."""
    middle = START + timedelta(minutes=TRADES // PER_MINUTE // 2)
    end = START + timedelta(minutes=TRADES // PER_MINUTE + 1)
    taken = dict.fromkeys(FAMILIES, 0.0)
    memory = [0.0]

    def half(start: datetime, stop: datetime) -> None:
        with psycopg.connect(own, autocommit=True) as conn:
            conn.execute("select 1")
            ready.wait()
            with watched(conn.info.backend_pid) as peak:
                for name in FAMILIES:
                    begin = time.perf_counter()
                    conn.execute(
                        "call feature.materialise(%s, 'BENCH', %s, %s)", (name, start, stop)
                    )
                    taken[name] += time.perf_counter() - begin
            memory[0] = max(memory[0], peak[0])

    ready = threading.Barrier(3)
    threads = [
        threading.Thread(target=half, args=span) for span in ((START, middle), (middle, end))
    ]
    for thread in threads:
        thread.start()
    ready.wait()
    begin = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - begin, taken, memory[0]


def theirs(
    conn: psycopg.Connection[Any], folder: Path
) -> tuple[float, dict[str, tuple[Times, Floats]]]:
    """The peer: seconds, and what it found."""
    conn.execute("drop table if exists public.peer")
    begin = time.perf_counter()
    found = dict(zip(FAMILIES, _book_peer.run(folder), strict=True))
    for ts, values in found.values():
        back(conn, ts, values)
    return time.perf_counter() - begin, found


def run(conninfo: str) -> list[dict[str, Any]]:
    """Measure, the sides by turns; the rows of bench.json."""
    trades, books = made()
    with (
        tempfile.TemporaryDirectory() as folder,
        database(conninfo, "order_book") as own,
        psycopg.connect(own, autocommit=True) as conn,
    ):
        fill(conn, trades, books)
        parquet(Path(folder), trades, books)
        mine, peer, each, memory = [], [], [], 0.0
        for _ in range(3):
            conn.execute("truncate feature.vectors")
            seconds, taken, peak = ours(own)
            mine.append(seconds)
            each.append(taken)
            memory = max(memory, peak)
            seconds, found = theirs(conn, Path(folder))
            peer.append(seconds)
        late = [x["ts"][x["ts"] // MINUTE != x["known_at"] // MINUTE] for x in (trades, books)]
        compared = same(conn, found, (np.concatenate(late) // MINUTE + 1) * MINUTE)
    label = f"37 features of {TRADES:,} trades and {BOOKS:,} books, stored by two sessions"
    rows = [
        row(
            label, min(mine), "s", peer="polars and numpy from Parquet, binary COPY",
            peer_value=min(peer), ratio=min(peer) / min(mine), goal="ratio >= 1.5",
        ),
        row("numbers compared with the peer's, all equal", compared, "numbers"),
    ]  # fmt: skip
    rows += [
        row(f"{name}: of that, both sessions together", min(t[name] for t in each), "s")
        for name in FAMILIES
    ]
    if memory:
        rows.append(row("memory of a backend that did it", memory, "MiB", goal="value <= 500"))
    return rows
