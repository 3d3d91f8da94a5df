"""Online aggregation: other people's definitions, bounds that hold, and what regimes are worth."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alphaplus.server.serving import ensemble as e
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyarrow import parquet
from scipy import stats

Array = NDArray[np.float64]
ALL = tuple(e.METHODS)


def opera(kind: str, x: Array, y: Array, awake: Array) -> tuple[Array, Array]:
    """BOA, ML-Poly and fixed share by opera's definitions, square loss, a row at a time: weights
    and predictions. Written from its documentation's formulas; loops, no shared code."""
    n, k = x.shape
    w0 = [1.0 / k] * k
    regret, regular, v = [0.0] * k, [0.0] * k, [0.0] * k
    rate, top = [math.inf] * k, 0.0
    alpha, eta = 1 / 500, 1.0
    log_w = [math.log(1 / k)] * k
    weights, predictions = np.zeros((n, k)), np.zeros(n)
    for t in range(n):
        if kind == "boa":
            seen = [i for i in range(k) if v[i] > 0]
            w = list(w0)
            if seen:
                z = {
                    i: -math.log(v[i]) / 2 + math.log(w0[i]) + regular[i] / math.sqrt(v[i])
                    for i in seen
                }
                high = max(z.values())
                total = sum(math.exp(a - high) for a in z.values())
                mass = sum(w0[i] for i in seen)
                for i in seen:
                    w[i] = mass * math.exp(z[i] - high) / total
        elif kind == "ml_poly":
            good = [awake[t, i] and regret[i] > 0 for i in range(k)]
            w = [rate[i] * max(regret[i], 0.0) if any(good) else 1.0 for i in range(k)]
        else:
            high = max(log_w)
            w = [math.exp(a - high) for a in log_w]
        total = sum(w[i] for i in range(k) if awake[t, i])
        p = [w[i] / total if awake[t, i] else 0.0 for i in range(k)]
        said = sum(p[i] * x[t, i] for i in range(k) if awake[t, i])
        weights[t], predictions[t] = p, said
        if kind == "fixed_share":
            # without the gradient trick: the losses themselves
            lost = [(x[t, i] - y[t]) ** 2 if awake[t, i] else 0.0 for i in range(k)]
            mixed = -math.log(sum(p[i] * math.exp(-lost[i]) for i in range(k) if awake[t, i]))
            a = [log_w[i] + (eta * (mixed - lost[i]) if awake[t, i] else 0.0) for i in range(k)]
            high = max(a)
            total = sum(math.exp(b - high) for b in a)
            log_w = [math.log(alpha / k + (1 - alpha) * math.exp(b - high) / total) for b in a]
            continue
        slope = 2 * (said - y[t])
        r = [slope * (said - x[t, i]) if awake[t, i] else 0.0 for i in range(k)]
        if kind == "boa":
            for i in range(k):
                v[i] += 2.2 * r[i] ** 2
                if v[i] > 0:
                    regular[i] += r[i] - r[i] ** 2 / math.sqrt(v[i])
        else:
            higher = max([top, *(a * a for a in r)])
            for i in range(k):
                regret[i] += r[i]
                gone = 0.0 if math.isinf(rate[i]) else 1 / rate[i]
                rate[i] = (
                    1 / (gone + r[i] ** 2 + higher - top)
                    if gone + r[i] ** 2 + higher - top
                    else math.inf
                )
            top = higher
    return weights, predictions


@pytest.mark.parametrize("kind", ["boa", "ml_poly", "fixed_share"])
@pytest.mark.parametrize("sleep", [0.0, 0.4])
def test_methods_are_operas(kind: str, sleep: float) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.uniform(0.02, 0.98, (400, 5)), (rng.random(400) < 0.5).astype(float)
    awake = rng.random(x.shape) >= sleep
    awake[:, 0] |= ~awake.any(axis=1)
    weights, predictions = opera(kind, x, y, awake)
    setup = e.Setup(tuple("abcde"), loss="square")
    found = e.run(
        setup, [kind], np.where(awake, x, np.nan)[:, None, :], np.zeros((400, 1, 0)), y[:, None]
    )
    np.testing.assert_allclose(found.weights[:, 0, 0], weights, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.probability[:, 0, 0], predictions, rtol=0, atol=1e-9)


