"""From a training set to a version: walk-forward, calibrate, fit, export, check.

No database here: :func:`train` takes arrays and gives the version's parts, and says how far it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from alphaplus.trainer import (
    baselines,
    calibrate,
    combinatorial,
    metrics,
    provenance,
    regimes,
    search,
    spec,
)
from alphaplus.trainer.artifacts import raw_scores
from alphaplus.trainer.compare import MIN_EVENTS, compare
from alphaplus.trainer.data import Array, Fold, Matrix, moment
from alphaplus.trainer.hand_in import pack
from alphaplus.trainer.models import estimator
from alphaplus.trainer.models.base import (
    Artifact,
    Checkpoints,
    Estimator,
    Progress,
    TrainingError,
)
from alphaplus.trainer.rows import Inputs, inputs, overlap
from alphaplus.trainer.walk_forward import MIN_ROWS, WalkForward, walk_forward
from alphaplus.trainer.weights import Weights, embargoed, micros
from numpy.typing import NDArray

# The artifact read back from its bytes may differ from the fitted model by this much.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Trained:
    """A version to hand in: its artifact, the rest as ``ml.register_version`` has it, and its
    out-of-fold predictions (:mod:`alphaplus.trainer.hand_in`)."""

    artifact: bytes
    version: dict[str, Any]
    out_of_fold: bytes = b""


@dataclass(frozen=True)
class Recipe:
    """What a job asks for: an algorithm, its parameters, and the settings of every estimator."""

    name: str
    algorithm: type[Estimator]
    params: dict[str, Any]
    settings: dict[str, Any]
    calibration: str

    @classmethod
    def of(cls, job: dict[str, Any], threads: int) -> Recipe:
        """From a job.

        Raises:
            TrainingError: an unknown algorithm or calibration.
        """
        training: dict[str, Any] = job["training"] or {}
        name = str(training.get("algorithm") or job["algorithm"])
        # The model's own hyperparameters are those of its own algorithm.
        own = (job["params"] or {}) if name == job["algorithm"] else {}
        params = {**own, **(training.get("params") or {})}
        if "sequence_length" in training:
            params["sequence_length"] = training["sequence_length"]
        calibration = training.get("calibration", "auto")
        if calibration not in ("auto", *calibrate.METHODS):
            raise TrainingError(
                f"unknown calibration {calibration!r}: auto, {', '.join(calibrate.METHODS)}"
            )
        settings = {
            "seed": int(training.get("seed", 1)),
            "threads": int(training.get("threads", threads)),
            "features": list(job["features"]),
            "overlap": overlap(job),
        }
        return cls(name, estimator(name), params, settings, calibration)

    def estimator(self, task: str) -> Estimator:
        """A model that is not fitted yet."""
        return self.algorithm(task, self.params, **self.settings)

    def with_params(self, params: dict[str, Any]) -> Recipe:
        """The recipe with some parameters replaced."""
        return Recipe(
            self.name, self.algorithm, {**self.params, **params}, self.settings, self.calibration
        )


def _clean(value: Any) -> Any:
    """JSON has no NaN: such a metric is left out as null."""
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _share(progress: Progress, start: float, end: float) -> Progress:
    return lambda part, words: progress(start + (end - start) * part, words)


def _check_rows(rows: Inputs, job: dict[str, Any]) -> None:
    """Refuse a set that is too small to learn from."""
    least = int((job["training"] or {}).get("min_rows", MIN_ROWS))
    if len(rows) < least:
        raise TrainingError(
            f"{len(rows)} labelled rows by {job['as_of']}, at least {least} are needed: load more"
            " history, or wait"
        )
    if not np.isfinite(rows.y).all():
        raise TrainingError("the target has values that are not finite")
    if job["task"] == "classification":
        events = int(rows.y.sum())
        if min(events, len(rows) - events) < MIN_EVENTS:
            raise TrainingError(
                f"the label holds in {events} of {len(rows)} rows: at least {MIN_EVENTS} of each"
                " class are needed"
            )


def _fold_metrics(task: str, y: Array, found: WalkForward, seed: int) -> list[dict[str, Any]]:
    out = []
    for fold in found.folds:
        i = found.fold == fold.fold
        one = metrics.measure(
            task, y[i], found.predicted[i], found.base[i], found.chosen[i], None, seed
        )
        span = {
            key: moment(getattr(fold, key)).isoformat()
            for key in ("train_from", "train_to", "test_from", "test_to")
        }
        out.append({"fold": fold.fold, **span, **one})
    return out


def _exported(
    final: Estimator, rows: Inputs, tested: NDArray[np.int64], job: dict[str, Any], threads: int
) -> tuple[Artifact, float]:
    """The fitted model as an artifact, and the greatest difference of the two on tested rows.

    Raises:
        TrainingError: the artifact is too large, or not equal to the model.
    """
    artifact = final.export()
    limit = job.get("max_artifact_bytes")
    if limit and len(artifact.content) > limit:
        raise TrainingError(f"the artifact has {len(artifact.content)} bytes, the limit is {limit}")
    check = rows.x[tested[-2000:]]
    read_back = raw_scores(artifact.format, artifact.content, artifact.spec, check, threads)
    gap = float(np.max(np.abs(read_back - final.raw(check))))
    if not gap <= TOLERANCE:
        raise TrainingError(
            f"the exported artifact differs from the fitted model by {gap:g} (limit {TOLERANCE:g})"
        )
    return artifact, gap


def _calibrated(
    rows: Inputs, found: WalkForward, block: NDArray[np.int64], task: str, effect: float,
    artifact: Artifact, gap: float,
) -> tuple[dict[str, Any], Array]:  # fmt: skip
    """The version's spec, calibrated on the out-of-fold predictions, and those as it gives them."""
    y = rows.y[found.rows]
    whole: dict[str, Any] = {
        **artifact.spec,
        "base_rate": float(rows.y.mean()),
        "support": calibrate.support(rows.latest),
        "export_gap": gap,
    }
    if task != "classification":
        whole["interval"], whole["confidence"] = calibrate.interval(
            y, found.predicted, whole["output"]["kind"] == "exp"
        )
        return whole, found.predicted
    assert found.calibration is not None
    whole["calibration_method"] = found.calibration
    whole["calibration"] = calibrate.calibration(found.calibration, found.raw, y, effect)
    if found.calibration == "none":
        whole["calibration_method"], whole["calibration"] = "uncalibrated", None
    p = spec.probability(whole, found.raw)
    whole["confidence"] = calibrate.confidence(y, p, block)
    whole["operating_point"] = metrics.best_threshold(y, p)
    return whole, p


