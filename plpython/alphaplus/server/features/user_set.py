"""A user's feature set as a family: its SELECT runs in ``feature._set_rows``.

How a set is defined and checked, and what its SELECT becomes, is :mod:`alphaplus.server.sets.user`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from alphaplus.server.database import Database, keep, micros
from alphaplus.server.features.family import Family, Feature, Keep
from alphaplus.server.market.reader import MarketReader, Needs
from alphaplus.server.types import Floats, Times

PREFIX = "select:"
AT_ONCE = 10_000  # grid times in one call


@dataclass(frozen=True)
class UserSet:
    """A row of feature.sets of kind select; grid and lookback in microseconds; other symbols and
    sources that it reads as JSON: see :mod:`alphaplus.server.sets.reads`."""

    set_id: int
    name: str
    version: int
    features: tuple[str, ...]
    query: str
    grid: int
    lookback: int
    symbols: str = "{}"
    sources: str = "{}"


def load(db: Database, set_id: int) -> UserSet:
    """The set of an id."""
    query = "select s.* from feature._set_declared($1) s"
    row = db.execute(query, ("int4",), [set_id])[0]
    return UserSet(
        set_id, row["name"], row["version"], tuple(row["features"]), row["definition"],
        row["grid"], row["lookback"], row["symbols"], row["sources"],
    )  # fmt: skip


def of_definition(db: Database, definition: str) -> UserSet:
    """The set of a definition ``select:<set_id>``."""
    return load(db, int(definition.removeprefix(PREFIX)))


def values(
    db: Database,
    chosen: UserSet,
    symbol: str,
    grid: Times,
    *,
    lookback: int | None = None,
    until: int | None = None,
) -> Floats:
    """The set at ascending grid times: (n, k), NaN where not knowable.

    The SELECT runs in ``feature._set_rows``, with the rights of alphaplus_select, whoever calls.

    Args:
        lookback: another lookback than the set's, in microseconds.
        until: beside what was known then, look at the rows that happened from each grid time up
            to that time (for the audit).
    """
    keep(db.sets_asked, chosen.set_id, chosen)
    query = "select at, vector from feature._set_rows($1, $2, $3, $4, $5)"
    kinds = ("int4", "text", "int8[]", "int8", "int8")
    out = np.full((len(grid), len(chosen.features)), np.nan)
    back = chosen.lookback if lookback is None else lookback
    stop = None if until is None else micros(until)[0]
    for begin in range(0, len(grid), AT_ONCE):
        times = micros(*grid[begin : begin + AT_ONCE].tolist())
        where = {time: begin + i for i, time in enumerate(times)}
        for row in db.execute(query, kinds, [chosen.set_id, symbol, times, back, stop]):
            out[where[row["at"]]] = [np.nan if x is None else x for x in row["vector"]]
    out[~np.isfinite(out)] = np.nan
    return out


def family(db: Database, definition: str) -> Family:
    """The set behind ``select:<set_id>`` as a family."""
    chosen = of_definition(db, definition)

    def read(reader: MarketReader, grid: Times, runs: Keep | None) -> Floats:
        del runs
        # The audit of warm-up asks what is known when the data begin later.
        back = None if reader.floor is None else int(grid[0]) - reader.floor
        return values(reader.db, chosen, reader.symbol, grid, lookback=back)

    return Family(
        name=chosen.name,
        version=chosen.version,
        revision="1",
        description="",
        features=tuple(Feature(name, "", "", "") for name in chosen.features),
        needs=Needs(bars=max(1, chosen.lookback // chosen.grid)),
        grid=chosen.grid,
        read=read,
    )
