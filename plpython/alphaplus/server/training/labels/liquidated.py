"""What is liquidated, as labels of both kinds read it."""

from __future__ import annotations

import numpy as np
from alphaplus.server.market.reader import MarketReader, Needs, Request, Windows
from alphaplus.server.training.labels.label import Label, Outcome, outcome
from alphaplus.server.types import Floats, Times


def liquidated(
    reader: MarketReader, label: Label, grid: Times, step: int, as_of: int, reach: int
) -> tuple[Outcome, Windows, Floats]:
    """Notional liquidated in [t, t + h), as known by as_of, and what it was read from."""
    of = outcome(reader, label, grid, step, as_of, reach)
    width = of.width
    request = Request(Needs(liquidations=reach), width)
    first = int(grid[0]) // width * width
    windows = reader.stretch(request, first, int(grid[-1]) + (of.ahead + 1) * width)
    seen = windows.liquidations.at(as_of)
    total = np.nan_to_num(seen["long_notional"]) + np.nan_to_num(seen["short_notional"])
    summed = np.append(0.0, np.cumsum(total))
    position = np.clip((grid - windows.liquidations.start) // width, 0, len(total))
    stop = np.minimum(position + of.ahead, len(total))
    # A running total leaves rounding dust where nothing was liquidated.
    events = np.append(0, np.cumsum(total > 0))
    future = np.where(events[stop] > events[position], summed[stop] - summed[position], 0.0)
    return of, windows, future
