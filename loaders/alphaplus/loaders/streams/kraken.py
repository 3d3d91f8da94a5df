"""Kraken spot (WebSocket API v2).

Source: docs.kraken.com/api, "Book", "Trades", "Spot Websockets (v2) Book Checksum". A book has no
numbers: CRC-32 of its best ten levels a side comes with every update. trade_id counts a pair's
trades without holes. Prices and sizes are JSON numbers, so their digits are read from the text.
"""

from __future__ import annotations

import datetime as dt
import json
import zlib
from collections.abc import Sequence as Many
from itertools import islice
from typing import Any, ClassVar

import orjson
from alphaplus.loaders.feeds import _id, _side
from alphaplus.loaders.streams.spool import Frame
from alphaplus.loaders.streams.venue import Parser, Venue, Wanted


class Digits(float):
    """A number that remembers how it was written."""

    text: str

    def __new__(cls, text: str) -> Digits:
        """From its text."""
        made = super().__new__(cls, text)
        made.text = text
        return made


def micros(text: str) -> int:
    """Microseconds since 1970 of an RFC 3339 time."""
    at = dt.datetime.fromisoformat(text.replace("Z", "+00:00"))
    return round(at.timestamp() * 1e6)


def checksum(bids: Many[tuple[str, str]], asks: Many[tuple[str, str]]) -> int:
    """CRC-32 of the ten best asks, then bids: digits without point and leading zeros."""
    parts = [
        number.replace(".", "").lstrip("0")
        for side in (asks, bids)
        for level in side[:10]
        for number in level
    ]
    return zlib.crc32("".join(parts).encode())


class KrakenParser(Parser):
    """Channels of v2."""

    known: ClassVar[dict[str, frozenset[str]]] = {
        "trade": frozenset(["symbol", "side", "price", "qty", "ord_type", "trade_id", "timestamp"]),
        "book": frozenset(["symbol", "bids", "asks", "checksum", "timestamp"]),
    }

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._texts: dict[str, tuple[dict[float, str], dict[float, str]]] = {}
        self._prices: dict[str, dict[float, str]] = {}

    def frame(self, frame: Frame) -> None:
        """Books are read with their digits."""
        self._raw = frame.raw.partition(b" ")[2] if frame.raw[:1].isdigit() else frame.raw
        super().frame(frame)

    def route(self, message: Any, now: int) -> None:
        """By channel."""
        channel = message.get("channel")
        if channel is None:
            if "method" not in message and "error" not in message:
                self._unknown(f"message with {', '.join(sorted(message))[:60]}")
            return
        if channel in ("heartbeat", "status", "pong"):
            return
        if channel == "trade":
            for item in message["data"]:
                self._fields(channel, item)
                number, ts = _id(item["trade_id"]), micros(item["timestamp"])
                self._seen(ts, now)
                self._follow("trades", item["symbol"], number, number, number - 1, ts, now, item)
        elif channel == "book":
            exact = json.loads(self._raw, parse_float=Digits, parse_int=Digits)
            for item in exact["data"]:
                self._fields(channel, item)
                self._book_of(item, message.get("type") == "snapshot", now)
        else:
            self._unknown(f"channel {str(channel)[:40]}")

    def _in_turn_trades(self, item: Any, now: int) -> None:
        self.add_trade(
            item["symbol"], micros(item["timestamp"]), str(item["trade_id"]), float(item["price"]),
            float(item["qty"]), _side(item["side"]),
        )  # fmt: skip

    def _book_of(self, item: dict[str, Any], whole: bool, now: int) -> None:
        symbol = item["symbol"]
        if whole:
            self._texts[symbol] = ({}, {})
            self._prices[symbol] = {}
        elif symbol not in self.whole_books or symbol not in self._texts:
            self._count("updates before the first snapshot")
            return
        ts = micros(item["timestamp"]) if "timestamp" in item else now
        self._seen(ts, now)
        prices = self._prices[symbol]
        levels = []
        for texts, side in zip(self._texts[symbol], ("bids", "asks"), strict=True):
            part = [(float(level["price"]), float(level["qty"])) for level in item[side]]
            for level in item[side]:
                price = float(level["price"])
                prices[price] = level["price"].text
                if float(level["qty"]) == 0:
                    texts.pop(price, None)
                else:
                    texts[price] = level["qty"].text
            levels.append(part)
        book = self.book_update(symbol, ts, ts, levels[0], levels[1], whole=whole)
        # The book is of the depth subscribed to: what falls out of it is not said.
        for side_book, texts, worst in (
            (book.bids, self._texts[symbol][0], 0), (book.asks, self._texts[symbol][1], -1),
        ):  # fmt: skip
            while len(side_book) > DEPTH:
                price, _ = side_book.popitem(worst)
                texts.pop(price, None)
        best = [
            [(prices[p], texts[p]) for p in islice(order, 10)]
            for order, texts in (
                (reversed(book.bids), self._texts[symbol][0]),
                (iter(book.asks), self._texts[symbol][1]),
            )
        ]
        if len(prices) > 20 * DEPTH:
            kept = {*book.bids, *book.asks}
            self._prices[symbol] = {p: t for p, t in prices.items() if p in kept}
        if checksum(best[0], best[1]) != int(item["checksum"]):
            self.throw_away(symbol, "checksum", now)
        elif whole and (sequence := self.sequences.get(("book", symbol))) is not None:
            sequence.whole(ts, now)

    def _lost(self, how: str, now: int) -> None:
        super()._lost(how, now)
        self.whole_books.clear()

    def repaired(self, symbol: str, items: list[dict[str, Any]], now: int) -> None:
        """Trades of REST: price, volume, time, side, kind, misc, number."""
        for price, volume, at, side, _, _, number in items:
            ts = round(float(at) * 1e6)
            self._follow(
                "trades", symbol, _id(number), _id(number), _id(number) - 1, ts, now,
                {"symbol": symbol, "trade_id": number, "price": price, "qty": volume,
                 "side": "buy" if side == "b" else "sell",
                 "timestamp": dt.datetime.fromtimestamp(ts / 1e6, dt.UTC).isoformat()},
            )  # fmt: skip


