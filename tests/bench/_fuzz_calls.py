"""``make fuzz``, second half: every public function with arguments nobody means, for as long as asked.

Run as ``python -m tests.bench._fuzz_calls [SECONDS [SEED]]`` against the server of ``make up``, in a
database of its own. A raw error of the server or of Python, a crash or a hang is a failure.
"""

from __future__ import annotations

import os
import sys

import psycopg

from tests.bench import _common as common
from tests.db import odd_calls


def main(seconds: float, seed: int) -> int:
    """Call until the time is over; how many kinds of failures."""
    with (
        common.database(common.superuser(), "fuzz") as conninfo,
        psycopg.connect(conninfo, autocommit=True) as db,
    ):
        odd_calls.fill(db)
        found = odd_calls.call(db, seed, seconds=seconds)
    if found.wrong:
        print(found.report())
    print(
        f"{found.calls:,} calls of {len(found.called)} functions, {found.answered:,} answered,"
        f" {len(found.wrong)} kinds of failures; slowest {found.slowest[0]:.1f} s; seed {seed}"
    )
    return len(found.wrong)


if __name__ == "__main__":
    duration = float(sys.argv[1]) if len(sys.argv) > 1 else 120.0
    chosen = int(sys.argv[2]) if len(sys.argv) > 2 else int.from_bytes(os.urandom(4), "big")
    raise SystemExit(min(1, main(duration, chosen)))
