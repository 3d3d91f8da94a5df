"""Binary COPY from numpy columns: rows are laid out by one structured array, not one by one.

Source: PostgreSQL documentation, COPY, "Binary Format".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg import sql

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
FLOAT8_OID = 701


@dataclass(frozen=True)
class Text:
    """The same text in every row, or (n,) fixed-width bytes (``S`` dtype without padding)."""

    value: str | npt.NDArray[np.bytes_]


@dataclass(frozen=True)
class Interval:
    """The same interval in every row, in microseconds."""

    micros: int


Column = npt.NDArray[Any] | Text | Interval | None


def rows(columns: Sequence[Column], n: int) -> bytes:
    """``n`` rows as COPY wants them, without header and trailer.

    int64 and float64 (n,) become int8/timestamptz (microseconds since 2000-01-01 UTC) and float8,
    float64 (n, k) becomes float8[k], bool boolean, :class:`Text` text or an enum,
    :class:`Interval` interval, None null.
    """
    fields: list[tuple[str, Any]] = [("fields", ">i2")]
    values: dict[str, Any] = {"fields": len(columns)}
    for i, column in enumerate(columns):
        size, value = f"size{i}", f"value{i}"
        fields.append((size, ">i4"))
        if column is None:
            values[size] = -1
        elif isinstance(column, Text):
            data = (
                np.array(column.value.encode()) if isinstance(column.value, str) else column.value
            )
            width = data.dtype.itemsize
            fields.append((value, f"S{width}"))
            values[size], values[value] = width, data
        elif isinstance(column, Interval):
            fields.append((value, "V16"))
            values[size] = 16
            values[value] = np.void(column.micros.to_bytes(8, "big", signed=True) + bytes(8))
        elif column.ndim == 2:
            k = column.shape[1]
            head = np.array([1, 0, FLOAT8_OID, k, 1], dtype=">i4").tobytes()
            fields.append((f"head{i}", f"V{len(head)}"))
            fields.append((value, [("size", ">i4"), ("value", ">f8")], (k,)))  # type: ignore[arg-type]
            values[size] = len(head) + 12 * k
            values[f"head{i}"] = np.void(head)
            values[value] = column
        else:
            kind = {"f": ">f8", "i": ">i8", "b": "?"}[column.dtype.kind]
            fields.append((value, kind))
            values[size], values[value] = np.dtype(kind).itemsize, column
    out = np.zeros(n, dtype=fields)
    for name, content in values.items():
        if out.dtype[name].subdtype is not None:
            out[name]["size"] = 8
            out[name]["value"] = content
        else:
            out[name] = content
    return out.tobytes()


def copy(
    conn: psycopg.Connection[Any],
    table: str,
    names: Sequence[str],
    batches: Sequence[tuple[Mapping[str, Column], int]],
) -> int:
    """COPY batches of columns into ``schema.table``; returns the number of rows."""
    statement = sql.SQL("copy {} ({}) from stdin (format binary)").format(
        sql.Identifier(*table.split(".")), sql.SQL(", ").join(map(sql.Identifier, names))
    )
    count = 0
    with conn.cursor() as cursor, cursor.copy(statement) as stream:
        stream.write(HEADER)
        for columns, n in batches:
            if n:
                stream.write(rows([columns.get(name) for name in names], n))
                count += n
        stream.write(TRAILER)
    return count
