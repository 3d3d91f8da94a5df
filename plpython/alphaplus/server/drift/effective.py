"""How many independent rows a stretch of dependent rows is worth.

The statistics of ``statistics.py`` are sums over bin indicators, so what counts is the long-run
variance of these indicators over that of independent rows: the variance *inflation*. It is
measured twice on the reference series: by a flat-top kernel on its autocorrelations, for short
memory, and by the spread of the means of its own windows of several lengths, which also sees what
an autocorrelation of few lags does not (time of day, regimes). The larger one holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

POINTS = 5  # quantiles at which indicators are looked at
LADDER = (60, 240, 720, 1440, 4320, 10080, 30240)  # rows of a window
LEAST_WINDOWS = 12
# The eighth moment of Kolmogorov's distribution, 8 Gamma(4) / 2^4 eta(8): what large values weigh.
EIGHTH = 2.98870


def indicators(bins: Ints, count: int) -> Floats:
    """(points, n) of "at or below this bin" at up to POINTS quantiles, means taken off; constant
    ones are left out."""
    total = np.cumsum(np.bincount(bins, minlength=count)) / max(len(bins), 1)
    wanted = np.linspace(0, 1, POINTS + 2)[1:-1]
    cuts = np.unique(np.clip(np.searchsorted(total, wanted), 0, count - 1))
    cuts = cuts[(total[cuts] > 0) & (total[cuts] < 1 - 1e-12)]
    found: Floats = (bins[None, :] <= cuts[:, None]).astype(np.float64)
    found -= found.mean(axis=1, keepdims=True)
    return found


def _smooth(least: int) -> int:
    """A length at or above the least that is 2^i times 1, 3, 5, 9 or 15: quick to transform."""
    return min(
        factor << max(0, (-(-least // factor) - 1).bit_length()) for factor in (1, 3, 5, 9, 15)
    )


def flat_top(series: Floats) -> float:
    """Long-run variance of a series of mean 0 over its variance, by the flat-top kernel with the
    bandwidth chosen from the correlogram; at least 0.05.

    Source: Politis and Romano (1995), Journal of Time Series Analysis 16; bandwidth: Politis
    (2003), Journal of Nonparametric Statistics 15.
    """
    n = len(series)
    variance = float(series @ series) / n if n else 0.0
    if n < 20 or variance <= 0:
        return 1.0
    lags = min(n - 1, max(100, n // 10))
    size = _smooth(n + lags)
    spectrum = np.fft.rfft(series, size)
    correlation = np.fft.irfft(spectrum * np.conj(spectrum), size)[: lags + 1] / (n * variance)
    run = max(5, math.ceil(math.sqrt(math.log10(n))))
    small = np.abs(correlation[1:]) < 2 * math.sqrt(math.log10(n) / n)
    # The first lag from which on so many in a row are small.
    inside = np.convolve(small, np.ones(run), mode="valid") >= run - 0.5
    cut = int(np.argmax(inside)) if inside.any() else lags // 2
    width = max(1, min(2 * cut, lags))
    steps = np.arange(1, width + 1) / width
    weights = np.where(steps <= 0.5, 1.0, 2 * (1 - steps))
    return max(0.05, 1 + 2 * float(weights @ correlation[1 : width + 1]))


def _window_means(series: Floats, length: int) -> float:
    """Variance of the means of the series' own windows, times their length, over its variance."""
    count = len(series) // length
    means = series[: count * length].reshape(count, length).mean(axis=1)
    variance = float(series.var())
    return length * float(means.var(ddof=1)) / variance if variance > 0 else 1.0


def _distances(bins: Ints, count: int, length: int) -> Floats:
    """Kolmogorov-Smirnov's distance of each of the series' own windows to the whole series."""
    windows = len(bins) // length
    rows = bins[: windows * length] + np.repeat(np.arange(windows) * count, length)
    table = np.bincount(rows, minlength=windows * count).reshape(windows, count)
    shares = np.cumsum(table, axis=1) / length
    whole = np.cumsum(table.sum(axis=0)) / (windows * length)
    found: Floats = np.abs(shares - whole).max(axis=1)
    # The whole holds the window itself.
    return found / math.sqrt(max(1 - 1 / windows, 0.5))


def inflation(series: Sequence[Ints], count: int) -> list[list[float]]:
    """[[rows, inflation], …] for windows of several lengths, ascending.

    Of the indicators' variance first; then scaled so that the series' own windows lie from the
    whole about as far as independent rows of the effective number would, as the distance is the
    largest over all bins, whose inflations differ.

    Args:
        series: the bins (0 … count - 1) that the rows of one symbol each lie in, by time.
        count: how many bins there are.
    """
    series = [bins for bins in series if len(bins) >= 20]
    parts = [indicators(bins, count) for bins in series]
    chosen = [i for i, part in enumerate(parts) if len(part)]
    if not chosen:
        return [[1.0, 1.0]]
    weights = np.array([len(series[i]) for i in chosen], dtype=np.float64)
    kernel = float(
        np.average([np.mean([flat_top(z) for z in parts[i]]) for i in chosen], weights=weights)
    )
    found = [[1.0, 1.0]]
    ratios, trust = [], []
    for length in LADDER:
        usable = [i for i in chosen if len(series[i]) // length >= LEAST_WINDOWS]
        if not usable:
            break
        spread = float(
            np.average(
                [np.mean([_window_means(z, length) for z in parts[i]]) for i in usable],
                weights=[len(series[i]) for i in usable],
            )
        )
        value = max(1.0, spread, min(kernel, length / 2))
        distance = np.concatenate([_distances(series[i], count, length) for i in usable])
        seen = length * (float(np.mean(distance**8)) / EIGHTH) ** 0.25
        if length / value >= 8:  # below, there is no asymptotic distribution to compare with
            ratios.append(seen / value)
            trust.append(math.sqrt(min(len(distance), 200)))
        found.append([float(length), value])
    if len(found) == 1:
        found.append([float(LADDER[0]), max(1.0, kernel)])
    # Half the way (of the logarithms): the windows are few, and err to either side.
    ratio = float(np.average(ratios, weights=trust)) if ratios else 1.0
    scale = min(1.0, max(0.5, math.sqrt(ratio)))
    return [found[0], *([length, max(1.0, value * scale)] for length, value in found[1:])]


def effective(n: float, ladder: Sequence[Sequence[float]]) -> float:
    """What n rows in a row are worth: n over the inflation at that length (between two lengths by
    the logarithm of the length, beyond the last as at the last)."""
    if n <= 0:
        return 0.0
    lengths = np.log([max(float(step[0]), 1.0) for step in ladder])
    factor = float(np.interp(math.log(max(n, 1.0)), lengths, [float(s[1]) for s in ladder]))
    return min(n, max(n / max(factor, 1e-9), 1.0))
