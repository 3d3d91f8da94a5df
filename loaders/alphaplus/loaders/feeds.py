"""Streams: order-book updates rebuilt into snapshots, trades, bars and liquidations among them.

Reads recorded Binance streams (a receive time, a space, and the message; or the message alone),
Bybit's order books, trades and liquidations, OKX's liquidations, and row-wise books (Tardis'
incremental_book_L2 and Binance's depth snapshots in CSV). A receive time is a number of s, ms, µs or
ns, or ISO text (Tardis' raw recordings), and may end in a colon (cryptofeed's).
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from alphaplus.loaders import naming
from alphaplus.loaders.description import Description, Missing, vendor_instrument
from alphaplus.loaders.formats import Columns, number, sign, text
from alphaplus.loaders.instruments import BadName, Instrument, base_units
from alphaplus.loaders.stamps import FIRST, LAST, moment
from sortedcontainers import SortedDict

Ints = npt.NDArray[np.int64]
Levels = Sequence[tuple[float, float]]
MIN_LEVELS = 5  # a side with fewer is a book of which too little has been seen
KEPT_UPDATES = 20


_STAMP = re.compile(
    rb"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)|\d+(?:\.\d+)?):?[ \t]+(?=\{)"
)
_WHOLE = re.compile(r"@depth(?:5|10|20)(?:@|$)")
_BYBIT_BOOK = re.compile(r"orderbook\.\d+\.")


def looks_like(line: bytes) -> bool:
    """Is this a line of a recorded stream: JSON, with or without a receive time before it?"""
    head = line.lstrip()
    if match := _STAMP.match(head):
        head = head[match.end() :]
    return head[:1] == b"{"


def receive_time(stamp: str) -> float | None:
    """Microseconds since 1970 of a receive time in s, ms, µs, ns or ISO text; None: no such time.

    Between 1980 and 2100 the four units do not overlap.
    """
    if "-" in stamp[1:]:
        # Seven digits of a second, as Tardis writes them, are more than Python reads.
        short = re.sub(r"(\.\d{6})\d+", r"\1", stamp.replace("Z", "+00:00"))
        try:
            at = dt.datetime.fromisoformat(short)
        except ValueError:
            return None
        return round(at.timestamp() * 1e6)
    whole, _, part = stamp.partition(".")
    if len(whole) > 19:
        return None
    value = int(whole)
    for unit, scale in ((1, 10**6), (10**3, 10**3), (10**6, 1)):
        if FIRST * unit <= value < LAST * unit:
            return value * scale + float(f"0.{part or 0}") * scale
    if FIRST * 10**9 <= value < LAST * 10**9:
        return value / 1e3
    return None


@dataclass
class Book:
    """One instrument's book, from updates alone: partial until levels are seen.

    last_id: the last update's id (-1: none yet). gap: updates were missed since the last snapshot.
    due: when the next snapshot is to be taken, in microseconds. ticker: best bid and ask of the
    book ticker, with its update id. recent: the latest updates, for a snapshot that is older.
    """

    bids: SortedDict = field(default_factory=SortedDict)
    asks: SortedDict = field(default_factory=SortedDict)
    last_id: int = -1
    gap: bool = False
    due: float = 0.0
    ticker: tuple[int, float, float, float, float] | None = None
    recent: list[tuple[int, int, Levels, Levels]] = field(default_factory=list)

    def update(self, bids: Levels, asks: Levels) -> None:
        """Set levels; size 0 deletes one."""
        for side, levels in ((self.bids, bids), (self.asks, asks)):
            for price, size in levels:
                p, s = float(price), float(size)
                if s == 0.0:
                    side.pop(p, None)
                else:
                    side[p] = s

    def reset(self, bids: Levels, asks: Levels) -> None:
        """A whole book in place of this one."""
        self.bids.clear()
        self.asks.clear()
        self.update(bids, asks)

    def top(self, n: int) -> tuple[list[float], list[float], list[float], list[float]]:
        """Best n levels a side: bid prices, bid sizes, ask prices, ask sizes.

        A book ticker newer than the last update says what is best: levels beyond it are gone.
        """
        if self.ticker is None or self.ticker[0] <= self.last_id:
            bids = list(islice(reversed(self.bids), n))
            asks = list(islice(self.asks, n))
            return bids, [self.bids[p] for p in bids], asks, [self.asks[p] for p in asks]
        _, bid, bid_size, ask, ask_size = self.ticker
        below = self.bids.irange(maximum=bid, inclusive=(True, False), reverse=True)
        above = self.asks.irange(minimum=ask, inclusive=(False, True))
        bids, asks = list(islice(below, n - 1)), list(islice(above, n - 1))
        return (
            [bid, *bids],
            [bid_size, *(self.bids[p] for p in bids)],
            [ask, *asks],
            [ask_size, *(self.asks[p] for p in asks)],
        )


class Feed:
    """Messages in, columns out. ``state()`` is what a later run needs to go on."""

    def __init__(
        self, context: Description, levels: int, every: float, state: dict[str, Any] | None = None
    ) -> None:
        self.context = context
        self.levels = levels
        self.every = every * 1e6
        self.books: dict[Instrument, Book] = {}
        self._told: dict[Instrument, str] = {}  # which telling of its trades is taken
        self._bars: list[tuple[Any, ...]] = []
        self._stream = ""
        self.counters: dict[str, int] = {}
        self._line = 0
        self._last: Instrument | None = None
        self._snapshots: list[tuple[Any, ...]] = []
        self._trades: list[tuple[Any, ...]] = []
        self._liquidations: list[tuple[Any, ...]] = []
        self._gaps: list[tuple[Any, ...]] = []
        if state:
            self.counters = state["counters"]
            for exchange, native, kind, bids, asks, last_id, gap, due, ticker, recent in state[
                "books"
            ]:
                self._last = context.instrument(exchange, kind, native)
                self.books[self._last] = Book(
                    SortedDict(bids),
                    SortedDict(asks),
                    last_id,
                    gap,
                    due,
                    tuple(ticker) if ticker else None,
                    [tuple(item) for item in recent],
                )
            if state["last"]:
                exchange, native, kind = state["last"]
                self._last = context.instrument(exchange, kind, native)
            for exchange, native, kind, told in state["told"]:
                self._told[context.instrument(exchange, kind, native)] = told

    def state(self) -> dict[str, Any]:
        """The books and counters, for a load that goes on later."""
        return {
            "counters": self.counters,
            "last": self._last and [self._last.exchange, self._last.native, self._last.kind],
            "told": [[i.exchange, i.native, i.kind, told] for i, told in self._told.items()],
            "books": [
                [i.exchange, i.native, i.kind, list(b.bids.items()), list(b.asks.items()),
                 b.last_id, b.gap, b.due, b.ticker, b.recent]
                for i, b in self.books.items()
            ],
        }  # fmt: skip

    def _count(self, what: str) -> None:
        self.counters[what] = self.counters.get(what, 0) + 1

    def take(self, line: bytes, number: int) -> str:
        """One message, at a line of the file; returns why it is refused, or ''."""
        self._line = number
        received: float | None = None
        body = line.strip()
        if body[:1].isdigit():
            match = _STAMP.match(body)
            received = receive_time(match[1].decode()) if match else None
            if match is None or received is None:
                return "unparsable: receive time"
            body = body[match.end() :]
        if b"\0" in body:
            return "unparsable: NUL byte"
        try:
            message = json.loads(body)
        except RecursionError:
            return "unparsable: nested too deeply"
        except json.JSONDecodeError as error:
            return f"unparsable: {error.msg}"
        except UnicodeDecodeError:
            return "unparsable: no UTF-8"
        return self.message(message, received)

    def message(self, message: Any, received: float | None) -> str:
        """One parsed message and its receive time; returns why it is refused, or ''."""
        if not isinstance(message, dict):
            return "unparsable: no message"
        data = message.get("data", message)
        self._stream = str(message.get("stream", ""))
        try:
            if received is not None and (why := _far(message, data, received)):
                return why
            topic = str(message.get("topic", ""))
            if _BYBIT_BOOK.match(topic):
                self._bybit_book(message, data, received)
                return ""
            if isinstance(data, list) or "iquidation" in topic:
                items = data if isinstance(data, list) else [data]
                return self._venue_messages(message, items, received)
            kind = data.get("e")
            if kind == "depthUpdate":
                self._depth(data, received)
            elif kind == "bookTicker" or (kind is None and {"b", "B", "a", "A"} <= set(data)):
                self._ticker(data)
            elif kind in ("trade", "aggTrade"):
                self._trade(data, received)
            elif kind == "forceOrder":
                self._force_order(data["o"], received)
            elif kind == "kline":
                self._kline(data, received)
            elif {"lastUpdateId", "bids", "asks"} <= set(data):
                self._whole_book(data, received)
            else:
                self._count("other messages")
        except Missing:
            return "kind of market not known (--kind spot|perpetual)"
        except BadName as error:
            return f"unparsable: {error}"
        except (
            KeyError,
            IndexError,
            ValueError,
            TypeError,
            AttributeError,
            OverflowError,
        ) as error:
            return f"unparsable: {type(error).__name__} {error}"
        return ""

    def _instrument(self, data: dict[str, Any], *, spot: bool | None) -> Instrument:
        """What a Binance message is about. spot: what its form says (None: nothing)."""
        native = self.context.said.symbol or data["s"]
        if not native:
            raise ValueError("no symbol")
        if not isinstance(native, str):
            raise ValueError(f"symbol {native!r}")
        kind = None if spot is None else "spot" if spot else "derivative"
        told = self.context.said.kind
        if told is None and kind is None:
            known = {i.kind for i in self._known(native)}
            kind = known.pop() if len(known) == 1 else None
        made = self.context.instrument("binance", told or kind, native)
        if why := made.missing(self.context.said.unit):
            raise ValueError(why)
        return made

    def _known(self, native: str) -> list[Instrument]:
        """Instruments of that name of which messages came before."""
        return [i for i in (*self.books, *self._told) if i.native == native.upper()]

    def _sized(self, instrument: Instrument, size: float, price: float) -> float:
        return float(base_units(instrument, size, price, self.context.said.unit))

    def _depth(self, data: dict[str, Any], received: float | None) -> None:
        spot = "pu" not in data
        instrument = self._last = self._instrument(data, spot=spot)
        book = self.books.setdefault(instrument, Book())
        ts = _time(data.get("T", data["E"]))
        first, last = _id(data["U"]), _id(data["u"])
        # Parsed before anything is changed: a message that cannot be read leaves the book as it is.
        bids, asks = _side_of(data["b"]), _side_of(data["a"])
        if _WHOLE.search(self._stream):
            self._whole(instrument, book, ts, received, last, bids, asks)
            return
        if last <= book.last_id:
            self._count("repeated updates")
            return
        expected = book.last_id + 1 if spot else book.last_id
        seen = first if spot else _id(data["pu"])
        # An update that begins before and ends after what is known (after a snapshot) is whole.
        follows = seen == expected or first <= book.last_id + 1 <= last
        if book.last_id >= 0 and not follows:
            self._count("sequence gaps")
            self._gaps.append((instrument, round(ts), "depth", expected, seen))
            # What stood here may have gone meanwhile: the book starts again.
            book.reset([], [])
            book.recent.clear()
            book.gap = True
        # The state at the snapshot time is the one before this update.
        self._snapshot(instrument, book, ts, received)
        book.last_id = last
        book.update(bids, asks)
        book.recent = [*book.recent[1 - KEPT_UPDATES :], (first, last, bids, asks)]

    def _whole(
        self,
        instrument: Instrument,
        book: Book,
        ts: float,
        received: float | None,
        last: int,
        bids: Levels,
        asks: Levels,
    ) -> None:
        """A message that is the best levels of a book, whole: the book as of its own time."""
        if last <= book.last_id:
            self._count("repeated updates")
            return
        book.reset(bids, asks)
        book.last_id = last
        if ts < book.due:
            return
        book.due = (ts // self.every + 1) * self.every
        self._take(instrument, book, ts, received, least=1)

    def _bybit_book(
        self, message: dict[str, Any], data: dict[str, Any], received: float | None
    ) -> None:
        """Bybit's order books: a snapshot, then deltas; u of 1 starts the book anew."""
        native = self.context.said.symbol or data["s"]
        kind = self.context.said.kind or self.context.hints.kind
        made = self.context.instrument("bybit", kind, native)
        if why := made.missing(self.context.said.unit):
            raise ValueError(why)
        book = self.books.setdefault(made, Book())
        ts = _time(message.get("cts", message["ts"]))
        update = _id(data["u"])
        bids, asks = _side_of(data["b"]), _side_of(data["a"])
        if message.get("type") == "snapshot" or update == 1:
            self._snapshot(made, book, ts, received)
            book.reset(bids, asks)
        else:
            if book.last_id < 0:
                self._count("updates before the first snapshot")
                return
            if update <= book.last_id:
                self._count("repeated updates")
                return
            if update != book.last_id + 1:
                self._count("sequence gaps")
                self._gaps.append((made, round(ts), "depth", book.last_id + 1, update))
                book.gap = True
            self._snapshot(made, book, ts, received)
            book.update(bids, asks)
        book.last_id = update

    def _whole_book(self, data: dict[str, Any], received: float | None) -> None:
        """A snapshot, fetched beside the stream: updates newer than it are applied again."""
        instrument = self._last
        if _WHOLE.search(self._stream):
            # Spot's partial depth has no symbol and no time of its own.
            native = self._stream.split("@")[0].upper()
            instrument = self._instrument({"s": native}, spot=True)
            if received is None:
                self._count("books without a time")
                return
            book = self.books.setdefault(instrument, Book())
            bids, asks = _side_of(data["bids"]), _side_of(data["asks"])
            last = _id(data["lastUpdateId"])
            self._whole(instrument, book, received, received, last, bids, asks)
            return
        if "s" in data or self.context.said.symbol:
            spot = "T" not in data and "E" not in data
            instrument = self._instrument(data, spot=spot)
        if instrument is None:
            self._count("snapshots of no known symbol")
            return
        bids, asks = _side_of(data["bids"]), _side_of(data["asks"])
        book = self.books.setdefault(instrument, Book())
        last = _id(data["lastUpdateId"])
        newer = [item for item in book.recent if item[1] > last]
        if book.last_id > last and (not newer or newer[0][0] > last + 1):
            self._count("snapshots too old")
            return
        book.reset(bids, asks)
        book.last_id = last
        for _, update, more_bids, more_asks in newer:
            book.update(more_bids, more_asks)
            book.last_id = update
        self._count("snapshots applied")

    def _ticker(self, data: dict[str, Any]) -> None:
        # The spot stream's book ticker has neither E nor T.
        book = self.books.get(self._instrument(data, spot="E" not in data and "T" not in data))
        if book is not None:
            (bid, bid_size), (ask, ask_size) = _side_of(
                [(data["b"], data["B"]), (data["a"], data["A"])]
            )
            book.ticker = (_id(data["u"]), bid, bid_size, ask, ask_size)

    def _snapshot(
        self, instrument: Instrument, book: Book, ts: float, received: float | None
    ) -> None:
        if ts < book.due:
            return
        if book.due == 0.0:
            book.due = (ts // self.every + 1) * self.every
            return
        at = ts // self.every * self.every
        book.due = at + self.every
        self._take(instrument, book, at, received, least=min(MIN_LEVELS, self.levels))

    def _take(
        self, instrument: Instrument, book: Book, at: float, received: float | None, *, least: int
    ) -> None:
        """The book as a row, in base units."""
        bids, bid_sizes, asks, ask_sizes = book.top(self.levels)
        if min(len(bids), len(asks)) < least:
            self._count("partial books")
            return
        if bids[0] >= asks[0]:
            self._count("crossed books")
            return
        self._snapshots.append(
            (instrument, at, received, self._line, book.last_id, book.gap,
             bids, [self._sized(instrument, s, p) for p, s in zip(bids, bid_sizes, strict=True)],
             asks, [self._sized(instrument, s, p) for p, s in zip(asks, ask_sizes, strict=True)])
        )  # fmt: skip
        book.gap = False

    def _trade(self, data: dict[str, Any], received: float | None) -> None:
        if data.get("X", "MARKET") != "MARKET":
            self._count("insurance and other non-market trades")
            return
        # Spot trades carry M ("ignore"); a perpetual's carry X.
        instrument = self._instrument(data, spot="M" in data)
        id_ = data["t"] if "t" in data else data["a"]
        if id_ is None or not isinstance(data["m"], bool):
            raise ValueError("no id" if id_ is None else f"side {data['m']!r}")
        price = float(data["p"])
        row = (instrument, _time(data["T"]), received, self._line, str(id_), price,
               self._sized(instrument, float(data["q"]), price), -1.0 if data["m"] else 1.0)  # fmt: skip
        # A recording may hold both tellings of the same trades: the first one counts.
        if self._told.setdefault(instrument, data["e"]) != data["e"]:
            self._count(f"trades told a second time ({data['e']})")
            return
        self._trades.append(row)

    def _kline(self, data: dict[str, Any], received: float | None) -> None:
        """A bar of the stream; one that is not closed is held back: the closed one follows."""
        k = data["k"]
        instrument = self._instrument({"s": k.get("s", data.get("s"))}, spot=None)
        length = naming.timeframe(str(k["i"]))
        if length is None:
            raise ValueError(f"interval {k['i']!r}")
        if k["x"] is not True:
            self._count("bars not closed")
            return
        quote, taker = float(k["q"]), float(k["V"])
        volume = float(k["v"])
        if instrument.margin == "inverse":  # contracts, with the base volume beside them
            volume, quote, taker = (
                quote,
                volume * (instrument.contract_size or np.nan),
                float(k["Q"]),
            )
        self._bars.append(
            (instrument, _time(k["t"]), received, self._line, float(k["o"]), float(k["h"]),
             float(k["l"]), float(k["c"]), volume, quote, float(k["n"]), taker, length)
        )  # fmt: skip

    def _force_order(self, order: dict[str, Any], received: float | None) -> None:
        instrument = self._instrument(order, spot=False)
        price = float(order["ap"]) or float(order["p"])
        size = float(order.get("z") or order["q"]) or float(order["q"])
        self._liquidations.append(
            (instrument, _time(order["T"]), received, self._line,
             f"{order['T']}-{order['S']}-{order['p']}-{order['q']}",
             price, self._sized(instrument, size, price), _side(order["S"]))
        )  # fmt: skip

    def _venue_messages(
        self, message: dict[str, Any], data: list[Any], received: float | None
    ) -> str:
        topic = str(message.get("topic", message.get("arg", {}).get("channel", "")))
        if topic.startswith("publicTrade"):
            return self._bybit_trades(data, received)
        if "iquidation" not in topic:
            self._count("other messages")
            return ""
        why = ""
        for item in data:
            if "details" in item:  # OKX: bankruptcy price, contracts
                kind = {"SWAP": "perpetual", "FUTURES": "future", "OPTION": "option"}.get(
                    str(item.get("instType", message.get("arg", {}).get("instType", "")))
                )
                instrument = self.context.instrument("okx", kind, item["instId"])
                if missing := instrument.missing():
                    why = missing
                    continue
                for d in item["details"]:
                    price = float(d["bkPx"])
                    self._liquidations.append(
                        (instrument, _time(d["ts"]), received, self._line,
                         f"{d['ts']}-{d['side']}-{d['bkPx']}-{d['sz']}", price,
                         self._sized(instrument, float(d["sz"]), price), _side(d["side"]))
                    )  # fmt: skip
                continue
            # Bybit: the side is the position's; a long is closed by a forced sell. The older topic
            # has one item with long names.
            ts, native, side, size, at = (
                item[short if short in item else long]
                for short, long in (
                    ("T", "updatedTime"), ("s", "symbol"), ("S", "side"), ("v", "size"),
                    ("p", "price"),
                )
            )  # fmt: skip
            instrument = self.context.instrument("bybit", "derivative", native)
            if missing := instrument.missing():
                why = missing
                continue
            self._liquidations.append(
                (instrument, _time(ts), received, self._line, f"{ts}-{side}-{at}-{size}", float(at),
                 self._sized(instrument, float(size), float(at)), -_side(side))
            )  # fmt: skip
        return why

    def _bybit_trades(self, data: list[Any], received: float | None) -> str:
        """Bybit's public trades; S is the aggressor's side."""
        rows = []
        for item in data:
            native = self.context.said.symbol or item["s"]
            kind = self.context.said.kind or self.context.hints.kind
            if kind is None and re.fullmatch(r"[A-Z0-9]+USD", native):
                kind = "derivative"  # inverse contracts: no spot pair there is quoted in USD
            instrument = self.context.instrument("bybit", kind, native)
            if missing := instrument.missing(self.context.said.unit):
                return missing
            price = float(item["p"])
            rows.append(
                (instrument, _time(item["T"]), received, self._line, str(item["i"]), price,
                 self._sized(instrument, float(item["v"]), price), _side(item["S"]))
            )  # fmt: skip
            self._told.setdefault(instrument, "trade")
        self._trades += rows
        return ""

    def columns(self) -> Iterator[tuple[str, Columns, Ints]]:
        """What was made since the last call: kind, rows, and the line each came from."""
        if self._snapshots:
            rows, self._snapshots = self._snapshots, []
            values: dict[str, Any] = _levels([row[6:10] for row in rows], self.levels)
            values["sequence"] = np.array([row[4] for row in rows], dtype=np.int64)
            values["after_gap"] = np.array([row[5] for row in rows], dtype=bool)
            yield "order_book", *_columns(rows, values)
        if self._bars:
            rows, self._bars = self._bars, []
            names = ("open", "high", "low", "close", "volume", "quote_volume", "trade_count",
                     "taker_buy_volume", "timeframe")  # fmt: skip
            for length in sorted({row[12] for row in rows}):
                part = [row for row in rows if row[12] == length]
                bars = {
                    name: np.array([row[4 + i] for row in part]) for i, name in enumerate(names)
                }
                yield "candles", *_columns(part, bars)
        for told in sorted({self._told[row[0]] for row in self._trades}):
            rows = [row for row in self._trades if self._told[row[0]] == told]
            made, lines = _columns(rows, _events(rows))
            made.told = told
            yield "trades", made, lines
        self._trades = []
        for kind, held in (("liquidations", self._liquidations),):
            if held:
                rows = list(held)
                held.clear()
                yield kind, *_columns(rows, _events(rows))

    def gaps(self) -> list[tuple[Instrument, int, str, int, int]]:
        """Holes in sequence numbers since the last call; times in microseconds since 2000."""
        return _since_2000(self._gaps)


def _events(rows: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
    return {
        "id": np.array([row[4] for row in rows], dtype=str),
        "price": np.array([row[5] for row in rows]),
        "size": np.array([row[6] for row in rows]),
        "sign": np.array([row[7] for row in rows]),
    }


def _far(message: dict[str, Any], data: Any, received: float) -> str:
    """Why a receive time is none: it lies more than a day from the event's."""
    first = data[0] if isinstance(data, list) and data else data
    event = None
    for part in (first, message):
        if isinstance(part, dict):
            event = next((part[k] for k in ("T", "E", "cts", "ts") if k in part), None)
            if event is not None:
                break
    if not isinstance(event, int | float) or isinstance(event, bool):
        return ""
    if abs(event * 1e3 - received) > 86_400e6:
        return "receive time more than a day from the event"
    return ""


def _since_2000(gaps: list[tuple[Any, ...]]) -> list[tuple[Instrument, int, str, int, int]]:
    found = [(i, ts - 946_684_800_000_000, s, e, r) for i, ts, s, e, r in gaps]
    gaps.clear()
    return found


def _time(milliseconds: Any) -> float:
    """Microseconds since 1970."""
    value = float(milliseconds) * 1e3
    if not 0 < value < 1e17:
        raise ValueError(f"time {milliseconds!r}")
    return value


def _id(number: Any) -> int:
    value = int(number)
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"update id {number!r}")
    return value


def _side_of(levels: Any) -> list[tuple[float, float]]:
    """Prices and sizes of a side, as numbers that a book can have."""
    found = [(float(price), float(size)) for price, size in levels]
    for price, size in found:
        if not (0 < price < 1e30 and 0 <= size < 1e30):
            raise ValueError(f"level {price:g} x {size:g}")
    return found


def _side(word: str) -> float:
    sides = {"buy": 1.0, "sell": -1.0}
    if word.lower() not in sides:
        raise ValueError(f"side {word!r}")
    return sides[word.lower()]


def _levels(books: Sequence[Sequence[list[float]]], width: int) -> dict[str, Any]:
    """Books as (n, width) arrays by name, NaN where a book has fewer levels."""
    out = {}
    for i, name in enumerate(("bid_prices", "bid_sizes", "ask_prices", "ask_sizes")):
        out[name] = np.full((len(books), width), np.nan)
        for k, book in enumerate(books):
            out[name][k, : len(book[i])] = book[i]
    return out


def _columns(rows: list[tuple[Any, ...]], values: dict[str, Any]) -> tuple[Columns, Ints]:
    received = np.array([np.nan if row[2] is None else row[2] for row in rows], dtype=np.float64)
    instruments = np.empty(len(rows), dtype=object)
    instruments[:] = [row[0] for row in rows]
    return (
        Columns(
            np.array([row[1] for row in rows], dtype=np.float64),
            values,
            instruments=instruments,
            received=None if np.isnan(received).all() else received,
        ),
        np.array([row[3] for row in rows], dtype=np.int64),
    )


# --- state from row to row ---------------------------------------------------------------------


def _ids(column: Any, absent: int) -> Ints:
    """Whole numbers of updates; ``absent`` where a cell has none that fits."""
    values = number(column)
    with np.errstate(invalid="ignore"):
        good = np.isfinite(values) & (np.abs(values) < 2.0**62)
    return np.where(good, values, absent).astype(np.int64)


class RowBooks:
    """Books that a file tells level by level, one row each: rows of one message make one book.

    Tardis' incremental_book_L2 (a message is what was received at one time; a snapshot message
    starts the book anew) and Binance's depth snapshots as CSV. A message is complete when the next
    one begins, so the last rows of a block wait for the next block. Of the books of one message at
    most one a snapshot interval becomes a row. Binance numbers its updates: one that does not
    follow the last is a gap, after which the book starts again and is partial until levels are seen.
    """

    def __init__(
        self, kind: str, context: Description, levels: int, every: float, state: Any = None
    ) -> None:
        self.kind = kind
        self.context = context
        self.levels = levels
        self.every = every * 1e6
        self.counters: dict[str, int] = {}
        self.books: dict[tuple[str, str], Book] = {}
        self._key: tuple[Any, ...] | None = None
        self._message: list[tuple[Any, ...]] = []
        self._made: list[tuple[Any, ...]] = []
        self._gaps: list[tuple[Any, ...]] = []
        self._whole: set[tuple[str, str]] = set()  # books that a snapshot message gave
        if state:
            self.counters = state["counters"]
            for exchange, native, bids, asks, last_id, gap, due, whole in state["books"]:
                self.books[exchange, native] = Book(
                    SortedDict(bids),
                    SortedDict(asks),
                    last_id,
                    gap,
                    due,
                )
                if whole:
                    self._whole.add((exchange, native))
            self._key = tuple(state["key"]) if state["key"] else None
            self._message = [tuple(row) for row in state["message"]]

    def state(self) -> dict[str, Any]:
        """The books, and the rows of a message that is not complete."""
        return {
            "counters": self.counters,
            "books": [
                [*key, list(b.bids.items()), list(b.asks.items()), b.last_id, b.gap, b.due,
                 key in self._whole]
                for key, b in self.books.items()
            ],
            "key": self._key,
            "message": self._message,
        }  # fmt: skip

    def take(self, frame: pd.DataFrame, lines: Ints) -> dict[int, str]:
        """Rows in; returns, by row, why one is refused."""
        tardis = self.kind == "tardis"
        ts = moment(frame["timestamp"])
        if tardis:
            received = moment(frame["local_timestamp"])
            sequence = np.nan_to_num(received).astype(np.int64)
            first = before = np.full(len(frame), -1, dtype=np.int64)
            whole = frame["is_snapshot"].astype(str).str.lower().eq("true").to_numpy()
            venues = text(frame["exchange"])
        else:
            received = np.full(len(frame), np.nan)
            sequence = _ids(frame["last_update_id"], 0)
            first = _ids(frame["first_update_id"], -1)
            before = (
                first - 1
            )  # spot: the numbers have no holes; a perpetual's updates name the last
            if "pu" in frame:
                named = number(frame["pu"])
                before = np.where(named >= 0, _ids(named, 0), before)
            whole = frame["update_type"].astype(str).str.lower().eq("snap").to_numpy()
            venues = np.full(len(frame), "binance", dtype=object)
        side = sign(frame["side"], {"bid", "b", "buy"}, {"ask", "a", "sell"})
        price = number(frame["price"])
        size = number(frame["amount" if tardis else "qty"])
        refused: dict[int, str] = {}
        with np.errstate(invalid="ignore"):
            for mask, reason in (
                (~(ts > 0), "unparsable time"),
                (np.isnan(side), "unknown side"),
                (~np.isfinite(price), "unparsable price"),
                (price <= 0, "price not positive"),
                (~np.isfinite(size), "unparsable size"),
                (size < 0, "negative size"),
            ):
                for bad in np.flatnonzero(mask):
                    refused.setdefault(int(bad), reason)
        natives = text(frame["symbol"])
        for bad in np.flatnonzero(natives == ""):
            refused.setdefault(int(bad), "no symbol")
        for venue, native in sorted(set(zip(venues.tolist(), natives.tolist(), strict=True))):
            if not native:
                continue
            try:
                why = self._made_instrument(venue, native).missing(self.context.said.unit)
            except BadName as error:
                why = str(error)
            if why:
                for bad in np.flatnonzero((venues == venue) & (natives == native)):
                    refused.setdefault(int(bad), why)
        for i in range(len(frame)):
            if i in refused:
                continue
            key = (str(venues[i]), str(natives[i]), int(sequence[i]), bool(whole[i]),
                   int(first[i]), int(before[i]))  # fmt: skip
            if key != self._key:
                self._finish()
                self._key = key
            self._message.append(
                (float(ts[i]), float(received[i]) if received[i] == received[i] else None,
                 int(lines[i]), float(side[i]), float(price[i]), float(size[i]))
            )  # fmt: skip
        return refused

    def _made_instrument(self, exchange: str, native: str) -> Instrument:
        if self.kind == "tardis":
            return vendor_instrument(self.context, exchange, native)
        # Binance's archive of depth snapshots is of its contracts.
        return self.context.instrument("binance", "derivative", native)

    def _sized(self, instrument: Instrument, size: float, price: float) -> float:
        return float(base_units(instrument, size, price, self.context.said.unit))

    def _finish(self) -> None:
        """The message is complete: apply it, and keep the book when a snapshot is due."""
        rows, self._message = self._message, []
        if not rows or self._key is None:
            return
        exchange, native, sequence, whole, first, before = self._key
        at = (exchange, native)
        book = self.books.setdefault(at, Book())
        ts, received, line = rows[-1][:3]
        instrument = self._made_instrument(exchange, native)
        if self.kind == "binance" and not whole and book.last_id >= 0:
            if sequence <= book.last_id:
                self._count("repeated updates")
                return
            if before != book.last_id and not first <= book.last_id + 1 <= sequence:
                self._count("sequence gaps")
                self._gaps.append((instrument, round(ts), "depth", book.last_id, before))
                book.reset([], [])
                book.gap = True
                self._whole.discard(at)
        if self.kind == "binance":
            book.last_id = sequence
        bids = [(row[4], row[5]) for row in rows if row[3] > 0]
        asks = [(row[4], row[5]) for row in rows if row[3] < 0]
        if whole:
            book.reset(bids, asks)
            self._whole.add(at)
        else:
            book.update(bids, asks)
        if ts < book.due:
            return
        best = book.top(self.levels)
        if not best[0] or not best[2]:
            self._count("one-sided books")
            return
        if at not in self._whole and min(len(best[0]), len(best[2])) < min(MIN_LEVELS, self.levels):
            self._count("partial books")
            return
        if best[0][0] >= best[2][0]:
            self._count("crossed books")
            return
        book.due = (ts // self.every + 1) * self.every
        in_base = [
            best[0],
            [self._sized(instrument, s, p) for p, s in zip(best[0], best[1], strict=True)],
            best[2],
            [self._sized(instrument, s, p) for p, s in zip(best[2], best[3], strict=True)],
        ]
        self._made.append((instrument, ts, received, line, sequence, book.gap, *in_base))
        book.gap = False

    def _count(self, what: str) -> None:
        self.counters[what] = self.counters.get(what, 0) + 1

    def end(self) -> None:
        """No row follows: the last message is complete."""
        self._finish()

    def columns(self) -> Iterator[tuple[str, Columns, Ints]]:
        """The books made since the last call, as :meth:`Feed.columns`."""
        if self._made:
            rows, self._made = self._made, []
            values: dict[str, Any] = _levels([row[6:10] for row in rows], self.levels)
            values["sequence"] = np.array([row[4] for row in rows], dtype=np.int64)
            values["after_gap"] = np.array([row[5] for row in rows], dtype=bool)
            yield "order_book", *_columns(rows, values)

    def gaps(self) -> list[tuple[Instrument, int, str, int, int]]:
        """Holes in sequence numbers, as :meth:`Feed.gaps`."""
        return _since_2000(self._gaps)
