"""A small world in which every tile has something to show: simulated, trained, recorded, checked.

All of it by the doors that users have: the loader's simulator, the queue and a trainer, the
procedures of the clock.
"""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from typing import Any

import psycopg
from alphaplus.loaders import simulator

Conn = psycopg.Connection[Any]
SYMBOL = "BTCUSDT@sim"
MODEL = "liquidation_5m"
END = dt.datetime(2024, 6, 30, tzinfo=dt.UTC)


def fill(db: Conn, days: float = 5) -> None:
    """The world up to END in an empty database."""
    db.execute("set client_min_messages = warning")
    assert simulator.run(db, ["BTC"], days, 7, END) == [SYMBOL]
    db.execute("call market.refresh_aggregates()")
    db.execute("call feature.refresh()")
    db.execute("analyze")
    db.execute("call regime.refresh()")
    trained = END - dt.timedelta(hours=12)
    db.execute("call ml.retrain(%s, %s, as_of => %s)", (MODEL, SYMBOL, trained))
    # One that cannot be trained: no job may be so empty.
    db.execute("call ml.retrain('direction_24h', %s, as_of => %s)", (SYMBOL, trained))
    done = subprocess.run(
        [sys.executable, "-m", "alphaplus.trainer", "--drain"],
        env={**os.environ, "DATABASE_URL": db_address(db)}, capture_output=True, text=True,
        check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = db.execute("select max(version_id) from ml.model_versions").fetchone()
    assert found and found[0], db.execute("select model, error from ml.training_jobs").fetchall()
    db.execute("call ml.promote(%s, 'for the test', true)", (found[0],))
    watched(db)


def watched(db: Conn) -> None:
    """Twelve hours of service: predictions and what came of them, drift, a back-test."""
    for step in range(48):
        at = END - dt.timedelta(hours=12) + step * dt.timedelta(minutes=15)
        db.execute("select ml.record_prediction(%s, %s, %s)", (MODEL, SYMBOL, at))
    db.execute("call ml.join_outcomes(%s)", (END,))
    db.execute("call drift.take_references()")
    for hours in (6, 0):
        db.execute("call drift.monitor(%s)", (END - dt.timedelta(hours=hours),))
    db.execute("call analytics.refresh()")
    db.execute(
        "select backtest.create_strategy('quiet', %s, array[%s], %s)",
        (MODEL, SYMBOL, '{"enter_short": 0.05, "exit_short": 0.1, "hold": "15 minutes"}'),
    )
    db.execute(
        "select * from backtest.run_variants('quiet', '[{}, {\"enter_short\": 0.02}]', %s, %s)",
        (END - dt.timedelta(days=2), END),
    )


def db_address(db: Conn) -> str:
    """The connection string of a connection, its password in it."""
    return psycopg.conninfo.make_conninfo(db.info.dsn, password=db.info.password)
