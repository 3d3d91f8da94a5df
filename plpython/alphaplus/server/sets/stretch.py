"""A user's set over a stretch: one statement for many grid times, where its text allows that.

What it gives is what the SELECT run at each time by itself would: a time is answered here only
where everything that its row is made of (:mod:`.sqlcheck.reach`) lies in its lookback, and no row
of it was late, or another, then. The others, and all of a set whose text does not tell, are run one
by one; and of those answered here a few are, each time, and compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from alphaplus.server.database import Database, Moment
from alphaplus.server.features.user_set import UserSet
from alphaplus.server.sets import reads
from alphaplus.server.sets.reads import Reads
from alphaplus.server.sets.sqlcheck import row_order
from alphaplus.server.sets.sqlcheck.reach import Reach, reach_of
from alphaplus.server.types import DAY, HOUR, MINUTE, Times

LEAST = 16  # times from which on it pays
MOST_SPARSE = 20  # grid times of the stretch for each that is asked for
COMPARED = 2
Vector = list[float | None]


def in_words(span: float) -> str:
    """A length of time in microseconds, in words."""
    for unit, name in ((DAY, "days"), (HOUR, "hours"), (MINUTE, "minutes")):
        if span >= 2 * unit and span % unit == 0:
            return f"{span / unit:g} {name}"
    return f"{span / MINUTE:g} minutes"


def reach(chosen: UserSet) -> Reach | None:
    """What the set's text says of itself; None: each time by itself."""
    read = Reads.stored(chosen.symbols, chosen.sources)
    if read.symbols or read.sources:
        return None
    found = reach_of(chosen.query)
    known = (*reads.TABLES, *reads.BARS)
    return found if found is not None and found.table in known else None


def statement(chosen: UserSet, quote: Any, wide: int) -> str:
    """``$1``: microseconds of the grid. For each grid step with rows the number of the step, the
    time of its newest row and the vector; and in one row without, the times of all rows."""
    query, keys = row_order.keyed(chosen.query)
    newest = [f"u.{row_order.OUTPUT.format(i)} desc" for i in range(1, keys + 1)]
    newest += [f"u.{quote(name)} desc nulls last" for name in chosen.features[:wide]]
    names = ", ".join(f"u.{quote(name)}::float8" for name in chosen.features)
    newest += [f"array[{names}] desc"] if len(chosen.features) > wide else []
    at = "(extract(epoch from u.ts) * 1000000)::int8"
    step, order = f"({at} / $1)", ", ".join(["u.ts desc", *newest])
    rows = f"select * from ({Reads().rewritten(query)}\n) as u where u.ts is not null"
    picked = f"select distinct on ({step}) {step} as step, {at} as at, array[{names}] as v from u"
    every = f"select null, null, null, string_agg(int8send({at}), '' order by u.ts) from u"
    both = f"select p.step, p.at, p.v, null::bytea as every from p union all {every}"
    return f"with u as materialized ({rows}), p as ({picked} order by {step}, {order}) {both}"


def run(
    db: Database,
    chosen: UserSet,
    text: str,
    found: Reach,
    symbol: str,
    times: list[int],
    back: int,
    one_by_one: Callable[[list[int]], Iterator[tuple[int, Vector]]],
) -> Iterator[tuple[int, Vector]]:
    """The times at which the set has a row, with its vector; microseconds since 1970."""
    grid = chosen.grid
    if len(times) < LEAST or times[-1] - times[0] + back > MOST_SPARSE * len(times) * grid:
        yield from one_by_one(times)
        return
    answered = _answered(db, chosen, text, found, symbol, times, back)
    if answered is None:  # it failed somewhere: where, the halves tell
        half = len(times) // 2
        for part in (times[:half], times[half:]):
            yield from run(db, chosen, text, found, symbol, part, back, one_by_one)
        return
    here = [t for t in times if t in answered]
    places = np.linspace(0, len(here) - 1, min(COMPARED, len(here))).astype(int).tolist()
    compared = sorted({here[place] for place in places})
    alone = dict(one_by_one(compared)) if compared else {}
    if any(not _same(answered[t], alone.get(t)) for t in compared):
        yield from one_by_one(times)
        return
    yield from ((t, v) for t in here if (v := answered[t]) is not None)
    yield from one_by_one([t for t in times if t not in answered])


def _same(one: Vector | None, other: Vector | None) -> bool:
    if one is None or other is None:
        return one is other
    a, b = (np.array([np.nan if x is None else x for x in v]) for v in (one, other))
    return bool(np.allclose(a, b, rtol=1e-9, atol=0, equal_nan=True))


def _answered(
    db: Database,
    chosen: UserSet,
    text: str,
    found: Reach,
    symbol: str,
    times: list[int],
    back: int,
) -> dict[int, Vector | None] | None:
    """Of the times that can be told from one statement the vector, None where there is none; None
    where the statement fails."""
    grid = chosen.grid
    bars = reads.BARS.get(found.table)
    late = "select extract(epoch from u.ts) * 1e6 as ts, extract(epoch from u.until) * 1e6 as until"
    late += " from market._unsettled_now($1, $2, $3::interval) u"
    # No later row than those of the last time; what is known at it.
    db.moment = Moment(symbol, times[0] - back, times[-1], times[-1])
    try:
        odd = db.execute(late, ("text", "int8", "text"), [found.table, grid, bars])
        rows = db.execute(text, ("int8",), [grid])
    except db.plpy.SPIError as error:
        if error.sqlstate[:2] not in ("21", "22"):
            raise
        return None
    finally:
        db.moment = None
    asked = np.array(times, dtype=np.int64)
    told = np.ones(len(asked), dtype=bool)
    for row in odd:  # times after it happened at which it was not there, or another
        told[np.searchsorted(asked, int(row["ts"]), "right") : np.searchsorted(
            asked, int(row["until"]), "left"
        )] = False  # fmt: skip
    every: Times = np.zeros(0, dtype=np.int64)
    newest: dict[int, tuple[int, Vector]] = {}
    for row in rows:
        if row["step"] is None:
            every = np.frombuffer(row["every"] or b"", ">i8").astype(np.int64)
        else:
            newest[(row["step"] + 1) * grid] = row["at"], row["v"]
    answered: dict[int, Vector | None] = {}
    for t, whole in zip(times, told.tolist(), strict=True):
        if not whole:
            continue
        if t not in newest:
            answered[t] = None
            continue
        at, vector = newest[t]
        if _reaches(found, every, at, t - back):
            answered[t] = vector
    return answered


def _reaches(found: Reach, every: Times, at: int, begin: int) -> bool:
    """Does all that the row at ``at`` is made of lie from ``begin`` on?"""
    if not found.rows:
        return at - found.span >= begin
    low = np.searchsorted(every, begin + found.span, "left")
    high = np.searchsorted(every, at - found.span, "right")
    return bool(high - low > found.rows)
