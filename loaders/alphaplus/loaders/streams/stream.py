"""A stream: connections into the spool, the spool into the database, holes filled by REST."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import psycopg
from alphaplus.loaders.instruments import Catalog
from alphaplus.loaders.streams.batch import Batch, Store, take
from alphaplus.loaders.streams.connection import Connection, Waiting
from alphaplus.loaders.streams.recording import Recorder
from alphaplus.loaders.streams.spool import Frame, Spool, control
from alphaplus.loaders.streams.venue import Parser, Venue, Wanted

FLUSH = 0.01  # seconds between two flushes of the spool
CHECKPOINT = 10.0  # seconds between two checkpoints
LOCK_WAIT = 1.0


@dataclass(frozen=True)
class Options:
    """How a stream runs. rows, linger: a batch is stored at so many rows, or after so long."""

    rows: int = 5000
    linger: float = 0.1
    levels: int = 20
    every: float = 1.0
    base: str | None = None  # websocket address in place of the exchange's
    rest: str | None = None  # address of REST in place of the exchange's
    repair: bool = True
    record: Path | None = None
    recorded: bool = False
    silence: float | None = None
    spool_limit: int = 1 << 30
    sync: bool = False
    waiting: Waiting | None = None
    poll: float = 60.0  # seconds between two questions for open interest
    refresh: float = 3600.0  # seconds between two readings of the instruments


class AlreadyRunning(Exception):
    """Another process reads this stream."""


class Stream:
    """One exchange, its symbols and channels; one connection, one spool, one writer."""

    def __init__(
        self,
        venue: Venue,
        symbols: tuple[str, ...],
        channels: tuple[str, ...],
        conninfo: str,
        spool: Path,
        options: Options | None = None,
        *,
        name: str | None = None,
        say: Callable[[str], None] = lambda words: None,
    ) -> None:
        venue.check(symbols, channels)
        self.venue = venue
        self.symbols = symbols
        self.channels = channels
        self.conninfo = conninfo
        self.options = options or Options()
        self.name = name or venue.name
        self.say = say
        self.spool = Spool(spool, self.options.spool_limit, sync=self.options.sync)
        self.store = Store(self.name)
        self.recorder = Recorder(self.options.record) if self.options.record else None
        self.connection: Connection | None = None
        self.parser: Parser | None = None
        self.stored = 0
        self.batches = 0
        self.position = 0
        self._stop = threading.Event()
        self._drain = threading.Event()
        self._wanted: queue.SimpleQueue[Wanted | None] = queue.SimpleQueue()
        self._asked: dict[Wanted, float] = {}
        self._failed: BaseException | None = None
        self.latencies: list[tuple[int, int]] = []

    async def run(self) -> None:
        """Until cancelled, or the other side says that there is no more (a replay)."""
        self._open()
        writer = threading.Thread(target=self._write, name=f"{self.name} writer", daemon=True)
        repairer = threading.Thread(target=self._repair, name=f"{self.name} REST", daemon=True)
        self.connection = Connection(
            self.venue, self.symbols, self.channels, self._put, base=self.options.base,
            silence=self.options.silence, waiting=self.options.waiting,
            recorded=self.options.recorded, say=self.say,
        )  # fmt: skip
        writer.start()
        repairer.start()
        tasks = [asyncio.create_task(self.connection.run()), asyncio.create_task(self._flush())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.spool.flush()
            self._drain.set()
            self._wanted.put(None)
            await asyncio.to_thread(writer.join, 60)
            self._stop.set()
            self.spool.close()
            if self.recorder:
                self.recorder.close()
        if self._failed is not None:
            raise self._failed

    def _put(self, lane: str, raw: bytes, received: int) -> None:
        if self.recorder is not None and not raw.startswith(b'{"alphaplus"'):
            self.recorder.put(raw, received)
        self.spool.put(lane, raw, received)

    async def _flush(self) -> None:
        polled = time.monotonic()
        while self._failed is None:
            await asyncio.sleep(FLUSH)
            self.spool.flush()
            if self.spool.said:
                said, self.spool.said = self.spool.said, []
                for lane, count in said:
                    self.say(f"the spool is full: {count} messages of {lane} are thrown out")
                    self.spool.put("control", control("evicted", lane=lane, count=count), _now())
            if self.recorder:
                self.recorder.flush()
            if "open_interest" in self.channels and time.monotonic() >= polled:
                polled = time.monotonic() + self.options.poll
                if self.venue.unnumbered and self.options.repair:
                    for symbol in self.symbols:
                        self._wanted.put(Wanted("open_interest", symbol))

    # --- the writer's thread ---------------------------------------------------------------------

    def _open(self) -> None:
        """The database as it is: where the stream stands, and what is known of instruments."""
        self.store.connect(self.conninfo)
        deadline = time.monotonic() + LOCK_WAIT
        while not self.store.lock():
            if time.monotonic() > deadline:
                raise AlreadyRunning(
                    f"another process reads the stream {self.name} ({self.store.holder()})"
                )
            time.sleep(0.1)
        self.position = self.store.begin(self.venue.name, self.symbols, self.channels)
        assert self.store.register is not None
        number, state = self.spool.checkpoint()
        self.parser = self.venue.parser(
            self.venue, self.store.register.catalog, self.symbols, self.channels,
            levels=self.options.levels, every=self.options.every,
            state=orjson.loads(state) if state else None,
        )  # fmt: skip
        if self.position >= self.spool.next:
            # A new spool: its frames are numbered after those that are stored.
            self.spool.next = self.position + 1
            self.spool.flushed = self.position
        self._checkpointed = number

    def _write(self) -> None:
        try:
            self._write_on()
        except BaseException as error:  # the loop has to know
            self._failed = error

    def _write_on(self) -> None:
        parser = self.parser
        assert parser is not None
        batch, began = Batch(), 0.0
        received: list[int] = []
        checkpoint = time.monotonic()
        heard = time.monotonic()
        while True:
            frames = self.spool.read(2000)
            frames = [f for f in frames if f.number > self._checkpointed]
            for frame in frames:
                self._parse(parser, frame, batch, received)
            if frames and not began:
                began = time.monotonic()
            waiting = self._drain.is_set() and not frames
            late = began and time.monotonic() - began >= self.options.linger
            beat = time.monotonic() - heard > 5
            if (began and (late or waiting or len(received) >= self.options.rows)) or beat:
                take(parser, batch)
                self._ask(parser)
                self._commit(parser, batch, received)
                heard = time.monotonic()
                if heard - checkpoint > CHECKPOINT or waiting:
                    checkpoint = heard
                    if (state := parser.saved()) is not None:
                        self.spool.store_checkpoint(batch.position, state)
                position = batch.position
                batch, began, received = Batch(), 0.0, []
                batch.position = position
            if waiting:
                self.store.say("stopped")
                self.store.close()
                return
            if not frames:
                pause = self.options.linger - (time.monotonic() - began) if began else 0.1
                self.spool.wait(max(min(pause, 0.1), 0.001))

    def _parse(self, parser: Parser, frame: Frame, batch: Batch, received: list[int]) -> None:
        parser.frame(frame)
        if frame.number <= self.position:
            # Stored before a restart: only what is known by it counts.
            if frame.number == self.position:
                take(parser, Batch())
                parser.wanted.clear()
            return
        batch.position = frame.number
        if not frame.raw.startswith(b'{"alphaplus"'):
            batch.messages += 1
            received.append(frame.received)

    def _ask(self, parser: Parser) -> None:
        now = time.monotonic()
        wanted, parser.wanted = parser.wanted, []
        for one in wanted:
            if not self.options.repair:
                continue
            if now - self._asked.get(one, -1e9) > 1.0:
                self._asked[one] = now
                self._wanted.put(one)
            elif one.what == "snapshot":
                # The one that has just come is no good either: asked again, but not at once.
                later = threading.Timer(1.0, self._wanted.put, (one,))
                later.daemon = True
                later.start()
        if len(self._asked) > 10_000:
            self._asked = {k: v for k, v in self._asked.items() if now - v < 60}

    def _commit(self, parser: Parser, batch: Batch, received: list[int]) -> None:
        batch.last_received = received[-1] if received else 0
        offsets = sorted(parser.offsets)
        parser.offsets.clear()
        connection = self.connection
        batch.status = {
            "status": connection.status if connection else None,
            "last_ts": parser.last_ts or None,
            "offset": offsets[len(offsets) // 2] if offsets else None,
            "reconnects": max((connection.connects if connection else 0) - 1, 0),
            "spool_bytes": self.spool.size(),
            "evicted": self.spool.evicted,
            "counters": parser.counters,
            "names": self._names(parser),
            "error": connection.error if connection else None,
        }
        pause = 0.05
        while True:
            try:
                if self.store.conn is None or self.store.conn.closed:
                    self.store.connect(self.conninfo)
                    if not self.store.lock():
                        raise psycopg.OperationalError("its turn is still another's")
                if received:
                    now = _now()
                    batch.status["latency"] = [
                        (now - received[i]) / 1000 for i in (0, len(received) // 2, -1)
                    ]
                self.stored += self.store.put(batch)
                break
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                # The database is away or blocked: the spool keeps what comes in meanwhile.
                self.say(f"the database does not take rows: {str(error).splitlines()[0]}")
                self.store.close()
                if self._stop.is_set():
                    raise
                time.sleep(pause)
                pause = min(pause * 2, 2.0)
        if received:
            self.latencies.append((received[0], _now()))
            del self.latencies[:-100_000]
        self.batches += 1

    def _names(self, parser: Parser) -> dict[str, str]:
        assert self.store.register is not None
        names = {}
        for symbol in self.symbols:
            try:
                names[symbol] = self.store.register.name(parser.instrument(symbol))
            except Exception:
                names[symbol] = symbol
        return names

    # --- REST --------------------------------------------------------------------------------

    def _repair(self) -> None:
        client: Any = None
        attempts: dict[Wanted, int] = {}
        while (wanted := self._wanted.get()) is not None:
            try:
                if wanted.what == "snapshot" and not self.venue.rest_books:
                    # The socket itself gives a new one.
                    if self.connection is not None:
                        self.connection.tell(self.venue.book_again(wanted.symbol))
                    continue
                if client is None:
                    client = self.venue.client(self.options.rest)
                self.spool.put(*self._fetch(client, wanted))
                attempts.pop(wanted, None)
            except NotImplementedError as error:
                # Asking again would not help: what was missed stays a gap.
                self.say(f"REST {wanted.what} of {wanted.symbol}: {error}")
            except Exception as error:
                # Whatever REST says no to is asked again, ever more slowly, and stays a gap.
                n = attempts[wanted] = attempts.get(wanted, 0) + 1
                self.say(f"REST {wanted.what} of {wanted.symbol}: {str(error)[:200]}")
                if n < 8 and wanted.what != "open_interest" and not self._drain.is_set():
                    later = threading.Timer(min(0.2 * 2**n, 30), self._wanted.put, (wanted,))
                    later.daemon = True
                    later.start()

    def _fetch(self, client: Any, wanted: Wanted) -> tuple[str, bytes, int]:
        symbol = wanted.symbol
        if wanted.what == "snapshot":
            data = self.venue.snapshot(client, symbol)
            return "book", control("snapshot", symbol=symbol, data=data), _now()
        if wanted.what == "open_interest":
            data = self.venue.interest(client, symbol)
            return "open_interest", control("open_interest", symbol=symbol, data=data), _now()
        items, complete = self.venue.trades(client, wanted)
        return (
            "trades",
            control(
                "trades", symbol=symbol, data=items, complete=complete,
                since=wanted.since if wanted.since is not None else 1 << 62,
            ),
            _now(),
        )  # fmt: skip


def catalog(conninfo: str) -> Catalog:
    """What the database knows of instruments."""
    with psycopg.connect(conninfo) as conn:
        return Catalog.read(conn)


def _now() -> int:
    return time.time_ns() // 1000
