"""State probabilities of one bar from thresholds: what an operator can read and tune.

Each rule is soft: a logistic function of how far an observation is beyond its threshold, so that
probabilities move smoothly. The rules are asked in a fixed order, and what one takes the later ones
no longer get: crash, high volatility, bull and bear, low volatility; the rest is sideways.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from alphaplus.server.regime import observe as o
from alphaplus.server.regime.filtering import Dynamics
from alphaplus.server.regime.states import BEAR, BULL, COUNT, CRASH, HIGH, LOW, SIDEWAYS, Floats

# The thresholds as delivered (regime.threshold_names has the same), for the features of a regime,
# whose definition must not move with an operator's thresholds.
DELIVERED = {
    "softness": 0.1,
    "high_volatility_percentile": 0.71,
    "low_volatility_percentile": 0.28,
    "slow_trend_share": 1.0,
    "bull_trend": 0.06,
    "bear_trend": 0.06,
    "crash_drawdown": 3.4,
    "crash_fall": 0.46,
    "crash_volume": 0.3,
    "evidence": 0.5,
    "floor": 0.005,
    "dwell": 46.0,
    "crash_dwell": 35.0,
    "margin": 0.27,
    "verdict_penalty": 7.6,
    "verdict_limit": 336.0,
    "min_dwell": 6.0,
}


class Rules:
    """The classifier of thresholds."""

    def __init__(self, thresholds: Mapping[str, float]) -> None:
        self.thresholds = thresholds
        self.dynamics: Dynamics = dynamics(thresholds)

    def evidence(self, observations: Floats) -> Floats:
        """See :class:`alphaplus.server.regime.nowcast.Classifier`."""
        return evidence(observations, self.thresholds)


def _logistic(x: Floats) -> Floats:
    out: Floats = 1.0 / (1.0 + np.exp(-np.clip(x, -40.0, 40.0)))
    return out


def memberships(observations: Floats, t: Mapping[str, float]) -> Floats:
    """Probabilities (..., K) of observations (..., observe.COUNT) under thresholds."""
    x = observations
    soft = t["softness"]
    volatility = x[..., o.VOLATILITY_SLOW] - _normal_quantile(t["high_volatility_percentile"])
    calm = _normal_quantile(t["low_volatility_percentile"]) - x[..., o.VOLATILITY_SLOW]
    trend = (
        t["slow_trend_share"] * x[..., o.TREND_SLOW] + (1 - t["slow_trend_share"]) * x[..., o.TREND]
    )
    crash = _logistic((-x[..., o.DRAWDOWN] - t["crash_drawdown"]) / (soft * 2))
    crash = crash * _logistic((-x[..., o.FALL] - t["crash_fall"]) / (soft * 2))
    crash = crash * _logistic((x[..., o.VOLUME] - t["crash_volume"]) / soft)
    high = _logistic(volatility / (soft * 1.0))
    bull = _logistic((trend - t["bull_trend"]) / (soft * 0.2))
    bear = _logistic((-trend - t["bear_trend"]) / (soft * 0.2))
    low = _logistic(calm / (soft * 1.0))
    out = np.empty((*x.shape[:-1], COUNT))
    out[..., CRASH] = crash
    rest = 1.0 - crash
    out[..., HIGH] = rest * high
    rest = rest * (1.0 - high)
    # Of bull and bear at most one is likely; their sum stays below 1.
    scale = 1.0 / np.maximum(1.0, bull + bear)
    out[..., BULL] = rest * bull * scale
    out[..., BEAR] = rest * bear * scale
    rest = rest * (1.0 - np.minimum(1.0, bull + bear))
    out[..., LOW] = rest * low
    out[..., SIDEWAYS] = rest * (1.0 - low)
    return out


def _normal_quantile(p: float) -> float:
    """The standard normal quantile (statistics.NormalDist imports much; this is Newton on erf)."""
    x = 0.0
    for _ in range(60):
        error = 0.5 * (1.0 + math.erf(x / math.sqrt(2.0))) - p
        step = error / (math.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi))
        x -= max(-1.0, min(1.0, step))
    return x


def evidence(observations: Floats, t: Mapping[str, float]) -> Floats:
    """Log likelihoods (..., K): ln of the memberships, tempered, since neighbouring bars share most
    of what they see."""
    p = memberships(observations, t)
    out: Floats = t["evidence"] * np.log(np.maximum(p, t["floor"]))
    return out


def dynamics(t: Mapping[str, float]) -> Dynamics:
    """Geometric dwell times of the mean that the thresholds say; whoever leaves goes anywhere."""
    dwell = np.full(COUNT, t["dwell"])
    dwell[CRASH] = t["crash_dwell"]
    away = (1.0 - np.eye(COUNT)) / (COUNT - 1)
    return Dynamics((1.0 / dwell)[:, None], away, np.full(COUNT, 1.0 / COUNT), t["margin"])
