"""`make dump` and `make restore`: all comes back, into a database of nobody's."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import lightgbm
import psycopg
import pytest
from psycopg import sql

from tests.conftest import ROOT, Server
from tests.db import lifecycle as toy

SCORES = "select r.ts, (ml.score_version(%s, r.features)).raw from public.toy_rows r order by r.ts limit 300"
COUNTS = (
    "select (select count(*) from market.trades), (select sum(volume) from market.candles_5m),"
    " (select count(*) from ml.model_versions), (select count(*) from ops.settings),"
    " (select count(*) from ml.training_jobs), (select count(*) from procrastinate.procrastinate_jobs)"
)


def backup(*arguments: str) -> subprocess.CompletedProcess[str]:
    keep = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
    return subprocess.run(
        [str(ROOT / "docker" / "backup"), *arguments],
        env=keep, capture_output=True, text=True, timeout=toy.HANG, check=False,
    )  # fmt: skip


@pytest.mark.long
def test_what_is_dumped_comes_back(
    db: psycopg.Connection[Any], admin: psycopg.Connection[Any], server: Server, tmp_path: Path
) -> None:
    if server.pgpass is None:
        pytest.skip("the tools of DATABASE_URL's server are not ours")
    toy.install(db)
    toy.fill(db)
    x, _, y = toy.toy_rows(3000)
    booster = lightgbm.train(
        {"objective": "binary", "num_threads": 1, "verbose": -1}, lightgbm.Dataset(x, y), 20
    )
    version = toy.register(db, artifact=booster.model_to_string().encode())
    toy.retrain(db)
    db.execute(
        "insert into market.trades (symbol, ts, trade_id, price, size, side, known_at)"
        " select 'AAA', t, extract(epoch from t)::bigint, 100 + random(), 1, 'buy', t"
        " from generate_series('2026-01-01'::timestamptz, '2026-01-03', interval '1 minute') t"
    )
    db.execute("call market.refresh_aggregates()")
    scores, counts = (
        db.execute(SCORES, (version,)).fetchall(),
        db.execute(COUNTS).fetchone(),
    )
    assert len({raw for _, raw in scores}) > 100
    file = tmp_path / "a.dump"
    done = backup("dump", str(file), db.info.dbname)
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr and "cron" not in done.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert backup("dump", str(file), db.info.dbname).returncode != 0  # it is there already
    name = f"aptest_{os.getpid()}_restored"
    try:
        done = backup("restore", str(file), name)
        assert done.returncode == 0, done.stderr
        assert "error" not in done.stderr
        with psycopg.connect(server.conninfo(name), autocommit=True) as conn:
            assert conn.execute(SCORES, (version,)).fetchall() == scores
            assert conn.execute(COUNTS).fetchone() == counts
            assert conn.execute(
                "select has_database_privilege('public', current_database(), 'connect')"
                " or has_database_privilege('public', current_database(), 'temporary')"
            ).fetchone() == (False,)
            # It goes on: what is written is written, and refreshed.
            conn.execute("delete from market.trades where ts < '2026-01-02'")
            conn.execute("call market.refresh_aggregates()")
        refused = backup("restore", str(file), name)
        assert refused.returncode == 1 and "there is a database" in refused.stderr
    finally:
        admin.execute(
            sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name))
        )
