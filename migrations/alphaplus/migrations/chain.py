"""yoyo's migrations in a transaction that is already open.

yoyo commits a migration and the row that marks it as applied one after the other, on two
connections. Here both are savepoints of one transaction, the caller's.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import psycopg
from yoyo import internalmigrations, read_migrations
from yoyo.backends.base import SavepointTransactionManager
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.connections import DatabaseURI


class _Savepoint(SavepointTransactionManager):  # type: ignore[misc]
    """yoyo leaves savepoints open, for databases that commit DDL by themselves."""

    def _do_commit(self) -> None:
        self.backend.savepoint_release(self.id)


class Chain(PostgresqlPsycopgBackend):  # type: ignore[misc]
    """The migrations of a checkout against one database, on a connection within a transaction."""

    def __init__(self, conn: psycopg.Connection[Any], root: Path) -> None:
        self._given = conn
        super().__init__(
            DatabaseURI("postgresql", None, None, None, None, conn.info.dbname, {}),
            "_yoyo_migration",
        )
        self._internal_schema_updated = True  # by prepare()
        self.migrations = read_migrations(str(root / "migrations"))

    def connect(self, dburi: DatabaseURI) -> psycopg.Connection[Any]:
        """The caller's connection."""
        return self._given

    def transaction(self, rollback_on_exit: bool = False) -> _Savepoint:
        """A savepoint: the transaction is the caller's."""
        return _Savepoint(self, rollback_on_exit=rollback_on_exit)

    def prepare(self) -> None:
        """Make yoyo's own tables, in schema ops."""
        self.execute("set local search_path = ops")
        if internalmigrations.needs_upgrading(self):
            internalmigrations.upgrade(self)

    def pending(self) -> list[Any]:
        """The migrations not applied yet, each after those it depends on."""
        return list(self.to_apply(self.migrations))

    def applied(self) -> list[Any]:
        """The migrations applied, newest first."""
        return list(self.to_rollback(self.migrations))

    def up(self, migration: Any) -> None:
        """Apply a migration and mark it."""
        self._steps(migration, "apply")
        self.mark_one(migration, log=False)

    def down(self, migration: Any) -> None:
        """Undo a migration and take its mark off."""
        self._steps(migration, "rollback")
        self.unmark_one(migration, log=False)

    def _steps(self, migration: Any, direction: str) -> None:
        # yoyo prints what a step's SELECT returns (create_hypertable's row).
        with contextlib.redirect_stdout(io.StringIO()):
            migration.process_steps(self, direction)
        self.execute("set local search_path = ops")  # a migration may have changed it
        self.log_migration(migration, direction)
