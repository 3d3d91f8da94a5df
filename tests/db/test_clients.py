"""The clients of docs/clients.md, each against the real server as the reader: types, errors with their
code and hint, a prepared statement across a promotion, and a cancel.

What is not installed here is skipped, and says what to install.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import importlib
import math
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import conninfo as pq

from tests.conftest import Server, free_port
from tests.db import serving as w

Conn = psycopg.Connection[Any]
PROGRAMS = Path(__file__).resolve().parents[1] / "clients"
JDBC = Path("/usr/share/java/postgresql.jar")
TYPES = (
    "select timestamptz '2024-06-01 12:34:56.789+00' as ts, 1234567890.123456789::numeric as n,"
    " interval '1 day 02:03:04.5' as i, '{1.5,null,NaN,Infinity}'::float8[] as a,"
    " 'NaN'::float8 as nan, 'Infinity'::float8 as inf, null::text as nothing,"
    " row(7, 'x')::text as pair"
)
WRONG = "select * from ml.predict('nope', 'AAA')"
WHEN = w.at(30)
PREPARED = "select version_id from ml.predict('fixed', 'AAA', $1)"
SECONDS = 93784.5


def need(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        pytest.skip(f"CLIENT ABSENT: {module} is not installed (pip install {package})")


def program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"CLIENT ABSENT: {name} is not installed (apt-get install {package})")
    return found


class World:
    """A database with a model of two versions, the first of them in service."""

    def __init__(self, db: Conn, server: Server) -> None:
        x, y = w.synthetic(200)
        w.install(db)
        w.store(db, x[:60])
        self.db = db
        self.first = w.register(db, w.train(x, y, 3), promote=True)
        self.second = w.register(db, w.train(x, y, 4, seed=2))
        self.login = {
            str(key): str(value)
            for key, value in pq.conninfo_to_dict(
                server.conninfo(db.info.dbname, "alphaplus_reader")
            ).items()
        }

    @property
    def conninfo(self) -> str:
        return pq.make_conninfo(**self.login)

    @property
    def environment(self) -> dict[str, str]:
        """What libpq and the programs of tests/clients read; no secret is in their arguments."""
        names = {
            "host": "PGHOST", "port": "PGPORT", "dbname": "PGDATABASE", "user": "PGUSER",
            "password": "PGPASSWORD", "sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT",
        }  # fmt: skip
        return {
            **{k: v for k, v in os.environ.items() if not k.startswith("PG")},
            **{name: self.login[key] for key, name in names.items() if key in self.login},
            "TYPES": TYPES, "WRONG": WRONG, "PREPARED": PREPARED, "WHEN": WHEN.isoformat(),
        }  # fmt: skip

    def promote(self, version: int) -> None:
        self.db.execute("call ml.promote(%s, 'test', true)", (version,))


@pytest.fixture(scope="module")
def shared(db_module: Conn, server: Server) -> World:
    return World(db_module, server)


@pytest.fixture
def world(shared: World) -> Iterator[World]:
    shared.promote(shared.first)
    yield shared


def check_row(row: Any) -> None:
    """The values of TYPES as Python has them."""
    ts, n, i, a, nan, inf, nothing, pair = row
    assert ts == dt.datetime(2024, 6, 1, 12, 34, 56, 789000, tzinfo=dt.UTC)
    assert n == Decimal("1234567890.123456789") and i == dt.timedelta(seconds=SECONDS)
    assert a[0] == 1.5 and a[1] is None and math.isnan(a[2]) and a[3] == math.inf
    assert math.isnan(nan) and inf == math.inf and nothing is None and pair == "(7,x)"


def soon(action: Callable[[], Any]) -> threading.Timer:
    timer = threading.Timer(0.5, action)
    timer.start()
    return timer


def cancel_backend(world: World, pid: int) -> Callable[[], Any]:
    return lambda: world.db.execute("select pg_cancel_backend(%s)", (pid,))


def test_psycopg3(world: World) -> None:
    with psycopg.connect(world.conninfo, autocommit=True) as db:
        check_row(db.execute(TYPES).fetchone())
        with db.cursor(binary=True) as cursor:
            check_row(cursor.execute(TYPES).fetchone())
        with pytest.raises(psycopg.Error) as caught:
            db.execute(WRONG)
        assert caught.value.sqlstate == "AP302" and caught.value.diag.message_hint
        ask = PREPARED.replace("$1", "%s")
        before = db.execute(ask, (WHEN,), prepare=True).fetchone()
        world.promote(world.second)
        after = db.execute(ask, (WHEN,), prepare=True).fetchone()
        assert (before, after) == ((world.first,), (world.second,))
        soon(db.cancel_safe)
        with pytest.raises(psycopg.errors.QueryCanceled):
            db.execute("select pg_sleep(60)")


def test_psycopg2(world: World) -> None:
    psycopg2 = need("psycopg2", "psycopg2-binary")
    db = psycopg2.connect(world.conninfo)
    try:
        db.autocommit = True
        cursor = db.cursor()
        cursor.execute(TYPES)
        check_row(cursor.fetchone())
        with pytest.raises(psycopg2.Error) as caught:
            cursor.execute(WRONG)
        assert caught.value.pgcode == "AP302" and caught.value.diag.message_hint
        cursor.execute(f"prepare asked(timestamptz) as {PREPARED}")
        found = []
        for version in (None, world.second):
            if version:
                world.promote(version)
            cursor.execute("execute asked(%s)", (WHEN,))
            found.append(cursor.fetchone()[0])
        assert found == [world.first, world.second]
        soon(db.cancel)
        with pytest.raises(psycopg2.errors.QueryCanceled):
            cursor.execute("select pg_sleep(60)")
    finally:
        db.close()


def test_asyncpg(world: World) -> None:
    asyncpg = need("asyncpg", "asyncpg")
    import ssl

    async def run() -> None:
        login = world.login
        db = await asyncpg.connect(
            host=login["host"], port=int(login["port"]), database=login["dbname"],
            user=login["user"], password=login["password"],
            ssl=ssl.create_default_context(cafile=login["sslrootcert"]),
        )  # fmt: skip
        try:
            check_row(tuple(await db.fetchrow(TYPES)))
            with pytest.raises(asyncpg.PostgresError) as caught:
                await db.fetch(WRONG)
            assert caught.value.sqlstate == "AP302" and caught.value.hint
            asked = await db.prepare(PREPARED)
            before = await asked.fetchval(WHEN)
            world.promote(world.second)
            assert (before, await asked.fetchval(WHEN)) == (world.first, world.second)
            with pytest.raises(asyncio.TimeoutError):  # it cancels the statement
                await db.fetch("select pg_sleep(60)", timeout=0.5)
            assert await db.fetchval("select 1") == 1
        finally:
            await db.close()

    asyncio.run(run())


def test_sqlalchemy_reflects(world: World) -> None:
    sqlalchemy = need("sqlalchemy", "sqlalchemy")
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(world.conninfo)
    )
    with engine.connect() as db:
        check_row(tuple(db.execute(sqlalchemy.text(TYPES.replace("::", r"\:\:"))).one()))
        with pytest.raises(sqlalchemy.exc.DBAPIError) as caught:
            db.execute(sqlalchemy.text(WRONG))
        assert caught.value.orig.sqlstate == "AP302"
    meta = sqlalchemy.MetaData()
    meta.reflect(engine, schema="ml", views=True, only=["predictions", "registry"])
    table = meta.tables["ml.predictions"]
    assert table.comment and table.c.features.type.item_type is not None
    assert {c.name for c in table.primary_key} >= {"prediction_id"}
    assert "ml.registry" in meta.tables
    engine.dispose()


def test_pandas(world: World) -> None:
    pandas = need("pandas", "pandas")
    sqlalchemy = need("sqlalchemy", "sqlalchemy")
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(world.conninfo)
    )
    frame = pandas.read_sql(
        "select symbol, ts, close from market.candles_1m where symbol = 'AAA' order by ts limit 5",
        engine,
    )
    assert frame["ts"].dt.tz is not None and len(frame) == 5 and frame["close"].eq(1.0).all()
    found = pandas.read_sql(sqlalchemy.text(TYPES.replace("::", r"\:\:")), engine).iloc[0]
    assert found["i"] == dt.timedelta(seconds=SECONDS) and math.isnan(found["nan"])
    engine.dispose()


def url(world: World) -> str:
    """For clients that take nothing but a URL; it is in no process's arguments."""
    from urllib.parse import quote

    login = world.login
    return (
        f"postgresql://{login['user']}:{quote(login['password'], safe='')}@{login['host']}:"
        f"{login['port']}/{login['dbname']}?sslmode={login['sslmode']}"
        f"&sslrootcert={quote(login['sslrootcert'], safe='')}"
    )


