"""Which columns the outputs of a user's SELECT come from."""

from __future__ import annotations

from collections.abc import Mapping

from alphaplus.server.sets.sqlcheck.syntax import Catalogue, Problem, parse, qualified_name
from sqlglot import exp
from sqlglot.lineage import lineage as _sqlglot_lineage


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
            columns.add(f"{qualified_name(table)}.{leaf.name.split('.')[-1]}")
        found[output] = sorted(columns)
    return found
