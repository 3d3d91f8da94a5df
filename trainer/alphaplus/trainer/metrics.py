"""Metrics on held-out rows, with block-bootstrap confidence intervals.

Labels of neighbouring rows overlap, so rows are no independent draws: the bootstrap draws blocks of
time [Künsch 1989], long enough to hold several label intervals.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
_TINY = 1e-15


def blocks(ts: Ints, horizon: int, at_least: int = 20) -> Ints:
    """Block number (n,) of each row: spans of time of four horizons, at least ``at_least`` of them.

    Args:
        ts: µs.
        horizon: of the label, µs.
        at_least: fewer blocks than this make shorter ones, down to one horizon.
    """
    span = int(ts.max() - ts.min()) + 1
    length = max(min(4 * horizon, span // at_least), min(horizon, max(span // 4, 1)), 1)
    return np.unique((ts - ts.min()) // length, return_inverse=True)[1].astype(np.int64)


def auc(y: Array, score: Array, weight: Array | None = None) -> float:
    """Area under the ROC curve, ties counted half; NaN with one class only."""
    order = np.argsort(score, kind="stable")
    return _sorted_auc(y[order], score[order], None if weight is None else weight[order])


def _sorted_auc(y: Array, score: Array, weight: Array | None) -> float:
    w = np.ones_like(y) if weight is None else weight
    positive = w * y
    negative = w * (1 - y)
    starts = np.flatnonzero(np.r_[True, score[1:] != score[:-1]])
    p = np.add.reduceat(positive, starts)
    n = np.add.reduceat(negative, starts)
    total = p.sum() * n.sum()
    if total == 0:
        return math.nan
    return float((p * (np.cumsum(n) - n / 2)).sum() / total)


def average_precision(y: Array, score: Array) -> float:
    """Area under the precision-recall steps; NaN without positives."""
    order = np.argsort(-score, kind="stable")
    hits = y[order]
    ends = np.flatnonzero(np.r_[score[order][1:] != score[order][:-1], True])
    true = np.cumsum(hits)[ends]
    if true[-1] == 0:
        return math.nan
    precision = true / (ends + 1)
    return float((np.diff(np.r_[0.0, true]) * precision).sum() / true[-1])


def ece(y: Array, p: Array, bins: int = 10) -> float:
    """Expected calibration error over equal-count bins: mean |frequency - mean probability|."""
    parts = np.array_split(np.argsort(p, kind="stable"), min(bins, len(y)))
    return float(sum(abs(y[i].sum() - p[i].sum()) for i in parts) / len(y))


def log_losses(y: Array, p: Array) -> Array:
    """Log loss (n,) of each row, in nats."""
    p = np.clip(p, _TINY, 1 - _TINY)
    return -(y * np.log(p) + (1 - y) * np.log(1 - p))


def at_threshold(y: Array, chosen: NDArray[np.bool_]) -> dict[str, float]:
    """F1, precision and recall of the rows taken as positive."""
    hits = float(y[chosen].sum())
    precision = hits / max(int(chosen.sum()), 1)
    recall = hits / max(float(y.sum()), 1.0)
    total = precision + recall
    return {
        "f1": 2 * precision * recall / total if total else 0.0,
        "precision": precision,
        "recall": recall,
    }


def best_threshold(y: Array, p: Array) -> float:
    """The probability from which on to say 1 for the best F1."""
    order = np.argsort(-p, kind="stable")
    ends = np.flatnonzero(np.r_[p[order][1:] != p[order][:-1], True])
    hits = np.cumsum(y[order])[ends]
    f1 = 2 * hits / (ends + 1 + max(float(y.sum()), 1.0))
    return float(p[order][ends[int(np.argmax(f1))]])


def classification(
    y: Array,
    p: Array,
    base: Array,
    chosen: NDArray[np.bool_],
    block: Ints | None = None,
    *,
    resamples: int = 200,
    seed: int = 1,
) -> dict[str, Any]:
    """Metrics of calibrated probabilities, beside the base rate's; with 95 % intervals if blocked.

    Args:
        y: (n,) 0 or 1.
        p: (n,) probabilities given without knowing y.
        base: (n,) base rate known at the time.
        chosen: (n,) p is at or above the operating point of its time.
        block: (n,) block numbers for the bootstrap.
        resamples: bootstrap samples.
        seed: of the bootstrap.
    """
    losses = log_losses(y, p)
    base_losses = log_losses(y, base)
    found: dict[str, Any] = {
        "rows": len(y),
        "positives": int(y.sum()),
        "base_rate": float(y.mean()),
        "auc": auc(y, p),
        "average_precision": average_precision(y, p),
        "log_loss": float(losses.mean()),
        "brier": float(np.mean((p - y) ** 2)),
        "ece": ece(y, p),
        **at_threshold(y, chosen),
        "baseline": {
            "auc": 0.5,
            "average_precision": float(y.mean()),
            "log_loss": float(base_losses.mean()),
            "brier": float(np.mean((base - y) ** 2)),
        },
    }
    if block is None:
        return found
    order = np.argsort(p, kind="stable")
    y_sorted, p_sorted, block_sorted = y[order], p[order], block[order]
    count = int(block.max()) + 1
    sums = np.column_stack(
        [np.bincount(block, v, count) for v in (np.ones_like(y), losses, base_losses, (p - y) ** 2)]
    )
    rng = np.random.default_rng(seed)
    samples: dict[str, list[float]] = {"auc": [], "log_loss": [], "log_loss_gain": [], "brier": []}
    for _ in range(resamples):
        weight = np.bincount(rng.integers(0, count, count), minlength=count).astype(np.float64)
        rows, loss, base_loss, square = weight @ sums
        samples["auc"].append(_sorted_auc(y_sorted, p_sorted, weight[block_sorted]))
        samples["log_loss"].append(loss / rows)
        samples["log_loss_gain"].append((base_loss - loss) / rows)
        samples["brier"].append(square / rows)
    return found | _intervals(samples, count)


def _intervals(samples: dict[str, list[float]], count: int) -> dict[str, Any]:
    found: dict[str, Any] = {"blocks": count}
    for name, drawn in samples.items():
        known = [value for value in drawn if not math.isnan(value)]
        if known:
            low, high = np.quantile(known, [0.025, 0.975])
            found[f"{name}_low"], found[f"{name}_high"] = float(low), float(high)
    return found


def regression(
    y: Array,
    value: Array,
    base: Array,
    block: Ints | None = None,
    *,
    resamples: int = 200,
    seed: int = 1,
) -> dict[str, Any]:
    """Metrics of predicted values, beside those of the mean known at the time.

    r2 is out of sample: 1 - squared error / squared error of that mean. pinball_50 is half the
    mean absolute error; mae and rmse are in the target's unit.
    """
    square = (value - y) ** 2
    base_square = (base - y) ** 2
    spearman = (
        float(stats.spearmanr(value, y).statistic) if np.ptp(value) > 0 and np.ptp(y) > 0 else 0.0
    )
    found: dict[str, Any] = {
        "rows": len(y),
        "mean": float(y.mean()),
        "zero_share": float((y == 0).mean()),
        "rmse": float(np.sqrt(square.mean())),
        "mae": float(np.abs(value - y).mean()),
        "pinball_50": float(np.abs(value - y).mean() / 2),
        "bias": float((value - y).mean()),
        "r2": float(1 - square.sum() / max(float(base_square.sum()), _TINY)),
        "spearman": spearman,
        "baseline": {
            "rmse": float(np.sqrt(base_square.mean())),
            "mae": float(np.abs(base - y).mean()),
            "r2": 0.0,
            "spearman": 0.0,
        },
    }
    if block is None:
        return found
    count = int(block.max()) + 1
    sums = np.column_stack(
        [np.bincount(block, v, count) for v in (np.ones_like(y), square, base_square)]
    )
    rng = np.random.default_rng(seed)
    samples: dict[str, list[float]] = {"rmse": [], "r2": []}
    for _ in range(resamples):
        weight = np.bincount(rng.integers(0, count, count), minlength=count).astype(np.float64)
        rows, loss, base_loss = weight @ sums
        samples["rmse"].append(math.sqrt(loss / rows))
        samples["r2"].append(1 - loss / max(base_loss, _TINY))
    return found | _intervals(samples, count)


def measure(
    task: str,
    y: Array,
    predicted: Array,
    base: Array,
    chosen: NDArray[np.bool_],
    block: NDArray[np.int64] | None,
    seed: int,
) -> dict[str, Any]:
    """The metrics of a task: those of :func:`classification` or of :func:`regression`."""
    if task == "classification":
        return classification(y, predicted, base, chosen, block, seed=seed)
    return regression(y, predicted, base, block, seed=seed)
