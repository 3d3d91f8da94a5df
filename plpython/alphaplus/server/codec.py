"""float8[] and timestamptz[] into numpy, from ``array_send``'s bytes or their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


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


def known(values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """(n,) which rows of (n, k) hold a number: most show one in the first column."""
    found: npt.NDArray[np.bool_] = np.isfinite(values[:, 0])
    others = np.flatnonzero(~found)
    if len(others) and values.shape[1] > 1:
        found[others] = np.isfinite(values[others, 1:]).any(axis=1)
    return found
