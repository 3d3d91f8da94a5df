"""Whether the price rises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from alphaplus.server.market.reader import MarketReader
from alphaplus.server.training.labels.label import Label, Targets, change, outcome
from alphaplus.server.training.labels.schema import Number, Param
from alphaplus.server.types import Times


class Direction(Label):
    """Whether the log change over the interval is above a threshold; small ones may be left out."""

    kind = "direction"
    task = "classification"
    what = "Whether the close at the end of the interval is above the one before it."
    PARAMS: ClassVar[Mapping[str, Param]] = {
        "threshold_bps": Number(0.0, -1e4, 1e4, "basis points that the log change is to exceed"),
        "dead_zone_bps": Number(
            0.0, 0.0, 1e4, "basis points: times whose change is not greater either way are left out"
        ),
    }

    def known(self, reader: MarketReader, grid: Times, step: int, as_of: int) -> Targets:
        """See :meth:`.Label.known`."""
        bps = 1e4 * change(outcome(reader, self, grid, step, as_of, 1))
        there = np.isfinite(bps)
        if self.params["dead_zone_bps"] > 0:
            there &= np.abs(bps) > self.params["dead_zone_bps"]
        up = (bps > self.params["threshold_bps"]).astype(np.float64)
        return self.whole(np.where(there, up, np.nan), grid)