DEPTH = 100


class Kraken(Venue):
    """Spot, by pairs as BTC/USD."""

    name = "kraken"
    exchange = "kraken"
    kind = "spot"
    address = "wss://ws.kraken.com/v2"
    ccxt = "kraken"
    channels = ("trades", "book")
    unnumbered = frozenset({"book"})
    ping = (30.0, b'{"method":"ping"}')
    parser = KrakenParser

    def hello(self, symbols: Many[str], channels: Many[str]) -> list[bytes]:
        """One subscription a channel."""
        out = []
        if "trades" in channels:
            out.append({"channel": "trade", "symbol": list(symbols), "snapshot": False})
        if "book" in channels:
            out.append({"channel": "book", "symbol": list(symbols), "depth": DEPTH})
        return [orjson.dumps({"method": "subscribe", "params": params}) for params in out]

    def book_again(self, symbol: str) -> list[bytes]:
        """Unsubscribe, subscribe."""
        params = {"channel": "book", "symbol": [symbol], "depth": DEPTH}
        return [
            orjson.dumps({"method": method, "params": params})
            for method in ("unsubscribe", "subscribe")
        ]

    def failure(self, raw: bytes) -> str:
        """success false says why."""
        return raw[:300].decode("utf-8", "replace") if b'"success":false' in raw[:300] else ""

    def lane(self, raw: bytes) -> str:
        """By channel."""
        head = raw[:40]
        if b'"book"' in head:
            return "book"
        return "trades" if b'"trade"' in head else "control"

    def trades(self, client: Any, wanted: Wanted) -> tuple[list[Any], bool]:
        """Since the last one before the hole."""
        if wanted.first is None or wanted.last is None:
            return [], True
        out: list[Any] = []
        since = (wanted.since or 0) * 1000
        for _ in range(50):
            answer = client.public_get_trades({"pair": wanted.symbol, "since": str(since)})
            found = answer["result"]
            page = next(value for key, value in found.items() if key != "last")
            out += [i for i in page if wanted.first <= int(i[6]) <= wanted.last]
            if not page or int(page[-1][6]) >= wanted.last or str(found["last"]) == str(since):
                return out, True
            since = int(found["last"])
        return out, False
