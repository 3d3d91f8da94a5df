"""States of a market that are like one another, and what followed them.

A state is a grid time's features of ``regime_1h`` (or ``regime_15m``) as known then, in units of
what is usual in its regime: less their mean and over their deviation over the months before. So the
state of a time never changes because of what came later, and states of different symbols compare.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from alphaplus.server.codec import sent_floats, sent_integers
from alphaplus.server.database import EPOCH, Database
from alphaplus.server.regime import observe
from alphaplus.server.regime.states import STATES
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Free of the symbol's own level of price, volatility and volume.
FEATURES = (
    "log_range", "return", "range_fast", "volatility_z", "volatility_slow_z", "trend_fast", "trend",
    "trend_slow", "drawdown", "fall", "volume_z", "return_local",
)  # fmt: skip
COLUMNS = [observe.NAMES.index(name) for name in FEATURES]
REGIMES = slice(observe.COUNT, observe.COUNT + len(STATES))
SETS = {3_600_000_000: "regime_1h", 900_000_000: "regime_15m", 300_000_000: "regime_5m"}

ENOUGH = 100  # values in a regime before its own mean and deviation are used; else those of all
LEAST = 240  # values of all regimes before there is a state
MOST_MISSING = len(FEATURES) // 3  # features that may be unknown: they count as usual
CUT = 4.0  # deviations
WEIGHT = 20.0  # moments' worth of the base rate in a probability


def month_of(ts: int) -> int:
    """Start of the UTC month of a time, microseconds since 1970."""
    at = dt.datetime.fromtimestamp(ts // 1_000_000, dt.UTC)
    start = at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return int(start.timestamp()) * 1_000_000


def month_after(month: int) -> int:
    """Start of the month after one."""
    return month_of(month + 32 * 86_400_000_000)


@dataclass
class Sums:
    """Sums over states by regime and feature: what means and deviations are made of."""

    n: Floats
    total: Floats
    square: Floats

    @classmethod
    def none(cls) -> Sums:
        """Before the first state."""
        shape = (len(STATES), len(FEATURES))
        return cls(np.zeros(shape), np.zeros(shape), np.zeros(shape))

    def add(self, raw: Floats, regime: Ints) -> Sums:
        """With more states."""
        known = np.isfinite(raw)
        value = np.where(known, raw, 0.0)
        more = Sums(self.n.copy(), self.total.copy(), self.square.copy())
        for r in range(len(STATES)):
            at = regime == r + 1
            more.n[r] += known[at].sum(axis=0)
            more.total[r] += value[at].sum(axis=0)
            more.square[r] += (value[at] ** 2).sum(axis=0)
        return more

    def scale(self, regime: int) -> tuple[Floats, Floats]:
        """Mean and deviation of each feature for a regime (1 to 6); NaN: too little is known."""
        n, total, square = self.n[regime - 1], self.total[regime - 1], self.square[regime - 1]
        every = self.n.sum(axis=0)
        few = n < ENOUGH
        n = np.where(few, every, n)
        total = np.where(few, self.total.sum(axis=0), total)
        square = np.where(few, self.square.sum(axis=0), square)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = total / n
            deviation = np.sqrt(np.maximum(square / n - mean**2, 0))
        unusable = (every < LEAST) | ~(deviation > 1e-9)
        return np.where(unusable, np.nan, mean), np.where(unusable, np.nan, deviation)


def normalised(raw: Floats, regime: Ints, sums: Sums) -> Floats:
    """States (n, features) in units of their regimes; a row of NaN where there is none."""
    out: Floats = np.full(raw.shape, np.nan)
    for r in range(1, len(STATES) + 1):
        at = regime == r
        if at.any():
            mean, deviation = sums.scale(r)
            out[at] = (raw[at] - mean) / deviation
    missing = ~np.isfinite(out)
    out = np.where(missing, 0.0, np.clip(out, -CUT, CUT))
    out[missing.sum(axis=1) > MOST_MISSING] = np.nan
    return out


def _raw(db: Database, symbol: str, width: int, start: int, stop: int) -> tuple[Ints, Floats, Ints]:
    """Grid times in [start, stop), their features and regimes (1 to 6), each as known then."""
    rows = db.execute(
        "select m.* from feature.matrix($1, array[$2], ops._at($3), ops._at($4)) m",
        ["text", "text", "int8", "int8"],
        [SETS[width], symbol, start, stop],
    )
    times = [np.frombuffer(row["ts"], "<i8") + EPOCH for row in rows]
    values = [np.frombuffer(row["vectors"], "<f8").reshape(row["n"], -1) for row in rows]
    if not times:
        return np.zeros(0, np.int64), np.zeros((0, len(FEATURES))), np.zeros(0, np.int64)
    ts, vectors = np.concatenate(times), np.concatenate(values)
    chance = vectors[:, REGIMES]
    told = np.isfinite(chance).all(axis=1) & np.isfinite(vectors[:, COLUMNS]).any(axis=1)
    ts, vectors, chance = ts[told], vectors[told], chance[told]
    return ts, vectors[:, COLUMNS], chance.argmax(axis=1) + 1


def _sums(db: Database, symbol: str, width: int, month: int) -> Sums | None:
    """The kept sums of a month."""
    rows = db.execute(
        "select s.* from analytics._state_sums($1, $2, $3) s",
        ["text", "int8", "int8"],
        [symbol, width, month],
    )
    if not len(rows):
        return None
    found = Sums.none()
    for row in rows:
        place = row["regime"] - 1
        found.n[place] = row["n"]
        found.total[place] = row["total"]
        found.square[place] = row["square"]
    return found


def compute(
    plpy: Any, cache: dict[str, Any], symbol: str, width: int, first: int, stop: int
) -> Iterator[dict[str, Any]]:
    """States of the grid times in [first, stop), first the start of a month; a row a month.

    The sums of the first month are the kept ones, nothing where there are none.
    """
    db = Database.of(plpy, cache)
    sums = _sums(db, symbol, width, first) or Sums.none()
    month = first
    while month < stop:
        after = month_after(month)
        ts, raw, regime = _raw(db, symbol, width, month, min(after, stop))
        z = normalised(raw, regime, sums)
        yield {
            "month": month,
            "n": sums.n.ravel().tolist(),
            "total": sums.total.ravel().tolist(),
            "square": sums.square.ravel().tolist(),
            "ts": ts.tolist(),
            "regime": regime.tolist(),
            "raw": raw.ravel().tolist(),
            "states": [_text(row) for row in z],
        }
        sums = sums.add(raw, regime)
        month = after


def _text(z: Floats) -> str | None:
    """A vector as pgvector reads it."""
    if not np.isfinite(z).all():
        return None
    return "[" + ",".join(f"{v:.6f}" for v in z.tolist()) + "]"


def present(
    plpy: Any, cache: dict[str, Any], symbol: str, width: int, at: int
) -> Iterator[dict[str, Any]]:
    """The state of one grid time, computed; no row where nothing is known of it."""
    db = Database.of(plpy, cache)
    ts, raw, regime = _raw(db, symbol, width, at, at + 1)
    if len(ts):
        sums = _sums(db, symbol, width, month_of(at))
        state = None
        if sums is not None:
            state = _text(normalised(raw, regime, sums)[0])
        yield {"regime": int(regime[0]), "state": state, "has_scale": sums is not None}


def chosen(distance: Floats, ts: Ints, count: int, apart: int) -> list[int]:
    """The nearest places, each at least so far in time from all nearer ones that were taken."""
    picked: list[int] = []
    times: list[int] = []
    for place in np.lexsort((ts, distance)).tolist():
        if all(abs(int(ts[place]) - other) >= apart for other in times):
            picked.append(place)
            times.append(int(ts[place]))
            if len(picked) == count:
                break
    return picked


def crps(sample: Floats, value: float) -> float:
    """Continuous ranked probability score, fair to samples of any size (Ferro 2014, QJRMS 140)."""
    x = np.sort(sample)
    n = len(x)
    spread = float(((2 * np.arange(1, n + 1) - n - 1) * x).sum()) / (n * (n - 1))
    return float(np.abs(x - value).mean()) - spread


def _interval(difference: Floats, seed: int, draws: int = 2000) -> tuple[float, float]:
    """95 % of the mean, circular block bootstrap."""
    n = len(difference)
    block = max(1, round(n ** (1 / 3)))
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, n, (draws, -(-n // block)))
    at = (starts[:, :, None] + np.arange(block)).reshape(draws, -1)[:, :n] % n
    low, high = np.quantile(difference[at].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def skill(
    plpy: Any,
    cache: dict[str, Any],
    packed: Sequence[bytes | None],
    start: int,
    stop: int,
    count: int,
    horizon: int,
    gap: int,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """What forecasts by similar states were worth, one after the other, none overlapping.

    ``packed``: ts, known_at, price and the states of all grid times, as array_send writes them.
    """
    ts, known = sent_integers(packed[0]), sent_integers(packed[1])
    price, flat = sent_floats(packed[2]), sent_floats(packed[3])
    states = flat.reshape(-1, len(FEATURES)) if len(flat) else np.zeros((0, len(FEATURES)))
    n = len(ts)
    later = np.searchsorted(ts, ts + horizon)
    safe = np.minimum(later, max(n - 1, 0))
    has = (later < n) & (ts[safe] == ts + horizon) if n else np.zeros(0, np.bool_)
    with np.errstate(invalid="ignore", divide="ignore"):
        followed = np.where(has, np.log(price[safe] / price), np.nan)
    shown = np.where(has, known[safe], np.iinfo(np.int64).max)
    usable = np.isfinite(states).all(axis=1) & np.isfinite(followed)
    said: list[tuple[float, float, float, float, float, bool, bool]] = []
    at = int(np.searchsorted(ts, start)) if n else 0
    ended = -1
    while at < n and ts[at] < stop:
        plpy.execute("select")  # a moment to be cancelled
        if ts[at] < ended or not usable[at]:
            at += 1
            continue
        past = np.flatnonzero(usable & (ts <= ts[at] - gap) & (shown <= ts[at]))
        base = past[(ts[at] - ts[past]) % horizon == 0]
        if len(past) and len(base) >= count:
            distance = np.sqrt(((states[past] - states[at]) ** 2).sum(axis=1))
            near = past[chosen(distance, ts[past], count, horizon)]
            if len(near) == count:
                said.append(_said(followed[near], followed[base], float(followed[at])))
                ended = int(ts[at]) + horizon
        at += 1
    yield _worth(said, seed)


def _said(
    near: Floats, base: Floats, came: float
) -> tuple[float, float, float, float, float, bool, bool]:
    p0 = (float((base > 0).sum()) + 0.5) / (len(base) + 1)
    p = (float((near > 0).sum()) + WEIGHT * p0) / (len(near) + WEIGHT)
    up = came > 0

    def inside(sample: Floats) -> bool:
        low, high = np.quantile(sample, [0.05, 0.95])
        return bool(low <= came <= high)

    return (
        -math.log(p if up else 1 - p), -math.log(p0 if up else 1 - p0),
        crps(near, came), crps(base, came), came, inside(near), inside(base),
    )  # fmt: skip


def _worth(
    said: list[tuple[float, float, float, float, float, bool, bool]], seed: int
) -> dict[str, Any]:
    names = (
        "log_loss", "base_log_loss", "gain", "gain_low", "gain_high", "crps", "base_crps",
        "crps_gain", "crps_gain_low", "crps_gain_high", "coverage_90", "base_coverage_90",
    )  # fmt: skip
    if len(said) < 20:
        return {"forecasts": len(said), **dict.fromkeys(names)}
    table = np.array(said, np.float64)
    gain, better = table[:, 1] - table[:, 0], table[:, 3] - table[:, 2]
    return {
        "forecasts": len(said),
        **dict(
            zip(
                names,
                (
                    float(table[:, 0].mean()), float(table[:, 1].mean()), float(gain.mean()),
                    *_interval(gain, seed), float(table[:, 2].mean()), float(table[:, 3].mean()),
                    float(better.mean()), *_interval(better, seed),
                    float(table[:, 5].mean()), float(table[:, 6].mean()),
                ),
                strict=True,
            )
        ),
    }  # fmt: skip