NUMBERS = (
    "select timestamptz '2024-06-01 12:34:56.789+00' as ts, 'NaN'::float8 as nan,"
    " 'Infinity'::float8 as inf, null::float8 as nothing, 7::bigint as seven"
)


def test_polars_by_connectorx(world: World) -> None:
    polars = need("polars", "polars")
    need("connectorx", "connectorx")
    # (it knows sslmode require and less; see docs/clients.md)
    uri = url(world).replace("verify-full", "require")
    frame = polars.read_database_uri(NUMBERS, uri)
    row = frame.row(0, named=True)
    assert row["ts"].timestamp() == 1717245296.789 and row["seven"] == 7
    assert math.isnan(row["nan"]) and row["inf"] == math.inf and row["nothing"] is None
    with pytest.raises(RuntimeError, match="unknown model"):
        polars.read_database_uri(WRONG.replace("*", "prediction"), uri)


def test_adbc(world: World) -> None:
    dbapi = need("adbc_driver_postgresql.dbapi", "adbc-driver-postgresql")
    with dbapi.connect(url(world)) as db, db.cursor() as cursor:
        cursor.execute(NUMBERS)
        row = cursor.fetch_arrow_table().to_pylist()[0]
        assert row["ts"].timestamp() == 1717245296.789 and row["seven"] == 7
        assert math.isnan(row["nan"]) and row["inf"] == math.inf and row["nothing"] is None
        with pytest.raises(dbapi.Error) as caught:
            cursor.execute(WRONG)
            cursor.fetchall()
        assert caught.value.sqlstate == "AP302" and "HINT" in str(caught.value)


