"""All nine estimators: one interface, artifacts equal to the models, training that goes on."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from alphaplus.server.serving.booster import Booster
from alphaplus.server.serving.onnx import Session
from alphaplus.trainer import spec as specs
from alphaplus.trainer.artifacts import raw_scores
from alphaplus.trainer.models import ALGORITHMS, TrainingError, estimator
from alphaplus.trainer.models.base import Artifact, Estimator, Scaling, Stopped, Windows
from alphaplus.trainer.models.trees import Tree, at_most32, below32, lightgbm_text
from alphaplus.trainer.search import inner_folds, search
from alphaplus.trainer.train import train
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from tests.unit.trainer.test_parts import MINUTE, folds, job, world

DEEP = ["lstm", "gru", "cnn", "transformer"]
SHORT: dict[str, dict[str, Any]] = {
    **{name: {"rounds": 40} for name in ("lightgbm", "xgboost", "gradient_boosting")},
    "random_forest": {"n_estimators": 30},
    "logistic_regression": {},
    **{
        name: {
            "epochs": 6,
            "sequence_length": 8,
            "hidden": 16,
            "batch": 64,
            "learning_rate": 5e-3,
            "dropout": 0.1,
        }
        for name in DEEP
    },
}
LENGTH = 8


def made(n: int = 1500, seed: int = 1) -> tuple[np.ndarray[Any, Any], Any, Any, Any]:
    """(rows, their windows, class, value): features of very different sizes, a tenth missing."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 5)) * [1, 1e4, 1e-5, 1, 1]
    x[:, 3] = np.round(x[:, 3])
    z = x[:, 0] + x[:, 1] / 1e4 * (x[:, 3] > 0)
    y = (rng.random(n) < specs.sigmoid(1.5 * z - 0.5)).astype(float)
    x[rng.random(x.shape) < 0.1] = np.nan
    windows = Windows(x, np.arange(LENGTH - 1, n), LENGTH)
    return x, windows, y, 50 * np.exp(z) + rng.normal(size=n)


def fitted(name: str, task: str, **params: Any) -> tuple[Estimator, Any, Any]:
    rows, windows, y, value = made()
    target = y if task == "classification" else value
    x: Any = rows
    if name in DEEP:
        x, target = windows, target[LENGTH - 1 :]
    model = estimator(name)(task, {**SHORT[name], **params}, threads=1)
    model.fit(x[:1000], target[:1000], valid=(x[1000:], target[1000:]))
    return model, x, target


