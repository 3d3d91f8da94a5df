"""A query's columns by binary COPY into numpy: rows of one width, read by one structured array."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, LiteralString

import numpy as np
import numpy.typing as npt
import pandas as pd
import psycopg

Kind = Literal["number", "integer", "time", "flag", "text"]

HEADER = 19  # bytes before the first row of a binary COPY without extensions
TEXT = 24  # bytes of a text, until a longer one comes
# PostgreSQL counts microseconds from 2000-01-01.
EPOCH = 946_684_800_000_000
NOTHING = np.iinfo(np.int64).min  # -infinity as a time, and numpy's not-a-time
ROWS = 1 << 16  # rows decoded at once, about


@dataclass(frozen=True)
class Column:
    """A column of a query: its name, the SQL that gives it, and what it holds.

    number: double precision, null is NaN · integer: bigint, null is <NA> · time: timestamptz, null
    and infinities are NaT · flag: boolean, never null · text: categories, null is no category.
    """

    name: str
    expression: LiteralString
    kind: Kind = "number"

    def sql(self, width: int) -> LiteralString:
        """The column as a value that is never null and always of the same width."""
        if self.kind == "number":
            return f"coalesce(({self.expression})::float8, 'nan')"
        if self.kind == "integer":
            return f"coalesce(({self.expression})::int8, {NOTHING})"
        if self.kind == "time":
            return f"coalesce({self.expression}, '-infinity'::timestamptz)"
        if self.kind == "flag":
            return f"({self.expression})::boolean"
        padding: LiteralString = f"decode(repeat('00', {width}), 'hex')"
        words = f"convert_to(coalesce(({self.expression})::text, ''), 'UTF8')"
        return f"substring({words} || {padding} from 1 for {width})"

    def dtype(self, width: int) -> str:
        """The value as it lies in a row."""
        return {"flag": "?", "text": f"S{width}"}.get(
            self.kind, ">f8" if self.kind == "number" else ">i8"
        )

    def series(self, values: npt.NDArray[Any]) -> Any:
        """The column as pandas holds it."""
        if self.kind == "number":
            return values.astype("<f8")
        if self.kind == "flag":
            return values.astype(bool)
        if self.kind == "integer":
            whole = values.astype("<i8")
            return pd.arrays.IntegerArray(whole, whole == NOTHING)
        if self.kind == "time":
            micros = values.astype("<i8")
            none = (micros == NOTHING) | (micros == np.iinfo(np.int64).max)
            return times(np.where(none, NOTHING, micros + np.where(none, 0, EPOCH)))
        found, codes = np.unique(values, return_inverse=True)
        names = [name.decode() for name in found.tolist()]
        shift = 1 if names[:1] == [""] else 0  # null is no category
        return pd.Categorical.from_codes(
            codes.astype(np.int32) - shift, categories=pd.Index(names[shift:], dtype=object)
        )


def times(micros: npt.NDArray[np.int64]) -> pd.DatetimeIndex:
    """Microseconds since 1970 as times in UTC."""
    return pd.DatetimeIndex(micros.view("M8[us]")).tz_localize("UTC")


class TooLong(Exception):
    """A text is longer than the width that was read."""


def _layout(columns: tuple[Column, ...], width: int) -> np.dtype[Any]:
    fields: list[tuple[str, str]] = [("fields", ">i2")]
    for i, column in enumerate(columns):
        fields += [(f"l{i}", ">i4"), (f"v{i}", column.dtype(width))]
    return np.dtype(fields)


def blocks(
    conn: psycopg.Connection[Any],
    columns: tuple[Column, ...],
    rest: LiteralString,
    params: dict[str, Any],
    width: int = TEXT,
) -> Iterator[npt.NDArray[Any]]:
    """The rows of ``select columns rest`` as structured arrays, as they arrive.

    Raises:
        TooLong: a text fills its width.
    """
    layout = _layout(columns, width)
    listed: LiteralString = ", ".join(column.sql(width) for column in columns)
    texts = [f"v{i}" for i, column in enumerate(columns) if column.kind == "text"]
    waiting = bytearray()
    first = True
    query: LiteralString = f"copy (select {listed} {rest}) to stdout (format binary)"
    with conn.cursor() as cursor, cursor.copy(query, params) as copy:
        for data in copy:
            waiting += data
            if first and len(waiting) >= HEADER:
                del waiting[:HEADER]
                first = False
            if len(waiting) >= layout.itemsize * ROWS:
                yield _rows(waiting, layout, texts, width)
    yield _rows(waiting, layout, texts, width)


def _rows(
    waiting: bytearray, layout: np.dtype[Any], texts: list[str], width: int
) -> npt.NDArray[Any]:
    n = len(waiting) // layout.itemsize
    rows = np.frombuffer(bytes(waiting[: n * layout.itemsize]), dtype=layout)
    del waiting[: n * layout.itemsize]
    for name in texts:
        if n and np.char.str_len(rows[name]).max() >= width:
            raise TooLong
    return rows


def frame(
    conn: psycopg.Connection[Any],
    columns: tuple[Column, ...],
    rest: LiteralString,
    params: dict[str, Any],
) -> pd.DataFrame:
    """The rows of ``select columns rest``."""
    width = TEXT
    while True:
        try:
            found = list(blocks(conn, columns, rest, params, width))
            break
        except TooLong:
            width *= 4
    whole = np.concatenate(found)
    return pd.DataFrame(
        {column.name: column.series(whole[f"v{i}"]) for i, column in enumerate(columns)}
    )
