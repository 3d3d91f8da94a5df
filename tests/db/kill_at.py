"""Migrate, and die by SIGKILL before the n-th thing said to the database; for test_migrations.

Environment: CONNINFO, CHECKOUT, KILL_AT (0: never; then the number of steps is printed; -1: as soon
as the transaction is committed).
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import psycopg
from alphaplus import migrations
from psycopg.pq import TransactionStatus

KILL_AT = int(os.environ["KILL_AT"])
steps = 0


def step() -> None:
    global steps  # noqa: PLW0603
    if threading.current_thread() is threading.main_thread():
        steps += 1
        if steps == KILL_AT:
            os.kill(os.getpid(), signal.SIGKILL)


def counted(original: Any) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        step()
        return original(*args, **kwargs)

    return call


for name in ("execute", "executemany"):
    setattr(psycopg.Cursor, name, counted(getattr(psycopg.Cursor, name)))
end = psycopg.Transaction.__exit__


def ended(self: psycopg.Transaction, *args: Any) -> Any:
    step()
    result = end(self, *args)
    if KILL_AT == -1 and self.connection.info.transaction_status == TransactionStatus.IDLE:
        os.kill(os.getpid(), signal.SIGKILL)
    return result


# COMMIT goes by another way.
psycopg.Transaction.__exit__ = ended  # type: ignore[method-assign]

migrations.migrate(os.environ["CONNINFO"], Path(os.environ["CHECKOUT"]))
print(steps)
