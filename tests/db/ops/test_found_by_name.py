"""Everything is found by searching for its name: the catalogue beside the text of sql/."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg
from alphaplus import migrations

ROOT = Path(__file__).resolve().parents[3]
Conn = psycopg.Connection[Any]

# Made from rows or by format(), and so not found by their names. This list may only shrink.
NOT_YET = [
    # An index of TimescaleDB's continuous aggregates needs it before sql/ is applied (0004_aggregates).
    r"market\.usable_at",
    # Continuous aggregates hold data: back_end.community.sql makes them once, one a timeframe.
    r"market\._\w+_rows",
    # 0329_alerts
    r"(announce_alerts on ops\.alerts|ops\._announce_alerts)",
    # A function and its history for each feature set (feature._sync, feature.create_set).
    r"feature\.({sets}|technical)(_history)?",
]

OBJECTS = r"""
select n.nspname || '.' || p.proname
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where n.nspname = any (%(schemas)s)
union
select 'view ' || n.nspname || '.' || c.relname
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = any (%(schemas)s) and c.relkind in ('v', 'm')
union
select t.tgname || ' on ' || n.nspname || '.' || c.relname
from pg_trigger t
join pg_class c on c.oid = t.tgrelid
join pg_namespace n on n.oid = c.relnamespace
where n.nspname = any (%(schemas)s) and not t.tgisinternal and t.tgname !~ '^ts_'
"""


def written(edition: str) -> dict[str, set[str]]:
    """Each function, view and trigger of sql/ with the files that define it, on one edition.

    A view may have the name of a function: analytics.drift is read as analytics.drift() is.
    """
    found: dict[str, set[str]] = {}
    for path in migrations.sql_files(ROOT, edition):
        text = path.read_text()
        names = re.findall(
            r"(?im)^create or replace (?:function|procedure|aggregate)\s+(\w+\.\w+)", text
        )
        names += re.findall(r"(?im)^create or replace (view \w+\.\w+)", text)
        names += [
            f"{trigger} on {table}"
            for trigger, table in re.findall(
                r"(?is)create or replace trigger (\w+)\s[^;]*?\son (\w+\.\w+)", text
            )
        ]
        for name in names:
            found.setdefault(name, set()).add(path.relative_to(ROOT).as_posix())
    return found


def test_every_object_stands_in_one_file(db_module: Conn) -> None:
    sets = [name for (name,) in db_module.execute("select distinct name from feature.sets")]
    exempt = re.compile("|".join(NOT_YET).replace("{sets}", "|".join(sets)))
    there = {
        name
        for (name,) in db_module.execute(OBJECTS, {"schemas": list(migrations.SCHEMAS)}).fetchall()
    }
    native = db_module.execute("select bool_or(native) from market.aggregates").fetchone()
    text = written("community" if native == (True,) else "apache")
    nowhere = sorted(
        name for name in there - set(text) if not exempt.fullmatch(name.removeprefix("view "))
    )
    assert nowhere == []
    assert sorted(set(text) - there) == [], "in sql/, but not in the database"
    assert {name: files for name, files in text.items() if len(files) > 1} == {}
    assert len(there & set(text)) > 250
