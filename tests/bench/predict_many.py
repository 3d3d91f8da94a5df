"""Set-based scoring, per row, beside LightGBM's own C call in a plain process; and ONNX batches."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
import psycopg
from alphaplus.server.serving.booster import Booster

from tests.bench import _common as common
from tests.bench.predict_key import prepare
from tests.db import serving as w

ROWS = 50_000


def c_calls(plain: Booster, vectors: list[list[float]]) -> float:
    """Seconds in the C call alone: arguments made once, the row's values already in place."""
    arguments, call, row = plain._arguments, plain._predict, plain._row
    spent = 0.0
    clock = time.perf_counter
    for values in vectors:
        row[:] = values
        start = clock()
        call(*arguments)
        spent += clock() - start
    return spent


def run(conninfo: str) -> list[dict[str, Any]]:
    """All stored vectors at once: by a plain query over them, and by ml.predict_many."""
    rows = []
    with common.database(conninfo, "many") as own, psycopg.connect(own, autocommit=True) as conn:
        for trees, columns in ((25, 10), (400, 25)):
            name, set_id, booster, x = prepare(conn, trees, columns, ROWS)
            version = w.one(conn, "select ml.champion(%s, null)", name)
            plain = Booster(booster.model_to_string().encode())
            vectors = x.tolist()
            raw = plain.raw
            keys = f"select symbol, ts from feature.vectors where set_id = {set_id}"
            found = conn.execute(
                "select prediction from ml.predict_many(%s, %s) order by ts", (name, keys)
            ).fetchall()
            own_answer = np.asarray(booster.predict(x))
            assert np.abs(np.array([r[0] for r in found]) - own_answer).max() <= 1e-15

            def in_sql(version: int = version, set_id: int = set_id) -> None:
                conn.execute(
                    "select sum(ml.predict_version(%s, v.values)) from feature.vectors v"
                    " where v.set_id = %s",
                    (version, set_id),
                )

            def many(name: str = name, keys: str = keys) -> None:
                conn.execute("select sum(prediction) from ml.predict_many(%s, %s)", (name, keys))

            span = (name, w.at(0), w.at(len(x)))

            def history(span: Any = span) -> None:
                conn.execute(
                    "select sum(prediction) from ml.predict_history(%s, 'XXX', %s, %s)", span
                )

            told = conn.execute(
                "select prediction from ml.predict_history(%s, 'XXX', %s, %s) order by ts", span
            ).fetchall()
            assert told == found
            in_c = partial(c_calls, plain, vectors)

            assert raw(vectors[0]) == float(booster.predict(x[:1], raw_score=True)[0])  # type: ignore[index]
            spent = []
            times = []
            times_many = []
            times_history = []
            for _ in range(7):
                spent.append(in_c())
                times.append(common.best(in_sql, 1))
                times_many.append(common.best(many, 1))
                times_history.append(common.best(history, 1))
            each = 1e6 / len(vectors)
            rows += [
                common.row(
                    f"{what}, {trees} trees x {columns}, per row",
                    min(taken) * each,
                    "µs",
                    peer="LightGBM's C single-row call",
                    peer_value=min(spent) * each,
                    goal=goal,
                )
                for what, taken, goal in (
                    (
                        "set-based scoring in SQL (ml.predict_history)",
                        times_history,
                        "ratio <= 2.5",
                    ),
                    ("ml.predict_many by keys", times_many, None),
                    ("ml.predict_version in a query, row by row", times, None),
                )
            ]
    return rows
