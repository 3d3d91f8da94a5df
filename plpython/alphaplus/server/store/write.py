"""Storing vectors: computed, and written as a binary COPY from memory.

PL/Python would turn every number of a returned array to text and back, which took ten times as long
as computing them.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
from alphaplus import pgbinary
from alphaplus.server import codec, database
from alphaplus.server.database import Database, micros
from alphaplus.server.features import compute, registry
from alphaplus.server.market.reader import MarketReader
from alphaplus.server.store import blocks
from alphaplus.server.types import Floats, Times

PIECE = 4 << 20  # bytes that are copied at once
DIRECT = 512  # vectors of one chunk that are worth a COPY of their own
MEMORY = "alphaplus-vectors"  # name of the files of memory that COPY reads
Rows = np.ndarray[Any, Any]  # of feature.vectors, as COPY reads them
# Fields of such rows: set_id, symbol, ts, computed_at, values.
_TS, _VALUES = "value2", "value4"


def store(
    plpy: Any, cache: dict[str, Any], set_id: int, family: str, symbol: str, start: int, end: int
) -> int:
    """Compute grid times in [start, end) and add them to feature.vectors; how many were known."""
    begin, stop = database.moments(plpy, start, end)
    db = Database.of(plpy, cache)
    found = registry.find(db, family)
    count = 0
    db.set_failures.clear()
    _hold(db, set_id)
    _unpack(db, set_id, symbol, begin, stop)
    file = _File(set_id, symbol, _now(db), len(found.features))
    try:
        for grid, values in compute.history(MarketReader(db, symbol), found, begin, stop):
            known = codec.known(values)
            if not known.all():
                grid, values = grid[known], values[known]
            if len(grid):
                _add(db, file, found.grid, grid, values)
                count += len(grid)
    finally:
        file.close()
    _note_failures(db, set_id, [symbol], begin, stop)
    return count


def store_at(
    plpy: Any, cache: dict[str, Any], set_id: int, family: str, symbols: list[str], at: int
) -> int:
    """Compute one grid time of many symbols and add it to feature.vectors; how many were known."""
    (t,) = database.moments(plpy, at)
    db = Database.of(plpy, cache)
    grid = np.array([t], dtype=np.int64)
    computed_at = _now(db)
    found = registry.find(db, family)
    parts = []
    db.set_failures.clear()
    for symbol in symbols:
        values = compute.matrix(MarketReader(db, symbol, t, t), found, grid)
        if np.isfinite(values).any():
            parts.append(binary_rows(set_id, symbol, grid, computed_at, values).tobytes())
    if parts:
        _hold(db, set_id)
        handle = os.memfd_create(MEMORY)
        try:
            _copy_parts(db, handle, parts)
        finally:
            os.close(handle)
    _note_failures(db, set_id, symbols, t, t + found.grid)
    return len(parts)


def store_many(
    plpy: Any,
    cache: dict[str, Any],
    set_id: int,
    family: str,
    symbols: list[str],
    start: int,
    end: int,
    packed: bool,
) -> int:
    """Compute grid times in [start, end) of some symbols, as many as memory has room for, and add
    them to feature.vectors, ``packed`` to feature.vector_blocks too; how many were known.

    Chunk by chunk: what a symbol has in one is often too little for a COPY of its own.
    """
    begin, stop = database.moments(plpy, start, end)
    db = Database.of(plpy, cache)
    found = registry.find(db, family)
    grid = compute.grid(found, begin, stop)
    db.set_failures.clear()
    _hold(db, set_id)
    for symbol in symbols:
        _unpack(db, set_id, symbol, begin, stop)
    computed_at = _now(db)
    bulk = compute.bulk(db, found, symbols, grid) if len(grid) else None
    rows, kept = [], []
    for symbol in symbols:
        reader = MarketReader(db, symbol, bulk=bulk)
        for part, values in compute.history(reader, found, begin, stop):
            known = codec.known(values)
            if known.any():
                ts, values = part[known], values[known]
                rows.append(binary_rows(set_id, symbol, ts, computed_at, values))
                if packed:
                    span = int(part[0]), int(part[-1]) + found.grid
                    kept.append((symbol, blocks.spans(span, found.grid), ts, values))
    _add_many(db, rows)
    for block in kept:  # after the rows: a trigger deletes the blocks of what goes in by the table
        blocks.keep(db, set_id, *block)
    _note_failures(db, set_id, symbols, begin, stop)
    return sum(map(len, rows))


def _note_failures(db: Database, set_id: int, symbols: list[str], start: int, stop: int) -> None:
    """Write down at which of the times just stored users' sets failed; those that did not, no
    longer do."""
    failed, db.set_failures = db.set_failures, []
    # Of a joined set its members fail; one of them at each time is enough.
    once = {(symbol, at): (state, words) for _, symbol, at, state, words in reversed(failed)}
    columns = [
        [symbol for symbol, _ in once], [at for _, at in once],
        [state for state, _ in once.values()], [words for _, words in once.values()],
    ]  # fmt: skip
    query = "select feature._note_errors($1, $2, $3, $4, $5, $6, $7, $8)"
    kinds = ("int4", "text[]", "int8", "int8", "text[]", "int8[]", "text[]", "text[]")
    db.execute(query, kinds, [set_id, symbols, *micros(start, stop), *columns])


def _now(db: Database) -> int:
    now = db.execute("select ops._micros(pg_catalog.clock_timestamp()) as now")[0]["now"]
    return int(now) - database.EPOCH


def binary_rows(set_id: int, symbol: str, ts: Times, computed_at: int, values: Floats) -> Rows:
    """Rows of feature.vectors in COPY's binary format."""
    template = _template(set_id, symbol, computed_at, values.shape[1])
    out: Rows = np.empty(len(ts), dtype=template.dtype)
    _fill(out, template)
    out[_TS] = ts
    out[_VALUES]["value"] = values
    return out


