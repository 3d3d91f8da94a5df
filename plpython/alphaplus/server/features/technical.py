"""Technical indicators of candles: trend, momentum, volatility, volume, cycle, on six timeframes.

**What a value is.** Bars are cut into blocks of UTC time, :data:`BLOCK` bars long. An indicator at
t is TA-Lib (or the formula below) run once over the bars from :data:`WARMUP` bars before the start
of t's block to the last bar closed and known by t. History and the live edge read the same stretch
and run the same loop, so they agree to the last bit, recursive indicators too; and the stretch is
long enough that a longer one changes a value by less than 1e-9 of it (each indicator says how many
bars it needs, and is null until it has them). Windows count bars, not time: those that are missing
are skipped, never made up, as far back as :func:`.series.spread` says.

Prices are in quote currency, volumes in base units. A bar older than :func:`.series.greatest_age`
is no answer: the value is then null.

A *set* holds scale-free numbers, so that a model does not learn the price level: a price p is held
as p / close - 1, a difference of prices as d / close, a volume as v / (mean volume of 20 bars).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
from alphaplus.server import database, errors
from alphaplus.server.database import Database
from alphaplus.server.features import compute, incremental
from alphaplus.server.features.family import BarReader, Family, Feature, Keep, bar_inputs
from alphaplus.server.features.series import Bars, Stretch, begin, series_matrix, spread
from alphaplus.server.market.reader import MarketReader, Needs
from alphaplus.server.types import DAY, HOUR, MINUTE, Floats, Mask, Times

BLOCK = 480
WARMUP = 720
# Name of a timeframe in features' names -> its length.
TIMEFRAMES = {
    "1m": MINUTE,
    "5m": 5 * MINUTE,
    "15m": 15 * MINUTE,
    "1h": HOUR,
    "4h": 4 * HOUR,
    "1d": DAY,
}


class Output(NamedTuple):
    """One indicator: ``kind`` is price, delta (of prices), volume, force (price x volume) or pure;
    ``warmup`` the bars it needs, ``finite`` whether it uses no others."""

    name: str
    kind: str
    group: str
    formula: str
    unit: str
    source: str
    warmup: int
    finite: bool


class Calculation(NamedTuple):
    """Outputs that one call gives together."""

    outputs: tuple[Output, ...]
    call: Callable[[Bars], tuple[Floats, ...]]


def recursive(alpha: float, first: int, stages: int = 1) -> int:
    """Bars until what lies before has less than 1e-10 of the weight: a filter of factor ``alpha``,
    ``stages`` of them in a row, that starts after ``first`` bars."""
    decay = -math.log1p(-alpha)
    bars = 23.03 / decay
    for _ in range(3):  # n^(stages-1) exp(-decay n) / (stages-1)! = 1e-10
        power = (stages - 1) * math.log(max(bars * decay, 1.0)) - math.lgamma(stages)
        bars = (23.03 + max(power, 0.0)) / decay
    return first + math.ceil(bars)


def ema(period: int, first: int = 0, stages: int = 1) -> int:
    """Bars an exponential average needs."""
    return recursive(2 / (period + 1), first or period, stages)


def wilder(period: int, first: int = 0, stages: int = 1) -> int:
    """Bars an average with Wilder's smoothing needs."""
    return recursive(1 / period, first or period, stages)


CALCULATIONS: list[Calculation] = []
_UNITS = {
    "price": "quote currency",
    "delta": "quote currency",
    "volume": "base units",
    "force": "quote currency x base units",
}


def _add(
    group: str,
    call: Callable[[Bars], Any],
    *outputs: tuple[str, str, str, str],
    source: str,
    warmup: int,
    finite: bool = True,
) -> None:
    """Declare outputs (name, kind, unit or "", formula) of one call."""
    declared = tuple(
        Output(name, kind, group, formula, unit or _UNITS[kind], source, warmup, finite)
        for name, kind, unit, formula in outputs
    )

    def tupled(bars: Bars) -> tuple[Floats, ...]:
        result = call(bars)
        return result if isinstance(result, tuple) else (result,)

    CALCULATIONS.append(Calculation(declared, tupled))


def _of_close(function: str, period: int) -> Callable[[Bars], Any]:
    return lambda bars: getattr(bars.ta, function)(bars.close, period)


def _shift(x: Floats, bars: int) -> Floats:
    out = np.full_like(x, np.nan)
    out[bars:] = x[:-bars] if bars else x
    return out


def _change(x: Floats, bars: int) -> Floats:
    return x - _shift(x, bars)


def _bollinger(b: Bars) -> tuple[Floats, ...]:
    upper, middle, lower = b.ta.BBANDS(b.close, 20, 2.0, 2.0, 0)
    width = upper - lower
    return upper, lower, width / middle, (b.close - lower) / width


def _donchian(b: Bars) -> tuple[Floats, ...]:
    upper, _, lower = b.ta.DONCHIAN(b.high, b.low, 20)
    return upper, lower, (b.close - lower) / (upper - lower)


