"""How far back a row of a user's SELECT reaches, where that can be told from its text.

A SELECT of one table at a time (through WITH and subqueries), whose windows are ordered by the
rows' own time and end at the row, gives the same rows over a long stretch as over each lookback of
it, as long as what a row is made of lies in its lookback: :class:`Reach` says how much that is.
Whatever else is in it, nothing is said, and it is run at each time by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from alphaplus.server.sets.sqlcheck.rowtimes import seconds_of, truncates
from alphaplus.server.sets.sqlcheck.syntax import Problem, function_name, parse
from sqlglot import exp

_SECOND = 1_000_000
_WINDOWS = (exp.AggFunc, exp.Lag, exp.FirstValue, exp.LastValue, exp.NthValue)
_ANONYMOUS = ("regr_", "stddev", "variance", "var_", "covar_", "corr")
_UNITS = {"minute": 60, "hour": 3600, "day": 86400}
_ZONES = 2 * 3600  # by which a day of a time zone may be longer


@dataclass(frozen=True)
class Reach:
    """Rows and microseconds before a row that it is made of; the table its rows come from, and the
    length of its bars in microseconds, where it is one of bars and the text says it."""

    rows: int
    span: int
    table: str
    bar: int | None = None

    def needs(self) -> int | None:
        """The microseconds of lookback that it needs, where the length of a row is known."""
        return None if self.bar is None else (self.rows + 1) * self.bar + self.span


class _Unknown(Exception):
    """The text does not tell."""


def reach_of(query: str) -> Reach | None:
    """The reach of the query's rows; None where the text does not tell."""
    tree = parse(query)
    if isinstance(tree, Problem):
        return None
    try:
        return _of(tree, {})
    except _Unknown:
        return None


def _of(node: exp.Expr, named: dict[str, exp.Expr]) -> Reach:
    while isinstance(node, exp.Subquery):
        node = node.this
    if not isinstance(node, exp.Select):
        raise _Unknown
    named = dict(named)
    with_ = node.args.get("with_") or node.args.get("with")
    for cte in with_.expressions if with_ is not None else ():
        named[cte.alias] = cte.this
    if any(node.args.get(word) for word in (
        "joins", "laterals", "distinct", "limit", "offset", "having", "qualify", "order", "into",
        "locks", "sample", "pivots", "connect",
    )):  # fmt: skip
        raise _Unknown
    source = node.args.get("from_") or node.args.get("from")
    if source is None:
        raise _Unknown
    inner, time, bars = _source(source.this, named, node)
    parts = [*node.selects, *filter(None, [node.args.get("where")])]
    for part in parts:
        for inside in part.walk():
            if isinstance(inside, (exp.Query, exp.Subquery, exp.Exists, exp.Lead)):
                raise _Unknown
    group = node.args.get("group")
    if group is not None:
        return _grouped(node, group, inner, time)
    if any(a.find_ancestor(exp.Window) is None for p in parts for a in p.find_all(exp.AggFunc)):
        raise _Unknown
    rows, span = 0, 0
    for window in (w for part in parts for w in part.find_all(exp.Window)):
        one = _window(window, node, time)
        rows, span = max(rows, one[0]), max(span, one[1])
    _keeps_time(node, time)
    return Reach(inner.rows + rows, inner.span + span, inner.table, bars)


def _source(
    source: exp.Expr, named: dict[str, exp.Expr], select: exp.Select
) -> tuple[Reach, tuple[str, ...], int | None]:
    """What the rows come from: its reach, names that its time goes by, the length of its bars."""
    alias = source.alias_or_name
    if isinstance(source, exp.Table):
        if source.args.get("joins") or not isinstance(source.this, exp.Identifier):
            raise _Unknown
        if not source.db and source.name in named:
            inner = _of(named[source.name], _before(named, source.name))
        elif source.db == "market":
            inner = Reach(0, 0, source.name, _bar(source.name, select))
        else:
            raise _Unknown
    elif isinstance(source, exp.Subquery):
        inner = _of(source, named)
    else:
        raise _Unknown
    if source.args.get("alias") is not None and source.args["alias"].columns:
        raise _Unknown
    return inner, ("", alias), inner.bar


def _before(named: dict[str, exp.Expr], name: str) -> dict[str, exp.Expr]:
    return {other: tree for other, tree in named.items() if other != name}


def _bar(table: str, select: exp.Select) -> int | None:
    """The length of the bars of a table, by its name or a condition."""
    if table.startswith("candles_"):
        found = seconds_of(exp.Literal.string(table.removeprefix("candles_")))
        return None if found is None else round(found * _SECOND)
    where = select.args.get("where")
    if table != "candles" or where is None:
        return None
    root = where.this
    for part in root.flatten() if isinstance(root, exp.And) else [root]:
        if isinstance(part, exp.EQ):
            for column, value in ((part.this, part.expression), (part.expression, part.this)):
                if isinstance(column, exp.Column) and column.name == "timeframe":
                    found = seconds_of(value)
                    if found is not None:
                        return round(found * _SECOND)
    return None


def _is_time(node: exp.Expr | None, names: tuple[str, ...]) -> bool:
    return isinstance(node, exp.Column) and node.name == "ts" and node.table in names


def _keeps_time(select: exp.Select, names: tuple[str, ...]) -> None:
    """The column ts is the row's own time."""
    for projection in select.selects:
        if isinstance(projection, exp.Star):
            return
        if projection.alias_or_name == "ts" and _is_time(projection.unalias(), names):
            return
    raise _Unknown


