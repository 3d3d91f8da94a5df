"""Blocks of numbers from PostgreSQL into numpy: every encoding, each with its decoder.

* columns as ``timestamptz_send`` and ``float8send`` write them (:func:`times`, :func:`floats`);
* arrays as ``array_send`` writes them (:func:`elements`, :func:`rows`, :func:`arrays`);
* arrays as they lie in memory, by ``feature._bytes`` (:func:`vectors`): quicker, for hot paths;
* records of eight-byte values as ``record_send`` writes them (:func:`records`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from alphaplus.server.types import Floats, Mask, Times


def elements(raw: bytes, kind: str) -> Any:
    """(n,) the values, each of ``kind`` (">f8", ">i8"), of one array without nulls."""
    element = np.dtype([("size", ">i4"), ("value", kind)])
    return np.frombuffer(raw, dtype=element, offset=20)["value"]


def rows(raw: bytes, width: int) -> Any:
    """(n, width) of n float8 arrays, one after the other as ``array_send`` writes them.

    Raises:
        ValueError: they have another length, or nulls.
    """
    element = [("size", ">i4"), ("value", ">f8")]
    return _rows(raw, width, ">i4", ("elements", element, (width,)))["elements"]["value"]


def vectors(raw: bytes, width: int) -> Any:
    """(n, width) of n float8 arrays, one after the other as ``feature._bytes(…, 1)`` gives them.

    Raises:
        ValueError: they have another length, or nulls.
    """
    return _rows(raw, width, "<i4", ("elements", "<f8", (width,)))["elements"]


def _rows(raw: bytes, width: int, number: str, elements: Any) -> Any:
    header = ("dimensions", "nulls", "kind", "length", "lower")
    row = np.dtype([*((name, number) for name in header), elements])
    found = np.frombuffer(raw, dtype=row, count=len(raw) // row.itemsize)
    if len(raw) % row.itemsize or (found["length"] != width).any() or found["nulls"].any():
        raise ValueError(f"not all of the arrays hold {width} values without nulls")
    return found


def known(values: Floats) -> Mask:
    """(n,) which rows of (n, k) hold a number: most show one in the first column."""
    found: Mask = np.isfinite(values[:, 0])
    others = np.flatnonzero(~found)
    if len(others) and values.shape[1] > 1:
        found[others] = np.isfinite(values[others, 1:]).any(axis=1)
    return found


def times(raw: bytes | None) -> Times:
    """Microseconds from concatenated ``timestamptz_send``; infinity is NEVER there already."""
    return np.frombuffer(raw or b"", dtype=">i8").astype(np.int64)


def floats(raw: bytes | None) -> Floats:
    """Native float64 from concatenated big-endian float8."""
    return np.frombuffer(raw or b"", dtype=">f8").astype(np.float64)


def sent_integers(raw: bytes | None) -> Times:
    """Values of a bigint[] as ``array_send`` writes it; no nulls."""
    if not raw or len(raw) <= 20:
        return np.zeros(0, np.int64)
    return np.frombuffer(raw[20:], [("n", ">i4"), ("v", ">i8")])["v"].astype(np.int64)


def sent_floats(raw: bytes | None) -> Floats:
    """Values of a double precision[] as ``array_send`` writes it; no nulls."""
    if not raw or len(raw) <= 20:
        return np.zeros(0)
    return np.frombuffer(raw[20:], [("n", ">i4"), ("v", ">f8")])["v"].astype(np.float64)


def arrays(raw: bytes | None, count: int, width: int) -> Floats:
    """Arrays (as ``array_send`` writes float8[]) as rows of ``width``, cut or padded with NaN."""
    out = np.full((count, width), np.nan)
    buffer = raw or b""
    at = 0
    element = np.dtype([("size", ">i4"), ("value", ">f8")])
    if count and len(buffer) >= 20 and len(buffer) % count == 0:
        # All of one length, as most books are: one view of the whole.
        length = int.from_bytes(buffer[12:16], "big")
        header = [("dimensions", ">i4"), ("nulls", ">i4"), ("type", ">i4"), ("length", ">i4")]
        layout = np.dtype([*header, ("lower", ">i4"), ("elements", element, (length,))])
        if layout.itemsize * count == len(buffer):
            rows = np.frombuffer(buffer, dtype=layout)
            if (
                (rows["dimensions"] == 1).all()
                and (rows["length"] == length).all()
                and (rows["elements"]["size"] == 8).all()
            ):
                out[:, : min(length, width)] = rows["elements"]["value"][:, :width]
                return out
    for i in range(count):
        dimensions = int.from_bytes(buffer[at : at + 4], "big")
        if dimensions == 0:
            at += 12
            continue
        length = int.from_bytes(buffer[at + 12 : at + 16], "big")
        values = np.frombuffer(buffer, dtype=element, count=length, offset=at + 20)["value"]
        out[i, : min(length, width)] = values[:width]
        at += 20 + 12 * length
    return out


def records(columns: Iterable[tuple[str, str]]) -> np.dtype[Any]:
    """How ``record_send`` writes a row of eight-byte values, each of its kind (">i8", ">f8")."""
    head = [("type", ">i4"), ("size", ">i4")]
    return np.dtype([("fields", ">i4"), *((n, [*head, ("value", kind)]) for n, kind in columns)])
