"""Labels that are a user's SELECT: how it is checked, and what it becomes.

It is written over the market's tables and ``market.label_interval`` (one row: ts, label_end). At a
grid time ``t`` each table is replaced by the symbol's rows that happened in [t - lookback, t + h)
and were known by as_of. What it can read is what a feature set's SELECT can, by the same role.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from alphaplus.server.database import Database, Moment
from alphaplus.server.sets import reads, user
from alphaplus.server.sets.sqlcheck import reading, syntax
from alphaplus.server.sets.sqlcheck.clocks import clocks
from sqlglot.optimizer.scope import traverse_scope

COLUMN = "target"


def check(db: Database, query: str) -> str:
    """The task that the SELECT's column target has: a boolean is a class, a number a value.

    Raises (SQLSTATE): AP222 it is not one read-only SELECT of a target over the market's tables.
    """
    plpy = db.plpy
    known = user.catalogue(db)
    known.relations[f"market.{reads.INTERVAL}"] = syntax.Relation(("ts", "label_end"))  # type: ignore[index]
    problems = reading.read_only(query, known)
    if not problems:
        tree = syntax.parse(query)
        assert not isinstance(tree, syntax.Problem)
        by_select = {id(scope.expression): scope for scope in traverse_scope(tree)}
        problems = list(clocks(tree, by_select, known))
    if problems:
        plpy.error(
            f"the label's query is not taken: {problems[0]}",
            sqlstate="AP222",
            detail="; ".join(str(problem) for problem in problems),
            hint=problems[0].hint,
        )
    kinds, failed = user.column_types(plpy, reads.Reads().rewritten(query))
    if failed:
        plpy.error(
            f"the label's query does not run: {failed}",
            sqlstate="AP222",
            hint="Give one row with a column target: select ln(max(c.high) / min(c.low)) as target"
            " from market.candles c",
        )
    if list(kinds) != [COLUMN] or kinds[COLUMN] not in user.NUMBERS:
        plpy.error(
            "the label's query is not one column target, a number or a boolean",
            sqlstate="AP222",
            detail=f"Its columns: {', '.join(kinds) or 'none'}.",
            hint="select … as target from …; a boolean makes a class, a number a value.",
        )
    return "classification" if kinds[COLUMN] == user.BOOLEAN else "regression"


def statement(query: str, task: str) -> str:
    """The label at the moment asked for: up to two rows, of which one is too many."""
    inside = reads.Reads().rewritten(query.strip().rstrip(";"))
    # float8 has no cast from boolean
    value = "u.target::int::float8" if task == "classification" else "u.target::float8"
    return f"select {value} as target from ({inside}\n) as u limit 2"


def run(
    plpy: Any,
    cache: dict[str, Any],
    symbol: str,
    times: list[int],
    back: int,
    horizon: int,
    known_by: int,
) -> Iterator[tuple[int, float | None]]:
    """``ml._label_select``: the times at which the label's SELECT gives a row, with its target.

    Raises (SQLSTATE): AP721 no label is being computed; AP229 several rows.
    """
    db = Database.of(plpy, cache)
    if db.label_asked is None:
        plpy.error(
            "no label is being computed",
            sqlstate="AP721",
            hint="Ask by ml.label_values: ml._label_select is its helper.",
        )
    asked = statement(*db.label_asked)
    out: list[tuple[int, float | None]] = []
    try:
        for at in times:
            db.moment = Moment(symbol, at - back, at + horizon, known_by, None, at)
            found = db.execute(asked)
            if len(found) > 1:
                plpy.error(
                    "the label's query gives more than one row for one time",
                    sqlstate="AP229",
                    hint="Aggregate, or take one by limit 1 with an order.",
                )
            if len(found):
                out.append((at, found[0]["target"]))
    finally:
        db.moment = None
    return iter(out)
