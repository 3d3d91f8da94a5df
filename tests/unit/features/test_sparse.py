"""Windows count bars: of random sparse, late and corrected bars each value is its definition."""

from __future__ import annotations

import numpy as np
import pandas as pd
from alphaplus.server.features import series, technical
from alphaplus.server.features.series import Stretch
from alphaplus.server.market import revisions as w
from alphaplus.server.types import DAY, HOUR, Floats, Times
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.features.test_technical import Market

NAMES = ("sma_20", "ema_12", "roc_10", "rvol_20", "parkinson_20")
WARMUP, BLOCK = 40, 24


def by_definition(known: pd.DataFrame, plan: technical.Plan, t: int) -> Floats:
    """What pandas makes of the bars known at t: the last WARMUP of them that opened before t's
    block, none of them too far back, and those of the block."""
    stretch = Stretch(plan.width, plan.warmup, plan.block)
    block = t // (plan.block * plan.width) * plan.block * plan.width
    oldest = block - stretch.spread * plan.width
    before = known[(known.bucket < block) & (known.bucket >= oldest)].tail(plan.warmup)
    bars = pd.concat([before, known[known.bucket >= block]])
    out = np.full(len(NAMES), np.nan)
    if not len(bars) or t - bars.bucket.iloc[-1] > stretch.max_age * plan.width:
        return out
    close, volume = bars.close, bars.volume
    squares = np.log(bars.high / bars.low) ** 2
    # TA-Lib's EMA begins with the mean of its period.
    seed = close[:12].mean()
    ema = pd.concat([pd.Series([seed]), close[12:]]).ewm(span=12, adjust=False).mean()
    values = (
        close.rolling(20).mean().iloc[-1],
        ema.iloc[-1],
        100 * (close.iloc[-1] / close.iloc[-11] - 1) if len(close) > 10 else np.nan,
        volume.iloc[-1] / volume[-21:-1].mean(),
        np.sqrt(squares.rolling(20).mean().iloc[-1] / (4 * np.log(2))),
    )
    for place, (name, value) in enumerate(zip(NAMES, values, strict=True)):
        output = next(o for o in technical.OUTPUTS if o.name == name)
        if len(bars) >= output.warmup:
            out[place] = value
    return out


def market(seed: int, count: int, width: int) -> Market:
    """Bars with holes short and long, some late, some corrected, some deleted later."""
    rng = np.random.default_rng(seed)
    steps = np.where(rng.random(count) < 0.1, rng.integers(1, 60, count), rng.integers(1, 4, count))
    if seed % 3 == 0:
        steps[rng.integers(count)] = 20_000  # longer than any spread
    bucket = np.cumsum(steps).astype(np.int64) * width + 700_000 * width
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, count)))
    channels = {
        "open": close,
        "high": close * 1.01,
        "low": close * 0.98,
        "close": close * 1.005,
        "volume": rng.gamma(2.0, 5.0, count) + 0.1,
    }
    usable = bucket + width
    expires = np.full(count, w.NEVER)
    late = rng.random(count) < 0.05
    usable[late] += rng.integers(1, 90, late.sum()) * width
    gone = rng.random(count) < 0.03
    expires[gone] = usable[gone] + rng.integers(1, 200, gone.sum()) * width
    # Corrections: another version from the time at which the first one ends.
    again = np.flatnonzero(gone & (rng.random(count) < 0.5))
    order = np.argsort(np.append(bucket, bucket[again]), kind="stable")

    def both(x: Times, y: Times) -> Times:
        return np.append(x, y)[order]

    return Market(
        width,
        both(bucket, bucket[again]),
        {n: np.append(v, v[again] * 1.02)[order] for n, v in channels.items()},
        both(usable, expires[again]),
        both(expires, np.full(len(again), w.NEVER)),
    )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), hourly=st.booleans())
def test_live_is_history_is_pandas(seed: int, hourly: bool) -> None:
    width = HOUR if hourly else w.MINUTE
    plan = technical.Plan("1h" if hourly else "1m", NAMES, WARMUP, BLOCK, relative=False)
    told = market(seed, 260, width)
    rng = np.random.default_rng(seed)
    first, last = told.bucket[0] // width, told.bucket[-1] // width
    grid = np.arange(last - min(400, last - first), last + 45, dtype=np.int64) * width
    history = technical.evaluate(told.read, grid, [plan])
    frame = pd.DataFrame(told.channels | {"bucket": told.bucket})
    for row in rng.integers(0, len(grid), 25).tolist():
        t = int(grid[row])
        live = technical.evaluate(told.read, grid[row : row + 1], [plan])[0]
        np.testing.assert_array_equal(live, history[row], err_msg=f"{row}")
        known = (told.usable <= t) & (told.expires > t) & (told.bucket + width <= t)
        expected = by_definition(frame[known], plan, t)
        np.testing.assert_allclose(live, expected, rtol=1e-9, err_msg=f"{row}")


def test_a_dense_series_is_read_once_and_no_further() -> None:
    bucket = np.arange(5000, dtype=np.int64) * w.MINUTE + 500 * 1440 * w.MINUTE
    told = Market(w.MINUTE, bucket, {name: np.arange(1.0, 5001) for name in series.CHANNELS})
    asked = []

    def read(width: int, start: int, end: int) -> w.Series:
        asked.append((start, end))
        return told.read(width, start, end)

    plan = technical.Plan("1m", ("sma_20",))
    technical.evaluate(read, bucket[3000:3001], [plan])
    assert asked == [(plan.begin(int(bucket[3000])), int(bucket[3000]))]
    technical.evaluate(read, bucket[100:101], [plan])  # the data begin there
    assert len(asked) == 4
    assert asked[-1][0] == plan.begin(int(bucket[100])) + plan.warmup * w.MINUTE - 7 * DAY


def test_how_old_and_how_far() -> None:
    ages = [series.greatest_age(width) for width in technical.TIMEFRAMES.values()]
    assert ages == [30, 30, 30, 24, 6, 5]
    week = 7 * DAY
    assert series.spread(w.MINUTE, 720) * w.MINUTE == week
    assert series.spread(w.MINUTE, 64) * w.MINUTE == week
    assert series.spread(HOUR, 720) * HOUR == 180 * DAY
