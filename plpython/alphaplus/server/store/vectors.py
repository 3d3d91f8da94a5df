"""Feature vectors for SQL: at one time, of several sets at once, over a stretch of history."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from alphaplus.server import codec, database, errors
from alphaplus.server.database import Database
from alphaplus.server.features import compute, incremental, registry
from alphaplus.server.market.reader import MarketReader
from alphaplus.server.types import Floats, Times


def live(plpy: Any, cache: dict[str, Any], family: str, symbol: str, at: int) -> list[float]:
    """The vector of a family at one grid time; NaN where unknown."""
    (t,) = database.moments(plpy, at)
    db = Database.of(plpy, cache)
    reader = MarketReader(db, symbol, t, t)
    grid = np.array([t], dtype=np.int64)
    keep = incremental.keeper(symbol)
    values: list[float] = compute.matrix(reader, registry.find(db, family), grid, keep)[0].tolist()
    return values


def live_many(
    plpy: Any,
    cache: dict[str, Any],
    set_ids: list[int] | None,
    definitions: list[str],
    symbol: str,
    times: list[int] | None,
) -> list[float]:
    """The vectors of several sets, each at its own grid time, one after the other: stored ones, and
    the others computed together."""
    db = Database.of(plpy, cache)
    query = "select s.vector from feature._stored_many($1, $2, $3) s"
    kinds = ("int4[]", "text", "int8[]")
    parts: list[list[float] | None] = [
        row["vector"] for row in db.execute(query, kinds, [set_ids or [], symbol, times or []])
    ]
    missing = [i for i, part in enumerate(parts) if part is None]
    moments = database.moments(plpy, *(times or ()))
    asked = [(registry.find(db, definitions[i]), moments[i]) for i in missing]
    found = compute.at_once(db, symbol, asked, incremental.keeper(symbol))
    for i, values in zip(missing, found, strict=True):
        parts[i] = values.tolist()
    return [value for part in parts if part is not None for value in part]


def rows(
    plpy: Any, cache: dict[str, Any], family: str, symbol: str, start: int, end: int
) -> Iterator[tuple[int, list[float]]]:
    """``(time, vector)`` for grid times in [start, end) at which anything is known."""
    begin, stop = database.moments(plpy, start, end)
    db = Database.of(plpy, cache)
    found = registry.find(db, family)
    return errors.rows(
        cache, _rows(compute.history(MarketReader(db, symbol), found, begin, stop)), 2
    )


def _rows(parts: Iterator[tuple[Times, Floats]]) -> Iterator[tuple[int, list[float]]]:
    for grid, values in parts:
        known = codec.known(values)
        times = database.micros(*grid[known].tolist())
        yield from zip(times, values[known].tolist(), strict=True)
