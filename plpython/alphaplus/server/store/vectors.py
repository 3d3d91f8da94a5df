"""Feature vectors for the database: one time, a stretch of history, and the sets' own rows."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from alphaplus.server import codec, database
from alphaplus.server.features import families, incremental
from alphaplus.server.market import revisions as w
from alphaplus.server.store import blocks

PIECE = 4 << 20  # bytes that are copied at once
DIRECT = 512  # vectors of one chunk that are worth a COPY of their own
MEMORY = "alphaplus-vectors"  # name of the files of memory that COPY reads
_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)


def live(plpy: Any, cache: dict[str, Any], family: str, symbol: str, seconds: float) -> list[float]:
    """The vector of a family at one grid time (seconds since 2000-01-01 UTC); NaN where unknown."""
    grid = np.array(database.moments(plpy, seconds), dtype=np.int64)
    cache.setdefault("alphaplus.runs", incremental.Memory())
    values: list[float] = families.matrix(
        plpy, cache, families.find(plpy, cache, family), symbol, grid
    )[0].tolist()
    return values


def live_many(
    plpy: Any,
    cache: dict[str, Any],
    set_ids: list[int] | None,
    definitions: list[str],
    symbol: str,
    seconds: list[float],
) -> list[float]:
    """The vectors of several sets, each at its own grid time, one after the other: stored ones, and
    the others computed together."""
    plans = cache.setdefault("alphaplus.plans", {})
    plan = plans.get("_stored")
    if plan is None:
        plan = plans["_stored"] = plpy.prepare(
            "select feature._stored(s.set_id, $2, to_timestamp(s.seconds)) as vector"
            " from unnest($1, $3) as s (set_id, seconds)",
            ["int4[]", "text", "float8[]"],
        )
    since_1970 = [time + w.EPOCH for time in seconds or ()]
    parts: list[list[float] | None] = [
        row["vector"] for row in plpy.execute(plan, [set_ids or [], symbol, since_1970])
    ]
    asked = [
        (families.find(plpy, cache, definitions[i]), i) for i, p in enumerate(parts) if p is None
    ]
    cache.setdefault("alphaplus.runs", incremental.Memory())
    # What is read for this call is kept for this call.
    reads = families.Reads(tuple(family for family, _ in asked))
    local = {**cache, "alphaplus.reads": reads}
    asked.sort(key=lambda one: reads.order(one[0]))
    moments = {i: round(seconds[i] * w.SECOND) for _, i in asked}
    families.read_ahead(plpy, local, symbol, [(family, moments[i]) for family, i in asked])
    for family, i in asked:
        grid = np.array([moments[i]], dtype=np.int64)
        parts[i] = families.matrix(plpy, local, family, symbol, grid)[0].tolist()
    return [value for part in parts if part is not None for value in part]


def rows(
    plpy: Any, cache: dict[str, Any], family: str, symbol: str, start: float, end: float
) -> Iterator[tuple[float, list[float]]]:
    """``(seconds, vector)`` for grid times in [start, end) at which anything is known."""
    begin, stop = database.moments(plpy, start, end)
    found = families.find(plpy, cache, family)
    return _rows(families.history(plpy, cache, found, symbol, begin, stop))


def _rows(
    parts: Iterator[tuple[families.Times, families.Floats]],
) -> Iterator[tuple[float, list[float]]]:
    for grid, values in parts:
        known = codec.known(values)
        seconds = grid[known] / w.SECOND
        yield from zip(seconds.tolist(), values[known].tolist(), strict=True)


def sync(plpy: Any) -> None:
    """Write the declared families into feature.sets and feature.definitions, and their functions.

    Raises (SQLSTATE AP201): a family's definition changed under the same version while vectors or
    model versions made with it exist.
    """
    for name in families.MODULES:
        _sync_family(plpy, families.get(name))
    from alphaplus.server.sets import user

    user.sync(plpy)


def _sync_family(plpy: Any, family: families.Family) -> None:
    names = list(family.names)
    values = [
        family.name,
        family.version,
        names,
        family.grid / w.SECOND,
        family.needs.lookback * family.grid / w.SECOND,
        family.sha256,
        family.description,
    ]
    found = plpy.execute(
        plpy.prepare(
            "select set_id, sha256 from feature.sets where name = $1 and version = $2",
            ["text", "int4"],
        ),
        [family.name, family.version],
    )
    if len(found) and bytes(found[0]["sha256"]) != family.sha256:
        used = plpy.execute(
            plpy.prepare(
                "select exists (select from feature.vectors where set_id = $1) or exists"
                " (select from ml.model_versions where feature_set = $2 and feature_version = $3)"
                " as used",
                ["int4", "text", "int4"],
            ),
            [found[0]["set_id"], family.name, family.version],
        )[0]["used"]
        if used:
            plpy.error(
                f"feature set {family.name} version {family.version} is in use and its definition"
                " has changed",
                sqlstate="AP201",
                detail="Vectors or models made with the old definition exist.",
                hint="Raise Family.version in the code; the old version's models stay as they are.",
            )
    plpy.execute(
        plpy.prepare(
            "insert into feature.sets"
            " (name, version, features, definition, kind, grid, lookback, sha256, description)"
            " values ($1, $2, $3, $1, 'builtin', make_interval(secs => $4),"
            " make_interval(secs => $5), $6, $7) on conflict (name, version) do update"
            " set features = excluded.features, definition = excluded.definition,"
            " grid = excluded.grid, lookback = excluded.lookback, sha256 = excluded.sha256,"
            " description = excluded.description",
            ["text", "int4", "text[]", "float8", "float8", "bytea", "text"],
        ),
        values,
    )
    _retire(plpy, family)
    plpy.execute(
        plpy.prepare(
            "delete from feature.definitions where feature_set = $1 and feature_version = $2",
            ["text", "int4"],
        ),
        values[:2],
    )
    plan = plpy.prepare(
        "insert into feature.definitions"
        " (feature_set, feature_version, feature, position, formula, unit, source)"
        " values ($1, $2, $3, $4, $5, $6, $7)",
        ["text", "int4", "text", "int4", "text", "text", "text"],
    )
    for position, feature in enumerate(family.features, 1):
        plpy.execute(plan, [family.name, family.version, feature.name, position, *feature[1:]])
    _create_functions(plpy, family)


def _retire(plpy: Any, family: families.Family) -> None:
    """Other versions of a family are not computed by this code, which :func:`families.find` says;
    what is next trained on one is to be trained on this."""
    which = [family.name, family.version]
    plpy.execute(
        plpy.prepare(
            "update feature.sets s set definition = s.name || '@' || s.version"
            " where s.name = $1 and s.version <> $2 and s.kind = 'builtin'"
            " and s.definition <> s.name || '@' || s.version",
            ["text", "int4"],
        ),
        which,
    )
    plpy.execute(
        plpy.prepare(
            "update ml.models m set feature_version = $2"
            " where m.feature_set = $1 and m.feature_version <> $2",
            ["text", "int4"],
        ),
        which,
    )


def _create_functions(plpy: Any, family: families.Family) -> None:
    """``feature.<family>`` and ``feature.<family>_history``: the vector as named columns."""
    quote = plpy.quote_ident
    columns = ", ".join(f"{quote(name)} double precision" for name in family.names)
    picks = ", ".join(f"nullif(r.vector[{i}], 'NaN')" for i in range(1, len(family.features) + 1))
    table = "\n".join(
        f"  {feature.name} [{feature.unit}] {feature.formula} ({feature.source})"
        for feature in family.features
    )
    name = quote(family.name)
    history = quote(f"{family.name}_history")
    literal = plpy.quote_literal(family.name)
    # No dollar quotes around a body: what a user chose, a feature's or a set's name, is in it.
    one_row = (
        f"select r.canonical, r.ts, {picks}"
        f" from feature._row({literal}, {family.version}, $1, $2) r"
    )
    many_rows = (
        f"select r.canonical, r.ts, {picks}"
        f" from feature._history({literal}, {family.version}, $1, $2, $3) r"
    )
    plpy.execute(
        f"create or replace function feature.{name}(symbol text, as_of timestamptz default null)"
        f" returns table (symbol text, ts timestamptz, {columns})"
        " language sql stable parallel restricted set search_path = pg_catalog, pg_temp as "
        + plpy.quote_literal(one_row)
    )
    plpy.execute(
        f"create or replace function feature.{history}"
        f'(symbol text, "from" timestamptz, "to" timestamptz)'
        f" returns table (symbol text, ts timestamptz, {columns})"
        " language sql stable parallel restricted set search_path = pg_catalog, pg_temp as "
        + plpy.quote_literal(many_rows)
    )
    plpy.execute(
        f"comment on function feature.{name}(text, timestamptz) is "
        + plpy.quote_literal(
            f"{family.description} One row: the features as known at ts, the last grid time not"
            " after as_of (default: now); null where not knowable. Errors: AP101, AP102,"
            " AP211 an infinite time."
            f"\n{table}"
        )
    )
    plpy.execute(
        f"comment on function feature.{history}(text, timestamptz, timestamptz) is "
        + plpy.quote_literal(
            f"The columns of feature.{family.name} at each grid time in [from, to), each as known"
            " at its own time: the numbers the live function gave then."
        )
    )


def store(
    plpy: Any,
    cache: dict[str, Any],
    set_id: int,
    family: str,
    symbol: str,
    start: float,
    end: float,
) -> int:
    """Compute grid times in [start, end) and add them to feature.vectors; how many were known.

    The rows go in as a binary COPY from memory: PL/Python would turn every number of a returned
    array to text and back, which took ten times as long as computing them.
    """
    begin, stop = database.moments(plpy, start, end)
    found = families.find(plpy, cache, family)
    count = 0
    _hold(plpy, set_id)
    _unpack(plpy, cache, set_id, symbol, (begin, stop))
    file = _File(set_id, symbol, _now(plpy), len(found.features))
    try:
        for grid, values in families.history(plpy, cache, found, symbol, begin, stop):
            known = codec.known(values)
            if not known.all():
                grid, values = grid[known], values[known]
            if len(grid):
                _add(plpy, cache, file, found.grid, grid, values)
                count += len(grid)
    finally:
        file.close()
    return count


def store_at(
    plpy: Any, cache: dict[str, Any], set_id: int, family: str, symbols: list[str], seconds: float
) -> int:
    """Compute one grid time of many symbols and add it to feature.vectors; how many were known."""
    grid = np.array(database.moments(plpy, seconds), dtype=np.int64)
    computed_at = _now(plpy)
    found = families.find(plpy, cache, family)
    parts = []
    for symbol in symbols:
        values = families.matrix(plpy, cache, found, symbol, grid)
        if np.isfinite(values).any():
            parts.append(binary_rows(set_id, symbol, grid, computed_at, values).tobytes())
    if parts:
        _hold(plpy, set_id)
        handle = os.memfd_create(MEMORY)
        try:
            _copy_parts(plpy, cache, handle, parts)
        finally:
            os.close(handle)
    return len(parts)


def store_many(
    plpy: Any,
    cache: dict[str, Any],
    set_id: int,
    family: str,
    symbols: list[str],
    start: float,
    end: float,
    packed: bool,
) -> int:
    """Compute grid times in [start, end) of some symbols, as many as memory has room for, and add
    them to feature.vectors, ``packed`` to feature.vector_blocks too; how many were known.

    Chunk by chunk: what a symbol has in one is often too little for a COPY of its own.
    """
    begin, stop = database.moments(plpy, start, end)
    found = families.find(plpy, cache, family)
    grid = families.grid(found, begin, stop)
    _hold(plpy, set_id)
    for symbol in symbols:
        _unpack(plpy, cache, set_id, symbol, (begin, stop))
    computed_at = _now(plpy)
    local = families.ahead(plpy, cache, family, symbols, grid)
    rows, kept = [], []
    for symbol in symbols:
        for part, values in families.history(plpy, local, found, symbol, begin, stop):
            known = codec.known(values)
            if known.any():
                ts, values = part[known], values[known]
                rows.append(binary_rows(set_id, symbol, ts, computed_at, values))
                if packed:
                    span = int(part[0]), int(part[-1]) + found.grid
                    kept.append((symbol, blocks.spans(span, found.grid), ts, values))
    _add_many(plpy, cache, rows)
    for block in kept:  # after the rows: a trigger deletes the blocks of what goes in by the table
        blocks.keep(plpy, set_id, *block)
    return sum(map(len, rows))


def _now(plpy: Any) -> int:
    return int(
        plpy.execute(
            "select (extract(epoch from clock_timestamp() - '2000-01-01 00:00:00+00'::timestamptz)"
            " * 1000000)::int8 as now"
        )[0]["now"]
    )


def binary_rows(
    set_id: int, symbol: str, ts: w.Times, computed_at: int, values: w.Floats
) -> np.ndarray[Any, Any]:
    """Rows of feature.vectors in COPY's binary format (lengths before values, big-endian)."""
    template = _template(set_id, symbol, computed_at, values.shape[1])
    out = np.empty(len(ts), dtype=template.dtype)
    _fill(out, template)
    out["ts"] = ts
    out["elements"]["value"] = values
    return out