def _ichimoku(b: Bars) -> tuple[Floats, ...]:
    tenkan = b.ta.MIDPRICE(b.high, b.low, 9)
    kijun = b.ta.MIDPRICE(b.high, b.low, 26)
    slow = b.ta.MIDPRICE(b.high, b.low, 52)
    return tenkan, kijun, _shift((tenkan + kijun) / 2, 26), _shift(slow, 26)


def _vwap(b: Bars) -> Floats:
    value: Floats = b.ta.SUM(b.typical * b.volume, 60) / _positive(b.ta.SUM(b.volume, 60))
    return value


def _positive(x: Floats) -> Floats:
    return np.where(x > 0, x, np.nan)


def _parkinson(b: Bars) -> Floats:
    squares = b.log_range**2
    value: Floats = np.sqrt(_floor(b.ta.SMA(squares, 20)) / (4 * math.log(2)))
    return value


def _floor(x: Floats) -> Floats:
    return np.maximum(x, 0.0)


def _garman_klass(b: Bars) -> Floats:
    terms = 0.5 * b.log_range**2 - (2 * math.log(2) - 1) * b.log_body**2
    value: Floats = np.sqrt(_floor(b.ta.SMA(terms, 20)))
    return value


def _yang_zhang(b: Bars) -> Floats:
    n = 20
    k = 0.34 / (1.34 + (n + 1) / (n - 1))
    overnight = np.log(b.open / np.concatenate([b.open[:1], b.close[:-1]]))
    sample = n / (n - 1)
    variance = (
        sample * b.ta.VAR(overnight, n, 1.0)
        + k * sample * b.ta.VAR(b.log_body, n, 1.0)
        + (1 - k) * b.ta.SMA(b.rogers_satchell, n)
    )
    value: Floats = np.sqrt(_floor(variance))
    return value


def _realised(b: Bars, bars: int) -> Floats:
    value: Floats = b.ta.STDDEV(b.returns, bars, 1.0) * math.sqrt(bars / (bars - 1))
    return value


def _volume_z(b: Bars) -> Floats:
    value: Floats = (b.volume - b.ta.SMA(b.volume, 60)) / _positive(b.ta.STDDEV(b.volume, 60, 1.0))
    return value


def _autocorrelation(b: Bars, lag: int) -> Floats:
    value = np.full_like(b.close, np.nan)
    value[lag:] = b.ta.CORREL(b.returns[lag:], b.returns[:-lag], 60)
    return value


def _phase(b: Bars) -> tuple[Floats, ...]:
    phase = b.ta.HT_DCPHASE(b.close)
    return phase, np.sin(np.radians(phase)), np.sin(np.radians(phase + 45))


def _hurst(b: Bars) -> Floats:
    lags = (1, 2, 4, 8, 16)
    price = np.log(b.close)
    rows = np.full((len(lags), len(price)), np.nan)
    for row, lag in zip(rows, lags, strict=True):
        row[lag:] = b.ta.SMA((price[lag:] - price[:-lag]) ** 2, 128)
    x = np.log(lags) - np.mean(np.log(lags))
    slope: Floats = (x[:, None] * np.log(_positive(rows))).sum(axis=0) / (x @ x)
    return slope / 2


# One declaration a line or two reads better than what the formatter makes of it.
# fmt: off
for _n in (20, 50, 200):
    _add("trend", _of_close("SMA", _n),
         (f"sma_{_n}", "price", "", f"mean of {_n} closes"), source="TA-Lib SMA", warmup=_n)
for _n in (12, 26, 50):
    _add("trend", _of_close("EMA", _n),
         (f"ema_{_n}", "price", "", f"exponential mean of closes, factor 2/{_n + 1}"),
         source="TA-Lib EMA", warmup=ema(_n), finite=False)
_add("trend", lambda b: b.ta.WMA(b.close, 20),
     ("wma_20", "price", "", "mean of 20 closes with weights 1..20"),
     source="TA-Lib WMA", warmup=20)
_add("trend", lambda b: b.ta.DEMA(b.close, 20),
     ("dema_20", "price", "", "2 EMA - EMA(EMA), period 20"),
     source="TA-Lib DEMA; Mulloy 1994", warmup=ema(20, 40, 2), finite=False)
_add("trend", lambda b: b.ta.TEMA(b.close, 20),
     ("tema_20", "price", "", "3 EMA - 3 EMA(EMA) + EMA(EMA(EMA)), period 20"),
     source="TA-Lib TEMA; Mulloy 1994", warmup=ema(20, 60, 3), finite=False)
_add("trend", lambda b: b.ta.TRIMA(b.close, 20),
     ("trima_20", "price", "", "mean of 20 closes with triangular weights"),
     source="TA-Lib TRIMA", warmup=20)
_add("trend", lambda b: b.ta.KAMA(b.close, 10),
     ("kama_10", "price", "", "adaptive mean, efficiency ratio of 10 bars"),
     source="TA-Lib KAMA; Kaufman 1995", warmup=700, finite=False)
_add("trend", lambda b: b.ta.T3(b.close, 5, 0.7),
     ("t3_5", "price", "", "six exponential means of period 5, volume factor 0.7"),
     source="TA-Lib T3; Tillson 1998", warmup=ema(5, 30, 6), finite=False)
