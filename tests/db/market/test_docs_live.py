"""Every block of docs/live.md and docs/alerts.md is run, as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.conftest import ROOT, Server


@pytest.mark.parametrize("page", ["live", "alerts"])
def test_every_block_runs(
    db: psycopg.Connection[Any], server: Server, tmp_path: Path, page: str
) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text()
    found = re.findall(r"^```(sh|sql)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(found) >= 4
    params = psycopg.conninfo.conninfo_to_dict(server.conninfo(db.info.dbname))
    names = {"host": "PGHOST", "port": "PGPORT", "dbname": "PGDATABASE", "user": "PGUSER",
             "password": "PGPASSWORD", "sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT"}  # fmt: skip
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "ALPHAPLUS"))}
    env |= {names[key]: str(value) for key, value in params.items() if key in names}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    if page == "live":
        db.execute("insert into market.instruments (symbol, exchange, native_symbol, base, quote, kind,"
                   " is_simulated) values ('BTCUSDT@sim', 'sim', 'BTCUSDT', 'BTC', 'USDT',"
                   " 'perpetual', true)")  # fmt: skip
    for kind, block in found:
        if kind == "sql":
            for statement in re.split(r";\n", block):
                if statement.strip():
                    db.execute(statement)  # type: ignore[call-overload]
            continue
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block], cwd=tmp_path, env=env, capture_output=True,
            text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, block + done.stdout + done.stderr
    if page == "live":
        rows = dict(db.execute("select stream, messages from market.streams").fetchall())
        # The replay has the answer to the subscription, too: what was recorded came again.
        assert rows["again"] == rows["simulator"] > 0
