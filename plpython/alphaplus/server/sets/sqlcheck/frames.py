"""Which rows windows and groups put together, and whether ``ts`` is after all of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from alphaplus.server.sets.sqlcheck.bounds import is_nested
from alphaplus.server.sets.sqlcheck.rowtimes import (
    Bars,
    bare_time,
    bars_of,
    closed_bucket,
    closing_of,
    is_known_at,
    own_times,
    row_times,
    seconds_of,
    time_names,
    truncates,
)
from alphaplus.server.sets.sqlcheck.syntax import (
    Catalogue,
    Problem,
    function_name,
    outputs_of,
    problem_at,
)
from sqlglot import exp
from sqlglot.optimizer.scope import Scope

_WHOLE_PARTITION = (exp.CumeDist, exp.PercentRank, exp.Ntile)


def labels(scope: Scope, catalogue: Catalogue, place: int | None = None) -> Iterator[Problem]:
    """Is ``ts`` (in a part of a UNION the output at ``place``) not before what it is made of?"""
    if scope.set_operation_scopes:
        names = outputs_of(scope) if place is None else []
        for part in scope.set_operation_scopes:
            where = names.index("ts") if "ts" in names else place
            yield from labels(part, catalogue, where)
        return
    if not isinstance(scope.expression, exp.Select):
        return
    times = row_times(scope, catalogue)
    bars = {alias: its for alias, its in bars_of(scope, catalogue).items() if alias in times}
    for i, projection in enumerate(scope.expression.selects):
        if projection.alias_or_name != "ts" if place is None else i != place:
            continue
        value = projection.unalias()
        while isinstance(value, exp.Paren):
            value = value.this
        if isinstance(value, exp.Sub) and (seconds_of(value.expression) or 1.0) <= 1e-3:
            value = value.this
        if closing_of(value, bars):
            continue
        if isinstance(value, exp.Add) and seconds_of(value.expression) is not None:
            if not truncates(value.this):
                value = value.this
        elif isinstance(value, exp.Max) and scope.expression.args.get("group"):
            value = value.this  # the last row of its group
        while isinstance(value, exp.Paren):
            value = value.this
        known = isinstance(value, exp.Column) and is_known_at(value, scope, catalogue)
        if not (bare_time(value, times) or closed_bucket(value, times) or known):
            first = next(iter(times), "the first relation")
            yield problem_at(
                projection,
                "ts may lie before what its row is made of",
                f"Give {first}'s own time, or the end of its bucket:"
                " time_bucket(w, ts) + w - interval '1 microsecond'.",
            )


def windows(scope: Scope, catalogue: Catalogue) -> Iterator[Problem]:
    """Windows whose frames hold later rows."""
    rows = row_times(scope, catalogue)
    times = {alias: its for alias, its in own_times(scope, catalogue).items() if alias in rows}
    bars = {alias: its for alias, its in bars_of(scope, catalogue).items() if alias in rows}
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
    times: Iterable[exp.Expr], apart: Iterable[exp.Expr], bars: Mapping[str, Bars]
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
            if not closing_of(key, {alias: its})
        )
        and not any(one_of(key, its.widths, alias) for key in apart)
        for alias, its in bars.items()
    )


def _many_lengths(node: exp.Expr, bars: Mapping[str, Bars]) -> Problem:
    width = next((name for its in bars.values() for name in its.widths), "their length")
    return problem_at(
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
        yield problem_at(at, "LEAD reads a later row", "Use LAG, or make it a label.")
        return
    if isinstance(function, exp.Lag):
        offset = function.args.get("offset")
        if offset is not None and not (isinstance(offset, exp.Literal) and offset.name.isdigit()):
            yield problem_at(
                at,
                "LAG with an offset that may be negative reads a later row",
                "Give a number ≥ 0.",
            )
    if isinstance(function, _WHOLE_PARTITION):
        yield problem_at(
            at,
            f"{function_name(function)} ranks a row among all rows of the sample, later ones too",
            "Rank it among the rows before it, in a bounded subquery.",
        )
        return
    order = spec.args.get("order")
    partition = spec.args.get("partition_by") or []
    frame = at.args.get("spec") or spec.args.get("spec")
    if order is None:
        if not any(bare_time(key, times) for key in partition):
            yield problem_at(
                at,
                "a window without ORDER BY sees the whole sample, later rows too",
                "Add ORDER BY the row's own time; the frame then ends at the row.",
            )
        return
    first = order.expressions[0]
    if not bare_time(first.this, times) or first.args.get("desc"):
        yield problem_at(
            at,
            "the window is not ordered by ascending time, so its frame may hold later rows",
            "Order the window by the row's own time, ascending: not by the end of its bucket.",
        )
    if frame is not None and (
        str(frame.args.get("end_side") or "").upper() == "FOLLOWING"
        or str(frame.args.get("start_side") or "").upper() == "FOLLOWING"
    ):
        yield problem_at(
            at, "the frame reaches to following rows", "End the frame at CURRENT ROW or before."
        )


def groups(scope: Scope, catalogue: Catalogue) -> Iterator[Problem]:
    """Groups, and what is picked of several rows, that hold later rows than they say."""
    select = scope.expression
    if not isinstance(select, exp.Select):
        return
    times = time_names(scope, catalogue)
    if not any(times.values()) or is_nested(scope):
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
            yield problem_at(
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
    own = own_times(scope, catalogue)
    by_time = [
        key for key in keys if bare_time(key, own) or (on is None and closed_bucket(key, times))
    ]
    rows = row_times(scope, catalogue)
    bars = {alias: its for alias, its in bars_of(scope, catalogue).items() if alias in rows}
    if by_time:
        if _of_many_lengths(by_time, keys, bars):
            yield _many_lengths(group or select, bars)
        return
    truncated = [key for key in keys if truncates(key)]
    if not truncated:
        yield problem_at(
            group or select,
            "the groups are not by time, so each holds later rows",
            "Group by the time column, or by the end of its bucket: time_bucket(w, ts) + w"
            " - interval '1 microsecond'.",
        )
        return
    for projection in select.selects:
        if truncates(projection.unalias()):
            yield problem_at(
                projection,
                "a bucket labelled with its start holds rows that happened after the label",
                "Label it with its end: time_bucket(w, ts) + w - interval '1 microsecond'.",
            )
