"""From a training set to a version: walk-forward, calibrate, fit, export, check.

No database here: :func:`train` takes arrays and gives the version's parts, and says how far it is.
"""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from alphaplus.trainer import baselines, calibrate, metrics, search, spec
from alphaplus.trainer.artifacts import raw_scores
from alphaplus.trainer.data import Array, Fold, Matrix, Times, instant, moment
from alphaplus.trainer.models import estimator
from alphaplus.trainer.models.base import (
    Checkpoints,
    Estimator,
    Features,
    Progress,
    TrainingError,
    Windows,
)
from numpy.typing import NDArray

MIN_ROWS = 500
MIN_EVENTS = 20
# Of a fold's training rows, the last part on which it stops early.
VALID_SHARE = 0.15
# The artifact read back from its bytes may differ from the fitted model by this much.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Trained:
    """A version to hand in: its artifact, and the rest as ``ml.register_version`` has it."""

    artifact: bytes
    version: dict[str, Any]


@dataclass(frozen=True)
class Inputs:
    """What an estimator reads: the rows of a set that have the history it needs, by time."""

    x: Features
    y: Array
    ts: Times
    label_end: Times
    symbol: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ts)

    @property
    def latest(self) -> Array:
        """(n, features) the row at each time itself."""
        found: Array = self.x.latest if isinstance(self.x, Windows) else self.x
        return found

    def take(self, chosen: NDArray[np.bool_]) -> Inputs:
        """The chosen rows."""
        return Inputs(
            self.x[chosen],
            self.y[chosen],
            self.ts[chosen],
            self.label_end[chosen],
            self.symbol[chosen],
        )


@dataclass(frozen=True)
class WalkForward:
    """Out-of-fold predictions: each row's by a model that saw none of it and nothing later."""

    rows: NDArray[np.int64]
    fold: NDArray[np.int64]
    raw: Array
    predicted: Array
    base: Array
    chosen: NDArray[np.bool_]
    rounds: int | None
    calibration: str | None
    folds: list[Fold]


def inputs(matrix: Matrix, length: int, grid: int) -> Inputs:
    """The set as an estimator reads it; for sequences, windows that do not cross a gap.

    Args:
        matrix: rows by time, of one symbol or several.
        length: rows of history per prediction; 1: the row itself.
        grid: µs between two rows of a symbol that follow each other without a gap.
    """
    if length == 1:
        return Inputs(matrix.x, matrix.y, matrix.ts, matrix.label_end, matrix.symbol)
    if not len(matrix):
        none = np.empty(0, dtype=np.int64)
        windows = Windows(matrix.x, none, length)
        return Inputs(windows, matrix.y, matrix.ts, matrix.label_end, matrix.symbol)
    # By symbol, then time: a sequence is a stretch of rows.
    order = np.lexsort((matrix.ts, matrix.symbol))
    ts, symbol = matrix.ts[order], matrix.symbol[order]
    follows = (np.diff(ts) == grid) & (np.diff(symbol) == 0)
    starts = np.zeros(len(ts), dtype=np.int64)
    breaks = np.r_[0, np.flatnonzero(~follows) + 1]
    starts[breaks] = breaks
    run = np.arange(len(ts)) - np.maximum.accumulate(starts)
    last = np.flatnonzero(run >= length - 1)
    last = last[np.argsort(ts[last], kind="stable")]
    at = order[last]
    rows = matrix.x if (order[:-1] < order[1:]).all() else matrix.x[order]
    return Inputs(
        Windows(rows, last, length), matrix.y[at], ts[last], matrix.label_end[at], symbol[last]
    )


