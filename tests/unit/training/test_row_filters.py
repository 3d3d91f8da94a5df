"""The noise filters on bars with planted faults, and on clean ones."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from alphaplus.server.training import row_filters

Floats = npt.NDArray[np.float64]
WIDTH = 61


def windows(rows: int = 400, seed: int = 0) -> tuple[dict[str, Floats], Floats]:
    """Clean windows of bars, and spreads."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.0005, (rows, WIDTH)), axis=1))
    open_ = close * np.exp(rng.normal(0, 0.0002, close.shape))
    high = np.maximum(open_, close) * 1.0003
    low = np.minimum(open_, close) * 0.9997
    volume = rng.gamma(3.0, 10.0, close.shape)
    bars = {"open": open_, "high": high, "low": low, "close": close, "volume": volume}
    return bars, np.full(close.shape, 0.0002)


def reasons(bars: dict[str, Floats], spread: Floats, **params: object) -> list[set[str]]:
    found = row_filters.judge(bars, spread, row_filters.Params(**params)).reasons  # type: ignore[arg-type]
    return [{row_filters.REASONS[i] for i in np.flatnonzero(row)} for row in found]


def test_clean_bars_pass() -> None:
    assert sum(map(len, reasons(*windows()))) == 0


def test_each_fault_is_found_and_named() -> None:
    bars, spread = windows(6)
    bars["close"][0, -1] *= 1.05
    bars["open"][0, -1] = bars["low"][0, -1] = bars["close"][0, -1]
    bars["high"][0, -1] = bars["close"][0, -1]
    bars["high"][1, -1] *= 1.2
    bars["low"][1, -1] *= 1.0
    bars["volume"][2, -1] = 0
    bars["volume"][3, -1] *= 1e5
    spread[4, -1] = 0.004
    for values in bars.values():
        values[5, -1] = np.nan
    assert reasons(bars, spread) == [
        {"hampel"}, {"bad_tick"}, {"volume"}, {"volume"}, {"spread"}, {"gap"},
    ]  # fmt: skip
    off = reasons(
        bars, spread, hampel_sigmas=None, wick_ratio=None, volume_ratio=None, zero_volume=False,
        spread_ratio=None, spread_max=None, gap=False,
    )  # fmt: skip
    assert sum(map(len, off)) == 0


def test_the_hampel_rule_is_its_definition() -> None:
    bars, spread = windows(2000, seed=3)
    bars["close"][:, -1] *= np.exp(np.random.default_rng(4).standard_t(2, 2000) * 0.001)
    found = row_filters.judge(bars, spread, row_filters.Params()).reasons[:, 0]
    returns = np.diff(np.log(bars["close"]), axis=1)
    middle = np.median(returns, axis=1)
    mad = np.median(np.abs(returns - middle[:, None]), axis=1)
    deviation = np.abs(returns[:, -1] - middle)
    expected = (deviation > 8 * 1.4826 * mad) & (deviation > 0.001)
    np.testing.assert_array_equal(found, expected)
    assert 0 < found.sum() < 1000


def test_a_still_market_and_holes_are_not_noise_in_themselves() -> None:
    bars = {name: np.full((3, WIDTH), 5.0) for name in ("open", "high", "low", "close", "volume")}
    for values in bars.values():
        values[1, :50] = np.nan
        values[2, :20] = np.nan
    assert sum(map(len, reasons(bars, np.full((3, WIDTH), np.nan)))) == 0


def test_a_trade_in_a_market_that_seldom_trades_is_no_outlier() -> None:
    bars, spread = windows(3)
    bars["volume"][:, :40] = 0.0
    bars["volume"][1, -1] = 1e9
    bars["volume"][2, -1] = 0.0
    assert reasons(bars, spread) == [set(), set(), {"volume"}]


@pytest.mark.parametrize(
    "text",
    [
        '{"windw": 5}',
        '{"window": 5}',
        '{"window": "x"}',
        "[1]",
        '{"gap": null}',
        '{"gap": 1}',
        '{"wick_min": true}',
    ],
)
def test_wrong_parameters_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        row_filters.Params.of(text)


def test_parameters_from_json() -> None:
    assert (
        row_filters.Params.of(None) == row_filters.Params.of("{}") == row_filters.Params.of("true")
    )
    assert row_filters.Params.of('{"spread_max": null}').spread_max is None
