"""Streams: order-book updates rebuilt into snapshots, trades and liquidations among them.

Reads recorded Binance streams (a receive time in nanoseconds, a space, and the message; or the
message alone), Bybit's and OKX's liquidation messages, and row-wise books (Tardis'
incremental_book_L2 and Binance's depth snapshots in CSV).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, cast

import numpy as np
import pandas as pd
from alphaplus.loaders.formats import Columns, Context, Format, moment, number
from alphaplus.loaders.instruments import Instrument
from sortedcontainers import SortedDict

PERPETUAL_KEYS = {"pu", "T"}


def looks_like(line: bytes) -> bool:
    """Is this a line of a recorded stream: JSON, with or without a receive time before it?"""
    head = line.lstrip()
    if head[:1].isdigit():
        head = head.split(b" ", 1)[-1].lstrip()
    return head[:1] == b"{"


@dataclass
class Book:
    """One instrument's book, from updates alone: partial until levels are seen."""

    bids: SortedDict = field(default_factory=SortedDict)
    asks: SortedDict = field(default_factory=SortedDict)
    last_id: int = -1
    gap: bool = False
    due: float = 0.0  # microseconds: when the next snapshot is to be taken

    def update(self, bids: list[list[str]], asks: list[list[str]]) -> None:
        """Set levels; size 0 deletes one."""
        for side, levels in ((self.bids, bids), (self.asks, asks)):
            for price, size in levels:
                p, s = float(price), float(size)
                if s == 0.0:
                    side.pop(p, None)
                else:
                    side[p] = s

    def best(self, bid: float, ask: float) -> None:
        """Best prices known from elsewhere: levels beyond them are stale and go."""
        while self.bids and self.bids.peekitem(-1)[0] > bid:
            self.bids.popitem(-1)
        while self.asks and self.asks.peekitem(0)[0] < ask:
            self.asks.popitem(0)

    def top(self, n: int) -> tuple[list[float], list[float], list[float], list[float]]:
        """Best n levels a side: bid prices, bid sizes, ask prices, ask sizes."""
        bids = list(islice(reversed(self.bids), n))
        asks = list(islice(self.asks, n))
        return bids, [self.bids[p] for p in bids], asks, [self.asks[p] for p in asks]


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
        self._snapshots: list[tuple[Any, ...]] = []
        self._trades: list[tuple[Any, ...]] = []
        self._liquidations: list[tuple[Any, ...]] = []
        self._gaps: list[tuple[Any, ...]] = []
        if state:
            self.counters = state["counters"]
            for exchange, native, kind, bids, asks, last_id, gap, due in state["books"]:
                self.books[Instrument(exchange, native, kind)] = Book(
                    {float(p): s for p, s in bids},
                    {float(p): s for p, s in asks},
                    last_id,
                    gap,
                    due,
                )

    def state(self) -> dict[str, Any]:
        """The books and counters, for a load that goes on later."""
        return {
            "counters": self.counters,
            "books": [
                [i.exchange, i.native, i.kind, list(b.bids.items()), list(b.asks.items()),
                 b.last_id, b.gap, b.due]
                for i, b in self.books.items()
            ],
        }  # fmt: skip

    def _count(self, what: str) -> None:
        self.counters[what] = self.counters.get(what, 0) + 1

    def take(self, line: bytes) -> str:
        """One message; returns why it is refused, or ''."""
        received: float | None = None
        body = line.strip()
        if body[:1].isdigit():
            stamp, _, body = body.partition(b" ")
            received = int(stamp) / 1e3
        try:
            message = json.loads(body)
        except json.JSONDecodeError as error:
            return f"unparsable: {error.msg}"
        if not isinstance(message, dict):
            return "unparsable: no message"
        data = message.get("data", message)
        try:
            if isinstance(data, list):
                return self._venue_liquidations(message, data, received)
            kind = data.get("e")
            if kind == "depthUpdate":
                self._depth(data, received)
            elif kind == "bookTicker" or (kind is None and {"b", "B", "a", "A"} <= set(data)):
                self._ticker(data)
            elif kind in ("trade", "aggTrade"):
                self._trade(data, received)
            elif kind == "forceOrder":
                self._force_order(data["o"], received)
            else:
                self._count("other messages")
        except (KeyError, ValueError, TypeError) as error:
            return f"unparsable: {type(error).__name__} {error}"
        return ""

    def _instrument(self, data: dict[str, Any], *, spot: bool) -> Instrument:
        venue = self.context.venue("binance" if spot else "binance-futures")
        kind = "spot" if spot else "perpetual"
        return Instrument.of(venue, self.context.symbol or data["s"], kind)

    def _depth(self, data: dict[str, Any], received: float | None) -> None:
        spot = "pu" not in data
        instrument = self._instrument(data, spot=spot)
        book = self.books.setdefault(instrument, Book())
        ts = float(data.get("T", data["E"])) * 1e3
        expected = book.last_id if not spot else book.last_id + 1
        seen = int(data["U"]) if spot else int(data["pu"])
        if book.last_id >= 0 and seen != expected:
            if int(data["u"]) <= book.last_id:
                self._count("repeated updates")
                return
            self._count("sequence gaps")
            self._gaps.append((instrument, round(ts), "depth", expected, seen))
            book.bids.clear()
            book.asks.clear()
            book.gap = True
        # The state at the snapshot time is the one before this update.
        self._snapshot(instrument, book, ts, received)
        book.last_id = int(data["u"])
        book.update(data["b"], data["a"])

    def _ticker(self, data: dict[str, Any]) -> None:
        # The spot stream's book ticker has neither E nor T.
        book = self.books.get(self._instrument(data, spot="E" not in data and "T" not in data))
        if book is not None:
            book.best(float(data["b"]), float(data["a"]))

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
        if not bids or not asks:
            self._count("one-sided books")
            return
        if bids[0] >= asks[0]:
            self._count("crossed books")
            return
        delay = max(0.0, received - ts) if received is not None else 0.0
        self._snapshots.append(
            (
                instrument,
                at,
                received,
                delay,
                book.last_id,
                book.gap,
                bids,
                bid_sizes,
                asks,
                ask_sizes,
            )
        )
        book.gap = False

    def _trade(self, data: dict[str, Any], received: float | None) -> None:
        if data.get("X", "MARKET") != "MARKET":
            self._count("insurance and other non-market trades")
            return
        spot = not (PERPETUAL_KEYS & set(data) - {"T"}) and "@trade" in str(data) and False
        instrument = self._instrument(data, spot=spot or self._is_spot(data))
        self._trades.append(
            (instrument, float(data["T"]) * 1e3, received, str(data.get("t", data.get("a"))),
             float(data["p"]), float(data["q"]), -1.0 if data["m"] else 1.0)
        )  # fmt: skip

    def _is_spot(self, data: dict[str, Any]) -> bool:
        """Spot trades carry M ("ignore"); a perpetual's carry X."""
        return "M" in data

    def _force_order(self, order: dict[str, Any], received: float | None) -> None:
        instrument = self._instrument(order, spot=False)
        price = float(order["ap"]) or float(order["p"])
        size = float(order.get("z") or order["q"]) or float(order["q"])
        self._liquidations.append(
            (instrument, float(order["T"]) * 1e3, received, f"{order['T']}-{order['S']}-{order['q']}",
             price, size, _side(order["S"]))
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
                for detail in item["details"]:
                    self._liquidations.append(
                        (instrument, float(detail["ts"]) * 1e3, received,
                         f"{detail['ts']}-{detail['side']}-{detail['sz']}", float(detail["bkPx"]),
                         float(detail["sz"]), _side(detail["side"]))
                    )  # fmt: skip
            else:  # Bybit: S is the position's side; a long is closed by a forced sell
                instrument = Instrument.of(self.context.venue("bybit"), item["s"], "perpetual")
                self._liquidations.append(
                    (instrument, float(item["T"]) * 1e3, received, f"{item['T']}-{item['S']}-{item['v']}",
                     float(item["p"]), float(item["v"]), -_side(item["S"]))
                )  # fmt: skip
        return ""

    def flush(self) -> None:
        """Nothing is held back: a snapshot belongs to a time that has passed."""

    def columns(self) -> Iterator[tuple[str, Columns]]:
        """What was made since the last call."""
        if self._snapshots:
            rows, self._snapshots = self._snapshots, []
            levels = {
                name: _padded([row[6 + i] for row in rows], self.levels)
                for i, name in enumerate(("bid_prices", "bid_sizes", "ask_prices", "ask_sizes"))
            }
            values: dict[str, Any] = {
                **levels,
                "sequence": np.array([row[4] for row in rows], dtype=np.int64),
                "after_gap": np.array([row[5] for row in rows], dtype=bool),
            }
            yield "order_book", _columns(rows, values)
        for kind, held in (("trades", self._trades), ("liquidations", self._liquidations)):
            if held:
                rows = list(held)
                held.clear()
                yield (
                    kind,
                    _columns(
                        rows,
                        {
                            "id": np.array([row[3] for row in rows], dtype=str),
                            "price": np.array([row[4] for row in rows]),
                            "size": np.array([row[5] for row in rows]),
                            "sign": np.array([row[6] for row in rows]),
                        },
                    ),
                )

    def gaps(self) -> list[tuple[Instrument, int, str, int, int]]:
        """Holes in sequence numbers since the last call; times in microseconds since 2000."""
        found, self._gaps = self._gaps, []
        return [(i, ts - 946_684_800_000_000, s, e, r) for i, ts, s, e, r in found]


def _side(word: str) -> float:
    sides = {"buy": 1.0, "sell": -1.0}
    if word.lower() not in sides:
        raise ValueError(f"side {word!r}")
    return sides[word.lower()]


def _padded(rows: list[list[float]], width: int) -> Any:
    out = np.full((len(rows), width), np.nan)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out


def _columns(rows: list[tuple[Any, ...]], values: dict[str, Any]) -> Columns:
    received = [row[2] for row in rows]
    known = None
    if all(value is not None for value in received):
        known = np.array(received, dtype=np.float64)
    return Columns(
        np.array([row[1] for row in rows], dtype=np.float64),
        values,
        instruments=np.array([row[0] for row in rows] + [None], dtype=object)[:-1],
        received=known,
    )


# --- books in rows -----------------------------------------------------------------------------


def _grouped(
    frame: pd.DataFrame, keys: list[str], bid: Any, price: str, size: str
) -> tuple[list[int], dict[str, Any]]:
    """Rows of the same snapshot to one book: index of its first row, and its levels."""
    starts: list[int] = []
    sides: dict[str, list[list[float]]] = {
        name: [] for name in ("bid_prices", "bid_sizes", "ask_prices", "ask_sizes")
    }
    prices, sizes = number(frame[price]), number(frame[size])
    is_bid = bid(frame)
    for _, index in frame.groupby(keys, sort=False).indices.items():
        starts.append(int(index[0]))
        for name, keep, sign in (("bid", is_bid[index], -1), ("ask", ~is_bid[index], 1)):
            rows = index[keep]
            rows = rows[np.argsort(sign * prices[rows])][:20]
            sides[f"{name}_prices"].append(prices[rows].tolist())
            sides[f"{name}_sizes"].append(sizes[rows].tolist())
    return starts, {name: _padded(rows, 20) for name, rows in sides.items()}


def _snapshot_rows(frame: pd.DataFrame, context: Context) -> Columns:
    starts, levels = _grouped(
        frame, ["symbol", "last_update_id"],
        lambda f: f["side"].astype(str).str.lower().eq("b").to_numpy(), "price", "qty",
    )  # fmt: skip
    first = frame.iloc[starts]
    return Columns(
        moment(first["timestamp"]),
        levels | {"sequence": number(first["last_update_id"]).astype(np.int64)},
        Instrument.of(context.venue("binance-futures"), str(first["symbol"].iloc[0])),
        rows=np.array(starts, dtype=np.int64),
    )


def _incremental_rows(frame: pd.DataFrame, context: Context) -> Columns:
    del context
    books: dict[tuple[str, str], Book] = {}
    starts, rows = [], []
    is_snapshot = frame["is_snapshot"].astype(str).str.lower().eq("true").to_numpy()
    for key, index in frame.groupby(
        ["exchange", "symbol", "local_timestamp"], sort=False
    ).indices.items():
        exchange, symbol, _ = cast(tuple[str, str, Any], key)
        book = books.setdefault((exchange, symbol), Book())
        if is_snapshot[index].all() and not book.gap:
            book.gap = True  # here: a snapshot has been seen
        for i in index:
            level = [[str(frame["price"].iat[i]), str(frame["amount"].iat[i])]]
            bid = str(frame["side"].iat[i]).lower() == "bid"
            book.update(level if bid else [], [] if bid else level)
        starts.append(int(index[-1]))
        rows.append(book.top(20))
    names = ("bid_prices", "bid_sizes", "ask_prices", "ask_sizes")
    levels = {name: _padded([row[i] for row in rows], 20) for i, name in enumerate(names)}
    last = frame.iloc[starts]
    ts = moment(last["timestamp"])
    return Columns(
        ts,
        levels | {"sequence": np.arange(len(ts), dtype=np.int64)},
        Instrument.of(str(last["exchange"].iloc[0]), str(last["symbol"].iloc[0])),
        received=moment(last["local_timestamp"]),
        rows=np.array(starts, dtype=np.int64),
    )


SNAPSHOT_ROWS = Format("binance depth snapshot", "order_book", frozenset(), _snapshot_rows)
INCREMENTAL_ROWS = Format(
    "tardis incremental_book_L2", "order_book", frozenset(), _incremental_rows
)
