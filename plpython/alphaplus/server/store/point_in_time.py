"""Point-in-time joins of many (symbol, time) pairs: which row is each one's newest?

Looking up one pair costs a descent into an index. Where there are many pairs for the rows that they
span, it is cheaper to read the rows' times once, to say of each pair the ``ts`` of its row, and to
fetch those rows by it (``feature._as_of_sql``, which also says which of several rows of one ``ts``
is meant).

Times are int64 microseconds since 2000-01-01 UTC.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from alphaplus.server import codec
from alphaplus.server.types import Times

NONE = np.iinfo(np.int64).min


def newest_of(times: Times, ts: Times, known: Times) -> Times:
    """Greatest ``ts`` of the rows with ts < t and known <= t, for each t; NONE where there is none.

    Args:
        times: any order.
        ts, known: when the rows happened and became known, any order.
    """
    if len(ts) == 0:
        return np.full(len(times), NONE)
    usable = np.maximum(known, ts + 1)
    order = np.argsort(usable)
    best = np.maximum.accumulate(ts[order])
    place = np.searchsorted(usable[order], times, "right") - 1
    return np.where(place >= 0, best[np.maximum(place, 0)], NONE)


def newest_while(times: Times, ts: Times, known: Times, ended: Times) -> Times:
    """The same of rows that hold only while t < ended."""
    out = np.full(len(times), NONE)
    if len(times) == 0 or len(ts) == 0:
        return out
    moments, back = np.unique(times, return_inverse=True)
    low = np.searchsorted(moments, np.maximum(known, ts + 1))
    high = np.searchsorted(moments, ended)
    some = low < high
    low, high, ts = low[some], high[some], ts[some]
    # Each row covers its moments by two overlapping runs of a power of two; runs are then halved.
    power = np.frexp((high - low).astype(np.float64))[1] - 1
    best = np.full(len(moments), NONE)
    for level in range(int(power.max(initial=0)), -1, -1):
        run = 1 << level
        if level < int(power.max(initial=0)):
            half = np.full(len(moments), NONE)
            half[run:] = best[:-run]
            best = np.maximum(best, half)
        of = power == level
        np.maximum.at(best, low[of], ts[of])
        np.maximum.at(best, high[of] - run, ts[of])
    return np.asarray(best[back])


def newest(
    plpy: Any,
    relation: str,
    history: str | None,
    names: list[str],
    pairs: tuple[bytes, bytes, bytes],
    span: tuple[str, str],
) -> tuple[str, bool]:
    """``feature._as_of_newest``: an array literal of the ts of each pair's row, or NULL; ties?"""
    codes = codec.elements(pairs[0], ">i4")
    times, floors = (codec.elements(part, ">i8").astype(np.int64) for part in pairs[1:])
    now = _rows(plpy, relation, names, span, False)
    then = _rows(plpy, history, names, span, True) if history else {}
    found = np.full(len(times), NONE)
    order = np.argsort(codes, kind="stable")
    ends = np.searchsorted(codes[order], np.arange(len(names) + 1))
    for code, name in enumerate(names):
        mine = order[ends[code] : ends[code + 1]]
        for rows in (now, then):
            if len(mine) and name in rows:
                its = (newest_of if rows is now else newest_while)(times[mine], *rows[name])
                found[mine] = np.maximum(found[mine], its)
    found[found < floors] = NONE
    ties = any(len(np.unique(ts)) < len(ts) for ts, *_ in now.values())
    literal = ",".join(map(str, found.tolist())).replace(str(NONE), "NULL")
    return "{" + literal + "}", ties or bool(then)


def _rows(
    plpy: Any, relation: str, names: list[str], span: tuple[str, str], ended: bool
) -> dict[str, tuple[Times, ...]]:
    """When the rows of each symbol happened, became known and (``ended``) ceased to hold."""
    since, until = (plpy.quote_literal(moment) for moment in span)
    columns = ["ts", "known_at", *(["superseded_at"] if ended else [])]
    arrayed = ", ".join(f"array_send(array_agg(r.{column})) as {column}" for column in columns)
    where = f"r.symbol = any ($1) and r.ts >= {since} and r.ts < {until} and r.known_at <= {until}"
    if ended:
        where += " and r.superseded_at > r.ts"
    # relation is a regclass as text: it is quoted where it needs to be.
    source = f"{relation} r where {where} group by r.symbol"
    plan = plpy.prepare(f"select r.symbol::text as symbol, {arrayed} from {source}", ["text[]"])
    return {
        row["symbol"]: tuple(
            codec.elements(row[column], ">i8").astype(np.int64) for column in columns
        )
        for row in plpy.execute(plan, [sorted(set(names))])
    }


def columns(
    plpy: Any,
    relation: str,
    symbol: str,
    times: bytes,
    names: list[str],
    max_age: int,
    span: tuple[str, str],
) -> tuple[list[bytes], list[int]]:
    """``feature._as_of_columns``: of each time's row the number in each column, NaN for none.

    Rows are read once and merged with the times. Which of several rows of one ``ts`` is the newest
    is not decided here: the places of such times are returned, to be looked up.

    Args:
        times: of the pairs, as array_send writes them.
        max_age: µs.

    Returns:
        Little-endian float64 a column, and the places (from 0) of pairs left to look up.
    """
    asked = codec.elements(times, ">i8").astype(np.int64)
    since, until = (plpy.quote_literal(moment) for moment in span)
    read = ", ".join(f"array_send(array_agg(r.{name})) as {name}" for name in ("ts", "known_at"))
    read += "".join(
        f", array_send(array_agg(coalesce(r.{plpy.quote_ident(name)}::float8, 'NaN'))) as c{i}"
        for i, name in enumerate(names)
    )
    # relation is a regclass as text: it is quoted where it needs to be.
    where = f"r.symbol = $1 and r.ts >= {since} and r.ts < {until} and r.known_at <= {until}"
    plan = plpy.prepare(f"select {read} from {relation} r where {where}", ["text"])
    (row,) = plpy.execute(plan, [symbol])
    if row["ts"] is None:
        nothing = np.full(len(asked), np.nan).astype("<f8").tobytes()
        return [nothing for _ in names], []
    ts = codec.elements(row["ts"], ">i8").astype(np.int64)
    known = codec.elements(row["known_at"], ">i8").astype(np.int64)
    newest = newest_of(asked, ts, known)
    newest[newest < asked - max_age] = NONE
    order = np.argsort(ts, kind="stable")
    ordered = ts[order]
    place = np.minimum(np.searchsorted(ordered, newest), len(ordered) - 1)
    there = newest != NONE
    after = np.minimum(place + 1, len(ordered) - 1)
    tied = there & (after != place) & (ordered[after] == newest)
    values = []
    for i in range(len(names)):
        column = codec.elements(row[f"c{i}"], ">f8")[order]
        values.append(np.where(there, column[place], np.nan).astype("<f8").tobytes())
    return values, np.flatnonzero(tied).tolist()


def patched(values: bytes, places: list[int], found: list[float | None]) -> bytes:
    """A column with the numbers of some pairs put in."""
    column = np.frombuffer(values, "<f8").copy()
    column[places] = [np.nan if number is None else number for number in found]
    return column.tobytes()
