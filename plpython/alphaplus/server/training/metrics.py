"""Metrics of predictions whose outcome is known, as the database measures them.

Labels of neighbouring rows overlap, so rows are no independent draws: intervals come from a
bootstrap of blocks of time [Künsch 1989], the test of calibration from random multipliers of the
same blocks [Shao 2010]. Plain numpy: the trainer measures for itself while it chooses; what is
reported and gated is measured here, from the predictions that it hands in.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
_TINY = 1e-15
# Size of the test of calibration.
SIZE = 0.05


def blocks(ts: Ints, horizon: int, at_least: int = 20) -> Ints:
    """Block number (n,) of each row: spans of four horizons, at least ``at_least`` of them.

    Args:
        ts: µs.
        horizon: of the label, µs.
        at_least: fewer blocks than this make shorter ones, down to one horizon.
    """
    span = int(ts.max() - ts.min()) + 1
    length = max(min(4 * horizon, span // at_least), min(horizon, max(span // 4, 1)), 1)
    return np.unique((ts - ts.min()) // length, return_inverse=True)[1].astype(np.int64)


def _sorted_auc(y: Floats, score: Floats, weight: Floats | None = None) -> float:
    w = np.ones_like(y) if weight is None else weight
    positive, negative = w * y, w * (1 - y)
    starts = np.flatnonzero(np.r_[True, score[1:] != score[:-1]])
    p = np.add.reduceat(positive, starts)
    n = np.add.reduceat(negative, starts)
    total = p.sum() * n.sum()
    return float((p * (np.cumsum(n) - n / 2)).sum() / total) if total else math.nan


def auc(y: Floats, score: Floats) -> float:
    """Area under the ROC curve, ties counted half; NaN with one class only."""
    order = np.argsort(score, kind="stable")
    return _sorted_auc(y[order], score[order])


def average_precision(y: Floats, score: Floats) -> float:
    """Area under the precision-recall steps; NaN without positives."""
    order = np.argsort(-score, kind="stable")
    hits = y[order]
    ends = np.flatnonzero(np.r_[score[order][1:] != score[order][:-1], True])
    true = np.cumsum(hits)[ends]
    if true[-1] == 0:
        return math.nan
    return float((np.diff(np.r_[0.0, true]) * true / (ends + 1)).sum() / true[-1])


def _bins(p: Floats, count: int = 10) -> Ints:
    """Number (n,) of each row's bin: bins of equal counts by probability."""
    found = np.empty(len(p), dtype=np.int64)
    for number, part in enumerate(np.array_split(np.argsort(p, kind="stable"), min(count, len(p)))):
        found[part] = number
    return found


def calibration(
    y: Floats, p: Floats, block: Ints, *, resamples: int = 999, seed: int = 1
) -> dict[str, float]:
    """The expected calibration error, and whether chance alone explains it.

    ``ece`` is the mean over ten bins of equal counts of |frequency - mean probability|. Even a true
    probability has one above zero, and the more so the more the labels overlap. So under the
    hypothesis that the probabilities are true, the residuals of each block of time are multiplied
    by random numbers of mean 0 and variance 1 (dependent wild bootstrap [Shao 2010]):
    ``ece_chance`` is what 95 % of those draws stay below, ``ece_p_value`` the share that reaches
    the ece found. ``ece_beyond_chance`` is the ece where it is above ``ece_chance``, else 0: true
    probabilities are above it in 5 to 9 % of tests (docs/models.md shows the size).
    """
    bins = _bins(p)
    count, width = int(block.max()) + 1, int(bins.max()) + 1
    sums = np.bincount(block * width + bins, y - p, count * width).reshape(count, width)
    found = float(np.abs(sums.sum(axis=0)).sum() / len(y))
    # Neighbouring blocks share labels at their border, so their multipliers are correlated too.
    normal = np.random.default_rng(seed).normal(size=(resamples, count + 1))
    drawn = np.abs((normal[:, :-1] + normal[:, 1:]) @ sums).sum(axis=1) / len(y) / math.sqrt(2)
    level = float(np.quantile(drawn, 1 - SIZE))
    return {
        "ece": found,
        "ece_chance": level,
        "ece_p_value": float((1 + (drawn >= found).sum()) / (resamples + 1)),
        "ece_beyond_chance": found if found > level else 0.0,
    }


