"""What the benchmarks share: a database of their own, pgbench, percentiles, one row's shape."""

from __future__ import annotations

import operator
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from alphaplus import migrations as applier
from alphaplus.cli.connect import superuser_conninfo
from psycopg import conninfo as pq
from psycopg import sql

ROOT = Path(__file__).resolve().parents[2]
_COMPARE = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}


def row(
    name: str,
    value: float,
    unit: str,
    *,
    peer: str | None = None,
    peer_value: float | None = None,
    ratio: float | None = None,
    goal: str | None = None,
) -> dict[str, Any]:
    """One line of ``bench.json``. ``ratio`` is value / peer_value unless given.

    ``goal``: ``ratio >= 0.8`` or ``value <= 3``; ``met`` says whether it holds, null without one.
    """
    if ratio is None and peer_value:
        ratio = value / peer_value
    met = None
    if goal:
        subject, sign, threshold = goal.split()
        left = {"ratio": ratio, "value": value}[subject]
        met = left is not None and bool(_COMPARE[sign](left, float(threshold)))
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "peer": peer,
        "peer_value": peer_value,
        "ratio": ratio,
        "goal": goal,
        "met": met,
    }


def superuser() -> str:
    """The whole connection string of a superuser of the server that PG* or DATABASE_URL name."""
    with psycopg.connect(superuser_conninfo(), dbname="postgres") as conn:
        parts = {
            key: value
            for key, value in conn.info.get_parameters().items()
            if key in ("host", "port", "user", "sslmode", "sslrootcert")
        }
        return pq.make_conninfo(dbname="postgres", password=conn.info.password, **parts)


def near(conninfo: str) -> str | None:
    """The same database, as the operator, over the Unix socket of this checkout's own server: what
    reads files on the same machine is beside that. None where there is no such socket."""
    params = pq.conninfo_to_dict(conninfo)
    folder = Path(os.environ.get("ALPHAPLUS_STATE", ROOT / ".server")) / "run"
    if not (folder / f".s.PGSQL.{params.get('port', 5432)}").exists():
        return None
    operator = pq.conninfo_to_dict(applier.role_conninfo("alphaplus_operator", conninfo))
    return pq.make_conninfo(
        conninfo, host=str(folder), sslmode="disable", user="alphaplus_operator",
        password=operator.get("password"),
    )  # fmt: skip


@contextmanager
def database(conninfo: str, label: str, migrated: bool = True) -> Iterator[str]:
    """A fresh database, dropped at the end; its connection string."""
    name = f"apbench_{label}_{os.getpid()}"
    own = pq.make_conninfo(conninfo, dbname=name)
    try:
        if migrated:
            applier.migrate(own)
        else:
            with psycopg.connect(conninfo, autocommit=True) as admin:
                admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        yield own
    finally:
        with psycopg.connect(conninfo, autocommit=True) as admin:
            admin.execute(
                sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name))
            )


def pgbench(
    conninfo: str, script: str, clients: int = 1, seconds: int = 5, protocol: str = "prepared"
) -> float:
    """Transactions a second of a pgbench script, without the connecting.

    Raises:
        RuntimeError: pgbench is not there, or a client failed.
    """
    found = next(
        (
            str(path)
            for path in [
                *sorted(Path("/usr/lib/postgresql").glob("*/bin/pgbench"), reverse=True),
                *(Path(hit) for hit in [shutil.which("pgbench")] if hit),
            ]
        ),
        None,
    )
    if found is None:
        raise RuntimeError("pgbench is missing: apt-get install postgresql-contrib")
    params = pq.conninfo_to_dict(conninfo)
    env = {
        **os.environ,
        "PGHOST": str(params["host"]),
        "PGPORT": str(params["port"]),
        "PGUSER": str(params["user"]),
        "PGPASSWORD": str(params.get("password") or ""),
        "PGSSLMODE": str(params.get("sslmode") or "prefer"),
        "PGSSLROOTCERT": str(params.get("sslrootcert") or ""),
    }
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script)
        file.flush()
        done = subprocess.run(
            [
                found, "-n", "-M", protocol, "-c", str(clients), "-j", str(min(clients, 2)),
                "-T", str(seconds), "-f", file.name, str(params["dbname"]),
            ],
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
    match = re.search(r"tps = ([\d.]+) \(without", done.stdout)
    if done.returncode or not match or "aborted" in done.stderr:
        raise RuntimeError(f"pgbench failed: {done.stderr.strip()[-500:]}")
    return float(match[1])


def percentiles(call: Callable[[], Any], times: int, warm: int = 10) -> tuple[float, float]:
    """(p50, p99) of a call in milliseconds."""
    for _ in range(warm):
        call()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        taken.append((time.perf_counter() - start) * 1000)
    taken.sort()
    return taken[len(taken) // 2], taken[min(len(taken) - 1, int(len(taken) * 0.99))]


def best(call: Callable[[], Any], times: int = 3) -> float:
    """The shortest of several runs, in seconds."""
    shortest = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        call()
        shortest = min(shortest, time.perf_counter() - start)
    return shortest
