"""COPY of numpy columns into a table of the database, through psycopg."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from alphaplus.pgbinary import HEADER, TRAILER, Column, Interval, Ragged, Text, rows
from psycopg import sql

__all__ = ["Column", "Interval", "Ragged", "Text", "copy", "rows"]


def copy(
    conn: psycopg.Connection[Any],
    table: str,
    names: Sequence[str],
    batches: Sequence[tuple[Mapping[str, Column], int]],
) -> int:
    """COPY batches of columns into ``schema.table``; returns the number of rows."""
    statement = sql.SQL("copy {} ({}) from stdin (format binary)").format(
        sql.Identifier(*table.split(".")), sql.SQL(", ").join(map(sql.Identifier, names))
    )
    count = 0
    with conn.cursor() as cursor, cursor.copy(statement) as stream:
        stream.write(HEADER)
        for columns, n in batches:
            if n:
                stream.write(rows([columns.get(name) for name in names], n))
                count += n
        stream.write(TRAILER)
    return count
