"""``alphaplus live``: everything that runs live, on the simulated exchange, for a minute or two."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg
from alphaplus.cli.connect import role_conninfo
from alphaplus.loaders import simulator
from rich.console import Console
from rich.table import Table

MODEL = "liquidation_15m"
SHOWN = {
    "predictions of now": "select symbol, as_of, round(probability::numeric, 4) as probability,"
    " risk_level, is_fallback, left(reason, 60) as reason from ml.predict_liquidation('BTC/USDT')",
    "recorded at closes": "select model, close, symbols, stored, round(close_to_stored_ms) as"
    " close_to_stored_ms from ml.live_latency order by close desc limit 5",
    "open alerts": "select severity, kind, symbol, left(message, 70) as says from ops.open_alerts"
    " limit 10",
    "streams": "select stream, status, messages, rows_stored, open_gaps, latency_ms[2] as median_ms"
    " from market.stream_health",
    "not green": "select status, check_name, subject, left(detail, 60) as detail from ops.health"
    " where status <> 'green' limit 10",
}


def run(seconds: float, days: float, speed: float, train: bool) -> None:
    """History, a model, the feed with clock and rules, and at last what is known now."""
    console = Console()
    end = dt.datetime.now(dt.UTC).replace(second=0, microsecond=0)
    with psycopg.connect(role_conninfo("alphaplus_loader"), autocommit=True) as conn:
        for name in simulator.run(conn, ["BTC", "ETH"], days, 7, end, simulator.Config()):
            console.print(f"history of {name}: {days:g} days up to {end:%H:%M} UTC")
        conn.execute("call market.refresh_aggregates()")
    folder = tempfile.TemporaryDirectory()
    alphaplus = str(Path(sys.executable).parent / "alphaplus")
    feed = subprocess.Popen(
        [alphaplus, "stream", "simulator", "BTCUSDT", "ETHUSDT", "--channels",
         "trades,book,liquidations", "--speed", str(speed), "--spool", folder.name],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    trainer = None
    try:
        with psycopg.connect(role_conninfo("alphaplus_operator"), autocommit=True) as conn:
            conn.execute(
                "select ml.set_live_prediction(%s, array['BTCUSDT@sim', 'ETHUSDT@sim'])", (MODEL,)
            )
            if train:
                conn.execute("call ml.retrain(%s, 'BTCUSDT@sim')", (MODEL,))
                trainer = subprocess.Popen(
                    [sys.executable, "-m", "alphaplus.trainer"],
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )  # fmt: skip
            began = time.monotonic()
            while time.monotonic() - began < seconds:
                for statement in (
                    "call market.refresh_aggregates()", "call ml.record_live()",
                    "call market.refresh_trade_quantiles()", "call ops.check_alerts()",
                ):  # fmt: skip
                    try:
                        conn.execute(statement.encode())
                    except psycopg.errors.DatabaseError as error:
                        console.print(f"{statement}: {str(error).splitlines()[0]}", markup=False)
                time.sleep(2.0)
            for title, query in SHOWN.items():
                console.print(table(title, conn.execute(query.encode())))
    finally:
        for process in (feed, trainer):
            if process is not None:
                process.terminate()
                process.wait(60)
        folder.cleanup()


def table(title: str, cursor: psycopg.Cursor[Any]) -> Table:
    """What a query says, as a table."""
    out = Table(title=title, title_justify="left")
    for column in cursor.description or ():
        out.add_column(column.name)
    for row in cursor.fetchall():
        out.add_row(*("" if cell is None else str(cell) for cell in row))
    return out
