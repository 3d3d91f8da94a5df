"""Fixtures: a real server, fresh databases on it, and a second server that may be killed."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alphaplus import migrations as applier
from alphaplus.cli.connect import superuser_conninfo
from psycopg import conninfo as pq
from psycopg import sql

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
DEEP = {"lstm", "gru", "cnn", "transformer"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without PyTorch, an extra, what needs it is skipped: marked ``deep``, or by a parameter."""
    if find_spec("torch") is not None:
        return
    skip = pytest.mark.skip(reason="PyTorch is not installed (make EXTRAS=trainer,dev,deep venv)")
    for item in items:
        call = getattr(item, "callspec", None)
        named = {x for x in call.params.values() if isinstance(x, str)} if call else set()
        if named & DEEP or item.get_closest_marker("deep"):
            item.add_marker(skip)


@dataclass(frozen=True)
class Server:
    """A running server: connection strings for any role, and the folder of its state, if ours."""

    superuser: str = field(repr=False)  # with its password, which no failure prints
    pgpass: Path | None = None
    state: Path | None = None

    def conninfo(self, dbname: str = "postgres", role: str = "postgres") -> str:
        """Connection string for a role and a database."""
        if role == "postgres":
            return pq.make_conninfo(self.superuser, dbname=dbname)
        if self.pgpass is None:
            pytest.skip(f"the password of {role} is not known on the server of DATABASE_URL")
        params = pq.conninfo_to_dict(self.superuser)
        return pq.make_conninfo(
            self.superuser,
            dbname=dbname,
            user=role,
            password=password_of(self.pgpass, str(params["host"]), str(params["port"]), role),
        )


def password_of(pgpass: Path, host: str, port: str, role: str) -> str:
    for line in pgpass.read_text().splitlines():
        fields = line.split(":")
        if (fields[0], fields[1], fields[3]) == (host, port, role):
            return fields[4]
    raise LookupError(f"{pgpass} has no password for {role} on {host}:{port}")


def embedded(state: Path) -> Server:
    port = (state / "port").read_text().strip()
    pgpass = state / "pgpass"
    return Server(
        pq.make_conninfo(
            host="localhost",
            port=port,
            user="postgres",
            password=password_of(pgpass, "localhost", port, "postgres"),
            sslmode="verify-full",
            sslrootcert=str(state / "tls" / "ca.crt"),
        ),
        pgpass,
        state,
    )


@pytest.fixture(scope="session")
def server() -> Server:
    """The server under test: DATABASE_URL's, or the one that `make up` started."""
    url = os.environ.get("DATABASE_URL")
    if url:
        return Server(superuser_conninfo(url))
    state = Path(os.environ.get("ALPHAPLUS_STATE", ROOT / ".server"))
    if (state / "data" / "postmaster.pid").exists():
        return embedded(state)
    env = ROOT / ".env"
    if env.exists():  # the image's server
        values = dict(line.split("=", 1) for line in env.read_text().splitlines())
        pgpass = Path(values["ALPHAPLUS_PGPASS"])
        return Server(
            pq.make_conninfo(
                host=values["PGHOST"],
                port=values["PGPORT"],
                user="postgres",
                password=password_of(pgpass, values["PGHOST"], values["PGPORT"], "postgres"),
                sslmode=values["PGSSLMODE"],
                sslrootcert=values["PGSSLROOTCERT"],
            ),
            pgpass,
        )
    raise pytest.UsageError("no server: run `make up`, or set DATABASE_URL")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def drop_database(admin: psycopg.Connection[Any], name: str) -> None:
    identifier = sql.Identifier(name)
    admin.execute(sql.SQL("alter database {} with is_template false").format(identifier))
    admin.execute(sql.SQL("drop database {} with (force)").format(identifier))


@pytest.fixture(scope="session")
def admin(server: Server) -> Iterator[psycopg.Connection[Any]]:
    """A superuser's connection to database postgres; clears what dead test runs left."""
    with psycopg.connect(server.conninfo(), autocommit=True) as conn:
        rows = conn.execute("select datname from pg_database where datname like 'aptest%'")
        for (name,) in rows.fetchall():
            match = re.fullmatch(r"aptest_(\d+)_.*", name)
            if match and not _alive(int(match[1])):
                drop_database(conn, name)
        yield conn


@pytest.fixture(scope="session")
def template_db(server: Server, admin: psycopg.Connection[Any]) -> Iterator[str]:
    """A migrated database that nobody can connect to: the others are copies of it.

    It is named by a digest of what makes it and kept: runs share it until a file changes. The two
    newest stay, so that a run on the files of before goes on.
    """
    name = f"aptest_template_{_digest()}"
    found = admin.execute("select from pg_database where datname = %s", (name,)).fetchone()
    if found is None:
        made = f"aptest_{os.getpid()}_template"
        applier.migrate(server.conninfo(made))
        seal(admin, made)
        with suppress(psycopg.errors.DuplicateDatabase):  # another run was faster
            admin.execute(
                sql.SQL("alter database {} rename to {}").format(
                    sql.Identifier(made), sql.Identifier(name)
                )
            )
        if admin.execute("select from pg_database where datname = %s", (made,)).fetchone():
            drop_database(admin, made)
    yield name
    kept = admin.execute(
        "select datname from pg_database where datname like 'aptest\\_template\\_%%'"
        " order by datname <> %s, oid desc offset 2",
        (name,),
    ).fetchall()
    for (old,) in kept:
        with suppress(psycopg.Error):  # another run drops it too, or copies it
            drop_database(admin, old)


