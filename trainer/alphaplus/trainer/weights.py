"""Sample weights and the embargo: how much a row counts while fitting, and which do not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from alphaplus.trainer.data import Array, Fold, Times
from alphaplus.trainer.models.base import TrainingError
from alphaplus.trainer.rows import Inputs

_UNITS = {
    "us": 1, "ms": 1000, "s": 10**6, "sec": 10**6, "second": 10**6, "min": 60 * 10**6,
    "minute": 60 * 10**6, "h": 3600 * 10**6, "hour": 3600 * 10**6, "d": 86400 * 10**6,
    "day": 86400 * 10**6, "w": 604800 * 10**6, "week": 604800 * 10**6,
}  # fmt: skip


def micros(length: str | None) -> int:
    """A length of time in µs, such as "90 minutes", "1 day" or "02:30:00"; None: 0.

    Raises:
        TrainingError: another form.
    """
    if length is None:
        return 0
    if clock := re.fullmatch(r"\s*(\d+):(\d\d)(?::(\d\d))?\s*", length):
        hours, minutes, seconds = (int(x or 0) for x in clock.groups())
        return (hours * 3600 + minutes * 60 + seconds) * 10**6
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([a-z]+)", length.lower())
    total = 0.0
    for number, unit in parts:
        size = _UNITS.get(unit) or _UNITS.get(unit.rstrip("s"))
        if size is None:
            raise TrainingError(f"{length!r}: a length of time in weeks or less is needed")
        total += float(number) * size
    if not parts:
        raise TrainingError(f"{length!r} is no length of time")
    return round(total)


def embargoed(folds: Sequence[Fold], length: str | None) -> list[Fold]:
    """The folds, their training rows' labels ended so long before the test begins."""
    gap = micros(length)
    return [replace(fold, train_to=fold.train_to - gap) for fold in folds]


def uniqueness(ts: Times, label_end: Times, symbol: Times) -> Array:
    """(n,) average uniqueness of each label: the mean over its interval of 1 / labels at work then.

    Source: Lopez de Prado (2018), Advances in Financial Machine Learning, section 4.4.
    """
    found = np.ones(len(ts))
    for one in np.unique(symbol):
        i = np.flatnonzero(symbol == one)
        start, end = ts[i], label_end[i]
        edges = np.unique(np.concatenate([start, end]))
        begun = np.searchsorted(np.sort(start), edges[:-1], side="right")
        ended = np.searchsorted(np.sort(end), edges[:-1], side="right")
        at_work = begun - ended
        width = np.diff(edges).astype(np.float64)
        share = np.where(at_work > 0, width / np.maximum(at_work, 1), 0.0)
        whole = np.concatenate([[0.0], np.cumsum(share)])
        low, high = np.searchsorted(edges, start), np.searchsorted(edges, end)
        found[i] = (whole[high] - whole[low]) / np.maximum(end - start, 1)
    return found


@dataclass(frozen=True)
class Weights:
    """What rows weigh: by uniqueness of their labels, by age; called with rows, gives (n,) or None.

    Attributes:
        by_uniqueness: rows weigh by :func:`uniqueness`.
        half_life: µs after which a row weighs half; 0: age does not matter.
    """

    by_uniqueness: bool = False
    half_life: int = 0

    @classmethod
    def of(cls, given: dict[str, Any] | None) -> Weights:
        """From the option ``weights``."""
        given = given or {}
        return cls(bool(given.get("uniqueness")), micros(given.get("half_life")))

    def __call__(self, rows: Inputs) -> Array | None:
        """(n,) weights of mean 1; None: all the same."""
        if not (self.by_uniqueness or self.half_life) or not len(rows):
            return None
        found = np.ones(len(rows))
        if self.by_uniqueness:
            found *= uniqueness(rows.ts, rows.label_end, rows.symbol)
        if self.half_life:
            found *= 0.5 ** ((rows.ts.max() - rows.ts) / self.half_life)
        # The mean is 1, so that penalties mean what they meant.
        weight: Array = found / found.mean()
        return weight
