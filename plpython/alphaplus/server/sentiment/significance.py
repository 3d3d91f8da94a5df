"""What is more than chance: block permutations, circular shifts, many tests at once.

Hours follow one another, so their values cannot be shuffled one by one: whole blocks are (Politis
and Romano 1994), or one series is turned against the other (circular shifts, as in the surrogate
tests of Andrzejak et al. 2003). Many tests at once: Benjamini and Hochberg (1995).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LEAST = 24  # hours with both values
PERMUTATIONS = 499


class Lagged(NamedTuple):
    """The correlation of one lag: hours, Pearson's r, its naive p, the permutation's p."""

    lag: int
    n: int
    r: float
    naive_p: float
    p: float


def pearson(x: Floats, y: Floats) -> float:
    """Pearson's r; NaN where one of them does not vary."""
    x, y = x - x.mean(), y - y.mean()
    below = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum() / below) if below > 1e-15 else float("nan")


def benjamini_hochberg(p: Floats) -> Floats:
    """Adjusted p-values; NaN stays."""
    out = np.full(len(p), np.nan)
    known = np.flatnonzero(np.isfinite(p))
    if len(known):
        order = known[np.argsort(p[known])]
        raised = p[order] * len(order) / np.arange(1, len(order) + 1)
        out[order] = np.minimum(np.minimum.accumulate(raised[::-1])[::-1], 1.0)
    return out


