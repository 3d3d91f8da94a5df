"""Training sets, from the database into numpy without a Python object per value."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

Array = NDArray[np.float64]
Times = NDArray[np.int64]

# PostgreSQL counts microseconds from here in its binary formats.
_PG_EPOCH = int(datetime(2000, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
_NULL = 0xFFFFFFFF
SLICE_BYTES = 256 << 20  # of a set, at once


@dataclass(frozen=True)
class Matrix:
    """A training set.

    Attributes:
        ts: (n,) µs since 1970, the times at which the features are known.
        label_end: (n,) µs since 1970, when the label's interval ends.
        x: (n, features) float64, NaN where a feature is not knowable.
        y: (n,) float64 target.
        sha256: of the set's bytes, to prove that it can be made again.
        symbols: (n,) number of each row's symbol; empty: all of one.
    """

    ts: Times
    label_end: Times
    x: Array
    y: Array
    sha256: bytes
    symbols: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.ts)

    @property
    def symbol(self) -> NDArray[np.int64]:
        """(n,) number of each row's symbol."""
        return self.symbols if len(self.symbols) else np.zeros(len(self.ts), dtype=np.int64)

    def take(self, chosen: NDArray[np.bool_]) -> Matrix:
        """The chosen rows."""
        return Matrix(
            self.ts[chosen], self.label_end[chosen], self.x[chosen], self.y[chosen], self.sha256,
            self.symbol[chosen],
        )  # fmt: skip


@dataclass(frozen=True)
class Fold:
    """Times of one walk-forward fold, µs since 1970.

    A row trains when train_from <= ts and label_end <= train_to; it tests when test_from <= ts <
    test_to.
    """

    fold: int
    train_from: int
    train_to: int
    test_from: int
    test_to: int


