"""Training sets, from the database into numpy without a Python object per value."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import psycopg
from alphaplus.trainer.models.base import TrainingError
from numpy.typing import NDArray
from psycopg import sql

Array = NDArray[np.float64]
Times = NDArray[np.int64]

SLICE_BYTES = 128 << 20  # of a set's features, at once
# What ml._training_bytes counts of the rows that noise filtering drops; a row may have several.
DROPPED = ("hampel", "bad_tick", "volume", "spread", "gap", "any")
LARGE = 16 << 20  # worth a second reader
READERS = 4


@dataclass(frozen=True)
class Matrix:
    """A training set.

    Attributes:
        ts: (n,) µs since 1970, the times at which the features are known.
        label_end: (n,) µs since 1970, when the label's interval ends.
        x: (n, features) float64, NaN where a feature is not knowable.
        y: (n,) float64 target.
        sha256: as ``ml.training_matrix`` gives it, to prove that the set can be made again.
        symbols: (n,) number of each row's symbol; empty: all of one.
        dropped: rows that noise filtering left out of it, by reason and in all; empty: not asked.
    """

    ts: Times
    label_end: Times
    x: Array
    y: Array
    sha256: bytes
    symbols: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    dropped: dict[str, int] = field(default_factory=dict)

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
            self.symbol[chosen], self.dropped,
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


def instant(text: str) -> int:
    """µs since 1970 of a time as PostgreSQL writes it, in whatever zone."""
    return (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(
        microseconds=1
    )


def read_matrix(
    connect: Callable[[], psycopg.Connection[Any]],
    job_id: int,
    lease: str,
    features: int,
    slice_bytes: int = SLICE_BYTES,
    readers: int | None = None,
    limit: float = math.inf,
) -> Matrix:
    """Read a job's set (``ml._job_matrix``), in slices of time where it is large.

    Args:
        connect: opens a connection; slices are read over several at once, all from one snapshot.
        features: columns of x.
        slice_bytes: of features in a slice, at most.
        limit: bytes of features, at most.
        readers: connections at most; None: the cores of this machine, up to :data:`READERS`.

    Raises:
        psycopg.Error: AP311 when the lease is lost; whatever else the server says.
    """
    with connect() as conn, conn.transaction():
        conn.execute("set transaction isolation level repeatable read")
        row = conn.execute(
            "select first_ts, stop_ts, row_count, pg_export_snapshot() from ml._job_span(%s, %s)",
            (job_id, lease),
        ).fetchone()
        assert row is not None
        first, stop, count, snapshot = row
        size = (count or 0) * max(features, 1) * 8
        if size > limit:
            raise TrainingError(
                f"a set of up to {count} rows is larger than {limit:g} bytes (setting"
                " training.max_bytes): give a lookback"
            )
        readers = readers or min(READERS, os.cpu_count() or 1)
        slices = max(math.ceil(size / slice_bytes), min(readers, size // LARGE))
        if slices <= 1:
            return _join([_slice(conn, job_id, lease, (None, None))], features)
        edges = [first + (stop - first) * i / slices for i in range(slices)]
        spans = list(zip(edges, [*edges[1:], None], strict=True))
        parts: dict[int, _Part] = {}
        waiting = iter(range(slices))

        def work(conn: psycopg.Connection[Any]) -> None:
            for number in waiting:
                parts[number] = _slice(conn, job_id, lease, spans[number])

        def helper() -> None:
            with connect() as other, other.transaction():
                other.execute("set transaction isolation level repeatable read")
                other.execute(sql.SQL("set transaction snapshot {}").format(sql.Literal(snapshot)))
                work(other)

        with ThreadPoolExecutor(max(1, readers - 1)) as pool:
            helpers = [pool.submit(helper) for _ in range(min(readers, slices) - 1)]
            work(conn)
            for one in helpers:
                one.result()
    return _join([parts[number] for number in range(slices)], features)


class _Part(NamedTuple):
    ts: Times
    label_end: Times
    y: Array
    symbols: NDArray[np.int32]
    x: Array
    dropped: list[int]


def _slice(
    conn: psycopg.Connection[Any],
    job_id: int,
    lease: str,
    span: tuple[datetime | None, datetime | None],
) -> _Part:
    with conn.cursor(binary=True) as cursor:
        row = cursor.execute(
            "select ml._job_matrix(%s, %s, %s, %s)", (job_id, lease, *span)
        ).fetchone()
    assert row is not None
    n, k = np.frombuffer(row[0], dtype="<i8", count=2).tolist()
    arrays = []
    at = 16
    for kind, count in (("<i8", n), ("<i8", n), ("<f8", n), ("<i4", n), ("<f8", n * k)):
        arrays.append(np.frombuffer(row[0], dtype=kind, count=count, offset=at))
        at += arrays[-1].nbytes
    ts, label_end, y, symbols, x = arrays
    dropped = np.frombuffer(row[0], dtype="<i8", offset=at).tolist() if len(row[0]) > at else []
    return _Part(ts, label_end, y, symbols, x.reshape(n, k), dropped)


def _join(parts: list[_Part], features: int) -> Matrix:
    """One matrix; takes the parts from the list, so that their memory is free as it fills."""
    n = sum(len(part.ts) for part in parts)
    ts, label_end = np.empty((2, n), dtype=np.int64)
    symbols = np.empty(n, dtype=np.int64)
    y, x = np.empty(n), np.empty((n, features))
    counts = [part.dropped for part in parts if part.dropped]
    dropped = dict(zip(DROPPED, map(sum, zip(*counts, strict=True)), strict=True)) if counts else {}
    at = 0
    while parts:
        part = parts.pop(0)
        rows = slice(at, at + len(part.ts))
        ts[rows], label_end[rows], y[rows], symbols[rows] = part[:4]
        if len(part.ts):
            x[rows] = part.x
        at = rows.stop
    digest = hashlib.sha256()
    for array in (ts, label_end, y, x):
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).data)
    return Matrix(ts, label_end, x, y, digest.digest(), symbols, dropped)


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
