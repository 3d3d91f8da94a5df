"""Scores from 0 to 1 that say how a market is by its own standard."""

from __future__ import annotations

from typing import Any

import numpy as np
from alphaplus.server import database
from alphaplus.server.database import Database
from alphaplus.server.market import revisions as w
from alphaplus.server.market.reader import MarketReader
from alphaplus.server.types import DAY, MINUTE, Floats

MINUTES = DAY // MINUTE
WINDOW = 30  # one-minute returns


def volatility(plpy: Any, cache: dict[str, Any], symbol: str, time: int) -> float | None:
    """Rank of the last 30 minutes' volatility in the last 24 hours' as known at one grid time."""
    grid = np.array(database.moments(plpy, time), dtype=np.int64)
    width, t = MINUTES + WINDOW, int(grid[0])
    reader = MarketReader(Database.of(plpy, cache), symbol, t, t)
    bars = reader.bars(MINUTE, t - width * MINUTE, t)
    window = bars.windows(grid, width, ("open", "high", "low", "close", "volume"))
    w.fill_quiet(window)
    return rank(window["close"][0])


def rank(close: Floats) -> float | None:
    """The score from 1470 closes, oldest first; None where too few are known."""
    squares = np.diff(np.log(close)) ** 2
    volatilities = np.sqrt(np.lib.stride_tricks.sliding_window_view(squares, WINDOW).mean(axis=1))
    last = volatilities[-1]
    known = volatilities[np.isfinite(volatilities)]
    if not np.isfinite(last) or len(known) < MINUTES // 2:
        return None
    others = len(known) - 1
    below = np.sum(known < last) + (np.sum(known == last) - 1) / 2
    return float(below / others)
