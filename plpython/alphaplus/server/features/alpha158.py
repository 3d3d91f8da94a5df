"""Fourteen daily factors of price and volume, for panels of many symbols.

They are the plain ones among those that qlib's Alpha158 takes from daily bars (Yang et al. 2020,
"Qlib: An AI-oriented Quantitative Investment Platform"), with windows of 5, 20 and 60 bars. All are
finite windows over the bars that exist (weekends and holidays are no bars); a day has a vector only
where its bar is there and known.
"""

from __future__ import annotations

import numpy as np
from alphaplus.server.features.family import Family, Feature, bar_inputs
from alphaplus.server.features.series import Bars, Stretch, series_matrix, spread
from alphaplus.server.market.reader import Needs
from alphaplus.server.types import DAY, Floats

WARMUP = 64
BLOCK = 512
_SOURCE = "qlib Alpha158"
_SAMPLE = np.sqrt(20 / 19)  # of a standard deviation of 20, over the population's

# name, formula, unit, bars needed, channels read by their first letters
FACTORS: tuple[tuple[str, str, str, int, str], ...] = (
    ("kmid", "(close - open) / open", "fraction", 1, "oc"),
    ("klen", "(high - low) / open", "fraction", 1, "ohl"),
    ("ksft", "(2 close - high - low) / open", "fraction", 1, "ohlc"),
    ("roc_5", "close of 5 bars ago / close", "ratio", 6, "c"),
    ("roc_20", "close of 20 bars ago / close", "ratio", 21, "c"),
    ("roc_60", "close of 60 bars ago / close", "ratio", 61, "c"),
    ("ma_5", "mean of 5 closes / close", "ratio", 5, "c"),
    ("ma_20", "mean of 20 closes / close", "ratio", 20, "c"),
    ("ma_60", "mean of 60 closes / close", "ratio", 60, "c"),
    ("std_20", "sample standard deviation of 20 closes / close", "fraction", 20, "c"),
    ("max_20", "highest high of 20 bars / close", "ratio", 20, "hc"),
    ("min_20", "lowest low of 20 bars / close", "ratio", 20, "lc"),
    ("corr_20", "correlation of close and ln(volume + 1) over 20 bars", "-1 to 1", 20, "cv"),
    ("vma_20", "mean volume of 20 bars / (volume + 1e-12)", "ratio", 20, "v"),
)


def compute(b: Bars, last: bool = False) -> Floats:
    """The factors at every bar, (bars, 14), or at the ``last`` one alone."""
    ta, close = b.ta, b.close
    columns = (
        (close - b.open) / b.open,
        (b.high - b.low) / b.open,
        (2 * close - b.high - b.low) / b.open,
        *(1 / ta.ROCR(close, bars) for bars in (5, 20, 60)),
        *(ta.SMA(close, bars) / close for bars in (5, 20, 60)),
        ta.STDDEV(close, 20, 1.0) * _SAMPLE / close,
        ta.MAX(b.high, 20) / close,
        ta.MIN(b.low, 20) / close,
        ta.CORREL(close, np.log(b.volume + 1), 20),
        b.volume_20 / (b.volume + 1e-12),
    )
    if last:
        return np.array([[column[-1] for column in columns]])
    values = np.empty((len(close), len(columns)))
    for place, column in enumerate(columns):
        values[:, place] = column
    return values


FAMILY = Family(
    name="factors_1d",
    version=2,
    revision="2",
    description="Fourteen daily factors of price and volume, for panels of many symbols.",
    features=tuple(
        Feature(name, f"{formula} (needs {bars})", unit, _SOURCE, bar_inputs(letters))
        for name, formula, unit, bars, letters in FACTORS
    ),
    needs=Needs(bars=WARMUP + BLOCK),
    reach=spread(DAY, WARMUP) + BLOCK,
    read=lambda reader, times, keep: series_matrix(
        reader.bars,
        times,
        Stretch(DAY, WARMUP, BLOCK, oldest=1),
        compute,
        len(FACTORS),
        keep=keep,
    ),
    only_bars=True,
    grid=DAY,
)
