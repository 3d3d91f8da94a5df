"""Regimes as features: the observations behind them, and the state by the rules as delivered.

The definition is fixed: it does not move with an operator's thresholds or a promotion, or vectors
that were stored, and models trained on them, would change under their users' hands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from alphaplus.server.database import EPOCH
from alphaplus.server.features.family import Family, Feature, Keep, bar_inputs
from alphaplus.server.market.reader import MarketReader, Needs
from alphaplus.server.regime import bars as b
from alphaplus.server.regime import nowcast, observe, rules
from alphaplus.server.regime.states import STATES
from alphaplus.server.types import MINUTE, Floats, Times

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
# What each looks at, where it is not the range alone.
_INPUTS = {
    "return": bar_inputs("hlc"),
    "trend_fast": bar_inputs("c"),
    "trend": bar_inputs("c"),
    "trend_slow": bar_inputs("c"),
    "drawdown": bar_inputs("hlc"),
    "fall": bar_inputs("hlc"),
    "volume_z": bar_inputs("v"),
    "log_volume": bar_inputs("v"),
    "return_local": bar_inputs("hlc"),
    "volume_before_2": bar_inputs("v"),
    "volume_before_8": bar_inputs("v"),
}
_PARKINSON = "Parkinson (1980), J. of Business 53(1); alphaplus.server.regime.observe"
_RULES = "alphaplus.server.regime.rules, thresholds as delivered"
FEATURES = (
    *(
        Feature(name, *_SOURCE[name], _PARKINSON, _INPUTS.get(name, bar_inputs("hl")))
        for name in observe.NAMES
    ),
    *(
        Feature(
            f"p_{state}",
            f"probability of {state} as known then",
            "probability",
            _RULES,
            bar_inputs("hlcv"),
        )
        for state in STATES
    ),
    Feature(
        "bars_in_regime",
        "bars since the regime began, 1 at its first",
        "bars",
        _RULES,
        bar_inputs("hlcv"),
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


def _read(width: int) -> Callable[[MarketReader, Times, Keep | None], Floats]:
    def read(reader: MarketReader, grid: Times, keep: Keep | None) -> Floats:
        del keep
        if not len(grid):
            return np.empty((0, len(FEATURES)))
        times = grid + EPOCH
        oldest = int(times[0]) - (b.MAX_AGE + 2) * width
        start = b.block_of(oldest, width) - b.WARMUP * width
        if reader.floor is not None:
            start = max(start, reader.floor + EPOCH)
        bars = b.read(reader.db.plpy, [reader.symbol], width, start, int(times[-1]) - width + 1)[
            reader.symbol
        ]
        return nowcast.at_times(bars, times, len(FEATURES), _both)

    return read


def _family(name: str, words: str, width: int) -> Family:
    return Family(
        name=name,
        version=1,
        revision="1",
        description=f"Market regime of {words} bars: volatility, trend, drawdown and volume free of"
        " scale, and the probabilities of the six states.",
        features=FEATURES,
        needs=Needs(bars=b.WARMUP + b.BLOCK + b.MAX_AGE),
        read=_read(width),
        grid=width,
    )


FAMILIES = (
    _family("regime_5m", "5-minute", 5 * MINUTE),
    _family("regime_15m", "15-minute", 15 * MINUTE),
    _family("regime_1h", "hourly", 60 * MINUTE),
)
