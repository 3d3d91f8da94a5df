"""Streams against servers of the tests' own: run one until it is done, and feed it frames."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from alphaplus.loaders.streams.connection import RECORDED, Waiting
from alphaplus.loaders.streams.markets import market
from alphaplus.loaders.streams.stream import Options, Stream
from websockets.asyncio.server import ServerConnection, serve

QUICK = Waiting(0.01, 0.05)
Frames = list[tuple[int, bytes]]  # receive time in nanoseconds, message


def run_stream(
    conninfo: str,
    spool: Path,
    connections: list[Frames],
    exchange: str = "binance-usdm",
    symbols: tuple[str, ...] = ("BTCUSDT",),
    channels: tuple[str, ...] = ("trades", "book"),
    *,
    options: Callable[..., Options] = Options,
    until: Callable[[], bool] | None = None,
    **more: Any,
) -> Stream:
    """Serve each list of frames to one connection after the other, then end; returns the stream.

    The last connection ends with code 1000 once ``until`` holds, the others are dropped.
    """
    sent: list[int] = []
    said: list[list[Any]] = []

    async def talk(socket: ServerConnection) -> None:
        turn = len(sent)
        sent.append(0)
        said.append([])

        async def listen() -> None:
            async for text in socket:
                said[turn].append(text)

        hearing = asyncio.create_task(listen())
        last = turn >= len(connections) - 1
        for stamp, raw in connections[min(turn, len(connections) - 1)]:
            await socket.send(b"%d " % stamp + raw, text=True)
        for _ in range(600):
            if until is None or not last or await asyncio.to_thread(until):
                break
            await asyncio.sleep(0.05)
        await socket.close(1000 if last else 1012)
        hearing.cancel()

    async def go() -> Stream:
        async with serve(talk, "127.0.0.1", 0, subprotocols=[RECORDED], compression=None) as server:
            port = server.sockets[0].getsockname()[1]
            stream = Stream(
                market(exchange), symbols, channels, conninfo, spool,
                options(base=f"ws://127.0.0.1:{port}", recorded=True, waiting=QUICK, **more),
            )  # fmt: skip
            await asyncio.wait_for(stream.run(), 40)
            return stream

    return asyncio.run(go())


class Rest:
    """A REST server on loopback that answers by path: ``answers[path](query) -> JSON``."""

    def __init__(self, answers: dict[str, Callable[[dict[str, str]], Any]]) -> None:
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                outer.asked.append(self.path)
                query = {k: v[0] for k, v in parse_qs(parts.query).items()}
                found = answers.get(parts.path)
                body = json.dumps(found(query) if found else {"code": -1, "msg": "no"}).encode()
                self.send_response(200 if found else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
