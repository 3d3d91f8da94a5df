"""What sql/ made, so that what it no longer says is dropped, and nothing else is."""

from __future__ import annotations

from typing import Any, LiteralString, cast

import psycopg
from alphaplus.migrations.files import SCHEMAS, MigrationError

Objects = set[tuple[str, str]]

# Every routine, view and trigger of our schemas with where its catalogue row lies, which changes
# whenever the object is made or replaced. Continuous aggregates are none of it: they hold data.
_CATALOGUE: LiteralString = """
with ours as (
    select n.oid from pg_catalog.pg_namespace n
    where n.nspname = any (%s)
)
select 'function', p.oid::pg_catalog.regprocedure::text, p.oid::text || p.xmin::text || p.ctid::text
from pg_catalog.pg_proc p join ours on ours.oid = p.pronamespace
union all
select 'view', c.oid::pg_catalog.regclass::text, c.oid::text || c.xmin::text || c.ctid::text
from pg_catalog.pg_class c join ours on ours.oid = c.relnamespace
where c.relkind = 'v' and not exists (
    select from _timescaledb_catalog.continuous_agg g
    join pg_catalog.pg_namespace n on n.nspname = g.user_view_schema
    where n.oid = c.relnamespace and g.user_view_name = c.relname
)
union all
select 'trigger', pg_catalog.format('%%I on %%s', t.tgname, t.tgrelid::pg_catalog.regclass),
    t.oid::text || t.xmin::text || t.ctid::text
from pg_catalog.pg_trigger t
join pg_catalog.pg_class c on c.oid = t.tgrelid
join ours on ours.oid = c.relnamespace
where not t.tgisinternal and t.tgname !~ '^ts_'
"""
_WORDS = {"trigger": "trigger", "view": "view", "function": "routine"}


def catalogue(conn: psycopg.Connection[Any]) -> set[tuple[str, str, str]]:
    """What there is now; the difference of two is what was made or replaced in between."""
    return set(
        cast(list[tuple[str, str, str]], conn.execute(_CATALOGUE, (list(SCHEMAS),)).fetchall())
    )


def made(before: set[tuple[str, str, str]], after: set[tuple[str, str, str]]) -> Objects:
    """What was made or replaced between two looks at the catalogue."""
    return {(kind, identity) for kind, identity, _ in after - before}


def recorded(conn: psycopg.Connection[Any]) -> Objects:
    """What sql/ made when it was last applied."""
    if conn.execute("select pg_catalog.to_regclass('ops.logic')").fetchone() == (None,):
        return set()
    rows = conn.execute("select kind, identity from ops.logic").fetchall()
    return set(cast(list[tuple[str, str]], rows))


def record(conn: psycopg.Connection[Any], objects: Objects) -> None:
    """Note what sql/ made."""
    conn.execute("delete from ops.logic")
    with conn.cursor() as cursor:
        cursor.executemany("insert into ops.logic values (%s, %s)", sorted(objects))


def of_triggers(conn: psycopg.Connection[Any], objects: Objects) -> Objects:
    """Those of some objects that are triggers, or functions which triggers call."""
    rows = conn.execute(
        "select 'function', p.oid::pg_catalog.regprocedure::text from pg_catalog.pg_proc p"
        " where p.prorettype = 'pg_catalog.trigger'::pg_catalog.regtype"
    ).fetchall()
    called = set(cast(list[tuple[str, str]], rows))
    return {item for item in objects if item[0] == "trigger" or item in called}


def drop_recorded(conn: psycopg.Connection[Any], *, triggers: bool) -> None:
    """Drop what sql/ made, with or without triggers and the functions they call."""
    objects = recorded(conn)
    drop(conn, objects if triggers else objects - of_triggers(conn, objects))


def drop(conn: psycopg.Connection[Any], objects: Objects) -> None:
    """Drop in whatever order the dependencies among the objects allow; never what others made."""
    left = set(objects)
    while left:
        done: Objects = set()
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
                psycopg.errors.WrongObjectType,  # a table has taken a view's place
            ):
                done.add((kind, identity))
        if not done:
            raise MigrationError(
                f"objects of yours depend on what has to be dropped: {reason}."
                " Drop them, run `make migrate`, and create them again."
            )
        left -= done
