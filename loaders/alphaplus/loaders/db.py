"""The applier: a database's schema from ``migrations/`` and ``sql/``.

``migrations/`` is state, run once by yoyo and frozen by ``migrations/checksums.txt``; ``sql/`` is
logic, applied whole, every time, in one transaction. Both run with one superuser connection
string, and everything made belongs to ``alphaplus_owner``.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString, cast
from urllib.parse import quote, urlencode

import psycopg
from psycopg import conninfo as pq
from psycopg import sql
from yoyo import get_backend, read_migrations

ROOT = Path(__file__).resolve().parents[3]
OWNER = "alphaplus_owner"
EXTENSIONS = ("timescaledb", "vector", "plpython3u", "plpgsql_check")
# sql/ is applied schema by schema in this order, by file name within one; the two last files
# need all that came before.
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
LAST = ("schedules.sql", "privileges.sql")


class MigrationError(Exception):
    """The database cannot be brought up to date; the message says why and what to do."""


@dataclass(frozen=True)
class Report:
    """What one run of :func:`migrate` did."""

    created_database: bool
    migrations: tuple[str, ...]
    changed_files: tuple[str, ...]


def role_conninfo(role: str, conninfo: str = "") -> str:
    """The connection given (or DATABASE_URL, PG*), as another role where its password is known.

    The password file of ``make up`` (ALPHAPLUS_PGPASS) is asked; without it, or without the role in
    it, the connection stays as it was given.
    """
    given = pq.make_conninfo(conninfo or os.environ.get("DATABASE_URL", ""))
    params = pq.conninfo_to_dict(given)
    pgpass = os.environ.get("ALPHAPLUS_PGPASS")
    if not pgpass or not Path(pgpass).exists():
        return given
    host = str(params.get("host") or os.environ.get("PGHOST", "localhost"))
    port = str(params.get("port") or os.environ.get("PGPORT", "5432"))
    for line in Path(pgpass).read_text().splitlines():
        fields = line.split(":", 4)
        if fields[:2] == [host, port] and fields[3:4] == [role]:
            return pq.make_conninfo(given, user=role, password=fields[4])
    return given


def superuser_conninfo(conninfo: str = "") -> str:
    """Connection string for migrating: the one given (or PG*), as a superuser.

    Where the user named is no superuser, the password file of ``make up`` (ALPHAPLUS_PGPASS) is
    asked for the server's ``postgres``.
    """
    given = pq.make_conninfo(conninfo or os.environ.get("DATABASE_URL", ""))
    user = pq.conninfo_to_dict(given).get("user") or os.environ.get("PGUSER")
    return role_conninfo("postgres", conninfo) if str(user).startswith("alphaplus_") else given


def migrate(conninfo: str, root: Path = ROOT) -> Report:
    """Bring the database up to date, creating it when it is missing.

    Args:
        conninfo: libpq connection string or URI of a superuser.
        root: the checkout that holds ``migrations/`` and ``sql/``.

    Raises:
        MigrationError: no superuser, an extension is missing, a released migration was edited.
    """
    created = _create_database(conninfo)
    check_frozen(root)
    with psycopg.connect(conninfo, autocommit=True) as conn:
        _bootstrap(conn, root)
        conn.execute("select pg_advisory_lock(hashtextextended('alphaplus.migrate', 0))")
        _check_applied(conn, root)
        applied = _apply_migrations(conninfo, conn, root)
        changed = _apply_sql(conn, root)
        # pg_cron's launcher forgets to look again when its tables appear while it looks; a reload
        # makes it look.
        conn.execute("select pg_reload_conf() from pg_extension where extname = 'pg_cron'")
    return Report(created, applied, changed)


def rollback(conninfo: str, to: str | None = None, root: Path = ROOT) -> tuple[str, ...]:
    """Undo migrations, newest first, down to but not including ``to`` (None: all).

    What ``sql/`` made is dropped first, as it may hold on to the tables; :func:`migrate` makes it
    again.
    """
    with psycopg.connect(conninfo, autocommit=True) as conn:
        with conn.transaction():
            _drop_logic(conn, triggers=True)
        conn.execute("select pg_advisory_lock(hashtextextended('alphaplus.migrate', 0))")
        backend = get_backend(_yoyo_url(conninfo), migration_table="_yoyo_migration")
        migrations = read_migrations(str(root / "migrations"))
        undone: list[str] = []
        with backend:
            for migration in backend.to_rollback(migrations):
                if migration.id == to:
                    break
                backend.rollback_one(migration)
                if conn.execute(
                    "select pg_catalog.to_regclass('ops.migration_checksums')"
                ).fetchone() != (None,):
                    conn.execute(
                        "delete from ops.migration_checksums where migration = %s",
                        (migration.id,),
                    )
                undone.append(migration.id)
    return tuple(undone)


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


def _bootstrap(conn: psycopg.Connection, root: Path) -> None:
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


def _create_extension(conn: psycopg.Connection, name: str) -> None:
    present = conn.execute("select 1 from pg_extension where extname = %s", (name,)).fetchone()
    if present is None:
        # timescaledb wants to be the first thing a session does: a session of its own.
        with psycopg.connect(_dsn(conn), autocommit=True) as fresh:
            fresh.execute(
                sql.SQL("set client_min_messages = error; create extension {} cascade").format(
                    sql.Identifier(name)
                )
            )


def _dsn(conn: psycopg.Connection) -> str:
    return pq.make_conninfo(conn.info.dsn, password=conn.info.password)


def migration_files(root: Path = ROOT) -> Iterator[Path]:
    """The files of ``migrations/`` that are frozen once released."""
    for path in sorted((root / "migrations").iterdir()):
        if path.suffix in {".sql", ".py"}:
            yield path


def _sha256(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def check_frozen(root: Path = ROOT) -> None:
    """Refuse an edited migration: ``migrations/checksums.txt`` names each released file's hash."""
    listed: dict[str, str] = {}
    for line in (root / "migrations" / "checksums.txt").read_text().splitlines():
        digest, name = line.split("  ")
        listed[name] = digest
    for path in migration_files(root):
        if path.name in listed and listed[path.name] != _sha256(path).hex():
            raise MigrationError(
                f"migrations/{path.name} was edited after its release: restore it (git checkout),"
                " and put the change into a new migration."
            )
    if gone := set(listed) - {path.name for path in migration_files(root)}:
        raise MigrationError(f"released migrations are missing: {', '.join(sorted(gone))}")


