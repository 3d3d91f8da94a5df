"""Scores from 0 to 1 that say how a market is by its own standard."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from alphaplus.server import database
from alphaplus.server.features import families
from alphaplus.server.market import revisions as w

Floats = npt.NDArray[np.float64]

DAY = 1440
WINDOW = 30  # one-minute returns


def volatility(plpy: Any, cache: dict[str, Any], symbol: str, seconds: float) -> float | None:
    """Rank of the last 30 minutes' volatility in the last 24 hours' as known at one grid time."""
    grid = np.array(database.moments(plpy, seconds), dtype=np.int64)
    width = DAY + WINDOW
    begin = int(grid[0]) - width * w.MINUTE
    bars = families.reader(plpy, cache, symbol, int(grid[0]))(w.MINUTE, begin, int(grid[0]))
    names = ("open", "high", "low", "close", "volume")
    window = bars.windows(grid, width, names)
    w.fill_quiet(window)
    return rank(window["close"][0])


def rank(close: Floats) -> float | None:
    """The score from 1470 closes, oldest first; None where too few are known."""
    squares = np.diff(np.log(close)) ** 2
    volatilities = np.sqrt(np.lib.stride_tricks.sliding_window_view(squares, WINDOW).mean(axis=1))
    last = volatilities[-1]
    known = volatilities[np.isfinite(volatilities)]
    if not np.isfinite(last) or len(known) < DAY // 2:
        return None
    others = len(known) - 1
    below = np.sum(known < last) + (np.sum(known == last) - 1) / 2
    return float(below / others)
