"""What a user's set does on the data that are there: nulls, later rows, history, cost.

It is run when a set is created, and by whoever asks (``feature.check_set``). It changes nothing and
stops after a second or two: it looks at some times of one symbol, it proves nothing.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
from alphaplus.server.codec import known
from alphaplus.server.database import Database, moments
from alphaplus.server.features import compute, registry, user_set
from alphaplus.server.market.reader import MarketReader
from alphaplus.server.sets import stretch
from alphaplus.server.types import DAY, MINUTE, Floats, Times

TIMES = 12
SECONDS = 1.0  # for the times, and as much again for the audit
STRETCH = 400


class Finding(NamedTuple):
    """A row of ``feature.check_set``."""

    what: str
    finding: str
    ok: bool


def findings(
    plpy: Any, cache: dict[str, Any], set_id: int, symbol: str | None, first: int, last: int
) -> list[Finding]:
    """``feature._check_set``: ``first`` and ``last``: between which the symbol has bars."""
    db = Database.of(plpy, cache)
    chosen = user_set.load(db, set_id)
    found = _history(chosen)
    if symbol is None:
        return [*found, Finding("data", "there are none yet, so nothing was tried", ok=True)]
    begin, end = moments(plpy, first, last)
    begin = max(min(begin + chosen.lookback, end - chosen.grid), end - 30 * DAY)
    grid = np.unique(np.linspace(begin, end, TIMES).astype(np.int64) // chosen.grid * chosen.grid)
    db.set_failures.clear()
    values, each = _timed(db, chosen, symbol, grid)
    found += _nulls(chosen, symbol, values)
    if db.set_failures:
        _, _, _, state, message = db.set_failures[0]
        failed = f"{len(db.set_failures)} of {len(values)} times: {message} ({state})"
        found.append(Finding("errors", f"{failed}; they are null", ok=False))
        db.set_failures.clear()
    found.append(_cost(db, chosen, symbol, end, each))
    found += _later(db, chosen, symbol, grid[: len(values)], end)
    return found


def _history(chosen: user_set.UserSet) -> list[Finding]:
    reach, read = stretch.reach(chosen), stretch.in_words(chosen.lookback)
    if reach is None:
        text = "not told by the text; feature.audit_warmup tries it"
        return [
            Finding("history", f"{text}; {stretch.in_words(chosen.lookback)} are read", ok=True)
        ]
    rows = f"{reach.rows + 1} rows"
    rows += f" and {stretch.in_words(reach.span)}" if reach.span else ""
    needed = reach.needs()
    of = "" if needed is None else f", {stretch.in_words(needed)}"
    return [Finding("history", f"needs {rows}{of}; {read} are read", ok=True)]


def _timed(
    db: Database, chosen: user_set.UserSet, symbol: str, grid: Times
) -> tuple[Floats, float]:
    """The vectors of as many of the times as a second is enough for, and seconds for each."""
    start = time.monotonic()
    rows = []
    for t in grid.tolist()[::-1]:
        one = np.array([t], dtype=np.int64)
        rows.append(user_set.values(db, chosen, symbol, one)[0])
        if time.monotonic() - start > SECONDS:
            break
    return np.array(rows), (time.monotonic() - start) / len(rows)


def _nulls(chosen: user_set.UserSet, symbol: str, values: Floats) -> list[Finding]:
    count = len(values)
    if not known(values).any():
        text = f"{symbol} has data, and no feature is known at any of {count} times"
        return [Finding("nulls", text, ok=False)]
    never = [name for i, name in enumerate(chosen.features) if np.isnan(values[:, i]).all()]
    if never:
        text = f"null at each of {count} times of {symbol}: {', '.join(never[:10])}"
        return [Finding("nulls", text, ok=False)]
    share = float(np.isnan(values).mean())
    return [Finding("nulls", f"{share:.0%} of {count} times of {symbol}", ok=True)]


def _cost(db: Database, chosen: user_set.UserSet, symbol: str, end: int, each: float) -> Finding:
    alone = f"{each * 1e3:.2g} ms a time by itself"
    if stretch.reach(chosen) is not None:
        stop = end // chosen.grid * chosen.grid
        grid = np.arange(stop - (STRETCH - 1) * chosen.grid, stop + 1, chosen.grid)
        start = time.monotonic()
        user_set.values(db, chosen, symbol, grid)
        db.set_failures.clear()
        each = (time.monotonic() - start) / len(grid)
        alone += f", {each * 1e3:.2g} ms over a stretch"
    minutes = max(365 * DAY / chosen.grid * each // 60, 1)
    return Finding("cost", f"{alone}: about {stretch.in_words(minutes * MINUTE)} a year", ok=True)


def _later(
    db: Database, chosen: user_set.UserSet, symbol: str, grid: Times, end: int
) -> list[Finding]:
    """Would later rows change it, were they in reach?"""
    start = time.monotonic()
    family = registry.find(db, f"{user_set.PREFIX}{chosen.set_id}")
    changed: set[str] = set()
    tried = 0
    for t in grid.tolist()[::-1][1:]:
        one = np.array([t], dtype=np.int64)
        alone = compute.matrix(MarketReader(db, symbol), family, one)[0]
        later = user_set.values(db, chosen, symbol, one, until=end + chosen.grid)[0]
        same = (alone == later) | (np.isnan(alone) & np.isnan(later))
        same |= np.isclose(alone, later, rtol=1e-9, atol=0)
        changed |= {
            name for name, equal in zip(family.names, same.tolist(), strict=True) if not equal
        }
        tried += 1
        if time.monotonic() - start > SECONDS:
            break
    db.set_failures.clear()
    if not tried:
        return []
    if changed:
        text = "out of reach, so nothing of the future is in it; over a whole table other: "
        return [Finding("later rows", text + ", ".join(sorted(changed)[:10]), ok=False)]
    return [Finding("later rows", f"change nothing at {tried} times", ok=True)]
