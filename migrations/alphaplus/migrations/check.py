"""Whether checkout and database fit: released migrations unchanged, none missing here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
from alphaplus.migrations.files import ROOT, MigrationError, migration_files, sha256


def check_frozen(root: Path = ROOT) -> None:
    """Refuse an edited migration: ``migrations/checksums.txt`` names each released file's hash."""
    listed: dict[str, str] = {}
    for line in (root / "migrations" / "checksums.txt").read_text().splitlines():
        digest, name = line.split("  ")
        listed[name] = digest
    there = {path.name: path for path in migration_files(root)}
    for name, path in there.items():
        if name in listed and listed[name] != sha256(path).hex():
            raise MigrationError(
                f"migrations/{name} was edited after its release: restore it (git checkout),"
                " and put the change into a new migration."
            )
    if gone := set(listed) - set(there):
        raise MigrationError(f"released migrations are missing: {', '.join(sorted(gone))}")


def check_applied(conn: psycopg.Connection[Any], root: Path) -> None:
    """Refuse a database that has migrations which this checkout lacks or has otherwise."""
    if conn.execute("select pg_catalog.to_regclass('ops.migration_checksums')").fetchone() == (
        None,
    ):
        return
    hashes = {path.stem: sha256(path) for path in migration_files(root)}
    for name, digest in conn.execute("select migration, sha256 from ops.migration_checksums"):
        if name not in hashes:
            raise MigrationError(
                f"the database has migration {name}, which this checkout has not: the database is"
                " newer. Update the checkout (git pull)."
            )
        if hashes[name] != bytes(digest):
            raise MigrationError(
                f"migration {name} was applied here with another content: restore the file, or"
                " put the change into a new migration."
            )
