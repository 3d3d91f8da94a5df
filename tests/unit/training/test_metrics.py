"""What the database measures, held against scikit-learn and scipy; the size of the calibration test."""

from __future__ import annotations

import numpy as np
import pytest
from alphaplus.server.training import metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

MINUTE = 60_000_000


def sample(seed: int, rows: int = 600) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    p = np.round(rng.random(rows), 2)  # with ties
    y = (rng.random(rows) < p).astype(float)
    ts = np.arange(rows, dtype=np.int64) * 10 * MINUTE
    return ts, y, p


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_classification_is_scikit_learns(seed: int) -> None:
    ts, y, p = sample(seed)
    base = np.full(len(y), 0.4)
    chosen = p >= 0.5
    found = metrics.classification(ts, y, p, base, chosen, metrics.blocks(ts, 30 * MINUTE))
    clipped = np.clip(p, 1e-15, 1 - 1e-15)
    for name, value in {
        "auc": sk.roc_auc_score(y, p),
        "average_precision": sk.average_precision_score(y, p),
        "log_loss": sk.log_loss(y, clipped),
        "brier": sk.brier_score_loss(y, p),
        "f1": sk.f1_score(y, chosen),
        "f1_base_rate": sk.f1_score(y, np.ones(len(y))),
        "precision": sk.precision_score(y, chosen),
        "recall": sk.recall_score(y, chosen),
    }.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name
    assert found["auc_low"] <= found["auc"] <= found["auc_high"]
    days = ts // (1440 * MINUTE)
    ranks = [
        stats.spearmanr(p[days == d], y[days == d]).statistic
        for d in np.unique(days) if (days == d).sum() >= 20
    ]  # fmt: skip
    assert found["rank_ic"] == pytest.approx(np.mean(ranks), abs=1e-12)


def test_regression_is_scikit_learns() -> None:
    ts, y, p = sample(4)
    y = y + np.random.default_rng(1).normal(size=len(y))
    base = np.full(len(y), y.mean())
    found = metrics.regression(ts, y, p, base, metrics.blocks(ts, 30 * MINUTE))
    assert found["rmse"] == pytest.approx(np.sqrt(sk.mean_squared_error(y, p)), abs=1e-12)
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(y, p), abs=1e-12)
    assert found["r2"] == pytest.approx(sk.r2_score(y, p), abs=1e-12)
    assert found["spearman"] == pytest.approx(stats.spearmanr(p, y).statistic, abs=1e-12)


def walk(seed: int, horizon: int, days: int = 6) -> tuple[np.ndarray, ...]:
    """(ts, y, true probability) of whether a random walk is higher after so many minutes."""
    rng = np.random.default_rng(seed)
    count = days * 1440
    price = np.cumsum(rng.normal(size=count + horizon + 1440))
    now, then = price[1440 : 1440 + count], price[1440 + horizon : 1440 + horizon + count]
    p = 0.5 + 1e-6 * (now - price[1200 : 1200 + count])
    return np.arange(count, dtype=np.int64) * MINUTE, (then > now).astype(float), p


def test_the_true_probability_passes_the_calibration_gate() -> None:
    """The plain ECE refuses it in nearly all tests of six days at 240 minutes."""
    plain = refused = 0
    for seed in range(60):
        ts, y, p = walk(seed, 240)
        found = metrics.calibration(y, p, metrics.blocks(ts, 240 * MINUTE), resamples=399)
        plain += found["ece"] > 0.05
        refused += found["ece_beyond_chance"] > 0.05
    assert plain > 50
    assert refused <= 9  # 15 %; the nominal size is 5 %


def test_a_wrong_probability_does_not() -> None:
    for seed in range(10):
        ts, y, p = walk(seed, 15, days=20)
        block = metrics.blocks(ts, 15 * MINUTE)
        assert metrics.calibration(y, p + 0.15, block)["ece_beyond_chance"] > 0.05


def test_paired_differences() -> None:
    ts, y, p = sample(5)
    block = metrics.blocks(ts, 30 * MINUTE)
    worse = np.clip(0.5 * p + 0.25, 0.01, 0.99)
    p = np.clip(p, 0.01, 0.99)
    found = metrics.paired("classification", ts, y, p, worse, block)
    assert found["difference"] == pytest.approx(
        sk.log_loss(y, worse) - sk.log_loss(y, p), abs=1e-12
    )
    assert 0 < found["low"] < found["difference"] < found["high"] and found["p_value"] < 0.01
    same = metrics.paired("classification", ts, y, p, p, block)
    assert (same["difference"], same["p_value"]) == (0, 1)


def test_paired_differences_have_the_size_they_say() -> None:
    """Two forecasts that are as good as each other: the interval holds 0 in about 95 % of runs."""
    missed = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        ts = np.arange(2000, dtype=np.int64) * MINUTE
        y = np.repeat(rng.normal(size=200), 10)
        a, b = (np.repeat(rng.normal(size=200), 10) for _ in range(2))
        found = metrics.paired("regression", ts, y, a, b, metrics.blocks(ts, 10 * MINUTE))
        missed += not found["low"] <= 0 <= found["high"]
    assert missed <= 14
