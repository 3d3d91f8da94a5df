"""Deribit (JSON-RPC over websocket).

Source: docs.deribit.com, "book.(instrument_name).(interval)", "trades.(…)",
"public/set_heartbeat". A book's change names the one it follows (prev_change_id, change_id);
trade_seq counts an instrument's trades. Liquidations are marked trades. Sizes are USD of inverse
contracts and base units of linear ones: ``contracts`` is not used.
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from typing import Any, ClassVar

import numpy as np
import orjson
from alphaplus.loaders.feeds import _id, _side, _side_of, _time
from alphaplus.loaders.streams.venue import Parser, Venue, Wanted


class DeribitParser(Parser):
    """What is subscribed to."""

    known: ClassVar[dict[str, frozenset[str]]] = {
        "trades": frozenset(
            [
                "timestamp",
                "price",
                "amount",
                "direction",
                "index_price",
                "instrument_name",
                "trade_seq",
                "trade_id",
                "mark_price",
                "tick_direction",
                "liquidation",
                "contracts",
                "block_trade_id",
                "combo_id",
                "combo_trade_id",
                "iv",
                "block_trade_leg_count",
                "block_rfq_id",
            ]
        ),
        "book": frozenset(
            ["timestamp", "type", "prev_change_id", "change_id", "instrument_name", "bids", "asks"]
        ),
    }

    def route(self, message: Any, now: int) -> None:
        """By channel."""
        if message.get("method") != "subscription":
            if "result" not in message and message.get("method") != "heartbeat":
                self._unknown(f"message {str(message.get('method', sorted(message)))[:60]}")
            return
        channel = message["params"]["channel"].split(".", 1)[0]
        data = message["params"]["data"]
        if channel == "trades":
            for item in data:
                self._fields(channel, item)
                number, at = _id(item["trade_seq"]), round(_time(item["timestamp"]))
                self._seen(at, now)
                self._follow(
                    "trades", item["instrument_name"], number, number, number - 1, at, now, item
                )
        elif channel == "book":
            self._fields(channel, data)
            self._book_of(data, now)
        elif channel == "ticker":
            name, ts = data["instrument_name"], _time(data["timestamp"])
            if "open_interest" in self.channels and "open_interest" in data:
                amount = float(data["open_interest"])
                made = self.instrument(name)
                inverse = made.margin == "inverse"
                self.add_interest(
                    name, ts, np.nan if inverse else amount, amount if inverse else np.nan
                )
        else:
            self._unknown(f"channel {channel[:40]}")

    def _in_turn_trades(self, item: Any, now: int) -> None:
        name, ts = item["instrument_name"], _time(item["timestamp"])
        price, size, sign = float(item["price"]), float(item["amount"]), _side(item["direction"])
        self.add_trade(name, ts, str(item["trade_id"]), price, size, sign)
        if item.get("liquidation") and "liquidations" in self.channels:
            # M: the maker was liquidated, T: the taker, MT: both.
            for who in item["liquidation"]:
                self.add_liquidation(
                    name,
                    ts,
                    f"{item['trade_id']}-{who}",
                    price,
                    size,
                    sign if who == "T" else -sign,
                )

    def _book_of(self, data: dict[str, Any], now: int) -> None:
        symbol, number = data["instrument_name"], _id(data["change_id"])
        ts = round(_time(data["timestamp"]))
        self._seen(ts, now)
        bids, asks = (
            _side_of([(p, 0 if action == "delete" else a) for action, p, a in data[side]])
            for side in ("bids", "asks")
        )
        sequence = self.sequences.get(("book", symbol))
        if data["type"] == "snapshot" or "prev_change_id" not in data:
            self.book_update(symbol, ts, number, bids, asks, whole=True)
            if sequence is None:
                self._follow("book", symbol, number, number, -1, ts, now, None, consecutive=False)
            else:
                sequence.held.clear()
                sequence.last = number
                sequence.whole(ts, now)
            return
        if symbol not in self.whole_books:
            self._count("updates before the first snapshot")
            return
        self._follow("book", symbol, number, number, _id(data["prev_change_id"]), ts, now,
                     (symbol, ts, number, bids, asks), consecutive=False)  # fmt: skip

    def _in_turn_book(self, item: Any, now: int) -> None:
        if item is None or item[0] not in self.whole_books:
            return
        symbol, ts, number, bids, asks = item
        book = self.book_update(symbol, ts, number, bids, asks)
        if self.is_crossed(symbol, book):
            self.throw_away(symbol, "crossed", now)

    def repaired(self, symbol: str, items: list[dict[str, Any]], now: int) -> None:
        """Trades of REST are those of the stream."""
        for item in items:
            number, ts = _id(item["trade_seq"]), round(_time(item["timestamp"]))
            self._follow("trades", symbol, number, number, number - 1, ts, now, item)


class Deribit(Venue):
    """Its instruments, by name as BTC-PERPETUAL."""

    name = "deribit"
    exchange = "deribit"
    kind = "derivative"
    address = "wss://www.deribit.com/ws/api/v2"
    ccxt = "deribit"
    channels = ("trades", "book", "liquidations", "open_interest")
    parser = DeribitParser

    def hello(self, symbols: Many[str], channels: Many[str]) -> list[bytes]:
        """A heartbeat, and one subscription."""
        names: list[str] = []
        for s in symbols:
            if "trades" in channels or "liquidations" in channels:
                names.append(f"trades.{s}.100ms")
            if "book" in channels:
                names.append(f"book.{s}.100ms")
            if "open_interest" in channels:
                names.append(f"ticker.{s}.100ms")
        calls = [("public/set_heartbeat", {"interval": 10}),
                 ("public/subscribe", {"channels": names})]  # fmt: skip
        return [
            orjson.dumps({"jsonrpc": "2.0", "id": i + 1, "method": method, "params": params})
            for i, (method, params) in enumerate(calls)
        ]

    def book_again(self, symbol: str) -> list[bytes]:
        """Unsubscribe, subscribe."""
        params = {"channels": [f"book.{symbol}.100ms"]}
        return [
            orjson.dumps({"jsonrpc": "2.0", "id": 3, "method": method, "params": params})
            for method in ("public/unsubscribe", "public/subscribe")
        ]

    def answer(self, raw: bytes) -> bytes | None:
        """A test_request wants public/test, or the exchange hangs up."""
        if b'"test_request"' in raw[:200]:
            return b'{"jsonrpc":"2.0","id":9,"method":"public/test","params":{}}'
        return None

    def failure(self, raw: bytes) -> str:
        """An error names its call."""
        return raw[:300].decode("utf-8", "replace") if b'"error":{' in raw[:200] else ""

    def lane(self, raw: bytes) -> str:
        """By channel."""
        head = raw[:120]
        if b'"channel":"book' in head:
            return "book"
        if b'"channel":"trades' in head:
            return "trades"
        return "open_interest" if b'"channel":"ticker' in head else "control"

    def trades(self, client: Any, wanted: Wanted) -> tuple[list[Any], bool]:
        """By trade_seq, a thousand at a time."""
        if wanted.first is None or wanted.last is None:
            return [], True
        out: list[Any] = []
        at = wanted.first
        for _ in range(200):
            page = client.public_get_get_last_trades_by_instrument(
                {"instrument_name": wanted.symbol, "start_seq": at, "end_seq": wanted.last,
                 "count": 1000, "sorting": "asc"}
            )["result"]["trades"]  # fmt: skip
            out += page
            if not page or int(page[-1]["trade_seq"]) >= wanted.last:
                return out, True
            at = int(page[-1]["trade_seq"]) + 1
        return out, False
