"""Every block of docs/sentiment.md runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg

ROOT = Path(__file__).resolve().parents[3]


def test_every_block_runs(db: psycopg.Connection[Any], server: Any, tmp_path: Path) -> None:
    db.execute(
        "insert into market.instruments (symbol, exchange, native_symbol, base, quote) values"
        " ('BTCUSDT', 'binance', 'BTCUSDT', 'BTC', 'USDT'), ('ETHUSDT', 'binance', 'ETHUSDT', 'ETH', 'USDT')"
    )
    blocks = re.findall(
        r"^```(sql|sh)\n(.*?)^```", (ROOT / "docs" / "sentiment.md").read_text(), re.M | re.S
    )
    assert [kind for kind, _ in blocks].count("sql") >= 4
    url = psycopg.conninfo.conninfo_to_dict(server.conninfo(db.info.dbname, "alphaplus_loader"))
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE",
             "sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT"}  # fmt: skip
    env = {
        **{
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("PG", "ALPHAPLUS", "DATABASE"))
        },
        **{names[key]: str(value) for key, value in url.items() if key in names},
        "TMPDIR": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    for kind, block in blocks:
        if kind == "sh":
            done = subprocess.run(
                ["bash", "-ec", block], env=env, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
        else:
            for statement in filter(str.strip, block.split(";\n")):
                db.execute(statement)
    row = db.execute(
        "select text_count, copy_count, scored_count from sentiment.summary('BTC', 24, '2024-03-05 00:00+00')"
    ).fetchone()
    assert row == (3, 1, 2)
