"""Out-of-fold predictions as the database takes them: what a version is judged by.

The outcomes and all metrics are the database's own; these are predictions only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from alphaplus.trainer.data import Array
from alphaplus.trainer.rows import Inputs
from alphaplus.trainer.walk_forward import WalkForward
from numpy.typing import NDArray

# alphaplus.server.training.out_of_fold reads it.
ROW = np.dtype([
    ("ts", "<i8"), ("symbol", "<i4"), ("fold", "<i2"), ("chosen", "u1"), ("champion_chosen", "u1"),
    ("raw", "<f8"), ("prediction", "<f8"), ("champion", "<f8"), ("persistence", "<f8"),
    ("linear", "<f8"),
])  # fmt: skip


@dataclass(frozen=True)
class Rival:
    """The champion's predictions of some of the tested rows, and its classes."""

    at: NDArray[np.int64]
    predicted: Array
    chosen: NDArray[np.bool_]


def pack(
    rows: Inputs, found: WalkForward, baselines: dict[str, Array], champion: Rival | None
) -> bytes:
    """The tested rows, one after the other; NaN where there is no prediction.

    Args:
        rows: all rows of the set.
        found: the walk-forward predictions.
        baselines: "persistence" and "linear", of the tested rows; may be empty.
        champion: of some of the tested rows; None: no champion.
    """
    made = np.zeros(len(found.rows), dtype=ROW)
    made["ts"] = rows.ts[found.rows]
    symbol = rows.symbol[found.rows]
    made["symbol"] = symbol if symbol.min() > 0 else symbol + 1
    made["fold"], made["chosen"] = found.fold, found.chosen
    made["raw"], made["prediction"] = found.raw, found.predicted
    for name in ("champion", "persistence", "linear"):
        made[name] = baselines.get(name, np.nan)
    if champion is not None:
        made["champion"][champion.at] = champion.predicted
        made["champion_chosen"][champion.at] = champion.chosen
    return made.tobytes()
