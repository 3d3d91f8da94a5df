"""What a user's SELECT may read: the market's tables and bars, other symbols' by alias, sources."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alphaplus.server.database import Database
from alphaplus.server.sets.sqlcheck import syntax

TABLES = (
    "candles", "trades", "order_book_snapshots", "liquidation_events", "funding_rates",
    "open_interest",
)  # fmt: skip
# Views of bars, as they were known at the moment; and the lengths of their bars.
BARS = {
    "candles_1m": "1 minute", "candles_5m": "5 minutes", "candles_15m": "15 minutes",
    "candles_1h": "1 hour", "candles_4h": "4 hours", "candles_1d": "1 day",
}  # fmt: skip
INTERVAL = "label_interval"  # of a label's SELECT
_ALIAS = re.compile("[a-z][a-z0-9_]{0,30}")
_TAKEN = ("market", "source", "public", "pg_catalog", "feature", "ml", "research")


class ReadsError(ValueError):
    """Other symbols are not asked for as they can be; the message says why."""


@dataclass(frozen=True)
class Reads:
    """Beside the symbol's own rows: other symbols, by alias a list or lists by the symbol that is
    computed; sources, by name the list of their columns with types."""

    symbols: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def stored(cls, symbols: str, sources: str) -> Reads:
        """From the columns of ``feature._set_declared``."""
        return cls(json.loads(symbols), json.loads(sources))

    def others(self, symbol: str) -> dict[str, Sequence[str]]:
        """The symbols behind each alias, for vectors of a symbol."""
        return {
            alias: named if isinstance(named, list) else named.get(symbol, ())
            for alias, named in self.symbols.items()
        }

    def instead(self, schema: str, table: str) -> str | None:
        """What stands in the query for a table; None: it is none of these."""
        alias = "" if schema == "market" else f"'{schema}'"
        if schema == "source":
            return f"market._source_now('{table}')" if table in self.sources else None
        if schema != "market" and schema not in self.symbols:
            return None
        if table in TABLES or (table == INTERVAL and schema == "market"):
            return f"market._{table}_now({alias})"
        if table in BARS:
            return f"market._bars_now('{BARS[table]}'{alias and ', ' + alias})"
        return None

    def rewritten(self, query: str) -> str:
        """The query with each of these tables replaced; the text is changed only there."""
        places: list[tuple[int, int, str]] = []
        for schema, table, start, end, alias in _tables(query):
            text = self.instead(schema, table)
            if text is None:
                continue
            if schema == "source":
                name = alias or table
                text += f" as {name}({self.sources[table]})"
            elif not alias:
                text += f" as {table}"
            places.append((start, end, text))
        for start, end, text in sorted(set(places), reverse=True):
            query = query[:start] + text + query[end:]
        return query


def _tables(query: str) -> Iterator[tuple[str, str, int, int, str]]:
    """Schema, name, place and alias of each table with a schema; of a source the place holds the
    alias too, which then stands with the columns."""
    from sqlglot import exp

    tree = syntax.parse(query)
    assert not isinstance(tree, syntax.Problem)
    for table in tree.find_all(exp.Table):
        schema = table.args.get("db")
        if schema is None or not isinstance(table.this, exp.Identifier):
            continue
        end = table.this.meta["end"] + 1
        given = table.args.get("alias")
        if schema.name == "source" and given is not None:
            end = given.this.meta["end"] + 1
        yield schema.name, table.name, schema.meta["start"], end, table.alias


def named_sources(query: str) -> list[str]:
    """The sources that the query reads."""
    return sorted({table for schema, table, *_ in _tables(query) if schema == "source"})


def named_aliases(query: str) -> set[str]:
    """The schemas that stand before its tables."""
    return {schema for schema, *_ in _tables(query)}


def canonical(db: Database, given: str | None) -> dict[str, Any]:
    """Other symbols as they are stored: an alias to a list, or to lists by symbol.

    Raises:
        ReadsError: not such an object. Unknown symbols: SQLSTATE AP101.
    """
    asked: Any = json.loads(given or "{}")
    if not isinstance(asked, dict):
        raise ReadsError(f"other symbols are an object by alias, not {asked!r}")
    found: dict[str, Any] = {}
    for alias, named in sorted(asked.items()):
        if not _ALIAS.fullmatch(alias) or alias in _TAKEN:
            raise ReadsError(f"other symbols cannot be called {alias!r}")
        if isinstance(named, dict):
            found[alias] = {
                _resolved(db, [symbol])[0]: _resolved(db, _list(alias, of))
                for symbol, of in sorted(named.items())
            }
        else:
            found[alias] = _resolved(db, _list(alias, named))
    return found


def _list(alias: str, named: Any) -> list[str]:
    names = [named] if isinstance(named, str) else named
    if (
        not isinstance(names, list)
        or not 0 < len(names) <= 500
        or not all(isinstance(name, str) for name in names)
    ):
        raise ReadsError(f"{alias} is a symbol, a list of symbols, or an object of these")
    return names


def _resolved(db: Database, names: list[str]) -> list[str]:
    query = (
        "select distinct market.resolve(u.name) as symbol from unnest($1) as u (name) order by 1"
    )
    return [row["symbol"] for row in db.execute(query, ("text[]",), [names])]
