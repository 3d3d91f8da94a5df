"""Hours that stand out: more texts than usual, or another sentiment, and the words that mark them.

An hour's count is compared with those of the seven days before: under a negative binomial with
their mean and variance it would be so large once in a hundred thousand hours. Words are ranked by
Dunning's (1993) log-likelihood ratio against the texts before.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

BEFORE = 168  # hours
LEAST_BEFORE = 24
CHANCE = 1e-5
LEAST_TEXTS = 8
SHIFT = 5.0  # standard errors of a change of the mean
WORDS = 8
_WORD = re.compile(r"[$#]?[^\W\d_][\w'-]+", re.UNICODE)
_COMMON_WORDS = """
the and for that with this are was you your from have has had not but they will its it's our out
all can just about what when who how why been were their there than then them his her
"""
_COMMON = frozenset(_COMMON_WORDS.split())


def tail(count: float, mean: float, variance: float) -> float:
    """The chance of so many or more, negative binomial (Poisson where it varies less)."""
    from scipy import stats

    mean = max(mean, 0.5)
    if variance <= mean * 1.0001:
        return float(stats.poisson.sf(count - 1, mean))
    return float(stats.nbinom.sf(count - 1, mean**2 / (variance - mean), mean / variance))


def hours(counts: Floats, sums: Floats, squares: Floats, scored: Floats) -> list[dict[str, Any]]:
    """Hours that stand out, by what was there before each; (n,) per hour, oldest first."""
    found = []
    for at in range(LEAST_BEFORE, len(counts)):
        low = max(0, at - BEFORE)
        before = counts[low:at]
        mean, variance = float(before.mean()), float(before.var())
        p = tail(float(counts[at]), mean, variance)
        told = float(scored[low:at].sum())
        shift = 0.0
        if told >= LEAST_TEXTS and scored[at] >= LEAST_TEXTS:
            usual = sums[low:at].sum() / told
            spread = max(squares[low:at].sum() / told - usual**2, 1e-4)
            shift = float((sums[at] / scored[at] - usual) / math.sqrt(spread / scored[at]))
        volume = p < CHANCE and counts[at] >= LEAST_TEXTS
        if volume or abs(shift) >= SHIFT:
            found.append(
                {
                    "hour": at, "kind": "volume" if volume else "sentiment", "p": p,
                    "expected": mean, "shift": shift,
                }
            )  # fmt: skip
    return found


def words_of(text: str) -> set[str]:
    """The words of a text that can mark an event."""
    return {w for w in _WORD.findall(text.lower()) if len(w) > 2 and w not in _COMMON}


def terms(inside: list[str], before: list[str]) -> list[str]:
    """The words that are in more of the texts inside than before, strongest first."""
    here: dict[str, int] = {}
    there: dict[str, int] = {}
    for texts, counts in ((inside, here), (before, there)):
        for text in texts:
            for word in words_of(text):
                counts[word] = counts.get(word, 0) + 1
    n, m = max(len(inside), 1), max(len(before), 1)
    scored = []
    for word, a in here.items():
        b = there.get(word, 0)
        if a < 2 or a / n <= b / m:
            continue
        whole = (a + b) / (n + m)
        ratio = 2 * (a * math.log(a / (n * whole)) + (b * math.log(b / (m * whole)) if b else 0.0))
        scored.append((-ratio, word))
    return [word for _, word in sorted(scored)[:WORDS]]


def found(
    counts: list[float], sums: list[float], squares: list[float], scored: list[float]
) -> list[dict[str, Any]]:
    """The rows of ``sentiment._bursts``."""
    columns = (np.array(x, dtype=np.float64) for x in (counts, sums, squares, scored))
    return hours(*columns)
