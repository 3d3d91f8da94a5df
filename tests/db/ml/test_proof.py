"""What can be learned is learned, and what cannot be is not claimed: the leak test of it all."""

from __future__ import annotations

from typing import Any

import numpy as np
import psycopg
import pytest
from alphaplus.loaders import simulator
from alphaplus.trainer import metrics
from alphaplus.trainer.data import Fold, Matrix
from alphaplus.trainer.models import estimator
from alphaplus.trainer.rows import inputs
from alphaplus.trainer.walk_forward import WalkForward, walk_forward
from psycopg.types.json import Jsonb

Conn = psycopg.Connection[Any]
MINUTE = 60_000_000
HORIZON = 15
# A liquidated notional that one in 25 intervals pass; without cascades, far less does. It is fixed, so
# that the expected notional, which the simulator knows, is all there is to know. Of 180,000, which a
# tenth pass, LightGBM has 94 % of the lift: in calm states what is seen of the book is mostly noise.
LARGE = {True: 300_000.0, False: 90_000.0}
DEEP = {"epochs": 6, "sequence_length": 16}
TREES = {
    "num_leaves": 4, "learning_rate": 0.02, "feature_fraction": 0.5, "lambda_l2": 50, "rounds": 300,
    "min_rounds": 150,
}  # fmt: skip


def simulated(db: Conn, signal: bool, days: float) -> str:
    return simulator.run(db, ["SOL"], days, 7, config=simulator.Config(signal=signal))[0]


def read(db: Conn, symbol: str, signal: bool = True) -> tuple[Matrix, list[Fold], list[str]]:
    """The training set of the event as ml.training_matrix gives it, and its folds."""
    db.execute(
        "insert into ml.labels (label, task, kind, horizon, params, description)"
        " values ('large_15m', 'classification', 'liquidation', '15 min', %s, 'fixed notional')",
        (Jsonb({"quantile": 0, "floor": LARGE[signal], "lookback_days": 0.1}),),
    )
    db.execute(
        "insert into ml.models (model, label, feature_set, feature_version)"
        " values ('large_15m', 'large_15m', 'liquidation', 3)"
    )
    db.execute("call market.refresh_aggregates()")
    row = db.execute(
        "select ts, label_end, target, columns, sha256"
        " from ml.training_matrix('large_15m', %s, %s)",
        (symbol, simulator.DEFAULT_END),
    ).fetchone()
    assert row is not None
    ts, label_end, target, columns, digest = row
    matrix = Matrix(
        np.frombuffer(ts, ">i8").astype(np.int64),
        np.frombuffer(label_end, ">i8").astype(np.int64),
        np.column_stack([np.frombuffer(c, ">f8").astype(float) for c in columns]),
        np.frombuffer(target, ">f8").astype(float),
        bytes(digest),
    )
    folds = [
        Fold(*fold)
        for fold in db.execute(
            "select fold, train_from, train_to, test_from, test_to from ml._folds(%s, %s, 3)",
            (ts, label_end),
        ).fetchall()
    ]
    row = db.execute("select features from feature.sets where name = 'liquidation'").fetchone()
    assert row is not None
    return matrix, folds, row[0]


def held_out(
    name: str, params: dict[str, Any], matrix: Matrix, folds: list[Fold], features: list[str]
) -> tuple[WalkForward, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """(out-of-fold predictions, their targets, their times)."""
    kind = estimator(name)
    # One thread: on busy cores two spend their time waiting for each other.
    rows = inputs(matrix, kind("classification", params).sequence_length, MINUTE)
    found = walk_forward(
        kind, params, rows, folds, "classification", effect=float(HORIZON),
        progress=lambda part, words: None, seed=1, threads=1, features=features,
        overlap=float(HORIZON),
    )  # fmt: skip
    return found, rows.y[found.rows], rows.ts[found.rows]


@pytest.mark.parametrize(
    ("name", "params"),
    [("lightgbm", TREES), pytest.param("gru", DEEP, marks=pytest.mark.long)],
    ids=["lightgbm", "gru"],
)
def test_the_best_possible_score_is_nearly_reached(
    db: Conn, name: str, params: dict[str, Any]
) -> None:
    """LightGBM and a deep model reach 95 % of the true hazard's lift over chance, same rows."""
    symbol = simulated(db, True, 60)
    matrix, folds, features = read(db, symbol)
    assert 0.03 < matrix.y.mean() < 0.05
    hazard = dict(
        db.execute(
            "select (extract(epoch from ts) * 1e6)::bigint, hazard_15m"
            " from market.simulation_truth where symbol = %s and hazard_15m is not null",
            (symbol,),
        ).fetchall()
    )
    found, y, ts = held_out(name, params, matrix, folds, features)
    known = np.array([int(t) in hazard for t in ts])
    truth = np.array([hazard[int(t)] for t in ts[known]])
    assert known.sum() > 3000
    best = metrics.auc(y[known], truth) - 0.5
    reached = metrics.auc(y[known], found.predicted[known]) - 0.5
    print(f"{name}: AUC {reached + 0.5:.4f} of {best + 0.5:.4f}, lift {reached / best:.3f}")
    assert reached / best >= 0.95
    # More than all there is to know would be a leak.
    assert reached / best < 1.01


@pytest.mark.parametrize(
    "name", ["lightgbm", pytest.param("gru", marks=pytest.mark.long)], ids=["lightgbm", "gru"]
)
def test_where_nothing_can_be_known_no_lift_is_claimed(db: Conn, name: str) -> None:
    symbol = simulated(db, False, 20)
    matrix, folds, features = read(db, symbol, False)
    assert 0.02 < matrix.y.mean() < 0.98
    found, y, ts = held_out(
        name, TREES if name == "lightgbm" else {**DEEP, "epochs": 3}, matrix, folds, features
    )
    base = found.base
    block = metrics.blocks(ts, HORIZON * MINUTE)
    measured = metrics.classification(y, found.predicted, base, found.chosen, block)
    print(name, measured["auc_low"], measured["auc"], measured["auc_high"])
    assert measured["auc_low"] < 0.5
    assert abs(measured["auc"] - 0.5) < 0.05
