"""Regimes as features: the observations behind them, and the state by the rules as delivered.

The definition is fixed: it does not move with an operator's thresholds or a promotion, or vectors
that were stored, and models trained on them, would change under their users' hands.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from alphaplus.server.features import families
from alphaplus.server.market import revisions as w
from alphaplus.server.regime import bars as b
from alphaplus.server.regime import nowcast, observe, rules
from alphaplus.server.regime.states import STATES, Floats, Times

_EPOCH = w.EPOCH * w.SECOND  # the features' times count from 2000, a regime's from 1970
_SOURCE = {
    "log_range": ("ln range volatility of the bar less its slow mean (half-life 336)", "ln"),
    "return": ("ln(close / previous close) / slow volatility", "ratio"),
    "range_fast": ("ln range volatility, half-life 2, less its slow mean", "ln"),
    "volatility_z": ("(ln range volatility, half-life 6, - slow mean) / slow spread", "z"),
    "volatility_slow_z": ("(ln range volatility, half-life 24, - slow mean) / slow spread", "z"),
    "trend_fast": ("mean return / mean absolute return, half-life 6", "ratio"),
    "trend": ("mean return / mean absolute return, half-life 24", "ratio"),
    "trend_slow": ("mean return / mean absolute return, half-life 72", "ratio"),
    "drawdown": ("ln(close / highest close of 72 bars) / (slow volatility x sqrt 24)", "ratio"),
    "fall": ("mean return, half-life 6, x sqrt 6 / slow volatility", "ratio"),
    "volume_z": ("ln volume, half-life 6, less half-life 168", "ln"),
    "level": ("ln range volatility of the bar", "ln"),
    "log_volume": ("ln volume of the bar", "ln"),
    "return_local": (
        "ln(close / previous close) / volatility before the bar, half-life 6",
        "ratio",
    ),
    "level_before_1": ("ln range volatility before the bar, half-life 1", "ln"),
    "level_before_3": ("ln range volatility before the bar, half-life 3", "ln"),
    "level_before_10": ("ln range volatility before the bar, half-life 10", "ln"),
    "volume_before_2": ("ln volume before the bar, half-life 2", "ln"),
    "volume_before_8": ("ln volume before the bar, half-life 8", "ln"),
}
_PARKINSON = "Parkinson (1980), J. of Business 53(1); alphaplus.server.regime.observe"
_RULES = "alphaplus.server.regime.rules, thresholds as delivered"
FEATURES = (
    *(families.Feature(name, *_SOURCE[name], _PARKINSON) for name in observe.NAMES),
    *(
        families.Feature(
            f"p_{state}", f"probability of {state} as known then", "probability", _RULES
        )
        for state in STATES
    ),
    families.Feature(
        "bars_in_regime", "bars since the regime began, 1 at its first", "bars", _RULES
    ),
)


def _both(lanes: Any) -> list[Floats]:
    observed = nowcast.observations_of(lanes)
    states = nowcast.regimes_of(rules.Rules(rules.DELIVERED))(lanes)
    out = []
    for seen, state in zip(observed, states, strict=True):
        known = state[:, -2] >= 0
        shown = np.where(known[:, None], np.delete(state, -2, axis=1), np.nan)
        out.append(np.column_stack([seen, shown]))
    return out


def _rows(width: int) -> Any:
    def rows(plpy: Any, cache: dict[str, Any], symbol: str, grid: Times) -> Floats:
        del cache
        if not len(grid):
            return np.empty((0, len(FEATURES)))
        times = grid + _EPOCH
        oldest = int(times[0]) - (b.MAX_AGE + 2) * width
        start = b.block_of(oldest, width) - b.WARMUP * width
        bars = b.read(plpy, [symbol], width, start, int(times[-1]) - width + 1)[symbol]
        return nowcast.at_times(bars, times, len(FEATURES), _both)

    return rows


def _family(name: str, words: str, width: int) -> families.Family:
    return families.Family(
        name=name,
        version=1,
        revision="1",
        description=f"Market regime of {words} bars: volatility, trend, drawdown and volume free of"
        " scale, and the probabilities of the six states.",
        features=FEATURES,
        needs=families.Needs(bars=b.WARMUP + b.BLOCK + b.MAX_AGE),
        rows=_rows(width),
        grid=width,
    )


FAMILIES = (
    _family("regime_5m", "5-minute", 5 * w.MINUTE),
    _family("regime_15m", "15-minute", 15 * w.MINUTE),
    _family("regime_1h", "hourly", 60 * w.MINUTE),
)
