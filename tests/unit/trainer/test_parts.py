"""The trainer's arithmetic, without a database."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from alphaplus.trainer import calibrate, metrics, spec
from alphaplus.trainer.artifacts import raw_scores
from alphaplus.trainer.baselines import last_known
from alphaplus.trainer.data import Fold, Matrix, instant, moment
from alphaplus.trainer.models import ALGORITHMS, TrainingError, estimator
from alphaplus.trainer.models.base import Stopped
from alphaplus.trainer.rows import Inputs, inputs, purged
from alphaplus.trainer.train import train
from alphaplus.trainer.walk_forward import _simplest, walk_forward
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from tests.conftest import DEEP

MINUTE = 60_000_000


def world(
    rows: int, seed: int = 1, strength: float = 1.5, persistence: int = 1
) -> tuple[Matrix, np.ndarray[Any, Any]]:
    """A training set of one-minute rows with a known probability; labels of ``persistence`` minutes overlap."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 4))
    if persistence > 1:
        kernel = np.ones(persistence) / np.sqrt(persistence)
        x = np.apply_along_axis(lambda c: np.convolve(c, kernel, mode="same"), 0, x)
    p = spec.sigmoid(-1 + strength * (x[:, 0] + 0.5 * x[:, 1] * (x[:, 2] > 0)))
    u = rng.random(rows // persistence + 1).repeat(persistence)[:rows]
    y = (u < p).astype(float)
    ts = np.arange(rows, dtype=np.int64) * MINUTE
    x[rng.random(rows) < 0.1, 2] = np.nan
    return Matrix(ts, ts + 5 * MINUTE, x, y, b"hash"), p


def folds(matrix: Matrix, count: int = 3) -> list[Fold]:
    cuts = np.linspace(int(len(matrix) * 0.4), len(matrix), count + 1).astype(int)
    return [
        Fold(
            i + 1,
            int(matrix.ts[0]),
            int(matrix.ts[a]) - 1,
            int(matrix.ts[a]),
            int(matrix.ts[b - 1]) + 1,
        )
        for i, (a, b) in enumerate(pairwise(cuts))
    ]


def job(task: str = "classification", **training: Any) -> dict[str, Any]:
    return {
        "job_id": 1, "model": "m", "symbol": None, "regime": None, "as_of": "now", "algorithm": "lightgbm",
        "params": {"rounds": 60, "early_stopping": 10}, "training": training, "task": task,
        "horizon": 300.0, "grid": 60.0, "features": ["one", "two", "three", "noise"], "champion": None,
    }  # fmt: skip


@given(st.integers(0, 10_000), st.integers(2, 300), st.sampled_from([1, 2, 1000]))
@settings(max_examples=60, deadline=None)
def test_metrics_are_those_of_scikit_learn(seed: int, rows: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    y = (rng.random(rows) < 0.4).astype(float)
    y[0], y[1] = 0, 1
    p = np.clip(rng.integers(0, levels + 1, rows) / (levels + 1), 0.01, 0.99)
    assert metrics.auc(y, p) == pytest.approx(roc_auc_score(y, p))
    assert metrics.average_precision(y, p) == pytest.approx(average_precision_score(y, p))
    assert metrics.log_losses(y, p).mean() == pytest.approx(log_loss(y, p))
    weight = rng.integers(0, 4, rows).astype(float)
    if (weight * y).sum() and (weight * (1 - y)).sum():
        assert metrics.auc(y, p, weight) == pytest.approx(roc_auc_score(y, p, sample_weight=weight))


def test_the_best_threshold_is_the_best(rng: np.random.Generator | None = None) -> None:
    rng = rng or np.random.default_rng(3)
    y = (rng.random(200) < 0.3).astype(float)
    p = np.round(np.clip(rng.normal(0.3 + 0.3 * y, 0.2), 0, 1), 2)
    best = max(metrics.at_threshold(y, p >= t)["f1"] for t in np.unique(p))
    assert metrics.at_threshold(y, p >= metrics.best_threshold(y, p))["f1"] == pytest.approx(best)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_no_training_label_meets_a_test_fold(data: st.DataObject) -> None:
    """Whatever folds come: no [t, label_end] of training touches [first test t, last test label end]."""
    n = data.draw(st.integers(5, 80))
    steps = data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))
    ts = np.cumsum(steps).astype(np.int64)
    spans = np.array(data.draw(st.lists(st.integers(0, 9), min_size=n, max_size=n)), dtype=np.int64)
    bounds = sorted(data.draw(st.lists(st.integers(0, int(ts[-1]) + 5), min_size=2, max_size=2)))
    rows = Inputs(np.zeros((n, 1)), np.zeros(n), ts, ts + spans, np.zeros(n, dtype=np.int64))
    careless = Fold(1, 0, int(ts[-1]) + 100, bounds[0], bounds[1])
    in_train, in_test = purged(rows, careless)
    assert not (in_train & in_test & (spans > 0)).any()
    if in_test.any() and in_train.any():
        assert (ts + spans)[in_train].max() < ts[in_test].min()


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_outcomes_not_yet_known_change_nothing_of_a_fold(method: str) -> None:
    """Neither the fit nor the calibration nor the threshold of a fold knows what ended in it."""
    matrix, _ = world(3000, persistence=5)
    matrix = replace(matrix, label_end=matrix.ts + 60 * MINUTE)
    second = folds(matrix)[1]

    def fold_two(y: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
        rows = inputs(replace(matrix, y=y), 1, MINUTE)
        found = walk_forward(
            estimator("lightgbm"), {"rounds": 20}, rows, folds(matrix)[:2], "classification",
            calibration=method, progress=lambda part, words: None, threads=1, seed=1,
        )  # fmt: skip
        i = found.fold == 2
        assert i.sum() > 100
        return [found.predicted[i], found.chosen[i], found.base[i]]

    before = fold_two(matrix.y)
    late = matrix.label_end >= second.test_from
    assert (late & (matrix.ts < second.test_from)).sum() == 60
    for one, other in zip(before, fold_two(np.where(late, 1 - matrix.y, matrix.y)), strict=True):
        np.testing.assert_array_equal(one, other)
    # What had ended does count.
    early = ~late & (matrix.ts >= second.test_from - 600 * MINUTE)
    changed = fold_two(np.where(early, 1 - matrix.y, matrix.y))
    assert (changed[0] != before[0]).any()


def test_windows_never_cross_from_one_symbol_to_another() -> None:
    ts = np.array([0, 0, 1, 1, 2, 3, 3], dtype=np.int64) * MINUTE
    symbols = np.array([1, 2, 1, 2, 1, 1, 2], dtype=np.int64)
    x = (100.0 * symbols + ts / MINUTE).reshape(-1, 1)
    found = inputs(Matrix(ts, ts + MINUTE, x, x[:, 0], b"", symbols), 2, MINUTE)
    assert np.asarray(found.x)[:, :, 0].tolist() == [[100, 101], [200, 201], [101, 102], [102, 103]]
    assert found.y.tolist() == [101, 201, 102, 103]
    assert found.symbol.tolist() == [1, 2, 1, 1]
    assert (np.diff(found.ts) >= 0).all()
    assert (found.latest[:, 0] == found.y).all()


def test_persistence_knows_only_labels_that_had_ended() -> None:
    ts = np.arange(8, dtype=np.int64)
    symbol = np.array([0, 1] * 4, dtype=np.int64)
    y = np.arange(8.0)
    newest = last_known(ts, ts + 3, symbol, y)
    assert np.isnan(newest[:4]).all()
    assert newest[4:].tolist() == [0, 1, 2, 3]


def test_windows_never_cross_a_gap() -> None:
    ts = np.array([0, 1, 2, 3, 10, 11, 12, 13, 14, 20], dtype=np.int64) * MINUTE
    x = np.arange(10, dtype=float).reshape(-1, 1)
    matrix = Matrix(ts, ts + MINUTE, x, np.zeros(10), b"")
    found = inputs(matrix, 3, MINUTE)
    assert np.asarray(found.x)[:, :, 0].tolist() == [
        [0, 1, 2],
        [1, 2, 3],
        [4, 5, 6],
        [5, 6, 7],
        [6, 7, 8],
    ]
    assert found.ts.tolist() == ts[[2, 3, 6, 7, 8]].tolist()


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_calibration_mends_distorted_scores(method: str) -> None:
    rng = np.random.default_rng(5)
    logit = rng.normal(-1, 1.5, 20_000)
    y = (rng.random(20_000) < spec.sigmoid(logit)).astype(float)
    distorted = 3 * logit + 2
    whole = {"calibration": calibrate.calibration(method, distorted[:10_000], y[:10_000])}
    p = spec.probability(whole, distorted[10_000:])
    assert np.abs(p - spec.sigmoid(logit[10_000:])).mean() < 0.02
    assert metrics.ece(y[10_000:], p) < 0.025
    assert 0 < p.min() < p.max() < 1
    order = np.argsort(distorted[10_000:])
    assert (np.diff(p[order]) >= 0).all(), "a calibration keeps the order"


def test_backward_scores_become_the_base_rate() -> None:
    rng = np.random.default_rng(6)
    y = (rng.random(1000) < 0.2).astype(float)
    found = calibrate.calibration("platt", -5 * y + rng.normal(size=1000), y)
    assert found["a"] == 0
    assert spec.probability({"calibration": found}, np.array([-9.0, 9.0])) == pytest.approx(
        [y.mean()] * 2, rel=0.05
    )


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_a_quiet_stretch_does_not_silence_the_scores(method: str) -> None:
    """Rows without an event, however many: order is kept and no score becomes impossible."""
    rng = np.random.default_rng(7)
    raw = rng.normal(-2, 1, 4_640)
    found = calibrate.calibration(method, raw, np.zeros(4_640), effect=60)
    p = spec.probability({"calibration": found}, raw)
    assert (np.diff(p[np.argsort(raw)]) > 0).all()
    assert 0.002 < p.mean() < spec.sigmoid(raw).mean()


def test_a_calibration_is_chosen_only_beyond_a_standard_error() -> None:
    """A loss smaller by chance chooses nothing, a clear one does; overlapping rows count less."""
    rng = np.random.default_rng(8)
    loss = rng.random(10_000)
    for gain, effect, expected in ((1e-3, 1.0, "none"), (0.1, 1.0, "platt"), (0.1, 1e4, "none")):
        better = loss - gain + rng.normal(0, 0.3, 10_000)
        assert _simplest({"none": loss, "platt": better}, effect) == expected


@pytest.mark.parametrize("persistence", [1, 5])
def test_confidence_covers_the_true_frequency(persistence: int) -> None:
    """In at least ``level`` of the bins the true frequency lies within the stated interval."""
    covered: list[bool] = []
    for seed in range(25):
        rng = np.random.default_rng(100 + seed)
        n = 6000
        logit = rng.normal(-1.5, 1.2, n // persistence).repeat(persistence)
        p = spec.sigmoid(logit)
        y = (rng.random(n // persistence).repeat(persistence) < p).astype(float)
        block = np.arange(n) // (4 * persistence)
        half = n // 2
        table = calibrate.confidence(y[:half], p[:half], block[:half])
        # Held out: the true mean probability of the rows that fall into each bin.
        x = np.array(table["x"])
        where = np.searchsorted((x[1:] + x[:-1]) / 2, p[half:])
        for number in range(len(x)):
            truth = p[half:][where == number]
            if len(truth):
                covered.append(table["lower"][number] <= truth.mean() <= table["upper"][number])
        confidence, lower, upper = spec.confidence({"confidence": table}, p[half:])
        assert ((lower <= upper) & (confidence > 0) & (confidence < 1)).all()
    assert np.mean(covered) >= calibrate.LEVEL


def test_overlapping_labels_widen_the_interval() -> None:
    rng = np.random.default_rng(8)
    p = np.full(4000, 0.3)
    alone = (rng.random(4000) < p).astype(float)
    together = (rng.random(200) < 0.3).astype(float).repeat(20)
    block = np.arange(4000) // 80
    wide, narrow = (
        float(np.subtract(t["upper"], t["lower"])[1:-1].mean())
        for t in (calibrate.confidence(together, p, block), calibrate.confidence(alone, p, block))
    )
    assert wide > 2 * narrow


@pytest.mark.parametrize("multiplicative", [False, True])
def test_conformal_intervals_cover(multiplicative: bool) -> None:
    rng = np.random.default_rng(9)
    value = np.exp(rng.normal(3, 1, 8000))
    y = value * rng.exponential(1, 8000) if multiplicative else value + rng.normal(0, 5, 8000)
    found, confidence = calibrate.interval(y[:4000], value[:4000], multiplicative)
    low, high = (
        (value[4000:] * found["lower"], value[4000:] * found["upper"])
        if multiplicative
        else (value[4000:] + found["lower"], value[4000:] + found["upper"])
    )
    assert abs(np.mean((low <= y[4000:]) & (y[4000:] <= high)) - calibrate.LEVEL) < 0.02
    assert confidence["scale"] > 0


def test_support_knows_its_own_rows_from_far_ones() -> None:
    rng = np.random.default_rng(10)
    x = np.column_stack(
        [rng.normal(size=5000), rng.pareto(2, 5000), np.ones(5000), np.full(5000, np.nan)]
    )
    found = calibrate.support(x)
    assert np.mean(spec.distance(found, x) > found["threshold"]) <= 0.001
    assert (
        spec.distance(found, np.array([[90.0, 1, 1, np.nan], [0, 1, 9000, 0]])) > found["threshold"]
    ).all()
    assert np.isfinite(spec.distance(found, np.full((1, 4), np.nan))).all()


def test_histograms_for_drift() -> None:
    found = calibrate.histogram(np.r_[np.arange(1000.0), [np.nan] * 250])
    assert len(found["edges"]) == 9
    assert sum(found["shares"]) == pytest.approx(1)
    assert found["shares"] == pytest.approx([0.1] * 10, abs=0.01)
    assert found["null_share"] == pytest.approx(0.2)
    assert calibrate.histogram(np.full(5, np.nan))["null_share"] == 1
    constant = calibrate.histogram(np.ones(100))
    assert len(constant["edges"]) == 1
    assert constant["shares"] == [1.0, 0.0]


def test_training_reaches_what_can_be_reached() -> None:
    matrix, p = world(8000)
    made = train(job(), matrix, folds(matrix), threads=1)
    held_out = np.arange(len(matrix)) >= int(len(matrix) * 0.4)
    best = roc_auc_score(matrix.y[held_out], p[held_out]) - 0.5
    assert made.version["metrics"]["auc"] - 0.5 > 0.93 * best
    assert made.version["spec"]["export_gap"] <= 1e-5
    whole = made.version["spec"]
    fresh, truth = world(4000, seed=2)
    given = spec.probability(whole, raw_scores("lightgbm", made.artifact, whole, fresh.x))
    assert np.corrcoef(given, truth)[0, 1] > 0.95
    assert metrics.ece(fresh.y, given) < 0.04
    assert abs(given.mean() - truth.mean()) < 0.02


def test_the_interval_of_nothing_contains_chance() -> None:
    """On no-signal data no significant lift is claimed, more often than by chance."""
    claims = 0
    for seed in range(8):
        matrix, _ = world(3000, seed=seed, strength=0, persistence=5)
        made = train(job(rounds=20), matrix, folds(matrix), threads=1)
        claims += made.version["metrics"]["auc_low"] > 0.5
    assert claims <= 1


def test_training_is_deterministic() -> None:
    matrix, _ = world(2000)
    one, two = (train(job(seed=7), matrix, folds(matrix), threads=1) for _ in range(2))
    assert one == two
    assert train(job(seed=8), matrix, folds(matrix), threads=1).artifact != one.artifact


@pytest.mark.parametrize("params", [{}, {"objective": "tweedie"}, {"transform": "log1p"}])
def test_regression_of_a_heavy_tail(params: dict[str, Any]) -> None:
    matrix, p = world(6000)
    rng = np.random.default_rng(11)
    y = np.where(rng.random(6000) < 0.5 + p / 2, 1e5 * p**2 * rng.exponential(1, 6000), 0)
    heavy = Matrix(matrix.ts, matrix.label_end, matrix.x, y, b"")
    made = train(job("regression", params=params), heavy, folds(heavy), threads=1)
    found = made.version["metrics"]
    assert found["spearman"] > 0.3
    if params != {"transform": "log1p"}:  # which is for the median
        assert found["rmse"] < found["baseline"]["rmse"]
        assert abs(found["bias"]) < 0.15 * y.mean()
    values = spec.value(made.version["spec"], raw_scores("lightgbm", made.artifact, {}, heavy.x))
    assert np.isfinite(values).all()
    if params:
        assert (values >= 0).all() or params == {"transform": "log1p"}
    interval = made.version["spec"]["interval"]
    assert interval["kind"] == (
        "multiplicative" if params == {"objective": "tweedie"} else "additive"
    )


def test_clear_words_for_what_cannot_be_trained() -> None:
    matrix, _ = world(300)
    with pytest.raises(TrainingError, match="300 labelled rows"):
        train(job(), matrix, folds(matrix))
    matrix, _ = world(1000)
    flat = Matrix(matrix.ts, matrix.label_end, matrix.x, np.zeros(1000), b"")
    with pytest.raises(TrainingError, match="holds in 0 of 1000 rows"):
        train(job(), flat, folds(flat))
    with pytest.raises(TrainingError, match="walk-forward folds"):
        train(job(), matrix, folds(matrix)[:1])
    with pytest.raises(TrainingError, match="unknown algorithm"):
        train(job(algorithm="oracle"), matrix, folds(matrix))
    with pytest.raises(TrainingError, match="LightGBM"):
        train(job(params={"num_leaves": -1}), matrix, folds(matrix))
    with pytest.raises(TrainingError, match="unknown calibration 'magic'"):
        train(job(calibration="magic"), matrix, folds(matrix))
    for wanted in ({"trials": "x"}, {"minutes": 0}, {"folds": True}, True):
        with pytest.raises(TrainingError, match="search"):
            train(job(search=wanted), matrix, folds(matrix))


@pytest.mark.parametrize("algorithm", ["cnn", "lightgbm"])
def test_a_set_without_rows_is_said_to_be_one(algorithm: str) -> None:
    matrix, _ = world(1)
    empty = matrix.take(np.zeros(1, dtype=bool))
    with pytest.raises(TrainingError, match="0 labelled rows"):
        train(job(algorithm=algorithm), empty, [])


def test_a_stop_is_heeded_while_fitting() -> None:
    matrix, _ = world(2000)
    calls = []

    def progress(part: float, words: str) -> None:
        calls.append(words)
        if "round" in words:
            raise Stopped("cancelled")

    with pytest.raises(Stopped):
        train(
            job(params={"rounds": 100_000, "early_stopping": 100_000}),
            matrix,
            folds(matrix),
            progress=progress,
        )
    assert len(calls) < 5


def test_every_algorithm_named_is_there() -> None:
    for name in ALGORITHMS:
        try:
            found = estimator(name)
        except TrainingError as error:  # its library is an extra
            assert "install alphaplus[deep]" in str(error)
            assert name in DEEP
            continue
        assert found.algorithm == name


def test_no_pickle_in_the_house() -> None:
    import re
    from pathlib import Path

    root = Path(__file__).resolve().parents[3]
    bad = re.compile(
        r"\b(import (pickle|dill|joblib|cloudpickle)|pickle\.loads|joblib\.load|weights_only=False)"
    )
    for folder in ("trainer", "plpython", "loaders"):
        for path in (root / folder).rglob("*.py"):
            assert not bad.search(path.read_text()), path


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-01T05:30:00.25+05:30", "2025-12-31T19:00:00.25-05:00",
        "2026-01-01 00:00:00.250000+00",
    ],
)  # fmt: skip
def test_a_time_is_read_in_the_zone_it_is_written_in(text: str) -> None:
    """jsonb writes timestamps in the session's zone."""
    assert moment(instant(text)) == dt.datetime(2026, 1, 1, microsecond=250_000, tzinfo=dt.UTC)
