"""From bars to observations: volatility, trend, drawdown and volume of a symbol, free of scale.

Bars come as *lanes*: (bars, lanes), each lane the bars of one stretch, oldest first and without
holes. Every observation at a bar uses that bar and those before it. All is a recursion over bars or
a maximum over a few of them, element by element: a lane gives the same numbers to the last bit
whether it is computed alone, beside others, or bar by bar from a :class:`Carry`.

=================  ==========================================================================
``log_range``      ln of the range volatility, sqrt(ln(high/low)^2 / (4 ln 2)), Parkinson (1980)
``return``         ln(close / previous close), in units of the slow volatility
``volatility_z``   fast volatility against its own slow mean and spread, both of ln: volatility is
                   close to lognormal (Andersen, Bollerslev, Diebold, Ebens 2001), so Phi of it is
                   the volatility percentile
``trend``          mean return / mean absolute return, over a day and over three (24, 72 bars)
``drawdown``       ln(close / highest close of 72 bars), in units of the slow volatility over a day
``fall``           mean return of six bars in units of the slow volatility
``volume_z``       ln volume against its slow mean
``level``          ln of the range volatility as it is; ``log_volume`` likewise, and the means of
                   both before the bar, from which a trained model takes what is new in it
=================  ==========================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from alphaplus.server.regime.states import Floats

# Observations, in the order in which a trained model's inputs are named.
NAMES = (
    "log_range",
    "return",
    "range_fast",
    "volatility_z",
    "volatility_slow_z",
    "trend_fast",
    "trend",
    "trend_slow",
    "drawdown",
    "fall",
    "volume_z",
    "level",
    "log_volume",
    "return_local",
    "level_before_1",
    "level_before_3",
    "level_before_10",
    "volume_before_2",
    "volume_before_8",
)
COUNT = len(NAMES)
(
    LOG_RANGE, RETURN, RANGE_FAST, VOLATILITY, VOLATILITY_SLOW, TREND_FAST, TREND, TREND_SLOW,
    DRAWDOWN, FALL, VOLUME, LEVEL, LOG_VOLUME, RETURN_LOCAL, LEVEL_BEFORE_1, LEVEL_BEFORE_3,
    LEVEL_BEFORE_10, VOLUME_BEFORE_2, VOLUME_BEFORE_8,
) = range(COUNT)  # fmt: skip

HIGHEST = 72  # bars over which the highest close is taken
SMALLEST = 1e-10  # of a squared range: a bar of one price
READY = 24  # bars before the first observation that counts

# What is averaged exponentially: channel and half-life in bars.
_LV, _LV2, _R, _ABS, _LW = range(5)
_MEANS = (
    (_LV, 2), (_LV, 6), (_LV, 24), (_LV, 336), (_LV2, 336),
    (_R, 6), (_R, 24), (_R, 72), (_ABS, 24), (_ABS, 72), (_LW, 6), (_LW, 168), (_ABS, 6),
    (_LV, 1), (_LV, 3), (_LV, 10), (_LW, 2), (_LW, 8),
)  # fmt: skip
_CHANNEL = np.array([channel for channel, _ in _MEANS])
_ALPHA = np.array([1.0 - 0.5 ** (1.0 / half) for _, half in _MEANS])
(
    _LV_2, _LV_6, _LV_24, _LV_336, _LV2_336, _R_6, _R_24, _R_72, _ABS_24, _ABS_72, _LW_6, _LW_168,
    _ABS_6, _LV_1, _LV_3, _LV_10, _LW_2, _LW_8,
) = range(len(_MEANS))  # fmt: skip
CARRY = len(_MEANS) + 2 + HIGHEST  # numbers that a lane's state has


@dataclass
class Carry:
    """The state of lanes between two bars: means (lanes, means), bars seen, last and recent ln
    closes (lanes, HIGHEST), oldest first, -inf where there was none."""

    means: Floats
    seen: Floats
    close: Floats
    recent: Floats

    @classmethod
    def start(cls, lanes: int) -> Carry:
        """Before the first bar."""
        return cls(
            np.zeros((lanes, len(_MEANS))),
            np.zeros(lanes),
            np.full(lanes, np.nan),
            np.full((lanes, HIGHEST), -np.inf),
        )

    def flat(self, lane: int) -> Floats:
        """One lane's state as numbers."""
        return np.concatenate(
            [self.means[lane], [self.seen[lane], self.close[lane]], self.recent[lane]]
        )

    @classmethod
    def unflat(cls, numbers: Floats) -> Carry:
        """The state of one lane of :meth:`flat`."""
        k = len(_MEANS)
        return cls(
            numbers[None, :k].copy(),
            numbers[k : k + 1].copy(),
            numbers[k + 1 : k + 2].copy(),
            numbers[None, k + 2 :].copy(),
        )

    @classmethod
    def of(cls, lanes: Sequence[Carry]) -> Carry:
        """The states of several, side by side."""
        return cls(
            np.concatenate([lane.means for lane in lanes]),
            np.concatenate([lane.seen for lane in lanes]),
            np.concatenate([lane.close for lane in lanes]),
            np.concatenate([lane.recent for lane in lanes]),
        )


