"""The 61 patterns against TA-Lib called once over the whole series, on real candles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import talib
from alphaplus.server.features import patterns, series
from alphaplus.server.market import revisions as w
from talib import _ta_lib as ta
from talib import abstract

from tests.unit.features.test_technical import Market, hours, minutes


def test_all_of_talibs_patterns_with_its_own_warm_up() -> None:
    known = talib.get_function_groups()["Pattern Recognition"]
    assert [pattern.name.upper() for pattern in patterns.PATTERNS] == known
    assert len(known) == 61
    for pattern in patterns.PATTERNS:
        assert pattern.warmup == abstract.Function(pattern.name.upper()).lookback + 1


@pytest.mark.parametrize("source", ["minutes", "hours"])
def test_every_pattern_equals_talib_over_the_whole_series(shared_data: Path, source: str) -> None:
    market = minutes(shared_data, 45_031) if source == "minutes" else hours(shared_data)
    values = patterns.evaluate(market.read, market.bucket + market.width, market.width)
    prices = [market.channels[name] for name in series.CHANNELS[:4]]
    seen = 0
    for column, pattern in enumerate(patterns.PATTERNS):
        expected = getattr(ta, pattern.name.upper())(*prices) / 100
        mine = values[:, column]
        assert np.isnan(mine[: pattern.warmup - 1]).all()
        np.testing.assert_array_equal(mine[pattern.warmup - 1 :], expected[pattern.warmup - 1 :])
        seen += bool(np.nanmax(np.abs(mine)))
    assert seen > 35


def test_one_time_gives_what_history_gives(shared_data: Path) -> None:
    market = minutes(shared_data, 1000)
    grid = market.bucket + market.width
    history = patterns.evaluate(market.read, grid, market.width)
    for row in range(0, 1000, 37):
        once = patterns.evaluate(market.read, grid[row : row + 1], market.width)
        np.testing.assert_array_equal(once[0], history[row])


def test_little_or_flat_data() -> None:
    grid = np.arange(1, 60, dtype=np.int64) * w.MINUTE
    for bars in (0, 1, 3, 59):
        market = Market(
            w.MINUTE, (grid - w.MINUTE)[:bars], {n: np.full(bars, 7.0) for n in series.CHANNELS}
        )
        values = patterns.evaluate(market.read, grid, w.MINUTE)
        assert values.shape == (59, 61)
        assert bars < 10 or np.isfinite(values[bars - 1]).all()