def test_odbc(world: World) -> None:
    pyodbc = need("pyodbc", "pyodbc; apt-get install odbc-postgresql")
    names = [name for name in pyodbc.drivers() if "PostgreSQL" in name]
    if not names:
        pytest.skip("CLIENT ABSENT: no ODBC driver (apt-get install odbc-postgresql)")
    login = world.login
    driver = next((name for name in names if "Unicode" in name), names[0])
    db = pyodbc.connect(
        f"Driver={{{driver}}};Server={login['host']};Port={login['port']};"
        f"Database={login['dbname']};Uid={login['user']};Pwd={login['password']};"
        f"SSLmode={login['sslmode']};pqopt={{sslrootcert={login['sslrootcert']}}}",
        autocommit=True,
    )
    try:
        row = db.execute(f"select ts at time zone 'UTC', n, nan, inf, nothing, pair from ({TYPES}) t").fetchone()  # fmt: skip
        assert row[0] == dt.datetime(2024, 6, 1, 12, 34, 56, 789000)
        assert Decimal(row[1]) == Decimal("1234567890.123456789")
        assert math.isnan(row[2]) and row[3] == math.inf and row[4] is None and row[5] == "(7,x)"
        with pytest.raises(pyodbc.Error) as caught:
            db.execute(WRONG)
        assert "AP302" in str(caught.value.args) and "unknown model" in str(caught.value)
        ask = "select version_id from ml.predict('fixed', 'AAA', cast(? as timestamptz))"
        found = []
        for version in (None, world.second):
            if version:
                world.promote(version)
            found.append(db.execute(ask, WHEN.isoformat()).fetchone()[0])
        assert found == [world.first, world.second]
        pid = db.execute("select pg_backend_pid()").fetchone()[0]
        soon(cancel_backend(world, pid))
        with pytest.raises(pyodbc.Error, match="57014"):
            db.execute("select pg_sleep(60)")
    finally:
        db.close()


