"""Is it one SELECT over known relations, calling nothing volatile, the same at each run?"""

from __future__ import annotations

from collections.abc import Iterator

from alphaplus.server.sets.sqlcheck.syntax import (
    Catalogue,
    Problem,
    function_name,
    parse,
    problem_at,
    qualified_name,
    tables_of,
)
from sqlglot import exp
from sqlglot.optimizer.scope import traverse_scope

_SCHEMAS = {"pg_catalog", "public"}  # of functions
# Functions of schema feature that SELECTs may call (sql/feature/calculations.sql).
CALCULATIONS = (
    "ewma", "quantile", "safe_div", "safe_ln", "session_start", "time_of_day", "zscore",
)  # fmt: skip


def read_only(query: str, catalogue: Catalogue | None = None) -> list[Problem]:
    """Reasons why ``query`` is not one read-only SELECT over known relations; empty if it is.

    Without a catalogue the relations and functions are not looked up.
    """
    tree = parse(query)
    if isinstance(tree, Problem):
        return [tree]
    return list(_read_only(tree, catalogue))


def _read_only(tree: exp.Query, catalogue: Catalogue | None) -> Iterator[Problem]:
    for node in tree.find_all(exp.Insert, exp.Update, exp.Delete, exp.Merge, exp.Command, exp.DDL):
        if not isinstance(node, exp.Query):
            yield problem_at(node, f"{node.key.upper()} inside the query", "Only read.")
    for node in tree.find_all(exp.Into, exp.Lock):
        word = "SELECT INTO" if isinstance(node, exp.Into) else "a row lock"
        yield problem_at(node.parent or node, f"{word} writes", "Leave it out.")
    yield from _names(tree)
    yield from _arbitrary(tree)
    yield from _unseen(tree)
    if catalogue is None:
        return
    for table in tables_of(tree):
        if qualified_name(table) not in catalogue.relations:
            known = ", ".join(sorted(catalogue.relations)[:8])
            yield problem_at(
                table,
                f"relation {qualified_name(table)} is not known",
                f"Name relations with their schema. Known: {known}, …",
            )
    for function in tree.find_all(exp.Func):
        name = function_name(function)
        ours = isinstance(function.parent, exp.Dot) and function.parent.this.name == "feature"
        if ours and name in CALCULATIONS:
            continue
        if name in catalogue.volatile:
            yield problem_at(
                function, f"{name}() is volatile", "Use functions that only read and compute."
            )
        elif (
            isinstance(function, exp.Anonymous)
            and catalogue.functions is not None
            and name not in catalogue.functions
        ):
            yield problem_at(function, f"function {name}() is not known", "Check its name.")


def _unseen(tree: exp.Query) -> Iterator[Problem]:
    """Subqueries in places that sqlglot does not look into, so what they read is not known."""
    seen = {id(scope.expression) for scope in traverse_scope(tree)}
    for select in tree.find_all(exp.Select, exp.SetOperation):
        if id(select) not in seen:
            yield problem_at(
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
            yield problem_at(
                limited, "LIMIT without ORDER BY keeps whichever rows come first", hint
            )
        if isinstance(distinct, exp.Distinct) and distinct.args.get("on"):
            yield problem_at(
                distinct, "DISTINCT ON without ORDER BY keeps whichever rows come first", hint
            )
    for picked in tree.find_all(exp.Bracket):
        for array in picked.this.find_all(exp.ArrayAgg):
            if not isinstance(array.this, exp.Order):
                yield problem_at(
                    array,
                    "array_agg without ORDER BY has its elements in no order",
                    "Say in which order: array_agg(price order by ts).",
                )


def _names(tree: exp.Query) -> Iterator[Problem]:
    """Functions, operators and types by which code that is nobody's could be reached."""
    for dot in tree.find_all(exp.Dot):
        schema = dot.this
        if schema.name == "feature" and function_name(dot.expression) in CALCULATIONS:
            continue
        if isinstance(dot.expression, exp.Func) and schema.name not in _SCHEMAS:
            yield problem_at(
                dot,
                f"functions of schema {schema.name} are volatile or cannot be checked",
                "Use functions of pg_catalog, and of extensions in public.",
            )
    for operator in tree.find_all(exp.Operator):
        yield problem_at(operator, "OPERATOR() cannot be checked", "Write the operator itself.")
    kinds = (exp.DataType.Type.USERDEFINED, exp.DataType.Type.UNKNOWN)
    for kind in tree.find_all(exp.DataType, exp.ObjectIdentifier):
        if isinstance(kind, exp.ObjectIdentifier) or kind.this in kinds:
            yield problem_at(
                kind.parent or kind,
                f"the type {kind.sql(dialect='postgres')} cannot be checked",
                "Cast to a number, a text or a time.",
            )
