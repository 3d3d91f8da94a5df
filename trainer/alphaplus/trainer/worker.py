"""The trainer's process: takes jobs from the queue and stays, through restarts of the server.

The queue is procrastinate's, in the database; its tables are closed to the trainer, which takes and
gives back jobs by the functions of schema ml.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import psycopg
from alphaplus.trainer import job as jobs
from psycopg import conninfo as pq

log = logging.getLogger("alphaplus.trainer")
ROLE = "alphaplus_trainer"
CHANNEL = "procrastinate_any_queue_v1"
BEAT = 2.0


def has_password(conninfo: str) -> bool:
    """Whether a connection string (or what looks like one) holds a password."""
    try:
        params = pq.conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError:
        return "password" in conninfo
    return bool(params.get("password") or params.get("sslpassword"))


def trainer_conninfo(conninfo: str = "") -> str:
    """The connection string of the trainer's role.

    From what is given, else DATABASE_URL and PG*. Where these name another role and
    ALPHAPLUS_PGPASS (written by ``make up``) has the trainer's password, the trainer's own role is
    used.
    """
    given = pq.make_conninfo(conninfo or os.environ.get("DATABASE_URL", ""))
    params = pq.conninfo_to_dict(given)
    host = str(params.get("host") or os.environ.get("PGHOST", "localhost"))
    port = str(params.get("port") or os.environ.get("PGPORT", "5432"))
    user = params.get("user") or os.environ.get("PGUSER")
    passwords = os.environ.get("ALPHAPLUS_PGPASS")
    if user != ROLE and passwords and Path(passwords).exists():
        for line in Path(passwords).read_text().splitlines():
            fields = line.split(":", 4)
            if fields[:2] == [host, port] and fields[3:4] == [ROLE]:
                given = pq.make_conninfo(given, user=ROLE, password=fields[4])
    local = host.startswith("/") or host in ("localhost", "127.0.0.1", "::1")
    if not local and "sslmode" not in params and "PGSSLMODE" not in os.environ:
        given = pq.make_conninfo(given, sslmode="require")
    return given


class Worker:
    """Takes training jobs from the queue until told to stop.

    Args:
        conninfo: the trainer's role (see :func:`trainer_conninfo`).
        concurrency: jobs at once.
        threads: cores per job; 0: all, divided by ``concurrency``.
        mode: "stay"; "drain": until no job waits; "once": one job.
        poll: seconds between looks for stalled jobs.
    """

    def __init__(
        self,
        conninfo: str,
        *,
        concurrency: int = 1,
        threads: int = 0,
        mode: str = "stay",
        poll: float = 5.0,
    ) -> None:
        self.conninfo = conninfo
        self.concurrency = concurrency
        self.threads = threads or max(1, (os.cpu_count() or 1) // concurrency)
        self.mode = mode
        self.poll = poll
        self.shutdown = threading.Event()
        self.done = 0
        self._running: set[Future[Any]] = set()

    def stop(self) -> None:
        """Give running jobs back to the queue and end; safe to call from a signal handler."""
        self.shutdown.set()

    def run(self) -> None:
        """Work; returns when the mode says so or after :meth:`stop`."""
        pause = 0.2
        with ThreadPoolExecutor(self.concurrency, "job") as pool:
            while not self.shutdown.is_set():
                try:
                    with self._connection() as conn:
                        pause = 0.2
                        if self._session(conn, pool):
                            return
                except psycopg.Error as error:
                    if error.sqlstate != "AP430" and not isinstance(
                        error, psycopg.OperationalError
                    ):
                        raise
                    words = str(error).strip().splitlines() or [type(error).__name__]
                    log.warning("the server is away (%s); trying again in %.1f s", words[0], pause)
                    self.shutdown.wait(pause)
                    pause = min(pause * 2, 10.0)

    def _connection(self) -> psycopg.Connection[Any]:
        return psycopg.connect(
            self.conninfo, autocommit=True, connect_timeout=10,
            application_name=f"trainer {jobs.NAME}",
        )  # fmt: skip

    def _session(self, conn: psycopg.Connection[Any], pool: ThreadPoolExecutor) -> bool:
        """One connection's worth of work; whether the mode's work is done."""
        conn.execute(f"listen {CHANNEL}")
        token = jobs.start(conn)
        try:
            beaten = looked = 0.0
            while not self.shutdown.is_set():
                if time.monotonic() - looked >= self.poll:
                    conn.execute("select ml._requeue_stalled()")
                    looked = time.monotonic()
                state = self._take(conn, token, pool)
                if self.mode == "once" and self.done:
                    wait(self._running)
                    return True
                if self.mode == "drain" and state == "none" and not self._running:
                    return True
                if time.monotonic() - beaten >= BEAT:
                    conn.execute("select ml._trainer_beat(%s)", (token,))
                    beaten = time.monotonic()
                self._rest(conn)
            return True
        finally:
            wait(self._running)
            with contextlib.suppress(psycopg.Error):
                conn.execute("select ml._trainer_stop(%s)", (token,))

    def _take(self, conn: psycopg.Connection[Any], token: str, pool: ThreadPoolExecutor) -> str:
        """Take jobs for the hands that are free; what the queue said last."""
        self._running = {future for future in self._running if not future.done()}
        while len(self._running) < self.concurrency:
            taken = jobs.take(conn, token)
            if isinstance(taken, str):
                return taken
            self.done += 1
            self._running.add(
                pool.submit(
                    jobs.run_job, self.conninfo, taken, threads=self.threads, shutdown=self.shutdown
                )
            )
            if self.mode == "once":
                break
        return "busy"

    def _rest(self, conn: psycopg.Connection[Any]) -> None:
        """Wait for a job to end, or for news of the queue; half a second at most."""
        if len(self._running) >= self.concurrency:
            wait(self._running, 0.5, FIRST_COMPLETED)
            return
        for _ in conn.notifies(timeout=0.5, stop_after=1):
            return


def run(worker: Worker) -> int:
    """Run a worker to its end; the number of jobs it took."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: worker.stop())
    worker.run()
    return worker.done