_add("trend", lambda b: b.ta.HMA(b.close, 20),
     ("hma_20", "price", "", "WMA(2 WMA(10) - WMA(20), 4)"),
     source="TA-Lib HMA; Hull 2005", warmup=24)
_add("trend", lambda b: b.ta.VWMA(b.close, b.volume, 20),
     ("vwma_20", "price", "", "mean of 20 closes weighted by volume"),
     source="TA-Lib VWMA", warmup=20)
_add("trend", lambda b: b.ta.MAMA(b.close, 0.5, 0.05),
     ("mama", "price", "", "MESA adaptive mean, limits 0.5 and 0.05"),
     ("fama", "price", "", "following adaptive mean of mama"),
     source="TA-Lib MAMA; Ehlers 2001", warmup=700, finite=False)
_add("trend", lambda b: b.ta.HT_TRENDLINE(b.close),
     ("ht_trendline", "price", "", "instantaneous trend line by Hilbert transform"),
     source="TA-Lib HT_TRENDLINE; Ehlers 2001", warmup=500, finite=False)
_add("trend", _bollinger,
     ("bb_upper_20", "price", "", "sma_20 + 2 population standard deviations"),
     ("bb_lower_20", "price", "", "sma_20 - 2 population standard deviations"),
     ("bb_width_20", "pure", "fraction", "(upper - lower) / sma_20"),
     ("bb_percent_20", "pure", "fraction", "(close - lower) / (upper - lower)"),
     source="TA-Lib BBANDS; Bollinger 2001", warmup=20)
_add("trend", lambda b: b.ta.KC(b.high, b.low, b.close, 20, 10, 2.0)[::2],
     ("keltner_upper_20", "price", "", "EMA 20 of close + 2 ATR 10"),
     ("keltner_lower_20", "price", "", "EMA 20 of close - 2 ATR 10"),
     source="TA-Lib KC; Keltner 1960, Raschke", warmup=ema(20, 30), finite=False)
_add("trend", _donchian,
     ("donchian_upper_20", "price", "", "highest high of 20 bars"),
     ("donchian_lower_20", "price", "", "lowest low of 20 bars"),
     ("donchian_position_20", "pure", "fraction", "(close - lower) / (upper - lower)"),
     source="TA-Lib DONCHIAN", warmup=20)
_add("trend", _ichimoku,
     ("ichimoku_tenkan", "price", "", "middle of the range of 9 bars"),
     ("ichimoku_kijun", "price", "", "middle of the range of 26 bars"),
     ("ichimoku_senkou_a", "price", "", "(tenkan + kijun) / 2 of 26 bars ago"),
     ("ichimoku_senkou_b", "price", "", "middle of the range of 52 bars, 26 bars ago"),
     source="Hosoda 1969, over TA-Lib MIDPRICE; the lagging line looks ahead and is left out",
     warmup=78)
_add("trend", lambda b: b.ta.SAR(b.high, b.low, 0.02, 0.2),
     ("sar", "price", "", "parabolic stop and reverse, step 0.02, limit 0.2"),
     source="TA-Lib SAR; Wilder 1978", warmup=300, finite=False)
_add("trend", lambda b: b.ta.SUPERTREND(b.high, b.low, b.close, 10, 3.0),
     ("supertrend_10", "price", "", "stop at the bar's middle -/+ 3 ATR 10, ratcheted"),
     ("supertrend_direction_10", "pure", "-1 or 1", "1 while close is above the stop"),
     source="TA-Lib SUPERTREND; Seban", warmup=500, finite=False)
_add("trend", lambda b: b.ta.LINEARREG(b.close, 20),
     ("linearreg_20", "price", "", "end of the least-squares line through 20 closes"),
     source="TA-Lib LINEARREG", warmup=20)
_add("trend", lambda b: b.ta.LINEARREG_SLOPE(b.close, 20),
     ("linearreg_slope_20", "delta", "quote currency a bar", "slope of that line"),
     source="TA-Lib LINEARREG_SLOPE", warmup=20)
_add("trend", lambda b: b.ta.ADX(b.high, b.low, b.close, 14),
     ("adx_14", "pure", "0 to 100", "Wilder's mean of |+DI - -DI| / (+DI + -DI)"),
     source="TA-Lib ADX; Wilder 1978", warmup=wilder(14, 28, 2), finite=False)
_add("trend", lambda b: b.ta.ADXR(b.high, b.low, b.close, 14),
     ("adxr_14", "pure", "0 to 100", "mean of adx_14 and adx_14 of 13 bars ago"),
     source="TA-Lib ADXR; Wilder 1978", warmup=wilder(14, 42, 2), finite=False)
_add("trend", lambda b: b.ta.PLUS_DI(b.high, b.low, b.close, 14),
     ("plus_di_14", "pure", "0 to 100", "upward movement / true range, Wilder's means"),
     source="TA-Lib PLUS_DI; Wilder 1978", warmup=wilder(14), finite=False)