def _template(set_id: int, symbol: str, computed_at: int, width: int) -> np.ndarray[Any, Any]:
    """A row of feature.vectors in COPY's binary format, all but its time and numbers."""
    name = symbol.encode()
    element = np.dtype([("size", ">i4"), ("value", ">f8")])
    layout = np.dtype(
        [
            ("fields", ">i2"),
            ("set_size", ">i4"), ("set_id", ">i4"),
            ("symbol_size", ">i4"), ("symbol", f"S{len(name)}"),
            ("ts_size", ">i4"), ("ts", ">i8"),
            ("at_size", ">i4"), ("at", ">i8"),
            ("array_size", ">i4"), ("dimensions", ">i4"), ("nulls", ">i4"), ("type", ">i4"),
            ("length", ">i4"), ("lower", ">i4"), ("elements", element, (width,)),
        ]
    )  # fmt: skip
    template = np.zeros(1, dtype=layout)
    for field, value in {
        "fields": 5,
        "set_size": 4,
        "set_id": set_id,
        "symbol_size": len(name),
        "symbol": name,
        "ts_size": 8,
        "at_size": 8,
        "at": computed_at,
        "array_size": 20 + 12 * width,
        "dimensions": 1,
        "type": 701,  # float8
        "length": width,
        "lower": 1,
    }.items():
        template[field] = value
    template["elements"]["size"] = 8
    return template


