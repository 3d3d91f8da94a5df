"""The market's regime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from alphaplus.server.market.reader import MarketReader
from alphaplus.server.training.labels.label import Label, Targets
from alphaplus.server.training.labels.schema import Number, Param
from alphaplus.server.types import Times


class Regime(Label):
    """The market's regime, 0 to 5 in the order of regime.states: :mod:`...regime.truth`."""

    kind = "regime"
    task = "regime"
    what = "The market's regime, 0 to 5 in the order of regime.states."
    PARAMS: ClassVar[Mapping[str, Param]] = {
        "bar_seconds": Number(3600.0, 60.0, 86400.0, "the length of the bars in seconds"),
    }

    def known(self, reader: MarketReader, grid: Times, step: int, as_of: int) -> Targets:
        """See :meth:`.Label.known`."""
        from alphaplus.server.regime import truth

        values = truth.values(reader.db.plpy, reader.symbol, grid, step, as_of)
        return self.whole(values, grid)