def train(
    job: dict[str, Any],
    matrix: Matrix,
    folds: Sequence[Fold],
    *,
    champion: bytes | None = None,
    progress: Progress = lambda part, words: None,
    threads: int = 0,
    checkpoints: Checkpoints | None = None,
    storage: str | None = None,
) -> Trained:
    """Train one version.

    Args:
        job: what ``ml._claim_job`` gave: task, features, params, training, horizon, champion, ….
        matrix: the training set.
        folds: walk-forward folds.
        champion: the present champion's artifact, to be measured on the same rows.
        progress: called with the part done and words; what it raises stops the training.
        threads: cores; 0: all.
        checkpoints: where fits keep their state, to go on after a kill.
        storage: where a search keeps its trials (SQLAlchemy URL); None: in memory.

    Raises:
        TrainingError: too few rows or events, unknown algorithm or parameter, artifact not equal
            to the model.
    """
    task = job["task"]
    if task == "regime":
        return Trained(*regimes.train(job, matrix, folds, champion, progress))
    training: dict[str, Any] = job["training"] or {}
    recipe = Recipe.of(job, threads)
    folds = embargoed(folds, training.get("embargo"))
    weigh = Weights.of(training.get("weights"))
    settings, seed, effect = recipe.settings, recipe.settings["seed"], overlap(job)
    grid = round(job["grid"] * 1e6)
    rows = inputs(matrix, recipe.estimator(task).sequence_length, grid)
    _check_rows(rows, job)
    searched: dict[str, Any] | None = None
    if training.get("search"):
        searched = search.search(
            recipe.name, recipe.params, matrix, folds, job, training["search"], storage=storage,
            progress=_share(progress, 0.05, 0.45), settings=settings,
        )  # fmt: skip
        recipe = recipe.with_params(searched["best_params"])
        rows = inputs(matrix, recipe.estimator(task).sequence_length, grid)
    found = walk_forward(
        recipe.algorithm, recipe.params, rows, folds, task,
        calibration=recipe.calibration, effect=effect,
        progress=_share(progress, 0.45 if searched else 0.05, 0.66), checkpoints=checkpoints,
        weigh=weigh, **settings,
    )  # fmt: skip
    y = rows.y[found.rows]
    block = metrics.blocks(rows.ts[found.rows], round(job["horizon"] * 1e6))
    progress(0.66, "measuring")
    measured = metrics.measure(task, y, found.predicted, found.base, found.chosen, block, seed)
    beside: dict[str, Array] = {}
    if training.get("baselines", True):
        progress(0.67, "measuring the baselines")
        measured["baselines"], beside = baselines.measure(
            task, rows, found.folds, found.rows, found.base, block, effect, settings
        )
    if training.get("combinatorial"):
        measured["combinatorial"] = combinatorial.measure(
            recipe.algorithm, recipe.params, rows, task, training["combinatorial"],
            rounds=found.rounds, embargo=micros(training.get("embargo")),
            progress=_share(progress, 0.67, 0.75), weigh=weigh, **settings,
        )  # fmt: skip
    if searched:
        measured["search"] = searched
    if matrix.dropped:
        measured["noise"] = {"rows": len(matrix) + matrix.dropped["any"], "dropped": matrix.dropped}
    fold_metrics = _fold_metrics(task, y, found, seed)

    final = recipe.estimator(task)
    final.checkpoints, final.stage = checkpoints, "final"
    final.fit(
        rows.x, rows.y, rounds=found.rounds, progress=_share(progress, 0.75, 0.88),
        weight=weigh(rows),
    )  # fmt: skip
    progress(0.88, "checking the artifact")
    artifact, gap = _exported(final, rows, found.rows, job, settings["threads"])
    whole, score = _calibrated(rows, found, block, task, effect, artifact, gap)
    rival = None
    if champion is not None and job.get("champion"):
        progress(0.90, "measuring the champion on the same rows")
        measured["champion"], rival = compare(
            job["champion"], champion, (recipe.name, recipe.params), measured, matrix, rows, found,
            folds, job, progress=_share(progress, 0.90, 0.98), settings=settings,
        )  # fmt: skip
    version = {
        "algorithm": recipe.name,
        "format": artifact.format,
        "features": list(job["features"]),
        "spec": whole,
        "params": getattr(final, "options", recipe.params)
        | {"seed": seed, "trained_rounds": final.rounds},
        "metrics": measured,
        "fold_metrics": fold_metrics,
        "importance": final.importance(),
        "reference_stats": calibrate.reference_stats(
            list(job["features"]), rows.latest, score, rows.y
        ),
        "train_from": moment(int(rows.ts.min())).isoformat(),
        "train_to": moment(int(rows.ts.max())).isoformat(),
        "row_count": len(rows),
        "training_sha256": matrix.sha256.hex(),
        "library_versions": provenance.library_versions(recipe.algorithm),
        "code_version": provenance.code_version(),
        "parent_id": (job.get("champion") or {}).get("version_id"),
    }
    handed = pack(rows, found, beside, rival)
    return Trained(artifact.content, _clean(version), handed)
