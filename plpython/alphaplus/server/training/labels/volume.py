"""How much is traded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from alphaplus.server.market.reader import MarketReader
from alphaplus.server.training.labels.label import ABOVE, Label, Targets, outcome
from alphaplus.server.training.labels.schema import Choice, Param
from alphaplus.server.types import Times


class Volume(Label):
    """The volume traded in the interval, in the quote or the base currency."""

    kind = "volume"
    what = "Volume traded in the interval."
    PARAMS: ClassVar[Mapping[str, Param]] = {
        "unit": Choice("quote", ("quote", "base"), "the currency it is counted in"),
        "above": ABOVE,
    }

    def known(self, reader: MarketReader, grid: Times, step: int, as_of: int) -> Targets:
        """See :meth:`.Label.known`."""
        quote = self.params["unit"] == "quote"
        of = outcome(reader, self, grid, step, as_of, 1, flows=quote)
        traded = of.bars["quote_volume" if quote else "volume"]
        total = np.append(0.0, np.cumsum(np.nan_to_num(traded)))
        stop = np.minimum(of.position + of.ahead, len(traded))
        future = total[stop] - total[np.minimum(of.position, stop)]
        return self.whole(np.where(of.whole(traded), future, np.nan), grid)
