"""Whether unusually much is liquidated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from alphaplus.server import interrupts
from alphaplus.server.market.reader import MarketReader, Windows
from alphaplus.server.training.labels.label import (
    CHUNK,
    TRAILING,
    Label,
    Targets,
    blocks,
    lookback,
)
from alphaplus.server.training.labels.liquidated import liquidated
from alphaplus.server.training.labels.schema import Number, Param
from alphaplus.server.types import Floats, Times


class Liquidation(Label):
    """Whether the notional liquidated is above ``floor`` and the symbol's trailing quantile."""

    kind = "liquidation"
    task = "classification"
    what = "Whether the notional liquidated is above a floor and the symbol's trailing quantile."
    PARAMS: ClassVar[Mapping[str, Param]] = {
        **TRAILING,
        "floor": Number(0.0, 0.0, 1e18, "a notional in quote currency"),
    }

    def known(self, reader: MarketReader, grid: Times, step: int, as_of: int) -> Targets:
        """See :meth:`.Label.known`."""
        back = max(lookback(self) // self.bar_width(step), 1)
        of, windows, future = liquidated(reader, self, grid, step, as_of, back)
        done = of.done & (grid >= windows.covered_from)
        limit = np.full(len(grid), np.nan)
        limit[done] = self._limit(windows, grid[done], of.ahead, back)
        limit = np.maximum(limit, self.params["floor"])
        ok = done & np.isfinite(limit)
        out = np.full(len(grid), np.nan)
        out[ok] = future[ok] > limit[ok]
        return self.whole(out, grid)

    def _limit(self, windows: Windows, grid: Times, ahead: int, back: int) -> Floats:
        """The trailing quantile of h-sums over the blocks of [t - lookback, t), as known at t."""
        out = np.full(len(grid), np.nan)
        for begin in range(0, len(grid), CHUNK):
            interrupts.process()
            part = grid[begin : begin + CHUNK]
            seen = windows.liquidations.windows(part, back, ("long_notional", "short_notional"))
            total = np.nan_to_num(seen["long_notional"]) + np.nan_to_num(seen["short_notional"])
            sums = blocks(total, ahead).sum(axis=2)
            out[begin : begin + CHUNK] = np.quantile(sums, self.params["quantile"], axis=1)
        # The whole lookback must have been covered.
        out[grid < windows.covered_from + lookback(self)] = np.nan
        return out
