"""Raw frames with their receive times in a file, and a server that sends them again.

A line is the receive time in nanoseconds, a space, and the message as it came: what ``alphaplus
load`` reads, too. A file that ends in .gz is compressed.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from alphaplus.loaders.streams.connection import RECORDED
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed


class Recorder:
    """Appends what comes in to a file, byte for byte."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _opened(path, "ab")

    def put(self, raw: bytes, received: int) -> None:
        """A message; ``received`` in microseconds. One with a line end in it loses none of it."""
        line = raw if b"\n" not in raw else raw.replace(b"\n", b" ")
        self._file.write(b"%d000 " % received + line + b"\n")

    def flush(self) -> None:
        """So that a kill loses little."""
        self._file.flush()

    def close(self) -> None:
        """The end of the file."""
        self._file.close()


def _opened(path: Path, mode: str) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast("IO[bytes]", gzip.open(path, mode))
    return cast("IO[bytes]", path.open(mode))


def frames(path: Path) -> Iterator[tuple[int | None, bytes]]:
    """Receive time in nanoseconds (None: the file has none) and message of each line."""
    with _opened(path, "rb") as file:
        for line in file:
            body = line.strip()
            if not body:
                continue
            stamp, space, rest = body.partition(b" ")
            if space and stamp.isdigit():
                yield _nanoseconds(int(stamp)), rest
            else:
                yield None, body


def _nanoseconds(stamp: int) -> int:
    for scale in (10**9, 10**6, 10**3):  # s, ms, µs
        if stamp * scale < 4_102_444_800 * 10**9:
            return stamp * scale
    return stamp


class Replay:
    """A websocket server on loopback that sends a recording to each who connects.

    speed: 1 as it was recorded, 0 as fast as it goes. A client that asks for the subprotocol
    alphaplus.recorded gets each message behind its receive time.
    """

    def __init__(self, path: Path, speed: float = 1.0, host: str = "127.0.0.1", port: int = 0):
        self.path = path
        self.speed = speed
        self.host = host
        self.port = port
        self.sent = 0
        self._server: Server | None = None

    async def __aenter__(self) -> Replay:
        self._server = await serve(
            self._talk, self.host, self.port, subprotocols=[RECORDED], compression=None
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: Any) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"ws://{self.host}:{self.port}"

    async def _talk(self, socket: ServerConnection) -> None:
        listen = asyncio.create_task(self._listen(socket))
        loop = asyncio.get_running_loop()
        stamped = socket.subprotocol == RECORDED
        began, first = loop.time(), None
        try:
            for stamp, raw in frames(self.path):
                if self.speed > 0 and stamp is not None:
                    first = stamp if first is None else first
                    due = began + (stamp - first) / 1e9 / self.speed
                    if due > loop.time():
                        await asyncio.sleep(due - loop.time())
                body = b"%d " % stamp + raw if stamped and stamp is not None else raw
                await socket.send(body, text=True)
                self.sent += 1
            await socket.close(1000, "end of the recording")
        except ConnectionClosed:
            pass
        finally:
            listen.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listen

    @staticmethod
    async def _listen(socket: ServerConnection) -> None:
        """Subscriptions are taken and not answered."""
        with contextlib.suppress(ConnectionClosed):
            async for _ in socket:
                pass
