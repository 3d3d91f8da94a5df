"""``alphaplus docs``: docs/reference.md from the database's own comments."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
from alphaplus.cli import errors
from alphaplus.migrations import ROOT, SCHEMAS

PATH = ROOT / "docs" / "reference.md"

_RELATIONS = """
select c.oid, c.relname, case c.relkind when 'v' then 'view' else 'table' end as kind,
    coalesce(obj_description(c.oid, 'pg_class'), '') as comment
from pg_class c
where c.relnamespace = %s::regnamespace and c.relkind in ('r', 'p', 'v', 'm')
    and c.relname not like '\\_%%' and c.relname <> 'yoyo_lock'
order by c.relname
"""
_COLUMNS = """
select a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
    coalesce(col_description(a.attrelid, a.attnum), '')
from pg_attribute a
where a.attrelid = %s and a.attnum > 0 and not a.attisdropped
order by a.attnum
"""
_ROUTINES = """
select p.proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid),
    case p.provolatile when 'i' then 'immutable' when 's' then 'stable' else 'volatile' end,
    p.prokind = 'p', coalesce(obj_description(p.oid, 'pg_proc'), '')
from pg_proc p
where p.pronamespace = %s::regnamespace and p.proname not like '\\_%%'
    and p.prokind in ('f', 'p') and p.prorettype <> 'trigger'::regtype
order by p.proname, p.oid::regprocedure::text
"""
_FEATURES = """
select d.feature_set, d.feature_version, d.position, d.feature, d.unit, d.formula, d.source
from feature.definitions d
join feature.sets s on s.name = d.feature_set and s.version = d.feature_version
where s.kind = 'builtin' and not feature._retired(s)
order by d.feature_set, d.feature_version, d.position
"""
_SETTINGS = "select name, value::text, description from ops.settings order by name"


def _cell(value: object) -> str:
    return " ".join(str(value).replace("|", "\\|").split())


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + " --- |" * len(head)
    for row in rows:
        yield "| " + " | ".join(_cell(value) for value in row) + " |"
    yield ""


def lines(conn: psycopg.Connection[Any]) -> Iterator[str]:
    """The page, line by line, from a migrated database."""
    yield "# Reference"
    yield ""
    yield "Made by `make docs` from the database's own comments; change those, not this page."
    yield ""
    for schema in SCHEMAS:
        relations = conn.execute(_RELATIONS, (schema,)).fetchall()
        routines = conn.execute(_ROUTINES, (schema,)).fetchall()
        if not relations and not routines:
            continue
        row = conn.execute(
            "select obj_description(%s::regnamespace, 'pg_namespace')", (schema,)
        ).fetchone()
        yield f"## {schema}"
        yield ""
        yield str(row[0] if row and row[0] else "")
        yield ""
        for name, arguments, result, volatility, is_procedure, comment in routines:
            yield f"### {'call ' if is_procedure else ''}{schema}.{name}"
            yield ""
            yield "```sql"
            yield f"{schema}.{name}({arguments})"
            if not is_procedure:
                yield f"    returns {result}  -- {volatility}"
            yield "```"
            yield ""
            yield comment
            yield ""
        for oid, name, kind, comment in relations:
            yield f"### {kind} {schema}.{name}"
            yield ""
            yield comment
            yield ""
            columns = [
                (
                    f"`{column}`",
                    f"{type_}{' not null' if not_null and kind == 'table' else ''}",
                    note,
                )
                for column, type_, not_null, note in conn.execute(_COLUMNS, (oid,)).fetchall()
            ]
            yield from _table(("column", "type", ""), columns)
    yield "## Features"
    yield ""
    current = None
    rows: list[tuple[Any, ...]] = []
    head = ("#", "feature", "unit", "formula", "source")
    for feature_set, version, *row_ in conn.execute(_FEATURES).fetchall():
        if (feature_set, version) != current:
            if current is not None:
                yield from _table(head, rows)
            current, rows = (feature_set, version), []
            yield f"### {feature_set}, version {version}"
            yield ""
        rows.append((row_[0], f"`{row_[1]}`", *row_[2:]))
    if current is not None:
        yield from _table(head, rows)
    yield "## Error codes"
    yield ""
    yield "SQLSTATEs of AlphaPlus, each with one meaning; every error also carries a HINT."
    yield ""
    yield from _table(
        ("code", "meaning", "messages"),
        [
            (f"`{e.code}`", e.meaning, " · ".join(e.messages) if len(e.messages) > 1 else "")
            for e in errors.codes()
        ],
    )
    yield "## Settings"
    yield ""
    yield "As delivered; change one with `select ops.set_setting(name, value)`."
    yield ""
    yield from _table(
        ("name", "value", ""),
        [(f"`{n}`", f"`{v}`", d) for n, v, d in conn.execute(_SETTINGS).fetchall()],
    )


def page(conn: psycopg.Connection[Any]) -> str:
    """The whole reference page as Markdown."""
    return "\n".join(lines(conn)).rstrip() + "\n"


def write(conn: psycopg.Connection[Any], path: Path = PATH) -> bool:
    """Write the page; whether it changed."""
    text = page(conn)
    if path.exists() and path.read_text() == text:
        return False
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return True