def _digest() -> str:
    """Of every file that makes a database."""
    made = hashlib.sha256()
    for path in sorted([*ROOT.glob("sql/**/*"), *ROOT.glob("migrations/**/*")]):
        if path.suffix in (".sql", ".toml", ".py", ".txt"):
            made.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return made.hexdigest()[:16]


def seal(admin: psycopg.Connection[Any], name: str) -> None:
    """Close a database to connections; TimescaleDB's scheduler would keep it from being copied."""
    admin.execute(
        sql.SQL("alter database {} with allow_connections false is_template true").format(
            sql.Identifier(name)
        )
    )
    admin.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (name,)
    )


def copy_of(admin: psycopg.Connection[Any], template: str) -> str:
    name = f"aptest_{os.getpid()}_{uuid.uuid4().hex[:8]}"
    for attempt in range(20):
        try:
            admin.execute(
                sql.SQL("create database {} template {} strategy file_copy").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )
            break
        except psycopg.errors.ObjectInUse:
            if attempt == 19:
                raise
            seal(admin, template)
    admin.execute(sql.SQL("revoke all on database {} from public").format(sql.Identifier(name)))
    admin.execute(
        sql.SQL("grant create on database {} to alphaplus_owner").format(sql.Identifier(name))
    )
    for role in ("owner", "loader", "trainer", "app", "reader", "operator"):
        admin.execute(
            sql.SQL("grant connect, temporary on database {} to {}").format(
                sql.Identifier(name), sql.Identifier(f"alphaplus_{role}")
            )
        )
    return name


@pytest.fixture
def db(
    server: Server, admin: psycopg.Connection[Any], template_db: str
) -> Iterator[psycopg.Connection[Any]]:
    """A database of the test's own: a superuser's autocommit connection to it."""
    name = copy_of(admin, template_db)
    with psycopg.connect(server.conninfo(name), autocommit=True) as conn:
        yield conn
    drop_database(admin, name)


@pytest.fixture(scope="module")
def db_module(
    server: Server, admin: psycopg.Connection[Any], template_db: str
) -> Iterator[psycopg.Connection[Any]]:
    """A database of the test module's own: a superuser's autocommit connection to it."""
    name = copy_of(admin, template_db)
    with psycopg.connect(server.conninfo(name), autocommit=True) as conn:
        yield conn
    drop_database(admin, name)


@pytest.fixture
def connect_as(server: Server) -> Iterator[Callable[[str, str], psycopg.Connection[Any]]]:
    """``connect_as(role, dbname)``: an autocommit connection of a role; closed after the test."""
    opened: list[psycopg.Connection[Any]] = []

    def connect(role: str, dbname: str) -> psycopg.Connection[Any]:
        conn = psycopg.connect(server.conninfo(dbname, role), autocommit=True)
        opened.append(conn)
        return conn

    yield connect
    for conn in opened:
        conn.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class SecondServer:
    """An embedded server of the tests' own, which they may stop, start and kill."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.env = {
            **{key: value for key, value in os.environ.items() if not key.startswith("PG")},
            "ALPHAPLUS_STATE": str(state),
            "PGPORT": str(free_port()),
        }
        self.start()

    def call(self, word: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(ROOT / "docker" / "server"), word],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )

    def start(self) -> None:
        done = self.call("up")
        assert done.returncode == 0, done.stdout + done.stderr

    def stop(self) -> None:
        assert self.call("down").returncode == 0

    def kill9(self) -> None:
        assert self.call("kill").returncode == 0

    @property
    def server(self) -> Server:
        return embedded(self.state)


@pytest.fixture(scope="session")
def second_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecondServer]:
    """A second embedded server that tests may kill."""
    if os.environ.get("DATABASE_URL"):
        pytest.skip("DATABASE_URL is set: tests that kill a server run on the embedded one only")
    base = tmp_path_factory.mktemp("second")
    for folder in (base, *base.parents):  # the server runs as another user
        if folder != Path("/") and str(folder).startswith("/tmp/pytest"):
            folder.chmod(0o755)
    second = SecondServer(base / "state")
    yield second
    second.call("destroy")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real market data recorded by others; not part of the repository."""
    if not DATA.is_dir():
        pytest.skip(f"REAL DATA ABSENT: {DATA} is not there, tests on real market data do not run")
    return DATA
