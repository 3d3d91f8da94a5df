"""By how much the price moves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from alphaplus.server.market.reader import MarketReader
from alphaplus.server.training.labels.label import ABOVE, Label, Targets, change, outcome
from alphaplus.server.training.labels.schema import Choice, Param
from alphaplus.server.types import Times


class Return(Label):
    """Return over the interval, in basis points: the logarithm's, or the simple one."""

    kind = "return"
    what = "Return from the close before the interval to its last, in basis points."
    PARAMS: ClassVar[Mapping[str, Param]] = {
        "of": Choice("log", ("log", "simple"), "which return"),
        "above": ABOVE,
    }

    def known(self, reader: MarketReader, grid: Times, step: int, as_of: int) -> Targets:
        """See :meth:`.Label.known`."""
        found = change(outcome(reader, self, grid, step, as_of, 1))
        if self.params["of"] == "simple":
            found = np.expm1(found)
        return self.whole(1e4 * found, grid)
