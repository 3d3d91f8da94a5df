"""The one transaction that brings a database up to date."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from alphaplus.migrations import logic, users_views
from alphaplus.migrations.chain import Chain
from alphaplus.migrations.check import check_applied, check_frozen
from alphaplus.migrations.edition import change_edition, edition
from alphaplus.migrations.files import (
    ROOT,
    MigrationError,
    kind_of,
    migration_files,
    sha256,
    sql_files,
)
from alphaplus.migrations.patience import Patience, patiently
from psycopg import conninfo as pq
from psycopg import sql

OWNER = "alphaplus_owner"
EXTENSIONS = ("timescaledb", "vector", "plpython3u", "plpgsql_check")


@dataclass(frozen=True)
class Report:
    """What one run of :func:`migrate` did."""

    created_database: bool
    migrations: tuple[str, ...]
    changed_files: tuple[str, ...]


def silent(_message: str) -> None:
    """Say nothing."""


def migrate(
    conninfo: str,
    root: Path = ROOT,
    *,
    patience: Patience = Patience(),  # noqa: B008  # immutable
    say: Callable[[str], None] = silent,
) -> Report:
    """Bring the database up to date, creating it when it is missing.

    Args:
        conninfo: libpq connection string or URI of a superuser.
        root: the checkout that holds ``migrations/`` and ``sql/``.
        patience: how long locks are waited for.
        say: told who holds a lock that is waited for.

    Raises:
        MigrationError: no superuser, an extension is missing, a released migration was edited, or a
            lock could not be had.
    """
    created = _create_database(conninfo)
    check_frozen(root)
    with psycopg.connect(conninfo, autocommit=True) as conn:
        _bootstrap(conn, root)

        def work() -> Report:
            with conn.transaction():
                set_lock_timeout(conn, patience)
                lock_out_others(conn)
                check_applied(conn, root)
                is_new = _anything_new(conn, root)
                broken = users_views.broken_tiles(conn) if is_new else {}
                theirs = users_views.take(conn) if is_new else []
                applied = _apply_migrations(conn, root)
                changed = _apply_sql(conn, root)
                users_views.give_back(conn, theirs)
                if is_new:
                    users_views.check_tiles(conn, broken)
                return Report(created, applied, changed)

        report = patiently(conninfo, conn.info.backend_pid, work, patience, say)
        # pg_cron's launcher forgets to look again when its tables appear while it looks; a reload
        # makes it look.
        conn.execute("select pg_reload_conf() from pg_extension where extname = 'pg_cron'")
    return report


def set_lock_timeout(conn: psycopg.Connection[Any], patience: Patience) -> None:
    """Wait for a lock that long, and not longer, in this transaction."""
    conn.execute("select set_config('lock_timeout', %s, true)", (f"{patience.lock_timeout}s",))


def lock_out_others(conn: psycopg.Connection[Any]) -> None:
    """One at a time, by a lock that a reader of the table cannot hold against us."""
    if conn.execute("select pg_catalog.to_regclass('ops._yoyo_migration')").fetchone() != (None,):
        conn.execute("lock table ops._yoyo_migration in exclusive mode")


@contextlib.contextmanager
def as_owner(conn: psycopg.Connection[Any]) -> Iterator[None]:
    """Work as the owner of everything; then, unless it failed, as before."""
    conn.execute(sql.SQL("set local role {}").format(sql.Identifier(OWNER)))
    yield
    conn.execute("set local role none")
    conn.execute("set local search_path = pg_catalog, pg_temp")


def _create_database(conninfo: str) -> bool:
    try:
        psycopg.connect(conninfo).close()
        return False
    except psycopg.OperationalError as error:
        params = pq.conninfo_to_dict(conninfo)
        name = str(params.get("dbname") or os.environ.get("PGDATABASE", ""))
        if f'database "{name}" does not exist' not in str(error):
            raise
    with psycopg.connect(pq.make_conninfo(conninfo, dbname="postgres"), autocommit=True) as conn:
        conn.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    return True


def _bootstrap(conn: psycopg.Connection[Any], root: Path) -> None:
    """What must be there before the first migration: roles, extensions, schema ops."""
    row = conn.execute("select rolsuper, current_user from pg_roles where rolname = current_user")
    is_super, user = row.fetchone() or (False, "?")
    if not is_super:
        raise MigrationError(
            f"{user} is no superuser: PL/Python is an untrusted language, so only a superuser can"
            " install AlphaPlus. Connect as one (PGUSER, PGPASSWORD or DATABASE_URL)."
        )
    _execute_file(conn, root / "docker" / "roles.sql")
    available = {
        name for (name,) in conn.execute("select name from pg_available_extensions where true")
    }
    if missing := [name for name in EXTENSIONS if name not in available]:
        raise MigrationError(
            f"the server lacks {', '.join(missing)}: install the packages named in"
            " docker/packages.txt, or use `make up`."
        )
    for name in EXTENSIONS:
        _create_extension(conn, name)
    cron_database = conn.execute("select current_setting('cron.database_name', true)").fetchone()
    if "pg_cron" in available and cron_database == (conn.info.dbname,):
        _create_extension(conn, "pg_cron")
    owner = sql.Identifier(OWNER)
    database = sql.Identifier(conn.info.dbname)
    conn.execute(sql.SQL("create schema if not exists ops authorization {}").format(owner))
    conn.execute("comment on schema ops is 'The running of it: settings, schedules, health.'")
    conn.execute(sql.SQL("revoke all on database {} from public").format(database))
    conn.execute(
        sql.SQL("grant create, connect, temporary on database {} to {}").format(database, owner)
    )
    conn.execute("revoke all on schema public from public")
    conn.execute(sql.SQL("grant usage on schema public to {}").format(owner))


def _create_extension(conn: psycopg.Connection[Any], name: str) -> None:
    present = conn.execute("select 1 from pg_extension where extname = %s", (name,)).fetchone()
    if present is None:
        # timescaledb wants to be the first thing a session does: a session of its own.
        with psycopg.connect(_dsn(conn), autocommit=True) as fresh:
            fresh.execute(
                sql.SQL("set client_min_messages = error; create extension {} cascade").format(
                    sql.Identifier(name)
                )
            )


def _dsn(conn: psycopg.Connection[Any]) -> str:
    return pq.make_conninfo(conn.info.dsn, password=conn.info.password)


def _anything_new(conn: psycopg.Connection[Any], root: Path) -> bool:
    """Whether a migration is pending, or a file of sql/ is not as it was applied last."""
    if conn.execute("select pg_catalog.to_regclass('ops.sql_files')").fetchone() == (None,):
        return True
    known = {
        path: bytes(digest)
        for path, digest in conn.execute("select path, sha256 from ops.sql_files")
    }
    here = {path.relative_to(root).as_posix(): sha256(path) for path in sql_files(root)}
    done = {name for (name,) in conn.execute("select migration from ops.migration_checksums")}
    there = {p.stem for p in migration_files(root) if not p.stem.endswith(".rollback")}
    return known != here or done != there


def _apply_migrations(conn: psycopg.Connection[Any], root: Path) -> tuple[str, ...]:
    """Apply and mark what is pending.

    Views and functions go first, as they may hold on to what a migration changes. Triggers stay,
    and the functions they call: a table's rows are never written without what watches over them.
    """
    with as_owner(conn):
        conn.execute("set local client_min_messages = error")
        chain = Chain(conn, root)
        chain.prepare()
        pending = chain.pending()
    if not pending:
        return ()
    logic.drop_recorded(conn, triggers=False)
    with as_owner(conn):
        for migration in pending:
            chain.up(migration)
    for path in migration_files(root):
        if not path.stem.endswith(".rollback"):
            conn.execute(
                "insert into ops.migration_checksums (migration, sha256) values (%s, %s)"
                " on conflict do nothing",
                (path.stem, sha256(path)),
            )
    return tuple(migration.id for migration in pending)


def _apply_sql(conn: psycopg.Connection[Any], root: Path) -> tuple[str, ...]:
    """Apply every file under sql/; return those that differ from last time.

    What an earlier run made and this one did not is dropped. Where a function's result or a view's
    columns changed, which no CREATE OR REPLACE can do, all is dropped first and made anew.
    """
    conn.execute("set local check_function_bodies = off")
    conn.execute("set local client_min_messages = warning")
    conn.execute("set local search_path = pg_catalog, pg_temp")
    change_edition(conn)
    try:
        with conn.transaction():
            return _apply_sql_once(conn, root)
    except (psycopg.errors.InvalidFunctionDefinition, psycopg.errors.InvalidTableDefinition):
        logic.drop_recorded(conn, triggers=True)
        return _apply_sql_once(conn, root)


def _apply_sql_once(conn: psycopg.Connection[Any], root: Path) -> tuple[str, ...]:
    changed: list[str] = []
    known = {
        path: bytes(digest)
        for path, digest in conn.execute("select path, sha256 from ops.sql_files")
    }
    before = logic.catalogue(conn)
    triggers = _triggers_that_stay(conn, root, known)
    made: logic.Objects = set()
    for path in sql_files(root, edition(conn)):
        name = path.relative_to(root).as_posix()
        if name == "sql/privileges.sql":
            # Granting writes catalogue rows too: what was made is what was before it.
            made = logic.made(before, logic.catalogue(conn)) | triggers
        if not triggers or kind_of(path) != "triggers":
            _execute_file(conn, path)
        if known.pop(name, None) != sha256(path):
            changed.append(name)
            conn.execute(
                "insert into ops.sql_files (path, sha256) values (%s, %s)"
                " on conflict (path) do update"
                " set sha256 = excluded.sha256, applied_at = clock_timestamp()",
                (name, sha256(path)),
            )
    conn.execute("delete from ops.sql_files where path = any(%s)", (list(known),))
    logic.drop(conn, logic.recorded(conn) - made)
    logic.record(conn, made)
    return tuple(changed)


def _triggers_that_stay(
    conn: psycopg.Connection[Any], root: Path, known: dict[str, bytes]
) -> logic.Objects:
    """The triggers and their functions, if no triggers.sql has changed and nothing is missing.

    Replacing a trigger waits for everybody who writes to its table, and replacing its function for
    everybody who makes a chunk, which a load does: so it is only done where something has changed.
    """
    files = [path for path in sql_files(root, edition(conn)) if kind_of(path) == "triggers"]
    stay = logic.of_triggers(conn, logic.recorded(conn))
    there = {(kind, identity) for kind, identity, _ in logic.catalogue(conn)}
    same = all(known.get(path.relative_to(root).as_posix()) == sha256(path) for path in files)
    return stay if same and stay <= there else set()


def _execute_file(conn: psycopg.Connection[Any], path: Path) -> None:
    try:
        conn.execute(path.read_text())
    except psycopg.Error as error:
        position = error.diag.statement_position
        line = path.read_text()[: int(position)].count("\n") + 1 if position else "?"
        error.add_note(f"in {path}, line {line}")
        raise
