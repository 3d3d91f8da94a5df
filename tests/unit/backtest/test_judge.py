"""Deflation, overfitting and the reality check against purgedcv and against what is true."""

from __future__ import annotations

import numpy as np
import pytest
from alphaplus.server.backtest import judge
from numpy.typing import NDArray
from purgedcv import deflated_sharpe_ratio, probability_of_backtest_overfitting
from scipy import stats


def strategies(
    seed: int, skill: float = 0.0, ar: float = 0.0, bars: int = 1000, count: int = 30
) -> NDArray[np.float64]:
    """Correlated strategies, none skilled but the first, as on the page of measured limits."""
    rng = np.random.default_rng(seed)
    x: NDArray[np.float64] = np.sqrt(0.3) * rng.standard_normal((bars, 1)) + np.sqrt(
        0.7
    ) * rng.standard_normal((bars, count))
    for t in range(1, bars if ar else 0):
        x[t] = ar * x[t - 1] + np.sqrt(1 - ar * ar) * x[t]
    x *= 0.01
    x[:, 0] += skill * 0.01
    return x


@pytest.mark.parametrize("seed", range(5))
def test_deflated_sharpe_equals_purgedcv(seed: int) -> None:
    rng = np.random.default_rng(seed)
    returns = rng.standard_t(5, 400) * 0.01 + 0.0005
    trials = int(rng.integers(1, 200))
    variance = float(rng.uniform(1e-4, 1e-2))
    assert judge.deflated_sharpe(returns, variance, trials) == pytest.approx(
        deflated_sharpe_ratio(returns, trials, variance), abs=1e-12
    )


@pytest.mark.parametrize(("seed", "bars", "splits"), [(1, 240, 8), (2, 251, 8), (3, 400, 10)])
def test_overfitting_equals_purgedcv(seed: int, bars: int, splits: int) -> None:
    x = strategies(seed, bars=bars, count=8)
    x[:, 3] = 0  # one that never trades
    assert judge.overfitting(x, splits) == pytest.approx(
        probability_of_backtest_overfitting(x.T, splits).pbo, abs=1e-12
    )


def rejected(skill: float, ar: float, runs: int) -> float:
    p = [judge.reality_check(strategies(k, skill, ar), k, draws=199)[2] for k in range(runs)]
    return float(np.mean(np.array(p) <= 0.05))


def largest_share(runs: int) -> float:
    """Share of rejections that a test of size 0.05 exceeds in one of 20 such experiments."""
    return float(stats.binom.ppf(0.95, runs, 0.05)) / runs


def test_size_and_power_of_the_reality_check() -> None:
    assert rejected(0.0, 0.0, 100) <= largest_share(100)
    assert rejected(0.0, 0.2, 100) <= largest_share(100)
    assert rejected(0.1, 0.0, 100) >= 0.6


@pytest.mark.long
@pytest.mark.parametrize("ar", [0.0, 0.2])
def test_size_of_the_reality_check(ar: float) -> None:
    """600 families without skill: at most 0.065 of them are called real (0.05 and its chance)."""
    assert rejected(0.0, ar, 600) <= largest_share(600)


def test_nothing_to_judge() -> None:
    flat = np.zeros((100, 3))
    assert judge.reality_check(flat, 1)[0] == -1
    assert np.isnan(judge.deflated_sharpe(flat[:, 0], 0.1, 5))
    assert np.isnan(judge.overfitting(flat[:, :1]))
    assert np.isnan(judge.sharpe(np.zeros(1)))
    assert all(np.isnan(judge.sharpe_interval(np.zeros(50), 1)))


def test_interval_of_the_sharpe_ratio_covers() -> None:
    true = 0.05
    inside = 0
    for k in range(200):
        rng = np.random.default_rng(k)
        low, high = judge.sharpe_interval(rng.normal(true, 1, 500), k, draws=300)
        inside += low <= true <= high
    assert 0.88 <= inside / 200 <= 0.99