def served(artifact: Artifact, x: Any) -> np.ndarray[Any, Any]:
    """Raw scores as the server's own code computes them, a row at a time."""
    reader: Any = (
        Booster(artifact.content)
        if artifact.format == "lightgbm"
        else Session(artifact.content, artifact.spec)
    )
    cube = np.asarray(x)
    raw = np.array([reader.raw(row.ravel().tolist()) for row in cube])
    if artifact.spec["output"]["kind"] == "probability" and artifact.format == "lightgbm":
        p = np.clip(raw, 1e-7, 1 - 1e-7)
        raw = np.log(p / (1 - p))
    return raw


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_artifact_trainer_and_server_say_the_same(name: str, task: str) -> None:
    model, x, target = fitted(name, task)
    artifact = model.export()
    raw = model.raw(x)
    tolerance = 1e-5 if name in DEEP else 1e-9
    assert (
        np.abs(raw_scores(artifact.format, artifact.content, artifact.spec, x) - raw).max()
        <= tolerance
    )
    assert np.abs(served(artifact, x[:200]) - raw[:200]).max() <= tolerance
    # The scikit-learn interface is the same for all.
    assert model.predict(x).shape == raw.shape
    if task == "classification":
        p = model.predict_proba(x)
        assert p.shape == (len(raw), 2)
        assert np.allclose(p.sum(axis=1), 1)
        assert (model.predict(x) == (p[:, 1] > 0.5)).all()
        assert roc_auc_score(target, p[:, 1]) > (0.58 if name in DEEP else 0.7)
    else:
        assert np.corrcoef(model.predict(x), target)[0, 1] > (0.15 if name in DEEP else 0.5)
    assert all(set(v) == {f"f{i}" for i in range(5)} for v in model.importance().values())


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_the_same_seed_gives_the_same_bytes(name: str) -> None:
    one, two = (fitted(name, "classification")[0].export().content for _ in range(2))
    assert one == two


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("xgboost", {"objective": "reg:tweedie"}),
        ("xgboost", {"transform": "log1p"}),
        ("gradient_boosting", {"loss": "poisson"}),
        ("random_forest", {"transform": "log1p"}),
        ("gru", {"transform": "log1p", "loss": "huber"}),
    ],
)
def test_links_of_values(name: str, params: dict[str, Any]) -> None:
    rows, windows, _, value = made()
    value = np.maximum(value, 0)
    x: Any = windows if name in DEEP else rows
    target = value[LENGTH - 1 :] if name in DEEP else value
    model = estimator(name)("regression", {**SHORT[name], **params}, threads=1)
    model.fit(x, target, rounds=3)
    artifact = model.export()
    kind = artifact.spec["output"]["kind"]
    assert kind == ("expm1" if "transform" in params else "exp")
    value_there = specs.value(artifact.spec, served(artifact, x[:50]))
    assert value_there == pytest.approx(model.predict(x[:50]), rel=1e-5, abs=1e-4)
    assert (value_there > -artifact.spec["output"]["scale"]).all()


floats = st.floats(
    allow_nan=False, allow_infinity=False, width=32, min_value=-(2.0**100), max_value=2.0**100
)


@given(floats, st.integers(-3, 3))
@settings(max_examples=300, deadline=None)
def test_thresholds_split_doubles_as_the_library_does(threshold: float, ulps: int) -> None:
    """Doubles near the threshold, the halves between two floats among them, fall on the same side."""
    t32 = np.float32(threshold)
    t64 = float(threshold)
    for _ in range(abs(ulps)):
        t64 = float(np.nextafter(t64, np.copysign(np.inf, ulps)))
    strict = below32(np.array([t32]))[0]
    at_most = at_most32(np.array([t64]))[0]
    near = [np.nextafter(t32, np.float32(s)).astype(float) for s in (-np.inf, np.inf)]
    candidates = [float(t32), *near, *((float(t32) + v) / 2 for v in near), strict, at_most, t64]
    for base in candidates:
        for x in (base, np.nextafter(base, np.inf), np.nextafter(base, -np.inf)):
            if np.isfinite(np.float32(x)):
                assert (x <= strict) == (np.float32(x) < t32)
                assert (x <= at_most) == (float(np.float32(x)) <= t64)


def test_contributions_are_xgboosts_own() -> None:
    import xgboost

    model, x, _ = fitted("xgboost", "classification")
    reader = Booster(model.export().content)
    theirs = model.booster.predict(  # type: ignore[attr-defined]
        xgboost.DMatrix(x[:40]), pred_contribs=True, iteration_range=(0, model.rounds)
    )
    for row, expected in zip(x[:40], theirs, strict=True):
        found = reader.contributions(row.tolist())
        assert found == pytest.approx(expected.tolist(), abs=1e-4)
        assert sum(found) == pytest.approx(reader.raw(row.tolist()), abs=1e-9)


@pytest.mark.parametrize("name", ["gradient_boosting", "random_forest"])
def test_contributions_of_converted_trees_sum_up(name: str) -> None:
    model, x, _ = fitted(name, "classification")
    reader = Booster(model.export().content)
    for row in x[:40].tolist():
        assert sum(reader.contributions(row)) == pytest.approx(reader.raw(row), abs=1e-9)


