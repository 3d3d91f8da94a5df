"""What labels of the order book have in common."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from alphaplus.server.market.reader import MarketReader, Needs, Request
from alphaplus.server.training.labels.label import Label, Targets
from alphaplus.server.types import MINUTE, Floats, Times


class Book(Label):
    """A mean over the snapshots of the last minute of the interval."""

    @abstractmethod
    def mean(self, seen: dict[str, Floats]) -> Floats:
        """The mean of each minute's snapshots."""

    def known(self, reader: MarketReader, grid: Times, step: int, as_of: int) -> Targets:
        """See :meth:`.Label.known`."""
        request = Request(Needs(book=1, levels=1), MINUTE)
        book = reader.stretch(request, int(grid[0]), int(grid[-1]) + self.horizon + MINUTE).book
        mean = self.mean(book.at(as_of))
        then = (grid + self.horizon - book.start) // MINUTE - 1
        done = (grid + self.horizon <= as_of) & (then >= 0) & (then < len(mean))
        out = np.full(len(grid), np.nan)
        out[done] = mean[then[done]]
        return self.whole(self.of_now(out, mean, (grid - book.start) // MINUTE - 1), grid)

    def of_now(self, then: Floats, mean: Floats, now: Times) -> Floats:
        """The label from the mean at the interval's end; ``now``: the minute just before t."""
        del mean, now
        return then
