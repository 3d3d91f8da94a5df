"""Blocks into their tables: a binary COPY from memory.

PL/Python would turn every number of an array into text and back.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from alphaplus.server.regime import bars as b
from alphaplus.server.regime import hindsight, nowcast
from alphaplus.server.regime.states import STATES, Times

_MEMORY = "alphaplus-regimes"
_EPOCH = 946_684_800_000_000
_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_DAY = 86_400_000_000
_TIMESTAMPTZ, _INT2, _FLOAT8 = 1184, 21, 701


def _field(content: bytes) -> bytes:
    return struct.pack(">i", len(content)) + content


def _time(us: int) -> bytes:
    return _field(struct.pack(">q", us if us == b.NEVER else us - _EPOCH))


def _interval(us: int) -> bytes:
    days, rest = divmod(us, _DAY)
    return _field(struct.pack(">qii", rest, days, 0))


def _array(values: Any, kind: str, oid: int) -> bytes:
    count = len(values)
    if not count:
        return _field(struct.pack(">iii", 0, 0, oid))
    out = np.empty(count, dtype=[("size", ">i4"), ("value", kind)])
    out["size"] = np.dtype(kind).itemsize
    out["value"] = values
    return _field(struct.pack(">iiiii", 1, 0, oid, count, 1) + out.tobytes())


def _times(us: Times) -> bytes:
    return _array(np.where(us == b.NEVER, us, us - _EPOCH), ">i8", _TIMESTAMPTZ)


_COLUMNS = (
    "symbol, timeframe, version, verdict_version, block_start, through, bar_count, ts, known_at,"
    f" states, since, {', '.join(STATES)}, verdicts, verdict_known_at, changes, carry"
)


def copy_from_memory(plpy: Any, handle: int) -> None:
    """``regime._copy_blocks``: a binary COPY into regime.blocks from this backend's own memory.

    Raises (SQLSTATE): AP612 the file is another one.
    """
    try:
        target = str(Path(f"/proc/self/fd/{handle:d}").readlink())
    except (OSError, TypeError, ValueError):
        target = ""
    if target != f"/memfd:{_MEMORY} (deleted)":
        plpy.error(
            "regimes are copied from memory only",
            sqlstate="AP612",
            hint="regime.refresh stores regimes.",
        )
    plpy.execute(f"copy regime.blocks ({_COLUMNS}) from '/proc/self/fd/{handle:d}' (format binary)")


def _copy(plpy: Any, rows: Sequence[bytes]) -> None:
    if not rows:
        return
    handle = os.memfd_create(_MEMORY)
    try:
        with os.fdopen(os.dup(handle), "wb") as file:
            file.write(_HEADER + b"".join(rows) + struct.pack(">h", -1))
        plan = plpy.prepare("select regime._copy_blocks($1)", ["int4"])
        plpy.execute(plan, [handle])
    finally:
        os.close(handle)


def write(
    plpy: Any,
    width: int,
    versions: tuple[str, str],
    found: Sequence[tuple[str, nowcast.Block, hindsight.Block]],
) -> None:
    """Add blocks of symbols to regime.blocks; ``versions`` of the classifier and of the verdict."""
    rows = []
    for symbol, now, then in found:
        parts = [
            _field(symbol.encode()), _interval(width), *(_field(v.encode()) for v in versions),
            _time(now.start), _time(int(now.ts[-1])), _field(struct.pack(">i", len(now.ts))),
            _times(now.ts), _times(now.moment), _array(now.shown + 1, ">i2", _INT2),
            _times(now.since), *(_array(p, ">f8", _FLOAT8) for p in now.p.T),
            _array(then.states + 1, ">i2", _INT2), _times(then.known), _times(now.changes),
            _array(now.carry, ">f8", _FLOAT8),
        ]  # fmt: skip
        rows.append(struct.pack(">h", len(parts)) + b"".join(parts))
    _copy(plpy, rows)
