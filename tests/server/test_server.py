"""The server itself: how one gets in, what is in it, and that the data stays."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import stat
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import conninfo as pq

from tests.conftest import ROOT, SecondServer, Server

OURS = ("loader", "trainer", "app", "reader", "operator", "owner")


def test_no_connection_without_tls(server: Server) -> None:
    with pytest.raises(psycopg.OperationalError, match=r"no encryption|pg_hba"):
        psycopg.connect(pq.make_conninfo(server.superuser, sslmode="disable"), connect_timeout=5)


def test_connections_are_tls_with_a_verified_certificate(server: Server) -> None:
    if server.pgpass is None:
        pytest.skip("the certificate of DATABASE_URL's server is not ours")
    with psycopg.connect(server.conninfo()) as conn:
        assert conn.info.get_parameters()["sslmode"] == "verify-full"
        row = conn.execute(
            "select version from pg_stat_ssl where pid = pg_backend_pid()"
        ).fetchone()
        assert row is not None and row[0] >= "TLSv1.2"


def test_passwords_are_scram_and_a_wrong_one_is_refused(
    server: Server, admin: psycopg.Connection[Any]
) -> None:
    rows = admin.execute(
        "select rolname, rolpassword from pg_authid where rolname like 'alphaplus_%' and rolcanlogin"
    ).fetchall()
    if server.pgpass is not None:
        assert {name for name, _ in rows} == {f"alphaplus_{role}" for role in OURS}
        assert all(password.startswith("SCRAM-SHA-256$") for _, password in rows)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(pq.make_conninfo(server.superuser, password="wrong"), connect_timeout=5)


def test_our_roles_may_make_nothing(admin: psycopg.Connection[Any]) -> None:
    rows = admin.execute(
        "select rolname from pg_roles where rolname like 'alphaplus_%'"
        " and (rolsuper or rolcreatedb or rolcreaterole or rolreplication or rolbypassrls)"
    ).fetchall()
    assert rows == []


def test_the_password_file_is_private(server: Server) -> None:
    if server.pgpass is None:
        pytest.skip("no password file beside DATABASE_URL")
    assert stat.S_IMODE(server.pgpass.stat().st_mode) == 0o600
    env = ROOT / ".env"
    if env.exists():
        assert stat.S_IMODE(env.stat().st_mode) == 0o600


def test_extensions(db: psycopg.Connection[Any]) -> None:
    rows = db.execute("select extname from pg_extension").fetchall()
    assert {"timescaledb", "vector", "plpython3u", "plpgsql_check"} <= {name for (name,) in rows}
    row = db.execute(
        "select count(*) from pg_available_extensions where name = 'pg_cron'"
    ).fetchone()
    assert row == (1,)


def test_public_has_nothing(db: psycopg.Connection[Any]) -> None:
    rows = db.execute(
        "select n.nspname from pg_namespace n, aclexplode(n.nspacl) a where a.grantee = 0"
        " and n.nspname !~ '^(pg_|information_schema|_?timescaledb)'"
    ).fetchall()
    assert rows == []
    row = db.execute(
        "select count(*) from pg_database d, aclexplode(d.datacl) a"
        " where d.datname = current_database() and a.grantee = 0"
    ).fetchone()
    assert row == (0,)


def test_settings_are_sized_from_the_machine(
    server: Server, admin: psycopg.Connection[Any]
) -> None:
    if server.state is None:
        pytest.skip("the settings of DATABASE_URL's server are not ours")
    text = (server.state / "data" / "alphaplus.conf").read_text()
    row = admin.execute(
        "select current_setting('shared_buffers'), current_setting('jit')"
    ).fetchone()
    assert row is not None
    wanted = next(line for line in text.splitlines() if line.startswith("shared_buffers"))
    size = admin.execute(
        "select pg_size_bytes(%s) = pg_size_bytes(%s)", (wanted.split()[-1], row[0])
    )
    assert size.fetchone() == (True,)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    got = admin.execute("select pg_size_bytes(current_setting('shared_buffers'))").fetchone()
    assert got is not None and 128 * 2**20 <= got[0] <= max(memory // 4, 128 * 2**20)


def test_python_in_the_server_is_ours(db: psycopg.Connection[Any]) -> None:
    db.execute(
        "create function pg_temp.where_from() returns text language plpython3u as"
        " $$import alphaplus.server, lightgbm.libpath as l; return l.__file__$$"
    )
    row = db.execute("select pg_temp.where_from()").fetchone()
    assert row is not None and row[0].startswith("/opt/alphaplus/")


def test_data_survives_a_stop_and_a_kill(second_server: SecondServer) -> None:
    with psycopg.connect(second_server.server.conninfo(), autocommit=True) as conn:
        conn.execute("create table if not exists kept (x int)")
        conn.execute("insert into kept values (1)")
    second_server.stop()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(second_server.server.conninfo(), connect_timeout=5)
    second_server.start()
    with psycopg.connect(second_server.server.conninfo(), autocommit=True) as conn:
        conn.execute("insert into kept values (2)")
    second_server.kill9()
    second_server.start()
    with psycopg.connect(second_server.server.conninfo()) as conn:
        assert conn.execute("select array_agg(x order by x) from kept").fetchone() == ([1, 2],)


def test_the_server_is_a_user_of_its_own_who_reads_no_password(
    second_server: SecondServer,
) -> None:
    """Its number is nobody else's on this machine; not even its superuser gets at the passwords."""
    state = second_server.state
    pid = int((state / "data" / "postmaster.pid").read_text().splitlines()[0])
    uid = Path(f"/proc/{pid}").stat().st_uid
    if os.geteuid() == 0:
        assert pwd.getpwuid(uid).pw_name == "alphaplus-db"
        assert [entry.pw_name for entry in pwd.getpwall() if entry.pw_uid == uid] == [
            "alphaplus-db"
        ]
        assert state.stat().st_uid == 0  # or its user could put another file in the place
        assert (state / "pgpass").stat().st_uid == 0
    for name in ("pgpass", "log", *(f"logs/{path.name}" for path in (state / "logs").iterdir())):
        assert stat.S_IMODE((state / name).stat().st_mode) == 0o600, name
    with psycopg.connect(second_server.server.conninfo(), autocommit=True) as conn:
        with pytest.raises(psycopg.Error):
            conn.execute("select pg_read_file('/state/pgpass')")
        with pytest.raises(psycopg.Error):
            conn.execute("copy (select 1) to '/state/pgpass'")


