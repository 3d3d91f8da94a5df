"""The 61 candlestick patterns of TA-Lib, as features and as rows.

A pattern's value at t is TA-Lib's answer for the last bar closed and known by t, over 100: the sign
is its direction, the size its strength (1; 0.8 where two edges are equal; 2 for a confirmed
Hikkake), 0 no pattern. TA-Lib compares a candle with running means of those before it; as with the
indicators (:mod:`.technical`) a run starts at a fixed time before t's block, so
that history and the live edge give the same. Some shapes say nothing of direction (a doji is always
+1, a spinning top has the sign of its colour): they are ``neutral`` in ``feature.patterns``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from alphaplus.server import database, errors
from alphaplus.server.database import Database
from alphaplus.server.features import compute as computing
from alphaplus.server.features.family import BarReader, Family, Feature, Keep, bar_inputs
from alphaplus.server.features.series import Bars, Stretch, series_matrix, spread
from alphaplus.server.market.reader import MarketReader, Needs
from alphaplus.server.types import MINUTE, Floats, Times

WARMUP = 64
BLOCK = 240
MAX_AGE = 5  # bars; an older one shows no pattern any more


class Pattern(NamedTuple):
    """A pattern: TA-Lib's function in lower case, its title, the bars it needs, whether its sign
    is a direction."""

    name: str
    title: str
    warmup: int
    directed: bool


PATTERNS: tuple[Pattern, ...] = (
    Pattern("cdl2crows", "Two Crows", 13, True),
    Pattern("cdl3blackcrows", "Three Black Crows", 14, True),
    Pattern("cdl3inside", "Three Inside Up/Down", 13, True),
    Pattern("cdl3linestrike", "Three-Line Strike", 9, True),
    Pattern("cdl3outside", "Three Outside Up/Down", 4, True),
    Pattern("cdl3starsinsouth", "Three Stars In The South", 13, True),
    Pattern("cdl3whitesoldiers", "Three Advancing White Soldiers", 13, True),
    Pattern("cdlabandonedbaby", "Abandoned Baby", 13, True),
    Pattern("cdladvanceblock", "Advance Block", 13, True),
    Pattern("cdlbelthold", "Belt-hold", 11, True),
    Pattern("cdlbreakaway", "Breakaway", 15, True),
    Pattern("cdlclosingmarubozu", "Closing Marubozu", 11, True),
    Pattern("cdlconcealbabyswall", "Concealing Baby Swallow", 14, True),
    Pattern("cdlcounterattack", "Counterattack", 12, True),
    Pattern("cdldarkcloudcover", "Dark Cloud Cover", 12, True),
    Pattern("cdldoji", "Doji", 11, False),
    Pattern("cdldojistar", "Doji Star", 12, True),
    Pattern("cdldragonflydoji", "Dragonfly Doji", 11, False),
    Pattern("cdlengulfing", "Engulfing", 3, True),
    Pattern("cdleveningdojistar", "Evening Doji Star", 13, True),
    Pattern("cdleveningstar", "Evening Star", 13, True),
    Pattern("cdlgapsidesidewhite", "Up/Down-gap side-by-side white lines", 8, True),
    Pattern("cdlgravestonedoji", "Gravestone Doji", 11, False),
    Pattern("cdlhammer", "Hammer", 12, True),
    Pattern("cdlhangingman", "Hanging Man", 12, True),
    Pattern("cdlharami", "Harami", 12, True),
    Pattern("cdlharamicross", "Harami Cross", 12, True),
    Pattern("cdlhighwave", "High-Wave Candle", 11, False),
    Pattern("cdlhikkake", "Hikkake", 6, True),
    Pattern("cdlhikkakemod", "Modified Hikkake", 11, True),
    Pattern("cdlhomingpigeon", "Homing Pigeon", 12, True),
    Pattern("cdlidentical3crows", "Identical Three Crows", 13, True),
    Pattern("cdlinneck", "In-Neck", 12, True),
    Pattern("cdlinvertedhammer", "Inverted Hammer", 12, True),
    Pattern("cdlkicking", "Kicking", 12, True),
    Pattern(
        "cdlkickingbylength", "Kicking - bull/bear determined by the longer marubozu", 12, True
    ),
    Pattern("cdlladderbottom", "Ladder Bottom", 15, True),
    Pattern("cdllongleggeddoji", "Long Legged Doji", 11, False),
    Pattern("cdllongline", "Long Line Candle", 11, True),
    Pattern("cdlmarubozu", "Marubozu", 11, True),
    Pattern("cdlmatchinglow", "Matching Low", 7, True),
    Pattern("cdlmathold", "Mat Hold", 15, True),
    Pattern("cdlmorningdojistar", "Morning Doji Star", 13, True),
    Pattern("cdlmorningstar", "Morning Star", 13, True),
    Pattern("cdlonneck", "On-Neck", 12, True),
    Pattern("cdlpiercing", "Piercing", 12, True),
    Pattern("cdlrickshawman", "Rickshaw Man", 11, False),
    Pattern("cdlrisefall3methods", "Rising/Falling Three Methods", 15, True),
    Pattern("cdlseparatinglines", "Separating Lines", 12, True),
    Pattern("cdlshootingstar", "Shooting Star", 12, True),
    Pattern("cdlshortline", "Short Line Candle", 11, True),
    Pattern("cdlspinningtop", "Spinning Top", 11, False),
    Pattern("cdlstalledpattern", "Stalled", 13, True),
    Pattern("cdlsticksandwich", "Stick Sandwich", 8, True),
    Pattern("cdltakuri", "Takuri (Dragonfly Doji with very long lower shadow)", 11, True),
    Pattern("cdltasukigap", "Tasuki Gap", 8, True),
    Pattern("cdlthrusting", "Thrusting", 12, True),
    Pattern("cdltristar", "Tristar", 13, True),
    Pattern("cdlunique3river", "Unique 3 River", 13, True),
    Pattern("cdlupsidegap2crows", "Upside Gap Two Crows", 13, True),
    Pattern("cdlxsidegap3methods", "Upside/Downside Gap Three Methods", 3, True),
)
NAMES = tuple(pattern.name for pattern in PATTERNS)
_CALLS = tuple((pattern.name.upper(), pattern.warmup - 1) for pattern in PATTERNS)
_FIRST = np.array([first for _, first in _CALLS])


def compute(bars: Bars, last: bool = False) -> Floats:
    """All patterns at every bar, (bars, 61), or at the ``last`` one alone, (1, 61): NaN until a
    pattern has the bars it needs."""
    count = bars.count
    talib, prices = bars.ta, (bars.open, bars.high, bars.low, bars.close)
    if last and count:
        row = np.array([[getattr(talib, function)(*prices)[-1] for function, _ in _CALLS]]) / 100
        row[:, count <= _FIRST] = np.nan
        return row
    out = np.full((len(PATTERNS), count), np.nan)
    if count:
        for row, (function, first) in zip(out, _CALLS, strict=True):
            np.divide(getattr(talib, function)(*prices)[first:], 100, out=row[first:])
    return out.T


def evaluate(read: BarReader, grid: Times, width: int, keep: Keep | None = None) -> Floats:
    """All patterns at each ascending grid time, of bars of a width in microseconds."""
    stretch = Stretch(width, WARMUP, BLOCK, MAX_AGE)
    return series_matrix(read, grid, stretch, compute, len(PATTERNS), keep=keep)


def rows(
    plpy: Any, cache: dict[str, Any], symbol: str, width: int, start: int, stop: int
) -> Iterator[tuple[int, str, str, str, float]]:
    """``(time, pattern, title, direction, strength)`` at multiples of the bars' width in
    [start, stop)."""
    begin, end = database.moments(plpy, start, stop)
    grid = np.arange(-(-begin // width) * width, end, width, dtype=np.int64)
    reader = MarketReader(Database.of(plpy, cache), symbol)
    return errors.rows(cache, _rows(reader, grid, width), 5)


def _rows(
    reader: MarketReader, grid: Times, width: int
) -> Iterator[tuple[int, str, str, str, float]]:
    for begin in range(0, len(grid), computing.READ):
        part = grid[begin : begin + computing.READ]
        values = evaluate(reader.at(part).bars, part, width)
        there, which = np.nonzero(np.nan_to_num(values))
        times = database.micros(*part.tolist())
        for row, column in zip(there.tolist(), which.tolist(), strict=True):
            pattern, value = PATTERNS[column], float(values[row, column])
            sign = "bullish" if value > 0 else "bearish"
            direction = sign if pattern.directed else "neutral"
            yield times[row], pattern.name, pattern.title, direction, math.fabs(value)


FAMILY = Family(
    name="patterns_1m",
    version=2,
    revision="2",
    description="The 61 candlestick patterns of TA-Lib on one-minute bars.",
    features=tuple(
        Feature(
            pattern.name,
            f"{pattern.title}: TA-Lib's answer for the last closed bar / 100"
            f" (needs {pattern.warmup} bars)",
            "signed strength",
            f"TA-Lib {pattern.name.upper()}",
            bar_inputs("ohlc"),
        )
        for pattern in PATTERNS
    ),
    needs=Needs(bars=WARMUP + BLOCK),
    reach=spread(MINUTE, WARMUP) + BLOCK,
    read=lambda reader, times, keep: evaluate(reader.bars, times, MINUTE, keep),
    only_bars=True,
)
