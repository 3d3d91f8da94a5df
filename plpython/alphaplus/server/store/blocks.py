"""Stored vectors, many at once: blocks of numbers where there are, rows elsewhere, and what is not
stored is computed.

A block (``feature.vector_blocks``) holds all vectors of a set and symbol in a stretch of at most
:data:`BLOCK` grid times as they lie in memory: taking a row apart costs ten times what its numbers
do. :func:`pack` makes them of the rows; the first change to a row deletes its block.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from alphaplus.server import codec
from alphaplus.server.features import families
from alphaplus.server.market import revisions as w

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]
Piece = tuple[Times, Floats]  # (n,) ascending times and (n, k) vectors

BLOCK = 1024  # grid times
READ_BYTES = 96 << 20  # of stored rows, at once

# In no order: sorting the few that need it here takes a tenth of the time.
_ROWS = (
    "select {symbol} string_agg(feature._bytes(array[feature._bits(v.ts)], 21), ''::bytea) as ts,"
    " string_agg(feature._bytes(v.values, 1), ''::bytea) as vectors"
    " from feature.{source} v where v.set_id = $1 and v.symbol = {which}"
    " and v.ts between to_timestamp($3) and to_timestamp($4)"
)
_SECONDS = "date_part('epoch', {0} - timestamptz '2000-01-01 00:00:00+00')"


def grid(start: float, end: float, width: int) -> Times:
    """The grid times in [start, end), seconds since 2000, in microseconds."""
    first = -(-round(start * w.SECOND) // width) * width
    return np.arange(first, round(end * w.SECOND), width, dtype=np.int64)


def vectors(plpy: Any, cache: dict[str, Any], spec: Any, symbol: str, times: Times) -> Floats:
    """The set's vectors at ascending grid times, those stored and the rest computed: (n, k).

    ``spec`` has set_id, definition and k.
    """
    out: Floats = np.empty((len(times), spec["k"]))
    most = _most(spec["k"])
    for at in range(0, len(times), most):
        part = times[at : at + most]
        pieces = _pieces(plpy, spec, symbol, int(part[0]), int(part[-1]))
        _fill(plpy, cache, spec, symbol, part, pieces, out[at : at + most])
    return out


def _most(k: int) -> int:
    return max(1, READ_BYTES // (12 * k + 28))


def stored(plpy: Any, spec: Any, symbol: str, first: int, last: int) -> Iterator[Piece]:
    """What is stored and valid of [first, last], in pieces of ascending times; nothing is computed.

    ``spec`` has set_id and k.
    """
    yield from _pieces(plpy, spec, symbol, first, last)


def _pieces(plpy: Any, spec: Any, symbol: str, first: int, last: int) -> Iterator[Piece]:
    """What is stored of [first, last], each stretch of time once."""
    blocks = plpy.prepare(
        f"select {_SECONDS.format('b.ts_from')} as ts_from, {_SECONDS.format('b.ts_to')} as ts_to,"
        " b.ts, b.vectors from feature.valid_blocks b where b.set_id = $1 and b.symbol = $2"
        " and b.ts_to > to_timestamp($3) and b.ts_from <= to_timestamp($4)"
        " order by b.ts_from",
        ["int4", "text", "float8", "float8"],
    )
    begin = first
    for row in plpy.cursor(blocks, [spec["set_id"], symbol, *_ends(first, last)]):
        start, stop = (round(row[name] * w.SECOND) for name in ("ts_from", "ts_to"))
        yield from _rows(plpy, spec, symbol, begin, start - 1)
        begin = stop
        ts = np.frombuffer(row["ts"], "<i8")
        yield ts, np.frombuffer(row["vectors"], "<f8").reshape(len(ts), spec["k"])
    yield from _rows(plpy, spec, symbol, begin, last)


def _rows(plpy: Any, spec: Any, symbol: str, first: int, last: int) -> Iterator[Piece]:
    if last < first:
        return
    plan = plpy.prepare(
        _ROWS.format(source="valid_vectors", symbol="", which="$2"),
        ["int4", "text", "float8", "float8"],
    )
    yield from _piece(plpy.execute(plan, [spec["set_id"], symbol, *_ends(first, last)])[0], spec)


def _piece(row: Any, spec: Any) -> Iterator[Piece]:
    if row["ts"] is None:
        return
    ts = np.frombuffer(row["ts"], "<i8")
    values = codec.vectors(row["vectors"], spec["k"])
    if (np.diff(ts) < 0).any():
        order = np.argsort(ts)
        ts, values = ts[order], values[order]
    yield ts, values


def _fill(
    plpy: Any,
    cache: dict[str, Any],
    spec: Any,
    symbol: str,
    times: Times,
    pieces: Iterator[Piece],
    out: Floats,
) -> None:
    found = np.zeros(len(times), dtype=bool)
    oldest, newest = w.NEVER, -w.NEVER
    for ts, values in pieces:
        oldest, newest = min(oldest, int(ts[0])), max(newest, int(ts[-1]))
        begin, end = np.searchsorted(times, [ts[0], ts[-1] + 1])
        part = times[begin:end]
        position = np.searchsorted(ts, part)
        here = ts[position] == part
        if here.all() and len(part) and position[-1] - position[0] == len(part) - 1:
            out[begin:end] = values[position[0] : position[-1] + 1]
        else:
            out[begin:end][here] = values[position[here]]
        found[begin:end] |= here
    missing = ~found
    out[missing] = np.nan
    if missing.any() and oldest <= newest:
        missing &= ~_unknowable(plpy, spec, symbol, times, oldest, newest)
    if missing.any():
        family = families.find(plpy, cache, spec["definition"])
        out[missing] = families.matrix(plpy, cache, family, symbol, times[missing])


def _unknowable(
    plpy: Any, spec: Any, symbol: str, times: Times, oldest: int, newest: int
) -> npt.NDArray[np.bool_]:
    """At which of the times that are not stored nothing is known: those between two stored ones in
    the stretch that was stored, where no late row can have changed that.
    """
    plan = plpy.prepare(
        f"select {_SECONDS.format('m.since')} as since, {_SECONDS.format('m.through')} as through"
        " from feature.watermarks m where m.set_id = $1 and m.symbol = $2 and not exists"
        " (select from feature.pending p where p.set_id = $1 and p.symbol = $2)",
        ["int4", "text"],
    )
    found = plpy.execute(plan, [spec["set_id"], symbol])
    if not len(found):
        return np.zeros(len(times), dtype=bool)
    within = (times >= oldest) & (times <= newest)
    if found[0]["since"] is not None:
        since, through = (round(found[0][name] * w.SECOND) for name in ("since", "through"))
        within &= (times >= since) & (times < through)
    return within


def _ends(first: int, last: int) -> list[float]:
    return [t / w.SECOND + w.EPOCH for t in (first, last)]


def matrix(
    plpy: Any, cache: dict[str, Any], text: str, symbols: list[str], span: tuple[float, float]
) -> Iterator[tuple[str, float, int, bytes | None, bytes | None]]:
    """``(symbol, seconds, n, ts, vectors)`` of a feature set at the grid times of span at which
    anything is known, each as known then; as ``feature.vector_blocks`` has ts and vectors. Both are
    None where the block that begins at seconds (since 2000) is wanted whole.

    ``text`` is JSON with set_id, definition, set_kind, k, step.
    """
    spec = json.loads(text)
    times = grid(span[0], span[1], round(spec["step"] * w.SECOND))
    cache.setdefault("alphaplus.plans", {})
    # Many symbols are asked for at once: a query over years of chunks is mostly planning.
    most = _most(spec["k"])
    batch = max(1, min(200, most // max(1, len(times))))
    for begin in range(0, len(symbols) if len(times) else 0, batch):
        some = symbols[begin : begin + batch]
        whole = _whole(plpy, spec, some, times)
        bare = [symbol for symbol in some if symbol not in whole and len(times) <= most]
        rows = _rows_of_many(plpy, spec, bare, times)
        computed = [symbol for symbol in bare if symbol not in rows]
        local = families.ahead(plpy, cache, spec["definition"], computed, times)
        for symbol in some:
            if symbol not in bare:
                blocks = whole.get(symbol, [])
                yield from _with_blocks(plpy, local, spec, symbol, times, blocks)
                continue
            if symbol in rows:
                values: Floats = np.empty((len(times), spec["k"]))
                _fill(plpy, local, spec, symbol, times, _piece(rows.pop(symbol), spec), values)
            else:
                family = families.find(plpy, cache, spec["definition"])
                values = families.matrix(plpy, local, family, symbol, times)
            yield from _known(symbol, times, values)


def _whole(
    plpy: Any, spec: Any, symbols: list[str], times: Times
) -> dict[str, list[tuple[float, float, int]]]:
    """By symbol the blocks (from, to, n) of which every vector is asked for."""
    plan = plpy.prepare(
        f"select b.symbol, {_SECONDS.format('b.ts_from')} as ts_from,"
        f" {_SECONDS.format('b.ts_to')} as ts_to, b.n from feature.valid_blocks b"
        " where b.set_id = $1 and b.symbol = any ($2) and b.first_ts >= to_timestamp($3)"
        " and b.last_ts <= to_timestamp($4) order by b.symbol, b.ts_from",
        ["int4", "text[]", "float8", "float8"],
    )
    found: dict[str, list[tuple[float, float, int]]] = {}
    for row in plpy.execute(plan, [spec["set_id"], symbols, *_ends(int(times[0]), int(times[-1]))]):
        block = (row["ts_from"], row["ts_to"], row["n"])
        found.setdefault(row["symbol"], []).append(block)
    return found


def _rows_of_many(plpy: Any, spec: Any, symbols: list[str], times: Times) -> dict[str, Any]:
    if not symbols:
        return {}
    plan = plpy.prepare(
        _ROWS.format(source="valid_vectors", symbol="v.symbol,", which="any ($2)")
        + " group by v.symbol",
        ["int4", "text[]", "float8", "float8"],
    )
    ends = _ends(int(times[0]), int(times[-1]))
    return {row["symbol"]: row for row in plpy.execute(plan, [spec["set_id"], symbols, *ends])}


def _with_blocks(
    plpy: Any,
    cache: dict[str, Any],
    spec: Any,
    symbol: str,
    times: Times,
    blocks: list[tuple[float, float, int]],
) -> Iterator[tuple[str, float, int, bytes | None, bytes | None]]:
    """The blocks, and what lies before, between and after them."""
    at, most = 0, _most(spec["k"])
    for start, stop, count in [*blocks, (math.inf, math.inf, 0)]:
        begin, end = np.searchsorted(times, [start * w.SECOND, stop * w.SECOND])
        for first in range(at, int(begin), most):
            part = times[first : min(first + most, int(begin))]
            yield from _known(symbol, part, vectors(plpy, cache, spec, symbol, part))
        if count:
            yield symbol, start, count, None, None
        at = int(end)


def _known(
    symbol: str, times: Times, values: Floats
) -> Iterator[tuple[str, float, int, bytes, bytes]]:
    known = codec.known(values)
    if not known.all():
        times, values = times[known], values[known]
    if len(times):
        parts = times.astype("<i8").tobytes(), values.astype("<f8", copy=False).tobytes()
        yield symbol, int(times[0]) / w.SECOND, len(times), *parts


def pack(plpy: Any, set_id: int, k: int, step: float, symbol: str) -> int:
    """Make the blocks that are missing of a set and symbol, each of what is stored without a hole
    of its stretch; how many. Whoever stores vectors of them waits until the transaction ends.
    """
    lock = plpy.prepare("select ops._lock($1)", ["text"])  # as feature.materialise has it
    plpy.execute(lock, [f"feature.materialise:{set_id}:{symbol}"])
    plan = plpy.prepare(
        f"select {_SECONDS.format('m.since')} as since, {_SECONDS.format('m.through')} as through"
        " from feature.watermarks m where m.set_id = $1 and m.symbol = $2",
        ["int4", "text"],
    )
    found = plpy.execute(plan, [set_id, symbol])
    if not len(found):
        return 0
    since = found[0]["since"]
    if since is None:  # not recorded: this looks through all chunks
        plan = plpy.prepare(
            f"select {_SECONDS.format('min(v.ts)')} as since from feature.vectors v"
            " where v.set_id = $1 and v.symbol = $2",
            ["int4", "text"],
        )
        since = plpy.execute(plan, [set_id, symbol])[0]["since"]
        if since is None:
            return 0
    span = round(since * w.SECOND), round(found[0]["through"] * w.SECOND)
    wanted = spans(span, round(step * w.SECOND))
    made = _made(plpy, set_id, symbol)
    missing = [span for span in wanted if span not in made]
    old = plpy.prepare(
        "delete from feature.vector_blocks b where b.set_id = $1 and b.symbol = $2"
        " and b.ts_to > to_timestamp($3) and b.ts_from < to_timestamp($4)",
        ["int4", "text", "float8", "float8"],
    )
    count, at_once = 0, max(1, _most(k) // BLOCK)
    while missing:
        # Those that lie together are read together.
        some = missing[:1]
        while len(some) < min(at_once, len(missing)) and missing[len(some)][0] == some[-1][1]:
            some.append(missing[len(some)])
        del missing[: len(some)]
        first, last = some[0][0], some[-1][1]
        plpy.execute(old, [set_id, symbol, *_ends(first, last)])
        count += _make(plpy, set_id, k, symbol, some)
    return count


def _made(plpy: Any, set_id: int, symbol: str) -> set[tuple[int, int]]:
    plan = plpy.prepare(
        f"select {_SECONDS.format('b.ts_from')} as ts_from, {_SECONDS.format('b.ts_to')} as ts_to"
        " from feature.vector_blocks b where b.set_id = $1 and b.symbol = $2",
        ["int4", "text"],
    )
    return {
        (round(row["ts_from"] * w.SECOND), round(row["ts_to"] * w.SECOND))
        for row in plpy.execute(plan, [set_id, symbol])
    }


def spans(span: tuple[int, int], step: int) -> list[tuple[int, int]]:
    """The stretches of a set's blocks in a span of time, cut at its ends."""
    start, end = span
    stretch = step * BLOCK
    starts = np.arange(start // stretch, -(-end // stretch)) * stretch
    return list(
        zip(
            np.maximum(starts, start).tolist(),
            np.minimum(starts + stretch, end).tolist(),
            strict=True,
        )
    )


def _make(plpy: Any, set_id: int, k: int, symbol: str, spans: list[tuple[int, int]]) -> int:
    """Blocks of adjoining spans; none of those in which nothing is stored."""
    read = plpy.prepare(
        _ROWS.format(source="vectors", symbol="", which="$2"), ["int4", "text", "float8", "float8"]
    )
    ends = _ends(spans[0][0], spans[-1][1] - 1)
    row = plpy.execute(read, [set_id, symbol, *ends])[0]
    return sum(
        keep(plpy, set_id, symbol, spans, ts, values) for ts, values in _piece(row, {"k": k})
    )


def keep(
    plpy: Any, set_id: int, symbol: str, spans: list[tuple[int, int]], ts: Times, values: Floats
) -> int:
    """Write the vectors at ascending times as a block for each of the adjoining spans that has
    some; how many blocks. They are all that is stored, or is to be, of the spans."""
    insert = plpy.prepare(
        "insert into feature.vector_blocks"
        " (set_id, symbol, ts_from, ts_to, first_ts, last_ts, n, ts, vectors)"
        " values ($1, $2, to_timestamp($3), to_timestamp($4), to_timestamp($5), to_timestamp($6),"
        " $7, $8, $9)",
        ["int4", "text", *["float8"] * 4, "int4", "bytea", "bytea"],
    )
    count = 0
    cuts = np.searchsorted(ts, [start for start, _ in spans[1:]])
    for span, t, rows in zip(spans, np.split(ts, cuts), np.split(values, cuts), strict=True):
        if len(t):
            times = [*_ends(*span), *_ends(int(t[0]), int(t[-1]))]
            numbers = t.astype("<i8").tobytes(), rows.astype("<f8").tobytes()
            plpy.execute(insert, [set_id, symbol, *times, len(t), *numbers])
            count += 1
    return count
