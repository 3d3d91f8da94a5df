"""An exchange of our own on loopback: the market simulator behind Binance's USD-M protocol.

Events come as the simulator made them, paced by the clock on the wall (or faster), and carry the
time at which they are sent. The same seed gives the same prices, sizes and order of events.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Any, ClassVar

import orjson
from alphaplus.loaders import simulator
from alphaplus.loaders.instruments import Instrument
from alphaplus.loaders.streams.binance import BinanceParser, BinanceUsdm
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

MINUTES = 240  # simulated at a time; the next ones go on from the last price


class SimulatedParser(BinanceParser):
    """Instruments of the simulator, whatever market rows say of Binance's."""

    def instrument(self, native: str) -> Instrument:
        """A linear perpetual, sizes in base units."""
        base = native.removesuffix("USDT")
        return Instrument("sim", native, "perpetual", base, "USDT", unit="base")

    def _instrument(self, data: dict[str, Any], *, spot: bool | None) -> Instrument:
        return self.instrument(str(data["s"]))


class Simulated(BinanceUsdm):
    """The exchange that ``alphaplus stream simulator`` starts and reads."""

    name = "simulator"
    exchange = "sim"
    rest_books = False
    silence = 120.0
    channels: ClassVar[tuple[str, ...]] = ("trades", "book", "liquidations", "funding")
    parser = SimulatedParser


def events(symbol: str, seed: int, price: float) -> Iterator[tuple[float, str, dict[str, Any]]]:
    """Seconds from the start, stream and message (without its times), without end."""
    offset, trade, update = 0.0, 0, 0
    shown: tuple[list[str], list[str]] = ([], [])
    while True:
        market = simulator.simulate(seed, MINUTES, simulator.Config(price=price), hazards=False)
        made: list[tuple[float, int, int]] = []
        for kind, part in enumerate((market.trades, market.books, market.liquidations)):
            made += [(float(ts) / 1e6, kind, i) for i, ts in enumerate(part["ts"])]
        for at, kind, i in sorted(made):
            if kind == 0:
                trade += 1
                t = market.trades
                price = float(t["price"][i])
                yield offset + at, "aggTrade", {
                    "e": "aggTrade", "s": symbol, "a": trade, "p": repr(price),
                    "q": repr(float(t["size"][i])), "f": trade, "l": trade,
                    "m": bool(t["sign"][i] < 0),
                }  # fmt: skip
            elif kind == 1:
                sides = []
                for side, old in zip(("bid", "ask"), shown, strict=True):
                    prices = [f"{p:.6g}" for p in market.books[f"{side}_prices"][i]]
                    sizes = [f"{s:.6f}" for s in market.books[f"{side}_sizes"][i]]
                    gone = [[p, "0"] for p in old if p not in prices]
                    sides.append(gone + [list(x) for x in zip(prices, sizes, strict=True)])
                    old[:] = prices
                first, update = update + 1, update + 3
                yield offset + at, "depth@100ms", {
                    "e": "depthUpdate", "s": symbol, "U": first, "u": update, "pu": first - 1,
                    "b": sides[0], "a": sides[1],
                }  # fmt: skip
            else:
                o = market.liquidations
                p, q = repr(float(o["price"][i])), repr(float(o["size"][i]))
                yield offset + at, "forceOrder", {"e": "forceOrder", "o": {
                    "s": symbol, "S": "BUY" if o["sign"][i] > 0 else "SELL", "o": "LIMIT",
                    "f": "IOC", "q": q, "p": p, "ap": p, "X": "FILLED", "l": q, "z": q,
                }}  # fmt: skip
        offset += MINUTES * 60.0
        seed += 1


class SimulatedExchange:
    """The server; use as an asynchronous context manager."""

    def __init__(
        self, symbols: tuple[str, ...], seed: int = 7, speed: float = 1.0, port: int = 0
    ) -> None:
        self.symbols = symbols
        self.seed = seed
        self.speed = speed
        self.port = port
        self.sent = 0
        self._server: Server | None = None

    async def __aenter__(self) -> SimulatedExchange:
        self._server = await serve(self._talk, "127.0.0.1", self.port, compression=None)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: Any) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"ws://127.0.0.1:{self.port}"

    async def _talk(self, socket: ServerConnection) -> None:
        asked: set[str] = set()
        tasks: list[asyncio.Task[None]] = []
        try:
            async for text in socket:
                request = orjson.loads(text)
                if request.get("method") == "SUBSCRIBE":
                    asked |= set(request["params"])
                await socket.send(orjson.dumps({"result": None, "id": request.get("id")}).decode())
                if not tasks:
                    tasks = [
                        asyncio.create_task(self._feed(socket, asked, symbol, i))
                        for i, symbol in enumerate(self.symbols)
                    ]
        except (ConnectionClosed, orjson.JSONDecodeError):
            pass
        finally:
            for task in tasks:
                task.cancel()

    async def _feed(
        self, socket: ServerConnection, asked: set[str], symbol: str, place: int
    ) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        price = simulator.PRESETS.get(symbol.removesuffix("USDT"), 100.0)
        with contextlib.suppress(ConnectionClosed):
            for at, stream, data in events(symbol, self.seed + 100 * place, price):
                due = began + at / self.speed
                if due > loop.time():
                    await asyncio.sleep(due - loop.time())
                name = f"{symbol.lower()}@{stream}"
                if name not in asked:
                    continue
                now = time.time_ns() // 1_000_000
                data |= {"E": now, "T": now}
                if "o" in data:
                    data["o"]["T"] = now
                await socket.send(orjson.dumps({"stream": name, "data": data}).decode())
                self.sent += 1
