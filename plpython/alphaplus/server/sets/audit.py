"""Two audits that anyone can run on any feature set: does it look ahead, how much does it need?

Neither changes a row: a time's view of the data is a read that is bounded at it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from alphaplus.server import database
from alphaplus.server.database import EPOCH, Database
from alphaplus.server.features import compute, registry, user_set
from alphaplus.server.features.family import Family
from alphaplus.server.market.reader import MarketReader
from alphaplus.server.types import Floats, Mask, Times


def _equal(one: Floats, other: Floats, tolerance: float) -> Mask:
    close = np.abs(one - other) <= tolerance * np.maximum(np.abs(one), np.abs(other))
    return np.asarray(close | (one == other) | (np.isnan(one) & np.isnan(other)))


def _sampled(
    plpy: Any, start: int, end: int, width: int, samples: int, tolerance: float, seed: int
) -> tuple[Times, Times]:
    """(all grid times of [start, end), some of them), microseconds.

    Refuses (AP212) less than one sample or an invalid tolerance, (AP211) null and infinite times.
    """
    begin, stop = database.moments(plpy, start, end)
    if (
        samples is None
        or samples < 1
        or tolerance is None
        or not tolerance >= 0
        or seed is None
        or seed < 0
    ):
        plpy.error(
            "samples must be at least 1, tolerance at least 0, and seed a number from 0",
            sqlstate="AP212",
            hint="Leave them out for the defaults.",
        )
    grid = np.arange(-(-begin // width) * width, stop, width, dtype=np.int64)
    if len(grid) == 0:
        return grid, grid
    rng = np.random.default_rng(seed)
    # Not the last: after it there is nothing to look at.
    chosen = np.sort(
        rng.choice(len(grid) - 1 or 1, min(samples, len(grid) - 1 or 1), replace=False)
    )
    return grid, grid[chosen]


def look_ahead(
    plpy: Any,
    cache: dict[str, Any],
    definition: str,
    symbol: str,
    start: int,
    end: int,
    samples: int,
    tolerance: float,
    seed: int,
) -> list[tuple[str, int, float | None, float | None]]:
    """``(feature, time, with later rows, without)`` wherever the two differ.

    With: the stretch computed at once, all of [start, end) being read; of a user's set its SELECT
    run over the rows known at the time and all that happened after it. Without: each sampled time
    on its own, reading nothing that happened after it or was known later.
    """
    db = Database.of(plpy, cache)
    family = registry.find(db, definition)
    _affordable(plpy, family, start, end, samples)
    grid, sample = _sampled(plpy, start, end, family.grid, samples, tolerance, seed)
    rows: list[tuple[str, int, float | None, float | None]] = []
    if len(sample) == 0:
        return rows
    if definition.startswith(user_set.PREFIX):
        chosen = user_set.of_definition(db, definition)
        until = int(grid[-1]) + family.grid
        whole = user_set.values(db, chosen, symbol, sample, until=until)
    else:
        stretch = compute.matrix(MarketReader(db, symbol), family, grid)
        whole = stretch[np.searchsorted(grid, sample)]
    for place, t in enumerate(sample):
        alone = compute.matrix(MarketReader(db, symbol), family, np.array([t]))[0]
        same = _equal(whole[place], alone, tolerance)
        for i in np.flatnonzero(~same):
            both = _number(whole[place, i]), _number(alone[i])
            rows.append((family.names[i], int(t) + EPOCH, *both))
    return rows  # a list: PL/Python drops the message of an error raised in a generator


MOST_NUMBERS = 30_000_000  # that an audit computes at once: 240 MB
MOST_SAMPLES = 10_000


def _affordable(plpy: Any, family: Family, start: int, end: int, samples: int | None) -> None:
    """Refuses (AP726) a stretch of more numbers, or more samples, than a backend should hold."""
    if start is None or end is None:
        return  # _sampled says what is wrong
    times = (end - start) / family.grid
    if times * len(family.features) > MOST_NUMBERS or (samples or 0) > MOST_SAMPLES:
        what = f"an audit of {times:.0f} times of {len(family.features)} features"
        plpy.error(
            f"{what} is more than one call gives",
            sqlstate="AP726",
            hint=f"Up to {MOST_NUMBERS:,} numbers and {MOST_SAMPLES:,} samples: audit parts of it.",
        )


def _number(x: float) -> float | None:
    return None if np.isnan(x) else float(x)


def warm_up(
    plpy: Any,
    cache: dict[str, Any],
    definition: str,
    symbol: str,
    start: int,
    end: int,
    samples: int,
    tolerance: float,
    seed: int,
    declared: int,
) -> list[tuple[str, int | None, int, bool]]:
    """``(feature, needed, declared, enough)``, lengths in microseconds, for each feature of a set.

    At each sampled time the set is computed as if the data began later and later (declared history,
    then 3/4, 1/2, 3/8, 1/4 … of it). What a feature needs is the shortest of these from which on
    all longer ones give its value; enough: the declared history gives what twice as much does.
    Null: the feature was known at no sampled time.
    """
    db = Database.of(plpy, cache)
    family = registry.find(db, definition)
    _, sample = _sampled(plpy, start, end, family.grid, samples, tolerance, seed)
    k = len(family.names)
    shares = [2.0, 1.0]
    part = 1.0
    while part * declared > 2 * family.grid and len(shares) < 24:
        shares += [part * 0.75, part * 0.5]
        part *= 0.5
    lengths = [max(round(share * declared), family.grid) for share in shares]
    need = np.zeros(k)
    known = np.zeros(k, dtype=bool)
    enough = np.ones(k, dtype=bool)
    for t in sample:
        reference = _with_history(db, family, symbol, int(t), lengths[1])
        longer = _with_history(db, family, symbol, int(t), lengths[0])
        there = np.isfinite(reference)
        known |= there
        enough &= _equal(reference, longer, tolerance)
        still = there.copy()
        need[there] = np.maximum(need[there], lengths[-1])
        previous = lengths[1]
        for length in lengths[2:]:
            if not still.any():
                break
            shorter = _with_history(db, family, symbol, int(t), length)
            same = _equal(reference, shorter, tolerance)
            broke = still & ~same
            need[broke] = np.maximum(need[broke], previous)
            still &= same
            previous = length
    return [
        (name, round(need[i]) if known[i] else None, declared, bool(enough[i]))
        for i, name in enumerate(family.names)
    ]


def _with_history(db: Database, family: Family, symbol: str, t: int, length: int) -> Floats:
    """The vector at t as if the data began ``length`` before it."""
    grid = np.array([t], dtype=np.int64)
    vector: Floats = compute.matrix(MarketReader(db, symbol, floor=t - length), family, grid)[0]
    return vector
