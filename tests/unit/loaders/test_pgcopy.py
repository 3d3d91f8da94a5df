"""Binary COPY, byte by byte, against rows written one at a time."""

from __future__ import annotations

import struct

import numpy as np
from alphaplus.pgbinary import FLOAT8_OID, Interval, Ragged, Text, rows


def field(data: bytes | None) -> bytes:
    return struct.pack(">i", -1) if data is None else struct.pack(">i", len(data)) + data


def array(values: list[float]) -> bytes:
    out = struct.pack(">5i", 1, 0, FLOAT8_OID, len(values), 1)
    return out + b"".join(field(struct.pack(">d", value)) for value in values)


def test_rows_are_those_written_one_at_a_time() -> None:
    nan = float("nan")
    texts = [b"a", b"", b"ccc"]
    numbers = [1.5, None, 3.0]
    levels = [[1.0, 2.0], [3.0], []]
    ids = [7, 8, None]
    lengths = [(60_000_000, 0), (0, 2), None]
    got = rows(
        [
            Text(np.array(texts)),
            np.ma.masked_invalid([1.5, nan, 3.0]),
            Ragged(np.array([[1.0, 2.0], [3.0, nan], [nan, nan]])),
            np.array([[1.0, nan]] * 3),
            np.ma.masked_array([7, 8, 0], [False, False, True]),
            Interval(np.ma.masked_array([60_000_000, 2 * 86_400_000_000, 0], [False, False, True])),
            Text("sell"),
            None,
            np.array([True, False, True]),
        ],
        3,
    )
    want = b""
    for i in range(3):
        number, key, length = numbers[i], ids[i], lengths[i]
        want += struct.pack(">h", 9)
        want += field(texts[i])
        want += field(None if number is None else struct.pack(">d", number))
        want += field(array(levels[i])) + field(array([1.0, nan]))
        want += field(None if key is None else struct.pack(">q", key))
        want += field(None if length is None else struct.pack(">qii", *length, 0))
        want += field(b"sell") + field(None) + field(bytes([i != 1]))
    assert got == want
