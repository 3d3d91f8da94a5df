"""Coinbase Advanced Trade.

Source: docs.cdp.coinbase.com, "Advanced Trade WebSocket Channels". sequence_num counts all messages
of a connection; a hole in it makes every book of the connection doubtful. trade_id counts a
product's trades; level2 begins with a snapshot and its sizes replace. A trade's side is the
maker's.
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from typing import Any, ClassVar

import orjson
from alphaplus.loaders.feeds import _id, _side, _side_of
from alphaplus.loaders.streams.kraken import micros
from alphaplus.loaders.streams.venue import Parser, Venue, Wanted


class CoinbaseParser(Parser):
    """Channels."""

    known: ClassVar[dict[str, frozenset[str]]] = {
        "trade": frozenset(["trade_id", "product_id", "price", "size", "side", "time"]),
    }
    expected = -1

    def route(self, message: Any, now: int) -> None:
        """By channel, after the connection's count."""
        if "channel" not in message:
            self._unknown(f"message with {', '.join(sorted(message))[:60]}")
            return
        number = _id(message.get("sequence_num", -1))
        if number >= 0:
            if self.expected >= 0 and number > self.expected:
                for symbol in sorted(self.whole_books):
                    self.throw_away(symbol, "sequence", now)
            self.expected = number + 1
        channel = message["channel"]
        at = micros(message["timestamp"]) if "timestamp" in message else now
        for event in message.get("events", ()):
            if channel == "market_trades":
                for item in sorted(event["trades"], key=lambda i: int(i["trade_id"])):
                    self._fields("trade", item)
                    trade, ts = _id(item["trade_id"]), micros(item["time"])
                    self._seen(ts, now)
                    self._follow(
                        "trades", item["product_id"], trade, trade, trade - 1, ts, now, item
                    )
            elif channel == "l2_data":
                self._book_of(event, at, now)
            elif channel not in ("subscriptions", "heartbeats"):
                self._unknown(f"channel {channel[:40]}")

    def _in_turn_trades(self, item: Any, now: int) -> None:
        self.add_trade(
            item["product_id"], micros(item["time"]), str(item["trade_id"]), float(item["price"]),
            float(item["size"]), -_side(item["side"]),
        )  # fmt: skip

    def _book_of(self, event: dict[str, Any], ts: int, now: int) -> None:
        symbol, whole = event["product_id"], event["type"] == "snapshot"
        if not whole and symbol not in self.whole_books:
            self._count("updates before the first snapshot")
            return
        self._seen(ts, now)
        sides: dict[str, list[tuple[str, str]]] = {"bid": [], "offer": []}
        for update in event["updates"]:
            sides[update["side"]].append((update["price_level"], update["new_quantity"]))
        book = self.book_update(
            symbol, ts, ts, _side_of(sides["bid"]), _side_of(sides["offer"]), whole=whole
        )
        if whole and (sequence := self.sequences.get(("book", symbol))) is not None:
            sequence.whole(ts, now)
        if self.is_crossed(symbol, book):
            self.throw_away(symbol, "crossed", now)

    def _lost(self, how: str, now: int) -> None:
        super()._lost(how, now)
        self.whole_books.clear()

    def _connected(self, channel: str, symbol: str, now: int) -> None:
        self.expected = -1
        if channel != "book":
            super()._connected(channel, symbol, now)

    def repaired(self, symbol: str, items: list[dict[str, Any]], now: int) -> None:
        """Trades of REST, in the form of the stream."""
        for item in items:
            number = _id(item["trade_id"])
            self._follow("trades", symbol, number, number, number - 1, micros(item["time"]), now,
                         item)  # fmt: skip


class Coinbase(Venue):
    """Spot, by products as BTC-USD."""

    name = "coinbase"
    exchange = "coinbase"
    kind = "spot"
    address = "wss://advanced-trade-ws.coinbase.com"
    ccxt = "coinbase"
    channels = ("trades", "book")
    unnumbered = frozenset({"book"})
    parser = CoinbaseParser

    def hello(self, symbols: Many[str], channels: Many[str]) -> list[bytes]:
        """One subscription a channel, and heartbeats, which keep a quiet connection open."""
        names = {"trades": "market_trades", "book": "level2"}
        out: list[dict[str, Any]] = [
            {"type": "subscribe", "product_ids": list(symbols), "channel": names[c]}
            for c in channels
        ]
        out.append({"type": "subscribe", "channel": "heartbeats"})
        return [orjson.dumps(line) for line in out]

    def book_again(self, symbol: str) -> list[bytes]:
        """Unsubscribe, subscribe."""
        return [
            orjson.dumps({"type": what, "product_ids": [symbol], "channel": "level2"})
            for what in ("unsubscribe", "subscribe")
        ]

    def failure(self, raw: bytes) -> str:
        """type error says why."""
        return raw[:300].decode("utf-8", "replace") if b'"type":"error"' in raw[:100] else ""

    def lane(self, raw: bytes) -> str:
        """By channel."""
        head = raw[:60]
        if b'"l2_data"' in head:
            return "book"
        return "trades" if b'"market_trades"' in head else "control"

    def trades(self, client: Any, wanted: Wanted) -> tuple[list[Any], bool]:
        """The newest thousand since the hole began."""
        if wanted.first is None or wanted.last is None:
            return [], True
        answer = client.v3_public_get_brokerage_market_products_product_id_ticker(
            {"product_id": wanted.symbol, "limit": 1000,
             "start": str((wanted.since or 0) // 1_000_000)}
        )  # fmt: skip
        items = answer["trades"]
        found = [i for i in items if wanted.first <= int(i["trade_id"]) <= wanted.last]
        return sorted(found, key=lambda i: int(i["trade_id"])), True
