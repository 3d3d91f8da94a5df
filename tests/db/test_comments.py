"""Everything that a user can see in the catalogue says what it is."""

from __future__ import annotations

from typing import Any

import psycopg

Conn = psycopg.Connection[Any]
# The schemas that users read; procrastinate's and Optuna's tables are theirs to describe.
OURS = """
    (n.nspname = any (array(
        select s.nspname from pg_namespace s
        where s.nspowner = 'alphaplus_owner'::regrole
            and s.nspname not in ('procrastinate', 'optuna', 'public')
    )))
"""


def bare_columns(db: Conn) -> list[str]:
    rows = db.execute(
        "select format('%s.%s.%s', n.nspname, c.relname, a.attname) from pg_class c"  # type: ignore[arg-type]
        " join pg_namespace n on n.oid = c.relnamespace"
        " join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped"
        f" where c.relkind in ('r', 'p', 'v', 'm', 'f') and {OURS}"
        " and coalesce(col_description(c.oid, a.attnum), '') !~ '[[:alpha:]]{2}' order by 1"
    ).fetchall()
    return [name for (name,) in rows]


def test_every_column_has_a_comment(db_module: Conn) -> None:
    assert bare_columns(db_module) == []


def test_every_table_and_view_has_a_comment(db_module: Conn) -> None:
    rows = db_module.execute(
        "select format('%s.%s', n.nspname, c.relname) from pg_class c"  # type: ignore[arg-type]
        " join pg_namespace n on n.oid = c.relnamespace"
        f" where c.relkind in ('r', 'p', 'v', 'm', 'f') and {OURS}"
        " and coalesce(obj_description(c.oid, 'pg_class'), '') !~ '[[:alpha:]]{2}' order by 1"
    ).fetchall()
    assert [name for (name,) in rows] == []


def test_every_public_function_has_a_comment(db_module: Conn) -> None:
    """Helpers, whose names begin with an underscore, have theirs where they need one."""
    rows = db_module.execute(
        "select p.oid::regprocedure::text from pg_proc p"  # type: ignore[arg-type]
        f" join pg_namespace n on n.oid = p.pronamespace where {OURS}"
        r" and p.proname not like '\_%' and p.prorettype not in ('trigger'::regtype, 'event_trigger'::regtype)"
        " and coalesce(obj_description(p.oid, 'pg_proc'), '') !~ '[[:alpha:]]{2}' order by 1"
    ).fetchall()
    assert [name for (name,) in rows] == []


def test_the_gate_sees_what_is_missing(db: Conn) -> None:
    count = (
        "select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace"
        f" where {OURS} and c.relname in ('candles', 'predictions', 'sets', 'health')"
    )
    row = db.execute(count).fetchone()  # type: ignore[arg-type]
    assert row is not None and row[0] >= 4
    db.execute("comment on column market.candles.close is null")
    assert "market.candles.close" in bare_columns(db)
