"""Whether a version's intervals cover what they are for, on predictions it was not trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np


def coverage(spec: str, prediction: Sequence[float], target: Sequence[float]) -> float | None:
    """Share of rows covered by the spec's interval as it was written; None without one.

    Classification: a row is covered where the interval holds its own probability and the event's
    frequency among the rows of its bin (ten bins of equal counts by probability). Regression: where
    it holds the outcome.
    """
    given: dict[str, Any] = json.loads(spec)
    p, y = np.asarray(prediction, dtype=float), np.asarray(target, dtype=float)
    interval, table = given.get("interval"), given.get("confidence") or {}
    if len(p) == 0:
        return None
    if interval:
        if interval["kind"] == "multiplicative":
            ends = p * interval["lower"], p * interval["upper"]
        else:
            ends = p + interval["lower"], p + interval["upper"]
        low, high = np.minimum(*ends), np.maximum(*ends)
        return float(((y >= low) & (y <= high)).mean())
    if not table.get("x"):
        return None
    low, high = (np.interp(p, table["x"], table[end]) for end in ("lower", "upper"))
    frequency = np.empty(len(p))
    for part in np.array_split(np.argsort(p, kind="stable"), min(10, len(p))):
        frequency[part] = y[part].mean()
    slack = 1e-9
    inside = (low <= p + slack) & (p <= high + slack)
    inside &= (low <= frequency + slack) & (frequency <= high + slack)
    return float(inside.mean())
