"""Combinatorial purged folds and their paths, equal to purgedcv's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from alphaplus.trainer import combinatorial
from alphaplus.trainer.models import TrainingError
from alphaplus.trainer.train import train
from purgedcv import CombinatorialPurgedCV

from tests.unit.trainer.test_parts import folds, job, world

MINUTE = 60_000_000


@pytest.mark.parametrize(
    ("n", "groups", "tested", "labels", "embargo"),
    [(120, 6, 2, 5, 0), (121, 6, 3, 1, 0), (203, 8, 2, 9, 4), (60, 4, 1, 3, 12), (97, 5, 4, 7, 1)],
)
def test_splits_and_paths_equal_purgedcv(
    n: int, groups: int, tested: int, labels: int, embargo: int
) -> None:
    rng = np.random.default_rng(n)
    # A hole now and then, labels of different lengths.
    ts = np.cumsum(rng.choice([1, 1, 1, 40], n)).astype(np.int64) * MINUTE
    end = ts + rng.integers(1, labels + 1, n) * MINUTE
    peer = CombinatorialPurgedCV(
        groups, tested,
        prediction_times=pd.Series(pd.to_datetime(ts, unit="us")),
        evaluation_times=pd.Series(pd.to_datetime(end, unit="us")),
        embargo=pd.Timedelta(minutes=embargo) if embargo else None,
    )  # fmt: skip
    ours = list(combinatorial.splits(ts, end, groups, tested, embargo * MINUTE))
    theirs = list(peer.split(np.zeros((n, 1))))
    assert len(ours) == len(theirs) == math.comb(groups, tested)
    said, values = [], []
    for (chosen, train_at, test_at), (train_right, test_right) in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(test_at, test_right)
        np.testing.assert_array_equal(train_at, train_right)
        value = rng.random(len(test_at))
        said.append((chosen, test_at, value))
        values.append(value)
    np.testing.assert_array_equal(
        combinatorial.paths(said, ts, groups, tested), peer.reconstruct_paths(values)
    )


def test_rows_of_one_time_stay_together() -> None:
    ts = np.repeat(np.arange(50, dtype=np.int64), 3) * MINUTE
    end = ts + 2 * MINUTE
    for _, train_at, test_at in combinatorial.splits(ts, end, 7, 2):
        assert not set(ts[train_at]) & set(ts[test_at])
        assert len(train_at) and len(test_at)


def measured(**options: Any) -> Any:
    matrix, _ = world(3000, persistence=5)
    made = train(job(combinatorial=options), matrix, folds(matrix), threads=1)
    return made.version["metrics"]["combinatorial"]


def test_a_job_measures_its_paths() -> None:
    found = measured(groups=5, tested=2)
    assert (found["models"], found["paths"]) == (10, 4)
    assert 0.6 < found["auc"]["min"] <= found["auc"]["mean"] <= found["auc"]["max"] < 0.95
    assert found["log_loss"]["mean"] < found["base_rate_log_loss"]["mean"]
    assert found["auc"]["sd"] > 0


def test_regression_has_paths_too() -> None:
    matrix, _ = world(2000)
    made = train(
        job("regression", combinatorial={"groups": 4, "tested": 1}),
        matrix,
        folds(matrix),
        threads=1,
    )
    found = made.version["metrics"]["combinatorial"]
    assert found["paths"] == 1 and found["rmse"]["sd"] is None
    assert 0 < found["rmse"]["mean"] < found["baseline_rmse"]["mean"]


@pytest.mark.parametrize(
    "wrong",
    [{"groups": 2}, {"groups": 6, "tested": 6}, {"groups": 20, "tested": 10}, {"x": 1}, {"groups": True}],
)  # fmt: skip
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(TrainingError, match=r"combinatorial|models"):
        combinatorial.options(wrong)