def told(world: World, command: list[str], more: dict[str, str] | None = None) -> dict[str, str]:
    """What a program of tests/clients says, line by line; between its two predictions the other
    version is promoted."""
    run = subprocess.Popen(
        command, env={**world.environment, **(more or {})}, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    found: dict[str, str] = {}
    assert run.stdout and run.stdin and run.stderr
    try:
        for line in run.stdout:
            name, _, value = line.rstrip("\n").partition("\t")
            found[name] = value
            if name == "before":
                world.promote(world.second)
                run.stdin.write("on\n")
                run.stdin.flush()
        said = run.stderr.read()
        assert run.wait(timeout=300) == 0, said
    finally:
        run.kill()
    return found


def check_told(world: World, found: dict[str, str], state: str = "AP302") -> None:
    moment = dt.datetime.fromisoformat(found["ts"])
    assert moment == dt.datetime(2024, 6, 1, 12, 34, 56, 789000, tzinfo=dt.UTC)
    assert found["n"] == "1234567890.123456789" and float(found["i"]) == SECONDS
    assert re.fullmatch(r"1\.5 (null|NULL) NaN Infinity", found["a"]), found["a"]
    assert found["nan"].lower() == "nan" and found["inf"][:3].lower() == "inf"
    assert found["nothing"] == "null" and found["pair"] == "(7,x)"
    assert found["state"] == state and found.get("hint", "told") == "told"
    assert (int(found["before"]), int(found["after"])) == (world.first, world.second)
    assert found["canceled"] == "57014"


def test_jdbc(world: World) -> None:
    java = program("java", "default-jdk-headless libpostgresql-jdbc-java")
    if not JDBC.exists() or shutil.which("javac") is None:
        pytest.skip("CLIENT ABSENT: apt-get install default-jdk-headless libpostgresql-jdbc-java")
    check_told(world, told(world, [java, "-cp", str(JDBC), str(PROGRAMS / "Client.java")]))


def test_node_postgres(world: World) -> None:
    node = program("node", "nodejs npm")
    folder = Path(os.environ.get("ALPHAPLUS_NODE_MODULES", PROGRAMS / "node_modules"))
    if not (folder / "pg").is_dir():
        pytest.skip(
            f"CLIENT ABSENT: npm install --prefix {PROGRAMS} pg (or ALPHAPLUS_NODE_MODULES)"
        )
    found = told(world, [node, str(PROGRAMS / "client.mjs")], {"NODE_MODULES": str(folder)})
    check_told(world, found)


def test_r(world: World) -> None:
    rscript = program("Rscript", "r-base-core r-cran-rpostgresql")
    there = subprocess.run(
        [rscript, "-e", "library(RPostgreSQL)"], capture_output=True, check=False
    )
    if there.returncode:
        pytest.skip("CLIENT ABSENT: RPostgreSQL (apt-get install r-cran-rpostgresql)")
    # This driver tells an error's message and no code.
    check_told(world, told(world, [rscript, str(PROGRAMS / "client.R")]), state="refused")


def test_psql(world: World) -> None:
    psql = program("psql", "postgresql-client")

    def ask(query: str, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [psql, "-XAt", "-v", "VERBOSITY=verbose", *more, "-c", query],
            env=world.environment, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip

    row = ask(f"set timezone = 'UTC'; {TYPES}").stdout.splitlines()[-1].split("|")
    assert row[:3] == ["2024-06-01 12:34:56.789+00", "1234567890.123456789", "1 day 02:03:04.5"]
    assert row[3:] == ["{1.5,NULL,NaN,Infinity}", "NaN", "Infinity", "", "(7,x)"]
    wrong = ask(WRONG).stderr
    assert "AP302" in wrong and "HINT" in wrong
    assert "57014" in ask("set statement_timeout = '500ms'; select pg_sleep(60)").stderr


@pytest.fixture
def bouncer(world: World, tmp_path: Path) -> Iterator[dict[str, str]]:
    """PgBouncer in transaction mode before the server; the login through it."""
    command = program("pgbouncer", "pgbouncer")
    login, port = world.login, free_port()
    (tmp_path / "users").write_text(f'"{login["user"]}" "{login["password"]}"\n')
    ca = tmp_path / "ca.crt"
    ca.write_text(Path(login["sslrootcert"]).read_text())
    (tmp_path / "ini").write_text(
        f"[databases]\n* = host={login['host']} port={login['port']}\n[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = scram-sha-256\nauth_file = {tmp_path / 'users'}\npool_mode = transaction\n"
        f"default_pool_size = 2\nserver_tls_sslmode = verify-full\nserver_tls_ca_file = {ca}\n"
        "ignore_startup_parameters = extra_float_digits,options\n"
    )
    user: list[str] = []
    if os.geteuid() == 0:  # it does not run as root
        user = ["-u", "nobody"]
        for path in (tmp_path, *tmp_path.parents):
            if str(path).startswith("/tmp/pytest"):
                path.chmod(0o755)
        for path in tmp_path.iterdir():
            shutil.chown(path, "nobody")
    run = subprocess.Popen(
        [command, *user, str(tmp_path / "ini")], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    through = {**login, "host": "127.0.0.1", "port": str(port), "sslmode": "disable"}
    for _ in range(100):
        try:
            psycopg.connect(**through, connect_timeout=5).close()
            break
        except psycopg.OperationalError:
            time.sleep(0.2)
    yield through
    run.terminate()
    run.wait(timeout=60)


def test_pgbouncer_in_transaction_mode(world: World, bouncer: dict[str, str]) -> None:
    with psycopg.connect(**bouncer, autocommit=True, prepare_threshold=None) as db:  # type: ignore[arg-type]
        check_row(db.execute(TYPES).fetchone())
        with pytest.raises(psycopg.Error) as caught:
            db.execute(WRONG)
        assert caught.value.sqlstate == "AP302" and caught.value.diag.message_hint
        ask = PREPARED.replace("$1", "%s")
        before = db.execute(ask, (WHEN,)).fetchone()
        world.promote(world.second)
        assert (before, db.execute(ask, (WHEN,)).fetchone()) == ((world.first,), (world.second,))
        soon(db.cancel)
        with pytest.raises(psycopg.errors.QueryCanceled):
            db.execute("select pg_sleep(60)")
        # Many clients, two connections: each statement is whole, whichever connection it gets.
        others = [
            psycopg.connect(**bouncer, autocommit=True, prepare_threshold=None)  # type: ignore[arg-type]
            for _ in range(8)
        ]
        answers = {other.execute(ask, (WHEN,)).fetchone() for other in others for _ in range(3)}
        assert answers == {(world.second,)}
        for other in others:
            other.close()


def test_every_block_of_the_page_runs(world: World, server: Server) -> None:
    """docs/clients.md: its shell, and its SQL as the reader."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "clients.md").read_text()
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert {kind for kind, _ in blocks} == {"sh", "sql", "ini"}
    ran = 0
    with psycopg.connect(world.conninfo, autocommit=True) as db:
        for kind, text in blocks:
            if kind == "sql":
                for statement in text.split(";\n"):
                    if statement.strip():
                        assert db.execute(statement).fetchall()  # type: ignore[arg-type]
                        ran += 1
            elif kind == "sh":
                if server.pgpass is None:
                    continue
                program("psql", "postgresql-client")
                # .env is that of the server under test; the database is the test's.
                script = text.replace("set -a; . ./.env; set +a", "").replace(
                    "$ALPHAPLUS_PGPASS", '"$ALPHAPLUS_PGPASS"'
                )
                done = subprocess.run(
                    ["bash", "-euc", script], capture_output=True, text=True, check=False,
                    env={**world.environment, "ALPHAPLUS_PGPASS": str(server.pgpass)}, timeout=300,
                )  # fmt: skip
                assert done.returncode == 0 and "count" in done.stdout, done.stderr
                ran += 1
    assert ran >= 3
