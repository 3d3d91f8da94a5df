"""Streams that are cut, killed and blocked: every hole is found, none invented, nothing doubled."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alphaplus.loaders.streams.markets import market
from alphaplus.loaders.streams.spool import Spool
from alphaplus.loaders.streams.stream import Options, Stream
from websockets.asyncio.server import ServerConnection, serve

from tests.conftest import Server
from tests.db.live_exchange import QUICK, Frames, Rest, run_stream
from tests.db.market.test_live import TRADES, loader_of, rest_trades, trade

Conn = psycopg.Connection[Any]
COUNT = 1200


def harmed(dice: random.Random) -> tuple[list[Frames], set[int]]:
    """The frames of one run, as connections, and the trades that never come."""
    frames = [trade(n) for n in range(1, COUNT)]
    lost: set[int] = set()
    kind = dice.choice(
        ["cut", "duplicate", "reorder", "truncate", "corrupt", "delay", "drop", "all"]
    )

    def does(what: str) -> bool:
        return kind in (what, "all")

    out: list[tuple[int, tuple[int, bytes]]] = list(enumerate(frames, 1))
    if does("cut"):
        for _ in range(dice.randint(1, 4)):
            start = dice.randint(2, COUNT - 100)
            lost |= set(range(start, start + dice.randint(1, 60)))
    if does("truncate"):
        for n in dice.sample(range(2, COUNT - 2), 5):
            lost.add(n)
            stamp, raw = frames[n - 1]
            out[n - 1] = (0, (stamp, raw[: dice.randint(1, len(raw) - 1)]))
    if does("corrupt"):
        for n in dice.sample(range(2, COUNT - 2), 5):
            lost.add(n)
            stamp, raw = frames[n - 1]
            out[n - 1] = (0, (stamp, raw.replace(b'"a":', b'"a"\x00', 1)))
    out = [(n, frame) for n, frame in out if n == 0 or n not in lost]
    if does("reorder") or does("delay"):
        # No further than is waited for: six of them are sent within a second.
        for i in range(3, len(out) - 8, 8):
            j = i + dice.randint(1, 4)
            out[i], out[j] = out[j], out[i]
    if does("duplicate"):
        for _ in range(20):
            i = dice.randint(0, len(out) - 2)
            out.insert(min(len(out) - 1, i + dice.randint(1, 30)), out[i])
    stamps = sorted(frame[0] for _, frame in out)
    sent = [(stamp, raw) for stamp, (_, (_, raw)) in zip(stamps, out, strict=True)]
    if does("drop"):
        at = sorted(dice.sample(range(50, len(sent) - 50), 2))
        return [sent[: at[0]], sent[at[0] : at[1]], sent[at[1] :]], lost
    return [sent], lost


def spans(numbers: set[int]) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for n in sorted(numbers):
        if out and out[-1][1] == n - 1:
            out[-1] = (out[-1][0], n)
        else:
            out.append((n, n))
    return out


@pytest.mark.long
def test_forty_harmed_streams_come_out_whole(db: Conn, server: Server, tmp_path: Path) -> None:
    run_stream(loader_of(db, server), tmp_path / "whole", [[trade(n) for n in range(1, COUNT)]],
               channels=("trades",), repair=False)  # fmt: skip
    uncut = db.execute(TRADES).fetchall()
    assert len(uncut) == COUNT - 1
    rest = Rest({"/fapi/v1/aggTrades": rest_trades})
    for run in range(40):
        db.execute(
            "truncate market.trades, market.trades_history, market.gaps, market.streams,"
            " market.quarantine, market.trade_spans"
        )
        connections, lost = harmed(random.Random(run))

        def whole() -> bool:
            (count,) = db.execute("select count(*) from market.trades").fetchone() or (0,)
            return bool(count >= COUNT - 1)

        run_stream(
            loader_of(db, server), tmp_path / f"spool{run}", connections, channels=("trades",),
            rest=rest.url, until=whole,
        )  # fmt: skip
        found = db.execute(
            "select from_id, to_id, repaired_at is not null from market.gaps order by from_id"
        ).fetchall()
        assert found == [(a, b, True) for a, b in spans(lost)], run
        assert db.execute(TRADES).fetchall() == uncut, run
    rest.close()


def paced(count: int, pause: float) -> Any:
    async def talk(socket: ServerConnection) -> None:
        now = time.time_ns() // 1_000_000
        for n in range(1, count):
            data = {"e": "aggTrade", "E": now, "s": "BTCUSDT", "a": n, "p": "1", "q": "1", "f": n,
                    "l": n, "T": now + n, "m": True}  # fmt: skip
            await socket.send(json.dumps({"stream": "btcusdt@aggTrade", "data": data}))
            if n % 20 == 0:
                await asyncio.sleep(pause)
        await socket.wait_closed()

    return talk


def test_a_blocked_database_loses_nothing(db: Conn, server: Server, tmp_path: Path) -> None:
    """Another session holds the table for seconds; what came in meanwhile is stored after it."""

    async def go() -> None:
        async with serve(paced(2000, 0.02), "127.0.0.1", 0) as exchange:
            port = exchange.sockets[0].getsockname()[1]
            stream = Stream(
                market("binance-usdm"), ("BTCUSDT",), ("trades",), loader_of(db, server),
                tmp_path / "spool",
                Options(base=f"ws://127.0.0.1:{port}", repair=False, waiting=QUICK),
            )  # fmt: skip
            task = asyncio.create_task(stream.run())

            def block() -> None:
                with psycopg.connect(db.info.dsn, password=db.info.password) as other:
                    other.execute("lock table market.trades in access exclusive mode")
                    time.sleep(3)

            await asyncio.sleep(0.5)
            await asyncio.to_thread(block)
            for _ in range(600):
                if db.execute("select count(*) from market.trades").fetchone() == (1999,):
                    break
                await asyncio.sleep(0.05)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(go())
    assert db.execute("select count(*) from market.trades").fetchone() == (1999,)
    assert db.execute("select count(*) from market.gaps").fetchone() == (0,)


KILLED = """
import asyncio, os, sys
from pathlib import Path
from alphaplus.loaders.streams.connection import Waiting
from alphaplus.loaders.streams.markets import market
from alphaplus.loaders.streams.stream import Options, Stream
conninfo, (url, spool) = os.environ['STREAM_CONNINFO'], sys.argv[1:]
asyncio.run(Stream(market("binance-usdm"), ("BTCUSDT",), ("trades",), conninfo, Path(spool),
    Options(base=url, repair=False, linger=0.02, waiting=Waiting(0.01, 0.05))).run())
