"""Any version on any rows: what it would have said, held against what happened."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from alphaplus.server.database import EPOCH, Database, moments
from alphaplus.server.serving import score
from alphaplus.server.training import dataset, metrics

LEAST = 50


def _spec(plpy: Any, version_id: int) -> Any:
    plan = plpy.prepare("select * from ml._version_spec($1)", ["int8"])
    return plpy.execute(plan, [version_id])[0]


def predicted(
    plpy: Any, cache: dict[str, Any], version_id: int, symbol: str, span: tuple[int, int, int]
) -> tuple[Any, Any, Any]:
    """(µs since 1970, outcome, prediction) of a symbol's grid times in [from, to), as of a time.

    ``span`` is from, to and as_of in µs since 1970.
    """
    start, end, as_of = moments(plpy, *span)
    spec = _spec(plpy, version_id)
    model = score.load(plpy, cache, version_id)
    length = max(int(getattr(model.booster, "length", 0) or 1), 1)
    width = spec["step"]
    early = start - (length - 1) * width
    db = Database.of(plpy, cache)
    grid, _, target, features, _ = dataset.assemble(db, spec, symbol, early, end, as_of)
    rows = np.ascontiguousarray(features, dtype=np.float64)
    whole = grid >= start
    if length > 1:
        last = np.arange(len(grid))
        whole &= last >= length - 1
        first = np.maximum(last - length + 1, 0)
        whole &= grid[first] == grid - (length - 1) * width
        chosen = np.flatnonzero(whole)
        found = [
            model.predictions(
                np.ascontiguousarray(
                    rows[part[:, None] + np.arange(1 - length, 1)].reshape(len(part), -1)
                )
            )
            for part in np.array_split(chosen, max(1, len(chosen) // 2048 + 1))
            if len(part)
        ]
        values = np.concatenate([np.asarray(p) for p in found]) if found else np.zeros(0)
        return grid[chosen] + EPOCH, target[chosen], values
    return grid[whole] + EPOCH, target[whole], np.asarray(model.predictions(rows[whole]))


def _all(
    plpy: Any, cache: dict[str, Any], version_id: int, symbols: list[str], span: Any
) -> tuple[Any, Any, Any, Any]:
    """:func:`predicted` of several symbols, by time, and the number of each row's symbol."""
    if not symbols:
        _few(plpy, 0)
    parts = [predicted(plpy, cache, version_id, symbol, span) for symbol in symbols]
    ts, y, p = (np.concatenate([part[i] for part in parts]) for i in range(3))
    number = np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])
    order = np.lexsort((number, ts))
    return ts[order], y[order], p[order], number[order]


def _measured(
    plpy: Any, version: Any, ts: Any, y: Any, p: Any, base: float, blocked: bool = True
) -> dict[str, Any]:
    spec = json.loads(version["spec"])
    line = float(spec.get("operating_point") or 0.5)
    bases = np.full(len(y), base)
    if version["task"] == "classification":
        bases = np.clip(bases, 1e-6, 1 - 1e-6)
    block = metrics.blocks(ts, version["horizon"]) if blocked else None
    return metrics.measure(version["task"], ts, y, p, bases, p >= line, block)


def evaluate(
    plpy: Any,
    cache: dict[str, Any],
    version_id: int,
    symbols: list[str],
    span: tuple[int, int, int],
    base: float,
    rival: int | None = None,
) -> list[dict[str, Any]]:
    """Metrics of a version on all rows of the symbols in a span, then of each symbol alone.

    Args:
        base: the mean outcome that was known before the span.
        rival: a version to measure on the same rows; None: none.
    """
    version = _spec(plpy, version_id)
    ts, y, p, number = _all(plpy, cache, version_id, symbols, span)
    if len(ts) < LEAST:
        _few(plpy, len(ts))
    whole = _measured(plpy, version, ts, y, p, base)
    if rival is not None:
        whole["champion"] = _rival(plpy, cache, version, rival, symbols, span, (ts, y, p, number))
    found = [{"symbol": None, "rows": len(ts), "metrics": json.dumps(metrics.clean(whole))}]
    for i, symbol in enumerate(symbols):
        mine = number == i
        if len(symbols) == 1 or mine.sum() < LEAST:
            continue
        one = _measured(plpy, version, ts[mine], y[mine], p[mine], base)
        found.append(
            {
                "symbol": symbol,
                "rows": int(mine.sum()),
                "metrics": json.dumps(metrics.clean(one)),
            }
        )
    return found