_add("trend", lambda b: b.ta.MINUS_DI(b.high, b.low, b.close, 14),
     ("minus_di_14", "pure", "0 to 100", "downward movement / true range, Wilder's means"),
     source="TA-Lib MINUS_DI; Wilder 1978", warmup=wilder(14), finite=False)
_add("trend", lambda b: b.ta.AROON(b.high, b.low, 14),
     ("aroon_down_14", "pure", "0 to 100", "100 (14 - bars since the lowest low) / 14"),
     ("aroon_up_14", "pure", "0 to 100", "100 (14 - bars since the highest high) / 14"),
     source="TA-Lib AROON; Chande 1995", warmup=15)
_add("trend", lambda b: b.ta.AROONOSC(b.high, b.low, 14),
     ("aroon_osc_14", "pure", "-100 to 100", "aroon_up_14 - aroon_down_14"),
     source="TA-Lib AROONOSC; Chande 1995", warmup=15)
_add("trend", lambda b: b.ta.VORTEX(b.high, b.low, b.close, 14),
     ("vortex_plus_14", "pure", "ratio", "sum |high - previous low| / sum true range, 14 bars"),
     ("vortex_minus_14", "pure", "ratio", "sum |low - previous high| / sum true range, 14 bars"),
     source="TA-Lib VORTEX; Botes and Siepman 2010", warmup=15)
_add("trend", _vwap,
     ("vwap_60", "price", "", "sum of typical price x volume / sum of volume, 60 bars"),
     source="definition, over TA-Lib SUM (TA-Lib's VWAP runs from the first bar on)", warmup=60)

for _n in (7, 14):
    _add("momentum", _of_close("RSI", _n),
         (f"rsi_{_n}", "pure", "0 to 100", f"100 up / (up + down), Wilder's means of {_n}"),
         source="TA-Lib RSI; Wilder 1978", warmup=wilder(_n), finite=False)
_add("momentum", lambda b: b.ta.STOCH(b.high, b.low, b.close, 14, 3, 0, 3, 0),
     ("stoch_k", "pure", "0 to 100", "mean of 3 of close's place in the range of 14 bars"),
     ("stoch_d", "pure", "0 to 100", "mean of 3 of stoch_k"),
     source="TA-Lib STOCH; Lane", warmup=18)
_add("momentum", lambda b: b.ta.STOCHRSI(b.close, 14, 14, 3, 0),
     ("stochrsi_k", "pure", "0 to 100", "rsi_14's place in its own range of 14 bars"),
     ("stochrsi_d", "pure", "0 to 100", "mean of 3 of stochrsi_k"),
     source="TA-Lib STOCHRSI; Chande and Kroll 1994", warmup=wilder(14, 31), finite=False)
_add("momentum", lambda b: b.ta.MACD(b.close, 12, 26, 9),
     ("macd", "delta", "", "EMA 12 - EMA 26 of close"),
     ("macd_signal", "delta", "", "EMA 9 of macd"),
     ("macd_hist", "delta", "", "macd - macd_signal"),
     source="TA-Lib MACD; Appel 1979", warmup=ema(26, 35, 2), finite=False)
_add("momentum", lambda b: b.ta.PPO(b.close, 12, 26, 1),
     ("ppo", "pure", "percent", "100 (EMA 12 - EMA 26) / EMA 26"),
     source="TA-Lib PPO", warmup=ema(26), finite=False)
for _n in (1, 10, 60):
    _add("momentum", _of_close("ROC", _n),
         (f"roc_{_n}", "pure", "percent", f"100 (close / close of {_n} bars ago - 1)"),
         source="TA-Lib ROC", warmup=_n + 1)
_add("momentum", lambda b: b.ta.MOM(b.close, 10),
     ("mom_10", "delta", "", "close - close of 10 bars ago"), source="TA-Lib MOM", warmup=11)
_add("momentum", lambda b: b.ta.CCI(b.high, b.low, b.close, 20),
     ("cci_20", "pure", "index", "(typical - its mean of 20) / (0.015 mean deviation)"),
     source="TA-Lib CCI; Lambert 1980", warmup=20)
_add("momentum", lambda b: b.ta.CMO(b.close, 14),
     ("cmo_14", "pure", "-100 to 100", "100 (up - down) / (up + down), Wilder's means of 14"),
     source="TA-Lib CMO; Chande 1994", warmup=wilder(14), finite=False)
_add("momentum", lambda b: b.ta.WILLR(b.high, b.low, b.close, 14),
     ("willr_14", "pure", "-100 to 0", "-100 (highest - close) / (highest - lowest), 14 bars"),
     source="TA-Lib WILLR; Williams 1973", warmup=14)
_add("momentum", lambda b: b.ta.ULTOSC(b.high, b.low, b.close, 7, 14, 28),
     ("ultosc", "pure", "0 to 100", "buying pressure / true range over 7, 14, 28 bars, 4:2:1"),
     source="TA-Lib ULTOSC; Williams 1985", warmup=29)
_add("momentum", lambda b: b.ta.TRIX(b.close, 15),
     ("trix_15", "pure", "percent", "one-bar change of a triple EMA 15"),
     source="TA-Lib TRIX; Hutson 1983", warmup=ema(15, 46, 3), finite=False)
