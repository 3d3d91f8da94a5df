"""No error code has two meanings."""

from __future__ import annotations

import shutil
from pathlib import Path

from alphaplus.cli import errors

ROOT = Path(__file__).resolve().parents[2]


def test_every_code_has_one_meaning() -> None:
    assert len(errors.raised(ROOT)) > 60
    assert errors.problems(ROOT) == []


def test_a_second_meaning_is_found(tmp_path: Path) -> None:
    for folder in ("sql", "plpython"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    path = tmp_path / "sql" / "ml" / "labels.sql"
    path.write_text(path.read_text().replace("unknown label %", "something else %", 1))
    assert errors.problems(tmp_path) == []  # still one message
    path.write_text(
        path.read_text()
        + "do $$ begin raise exception 'a third thing' using errcode = 'AP301';\nend $$;\n"
    )
    (problem,) = errors.problems(tmp_path)
    assert problem.startswith("AP301 is raised with several messages")
