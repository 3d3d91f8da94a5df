"""Indicators over the bars of one length, block by block: at any time and in history alike.

Bars are cut into blocks of UTC time. What is computed at t is computed over the bars from a fixed
number of them before the start of t's block to the last bar closed and known by t. History and the
live edge read the same stretch and run the same loop, so they agree to the last bit, recursive
indicators too.

Windows count bars. Bars that are missing are skipped, never made up, and those before a block are
counted as far back as it takes, so that a share traded in regular hours, or a quiet pair, has its
indicators: but no further than :attr:`Stretch.spread`. The last bar answers until the greatest age.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from alphaplus.server.features import incremental
from alphaplus.server.features.family import BarReader, Keep
from alphaplus.server.market import revisions as w
from alphaplus.server.types import DAY, Floats, Times

CHANNELS = ("open", "high", "low", "close", "volume")
WEEK = 7 * DAY
SPREAD = 6  # times as long as the warm-up's bars would take if none were missing
# compute(bars, last): outputs at every bar, (bars, outputs), or at the last one, (1, outputs).
Compute = Callable[["Bars", bool], Floats]


@lru_cache(maxsize=1)
def talib_functions() -> Any:
    """TA-Lib's C functions, without the wrappers that look for pandas."""
    from talib import _ta_lib

    return _ta_lib


@dataclass(frozen=True)
class Bars:
    """Bars without holes, oldest first.

    ``ta``: TA-Lib's C functions, without the wrappers that look for pandas. ``before``: how many
    bars there are before these, which only the functions of ``ta`` have seen: a calculation may
    look by itself at the last :data:`.incremental.TAIL` bars at most.
    """

    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    before: int = 0
    ta: Any = field(default_factory=talib_functions)

    @classmethod
    def of(cls, channels: Mapping[str, Floats], before: int = 0, ta: Any = None) -> Bars:
        """Bars of :data:`CHANNELS`."""
        open_, high, low, close, volume = (channels[name] for name in CHANNELS)
        return cls(open_, high, low, close, volume, before, ta or talib_functions())

    @property
    def count(self) -> int:
        """How many there are, those before included."""
        return self.before + len(self.close)

    @cached_property
    def typical(self) -> Floats:
        """(high + low + close) / 3."""
        return (self.high + self.low + self.close) / 3

    @cached_property
    def returns(self) -> Floats:
        """ln(close / previous close), the first one 0 (no window that is full uses it)."""
        return np.diff(np.log(self.close), prepend=np.log(self.close[:1]))

    @cached_property
    def log_range(self) -> Floats:
        """ln(high / low)."""
        return np.log(self.high / self.low)

    @cached_property
    def log_body(self) -> Floats:
        """ln(close / open)."""
        return np.log(self.close / self.open)

    @cached_property
    def rogers_satchell(self) -> Floats:
        """ln(h/o) ln(h/c) + ln(l/o) ln(l/c)."""
        high, low = np.log(self.high / self.open), np.log(self.low / self.open)
        close = self.log_body
        terms: Floats = high * (high - close) + low * (low - close)
        return terms

    @cached_property
    def volume_20(self) -> Floats:
        """Mean volume of 20 bars."""
        mean: Floats = self.ta.SMA(self.volume, 20)
        return mean


@dataclass(frozen=True)
class Stretch:
    """Length of a bar in microseconds; bars before a block, and in one. ``oldest``: the age in bars
    at which the last bar is no answer any more (None: :func:`greatest_age`)."""

    width: int
    warmup: int
    block: int
    oldest: int | None = None

    @property
    def max_age(self) -> int:
        """The age in bars up to which the last bar is an answer."""
        return greatest_age(self.width) if self.oldest is None else self.oldest

    @property
    def spread(self) -> int:
        """How many lengths of a bar before a block the bars of its warm-up may lie."""
        return spread(self.width, self.warmup)

    def block_of(self, t: int) -> int:
        """The start of t's block."""
        span = self.block * self.width
        return t // span * span