"""


def test_a_stream_killed_at_any_moment_loses_nothing_it_took(
    db: Conn, server: Server, tmp_path: Path
) -> None:
    """What the spool has acknowledged is stored by the next process, once."""
    dice = random.Random(5)
    heard: list[int] = []

    async def talk(socket: ServerConnection) -> None:
        now = time.time_ns() // 1_000_000
        n = heard[-1] if heard else 0
        while True:
            n += 1
            data = {"e": "aggTrade", "E": now, "s": "BTCUSDT", "a": n, "p": "1", "q": "1", "f": n,
                    "l": n, "T": now, "m": True}  # fmt: skip
            await socket.send(json.dumps({"stream": "btcusdt@aggTrade", "data": data}))
            heard.append(n)
            await asyncio.sleep(0.001)

    loop = asyncio.new_event_loop()
    ready = threading.Event()
    ports: list[int] = []

    async def host() -> None:
        async with serve(talk, "127.0.0.1", 0) as exchange:
            ports.append(exchange.sockets[0].getsockname()[1])
            ready.set()
            await asyncio.sleep(3600)

    threading.Thread(target=lambda: loop.run_until_complete(host()), daemon=True).start()
    ready.wait(10)
    spool = tmp_path / "spool"
    env = {**os.environ, "STREAM_CONNINFO": loader_of(db, server)}
    arguments = [sys.executable, "-c", KILLED, f"ws://127.0.0.1:{ports[0]}", str(spool)]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            arguments, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    for _ in range(4):
        process = start()
        time.sleep(dice.uniform(2.0, 4.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
    kept: set[int] = set()
    for frame in Spool(spool).read(1_000_000):
        if frame.raw.startswith(b'{"stream"'):
            kept.add(json.loads(frame.raw)["data"]["a"])
    # One more process stores what is left, and ends in its turn.
    process = start()
    for _ in range(300):
        stored = {int(n) for (n,) in db.execute("select trade_id from market.trades").fetchall()}
        if kept <= stored:
            break
        time.sleep(0.1)
    process.terminate()
    process.wait(30)
    assert kept and kept <= stored
    rows = db.execute("select count(*), count(distinct trade_id) from market.trades").fetchone()
    assert rows is not None and rows[0] == rows[1]
    # And what was never acknowledged is a gap, number by number.
    missing = set(range(min(stored), max(stored) + 1)) - stored
    holes = db.execute("select from_id, to_id from market.gaps where how = 'sequence'").fetchall()
    assert missing <= {n for a, b in holes for n in range(a, b + 1)}
