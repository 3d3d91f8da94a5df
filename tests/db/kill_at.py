"""Migrate, and die by SIGKILL before the n-th thing said to the database; for test_migrations.

Environment: CONNINFO, CHECKOUT, KILL_AT (0: never; then the number of steps is printed).
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import psycopg
from alphaplus import migrations

KILL_AT = int(os.environ["KILL_AT"])
steps = 0


def step() -> None:
    global steps  # noqa: PLW0603
    if threading.current_thread() is threading.main_thread():
        steps += 1
        if steps == KILL_AT:
            os.kill(os.getpid(), signal.SIGKILL)


def counted(original: Any, *, after: bool = False) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        step()
        result = original(*args, **kwargs)
        if after:
            step()
        return result

    return call


for name in ("execute", "executemany"):
    setattr(psycopg.Cursor, name, counted(getattr(psycopg.Cursor, name)))
# COMMIT goes by another way.
psycopg.Transaction.__exit__ = counted(psycopg.Transaction.__exit__, after=True)  # type: ignore[method-assign]

migrations.migrate(os.environ["CONNINFO"], Path(os.environ["CHECKOUT"]))
print(steps)