def log_losses(y: Floats, p: Floats) -> Floats:
    """Log loss (n,) of each row, in nats."""
    p = np.clip(p, _TINY, 1 - _TINY)
    return -(y * np.log(p) + (1 - y) * np.log(1 - p))


def at_threshold(y: Floats, chosen: Flags) -> dict[str, float]:
    """F1, precision and recall of the rows taken as positive, and the F1 of taking all."""
    hits = float(y[chosen].sum())
    precision = hits / max(int(chosen.sum()), 1)
    recall = hits / max(float(y.sum()), 1.0)
    total = precision + recall
    rate = float(y.mean())
    return {
        "f1": 2 * precision * recall / total if total else 0.0,
        "f1_base_rate": 2 * rate / (1 + rate),
        "precision": precision,
        "recall": recall,
    }


def _ranks(x: Floats) -> Floats:
    """Ranks (n,), the mean rank where values are equal."""
    order = np.argsort(x, kind="stable")
    starts = np.flatnonzero(np.r_[True, x[order][1:] != x[order][:-1]])
    ends = np.r_[starts[1:], len(x)]
    found = np.empty(len(x))
    found[order] = np.repeat((starts + ends - 1) / 2, ends - starts)
    return found


def correlation(a: Floats, b: Floats) -> float:
    """Pearson's correlation; NaN where one of them does not vary."""
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale > 0 else math.nan


def information(ts: Ints, y: Floats, score: Floats) -> dict[str, Any]:
    """Information coefficient [Grinold & Kahn 1999] by day: correlation of prediction and outcome,
    of the values (``ic``) and of their ranks (``rank_ic``): mean, standard deviation, and mean over
    standard deviation (``…_ir``) over the days on which both vary."""
    day = ts // 86_400_000_000
    starts = np.flatnonzero(np.r_[True, day[1:] != day[:-1]])
    plain, ranked = [], []
    for low, high in zip(starts, [*starts[1:], len(ts)], strict=True):
        if high - low < 20:
            continue
        a, b = score[low:high], y[low:high]
        plain.append(correlation(a, b))
        ranked.append(correlation(_ranks(a), _ranks(b)))
    found: dict[str, Any] = {}
    for name, values in (("ic", plain), ("rank_ic", ranked)):
        known = np.array([v for v in values if math.isfinite(v)])
        spread = float(known.std(ddof=1)) if len(known) > 1 else math.nan
        found[name] = float(known.mean()) if len(known) else math.nan
        found[f"{name}_std"] = spread
        found[f"{name}_ir"] = found[name] / spread if spread > 0 else math.nan
        found[f"{name}_days"] = len(known)
    return found