def test_no_log_has_a_password(second_server: SecondServer) -> None:
    passwords = {
        line.rsplit(":", 1)[1] for line in (second_server.state / "pgpass").read_text().splitlines()
    }
    files = [second_server.state / "log", second_server.state / "first-start.log"]
    for path in (*files, *(second_server.state / "logs").iterdir()):
        text = path.read_text()
        assert not [word for word in passwords if word in text], path


def test_logs_keep_no_long_parameter(second_server: SecondServer) -> None:
    marks = "z" * 5000
    with psycopg.connect(second_server.server.conninfo(), autocommit=True) as conn:
        conn.execute("set log_min_duration_statement = 0")
        conn.execute("select length(%s), 'long one'", (marks,))
        with contextlib.suppress(psycopg.Error):
            conn.execute("select %s::int", (marks,))
    text = "".join(path.read_text() for path in (second_server.state / "logs").iterdir())
    assert "long one" in text
    assert "z" * 300 not in text.replace(f'integer: "{marks}"', "")


def test_a_stale_pid_is_no_running_server(second_server: SecondServer) -> None:
    """The file of a server that was killed may name a process that is another program by now."""
    second_server.stop()
    file = second_server.state / "data" / "postmaster.pid"
    other = subprocess.Popen(["sleep", "600"], executable="/bin/sleep")
    lookalike = subprocess.Popen(
        ["postgres", "600"], executable="/bin/sleep"
    )  # postgres of another folder
    try:
        for process in (other, lookalike):
            file.write_text(f"{process.pid}\n/state/data\n0\n1\n\nlocalhost\n0 0\nready\n")
            assert second_server.call("status").returncode == 3
            assert second_server.call("down").returncode == 0
            assert process.poll() is None
        second_server.start()
        assert second_server.call("status").returncode == 0
        assert other.poll() is None and lookalike.poll() is None
    finally:
        other.kill()
        lookalike.kill()
        other.wait()
        lookalike.wait()


def test_up_after_a_killed_postmaster_whose_backend_works_on(second_server: SecondServer) -> None:
    busy = psycopg.connect(second_server.server.conninfo(), autocommit=True)
    busy.execute("create extension if not exists plpython3u")
    pid = busy.execute("select pg_backend_pid()").fetchone()
    assert pid is not None
    worker = threading.Thread(target=_work, args=(busy,), daemon=True)
    worker.start()
    postmaster = int((second_server.state / "data" / "postmaster.pid").read_text().splitlines()[0])
    time.sleep(1)
    os.kill(postmaster, signal.SIGKILL)
    for _ in range(100):
        if not Path(f"/proc/{postmaster}").exists():
            break
        time.sleep(0.1)
    second_server.start()
    worker.join(60)
    assert not worker.is_alive()
    with psycopg.connect(second_server.server.conninfo()) as conn:
        assert conn.execute("select 1").fetchone() == (1,)


def _work(conn: psycopg.Connection[Any]) -> None:
    with contextlib.suppress(psycopg.Error):
        conn.execute(
            "do language plpython3u $$\nimport time\nend = time.monotonic() + 600\n"
            "while time.monotonic() < end:\n    pass\n$$"
        )


def test_up_twice_does_nothing(second_server: SecondServer) -> None:
    before = (second_server.state / "data" / "postmaster.pid").read_text().splitlines()[0]
    done = second_server.call("up")
    assert done.returncode == 0 and "already running" in done.stdout
    after = (second_server.state / "data" / "postmaster.pid").read_text().splitlines()[0]
    assert before == after


def test_up_on_another_port_says_where_it_runs(second_server: SecondServer) -> None:
    port = second_server.env["PGPORT"]
    for word, code in (("up", 1), ("status", 0)):
        done = subprocess.run(
            [str(ROOT / "docker" / "server"), word],
            env={**second_server.env, "PGPORT": str(int(port) + 1)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code
        assert port in done.stdout + done.stderr
        assert f"port {int(port) + 1}\n" not in done.stdout


def test_a_taken_port_is_said_with_what_to_do(second_server: SecondServer, tmp_path: Path) -> None:
    done = subprocess.run(
        [str(ROOT / "docker" / "server"), "up"],
        env={**second_server.env, "ALPHAPLUS_STATE": str(tmp_path / "third")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "is taken" in done.stderr and "PGPORT=" in done.stderr


def test_without_network_it_says_so(second_server: SecondServer, tmp_path: Path) -> None:
    """An empty cache and a package source that is not there: the message names the log."""
    if os.geteuid() != 0:
        pytest.skip("needs root for the fast path")
    done = subprocess.run(
        [str(ROOT / "docker" / "server"), "up"],
        env={
            **os.environ,
            "ALPHAPLUS_STATE": str(tmp_path / "s"),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "PGPORT": "1",
            "http_proxy": "http://127.0.0.1:9",
            "https_proxy": "http://127.0.0.1:9",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 1
    assert "network" in done.stderr and "DATABASE_URL" in done.stderr
