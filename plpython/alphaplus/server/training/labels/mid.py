"""By how much the mid price moves."""

from __future__ import annotations

import numpy as np
from alphaplus.server.training.labels.book import Book
from alphaplus.server.types import Floats, Times


class Mid(Book):
    """Log change of the mid price since the minute before t, in basis points."""

    kind = "mid"
    what = "Log change of the mid price from the minute before t to the last one, basis points."

    def mean(self, seen: dict[str, Floats]) -> Floats:
        """See :meth:`.Book.mean`."""
        return seen["mid_sum"] / seen["two_sided_count"]

    def of_now(self, then: Floats, mean: Floats, now: Times) -> Floats:
        """See :meth:`.Book.of_now`."""
        there = np.isfinite(then) & (now >= 0) & (now < len(mean))
        out = np.full(len(then), np.nan)
        out[there] = 1e4 * np.log(then[there] / mean[now[there]])
        return out