def observe(bars: dict[str, Floats], carry: Carry) -> Floats:
    """Observations (bars, lanes, COUNT) of lanes of bars; ``carry`` is moved on.

    ``bars``: high, low, close, volume, each (bars, lanes). A bar that is NaN (a lane that has
    fewer) leaves the lane's state as it was and gives NaN.
    """
    close = np.log(bars["close"])
    length, lanes = close.shape
    there = np.isfinite(close)
    squared = np.log(bars["high"] / bars["low"]) ** 2 / (4.0 * np.log(2.0))
    log_range = 0.5 * np.log(np.maximum(squared, SMALLEST))
    volume = np.log(np.maximum(np.where(np.isfinite(bars["volume"]), bars["volume"], 0.0), 1e-12))
    # Lanes lie side by side, so that what is asked of one mean is read in a row.
    now = carry.means.T.copy()
    first = now
    means = np.empty((length, len(_MEANS), lanes))
    returns = np.empty((length, lanes))
    seen = np.empty((length, lanes))
    row = np.empty((5, lanes))
    for i in range(length):
        here = there[i]
        back = np.where(np.isnan(carry.close), 0.0, close[i] - carry.close)
        row[_LV], row[_LV2] = log_range[i], log_range[i] ** 2
        row[_R], row[_ABS], row[_LW] = back, np.abs(back), volume[i]
        # A plain mean until there are as many bars as the half-life asks for.
        weight = np.maximum(_ALPHA[:, None], 1.0 / (carry.seen + 1.0))
        moved = now + weight * (row[_CHANNEL] - now)
        if here.all():
            now = moved
            carry.seen = carry.seen + 1.0
            carry.close = close[i]
        else:
            now = np.where(here, moved, now)
            carry.seen = carry.seen + here
            carry.close = np.where(here, close[i], carry.close)
        means[i], returns[i], seen[i] = now, back, carry.seen
    carry.means = now.T.copy()
    highest = _highest(close, there, carry)
    return _of((first, means), returns, seen, close, (log_range, volume), highest, there)


def _highest(close: Floats, there: np.typing.NDArray[np.bool_], carry: Carry) -> Floats:
    """The highest of the last HIGHEST ln closes at each bar, (bars, lanes)."""
    length = len(close)
    known = np.concatenate([carry.recent.T, np.where(there, close, -np.inf)])
    best = known.copy()
    span = 1
    while 2 * span <= HIGHEST:
        best[span:] = np.maximum(best[span:], best[:-span].copy())
        span *= 2
    rest = HIGHEST - span
    if rest:
        best[rest:] = np.maximum(best[rest:], best[:-rest].copy())
    # Bars that a lane lacks come last: its recent closes are those before them.
    count = there.sum(axis=0)
    places = count[None, :] + np.arange(HIGHEST)[:, None]
    carry.recent = np.take_along_axis(known, places, axis=0).T.copy()
    return best[HIGHEST : HIGHEST + length]


def _of(
    both: tuple[Floats, Floats],
    returns: Floats,
    seen: Floats,
    close: Floats,
    logs: tuple[Floats, Floats],
    highest: Floats,
    there: np.typing.NDArray[np.bool_],
) -> Floats:
    (first, means), (log_range, volume) = both, logs

    def mean(k: int) -> Floats:
        return np.ascontiguousarray(means[:, k])

    def before(k: int) -> Floats:
        return np.concatenate([first[None, k], means[:-1, k]])

    out = np.empty((COUNT, *close.shape))
    slow = mean(_LV_336)
    spread = np.sqrt(np.maximum(mean(_LV2_336) - slow**2, 1e-4))
    unit = np.exp(slow)
    tiny = 1e-12
    fall = mean(_R_6)
    out[LOG_RANGE] = log_range - slow
    out[RETURN] = returns / unit
    out[RANGE_FAST] = mean(_LV_2) - slow
    out[VOLATILITY] = (mean(_LV_6) - slow) / spread
    out[VOLATILITY_SLOW] = (mean(_LV_24) - slow) / spread
    out[TREND_FAST] = fall / (mean(_ABS_6) + tiny)
    out[TREND] = mean(_R_24) / (mean(_ABS_24) + tiny)
    out[TREND_SLOW] = mean(_R_72) / (mean(_ABS_72) + tiny)
    out[DRAWDOWN] = (close - highest) / (unit * np.sqrt(24.0))
    out[FALL] = fall / unit * np.sqrt(6.0)
    out[VOLUME] = mean(_LW_6) - mean(_LW_168)
    out[LEVEL] = log_range
    out[LOG_VOLUME] = volume
    out[RETURN_LOCAL] = returns / np.exp(before(_LV_6))
    out[LEVEL_BEFORE_1] = before(_LV_1)
    out[LEVEL_BEFORE_3] = before(_LV_3)
    out[LEVEL_BEFORE_10] = before(_LV_10)
    out[VOLUME_BEFORE_2] = before(_LW_2)
    out[VOLUME_BEFORE_8] = before(_LW_8)
    out[:, ~there | (seen < READY)] = np.nan
    return np.moveaxis(out, 0, -1)