_add("momentum", lambda b: b.ta.BOP(b.open, b.high, b.low, b.close),
     ("bop", "pure", "-1 to 1", "(close - open) / (high - low)"),
     source="TA-Lib BOP; Livshin 2001", warmup=1)
_add("momentum", lambda b: b.ta.TSI(b.close, 25, 13),
     ("tsi", "pure", "-100 to 100", "100 EMA 13(EMA 25(change)) / the same of |change|"),
     source="TA-Lib TSI; Blau 1991", warmup=ema(25, 38, 2), finite=False)
_add("momentum", lambda b: b.ta.MFI(b.high, b.low, b.close, b.volume, 14),
     ("mfi_14", "pure", "0 to 100", "RSI of typical price weighted by money flow, 14 bars"),
     source="TA-Lib MFI; Quong and Soudack 1989", warmup=15)
_add("momentum", lambda b: b.ta.IMI(b.open, b.close, 14),
     ("imi_14", "pure", "0 to 100", "100 up bodies / all bodies, 14 bars"),
     source="TA-Lib IMI; Chande 1994", warmup=14)
_add("momentum", lambda b: b.ta.AO(b.high, b.low, 5, 34),
     ("ao", "delta", "", "SMA 5 - SMA 34 of (high + low) / 2"),
     source="TA-Lib AO; Williams 1998", warmup=34)
_add("momentum", lambda b: b.ta.ER(b.close, 10),
     ("er_10", "pure", "0 to 1", "|change of 10 bars| / sum of |changes|"),
     source="TA-Lib ER; Kaufman 1995", warmup=11)
_add("momentum", lambda b: b.ta.VHF(b.close, 28),
     ("vhf_28", "pure", "ratio", "range of 28 closes / sum of |changes|"),
     source="TA-Lib VHF; White 1991", warmup=29)

_add("volatility", lambda b: b.ta.TRANGE(b.high, b.low, b.close),
     ("trange", "delta", "", "true range"), source="TA-Lib TRANGE; Wilder 1978", warmup=2)
_add("volatility", lambda b: b.ta.ATR(b.high, b.low, b.close, 14),
     ("atr_14", "delta", "", "Wilder's mean of 14 true ranges"),
     source="TA-Lib ATR; Wilder 1978", warmup=wilder(14), finite=False)
_add("volatility", lambda b: b.ta.NATR(b.high, b.low, b.close, 14),
     ("natr_14", "pure", "percent", "100 atr_14 / close"),
     source="TA-Lib NATR; Forman 2006", warmup=wilder(14), finite=False)
_add("volatility", lambda b: b.ta.STDDEV(b.close, 20, 1.0),
     ("stddev_20", "delta", "", "population standard deviation of 20 closes"),
     source="TA-Lib STDDEV", warmup=20)
for _n in (20, 60):
    _add("volatility", partial(_realised, bars=_n),
         (f"rv_{_n}", "pure", "fraction a bar",
          f"sample standard deviation of {_n} log returns, close to close"),
         source="definition, over TA-Lib STDDEV", warmup=_n + 1)
_add("volatility", _parkinson,
     ("parkinson_20", "pure", "fraction a bar", "sqrt(mean ln(high/low)^2 / (4 ln 2)), 20 bars"),
     source="Parkinson 1980", warmup=20)
_add("volatility", _garman_klass,
     ("garman_klass_20", "pure", "fraction a bar",
      "sqrt(mean(ln(high/low)^2 / 2 - (2 ln 2 - 1) ln(close/open)^2)), 20 bars"),
     source="Garman and Klass 1980", warmup=20)
_add("volatility", lambda b: np.sqrt(_floor(b.ta.SMA(b.rogers_satchell, 20))),
     ("rogers_satchell_20", "pure", "fraction a bar",
      "sqrt(mean(ln(h/o) ln(h/c) + ln(l/o) ln(l/c))), 20 bars"),
     source="Rogers and Satchell 1991", warmup=20)
_add("volatility", _yang_zhang,
     ("yang_zhang_20", "pure", "fraction a bar",
      "sqrt(var(ln(o/previous c)) + k var(ln(c/o)) + (1-k) Rogers-Satchell), 20 bars,"
      " k = 0.34 / (1.34 + 21/19)"),
     source="Yang and Zhang 2000", warmup=21)
_add("volatility", lambda b: b.ta.MASSI(b.high, b.low, 9, 25),
     ("massi", "pure", "index", "sum of 25 of EMA 9 of range / its EMA 9"),
     source="TA-Lib MASSI; Dorsey 1992", warmup=ema(9, 42, 2), finite=False)
_add("volatility", lambda b: b.ta.CVI(b.high, b.low, 10, 10),
     ("cvi_10", "pure", "percent", "change over 10 bars of EMA 10 of range"),
     source="TA-Lib CVI; Chaikin", warmup=ema(10, 20), finite=False)

_add("volume", lambda b: _change(b.ta.OBV(b.close, b.volume), 20),
     ("obv_20", "volume", "", "change of on-balance volume over 20 bars"),
     source="TA-Lib OBV; Granville 1963", warmup=21)
