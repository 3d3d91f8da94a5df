"""Which way the book leans."""

from __future__ import annotations

from alphaplus.server.training.labels.book import Book
from alphaplus.server.types import Floats


class Imbalance(Book):
    """Top-level size imbalance, (bid - ask) / (bid + ask)."""

    kind = "imbalance"
    what = "Top-level size imbalance (bid - ask) / (bid + ask), mean over the last minute."

    def mean(self, seen: dict[str, Floats]) -> Floats:
        """See :meth:`.Book.mean`."""
        return seen["imbalance_sum"] / seen["two_sided_count"]