def classification(
    ts: Ints,
    y: Floats,
    p: Floats,
    base: Floats,
    chosen: Flags,
    block: Ints | None = None,
    *,
    resamples: int = 200,
    seed: int = 1,
) -> dict[str, Any]:
    """Metrics of probabilities beside the base rate's; with 95 % intervals where blocked.

    Args:
        ts: (n,) µs, ascending.
        y: (n,) 0 or 1.
        p: (n,) probabilities given without knowing y.
        base: (n,) base rate known at the time.
        chosen: (n,) p is at or above the operating point of its time.
        block: (n,) block numbers.
        resamples: bootstrap samples.
        seed: of the bootstrap.
    """
    losses, base_losses = log_losses(y, p), log_losses(y, base)
    found: dict[str, Any] = {
        "rows": len(y),
        "positives": int(y.sum()),
        "base_rate": float(y.mean()),
        "auc": auc(y, p),
        "average_precision": average_precision(y, p),
        "log_loss": float(losses.mean()),
        "brier": float(np.mean((p - y) ** 2)),
        "ece": float(np.abs(np.bincount(_bins(p), y - p)).sum() / len(y)),
        **at_threshold(y, chosen),
        "baseline": {
            "auc": 0.5,
            "average_precision": float(y.mean()),
            "log_loss": float(base_losses.mean()),
            "brier": float(np.mean((base - y) ** 2)),
            "f1": 2 * float(y.mean()) / (1 + float(y.mean())),
        },
    }
    if block is None:
        return found
    found |= calibration(y, p, block, seed=seed) | information(ts, y, p)
    order = np.argsort(p, kind="stable")
    y_sorted, p_sorted, block_sorted = y[order], p[order], block[order]
    count = int(block.max()) + 1
    parts = (np.ones_like(y), losses, base_losses, (p - y) ** 2)
    sums = np.column_stack([np.bincount(block, v, count) for v in parts])
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
    ts: Ints,
    y: Floats,
    value: Floats,
    base: Floats,
    block: Ints | None = None,
    *,
    resamples: int = 200,
    seed: int = 1,
) -> dict[str, Any]:
    """Metrics of predicted values, beside those of the mean known at the time.

    r2 is out of sample: 1 - squared error / squared error of that mean. pinball_50 is half the
    mean absolute error; mae and rmse are in the target's unit.
    """
    square, base_square = (value - y) ** 2, (base - y) ** 2
    spearman = correlation(_ranks(value), _ranks(y))
    found: dict[str, Any] = {
        "rows": len(y),
        "mean": float(y.mean()),
        "zero_share": float((y == 0).mean()),
        "rmse": float(np.sqrt(square.mean())),
        "mae": float(np.abs(value - y).mean()),
        "pinball_50": float(np.abs(value - y).mean() / 2),
        "bias": float((value - y).mean()),
        "r2": float(1 - square.sum() / max(float(base_square.sum()), _TINY)),
        "spearman": 0.0 if math.isnan(spearman) else spearman,
        "baseline": {
            "rmse": float(np.sqrt(base_square.mean())),
            "mae": float(np.abs(base - y).mean()),
            "r2": 0.0,
            "spearman": 0.0,
        },
    }
    if block is None:
        return found
    found |= information(ts, y, value)
    count = int(block.max()) + 1
    parts = (np.ones_like(y), square, base_square)
    sums = np.column_stack([np.bincount(block, v, count) for v in parts])
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
    ts: Ints,
    y: Floats,
    predicted: Floats,
    base: Floats,
    chosen: Flags,
    block: Ints | None,
    seed: int = 1,
) -> dict[str, Any]:
    """The metrics of a task: those of :func:`classification` or of :func:`regression`."""
    if task == "classification":
        return classification(ts, y, predicted, base, chosen, block, seed=seed)
    return regression(ts, y, predicted, base, block, seed=seed)


def paired(
    task: str, ts: Ints, y: Floats, first: Floats, second: Floats, block: Ints, seed: int = 1
) -> dict[str, Any]:
    """The second's loss less the first's on the same rows, with a 95 % interval by blocks.

    Loss is the log loss of classes, the squared error of values; below 0 the second is better.
    ``p_value`` is two-sided, from blocks whose differences are given random signs.
    """
    if task == "classification":
        gap = log_losses(y, second) - log_losses(y, first)
    else:
        gap = (second - y) ** 2 - (first - y) ** 2
    count = int(block.max()) + 1
    sums = np.bincount(block, gap, count)
    sizes = np.bincount(block, minlength=count).astype(np.float64)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, count, (2000, count))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    signs = rng.choice([-1.0, 1.0], size=(1999, count))
    reached = np.abs(signs @ sums) >= abs(float(sums.sum())) * (1 - 1e-12)
    return {
        "rows": len(y),
        "difference": float(gap.mean()),
        "low": float(low),
        "high": float(high),
        "p_value": float((1 + reached.sum()) / 2000),
        "blocks": count,
    }


def clean(value: Any) -> Any:
    """JSON has no NaN: such a metric is null."""
    if isinstance(value, dict):
        return {key: clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
