"""The rows of a training set as an estimator reads them, and as a fold divides them in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from alphaplus.trainer.data import Array, Fold, Matrix, Times
from alphaplus.trainer.models.base import Features, Windows
from numpy.typing import NDArray

# Of a fold's training rows, the last part on which it stops early.
VALID_SHARE = 0.15


@dataclass(frozen=True)
class Inputs:
    """What an estimator reads: the rows of a set that have the history it needs, by time."""

    x: Features
    y: Array
    ts: Times
    label_end: Times
    symbol: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ts)

    @property
    def latest(self) -> Array:
        """(n, features) the row at each time itself."""
        found: Array = self.x.latest if isinstance(self.x, Windows) else self.x
        return found

    def take(self, chosen: NDArray[np.bool_]) -> Inputs:
        """The chosen rows."""
        return Inputs(
            self.x[chosen],
            self.y[chosen],
            self.ts[chosen],
            self.label_end[chosen],
            self.symbol[chosen],
        )


def inputs(matrix: Matrix, length: int, grid: int) -> Inputs:
    """The set as an estimator reads it; for sequences, windows that do not cross a gap.

    Args:
        matrix: rows by time, of one symbol or several.
        length: rows of history per prediction; 1: the row itself.
        grid: µs between two rows of a symbol that follow each other without a gap.
    """
    if length == 1:
        return Inputs(matrix.x, matrix.y, matrix.ts, matrix.label_end, matrix.symbol)
    if not len(matrix):
        none = np.empty(0, dtype=np.int64)
        windows = Windows(matrix.x, none, length)
        return Inputs(windows, matrix.y, matrix.ts, matrix.label_end, matrix.symbol)
    # By symbol, then time: a sequence is a stretch of rows.
    order = np.lexsort((matrix.ts, matrix.symbol))
    ts, symbol = matrix.ts[order], matrix.symbol[order]
    follows = (np.diff(ts) == grid) & (np.diff(symbol) == 0)
    starts = np.zeros(len(ts), dtype=np.int64)
    breaks = np.r_[0, np.flatnonzero(~follows) + 1]
    starts[breaks] = breaks
    run = np.arange(len(ts)) - np.maximum.accumulate(starts)
    last = np.flatnonzero(run >= length - 1)
    last = last[np.argsort(ts[last], kind="stable")]
    at = order[last]
    rows = matrix.x if (order[:-1] < order[1:]).all() else matrix.x[order]
    return Inputs(
        Windows(rows, last, length), matrix.y[at], ts[last], matrix.label_end[at], symbol[last]
    )


def purged(rows: Inputs, fold: Fold) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(training, test) rows of a fold.

    A training row's label interval ends before the first test row's begins, whatever the fold says:
    the fold's own purge and embargo come from the label's horizon, and this does not rely on them.
    """
    test = (rows.ts >= fold.test_from) & (rows.ts < fold.test_to)
    first = rows.ts[test].min() if test.any() else fold.test_from
    train = (rows.ts >= fold.train_from) & (rows.label_end <= min(fold.train_to, int(first) - 1))
    return train, test


def both(y: Array) -> bool:
    """Whether there are rows of both classes, or values that differ."""
    return len(y) > 0 and bool(y.min() < y.max())


def early_stopping_split(rows: Inputs) -> tuple[Inputs, Inputs] | None:
    """Training rows split in time to stop early, purged at the cut; None: too few of a class."""
    cut = np.quantile(rows.ts, 1 - VALID_SHARE, method="higher")
    before = rows.take(rows.label_end <= cut)
    after = rows.take(rows.ts >= cut)
    return (before, after) if both(before.y) and both(after.y) else None


def overlap(job: dict[str, Any]) -> float:
    """Rows per horizon: how many neighbouring labels tell of the same events."""
    return max(1.0, float(job["horizon"]) / float(job["grid"]))
