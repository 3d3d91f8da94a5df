"""Streams: order-book updates rebuilt into snapshots, trades and liquidations among them.

Reads recorded Binance streams (a receive time in nanoseconds, a space, and the message; or the
message alone), Bybit's and OKX's liquidation messages, and row-wise books (Tardis'
incremental_book_L2 and Binance's depth snapshots in CSV).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from alphaplus.loaders.formats import Columns, Context, moment, number, sign, text
from alphaplus.loaders.instruments import Instrument
from sortedcontainers import SortedDict

Ints = npt.NDArray[np.int64]
Levels = Sequence[tuple[float, float]]
MIN_LEVELS = 5  # a side with fewer is a book of which too little has been seen
KEPT_UPDATES = 20


def looks_like(line: bytes) -> bool:
    """Is this a line of a recorded stream: JSON, with or without a receive time before it?"""
    head = line.lstrip()
    if head[:1].isdigit():
        head = head.split(b" ", 1)[-1].lstrip()
    return head[:1] == b"{"


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
        self, context: Context, levels: int, every: float, state: dict[str, Any] | None = None
    ) -> None:
        self.context = context
        self.levels = levels
        self.every = every * 1e6
        self.books: dict[Instrument, Book] = {}
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
                self._last = Instrument(exchange, native, kind)
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
                self._last = Instrument(*state["last"])

    def state(self) -> dict[str, Any]:
        """The books and counters, for a load that goes on later."""
        return {
            "counters": self.counters,
            "last": self._last and [self._last.exchange, self._last.native, self._last.kind],
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
            stamp, _, body = body.partition(b" ")
            if not stamp.isdigit() or len(stamp) > 19:
                return "unparsable: receive time"
            received = int(stamp) / 1e3
        try:
            message = json.loads(body)
        except RecursionError:
            return "unparsable: nested too deeply"
        except json.JSONDecodeError as error:
            return f"unparsable: {error.msg}"
        except UnicodeDecodeError:
            return "unparsable: no UTF-8"
        if not isinstance(message, dict):
            return "unparsable: no message"
        data = message.get("data", message)
        try:
            if isinstance(data, list) or "iquidation" in str(message.get("topic", "")):
                items = data if isinstance(data, list) else [data]
                return self._venue_liquidations(message, items, received)
            kind = data.get("e")
            if kind == "depthUpdate":
                self._depth(data, received)
            elif kind == "bookTicker" or (kind is None and {"b", "B", "a", "A"} <= set(data)):
                self._ticker(data)
            elif kind in ("trade", "aggTrade"):
                self._trade(data, received)
            elif kind == "forceOrder":
                self._force_order(data["o"], received)
            elif {"lastUpdateId", "bids", "asks"} <= set(data):
                self._whole_book(data)
            else:
                self._count("other messages")
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

    def _instrument(self, data: dict[str, Any], *, spot: bool) -> Instrument:
        venue = self.context.venue("binance" if spot else "binance-futures")
        kind = self.context.kind or ("spot" if spot else "perpetual")
        native = self.context.symbol or data["s"]
        if not native:
            raise ValueError("no symbol")
        return Instrument.of(venue, native, kind)

    def _depth(self, data: dict[str, Any], received: float | None) -> None:
        spot = "pu" not in data
        instrument = self._last = self._instrument(data, spot=spot)
        book = self.books.setdefault(instrument, Book())
        ts = _time(data.get("T", data["E"]))
        first, last = _id(data["U"]), _id(data["u"])
        # Parsed before anything is changed: a message that cannot be read leaves the book as it is.
        bids, asks = _side_of(data["b"]), _side_of(data["a"])
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

    def _whole_book(self, data: dict[str, Any]) -> None:
        """A snapshot, fetched beside the stream: updates newer than it are applied again."""
        instrument = self._last
        if "s" in data or self.context.symbol:
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
        bids, bid_sizes, asks, ask_sizes = book.top(self.levels)
        if min(len(bids), len(asks)) < min(MIN_LEVELS, self.levels):
            self._count("partial books")
            return
        if bids[0] >= asks[0]:
            self._count("crossed books")
            return
        self._snapshots.append(
            (instrument, at, received, self._line, book.last_id, book.gap,
             bids, bid_sizes, asks, ask_sizes)
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
        self._trades.append(
            (instrument, _time(data["T"]), received, self._line, str(id_),
             float(data["p"]), float(data["q"]), -1.0 if data["m"] else 1.0)
        )  # fmt: skip

    def _force_order(self, order: dict[str, Any], received: float | None) -> None:
        instrument = self._instrument(order, spot=False)
        price = float(order["ap"]) or float(order["p"])
        size = float(order.get("z") or order["q"]) or float(order["q"])
        self._liquidations.append(
            (instrument, _time(order["T"]), received, self._line,
             f"{order['T']}-{order['S']}-{order['p']}-{order['q']}",
             price, float(instrument.base_units(size, price)), _side(order["S"]))
        )  # fmt: skip

    def _venue_liquidations(
        self, message: dict[str, Any], data: list[Any], received: float | None
    ) -> str:
        topic = str(message.get("topic", message.get("arg", {}).get("channel", "")))
        if "iquidation" not in topic:
            self._count("other messages")
            return ""
        for item in data:
            if "details" in item:  # OKX: bankruptcy price, contracts
                instrument = Instrument.of(self.context.venue("okx"), item["instId"], "perpetual")
                for d in item["details"]:
                    price = float(d["bkPx"])
                    self._liquidations.append(
                        (instrument, _time(d["ts"]), received, self._line,
                         f"{d['ts']}-{d['side']}-{d['bkPx']}-{d['sz']}", price,
                         float(instrument.base_units(float(d["sz"]), price)), _side(d["side"]))
                    )  # fmt: skip
                continue
            # Bybit: the side is the position's; a long is closed by a forced sell. The older topic
            # has one item with long names.
            ts, native, side, size, price = (
                item[short if short in item else long]
                for short, long in (
                    ("T", "updatedTime"), ("s", "symbol"), ("S", "side"), ("v", "size"),
                    ("p", "price"),
                )
            )  # fmt: skip
            instrument = Instrument.of(self.context.venue("bybit"), native, "perpetual")
            self._liquidations.append(
                (instrument, _time(ts), received, self._line,
                 f"{ts}-{side}-{price}-{size}", float(price), float(size), -_side(side))
            )  # fmt: skip
        return ""

    def columns(self) -> Iterator[tuple[str, Columns, Ints]]:
        """What was made since the last call: kind, rows, and the line each came from."""
        if self._snapshots:
            rows, self._snapshots = self._snapshots, []
            values: dict[str, Any] = _levels([row[6:10] for row in rows], self.levels)
            values["sequence"] = np.array([row[4] for row in rows], dtype=np.int64)
            values["after_gap"] = np.array([row[5] for row in rows], dtype=bool)
            yield "order_book", *_columns(rows, values)
        for kind, held in (("trades", self._trades), ("liquidations", self._liquidations)):
            if held:
                rows = list(held)
                held.clear()
                values = {
                    "id": np.array([row[4] for row in rows], dtype=str),
                    "price": np.array([row[5] for row in rows]),
                    "size": np.array([row[6] for row in rows]),
                    "sign": np.array([row[7] for row in rows]),
                }
                yield kind, *_columns(rows, values)

    def gaps(self) -> list[tuple[Instrument, int, str, int, int]]:
        """Holes in sequence numbers since the last call; times in microseconds since 2000."""
        return _since_2000(self._gaps)


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


class RowBooks:
    """Books that a file tells level by level, one row each: rows of one message make one book.

    Tardis' incremental_book_L2 (a message is what was received at one time; a snapshot message
    starts the book anew) and Binance's depth snapshots as CSV. A message is complete when the next
    one begins, so the last rows of a block wait for the next block. Of the books of one message at
    most one a snapshot interval becomes a row. Binance numbers its updates: one that does not
    follow the last is a gap, after which the book starts again and is partial until levels are seen.
    """

    def __init__(
        self, kind: str, context: Context, levels: int, every: float, state: Any = None
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
            last_id = number(frame["last_update_id"])
            sequence = np.nan_to_num(last_id).astype(np.int64)
            first = np.nan_to_num(number(frame["first_update_id"]), nan=-1).astype(np.int64)
            before = (
                first - 1
            )  # spot: the numbers have no holes; a perpetual's updates name the last
            if "pu" in frame:
                named = number(frame["pu"])
                before = np.where(named >= 0, np.nan_to_num(named), before).astype(np.int64)
            whole = frame["update_type"].astype(str).str.lower().eq("snap").to_numpy()
            venues = np.full(len(frame), self.context.venue("binance-futures"), dtype=object)
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

    def _finish(self) -> None:
        """The message is complete: apply it, and keep the book when a snapshot is due."""
        rows, self._message = self._message, []
        if not rows or self._key is None:
            return
        exchange, native, sequence, whole, first, before = self._key
        at = (exchange, native)
        book = self.books.setdefault(at, Book())
        ts, received, line = rows[-1][:3]
        instrument = Instrument.of(exchange, native, self.context.kind)
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
            [instrument.base_units(s, p) for p, s in zip(best[0], best[1], strict=True)],
            best[2],
            [instrument.base_units(s, p) for p, s in zip(best[2], best[3], strict=True)],
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
