"""What texts say of an asset, as features: mean, spread, surprise, volume, novelty and sources.

A score is counted at t where its text was published before t and known by t. Scores and novelty are
counted in millionths, as whole numbers: sums do not depend on what else is read, so a value is the
same live and in history.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from alphaplus.server.features.family import Family, Feature, Keep
from alphaplus.server.market.events import SOURCES
from alphaplus.server.market.reader import MarketReader, Needs
from alphaplus.server.types import DAY, MINUTE, Floats, Times

SCALE = 1_000_000
HOUR = 60 * MINUTE
WINDOWS = {"1h": HOUR, "4h": 4 * HOUR, "24h": DAY}
_OWN = "alphaplus.server.features.sentiment; scores of method blend"
_TIME = ("texts.ts",)
_COPY = ("texts.ts", "texts.copy")
_NOVELTY = ("texts.ts", "texts.novelty")
_SCORE = ("texts.ts", "texts.score", "texts.copy")
_SOURCE = ("texts.ts", "texts.source")


def _features() -> tuple[Feature, ...]:
    found = []
    for name in WINDOWS:
        found += [
            Feature(f"mean_{name}", f"mean score of {name}", "score", _OWN, _SCORE),
            Feature(
                f"dispersion_{name}", f"standard deviation of the scores of {name}", "score",
                _OWN, _SCORE,
            ),
            Feature(f"texts_{name}", f"texts of {name}, copies too", "count", _OWN, ("texts.ts",)),
        ]  # fmt: skip
    found += [
        Feature(
            "surprise", "(mean_1h - mean_24h) x sqrt(scored texts of 1h) / dispersion_24h", "z",
            _OWN, _SCORE,
        ),
        Feature(
            "volume_surprise", "ln((texts_1h + 1) / (texts_24h / 24 + 1))", "ln", _OWN,
            _TIME,
        ),
        Feature("novelty_1h", "mean novelty of the texts of 1h", "share", _OWN, _NOVELTY),
        Feature("novelty_24h", "mean novelty of the texts of 24h", "share", _OWN, _NOVELTY),
        Feature("copies_24h", "copies / texts of 24h", "share", _OWN, _COPY),
    ]  # fmt: skip
    for source in SOURCES:
        found += [
            Feature(
                f"mean_{source}",
                f"mean score of 24h from {source}",
                "score",
                _OWN,
                (*_SCORE, "texts.source"),
            ),
            Feature(f"texts_{source}", f"texts of 24h from {source}", "count", _OWN, _SOURCE),
        ]
    return tuple(found)


FEATURES = _features()


class _Windows:
    """Sums over the rows that are in a window at each grid time."""

    def __init__(self, rows: np.ndarray[Any, Any], grid: Times) -> None:
        self.size = len(grid) + 1
        self.rows = rows
        # Published before the grid time, and known by it.
        begins = np.maximum(rows["ts"] + 1, rows["known"])
        self.first = np.searchsorted(grid, begins)
        self.last = {
            name: np.searchsorted(grid, rows["ts"] + width, "right")
            for name, width in WINDOWS.items()
        }

    def sum(self, name: str, values: Times) -> Times:
        """Sums of whole numbers, one a row, over a window."""
        seen = self.first < self.last[name]
        change = np.zeros(self.size, dtype=np.int64)
        np.add.at(change, self.first[seen], values[seen])
        np.subtract.at(change, self.last[name][seen], values[seen])
        total: Times = np.cumsum(change)[:-1]
        return total


def _whole(values: Floats) -> Times:
    found: Times = np.rint(np.nan_to_num(values) * SCALE).astype(np.int64)
    return found


def _ratio(total: Times, count: Times, scale: float = 1.0) -> Floats:
    found: Floats = np.full(len(total), np.nan)
    np.divide(total / scale, count, out=found, where=count > 0)
    return found


def matrix(rows: np.ndarray[Any, Any], grid: Times) -> Floats:
    """(times, features) from rows of ``events.SCORE``; null where no text of 24 hours is known.

    Silence about an asset and silence of a feed look alike, so it is no zero.
    """
    windows = _Windows(rows, grid)
    one = np.ones(len(rows), dtype=np.int64)
    copied = rows["copy"] != 0
    scored = (np.isfinite(rows["score"]) & ~copied).astype(np.int64)
    score = _whole(rows["score"]) * scored
    squares = _whole(rows["score"] ** 2) * scored
    told = np.isfinite(rows["novelty"]).astype(np.int64)
    novelty = _whole(rows["novelty"])

    texts = {name: windows.sum(name, one) for name in WINDOWS}
    count = {name: windows.sum(name, scored) for name in WINDOWS}
    mean = {name: _ratio(windows.sum(name, score), count[name], SCALE) for name in WINDOWS}
    spread = {
        name: np.sqrt(
            np.maximum(
                _ratio(windows.sum(name, squares), count[name], SCALE) - mean[name] ** 2, 0.0
            )
        )
        for name in WINDOWS
    }
    columns: list[Floats] = []
    for name in WINDOWS:
        columns += [mean[name], spread[name], texts[name].astype(np.float64)]
    gap = (mean["1h"] - mean["24h"]) * np.sqrt(count["1h"])
    columns += [
        np.divide(gap, spread["24h"], out=np.full(len(grid), np.nan), where=spread["24h"] > 0),
        np.log((texts["1h"] + 1) / (texts["24h"] / 24 + 1)),
        *(_ratio(windows.sum(n, novelty), windows.sum(n, told), SCALE) for n in ("1h", "24h")),
        _ratio(windows.sum("24h", copied.astype(np.int64)), texts["24h"]),
    ]
    for place in range(len(SOURCES)):
        mine = (rows["source"] == place).astype(np.int64)
        columns += [
            _ratio(windows.sum("24h", score * mine), windows.sum("24h", scored * mine), SCALE),
            windows.sum("24h", mine).astype(np.float64),
        ]
    out = np.column_stack(columns)
    out[texts["24h"] == 0] = np.nan
    return out


def _read(reader: MarketReader, grid: Times, keep: Keep | None) -> Floats:
    del keep
    if not len(grid):
        return np.empty((0, len(FEATURES)))
    return matrix(reader.events.scores(int(grid[0]) - DAY, int(grid[-1])), grid)


FAMILY = Family(
    name="sentiment",
    version=1,
    revision="1",
    description="What texts say of the asset: mean, spread, surprise, volume, novelty and copies"
    " over one, four and 24 hours, and by kind of source.",
    features=FEATURES,
    needs=Needs(bars=DAY // MINUTE),
    read=_read,
)
