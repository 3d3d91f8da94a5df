"""PostgreSQL's binary COPY from numpy columns: rows laid out by one structured array.

Shared by the rooms that write rows, the loaders and the server; it imports neither.

Source: PostgreSQL documentation, COPY, "Binary Format".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
FLOAT8_OID = 701


@dataclass(frozen=True)
class Text:
    """The same text in every row, or (n,) bytes (``S`` dtype, shorter ones padded with NUL)."""

    value: str | npt.NDArray[np.bytes_]


@dataclass(frozen=True)
class Interval:
    """The same interval in every row, or (n,) intervals (may be masked), in microseconds.

    ``months``: calendar months on top of them, in every row.
    """

    micros: int | npt.NDArray[np.int64]
    months: int = 0


@dataclass(frozen=True)
class Ragged:
    """float64 (n, k): rows of at most k numbers, NaN after a row's last one."""

    value: npt.NDArray[np.float64]


Column = npt.NDArray[Any] | Text | Interval | Ragged | None


def rows(columns: Sequence[Column], n: int) -> bytes:
    """``n`` rows as COPY wants them, without header and trailer; columns as of :func:`table`."""
    out, used = _filled(columns, n)
    if not used:
        return out.tobytes()
    flat = out.view(np.uint8).reshape(n, out.dtype.itemsize)
    keep = np.ones(flat.shape, dtype=bool)
    for name, lengths in used.items():
        kind_, offset = out.dtype.fields[name][:2]  # type: ignore[index]
        keep[:, offset : offset + kind_.itemsize] = np.arange(kind_.itemsize) < lengths[:, None]
    return flat[keep].tobytes()


def table(columns: Sequence[Column], n: int) -> npt.NDArray[Any]:
    """``n`` rows as COPY wants them, to be filled in again: the i-th column is the field value{i}
    (of an array value{i}["value"]).

    Columns: int32, int64 and float64 (n,) become int4, int8/timestamptz (microseconds since
    2000-01-01 UTC) and float8, float64 (n, k) becomes float8[k], :class:`Ragged` float8[] of up to
    k, bool boolean, :class:`Text` text or an enum, :class:`Interval` interval, None null. A masked
    array's masked values become null.

    Raises:
        ValueError: rows of different lengths.
    """
    out, used = _filled(columns, n)
    if used:
        raise ValueError("rows of different lengths are no table")
    return out


def _filled(
    columns: Sequence[Column], n: int
) -> tuple[npt.NDArray[Any], dict[str, npt.NDArray[np.int64]]]:
    """The rows, and of fields that are not wholly used in every row the bytes that are."""
    fields: list[tuple[str, Any]] = [("fields", ">i2")]
    values: dict[str, Any] = {"fields": len(columns)}
    used: dict[str, npt.NDArray[np.int64]] = {}  # bytes used of a field, where rows differ
    for i, column in enumerate(columns):
        size, value = f"size{i}", f"value{i}"
        fields.append((size, ">i4"))
        if column is None:
            values[size] = -1
        elif isinstance(column, Text):
            data = (
                np.array(column.value.encode()) if isinstance(column.value, str) else column.value
            )
            width = max(data.dtype.itemsize, 1)
            fields.append((value, f"S{width}"))
            values[size], values[value] = width, data
            if data.ndim:
                lengths = np.char.str_len(data).astype(np.int64)
                if (lengths != width).any():
                    values[size] = used[value] = lengths
        elif isinstance(column, Interval):
            fields.append((value, [("micros", ">i8"), ("days", ">i4"), ("months", ">i4")]))
            values[size], values[value] = 16, _interval(column.micros, column.months)
            _leave_out(column.micros, 16, size, value, values, used)
        elif isinstance(column, Ragged) or column.ndim == 2:
            array = column.value if isinstance(column, Ragged) else column
            k = array.shape[1]
            count = np.full(n, k)
            if isinstance(column, Ragged):
                count = np.isfinite(array).sum(axis=1)
            fields.append((f"head{i}", ">i4", (5,)))  # type: ignore[arg-type]
            fields.append((value, [("size", ">i4"), ("value", ">f8")], (k,)))  # type: ignore[arg-type]
            head = np.tile(np.array([1, 0, FLOAT8_OID, k, 1]), (n, 1))
            head[:, 3] = count
            values[size] = 20 + 12 * count
            values[f"head{i}"], values[value] = head, array
            if (count != k).any():
                used[value] = 12 * count
        else:
            kind = {"f": ">f8", "i": ">i8", "b": "?"}[column.dtype.kind]
            kind = ">i4" if column.dtype == np.int32 else kind
            fields.append((value, kind))
            width = np.dtype(kind).itemsize
            values[size], values[value] = width, np.ma.getdata(column)
            _leave_out(column, width, size, value, values, used)
    out = np.zeros(n, dtype=fields)
    for name, content in values.items():
        if out.dtype[name].names == ("size", "value") or out.dtype[name].base.names == (
            "size",
            "value",
        ):
            out[name]["size"] = 8
            out[name]["value"] = content
        else:
            out[name] = content
    return out, used


def _interval(micros: Any, months: int = 0) -> npt.NDArray[Any]:
    """Intervals as PostgreSQL sends them: whole days as days."""
    value = np.ma.getdata(micros)
    day = 86_400_000_000
    whole = value % day == 0
    out = np.zeros(np.shape(value), dtype=[("micros", ">i8"), ("days", ">i4"), ("months", ">i4")])
    out["micros"] = np.where(whole, 0, value)
    out["days"] = np.where(whole, value // day, 0)
    out["months"] = months
    return out


def _leave_out(
    column: Any,
    width: int,
    size: str,
    value: str,
    values: dict[str, Any],
    used: dict[str, npt.NDArray[np.int64]],
) -> None:
    """Masked values become null: size -1 and no bytes."""
    mask = np.ma.getmaskarray(column) if np.ma.isMaskedArray(column) else None
    if mask is not None and mask.any():
        values[size] = np.where(mask, -1, width)
        used[value] = np.where(mask, 0, width)
