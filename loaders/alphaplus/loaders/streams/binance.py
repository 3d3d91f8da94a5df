"""Binance: spot, USD-M and COIN-M futures.

Sources: developers.binance.com, "WebSocket Streams" (spot), "Websocket Market Streams" (USD-M and
COIN-M), "How to manage a local order book correctly". Trades and aggregate trades have consecutive
ids; a spot depth update covers the ids U to u, a futures one names the last one's as pu.
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from typing import Any, ClassVar

import orjson
from alphaplus.loaders.feeds import _WHOLE, _id, _time
from alphaplus.loaders.streams.venue import BadSubscription, Parser, Venue, Wanted

PAGE = 1000
PAGES = 200  # of missed trades: what is further back stays a gap


class BinanceParser(Parser):
    """Messages of combined streams, or of one stream."""

    known: ClassVar[dict[str, frozenset[str]]] = {
        "trade": frozenset(["e", "E", "s", "t", "p", "q", "b", "a", "T", "m", "M", "X", "st"]),
        "aggTrade": frozenset(["e", "E", "s", "a", "p", "q", "nq", "f", "l", "T", "m", "M", "st"]),
        "depthUpdate": frozenset(["e", "E", "T", "s", "U", "u", "pu", "b", "a", "ps", "st"]),
        "bookTicker": frozenset(["e", "u", "s", "b", "B", "a", "A", "T", "E", "ps", "st"]),
        "forceOrder": frozenset(["e", "E", "o", "st"]),
        "markPriceUpdate": frozenset(["e", "E", "s", "p", "i", "P", "r", "T", "ap", "st"]),
        "kline": frozenset(["e", "E", "s", "k", "ps"]),
        "order": frozenset(["s", "S", "o", "f", "q", "p", "ap", "X", "l", "z", "T"]),
    }

    def route(self, message: Any, now: int) -> None:
        """By kind of event."""
        data = message.get("data", message)
        kind = data.get("e")
        if kind is None:
            if {"b", "B", "a", "A", "u"} <= data.keys() or {
                "lastUpdateId",
                "bids",
                "asks",
            } <= data.keys():
                self._plain(message, now)
            elif "id" not in data and "error" not in data:
                self._unknown(f"message with {', '.join(sorted(data))[:60]}")
            return
        self._fields(kind, data)
        at = data.get("T", data.get("E"))
        if kind == "depthUpdate":
            if _WHOLE.search(str(message.get("stream", ""))):
                self._plain(message, now)
                return
            first, last = _id(data["U"]), _id(data["u"])
            before = _id(data["pu"]) if "pu" in data else first - 1
            ts = round(_time(at))
            self._seen(ts, now)
            self._follow("book", data["s"], first, last, before, ts, now, message,
                         consecutive=False)  # fmt: skip
        elif kind in ("trade", "aggTrade"):
            number = _id(data["t"] if kind == "trade" else data["a"])
            ts = round(_time(data["T"]))
            self._seen(ts, now)
            self._follow("trades", data["s"], number, number, number - 1, ts, now, message)
        elif kind == "markPriceUpdate":
            if data.get("r") not in (None, "") and _id(data.get("T", 0)):
                self.funding_due(data["s"], _time(data["T"]), float(data["r"]))
        elif kind in ("bookTicker", "kline"):
            self._plain(message, now)
        elif kind == "forceOrder":
            self._fields("order", data["o"])
            self._plain(message, now)
        else:
            self._unknown(f"event {str(kind)[:40]}")

    def _in_turn_book(self, message: Any, now: int) -> None:
        data = message.get("data", message)
        symbol = data["s"]
        made = self._instrument(data, spot="pu" not in data)
        book = self.books.get(made)
        fresh = book is None or book.last_id < 0
        gaps = self.counters.get("sequence gaps", 0)
        self._plain(message, now)
        book = self.books.get(made)
        if fresh and self.venue.rest_books:
            self.whole_books.discard(symbol)
        if self.counters.get("sequence gaps", 0) != gaps:
            self.whole_books.discard(symbol)
        if book is not None and symbol in self.whole_books and self.is_crossed(symbol, book):
            self.throw_away(symbol, "crossed", now)

    def _in_turn_trades(self, message: Any, now: int) -> None:
        self._plain(message, now)

    def snapshot(self, symbol: str, data: dict[str, Any], now: int) -> None:
        """A REST snapshot: newer updates are applied to it again."""
        applied = self.counters.get("snapshots applied", 0)
        self._plain({**data, "s": symbol}, now)
        if self.counters.get("snapshots applied", 0) == applied:
            self.wanted.append(Wanted("snapshot", symbol))
            return
        self.whole_books.add(symbol)
        sequence = self.sequences.get(("book", symbol))
        if sequence is not None:
            book = self.books[self._instrument({"s": symbol}, spot=self.venue.kind == "spot")]
            sequence.last = max(sequence.last or 0, book.last_id)
            sequence.whole(round(_time(data["T"])) if "T" in data else sequence.last_ts, now)

    def repaired(self, symbol: str, items: list[dict[str, Any]], now: int) -> None:
        """historicalTrades or aggTrades of REST, in the form of the stream."""
        for item in items:
            if "a" in item:
                data = {**item, "e": "aggTrade", "s": symbol}
                number = _id(item["a"])
            else:
                data = {"e": "trade", "s": symbol, "t": item["id"], "p": item["price"],
                        "q": item["qty"], "T": item["time"], "m": item["isBuyerMaker"]}  # fmt: skip
                number = _id(item["id"])
            if self.venue.kind == "spot":
                data["M"] = True
            else:
                data.pop("M", None)
            ts = round(_time(data["T"]))
            self._follow("trades", symbol, number, number, number - 1, ts, now, {"data": data})

    def open_interest(self, symbol: str, data: dict[str, Any], now: int) -> None:
        """Contracts, in base units where they are such."""
        amount = float(data["openInterest"])
        made = self.instrument(symbol)
        if made.margin == "inverse":  # contracts of a fixed amount of quote currency
            self.add_interest(symbol, _time(data["time"]), float("nan"),
                              amount * (made.contract_size or float("nan")))  # fmt: skip
        else:
            self.add_interest(symbol, _time(data["time"]), amount, float("nan"))


class Binance(Venue):
    """Spot."""

    name = "binance"
    exchange = "binance"
    kind = "spot"
    address = "wss://stream.binance.com:9443"
    ccxt = "binance"
    channels: ClassVar[tuple[str, ...]] = ("trades", "book", "candles")
    rest_books = True
    parser = BinanceParser
    streams: ClassVar[dict[str, tuple[str, ...]]] = {
        "trades": ("trade",),
        "book": ("depth@100ms", "bookTicker"),
        "candles": ("kline_1m",),
    }
    api: ClassVar[str] = "public"

    def url(self, symbols: Many[str], channels: Many[str], base: str | None = None) -> str:
        """Combined streams; what is subscribed to is said by :meth:`hello`."""
        return f"{base or self.address}/stream"

    def hello(self, symbols: Many[str], channels: Many[str]) -> list[bytes]:
        """One SUBSCRIBE of at most 200 streams each."""
        names = [
            f"{symbol.lower()}@{stream}"
            for symbol in symbols
            for channel in channels
            for stream in self.streams.get(channel, ())
        ]
        return [
            orjson.dumps({"method": "SUBSCRIBE", "params": names[i : i + 200], "id": i // 200 + 1})
            for i in range(0, len(names), 200)
        ]

    def failure(self, raw: bytes) -> str:
        """An error names its request."""
        if raw.startswith((b'{"error"', b'{"code"')) or b'"error":{' in raw[:200]:
            return raw[:300].decode("utf-8", "replace")
        return ""

    def lane(self, raw: bytes) -> str:
        """By the stream's name, which comes first; a single stream by its event."""
        head = raw[:90]
        if b"@depth" in head or b"@bookTicker" in head or b"depthUpdate" in head:
            return "book"
        if b"rade" in head:
            return "trades"
        if b"forceOrder" in head:
            return "liquidations"
        if b"markPrice" in head:
            return "funding"
        return "candles" if b"kline" in head else "control"

    def snapshot(self, client: Any, symbol: str) -> Any:
        """The deepest book there is."""
        return client.public_get_depth({"symbol": symbol, "limit": 5000})

    def trades(self, client: Any, wanted: Wanted) -> tuple[list[Any], bool]:
        """By id, a page at a time."""
        return self._paged(client.public_get_historicaltrades, wanted, "id")

    def _paged(self, get: Any, wanted: Wanted, name: str) -> tuple[list[Any], bool]:
        if wanted.first is None or wanted.last is None:
            return [], True
        out: list[Any] = []
        at = wanted.first
        for _ in range(PAGES):
            limit = min(PAGE, wanted.last - at + 1)
            page = get({"symbol": wanted.symbol, "fromId": at, "limit": limit})
            out += [item for item in page if wanted.first <= int(item[name]) <= wanted.last]
            if not page or int(page[-1][name]) >= wanted.last:
                return out, True
            at = int(page[-1][name]) + 1
        return out, False


