"""Whether what a strategy earned is skill: intervals, deflation, overfitting, the reality check."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
EULER = 0.5772156649015329


def sharpe(returns: Floats) -> float:
    """Mean over standard deviation, by bar; NaN where nothing varies."""
    if len(returns) < 2:
        return math.nan
    deviation = float(returns.std(ddof=1))
    return float(returns.mean()) / deviation if deviation > 1e-300 else math.nan


def block_length(n: int) -> int:
    """Blocks of n^(1/3) bars, at least ten: long enough for what is left of dependence."""
    return max(1, min(n, max(10, round(math.cbrt(n)))))


def block_means(n: int, block: int, draws: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Starts of circular blocks (Politis and Romano 1992), draws by blocks."""
    return rng.integers(0, n, (draws, -(-n // block)))


def _block_sums(values: Floats, block: int) -> Floats:
    """Sums of the circular block that begins at each bar; values are bars by columns."""
    wrapped = np.concatenate([values, values[:block]])
    total = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(wrapped, axis=0)])
    sums: Floats = total[block : block + len(values)] - total[: len(values)]
    return sums


def _understated(centred: Floats, block: int) -> Floats:
    """By how much sums of blocks understate the deviation of each column's mean; at least 1.

    A block's sum leaves out the dependence that reaches beyond its ends (a triangular lag window),
    and centring takes block / n away. Twice the long-run variance by blocks less that by blocks
    half as long has no such leading term (the flat-top window of Politis and Romano 1995).
    """
    n = len(centred)
    whole = (_block_sums(centred, block) ** 2).mean(axis=0) / block
    half = max(1, block // 2)
    short = (_block_sums(centred, half) ** 2).mean(axis=0) / half
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(whole > 0, (2 * whole - short) / whole, 1.0)
    missing: Floats = np.sqrt(np.maximum(ratio, 1.0) * n / max(n - block, 1))
    return missing


def sharpe_interval(
    returns: Floats, seed: int, draws: int = 1000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the Sharpe ratio by bar, circular block bootstrap."""
    n = len(returns)
    if n < 20 or not math.isfinite(sharpe(returns)):
        return math.nan, math.nan
    block = block_length(n)
    starts = block_means(n, block, draws, np.random.default_rng(seed))
    size = starts.shape[1] * block
    both = _block_sums(np.stack([returns, returns**2], axis=1), block)
    mean = both[starts, 0].sum(axis=1) / size
    square = both[starts, 1].sum(axis=1) / size
    variance = (square - mean**2) * size / (size - 1)
    ratio = mean[variance > 0] / np.sqrt(variance[variance > 0])
    if len(ratio) < draws // 2:
        return math.nan, math.nan
    low, high = np.quantile(ratio, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def reality_check(
    returns: Floats, seed: int, draws: int = 1000, block: int | None = None
) -> tuple[int, float, float]:
    """The best of the columns, its statistic and the p-value of "none of them has skill".

    White (2000), Econometrica 68(5), with Hansen's (2005) studentising, circular blocks; returns
    are bars by strategies, less a benchmark's. Columns that never vary take no part.
    """
    n = len(returns)
    deviation = returns.std(axis=0, ddof=1)
    usable = np.flatnonzero(deviation > 1e-300)
    if n < 20 or len(usable) == 0:
        return -1, math.nan, math.nan
    x = returns[:, usable]
    scale = math.sqrt(n) / deviation[usable]
    statistic = x.mean(axis=0) * scale
    best = int(statistic.argmax())
    width = block or block_length(n)
    starts = block_means(n, width, draws, np.random.default_rng(seed))
    sums = _block_sums(x - x.mean(axis=0), width)
    scale = scale * _understated(x - x.mean(axis=0), width)
    largest = np.empty(draws)
    for k in range(draws):
        largest[k] = (sums[starts[k]].sum(axis=0) / (starts.shape[1] * width) * scale).max()
    p = (1 + int((largest >= statistic[best]).sum())) / (1 + draws)
    return int(usable[best]), float(statistic[best]), p


def expected_best(variance: float, trials: int) -> float:
    """Sharpe ratio expected of the best of so many trials without skill."""
    if trials < 2:
        return 0.0
    from scipy import stats

    return math.sqrt(variance) * (
        (1 - EULER) * float(stats.norm.ppf(1 - 1 / trials))
        + EULER * float(stats.norm.ppf(1 - 1 / (trials * math.e)))
    )


def deflated_sharpe(returns: Floats, variance: float, trials: int) -> float:
    """Chance that the true Sharpe ratio is above what the best of so many trials has by luck.

    Bailey and Lopez de Prado (2014), Journal of Portfolio Management 40(5).
    """
    if len(returns) < 4 or not math.isfinite(sharpe(returns)):
        return math.nan
    from scipy import stats

    ratio = float(returns.mean() / returns.std())
    skew = float(stats.skew(returns, bias=False))
    kurtosis = float(stats.kurtosis(returns, bias=False, fisher=False))
    spread = 1 - skew * ratio + (kurtosis - 1) / 4 * ratio**2
    if not spread > 0:
        return math.nan
    z = (ratio - expected_best(variance, trials)) * math.sqrt(len(returns) - 1) / math.sqrt(spread)
    return float(stats.norm.cdf(z))


def overfitting(returns: Floats, splits: int = 16) -> float:
    """Chance that the best in one half of the time is below the median in the other (CSCV).

    Bailey, Borwein, Lopez de Prado and Zhu (2017), Journal of Computational Finance 20(4). returns
    are bars by strategies.
    """
    n, k = returns.shape
    if k < 2 or n < 2 * splits:
        return math.nan
    from scipy import stats

    parts = np.array_split(np.arange(n), splits)
    count = np.array([len(p) for p in parts], np.float64)
    total = np.array([returns[p].sum(axis=0) for p in parts])
    # About the mean of all, so that squares lose no digits.
    centre = returns.mean(axis=0)
    apart = np.array([((returns[p] - centre) ** 2).sum(axis=0) for p in parts])

    def ratios(chosen: list[int]) -> Floats:
        m = count[chosen].sum()
        mean = total[chosen].sum(axis=0) / m
        variance = (apart[chosen].sum(axis=0) - m * (mean - centre) ** 2) / (m - 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(variance > 1e-300, mean / np.sqrt(variance), 0.0)

    below = 0
    every = list(combinations(range(splits), splits // 2))
    for inside in every:
        chosen = set(inside)
        best = int(ratios(list(inside)).argmax())
        outside = ratios([i for i in range(splits) if i not in chosen])
        rank = float(stats.rankdata(outside)[best]) / (k + 1)
        below += rank < 0.5
    return below / len(every)
