"""The trainer's process: a procrastinate worker that stays, through restarts of the server."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from pathlib import Path
from typing import Any

import procrastinate
import psycopg
from alphaplus.trainer.job import Failed, TryAgain, run_job
from procrastinate import exceptions, retry
from psycopg import conninfo as pq

log = logging.getLogger("alphaplus.trainer")
QUEUE = "training"
ROLE = "alphaplus_trainer"
_AWAY = (exceptions.ConnectorException, psycopg.OperationalError, OSError)


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


class _Later(retry.BaseRetryStrategy):
    def get_retry_decision(
        self, *, exception: BaseException, job: procrastinate.jobs.Job
    ) -> retry.RetryDecision | None:
        del job
        if isinstance(exception, TryAgain):
            return retry.RetryDecision(retry_in={"seconds": 5})
        return None


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
        self._running: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def _app(self) -> procrastinate.App:
        connector = procrastinate.PsycopgConnector(
            conninfo=self.conninfo,
            kwargs={"options": "-csearch_path=procrastinate,pg_catalog"},
            min_size=1,
            max_size=4 + self.concurrency,
            timeout=10,
            reconnect_timeout=5,
        )
        app = procrastinate.App(connector=connector)

        def task(job_id: int) -> int | None:
            try:
                return run_job(self.conninfo, job_id, threads=self.threads, shutdown=self.shutdown)
            finally:
                self.done += 1
                if self.mode == "once" and self._loop and self._running:
                    self._loop.call_soon_threadsafe(self._running.cancel)

        app.task(name="alphaplus.train", queue=QUEUE, retry=_Later())(task)
        return app

    def stop(self) -> None:
        """Give running jobs back to the queue and end; safe to call from a signal handler."""
        self.shutdown.set()
        if self._running is not None:
            self._running.cancel()

    async def run(self) -> None:
        """Work; returns when the mode says so or after :meth:`stop`."""
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self.stop)
        pause = 0.2
        while not self.shutdown.is_set():
            try:
                waiting = await self._session()
                pause = 0.2
                if self.mode == "once" or (self.mode == "drain" and not waiting):
                    return
                await asyncio.sleep(0.5)
            except _AWAY as error:
                log.warning(
                    "the server is away (%s); trying again in %.1f s",
                    str(error.__cause__ or error).strip(),
                    pause,
                )
                await asyncio.sleep(pause)
                pause = min(pause * 2, 10.0)

    async def _session(self) -> bool:
        """One connection's worth of work; whether jobs still wait."""
        app = self._app()
        async with app.open_async():
            stalled = asyncio.create_task(self._requeue(app.connector))
            try:
                self._running = asyncio.create_task(
                    app.run_worker_async(
                        queues=[QUEUE],
                        concurrency=self.concurrency,
                        wait=self.mode == "stay",
                        name=ROLE,
                        install_signal_handlers=False,
                        listen_notify=self.mode == "stay",
                        fetch_job_polling_interval=2.0,
                        update_heartbeat_interval=2.0,
                        stalled_worker_timeout=30.0,
                    )
                )
                try:
                    await self._running
                except asyncio.CancelledError:
                    if not (self.shutdown.is_set() or self.mode == "once"):
                        raise
                return await self._waiting(app.connector)
            finally:
                self._running = None
                stalled.cancel()

    async def _requeue(self, connector: Any) -> None:
        while True:
            try:
                await connector.execute_query_async("select ml._requeue_stalled()")
            except _AWAY as error:
                log.debug("looking for stalled jobs: %s", error)
            await asyncio.sleep(self.poll)

    async def _waiting(self, connector: Any) -> bool:
        row = await connector.execute_query_one_async(
            "select exists (select from procrastinate.procrastinate_jobs"
            " where queue_name = %(queue)s and status = 'todo') as waiting",
            queue=QUEUE,
        )
        return bool(row["waiting"])


def run(worker: Worker) -> int:
    """Run a worker to its end; the number of jobs it took."""
    logging.getLogger("procrastinate").setLevel(logging.CRITICAL)
    asyncio.run(worker.run())
    return worker.done


__all__ = ["Failed", "TryAgain", "Worker", "run", "trainer_conninfo"]
