"""Waiting for locks, but not for long and not in silence.

A migration needs locks that readers hold as long as their transactions are open, and while it
waits, everybody else queues behind it. So it waits a moment, gives everything back, and tries
again; when it gives up it says who is in the way.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import psycopg
from alphaplus.migrations.files import MigrationError

Result = TypeVar("Result")


@dataclass(frozen=True)
class Patience:
    """How long a lock is waited for at a time, how often, and with what pauses (seconds)."""

    lock_timeout: float = 2.0
    attempts: int = 12
    pause: float = 1.0
    longest_pause: float = 10.0


_HOLDERS = """
select string_agg(
    pg_catalog.format(
        '%%s (pid %%s%%s%%s%%s)', coalesce(a.usename, a.backend_type), a.pid,
        ', ' || nullif(a.application_name, ''), ', ' || a.state,
        ', transaction open since ' || to_char(a.xact_start, 'HH24:MI:SS')
    ), '; ' order by a.xact_start
)
from pg_catalog.pg_stat_activity a
where a.pid = any (pg_catalog.pg_blocking_pids(%s))
"""


class _Watch:
    """Looks, on a connection of its own, at who a session waits for."""

    def __init__(self, conninfo: str, pid: int) -> None:
        self.holders = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, args=(conninfo, pid), daemon=True)
        self._thread.start()

    def _look(self, conninfo: str, pid: int) -> None:
        if self._stop.wait(0.1):
            return
        # A server that is full has no place for this connection, which is only for the message.
        with (
            contextlib.suppress(psycopg.OperationalError),
            psycopg.connect(conninfo, autocommit=True) as conn,
        ):
            while not self._stop.wait(0.1):
                row = conn.execute(_HOLDERS, (pid,)).fetchone()
                if row and row[0]:
                    self.holders = str(row[0])

    def stop(self) -> str:
        self._stop.set()
        self._thread.join()
        return self.holders


def patiently(
    conninfo: str,
    pid: int,
    work: Callable[[], Result],
    patience: Patience,
    say: Callable[[str], None],
) -> Result:
    """Do some work that gives up on a lock timeout or a deadlock and can be done again.

    Args:
        conninfo: for the connection that looks at who holds the locks.
        pid: the backend of the session that does the work.
        work: one transaction, under a ``lock_timeout``.
        patience: how often it is tried.
        say: told who is waited for.

    Raises:
        MigrationError: the locks could not be had; names their holders.
    """
    pause = patience.pause
    for attempt in range(1, patience.attempts + 1):
        watch = _Watch(conninfo, pid)
        try:
            return work()
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            # Two that wait for each other: the server ends one, and the work can be done again.
            holders = watch.stop() or "a session that has gone meanwhile"
            if attempt == patience.attempts:
                raise MigrationError(
                    f"gave up after {attempt} tries, nothing was changed: waiting for a lock held"
                    f" by {holders}. End that transaction (select pg_terminate_backend(pid)), or"
                    " migrate at a quieter time."
                ) from error
            say(f"waiting for a lock held by {holders}; trying again in {pause:g} s")
            time.sleep(pause)
            pause = min(2 * pause, patience.longest_pause)
        finally:
            watch.stop()
    raise AssertionError("unreachable: the last attempt returns or raises")
