"""Indicators against TA-Lib called once over the whole series, on real candles."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from alphaplus.server.features import registry, series, technical
from alphaplus.server.market import revisions as w
from alphaplus.server.types import HOUR, Times
from talib import _ta_lib as ta

Floats = npt.NDArray[np.float64]
HOW = dict(zip(series.CHANNELS, ("first", "max", "min", "last", "sum"), strict=True))


class Market:
    """Bars in memory, read as the families read them from the database."""

    def __init__(
        self,
        width: int,
        bucket: Times,
        channels: dict[str, Floats],
        usable: Times | None = None,
        expires: Times | None = None,
    ) -> None:
        self.width = width
        self.bucket = bucket
        self.channels = channels
        self.usable = bucket + width if usable is None else usable
        self.expires = np.full(len(bucket), w.NEVER) if expires is None else expires

    def read(self, width: int, start: int, end: int) -> w.Series:
        assert width == self.width
        rows = (self.bucket >= start) & (self.bucket < end)
        versions = w.Versions(
            self.bucket[rows],
            self.usable[rows],
            self.expires[rows],
            {name: values[rows] for name, values in self.channels.items()},
            HOW,
            self.bucket[rows],
            self.bucket[rows],
            np.zeros(rows.sum(), dtype=np.int64),
        )
        return w.Series(versions, start, end, width)


def minutes(shared_data: Path, bars: int) -> Market:
    frame = pd.read_csv(
        shared_data / "candles_1m" / "btc-perp-20211231-20220201_1m.csv.gz", nrows=bars
    )
    stamp = pd.to_datetime(frame["timestamp"]) - pd.Timestamp("2000-01-01")
    channels = {name: frame[name].to_numpy(np.float64) for name in series.CHANNELS}
    return Market(w.MINUTE, (stamp.dt.total_seconds().to_numpy() * 1e6).astype(np.int64), channels)


def hours(shared_data: Path) -> Market:
    frame = pd.read_parquet(shared_data / "perps_hourly" / "candles.parquet")
    frame = frame[(frame["venue"] == "binance") & (frame["coin"] == "SOL")]
    frame = frame.sort_values("timestamp").drop_duplicates("timestamp")
    stamp = frame["timestamp"].dt.tz_localize(None) - pd.Timestamp("2000-01-01")
    channels = {
        name: frame[name[0]].to_numpy(np.float64) for name in ("open", "high", "low", "close")
    }
    channels["volume"] = frame["v"].to_numpy(np.float64)
    bucket = (stamp.dt.total_seconds().to_numpy() * 1e6).astype(np.int64)
    return Market(HOUR, bucket, channels)


def direct(c: dict[str, Floats]) -> dict[str, Floats]:
    """Every indicator that TA-Lib has, by TA-Lib, over the whole series at once."""
    o, h, lo, cl, v = (c[name] for name in series.CHANNELS)
    upper, middle, lower = ta.BBANDS(cl, 20, 2.0, 2.0, 0)
    keltner = ta.KC(h, lo, cl, 20, 10, 2.0)
    donchian = ta.DONCHIAN(h, lo, 20)
    mama, fama = ta.MAMA(cl, 0.5, 0.05)
    stop, direction = ta.SUPERTREND(h, lo, cl, 10, 3.0)
    aroon_down, aroon_up = ta.AROON(h, lo, 14)
    plus, minus = ta.VORTEX(h, lo, cl, 14)
    stoch_k, stoch_d = ta.STOCH(h, lo, cl, 14, 3, 0, 3, 0)
    rsi_k, rsi_d = ta.STOCHRSI(cl, 14, 14, 3, 0)
    macd, signal, hist = ta.MACD(cl, 12, 26, 9)
    inphase, quadrature = ta.HT_PHASOR(cl)
    sine, lead = ta.HT_SINE(cl)
    obv, line = ta.OBV(cl, v), ta.AD(h, lo, cl, v)
    out = {
        **{f"sma_{n}": ta.SMA(cl, n) for n in (20, 50, 200)},
        **{f"ema_{n}": ta.EMA(cl, n) for n in (12, 26, 50)},
        **{f"rsi_{n}": ta.RSI(cl, n) for n in (7, 14)},
        **{f"roc_{n}": ta.ROC(cl, n) for n in (1, 10, 60)},
        "wma_20": ta.WMA(cl, 20), "dema_20": ta.DEMA(cl, 20), "tema_20": ta.TEMA(cl, 20),
        "trima_20": ta.TRIMA(cl, 20), "kama_10": ta.KAMA(cl, 10), "t3_5": ta.T3(cl, 5, 0.7),
        "hma_20": ta.HMA(cl, 20), "vwma_20": ta.VWMA(cl, v, 20), "mama": mama, "fama": fama,
        "ht_trendline": ta.HT_TRENDLINE(cl), "bb_upper_20": upper, "bb_lower_20": lower,
        "bb_width_20": (upper - lower) / middle, "keltner_upper_20": keltner[0],
        "keltner_lower_20": keltner[2], "donchian_upper_20": donchian[0],
        "donchian_lower_20": donchian[2], "ichimoku_tenkan": ta.MIDPRICE(h, lo, 9),
        "ichimoku_kijun": ta.MIDPRICE(h, lo, 26), "sar": ta.SAR(h, lo, 0.02, 0.2),
        "supertrend_10": stop, "supertrend_direction_10": direction,
        "linearreg_20": ta.LINEARREG(cl, 20), "linearreg_slope_20": ta.LINEARREG_SLOPE(cl, 20),
        "adx_14": ta.ADX(h, lo, cl, 14), "adxr_14": ta.ADXR(h, lo, cl, 14),
        "plus_di_14": ta.PLUS_DI(h, lo, cl, 14), "minus_di_14": ta.MINUS_DI(h, lo, cl, 14),
        "aroon_down_14": aroon_down, "aroon_up_14": aroon_up,
        "aroon_osc_14": ta.AROONOSC(h, lo, 14), "vortex_plus_14": plus, "vortex_minus_14": minus,
        "stoch_k": stoch_k, "stoch_d": stoch_d, "stochrsi_k": rsi_k, "stochrsi_d": rsi_d,
        "macd": macd, "macd_signal": signal, "macd_hist": hist, "ppo": ta.PPO(cl, 12, 26, 1),
        "mom_10": ta.MOM(cl, 10), "cci_20": ta.CCI(h, lo, cl, 20), "cmo_14": ta.CMO(cl, 14),
        "willr_14": ta.WILLR(h, lo, cl, 14), "ultosc": ta.ULTOSC(h, lo, cl, 7, 14, 28),
        "trix_15": ta.TRIX(cl, 15), "bop": ta.BOP(o, h, lo, cl), "tsi": ta.TSI(cl, 25, 13),
        "mfi_14": ta.MFI(h, lo, cl, v, 14), "imi_14": ta.IMI(o, cl, 14), "ao": ta.AO(h, lo, 5, 34),
        "er_10": ta.ER(cl, 10), "vhf_28": ta.VHF(cl, 28), "trange": ta.TRANGE(h, lo, cl),
        "atr_14": ta.ATR(h, lo, cl, 14), "natr_14": ta.NATR(h, lo, cl, 14),
        "stddev_20": ta.STDDEV(cl, 20, 1.0), "massi": ta.MASSI(h, lo, 9, 25),
        "cvi_10": ta.CVI(h, lo, 10, 10), "adosc": ta.ADOSC(h, lo, cl, v, 3, 10),
        "obv_20": obv - np.roll(obv, 20), "ad_20": line - np.roll(line, 20),
        "cmf_20": ta.CMF(h, lo, cl, v, 20), "efi_13": ta.EFI(cl, v, 13),
        "rvol_20": ta.RVOL(v, 20), "ht_dcperiod": ta.HT_DCPERIOD(cl),
        "ht_dcphase": ta.HT_DCPHASE(cl), "ht_sine": sine, "ht_leadsine": lead,
        "ht_inphase": inphase, "ht_quadrature": quadrature,
        "percentrank_100": ta.PERCENTRANK(cl, 100),
    }  # fmt: skip
    return {name: values.astype(np.float64) for name, values in out.items()}


def rolling(x: Floats, bars: int, statistic: Callable[..., Floats] = np.mean) -> Floats:
    """A statistic of each window, every window summed afresh."""
    out = np.full(len(x), np.nan)
    out[bars - 1 :] = statistic(np.lib.stride_tricks.sliding_window_view(x, bars), axis=-1)
    return out


def before(x: Floats, bars: int) -> Floats:
    return np.concatenate([np.full(bars, np.nan), x[:-bars]])


def own(c: dict[str, Floats]) -> dict[str, Floats]:
    """What TA-Lib has not, by its definition."""
    o, h, lo, cl, v = (c[name] for name in series.CHANNELS)
    price = np.log(cl)
    returns = price - before(price, 1)
    typical = (h + lo + cl) / 3
    hl, co = np.log(h / lo), np.log(cl / o)
    rs = np.log(h / o) * np.log(h / cl) + np.log(lo / o) * np.log(lo / cl)
    overnight = np.log(o / before(cl, 1))
    k = 0.34 / (1.34 + 21 / 19)
    high, low = rolling(h, 20, np.max), rolling(lo, 20, np.min)
    middle = {n: (rolling(h, n, np.max) + rolling(lo, n, np.min)) / 2 for n in (9, 26, 52)}
    sample = partial(np.std, ddof=1)
    lags = np.array([1, 2, 4, 8, 16])
    spread = np.stack([rolling((price - before(price, n)) ** 2, 128) for n in lags])
    x = np.log(lags) - np.log(lags).mean()

    def correlation(a: Floats, b: Floats) -> Floats:
        pairs = np.lib.stride_tricks.sliding_window_view(np.stack([a, b]), 60, axis=1)
        centred = pairs - pairs.mean(axis=-1, keepdims=True)
        products = (centred[0] * centred[1]).sum(axis=-1)
        value = products / np.sqrt((centred[0] ** 2).sum(axis=-1) * (centred[1] ** 2).sum(axis=-1))
        return np.concatenate([np.full(59, np.nan), value])

    return {
        "rv_20": rolling(returns, 20, sample),
        "rv_60": rolling(returns, 60, sample),
        "vwap_60": rolling(typical * v, 60) / rolling(v, 60),
        "parkinson_20": np.sqrt(rolling(hl**2, 20) / (4 * np.log(2))),
        "garman_klass_20": np.sqrt(rolling(hl**2 / 2 - (2 * np.log(2) - 1) * co**2, 20)),
        "rogers_satchell_20": np.sqrt(rolling(rs, 20)),
        "yang_zhang_20": np.sqrt(
            rolling(overnight, 20, sample) ** 2
            + k * rolling(co, 20, sample) ** 2
            + (1 - k) * rolling(rs, 20)
        ),
        "donchian_position_20": (cl - low) / (high - low),
        "bb_percent_20": (cl - rolling(cl, 20)) / (4 * rolling(cl, 20, np.std)) + 0.5,
        "ichimoku_senkou_a": before((middle[9] + middle[26]) / 2, 26),
        "ichimoku_senkou_b": before(middle[52], 26),
        "volume_z_60": (v - rolling(v, 60)) / rolling(v, 60, np.std),
        "autocorrelation_1": correlation(returns, before(returns, 1)),
        "autocorrelation_5": correlation(returns, before(returns, 5)),
        "hurst_128": (x[:, None] * np.log(spread)).sum(axis=0) / (x @ x) / 2,
    }


def scale(output: technical.Output, values: Floats, c: dict[str, Floats]) -> Floats:
    """What 1e-9 is relative to: the value, or where values cross zero, their own size."""
    if output.kind in ("price", "delta"):
        return c["close"]
    if output.name in ("ht_sine", "ht_leadsine"):
        return np.ones(1)
    return np.maximum(np.abs(values), np.nanmax(np.abs(values)) * 1e-2)


def test_there_are_at_least_sixty_of_five_kinds() -> None:
    assert len(set(technical.NAMES)) == len(technical.OUTPUTS) >= 60
    assert {output.group for output in technical.OUTPUTS} == {
        "trend", "momentum", "volatility", "volume", "cycle",
    }  # fmt: skip
    for output in technical.OUTPUTS:
        assert output.formula and output.unit and output.source and output.warmup >= 1


@pytest.mark.parametrize("source", ["minutes", "hours"])
def test_every_indicator_equals_its_definition_over_the_whole_series(
    shared_data: Path, source: str
) -> None:
    market = minutes(shared_data, 12_000) if source == "minutes" else hours(shared_data)
    name = {w.MINUTE: "1m", HOUR: "1h"}[market.width]
    plan = technical.Plan(name, technical.NAMES, relative=False)
    values = technical.evaluate(market.read, market.bucket + market.width, [plan])
    by_talib, by_definition = direct(market.channels), own(market.channels)
    assert set(by_talib) | set(by_definition) == set(technical.NAMES)
    for column, output in enumerate(technical.OUTPUTS):
        mine = values[:, column]
        expected = (by_talib | by_definition)[output.name]
        assert np.isnan(mine[: output.warmup - 1]).all(), output.name
        here = slice(output.warmup - 1, None)
        known = np.isfinite(expected[here])
        assert (np.isfinite(mine[here]) == known).mean() > 0.999, output.name
        error = np.abs(mine - expected) / scale(output, expected, market.channels)
        assert np.nanmax(error[here]) < 1e-9, output.name


def test_what_a_set_holds_does_not_depend_on_the_price_level(shared_data: Path) -> None:
    market = minutes(shared_data, 2000)
    lifted = Market(
        market.width,
        market.bucket,
        {name: v * (1 if name == "volume" else 1024.0) for name, v in market.channels.items()},
    )
    busier = Market(
        market.width, market.bucket, market.channels | {"volume": market.channels["volume"] * 64}
    )
    plan = technical.Plan("1m", technical.NAMES)
    grid = market.bucket[1500:] + market.width
    values = technical.evaluate(market.read, grid, [plan])
    for other in (lifted, busier):
        np.testing.assert_allclose(
            technical.evaluate(other.read, grid, [plan]), values, rtol=1e-6, atol=1e-6
        )


def test_one_time_gives_what_history_gives(shared_data: Path) -> None:
    market = minutes(shared_data, 3000)
    plan = technical.Plan("1m", technical.NAMES, relative=False)
    grid = market.bucket + market.width
    history = technical.evaluate(market.read, grid, [plan])
    for row in (0, 1, 19, 300, 719, 720, 1439, 1777, 2999):
        once = technical.evaluate(market.read, grid[row : row + 1], [plan])
        np.testing.assert_array_equal(once[0], history[row])


def test_late_and_corrected_bars_are_seen_when_they_were_known(shared_data: Path) -> None:
    market = minutes(shared_data, 1500)
    usable = market.bucket + w.MINUTE
    usable[1000] += 30 * w.MINUTE  # half an hour late
    usable[1200:1210] += w.MINUTE  # a slow feed
    wrong = {name: values[1100:1101] * 1.5 for name, values in market.channels.items()}
    corrected_at = usable[1100] + 20 * w.MINUTE
    expires = np.append(np.full(1500, w.NEVER), corrected_at)
    usable = np.append(usable, usable[1100])
    usable[1100] = corrected_at
    channels = {name: np.append(values, wrong[name]) for name, values in market.channels.items()}
    order = np.argsort(np.append(market.bucket, market.bucket[1100]), kind="stable")
    told = Market(
        w.MINUTE,
        np.append(market.bucket, market.bucket[1100])[order],
        {name: values[order] for name, values in channels.items()},
        usable[order],
        expires[order],
    )
    plan = technical.Plan("1m", technical.NAMES, relative=False)
    grid = market.bucket + w.MINUTE
    values = technical.evaluate(told.read, grid, [plan])
    for row in (999, 1000, 1010, 1029, 1030, 1099, 1100, 1119, 1120, 1199, 1200, 1205, 1210, 1400):
        t = grid[row]
        known = (told.usable <= t) & (told.expires > t) & (told.bucket < t)
        then = Market(
            w.MINUTE,
            told.bucket[known],
            {name: v[known] for name, v in told.channels.items()},
            told.bucket[known] + w.MINUTE,
        )
        expected = technical.evaluate(then.read, grid[row : row + 1], [plan])[0]
        np.testing.assert_array_equal(values[row], expected, err_msg=str(row))


def test_bad_data_gives_nulls_not_errors() -> None:
    plan = technical.Plan("1m", technical.NAMES, relative=False)
    grid = np.arange(1, 400, dtype=np.int64) * w.MINUTE
    flat = {name: np.full(399, 5.0) for name in series.CHANNELS} | {"volume": np.zeros(399)}
    for rows in (np.arange(0), np.arange(1), np.arange(2), np.arange(0, 399, 7), np.arange(399)):
        market = Market(w.MINUTE, (grid - w.MINUTE)[rows], {n: v[rows] for n, v in flat.items()})
        values = technical.evaluate(market.read, grid, [plan])
        assert values.shape == (399, len(technical.NAMES))
    assert np.isfinite(values[-1, technical.NAMES.index("sma_20")])
    assert np.isnan(values[-1, technical.NAMES.index("vwap_60")])


def test_an_old_bar_is_no_answer() -> None:
    bucket = np.arange(100, dtype=np.int64) * w.MINUTE
    market = Market(w.MINUTE, bucket, {name: np.arange(1.0, 101) for name in series.CHANNELS})
    plan = technical.Plan("1m", ("sma_20",), relative=False)
    grid = np.arange(95, 140, dtype=np.int64) * w.MINUTE
    known = np.isfinite(technical.evaluate(market.read, grid, [plan])[:, 0])
    assert known.tolist() == [t <= 100 + series.greatest_age(w.MINUTE) - 1 for t in range(95, 140)]


def test_the_sets_declare_what_they_are() -> None:
    for family in technical.FAMILIES:
        assert len(set(family.names)) == len(family.names)
        assert registry.get(family.name) is family
        assert all(feature.formula and feature.source for feature in family.features)
