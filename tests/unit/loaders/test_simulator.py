"""The market simulator against its own parameters: what is put in has to come out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from alphaplus.loaders.simulator import MINUTE, Config, Market, simulate

DAYS = 20


@pytest.fixture(scope="module")
def market() -> Market:
    return simulate(3, DAYS * 1440)


def realised(market: Market, minutes: int) -> np.ndarray:
    """Notional liquidated in the next ``minutes`` from each tenth minute."""
    total = np.concatenate([[0.0], np.cumsum(market.liquidations["notional"])])
    at = market.start + MINUTE * np.arange(0, market.minutes - 60, 10)
    first = np.searchsorted(market.liquidations["ts"], at)
    last = np.searchsorted(market.liquidations["ts"], at + minutes * MINUTE)
    return np.asarray(total[last] - total[first])


def auc(score: np.ndarray, label: np.ndarray) -> float:
    ranks = np.empty(len(score))
    ranks[np.argsort(score)] = np.arange(1, len(score) + 1)
    positive = label.sum()
    return float((ranks[label].sum() - positive * (positive + 1) / 2) / (positive * (~label).sum()))


def test_same_seed_same_market(market: Market) -> None:
    again = simulate(3, 300, hazards=False)
    other = simulate(4, 300, hazards=False)
    same = simulate(3, 300, hazards=False)
    assert np.array_equal(again.trades["price"], same.trades["price"])
    assert not np.array_equal(again.trades["price"][:50], other.trades["price"][:50])


def test_books_are_books(market: Market) -> None:
    books = market.books
    assert (books["bid_prices"][:, 0] < books["ask_prices"][:, 0]).all()
    assert (np.diff(books["bid_prices"], axis=1) < 0).all()
    assert (np.diff(books["ask_prices"], axis=1) > 0).all()
    assert (books["bid_sizes"] > 0).all() and (books["ask_sizes"] > 0).all()


def test_spread_and_impact_are_the_parameters() -> None:
    """Signed change of the log price: Kyle's lambda on volume, the half spread on the sign."""
    config = replace(Config(), volatility=1e-5, trades=20.0)
    quiet = simulate(5, 5 * 1440, config, hazards=False).trades
    value = quiet["sign"] * quiet["price"] * quiet["size"]
    change = np.diff(np.log(quiet["price"]))
    columns = np.stack([value[1:], np.diff(quiet["sign"])], axis=1)
    (kyle, half_spread), *_ = np.linalg.lstsq(columns, change, rcond=None)
    assert kyle == pytest.approx(config.kyle, rel=0.05)
    assert half_spread == pytest.approx(config.half_spread, rel=0.05)


def test_hazard_is_what_happens_on_average(market: Market) -> None:
    """Deciles of the true hazard against what was liquidated, and its rank as a score."""
    for minutes in (15, 60):
        hazard = market.truth[f"hazard_{minutes}m"][::10][: (market.minutes - 60 + 9) // 10]
        notional = realised(market, minutes)
        assert np.isfinite(hazard).all() and len(hazard) == len(notional)
        assert notional.mean() == pytest.approx(hazard.mean(), rel=0.25)
        order = np.argsort(hazard)
        halves = [notional[part].mean() / hazard[part].mean() for part in np.array_split(order, 4)]
        assert min(halves) > 0.5 and max(halves) < 1.6
        label = notional > np.quantile(notional, 0.9)
        assert auc(hazard, label) > 0.7


def test_without_signal_nothing_tells() -> None:
    market = simulate(6, 10 * 1440, replace(Config(), signal=False))
    notional = realised(market, 15)
    label = notional > np.quantile(notional, 0.9)
    intensity = market.truth["intensity"]
    assert np.ptp(intensity) == 0
    imbalance = market.books["bid_sizes"].sum(axis=1) - market.books["ask_sizes"].sum(axis=1)
    score = np.abs(imbalance)[::10][: len(label)]
    assert abs(auc(score, label) - 0.5) < 0.1


def test_regimes_and_drift(market: Market) -> None:
    share = np.bincount(market.truth["regime"], minlength=6) / market.minutes
    assert (share > 0).sum() >= 4
    plain = simulate(7, 4 * 1440, hazards=False)
    drifted = simulate(
        7, 4 * 1440, replace(Config(), drift_at=0.5, drift_volatility=3.0), hazards=False
    )
    ratio = drifted.truth["volatility"] / plain.truth["volatility"]
    half = len(ratio) // 2
    assert ratio[:half] == pytest.approx(1.0) and ratio[half:] == pytest.approx(3.0)
