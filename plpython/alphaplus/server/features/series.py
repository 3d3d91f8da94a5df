"""Indicators over the bars of one length, block by block: at any time and in history alike.

Bars are cut into blocks of UTC time. What is computed at t is computed over the bars from a fixed
number of them before the start of t's block to the last bar closed and known by t. History and the
live edge read the same stretch and run the same loop, so they agree to the last bit, recursive
indicators too. Bars that are missing are skipped, never made up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from alphaplus.server.features import incremental
from alphaplus.server.features.family import BarReader, Keep
from alphaplus.server.market import revisions as w
from alphaplus.server.types import Floats, Times

CHANNELS = ("open", "high", "low", "close", "volume")
MAX_AGE = 5  # bars
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


class Stretch(NamedTuple):
    """Length of a bar in microseconds; bars before a block, and in one; the age in bars at which
    the last bar is no answer any more."""

    width: int
    warmup: int
    block: int
    max_age: int = MAX_AGE


def begin(t: int, width: int, warmup: int, block: int) -> int:
    """Where the stretch of bars begins that counts at t."""
    return t // (block * width) * block * width - warmup * width


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
    width, warmup, block, max_age = stretch
    span = block * width
    start = begin(int(grid[0]), width, warmup, block)
    series = read(width, start, int(grid[-1]))
    size = len(series.final["close"])
    if size == 0:
        out[:] = np.nan
        return out
    if len(grid) == 1:
        over = min((int(grid[0]) - start) // width, size)
        if not len(series.odd.between(0, over, grid)):
            out[0] = _newest(series, over, stretch, compute, keep)
            return out
    anchors = grid // span
    closed = np.minimum((grid - start) // width, size)  # bars closed by each time
    edges = [0, *(np.flatnonzero(np.diff(anchors)) + 1).tolist(), len(grid)]
    bars = _Dense(series.final)
    with np.errstate(all="ignore"):
        for low, high in pairwise(edges):
            first = int(anchors[low] * span - warmup * width - start) // width
            last = int(closed[high - 1])
            rows_ = slice(low, high)
            if last <= first:
                out[rows_] = np.nan
                continue
            odd = series.odd.between(first, last, grid[rows_])
            alone = high - low == 1 and len(odd) == 0
            run = _Run(bars, (first, last), compute, max_age, alone)
            run.at(closed[rows_], closed[rows_], out[rows_])
            if len(odd):
                _as_known(series, odd, run, grid[rows_], closed[rows_], out[rows_])
    return out


def _newest(
    series: w.Series, closed: int, stretch: Stretch, compute: Compute, keep: Keep | None
) -> Floats | float:
    """The row of the last of the ``closed`` bars of a series that were never otherwise; NaN where
    there is none, or it is too old."""
    dense = _Dense({name: series.final[name][:closed] for name in CHANNELS})
    if not len(dense.places) or closed - dense.places[-1] > stretch.max_age:
        return math.nan
    with np.errstate(all="ignore"):
        if keep is None:
            rows = compute(Bars.of(dense.bars), True)
        else:
            run = keep((stretch.width, compute))
            rows = run.last(dense.bars, _of_channels(compute), talib_functions())
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


def _as_known(
    series: w.Series, touched: Times, run: _Run, grid: Times, closed: Times, out: Floats
) -> None:
    """Set the rows of times at which some bar was not as it is now: computed from what was known
    then. Where it was only that the newest bars had not come yet, that is an earlier row of the
    same run."""
    first, last = run.span
    odd = series.odd
    index = odd.index[touched] - first
    missing = np.isnan(odd.values["close"][touched])
    from_row = np.searchsorted(grid, odd.start[touched])
    to_row = np.searchsorted(grid, odd.end[touched])
    known = np.isfinite(series.final["close"][first:last])
    for row in range(int(from_row.min()), min(int(to_row.max()), len(grid))):
        limit = max(int(closed[row]) - first, 0)
        holds = np.flatnonzero((from_row <= row) & (row < to_row) & (index < limit))
        if len(holds) == 0:
            continue
        places = index[holds]
        oldest = int(places.min())
        here = slice(row, row + 1)
        if missing[holds].all():
            others = known[oldest:limit].copy()
            others[places - oldest] = False
            if not others.any():
                run.at(closed[here], np.array([first + oldest]), out[here])
                continue
        state = {name: series.final[name][first : first + limit].copy() for name in CHANNELS}
        for name, values in state.items():
            values[places] = odd.values[name][touched[holds]]
        then = np.array([limit])
        then_run = _Run(_Dense(state), (0, limit), run.compute, run.max_age, True)
        then_run.at(then, then, out[here])
