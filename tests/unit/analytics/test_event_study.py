"""The event study: right on numbers made by hand, silent on placebo dates, awake for a move."""

from __future__ import annotations

import numpy as np
import pytest
from alphaplus.server.analytics.event_study import study
from numpy.typing import NDArray

LENGTH = 24


def world(seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64], np.random.Generator]:
    """A year of hours: volatility that clusters, a market, beta 1.3."""
    dice = np.random.default_rng(seed)
    n = 4000
    noise = dice.normal(size=n)
    log_vol = np.zeros(n)
    for i in range(1, n):
        log_vol[i] = 0.97 * log_vol[i - 1] + 0.1 * dice.normal()
    market = dice.standard_t(5, size=n) * 0.004
    return 1.3 * market + 0.005 * np.exp(log_vol) * noise, market, dice


def starts(dice: np.random.Generator, count: int = 8) -> NDArray[np.int64]:
    return np.sort(dice.choice(np.arange(100, 3900, 60), count, replace=False)).astype(np.int64)


def test_placebo_dates_are_significant_in_five_of_a_hundred_at_most() -> None:
    found = 0
    for seed in range(200):
        returns, market, dice = world(seed)
        made = study(returns, market, starts(dice), LENGTH)
        assert made is not None
        found += made.p_value <= 0.05
    # 5 % of 200 and two standard errors of it
    assert found <= 10 + 2 * np.sqrt(200 * 0.05 * 0.95)


def test_a_move_of_two_sigma_is_found() -> None:
    found = 0
    for seed in range(60):
        returns, market, dice = world(1000 + seed)
        at = starts(dice)
        abnormal = returns - 1.3 * market
        sigma = np.std([abnormal[i : i + LENGTH].sum() for i in range(0, 3900, LENGTH)])
        for start in at:
            returns[start : start + LENGTH] += 2 * sigma / LENGTH
        made = study(returns, market, at, LENGTH)
        assert made is not None
        found += made.p_value <= 0.05
    assert found / 60 >= 0.8


def test_the_numbers_are_those_of_least_squares() -> None:
    returns, market, dice = world(5)
    at = starts(dice)
    made = study(returns, market, at, LENGTH)
    assert made is not None
    outside = np.ones(len(returns), dtype=bool)
    for start in at:
        outside[start : start + LENGTH] = False
    beta, alpha = np.polyfit(market[outside], returns[outside], 1)
    assert (made.alpha, made.beta) == pytest.approx((alpha, beta))
    each = [(returns - alpha - beta * market)[s : s + LENGTH].sum() for s in at]
    assert made.each == pytest.approx(each)
    assert made.mean == pytest.approx(np.mean(each))
    assert made.lower < 0 < made.upper
    assert study(returns, market, at, LENGTH) == made


def test_too_little_is_no_answer() -> None:
    none = np.array([], dtype=np.int64)
    assert study(np.zeros(30), np.zeros(30), np.array([3]), 5) is None
    assert study(np.zeros(500), np.zeros(500), none, 5) is None
    assert study(np.full(500, np.nan), np.zeros(500), np.array([3]), 5) is None
