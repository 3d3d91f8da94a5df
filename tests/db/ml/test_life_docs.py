"""Every block of docs/drift.md and docs/lifecycle.md runs, as the operator; so do the scripts."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import conninfo as pq

from tests.conftest import Server
from tests.db.ml.test_model_life import Line
from tests.db.ops.test_psql_scripts import psql

Conn = psycopg.Connection[Any]
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def line(db_module: Conn) -> Line:
    made = Line(db_module)
    db_module.execute("call ml.promote(%s, 'first', true)", (made.weak,))
    db_module.execute("call ml.set_alias(%s, 'challenger')", (made.good,))
    db_module.execute("call drift.refresh(%s)", (made.end,))
    return made


def blocks(page: str, kind: str) -> list[str]:
    text = (ROOT / "docs" / f"{page}.md").read_text()
    return re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("page", ["drift", "lifecycle"])
def test_every_block_runs(
    line: Line, server: Server, connect_as: Callable[[str, str], Conn], page: str
) -> None:
    operator = connect_as("alphaplus_operator", line.db.info.dbname)
    found = blocks(page, "sql")
    assert len(found) >= 7
    for block in found:
        for statement in re.split(r";\n", block):
            if statement.strip():
                operator.execute(statement)  # type: ignore[arg-type]
    params = pq.conninfo_to_dict(server.conninfo(line.db.info.dbname, "alphaplus_operator"))
    env = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PG", "DATABASE", "ALPHA"))
    }
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD",
             "dbname": "PGDATABASE", "sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT"}  # fmt: skip
    env |= {names[key]: str(value) for key, value in params.items() if key in names}
    env["PATH"] = f"{ROOT / '.venv' / 'bin'}:{env['PATH']}"
    for block in blocks(page, "sh"):
        done = subprocess.run(
            ["bash", "-ec", block],
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "toy" in done.stdout or "schedules_on" in done.stdout
    if page == "drift":
        failed = subprocess.run(
            ["alphaplus", "drift", "check", "--model", "none"],
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert failed.returncode == 1 and "AP302" in failed.stderr


def test_operators_scripts(line: Line, server: Server) -> None:
    dbname = line.db.info.dbname
    done = psql(server, dbname, "drift_check", model="toy", symbol="AAA", window="400 days")
    assert done.returncode == 0 and "f0" in done.stdout, done.stderr
    assert psql(server, dbname, "drift_check").returncode == 3
    for script, variables in (
        ("drift_summary", {"days": "3"}), ("calendar", {}), ("alerts", {}),
        ("compare", {"version": str(line.good)}),
    ):  # fmt: skip
        done = psql(server, dbname, script, **variables)
        assert done.returncode == 0, done.stderr
    line.db.execute("select ops.raise_alert('test', 'low', 'scripts', 'hello')")
    (alert,) = line.db.execute("select max(alert_id) from ops.alerts").fetchone() or (0,)
    done = psql(server, dbname, "alerts", acknowledge=str(alert), note="seen")
    assert done.returncode == 0 and "hello" in done.stdout
    row = line.db.execute(
        "select acknowledged, note from ops.open_alerts join ops.alerts using (alert_id) where alert_id = %s",
        (alert,),
    ).fetchone()
    assert row == (True, "seen")
