"""Are joins, subqueries and laterals held to the time of the row that asks?"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from alphaplus.server.sets.sqlcheck.rowtimes import (
    Bars,
    bare_time,
    bars_of,
    closing_of,
    conditions_of,
    own_times,
    seconds_of,
    time_names,
)
from alphaplus.server.sets.sqlcheck.syntax import (
    Catalogue,
    Problem,
    function_name,
    problem_at,
    qualified_name,
)
from sqlglot import exp
from sqlglot.optimizer.scope import Scope

_TABLE_FUNCTIONS = {"unnest", "generate_series", "exploding_generate_series"}


def is_bounded(select: exp.Expr) -> bool:
    """Is it in an expression or a LATERAL, where its rows must be bounded by time?"""
    parent = select.parent
    while isinstance(parent, (exp.Subquery, exp.Paren, exp.SetOperation)):
        parent = parent.parent
    return parent is not None and not isinstance(parent, (exp.From, exp.Join, exp.CTE))


def is_nested(scope: Scope) -> bool:
    """The same of a scope; a part of a UNION is where the UNION is."""
    while scope.parent is not None and scope in (scope.parent.set_operation_scopes or []):
        scope = scope.parent
    return scope.is_subquery or _in_lateral(scope.expression)


def _holds_rows(scope: Scope, catalogue: Catalogue) -> bool:
    """Do rows that happened at some time go into it?"""
    return any(
        isinstance(source, exp.Table)
        and (relation := catalogue.relations.get(qualified_name(source))) is not None
        and relation.time is not None
        for part in scope.traverse()
        for source in part.sources.values()
    )


def _bounded_by(
    condition: exp.Expr,
    alias: str,
    own: Collection[str],
    others: Mapping[str, Collection[str]],
    bars: Mapping[str, Bars],
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
        if alias in bars and closing_of(early, {alias: bars[alias]}) is not None:
            early, closed = _opening(early, bars[alias]), True
        elif isinstance(early, exp.Add) and (span := seconds_of(early.expression)) is not None:
            early, between = early.this, span
        if isinstance(late, exp.Sub) and (span := seconds_of(late.expression)) is not None:
            late, between = late.this, between + span
        until = closing_of(late, theirs, exactly=True)
        if until is not None:
            late = _opening(late, theirs[until])
        if not (
            isinstance(early, exp.Column)
            and early.name in own
            and early.table in ("", alias)
            and isinstance(late, exp.Column)
            and late.table not in ("", alias)  # without a table it may be the source's own
            and bare_time(late, others)
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


def _opening(node: exp.Expr, bars: Bars) -> exp.Expr:
    """The opening in ``ts + timeframe``."""
    return next(column for column in node.find_all(exp.Column) if column.name in bars.names)


def sources(scope: Scope, catalogue: Catalogue) -> Iterator[Problem]:
    """What is read beside the row, and not held to its time."""
    times = time_names(scope, catalogue)
    select = scope.expression
    if not isinstance(select, exp.Select):
        return
    for lateral in select.find_all(exp.TableAlias):
        if isinstance(lateral.parent, exp.Table) and isinstance(lateral.parent.this, exp.Func):
            name = function_name(lateral.parent.this)
            if name not in _TABLE_FUNCTIONS:
                yield problem_at(
                    lateral.parent, f"{name}() as a table cannot be checked", "Join a relation."
                )
    timed = [alias for alias in scope.sources if times[alias] and alias in scope.selected_sources]
    own = own_times(scope, catalogue)
    outer: dict[str, Collection[str]] = {}
    bars: dict[str, Bars] = {}
    parent = scope.parent
    while parent is not None:
        outer.update(own_times(parent, catalogue))
        bars.update(bars_of(parent, catalogue))
        parent = parent.parent
    own_bars = bars_of(scope, catalogue)
    bars = {alias: its for alias, its in bars.items() if alias not in scope.sources} | own_bars
    nested = is_nested(scope)
    # In a plain SELECT the first relation gives the rows, the others must not run ahead of it.
    hidden = scope.selected_sources if nested else {}
    settled = {alias: its for alias, its in outer.items() if alias not in hidden}
    if not nested:
        settled = {alias: own[alias] for alias in timed[:1]}
    need = timed if nested else timed[1:]
    conditions = list(conditions_of(scope))

    def bounded(alias: str, known: Mapping[str, Bars]) -> bool:
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
            yield problem_at(
                source if isinstance(source, exp.Table) else source.expression,
                f"{alias} is bounded by when its candles open, but they are known only at their"
                " close",
                f"Bound it by the close: {alias}.{name} + {alias}.{width} <= the row's own time.",
            )
        elif alias in need and alias not in settled:
            yield problem_at(
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
            yield problem_at(
                source.expression,
                f"{alias} gives no time of its rows, so later ones may be seen",
                "Give the time of its rows as a column, and bound it by that.",
            )


def _alike(
    conditions: list[tuple[exp.Expr, str | None]], alias: str, bars: Mapping[str, Bars]
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
