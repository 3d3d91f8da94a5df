"""What is more than chance, on data whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from alphaplus.server.sentiment import bursts
from alphaplus.server.sentiment import significance as s


def test_benjamini_hochberg_is_scipy_s() -> None:
    from scipy.stats import false_discovery_control

    p = np.random.default_rng(1).uniform(size=30) ** 2
    assert s.benjamini_hochberg(p) == pytest.approx(false_discovery_control(p))
    gone = s.benjamini_hochberg(np.array([np.nan, 0.01, 0.5]))
    assert np.isnan(gone[0])
    assert gone[1:] == pytest.approx(false_discovery_control([0.01, 0.5]))


def walk(rng: np.random.Generator, n: int, phi: float) -> np.ndarray:
    x = np.zeros(n)
    for i in range(1, n):
        x[i] = phi * x[i - 1] + rng.normal()
    return x


@pytest.mark.long
def test_persistent_noise_is_not_called_a_correlation() -> None:
    """100 pairs without a link: at most 5 % by the permutation, many more by the naive p."""
    claims = naive = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        found = s.lagged(walk(rng, 720, 0.9), walk(rng, 720, 0.9), [0], seed=seed)[0]
        claims += found.p <= 0.05
        naive += found.naive_p <= 0.05
    assert claims <= 10  # 5 expected; 10 is the 98.9 % point of 100 at 5 %
    assert naive >= 25


def test_a_link_is_found_at_its_lag() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=600)
    y = np.roll(x, 2) * 0.5 + rng.normal(size=600)
    found = {one.lag: one for one in s.lagged(x, y, [0, 1, 2, 3])}
    assert found[2].p == pytest.approx(1 / 500)
    assert found[2].r == pytest.approx(np.corrcoef(x[:-2], y[2:])[0, 1])
    assert min(found[lag].p for lag in (0, 1, 3)) > 0.01
    few = s.lagged(np.full(50, np.nan), y[:50], [0])[0]
    assert np.isnan(few.p)
    assert np.isnan(s.lagged(np.ones(600), y, [0])[0].p)


def cascade(seed: int, leaders: int = 1) -> tuple[list[str], list[int], list[float]]:
    """One voice says it; the others repeat it in the next two hours, beside their own noise."""
    rng = np.random.default_rng(seed)
    who, hour, score = [], [], []
    for h in range(0, 720, 6):
        opinion = float(rng.choice([-0.7, 0.7]))
        who += ["source"] * leaders
        hour += [h] * leaders
        score += [opinion] * leaders
        for _ in range(6):
            who.append(f"f{rng.integers(15)}")
            hour.append(h + int(rng.integers(1, 3)))
            score.append(float(np.clip(opinion * (rng.random() < 0.6) + rng.normal(0, 0.4), -1, 1)))
        for _ in range(4):
            who.append(f"f{rng.integers(15)}")
            hour.append(h + int(rng.integers(0, 6)))
            score.append(float(np.clip(rng.normal(0, 0.5), -1, 1)))
    return who, hour, score


@pytest.mark.long
def test_the_source_of_a_cascade_is_ranked_first() -> None:
    first = 0
    for seed in range(20):
        rows = s.influence_rows(*cascade(seed), 3, seed)
        first += rows[0]["voice"] == "source" and rows[0]["weight"] > 0
    assert first >= 18


def test_three_lucky_posts_earn_nothing() -> None:
    who, hour, score = cascade(1)
    who += ["lucky"] * 3
    hour += [6, 12, 18]
    score += [1.0] * 3
    rows = {row["voice"]: row for row in s.influence_rows(who, hour, score, 3, 1)}
    assert rows["source"]["weight"] > 0
    assert (rows["lucky"]["weight"], rows["lucky"]["p"]) == (0.0, None)
    assert s.influence_rows([], [], [], 3, 1) == []


def test_bursts_are_found_where_they_are() -> None:
    rng = np.random.default_rng(2)
    counts = rng.poisson(5, 400).astype(float)
    counts[300] = 60
    scored = counts.copy()
    sums = scored * 0.1
    squares = scored * 0.1
    sums[350] = -0.9 * scored[350] if scored[350] >= 8 else sums[350]
    found = bursts.found(list(counts), list(sums), list(squares), list(scored))
    assert 300 in {row["hour"] for row in found if row["kind"] == "volume"}
    assert sum(row["kind"] == "volume" for row in found) == 1
    assert bursts.found([], [], [], []) == []


def test_words_that_mark_an_event() -> None:
    before = ["the market is quiet today"] * 50 + ["bitcoin holders wait for news"] * 50
    inside = ["bitcoin exchange hacked, withdrawals halted"] * 9 + ["bitcoin is quiet"]
    assert set(bursts.terms(inside, before)[:4]) == {"exchange", "hacked", "withdrawals", "halted"}
