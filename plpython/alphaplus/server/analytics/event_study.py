"""Event study by the market model, with bands from blocks drawn at random.

Sources: MacKinlay, "Event Studies in Economics and Finance" (1997), for the market model and
cumulative abnormal returns; Politis and Romano, "The Stationary Bootstrap" (1994), for why whole
blocks are drawn: returns in a window belong together, their volatility clusters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
DRAWS = 1999
LEAST = 50  # bars outside the windows, to fit the market model on


@dataclass(frozen=True)
class Study:
    """Mean cumulative abnormal return, the band it would lie in by chance, and how likely it is."""

    events: int
    alpha: float
    beta: float
    mean: float
    lower: float
    upper: float
    p_value: float
    each: list[float]


def study(
    returns: Floats,
    market: Floats,
    starts: npt.NDArray[np.int64],
    length: int,
    *,
    level: float = 0.95,
    seed: int = 0,
) -> Study | None:
    """Of windows ``[start, start + length)`` of log returns; None where too little is left to fit.

    NaN returns are left out of the fit and count nothing in a window; a window that has none but
    such is no event.
    """
    n = len(returns)
    starts = np.unique(starts[(starts >= 0) & (starts + length <= n)])
    known = np.isfinite(returns) & np.isfinite(market)
    inside = np.zeros(n, dtype=bool)
    for start in starts:
        inside[start : start + length] = True
    outside = known & ~inside
    if outside.sum() < max(LEAST, 2 * length) or not len(starts):
        return None
    x, y = market[outside], returns[outside]
    spread = float(((x - x.mean()) ** 2).sum())
    beta = float(((x - x.mean()) * (y - y.mean())).sum() / spread) if spread > 0 else 0.0
    alpha = float(y.mean() - beta * x.mean())
    abnormal = np.where(known, returns - alpha - beta * market, 0.0)
    total = np.concatenate([[0.0], np.cumsum(abnormal)])
    count = np.concatenate([[0], np.cumsum(known)])
    starts = starts[count[starts + length] > count[starts]]
    if not len(starts):
        return None
    each = total[starts + length] - total[starts]
    # Blocks of the same length anywhere outside the windows.
    touched = np.concatenate([[0], np.cumsum(inside)])
    free = np.arange(n - length + 1)
    free = free[
        (touched[free + length] == touched[free])
        & (count[free + length] - count[free] > length // 2)
    ]
    if len(free) < 2 * len(starts):
        return None
    dice = np.random.default_rng(seed)
    drawn = free[dice.integers(0, len(free), (DRAWS, len(starts)))]
    chance = (total[drawn + length] - total[drawn]).mean(axis=1)
    mean = float(each.mean())
    low, high = np.quantile(chance, [(1 - level) / 2, (1 + level) / 2])
    centre = float(chance.mean())
    beyond = int((np.abs(chance - centre) >= abs(mean - centre)).sum())
    return Study(
        len(starts), alpha, beta, mean, float(low), float(high), (1 + beyond) / (DRAWS + 1),
        [float(v) for v in each],
    )  # fmt: skip


def answer(
    times: list[int],
    closes: list[float],
    market: list[float],
    events: list[int],
    window: int,
    bar: int,
) -> list[tuple[Any, ...]]:
    """For SQL: bar times and closes, the market's return at each, events; all in microseconds."""
    at = np.array(times, dtype=np.int64)
    price = np.array(closes, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        returns = np.concatenate([[np.nan], np.diff(np.log(price))])
    returns[np.concatenate([[True], np.diff(at) != bar])] = np.nan
    length = max(round(window / bar), 1)
    # The return of the bar that covers the event is the first of its window.
    starts = np.searchsorted(at, np.array(events, dtype=np.int64), side="right") - 1
    made = study(returns, np.array(market, dtype=np.float64), starts, length)
    if made is None:
        return []
    return [
        (made.events, made.alpha, made.beta, made.mean, made.lower, made.upper, made.p_value,
         made.p_value <= 0.05, made.each)
    ]  # fmt: skip