def greatest_age(width: int) -> int:
    """The age in bars up to which the last one answers: 30 of them, no more than a day of short
    ones, no fewer than 5 of long ones."""
    return min(30, max(5, DAY // width))


def spread(width: int, warmup: int) -> int:
    """How many lengths of a bar the bars of a warm-up may be spread over: a week at least (a night,
    a long weekend), and :data:`SPREAD` times as many as there are bars."""
    return max(WEEK // width, SPREAD * warmup)


def begin(t: int, width: int, warmup: int, block: int) -> int:
    """Where the stretch of bars begins that counts at t, if none is missing."""
    return t // (block * width) * block * width - warmup * width


def _read(read: BarReader, grid: Times, stretch: Stretch) -> w.Series:
    """The bars that can count at these times: further back where the first warm-up has holes."""
    width, warmup = stretch.width, stretch.warmup
    block = stretch.block_of(int(grid[0]))
    for back in (warmup, 2 * warmup, stretch.spread):
        series = read(width, block - back * width, int(grid[-1]))
        known = np.isfinite(series.final["close"][:back])
        if len(series.odd.index):
            gone = series.odd.index[np.isnan(series.odd.values["close"])]
            known[gone[gone < len(known)]] = False
        if back >= stretch.spread or np.count_nonzero(known) >= warmup:
            break
    return series


def _first(bars: _Dense, block: int, stretch: Stretch) -> int:
    """The place from which bars count, of a block that begins at a place."""
    before = int(bars.count[block])
    oldest = max(block - stretch.spread, 0)
    if before < stretch.warmup:
        return oldest
    return max(int(bars.places[before - stretch.warmup]), oldest)


def series_matrix(
    read: BarReader,
    grid: Times,
    stretch: Stretch,
    compute: Compute,
    columns: int,
    out: Floats | None = None,
    keep: Keep | None = None,
) -> Floats:
    """``compute`` at each ascending grid time, over the bars known by then: (n, columns).

    As it is defined at the top of this module.
    ``out``: where to write them. ``keep``: where the run of a single time is kept, so that the
    next one carries it on; for a ``compute`` that looks back as :class:`Bars` says.
    """
    if out is None:
        out = np.empty((len(grid), columns))
    if len(grid) == 0:
        return out
    width, span = stretch.width, stretch.block * stretch.width
    series = _read(read, grid, stretch)
    start = series.start
    size = len(series.final["close"])
    if size == 0:
        out[:] = np.nan
        return out
    if len(grid) == 1:
        over = min((int(grid[0]) - start) // width, size)
        if not len(series.odd.between(0, over, grid)):
            place = min((stretch.block_of(int(grid[0])) - start) // width, over)
            out[0] = _newest(series, over, place, stretch, compute, keep)
            return out
    anchors = grid // span
    closed = np.minimum((grid - start) // width, size)  # bars closed by each time
    edges = [0, *(np.flatnonzero(np.diff(anchors)) + 1).tolist(), len(grid)]
    bars = _Dense(series.final)
    with np.errstate(all="ignore"):
        for low, high in pairwise(edges):
            place = min(int(anchors[low] * span - start) // width, size)
            first = _first(bars, place, stretch)
            last = int(closed[high - 1])
            rows_ = slice(low, high)
            if last <= first:
                out[rows_] = np.nan
                continue
            odd = series.odd.between(first, last, grid[rows_])
            alone = high - low == 1 and len(odd) == 0
            run = _Run(bars, (first, last), compute, stretch.max_age, alone)
            run.at(closed[rows_], closed[rows_], out[rows_])
            if len(odd):
                then = _Then(series, run, place, stretch)
                then.set(odd, grid[rows_], closed[rows_], out[rows_])
    return out


def _newest(
    series: w.Series,
    closed: int,
    place: int,
    stretch: Stretch,
    compute: Compute,
    keep: Keep | None,
) -> Floats | float:
    """The row of the last of the ``closed`` bars of a series that were never otherwise; NaN where
    there is none, or it is too old. ``place``: where the block begins."""
    dense = _Dense({name: series.final[name][:closed] for name in CHANNELS})
    if not len(dense.places) or closed - dense.places[-1] > stretch.max_age:
        return math.nan
    begin = dense.count[_first(dense, place, stretch)]
    bars = {name: x[begin:] for name, x in dense.bars.items()} if begin else dense.bars
    if not len(bars["close"]):
        return math.nan
    with np.errstate(all="ignore"):
        if keep is None:
            rows = compute(Bars.of(bars), True)
        else:
            run = keep((stretch.width, compute))
            rows = run.last(bars, _of_channels(compute), talib_functions())
    newest: Floats = rows[0]
    return newest


def _of_channels(compute: Compute) -> incremental.Compute:
    return lambda bars, before, ta: compute(Bars.of(bars, before, ta), True)


class _Dense:
    """The bars of a series that are there, one after the other."""

    def __init__(self, channels: Mapping[str, Floats]) -> None:
        known = np.isfinite(channels["close"])
        if known.all():
            self.places = np.arange(len(known))
            self.count = np.arange(len(known) + 1)  # bars before each place
            self.bars = {name: channels[name] for name in CHANNELS}
        else:
            self.places = np.flatnonzero(known)
            self.count = np.concatenate([[0], np.cumsum(known)])
            self.bars = {name: channels[name][known] for name in CHANNELS}
        if not np.isfinite(self.bars["volume"]).all():
            self.bars["volume"] = np.nan_to_num(self.bars["volume"])


class _Run:
    """One run of ``compute`` over the bars of some places [first, last) that are there; ``alone``:
    no bar's row but the last one's will be asked for."""

    def __init__(
        self,
        dense: _Dense,
        places: tuple[int, int],
        compute: Compute,
        max_age: int,
        alone: bool,
    ) -> None:
        self.dense, self.span, self.compute, self.max_age = dense, places, compute, max_age
        begin, end = dense.count[places[0]], dense.count[places[1]]
        self.begin, self.values = begin, None
        if end > begin:
            bars = {name: x[begin:end] for name, x in dense.bars.items()}
            self.values = compute(Bars.of(bars), alone)
            self.begin = end - len(self.values)  # bars before the first row

    def at(self, closed: Times, until: Times, out: Floats) -> None:
        """Into ``out`` the row of the last bar before ``until``, unless it is too old when
        ``closed`` bars are over."""
        if self.values is None:
            out[:] = np.nan
            return
        rows = self.dense.count[until] - 1
        there = (rows >= self.begin) & (closed - self.dense.places[rows] <= self.max_age)
        rows -= self.begin
        if rows[-1] - rows[0] == len(rows) - 1 and there.all():
            out[:] = self.values[rows[0] : rows[-1] + 1]
        else:
            self.values.take(np.maximum(rows, 0), axis=0, out=out, mode="clip")
            out[~there] = np.nan


class _Then:
    """The rows of a block's times at which some bar was not as it is now."""

    def __init__(self, series: w.Series, run: _Run, place: int, stretch: Stretch) -> None:
        self.series, self.run, self.place, self.stretch = series, run, place, stretch

    def set(self, touched: Times, grid: Times, closed: Times, out: Floats) -> None:
        """Set these rows, computed from what was known then; ``touched``: the states of bars that
        count. Where it was only that the newest bars had not come yet, that is an earlier row of
        the same run."""
        series, (first, last) = self.series, self.run.span
        odd = series.odd
        # Where a bar that counts was missing, one further back counts instead, as it was then.
        lowest = max(self.place - self.stretch.spread, 0)
        every = odd.between(lowest, last, grid)
        index, missing = odd.index[every], np.isnan(odd.values["close"][every])
        from_row = np.searchsorted(grid, odd.start[every])
        to_row = np.searchsorted(grid, odd.end[every])
        begin = int(np.searchsorted(grid, odd.start[touched]).min())
        end = min(int(np.searchsorted(grid, odd.end[touched]).max()), len(grid))
        known = np.isfinite(series.final["close"])
        for row in range(begin, end):
            limit = max(int(closed[row]), first)
            holds = np.flatnonzero((from_row <= row) & (row < to_row) & (index < limit))
            places = index[holds]
            if not (places >= first).any():
                continue
            oldest = int(places.min())
            here = slice(row, row + 1)
            if oldest >= self.place and missing[holds].all():
                others = known[oldest:limit].copy()
                others[places - oldest] = False
                if not others.any():
                    self.run.at(closed[here], np.array([oldest]), out[here])
                    continue
            state = {name: series.final[name][lowest:limit].copy() for name in CHANNELS}
            for name, values in state.items():
                values[places - lowest] = odd.values[name][every[holds]]
            bars, then = _Dense(state), np.array([limit - lowest])
            start = _first(bars, self.place - lowest, self.stretch)
            again = _Run(
                bars, (start, limit - lowest), self.run.compute, self.stretch.max_age, True
            )
            again.at(then, then, out[here])
