"""Distances between two samples, exact from raw values and from counts in bins.

Raw forms are SciPy's own functions. Binned forms take counts (bins,) or (features, bins) of the
same bins; the p-values take the *effective* sizes of both samples (``effective.py``), as minute
data are far from independent.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
HALF = 0.5  # added to each bin's count where a logarithm is taken of its share (Jeffreys)


def sample(raw: bytes | None) -> Floats:
    """The values of ``array_send(float8[])`` without nulls; NaN left out."""
    from alphaplus.server import codec

    if raw is None or len(raw) < 20:
        return np.empty(0)
    values = np.asarray(codec.elements(raw, ">f8"), dtype=np.float64)
    return values[~np.isnan(values)]


def ks_raw(a: Floats, b: Floats) -> tuple[float, float] | None:
    """(statistic, two-sided p) of Kolmogorov and Smirnov's test; None where a sample is empty.

    Source: scipy.stats.ks_2samp (exact up to 10,000 values, asymptotic above).
    """
    from scipy import stats

    if not len(a) or not len(b):
        return None
    found = stats.ks_2samp(a, b)
    return float(found.statistic), float(found.pvalue)


def wasserstein_raw(a: Floats, b: Floats) -> float | None:
    """The area between the two distribution functions, in the values' unit; None where it has no
    finite value: an empty sample, or an infinite one."""
    from scipy import stats

    if not len(a) or not len(b):
        return None
    with np.errstate(invalid="ignore"):
        found = float(stats.wasserstein_distance(a, b))
    return found if math.isfinite(found) else None


def edges_of(reference: Floats, bins: int) -> Floats:
    """Inner edges of at most ``bins`` bins, (edge before, edge], of about equal share of the
    reference; where there are no more values than bins, each value has a bin of its own."""
    distinct = np.unique(reference[np.isfinite(reference)])
    if len(distinct) <= 1:
        # All one value: below, at, above.
        at = distinct[0] if len(distinct) else 0.0
        return np.array([np.nextafter(at, -np.inf), at])
    if len(distinct) <= bins:
        return distinct[:-1]
    ordered = np.sort(reference)
    # The last value of each share, in whole numbers.
    last = [-(-len(ordered) * i // bins) - 1 for i in range(1, bins)]
    found: Floats = np.unique(ordered[last])
    return found[np.isfinite(found)]


def counts_in(values: Floats, edges: Floats) -> npt.NDArray[np.int64]:
    """How many values lie in each of ``len(edges) + 1`` bins (edge before, edge]."""
    return np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)


def shares(counts: npt.NDArray[Any], smooth: float = 0.0) -> Floats:
    """Shares of counts along the last axis; of nothing, NaN."""
    smoothed = np.asarray(counts, dtype=np.float64) + smooth
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = smoothed / smoothed.sum(axis=-1, keepdims=True)
    return found


def ks(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> Floats:
    """The statistic of binned samples: the largest difference of the shares up to an edge."""
    difference = np.cumsum(shares(a), axis=-1) - np.cumsum(shares(b), axis=-1)
    found: Floats = np.abs(difference[..., :-1]).max(axis=-1, initial=0.0)
    return found


def ks_p(statistic: npt.NDArray[Any], n: npt.NDArray[Any], m: npt.NDArray[Any]) -> Floats:
    """Asymptotic two-sided p-value at (effective) sizes n and m (Kolmogorov's distribution)."""
    from scipy import special

    n, m = np.asarray(n, dtype=np.float64), np.asarray(m, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        size = np.sqrt(n * m / (n + m))
        found: Floats = special.kolmogorov(size * statistic)
    return found


def psi(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> Floats:
    """Population stability index: the sum over bins of (p - q) ln(p / q), with half a row added to
    each bin so that an empty one has a finite logarithm.

    Source: Siddiqi (2006), Credit Risk Scorecards; half counts: Jeffreys' prior.
    """
    p, q = shares(a, HALF), shares(b, HALF)
    found: Floats = ((p - q) * np.log(p / q)).sum(axis=-1)
    return found


def psi_p(
    value: npt.NDArray[Any], bins: npt.NDArray[Any], n: npt.NDArray[Any], m: npt.NDArray[Any]
) -> Floats:
    """p-value of a PSI without drift: PSI / (1/n + 1/m) has about the chi-squared distribution with
    bins - 1 degrees of freedom (Yurdakul and Naranjo 2020, Journal of Risk Model Validation)."""
    from scipy import special

    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = special.chdtrc(
            np.maximum(np.asarray(bins, dtype=np.float64) - 1, 1),
            np.asarray(value) / (1 / np.asarray(n) + 1 / np.asarray(m)),
        )
    return found


def js(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> Floats:
    """Jensen and Shannon's distance (the square root of the divergence in bits), 0 to 1.

    Source: Endres and Schindelin (2003); equal to scipy.spatial.distance.jensenshannon(base=2).
    """
    p, q = shares(a), shares(b)
    middle = (p + q) / 2

    def part(x: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            terms = np.where(x > 0, x * np.log2(x / middle), np.where(np.isnan(x), np.nan, 0.0))
        found: Floats = terms.sum(axis=-1)
        return found

    found: Floats = np.sqrt(np.maximum((part(p) + part(q)) / 2, 0))
    return found


def wasserstein(
    a: npt.NDArray[Any], b: npt.NDArray[Any], centres: npt.NDArray[np.float64]
) -> Floats:
    """The area between two binned distribution functions, each bin's rows at its centre (ascending
    along the last axis)."""
    difference = np.abs(np.cumsum(shares(a), axis=-1) - np.cumsum(shares(b), axis=-1))
    found: Floats = (difference[..., :-1] * np.diff(centres, axis=-1)).sum(axis=-1)
    return found


def chi2(
    a: npt.NDArray[Any], b: npt.NDArray[Any], n: Any = None, m: Any = None
) -> tuple[float, float, int]:
    """(statistic, p, degrees of freedom) of Pearson's test that two samples have the same shares.

    n, m: the samples' effective sizes, where their rows depend on each other: counts are scaled
    down to them (Rao and Scott 1981). Without, equal to
    scipy.stats.chi2_contingency(correction=False).
    """
    from scipy import special

    table = np.array([a, b], dtype=np.float64)
    if n is not None:
        table = shares(table) * np.array([[n], [m]], dtype=np.float64)
    table = table[:, table.sum(axis=0) > 0]
    freedom = table.shape[1] - 1
    if freedom < 1 or (table.sum(axis=1) == 0).any() or not np.isfinite(table).all():
        return 0.0, 1.0, max(freedom, 0)
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    statistic = float(((table - expected) ** 2 / expected).sum())
    return statistic, float(special.chdtrc(freedom, statistic)), freedom


def by(p: npt.NDArray[np.float64]) -> Floats:
    """p-values adjusted by Benjamini and Yekutieli (2001): rejecting those at or below q keeps the
    false discovery rate at q whatever their dependence. NaN stays NaN and does not count."""
    found = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    count = len(known)
    if not count:
        return found
    order = known[np.argsort(p[known], kind="stable")]
    scale = (1 / np.arange(1, count + 1)).sum() * count / np.arange(1, count + 1)
    adjusted = np.minimum.accumulate((p[order] * scale)[::-1])[::-1]
    found[order] = np.minimum(adjusted, 1)
    return found


def e_of(p: npt.NDArray[np.float64]) -> Floats:
    """An e-value of a p-value: the mixture calibrator (1 - p + p ln p) / (p (ln p)^2).

    Source: Vovk and Wang (2021), Annals of Statistics 49, equation 2.
    """
    p = np.clip(np.asarray(p, dtype=np.float64), 1e-300, 1.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        log = np.log(p)
        found = (1 - p + p * log) / (p * log**2)
    return np.where(p > 1 - 1e-6, 0.5, found)


def e_bh(e: npt.NDArray[np.float64]) -> Floats:
    """The level at which the e-BH procedure rejects each e-value, 1 where none: valid whatever
    their dependence (Wang and Ramdas 2022, JRSS B 84). NaN stays NaN and does not count."""
    found = np.full(len(e), np.nan)
    known = np.flatnonzero(~np.isnan(e))
    if not len(known):
        return found
    order = known[np.argsort(-e[known], kind="stable")]
    with np.errstate(divide="ignore"):
        level = len(known) / (np.arange(1, len(known) + 1) * e[order])
    found[order] = np.minimum(np.minimum.accumulate(level[::-1])[::-1], 1)
    return found


def binned_raw(statistic: str, a: Floats, b: Floats, bins: int) -> float | None:
    """psi or js of raw samples in bins of equal share of the second; None where one is empty."""
    if not len(a) or not len(b):
        return None
    edges = edges_of(b, bins)
    found = {"psi": psi, "js": js}[statistic](counts_in(a, edges), counts_in(b, edges))
    return float(found)


def adjusted(method: str, values: list[float | None] | None) -> list[float | None] | None:
    """:func:`by` or :func:`e_bh` of a list from SQL, None for what is not known."""
    if values is None:
        return None
    flat = np.array([np.nan if x is None else x for x in values], dtype=np.float64)
    found = {"by": by, "e_bh": e_bh}[method](flat)
    return [None if np.isnan(x) else float(x) for x in found]