def freeze(root: Path = ROOT) -> None:
    """Write ``migrations/checksums.txt`` from the files as they are; done at a release."""
    lines = [f"{_sha256(path).hex()}  {path.name}\n" for path in migration_files(root)]
    (root / "migrations" / "checksums.txt").write_text("".join(lines))


def _check_applied(conn: psycopg.Connection, root: Path) -> None:
    if conn.execute("select to_regclass('ops.migration_checksums')").fetchone() == (None,):
        return
    hashes = {path.stem: _sha256(path) for path in migration_files(root)}
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


def _yoyo_url(conninfo: str) -> str:
    """yoyo's URL for the same connection, working as the owner, its tables in schema ops."""
    with psycopg.connect(conninfo) as conn:
        info = conn.info
        args = {"schema": "ops", "options": f"-crole={OWNER} -cclient_min_messages=error"}
        for key in ("sslmode", "sslrootcert"):
            value = pq.conninfo_to_dict(info.dsn).get(key) or os.environ.get(f"PG{key.upper()}")
            if value:
                args[key] = str(value)
        if info.host.startswith("/"):
            args["host"] = info.host
            host = ""
        else:
            host = info.host
        login = f"{quote(info.user)}:{quote(info.password, safe='')}"
        return f"postgresql+psycopg://{login}@{host}:{info.port}/{quote(info.dbname)}?{urlencode(args)}"


def _apply_migrations(conninfo: str, conn: psycopg.Connection, root: Path) -> tuple[str, ...]:
    migrations = read_migrations(str(root / "migrations"))
    backend = get_backend(_yoyo_url(conninfo), migration_table="_yoyo_migration")
    with backend:
        # The advisory lock above already serialises us, and unlike yoyo's lock row it goes with a
        # killed process.
        backend.break_lock()
        pending = backend.to_apply(migrations)
        names = tuple(migration.id for migration in pending)
        if names:
            with conn.transaction():
                _drop_logic(conn, triggers=False)
        # yoyo prints what a step's SELECT returns (create_hypertable's row).
        with contextlib.redirect_stdout(io.StringIO()):
            backend.apply_migrations(pending)
    for path in migration_files(root):
        if not path.stem.endswith(".rollback"):
            conn.execute(
                "insert into ops.migration_checksums (migration, sha256) values (%s, %s)"
                " on conflict do nothing",
                (path.stem, _sha256(path)),
            )
    return names