def _rival(
    plpy: Any,
    cache: dict[str, Any],
    version: Any,
    rival: int,
    symbols: list[str],
    span: Any,
    mine: tuple[Any, Any, Any, Any],
) -> dict[str, Any]:
    ts, y, p, number = mine
    theirs = _all(plpy, cache, rival, symbols, span)
    i, at = _common((ts, number), (theirs[0], theirs[3]))
    if len(i) < LEAST:
        return {"version_id": rival, "method": "none", "reason": "too few rows in common"}
    base = float(y[i].mean())
    other = _spec(plpy, rival)
    return {
        "version_id": rival,
        "method": "unseen",
        "rows": len(i),
        "values": _measured(plpy, other, ts[i], y[i], theirs[2][at], base, blocked=False),
        "challenger": _measured(plpy, version, ts[i], y[i], p[i], base, blocked=False),
    }


def _few(plpy: Any, count: int) -> None:
    plpy.error(
        f"{count} rows to evaluate on, at least {LEAST} are needed",
        sqlstate="AP432",
        hint="Rows need features and an outcome known by as_of: choose another span or symbol,"
        " or wait until the horizon is over.",
    )


def _common(first: tuple[Any, Any], second: tuple[Any, Any]) -> tuple[Any, Any]:
    """Places in both of the rows that both have."""
    width = 1 + max(int(x[1].max(initial=0)) for x in (first, second))
    keys = [x[0] * width + x[1] for x in (first, second)]
    _, i, at = np.intersect1d(keys[0], keys[1], return_indices=True)
    return i, at


def compare(
    plpy: Any,
    cache: dict[str, Any],
    first: int,
    second: int,
    symbols: list[str],
    span: tuple[int, int, int],
) -> dict[str, Any]:
    """Two versions on the rows that both can predict in a span."""
    a, b = (_all(plpy, cache, one, symbols, span) for one in (first, second))
    i, at = _common((a[0], a[3]), (b[0], b[3]))
    if len(i) < LEAST:
        _few(plpy, len(i))
    return _compared(
        plpy, _spec(plpy, first), _spec(plpy, second), a[0][i], a[1][i], a[2][i], b[2][at]
    )


def compare_out_of_fold(plpy: Any, first: int, second: int) -> dict[str, Any]:
    """Two versions on the rows that both were tested on while they were trained."""
    kept = []
    names: dict[str, int] = {}
    plan = plpy.prepare(
        "select p.* from ml.version_predictions p where p.version_id = $1", ["int8"]
    )
    for one in (first, second):
        row = plpy.execute(plan, [one])[0]
        number = np.array([names.setdefault(s, len(names)) for s in row["symbols"]])
        kept.append((
            np.array(row["ts"], dtype=np.int64), number[np.array(row["symbol"]) - 1],
            np.array(row["target"]), np.array(row["prediction"]),
        ))  # fmt: skip
    a, b = kept
    i, at = _common((a[0], a[1]), (b[0], b[1]))
    if len(i) < LEAST:
        _few(plpy, len(i))
    order = np.argsort(a[0][i], kind="stable")
    i, at = i[order], at[order]
    return _compared(
        plpy, _spec(plpy, first), _spec(plpy, second), a[0][i], a[2][i], a[3][i], b[3][at]
    )


def _compared(plpy: Any, one: Any, other: Any, ts: Any, y: Any, p: Any, q: Any) -> dict[str, Any]:
    block = metrics.blocks(ts, one["horizon"])
    found = metrics.paired(one["task"], ts, y, p, q, block)
    base = float(y.mean())
    return {
        **metrics.clean(found),
        "metrics_a": json.dumps(metrics.clean(_measured(plpy, one, ts, y, p, base))),
        "metrics_b": json.dumps(metrics.clean(_measured(plpy, other, ts, y, q, base))),
    }
