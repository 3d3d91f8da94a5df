"""Stored vectors, many at once: blocks of numbers where there are, rows elsewhere, and what is not
stored is computed.

A block (``feature.vector_blocks``) holds all vectors of a set and symbol in a stretch of at most
:data:`BLOCK` grid times as they lie in memory: taking a row apart costs ten times what its numbers
do. :func:`pack` makes them of the rows; the first change to a row deletes its block.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from alphaplus.server import codec, database, errors
from alphaplus.server.database import EPOCH, Database, micros
from alphaplus.server.features import compute, registry
from alphaplus.server.market.reader import MarketReader
from alphaplus.server.types import NEVER, Floats, Mask, Times

Piece = tuple[Times, Floats]  # (n,) ascending times and (n, k) vectors

BLOCK = 1024  # grid times
READ_BYTES = 96 << 20  # of stored rows, at once
_SPAN = ("int4", "text", "int8", "int8")
_SPAN_OF_MANY = ("int4", "text[]", "int8", "int8")


def grid(start: int, end: int, width: int) -> Times:
    """The grid times in [start, end)."""
    return np.arange(-(-start // width) * width, end, width, dtype=np.int64)


def vectors(reader: MarketReader, spec: Any, times: Times) -> Floats:
    """The set's vectors at ascending grid times, those stored and valid, the rest computed: (n, k).

    ``spec`` has set_id, definition and k.
    """
    out: Floats = np.empty((len(times), spec["k"]))
    most = _most(spec["k"])
    for at in range(0, len(times), most):
        part = times[at : at + most]
        pieces = _pieces(reader.db, spec, reader.symbol, int(part[0]), int(part[-1]))
        _fill(reader, spec, part, pieces, out[at : at + most])
    return out


def _most(k: int) -> int:
    return max(1, READ_BYTES // (12 * k + 28))


def stored(db: Database, spec: Any, symbol: str, first: int, last: int) -> Iterator[Piece]:
    """What is stored and valid of [first, last], in pieces of ascending times; nothing is computed.

    ``spec`` has set_id and k, and step where there may be more rows than fit into memory at once.
    """
    stretch = spec["step"] * _most(spec["k"]) if "step" in spec else last - first + 1
    for start in range(first, last + 1, max(stretch, 1)):
        end = min(last, start + stretch - 1)
        for ts, values in _pieces(db, spec, symbol, start, end):
            # A block is given whole.
            begin, stop = np.searchsorted(ts, [start, end + 1])
            if begin < stop:
                yield ts[begin:stop], values[begin:stop]


def _pieces(db: Database, spec: Any, symbol: str, first: int, last: int) -> Iterator[Piece]:
    """What is stored of [first, last], each stretch of time once."""
    query = "select b.* from feature._blocks($1, $2, $3, $4) b"
    begin = first
    for row in db.cursor(query, _SPAN, [spec["set_id"], symbol, *micros(first, last)]):
        start, stop = row["start"] - EPOCH, row["stop"] - EPOCH
        yield from _rows(db, spec, symbol, begin, start - 1)
        begin = stop
        ts = np.frombuffer(row["ts"], "<i8")
        yield ts, np.frombuffer(row["vectors"], "<f8").reshape(len(ts), spec["k"])
    yield from _rows(db, spec, symbol, begin, last)


def _rows(db: Database, spec: Any, symbol: str, first: int, last: int) -> Iterator[Piece]:
    if last < first:
        return
    query = "select r.* from feature._valid_rows($1, $2, $3, $4) r"
    values = [spec["set_id"], symbol, *micros(first, last)]
    yield from _piece(db.execute(query, _SPAN, values)[0], spec)


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
    reader: MarketReader, spec: Any, times: Times, pieces: Iterator[Piece], out: Floats
) -> None:
    """Into ``out`` the vectors at ascending times: the stored pieces, and the rest computed."""
    found = np.zeros(len(times), dtype=bool)
    oldest, newest = NEVER, -NEVER
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
        missing &= ~_unknowable(reader.db, spec, reader.symbol, times, oldest, newest)
    if missing.any():
        family = registry.find(reader.db, spec["definition"])
        out[missing] = compute.matrix(reader, family, times[missing])


def _unknowable(
    db: Database, spec: Any, symbol: str, times: Times, oldest: int, newest: int
) -> Mask:
    """At which of the times that are not stored nothing is known: those between two stored ones in
    the stretch that was stored, where no late row can have changed that.
    """
    query = "select c.* from feature._covered($1, $2) c"
    found = db.execute(query, ("int4", "text"), [spec["set_id"], symbol])
    if not len(found) or not found[0]["settled"]:
        return np.zeros(len(times), dtype=bool)
    within: Mask = (times >= oldest) & (times <= newest)
    if found[0]["since"] is not None:
        since, through = (found[0][name] - EPOCH for name in ("since", "through"))
        within &= (times >= since) & (times < through)
    return within


def matrix(
    plpy: Any, cache: dict[str, Any], text: str, symbols: list[str], start: int, stop: int
) -> Iterator[tuple[str, int, int, bytes | None, bytes | None]]:
    """``(symbol, time, n, ts, vectors)`` of a feature set at the grid times of [start, stop) at
    which anything is known, each as known then; as ``feature.vector_blocks`` has ts and vectors.
    Both are None where the block that begins at that time is wanted whole.

    ``text`` is JSON with set_id, definition, set_kind, k, step.
    """
    db = Database.of(plpy, cache)
    spec = json.loads(text)
    begin, end = database.moments(plpy, start, stop)
    found = _matrix(db, spec, symbols, grid(begin, end, spec["step"]))
    return errors.rows(cache, found, 5, time=1)


Part = tuple[str, int, int, bytes | None, bytes | None]


def _matrix(db: Database, spec: Any, symbols: list[str], times: Times) -> Iterator[Part]:
    # Many symbols are asked for at once: a query over years of chunks is mostly planning.
    most = _most(spec["k"])
    batch = max(1, min(200, most // max(1, len(times))))
    for begin in range(0, len(symbols) if len(times) else 0, batch):
        some = symbols[begin : begin + batch]
        whole = _whole(db, spec, some, times)
        bare = [symbol for symbol in some if symbol not in whole and len(times) <= most]
        rows = _rows_of_many(db, spec, bare, times)
        computed = [symbol for symbol in bare if symbol not in rows]
        bulk = None
        if computed:
            family = registry.find(db, spec["definition"])
            bulk = compute.bulk(db, family, computed, times)
        for symbol in some:
            reader = MarketReader(db, symbol, bulk=bulk)
            if symbol not in bare:
                yield from _with_blocks(reader, spec, times, whole.get(symbol, []))
                continue
            if symbol in rows:
                values: Floats = np.empty((len(times), spec["k"]))
                _fill(reader, spec, times, _piece(rows.pop(symbol), spec), values)
            else:
                family = registry.find(db, spec["definition"])
                values = compute.matrix(reader, family, times)
            yield from _known(symbol, times, values)


def _whole(
    db: Database, spec: Any, symbols: list[str], times: Times
) -> dict[str, list[tuple[int, int, int]]]:
    """By symbol the blocks (start, stop, n) of which every vector is asked for."""
    query = "select b.* from feature._blocks_within($1, $2, $3, $4) b"
    values = [spec["set_id"], symbols, *micros(int(times[0]), int(times[-1]))]
    found: dict[str, list[tuple[int, int, int]]] = {}
    for row in db.execute(query, _SPAN_OF_MANY, values):
        block = (row["start"] - EPOCH, row["stop"] - EPOCH, row["n"])
        found.setdefault(row["symbol"], []).append(block)
    return found


def _rows_of_many(db: Database, spec: Any, symbols: list[str], times: Times) -> dict[str, Any]:
    if not symbols:
        return {}
    query = "select r.* from feature._valid_rows_of_many($1, $2, $3, $4) r"
    values = [spec["set_id"], symbols, *micros(int(times[0]), int(times[-1]))]
    return {row["symbol"]: row for row in db.execute(query, _SPAN_OF_MANY, values)}


def _with_blocks(
    reader: MarketReader, spec: Any, times: Times, blocks: list[tuple[int, int, int]]
) -> Iterator[Part]:
    """The blocks, and what lies before, between and after them."""
    at, most = 0, _most(spec["k"])
    for start, stop, count in [*blocks, (NEVER, NEVER, 0)]:
        begin, end = np.searchsorted(times, [start, stop])
        for first in range(at, int(begin), most):
            part = times[first : min(first + most, int(begin))]
            yield from _known(reader.symbol, part, vectors(reader, spec, part))
        if count:
            yield reader.symbol, start + EPOCH, count, None, None
        at = int(end)


def _known(symbol: str, times: Times, values: Floats) -> Iterator[Part]:
    known = codec.known(values)
    if not known.all():
        times, values = times[known], values[known]
    if len(times):
        parts = times.astype("<i8").tobytes(), values.astype("<f8", copy=False).tobytes()
        yield symbol, int(times[0]) + EPOCH, len(times), *parts


def pack(plpy: Any, cache: dict[str, Any], set_id: int, k: int, step: int, symbol: str) -> int:
    """Make the blocks that are missing of a set and symbol, each of what is stored without a hole
    of its stretch; how many. Whoever stores vectors of them waits until the transaction ends.
    """
    db = Database.of(plpy, cache)
    which = ("int4", "text"), [set_id, symbol]
    # As feature.materialise has it.
    name = f"feature.materialise:{set_id}:{symbol}"
    db.execute("select ops._lock($1)", ("text",), [name])
    found = db.execute("select c.* from feature._covered($1, $2) c", *which)
    if not len(found):
        return 0
    since = found[0]["since"]
    if since is None:  # not recorded
        since = db.execute("select feature._first_stored($1, $2) as since", *which)[0]["since"]
        if since is None:
            return 0
    wanted = spans((since - EPOCH, found[0]["through"] - EPOCH), step)
    made = {
        (row["start"] - EPOCH, row["stop"] - EPOCH)
        for row in db.execute("select p.* from feature._packed($1, $2) p", *which)
    }
    missing = [span for span in wanted if span not in made]
    count, at_once = 0, max(1, _most(k) // BLOCK)
    while missing:
        # Those that lie together are read together.
        some = missing[:1]
        while len(some) < min(at_once, len(missing)) and missing[len(some)][0] == some[-1][1]:
            some.append(missing[len(some)])
        del missing[: len(some)]
        ends = [set_id, symbol, *micros(some[0][0], some[-1][1])]
        db.execute("select feature._unpack($1, $2, $3, $4)", _SPAN, ends)
        count += _make(db, set_id, k, symbol, some)
    return count


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


def _make(db: Database, set_id: int, k: int, symbol: str, spans: list[tuple[int, int]]) -> int:
    """Blocks of adjoining spans; none of those in which nothing is stored."""
    query = "select r.* from feature._stored_rows($1, $2, $3, $4) r"
    ends = [set_id, symbol, *micros(spans[0][0], spans[-1][1] - 1)]
    row = db.execute(query, _SPAN, ends)[0]
    return sum(keep(db, set_id, symbol, spans, ts, values) for ts, values in _piece(row, {"k": k}))


def keep(
    db: Database, set_id: int, symbol: str, spans: list[tuple[int, int]], ts: Times, values: Floats
) -> int:
    """Write the vectors at ascending times as a block for each of the adjoining spans that has
    some; how many blocks. They are all that is stored, or is to be, of the spans."""
    query = "select feature._keep_block($1, $2, $3, $4, $5, $6)"
    kinds = ("int4", "text", "int8[]", "int4", "bytea", "bytea")
    count = 0
    cuts = np.searchsorted(ts, [start for start, _ in spans[1:]])
    for span, t, rows in zip(spans, np.split(ts, cuts), np.split(values, cuts), strict=True):
        if len(t):
            times = micros(*span, int(t[0]), int(t[-1]))
            numbers = t.astype("<i8").tobytes(), rows.astype("<f8").tobytes()
            db.execute(query, kinds, [set_id, symbol, times, len(t), *numbers])
            count += 1
    return count
