"""Features of a symbol at grid times, each as known at its time: history and live alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from alphaplus.server import interrupts
from alphaplus.server.database import Database
from alphaplus.server.features.family import Family, Keep
from alphaplus.server.market.bars import Bulk
from alphaplus.server.market.reader import MarketReader
from alphaplus.server.types import MINUTE, Floats, Times

CHUNK = 2048  # grid times computed at once
READ = 1440 * 14  # grid times read at once
READ_EVENTS = 1440  # where single quotes are read, at first
QUOTES = 200_000  # single quotes wished for at one read


def matrix(reader: MarketReader, family: Family, grid: Times, keep: Keep | None = None) -> Floats:
    """The features at ascending grid times, each as known at its time: (n, k).

    Args:
        keep: of a single time, where runs of indicators are kept from call to call.
    """
    if family.read is not None:
        here = reader if reader.keep else reader.at(grid)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            values = family.read(here, grid, keep if len(grid) == 1 else None)
        infinite = np.isinf(values)
        if infinite.any():
            values[infinite] = np.nan
        return values
    compute = family.compute
    if compute is None:
        raise TypeError(f"feature family {family.name} does not say how it is computed")
    out = np.full((len(grid), len(family.features)), np.nan)
    at = 0
    reach = (READ_EVENTS if family.needs.quotes else READ) * family.grid
    while at < len(grid):
        stop = int(np.searchsorted(grid, grid[at] + reach))
        part = grid[at:stop]
        here = reader if reader.keep else reader.at(part)
        windows = here.windows(family.request, part)
        for begin in range(0, len(part), CHUNK):
            interrupts.process()
            rows = part[begin : begin + CHUNK]
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                values = compute(windows.inputs(family.request, rows))
            values[~np.isfinite(values)] = np.nan
            out[at + begin : at + begin + len(rows)] = values
        at = stop
        if family.needs.quotes:
            # A read costs a few milliseconds at least: as much at once as memory has room for.
            count = max(len(windows.quotes.ts), 1)
            reach = min(max(reach * QUOTES // count, family.grid), 8 * reach, READ * family.grid)
    return out


def parts(grid: Times, width: int) -> Iterator[Times]:
    """Ascending grid times, a bounded stretch of time at a time."""
    at = 0
    while at < len(grid):
        stop = int(np.searchsorted(grid, grid[at] + READ * width))
        yield grid[at:stop]
        at = stop


def at_once(
    db: Database, symbol: str, asked: Sequence[tuple[Family, int]], keep: Keep | None
) -> list[Floats]:
    """The vectors of several families, each at its own time, reading once what several need.

    All SQL runs before all numpy: alternating the two costs CPU cache misses.
    """
    readers = {t: MarketReader(db, symbol, t, t, keep=True) for _, t in asked}
    # Those with the longest lookback read first, so that the others find their bars there.
    order = sorted(
        range(len(asked)),
        key=lambda i: (asked[i][0].read is None, -asked[i][0].needs.bars * asked[i][0].grid),
    )
    for t, reader in readers.items():
        reader.expect([family.request for family, when in asked if family.compute and when == t])
    for i in order:
        family, t = asked[i]
        if family.prefetch is not None:
            family.prefetch(readers[t], t)
        elif family.compute is not None:
            readers[t].windows(family.request, np.array([t], dtype=np.int64))
    found: dict[int, Floats] = {}
    for i in order:
        family, t = asked[i]
        found[i] = matrix(readers[t], family, np.array([t], dtype=np.int64), keep)[0]
    return [found[i] for i in range(len(asked))]


def history(
    reader: MarketReader, family: Family, start: int, end: int
) -> Iterator[tuple[Times, Floats]]:
    """Grid times in [start, end) with their features, a bounded number at a time."""
    times = grid(family, start, end)
    for begin in range(0, len(times), READ):
        part = times[begin : begin + READ]
        yield part, matrix(reader, family, part)


def grid(family: Family, start: int, end: int) -> Times:
    """The grid times of a family in [start, end)."""
    first = -(-start // family.grid) * family.grid
    return np.arange(first, end, family.grid, dtype=np.int64)


def bulk(db: Database, family: Family, symbols: list[str], grid: Times) -> Bulk | None:
    """The bars of many symbols, to be read together, for a family that needs no more than bars of
    more than a minute. Valid for one call: what was fetched goes stale."""
    if not family.only_bars or family.grid <= MINUTE or not symbols:
        return None
    start = int(grid[0]) - family.needs.lookback * family.grid
    return Bulk(db, family.grid, start, int(grid[-1]), symbols)