def purged(rows: Inputs, fold: Fold) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(training, test) rows of a fold.

    A training row's label interval ends before the first test row's begins, whatever the fold says:
    the fold's own purge and embargo come from the label's horizon, and this does not rely on them.
    """
    test = (rows.ts >= fold.test_from) & (rows.ts < fold.test_to)
    first = rows.ts[test].min() if test.any() else fold.test_from
    train = (rows.ts >= fold.train_from) & (rows.label_end <= min(fold.train_to, int(first) - 1))
    return train, test


def _ended(rows: Inputs, where: Sequence[NDArray[np.int64]], fold: Fold) -> list[NDArray[np.bool_]]:
    """Of the rows of earlier test folds those whose outcome was known before this fold began: it
    corrects and cuts the scores with them, which is learning too."""
    return [rows.label_end[i] < fold.test_from for i in where]


def _both(y: Array) -> bool:
    return len(y) > 0 and bool(y.min() < y.max())


def _early(rows: Inputs) -> tuple[Inputs, Inputs] | None:
    """Training rows split in time to stop early, purged at the cut; None: too few of a class."""
    cut = np.quantile(rows.ts, 1 - VALID_SHARE, method="higher")
    before = rows.take(rows.label_end <= cut)
    after = rows.take(rows.ts >= cut)
    return (before, after) if _both(before.y) and _both(after.y) else None


def walk_forward(
    algorithm: type[Estimator],
    params: dict[str, Any],
    rows: Inputs,
    folds: Sequence[Fold],
    task: str,
    *,
    calibration: str = "auto",
    effect: float = 1.0,
    progress: Progress,
    checkpoints: Checkpoints | None = None,
    name: str = "fold",
    **settings: Any,
) -> WalkForward:
    """Predict each test fold with what was known before it, calibration and threshold too.

    Which method of calibration ("auto") is the one thing that all test rows choose together: fold
    by fold it was chosen on too little, and cost more than it was worth.
    """

    def fresh(stage: str) -> Estimator:
        made = algorithm(task, params, **settings)
        made.checkpoints, made.stage = checkpoints, stage
        return made

    is_class = task == "classification"
    methods = list(calibrate.METHODS) if calibration == "auto" else [calibration]
    raws: list[Array] = []
    bases: list[Array] = []
    values: list[Array] = []
    calibrated: dict[str, list[Array]] = {method: [] for method in methods}
    chosen: dict[str, list[NDArray[np.bool_]]] = {method: [] for method in methods}
    where: list[NDArray[np.int64]] = []
    rounds: list[int] = []
    used: list[Fold] = []
    for number, fold in enumerate(folds):

        def part(done: float, words: str, number: int = number) -> None:
            progress((number + done) / len(folds), f"fold {number + 1} of {len(folds)}: {words}")

        part(0, "fitting")
        in_train, in_test = purged(rows, fold)
        train = rows.take(in_train)
        test = rows.take(in_test)
        if len(test) == 0 or len(train) < MIN_ROWS // 4 or (is_class and not _both(train.y)):
            continue
        model = fresh(f"{name} {fold.fold}")
        split = _early(train)
        if split is None:
            model.fit(train.x, train.y, rounds=model.blind_rounds, progress=part)
        else:
            # How long to train is found on later rows; then all rows train.
            early, late = split
            probe = fresh(f"{name} {fold.fold} probe")
            probe.fit(early.x, early.y, valid=(late.x, late.y), progress=part)
            if model.refit:
                model.fit(train.x, train.y, rounds=probe.rounds, progress=part)
            else:
                model = probe
        raw = model.raw(test.x)
        if is_class:
            # What earlier folds and the later rows have shown corrects this fold.
            ended = _ended(rows, where, fold)
            known_raw = [r[e] for r, e in zip(raws, ended, strict=True)]
            known_y = [rows.y[i][e] for i, e in zip(where, ended, strict=True)]
            if split is not None:
                known_raw.append(probe.raw(late.x))
                known_y.append(late.y)
            seen_raw, seen_y = (np.concatenate(v or [np.empty(0)]) for v in (known_raw, known_y))
            for method in methods:
                fit: dict[str, Any] = {}
                line = float(train.y.mean())
                if len(seen_y):
                    fit = {"calibration": calibrate.calibration(method, seen_raw, seen_y, effect)}
                    line = metrics.best_threshold(seen_y, spec.probability(fit, seen_raw))
                p = spec.probability(fit, raw)
                calibrated[method].append(p)
                chosen[method].append(p >= line)
        else:
            values.append(spec.value({"output": model.output()}, raw))
        raws.append(raw)
        bases.append(
            np.full(
                len(test), np.clip(train.y.mean(), 1e-6, 1 - 1e-6) if is_class else train.y.mean()
            )
        )
        where.append(np.flatnonzero(in_test))
        used.append(fold)
        if model.rounds is not None:
            rounds.append(model.rounds)
    if len(used) < 2:
        raise TrainingError(
            f"only {len(used)} of {len(folds)} walk-forward folds have enough rows of both kinds:"
            " more history is needed, or a smaller horizon"
        )
    at = np.concatenate(where)
    best = None
    predicted = np.concatenate(values) if values else np.empty(0)
    picked = np.zeros(len(at), dtype=bool)
    if is_class:
        losses = {
            m: float(metrics.log_losses(rows.y[at], np.concatenate(calibrated[m])).mean())
            for m in methods
        }
        best = min(methods, key=lambda m: losses[m])
        predicted = np.concatenate(calibrated[best])
        picked = np.concatenate(chosen[best])
    return WalkForward(
        rows=at,
        fold=np.concatenate([np.full(len(i), f.fold) for i, f in zip(where, used, strict=True)]),
        raw=np.concatenate(raws),
        predicted=predicted,
        base=np.concatenate(bases),
        chosen=picked,
        rounds=math.ceil(float(np.median(rounds))) if rounds else None,
        calibration=best,
        folds=used,
    )


def _measure(
    task: str,
    y: Array,
    predicted: Array,
    base: Array,
    chosen: NDArray[np.bool_],
    block: NDArray[np.int64] | None,
    seed: int,
) -> dict[str, Any]:
    if task == "classification":
        return metrics.classification(y, predicted, base, chosen, block, seed=seed)
    return metrics.regression(y, predicted, base, block, seed=seed)


def _clean(value: Any) -> Any:
    """JSON has no NaN: such a metric is left out as null."""
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def overlap(job: dict[str, Any]) -> float:
    """Rows per horizon: how many neighbouring labels tell of the same events."""
    return max(1.0, float(job["horizon"]) / float(job["grid"]))


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
    is_class = task == "classification"
    training: dict[str, Any] = job["training"] or {}
    name = str(training.get("algorithm") or job["algorithm"])
    # The model's own hyperparameters are those of its own algorithm.
    own = (job["params"] or {}) if name == job["algorithm"] else {}
    params = {**own, **(training.get("params") or {})}
    if "sequence_length" in training:
        params["sequence_length"] = training["sequence_length"]
    seed = int(training.get("seed", 1))
    settings: dict[str, Any] = {
        "seed": seed,
        "threads": int(training.get("threads", threads)),
        "features": list(job["features"]),
        "overlap": overlap(job),
    }
    calibration = training.get("calibration", "auto")
    if calibration not in ("auto", *calibrate.METHODS):
        raise TrainingError(
            f"unknown calibration {calibration!r}: auto, {', '.join(calibrate.METHODS)}"
        )
    algorithm = estimator(name)
    sample = algorithm(task, params, **settings)
    rows = inputs(matrix, sample.sequence_length, round(job["grid"] * 1e6))
    horizon = round(job["horizon"] * 1e6)
    effect = overlap(job)
    least = int(training.get("min_rows", MIN_ROWS))
    if len(rows) < least:
        raise TrainingError(
            f"{len(rows)} labelled rows by {job['as_of']}, at least {least} are needed: load more"
            " history, or wait"
        )
    if not np.isfinite(rows.y).all():
        raise TrainingError("the target has values that are not finite")
    if is_class:
        events = int(rows.y.sum())
        if min(events, len(rows) - events) < MIN_EVENTS:
            raise TrainingError(
                f"the label holds in {events} of {len(rows)} rows: at least {MIN_EVENTS} of each"
                " class are needed"
            )

    def share(start: float, end: float) -> Progress:
        return lambda part, words: progress(start + (end - start) * part, words)

    searched: dict[str, Any] | None = None
    if training.get("search"):
        searched = search.search(
            name, params, matrix, folds, job, training["search"], storage=storage,
            progress=share(0.05, 0.45), settings=settings,
        )  # fmt: skip
        params = {**params, **searched["best_params"]}
        sample = algorithm(task, params, **settings)
        rows = inputs(matrix, sample.sequence_length, round(job["grid"] * 1e6))
    start = 0.45 if searched else 0.05
    found = walk_forward(
        algorithm, params, rows, folds, task,
        calibration=calibration, effect=effect,
        progress=share(start, 0.66), checkpoints=checkpoints, **settings,
    )  # fmt: skip
    y = rows.y[found.rows]
    block = metrics.blocks(rows.ts[found.rows], horizon)
    progress(0.66, "measuring")
    measured = _measure(task, y, found.predicted, found.base, found.chosen, block, seed)
    if training.get("baselines", True):
        progress(0.67, "measuring the baselines")
        measured["baselines"] = baselines.measure(
            task, rows, found.folds, found.rows, found.base, block, effect, settings
        )
    if searched:
        measured["search"] = searched
    if matrix.dropped:
        measured["noise"] = {"rows": len(matrix) + matrix.dropped["any"], "dropped": matrix.dropped}
    fold_metrics = []
    for fold in found.folds:
        i = found.fold == fold.fold
        one = _measure(task, y[i], found.predicted[i], found.base[i], found.chosen[i], None, seed)
        fold_metrics.append(
            {
                "fold": fold.fold,
                **{
                    key: moment(getattr(fold, key)).isoformat()
                    for key in ("train_from", "train_to", "test_from", "test_to")
                },
                **one,
            }
        )

    final = algorithm(task, params, **settings)
    final.checkpoints, final.stage = checkpoints, "final"
    final.fit(rows.x, rows.y, rounds=found.rounds, progress=share(0.75, 0.88))
    artifact = final.export()
    progress(0.88, "checking the artifact")
    limit = job.get("max_artifact_bytes")
    if limit and len(artifact.content) > limit:
        raise TrainingError(f"the artifact has {len(artifact.content)} bytes, the limit is {limit}")
    check = rows.x[found.rows[-2000:]]
    settings_threads = settings["threads"]
    gap = float(
        np.max(
            np.abs(
                raw_scores(
                    artifact.format, artifact.content, artifact.spec, check, settings_threads
                )
                - final.raw(check)
            )
        )
    )
    if not gap <= TOLERANCE:
        raise TrainingError(
            f"the exported artifact differs from the fitted model by {gap:g} (limit {TOLERANCE:g})"
        )

    whole: dict[str, Any] = {
        **artifact.spec,
        "base_rate": float(rows.y.mean()),
        "support": calibrate.support(rows.latest),
        "export_gap": gap,
    }
    if is_class:
        assert found.calibration is not None
        whole["calibration"] = calibrate.calibration(found.calibration, found.raw, y, effect)
        p = spec.probability(whole, found.raw)
        whole["confidence"] = calibrate.confidence(y, p, block)
        whole["operating_point"] = metrics.best_threshold(y, p)
        score = p
    else:
        whole["interval"], whole["confidence"] = calibrate.interval(
            y, found.predicted, whole["output"]["kind"] == "exp"
        )
        score = found.predicted

    if champion is not None and job.get("champion"):
        progress(0.90, "measuring the champion on the same rows")
        measured["champion"] = compare(
            job["champion"], champion, (name, params), measured, matrix, rows, found, folds, job,
            progress=share(0.90, 0.98), settings=settings,
        )  # fmt: skip

    return Trained(
        artifact.content,
        _clean(
            {
                "algorithm": name,
                "format": artifact.format,
                "features": list(job["features"]),
                "spec": whole,
                "params": getattr(final, "options", params)
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
                "library_versions": library_versions(algorithm),
                "code_version": code_version(),
                "parent_id": (job.get("champion") or {}).get("version_id"),
            }
        ),
    )


def compare(
    champion: dict[str, Any],
    artifact: bytes,
    recipe: tuple[str, dict[str, Any]],
    measured: dict[str, Any],
    matrix: Matrix,
    rows: Inputs,
    found: WalkForward,
    folds: Sequence[Fold],
    job: dict[str, Any],
    *,
    progress: Progress,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Champion and challenger on the same held-out rows.

    A champion has seen the rows it was trained on, so it is measured as it is on the test rows that
    come after those (``method`` "unseen"). Where there are too few of them its recipe is fitted
    again on the same folds ("refitted"), unless it is the same recipe ("same_recipe").

    Returns:
        version_id, method, rows, values (the champion's metrics), challenger (the new version's on
        the same rows).
    """
    task = job["task"]
    seed = int(settings["seed"])
    known: dict[str, Any] = {"version_id": champion["version_id"]}
    if list(champion["features"]) != list(job["features"]):
        return known | {"method": "none", "reason": "it has other features"}
    y = rows.y[found.rows]
    ours_at = _keys(rows, found.rows)
    last = instant(champion["train_to"])
    # The champion may read longer sequences, or single rows.
    length = int(champion["spec"]["inputs"].get("length", 1))
    theirs_rows = inputs(matrix, length, round(job["grid"] * 1e6))
    _, i, at = np.intersect1d(
        ours_at, _keys(theirs_rows, np.arange(len(theirs_rows))), return_indices=True
    )
    unseen = rows.ts[found.rows[i]] >= last + round(job["horizon"] * 1e6)
    i, at = i[unseen], at[unseen]
    enough = len(i) >= max(MIN_ROWS, len(y) // 10)
    if task == "classification":
        enough = enough and min(y[i].sum(), (1 - y[i]).sum()) >= MIN_EVENTS
    if enough:
        raw = raw_scores(
            champion["format"], artifact, champion["spec"], theirs_rows.x[at], settings["threads"]
        )
        if task == "classification":
            theirs = spec.probability(champion["spec"], raw)
            chosen = theirs >= champion["spec"].get("operating_point", 0.5)
        else:
            theirs = spec.value(champion["spec"], raw)
            chosen = np.zeros(len(at), dtype=bool)
        values = _measure(task, y[i], theirs, found.base[i], chosen, None, seed)
        ours = _measure(task, y[i], found.predicted[i], found.base[i], found.chosen[i], None, seed)
        return known | {
            "method": "unseen",
            "rows": len(i),
            "values": values,
            "challenger": ours,
        }
    own = {"seed", "trained_rounds"}
    their_params = {k: v for k, v in (champion.get("params") or {}).items() if k not in own}
    plain = {key: value for key, value in measured.items() if key != "champion"}
    sample = estimator(recipe[0])(task, recipe[1], **settings)
    our_params = getattr(sample, "options", recipe[1])
    if champion["algorithm"] == recipe[0] and their_params == our_params:
        return known | {
            "method": "same_recipe",
            "rows": len(y),
            "values": plain,
            "challenger": plain,
        }
    theirs_sample = estimator(champion["algorithm"])(task, their_params, **settings)
    theirs_rows = inputs(matrix, theirs_sample.sequence_length, round(job["grid"] * 1e6))
    again = walk_forward(
        estimator(champion["algorithm"]), their_params, theirs_rows, folds, task,
        effect=overlap(job), progress=progress, name="champion", **settings,
    )  # fmt: skip
    _, i, at = np.intersect1d(ours_at, _keys(theirs_rows, again.rows), return_indices=True)
    if len(i) < len(y) // 2:
        return known | {"method": "none", "reason": "its recipe does not cover the same rows"}
    values = _measure(task, y[i], again.predicted[at], again.base[at], again.chosen[at], None, seed)
    ours = _measure(task, y[i], found.predicted[i], found.base[i], found.chosen[i], None, seed)
    return known | {"method": "refitted", "rows": len(i), "values": values, "challenger": ours}


def _keys(rows: Inputs, at: NDArray[np.int64]) -> NDArray[np.int64]:
    """One number for each (time, symbol)."""
    symbols = int(rows.symbol.max(initial=0)) + 1
    found: NDArray[np.int64] = rows.ts[at] * symbols + rows.symbol[at]
    return found


def library_versions(algorithm: type[Estimator]) -> dict[str, str]:
    """Versions of what a trained model rests on."""
    found = {"python": platform.python_version(), **algorithm.library_versions()}
    for name in ("numpy", "scipy", "scikit-learn", "alphaplus"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def code_version() -> str:
    """``sha256:`` of this package's sources: what it was trained with, wherever it is installed."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(
            path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0"
        )
    return f"sha256:{digest.hexdigest()}"
