"""Every SQL, shell and Python block of README and of every page is run by a test.

Pages with a world of their own are run by the module that :data:`ELSEWHERE` names; the others are run
here, block by block in their order, on one small simulated market with three trained versions. A block that
needs what a test cannot have says so in the line above it: ``<!-- not run here: why -->``.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import lightgbm
import numpy as np
import psycopg
import pytest
import sqlparse
from alphaplus.loaders import simulator
from psycopg import conninfo as pq
from psycopg.types.json import Jsonb

from tests.conftest import ROOT, Server
from tests.db import lifecycle

Conn = psycopg.Connection[Any]
END = simulator.DEFAULT_END
DAYS = 6.0
# Pages whose blocks another module runs as they stand, and that module.
ELSEWHERE = {
    "alerts": "test_docs_live.py",
    "analytics": "test_analytics_docs.py",
    "backtest": "test_analytics_docs.py",
    "clients": "test_clients.py",
    "dashboards": "test_dashboards.py",
    "drift": "test_life_docs.py",
    "ensembles": "test_ensembles.py",
    "features": "test_feature_sets.py",
    "lifecycle": "test_life_docs.py",
    "live": "test_docs_live.py",
    "loading": "test_docs_loading.py",
    "regimes": "test_regime_docs.py",
    "sentiment": "test_sentiment_docs.py",
    "tutorial": "test_tutorial.py",
}
# In this order: the last one drops old rows.
HERE = ("README", "client", "models", "operations")
# Blocks that are no code, by page and first words; README's commands that need more than a test has.
NO_CODE = {
    ("architecture", "types"): "the layers, drawn",
    ("dashboards", "dashboards:"): "what a command prints",
    ("dashboards", "[[tiles]]"): "a file of settings",
    (
        "README",
        "make demo",
    ): "the whole demo and the whole suite: minutes; make demo is tried by hand",
    ("README", "alphaplus inspect"): "the user's own files; loading.md runs both commands",
}
CODE = ("sql", "sh", "python")
PLAIN = ("text", "mermaid", "ini", "toml", "json")  # output, drawings, files of settings


class Block(NamedTuple):
    """A block of a page: where it begins, what it is, its text, and why it is not run, if so."""

    page: str
    line: int
    kind: str
    text: str
    not_run: str


def path_of(page: str) -> Path:
    return ROOT / "README.md" if page == "README" else ROOT / "docs" / f"{page}.md"


def blocks(page: str) -> list[Block]:
    """The fenced blocks, and those indented by four that are no part of a list."""
    lines = path_of(page).read_text().splitlines()
    found: list[Block] = []
    marked, listing, i = "", False, 0
    while i < len(lines):
        line = lines[i]
        fence = re.match(r"^```(\w*)$", line)
        begin = i
        if mark := re.match(r"^<!-- not run here: (.+) -->$", line):
            marked = mark[1]
        elif fence:
            end = next(j for j in range(i + 1, len(lines)) if lines[j].startswith("```"))
            text = "\n".join(lines[i + 1 : end])
            found.append(Block(page, begin + 1, fence[1] or "text", text, marked))
            i, marked = end, ""
        elif line.startswith("    ") and not listing and not lines[i - 1].strip():
            while i + 1 < len(lines) and lines[i + 1].startswith("    "):
                i += 1
            text = "\n".join(one[4:] for one in lines[begin : i + 1])
            found.append(Block(page, begin + 1, "indented", text, marked))
            marked = ""
        elif line.strip():
            marked = ""
            if re.match(r"^ {0,3}([-*]|\d+\.) ", line):
                listing = True
            elif not line.startswith(" "):
                listing = False
        i += 1
    return found


def pages() -> list[str]:
    """All pages but the reference, which is made from the database's own comments."""
    names = [path.stem for path in sorted((ROOT / "docs").glob("*.md")) if path.stem != "reference"]
    return ["README", *names]


def reason(block: Block) -> str:
    """Why a block is not run; '' where it is to be."""
    own = (why for (page, start), why in NO_CODE.items()
           if page == block.page and block.text.startswith(start))  # fmt: skip
    return block.not_run or next(own, "")


def transcript(text: str) -> str:
    """The statements of a psql session as it looks on the screen."""
    said = re.findall(r"^alphaplus[=-]> (.*)$", text, re.MULTILINE)
    return "\n".join(said)


@pytest.mark.parametrize("page", pages())
def test_every_block_is_run_somewhere(page: str) -> None:
    for block in blocks(page):
        at = f"{page}, line {block.line}"
        if reason(block) or (block.kind in PLAIN and not transcript(block.text)):
            continue
        if page in ELSEWHERE:
            assert block.kind in CODE or block.kind in PLAIN, f"{at}: fence it as sh or sql"
        else:
            assert page in HERE, f"{at}: no test runs the blocks of this page"
            assert block.kind != "indented", (
                f"{at}: fence it as sh or sql, or say why it is not run"
            )


