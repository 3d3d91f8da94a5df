"""What a user's SELECT may do before it runs, and which columns its outputs come from.

Two questions, answered on the syntax tree (sqlglot, dialect postgres), each with the position of
what is wrong:

* :func:`read_only`: is it one SELECT over known relations that calls nothing volatile?
* :func:`look_ahead`: could the value in a row depend on rows that happened after it?

A linter is one half; the other is ``feature.audit_lookahead``, which runs the definition on
truncated data. The linter refuses what it cannot show to be safe.
"""

from __future__ import annotations

import functools
import re
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, SqlglotError
from sqlglot.lineage import lineage as _sqlglot_lineage
from sqlglot.optimizer.normalize_identifiers import normalize_identifiers
from sqlglot.optimizer.scope import Scope, traverse_scope
from sqlglot.tokenizer_core import TokenType

_Answer = TypeVar("_Answer")

_CLOCKS = {
    "now",
    "clock_timestamp",
    "statement_timestamp",
    "transaction_timestamp",
    "timeofday",
    "random",
    "random_normal",
    "gen_random_uuid",
    "setseed",
}
_CLOCK_NODES = (
    exp.CurrentTimestamp,
    exp.CurrentDate,
    exp.CurrentTime,
    exp.CurrentDatetime,
    exp.Localtime,
    exp.Localtimestamp,
    exp.Rand,
    exp.Uuid,
)
_WHO_NODES = (
    exp.CurrentUser, exp.SessionUser, exp.CurrentSchema, exp.CurrentCatalog, exp.CurrentDatabase,
)  # fmt: skip
_WHO_WORDS = {"user", "current_role", "system_user"}
_TIMES = {"timestamptz", "timestamp", "date", "time", "timetz"}
_TEXTS = (exp.RawString, exp.ByteString, exp.National)
_CLOCK_LITERALS = {"infinity"}
# What the server reads as a time in any text that becomes one, cast or not.
_CLOCK_WORDS = re.compile(r"\b(now|today|tomorrow|yesterday)\b", re.IGNORECASE)
_SCHEMAS = {"pg_catalog", "public"}  # of functions
_AGO = re.compile(r"\bago\b", re.IGNORECASE)
# A code for a character, or a backslash before one that has no need of it.
_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*\\[^\\'nrt]")
_TEXT_TOKENS = {
    TokenType.STRING, TokenType.BYTE_STRING, TokenType.RAW_STRING, TokenType.HEREDOC_STRING,
    TokenType.NATIONAL_STRING,
}  # fmt: skip
_UNICODE = re.compile("[uU]&[\"']")
_SPAN = re.compile(
    r"(\d+(?:\.\d+)?) *(microsecond|millisecond|second|sec|s|minute|min|m|hour|h|day|d|week|w)?s?"
)
_SECONDS = {
    "microsecond": 1e-6, "millisecond": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0,
    "w": 604800.0,
}  # fmt: skip
_WHOLE_PARTITION = (exp.CumeDist, exp.PercentRank, exp.Ntile)
_TABLE_FUNCTIONS = {"unnest", "generate_series", "exploding_generate_series"}
_TIME_TYPE = re.compile(r"time|date|ts(tz)?(multi)?range", re.IGNORECASE)
_TIMES_AND_SPANS = re.compile(r"interval|timestamp|date", re.IGNORECASE)
# Their value is of the type of (one of) their arguments.
_LIKE_ARGUMENT = (
    exp.Max, exp.Min, exp.Coalesce, exp.Greatest, exp.Least, exp.Lag, exp.Lead, exp.FirstValue,
    exp.LastValue, exp.NthValue, exp.First, exp.Last, exp.Nullif,
)  # fmt: skip


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
        if isinstance(node, (*_CLOCK_NODES, *_WHO_NODES)) and not node.meta:
            word = node.sql_name().lower()
            at = next((t for t in tokens if t.text.lower() == word), None)
            if at is not None:
                tokens.remove(at)
                node.meta.update(line=at.line, col=at.col, start=at.start, end=at.end)


def read_only(query: str, catalogue: Catalogue | None = None) -> list[Problem]:
    """Reasons why ``query`` is not one read-only SELECT over known relations; empty if it is.

    Without a catalogue the relations and functions are not looked up.
    """
    tree = parse(query)
    if isinstance(tree, Problem):
        return [tree]
    return list(_read_only(tree, catalogue))


def look_ahead(query: str, catalogue: Catalogue) -> list[Problem]:
    """Reasons why a row's value could depend on rows that happened after it; empty if none."""
    tree = parse(query)
    if isinstance(tree, Problem):
        return [tree]
    tree = _unqualified(tree)
    scopes = traverse_scope(tree)
    by_select = {id(scope.expression): scope for scope in scopes}
    problems = list(_clocks(tree, by_select, catalogue)) + list(_shape(tree))
    if scopes:
        problems.extend(_labels(scopes[-1], catalogue))
    for alias in tree.find_all(exp.TableAlias):
        if alias.columns and isinstance(alias.parent, (exp.CTE, exp.Subquery, exp.Table)):
            reads = list(alias.parent.find_all(exp.Table))
            if any(not isinstance(table.this, exp.Func) for table in reads):
                words = "a list of column names hides which column is the time"
                problems.append(_problem(alias, words, "Name the columns inside: price as p."))
    for scope in scopes:
        problems.extend(_windows(scope, catalogue))
        problems.extend(_sources(scope, catalogue))
        problems.extend(_groups(scope, catalogue))
    return sorted(set(problems), key=lambda p: (p.line, p.column))


def _unqualified(tree: exp.Query) -> exp.Query:
    """The tree with ``pg_catalog.lead(x)`` read as what it is, LEAD."""

    def plain(node: exp.Expr) -> exp.Expr:
        if (
            isinstance(node, exp.Dot)
            and node.this.name == "pg_catalog"
            and isinstance(node.expression, exp.Anonymous)
        ):
            call = node.expression
            made = exp.func(call.name.lower(), *call.expressions, dialect="postgres")
            made.meta.update(node.this.meta)
            return made
        return node

    found = tree.transform(plain)
    assert isinstance(found, exp.Query)
    return found


def outputs(query: str) -> list[str]:
    """Names of the query's columns, in order."""
    tree = parse(query)
    return [] if isinstance(tree, Problem) else tree.named_selects


def relations(query: str) -> list[str]:
    """Qualified names of the relations read, without common table expressions."""
    tree = parse(query)
    return [] if isinstance(tree, Problem) else sorted({_name(t) for t in _tables(tree)})


def lineage(
    query: str, catalogue: Catalogue, views: Mapping[str, str] | None = None
) -> dict[str, list[str]]:
    """For each output the columns it comes from, as ``schema.table.column``.

    ``views`` (qualified name to SELECT) are followed down to the tables they read.
    """
    found: dict[str, list[str]] = {}
    tree = parse(query)
    if isinstance(tree, Problem):
        return found
    for lateral in tree.find_all(exp.Lateral):  # sqlglot does not find what it reads
        if isinstance(lateral.this, exp.Subquery):
            inner = lateral.this.copy()
            inner.set("alias", lateral.args.get("alias"))
            lateral.replace(inner)
    for output in tree.named_selects:
        node = _sqlglot_lineage(
            output,
            tree.copy(),
            schema=catalogue.schema,
            sources=dict(views or {}),
            dialect="postgres",
        )
        columns: set[str] = set()
        for leaf in node.walk():
            table = leaf.source
            if leaf.downstream or not isinstance(table, exp.Table):
                continue
            columns.add(f"{_name(table)}.{leaf.name.split('.')[-1]}")
        found[output] = sorted(columns)
    return found


def _name(table: exp.Table) -> str:
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


def _problem(node: exp.Expr, reason: str, hint: str) -> Problem:
    line, column = _position(node)
    return Problem(reason, hint, line, column)


def _tables(tree: exp.Expr) -> Iterator[exp.Table]:
    for scope in traverse_scope(tree):
        for source in scope.sources.values():
            if isinstance(source, exp.Table) and isinstance(source.this, exp.Identifier):
                yield source


def _read_only(tree: exp.Query, catalogue: Catalogue | None) -> Iterator[Problem]:
    for node in tree.find_all(exp.Insert, exp.Update, exp.Delete, exp.Merge, exp.Command, exp.DDL):
        if not isinstance(node, exp.Query):
            yield _problem(node, f"{node.key.upper()} inside the query", "Only read.")
    for node in tree.find_all(exp.Into, exp.Lock):
        word = "SELECT INTO" if isinstance(node, exp.Into) else "a row lock"
        yield _problem(node.parent or node, f"{word} writes", "Leave it out.")
    yield from _names(tree)
    yield from _arbitrary(tree)
    yield from _unseen(tree)
    if catalogue is None:
        return
    for table in _tables(tree):
        if _name(table) not in catalogue.relations:
            known = ", ".join(sorted(catalogue.relations)[:8])
            yield _problem(
                table,
                f"relation {_name(table)} is not known",
                f"Name relations with their schema. Known: {known}, …",
            )
    for function in tree.find_all(exp.Func):
        name = _function(function)
        if name in catalogue.volatile:
            yield _problem(
                function, f"{name}() is volatile", "Use functions that only read and compute."
            )
        elif (
            isinstance(function, exp.Anonymous)
            and catalogue.functions is not None
            and name not in catalogue.functions
        ):
            yield _problem(function, f"function {name}() is not known", "Check its name.")


def _unseen(tree: exp.Query) -> Iterator[Problem]:
    """Subqueries in places that sqlglot does not look into, so what they read is not known."""
    seen = {id(scope.expression) for scope in traverse_scope(tree)}
    for select in tree.find_all(exp.Select, exp.SetOperation):
        if id(select) not in seen:
            yield _problem(
                select,
                "a subquery in this place cannot be checked",
                "Put it into FROM, or write it as a WITH query.",
            )


def _arbitrary(tree: exp.Query) -> Iterator[Problem]:
    """What hangs on the order in which the server happens to meet rows."""
    hint = "Say in which order: order by ts desc."
    for select in tree.find_all(exp.Query):
        if isinstance(select, exp.Subquery) or select.args.get("order"):
            continue
        limited = select.args.get("limit") or select.args.get("offset")
        distinct = select.args.get("distinct")
        exists = isinstance(select.parent, exp.Exists)
        if limited is not None and not exists:
            yield _problem(limited, "LIMIT without ORDER BY keeps whichever rows come first", hint)
        if isinstance(distinct, exp.Distinct) and distinct.args.get("on"):
            yield _problem(
                distinct, "DISTINCT ON without ORDER BY keeps whichever rows come first", hint
            )
    for picked in tree.find_all(exp.Bracket):
        for array in picked.this.find_all(exp.ArrayAgg):
            if not isinstance(array.this, exp.Order):
                yield _problem(
                    array,
                    "array_agg without ORDER BY has its elements in no order",
                    "Say in which order: array_agg(price order by ts).",
                )


def _names(tree: exp.Query) -> Iterator[Problem]:
    """Functions, operators and types by which code that is nobody's could be reached."""
    for dot in tree.find_all(exp.Dot):
        schema = dot.this
        if isinstance(dot.expression, exp.Func) and schema.name not in _SCHEMAS:
            yield _problem(
                dot,
                f"functions of schema {schema.name} are volatile or cannot be checked",
                "Use functions of pg_catalog, and of extensions in public.",
            )
    for operator in tree.find_all(exp.Operator):
        yield _problem(operator, "OPERATOR() cannot be checked", "Write the operator itself.")
    kinds = (exp.DataType.Type.USERDEFINED, exp.DataType.Type.UNKNOWN)
    for kind in tree.find_all(exp.DataType, exp.ObjectIdentifier):
        if isinstance(kind, exp.ObjectIdentifier) or kind.this in kinds:
            yield _problem(
                kind.parent or kind,
                f"the type {kind.sql(dialect='postgres')} cannot be checked",
                "Cast to a number, a text or a time.",
            )


def _function(node: exp.Expr) -> str:
    if isinstance(node, exp.Anonymous):
        return str(node.name).lower()
    return node.sql_name().lower() if isinstance(node, exp.Func) else ""


def _clocks(tree: exp.Expr, scopes: Mapping[int, Scope], catalogue: Catalogue) -> Iterator[Problem]:
    hint = "Use the row's own time; the time asked about is given by as_of."
    for node in tree.walk():
        if isinstance(node, _CLOCK_NODES):
            yield _problem(node, "the result depends on when the query runs", hint)
        elif isinstance(node, exp.Func) and _function(node) in _CLOCKS:
            yield _problem(node, f"{_function(node)}() changes with each run", hint)
        elif (
            isinstance(node, exp.Anonymous)
            and _function(node) == "age"
            and len(node.expressions) == 1
        ):
            yield _problem(node, "age() of one time is counted from the day of the run", hint)
        elif isinstance(node, _WHO_NODES) or (
            isinstance(node, exp.Column)
            and not node.table
            and not node.this.args.get("quoted")
            and node.name in _WHO_WORDS
        ):
            yield _problem(
                node, "the result depends on who asks", "Use only what is in the market's tables."
            )
        elif (
            isinstance(node, _TEXTS) or (isinstance(node, exp.Literal) and node.is_string)
        ) and _CLOCK_WORDS.search(node.name):
            yield _problem(node.parent or node, f"'{node.name}' is the clock's time", hint)
        elif _time_of_text(node, scopes, catalogue):
            yield _problem(
                node,
                "a text that is put together may become the clock's time",
                "Write the time out as one text.",
            )
        elif (
            isinstance(node, exp.Cast)
            and isinstance(node.this, exp.Literal)
            and node.this.is_string
            and node.this.name.strip().lower() in _CLOCK_LITERALS
        ):
            yield _problem(node, f"the literal '{node.this.name}' is the clock's time", hint)


def _time_of_text(node: exp.Expr, scopes: Mapping[int, Scope], catalogue: Catalogue) -> bool:
    """Is a time made of a text that is not there to be read: ``('n' || 'ow')::timestamptz``?"""
    value: exp.Expr | None = None
    if isinstance(node, exp.JSONValue):
        kind = node.args.get("returning")
        return kind is not None and bool(_TIME_TYPE.search(kind.sql(dialect="postgres")))
    if isinstance(node, exp.Cast):
        if _TIME_TYPE.search(node.to.sql(dialect="postgres")):
            value = node.this
    elif isinstance(node, (exp.Date, exp.Timestamp, exp.Time)) or (
        isinstance(node, exp.Anonymous) and _function(node) in _TIMES and node.expressions
    ):
        value = node.expressions[0] if isinstance(node, exp.Anonymous) else node.this
    while isinstance(value, exp.Paren):
        value = value.this
    if value is None or isinstance(value, (exp.Literal, exp.Null, *_TEXTS)):
        return False  # a text that is there is read by itself
    select = node.find_ancestor(exp.Select)
    return not _is_time(value, scopes.get(id(select)), catalogue)


def _is_time(value: exp.Expr | None, scope: Scope | None, catalogue: Catalogue) -> bool:
    """Is it certain that the server has a time here already, and no text to make one of?"""

    def inner(part: exp.Expr | None) -> bool:
        return _is_time(part, scope, catalogue)

    if isinstance(value, (exp.Paren, exp.Window, exp.Filter, exp.IgnoreNulls, exp.RespectNulls)):
        return inner(value.this)
    if isinstance(value, exp.Dot):
        return inner(value.expression)
    if isinstance(value, exp.Cast):  # looked at by itself
        return bool(_TIME_TYPE.search(value.to.sql(dialect="postgres"))) or inner(value.this)
    if isinstance(value, (exp.Add, exp.Sub)):
        return inner(value.this) or (isinstance(value, exp.Add) and inner(value.expression))
    if isinstance(value, exp.AtTimeZone):
        return inner(value.this)
    if isinstance(value, exp.Case):
        branches = [branch.args["true"] for branch in value.args["ifs"]]
        return all(map(inner, [*branches, *filter(None, [value.args.get("default")])]))
    if isinstance(value, (exp.Literal, exp.Null)):
        return isinstance(value, exp.Null)
    if isinstance(value, _LIKE_ARGUMENT):
        return all(map(inner, [value.this, *value.expressions]))
    if isinstance(value, exp.Anonymous) and _function(value) in {"first", "last"}:
        return inner(value.expressions[0] if value.expressions else None)
    if isinstance(value, (exp.UnixToTime, exp.StrToTime)) or _truncation(value):
        return True
    if isinstance(value, exp.Anonymous) and _function(value).startswith(("to_timest", "make_")):
        return True
    if isinstance(value, exp.Subquery):
        tree = value.this
        if isinstance(tree, exp.Select) and len(tree.selects) == 1 and scope is not None:
            below = next((s for s in scope.subquery_scopes if s.expression is tree), None)
            return _is_time(tree.selects[0].unalias(), below, catalogue)
        return False
    return isinstance(value, exp.Column) and _is_time_column(value, scope, catalogue)


def _is_time_column(column: exp.Column, scope: Scope | None, catalogue: Catalogue) -> bool:
    while scope is not None:
        found = []
        for alias, source in scope.sources.items():
            if column.table not in ("", alias) or alias not in scope.selected_sources:
                continue
            if isinstance(source, exp.Table):
                relation = catalogue.relations.get(_name(source))
                if relation is not None and column.name in relation.columns:
                    found.append(column.name in relation.times)
            else:
                found += _gives_time(source, column.name, catalogue)
        if found:
            return all(found)
        scope = scope.parent
    return False


def _gives_time(scope: Scope, name: str, catalogue: Catalogue) -> list[bool]:
    """For each way in which a derived table gives a column: is it a time?"""
    if scope.set_operation_scopes:
        names = _outputs(scope)
        if name not in names:
            return []
        place = names.index(name)
        parts = [(part, _outputs(part)) for part in scope.set_operation_scopes]
        given = [
            _gives_time(part, own[place], catalogue) for part, own in parts if place < len(own)
        ]
        return [result for results in given for result in results or [False]]
    if not isinstance(scope.expression, exp.Select):
        return [False]
    for projection in scope.expression.selects:
        value = projection.unalias()
        star = isinstance(projection, exp.Star) or (
            isinstance(value, exp.Column) and isinstance(value.this, exp.Star)
        )
        if star:
            table = value.table if isinstance(value, exp.Column) else None
            column = exp.column(name, table=table or None)
            if _is_time_column(column, scope, catalogue):
                return [True]
        elif projection.alias_or_name == name:
            return [_is_time(value, scope, catalogue)]
    return []


def _shape(tree: exp.Query) -> Iterator[Problem]:
    for with_ in tree.find_all(exp.With):
        if with_.args.get("recursive"):
            yield _problem(with_, "WITH RECURSIVE cannot be checked", "Write it without recursion.")
    for sample in tree.find_all(exp.TableSample):
        yield _problem(sample, "TABLESAMPLE gives other rows each time", "Leave it out.")
    for select in tree.find_all(exp.Query):
        limited = select.args.get("limit") or select.args.get("offset")
        if limited is not None and not _is_bounded(select):
            yield _problem(
                limited,
                "LIMIT over the whole sample keeps or drops a row depending on later ones",
                "Use LIMIT only inside a LATERAL or a subquery that is bounded by the row's time.",
            )


def _is_bounded(select: exp.Expr) -> bool:
    """Is it in an expression or a LATERAL, where its rows must be bounded by time?"""
    parent = select.parent
    while isinstance(parent, (exp.Subquery, exp.Paren, exp.SetOperation)):
        parent = parent.parent
    return parent is not None and not isinstance(parent, (exp.From, exp.Join, exp.CTE))


def _is_nested(scope: Scope) -> bool:
    """The same of a scope; a part of a UNION is where the UNION is."""
    while scope.parent is not None and scope in (scope.parent.set_operation_scopes or []):
        scope = scope.parent
    return scope.is_subquery or _in_lateral(scope.expression)


def _holds_rows(scope: Scope, catalogue: Catalogue) -> bool:
    """Do rows that happened at some time go into it?"""
    return any(
        isinstance(source, exp.Table)
        and (relation := catalogue.relations.get(_name(source))) is not None
        and relation.time is not None
        for part in scope.traverse()
        for source in part.sources.values()
    )


def _once(
    ask: Callable[[Scope, Catalogue], _Answer],
) -> Callable[[Scope, Catalogue], _Answer]:
    """Asked once of each scope: what reads a WITH query asks it, and so on down."""
    answers: weakref.WeakKeyDictionary[Scope, _Answer] = weakref.WeakKeyDictionary()

    @functools.wraps(ask)
    def answer(scope: Scope, catalogue: Catalogue) -> _Answer:
        if scope not in answers:
            answers[scope] = ask(scope, catalogue)
        return answers[scope]

    return answer


@dataclass(frozen=True)
class _Times:
    """The columns by which a source's rows have happened, and those of them that are no later.

    A row may bear several: its own time, and the end of the hour that it lies in. Rows up to the
    latter are not known at the former, so nothing may be held to it.
    """

    names: frozenset[str] = frozenset()
    own: frozenset[str] = frozenset()


@_once
def _source_times(scope: Scope, catalogue: Catalogue) -> dict[str, _Times]:
    found: dict[str, _Times] = {}
    for alias, source in scope.sources.items():
        if isinstance(source, exp.Table):
            relation = catalogue.relations.get(_name(source))
            names = frozenset({relation.time} if relation and relation.time else ())
            found[alias] = _Times(names, names)
        else:
            found[alias] = _exposed_times(source, catalogue)
    return found


def _time_names(scope: Scope, catalogue: Catalogue) -> dict[str, Collection[str]]:
    """For each source of the scope the columns by which its rows have happened."""
    return {alias: its.names for alias, its in _source_times(scope, catalogue).items()}


def _own_times(scope: Scope, catalogue: Catalogue) -> dict[str, Collection[str]]:
    """Those of them to which other rows may be held."""
    return {alias: its.own for alias, its in _source_times(scope, catalogue).items()}


@dataclass(frozen=True)
class _Bars:
    """A source whose rows begin at its times: these columns, those of the rows' lengths, and the
    longest in seconds where the query says it. ``alike``: all are as long.
    """

    names: frozenset[str]
    widths: frozenset[str]
    length: float | None
    alike: bool


@_once
def _bars(scope: Scope, catalogue: Catalogue) -> dict[str, _Bars]:
    """The sources of a scope whose times are openings (candles, or what gives theirs on)."""
    found: dict[str, _Bars] = {}
    for alias, source in scope.sources.items():
        if isinstance(source, exp.Table):
            relation = catalogue.relations.get(_name(source))
            if relation is None or relation.time is None or relation.width is None:
                continue
            bars = _Bars(frozenset({relation.time}), frozenset({relation.width}), None, alike=False)
        else:
            bars = _exposed_bars(source, catalogue)
        if bars.names:
            said = _length(scope, alias, bars.widths)
            alike = bars.alike or said is not None
            found[alias] = _Bars(bars.names, bars.widths, said or bars.length, alike)
    return found


@_once
def _exposed_bars(scope: Scope, catalogue: Catalogue) -> _Bars:
    if scope.set_operation_scopes:
        outputs = _outputs(scope)
        parts = [_exposed_bars(part, catalogue) for part in scope.set_operation_scopes]
        named = [
            {outputs[i] for i, name in enumerate(_outputs(part)[: len(outputs)]) if name in own}
            for part, bars in zip(scope.set_operation_scopes, parts, strict=True)
            for own in (bars.names, bars.widths)
        ]
        lengths = {bars.length if bars.names else 0.0 for bars in parts}
        openings = frozenset(name for own in named[0::2] for name in own)
        widths_of_all = frozenset.intersection(*map(frozenset, named[1::2]))
        known = [length for length in lengths if length is not None]
        longest = max(known) if len(known) == len(lengths) else None
        alike = len(lengths) == 1 and all(bars.alike for bars in parts)
        return _Bars(openings, widths_of_all, longest, alike)
    inner, given = _bars(scope, catalogue), _row_times(scope, catalogue)
    bars = next((inner[alias] for alias in given if alias in inner), None)
    if bars is None or not isinstance(scope.expression, exp.Select):
        return _Bars(frozenset(), frozenset(), None, alike=False)
    names: set[str] = set()
    widths: set[str] = set()
    for projection in scope.expression.selects:
        value = projection.unalias()
        if isinstance(projection, exp.Star) or (
            isinstance(value, exp.Column) and isinstance(value.this, exp.Star)
        ):
            names |= bars.names
            widths |= bars.widths
        elif isinstance(value, exp.Column) and value.table in ("", *given):
            if value.name in bars.names:
                names.add(projection.alias_or_name)
            elif value.name in bars.widths:
                widths.add(projection.alias_or_name)
    return _Bars(frozenset(names), frozenset(widths), bars.length, bars.alike)


def _length(scope: Scope, alias: str, widths: Collection[str]) -> float | None:
    """How long a source's rows are, by a condition of the query: timeframe = '1 minute'."""
    for condition, only in _conditions(scope):
        if isinstance(condition, exp.EQ) and only in (None, alias):
            sides = (condition.this, condition.expression)
            for column, value in (sides, sides[::-1]):
                if (
                    isinstance(column, exp.Column)
                    and column.name in widths
                    and column.table in ("", alias)
                    and _span(value) is not None
                ):
                    return _span(value)
    return None


def _closing(
    node: exp.Expr | None, bars: Mapping[str, _Bars], *, exactly: bool = False
) -> str | None:
    """The source by the close of whose rows ``ts + timeframe`` lies, if it is that.

    ``exactly``: not after it.
    """
    while isinstance(node, exp.Paren):
        node = node.this
    if not isinstance(node, exp.Add):
        return None
    for alias, its in bars.items():
        for begin, width in ((node.this, node.expression), (node.expression, node.this)):
            if (
                isinstance(begin, exp.Column)
                and begin.name in its.names
                and begin.table in ("", alias)
                and (
                    (
                        isinstance(width, exp.Column)
                        and width.name in its.widths
                        and width.table in ("", alias)
                    )
                    or (
                        its.length is not None
                        and (_span(width) or 0.0) >= its.length
                        and not (exactly and (_span(width) != its.length or not its.alike))
                    )
                )
            ):
                return alias
    return None


def _outputs(scope: Scope) -> list[str]:
    tree = scope.expression
    return tree.named_selects if isinstance(tree, exp.Query) else []


@_once
def _exposed_times(scope: Scope, catalogue: Catalogue) -> _Times:
    if scope.set_operation_scopes:
        first, *rest = scope.set_operation_scopes
        outputs = _outputs(first)
        given = _exposed_times(first, catalogue)
        names, own = set(given.names), set(given.own)
        for part in rest:
            here = _exposed_times(part, catalogue)
            pairs = list(zip(outputs, _outputs(part), strict=False))
            names &= {name for name, inside in pairs if inside in here.names}
            own &= {name for name, inside in pairs if inside in here.own}
        return _Times(frozenset(names), frozenset(own))
    if not isinstance(scope.expression, exp.Select):
        return _Times()
    inner = _row_times(scope, catalogue)
    inner_own = {alias: _own_times(scope, catalogue)[alias] for alias in inner}
    bars = {alias: its for alias, its in _bars(scope, catalogue).items() if alias in inner}
    names, own = set(), set()
    for projection in scope.expression.selects:
        value = projection.unalias()
        if isinstance(projection, exp.Star) or (
            isinstance(value, exp.Column) and isinstance(value.this, exp.Star)
        ):
            if not isinstance(value, exp.Column) or value.table in ("", *inner):
                names |= set().union(*inner.values())
                own |= set().union(*inner_own.values())
        elif _bare_time(value, inner) or _closed_bucket(value, inner) or _closing(value, bars):
            names.add(projection.alias_or_name)
            if _bare_time(value, inner_own) or _closing(value, bars, exactly=True):
                own.add(projection.alias_or_name)
    return _Times(frozenset(names), frozenset(own or (names if len(names) == 1 else ())))


@_once
def _row_times(scope: Scope, catalogue: Catalogue) -> dict[str, Collection[str]]:
    """The time columns of the relation that gives a SELECT its rows: the first that has any."""
    times = _time_names(scope, catalogue)
    timed = [alias for alias in scope.selected_sources if times.get(alias)]
    return {alias: times[alias] for alias in timed[:1]}


def _labels(scope: Scope, catalogue: Catalogue, place: int | None = None) -> Iterator[Problem]:
    """Is ``ts`` (in a part of a UNION the output at ``place``) not before what it is made of?"""
    if scope.set_operation_scopes:
        names = _outputs(scope) if place is None else []
        for part in scope.set_operation_scopes:
            where = names.index("ts") if "ts" in names else place
            yield from _labels(part, catalogue, where)
        return
    if not isinstance(scope.expression, exp.Select):
        return
    times = _row_times(scope, catalogue)
    bars = {alias: its for alias, its in _bars(scope, catalogue).items() if alias in times}
    for i, projection in enumerate(scope.expression.selects):
        if projection.alias_or_name != "ts" if place is None else i != place:
            continue
        value = projection.unalias()
        while isinstance(value, exp.Paren):
            value = value.this
        if isinstance(value, exp.Sub) and (_span(value.expression) or 1.0) <= 1e-3:
            value = value.this
        if _closing(value, bars):
            continue
        if isinstance(value, exp.Add) and _span(value.expression) is not None:
            if not _truncation(value.this):
                value = value.this
        elif isinstance(value, exp.Max) and scope.expression.args.get("group"):
            value = value.this  # the last row of its group
        while isinstance(value, exp.Paren):
            value = value.this
        known = isinstance(value, exp.Column) and _is_known_at(value, scope, catalogue)
        if not (_bare_time(value, times) or _closed_bucket(value, times) or known):
            first = next(iter(times), "the first relation")
            yield _problem(
                projection,
                "ts may lie before what its row is made of",
                f"Give {first}'s own time, or the end of its bucket:"
                " time_bucket(w, ts) + w - interval '1 microsecond'.",
            )


def _is_known_at(column: exp.Column, scope: Scope, catalogue: Catalogue) -> bool:
    """Is it when the row that gives a SELECT its rows became known?"""
    if scope.set_operation_scopes:
        outputs = _outputs(scope)
        place = outputs.index(column.name) if column.name in outputs else len(outputs)
        return all(
            place < len(_outputs(part))
            and _is_known_at(exp.column(_outputs(part)[place]), part, catalogue)
            for part in scope.set_operation_scopes
        )
    rows = next(iter(_row_times(scope, catalogue)), None)
    if rows is None or column.table not in ("", rows):
        return False
    if not column.table and len(scope.selected_sources) > 1:
        return False  # it may be another's
    source = scope.sources[rows]
    if isinstance(source, exp.Table):
        return column.name == "known_at"
    if source.set_operation_scopes:
        return _is_known_at(exp.column(column.name), source, catalogue)
    if not isinstance(source.expression, exp.Select):
        return False
    for projection in source.expression.selects:
        value = projection.unalias()
        if projection.alias_or_name == column.name:
            return isinstance(value, exp.Column) and _is_known_at(value, source, catalogue)
    return False


def _span(node: exp.Expr | None) -> float | None:
    """Seconds of an interval that is written out and not negative; None: cannot be told."""
    unit = ""
    while isinstance(node, (exp.Cast, exp.Paren, exp.Interval)):
        if isinstance(node, exp.Interval):
            unit = node.args["unit"].name.lower() if node.args.get("unit") else unit
        node = node.this
    if not isinstance(node, exp.Literal):
        return None
    text = f"{node.name} {unit}".strip().lower()
    parts = [part for part in _SPAN.findall(text) if part[1]]
    if not parts or _SPAN.sub("", text).strip():
        return None
    return sum(float(n) * (_SECONDS.get(u) or _SECONDS[u[0]]) for n, u in parts)


def _bare_time(node: exp.Expr | None, times: Mapping[str, Collection[str]]) -> bool:
    if not isinstance(node, exp.Column):
        return False
    if node.table:
        return node.name in times.get(node.table, ())
    return any(node.name in names for names in times.values())


def _truncation(node: exp.Expr | None) -> bool:
    if isinstance(node, exp.Dot):  # a function named with its schema
        node = node.expression
    return isinstance(node, (exp.TimestampTrunc, exp.DateTrunc, exp.DateBin)) or (
        isinstance(node, exp.Func) and _function(node) in {"time_bucket", "date_trunc", "date_bin"}
    )


def _in_zone(start: exp.Expr) -> bool:
    """Are the buckets those of a time zone? A day of 25 hours ends after ``start + '1 day'``."""
    if isinstance(start, exp.Anonymous):
        return any(
            not isinstance(part, (exp.Interval, exp.Cast))
            or not _TIMES_AND_SPANS.search(part.sql(dialect="postgres"))
            for part in start.expressions[2:]
        )
    return bool(start.args.get("zone"))


def _closed_bucket(node: exp.Expr | None, times: Mapping[str, Collection[str]]) -> bool:
    """``time_bucket(w, ts) + w``: the end of a bucket, by which all its rows have happened.

    Or the last microsecond in it.
    """
    if isinstance(node, exp.Sub) and (_span(node.expression) or 1.0) <= 1e-3:
        node = node.this
    while isinstance(node, exp.Paren):
        node = node.this
    if not isinstance(node, exp.Add) or not _truncation(node.this):
        return False
    start = node.this.expression if isinstance(node.this, exp.Dot) else node.this
    if _in_zone(start):
        return False
    of = start.expressions[1:2] if isinstance(start, exp.Anonymous) else [start.this]
    if isinstance(start, exp.DateBin):
        of = [start.expression]
    if isinstance(start, exp.Anonymous):
        width = _span(exp.Interval(this=start.expressions[0])) if start.expressions else None
    elif isinstance(start, (exp.TimestampTrunc, exp.DateTrunc)):
        width = _span(exp.Literal.string(f"1 {start.text('unit')}"))
    else:
        width = _span(start.this)
    added = _span(node.expression)
    return (
        width is not None
        and added is not None
        and added >= width
        and any(_bare_time(column, times) for column in of)
    )


def _windows(scope: Scope, catalogue: Catalogue) -> Iterator[Problem]:
    rows = _row_times(scope, catalogue)
    times = {alias: its for alias, its in _own_times(scope, catalogue).items() if alias in rows}
    bars = {alias: its for alias, its in _bars(scope, catalogue).items() if alias in rows}
    select = scope.expression
    named = {
        window.name: window
        for window in (select.args.get("windows") or [] if isinstance(select, exp.Select) else [])
    }
    for window in scope.find_all(exp.Window):
        if window.arg_key == "windows":
            continue
        function = window.this
        while isinstance(function, (exp.IgnoreNulls, exp.RespectNulls, exp.Filter)):
            function = function.this
        spec = named.get(window.alias, window) if window.args.get("alias") else window
        yield from _window(function, window, spec, times)
        keys = [key.this for key in getattr(spec.args.get("order"), "expressions", [])[:1]]
        partition = spec.args.get("partition_by") or []
        if _of_many_lengths([*keys, *partition], partition, bars):
            yield _many_lengths(window, bars)


def _of_many_lengths(
    times: Iterable[exp.Expr], apart: Iterable[exp.Expr], bars: Mapping[str, _Bars]
) -> bool:
    """Are bars of several lengths put together by when they open? The longer are known later."""

    def one_of(node: exp.Expr, names: Collection[str], alias: str) -> bool:
        return isinstance(node, exp.Column) and node.name in names and node.table in ("", alias)

    return any(
        not its.alike
        and any(
            one_of(column, its.names, alias)
            for key in times
            for column in key.find_all(exp.Column)
            if not _closing(key, {alias: its})
        )
        and not any(one_of(key, its.widths, alias) for key in apart)
        for alias, its in bars.items()
    )


def _many_lengths(node: exp.Expr, bars: Mapping[str, _Bars]) -> Problem:
    width = next((name for its in bars.values() for name in its.widths), "their length")
    return _problem(
        node,
        "candles of several lengths are put together by when they open, but the longer close later",
        f"Take one length ({width} = '1 minute'), keep them apart by {width}, or use their close.",
    )


def _window(
    function: exp.Expr,
    at: exp.Window,
    spec: exp.Expr,
    times: Mapping[str, Collection[str]],
) -> Iterator[Problem]:
    if isinstance(function, exp.Lead):
        yield _problem(at, "LEAD reads a later row", "Use LAG, or make it a label.")
        return
    if isinstance(function, exp.Lag):
        offset = function.args.get("offset")
        if offset is not None and not (isinstance(offset, exp.Literal) and offset.name.isdigit()):
            yield _problem(
                at,
                "LAG with an offset that may be negative reads a later row",
                "Give a number ≥ 0.",
            )
    if isinstance(function, _WHOLE_PARTITION):
        yield _problem(
            at,
            f"{_function(function)} ranks a row among all rows of the sample, later ones too",
            "Rank it among the rows before it, in a bounded subquery.",
        )
        return
    order = spec.args.get("order")
    partition = spec.args.get("partition_by") or []
    frame = at.args.get("spec") or spec.args.get("spec")
    if order is None:
        if not any(_bare_time(key, times) for key in partition):
            yield _problem(
                at,
                "a window without ORDER BY sees the whole sample, later rows too",
                "Add ORDER BY the row's own time; the frame then ends at the row.",
            )
        return
    first = order.expressions[0]
    if not _bare_time(first.this, times) or first.args.get("desc"):
        yield _problem(
            at,
            "the window is not ordered by ascending time, so its frame may hold later rows",
            "Order the window by the row's own time, ascending: not by the end of its bucket.",
        )
    if frame is not None and (
        str(frame.args.get("end_side") or "").upper() == "FOLLOWING"
        or str(frame.args.get("start_side") or "").upper() == "FOLLOWING"
    ):
        yield _problem(
            at, "the frame reaches to following rows", "End the frame at CURRENT ROW or before."
        )


def _conditions(scope: Scope) -> Iterator[tuple[exp.Expr, str | None]]:
    """What holds of all rows, and of an outer join's ON the one source of which it does."""
    select = scope.expression
    if not isinstance(select, exp.Select):
        return
    roots: list[tuple[exp.Expr | None, str | None]] = []
    source = select.args.get("from_") or select.args.get("from")
    before = [source.this.alias_or_name] if source is not None else []
    for join in select.args.get("joins") or []:
        side, alias = (join.side or "").upper(), join.this.alias_or_name
        if side not in ("RIGHT", "FULL"):
            only = alias if side else None
            roots.append((join.args.get("on"), only))
            for column in join.args.get("using") or []:
                pairs = (
                    (exp.column(column.name, a), exp.column(column.name, alias)) for a in before
                )
                roots += [(exp.EQ(this=one, expression=other), only) for one, other in pairs]
        before.append(alias)
    where = select.args.get("where")
    roots.append((where.this if where else None, None))
    for root, only in roots:
        if root is not None:
            for part in root.flatten() if isinstance(root, exp.And) else [root]:
                yield part, only


def _bounded_by(
    condition: exp.Expr,
    alias: str,
    own: Collection[str],
    others: Mapping[str, Collection[str]],
    bars: Mapping[str, _Bars],
    alike: Collection[str] = (),
) -> bool:
    """Does the condition hold this source's time to another one's, and not after it?

    A source of ``bars`` it must hold at its close; ``alike``: others whose rows are as long.
    """
    pairs: list[tuple[exp.Expr, exp.Expr]] = []
    if isinstance(condition, exp.Paren):
        return _bounded_by(condition.this, alias, own, others, bars, alike)
    if isinstance(condition, (exp.LTE, exp.LT)):
        pairs = [(condition.this, condition.expression)]
    elif isinstance(condition, (exp.GTE, exp.GT)):
        pairs = [(condition.expression, condition.this)]
    elif isinstance(condition, exp.EQ):
        pairs = [
            (condition.this, condition.expression),
            (condition.expression, condition.this),
        ]
    elif isinstance(condition, exp.Between) and not condition.args.get("symmetric"):
        pairs = [(condition.this, condition.args["high"])]
    theirs = {name: its for name, its in bars.items() if name in others and name != alias}
    for early, late in pairs:
        between = 0.0  # seconds from the one to the other
        closed = alias not in bars
        if alias in bars and _closing(early, {alias: bars[alias]}) is not None:
            early, closed = _opening(early, bars[alias]), True
        elif isinstance(early, exp.Add) and (span := _span(early.expression)) is not None:
            early, between = early.this, span
        if isinstance(late, exp.Sub) and (span := _span(late.expression)) is not None:
            late, between = late.this, between + span
        until = _closing(late, theirs, exactly=True)
        if until is not None:
            late = _opening(late, theirs[until])
        if not (
            isinstance(early, exp.Column)
            and early.name in own
            and early.table in ("", alias)
            and isinstance(late, exp.Column)
            and late.table not in ("", alias)  # without a table it may be the source's own
            and _bare_time(late, others)
        ):
            continue
        length = bars[alias].length if alias in bars else None
        closed = closed or early.name not in bars[alias].names
        other = theirs.get(late.table)
        room = between  # from this source's opening to when the other's row is known
        if other is not None and late.name in other.names:
            if late.table in alike:
                return True
            room += (other.length or 0.0) if other.alike else 0.0
        if closed or (length is not None and room >= length):
            return True
    return False


def _opening(node: exp.Expr, bars: _Bars) -> exp.Expr:
    """The opening in ``ts + timeframe``."""
    return next(column for column in node.find_all(exp.Column) if column.name in bars.names)


def _sources(scope: Scope, catalogue: Catalogue) -> Iterator[Problem]:
    times = _time_names(scope, catalogue)
    select = scope.expression
    if not isinstance(select, exp.Select):
        return
    for lateral in select.find_all(exp.TableAlias):
        if isinstance(lateral.parent, exp.Table) and isinstance(lateral.parent.this, exp.Func):
            name = _function(lateral.parent.this)
            if name not in _TABLE_FUNCTIONS:
                yield _problem(
                    lateral.parent, f"{name}() as a table cannot be checked", "Join a relation."
                )
    timed = [alias for alias in scope.sources if times[alias] and alias in scope.selected_sources]
    own = _own_times(scope, catalogue)
    outer: dict[str, Collection[str]] = {}
    bars: dict[str, _Bars] = {}
    parent = scope.parent
    while parent is not None:
        outer.update(_own_times(parent, catalogue))
        bars.update(_bars(parent, catalogue))
        parent = parent.parent
    own_bars = _bars(scope, catalogue)
    bars = {alias: its for alias, its in bars.items() if alias not in scope.sources} | own_bars
    nested = _is_nested(scope)
    # In a plain SELECT the first relation gives the rows, the others must not run ahead of it.
    hidden = scope.selected_sources if nested else {}
    settled = {alias: its for alias, its in outer.items() if alias not in hidden}
    if not nested:
        settled = {alias: own[alias] for alias in timed[:1]}
    need = timed if nested else timed[1:]
    conditions = list(_conditions(scope))

    def bounded(alias: str, known: Mapping[str, _Bars]) -> bool:
        alike = _alike(conditions, alias, known)
        return any(
            only in (None, alias) and _bounded_by(c, alias, times[alias], settled, known, alike)
            for c, only in conditions
        )

    while reached := [a for a in need if a not in settled and bounded(a, bars)]:
        settled.update((alias, own[alias]) for alias in reached)
    for alias, (at, source) in scope.selected_sources.items():
        if alias in need and alias not in settled and alias in bars and bounded(alias, {}):
            width = next(iter(bars[alias].widths), "its length")
            name = min(bars[alias].names)
            yield _problem(
                source if isinstance(source, exp.Table) else source.expression,
                f"{alias} is bounded by when its candles open, but they are known only at their"
                " close",
                f"Bound it by the close: {alias}.{name} + {alias}.{width} <= the row's own time.",
            )
        elif alias in need and alias not in settled:
            yield _problem(
                source if isinstance(source, exp.Table) else source.expression,
                f"{alias} is joined without an as-of bound, so its later rows are seen",
                f"Bound it by time: {alias}.{min(times[alias])} <= the row's own time.",
            )
        elif (
            isinstance(source, Scope)
            and not times[alias]
            and not isinstance(at, (exp.Lateral, exp.Unnest))
            and (nested or len(scope.selected_sources) > 1)
            and _holds_rows(source, catalogue)
        ):
            yield _problem(
                source.expression,
                f"{alias} gives no time of its rows, so later ones may be seen",
                "Give the time of its rows as a column, and bound it by that.",
            )


def _alike(
    conditions: list[tuple[exp.Expr, str | None]], alias: str, bars: Mapping[str, _Bars]
) -> set[str]:
    """The other sources of bars that a condition says are as long: a.timeframe = b.timeframe."""
    found: set[str] = set()
    if alias not in bars:
        return found
    for condition, only in conditions:
        if isinstance(condition, exp.EQ) and only in (None, alias):
            sides = (condition.this, condition.expression)
            for mine, other in (sides, sides[::-1]):
                if (
                    isinstance(mine, exp.Column)
                    and mine.table == alias
                    and mine.name in bars[alias].widths
                    and isinstance(other, exp.Column)
                    and other.table in bars
                    and other.name in bars[other.table].widths
                ):
                    found.add(other.table)
    return found


def _in_lateral(select: exp.Expr) -> bool:
    parent = select.parent
    while isinstance(parent, (exp.Subquery, exp.Paren, exp.SetOperation)):
        parent = parent.parent
    return isinstance(parent, exp.Lateral)


def _groups(scope: Scope, catalogue: Catalogue) -> Iterator[Problem]:
    select = scope.expression
    if not isinstance(select, exp.Select):
        return
    times = _time_names(scope, catalogue)
    if not any(times.values()) or _is_nested(scope):
        return
    group = select.args.get("group")
    aggregates = [
        node
        for projection in select.selects
        for node in projection.find_all(exp.AggFunc)
        if node.find_ancestor(exp.Window) is None
        and node.find_ancestor(exp.Select) is select
        and not isinstance(node.parent, exp.Window)
    ]
    if group is None and not select.args.get("distinct"):
        if aggregates:
            yield _problem(
                aggregates[0],
                "an aggregate over the whole sample sees later rows",
                "Group by the time column, use a window ordered by it, or a bounded subquery.",
            )
        return
    aliases = {p.alias: p.unalias() for p in select.selects if p.alias}
    keys = []
    distinct = select.args.get("distinct")
    on = distinct.args.get("on") if distinct is not None else None
    picked = on.expressions if on is not None else select.selects
    for key in group.expressions if group is not None else picked:
        if isinstance(key, exp.Literal) and key.is_int:
            key = select.selects[int(key.name) - 1].unalias()
        elif isinstance(key, exp.Column) and not key.table and key.name in aliases:
            key = aliases[key.name]
        keys.append(key.unalias())
    own = _own_times(scope, catalogue)
    by_time = [
        key for key in keys if _bare_time(key, own) or (on is None and _closed_bucket(key, times))
    ]
    rows = _row_times(scope, catalogue)
    bars = {alias: its for alias, its in _bars(scope, catalogue).items() if alias in rows}
    if by_time:
        if _of_many_lengths(by_time, keys, bars):
            yield _many_lengths(group or select, bars)
        return
    truncated = [key for key in keys if _truncation(key)]
    if not truncated:
        yield _problem(
            group or select,
            "the groups are not by time, so each holds later rows",
            "Group by the time column, or by the end of its bucket: time_bucket(w, ts) + w"
            " - interval '1 microsecond'.",
        )
        return
    for projection in select.selects:
        if _truncation(projection.unalias()):
            yield _problem(
                projection,
                "a bucket labelled with its start holds rows that happened after the label",
                "Label it with its end: time_bucket(w, ts) + w - interval '1 microsecond'.",
            )
