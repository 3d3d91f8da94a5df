"""Migrations undone, newest first, in one transaction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
from alphaplus.migrations import logic
from alphaplus.migrations.apply import as_owner, lock_out_others, set_lock_timeout, silent
from alphaplus.migrations.chain import Chain
from alphaplus.migrations.files import ROOT
from alphaplus.migrations.patience import Patience, patiently


def rollback(
    conninfo: str,
    to: str | None = None,
    root: Path = ROOT,
    *,
    patience: Patience = Patience(),  # noqa: B008  # immutable
    say: Callable[[str], None] = silent,
) -> tuple[str, ...]:
    """Undo migrations, newest first, down to but not including ``to`` (None: all).

    What ``sql/`` made is dropped first, as it may hold on to the tables; :func:`migrate` makes it
    again.
    """
    with psycopg.connect(conninfo, autocommit=True) as conn:

        def undo() -> tuple[str, ...]:
            with conn.transaction():
                set_lock_timeout(conn, patience)
                lock_out_others(conn)
                conn.execute("set local search_path = pg_catalog, pg_temp")
                logic.drop_recorded(conn, triggers=True)
                undone: list[str] = []
                with as_owner(conn):
                    chain = Chain(conn, root)
                    chain.prepare()
                    for migration in chain.applied():
                        if migration.id == to:
                            break
                        chain.down(migration)
                        undone.append(migration.id)
                if conn.execute(
                    "select pg_catalog.to_regclass('ops.migration_checksums')"
                ).fetchone() != (None,):
                    conn.execute(
                        "delete from ops.migration_checksums where migration = any(%s)", (undone,)
                    )
                    conn.execute("delete from ops.logic")
                return tuple(undone)

        return patiently(conninfo, conn.info.backend_pid, undo, patience, say)
