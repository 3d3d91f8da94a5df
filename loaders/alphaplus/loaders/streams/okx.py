"""OKX: spot, swaps and futures (API v5), by instId.

Source: www.okx.com/docs-v5, "Order book channel", "Trades channel", "Liquidation orders channel",
"Funding rate channel", "Open interest channel". A book's update names the one it follows
(prevSeqId, seqId; -1: a snapshot); CRC-32 of 25 interleaved levels is checked where it is sent. A
trade update stands for ``count`` trades, the last of which is tradeId.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence as Many
from itertools import islice
from typing import Any, ClassVar

import orjson
from alphaplus.loaders.feeds import _id, _side, _side_of, _time
from alphaplus.loaders.streams.venue import Parser, Venue, Wanted


def checksum(bids: list[list[str]], asks: list[list[str]]) -> int:
    """CRC-32 of the best 25 levels, bid and ask in turn, as the exchange writes their numbers."""
    parts = []
    for i in range(25):
        for side in (bids, asks):
            if i < len(side):
                parts += side[i][:2]
    value = zlib.crc32(":".join(parts).encode())
    return value - (1 << 32) if value >= 1 << 31 else value


class OkxParser(Parser):
    """Channels."""

    known: ClassVar[dict[str, frozenset[str]]] = {
        "trades": frozenset(
            ["instId", "tradeId", "px", "sz", "side", "ts", "count", "seqId", "source"]
        ),
        "books": frozenset(["asks", "bids", "ts", "checksum", "prevSeqId", "seqId"]),
    }

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        # As text, for checksums: symbol: side: price: (price, size). Made anew by a snapshot.
        self._texts: dict[str, tuple[dict[float, list[str]], dict[float, list[str]]]] = {}

    def route(self, message: Any, now: int) -> None:
        """By channel."""
        arg = message.get("arg")
        if arg is None or "data" not in message:
            if "event" not in message:
                self._unknown(f"message with {', '.join(sorted(message))[:60]}")
            return
        channel = str(arg["channel"])
        for item in message["data"]:
            if channel in ("trades", "books"):
                self._fields(channel, item)
            if channel == "trades":
                last, count = _id(item["tradeId"]), _id(item.get("count") or 1)
                ts = round(_time(item["ts"]))
                self._seen(ts, now)
                first = last - count + 1
                self._follow("trades", item["instId"], first, last, first - 1, ts, now, item)
            elif channel == "books":
                self._book_of(arg["instId"], message["action"], item, now)
            elif channel == "liquidation-orders":
                if item["instId"] in self.symbols:
                    for d in item["details"]:
                        self.add_liquidation(
                            item["instId"], _time(d["ts"]),
                            f"{d['ts']}-{d['side']}-{d['bkPx']}-{d['sz']}", float(d["bkPx"]),
                            float(d["sz"]), _side(d["side"]),
                        )  # fmt: skip
            elif channel == "funding-rate":
                self.funding_due(
                    item["instId"], _time(item["fundingTime"]), float(item["fundingRate"])
                )
            elif channel == "open-interest":
                self.add_interest(
                    item["instId"], _time(item["ts"]), float(item.get("oiCcy") or "nan"),
                    float(item.get("oiUsd") or "nan"),
                )  # fmt: skip
            else:
                self._unknown(f"channel {channel[:40]}")

    def _in_turn_trades(self, item: Any, now: int) -> None:
        self.add_trade(
            item["instId"], _time(item["ts"]), str(item["tradeId"]), float(item["px"]),
            float(item["sz"]), _side(item["side"]),
        )  # fmt: skip

    def _book_of(self, symbol: str, action: str, item: dict[str, Any], now: int) -> None:
        ts, number = round(_time(item["ts"])), _id(item["seqId"])
        self._seen(ts, now)
        sequence = self.sequences.get(("book", symbol))
        if action == "snapshot":
            self._texts[symbol] = ({}, {})
            self._apply(symbol, ts, number, item, whole=True)
            if sequence is None:
                self._follow("book", symbol, number, number, -1, ts, now, None, consecutive=False)
            else:
                sequence.held.clear()
                sequence.last = number
                sequence.whole(ts, now)
            return
        if symbol not in self.whole_books or sequence is None:
            self._count("updates before the first snapshot")
            return
        before = _id(item["prevSeqId"])
        if number < before or (number == before == sequence.last):
            # Maintenance starts the numbers anew; and no change for a minute.
            self._apply(symbol, ts, number, item)
            sequence.last = number
            return
        self._follow(
            "book", symbol, number, number, before, ts, now, (symbol, ts, number, item),
            consecutive=False,
        )  # fmt: skip

    def _in_turn_book(self, made: Any, now: int) -> None:
        if made is None or made[0] not in self.whole_books:
            return
        symbol, ts, number, item = made
        book = self._apply(symbol, ts, number, item)
        said = item.get("checksum")
        if said and symbol in self._texts:
            bids, asks = self._texts[symbol]
            best = [bids[p] for p in islice(reversed(book.bids), 25)]
            if checksum(best, [asks[p] for p in islice(book.asks, 25)]) != _id(said):
                self.throw_away(symbol, "checksum", now)
                return
        if self.is_crossed(symbol, book):
            self.throw_away(symbol, "crossed", now)

    def _apply(
        self, symbol: str, ts: int, number: int, item: dict[str, Any], *, whole: bool = False
    ) -> Any:
        if symbol in self._texts:
            for texts, levels in zip(
                self._texts[symbol], (item["bids"], item["asks"]), strict=True
            ):
                for level in levels:
                    if float(level[1]) == 0:
                        texts.pop(float(level[0]), None)
                    else:
                        texts[float(level[0])] = level[:2]
        bids, asks = ([level[:2] for level in item[side]] for side in ("bids", "asks"))
        return self.book_update(symbol, ts, number, _side_of(bids), _side_of(asks), whole=whole)

    def repaired(self, symbol: str, items: list[dict[str, Any]], now: int) -> None:
        """history-trades of REST: one trade each."""
        for item in items:
            number, ts = _id(item["tradeId"]), round(_time(item["ts"]))
            self._follow("trades", symbol, number, number, number - 1, ts, now, item)


class Okx(Venue):
    """All of its markets: the instId says the kind."""

    name = "okx"
    exchange = "okx"
    kind = None
    address = "wss://ws.okx.com:8443/ws/v5/public"
    ccxt = "okx"
    channels = ("trades", "book", "liquidations", "funding", "open_interest")
    unnumbered = frozenset({"liquidations"})
    ping = (25.0, b"ping")
    parser = OkxParser
    names: ClassVar[dict[str, str]] = {
        "trades": "trades", "book": "books", "funding": "funding-rate",
        "open_interest": "open-interest",
    }  # fmt: skip

    def hello(self, symbols: Many[str], channels: Many[str]) -> list[bytes]:
        """One subscription; liquidations come by kind of instrument."""
        asked = [
            {"channel": self.names[c], "instId": s}
            for s in symbols for c in channels if c in self.names
        ]  # fmt: skip
        if "liquidations" in channels:
            kinds = {"SWAP" if s.endswith("-SWAP") else "FUTURES" for s in symbols}
            asked += [{"channel": "liquidation-orders", "instType": k} for k in sorted(kinds)]
        return [orjson.dumps({"op": "subscribe", "args": asked})]

    def book_again(self, symbol: str) -> list[bytes]:
        """Unsubscribe, subscribe."""
        args = [{"channel": "books", "instId": symbol}]
        return [orjson.dumps({"op": op, "args": args}) for op in ("unsubscribe", "subscribe")]

    def failure(self, raw: bytes) -> str:
        """event error says why."""
        return raw[:300].decode("utf-8", "replace") if b'"event":"error"' in raw[:200] else ""

    def lane(self, raw: bytes) -> str:
        """By channel."""
        head = raw[:60]
        if b'"books' in head:
            return "book"
        if b'"trades' in head:
            return "trades"
        if b'"liquidation' in head:
            return "liquidations"
        if b'"funding' in head:
            return "funding"
        return "open_interest" if b'"open-interest' in head else "control"

    def trades(self, client: Any, wanted: Wanted) -> tuple[list[Any], bool]:
        """Back from the last missing one, a hundred at a time."""
        if wanted.first is None or wanted.last is None:
            return [], True
        out: list[Any] = []
        after = wanted.last + 1
        for _ in range(200):
            page = client.public_get_market_history_trades(
                {"instId": wanted.symbol, "type": "1", "after": str(after), "limit": "100"}
            )["data"]
            out += [i for i in page if wanted.first <= int(i["tradeId"]) <= wanted.last]
            if not page or int(page[-1]["tradeId"]) <= wanted.first:
                return sorted(out, key=lambda i: int(i["tradeId"])), True
            after = int(page[-1]["tradeId"])
        return sorted(out, key=lambda i: int(i["tradeId"])), False