def lagged(
    sentiment: Floats, returns: Floats, lags: list[int], block: int = 24, seed: int = 1
) -> list[Lagged]:
    """Correlation of hourly sentiment with the return ``lag`` hours later (0: of the next hour).

    sentiment[h] is the mean of hour h, known at its end; returns[h] is the move from the end of
    hour h to the end of hour h + 1. Both (n,), NaN where not known.
    """
    from scipy import stats

    rng = np.random.default_rng(seed)
    n = len(sentiment)
    pieces = max(1, -(-n // block))
    out = []
    orders = []
    for _ in range(PERMUTATIONS):
        order = np.concatenate(
            [np.arange(i * block, min((i + 1) * block, n)) for i in rng.permutation(pieces)]
        )
        orders.append(np.roll(order, int(rng.integers(n))))
    for lag in lags:
        moved = np.full(n, np.nan)
        if lag < n:
            moved[: n - lag] = returns[lag:]
        both = np.isfinite(sentiment) & np.isfinite(moved)
        count = int(both.sum())
        if count < LEAST or pieces < 4:
            out.append(Lagged(lag, count, float("nan"), float("nan"), float("nan")))
            continue
        r = pearson(sentiment[both], moved[both])
        if not np.isfinite(r):
            out.append(Lagged(lag, count, r, float("nan"), float("nan")))
            continue
        naive = float(stats.pearsonr(sentiment[both], moved[both]).pvalue)
        above = tried = 0
        for order in orders:
            drawn = sentiment[order]
            pair = np.isfinite(drawn) & np.isfinite(moved)
            if pair.sum() >= LEAST:
                other = pearson(drawn[pair], moved[pair])
                if np.isfinite(other):
                    tried += 1
                    above += abs(other) >= abs(r) - 1e-12
        out.append(Lagged(lag, count, r, naive, (1 + above) / (1 + tried)))
    return out


class Influence(NamedTuple):
    """How far one voice goes before the others: lead, its p and q, and its shrunk weight."""

    name: str
    posts: int
    lead: float
    p: float
    q: float
    weight: float


PRIOR = 20.0  # posts that a voice's lead is shrunk by
LEAST_POSTS = 10


def influence(
    names: list[str], who: npt.NDArray[np.int64], hour: npt.NDArray[np.int64], score: Floats,
    horizon: int = 3, seed: int = 1,
) -> list[Influence]:  # fmt: skip
    """Who says it before the others do.

    Of each voice: its hourly score times the mean score of all others over the next ``horizon``
    hours, averaged over its hours, less the same with the past hours, against the same after its
    series was turned by random offsets. The weight is the lead times posts / (posts + 20), and 0
    for a voice of fewer than ten posts or whose q is above 0.05.
    """
    if not len(hour):
        return []
    hour = hour - hour.min()
    n = int(hour.max()) + 1
    total, count = np.bincount(hour, score, n), np.bincount(hour, minlength=n).astype(np.float64)
    rng = np.random.default_rng(seed)
    found = []
    for at, name in enumerate(names):
        mine = who == at
        posts = int(mine.sum())
        if posts < LEAST_POSTS or n < 8 * (horizon + 1):
            found.append((name, posts, np.nan, np.nan))
            continue
        own, often = np.bincount(hour[mine], score[mine], n), np.bincount(hour[mine], minlength=n)
        said = np.flatnonzero(often)
        value = own[said] / often[said]
        others, number = total - own, count - often
        sums, counts = np.cumsum(np.r_[0.0, others]), np.cumsum(np.r_[0.0, number])

        def ahead(
            places: npt.NDArray[np.int64], sums: Floats = sums, counts: Floats = counts
        ) -> Floats:
            low, high = np.minimum(places + 1, n), np.minimum(places + 1 + horizon, n)
            back = np.maximum(places - horizon, 0)
            later, before = counts[high] - counts[low], counts[places] - counts[back]
            with np.errstate(invalid="ignore", divide="ignore"):
                after = (sums[high] - sums[low]) / later
                past = (sums[places] - sums[back]) / before
            return np.where(later > 0, after, 0.0) - np.where(before > 0, past, 0.0)

        lead = float((value * ahead(said)).mean())
        turned = [
            float((value * ahead((said + shift) % n)).mean())
            for shift in rng.integers(horizon + 1, max(n - horizon, horizon + 2), PERMUTATIONS)
        ]
        p = (1 + sum(t >= lead - 1e-12 for t in turned)) / (1 + len(turned))
        found.append((name, posts, lead, p))
    q = benjamini_hochberg(np.array([f[3] for f in found], dtype=np.float64))
    out = []
    for i, (name, posts, lead, p) in enumerate(found):
        earned = bool(np.isfinite(q[i])) and q[i] <= 0.05 and lead > 0
        weight = lead * posts / (posts + PRIOR) if earned else 0.0
        out.append(Influence(name, posts, lead, p, float(q[i]), weight))
    return sorted(out, key=lambda one: (-one.weight, float(np.nan_to_num(one.p, nan=2.0))))


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def correlation_rows(
    assets: list[str], sentiment: list[list[float | None]], returns: list[list[float | None]],
    lags: list[int], block: int, seed: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """The rows of ``sentiment.correlation``: q over all assets and lags together."""
    rows = []
    for asset, x, y in zip(assets, sentiment, returns, strict=True):
        found = lagged(np.array(x, dtype=float), np.array(y, dtype=float), lags, block, seed)
        rows += [(asset, *one) for one in found]
    q = benjamini_hochberg(np.array([row[5] for row in rows], dtype=np.float64))
    return [
        {
            "asset": row[0], "lag_hours": row[1], "n": row[2], "r": _known(row[3]),
            "naive_p": _known(row[4]), "p": _known(row[5]), "q": _known(q[i]),
        }
        for i, row in enumerate(rows)
    ]  # fmt: skip


def influence_rows(
    who: list[str], hour: list[int], score: list[float], horizon: int, seed: int
) -> list[dict[str, Any]]:
    """The rows of ``sentiment.influence``."""
    names = sorted(set(who))
    place = {name: at for at, name in enumerate(names)}
    found = influence(
        names, np.array([place[w] for w in who], dtype=np.int64),
        np.array(hour, dtype=np.int64), np.array(score, dtype=np.float64), horizon, seed,
    )  # fmt: skip
    return [
        {
            "voice": one.name, "posts": one.posts, "lead": _known(one.lead), "p": _known(one.p),
            "q": _known(one.q), "weight": one.weight,
        }
        for one in found
    ]  # fmt: skip
