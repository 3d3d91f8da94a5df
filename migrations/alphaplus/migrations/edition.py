"""Which back end keeps the aggregates: the one place where it is chosen.

TimescaleDB's Community edition has continuous aggregates and the columnstore, its Apache edition
neither. A file ``sql/<schema>/<name>.<edition>.sql`` is applied on its edition only. Setting
``market.edition`` chooses ``apache`` on a server that has both, before a database moves from one to
the other: what continuous aggregates hold cannot be read without them.
"""

from __future__ import annotations

from typing import Any

import psycopg
from alphaplus.migrations import logic


def edition(conn: psycopg.Connection[Any]) -> str:
    """``community`` where the server has it and setting market.edition does not say otherwise."""
    license_of = "select pg_catalog.current_setting('timescaledb.license', true)"
    if conn.execute(license_of).fetchone() != ("timescale",):
        return "apache"
    chosen = conn.execute(
        "select s.value #>> '{}' from ops.settings s where s.name = 'market.edition'"
    ).fetchone()
    return "apache" if chosen == ("apache",) else "community"


def change_edition(conn: psycopg.Connection[Any]) -> None:
    """Drop what sql/ made for the other edition, where a database changes over.

    What holds the aggregates' rows is changed by the back end's own file (back_end.<edition>.sql).
    """
    is_native = conn.execute("select pg_catalog.bool_or(a.native) from market.aggregates a")
    if (is_native.fetchone() == (True,)) != (edition(conn) == "community"):
        logic.drop_recorded(conn, triggers=True)