def streams(seeds: range, n: int = 6000, dwell: int = 500) -> tuple[Array, Array, Any]:
    """Seven members, three regimes, another member right in each: (T, S, K), (T, S), (T, S)."""
    xs, ys, regimes = [], [], []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        logit = 1.1 * rng.standard_normal(n)
        y = (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(float)
        states: list[int] = []
        while len(states) < n:
            states += [int(rng.integers(3))] * int(rng.geometric(1 / dwell))
        state = np.array(states[:n])
        noise = np.column_stack(
            [
                np.where(state == i, 0.35, 1.6) if i < 3 else np.full(n, 1.0 + 0.2 * (i - 3))
                for i in range(7)
            ]
        )
        z = logit[:, None] + noise * rng.standard_normal((n, 7))
        xs.append(np.clip(1 / (1 + np.exp(-z)), 1e-3, 1 - 1e-3))
        ys.append(y)
        regimes.append(state)
    return np.stack(xs, 1), np.stack(ys, 1), np.stack(regimes, 1)


def classifier(state: Any, right: float, seed: int = 1) -> Array:
    """Probabilities of a classifier that is right in a share of rounds, and says so."""
    rng = np.random.default_rng(seed)
    wrong = (state + rng.integers(1, 3, state.shape)) % 3
    told = np.where(rng.random(state.shape) < right, state, wrong)
    found: Array = np.stack(
        [np.where(told == r, right, (1 - right) / 2) for r in range(3)], axis=-1
    )
    return found


SETUP = e.Setup(tuple("abcdefg"), ("x", "y", "z"))


@pytest.fixture(scope="module")
def simulated() -> tuple[Array, Array, Any, e.Answer, Array]:
    x, y, state = streams(range(12))
    said = e.run(SETUP, ALL, x, classifier(state, 0.87), y)
    return x, y, state, said, e.losses("log", said.probability, y[:, :, None])


def bound(setup: e.Setup, methods: int, n: int) -> float:
    alpha = setup.param(e.AUTO, "switch", e.SWITCH)
    return math.log(methods) - n * math.log(1 - alpha + alpha / methods)


def diebold_mariano(first: Array, second: Array) -> float:
    """One-sided p of: the first loses no less than the second."""
    d = first - second
    return float(stats.t.cdf(d.mean() / (d.std(ddof=1) / math.sqrt(len(d))), len(d) - 1))


def test_auto_on_simulated_regimes(simulated: Any) -> None:
    x, y, state, said, lost = simulated
    total = lost.sum(axis=0)
    m = len(said.methods)
    assert (total[:, -1] - total[:, :-1].min(axis=1) <= bound(SETUP, m, len(x))).all()
    assert lost[..., -1].mean() <= lost[..., :-1].mean(axis=(0, 1)).min() + 1e-3
    own = e.losses("log", x, y[:, :, None])
    oracle = np.take_along_axis(own, state[:, :, None], axis=2).mean()
    assert lost[..., -1].mean() <= 1.005 * oracle
    auto = lost[..., -1].ravel()
    for i in range(7):
        assert diebold_mariano(auto, own[..., i].ravel()) < 0.01
    assert diebold_mariano(auto, lost[..., said.methods.index("voting")].ravel()) < 0.01


@pytest.mark.parametrize("lag", [0, 60])
def test_tracking_weights_find_the_right_member(simulated: Any, lag: int) -> None:
    x, y, state, said, _ = simulated
    place = said.methods.index("fixed_share")
    w = said.weights[:, :, place]
    if lag:
        w = e.run(SETUP, ["fixed_share"], x, np.zeros((*y.shape, 3)), y, lag).weights[:, :, 0]
    delays = []
    for s in range(12):
        changes = np.flatnonzero(np.diff(state[:, s])) + 1
        for begin, end in zip(changes, [*changes[1:], len(state)], strict=True):
            right = np.flatnonzero(w[begin:end, s, state[begin, s]] > 0.5)
            if end - begin > 200 + lag:
                delays.append(right[0] if len(right) else math.inf)
    assert len(delays) > 50 and np.median(delays) <= 45 + lag


def test_regime_weights_are_never_much_worse_than_none() -> None:
    x, y, state = streams(range(20, 26), 3000)
    for right in (1 / 3, 0.6, 0.75, 0.87, 1.0):
        said = e.run(SETUP, ["regime_weights"], x, classifier(state, right), y)
        none = e.run(SETUP, ["fixed_share"], x, np.zeros((*y.shape, 3)), y)
        more = e.losses("log", said.probability[..., 0], y) - e.losses(
            "log", none.probability[..., 0], y
        )
        assert (more.sum(axis=0) <= 1 * len(x) / 1000).all(), right
    # A classifier that is right is worth something.
    assert more.mean() < -0.002


def test_no_lift_on_noise() -> None:
    x, y, state = streams(range(30, 36), 3000)
    rng = np.random.default_rng(5)
    y = rng.permuted(y, axis=0)
    said = e.run(SETUP, ALL, x, classifier(state, 0.87), y)
    lost = e.losses("log", said.probability, y[:, :, None])
    base = e.losses("log", np.broadcast_to(y.mean(axis=0), y.shape), y)
    for i in range(lost.shape[-1]):
        assert diebold_mariano(lost[..., i].ravel(), base.ravel()) > 0.05


@pytest.mark.parametrize("coin", ["BTC", "ETH"])
def test_the_bound_holds_on_real_hours(shared_data: Path, coin: str) -> None:
    """Will the next hour close higher: simple members on real bars. Whatever they are worth."""
    table = parquet.read_table(shared_data / "perps_hourly" / "candles.parquet")
    venues, coins = table.column("venue").to_pylist(), table.column("coin").to_pylist()
    mine = [v == "hyperliquid" and c == coin for v, c in zip(venues, coins, strict=True)]
    order = np.argsort(table.column("timestamp").to_numpy()[mine])
    close = table.column("c").to_numpy()[mine][order]
    assert len(close) > 500
    move = np.diff(np.log(close))
    y = (move[24:] > 0).astype(float)[:4000]
    past = np.stack([move[24 - lag : 24 - lag + len(y)] for lag in (1, 2, 24)], 1)
    up = 0.5 + 0.2 * np.tanh(past / np.nanstd(past))
    x = np.column_stack([up, 1 - up, np.full(len(y), 0.5)])[:, None, :]
    setup = e.Setup(tuple("abcdefg"))
    said = e.run(setup, ALL, x, np.zeros((len(y), 1, 0)), y[:, None])
    total = e.losses("log", said.probability, y[:, None, None]).sum(axis=(0, 1))
    assert total[-1] - total[:-1].min() <= bound(setup, len(said.methods), len(y))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000), k=st.integers(1, 6), asleep=st.floats(0, 0.9),
    cut=st.integers(0, 40), late=st.integers(0, 9),
)  # fmt: skip
def test_a_state_kept_and_gone_on_from_is_the_same_to_the_last_bit(
    seed: int, k: int, asleep: float, cut: int, late: int
) -> None:
    """And the bound holds, probabilities stay inside, weights of the awake sum to one."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 1, (40, k))
    x[rng.random(x.shape) < asleep] = np.nan
    y = (rng.random(40) < 0.3).astype(float)
    pi = rng.dirichlet(np.ones(3), 40)
    setup = e.Setup(tuple(map(str, range(k))), ("a", "b", "c"), horizon=5)
    names = [n for n in ALL if n != "stacking"]
    rounds = [(i, i, x[i].tolist(), pi[i].tolist()) for i in range(40)]
    outcomes = [(i, i + 1 + late, float(y[i])) for i in range(40)]
    whole = e.Memory(setup, names)
    whole.replay(rounds, [o for o in outcomes if o[1] <= 40])
    kept = e.Memory(setup, names)
    kept.replay([r for r in rounds if r[1] < cut], [o for o in outcomes if o[1] <= cut])
    gone_on = e.Memory(setup, names, kept.text())
    gone_on.replay([r for r in rounds if r[1] >= cut], [o for o in outcomes if cut < o[1] <= 40])
    assert gone_on.text() == whole.text()
    answer = whole.predict([0.3] * k, pi[0].tolist())
    assert np.allclose(answer.weights.sum(axis=-1), 1) and (answer.weights >= 0).all()
    p = float(answer.probability[0, -1])
    low, high = whole.interval(p)
    assert 0 <= low <= p <= high <= 1
    for kind, _, _, mixed, own, most in whole.regrets():
        if kind == "method":
            assert most is not None
            # What is late is predicted before the mixture knows: each delay is a stream of its own.
            assert mixed - own <= most * (1 + late) + 1e-9


def test_a_member_that_sleeps_half_the_time_costs_no_more() -> None:
    x, y, _ = streams(range(40, 44), 3000)
    own = e.losses("log", x[..., 0], y)
    x[::2, :, 0] = np.nan
    said = e.run(SETUP, ["fixed_share"], x, np.zeros((*y.shape, 3)), y)
    lost = e.losses("log", said.probability[..., 0], y)
    regret = (lost - own)[1::2].sum(axis=0)
    # ln K, and a share of 1/500 of 7 at every one of 3,000 outcomes.
    assert (regret <= math.log(7) - 3000 * math.log(1 - 1 / 500 + 1 / 3500)).all()


def test_intervals_cover_the_true_chance() -> None:
    """Held out: after 4,000 outcomes the true frequency of what is said lies inside in 90 %."""
    inside = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        logit = rng.normal(0, 1.2, 5000)
        truth = 1 / (1 + np.exp(-logit))
        y = (rng.random(5000) < truth).astype(float)
        x = 1 / (1 + np.exp(-(logit[:, None] + rng.normal(0, 0.3, (5000, 3)))))
        setup = e.Setup(tuple("abc"))
        memory = e.Memory(setup, ["voting"])
        memory.replay(
            [(i, i, x[i].tolist(), []) for i in range(4000)],
            [(i, i + 1, float(y[i])) for i in range(4000)],
        )
        said = x[4000:].mean(axis=1)
        for low, high in zip(e.EDGES[2:-1], e.EDGES[3:], strict=True):
            here = (said >= low) & (said < high)
            if here.sum() > 30:
                # the mean chance of those about which the same is said, beside the interval's centre
                ends = np.array([memory.interval(float(p)) for p in said[here]]).mean(axis=0)
                inside.append(ends[0] <= truth[4000:][here].mean() <= ends[1])
    assert len(inside) > 60 and np.mean(inside) >= 0.88


def test_stacking_finds_the_weights() -> None:
    rng = np.random.default_rng(2)
    z = rng.normal(0, 1, (8000, 3))
    pi = rng.dirichlet(np.ones(2), 8000)
    truth = np.array([1.2, 0.5, 0.0, 0.8, -0.8, 0.2])
    x = 1 / (1 + np.exp(-z))
    p = 1 / (1 + np.exp(-np.column_stack([z, pi, np.ones(8000)]) @ truth))
    y = (rng.random(8000) < p).astype(float)
    theta = e.fit_stacking(x, pi, y)
    np.testing.assert_allclose(theta[:3], truth[:3], atol=0.1)
    # regimes sum to one, so that their constant is one with theirs: the difference counts
    assert abs((theta[3] - theta[4]) - 1.6) < 0.3
    setup = e.Setup(tuple("abc"), ("u", "v"), stacking=tuple(theta))
    said = e.run(setup, ["voting", "stacking"], x[:, None], pi[:, None], y[:, None])
    lost = e.losses("log", said.probability, y[:, None, None]).mean(axis=(0, 1))
    assert lost[1] < lost[0] - 0.005
