"""BitMEX.

Source: www.bitmex.com/app/wsAPI: a table begins with a partial, then insert, update and delete by
key. No table has numbers: an update or delete of a row that is not there says that the book is not
the exchange's. Sizes are contracts. "ping" is answered by "pong".
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from typing import Any, ClassVar
from urllib.parse import urlencode
from urllib.request import urlopen

import numpy as np
import orjson
from alphaplus.loaders.feeds import _side
from alphaplus.loaders.streams.kraken import micros
from alphaplus.loaders.streams.venue import Parser, Venue, Wanted


class BitmexParser(Parser):
    """Tables."""

    known: ClassVar[dict[str, frozenset[str]]] = {
        "trade": frozenset(
            [
                "timestamp",
                "symbol",
                "side",
                "size",
                "price",
                "tickDirection",
                "trdMatchID",
                "grossValue",
                "homeNotional",
                "foreignNotional",
                "trdType",
                "pool",
            ]
        ),
        "liquidation": frozenset(
            ["orderID", "symbol", "side", "price", "leavesQty", "timestamp", "pool"]
        ),
    }

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._rows: dict[str, dict[int, tuple[str, float]]] = {}  # symbol: id: side and price

    def route(self, message: Any, now: int) -> None:
        """By table."""
        table = message.get("table")
        if table is None:
            if not {"info", "success", "subscribe", "error", "status"} & message.keys():
                self._unknown(f"message with {', '.join(sorted(message))[:60]}")
            return
        action, data = message["action"], message["data"]
        if table in self.known:
            for item in data:
                self._fields(table, item)
        if table == "trade":
            for item in data if action == "insert" else ():
                if not item.get("side"):
                    self._count("trades without a side")
                    continue
                self._trade_of(item)
                ts = micros(item["timestamp"])
                self._seen(ts, now)
                self._heard("trades", item["symbol"], ts)
        elif table.startswith("orderBookL2"):
            for symbol in dict.fromkeys(item["symbol"] for item in data):
                self._book_of(symbol, action, [i for i in data if i["symbol"] == symbol], now)
        elif table == "liquidation":
            for item in data if action == "insert" else ():
                self.add_liquidation(
                    item["symbol"], now, item["orderID"], float(item["price"]),
                    float(item["leavesQty"]), _side(item["side"]),
                )  # fmt: skip
        elif table == "funding":
            for item in data if action in ("insert", "partial") else ():
                hours = micros(item["fundingInterval"]) - micros("2000-01-01T00:00:00.000Z")
                self.add_funding(
                    item["symbol"], micros(item["timestamp"]), float(item["fundingRate"]),
                    hours / 1e6,
                )  # fmt: skip
        elif table == "instrument":
            for item in data:
                if item.get("openInterest") is not None and "timestamp" in item:
                    made = self.instrument(item["symbol"])
                    count = float(item["openInterest"]) * (made.contract_size or np.nan)
                    inverse = made.margin == "inverse"
                    self.add_interest(
                        item["symbol"], micros(item["timestamp"]), np.nan if inverse else count,
                        count if inverse else np.nan,
                    )  # fmt: skip
        else:
            self._unknown(f"table {str(table)[:40]}")

    def _trade_of(self, item: dict[str, Any]) -> None:
        self.add_trade(
            item["symbol"], micros(item["timestamp"]), item["trdMatchID"], float(item["price"]),
            float(item["size"]), _side(item["side"]),
        )  # fmt: skip

    def _book_of(self, symbol: str, action: str, items: list[dict[str, Any]], now: int) -> None:
        whole = action == "partial"
        if not whole and symbol not in self.whole_books:
            self._count("updates before the first snapshot")
            return
        rows = self._rows.setdefault(symbol, {})
        if whole:
            rows.clear()
        sides: dict[str, list[tuple[float, float]]] = {"Buy": [], "Sell": []}
        for item in items:
            known = rows.get(item["id"])
            if action in ("partial", "insert"):
                known = rows[item["id"]] = (item["side"], float(item["price"]))
            elif known is None:
                self.throw_away(symbol, "checksum", now)
                return
            size = 0.0 if action == "delete" else float(item.get("size", 0))
            if action == "delete":
                del rows[item["id"]]
            sides[known[0]].append((known[1], size))
        stamps = [micros(i["timestamp"]) for i in items if "timestamp" in i]
        ts = max(stamps, default=now)
        self._seen(ts, now)
        book = self.book_update(symbol, ts, ts, sides["Buy"], sides["Sell"], whole=whole)
        if whole and (sequence := self.sequences.get(("book", symbol))) is not None:
            sequence.whole(ts, now)
        if self.is_crossed(symbol, book):
            self.throw_away(symbol, "crossed", now)

    def _lost(self, how: str, now: int) -> None:
        super()._lost(how, now)
        self.whole_books.clear()

    def _connected(self, channel: str, symbol: str, now: int) -> None:
        if channel != "book":  # whole again with its partial
            super()._connected(channel, symbol, now)

    def repaired(self, symbol: str, items: list[dict[str, Any]], now: int) -> None:
        """Trades of REST are those of the stream."""
        for item in items:
            if item.get("side"):
                self._trade_of(item)


class Rest:
    """BitMEX's public REST, as far as it is needed."""

    def __init__(self, base: str) -> None:
        self.base = base.rstrip("/")

    def public_get_trade(self, params: dict[str, Any]) -> list[dict[str, Any]]:
        """GET /trade."""
        url = f"{self.base}/api/v1/trade?{urlencode(params)}"
        with urlopen(url, timeout=10) as answer:
            found: list[dict[str, Any]] = orjson.loads(answer.read())
        return found


