"""The deep models in SQL, one at a time and by the thousand; ten models in one backend."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import psycopg
from alphaplus.trainer.models import ALGORITHMS, estimator
from alphaplus.trainer.models.base import Windows

from tests.bench import _common as common
from tests.db import serving as w

DEEP = ("lstm", "gru", "cnn", "transformer")
ROWS = 1500
LENGTH = 32
ASKS = 300


def fitted(name: str, x: Any, y: Any) -> Any:
    """The algorithm's artifact, fitted for a moment: its size and speed are those of a real one."""
    params: dict[str, Any] = {"epochs": 1} if name in DEEP else {}
    model = estimator(name)("classification", params, threads=2, features=w.NAMES)
    if name in DEEP:
        windows = Windows(x, np.arange(LENGTH - 1, len(x)), LENGTH)
        return model.fit(windows, y[LENGTH - 1 :], rounds=1), windows
    return model.fit(x, y, rounds=100), x


def run(conninfo: str) -> list[dict[str, Any]]:
    """p50 of ml.predict from stored features, per-row time of a thousand, memory of ten."""
    rows = []
    with common.database(conninfo, "models") as own:
        with psycopg.connect(own, autocommit=True) as conn:
            w.install(conn)
            x, y = w.synthetic(ROWS)
            conn.execute(
                "insert into market.candles"
                " (symbol, timeframe, ts, known_at, open, high, low, close, volume)"
                " select 'AAA', interval '1 minute', t, t + interval '1 minute', 1, 1, 1, 1, 1"
                " from generate_series(%s::timestamptz, %s, interval '1 minute') t",
                (w.at(601), w.at(ROWS)),
            )
            w.store(conn, x)
            conn.execute("vacuum analyze")
            made = {}
            for name in ALGORITHMS:
                model, inputs = fitted(name, x, y)
                artifact = model.export()
                conn.execute(
                    "insert into ml.models"
                    " (model, label, feature_set, feature_version, expires_after)"
                    " values (%s, 'fixed', 'fixed', 1, '9999 days')",
                    (name,),
                )
                version = w.register(
                    conn, artifact.content, name, promote=True, format=artifact.format,
                    algorithm=name, spec=artifact.spec,
                )  # fmt: skip
                made[name] = (version, model.predict_proba(inputs)[:, 1])
        for name in DEEP:
            version, expected = made[name]
            with psycopg.connect(own, autocommit=True) as conn:
                conn.prepare_threshold = 0
                ask = "select prediction, version_id from ml.predict(%s, 'AAA', %s)"
                for i in range(LENGTH, ROWS, 97):
                    got = conn.execute(ask, (name, w.at(i))).fetchone()
                    assert got is not None and got[1] == version
                    assert abs(got[0] - expected[i - LENGTH + 1]) < 1e-5
                turn = itertools.cycle(range(LENGTH, ROWS))

                def one(
                    conn: Any = conn, name: str = name, turn: Any = turn, ask: str = ask
                ) -> None:
                    conn.execute(ask, (name, w.at(next(turn)))).fetchone()

                p50, _ = common.percentiles(one, ASKS, warm=20)
                first = w.at(LENGTH).isoformat()
                many = (
                    "select ts, prediction from ml.predict_many(%s, 'select v.symbol, v.ts"
                    f" from feature.vectors v where v.ts >= ''{first}''::timestamptz order by v.ts"
                    " limit 1000') order by ts"
                )
                found = conn.execute(many, (name,)).fetchall()
                assert len(found) == 1000
                gap = max(abs(p - e) for (_, p), e in zip(found, expected[1:], strict=False))
                assert gap < 1e-5, gap

                def batch(conn: Any = conn, name: str = name, many: str = many) -> None:
                    conn.execute(many, (name,)).fetchall()

                each = common.best(batch, 5)
            rows.append(
                common.row(
                    f"{name}, ml.predict from stored features, {LENGTH} x {w.WIDTH}, p50",
                    p50,
                    "ms",
                    goal="value <= 3",
                )
            )
            rows.append(
                common.row(
                    f"{name}, a row of a thousand by ml.predict_many",
                    1e3 * each,
                    "µs",
                    peer="one at a time",
                    peer_value=1e3 * p50,
                    ratio=p50 / each,
                    goal="ratio >= 10",
                )
            )
        with psycopg.connect(own, autocommit=True) as conn:
            ids = [version for version, _ in made.values()]
            ids.append(w.register(conn, _forest(x, y), "fixed"))
            conn.execute("select ml.warm_versions(%s)", (ids[:1],))
            total = w.one(conn, "select ml.warm_versions(%s)", ids)
            assert total == 10
            size = w.one(conn, "select total_bytes from ml.cache_status() limit 1")
            kept = w.one(conn, "select count(*) from ml.cache_status()")
            assert kept == 10
            rows.append(common.row("ten models in one backend", size / 2**20, "MiB"))
    return rows


def _forest(x: Any, y: Any) -> Any:
    return w.train(x, y, 400)
