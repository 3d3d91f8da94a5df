"""The six states, in the order in which every array of probabilities holds them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]

STATES = (
    "bull_trending",
    "bear_trending",
    "sideways",
    "high_volatility",
    "low_volatility",
    "crash",
)
COUNT = len(STATES)
BULL, BEAR, SIDEWAYS, HIGH, LOW, CRASH = range(COUNT)
