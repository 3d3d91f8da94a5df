"""Could the value in a row depend on rows that happened after it?"""

from __future__ import annotations

from collections.abc import Iterator

from alphaplus.server.sets.sqlcheck.bounds import is_bounded, sources
from alphaplus.server.sets.sqlcheck.clocks import clocks
from alphaplus.server.sets.sqlcheck.frames import groups, labels, windows
from alphaplus.server.sets.sqlcheck.syntax import Catalogue, Problem, parse, problem_at
from sqlglot import exp
from sqlglot.optimizer.scope import traverse_scope


def look_ahead(query: str, catalogue: Catalogue) -> list[Problem]:
    """Reasons why a row's value could depend on rows that happened after it; empty if none."""
    tree = parse(query)
    if isinstance(tree, Problem):
        return [tree]
    tree = _unqualified(tree)
    scopes = traverse_scope(tree)
    by_select = {id(scope.expression): scope for scope in scopes}
    problems = list(clocks(tree, by_select, catalogue)) + list(_shape(tree))
    if scopes:
        problems.extend(labels(scopes[-1], catalogue))
    for alias in tree.find_all(exp.TableAlias):
        if alias.columns and isinstance(alias.parent, (exp.CTE, exp.Subquery, exp.Table)):
            reads = list(alias.parent.find_all(exp.Table))
            if any(not isinstance(table.this, exp.Func) for table in reads):
                words = "a list of column names hides which column is the time"
                problems.append(problem_at(alias, words, "Name the columns inside: price as p."))
    for scope in scopes:
        problems.extend(windows(scope, catalogue))
        problems.extend(sources(scope, catalogue))
        problems.extend(groups(scope, catalogue))
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
    for select in tree.find_all(exp.Query):
        limited = select.args.get("limit") or select.args.get("offset")
        if limited is not None and not is_bounded(select):
            yield problem_at(
                limited,
                "LIMIT over the whole sample keeps or drops a row depending on later ones",
                "Use LIMIT only inside a LATERAL or a subquery that is bounded by the row's time.",
            )
