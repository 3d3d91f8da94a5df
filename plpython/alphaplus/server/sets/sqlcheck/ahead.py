"""What a set's SELECT cannot mean: it asks for rows after the newest, for the clock, or for chance.

Later rows are out of reach, whatever a SELECT holds: it runs as a role that reads the rows of one
moment and nothing else (sql/market/now.sql). So this keeps nobody from the future. It says early
what would be null at each time, or another value at each run.
"""

from __future__ import annotations

from collections.abc import Iterator

from alphaplus.server.sets.sqlcheck.clocks import clocks
from alphaplus.server.sets.sqlcheck.syntax import Catalogue, Problem, parse, problem_at
from sqlglot import exp
from sqlglot.optimizer.scope import traverse_scope


def look_ahead(query: str, catalogue: Catalogue) -> list[Problem]:
    """Reasons why it asks for rows after its newest, or depends on the clock; empty if none."""
    tree = parse(query)
    if isinstance(tree, Problem):
        return [tree]
    tree = _unqualified(tree)
    by_select = {id(scope.expression): scope for scope in traverse_scope(tree)}
    problems = [*clocks(tree, by_select, catalogue), *_shape(tree), *_windows(tree)]
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


def _shape(tree: exp.Query) -> Iterator[Problem]:
    for with_ in tree.find_all(exp.With):
        if with_.args.get("recursive"):
            yield problem_at(
                with_, "WITH RECURSIVE cannot be checked", "Write it without recursion."
            )
    for sample in tree.find_all(exp.TableSample):
        yield problem_at(sample, "TABLESAMPLE gives other rows each time", "Leave it out.")


def _windows(tree: exp.Query) -> Iterator[Problem]:
    for window in tree.find_all(exp.Window):
        function = window.this
        while isinstance(function, (exp.IgnoreNulls, exp.RespectNulls, exp.Filter)):
            function = function.this
        if isinstance(function, exp.Lead):
            yield problem_at(
                window,
                "LEAD reads a later row, and the newest has none",
                "Use LAG, or make it a label: ml.create_label.",
            )
            continue
        frame = window.args.get("spec")
        if frame is not None and "FOLLOWING" in (
            str(frame.args.get("end_side") or "").upper(),
            str(frame.args.get("start_side") or "").upper(),
        ):
            yield problem_at(
                window,
                "the frame reaches to following rows, and the newest has none",
                "End the frame at CURRENT ROW or before.",
            )
