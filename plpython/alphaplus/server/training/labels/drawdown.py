"""How far the price falls from a high."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from alphaplus.server.market import revisions as w
from alphaplus.server.market.reader import MarketReader
from alphaplus.server.training.labels.label import ABOVE, CHUNK, Label, Targets, outcome
from alphaplus.server.training.labels.schema import Param
from alphaplus.server.types import Times


class Drawdown(Label):
    """The greatest log fall from a close to a later one, from the close before t on; bps, >= 0."""

    kind = "drawdown"
    what = "Greatest log fall from one close to a later one in the interval, basis points, >= 0."
    PARAMS: ClassVar[Mapping[str, Param]] = {"above": ABOVE}

    def known(self, reader: MarketReader, grid: Times, step: int, as_of: int) -> Targets:
        """See :meth:`.Label.known`."""
        of = outcome(reader, self, grid, step, as_of, 1)
        logs = np.log(of.closes)
        there = np.flatnonzero(of.whole(logs, 1))
        out = np.full(len(grid), np.nan)
        for begin in range(0, len(there), CHUNK):
            part = there[begin : begin + CHUNK]
            path = w.sliding(logs, of.position[part] - 1, of.ahead + 1)
            fall = np.maximum.accumulate(path, axis=1) - path
            out[part] = 1e4 * fall.max(axis=1)
        return self.whole(out, grid)
