"""Bybit: spot, linear and inverse contracts (API v5).

Source: bybit-exchange.github.io/docs/v5/ws, "Connect", "Orderbook", "Trade", "All Liquidation",
"Ticker". A delta follows the update before it (u grows by one); u = 1 or a snapshot starts a book
anew. Trades carry no consecutive number: what a lost connection owes is fetched by REST.
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from typing import Any, ClassVar

import orjson
from alphaplus.loaders.feeds import _id, _side, _side_of, _time
from alphaplus.loaders.streams.venue import Parser, Venue, Wanted

ASKED = 10  # arguments of one subscription, the most that spot allows


class BybitParser(Parser):
    """Topics."""

    known: ClassVar[dict[str, frozenset[str]]] = {
        "publicTrade": frozenset(
            ["T", "s", "S", "v", "p", "L", "i", "BT", "RPI", "seq", "mP", "iP", "mIv", "iv"]
        ),
        "orderbook": frozenset(["s", "b", "a", "u", "seq"]),
        "allLiquidation": frozenset(["T", "s", "S", "v", "p"]),
    }

    def route(self, message: Any, now: int) -> None:
        """By topic."""
        topic = message.get("topic")
        if topic is None:
            if "op" not in message and "success" not in message:
                self._unknown(f"message with {', '.join(sorted(message))[:60]}")
            return
        head = topic.split(".", 1)[0]
        data = message["data"]
        if head == "publicTrade":
            for item in data:
                self._fields(head, item)
                self._trade_of(item)
                self._seen(round(_time(item["T"])), now)
                self._heard("trades", item["s"], round(_time(item["T"])))
        elif head == "orderbook":
            self._fields(head, data)
            self._book_of(message, data, now)
        elif head == "allLiquidation":
            for item in data:
                self._fields(head, item)
                # The side is the position's: a long is closed by a forced sell.
                ts, price, size = item["T"], item["p"], item["v"]
                self.add_liquidation(
                    item["s"], _time(ts), f"{ts}-{item['S']}-{price}-{size}", float(price),
                    float(size), -_side(item["S"]),
                )  # fmt: skip
        elif head == "tickers":
            self._ticker_of(message, data)
        else:
            self._unknown(f"topic {head[:40]}")

    def _trade_of(self, item: dict[str, Any]) -> None:
        self.add_trade(
            item["s"], _time(item["T"]), str(item["i"]), float(item["p"]), float(item["v"]),
            _side(item["S"]),
        )  # fmt: skip

    def _book_of(self, message: dict[str, Any], data: dict[str, Any], now: int) -> None:
        symbol, number = data["s"], _id(data["u"])
        ts = round(_time(message.get("cts", message["ts"])))
        self._seen(ts, now)
        bids, asks = _side_of(data["b"]), _side_of(data["a"])
        sequence = self.sequences.get(("book", symbol))
        if message.get("type") == "snapshot" or number == 1:
            self.book_update(symbol, ts, number, bids, asks, whole=True)
            if sequence is not None:
                sequence.held.clear()
                sequence.last = number
                sequence.whole(ts, now)
            else:
                self._follow("book", symbol, number, number, number - 1, ts, now,
                             (symbol, ts, number, [], []), consecutive=False)  # fmt: skip
            return
        if symbol not in self.whole_books:
            self._count("updates before the first snapshot")
            return
        self._follow("book", symbol, number, number, number - 1, ts, now,
                     (symbol, ts, number, bids, asks), consecutive=False)  # fmt: skip

    def _in_turn_book(self, item: Any, now: int) -> None:
        symbol, ts, number, bids, asks = item
        if symbol not in self.whole_books:
            return
        book = self.book_update(symbol, ts, number, bids, asks)
        if self.is_crossed(symbol, book):
            self.throw_away(symbol, "crossed", now)

    def _ticker_of(self, message: dict[str, Any], data: dict[str, Any]) -> None:
        symbol = data["symbol"]
        if "funding" in self.channels and data.get("fundingRate") and data.get("nextFundingTime"):
            self.funding_due(symbol, _time(data["nextFundingTime"]), float(data["fundingRate"]))
        if "open_interest" in self.channels and data.get("openInterest"):
            value = float(data["openInterestValue"] or "nan")
            amount = float(data["openInterest"])
            made = self.instrument(symbol)
            if made.margin == "inverse":  # openInterest counts USD there
                amount, value = float("nan"), amount
            self.add_interest(symbol, _time(message["ts"]), amount, value)

    def repaired(self, symbol: str, items: list[dict[str, Any]], now: int) -> None:
        """Recent trades of REST."""
        for item in items:
            self.add_trade(
                symbol, _time(item["time"]), str(item["execId"]), float(item["price"]),
                float(item["size"]), _side(item["side"]),
            )  # fmt: skip


class BybitSpot(Venue):
    """Spot."""

    name = "bybit-spot"
    exchange = "bybit"
    kind = "spot"
    address = "wss://stream.bybit.com/v5/public/spot"
    ccxt = "bybit"
    channels: ClassVar[tuple[str, ...]] = ("trades", "book")
    unnumbered = frozenset({"trades", "liquidations"})
    ping = (20.0, b'{"op":"ping"}')
    parser = BybitParser
    category: ClassVar[str] = "spot"
    topics: ClassVar[dict[str, str]] = {
        "trades": "publicTrade.{}",
        "book": "orderbook.50.{}",
        "liquidations": "allLiquidation.{}",
        "funding": "tickers.{}",
        "open_interest": "tickers.{}",
    }

    def hello(self, symbols: Many[str], channels: Many[str]) -> list[bytes]:
        """Ten topics a message."""
        names = list(dict.fromkeys(self.topics[c].format(s) for s in symbols for c in channels))
        return [
            orjson.dumps({"op": "subscribe", "args": names[i : i + ASKED]})
            for i in range(0, len(names), ASKED)
        ]

    def book_again(self, symbol: str) -> list[bytes]:
        """Unsubscribe, subscribe."""
        args = [self.topics["book"].format(symbol)]
        return [orjson.dumps({"op": op, "args": args}) for op in ("unsubscribe", "subscribe")]

    def failure(self, raw: bytes) -> str:
        """success false says why."""
        return raw[:300].decode("utf-8", "replace") if b'"success":false' in raw[:200] else ""

    def lane(self, raw: bytes) -> str:
        """By topic."""
        head = raw[:60]
        if b'"orderbook' in head:
            return "book"
        if b'"publicTrade' in head:
            return "trades"
        if b'"allLiq' in head:
            return "liquidations"
        return "funding" if b'"tickers' in head else "control"

    def trades(self, client: Any, wanted: Wanted) -> tuple[list[Any], bool]:
        """The newest thousand (of spot sixty); whole where they reach back before the hole."""
        answer = client.public_get_v5_market_recent_trade(
            {"category": self.category, "symbol": wanted.symbol, "limit": 1000}
        )
        items = answer["result"]["list"]
        since = (wanted.since or 0) // 1000
        reaches = bool(items) and min(int(item["time"]) for item in items) <= since
        return [item for item in items if int(item["time"]) >= since], reaches


class BybitLinear(BybitSpot):
    """USDT and USDC contracts."""

    name = "bybit"
    kind = "derivative"
    address = "wss://stream.bybit.com/v5/public/linear"
    channels = ("trades", "book", "liquidations", "funding", "open_interest")
    category = "linear"


class BybitInverse(BybitLinear):
    """Coin-margined contracts."""

    name = "bybit-inverse"
    address = "wss://stream.bybit.com/v5/public/inverse"
    category = "inverse"
