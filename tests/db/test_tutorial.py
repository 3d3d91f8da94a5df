"""docs/tutorial.md, the first hours on real data: every block in order, as it stands there.

``pytest -s`` prints what the page shows.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import psycopg
import pytest
import sqlparse
from psycopg import conninfo as pq
from sklearn.metrics import roc_auc_score

from tests.conftest import ROOT, Server

PAGE = ROOT / "docs" / "tutorial.md"
ETH = "ETHUSDT"
LAST = "2026-03-05 11:00+00"
pytestmark = [pytest.mark.long, pytest.mark.deep]


def blocks() -> list[tuple[str, str]]:
    return re.findall(r"^```(sh|sql|python)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def environment(server: Server, dbname: str, data: Path) -> dict[str, str]:
    """A shell's settings: the operator, the trainer's password where `make up` writes it."""
    params = pq.conninfo_to_dict(server.conninfo(dbname, "alphaplus_operator"))
    names = {"host": "PGHOST", "port": "PGPORT", "dbname": "PGDATABASE", "user": "PGUSER",
             "password": "PGPASSWORD", "sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT"}  # fmt: skip
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "DATABASE", "ALPHA"))}
    env |= {names[key]: str(value) for key, value in params.items() if key in names}
    env |= {"ALPHAPLUS_PGPASS": str(server.pgpass), "DATA": str(data), "PAGER": "cat"}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    return env


def shell(text: str, folder: Path, env: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text], cwd=folder, env=env, capture_output=True,
        text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, text + done.stdout + done.stderr
    print(done.stdout)
    return done.stdout


def text_of(value: Any) -> str:
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, dt.datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}+00"
    if isinstance(value, dt.timedelta):
        return str(value).zfill(8)
    return "" if value is None else str(value)


def show(names: list[str], rows: list[tuple[Any, ...]]) -> None:
    """A table as psql prints it."""
    cells = [[text_of(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    right = [all(isinstance(v, float | int | Decimal | None) for v in column)
             and not any(isinstance(v, bool) for v in column)
             for column in zip(*rows, strict=True)] or [False] * len(names)  # fmt: skip
    print(" " + " | ".join(n.center(w) for n, w in zip(names, widths, strict=True)).rstrip())
    print("-" + "-+-".join("-" * w for w in widths) + "-")
    for row in cells:
        told = (v.rjust(w) if r else v.ljust(w) for v, w, r in zip(row, widths, right, strict=True))
        print(" " + " | ".join(told).rstrip())
    print()


def query(conn: psycopg.Connection[Any], text: str) -> None:
    for statement in sqlparse.split(text):
        cursor = conn.execute(statement.encode())
        if cursor.description is not None:
            show([column.name for column in cursor.description], cursor.fetchall())


def shown_auc() -> dict[int, float]:
    """The AUC of each version in the page's leaderboards."""
    found = re.findall(
        r"^ +\d+ \| +(\d+) \| (?:lightgbm|lstm) +\| +\d+ \| +([\d.]+) \|",
        PAGE.read_text(), re.MULTILINE,
    )  # fmt: skip
    return {int(version): float(auc) for version, auc in found}


def test_the_first_hours(
    db: psycopg.Connection[Any], server: Server, shared_data: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    env = environment(server, db.info.dbname, shared_data / "perps_hourly")
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("PG", "DATABASE", "ALPHA"))]:
        monkeypatch.delenv(name)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    found = blocks()
    assert {kind for kind, _ in found} == {"sh", "sql", "python"}
    names: dict[str, Any] = {}
    said = ""
    with psycopg.connect("", autocommit=True) as operator:
        operator.add_notice_handler(lambda notice: print("NOTICE:", notice.message_primary))
        for kind, text in found:
            print(f"--- {kind}: {text[:60]!r}")
            if kind == "sh":
                said += shell(text, tmp_path, env)
            elif kind == "python":
                names = {}
                exec(compile(text, "tutorial.md", "exec"), names)
            else:
                query(operator, text)
        check_the_market(db, said)
        check_the_versions(db)
        check_the_gates(db)
        check_the_answer(db)
        check_the_export(tmp_path / "exported")
        check_ones_own(db, names["booster"], names["version"])


