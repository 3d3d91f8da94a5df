"""Everything is found by searching for its name: the catalogue beside the text of sql/."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg
from alphaplus import migrations

ROOT = Path(__file__).resolve().parents[2]
Conn = psycopg.Connection[Any]

# Made from rows or by format(), and so not found by their names. This list may only shrink.
NOT_YET = [
    # The aggregates' views and readers, and what makes them (0004_aggregates, market._make_readers):
    # the timeframes and the two editions of TimescaleDB have no files of their own yet.
    r"market\._(trades|book|liquidations)_1m(_between|_marked|_rows)?",
    r"market\._candles_(5m|15m|1h|4h|1d)(_between|_marked|_rows)?",
    r"market\.(_create_aggregate|_make_rows|_make_view|_watch|_stale|_native_works|usable_at)",
    r"market\.(_mark_changed|_forget_all)",
    r"(mark_inserted|mark_deleted|mark_updated|forget_all) on market\.\w+",
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


def written() -> dict[str, set[str]]:
    """Each function, view and trigger of sql/ with the files that define it.

    A view may have the name of a function: analytics.drift is read as analytics.drift() is.
    """
    found: dict[str, set[str]] = {}
    for path in migrations.sql_files(ROOT):
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
    text = written()
    nowhere = sorted(
        name for name in there - set(text) if not exempt.fullmatch(name.removeprefix("view "))
    )
    assert nowhere == []
    assert sorted(set(text) - there) == [], "in sql/, but not in the database"
    assert {name: files for name, files in text.items() if len(files) > 1} == {}
    assert len(there & set(text)) > 250
