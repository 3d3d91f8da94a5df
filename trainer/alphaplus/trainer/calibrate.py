"""From raw scores to probabilities, intervals, and what the training rows looked like."""

from __future__ import annotations

from typing import Any

import numpy as np
from alphaplus.trainer import spec
from numpy.typing import NDArray
from scipy import optimize, stats
from sklearn.isotonic import IsotonicRegression

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
LEVEL = 0.9


def platt(raw: Array, y: Array, effect: float = 1.0) -> dict[str, Any]:
    """Platt's sigmoid on log odds, drawn towards leaving them as they are (a = 1, b = 0).

    The prior (standard deviation 0.5 of both) decides where events are few: with overlapping labels
    the rows count ``effect`` times less. a is at least 0: scores that rank backwards carry nothing.
    """

    def loss(at: Array) -> tuple[float, Array]:
        z = at[0] * raw + at[1]
        p = spec.sigmoid(z)
        gap = (p - y) / effect
        likelihood = float((np.logaddexp(0, z) - y * z).sum()) / effect
        gradient = np.array([float(gap @ raw) + 4 * (at[0] - 1), float(gap.sum()) + 4 * at[1]])
        return likelihood + 2 * float((at[0] - 1) ** 2 + at[1] ** 2), gradient

    fitted = optimize.minimize(
        loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(0, None), (None, None)]
    )
    return {"method": "platt", "a": float(fitted.x[0]), "b": float(fitted.x[1])}


def isotonic(raw: Array, y: Array, effect: float = 1.0, knots: int = 100) -> dict[str, Any]:
    """Isotonic regression on sigmoid(raw), thinned to at most ``knots`` knots, never 0 or 1.

    A frequency is at least half an event from 0 and 1, as rows count that tell ``effect`` times of
    the same.
    """
    p = spec.sigmoid(raw)
    fitted = IsotonicRegression(out_of_bounds="clip").fit(p, y)
    edge = 1 / (2 * len(y) / effect + 2)
    x = np.asarray(fitted.X_thresholds_, dtype=np.float64)
    level = np.clip(np.asarray(fitted.y_thresholds_, dtype=np.float64), edge, 1 - edge)
    if len(x) > knots:
        keep = np.unique(np.linspace(0, len(x) - 1, knots).round().astype(int))
        x, level = x[keep], level[keep]
    return {"method": "isotonic", "x": x.tolist(), "y": level.tolist()}


def none(raw: Array, y: Array, effect: float = 1.0) -> dict[str, Any]:
    """The scores as they are."""
    del raw, y, effect
    return {"method": "platt", "a": 1.0, "b": 0.0}


METHODS = {"none": none, "platt": platt, "isotonic": isotonic}


def calibration(method: str, raw: Array, y: Array, effect: float = 1.0) -> dict[str, Any]:
    """Fit a calibration; on rows of one class Platt's, whose prior keeps the scores' order.

    Rows of one class say that the scores are too high or too low, and nothing of their order: a
    quiet stretch is no reason to answer its frequency in the next one.

    Args:
        method: a key of ``METHODS``.
        raw: log odds of rows that the model was not fitted on.
        y: what became of them.
        effect: design effect of overlapping labels, about the rows in a horizon.
    """
    if y.min() == y.max() and method != "none":
        method = "platt"
    return METHODS[method](raw, y, effect)


def design_effect(residual: Array, variance: Array, block: Ints) -> float:
    """By how much the row count overstates: variance of block sums over the independent one."""
    sums = np.bincount(block, residual)
    independent = float(variance.sum())
    return max(1.0, float((sums**2).sum()) / independent) if independent > 0 else 1.0