def check_the_market(db: psycopg.Connection[Any], said: str) -> None:
    assert "ETHUSDT (perpetual ETH/USDT linear)" in said
    rows = db.execute("select symbol, rows, gaps from market.coverage order by 1").fetchall()
    assert rows == [("BTCUSDT", 8736, 0), (ETH, 8736, 0)]
    hits = db.execute(
        "select hit, min(return_bps), max(return_bps) from ml.label_barriers('up_2pct_6h', %s,"
        " '2025-09-06', '2026-03-05', grid => '1 hour') group by 1 order by 1", (ETH,),
    ).fetchall()  # fmt: skip
    assert [hit for hit, _, _ in hits] == ["down", "time", "up"]
    (_, low, high) = hits[1]
    assert np.exp(low / 1e4) > 0.98 and np.exp(high / 1e4) < 1.02  # no barrier, no close beyond it


def check_the_versions(db: psycopg.Connection[Any]) -> None:
    jobs = db.execute("select status, error from ml.training_jobs order by job_id").fetchall()
    assert jobs == [("succeeded", None)] * 4
    alias = db.execute("select alias from ml.leaderboard where version_id = 1").fetchone()
    assert alias == ("champion",)
    shown = shown_auc()
    assert sorted(shown) == [1, 2]
    for version, auc in shown.items():
        rows = db.execute(
            "select target, prediction from ml.out_of_fold(%s)", (version,)
        ).fetchall()
        target, prediction = zip(*rows, strict=True)
        assert roc_auc_score(target, prediction) == pytest.approx(auc, abs=0.03)


def check_the_gates(db: psycopg.Connection[Any]) -> None:
    """Version 3 is refused by AP406 exactly if a gate failed, as the page says."""
    failed = db.execute("select gate from ml.gate_report(3) where not passed").fetchall()
    code = None
    try:
        db.execute("call ml.promote(3)")
    except psycopg.Error as error:
        code = error.sqlstate
    assert code == ("AP406" if failed else None)


def check_the_answer(db: psycopg.Connection[Any]) -> None:
    """What explains it adds up to the log odds of what is predicted; nothing is unknown."""
    answer = db.execute(
        "select version_id, probability, missing_share from ml.predict('eth_up', %s, %s)", (ETH, LAST)
    ).fetchone()  # fmt: skip
    assert answer is not None
    version, probability, missing = answer
    assert (version, missing) == (1, 0)
    parts = db.execute(
        "select feature, contribution from ml.explain('eth_up', %s, %s)", (ETH, LAST)
    ).fetchall()
    assert {"btc_return_1h", "btc_return_24h", "funding", "base"} <= {name for name, _ in parts}
    score = sum(part for _, part in parts)
    assert 1 / (1 + np.exp(-score)) == pytest.approx(probability, abs=1e-9)


def check_the_export(folder: Path) -> None:
    about = json.loads((folder / "about.json").read_text())
    booster = lightgbm.Booster(model_file=str(folder / "model.txt"))
    assert booster.feature_name() == about["features"]
    if about["spec"]["calibration"] is None:
        says = booster.predict(np.array(about["probe"]["rows"], dtype=float))
        assert says == pytest.approx(np.array(about["probe"]["outputs"]), abs=1e-9)


def check_ones_own(db: psycopg.Connection[Any], booster: lightgbm.Booster, version: int) -> None:
    """What the database measured of it is what scikit-learn measures of the booster itself."""
    assert version == 4
    rows = db.execute(
        "select features, target from ml.training_set('eth_up', %s, %s, '2026-01-16', '2026-03-05')",
        (ETH, LAST),
    ).fetchall()  # fmt: skip
    features, target = zip(*rows, strict=True)
    own = roc_auc_score(target, booster.predict(np.array(features, dtype=float)))
    measured = db.execute(
        "select metrics ->> 'auc', metrics ->> 'rows' from ml.evaluations where version_id = 4"
    ).fetchone()
    assert measured is not None
    assert int(measured[1]) == len(rows)
    assert float(measured[0]) == pytest.approx(own, abs=1e-9)
