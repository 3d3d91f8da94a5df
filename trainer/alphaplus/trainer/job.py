"""One job, from claiming its lease to handing in the version, through whatever the network does."""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
from alphaplus.trainer import data
from alphaplus.trainer.models.base import Stopped, TrainingError
from alphaplus.trainer.train import Trained, train
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.json import Jsonb

log = logging.getLogger("alphaplus.trainer")
SAY = 30.0  # seconds between two lines on how far a job is

NAME = f"{socket.gethostname()}/{os.getpid()}"


def _line(error: BaseException) -> str:
    """An error in one line, for the log."""
    return next((one for one in str(error).strip().splitlines() if one), type(error).__name__)


def connect(
    conninfo: str, wait: float = 600.0, stop: Callable[[], bool] = lambda: False
) -> psycopg.Connection[Any]:
    """Connect, trying again with growing pauses while the server is away.

    Raises:
        psycopg.OperationalError: still away after ``wait`` seconds.
    """
    pause, until = 0.2, time.monotonic() + wait
    while True:
        try:
            return psycopg.connect(
                conninfo,
                autocommit=True,
                connect_timeout=10,
                application_name=f"trainer {NAME}",
                # A query of a trainer that was killed ends soon, too.
                options="-c client_connection_check_interval=5s",
            )
        except psycopg.OperationalError as error:
            if time.monotonic() > until or stop():
                raise
            log.warning("no connection (%s); trying again in %.1f s", _line(error), pause)
            time.sleep(pause)
            pause = min(pause * 2, 10.0)


class Heartbeat(threading.Thread):
    """Tells the database that a job is alive and how far it is; hears whether to stop.

    It has its own connection and comes back after the server was away.
    """

    def __init__(
        self,
        conninfo: str,
        job_id: int,
        lease: str,
        interval: float,
        shutdown: threading.Event,
        seconds: float = math.inf,
    ) -> None:
        super().__init__(name=f"heartbeat of job {job_id}", daemon=True)
        self.conninfo = conninfo
        self.job_id = job_id
        self.lease = lease
        self.interval = interval
        self.shutdown = shutdown
        self.reason: str | None = None
        self.latest: tuple[float, str] = (0.0, "started")
        self.busy: list[psycopg.Connection[Any]] = []
        self._done = threading.Event()
        self.until = time.monotonic() + seconds
        self.seconds = seconds

    def progress(self, part: float, words: str) -> None:
        """Note the progress; raise Stopped when the job is to end."""
        self.latest = (part, words)
        self.check()

    def check(self) -> None:
        """Raise Stopped when the job is to end."""
        if self.shutdown.is_set() and self.reason is None:
            self.reason = "released"
        if time.monotonic() > self.until:
            raise TrainingError(
                f"it runs for longer than {self.seconds / 60:g} minutes (setting"
                " training.max_minutes): fewer rows, rounds or trials are needed"
            )
        if self.reason is not None:
            raise Stopped(self.reason)

    def run(self) -> None:
        """Beat until stopped; called by the thread."""
        conn: psycopg.Connection[Any] | None = None
        said = time.monotonic()
        while not self._done.is_set():
            if time.monotonic() - said >= SAY:
                said = time.monotonic()
                log.info("job %s: %.0f %%, %s", self.job_id, 100 * self.latest[0], self.latest[1])
            try:
                if conn is None or conn.closed:
                    conn = connect(self.conninfo, stop=self._done.is_set)
                row = conn.execute(
                    "select ml._job_progress(%s, %s, %s, %s)",
                    (self.job_id, self.lease, *self.latest),
                ).fetchone()
                answer = row[0] if row else "lost"
                if answer != "ok":
                    self.reason = "cancelled" if answer == "cancel" else "lost"
                    for busy in list(self.busy):  # a long query of this job: end it now
                        if not busy.closed:
                            busy.cancel_safe(timeout=5)
                    break
            except psycopg.Error as error:
                if self._done.is_set():
                    break
                log.warning("heartbeat of job %s: %s", self.job_id, _line(error))
                if conn is not None:
                    conn.close()
                self._done.wait(min(1.0, self.interval))
                continue
            self._done.wait(self.interval)
        if conn is not None:
            conn.close()

    def stop(self) -> None:
        """End the thread."""
        self._done.set()
        self.join(timeout=15)


