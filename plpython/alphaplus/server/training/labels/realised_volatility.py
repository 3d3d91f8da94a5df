"""How much the price moves, whichever way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from alphaplus.server.market.reader import MarketReader
from alphaplus.server.training.labels.label import ABOVE, WIDTHS, Label, Targets, outcome
from alphaplus.server.training.labels.schema import LabelError, Number, Param
from alphaplus.server.types import MINUTE, Times

PARTS = 12  # bars that an interval should have at least


class RealisedVolatility(Label):
    """The square root of the sum of squared log returns of the interval's bars, in basis points.

    Source: Andersen, Bollerslev, Diebold, Labys (2003), Modeling and forecasting realized
    volatility, Econometrica 71.
    """

    kind = "realised_volatility"
    what = "Square root of the sum of squared log returns of the interval's bars, basis points."
    PARAMS: ClassVar[Mapping[str, Param]] = {
        "bar_minutes": Number(
            None, 1, 1440, "minutes of the bars: 1, 5, 15, 60, 240 or 1440, a divisor of the"
            " horizon; left out, the longest of which the horizon has twelve", whole=True,
        ),
        "above": ABOVE,
    }  # fmt: skip

    def consistent(self) -> None:
        """See :meth:`.Label.consistent`."""
        given = self.params["bar_minutes"]
        if given is not None:
            width = int(given) * MINUTE
            if width not in WIDTHS or self.horizon % width:
                raise LabelError(
                    "bar_minutes of a label of kind realised_volatility is 1, 5, 15, 60, 240 or"
                    f" 1440 and divides the horizon; not {given:g}"
                )

    def known(self, reader: MarketReader, grid: Times, step: int, as_of: int) -> Targets:
        """See :meth:`.Label.known`."""
        given = self.params["bar_minutes"]
        if given is None:
            fits = [x for x in WIDTHS if self.horizon % x == 0 and step % x == 0]
            width = max((x for x in fits if x * PARTS <= self.horizon), default=MINUTE)
        else:
            width = int(given) * MINUTE
        if step % width:
            raise LabelError(
                f"bars of {width // MINUTE} minutes do not fit a grid of {step // MINUTE}"
            )
        of = outcome(reader, self, grid, step, as_of, 1, width=width)
        squares = np.diff(np.log(of.closes), prepend=np.nan) ** 2
        total = np.append(0.0, np.cumsum(np.nan_to_num(squares)))
        stop = np.minimum(of.position + of.ahead, len(squares))
        future = total[stop] - total[np.minimum(of.position, stop)]
        values = 1e4 * np.sqrt(np.maximum(future, 0.0))
        return self.whole(np.where(of.whole(squares), values, np.nan), grid)
