"""Live: messages a second from the socket to committed rows, in one process.

Beside it what one would write instead: a loop that parses each message and inserts its row. The
server of the test's own sends from a process of its own; both sides store the same rows.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psycopg
from alphaplus.loaders.streams.connection import Waiting
from alphaplus.loaders.streams.markets import market
from alphaplus.loaders.streams.recording import Replay
from alphaplus.loaders.streams.stream import Options, Stream
from websockets.asyncio.client import connect

from tests.bench import _common

MESSAGES = 60_000
NAIVE = 3_000
STORED = "select count(*), sum(price * size), min(trade_id), max(trade_id) from market.trades"


def recording(path: Path, count: int) -> None:
    """Aggregate trades of ten symbols, as USD-M sends them."""
    now = time.time_ns() // 1_000_000 - 1000
    with path.open("w") as file:
        for i in range(count):
            symbol = f"B{i % 10}USDT"
            data = {"e": "aggTrade", "E": now, "s": symbol, "a": i // 10, "p": f"{60_000 + i % 97}",
                    "q": "0.125", "f": i, "l": i, "T": now, "m": i % 2 == 0}  # fmt: skip
            line = {"stream": f"{symbol.lower()}@aggTrade", "data": data}
            file.write(f"{now * 1_000_000} {json.dumps(line, separators=(',', ':'))}\n")


def _serve(path: str, pipe: Any) -> None:
    async def go() -> None:
        async with Replay(Path(path), 0) as server:
            pipe.send(server.url)
            while not pipe.poll():
                await asyncio.sleep(0.1)

    asyncio.run(go())


def _stream(conninfo: str, url: str, folder: Path) -> tuple[float, Any]:
    symbols = tuple(f"B{i}USDT" for i in range(10))
    made = Stream(
        market("binance-usdm"), symbols, ("trades",), conninfo, folder,
        Options(base=url, recorded=True, repair=False, waiting=Waiting(0.01, 0.1)),
    )  # fmt: skip
    start = time.perf_counter()
    asyncio.run(made.run())
    taken = time.perf_counter() - start
    with psycopg.connect(conninfo) as conn:
        return MESSAGES / taken, conn.execute(STORED).fetchone()


def _naive(conninfo: str, url: str) -> float:
    async def go() -> float:
        with psycopg.connect(conninfo, autocommit=True) as conn:
            async with connect(url, compression=None) as socket:
                start = time.perf_counter()
                for _ in range(NAIVE):
                    d = json.loads(await socket.recv())["data"]
                    conn.execute(
                        "insert into market.trades (symbol, ts, trade_id, price, size, side)"
                        " values (%s, to_timestamp(%s / 1000.0), %s, %s, %s, %s)",
                        (d["s"], d["T"], str(d["a"]), float(d["p"]), float(d["q"]),
                         "sell" if d["m"] else "buy"),
                    )  # fmt: skip
                return NAIVE / (time.perf_counter() - start)

    return asyncio.run(go())


def run(conninfo: str) -> list[dict[str, Any]]:
    """Both."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recording(folder / "feed.jsonl", MESSAGES)
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(str(folder / "feed.jsonl"), theirs))
        process.start()
        url = ours.recv()
        try:
            with _common.database(conninfo, "live") as db:
                rate, stored = _stream(db, url, folder / "spool")
                assert stored[0] == MESSAGES, stored
            with _common.database(conninfo, "live_naive") as db:
                naive = _naive(db, url)
        finally:
            ours.send("stop")
            process.join(10)
    return [
        _common.row(
            "live: socket to committed rows", rate, "messages/s", goal="value >= 15000",
            peer="json.loads and INSERT, one by one", peer_value=naive,
        )
    ]  # fmt: skip
