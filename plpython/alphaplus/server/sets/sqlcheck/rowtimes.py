"""When the rows of a query's sources happened: their times, the ends of candles and of buckets."""

from __future__ import annotations

import functools
import re
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from alphaplus.server.sets.sqlcheck.syntax import (
    Catalogue,
    function_name,
    outputs_of,
    qualified_name,
)
from sqlglot import exp
from sqlglot.optimizer.scope import Scope

_Answer = TypeVar("_Answer")
_SPAN = re.compile(
    r"(\d+(?:\.\d+)?) *(microsecond|millisecond|second|sec|s|minute|min|m|hour|h|day|d|week|w)?s?"
)
_SECONDS = {
    "microsecond": 1e-6, "millisecond": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0,
    "w": 604800.0,
}  # fmt: skip
_TIMES_AND_SPANS = re.compile(r"interval|timestamp|date", re.IGNORECASE)


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
class Times:
    """The columns by which a source's rows have happened, and those of them that are no later.

    A row may bear several: its own time, and the end of the hour that it lies in. Rows up to the
    latter are not known at the former, so nothing may be held to it.
    """

    names: frozenset[str] = frozenset()
    own: frozenset[str] = frozenset()


@_once
def _source_times(scope: Scope, catalogue: Catalogue) -> dict[str, Times]:
    found: dict[str, Times] = {}
    for alias, source in scope.sources.items():
        if isinstance(source, exp.Table):
            relation = catalogue.relations.get(qualified_name(source))
            names = frozenset({relation.time} if relation and relation.time else ())
            found[alias] = Times(names, names)
        else:
            found[alias] = _exposed_times(source, catalogue)
    return found


def time_names(scope: Scope, catalogue: Catalogue) -> dict[str, Collection[str]]:
    """For each source of the scope the columns by which its rows have happened."""
    return {alias: its.names for alias, its in _source_times(scope, catalogue).items()}


def own_times(scope: Scope, catalogue: Catalogue) -> dict[str, Collection[str]]:
    """Those of them to which other rows may be held."""
    return {alias: its.own for alias, its in _source_times(scope, catalogue).items()}


@dataclass(frozen=True)
class Bars:
    """A source whose rows begin at its times: these columns, those of the rows' lengths, and the
    longest in seconds where the query says it. ``alike``: all are as long.
    """

    names: frozenset[str]
    widths: frozenset[str]
    length: float | None
    alike: bool


@_once
def bars_of(scope: Scope, catalogue: Catalogue) -> dict[str, Bars]:
    """The sources of a scope whose times are openings (candles, or what gives theirs on)."""
    found: dict[str, Bars] = {}
    for alias, source in scope.sources.items():
        if isinstance(source, exp.Table):
            relation = catalogue.relations.get(qualified_name(source))
            if relation is None or relation.time is None or relation.width is None:
                continue
            bars = Bars(frozenset({relation.time}), frozenset({relation.width}), None, alike=False)
        else:
            bars = _exposed_bars(source, catalogue)
        if bars.names:
            said = _length(scope, alias, bars.widths)
            alike = bars.alike or said is not None
            found[alias] = Bars(bars.names, bars.widths, said or bars.length, alike)
    return found


@_once
def _exposed_bars(scope: Scope, catalogue: Catalogue) -> Bars:
    if scope.set_operation_scopes:
        outputs = outputs_of(scope)
        parts = [_exposed_bars(part, catalogue) for part in scope.set_operation_scopes]
        named = [
            {outputs[i] for i, name in enumerate(outputs_of(part)[: len(outputs)]) if name in own}
            for part, bars in zip(scope.set_operation_scopes, parts, strict=True)
            for own in (bars.names, bars.widths)
        ]
        lengths = {bars.length if bars.names else 0.0 for bars in parts}
        openings = frozenset(name for own in named[0::2] for name in own)
        widths_of_all = frozenset.intersection(*map(frozenset, named[1::2]))
        known = [length for length in lengths if length is not None]
        longest = max(known) if len(known) == len(lengths) else None
        alike = len(lengths) == 1 and all(bars.alike for bars in parts)
        return Bars(openings, widths_of_all, longest, alike)
    inner, given = bars_of(scope, catalogue), row_times(scope, catalogue)
    bars = next((inner[alias] for alias in given if alias in inner), None)
    if bars is None or not isinstance(scope.expression, exp.Select):
        return Bars(frozenset(), frozenset(), None, alike=False)
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
    return Bars(frozenset(names), frozenset(widths), bars.length, bars.alike)