def _grouped(select: exp.Select, group: exp.Expr, inner: Reach, names: tuple[str, ...]) -> Reach:
    """Groups by the end of a bucket of the rows' time, which is their ts; nothing else."""
    keys = group.expressions
    if len(keys) != 1 or any(select.find_all(exp.Window)) or inner.rows or inner.span:
        raise _Unknown
    for word in ("rollup", "cube", "grouping_sets", "all", "totals"):
        if group.args.get(word):
            raise _Unknown
    place = next((i for i, p in enumerate(select.selects) if p.alias_or_name == "ts"), None)
    if place is None:
        raise _Unknown
    time, key = select.selects[place].unalias(), keys[0]
    by_place = isinstance(key, exp.Literal) and key.is_int and int(key.name) == place + 1
    if not by_place and key != time:
        raise _Unknown
    for projection in select.selects:
        if projection is not select.selects[place] and not _aggregated(projection.unalias()):
            raise _Unknown
    ending = time
    if isinstance(ending, exp.Sub) and (seconds_of(ending.expression) or 1.0) <= 1e-3:
        ending = ending.this
    while isinstance(ending, exp.Paren):
        ending = ending.this
    width = _bucket(ending.this, names) if isinstance(ending, exp.Add) else None
    added = seconds_of(ending.expression) if isinstance(ending, exp.Add) else None
    if width is None or added is None or round(added * _SECOND) != width:
        raise _Unknown
    return Reach(0, width, inner.table, None)


def _aggregated(node: exp.Expr) -> bool:
    """Is every column in it within an aggregate that does not hang on the order of rows?"""
    return all(_within_aggregate(column) for column in node.find_all(exp.Column))


def _within_aggregate(node: exp.Expr) -> bool:
    parent = node.parent
    while parent is not None and not isinstance(parent, exp.Select):
        if isinstance(parent, (exp.AggFunc, exp.First, exp.Last)) and not isinstance(
            parent, exp.ArrayAgg
        ):
            return True
        if isinstance(parent, exp.Anonymous) and function_name(parent) in ("first", "last"):
            return True
        parent = parent.parent
    return False


def _bucket(node: exp.Expr | None, names: tuple[str, ...]) -> int | None:
    """The microseconds of a bucket of the rows' time."""
    if not truncates(node):
        return None
    start = node.expression if isinstance(node, exp.Dot) else node
    if isinstance(start, exp.Anonymous):
        if len(start.expressions) != 2 or not _is_time(start.expressions[1], names):
            return None
        found = seconds_of(exp.Interval(this=start.expressions[0]))
    elif isinstance(start, (exp.TimestampTrunc, exp.DateTrunc)):
        unit = _UNITS.get(start.text("unit").lower())
        if unit is None or not _is_time(start.this, names):
            return None
        found = float(unit + (_ZONES if start.args.get("zone") else 0))
    else:
        return None
    return None if found is None else round(found * _SECOND)


def _window(window: exp.Window, select: exp.Select, names: tuple[str, ...]) -> tuple[int, int]:
    """Rows and microseconds that a window reaches back."""
    function = window.this
    while isinstance(function, (exp.IgnoreNulls, exp.RespectNulls, exp.Filter)):
        function = function.this
    if isinstance(function, exp.Dot):
        function = function.expression
    known = isinstance(function, _WINDOWS) or (
        isinstance(function, exp.Anonymous) and function_name(function).startswith(_ANONYMOUS)
    )
    if not known:
        raise _Unknown
    spec = window
    if window.args.get("alias") is not None:
        spec = next((w for w in select.args.get("windows") or () if w.name == window.alias), window)
        if spec is window or spec.args.get("alias") is not None:
            raise _Unknown
    order = spec.args.get("order") or window.args.get("order")
    if order is None or len(order.expressions) != 1:
        raise _Unknown
    first = order.expressions[0]
    if not _is_time(first.this, names) or first.args.get("desc"):
        raise _Unknown
    width = None
    for key in [*(spec.args.get("partition_by") or ()), *(window.args.get("partition_by") or ())]:
        if isinstance(key, exp.Column) and key.name == "symbol" and key.table in names:
            continue
        width = _bucket(key, names)
        if width is None:
            raise _Unknown
    if width is not None:
        return 0, width
    if isinstance(function, exp.Lag):
        offset = function.args.get("offset")
        if offset is None:
            return 1, 0
        return _whole(offset), 0
    return _frame(window.args.get("spec") or spec.args.get("spec"))


def _frame(frame: exp.Expr | None) -> tuple[int, int]:
    if frame is None or str(frame.args.get("start_side") or "").upper() != "PRECEDING":
        raise _Unknown
    if frame.args.get("exclude") is not None:
        raise _Unknown
    start, kind = frame.args.get("start"), str(frame.args.get("kind") or "").upper()
    if kind == "ROWS" and isinstance(start, exp.Expr):
        return _whole(start), 0
    if kind == "RANGE" and isinstance(start, exp.Interval):
        found = seconds_of(start)
        if found is not None and found >= 0:
            return 0, round(found * _SECOND)
    raise _Unknown


def _whole(node: exp.Expr) -> int:
    if not isinstance(node, exp.Literal) or not node.is_int:
        raise _Unknown
    return int(node.name)