def confidence(y: Array, p: Array, block: Ints, bins: int = 12) -> dict[str, Any]:
    """The spec's ``confidence`` of a classification: Wilson intervals of binned frequencies."""
    order = np.argsort(p, kind="stable")
    variance = p * (1 - p)
    overall = design_effect(y - p, variance, block)
    # Bins of one probability (flat calibration) are one bin.
    edges = np.unique(np.quantile(p, np.linspace(0, 1, bins + 1)[1:-1]))
    where = np.searchsorted(edges, p[order], side="right")
    z = float(stats.norm.ppf(0.5 + LEVEL / 2))
    rows: list[tuple[float, float, float]] = []
    for number in np.unique(where):
        i = order[where == number]
        effect = max(overall, design_effect((y - p)[i], variance[i], block[i]))
        n = max(len(i) / effect, 1.0)
        f = float(y[i].mean())
        centre = (f + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * float(np.sqrt(f * (1 - f) / n + z * z / (4 * n * n)))
        rows.append((float(p[i].mean()), max(0.0, centre - half), min(1.0, centre + half)))
    # Each interval holds the probability it is for, between the bins and beyond them too.
    x = [0.0, *(row[0] for row in rows), 1.0]
    lower = [0.0, *(min(row[0], row[1]) for row in rows), min(rows[-1][0], rows[-1][1])]
    upper = [max(rows[0][0], rows[0][2]), *(max(row[0], row[2]) for row in rows), 1.0]
    return {
        "method": "frequency_interval",
        "level": LEVEL,
        "design_effect": overall,
        "x": x,
        "lower": lower,
        "upper": upper,
    }


def interval(y: Array, value: Array, multiplicative: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """The spec's ``interval`` and ``confidence`` of a regression, from out-of-fold residuals."""
    residual = y / np.maximum(value, 1e-12) if multiplicative else y - value
    tail = (1 - LEVEL) / 2
    rank = np.ceil((len(y) + 1) * (1 - tail)) / len(y)
    low, high = np.quantile(residual, [1 - min(1.0, rank), min(1.0, rank)])
    width = float(np.subtract(*np.quantile(y, [1 - tail, tail])))
    return (
        {
            "kind": "multiplicative" if multiplicative else "additive",
            "level": LEVEL,
            "lower": float(low),
            "upper": float(high),
        },
        {"method": "interval_width", "scale": width or 1.0},
    )


def support(x: Array, quantile: float = 0.999) -> dict[str, Any]:
    """The spec's ``support``: where the training rows are, robustly."""
    with np.errstate(all="ignore"):
        low, center, high = _quantiles(x, [0.25, 0.5, 0.75])
        spread = np.array([np.nanstd(c) if np.isfinite(c).any() else 1.0 for c in x.T])
    scale = (high - low) / 1.349
    scale = np.where(scale > 0, scale, np.where(spread > 0, spread, 1.0))
    found: dict[str, Any] = {
        "method": "robust_distance",
        "center": np.nan_to_num(center).tolist(),
        "scale": np.nan_to_num(scale, nan=1.0).tolist(),
        "quantile": quantile,
    }
    found["threshold"] = 1.1 * float(np.quantile(spec.distance(found, x), quantile)) + 1e-9
    return found


def _quantiles(x: Array, at: list[float]) -> Array:
    found = np.full((len(at), x.shape[1]), np.nan)
    for number in range(x.shape[1]):
        column = x[:, number]
        known = column[np.isfinite(column)]
        if len(known):
            found[:, number] = np.quantile(known, at)
    return found


def histogram(values: Array) -> dict[str, Any]:
    """Decile edges and the share of rows between them, for PSI and KS later.

    ``edges`` are the distinct inner deciles e; ``shares`` of (-inf, e1], (e1, e2], …, (e_k, inf)
    among the known values, ``null_share`` of the unknown ones among all.
    """
    known = np.sort(values[np.isfinite(values)])
    if not len(known):
        return {"edges": [], "shares": [], "null_share": 1.0, "count": 0}
    edges = np.unique(np.quantile(known, np.linspace(0.1, 0.9, 9)))
    counts = np.diff(np.r_[0, np.searchsorted(known, edges, side="right"), len(known)])
    return {
        "edges": edges.tolist(),
        "shares": (counts / len(known)).tolist(),
        "null_share": float(1 - len(known) / len(values)),
        "count": len(known),
        "mean": float(known.mean()),
        "std": float(known.std()),
        "min": float(known[0]),
        "max": float(known[-1]),
    }


def reference_stats(features: list[str], x: Array, score: Array, y: Array) -> dict[str, Any]:
    """What drift is measured against: histograms of each feature, of the scores and the target."""
    return {
        "binning": "inner deciles of the training rows, right-closed",
        "features": {name: histogram(x[:, i]) for i, name in enumerate(features)},
        "score": histogram(score),
        "target": histogram(y),
    }
