"""Bursts of volatility."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from alphaplus.server import interrupts
from alphaplus.server.market import revisions as w
from alphaplus.server.market.reader import MarketReader
from alphaplus.server.training.labels.label import (
    CHUNK,
    TRAILING,
    Label,
    Targets,
    blocks,
    lookback,
    outcome,
)
from alphaplus.server.training.labels.schema import Param
from alphaplus.server.types import Floats, Times


class Volatility(Label):
    """Whether the realised variance of the interval is above the symbol's own trailing quantile."""

    kind = "volatility"
    task = "classification"
    what = "Whether realised volatility is above the symbol's own trailing quantile: a burst."
    PARAMS: ClassVar[Mapping[str, Param]] = TRAILING

    def known(self, reader: MarketReader, grid: Times, step: int, as_of: int) -> Targets:
        """See :meth:`.Label.known`."""
        width = self.bar_width(step)
        back = max(lookback(self) // width, 1)
        of = outcome(reader, self, grid, step, as_of, back)
        done = of.done & (of.position + of.ahead - 1 < len(of.closes))
        squares = np.diff(np.log(of.closes), prepend=np.nan) ** 2
        total = np.append(0.0, np.cumsum(np.nan_to_num(squares)))
        holes = np.append(0, np.cumsum(~np.isfinite(squares)))
        stop = np.minimum(of.position + of.ahead, len(of.closes))
        future = total[stop] - total[of.position]
        whole = holes[stop] == holes[of.position]
        limit = np.full(len(grid), np.nan)
        limit[done] = self._limit(of.series, grid[done], of.ahead, back)
        ok = done & whole & np.isfinite(limit)
        out = np.full(len(grid), np.nan)
        out[ok] = future[ok] > limit[ok]
        return self.whole(out, grid)

    def _limit(self, series: w.Series, grid: Times, ahead: int, back: int) -> Floats:
        """The trailing quantile of realised variances of the blocks of [t - lookback, t)."""
        out = np.full(len(grid), np.nan)
        for begin in range(0, len(grid), CHUNK):
            interrupts.process()
            part = grid[begin : begin + CHUNK]
            close = series.windows(part, back + 1, ("close",))["close"]
            squares = np.diff(np.log(close), axis=1) ** 2
            sums = blocks(squares, ahead).sum(axis=2)
            whole = np.isfinite(sums)
            # Gaps leave blocks out; four fifths of them must be there.
            enough = whole.sum(axis=1) >= 0.8 * sums.shape[1]
            limit = np.full(len(part), np.nan)
            if enough.any():
                limit[enough] = np.nanquantile(sums[enough], self.params["quantile"], axis=1)
            out[begin : begin + CHUNK] = limit
        return out
