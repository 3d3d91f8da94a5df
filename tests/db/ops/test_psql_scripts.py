"""The operators' scripts run with plain psql, as the operator."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import conninfo as pq

SCRIPTS = Path(__file__).resolve().parents[3] / "sql" / "psql"

pytestmark = pytest.mark.skipif(shutil.which("psql") is None, reason="psql is not installed")


@pytest.fixture(scope="module")
def dbname(db_module: psycopg.Connection[Any]) -> str:
    db_module.execute(
        "insert into market.instruments (symbol, exchange, native_symbol, base, quote)"
        " values ('BTCUSDT', 'x', 'BTCUSDT', 'BTC', 'USDT')"
    )
    return db_module.info.dbname


def psql(
    server: Any, dbname: str, script: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    params = pq.conninfo_to_dict(server.conninfo(dbname, "alphaplus_operator"))
    password = str(params.pop("password"))
    return subprocess.run(
        [
            "psql",
            "-X",
            *(word for name, value in variables.items() for word in ("-v", f"{name}={value}")),
            "-f",
            str(SCRIPTS / f"{script}.sql"),
            pq.make_conninfo("", **params),
        ],
        env={**os.environ, "PGPASSWORD": password},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.mark.parametrize("script", ["status", "jobs", "models", "schedule", "live", "sentiment"])
def test_what_only_looks(server: Any, dbname: str, script: str) -> None:
    done = psql(server, dbname, script)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("script", ["promote", "rollback", "retrain", "regimes"])
def test_missing_variables_are_named(server: Any, dbname: str, script: str) -> None:
    done = psql(server, dbname, script)
    assert done.returncode == 3
    assert "usage: psql -v" in done.stderr


def test_every_script_is_tested() -> None:
    names = {path.stem for path in SCRIPTS.glob("*.sql")}
    assert names == {
        "status",
        "loads",
        "jobs",
        "models",
        "promote",
        "rollback",
        "retrain",
        "schedule",
        "regimes",
        "live",
        "sentiment",
        # tests/db/analytics/test_analytics_docs.py runs this with data.
        "analytics",
        # tests/db/ml/test_life_docs.py runs these, which need a trained line.
        "alerts",
        "calendar",
        "compare",
        "drift_check",
        "drift_summary",
    }


def test_retrain(server: Any, dbname: str) -> None:
    done = psql(server, dbname, "retrain", model="liquidation_15m", symbol="btcusdt")
    assert done.returncode == 0, done.stderr
    assert "BTCUSDT" in done.stdout
    assert "queued" in psql(server, dbname, "jobs", status="queued").stdout
    failed = psql(server, dbname, "retrain", model="no_such")
    assert failed.returncode == 3
    assert "unknown model" in failed.stderr


def test_promote_and_rollback_say_what_is_wrong(server: Any, dbname: str) -> None:
    done = psql(server, dbname, "promote", version="99")
    assert done.returncode == 3
    assert "ERROR" in done.stderr
    done = psql(server, dbname, "rollback", model="liquidation_15m", symbol="BTCUSDT")
    assert done.returncode == 3
    assert "ERROR" in done.stderr
    assert "usage" not in done.stderr


def test_schedule(server: Any, dbname: str, db_module: psycopg.Connection[Any]) -> None:
    psql(server, dbname, "schedule", name="housekeeping", enabled="false", cron="5 4 * * *")
    row = db_module.execute("select enabled, cron from ops.schedules where name = 'housekeeping'")
    assert row.fetchone() == (False, "5 4 * * *")
    done = psql(server, dbname, "schedule", name="housekeeping", run="true")
    assert done.returncode == 0, done.stderr
    assert "succeeded" in done.stdout
    done = psql(server, dbname, "schedule", model="liquidation_5m", symbol="BTCUSDT")
    assert "retrain:liquidation_5m:BTCUSDT" in done.stdout
    assert psql(server, dbname, "schedule", name="nap", run="true").returncode == 3


def test_loads(server: Any, dbname: str) -> None:
    done = psql(server, dbname, "loads")
    assert done.returncode == 0, done.stderr
    assert "== instruments whose contract is not known" in done.stdout
    assert "BTCUSDT" in done.stdout  # made without a contract


def test_sentiment_prints_a_symbol_s_texts(server: Any, dbname: str) -> None:
    done = psql(server, dbname, "sentiment", symbol="BTC")
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in done.stderr
    assert "text_count" in done.stdout
    assert psql(server, dbname, "sentiment").stderr == ""
