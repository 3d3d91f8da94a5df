"""A user's SELECT as a tree, with the places of its words; what the database knows; a refusal."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, SqlglotError
from sqlglot.optimizer.normalize_identifiers import normalize_identifiers
from sqlglot.optimizer.scope import Scope, traverse_scope
from sqlglot.tokenizer_core import TokenType

CLOCK_NODES = (
    exp.CurrentTimestamp,
    exp.CurrentDate,
    exp.CurrentTime,
    exp.CurrentDatetime,
    exp.Localtime,
    exp.Localtimestamp,
    exp.Rand,
    exp.Uuid,
)
WHO_NODES = (
    exp.CurrentUser, exp.SessionUser, exp.CurrentSchema, exp.CurrentCatalog, exp.CurrentDatabase,
)  # fmt: skip
_AGO = re.compile(r"\bago\b", re.IGNORECASE)
# A code for a character, or a backslash before one that has no need of it.
_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*\\[^\\'nrt]")
_TEXT_TOKENS = {
    TokenType.STRING, TokenType.BYTE_STRING, TokenType.RAW_STRING, TokenType.HEREDOC_STRING,
    TokenType.NATIONAL_STRING,
}  # fmt: skip
_UNICODE = re.compile("[uU]&[\"']")


@dataclass(frozen=True)
class Problem:
    """One reason why a query is refused, with where it stands (line and column from 1)."""

    reason: str
    hint: str
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.reason}"


@dataclass(frozen=True)
class Relation:
    """A relation that queries may read: its columns, and the one that says when a row happened.

    ``width``: the column with a row's length, where ``time`` is its beginning (a candle's opening);
    what such a row says is known only at ``time + width``. ``times``: all columns that are times.
    """

    columns: tuple[str, ...]
    time: str | None = None
    width: str | None = None
    times: tuple[str, ...] = ("ts", "known_at", "received_at")


@dataclass(frozen=True)
class Catalogue:
    """What the database knows: relations by qualified name, names of functions not to be called.

    ``functions``: names of all functions, where given; what else is called is refused.
    """

    relations: Mapping[str, Relation]
    volatile: Collection[str] = field(default_factory=frozenset)
    functions: Collection[str] | None = None

    @property
    def schema(self) -> dict[str, dict[str, dict[str, str]]]:
        """The relations in the nested form sqlglot wants; types do not matter here."""
        nested: dict[str, dict[str, dict[str, str]]] = {}
        for name, relation in self.relations.items():
            schema, _, table = name.partition(".")
            nested.setdefault(schema, {})[table] = dict.fromkeys(relation.columns, "text")
        return nested


def parse(query: str) -> exp.Query | Problem:
    """The one SELECT in ``query``, names folded to lower case, or why it is not one."""
    unicode = _UNICODE.search(query)
    if unicode is not None:
        before = query[: unicode.start()]
        return Problem(
            "a name or text with Unicode escapes cannot be checked",
            "Write the characters themselves.",
            before.count("\n") + 1,
            unicode.start() - before.rfind("\n"),
        )
    try:
        for token in sqlglot.tokenize(query, read="postgres"):
            text = query[token.start : token.end + 1]
            if token.token_type == TokenType.BYTE_STRING and _ESCAPE.search(text):
                words = "a text with escapes cannot be checked"
            elif token.token_type in _TEXT_TOKENS and _AGO.search(token.text):
                words = "an interval that goes back cannot be checked"
            else:
                continue
            column = token.start - query.rfind("\n", 0, token.start)
            hint = "Write the characters themselves, and a span as a positive one to subtract."
            return Problem(words, hint, query.count("\n", 0, token.start) + 1, column)
        statements = [tree for tree in sqlglot.parse(query, read="postgres") if tree is not None]
    except ParseError as error:
        first = error.errors[0] if error.errors else {}
        return Problem(
            f"not valid SQL: {first.get('description', error)}",
            "Check the SELECT by running it on its own.",
            first.get("line") or 1,
            first.get("col") or 1,
        )
    except SqlglotError as error:
        return Problem(f"not valid SQL: {error}", "Check the SELECT by running it on its own.")
    except RecursionError:
        return Problem("too deeply nested to be checked", "Write it with fewer parentheses.")
    if len(statements) != 1:
        return Problem(
            f"{len(statements)} statements where one SELECT is expected",
            "Pass a single SELECT without anything after its end.",
        )
    tree = statements[0]
    if not isinstance(tree, exp.Query):
        return Problem(
            f"{tree.key.upper()} where a SELECT is expected", "Only a read-only SELECT is taken."
        )
    _place_words(tree, query)
    return normalize_identifiers(tree, dialect="postgres")


def _place_words(tree: exp.Query, query: str) -> None:
    """Where ``current_date`` and its like stand: sqlglot keeps no place of words without (…)."""
    tokens = sqlglot.tokenize(query, read="postgres")
    for node in tree.dfs():
        if isinstance(node, (*CLOCK_NODES, *WHO_NODES)) and not node.meta:
            word = node.sql_name().lower()
            at = next((t for t in tokens if t.text.lower() == word), None)
            if at is not None:
                tokens.remove(at)
                node.meta.update(line=at.line, col=at.col, start=at.start, end=at.end)


def outputs(query: str) -> list[str]:
    """Names of the query's columns, in order."""
    tree = parse(query)
    return [] if isinstance(tree, Problem) else tree.named_selects


def relations(query: str) -> list[str]:
    """Qualified names of the relations read, without common table expressions."""
    tree = parse(query)
    return [] if isinstance(tree, Problem) else sorted({qualified_name(t) for t in tables_of(tree)})


def qualified_name(table: exp.Table) -> str:
    """``schema.table``."""
    return f"{table.db}.{table.name}" if table.db else table.name


def _position(node: exp.Expr) -> tuple[int, int]:
    """Line and column (from 1) of the first token below ``node`` that carries one.

    What carries none stands where what is around it begins.
    """
    best: tuple[int, int, int] | None = None
    for part in node.walk():
        meta = part.meta
        if "line" in meta:
            width = meta["end"] - meta["start"]
            here = (meta["start"], meta["line"], max(1, meta["col"] - width))
            if best is None or here < best:
                best = here
    if best is None and node.parent is not None:
        return _position(node.parent)
    return (best[1], best[2]) if best else (1, 1)


def problem_at(node: exp.Expr, reason: str, hint: str) -> Problem:
    """A refusal, with where the node stands."""
    line, column = _position(node)
    return Problem(reason, hint, line, column)


def tables_of(tree: exp.Expr) -> Iterator[exp.Table]:
    """The relations read, without common table expressions."""
    for scope in traverse_scope(tree):
        for source in scope.sources.values():
            if isinstance(source, exp.Table) and isinstance(source.this, exp.Identifier):
                yield source


def function_name(node: exp.Expr) -> str:
    """A call's name in lower case; nothing of what is no call."""
    if isinstance(node, exp.Anonymous):
        return str(node.name).lower()
    return node.sql_name().lower() if isinstance(node, exp.Func) else ""


def outputs_of(scope: Scope) -> list[str]:
    """Names of a scope's columns, in order."""
    tree = scope.expression
    return tree.named_selects if isinstance(tree, exp.Query) else []