def test_a_tree_written_by_hand_is_read_as_written() -> None:
    tree = Tree(
        np.array([1, -1, 3, -1, -1]), np.array([2, -1, 4, -1, -1]), np.array([0, 0, 1, 0, 0]),
        np.array([0.5, 0, -1.0, 0, 0]), np.array([True, False, False, False, False]),
        np.array([0, 1.0, 0, 2.0, 3.0]), np.array([10, 4, 6, 5, 1.0]),
    )  # fmt: skip
    reader = Booster(lightgbm_text([tree], ["a", "b"]).encode())
    nan = float("nan")
    rows = [([0.5, 9], 1), ([0.6, -1], 2), ([0.6, 0], 3), ([nan, 0], 1), ([1, nan], 3)]
    for row, expected in rows:
        assert reader.raw(row) == expected
    # The expectation weighs leaves by their cover.
    assert reader.contributions([1.0, 1.0])[-1] == pytest.approx((4 * 1 + 5 * 2 + 1 * 3) / 10)


@pytest.mark.deep
def test_scaling_knows_only_its_training_rows() -> None:
    _, windows, y, _ = made()
    model = estimator("gru")("classification", SHORT["gru"], threads=1)
    model.fit(windows[:700], y[LENGTH - 1 :][:700], valid=(windows[700:], y[LENGTH - 1 :][700:]))
    own = Scaling.of(windows.latest[:700])
    found = model.export().spec["scaling"]
    assert found["center"] == own.center.tolist()
    assert found["scale"] == own.scale.tolist()
    assert found["center"] != Scaling.of(windows.latest).center.tolist()


@pytest.mark.deep
def test_class_weights_leave_probabilities_calibrated() -> None:
    rng = np.random.default_rng(4)
    n = 4000
    x = rng.normal(size=(n, 2))
    y = (rng.random(n) < specs.sigmoid(x[:, 0] - 3)).astype(float)
    windows = Windows(x, np.arange(1, n), 2)
    for weight in ("balanced", None):
        model = estimator("cnn")(
            "classification",
            {"epochs": 4, "sequence_length": 2, "class_weight": weight, "hidden": 8},
            threads=1,
        )
        model.fit(windows, y[1:], rounds=4)
        assert model.predict_proba(windows)[:, 1].mean() == pytest.approx(y.mean(), rel=0.35)


@pytest.mark.deep
def test_attention_is_a_distribution_over_the_sequence() -> None:
    model, x, _ = fitted("transformer", "classification")
    artifact = model.export()
    reader = Session(artifact.content, artifact.spec)
    weights = reader.attention(np.asarray(x[:1]).ravel().tolist())
    assert weights is not None
    assert len(weights) == LENGTH
    assert sum(weights) == pytest.approx(1, abs=1e-5)
    assert weights == pytest.approx(model.attention(x[:1])[0].tolist(), abs=1e-5)  # type: ignore[attr-defined]
    assert Session(*_without(artifact)).attention(np.asarray(x[:1]).ravel().tolist()) is None


def _without(artifact: Artifact) -> tuple[bytes, dict[str, Any]]:
    inputs = {k: v for k, v in artifact.spec["inputs"].items() if k != "attention"}
    return artifact.content, {**artifact.spec, "inputs": inputs}