_add("volume", lambda b: _change(b.ta.AD(b.high, b.low, b.close, b.volume), 20),
     ("ad_20", "volume", "", "change of the accumulation/distribution line over 20 bars"),
     source="TA-Lib AD; Chaikin", warmup=21)
_add("volume", lambda b: b.ta.ADOSC(b.high, b.low, b.close, b.volume, 3, 10),
     ("adosc", "volume", "", "EMA 3 - EMA 10 of the accumulation/distribution line"),
     source="TA-Lib ADOSC; Chaikin", warmup=ema(10, 10, 2), finite=False)
_add("volume", lambda b: b.ta.CMF(b.high, b.low, b.close, b.volume, 20),
     ("cmf_20", "pure", "-1 to 1", "sum of close's place in the bar x volume / volume, 20 bars"),
     source="TA-Lib CMF; Chaikin", warmup=20)
_add("volume", lambda b: b.ta.EFI(b.close, b.volume, 13),
     ("efi_13", "force", "", "EMA 13 of change of close x volume"),
     source="TA-Lib EFI; Elder 1993", warmup=ema(13, 14), finite=False)
_add("volume", lambda b: b.ta.RVOL(b.volume, 20),
     ("rvol_20", "pure", "ratio", "volume / mean volume of 20 bars"),
     source="TA-Lib RVOL", warmup=21)
_add("volume", _volume_z,
     ("volume_z_60", "pure", "standard deviations", "(volume - mean) / deviation of 60 bars"),
     source="definition, over TA-Lib SMA and STDDEV", warmup=60)

_add("cycle", lambda b: b.ta.HT_DCPERIOD(b.close),
     ("ht_dcperiod", "pure", "bars", "dominant cycle period"),
     source="TA-Lib HT_DCPERIOD; Ehlers 2001", warmup=500, finite=False)
_add("cycle", _phase,
     ("ht_dcphase", "pure", "degrees", "dominant cycle phase"),
     ("ht_sine", "pure", "-1 to 1", "sine of the dominant cycle phase"),
     ("ht_leadsine", "pure", "-1 to 1", "sine of that phase + 45 degrees"),
     source="TA-Lib HT_DCPHASE (its HT_SINE is the sine of it); Ehlers 2001",
     warmup=500, finite=False)
_add("cycle", lambda b: b.ta.HT_PHASOR(b.close),
     ("ht_inphase", "delta", "", "in-phase component of the detrended price"),
     ("ht_quadrature", "delta", "", "quadrature component of the detrended price"),
     source="TA-Lib HT_PHASOR; Ehlers 2001", warmup=500, finite=False)
_add("cycle", _hurst,
     ("hurst_128", "pure", "exponent",
      "half the slope of ln mean (ln p(t) - ln p(t-lag))^2 on ln lag, lags 1 to 16, 128 bars"),
     source="generalised Hurst exponent, q = 2; Di Matteo 2007", warmup=144)
for _n in (1, 5):
    _add("cycle", partial(_autocorrelation, lag=_n),
         (f"autocorrelation_{_n}", "pure", "-1 to 1",
          f"correlation of log returns with those {_n} bars before, 60 pairs"),
         source="definition, over TA-Lib CORREL", warmup=61 + _n)
_add("cycle", lambda b: b.ta.PERCENTRANK(b.close, 100),
     ("percentrank_100", "pure", "0 to 100", "share of the last 100 closes below close"),
     source="TA-Lib PERCENTRANK", warmup=101)

# fmt: on

OUTPUTS: tuple[Output, ...] = tuple(o for c in CALCULATIONS for o in c.outputs)
NAMES: tuple[str, ...] = tuple(o.name for o in OUTPUTS)

# What a higher timeframe lends to a set: indicators with a finite window, and where it is short
# enough for the long memory of the others to be there, those too.
CONTEXT_FINITE = (
    "sma_20", "bb_width_20", "bb_percent_20", "donchian_position_20", "linearreg_slope_20",
    "aroon_osc_14", "roc_1", "roc_10", "cci_20", "willr_14", "mfi_14", "rv_20",
    "garman_klass_20", "obv_20", "rvol_20",
)  # fmt: skip
CONTEXT_RECURSIVE = ("rsi_14", "macd_hist", "adx_14", "natr_14")