def moment(at: int) -> datetime:
    """The time of µs since 1970."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(at))


def read_matrix(
    conn: psycopg.Connection[Any],
    job_id: int,
    lease: str,
    features: int = 0,
    slice_bytes: int = SLICE_BYTES,
) -> Matrix:
    """Read a job's set by columns (``ml._job_matrix``), in slices of time where it is large.

    The digest of a set read in slices is that of their digests.
    """
    import hashlib

    row = conn.execute(
        "select first_ts, stop_ts, row_count from ml._job_span(%s, %s)", (job_id, lease)
    ).fetchone()
    first, stop, count = row or (None, None, 0)
    slices = math.ceil((count or 0) * max(features, 1) * 8 / slice_bytes)
    if slices <= 1:
        return _slice(conn, job_id, lease, None, None)
    assert first is not None and stop is not None
    edges = [first + (stop - first) * i / slices for i in range(slices)]
    ends = [*edges[1:], None]
    parts = [_slice(conn, job_id, lease, *span) for span in zip(edges, ends, strict=True)]
    x = np.empty((sum(map(len, parts)), features), dtype=np.float64)
    at = 0
    for part in parts:
        x[at : at + len(part)] = part.x
        at += len(part)
    return Matrix(
        np.concatenate([part.ts for part in parts]),
        np.concatenate([part.label_end for part in parts]),
        x,
        np.concatenate([part.y for part in parts]),
        hashlib.sha256(b"".join(part.sha256 for part in parts)).digest(),
        np.concatenate([part.symbol for part in parts]),
    )


def _slice(
    conn: psycopg.Connection[Any],
    job_id: int,
    lease: str,
    start: datetime | None,
    stop: datetime | None,
) -> Matrix:
    with conn.cursor(binary=True) as cursor:
        row = cursor.execute(
            "select n, ts, label_end, target, columns, sha256, symbols"
            " from ml._job_matrix(%s, %s, %s, %s)",
            (job_id, lease, start, stop),
        ).fetchone()
    assert row is not None
    n, ts, label_end, target, columns, digest, symbols = row
    x = np.empty((n, len(columns or ())), dtype=np.float64)
    # Some rows at a time: writing a whole column of a wide matrix would touch all of its pages.
    views = [np.frombuffer(column, dtype=">f8") for column in columns or ()]
    for begin in range(0, n, 4096):
        for number, view in enumerate(views):
            x[begin : begin + 4096, number] = view[begin : begin + 4096]
    return Matrix(
        ts=np.frombuffer(ts or b"", dtype=">i8").astype(np.int64),
        label_end=np.frombuffer(label_end or b"", dtype=">i8").astype(np.int64),
        x=x,
        y=np.frombuffer(target or b"", dtype=">f8").astype(np.float64),
        sha256=bytes(digest or b""),
        symbols=np.frombuffer(symbols or b"", dtype=">i4").astype(np.int64),
    )


def read_copy(conn: psycopg.Connection[Any], job_id: int, lease: str, features: int) -> Matrix:
    """Read a job's set as a binary COPY (``ml._job_rows``), of any size.

    The digest is over the bytes of ts, label_end, target and x, so it is comparable only with
    other sets read this way.
    """
    import hashlib

    statement = sql.SQL(
        "copy (select ts, label_end, target, features, dense_rank() over (order by symbol)"
        " from ml._job_rows({}, {}) order by ts, symbol) to stdout (format binary)"
    ).format(sql.Literal(job_id), sql.Literal(lease))
    buffer = bytearray()
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        for block in copy:
            buffer += block
    ts, label_end, y, x, symbols = parse_copy(buffer, features)
    digest = hashlib.sha256()
    for part in (ts, label_end, y, x):
        digest.update(np.ascontiguousarray(part).tobytes())
    return Matrix(ts, label_end, x, y, digest.digest(), symbols)


def parse_copy(data: bytes | bytearray, features: int) -> tuple[Times, Times, Array, Array, Times]:
    """Decode a binary COPY of (timestamptz, timestamptz, float8, float8[features], int8).

    Rows without a null have one length and are decoded as one array; the others one by one.
    """
    (extension,) = struct.unpack_from("!i", data, 15)
    at = 19 + extension
    full = np.dtype(
        [
            ("fields", ">i2"),
            ("ts_length", ">i4"),
            ("ts", ">i8"),
            ("end_length", ">i4"),
            ("label_end", ">i8"),
            ("y_length", ">i4"),
            ("y", ">f8"),
            ("x_length", ">i4"),
            ("ndim", ">i4"),
            ("flags", ">i4"),
            ("oid", ">i4"),
            ("dim", ">i4"),
            ("bound", ">i4"),
            ("x", [("length", ">i4"), ("value", ">f8")], (features,)),
            ("symbol_length", ">i4"),
            ("symbol", ">i8"),
        ]
    )
    if (len(data) - at - 2) % full.itemsize == 0:
        rows = np.frombuffer(
            data, dtype=full, offset=at, count=(len(data) - at - 2) // full.itemsize
        )
        if bool((rows["x"]["length"] == 8).all()) and bool((rows["fields"] == 5).all()):
            return (
                rows["ts"].astype(np.int64) + _PG_EPOCH,
                rows["label_end"].astype(np.int64) + _PG_EPOCH,
                rows["y"].astype(np.float64),
                rows["x"]["value"].astype(np.float64),
                rows["symbol"].astype(np.int64),
            )
    ts: list[int] = []
    ends: list[int] = []
    ys: list[float] = []
    xs: list[Array] = []
    symbols: list[int] = []
    head = struct.Struct("!hiqiqid")
    while struct.unpack_from("!h", data, at) != (-1,):
        _, _, t, _, end, _, y = head.unpack_from(data, at)
        at += head.size + 4 + 20
        row = np.full(features, np.nan)
        for number in range(features):
            (length,) = struct.unpack_from("!I", data, at)
            at += 4
            if length != _NULL:
                (row[number],) = struct.unpack_from("!d", data, at)
                at += 8
        ts.append(t + _PG_EPOCH)
        ends.append(end + _PG_EPOCH)
        ys.append(y)
        xs.append(row)
        symbols.append(struct.unpack_from("!iq", data, at)[1])
        at += 12
    return (
        np.array(ts, dtype=np.int64),
        np.array(ends, dtype=np.int64),
        np.array(ys, dtype=np.float64),
        np.vstack(xs) if xs else np.empty((0, features)),
        np.array(symbols, dtype=np.int64),
    )


def read_folds(
    conn: psycopg.Connection[Any], job_id: int, lease: str, matrix: Matrix
) -> list[Fold]:
    """The walk-forward folds of a job's rows (``ml._job_folds``)."""
    rows = conn.execute(
        "select fold, train_from, train_to, test_from, test_to"
        " from ml._job_folds(%s, %s::uuid, %b, %b) order by fold",
        (
            job_id,
            lease,
            matrix.ts.astype(">i8").tobytes(),
            matrix.label_end.astype(">i8").tobytes(),
        ),
    )
    return [Fold(*row) for row in rows]