class DatabaseCheckpoints:
    """A job's states in the database, so that any trainer can go on with it."""

    def __init__(self, conninfo: str, job_id: int, lease: str) -> None:
        self.conninfo = conninfo
        self.job_id = job_id
        self.lease = lease

    def load(self, stage: str) -> bytes | None:
        """See :class:`alphaplus.trainer.models.base.Checkpoints`."""
        with connect(self.conninfo) as conn, conn.cursor(binary=True) as cursor:
            row = cursor.execute(
                "select ml._load_checkpoint(%s, %s, %s)", (self.job_id, self.lease, stage)
            ).fetchone()
        return bytes(row[0]) if row and row[0] is not None else None

    def save(self, stage: str, state: bytes) -> None:
        """See :class:`alphaplus.trainer.models.base.Checkpoints`; a lost connection costs only the
        state: the fit goes on.
        """
        try:
            with connect(self.conninfo, wait=0) as conn:
                conn.execute(
                    "select ml._save_checkpoint(%s, %s, %s, %b)",
                    (self.job_id, self.lease, stage, state),
                )
        except psycopg.OperationalError as error:
            log.warning("job %s: no checkpoint (%s)", self.job_id, _line(error))


def search_storage(conninfo: str) -> str:
    """The SQLAlchemy URL under which Optuna keeps its studies: schema optuna of the same database.

    What the connection string leaves out comes from PG* variables, as libpq has it.
    """
    from urllib.parse import quote, urlencode

    given = {key: str(value) for key, value in conninfo_to_dict(conninfo).items()}
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "dbname": "PGDATABASE"}
    for key, variable in names.items():
        if key not in given and variable in os.environ:
            given[key] = os.environ[variable]
    user, password = given.pop("user", ""), given.pop("password", "")
    database = given.pop("dbname", user)
    given["options"] = f"{given.get('options', '')} -csearch_path=optuna,pg_catalog".strip()
    who = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    return f"postgresql+psycopg://{who}@/{quote(database, safe='')}?{urlencode(given)}"


@dataclass(frozen=True)
class Claimed:
    """A job of the queue, taken: its lease, what training needs, the champion's artifact."""

    job: dict[str, Any]
    lease: str
    champion: bytes | None


def start(conn: psycopg.Connection[Any]) -> str:
    """Come to the queue; the token to show."""
    row = conn.execute("select ml._trainer_start(%s)", (NAME,)).fetchone()
    assert row is not None
    return str(row[0])


def take(conn: psycopg.Connection[Any], token: str) -> Claimed | str:
    """The next job, or "later" (some wait for others) or "none"."""
    row = conn.execute(
        "select state, lease, job, champion_artifact from ml._next_job(%s)", (token,)
    ).fetchone()
    assert row is not None
    state, lease, job, champion = row
    if state != "claimed":
        return str(state)
    return Claimed(job, str(lease), bytes(champion) if champion is not None else None)


def run_next(conninfo: str, *, threads: int, shutdown: threading.Event) -> int | None:
    """Take one job and do it; the version's id, None where there is none."""
    with connect(conninfo) as conn:
        token = start(conn)
        claimed = take(conn, token)
        try:
            if isinstance(claimed, str):
                return None
            return run_job(conninfo, claimed, threads=threads, shutdown=shutdown)
        finally:
            conn.execute("select ml._trainer_stop(%s)", (token,))


def run_job(
    conninfo: str, claimed: Claimed, *, threads: int, shutdown: threading.Event
) -> int | None:
    """Do a job that was taken; the version's id, or None where there is none.

    Whatever happens is said to the database, which decides what becomes of the job.
    """
    job, lease = claimed.job, claimed.lease
    job_id = int(job["job_id"])
    log.info("job %s: %s %s", job_id, job["model"], job["symbol"] or "(pooled)")
    heartbeat = Heartbeat(
        conninfo, job_id, lease, min(2.0, job["lease_timeout"] / 5), shutdown,
        60 * float(job.get("max_minutes") or math.inf),
    )  # fmt: skip
    heartbeat.start()
    try:
        if job["task"] == "text":
            made = _train_on_texts(conninfo, claimed, heartbeat)
            version_id = _hand_in(conninfo, job_id, lease, made, heartbeat)
            log.info("job %s: version %s", job_id, version_id)
            return version_id
        matrix, folds = _read(conninfo, job, lease, heartbeat)
        made = train(
            job,
            matrix,
            folds,
            champion=claimed.champion,
            progress=heartbeat.progress,
            threads=threads,
            checkpoints=DatabaseCheckpoints(conninfo, job_id, lease),
            storage=search_storage(conninfo),
        )
        heartbeat.progress(0.99, "handing in")
        version_id = _hand_in(conninfo, job_id, lease, made, heartbeat)
        log.info("job %s: version %s", job_id, version_id)
        return version_id
    except BaseException as error:
        kind, words = _kind_of(error, heartbeat)
        status = _give_back(conninfo, job_id, lease, kind, words)
        log.warning("job %s: %s (%s)", job_id, status, words.strip().splitlines()[-1])
        if not isinstance(error, Exception):
            raise
        return None
    finally:
        heartbeat.stop()


