"""Every block of docs/loading.md is run, as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg

from tests.conftest import ROOT, Server

PAGE = ROOT / "docs" / "loading.md"


def blocks() -> list[tuple[str, str]]:
    return re.findall(r"^```(sh|sql)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_every_block_runs(db: psycopg.Connection[Any], server: Server, tmp_path: Path) -> None:
    found = blocks()
    assert [kind for kind, _ in found].count("sh") >= 4
    params = psycopg.conninfo.conninfo_to_dict(server.conninfo(db.info.dbname))
    names = {"host": "PGHOST", "port": "PGPORT", "dbname": "PGDATABASE", "user": "PGUSER",
             "password": "PGPASSWORD", "sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT"}  # fmt: skip
    env = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    env |= {names[key]: str(value) for key, value in params.items() if key in names}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    said = ""
    for kind, text in found:
        if kind == "sql":
            db.execute(text)  # type: ignore[call-overload]
            continue
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text], cwd=tmp_path, env=env, capture_output=True,
            text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, text + done.stdout + done.stderr
        said += done.stdout
    assert "1 gaps (longest 1 bars)" in said  # what inspect says of the missing hour
    rows = db.execute(
        "select symbol, count(*), sum(volume) from market.candles group by 1 order by 1"
    ).fetchall()
    assert rows == [
        ("BTC-PERP@ftx", 3, 15000 * 0.0001 + 9000 * 0.0001 + 92620 / 46310),
        ("BTC-USD.SPOT@coinbase", 3, 31.0),
    ]


def test_every_option_of_the_page_is_there() -> None:
    said = set(re.findall(r"--[a-z-]+", PAGE.read_text()))
    source = (ROOT / "loaders" / "alphaplus" / "cli" / "files.py").read_text()
    for option in said - {"--help"}:
        name = option.removeprefix("--").replace("-", "_")
        assert name in source or option in source, option