class Bitmex(Venue):
    """Its contracts."""

    name = "bitmex"
    exchange = "bitmex"
    kind = "derivative"
    address = "wss://ws.bitmex.com/realtime"
    channels = ("trades", "book", "liquidations", "funding", "open_interest")
    unnumbered = frozenset({"trades", "liquidations", "book"})
    ping = (5.0, b"ping")
    parser = BitmexParser
    names: ClassVar[dict[str, str]] = {
        "trades": "trade", "book": "orderBookL2_25", "liquidations": "liquidation",
        "funding": "funding", "open_interest": "instrument",
    }  # fmt: skip

    def hello(self, symbols: Many[str], channels: Many[str]) -> list[bytes]:
        """One subscription."""
        names = [f"{self.names[c]}:{s}" for s in symbols for c in channels]
        return [orjson.dumps({"op": "subscribe", "args": names})]

    def book_again(self, symbol: str) -> list[bytes]:
        """Unsubscribe, subscribe."""
        args = [f"{self.names['book']}:{symbol}"]
        return [orjson.dumps({"op": op, "args": args}) for op in ("unsubscribe", "subscribe")]

    def client(self, base: str | None = None) -> Any:
        """Its own: ccxt has this exchange no more."""
        return Rest(base or "https://www.bitmex.com")

    def failure(self, raw: bytes) -> str:
        """An error names its request."""
        return raw[:300].decode("utf-8", "replace") if b'"error":' in raw[:200] else ""

    def lane(self, raw: bytes) -> str:
        """By table."""
        head = raw[:60]
        for word, lane in ((b'"orderBook', "book"), (b'"trade"', "trades"),
                           (b'"liquidation"', "liquidations"), (b'"funding"', "funding"),
                           (b'"instrument"', "open_interest")):  # fmt: skip
            if word in head:
                return lane
        return "control"

    def trades(self, client: Any, wanted: Wanted) -> tuple[list[Any], bool]:
        """By time, a thousand at a time."""
        import datetime as dt

        since = dt.datetime.fromtimestamp((wanted.since or 0) / 1e6, dt.UTC)
        out: list[Any] = []
        for page in range(20):
            found = client.public_get_trade(
                {"symbol": wanted.symbol, "startTime": since.isoformat(), "count": 1000,
                 "start": page * 1000}
            )  # fmt: skip
            out += found
            if len(found) < 1000:
                return out, True
        return out, False