def _kind_of(error: BaseException, heartbeat: Heartbeat) -> tuple[str, str]:
    """How ``ml._fail_job`` is to take an error, and its words."""
    if isinstance(error, Stopped):
        return error.kind, error.kind
    if isinstance(error, psycopg.errors.QueryCanceled) and heartbeat.reason:
        return heartbeat.reason, heartbeat.reason
    if isinstance(error, psycopg.Error) and error.sqlstate == "AP312":
        return "cancelled", "cancelled"
    if isinstance(error, psycopg.Error) and error.sqlstate == "AP311":
        return "lost", _line(error)
    if isinstance(error, psycopg.OperationalError):
        return "retry", f"the connection was lost: {_line(error)}"
    if isinstance(error, TrainingError):
        return "error", str(error)
    if isinstance(error, psycopg.Error) and str(error.sqlstate).startswith("AP"):
        return "error", f"{error.sqlstate}: {_line(error)}"
    if isinstance(error, psycopg.Error):
        return "retry", f"{error.sqlstate}: {_line(error)}"
    if not isinstance(error, Exception):
        return "released", repr(error)
    return "retry", "".join(traceback.format_exception(error))


def _train_on_texts(conninfo: str, claimed: Claimed, heartbeat: Heartbeat) -> Trained:
    from alphaplus.trainer import texts

    heartbeat.progress(0.01, "reading the labelled texts")
    with connect(conninfo) as conn:
        labelled = texts.Labelled.read(conn, int(claimed.job["job_id"]), claimed.lease)
    return Trained(*texts.train(claimed.job, labelled, claimed.champion, heartbeat.progress))


def _read(
    conninfo: str, job: dict[str, Any], lease: str, heartbeat: Heartbeat
) -> tuple[data.Matrix, list[data.Fold]]:
    heartbeat.progress(0.01, "reading the training set")
    limit = float(job.get("max_bytes") or math.inf)

    def reader() -> psycopg.Connection[Any]:
        heartbeat.busy.append(conn := connect(conninfo))
        return conn

    try:
        matrix = data.read_matrix(reader, job["job_id"], lease, len(job["features"]), limit=limit)
        with reader() as conn:
            if matrix.dropped:
                counts = Jsonb({"noise": matrix.dropped})
                conn.execute(
                    "select ml._job_progress(%s, %s, null, null, %s)",
                    (job["job_id"], lease, counts),
                )
            folds = data.read_folds(conn, job["job_id"], lease, matrix)
    finally:
        heartbeat.busy.clear()
    heartbeat.progress(0.05, f"{len(matrix)} rows read")
    return matrix, folds


def _hand_in(conninfo: str, job_id: int, lease: str, made: Trained, heartbeat: Heartbeat) -> int:
    """Call ``ml._finish_job`` until it is known to be done: asked twice, it answers the same."""
    import hashlib

    arguments = (
        job_id,
        lease,
        Jsonb(made.version),
        made.artifact,
        hashlib.sha256(made.artifact).digest(),
        made.out_of_fold,
    )
    for attempt in range(20):
        heartbeat.check()
        try:
            with connect(conninfo) as conn:
                row = conn.execute(
                    "select ml._finish_job(%s, %s, %s, %s, %s, %s)", arguments
                ).fetchone()
                assert row is not None
                return int(row[0])
        except psycopg.OperationalError as error:
            log.warning("job %s: handing in failed (%s)", job_id, _line(error))
            time.sleep(min(0.2 * 2**attempt, 10))
    raise psycopg.OperationalError("the server went away while the version was handed in")


def _give_back(conninfo: str, job_id: int, lease: str, kind: str, words: str) -> str:
    if kind == "lost":
        return "lost"
    try:
        with connect(conninfo, wait=60) as conn:
            row = conn.execute(
                "select ml._fail_job(%s, %s, %s, %s)",
                (job_id, lease, kind, words.replace("\0", "")),
            ).fetchone()
            return str(row[0]) if row else "lost"
    except psycopg.Error as error:
        # The lease will run out, and then the job is anybody's.
        log.warning("job %s could not be given back: %s", job_id, _line(error))
        return "lost"