def _template(set_id: int, symbol: str, computed_at: int, width: int) -> Rows:
    """A row of feature.vectors, all but its time and numbers."""
    zero = np.zeros(1, dtype=np.int64)
    columns = (
        np.array([set_id], dtype=np.int32), pgbinary.Text(symbol), zero, zero + computed_at,
        np.zeros((1, width)),
    )  # fmt: skip
    return pgbinary.table(columns, 1)


def _fill(rows_: Rows, template: Rows) -> None:
    # As bytes: numpy copies a structure field by field.
    size = template.dtype.itemsize
    rows_.view((np.void, size))[:] = template.view((np.void, size))[0]


class _File:
    """Vectors of a set and symbol in memory that COPY reads as a file.

    It is written over again and again: what does not change from one vector to the next stays as it
    is, and the memory is not taken anew from the kernel, which took longer than filling it.
    """

    def __init__(self, set_id: int, symbol: str, computed_at: int, width: int) -> None:
        self.template = _template(set_id, symbol, computed_at, width)
        self.handle = os.memfd_create(MEMORY)
        self.rows = self.template[:0]

    def write(self, ts: Times, values: Floats) -> None:
        """Make the file hold these vectors."""
        if len(ts) != len(self.rows):
            size = len(pgbinary.HEADER) + len(ts) * self.template.itemsize
            os.ftruncate(self.handle, size)
            memory = mmap.mmap(self.handle, size)
            memory[: len(pgbinary.HEADER)] = pgbinary.HEADER
            self.rows = np.frombuffer(
                memory, dtype=self.template.dtype, offset=len(pgbinary.HEADER)
            )
            _fill(self.rows, self.template)
        self.rows[_TS] = ts
        self.rows[_VALUES]["value"] = values

    def close(self) -> None:
        """Give the memory back."""
        self.rows = self.template[:0]
        os.close(self.handle)