@dataclass(frozen=True)
class Plan:
    """Which outputs of which timeframe, and the stretch of bars they are computed from."""

    timeframe: str
    names: tuple[str, ...]
    warmup: int = WARMUP
    block: int = BLOCK
    relative: bool = True

    @cached_property
    def calculations(self) -> list[tuple[Calculation, list[tuple[int, int]]]]:
        """Each call that is needed, with (place in its result, column) pairs."""
        wanted = {name: column for column, name in enumerate(self.names)}
        return [
            (calculation, places)
            for calculation in CALCULATIONS
            if (
                places := [
                    (place, wanted[output.name])
                    for place, output in enumerate(calculation.outputs)
                    if output.name in wanted
                ]
            )
        ]

    @property
    def width(self) -> int:
        """Length of a bar in microseconds."""
        return TIMEFRAMES[self.timeframe]

    @property
    def reach(self) -> int:
        """How far before t a bar can count if none is missing, in microseconds."""
        return (self.warmup + self.block) * self.width

    @property
    def farthest(self) -> int:
        """How far before t a bar can count where bars are missing, in microseconds."""
        return (spread(self.width, self.warmup) + self.block) * self.width

    def begin(self, t: int) -> int:
        """Where the stretch of bars begins that counts at t."""
        return begin(t, self.width, self.warmup, self.block)

    @cached_property
    def kinds(self) -> dict[str, list[int]]:
        """The columns of each kind that is held as relative to close or volume."""
        found: dict[str, list[int]] = {}
        for calculation, places in self.calculations:
            for place, column in places:
                found.setdefault(calculation.outputs[place].kind, []).append(column)
        return {kind: found[kind] for kind in found if kind != "pure" and self.relative}

    @cached_property
    def units(self) -> tuple[Times, Mask]:
        """Of each column the unit it is held in, as :meth:`_newest` numbers them, and whether it is
        a price."""
        unit = np.zeros(len(self.names), dtype=np.int64)
        price = np.zeros(len(self.names), dtype=np.bool_)
        for kind, columns in self.kinds.items():
            unit[columns] = {"price": 1, "delta": 1, "volume": 2, "force": 3}[kind]
            price[columns] = kind == "price"
        return unit, price

    def compute(self, bars: Bars, last: bool = False) -> Floats:
        """All outputs at every bar, (bars, outputs), or at the ``last`` one alone, (1, outputs);
        NaN until an output has its warm-up."""
        if last:
            return self._newest(bars)
        count = bars.count
        out = np.full((len(self.names), count), np.nan)
        if count == 0:
            return out.T
        for calculation, places in self.calculations:
            values = calculation.call(bars)
            for place, column in places:
                begin = calculation.outputs[place].warmup - 1
                out[column, begin:] = values[place][begin:]
        for kind, columns in self.kinds.items():
            _make_relative(kind, out, columns, bars)
        return out.T

    def _newest(self, bars: Bars) -> Floats:
        count = bars.count
        row = [math.nan] * len(self.names)
        if count == 0:
            return np.empty((0, len(row)))
        for calculation, places in self.calculations:
            values = calculation.call(bars)
            for place, column in places:
                if calculation.outputs[place].warmup <= count:
                    row[column] = values[place][-1]
        out = np.array([row])
        unit, price = self.units
        if unit.any():
            close, volume = bars.close[-1], math.nan
            if "volume" in self.kinds or "force" in self.kinds:
                volume = _positive(bars.volume_20[-1:])[0]
            out /= np.array([1.0, close, volume, close * volume])[unit]
            out[:, price] -= 1
        return out


def _make_relative(kind: str, out: Floats, columns: list[int], bars: Bars) -> None:
    """Make these rows of ``out``, of as many bars, relative."""
    close = bars.close
    if kind in ("volume", "force"):
        unit = _positive(bars.volume_20)
        if kind == "force":
            unit = close * unit
    else:
        unit = close
    for column in columns:
        row = out[column]
        row /= unit
        if kind == "price":
            row -= 1


def evaluate(
    read: BarReader, grid: Times, plans: Sequence[Plan], keep: Keep | None = None
) -> Floats:
    """The outputs of several plans side by side, at each ascending grid time."""
    out = np.empty((len(grid), sum(len(plan.names) for plan in plans)))
    at = 0
    for plan in plans:
        columns = len(plan.names)
        stretch = Stretch(plan.width, plan.warmup, plan.block)
        part = out[:, at : at + columns]
        series_matrix(read, grid, stretch, plan.compute, columns, part, keep)
        at += columns
    return out


CONTEXT = (*CONTEXT_FINITE, *CONTEXT_RECURSIVE)


def _short(timeframe: str) -> Plan:
    """A context of finite windows only."""
    return Plan(timeframe, CONTEXT_FINITE, warmup=64, block=16)


