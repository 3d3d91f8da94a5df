"""What depends on when a query runs, or on who runs it, however it is written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from alphaplus.server.sets.sqlcheck.rowtimes import truncates
from alphaplus.server.sets.sqlcheck.syntax import (
    CLOCK_NODES,
    WHO_NODES,
    Catalogue,
    Problem,
    function_name,
    outputs_of,
    problem_at,
    qualified_name,
)
from sqlglot import exp
from sqlglot.optimizer.scope import Scope

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
_WHO_WORDS = {"user", "current_role", "system_user"}
_TIMES = {"timestamptz", "timestamp", "date", "time", "timetz"}
_TEXTS = (exp.RawString, exp.ByteString, exp.National)
_CLOCK_LITERALS = {"infinity"}
# What the server reads as a time in any text that becomes one, cast or not.
_CLOCK_WORDS = re.compile(r"\b(now|today|tomorrow|yesterday)\b", re.IGNORECASE)
_TIME_TYPE = re.compile(r"time|date|ts(tz)?(multi)?range", re.IGNORECASE)
# Their value is of the type of (one of) their arguments.
_LIKE_ARGUMENT = (
    exp.Max, exp.Min, exp.Coalesce, exp.Greatest, exp.Least, exp.Lag, exp.Lead, exp.FirstValue,
    exp.LastValue, exp.NthValue, exp.First, exp.Last, exp.Nullif,
)  # fmt: skip


def clocks(tree: exp.Expr, scopes: Mapping[int, Scope], catalogue: Catalogue) -> Iterator[Problem]:
    """What reads the clock, or who asks. ``scopes``: by the id of their SELECT."""
    hint = "Use the row's own time; the time asked about is given by as_of."
    for node in tree.walk():
        if isinstance(node, CLOCK_NODES):
            yield problem_at(node, "the result depends on when the query runs", hint)
        elif isinstance(node, exp.Func) and function_name(node) in _CLOCKS:
            yield problem_at(node, f"{function_name(node)}() changes with each run", hint)
        elif (
            isinstance(node, exp.Anonymous)
            and function_name(node) == "age"
            and len(node.expressions) == 1
        ):
            yield problem_at(node, "age() of one time is counted from the day of the run", hint)
        elif isinstance(node, WHO_NODES) or (
            isinstance(node, exp.Column)
            and not node.table
            and not node.this.args.get("quoted")
            and node.name in _WHO_WORDS
        ):
            yield problem_at(
                node, "the result depends on who asks", "Use only what is in the market's tables."
            )
        elif (
            isinstance(node, _TEXTS) or (isinstance(node, exp.Literal) and node.is_string)
        ) and _CLOCK_WORDS.search(node.name):
            yield problem_at(node.parent or node, f"'{node.name}' is the clock's time", hint)
        elif _time_of_text(node, scopes, catalogue):
            yield problem_at(
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
            yield problem_at(node, f"the literal '{node.this.name}' is the clock's time", hint)


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
        isinstance(node, exp.Anonymous) and function_name(node) in _TIMES and node.expressions
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
    if isinstance(value, exp.Anonymous) and function_name(value) in {"first", "last"}:
        return inner(value.expressions[0] if value.expressions else None)
    if isinstance(value, (exp.UnixToTime, exp.StrToTime)) or truncates(value):
        return True
    if isinstance(value, exp.Anonymous) and function_name(value).startswith(("to_timest", "make_")):
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
                relation = catalogue.relations.get(qualified_name(source))
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
        names = outputs_of(scope)
        if name not in names:
            return []
        place = names.index(name)
        parts = [(part, outputs_of(part)) for part in scope.set_operation_scopes]
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
