"""What a checkout holds for a database, and the order in which it is applied."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
# sql/ is applied schema by schema in this order.
SCHEMAS = (
    "ops",
    "market",
    "feature",
    "regime",
    "ml",
    "drift",
    "sentiment",
    "analytics",
    "backtest",
    "bi",
)
# Within a schema by name, these last: triggers call functions, views read what functions return,
# and seeds are rows that functions insert or check.
LAST_OF_SCHEMA = ("triggers", "views", "seed", "column_comments")
# A file <name>.<edition>.sql is applied on that edition of TimescaleDB only.
EDITIONS = ("apache", "community")
# After all schemas.
LAST = ("schedules.sql", "privileges.sql")


class MigrationError(Exception):
    """The database cannot be brought up to date; the message says why and what to do."""


def sha256(path: Path) -> bytes:
    """The hash of a file's content."""
    return hashlib.sha256(path.read_bytes()).digest()


def migration_files(root: Path = ROOT) -> Iterator[Path]:
    """The files of ``migrations/`` that are frozen once released."""
    for path in sorted((root / "migrations").iterdir()):
        if path.suffix in {".sql", ".py"}:
            yield path


def sql_files(root: Path = ROOT, edition: str | None = None) -> Iterator[Path]:
    """The repeatable SQL in the order it is applied; sql/psql/ is for operators, not applied.

    Args:
        edition: leave out the other editions' files; None: all files.
    """
    folders = {path.name for path in (root / "sql").iterdir() if path.is_dir()}
    if unknown := folders - set(SCHEMAS) - {"psql"}:
        raise MigrationError(f"sql/{unknown.pop()}/ is no schema named in {__name__}.SCHEMAS")
    for schema in SCHEMAS:
        for path in sorted((root / "sql" / schema).glob("*.sql"), key=_place):
            only = edition_of(path)
            if edition is None or only in (None, edition):
                yield path
    for name in LAST:
        if (root / "sql" / name).exists():
            yield root / "sql" / name


def edition_of(path: Path) -> str | None:
    """The edition of TimescaleDB that a file of sql/ is for; None: any."""
    parts = path.name.split(".")
    if len(parts) == 2:
        return None
    if len(parts) != 3 or parts[1] not in EDITIONS:
        raise MigrationError(f"sql/: {path.name} is neither <name>.sql nor <name>.<edition>.sql")
    return parts[1]


def kind_of(path: Path) -> str:
    """The name of a file of sql/ without edition and ending: triggers, views, …"""
    return path.name.split(".")[0]


def _place(path: Path) -> tuple[int, bool, str]:
    if kind_of(path) not in LAST_OF_SCHEMA:
        return 0, False, path.name
    # What an edition adds may call what both have.
    return 1 + LAST_OF_SCHEMA.index(kind_of(path)), edition_of(path) is not None, path.name


def freeze(root: Path = ROOT) -> None:
    """Write ``migrations/checksums.txt`` from the files as they are; done at a release."""
    lines = [f"{sha256(path).hex()}  {path.name}\n" for path in migration_files(root)]
    (root / "migrations" / "checksums.txt").write_text("".join(lines))
