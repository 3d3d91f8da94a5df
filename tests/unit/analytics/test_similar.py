"""Similar states: scales by regime, choice without overlap, and skill that is claimed honestly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from alphaplus.server.analytics import similar
from numpy.typing import NDArray
from scipy import stats

HOUR = 3_600_000_000


class Quiet:
    """Stands for plpy where nothing is asked of the database."""

    def execute(self, *_: Any) -> list[Any]:
        return []


def sent(values: NDArray[Any]) -> bytes:
    """As array_send writes an array of one dimension without nulls."""
    kind = ">i8" if values.dtype.kind == "i" else ">f8"
    record = np.zeros(len(values), [("n", ">i4"), ("v", kind)])
    record["n"], record["v"] = 8, values
    return b"\0" * 20 + record.tobytes()


def worth(states: NDArray[np.float64], price: NDArray[np.float64], hours: int = 12) -> Any:
    ts = np.arange(len(price), dtype=np.int64) * HOUR
    packed = [sent(ts), sent(ts), sent(price), sent(states.ravel())]
    (found,) = similar.skill(
        Quiet(), {}, packed, 0, int(ts[-1]) + 1, 20, hours * HOUR, (hours + 72) * HOUR, 1
    )
    return found


def walk(seed: int, skilled: float, n: int = 4000) -> tuple[Any, Any]:
    """States that move slowly, and a price whose next hours follow them so far."""
    rng = np.random.default_rng(seed)
    states = np.zeros((n, len(similar.FEATURES)))
    for t in range(1, n):
        states[t] = 0.9 * states[t - 1] + np.sqrt(0.19) * rng.normal(size=states.shape[1])
    steps = rng.normal(size=n)
    steps[1:] += skilled * np.sign(states[:-1, 0] + states[:-1, 1])
    return states, 100 * np.exp(0.01 * np.cumsum(steps))


def test_no_skill_is_claimed_of_a_random_walk_and_skill_is_found() -> None:
    """The lower end of a 95 % interval is above zero in one of 40 by chance."""
    runs = 40
    luck = [worth(*walk(seed, 0.0)) for seed in range(runs)]
    assert all(w["forecasts"] > 200 for w in luck)
    # At most what 1 of 40 makes likely at 99 %.
    most = int(stats.binom.ppf(0.99, runs, 0.025))
    assert sum(w["gain_low"] > 0 for w in luck) <= most
    assert sum(w["crps_gain_low"] > 0 for w in luck) <= most
    found = [worth(*walk(seed, 0.5)) for seed in range(8)]
    assert sum(w["gain_low"] > 0 for w in found) >= 7
    assert all(0.75 < w["coverage_90"] < 0.98 for w in [*luck, *found])


def test_few_forecasts_say_nothing() -> None:
    few = worth(*walk(1, 0.0, n=500))
    assert few["forecasts"] < 20 and few["gain"] is None
    (none,) = similar.skill(Quiet(), {}, [None] * 4, 0, 1, 20, HOUR, HOUR, 1)
    assert none["forecasts"] == 0


def test_nothing_later_changes_a_forecast() -> None:
    """The first half's figures are those of the first half alone."""
    states, price = walk(3, 0.3)
    half = 2000
    ts = np.arange(len(price), dtype=np.int64) * HOUR
    packed = [sent(ts), sent(ts), sent(price), sent(states.ravel())]
    (whole,) = similar.skill(Quiet(), {}, packed, 0, half * HOUR, 20, 12 * HOUR, 84 * HOUR, 1)
    other = price.copy()
    other[half + 12 :] *= np.exp(np.random.default_rng(1).normal(size=len(price) - half - 12))
    packed[2] = sent(other)
    (changed,) = similar.skill(Quiet(), {}, packed, 0, half * HOUR, 20, 12 * HOUR, 84 * HOUR, 1)
    assert whole == changed


def test_scales_are_those_of_the_regime_or_of_all() -> None:
    rng = np.random.default_rng(1)
    raw = rng.normal(3, 2, (2000, len(similar.FEATURES)))
    raw[rng.random(raw.shape) < 0.05] = np.nan
    regime = rng.choice([1, 2, 3], 2000, p=[0.6, 0.38, 0.02])
    sums = similar.Sums.none().add(raw[:900], regime[:900]).add(raw[900:], regime[900:])
    for r, rows in ((1, raw[regime == 1]), (2, raw[regime == 2]), (3, raw)):
        mean, deviation = sums.scale(r)
        np.testing.assert_allclose(mean, np.nanmean(rows, axis=0), rtol=1e-12)
        np.testing.assert_allclose(deviation, np.nanstd(rows, axis=0), rtol=1e-9)
    z = similar.normalised(raw, regime, sums)
    at = (regime == 1) & np.isfinite(raw).all(axis=1)
    expected = (raw[at] - np.nanmean(raw[regime == 1], axis=0)) / np.nanstd(
        raw[regime == 1], axis=0
    )
    np.testing.assert_allclose(z[at], np.clip(expected, -4, 4), rtol=1e-9)
    assert np.isnan(similar.normalised(raw, regime, similar.Sums.none())).all()


@pytest.mark.parametrize("seed", range(3))
def test_chosen_moments_lie_apart(seed: int) -> None:
    rng = np.random.default_rng(seed)
    distance, ts = rng.random(300), rng.permutation(300).astype(np.int64)
    picked = similar.chosen(distance, ts, 15, 7)
    times = np.sort(ts[picked])
    assert len(picked) == 15 and np.diff(times).min() >= 7
    assert distance[picked[0]] == distance.min()
    # Whoever is nearer than the last one and not taken lies too near to one that was.
    for place in np.flatnonzero(distance < distance[picked[-1]]):
        assert place in picked or np.abs(ts[picked] - ts[place]).min() < 7


def test_crps_of_a_normal_sample() -> None:
    """Against the closed form for a normal law, Gneiting and Raftery (2007)."""
    rng = np.random.default_rng(1)
    sample = rng.normal(size=4000)
    for value in (-1.0, 0.3, 2.0):
        right = value * (2 * stats.norm.cdf(value) - 1) + 2 * stats.norm.pdf(value)
        assert similar.crps(sample, value) == pytest.approx(right - 1 / np.sqrt(np.pi), abs=0.03)


def test_months() -> None:
    january = similar.month_of(1_769_904_000_000_000 - 1)
    assert january == 1_767_225_600_000_000
    assert similar.month_after(january) == 1_769_904_000_000_000
