"""Revisions of buckets and rows: what was known of each when, and windows of it as known at a time.

One definition serves history and the live edge. A family of features is a function of *windows*:
for ``n`` grid times and ``w`` trailing buckets, arrays of shape (n, w) that hold each bucket **as
known at the row's time**. History is many rows, the live edge is one, and both run the same code on
contiguous copies, so a value does not depend on how many were asked for at once.

Times are integers: microseconds since 2000-01-01 UTC. A *version* is a partial row of a bucket
with the span ``[usable, expires)`` in which it holds (see ``market.*_versions``); the state of a
bucket at ``t`` is the merge of its versions with ``usable <= t < expires``.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from alphaplus.server.types import MINUTE, NEVER, Floats, Mask, Times


@dataclass(frozen=True)
class Versions:
    """Versions of buckets, ordered by bucket.

    ``values`` maps a channel to (m,) or (m, levels) arrays; ``how`` says how channels of versions
    that hold together are merged: sum, min, max, first (by first_ts) or last (by last_ts).
    """

    bucket: Times
    usable: Times
    expires: Times
    values: Mapping[str, Floats]
    how: Mapping[str, str]
    first_ts: Times
    last_ts: Times
    priority: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Odd:
    """Superseded or late revisions of buckets, each valid from start until end."""

    index: Times
    start: Times
    end: Times
    values: Mapping[str, Floats]

    def between(self, first: int, last: int, grid: Times) -> Times:
        """Which of them are of places [first, last) and hold at some of the ascending times."""
        if not len(self.index):
            return self.index
        here = (self.index >= first) & (self.index < last)
        return np.flatnonzero(here & (self.start <= grid[-1]) & (self.end > grid[0]))


_NONE: Times = np.zeros(0, dtype=np.int64)
_NEVER_ODD = Odd(_NONE, _NONE, _NONE, {})


class Series:
    """Buckets of one width over [start, end), with what was known of each at any time."""

    def __init__(self, versions: Versions, start: int, end: int, width: int = MINUTE) -> None:
        self.start = start
        self.width = width
        size = max(0, (end - start) // width)
        position = (versions.bucket - start) // width
        plain = _each_once(versions, position, size, start, width)
        if plain and len(position) == size:
            self.final: dict[str, Floats] = dict(versions.values)
            self.odd = _NEVER_ODD
            return
        self.final = {
            name: np.full((size, *value.shape[1:]), np.nan)
            for name, value in versions.values.items()
        }
        if plain:
            for name, value in versions.values.items():
                self.final[name][position] = value
            self.odd = _NEVER_ODD
            return
        inside = (position >= 0) & (position < size)
        rows = np.flatnonzero(inside)
        position = position[rows]
        order = np.argsort(position, kind="stable")
        rows, position = rows[order], position[order]
        bucket_end = start + (position + 1) * width
        alone = np.ones(len(rows), dtype=bool)
        if len(rows) > 1:
            same = position[1:] == position[:-1]
            alone[1:] &= ~same
            alone[:-1] &= ~same
        plain = alone & (versions.usable[rows] <= bucket_end) & (versions.expires[rows] == NEVER)
        for name, value in versions.values.items():
            self.final[name][position[plain]] = value[rows[plain]]
        self.odd = self._states(versions, rows[~plain], position[~plain])

    @classmethod
    def made(cls, start: int, width: int, final: dict[str, Floats], odd: Odd) -> Series:
        """A series from its final values, and its superseded or late revisions."""
        out = cls.__new__(cls)
        out.start, out.width, out.final, out.odd = start, width, final, odd
        return out

    @classmethod
    def plain(cls, start: int, width: int, final: dict[str, Floats]) -> Series:
        """A series of buckets with one revision each, known when they closed."""
        return cls.made(start, width, final, _NEVER_ODD)

    def _states(self, versions: Versions, rows: Times, position: Times) -> Odd:
        """Each odd bucket's states over time; the last one is also its final value."""
        index: list[int] = []
        starts: list[int] = []
        ends: list[int] = []
        states: dict[str, list[Any]] = {name: [] for name in versions.values}
        if len(rows):
            # As Python's numbers: taking single ones out of arrays costs several times as much.
            clocks = [
                x[rows].tolist()
                for x in (
                    versions.usable, versions.expires, versions.priority,
                    versions.first_ts, versions.last_ts,
                )
            ]  # fmt: skip
            values = {
                name: list(x[rows]) if x.ndim > 1 else x[rows].tolist()
                for name, x in versions.values.items()
            }
        cuts = [0, *(np.flatnonzero(np.diff(position)) + 1).tolist(), len(rows)]
        for low, high in pairwise(cuts):
            if low == high:
                continue
            usable, expires = clocks[0], clocks[1]
            place = int(position[low])
            closed = self.start + (place + 1) * self.width
            moments = sorted(
                {closed}
                | {max(u, closed) for u in usable[low:high]}
                | {e for e in expires[low:high] if e != NEVER}
            )
            for begin, stop in zip(moments, [*moments[1:], NEVER], strict=True):
                holds = [i for i in range(low, high) if usable[i] <= begin < expires[i]]
                state = _merged(values, versions.how, clocks, holds)
                if stop == NEVER:
                    for name, value in state.items():
                        self.final[name][place] = value
                else:
                    index.append(place)
                    starts.append(begin)
                    ends.append(stop)
                    for name, value in state.items():
                        states[name].append(value)
        return Odd(
            np.array(index, dtype=np.int64),
            np.array(starts, dtype=np.int64),
            np.array(ends, dtype=np.int64),
            {
                name: np.array(
                    [np.broadcast_to(x, versions.values[name].shape[1:]) for x in value]
                    if versions.values[name].ndim > 1
                    else value,
                    dtype=np.float64,
                ).reshape(len(index), *versions.values[name].shape[1:])
                for name, value in states.items()
            },
        )

    def windows(self, grid: Times, width: int, names: tuple[str, ...]) -> dict[str, Floats]:
        """For each channel the ``width`` buckets closed by each grid time, oldest first.

        Buckets outside the series, or of which nothing was known, are NaN. Shape (n, width), or
        (n, width, levels).
        """
        last = (grid - self.start) // self.width  # buckets [last - width, last)
        if len(grid) == 1 and not len(self.odd.index) and self.final:
            stop = int(last[0])
            if width <= stop <= len(self.final[names[0]]):
                return {name: self.final[name][None, stop - width : stop].copy() for name in names}
        size = len(next(iter(self.final.values()))) if self.final else 0
        if len(grid) and width <= last.min() and last.max() <= size:
            # Whole windows out of what is there: many times as fast as gathering their buckets.
            out = {name: sliding(self.final[name], last - width, width) for name in names}
            if len(self.odd.index):
                self._substitute(grid, last, width, out)
            return out
        columns = last[:, None] - width + np.arange(width)[None, :]
        outside = (columns < 0) | (columns >= size)
        clipped = np.clip(columns, 0, max(size - 1, 0))
        out = {}
        for name in names:
            values = (
                self.final[name][clipped]
                if size
                else np.full((*columns.shape, *self.final[name].shape[1:]), np.nan)
            )
            values[outside] = np.nan
            out[name] = values
        if len(self.odd.index):
            self._substitute(grid, last, width, out)
        return out

    def totals(self, grid: Times, width: int, name: str) -> Floats:
        """Sums of a channel over the windows of :meth:`windows`, (n, ...): of whole numbers, which
        give the same sum in any order. What is not known counts nothing."""
        values = self.final[name]
        last = (grid - self.start) // self.width
        low, high = (np.clip(x, 0, len(values)) for x in (last - width, last))
        first, end = low.min(initial=len(values)), high.max(initial=0)
        part = values[first:end]
        running = np.zeros((len(part) + 1, *values.shape[1:]))
        np.cumsum(np.where(np.isnan(part), 0.0, part), axis=0, out=running[1:])
        out: Floats = running[high - first] - running[low - first]
        if len(self.odd.index):
            state, row, _ = self._replaced(grid, last, width)
            change = np.nan_to_num(self.odd.values[name]) - np.nan_to_num(values[self.odd.index])
            np.add.at(out, row, change[state])
        return out

    def _substitute(self, grid: Times, last: Times, width: int, out: dict[str, Floats]) -> None:
        state, row, column = self._replaced(grid, last, width)
        for name, values in out.items():
            values[row, column] = self.odd.values[name][state]

    def _replaced(self, grid: Times, last: Times, width: int) -> tuple[Times, Times, Times]:
        """Odd states, the rows of windows in which they hold, and their columns there."""
        odd = self.odd
        # The state k holds for grid rows low[k] .. high[k], as far as the window reaches back.
        low = np.searchsorted(grid, odd.start)
        reach = self.start + (odd.index + width) * self.width
        high = np.minimum(np.searchsorted(grid, odd.end), np.searchsorted(grid, reach, "right"))
        count = np.maximum(high - low, 0)
        state = np.repeat(np.arange(len(low)), count)
        row = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + low[state]
        column = odd.index[state] - (last[row] - width)
        fits = (column >= 0) & (column < width)
        return state[fits], row[fits], column[fits]

    def unsettled(self, grid: Times, width: int) -> Times:
        """The rows of :meth:`windows` that show a superseded revision of some bucket."""
        if not len(self.odd.index):
            return _NONE
        return np.unique(self._replaced(grid, (grid - self.start) // self.width, width)[1])

    def at(self, as_of: int) -> dict[str, Floats]:
        """The whole series as known at one time: (buckets,) per channel."""
        out = {name: value.copy() for name, value in self.final.items()}
        odd = self.odd
        # Buckets whose final state began later: what held at as_of, or nothing.
        holds = (odd.start <= as_of) & (as_of < odd.end)
        if holds.any():
            for name, value in out.items():
                value[odd.index[holds]] = odd.values[name][holds]
        closed = self.start + (np.arange(len(next(iter(out.values()), ()))) + 1) * self.width
        for value in out.values():
            value[closed > as_of] = np.nan
        return out


def sliding(values: Floats, first: Times, width: int) -> Floats:
    """The windows of a channel that begin at ``first``, each its own copy: (n, width, ...)."""
    step = values.strides[0]
    view = np.lib.stride_tricks.as_strided(
        values,
        (len(values) - width + 1, width, *values.shape[1:]),
        (step, *values.strides),
        writeable=False,
    )
    begin, end = int(first[0]), int(first[-1]) + 1
    one_by_one = end - begin == len(first) and bool((np.diff(first) == 1).all())
    return view[begin:end].copy() if one_by_one else np.ascontiguousarray(view[first])


def _each_once(versions: Versions, position: Times, size: int, start: int, width: int) -> bool:
    """Whether the versions are each the only one of its bucket, in order, there when the bucket
    closed and never replaced."""
    if not len(position):
        return True
    return bool(
        position[0] >= 0
        and position[-1] < size
        and (position[1:] > position[:-1]).all()
        and (versions.usable <= start + (position + 1) * width).all()
        and (versions.expires == NEVER).all()
    )


def _merged(
    values: Mapping[str, list[Any]],
    how: Mapping[str, str],
    clocks: list[list[int]],
    holds: list[int],
) -> dict[str, Any]:
    """The state of a bucket of which the rows ``holds`` hold: those of the best (lowest) priority.

    ``clocks``: usable, expires, priority, first_ts and last_ts of all rows.
    """
    usable, _, priority, first_ts, last_ts = clocks
    if len(holds) > 1:
        best = min(priority[i] for i in holds)
        holds = [i for i in holds if priority[i] == best]
    if len(holds) == 0:
        return dict.fromkeys(values, np.nan)
    if len(holds) == 1:
        return {name: value[holds[0]] for name, value in values.items()}
    # Sums round as they did when the rows were still one partial row: those that became usable
    # together are added one by one in the order of their times (in which they were read), then
    # these sums in the order of usable. So a correction leaves what was known before bit-identical.
    holds = sorted(holds, key=lambda i: usable[i])
    first = min(holds, key=lambda i: first_ts[i])
    newest = max(reversed(holds), key=lambda i: last_ts[i])
    state: dict[str, Any] = {}
    for name, value in values.items():
        kind = how[name]
        if kind == "first":
            state[name] = value[first]
        elif kind == "last":
            state[name] = value[newest]
        elif kind == "sum":
            total = part = None
            for k, i in enumerate(holds):
                if k and usable[i] == usable[holds[k - 1]]:
                    part = part + value[i]
                else:
                    total = part if total is None else total + part
                    part = value[i]
            state[name] = part if total is None else total + part
        else:
            pick = np.maximum if kind == "max" else np.minimum
            state[name] = functools.reduce(pick, [value[i] for i in holds])
    return state


QUIET = 5


def fill_quiet(bars: dict[str, Floats], limit: int = QUIET) -> None:
    """Fill, in place, minutes in which nothing was traded: volume 0, prices the last close.

    A stretch of more than ``limit`` buckets without a bar is a hole in the feed and stays NaN, as
    do the prices of buckets before the window's first bar. A bar whose volume is not known is
    a bar: it stays as it is. Looks at each row's own window only.
    """
    missing = ~(np.isfinite(bars["volume"]) | np.isfinite(bars["close"]))
    rows = np.flatnonzero(missing.any(axis=1))
    if len(rows) == 0:
        return
    gap = missing[rows]
    width = gap.shape[1]
    place = np.broadcast_to(np.arange(width), gap.shape)
    before = np.maximum.accumulate(np.where(gap, -1, place), axis=1)
    after = np.minimum.accumulate(np.where(gap, width, place)[:, ::-1], axis=1)[:, ::-1]
    quiet = gap & (after - before - 1 <= limit)
    # A window that is empty altogether is not a quiet one.
    quiet &= ~gap.all(axis=1, keepdims=True)
    priced = quiet & (before >= 0)
    last_close = np.take_along_axis(bars["close"][rows], np.maximum(before, 0), axis=1)
    for name, values in bars.items():
        part = values[rows]
        if name in ("open", "high", "low", "close"):
            part[priced] = last_close[priced]
        else:
            part[quiet] = 0.0
        values[rows] = part


@dataclass(frozen=True)
class Steps:
    """A value that holds until the next: funding, open interest. Rows ordered by ts."""

    ts: Times
    usable: Times
    expires: Times
    values: Mapping[str, Floats]

    def rows(self, grid: Times, max_age: int) -> Times:
        """The latest row (by ts) known at each grid time and not older than ``max_age``; or -1."""
        chosen = np.full(len(grid), -1)
        begin = np.searchsorted(grid, np.maximum(self.usable, self.ts))
        end = np.minimum(
            np.searchsorted(grid, self.expires),
            np.searchsorted(grid, self.ts + max_age, "right"),
        )
        for i in range(len(self.ts)):
            chosen[begin[i] : end[i]] = i
        return chosen

    def at(self, grid: Times, max_age: int) -> dict[str, Floats]:
        """The values of :meth:`rows`, NaN where there is none."""
        return self.taken(self.rows(grid, max_age))

    def taken(self, chosen: Times) -> dict[str, Floats]:
        """The values of some rows, NaN for -1."""
        return {
            name: np.where(chosen >= 0, value[np.maximum(chosen, 0)], np.nan)
            if len(value)
            else np.full(len(chosen), np.nan)
            for name, value in self.values.items()
        }


def segment_sums(values: Floats, low: Times, high: Times) -> Floats:
    """Sum of values[low:high] for each pair, each summed on its own (no running total).

    A running total would make a value depend, in its last digits, on what came before the window.
    """
    if len(values) == 0:
        return np.zeros(len(low))
    # reduceat gives values[a] where a == b, and wants indices below the length: pad and mask.
    padded = np.append(values, 0.0)
    pairs = np.minimum(np.stack([low, high], axis=1).ravel(), len(values))
    sums: Floats = np.add.reduceat(padded, pairs)[::2]
    return np.where(high > low, sums, 0.0)


@dataclass(frozen=True)
class Events:
    """Single events (trades, quotes) ordered by ts, with the span in which each was known."""

    ts: Times
    usable: Times
    expires: Times
    values: Mapping[str, Floats]

    def unsettled(self, grid: Times, window: int) -> Mask:
        """Which grid times saw the events of [t - window, t) otherwise than they stand today.

        The other times look at :meth:`settled`, these each at :meth:`known`.
        """
        late = (self.expires == NEVER) & (self.usable > -(-(self.ts + 1) // MINUTE) * MINUTE)
        gone = self.expires != NEVER
        # A late event is missed by the times after it and before it was known; one that was
        # superseded was seen by the times at which it was known.
        begin = np.concatenate(
            [self.ts[late] + 1, np.maximum(self.usable[gone], self.ts[gone] + 1)]
        )
        end = np.concatenate([self.usable[late], self.expires[gone]])
        end = np.minimum(end, np.concatenate([self.ts[late], self.ts[gone]]) + window + 1)
        steps = np.zeros(len(grid) + 1, dtype=np.int64)
        low, high = np.searchsorted(grid, begin), np.searchsorted(grid, end)
        some = high > low
        np.add.at(steps, low[some], 1)
        np.add.at(steps, high[some], -1)
        return np.asarray(np.cumsum(steps[:-1]) > 0)

    def settled(self) -> tuple[Times, dict[str, Floats]]:
        """Times and values of the events as they stand today."""
        chosen = self.expires == NEVER
        if chosen.all():
            return self.ts, dict(self.values)
        return self.ts[chosen], {name: value[chosen] for name, value in self.values.items()}

    def known(self, t: int, window: int) -> tuple[Times, dict[str, Floats]]:
        """Times and values of the events of [t - window, t) as known at t."""
        low, high = np.searchsorted(self.ts, [t - window, t])
        part = slice(low, high)
        chosen = (self.usable[part] <= t) & (self.expires[part] > t)
        return self.ts[part][chosen], {n: value[part][chosen] for n, value in self.values.items()}
