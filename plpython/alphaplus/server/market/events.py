"""Trades and tops of the book row by row, and their minutes as they were known at any time.

A family that needs more of its events than a minute's totals declares *channels*: numbers of one
minute made from the rows that hold in it. :func:`states` says which rows held in each minute from
when to when, :class:`Groups` adds them up, and the result is a
:class:`.revisions.Series` like any other: history and the live edge cut their windows
from it. A row that became known after its minute had closed, or was corrected or deleted, makes
another state of that minute, and only that minute is added up again.

Times are integers: microseconds since 2000-01-01 UTC.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from alphaplus.server.database import Database, micros
from alphaplus.server.market import revisions as w
from alphaplus.server.types import MINUTE, NEVER, Floats, Mask, Times

ROWS = 400_000  # rows wished for at one read
_FIRST_SPAN = 360 * MINUTE

_CLOCKS = [("ts", "<i8"), ("known", "<i8"), ("superseded", "<i8")]
TRADE = np.dtype([*_CLOCKS, ("price", "<f8"), ("size", "<f8")])
TOP = np.dtype([*_CLOCKS, *((name, "<f8") for name in ("bid", "bid_size", "ask", "ask_size"))])
# Scores of texts: copy is 1 for a near-duplicate, source the place among SOURCES.
SCORE = np.dtype([
    ("ts", "<i8"), ("known", "<i8"), ("score", "<f8"), ("novelty", "<f8"), ("copy", "<f8"),
    ("source", "<f8"),
])  # fmt: skip
SOURCES = ("twitter", "reddit", "news", "telegram", "other")


@dataclass(frozen=True)
class Trades:
    """Versions of trades by time: price, size (base units), sign (+1: the buyer was the aggressor).

    ``usable`` and ``expires``: whole minutes between which a version held.
    """

    ts: Times
    usable: Times
    expires: Times
    price: Floats
    size: Floats
    sign: Floats


@dataclass(frozen=True)
class Tops:
    """Versions of the best levels of two-sided, uncrossed books by time.

    ``broken``: the feed had a gap just before this book.
    """

    ts: Times
    usable: Times
    expires: Times
    bid: Floats
    bid_size: Floats
    ask: Floats
    ask_size: Floats
    broken: Mask


def _minute(times: Times) -> Times:
    """Rounded up to whole minutes; NEVER stays."""
    return np.where(times == NEVER, NEVER, -(-times // MINUTE) * MINUTE)


_DECODED = {
    "feature._trade_rows": TRADE,
    "feature._top_rows": TOP,
    "sentiment._score_rows": SCORE,
}


class EventQueries:
    """Reads single trades and tops of the book of one symbol.

    Args:
        floor: the data are read as if they began at that time (for the audit of warm-up).
        keep: what was read is kept, for those who ask for a part of it in the same call.
    """

    def __init__(self, db: Database, symbol: str, floor: int | None, keep: bool) -> None:
        self.db, self.symbol, self.floor, self.keep = db, symbol, floor, keep
        self._kept: dict[str, tuple[int, int, Any]] = {}

    def _read(self, function: str, start: int, end: int) -> np.ndarray[Any, Any]:
        if self.floor is not None:
            start = max(start, min(self.floor, end))
        held = self._kept.get(function)
        if held is not None and held[0] <= start and held[1] == end:
            found: np.ndarray[Any, Any] = held[2]
            return found[np.searchsorted(found["ts"], start) :]
        live = "" if function.startswith("sentiment.") else "_live"
        query = f"select rows from {function}{live}($1, ops._at($2), ops._at($3))"
        values = [self.symbol, *micros(start, end)]
        row = self.db.execute(query, ("text", "int8", "int8"), values)[0]
        rows = np.frombuffer(row["rows"] or b"", dtype=_DECODED[function])
        if self.keep:
            self._kept[function] = start, end, rows
        return rows

    def prefetch(self, trades_from: int, tops_from: int, end: int) -> None:
        """Read both up to ``end``, for those who ask for them later."""
        self._read("feature._trade_rows", trades_from, end)
        self._read("feature._top_rows", tops_from, end)

    def scores(self, start: int, end: int) -> np.ndarray[Any, Any]:
        """Rows of :data:`SCORE` of the asset's texts of [start, end)."""
        return self._read("sentiment._score_rows", start, end)

    def trades(self, start: int, end: int) -> Trades:
        """Revisions of the trades in [start, end); not those whose numbers are not finite."""
        rows = self._read("feature._trade_rows", start, end)
        price, size = (rows[name].astype(np.float64) for name in ("price", "size"))
        good = np.isfinite(price) & np.isfinite(size)
        if not good.all():
            rows, price, size = rows[good], price[good], size[good]
        return Trades(
            rows["ts"].astype(np.int64),
            _minute(rows["known"].astype(np.int64)),
            _minute(rows["superseded"].astype(np.int64)),
            price,
            np.abs(size),
            np.sign(size),
        )

    def tops(self, start: int, end: int) -> Tops:
        """Revisions of the best levels in [start, end), of two-sided and uncrossed books."""
        rows = self._read("feature._top_rows", start, end)
        levels = {
            name: rows[name].astype(np.float64) for name in ("bid", "bid_size", "ask", "ask_size")
        }
        broken = levels["bid_size"] < 0
        levels["bid_size"] = np.abs(levels["bid_size"])
        good = levels["bid"] < levels["ask"]
        for values in levels.values():
            good &= np.isfinite(values) & (values > 0)
        return Tops(
            rows["ts"].astype(np.int64)[good],
            _minute(rows["known"].astype(np.int64))[good],
            _minute(rows["superseded"].astype(np.int64))[good],
            **{name: values[good] for name, values in levels.items()},
            broken=broken[good],
        )


