"""Sample weights, the embargo, and boosting that reweighs its trees."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from alphaplus.trainer.data import Fold
from alphaplus.trainer.models import estimator
from alphaplus.trainer.models.base import TrainingError
from alphaplus.trainer.rows import Inputs
from alphaplus.trainer.weights import Weights, embargoed, micros, uniqueness
from hypothesis import given, settings
from hypothesis import strategies as st

SECOND = 10**6


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=20, unique=True), st.integers(1, 30),
    st.integers(0, 10**6),
)  # fmt: skip
def test_uniqueness_is_the_mean_of_one_over_those_at_work(
    starts: list[int], length: int, seed: int
) -> None:
    ts = np.array(sorted(starts), dtype=np.int64)
    end = ts + length
    symbol = np.random.default_rng(seed).integers(1, 3, len(ts))
    found = uniqueness(ts, end, symbol)
    for i in range(len(ts)):
        at_work = [
            sum(1 for j in range(len(ts)) if symbol[j] == symbol[i] and ts[j] <= t < end[j])
            for t in range(ts[i], end[i])
        ]
        assert found[i] == pytest.approx(np.mean([1 / n for n in at_work]), abs=1e-12)


def test_weights_by_age_and_none() -> None:
    ts = np.arange(100, dtype=np.int64) * 3600 * SECOND
    zeros = np.zeros(100)
    rows = Inputs(np.zeros((100, 2)), zeros, ts, ts + 3600 * SECOND, zeros.astype(np.int64))
    assert Weights.of(None)(rows) is None and Weights.of({"uniqueness": False})(rows) is None
    found = Weights.of({"half_life": "24 hours"})(rows)
    assert found is not None
    assert found.mean() == pytest.approx(1)
    assert found[99] / found[75] == pytest.approx(2)


def test_lengths_of_time() -> None:
    assert micros("90 minutes") == 5400 * SECOND
    assert micros("1 day 02 hours") == 26 * 3600 * SECOND
    assert micros("02:30:00") == 9000 * SECOND
    assert micros(None) == 0
    with pytest.raises(TrainingError):
        micros("soon")
    fold = Fold(1, 0, 100 * SECOND, 101 * SECOND, 200 * SECOND)
    assert embargoed([fold], "10 seconds")[0].train_to == 90 * SECOND


@pytest.mark.parametrize(
    ("algorithm", "params"),
    [("lightgbm", {"boosting": "dart"}), ("xgboost", {"booster": "dart", "rate_drop": 0.3})],
)
def test_dart_trains_all_its_rounds_and_is_exported_as_it_is(
    algorithm: str, params: dict[str, object]
) -> None:
    from alphaplus.trainer.artifacts import raw_scores

    rng = np.random.default_rng(1)
    x = rng.normal(size=(800, 4))
    y = (x[:, 0] + rng.normal(size=800) > 0).astype(float)
    made = estimator(algorithm)("classification", {**params, "rounds": 40, "min_rounds": 1})
    made.fit(x[:600], y[:600], valid=(x[600:], y[600:]))
    assert made.rounds == 40
    artifact = made.export()
    again = raw_scores(artifact.format, artifact.content, artifact.spec, x)
    np.testing.assert_allclose(again, made.raw(x), atol=1e-6)
    if algorithm == "xgboost":
        import xgboost

        own = made.booster.predict(xgboost.DMatrix(x), output_margin=True)  # type: ignore[attr-defined]
        np.testing.assert_allclose(again, own, atol=1e-4)


@pytest.mark.parametrize(
    "algorithm",
    ["lightgbm", "xgboost", "gradient_boosting", "random_forest", "logistic_regression"],
)
def test_what_weighs_nothing_teaches_nothing(algorithm: str) -> None:
    """Rows that say the opposite, and weigh next to nothing, do not turn the model."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2000, 3))
    truth = (x[:, 0] > 0).astype(float)
    lie = np.arange(2000) % 2 == 0
    y = np.where(lie, 1 - truth, truth)
    weight = np.where(lie, 1e-3, 2.0)
    params = {"rounds": 20} if algorithm in ("lightgbm", "xgboost", "gradient_boosting") else {}
    made = estimator(algorithm)("classification", params)
    made.fit(x, y, weight=weight)
    assert np.corrcoef(made.raw(x), truth)[0, 1] > 0.5


def test_a_fold_is_calibrated_by_the_earlier_folds_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from alphaplus.trainer import calibrate, walk_forward

    rng = np.random.default_rng(3)
    count = 3000
    x = rng.normal(size=(count, 3))
    y = (rng.random(count) < 1 / (1 + np.exp(-x[:, 0]))).astype(float)
    ts = np.arange(count, dtype=np.int64) * 60 * SECOND
    rows = Inputs(x, y, ts, ts + 60 * SECOND, np.zeros(count, dtype=np.int64))
    edges = [1200, 1800, 2400, 3000]
    folds = [
        Fold(k + 1, 0, int(ts[a]) - 1, int(ts[a]), int(ts[b - 1]) + 1)
        for k, (a, b) in enumerate(pairwise(edges))
    ]
    seen: list[int] = []
    whole = calibrate.calibration

    def noted(method: str, raw: np.ndarray, y: np.ndarray, effect: float = 1.0) -> object:
        seen.append(len(raw))
        return whole(method, raw, y, effect)

    monkeypatch.setattr(calibrate, "calibration", noted)
    found = walk_forward.walk_forward(
        estimator("lightgbm"), {"rounds": 5}, rows, folds, "classification", calibration="platt",
        progress=lambda part, words: None,
    )  # fmt: skip
    # The first by its own later rows; then by one fold, then by two, less what had not ended.
    assert seen[0] < 200 and 590 <= seen[1] <= 600 and 1190 <= seen[2] <= 1200
    assert len(found.rows) == 1800
