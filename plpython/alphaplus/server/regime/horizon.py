"""What comes next: the regime in h bars, and the level of a positive series with an interval.

A level (squared range volatility, or volume) is forecast by three members: the mean of the last h
bars, an exponential mean, and a heterogeneous autoregression of ln (Corsi 2009, J. Financial
Econometrics 7(2)), fitted anew every :data:`REFIT` bars on what was over by then. They are averaged
by weights that follow their discounted past loss (QLIKE, Patton 2011), a share of the naive one
whatever these say, so that no symbol is much worse off than with its best simple forecast. The
interval is a quantile of past errors whose level moves with every hit and miss (adaptive conformal
inference: Gibbs & Candes 2021), so that its coverage holds when the market changes. All of it at a
bar uses only what was over at that bar.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from alphaplus.server.regime.filtering import Dynamics
from alphaplus.server.regime.states import COUNT, Floats, Times

MEMBERS = ("naive", "ewma", "har")
REFIT = 168
FIRST = 500  # bars before the first forecast
WINDOW = 1000  # errors of which the quantile is taken
LEAST = 100  # errors before there is an interval
MISS = 0.1  # share of outcomes outside of the interval
STEP = 0.03
ETA = 0.1  # how sharply weights follow losses
MEMORY = 0.999
# Share of the naive forecast whatever the losses: an outcome a thousand times the forecast costs
# more than all that a fitted member won in a year, and weights by past losses cannot foresee it.
HEDGE = 0.15


def _mean(x: Floats, n: int) -> Floats:
    """Mean of the last n at each place; NaN before there are so many."""
    out = np.full(len(x), np.nan)
    if len(x) >= n:
        total = np.concatenate([[0.0], np.cumsum(x)])
        out[n - 1 :] = (total[n:] - total[:-n]) / n
    return out


def _ewma(x: Floats, half: float) -> Floats:
    alpha, out = 1.0 - 0.5 ** (1.0 / half), np.empty(len(x))
    level = x[0]
    for i, value in enumerate(x.tolist()):
        level += max(alpha, 1.0 / (i + 1)) * (value - level)
        out[i] = level
    return out


@dataclass(frozen=True)
class Forecasts:
    """At each bar: the forecast mean level of the next h bars, its interval, the weights (n, 3) of
    the members and their own forecasts (n, 3); NaN where there is none yet."""

    level: Floats
    lower: Floats
    upper: Floats
    weights: Floats
    members: Floats


def forecasts(x: Floats, h: int) -> Forecasts:
    """Walk-forward forecasts of the mean of the next h of a positive series, at every bar."""
    n = len(x)
    future = np.full(n, np.nan)
    future[: max(n - h, 0)] = _mean(x, h)[h:]
    y = np.log(future)
    columns = (x, _mean(x, 4), _mean(x, 24), _mean(x, 168), _mean(x, h))
    design = np.column_stack([np.ones(n), *(np.log(np.maximum(c, 1e-300)) for c in columns)])
    known = np.isfinite(design).all(axis=1)
    simple = np.column_stack([design[:, 5], np.log(_ewma(x, 8.0)), np.full(n, np.nan)])
    members = np.full((n, len(MEMBERS)), np.nan)
    for start in range(FIRST, n, REFIT):
        stop = min(start + REFIT, n)
        # An outcome is over h bars after its forecast.
        past = np.arange(max(0, start - 5000), max(start - h + 1, 0))
        past = past[known[past] & np.isfinite(y[past])]
        if len(past) < LEAST:
            continue
        here = np.arange(start, stop)
        for k in range(2):
            members[here, k] = _scaled(simple[past, k], future[past], simple[here, k])
        beta = np.linalg.lstsq(design[past], y[past], rcond=None)[0]
        members[here, 2] = _scaled(design[past] @ beta, future[past], design[here] @ beta)
    weights, level = _average(members, future, h)
    lower, upper = _interval(level, future, h)
    return Forecasts(level, lower, upper, weights, members)


def _scaled(past: Floats, future: Floats, now: Floats) -> Floats:
    """exp of forecasts of ln, scaled so that outcomes were as high as forecasts on average: the
    scale that QLIKE asks for."""
    scale = np.mean(future * np.exp(-np.clip(past, -700, 700)))
    out: Floats = scale * np.exp(np.clip(now, -700, 700))
    return out


def _average(members: Floats, future: Floats, h: int) -> tuple[Floats, Floats]:
    """Weights by discounted losses known at each bar, and the averaged forecast."""
    n, k = members.shape
    ratio = future[:, None] / members
    loss = np.minimum(ratio - np.log(ratio) - 1.0, 10.0)
    weights, total = np.full((n, k), np.nan), np.zeros(k)
    for i in range(n):
        over = i - h
        if over >= 0 and np.isfinite(loss[over]).all():
            total = MEMORY * total + loss[over]
        if np.isfinite(members[i]).all():
            score = np.exp(-ETA * (total - total.min()))
            weights[i] = (1 - HEDGE) * score / score.sum()
            weights[i, 0] += HEDGE
    # Of levels, not of logarithms: too low a forecast costs more than one that is too high.
    return weights, (weights * members).sum(axis=1)


def _interval(level: Floats, future: Floats, h: int) -> tuple[Floats, Floats]:
    """The interval at each bar from the errors known then; its level moves with hits and misses."""
    n = len(level)
    error = np.abs(np.log(future) - np.log(level))
    lower, upper = np.full(n, np.nan), np.full(n, np.nan)
    alpha = MISS
    for i in range(n):
        over = i - h
        if over >= 0 and np.isfinite(lower[over]) and np.isfinite(future[over]):
            alpha += STEP * (MISS - (not lower[over] <= future[over] <= upper[over]))
        if not np.isfinite(level[i]):
            continue
        past = error[max(0, over + 1 - WINDOW) : max(over + 1, 0)]
        past = past[np.isfinite(past)]
        if len(past) >= LEAST:
            width = float(np.quantile(past, 1.0 - min(max(alpha, 0.001), 0.999)))
            lower[i], upper[i] = level[i] * np.exp(-width), level[i] * np.exp(width)
    return lower, upper


def hazards(shown: Times) -> tuple[Floats, Floats]:
    """(K, ages) chance of leaving a regime by its age in bars, and (K, K) where to, from regimes
    bar by bar; shrunk towards a constant hazard by three changes."""
    edges = np.array([0, 3, 6, 12, 24, 48, 96, 192, 384])
    change = np.diff(shown) != 0
    begin = np.maximum.accumulate(
        np.where(np.concatenate([[True], change]), np.arange(len(shown)), 0)
    )
    cell = np.searchsorted(edges, np.arange(len(shown)) - begin, "right") - 1
    hazard, onward = np.empty((COUNT, len(edges))), np.full((COUNT, COUNT), 0.5)
    np.fill_diagonal(onward, 0.0)
    for k in range(COUNT):
        mine = shown[:-1] == k
        exposure = np.bincount(cell[:-1][mine], minlength=len(edges)).astype(np.float64)
        events = np.bincount(cell[:-1][mine & change], minlength=len(edges)).astype(np.float64)
        base = (events.sum() + 1.0) / (exposure.sum() + 48.0)
        hazard[k] = np.clip((events + 3.0) / (exposure + 3.0 / base), 1e-5, 0.5)
        for to in shown[1:][mine & change].tolist():
            onward[k, to] += 1.0
    which = np.searchsorted(edges, np.arange(edges[-1] + 1), "right") - 1
    return hazard[:, which], onward / onward.sum(axis=1, keepdims=True)


def ahead(p: Floats, age: Floats, dynamics: Dynamics, bars: int) -> Floats:
    """Probabilities (..., K) of the regimes after so many bars without evidence."""
    last = dynamics.hazard.shape[1] - 1
    state = np.arange(COUNT)
    for _ in range(bars):
        leave = p * dynamics.hazard[state, np.minimum(age, last).astype(np.int64)]
        stay = p - leave
        q = stay + leave @ dynamics.next
        age = stay * (age + 1.0) / np.maximum(q, 1e-300)
        p = q / q.sum(axis=-1, keepdims=True)
    return p


POOLED = 300  # past forecasts by which the two are weighed
_POWERS = [(a, b) for a in (0.0, 0.25, 0.5, 0.75, 1.0) for b in (0.25, 0.5, 0.75, 1.0)]


def _pool(now: Floats, later: Floats, a: float, b: float) -> Floats:
    z = a * np.log(np.maximum(now, 1e-3)) + b * np.log(np.maximum(later, 1e-9))
    z = np.exp(z - z.max(axis=-1, keepdims=True))
    out: Floats = z / z.sum(axis=-1, keepdims=True)
    return out


def state_in(p: Floats, shown: Times, held: Times, bars: int) -> Floats:
    """Probabilities (K,) of the regime shown so many bars after the last of those given, from their
    probabilities (n, K), the regimes shown (none below 0) and for how many bars each had been.

    The filter's probabilities of now know of a change before it is shown, hazards by age know how
    long regimes last: neither is calibrated for all horizons. They are pooled as now^a later^b
    (a logarithmic pool: Genest and Zidek 1986, Statistical Science 1), with the powers that had the
    least log loss for the past forecasts that are over.
    """
    hazard, onward = hazards(shown)
    moves = Dynamics(hazard, onward, p[-1], 0.0)
    over = len(shown) - 1 - bars  # the last forecast that is over
    at = np.arange(over, 100, -max(1, (over - 100) // POOLED))
    at = np.append(at, len(shown) - 1)
    age = np.zeros((len(at), COUNT))
    age[np.arange(len(at)), shown[at]] = np.maximum(held[at] - 1, 0)
    later = ahead(p[at], age, moves, bars)
    if len(at) <= 50:
        last: Floats = later[-1]
        return last
    truth = shown[at[:-1] + bars]
    row = np.arange(len(truth))

    def loss(powers: tuple[float, float]) -> float:
        said = _pool(p[at[:-1]], later[:-1], *powers)
        return float(-np.log(np.maximum(said[row, truth], 1e-12)).mean())

    # A little is kept back for what the past has not shown.
    best = _pool(p[at[-1]], later[-1], *min(_POWERS, key=loss))
    found: Floats = 0.98 * best + 0.02 * later[-1]
    return found
