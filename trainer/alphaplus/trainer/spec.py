"""The spec of a version: how to call its artifact and what to make of the answer.

``ml.model_versions.spec`` is written here and read by the serving functions. Its keys:

``objective``
    Name of the estimator's objective, for the record.
``inputs``
    ``{"kind": "row", "features": n}``: the artifact takes the feature set's values in its order,
    null as NaN. Sequence models: ``{"kind": "sequence", "length": L, "features": n, "name": …}``,
    the last L grid times, oldest first; ``output`` names the score's output, ``attention`` that of
    the weights (n, L) which the newest row gives each row.
``linear`` (linear models)
    The weights of the scaled features, for explanations.
``scaling``
    ``{"center": […], "scale": […], "fill": […], "clip": c}`` or null: x' = (x - center) / scale,
    NaN replaced by ``fill`` before, and where there is ``clip`` limited to [-c, c]. Null for tree
    models. The artifact takes x' as its own input type says, float or double.
``output``
    Classification: ``{"kind": "log_odds"}``, the raw score (LightGBM: predict with raw_score), or
    ``{"kind": "probability"}``, whose log odds, clipped to those of 1e-7 and 1 - 1e-7, are the raw
    score. Regression:
    ``{"kind": "identity" | "exp" | "expm1", "scale": s}``: value = s · f(raw).
``calibration`` (classification)
    Fitted on out-of-fold scores. ``{"method": "platt", "a": a, "b": b}``: p = 1/(1 + exp(-(a·raw +
    b))) [Platt 1999]; ``{"method": "isotonic", "x": […], "y": […]}``: p = piecewise linear through
    the knots at sigmoid(raw), flat outside [Zadrozny & Elkan 2002].
``confidence``
    Classification: ``{"method": "frequency_interval", "level": 0.9, "x": […], "lower": […],
    "upper": […]}``. Out-of-fold predictions are binned by calibrated probability; [lower, upper] is
    the Wilson interval of the event's frequency in the bin, with the sample size divided by the
    design effect of overlapping labels (variance of block sums of the residuals over the
    independent one). x are the bins' mean probabilities; between them linear, flat outside; where p
    itself lies outside of that, the interval reaches to p: what the frequencies say of it is then
    part of the doubt. **confidence = 1 - (upper(p) - lower(p))**: how well the data pin the
    probability down, not how near it is to 0 or 1. Tested: p lies in [lower, upper] always, the
    true frequency for at least ``level`` of the bins.
    Regression: ``{"method": "interval_width", "scale": w}``: confidence = max(0, 1 - (upper -
    lower) / w) with the ``interval`` below and w the width of the target's own 5 % to 95 % range.
``interval`` (regression)
    Split conformal, on out-of-fold residuals [Vovk et al. 2005]: ``{"kind": "additive" |
    "multiplicative", "level": 0.9, "lower": a, "upper": b}``: [value + a, value + b], or [value ·
    a, value · b].
``base_rate``
    Mean of the target over the training rows.
``operating_point`` (classification)
    The calibrated probability with the best F1 out of fold; from it on, the class is 1.
``support``
    ``{"method": "robust_distance", "center": […], "scale": […], "threshold": d, "quantile": q}``:
    distance = sqrt(mean over the features that are not null of min(((x - center)/scale)², 10⁶)),
    center the median and scale the interquartile range / 1.349 of the training rows (1 where that
    is 0 and the standard deviation is too). Out of support: distance > threshold, the q-quantile
    of the training rows' own distances times 1.1 [idea: FreqAI's dissimilarity index].

The artifact's raw answer, the calibration and the output transformation in :func:`probability` and
:func:`value` are the definition; the serving code must agree with them to 1e-6.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Spec = dict[str, Any]


def sigmoid(raw: Array) -> Array:
    """Logistic function, without overflow."""
    small = np.exp(-np.abs(raw))
    found: Array = np.where(raw >= 0, 1 / (1 + small), small / (1 + small))
    return found


def probability(spec: Spec, raw: Array) -> Array:
    """Calibrated probability from the artifact's raw score."""
    calibration = spec.get("calibration")
    if not calibration:
        return sigmoid(raw)
    if calibration["method"] == "platt":
        return sigmoid(calibration["a"] * raw + calibration["b"])
    found: Array = np.interp(sigmoid(raw), calibration["x"], calibration["y"])
    return found


def value(spec: Spec, raw: Array) -> Array:
    """Predicted value of a regression from the artifact's raw score, in the target's unit."""
    output = spec.get("output") or {"kind": "identity"}
    scale = float(output.get("scale", 1.0))
    if output["kind"] == "exp":
        return scale * np.exp(raw)
    if output["kind"] == "expm1":
        return scale * np.expm1(raw)
    return scale * raw


def confidence(spec: Spec, p: Array) -> tuple[Array, Array, Array]:
    """(confidence, lower, upper) of calibrated probabilities, as defined above."""
    table = spec["confidence"]
    lower = np.minimum(p, np.interp(p, table["x"], table["lower"]))
    upper = np.maximum(p, np.interp(p, table["x"], table["upper"]))
    return 1 - (upper - lower), lower, upper


def distance(support: Spec, x: Array) -> Array:
    """Robust distance of feature rows (n, features) to the training rows."""
    z = (x - np.asarray(support["center"])) / np.asarray(support["scale"])
    with np.errstate(invalid="ignore"):
        squares = np.minimum(z * z, 1e6)
    known = ~np.isnan(squares)
    count = np.maximum(known.sum(axis=1), 1)
    found: Array = np.sqrt(np.where(known, squares, 0.0).sum(axis=1) / count)
    return found