class BinanceUsdm(Binance):
    """USD-M futures."""

    name = "binance-usdm"
    kind = "derivative"
    address = "wss://fstream.binance.com"
    ccxt = "binanceusdm"
    channels: ClassVar[tuple[str, ...]] = (
        "trades", "book", "liquidations", "funding", "open_interest", "candles",
    )  # fmt: skip
    unnumbered = frozenset({"liquidations"})
    streams: ClassVar[dict[str, tuple[str, ...]]] = {
        "trades": ("aggTrade",),
        "book": ("depth@100ms", "bookTicker"),
        "liquidations": ("forceOrder",),
        "funding": ("markPrice@1s",),
        "candles": ("kline_1m",),
    }

    def snapshot(self, client: Any, symbol: str) -> Any:
        """The deepest book there is."""
        return client.fapipublic_get_depth({"symbol": symbol, "limit": 1000})

    def trades(self, client: Any, wanted: Wanted) -> tuple[list[Any], bool]:
        """Aggregate trades: single ones need a key."""
        return self._paged(client.fapipublic_get_aggtrades, wanted, "a")

    def interest(self, client: Any, symbol: str) -> Any:
        """Contracts open now."""
        return client.fapipublic_get_openinterest({"symbol": symbol})


class BinanceCoinm(BinanceUsdm):
    """COIN-M futures."""

    name = "binance-coinm"
    address = "wss://dstream.binance.com"
    ccxt = "binancecoinm"

    def snapshot(self, client: Any, symbol: str) -> Any:
        """The deepest book there is."""
        return client.dapipublic_get_depth({"symbol": symbol, "limit": 1000})

    def trades(self, client: Any, wanted: Wanted) -> tuple[list[Any], bool]:
        """Aggregate trades."""
        return self._paged(client.dapipublic_get_aggtrades, wanted, "a")

    def interest(self, client: Any, symbol: str) -> Any:
        """Contracts open now."""
        return client.dapipublic_get_openinterest({"symbol": symbol})


__all__ = ["BadSubscription", "Binance", "BinanceCoinm", "BinanceUsdm"]