class Memory:
    """Checkpoints in a dictionary; stops the fit at the wanted save, as a kill would."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.kept: dict[str, bytes] = {}
        self.saves = 0
        self.stop_at = stop_at

    def load(self, stage: str) -> bytes | None:
        return self.kept.get(stage)

    def save(self, stage: str, state: bytes) -> None:
        self.kept[stage] = state
        self.saves += 1
        if self.saves == self.stop_at:
            raise Stopped("lost")


@pytest.mark.parametrize("name", DEEP)
def test_a_killed_fit_goes_on_and_ends_as_if_it_had_not_been(name: str) -> None:
    _, windows, y, _ = made(900)

    def fit(memory: Memory) -> Estimator:
        model = estimator(name)(
            "classification", {**SHORT[name], "epochs": 4, "checkpoint_seconds": 0}, threads=1
        )
        model.checkpoints, model.stage = memory, "fold 1"
        y_ = y[LENGTH - 1 :]
        model.fit(windows[:600], y_[:600], valid=(windows[600:], y_[600:]))
        return model

    whole = fit(Memory())
    broken = Memory(stop_at=2)
    with pytest.raises(Stopped):
        fit(broken)
    broken.stop_at = None
    resumed = fit(broken)
    assert broken.saves == 4, "two epochs before, two after"
    assert (resumed.raw(windows) == whole.raw(windows)).all()
    # A finished fit is not done again.
    again = fit(broken)
    assert broken.saves == 4
    assert (again.raw(windows) == whole.raw(windows)).all()


@pytest.mark.deep
def test_several_processes_train_one_model() -> None:
    _, windows, y, _ = made(1200)
    y = y[LENGTH - 1 :]
    params = {**SHORT["gru"], "processes": 2, "epochs": 3}
    said: list[str] = []
    model = estimator("gru")("classification", params, threads=2)
    model.fit(
        windows[:900], y[:900], valid=(windows[900:], y[900:]), progress=lambda p, w: said.append(w)
    )
    assert any("2 processes" in words for words in said)
    assert roc_auc_score(y, model.raw(windows)) > 0.55
    stop = threading.Event()

    def halt(part: float, words: str) -> None:
        stop.set()
        raise Stopped("cancelled")

    with pytest.raises(Stopped):
        estimator("gru")("classification", params, threads=2).fit(
            windows[:900], y[:900], rounds=50, progress=halt
        )
    assert stop.is_set()


@pytest.mark.parametrize("name", ["xgboost", "random_forest", "logistic_regression", "gru"])
def test_a_whole_training_job(name: str) -> None:
    matrix, p = world(2500)
    result = train(
        job(algorithm=name, params=SHORT[name]), matrix, folds(matrix), threads=1
    ).version
    assert result["algorithm"] == name
    assert result["format"] == ("lightgbm" if name in ("xgboost", "random_forest") else "onnx")
    assert result["spec"]["export_gap"] <= 1e-5
    found = result["metrics"]
    held_out = np.arange(len(matrix)) >= int(len(matrix) * 0.4)
    best = roc_auc_score(matrix.y[held_out], p[held_out])
    assert 0.5 < found["auc"] < best + 0.03
    # The world is made of independent rows: what was tells nothing of what will be.
    assert found["baselines"]["persistence"]["auc"] == pytest.approx(0.5, abs=0.05)
    assert found["baselines"]["linear"]["auc"] > 0.7
    assert "auc_low" in found["baselines"]["linear"]


@pytest.mark.deep
def test_champion_and_challenger_of_different_kinds_meet_on_the_same_rows() -> None:
    matrix, _ = world(2500)
    gru = job(algorithm="gru", params=SHORT["gru"])
    first = train(gru, matrix, folds(matrix), threads=1)
    version = first.version
    champion = {
        "version_id": 1, "format": "onnx", "algorithm": "gru", "features": version["features"],
        "spec": version["spec"], "params": version["params"], "train_to": version["train_to"],
    }  # fmt: skip
    made = train(
        job() | {"champion": champion}, matrix, folds(matrix), champion=first.artifact, threads=1
    )
    meeting = made.version["metrics"]["champion"]
    assert meeting["method"] == "refitted"
    assert meeting["values"]["rows"] == meeting["challenger"]["rows"] == meeting["rows"]
    assert meeting["values"]["auc"] == pytest.approx(version["metrics"]["auc"], abs=0.02)
    assert meeting["challenger"]["auc"] == pytest.approx(made.version["metrics"]["auc"], abs=0.02)


def test_a_search_finds_and_prunes_without_seeing_a_test_fold(tmp_path: Any) -> None:
    matrix, _ = world(3000)
    outer = folds(matrix)
    inside = inner_folds(outer, matrix, 3)
    assert max(fold.test_to for fold in inside) <= min(fold.test_from for fold in outer)
    seen = matrix.ts < min(fold.test_from for fold in outer)
    # What is only known from the test folds on cannot be found by the search.
    blind = matrix.take(np.ones(len(matrix), dtype=bool))
    blind.y[~seen] = np.nan
    settings_ = {"seed": 1, "threads": 1, "features": job()["features"], "overlap": 5.0}
    wanted = {"trials": 12, "space": {"num_leaves": ["int", 2, 8], "learning_rate": [1e-6, 0.1]}}
    storage = f"sqlite:///{tmp_path / 'trials.db'}"
    found = search(
        "lightgbm", {"rounds": 20}, blind, outer, job() | {"job_id": 7}, wanted,
        storage=storage, progress=lambda part, words: None, settings=settings_,
    )  # fmt: skip
    assert found["best_params"]["learning_rate"] == 0.1
    assert found["trials"] == 12
    assert found["pruned"] > 0
    # A second trainer goes on with the same study: there is nothing left to do.
    again = search(
        "lightgbm", {"rounds": 20}, blind, outer, job() | {"job_id": 7}, wanted,
        storage=storage, progress=lambda part, words: None, settings=settings_,
    )  # fmt: skip
    assert again["trials"] == 12
    assert again["best_value"] == found["best_value"]


def test_a_search_within_a_job() -> None:
    matrix, _ = world(2500)
    made = train(
        job(search={"trials": 3}, params={"rounds": 20}), matrix, folds(matrix), threads=1
    ).version
    assert made["metrics"]["search"]["trials"] == 3
    assert made["params"]["num_leaves"] == made["metrics"]["search"]["best_params"]["num_leaves"]


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("lstm", {"hiden": 3}, "hiden"),
        ("transformer", {"hidden": 30}, "multiple of heads"),
        ("xgboost", {"max_depth": -3}, "XGBoost"),
        ("random_forest", {"depth": 3}, "depth"),
        ("logistic_regression", {"penalty": "l1"}, "penalty"),
        ("gru", {"learning_rate": float("inf")}, "not finite|learning_rate"),
    ],
)
def test_clear_words_for_wrong_parameters(name: str, params: dict[str, Any], words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        fitted(name, "classification", **params)


def test_an_algorithm_without_a_search_space_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ALGORITHMS:
        assert estimator(name).SPACE, f"{name} has a search space"
    monkeypatch.setattr(estimator("lightgbm"), "SPACE", {})
    matrix, _ = world(3000)
    with pytest.raises(TrainingError, match="lightgbm has no search space of its own"):
        train(job(search={"trials": 2}), matrix, folds(matrix), threads=1)


def test_wrong_searches_are_refused() -> None:
    matrix, _ = world(1500)
    for wanted, words in (
        ({"trails": 3}, "trails"),
        ({"trials": 1, "space": {"num_leaves": 3}}, "num_leaves"),
    ):
        with pytest.raises(TrainingError, match=words):
            train(job(search=wanted), matrix, folds(matrix), threads=1)


def test_a_gap_of_the_set_is_no_sequence() -> None:
    matrix, _ = world(1200)
    keep = (np.arange(1200) % 100) != 50
    from alphaplus.trainer.rows import inputs

    rows = inputs(matrix.take(keep), LENGTH, MINUTE)
    cut = np.asarray(rows.x)
    assert len(rows) == keep.sum() - 13 * (LENGTH - 1)
    for window, end in zip(cut[::37], rows.ts[::37], strict=True):
        first = end // MINUTE - LENGTH + 1
        expected = matrix.x[first : first + LENGTH]
        assert np.array_equal(window, expected, equal_nan=True)