def _fill(rows_: np.ndarray[Any, Any], template: np.ndarray[Any, Any]) -> None:
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

    def write(self, ts: w.Times, values: w.Floats) -> None:
        """Make the file hold these vectors."""
        if len(ts) != len(self.rows):
            size = len(_HEADER) + len(ts) * self.template.itemsize
            os.ftruncate(self.handle, size)
            memory = mmap.mmap(self.handle, size)
            memory[: len(_HEADER)] = _HEADER
            self.rows = np.frombuffer(memory, dtype=self.template.dtype, offset=len(_HEADER))
            _fill(self.rows, self.template)
        self.rows["ts"] = ts
        self.rows["elements"]["value"] = values

    def close(self) -> None:
        """Give the memory back."""
        self.rows = self.template[:0]
        os.close(self.handle)


def _add(
    plpy: Any, cache: dict[str, Any], file: _File, step: int, ts: w.Times, values: w.Floats
) -> None:
    """Add vectors at ascending times, ``step`` apart where none is missing.

    Straight into the chunks where they hold many: what a COPY of the whole table could do, but that
    only a superuser may COPY a hypertable from a file. The table's triggers do not see these rows;
    what they would do is done by :func:`store`.
    """
    piece = max(1, PIECE // file.template.itemsize)
    many = len(ts) >= DIRECT and _interval(plpy, cache) >= DIRECT * step
    at, chunks = 0, None
    while at < len(ts):
        until, into = len(ts), None
        if many and until - at >= DIRECT:
            chunks = chunks or _chunks(plpy, cache)
            chunk = _holding(chunks, int(ts[at]))
            if chunk is None:
                until, chunks = at + 1, None  # this one makes the chunk
            else:
                until = int(np.searchsorted(ts, chunk["stop"]))
                if until - at >= DIRECT and not chunk["is_compressed"]:
                    into = chunk["name"]
        for begin in range(at, until, piece):
            part = slice(begin, min(begin + piece, until))
            file.write(ts[part], values[part])
            _copy(plpy, cache, file.handle, into)
        at = until


def _add_many(plpy: Any, cache: dict[str, Any], rows: list[np.ndarray[Any, Any]]) -> None:
    """Add rows in COPY's format, of each symbol in order of time, chunk by chunk."""
    times_ = [part["ts"].astype(np.int64) for part in rows]
    at = [0] * len(rows)
    chunks = _chunks(plpy, cache)
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
                _copy_parts(plpy, cache, handle, parts)
                chunks = _chunks(plpy, cache)
            elif many and not into["is_compressed"]:
                _copy_parts(plpy, cache, handle, parts, into["name"])
            else:
                few += parts
        if few:
            _copy_parts(plpy, cache, handle, few)
    finally:
        os.close(handle)


def _copy_parts(
    plpy: Any, cache: dict[str, Any], handle: int, parts: list[bytes], chunk: str | None = None
) -> None:
    os.lseek(handle, 0, os.SEEK_SET)
    with open(handle, "wb", closefd=False) as file:
        file.write(_HEADER)
        file.writelines(parts)
        file.truncate()  # its memory is written over, not given back and taken anew
    _copy(plpy, cache, handle, chunk)


_MICROSECONDS = "(extract(epoch from {} - '2000-01-01 00:00:00+00'::timestamptz) * 1000000)::int8"


def _interval(plpy: Any, cache: dict[str, Any]) -> int:
    """Length of a new chunk of feature.vectors in microseconds."""
    plans = cache.setdefault("alphaplus.plans", {})
    if "chunk interval" not in plans:
        plans["chunk interval"] = plpy.prepare(
            "select (extract(epoch from d.time_interval) * 1000000)::int8 as width"
            " from timescaledb_information.dimensions d"
            " where d.hypertable_schema = 'feature' and d.hypertable_name = 'vectors'"
        )
    return int(plpy.execute(plans["chunk interval"])[0]["width"])


def _chunks(plpy: Any, cache: dict[str, Any]) -> Any:
    """The chunks of feature.vectors: name, start, stop, is_compressed."""
    plans = cache.setdefault("alphaplus.plans", {})
    if "chunks" not in plans:
        plans["chunks"] = plpy.prepare(
            "select format('%I.%I', c.chunk_schema, c.chunk_name) as name, c.is_compressed,"
            f" {_MICROSECONDS.format('c.range_start')} as start,"
            f" {_MICROSECONDS.format('c.range_end')} as stop"
            " from timescaledb_information.chunks c"
            " where c.hypertable_schema = 'feature' and c.hypertable_name = 'vectors'"
        )
    return plpy.execute(plans["chunks"])


def _holding(chunks: Any, time: int) -> Any:
    """The chunk that holds a time; None: there is none yet."""
    return next((chunk for chunk in chunks if chunk["start"] <= time < chunk["stop"]), None)


def _hold(plpy: Any, set_id: int) -> None:
    """Hold the set's row to the end of the transaction, as a foreign key would for each vector."""
    held = plpy.prepare("select from feature.sets s where s.set_id = $1 for key share", ["int4"])
    if len(plpy.execute(held, [set_id])) == 0:
        plpy.error(
            f"feature set {set_id} is gone",
            sqlstate="AP202",
            hint="It was dropped meanwhile: select name, version from feature.sets",
        )


def _unpack(
    plpy: Any, cache: dict[str, Any], set_id: int, symbol: str, span: tuple[int, int]
) -> None:
    """Delete the blocks of a stretch, as a trigger does for vectors that go in by the table. Who
    stores holds the lock that who packs takes: see feature.materialise."""
    plans = cache.setdefault("alphaplus.plans", {})
    if "unpack" not in plans:
        plans["unpack"] = plpy.prepare(
            "delete from feature.vector_blocks b where b.set_id = $1 and b.symbol = $2"
            " and b.ts_from < to_timestamp($4) and b.ts_to > to_timestamp($3)",
            ["int4", "text", "float8", "float8"],
        )
    plpy.execute(plans["unpack"], [set_id, symbol, *(t / w.SECOND + w.EPOCH for t in span)])


def _copy(plpy: Any, cache: dict[str, Any], handle: int, chunk: str | None = None) -> None:
    """The vectors that a file of memory holds, into a chunk of feature.vectors or into the table,
    then by way of a temporary one."""
    plans = cache.setdefault("alphaplus.plans", {})
    if "copy" not in plans:
        plans["copy"] = plpy.prepare(
            "select feature._copy_vectors($1, $2::regclass)", ["int4", "text"]
        )
    if chunk is not None:
        plpy.execute(plans["copy"], [handle, chunk])
        return
    made = plpy.execute("select pg_catalog.to_regclass('pg_temp._vectors') is null as missing")
    if made[0]["missing"]:
        plpy.execute(
            "create temporary table _vectors (set_id int4, symbol text,"
            " ts timestamptz, computed_at timestamptz, values float8[]) on commit delete rows"
        )
        plpy.execute("grant insert on pg_temp._vectors to alphaplus_copy")
    plpy.execute(plans["copy"], [handle, "pg_temp._vectors"])
    plpy.execute(
        "insert into feature.vectors (set_id, symbol, ts, computed_at, values)"
        " select set_id, symbol, ts, computed_at, values from pg_temp._vectors"
    )
    plpy.execute("truncate pg_temp._vectors")


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
    ours = plpy.execute(
        plpy.prepare(
            "select from pg_catalog.pg_class c where c.oid = $1::regclass"
            " and c.relowner = 'alphaplus_owner'::regrole",
            ["text"],
        ),
        [into],
    )
    if target != f"/memfd:{MEMORY} (deleted)" or len(ours) != 1:
        plpy.error(
            "vectors are copied from memory only, into tables of the owner",
            sqlstate="AP720",
            hint="feature.materialise stores vectors.",
        )
    columns = "(set_id, symbol, ts, computed_at, values)"
    plpy.execute(f"copy {into} {columns} from '/proc/self/fd/{handle:d}' (format binary)")