@pytest.mark.parametrize("page", ELSEWHERE)
def test_the_module_that_is_named_reads_the_page(page: str) -> None:
    (module,) = (ROOT / "tests").rglob(ELSEWHERE[page])
    text = module.read_text()
    assert re.search(rf"[\"/]{page}(\.md)?\"", text), (
        f"{ELSEWHERE[page]} does not run docs/{page}.md"
    )


def test_blocks_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# x\n\n    one\n    two\n\n- item\n\n    of the item\n\ntext\n\n```sql\nselect 1;\n```\n\n"
        "<!-- not run here: why -->\n```sh\nfalse\n```\n\n```\nalphaplus=> select 2;\n 2\n```\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "path_of", lambda _: page)
    found = [(b.line, b.kind, b.text, b.not_run) for b in blocks("x")]
    assert found == [
        (3, "indented", "one\ntwo", ""), (12, "sql", "select 1;", ""), (17, "sh", "false", "why"),
        (21, "text", "alphaplus=> select 2;\n 2", ""),
    ]  # fmt: skip
    assert transcript(found[-1][2]) == "select 2;"


@dataclass
class World:
    """The market and who asks: the operator, in a folder of its own."""

    operator: Conn
    env: dict[str, str]
    folder: Path
    names: dict[str, Any]


@pytest.fixture(scope="module")
def world(
    db_module: Conn, server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """Two simulated symbols; versions 1 and 2 of BTC, 3 of ETH; predictions with their outcomes."""
    db, dbname = db_module, db_module.info.dbname
    simulator.run(db, ["BTC", "ETH"], DAYS, 7)
    db.execute("call market.refresh_aggregates()")
    db.execute("analyze")
    db.execute("update ml.gates set enabled = false")  # a small market's versions may miss them
    for symbol, rounds in (("BTC/USDT", 40), ("BTC/USDT", 20), ("ETH/USDT", 20)):
        db.execute(
            "call ml.retrain('liquidation_15m', %s, as_of => %s, options => %s)",
            (symbol, END, Jsonb({"params": {"rounds": rounds}, "folds": 2, "min_rows": 500})),
        )
        lifecycle.train_all(server.conninfo(dbname, "alphaplus_trainer"))
    failed = db.execute("select error from ml.training_jobs where status <> 'succeeded'").fetchall()
    assert failed == []
    for version in (1, 3):
        db.execute("call ml.promote(%s, 'test', true)", (version,))
    for hours in range(1, 13):
        db.execute(
            "select ml.record_prediction('liquidation_15m', 'BTC/USDT', %s)",
            (END - dt.timedelta(hours=hours),),
        )
    db.execute("call ml.join_outcomes(%s)", (END,))
    params = pq.conninfo_to_dict(server.conninfo(dbname, "alphaplus_operator"))
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD",
             "dbname": "PGDATABASE", "sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT"}  # fmt: skip
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "DATABASE", "ALPHA"))}
    env |= {names[k]: str(v) for k, v in params.items() if k in names}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    folder = tmp_path_factory.mktemp("docs")
    (folder / "sql").symlink_to(ROOT / "sql")
    with psycopg.connect(
        server.conninfo(dbname, "alphaplus_operator"), autocommit=True
    ) as operator:
        yield World(operator, env, folder, foreign_model(db, operator))


def foreign_model(db: Conn, operator: Conn) -> dict[str, Any]:
    """What models.md has at hand when it registers a model of one's own."""
    row = db.execute(
        "select s.features from ml.models m join feature.sets s on s.name = m.feature_set"
        " and s.version = m.feature_version where m.model = 'volatility_15m'"
    ).fetchone()
    assert row is not None
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(300, len(row[0])))
    target = (rows[:, 0] + rng.normal(size=300) > 0).astype(float)
    booster = lightgbm.train(
        {"objective": "binary", "verbosity": -1, "num_threads": 1},
        lightgbm.Dataset(rows, target, feature_name=row[0]), 10,
    )  # fmt: skip
    return {
        "conn": operator, "booster": booster, "rows": rows[:20],
        "trained_from": END - dt.timedelta(days=2), "trained_to": END - dt.timedelta(days=1),
    }  # fmt: skip


def cases() -> list[Block]:
    return [
        block
        for page in HERE
        for block in blocks(page)
        if not reason(block) and (block.kind in CODE or transcript(block.text))
    ]


@pytest.mark.long
@pytest.mark.parametrize("block", cases(), ids=lambda b: f"{b.page}-{b.line}")
def test_the_block_runs(world: World, block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    if block.kind == "sh":
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text], cwd=world.folder, env=world.env,
            capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert "ERROR" not in done.stderr, done.stderr
    elif block.kind == "python":
        for name, value in world.env.items():
            if name.startswith("PG"):
                monkeypatch.setenv(name, value)
        exec(compile(block.text, f"{block.page}.md", "exec"), dict(world.names))
    else:
        text = transcript(block.text) if block.kind == "text" else block.text
        for statement in sqlparse.split(text):
            world.operator.execute(statement.encode())