def _length(scope: Scope, alias: str, widths: Collection[str]) -> float | None:
    """How long a source's rows are, by a condition of the query: timeframe = '1 minute'."""
    for condition, only in conditions_of(scope):
        if isinstance(condition, exp.EQ) and only in (None, alias):
            sides = (condition.this, condition.expression)
            for column, value in (sides, sides[::-1]):
                if (
                    isinstance(column, exp.Column)
                    and column.name in widths
                    and column.table in ("", alias)
                    and seconds_of(value) is not None
                ):
                    return seconds_of(value)
    return None


def closing_of(
    node: exp.Expr | None, bars: Mapping[str, Bars], *, exactly: bool = False
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
                        and (seconds_of(width) or 0.0) >= its.length
                        and not (exactly and (seconds_of(width) != its.length or not its.alike))
                    )
                )
            ):
                return alias
    return None


@_once
def _exposed_times(scope: Scope, catalogue: Catalogue) -> Times:
    if scope.set_operation_scopes:
        first, *rest = scope.set_operation_scopes
        outputs = outputs_of(first)
        given = _exposed_times(first, catalogue)
        names, own = set(given.names), set(given.own)
        for part in rest:
            here = _exposed_times(part, catalogue)
            pairs = list(zip(outputs, outputs_of(part), strict=False))
            names &= {name for name, inside in pairs if inside in here.names}
            own &= {name for name, inside in pairs if inside in here.own}
        return Times(frozenset(names), frozenset(own))
    if not isinstance(scope.expression, exp.Select):
        return Times()
    inner = row_times(scope, catalogue)
    inner_own = {alias: own_times(scope, catalogue)[alias] for alias in inner}
    bars = {alias: its for alias, its in bars_of(scope, catalogue).items() if alias in inner}
    names, own = set(), set()
    for projection in scope.expression.selects:
        value = projection.unalias()
        if isinstance(projection, exp.Star) or (
            isinstance(value, exp.Column) and isinstance(value.this, exp.Star)
        ):
            if not isinstance(value, exp.Column) or value.table in ("", *inner):
                names |= set().union(*inner.values())
                own |= set().union(*inner_own.values())
        elif bare_time(value, inner) or closed_bucket(value, inner) or closing_of(value, bars):
            names.add(projection.alias_or_name)
            if bare_time(value, inner_own) or closing_of(value, bars, exactly=True):
                own.add(projection.alias_or_name)
    return Times(frozenset(names), frozenset(own or (names if len(names) == 1 else ())))


@_once
def row_times(scope: Scope, catalogue: Catalogue) -> dict[str, Collection[str]]:
    """The time columns of the relation that gives a SELECT its rows: the first that has any."""
    times = time_names(scope, catalogue)
    timed = [alias for alias in scope.selected_sources if times.get(alias)]
    return {alias: times[alias] for alias in timed[:1]}


def seconds_of(node: exp.Expr | None) -> float | None:
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


def bare_time(node: exp.Expr | None, times: Mapping[str, Collection[str]]) -> bool:
    """Is it one of the times, given by source, and nothing made of it?"""
    if not isinstance(node, exp.Column):
        return False
    if node.table:
        return node.name in times.get(node.table, ())
    return any(node.name in names for names in times.values())


def truncates(node: exp.Expr | None) -> bool:
    """Is it the start of a bucket?"""
    if isinstance(node, exp.Dot):  # a function named with its schema
        node = node.expression
    return isinstance(node, (exp.TimestampTrunc, exp.DateTrunc, exp.DateBin)) or (
        isinstance(node, exp.Func)
        and function_name(node) in {"time_bucket", "date_trunc", "date_bin"}
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


def closed_bucket(node: exp.Expr | None, times: Mapping[str, Collection[str]]) -> bool:
    """``time_bucket(w, ts) + w``: the end of a bucket, by which all its rows have happened.

    Or the last microsecond in it.
    """
    if isinstance(node, exp.Sub) and (seconds_of(node.expression) or 1.0) <= 1e-3:
        node = node.this
    while isinstance(node, exp.Paren):
        node = node.this
    if not isinstance(node, exp.Add) or not truncates(node.this):
        return False
    start = node.this.expression if isinstance(node.this, exp.Dot) else node.this
    if _in_zone(start):
        return False
    of = start.expressions[1:2] if isinstance(start, exp.Anonymous) else [start.this]
    if isinstance(start, exp.DateBin):
        of = [start.expression]
    if isinstance(start, exp.Anonymous):
        width = seconds_of(exp.Interval(this=start.expressions[0])) if start.expressions else None
    elif isinstance(start, (exp.TimestampTrunc, exp.DateTrunc)):
        width = seconds_of(exp.Literal.string(f"1 {start.text('unit')}"))
    else:
        width = seconds_of(start.this)
    added = seconds_of(node.expression)
    return (
        width is not None
        and added is not None
        and added >= width
        and any(bare_time(column, times) for column in of)
    )


def conditions_of(scope: Scope) -> Iterator[tuple[exp.Expr, str | None]]:
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