def in_parts(grid: Times, work: Callable[[Times], int]) -> None:
    """Call ``work`` with one part of ``grid`` after another, each of about :data:`ROWS` rows.

    ``work`` returns how many rows it has read. Nothing it computes may depend on the parts.
    """
    at, span = 0, _FIRST_SPAN
    while at < len(grid):
        stop = int(np.searchsorted(grid, grid[at] + span))
        count = work(grid[at:stop])
        at = stop
        span = int(min(max(span * ROWS // max(count, 1), 10 * MINUTE), 8 * span))


@dataclass(frozen=True)
class States:
    """Rows by state of a minute: state ``k`` of minute ``place`` holds in [begin, end).

    ``row``: the rows of each state in order of time, state after state; ``state``: whose they are.
    A state without rows is one too: nothing was known of the minute then.
    """

    row: Times
    state: Times
    place: Times
    begin: Times
    end: Times


def states(ts: Times, usable: Times, expires: Times, start: int, size: int) -> States:
    """The states of ``size`` minutes from ``start``, given versions of rows in order of time."""
    place = (ts - start) // MINUTE
    closed = start + (place + 1) * MINUTE
    usable = np.maximum(usable, closed)
    kept = np.flatnonzero((place >= 0) & (place < size) & (usable < expires))
    place, usable, expires, closed = place[kept], usable[kept], expires[kept], closed[kept]
    changing = (usable > closed) | (expires != NEVER)
    odd = np.zeros(size, dtype=bool)
    odd[place[changing]] = True

    plain = ~odd[place]
    plain_place = place[plain]
    new = np.append(True, np.diff(plain_place) != 0)[: len(plain_place)]
    plain_state = np.cumsum(new) - 1
    plain_place = plain_place[new]
    count = len(plain_place)
    never = np.full(count, NEVER)
    if not odd.any():
        begins = start + (plain_place + 1) * MINUTE
        return States(kept[plain], plain_state, plain_place, begins, never)

    row = np.flatnonzero(~plain)
    places = np.flatnonzero(odd)
    ends = row[expires[row] != NEVER]
    where = np.concatenate([places, place[row], place[ends]])
    when = np.concatenate([start + (places + 1) * MINUTE, usable[row], expires[ends]])
    order = np.lexsort((when, where))
    where, when = where[order], when[order]
    new = np.append(True, (where[1:] != where[:-1]) | (when[1:] != when[:-1]))
    where, when = where[new], when[new]
    until = np.where(np.append(where[1:] != where[:-1], True), NEVER, np.append(when[1:], 0))

    low = np.searchsorted(place[row], where)
    number = np.searchsorted(place[row], where, "right") - low
    state = np.repeat(np.arange(len(where)), number)
    flat = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number) + low[state]
    flat = row[flat]
    holds = (usable[flat] <= when[state]) & (when[state] < expires[flat])
    return States(
        np.concatenate([kept[plain], kept[flat[holds]]]),
        np.concatenate([plain_state, state[holds] + count]),
        np.concatenate([plain_place, where]),
        np.concatenate([start + (plain_place + 1) * MINUTE, when]),
        np.concatenate([never, until]),
    )


class Groups:
    """Rows in groups, each group's rows next to each other: sums that look at one group only."""

    def __init__(self, group: Times, count: int) -> None:
        self.size = np.bincount(group, minlength=count)
        self.some = np.flatnonzero(self.size)
        self.first = (np.cumsum(self.size) - self.size)[self.some]
        self.last = self.first + self.size[self.some] - 1
        self.count = count

    def spread(self, values: Floats) -> Floats:
        """One value per group that has rows, as one per group; NaN for the others."""
        out = np.full((self.count, *values.shape[1:]), np.nan)
        out[self.some] = values
        return out

    def sum(self, values: Floats) -> Floats:
        """Sum per group, each added up on its own: no running total whose rounding it inherits."""
        if len(self.some) == 0:
            return np.full(self.count, np.nan)
        return self.spread(np.add.reduceat(values, self.first))


def series(of: States, channels: dict[str, Floats], start: int, size: int) -> w.Series:
    """A series of minutes from one value (or row of values) per state and channel."""
    final_states = np.flatnonzero(of.end == NEVER)
    odd_states = np.flatnonzero(of.end != NEVER)
    final = {}
    for name, values in channels.items():
        final[name] = np.full((size, *values.shape[1:]), np.nan)
        final[name][of.place[final_states]] = values[final_states]
    odd = w.Odd(
        of.place[odd_states],
        of.begin[odd_states],
        of.end[odd_states],
        {name: values[odd_states] for name, values in channels.items()},
    )
    return w.Series.made(start, MINUTE, final, odd)
