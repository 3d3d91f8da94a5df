"""Fourteen daily factors of price and volume, for panels of many symbols.

They are the plain ones among those that qlib's Alpha158 takes from daily bars (Yang et al. 2020,
"Qlib: An AI-oriented Quantitative Investment Platform"), with windows of 5, 20 and 60 bars. All are
finite windows over the bars that exist (weekends and holidays are no bars); a day has a vector only
where its bar is there and known.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from alphaplus.server.features import families, technical

Floats = npt.NDArray[np.float64]

WARMUP = 64
BLOCK = 512
_SOURCE = "qlib Alpha158"
_SAMPLE = np.sqrt(20 / 19)  # of a standard deviation of 20, over the population's

# name, formula, unit, bars needed
FACTORS: tuple[tuple[str, str, str, int], ...] = (
    ("kmid", "(close - open) / open", "fraction", 1),
    ("klen", "(high - low) / open", "fraction", 1),
    ("ksft", "(2 close - high - low) / open", "fraction", 1),
    ("roc_5", "close of 5 bars ago / close", "ratio", 6),
    ("roc_20", "close of 20 bars ago / close", "ratio", 21),
    ("roc_60", "close of 60 bars ago / close", "ratio", 61),
    ("ma_5", "mean of 5 closes / close", "ratio", 5),
    ("ma_20", "mean of 20 closes / close", "ratio", 20),
    ("ma_60", "mean of 60 closes / close", "ratio", 60),
    ("std_20", "sample standard deviation of 20 closes / close", "fraction", 20),
    ("max_20", "highest high of 20 bars / close", "ratio", 20),
    ("min_20", "lowest low of 20 bars / close", "ratio", 20),
    ("corr_20", "correlation of close and ln(volume + 1) over 20 bars", "-1 to 1", 20),
    ("vma_20", "mean volume of 20 bars / (volume + 1e-12)", "ratio", 20),
)


def compute(b: technical.Bars, last: bool = False) -> Floats:
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


FAMILY = families.Family(
    name="factors_1d",
    version=1,
    revision="1",
    description="Fourteen daily factors of price and volume, for panels of many symbols.",
    features=tuple(
        families.Feature(name, f"{formula} (needs {bars})", unit, _SOURCE)
        for name, formula, unit, bars in FACTORS
    ),
    needs=families.Needs(bars=WARMUP + BLOCK),
    series=lambda read, times, keep: technical.series_matrix(
        read,
        times,
        technical.Stretch(technical.DAY, WARMUP, BLOCK, max_age=1),
        compute,
        len(FACTORS),
        keep=keep,
    ),
    grid=technical.DAY,
)