def sql_files(root: Path = ROOT) -> Iterator[Path]:
    """The repeatable SQL in the order it is applied; sql/psql/ is for operators, not applied."""
    folders = {path.name for path in (root / "sql").iterdir() if path.is_dir()}
    if unknown := folders - set(SCHEMAS) - {"psql"}:
        raise MigrationError(f"sql/{unknown.pop()}/ is no schema named in {__name__}.SCHEMAS")
    for schema in SCHEMAS:
        yield from sorted((root / "sql" / schema).glob("*.sql"))
    for name in LAST:
        if (root / "sql" / name).exists():
            yield root / "sql" / name


def _apply_sql(conn: psycopg.Connection, root: Path) -> tuple[str, ...]:
    """Apply every file under sql/ in one transaction; return those that differ from last time.

    What an earlier run made and this one did not is dropped. Where a function's result or a view's
    columns changed, which no CREATE OR REPLACE can do, all is dropped first and made anew, still
    in one transaction.
    """
    try:
        return _apply_sql_once(conn, root, drop_first=False)
    except (psycopg.errors.InvalidFunctionDefinition, psycopg.errors.InvalidTableDefinition):
        return _apply_sql_once(conn, root, drop_first=True)


def _apply_sql_once(conn: psycopg.Connection, root: Path, *, drop_first: bool) -> tuple[str, ...]:
    changed: list[str] = []
    with conn.transaction():
        conn.execute("set local check_function_bodies = off")
        conn.execute("set local client_min_messages = warning")
        conn.execute("set local search_path = pg_catalog, pg_temp")
        if drop_first:
            _drop_logic(conn, triggers=True)
        known = {
            path: bytes(digest)
            for path, digest in conn.execute("select path, sha256 from ops.sql_files")
        }
        made: set[tuple[str, str]] = set()
        triggers = _triggers_that_stay(conn, root, known)
        for path in sql_files(root):
            name = path.relative_to(root).as_posix()
            if name == "sql/privileges.sql":
                # Granting writes catalogue rows too: what was made is what was before it.
                made = _made_here(conn) | triggers
            if not triggers or path.name != "triggers.sql":
                _execute_file(conn, path)
            if known.pop(name, None) != _sha256(path):
                changed.append(name)
                conn.execute(
                    "insert into ops.sql_files (path, sha256) values (%s, %s)"
                    " on conflict (path) do update"
                    " set sha256 = excluded.sha256, applied_at = clock_timestamp()",
                    (name, _sha256(path)),
                )
        conn.execute("delete from ops.sql_files where path = any(%s)", (list(known),))
        _drop_objects(conn, _logic(conn) - made)
        conn.execute("delete from ops.logic")
        with conn.cursor() as cursor:
            cursor.executemany("insert into ops.logic values (%s, %s)", sorted(made))
    return tuple(changed)


def _triggers_that_stay(
    conn: psycopg.Connection, root: Path, known: dict[str, bytes]
) -> set[tuple[str, str]]:
    """The triggers as they are, if no triggers.sql has changed and none of them is missing.

    Creating a trigger waits for everybody who writes to its table, and holds up who comes after, so
    it is only done where something is to be done.
    """
    files = [path for path in sql_files(root) if path.name == "triggers.sql"]
    stay = {(kind, identity) for kind, identity in _logic(conn) if kind == "trigger"}
    there = set(cast(list[tuple[str, str]], conn.execute(_TRIGGERS).fetchall()))
    same = all(known.get(path.relative_to(root).as_posix()) == _sha256(path) for path in files)
    return stay if same and stay <= there else set()


def _made_here(conn: psycopg.Connection) -> set[tuple[str, str]]:
    return set(cast(list[tuple[str, str]], conn.execute(_MADE_HERE).fetchall()))


_TRIGGERS: LiteralString = """
select 'trigger', pg_catalog.format('%I on %s', t.tgname, t.tgrelid::pg_catalog.regclass)
from pg_catalog.pg_trigger t
join pg_catalog.pg_class c on c.oid = t.tgrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where not t.tgisinternal and t.tgname !~ '^ts_'
  and n.nspname in ('ops', 'market', 'feature', 'regime', 'ml', 'drift', 'sentiment', 'analytics',
                    'backtest', 'bi')
"""

