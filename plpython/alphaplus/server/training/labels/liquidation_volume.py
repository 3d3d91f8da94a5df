"""How much is liquidated."""

from __future__ import annotations

import numpy as np
from alphaplus.server.market.reader import MarketReader
from alphaplus.server.training.labels.label import Label, Targets
from alphaplus.server.training.labels.liquidated import liquidated
from alphaplus.server.types import Times


class LiquidationVolume(Label):
    """Notional liquidated in the interval, in quote currency."""

    kind = "liquidation_volume"
    what = "Notional liquidated in the interval, in quote currency."

    def known(self, reader: MarketReader, grid: Times, step: int, as_of: int) -> Targets:
        """See :meth:`.Label.known`."""
        of, windows, future = liquidated(reader, self, grid, step, as_of, 1)
        done = of.done & (grid >= windows.covered_from)
        return self.whole(np.where(done, future, np.nan), grid)
