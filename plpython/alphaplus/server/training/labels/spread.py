"""The bid-ask spread."""

from __future__ import annotations

from alphaplus.server.training.labels.book import Book
from alphaplus.server.types import Floats


class Spread(Book):
    """Relative bid-ask spread, in basis points."""

    kind = "spread"
    what = "Relative bid-ask spread, mean over the interval's last minute, basis points."

    def mean(self, seen: dict[str, Floats]) -> Floats:
        """See :meth:`.Book.mean`."""
        return 1e4 * seen["relative_spread_sum"] / seen["two_sided_count"]
