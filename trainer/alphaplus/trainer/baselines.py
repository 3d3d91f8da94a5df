"""What a model has to beat besides the base rate: yesterday's answer, and a straight line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from alphaplus.trainer import metrics, spec
from alphaplus.trainer.data import Array, Fold
from alphaplus.trainer.models.linear import LogisticRegression
from alphaplus.trainer.rows import Inputs, purged
from numpy.typing import NDArray

# The line is fitted on at most this many training rows, evenly in time.
LINEAR_ROWS = 10_000
# What is kept of a baseline's metrics.
_KEPT = (
    "auc", "average_precision", "log_loss", "brier", "ece", "rmse", "mae", "r2", "spearman",
    "auc_low", "auc_high", "log_loss_low", "log_loss_high", "rmse_low", "rmse_high",
)  # fmt: skip


def last_known(
    ts: NDArray[np.int64],
    label_end: NDArray[np.int64],
    symbol: NDArray[np.int64],
    y: Array,
) -> Array:
    """The symbol's newest target whose label had ended by each row's time (n,); NaN where none."""
    found = np.full(len(y), np.nan)
    for one in np.unique(symbol):
        at = np.flatnonzero(symbol == one)
        at = at[np.argsort(label_end[at], kind="stable")]
        place = np.searchsorted(label_end[at], ts[at], side="right") - 1
        known = place >= 0
        found[at[known]] = y[at[place[known]]]
    return found


def measure(
    task: str,
    rows: Inputs,
    folds: Sequence[Fold],
    tested: NDArray[np.int64],
    base: Array,
    block: NDArray[np.int64],
    effect: float,
    settings: dict[str, Any],
) -> tuple[dict[str, dict[str, float]], dict[str, Array]]:
    """Metrics and predictions of the baselines on the rows that the model was tested on.

    ``persistence``: the newest outcome known at the time; of classes, the event's frequency in the
    training rows after that outcome. ``linear``: logistic regression (values: ridge) on the newest
    feature row.

    Args:
        task: "classification" or "regression".
        rows: all rows of the set.
        folds: the folds that were used.
        tested: (n,) indices of the tested rows, fold after fold.
        base: (n,) base rates, or means, known at the time.
        block: (n,) block numbers for the bootstrap.
        effect: rows per label horizon.
        settings: seed, threads, … of the estimators.
    """
    is_class = task == "classification"
    newest = last_known(rows.ts, rows.label_end, rows.symbol, rows.y)
    persistence = base.copy()
    linear = base.copy()
    position = {int(row): number for number, row in enumerate(tested)}
    for fold in folds:
        in_train, in_test = purged(rows, fold)
        where = np.array([position[int(row)] for row in np.flatnonzero(in_test)], dtype=np.int64)
        then, y = newest[in_train], rows.y[in_train]
        now = newest[in_test]
        if is_class:
            for state in (0.0, 1.0):
                after = y[then == state]
                # As if one horizon's rows had gone as the base rate says.
                count = len(after) / effect
                p = (after.sum() / effect + base[where[0]]) / (count + 1)
                persistence[where[now == state]] = p
        else:
            known = np.isfinite(now)
            persistence[where[known]] = now[known]
        line = LogisticRegression(task, {"max_rows": LINEAR_ROWS, "max_iter": 20}, **settings)
        line.fit(rows.latest[in_train], y)
        raw = line.raw(rows.latest[in_test])
        linear[where] = (
            spec.sigmoid(raw) if is_class else spec.value({"output": line.output()}, raw)
        )
    found = {}
    made = {"persistence": persistence, "linear": linear}
    for name, predicted in made.items():
        if is_class:
            nothing = np.zeros(len(base), dtype=bool)
            whole = metrics.classification(
                rows.y[tested], predicted, base, nothing, block, resamples=100
            )
        else:
            whole = metrics.regression(rows.y[tested], predicted, base, block, resamples=100)
        found[name] = {key: whole[key] for key in _KEPT if key in whole}
    return found, made