# Creating or replacing an object writes its catalogue row, so the rows of this transaction are
# exactly what sql/ made; what PL/Python made carries the younger number of a subtransaction.
_MADE_HERE: LiteralString = (
    """
select 'function', p.oid::pg_catalog.regprocedure::text
from pg_catalog.pg_proc p
join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where pg_catalog.age(p.xmin) <= pg_catalog.age(pg_catalog.pg_current_xact_id()::pg_catalog.xid)
  and n.nspname in ('ops', 'market', 'feature', 'regime', 'ml', 'drift', 'sentiment', 'analytics',
                    'backtest', 'bi')
union all
select 'view', c.oid::pg_catalog.regclass::text
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where pg_catalog.age(c.xmin) <= pg_catalog.age(pg_catalog.pg_current_xact_id()::pg_catalog.xid)
  and c.relkind = 'v'
  and n.nspname in ('ops', 'market', 'feature', 'regime', 'ml', 'drift', 'sentiment', 'analytics',
                    'backtest', 'bi')
union all
"""
    + _TRIGGERS
    + """
  and pg_catalog.age(t.xmin) <= pg_catalog.age(pg_catalog.pg_current_xact_id()::pg_catalog.xid)
"""
)


def _logic(conn: psycopg.Connection) -> set[tuple[str, str]]:
    """What sql/ made when it was last applied."""
    if conn.execute("select pg_catalog.to_regclass('ops.logic')").fetchone() == (None,):
        return set()
    rows = conn.execute("select kind, identity from ops.logic").fetchall()
    return set(cast(list[tuple[str, str]], rows))


def _drop_logic(conn: psycopg.Connection, *, triggers: bool) -> None:
    """Drop what sql/ made, not what is of migrations or extensions, with or without triggers.

    Before migrations triggers stay, and the functions they call: a table's rows are never written
    without what watches over them.
    """
    objects = _logic(conn)
    if not triggers:
        called = conn.execute(
            "select 'function', p.oid::pg_catalog.regprocedure::text from pg_catalog.pg_proc p"
            " where p.prorettype = 'pg_catalog.trigger'::pg_catalog.regtype"
        ).fetchall()
        objects -= set(cast(list[tuple[str, str]], called))
        objects = {(kind, identity) for kind, identity in objects if kind != "trigger"}
    _drop_objects(conn, objects)


# Triggers first, as they call functions.
_WORDS = {"trigger": "trigger", "view": "view", "function": "routine"}


def _drop_objects(conn: psycopg.Connection, objects: set[tuple[str, str]]) -> None:
    """Drop in whatever order the dependencies among the objects allow; never what others made."""
    left = set(objects)
    while left:
        done: set[tuple[str, str]] = set()
        reason = ""
        for kind, identity in sorted(left, key=lambda item: list(_WORDS).index(item[0])):
            try:
                with conn.transaction():
                    conn.execute(f"drop {_WORDS[kind]} if exists {identity}")
                done.add((kind, identity))
            except psycopg.errors.DependentObjectsStillExist as error:
                reason = f"{error.diag.message_primary}: {error.diag.message_detail}"
            except (
                psycopg.errors.UndefinedObject,
                psycopg.errors.UndefinedTable,
                psycopg.errors.InvalidSchemaName,
            ):
                done.add((kind, identity))
        if not done:
            raise MigrationError(
                f"objects of yours depend on what has to be dropped: {reason}."
                " Drop them, run `make migrate`, and create them again."
            )
        left -= done


def _execute_file(conn: psycopg.Connection, path: Path) -> None:
    try:
        conn.execute(path.read_text())
    except psycopg.Error as error:
        position = error.diag.statement_position
        line = path.read_text()[: int(position)].count("\n") + 1 if position else "?"
        error.add_note(f"in {path}, line {line}")
        raise


def main() -> None:
    """``python -m alphaplus.loaders.db freeze``: the release step."""
    if sys.argv[1:] != ["freeze"]:
        raise SystemExit("usage: python -m alphaplus.loaders.db freeze")
    freeze()


if __name__ == "__main__":
    main()