PLANS = {
    "technical_1m": (
        Plan("1m", NAMES),
        Plan("5m", CONTEXT, warmup=480, block=240),
        Plan("15m", CONTEXT, warmup=480, block=240),
        _short("1h"),
    ),
    "technical_1h": (Plan("1h", NAMES), _short("4h"), _short("1d")),
}
_RELATIVE = {
    "price": ("{} / close - 1", "fraction"),
    "delta": ("({}) / close", "fraction"),
    "volume": ("({}) / mean volume of 20 bars", "ratio"),
    "force": ("({}) / (close x mean volume of 20 bars)", "ratio"),
    "pure": ("{}", ""),
}
# Channels, by their first letters, that can change an output held as a set holds it: relative to
# close, or to the mean volume.
_READS = {
    "c": (
        "sma_20 sma_50 sma_200 ema_12 ema_26 ema_50 wma_20 dema_20 tema_20 trima_20 kama_10 t3_5 "
        "hma_20 mama fama ht_trendline bb_upper_20 bb_lower_20 bb_width_20 bb_percent_20 "
        "linearreg_20 linearreg_slope_20 rsi_7 rsi_14 stochrsi_k stochrsi_d macd macd_signal "
        "macd_hist ppo roc_1 roc_10 roc_60 mom_10 cmo_14 trix_15 tsi er_10 vhf_28 stddev_20 rv_20 "
        "rv_60 ht_dcperiod ht_dcphase ht_sine ht_leadsine ht_inphase ht_quadrature hurst_128 "
        "autocorrelation_1 autocorrelation_5 percentrank_100"
    ),
    "h": ("aroon_up_14"),
    "l": ("aroon_down_14"),
    "v": ("rvol_20 volume_z_60"),
    "cv": ("vwma_20 obv_20 efi_13"),
    "hc": ("donchian_upper_20"),
    "hl": ("aroon_osc_14 parkinson_20 massi cvi_10"),
    "lc": ("donchian_lower_20"),
    "oc": ("imi_14"),
    "hlc": (
        "keltner_upper_20 keltner_lower_20 donchian_position_20 ichimoku_tenkan ichimoku_kijun "
        "ichimoku_senkou_a ichimoku_senkou_b sar supertrend_10 supertrend_direction_10 adx_14 "
        "adxr_14 plus_di_14 minus_di_14 vortex_plus_14 vortex_minus_14 stoch_k stoch_d cci_20 "
        "willr_14 ultosc ao trange atr_14 natr_14"
    ),
    "hlcv": ("vwap_60 mfi_14 ad_20 adosc cmf_20"),
    "ohlc": ("bop garman_klass_20 rogers_satchell_20 yang_zhang_20"),
}
_LETTERS = {name: letters for letters, names in _READS.items() for name in names.split()}
_BY_NAME = {output.name: output for output in OUTPUTS}


def _features(plans: Sequence[Plan]) -> tuple[Feature, ...]:
    """The features of a set: the base timeframe's by name, the others with theirs added."""
    features = []
    for plan in plans:
        for name in plan.names:
            output = _BY_NAME[name]
            form, unit = _RELATIVE[output.kind]
            own = name if plan is plans[0] else f"{name}_{plan.timeframe}"
            features.append(
                Feature(
                    own,
                    f"{form.format(output.formula)}, {plan.timeframe} bars (needs {output.warmup})",
                    unit or output.unit,
                    output.source,
                    bar_inputs(_LETTERS[name]),
                )
            )
    return tuple(features)


def _family(name: str, plans: Sequence[Plan]) -> Family:
    grid = plans[0].width
    higher = ", ".join(plan.timeframe for plan in plans[1:])
    return Family(
        name=name,
        version=2,
        revision="2",
        description=(
            f"Technical indicators of {plans[0].timeframe} bars, with the last closed bar of"
            f" {higher}; scale-free."
        ),
        features=_features(plans),
        needs=Needs(bars=max(-(-plan.reach // grid) for plan in plans)),
        reach=max(-(-plan.farthest // grid) for plan in plans),
        read=lambda reader, times, keep: evaluate(reader.bars, times, plans, keep),
        only_bars=True,
        prefetch=lambda reader, t: reader.prefetch_bars(
            t, [(plan.width, plan.begin(t)) for plan in plans]
        ),
        grid=grid,
    )


FAMILIES = tuple(_family(name, plans) for name, plans in PLANS.items())


@lru_cache(maxsize=len(TIMEFRAMES))
def plan_of(width: int) -> Plan:
    """All outputs of bars of a length, in their own units."""
    return Plan(next(name for name, us in TIMEFRAMES.items() if us == width), NAMES, relative=False)


def rows(
    plpy: Any, cache: dict[str, Any], symbol: str, width: int, start: int, stop: int
) -> Iterator[tuple[int, list[float | None]]]:
    """``(time, outputs)`` at multiples of the bars' width in [start, stop)."""
    begin, end = database.moments(plpy, start, stop)
    plan = plan_of(width)
    grid = np.arange(-(-begin // plan.width) * plan.width, end, plan.width, dtype=np.int64)
    keep = incremental.keeper(symbol) if len(grid) == 1 else None
    reader = MarketReader(Database.of(plpy, cache), symbol)
    return errors.rows(cache, _rows(reader, grid, plan, keep), 2)


def _rows(
    reader: MarketReader, grid: Times, plan: Plan, keep: Keep | None
) -> Iterator[tuple[int, list[float | None]]]:
    for at in range(0, len(grid), compute.READ):
        part = grid[at : at + compute.READ]
        values = evaluate(reader.at(part).bars, part, [plan], keep)
        for time, row in zip(database.micros(*part.tolist()), values, strict=True):
            if np.isfinite(row).any() or len(grid) == 1:
                yield time, [x if math.isfinite(x) else None for x in row.tolist()]


def declared() -> list[tuple[str, str]]:
    """``feature._technical_declared``: each output's name, and what it is."""
    return [
        (
            o.name,
            f"{o.name} [{o.unit}] {o.formula} ({o.source}; {o.group}, needs {o.warmup} bars)",
        )
        for o in OUTPUTS
    ]
