"""An ensemble of seven members beside its members one by one, and what is asked of a million
recorded predictions."""

from __future__ import annotations

import concurrent.futures
from typing import Any

import numpy as np
import psycopg

from tests.bench import _common as common
from tests.db import serving as w
from tests.db.serving import at, one

MEMBERS = [f"member_{i}" for i in range(7)]
CALLERS = 100
PREDICTIONS = 1_000_000

FILL = """
insert into ml.predictions (as_of, symbol, model, horizon, prediction, probability, regime, outcome)
select %(start)s::timestamptz + n * interval '2 seconds', 'AAA', (%(members)s::text[])[1 + n %% 7],
    '5 min', p, p, (array['crash', 'sideways', 'bull_trending'])[1 + n / 7 %% 3],
    (hashint8extended(n, 2) & 1)::float8
from generate_series(0, %(n)s - 1) n,
    lateral (select (1 + (hashint8extended(n, 1) & 1023)) / 1026.0::float8 as p) x
"""


def prepare(db: psycopg.Connection[Any]) -> None:
    """Seven models, their ensemble, and 500 rounds with their outcomes."""
    w.install(db)
    x, y = w.synthetic(2000)
    w.store(db, x[1000:1600])
    db.execute(
        "insert into ml.models (model, label, feature_set, feature_version)"
        " select m, 'fixed', 'fixed', 1 from unnest(%s::text[]) m",
        (MEMBERS,),
    )
    for i, model in enumerate(MEMBERS):
        w.register(db, w.train(x[:1000], y[:1000], 200, seed=i), model, promote=True)
    one(db, "select ml.create_ensemble('seven', 'fixed', %s)", MEMBERS)
    for minute in range(500):
        said = {
            m: one(db, "select prediction from ml.predict_stored(%s, 'AAA', %s)", m, at(minute))
            for m in MEMBERS
        }
        db.execute(
            "insert into ml.ensemble_rounds values ('seven', 'AAA', %s, %s, %s, '{}', 'back-filled')",
            (at(minute), at(minute), psycopg.types.json.Jsonb(said)),
        )
    db.execute(
        "insert into ml.ensemble_outcomes select 'fixed', 'AAA', r.ts, r.ts + interval '5 min',"
        " (%s::float8[])[1 + (extract(epoch from r.ts - %s) / 60)::int] from ml.ensemble_rounds r",
        (y[1000:1500].tolist(), at(0)),
    )
    db.execute("call ml.refresh_ensembles(%s)", (at(499),))
    db.execute("analyze")


def run(conninfo: str) -> list[dict[str, Any]]:
    """p50 of the ensemble beside the sum of single calls; a hundred callers; the views."""
    rows = []
    with common.database(conninfo, "ensembles") as own:
        with psycopg.connect(own, autocommit=True) as db:
            prepare(db)
        ask = "select * from ml.predict_ensemble('AAA', ensemble => 'seven', as_of => %s)"
        with psycopg.connect(own, autocommit=True) as db:
            db.prepare_threshold = 0
            answer = w.named(db, ask, at(499))
            singles = {
                m: one(db, "select prediction from ml.predict(%s, 'AAA', %s)", m, at(499))
                for m in MEMBERS
            }
            assert {k: v["probability"] for k, v in answer.members.items()} == singles
            # Members' probabilities count from 1e-4 on.
            low, high = max(min(singles.values()), 1e-4), min(max(singles.values()), 1 - 1e-4)
            assert low - 1e-9 <= answer.probability <= high + 1e-9

            def one_by_one() -> None:
                for model in MEMBERS:
                    db.execute(
                        "select * from ml.predict(%s, 'AAA', %s)", (model, at(499))
                    ).fetchall()

            apart, _ = common.percentiles(one_by_one, 100)
            together, _ = common.percentiles(lambda: db.execute(ask, (at(499),)).fetchall(), 200)
            rows.append(
                common.row(
                    "ml.predict_ensemble, seven members from stored vectors, p50", together, "ms",
                    peer="the members one by one", peer_value=apart, goal="value <= 10",
                )
            )  # fmt: skip

        def caller(number: int) -> float:
            with psycopg.connect(own, autocommit=True) as conn:
                return float(one(conn, ask.replace("*", "probability"), at(400 + number % 90)))

        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            said = list(pool.map(caller, range(CALLERS)))
        assert len(said) == CALLERS and np.isfinite(said).all()
        with psycopg.connect(own, autocommit=True) as db:
            db.execute(FILL, {"start": at(0), "members": MEMBERS, "n": PREDICTIONS})
            db.execute("vacuum analyze ml.predictions")
            db.execute("vacuum analyze ml.scores")
            for name, query in (
                ("ml.ensemble_performance(30)", "select * from ml.ensemble_performance(30, %s)"),
                (
                    "ml.best_models('trending')",
                    "select * from ml.best_models('trending', 3, 30, %s)",
                ),
            ):
                end = at(PREDICTIONS // 30)
                found = db.execute(query, (end,)).fetchall()
                assert found
                p50, _ = common.percentiles(
                    lambda q=query, t=end: db.execute(q, (t,)).fetchall(), 50
                )
                plain = common.best(
                    lambda: db.execute(
                        "select model, avg(-ln(case when outcome > 0.5 then probability else"
                        " 1 - probability end)) from ml.predictions group by 1"
                    ).fetchall(),
                    1,
                )
                rows.append(
                    common.row(
                        f"{name}, a million recorded predictions, p50", p50, "ms",
                        peer="the same by a plain GROUP BY", peer_value=plain * 1e3,
                        goal="value <= 20",
                    )
                )  # fmt: skip
    return rows
