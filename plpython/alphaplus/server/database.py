"""The boundary to SQL: statements prepared once a backend, and times as SQL passes them.

SQL and Python give each other times as bigint microseconds since 1970 (``ops._micros`` and
``ops._at`` in SQL). Inside, :mod:`alphaplus.server.types` counts from 2000; :func:`moments` and
:func:`micros` convert.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from alphaplus.server import errors

EPOCH = 946_684_800_000_000  # microseconds from 1970 to 2000
KEPT = 200  # users' sets, and their statements, that a backend keeps
_KEY = "alphaplus.database"


class Moment(NamedTuple):
    """What a user's SELECT is run for; times in microseconds since 1970.

    It reads the rows of the symbol that happened in [start, stop) and were known by ``as_of``; of
    an audit also those of [stop, until). ``label_start``: where a label's interval begins.
    """

    symbol: str
    start: int
    stop: int
    as_of: int
    until: int | None = None
    label_start: int | None = None
    others: Mapping[str, Sequence[str]] = {}


class Database:
    """What a module may ask the server, through PL/Python's SPI; one a backend."""

    def __init__(self, plpy: Any) -> None:
        self.plpy = plpy
        self._plans: dict[tuple[str, Sequence[str]], Any] = {}
        # Of users' feature sets (they never change): by definition the family, by id the set that
        # was asked for and the statement that evaluates it; and the moment it is evaluated at,
        # where no SQL can reach it. The same of a label's SELECT.
        self.sets: dict[str, Any] = {}
        self.sets_asked: dict[int, Any] = {}
        self.statements: dict[int, Any] = {}
        self.moment: Moment | None = None
        self.label_asked: Any = None
        # Times at which users' sets failed, until who stores them takes note: set, symbol, time in
        # microseconds since 1970, code, message.
        self.set_failures: list[tuple[int, str, int, str, str]] = []

    @classmethod
    def of(cls, plpy: Any, cache: dict[str, Any]) -> Database:
        """The backend's own, kept in PL/Python's dictionary ``GD``."""
        found: Database | None = cache.get(_KEY)
        if found is None:
            found = cache[_KEY] = cls(plpy)
        return found

    def plan(self, query: str, kinds: Sequence[str]) -> Any:
        """The statement, prepared where it has not been."""
        key = query, tuple(kinds)
        found = self._plans.get(key)
        if found is None:
            found = self._plans[key] = self.plpy.prepare(query, list(kinds))
        return found

    def execute(self, query: str, kinds: Sequence[str] = (), values: Sequence[Any] = ()) -> Any:
        """The rows of a statement with parameters of these types."""
        try:
            return self.plpy.execute(self.plan(query, kinds), list(values))
        except Exception as error:
            # What one of our functions refuses is told in its own words.
            if errors.parts(error)["sqlstate"].startswith("AP"):
                errors.again(self.plpy, error)
            raise

    def cursor(self, query: str, kinds: Sequence[str], values: Sequence[Any]) -> Any:
        """The same, fetched row by row."""
        return self.plpy.cursor(self.plan(query, kinds), list(values))


def keep(kept: dict[Any, Any], key: Any, value: Any) -> None:
    """Put into a dictionary that keeps the newest :data:`KEPT` entries."""
    kept.pop(key, None)
    kept[key] = value
    while len(kept) > KEPT:
        del kept[next(iter(kept))]


def micros(*times: int) -> list[int]:
    """Microseconds since 1970 of times since 2000: what ``ops._at`` takes."""
    return [t + EPOCH for t in times]


def moments(plpy: Any, *times: int | None) -> tuple[int, ...]:
    """Times since 2000 of microseconds since 1970; refuses (AP211) null.

    ``ops._micros`` gives null for an infinite time, and for one that no market has seen.
    """
    found = [t for t in times if t is not None]
    if len(found) < len(times):
        plpy.error(
            "a time is null, infinite, or not of the years 1700 to 2261",
            sqlstate="AP211",
            hint="Give a time that has a date, such as '2024-06-01 00:00+00'.",
        )
    return tuple(t - EPOCH for t in found)
