"""A websocket that is kept open: subscribe, answer pings, notice silence, come back."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from alphaplus.loaders.streams.spool import control
from alphaplus.loaders.streams.venue import Venue
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

RECORDED = Subprotocol("alphaplus.recorded")  # frames come with the receive times of a recording
TICK = 1.0  # seconds between two frames of our own, which let time pass for what is held back
STEADY = 60.0  # seconds after which a connection counts as one that holds


@dataclass(frozen=True)
class Waiting:
    """How long to wait before connecting again: twice as long each time, less a random part."""

    first: float = 0.5
    most: float = 30.0

    def seconds(self, attempt: int, dice: random.Random) -> float:
        """For the n-th attempt in a row, from 0."""
        return float(min(self.most, self.first * 2 ** min(attempt, 16)) * dice.uniform(0.5, 1.0))


class Connection:
    """One connection to an exchange; what comes in goes to ``put(lane, raw, received)``."""

    def __init__(
        self,
        venue: Venue,
        symbols: tuple[str, ...],
        channels: tuple[str, ...],
        put: Callable[[str, bytes, int], object],
        *,
        base: str | None = None,
        silence: float | None = None,
        waiting: Waiting | None = None,
        recorded: bool = False,
        say: Callable[[str], None] = lambda words: None,
    ) -> None:
        self.venue = venue
        self.symbols = symbols
        self.channels = channels
        self.put = put
        self.base = base
        self.silence = silence or venue.silence
        self.waiting = waiting or Waiting()
        self.recorded = recorded
        self.say = say
        self.connects = 0
        self.status = "starting"
        self.error: str | None = None
        self.ended = asyncio.Event()  # the other side has said that there is no more
        self._heard = time.monotonic()
        self._dice = random.Random()
        self._socket: ClientConnection | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self) -> None:
        """Until cancelled."""
        attempt = 0
        while True:
            began = time.monotonic()
            how = "outage"
            try:
                how = await self._once()
            except (OSError, WebSocketException, TimeoutError) as error:
                self.error = f"{type(error).__name__}: {error}"[:500]
            if self.ended.is_set():
                self._own("end")
                return
            if self.status == "connected":
                self._own("lost", how=how)
            self.status = "reconnecting"
            attempt = 0 if time.monotonic() - began > STEADY else attempt + 1
            pause = self.waiting.seconds(attempt - 1 if attempt else 0, self._dice)
            self.say(f"{self.error or how}; connecting again in {pause:.1f} s")
            await asyncio.sleep(pause)

    def tell(self, lines: Sequence[bytes]) -> None:
        """Send lines to the exchange, from any thread; nothing while the connection is down."""
        socket, loop = self._socket, self._loop
        if socket is None or loop is None or not lines:
            return

        async def send() -> None:
            with contextlib.suppress(WebSocketException):
                for line in lines:
                    await socket.send(line.decode())

        asyncio.run_coroutine_threadsafe(send(), loop)

    def _own(self, what: str, **more: object) -> None:
        self.put("control", control(what, **more), time.time_ns() // 1000)

    async def _once(self) -> str:
        url = self.venue.url(self.symbols, self.channels, self.base)
        async with connect(
            url,
            compression=None,
            max_size=64 << 20,
            max_queue=4096,
            ping_interval=20,
            open_timeout=10,
            close_timeout=2,
            subprotocols=[RECORDED] if self.recorded else None,
            proxy=None if self.base else True,
        ) as socket:
            self.connects += 1
            self.error = None
            self._heard = time.monotonic()
            self._own("connected")
            self.status = "connected"
            self.say(f"connected to {url}")
            # What was sent before the other side closed is read all the same.
            with contextlib.suppress(WebSocketException):
                for line in self.venue.hello(self.symbols, self.channels):
                    await socket.send(line.decode())
            watch = asyncio.create_task(self._watch(socket))
            self._socket, self._loop = socket, asyncio.get_running_loop()
            try:
                return await self._receive(socket)
            finally:
                self._socket = None
                watch.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watch

    async def _receive(self, socket: ClientConnection) -> str:
        lane, answer, failure = self.venue.lane, self.venue.answer, self.venue.failure
        answers = type(self.venue).answer is not Venue.answer
        fails = type(self.venue).failure is not Venue.failure
        put, clock = self.put, time.time_ns
        try:
            while True:
                raw = await socket.recv(decode=False)
                now = clock() // 1000
                self._heard = time.monotonic()
                where = lane(raw)
                if where == "control":
                    if answers and (reply := answer(raw)) is not None:
                        await socket.send(reply.decode())
                        continue
                    if fails and (why := failure(raw)):
                        self.error = f"{self.venue.name} says: {why}"[:500]
                        self.say(self.error)
                put(where, raw, now)
        except WebSocketException as error:
            if self._silent():
                return "silence"
            self.error = f"{type(error).__name__}: {error}"[:500]
            close = socket.close_code
            if self.recorded and close == 1000:
                self.ended.set()
            return "outage"

    def _silent(self) -> bool:
        return time.monotonic() - self._heard > self.silence

    async def _watch(self, socket: ClientConnection) -> None:
        """Time passes: ticks, the exchange's own pings, and the end of a silent connection."""
        pinged = time.monotonic()
        while True:
            await asyncio.sleep(min(TICK, self.silence / 2))
            self._own("tick")
            if self._silent():
                self.error = f"no message for {self.silence:g} s"
                await socket.close(4000, "silence")
                return
            ping = self.venue.ping
            if ping is not None and time.monotonic() - pinged >= ping[0]:
                pinged = time.monotonic()
                with contextlib.suppress(WebSocketException):
                    await socket.send(ping[1].decode())
