"""What a SELECT names, by its syntax tree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def parts(query: str) -> Iterator[dict[str, Any]]:
    """Relations and functions with their schemas, texts between quotes, and columns of a SELECT."""
    import sqlglot
    from sqlglot import exp

    none: dict[str, Any] = {"relations": [], "functions": [], "words": [], "columns": []}
    try:
        trees = [tree for tree in sqlglot.parse(query, read="postgres") if tree is not None]
    except (sqlglot.errors.SqlglotError, RecursionError) as error:
        yield {"problem": f"it cannot be parsed: {str(error).splitlines()[0]}", **none}
        return
    if len(trees) != 1 or not isinstance(trees[0], exp.Query):
        yield {"problem": "it is no single SELECT", **none}
        return
    tree = trees[0]
    if tree.find(exp.Insert, exp.Update, exp.Delete, exp.Merge, exp.Into) is not None:
        yield {"problem": "it changes something", **none}
        return
    aliases = {cte.alias for cte in tree.find_all(exp.CTE)}
    relations: set[str] = set()
    functions: set[str] = set()
    for table in tree.find_all(exp.Table):
        inner = table.this
        if isinstance(inner, exp.Func):
            functions.add(_called(inner, table.db))
        elif table.name and not (not table.db and table.name in aliases):
            relations.add(f"{table.db}.{table.name}" if table.db else table.name)
    for dot in tree.find_all(exp.Dot):
        if isinstance(dot.expression, exp.Func):
            functions.add(_called(dot.expression, dot.this.name))
    words = {node.name for node in tree.find_all(exp.Literal) if node.is_string}
    columns = {node.name for node in tree.find_all(exp.Column)}
    if tree.find(exp.Star):
        columns.add("*")
    yield {
        "problem": None,
        "relations": sorted(relations),
        "functions": sorted(functions),
        "words": sorted(words),
        "columns": sorted(columns),
    }


def _called(function: Any, schema: str) -> str:
    """The name of a function as it is written, with its schema."""
    from sqlglot import exp

    anonymous = isinstance(function, exp.Anonymous)
    name = str(function.name if anonymous else function.sql_name()).lower()
    return f"{schema}.{name}" if schema else name