def _add(db: Database, file: _File, step: int, ts: Times, values: Floats) -> None:
    """Add vectors at ascending times, ``step`` apart where none is missing.

    Straight into the chunks where they hold many: what a COPY of the whole table could do, but that
    only a superuser may COPY a hypertable from a file. The table's triggers do not see these rows;
    what they would do is done by :func:`store`.
    """
    piece = max(1, PIECE // file.template.itemsize)
    many = len(ts) >= DIRECT and _interval(db) >= DIRECT * step
    at, chunks = 0, None
    while at < len(ts):
        until, into = len(ts), None
        if many and until - at >= DIRECT:
            chunks = chunks or _chunks(db)
            chunk = _holding(chunks, int(ts[at]))
            if chunk is None:
                until, chunks = at + 1, None  # this one makes the chunk
            else:
                until = int(np.searchsorted(ts, chunk["stop"]))
                if until - at >= DIRECT and chunk["direct"]:
                    into = chunk["name"]
        for begin in range(at, until, piece):
            part = slice(begin, min(begin + piece, until))
            file.write(ts[part], values[part])
            _copy(db, file.handle, into)
        at = until


def _add_many(db: Database, rows: list[Rows]) -> None:
    """Add rows in COPY's format, of each symbol in order of time, chunk by chunk."""
    times_ = [part[_TS].astype(np.int64) for part in rows]
    at = [0] * len(rows)
    chunks = _chunks(db)
    handle = os.memfd_create(MEMORY)
    few: list[bytes] = []
    try:
        while True:
            first = min(
                (int(t[i]) for t, i in zip(times_, at, strict=True) if i < len(t)), default=None
            )
            if first is None:
                break
            into = _holding(chunks, first)
            stop = first + 1 if into is None else into["stop"]
            ends = [int(np.searchsorted(t, stop)) for t in times_]
            parts = [r[i:j].tobytes() for r, i, j in zip(rows, at, ends, strict=True) if i < j]
            many = sum(ends) - sum(at) >= DIRECT
            at = ends
            if into is None:  # these make the chunk
                _copy_parts(db, handle, parts)
                chunks = _chunks(db)
            elif many and into["direct"]:
                _copy_parts(db, handle, parts, into["name"])
            else:
                few += parts
        if few:
            _copy_parts(db, handle, few)
    finally:
        os.close(handle)


def _copy_parts(db: Database, handle: int, parts: list[bytes], chunk: str | None = None) -> None:
    os.lseek(handle, 0, os.SEEK_SET)
    with open(handle, "wb", closefd=False) as file:
        file.write(pgbinary.HEADER)
        file.writelines(parts)
        file.truncate()  # its memory is written over, not given back and taken anew
    _copy(db, handle, chunk)


def _interval(db: Database) -> int:
    """Length of a new chunk of feature.vectors in microseconds."""
    return int(db.execute("select feature._chunk_interval() as width")[0]["width"])


def _chunks(db: Database) -> list[dict[str, Any]]:
    """The chunks of feature.vectors: name, start, stop, and whether a COPY may go straight in."""
    found = db.execute("select c.* from feature._vector_chunks() c")
    return [
        dict(row, start=row["start"] - database.EPOCH, stop=row["stop"] - database.EPOCH)
        for row in found
    ]


def _holding(chunks: list[dict[str, Any]], time: int) -> dict[str, Any] | None:
    """The chunk that holds a time; None: there is none yet."""
    return next((chunk for chunk in chunks if chunk["start"] <= time < chunk["stop"]), None)


def _hold(db: Database, set_id: int) -> None:
    """Hold the set's row to the end of the transaction, as a foreign key would for each vector."""
    query = "select from feature.sets s where s.set_id = $1 for key share"
    if len(db.execute(query, ("int4",), [set_id])) == 0:
        db.plpy.error(
            f"feature set {set_id} is gone",
            sqlstate="AP202",
            hint="It was dropped meanwhile: select name, version from feature.sets",
        )


def _unpack(db: Database, set_id: int, symbol: str, start: int, stop: int) -> None:
    """Delete the blocks of a stretch, as a trigger does for vectors that go in by the table. Who
    stores holds the lock that who packs takes: see feature.materialise."""
    values = [set_id, symbol, *micros(start, stop)]
    db.execute("select feature._unpack($1, $2, $3, $4)", ("int4", "text", "int8", "int8"), values)


def _copy(db: Database, handle: int, chunk: str | None = None) -> None:
    """The vectors that a file of memory holds, into a chunk of feature.vectors or into the table,
    then by way of a temporary one."""
    if chunk is None:
        db.execute("select feature._make_staging()")
    into = chunk or "pg_temp._vectors"
    copy = "select feature._copy_vectors($1, $2::regclass)"
    db.execute(copy, ("int4", "text"), [handle, into])
    if chunk is None:
        db.execute("select feature._take_staging()")


def copy_from_memory(plpy: Any, handle: int, into: str) -> None:
    """``feature._copy_vectors``: a binary COPY from this backend's own memory, and from no file.

    Args:
        handle: file descriptor of what ``os.memfd_create`` made here under this module's name.
        into: a table's name, quoted where it has to be.

    Raises (SQLSTATE): AP720 it is another file, or a table of another role, whose triggers would
    run with the right to read files.
    """
    try:
        target = str(Path(f"/proc/self/fd/{handle:d}").readlink())
    except OSError:
        target = ""
    query = "select c.relowner::regrole::text as owner from pg_class c where c.oid = $1::regclass"
    ours = [row["owner"] for row in plpy.execute(plpy.prepare(query, ["text"]), [into])]
    if target != f"/memfd:{MEMORY} (deleted)" or ours != ["alphaplus_owner"]:
        plpy.error(
            "vectors are copied from memory only, into tables of the owner",
            sqlstate="AP720",
            hint="feature.materialise stores vectors.",
        )
    columns = "(set_id, symbol, ts, computed_at, values)"
    plpy.execute(f"copy {into} {columns} from '/proc/self/fd/{handle:d}' (format binary)")
