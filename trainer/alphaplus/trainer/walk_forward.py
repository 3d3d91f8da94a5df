"""Walk-forward validation: each row predicted by a model that saw nothing later than that row."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from alphaplus.trainer import calibrate, metrics, spec
from alphaplus.trainer.data import Array, Fold
from alphaplus.trainer.models.base import Checkpoints, Estimator, Progress, TrainingError
from alphaplus.trainer.rows import Inputs, both, early_stopping_split, purged
from numpy.typing import NDArray

# Fewer labelled rows than these are no training set.
MIN_ROWS = 500


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


def _ended(rows: Inputs, where: Sequence[NDArray[np.int64]], fold: Fold) -> list[NDArray[np.bool_]]:
    """Of the rows of earlier test folds those whose outcome was known before this fold began: it
    corrects and cuts the scores with them, which is learning too."""
    return [rows.label_end[i] < fold.test_from for i in where]


def _best(
    methods: Sequence[str],
    calibrated: dict[str, list[Array]],
    rows: Inputs,
    where: Sequence[NDArray[np.int64]],
    known: Sequence[NDArray[np.bool_]],
    effect: float,
) -> str | None:
    """The method to trust by the known rows' losses; None while none is known."""
    losses = {}
    for method in methods:
        parts = [
            metrics.log_losses(rows.y[i][k], p[k])
            for p, i, k in zip(calibrated[method], where, known, strict=True)
        ]
        losses[method] = np.concatenate(parts or [np.empty(0)])
    return _simplest(losses, effect) if len(losses[methods[0]]) else None


def _first(methods: Sequence[str], raw: Array, y: Array, effect: float) -> str:
    """The method of the first fold, by rows after those that the probe was fitted on: of the scores
    as they are and Platt's, whose prior holds with few events."""
    if not len(y) or len(methods) == 1:
        return methods[0]
    losses = {
        method: metrics.log_losses(
            y, spec.probability({"calibration": calibrate.calibration(method, raw, y, effect)}, raw)
        )
        for method in methods
        if method != "isotonic"
    }
    return _simplest(losses, effect) if losses else methods[0]


def _simplest(losses: dict[str, Array], effect: float) -> str:
    """The first method that loses no more than the best by a standard error.

    Rows that overlap tell ``effect`` times of the same, and count so much less. Source: the one
    standard error rule of Breiman, Friedman, Olshen, Stone (1984), section 3.4.3.
    """
    best = min(losses, key=lambda m: float(losses[m].mean()))
    for method, loss in losses.items():
        gap = loss - losses[best]
        if gap.mean() <= gap.std() * math.sqrt(effect / len(gap)):
            return method
    return best


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
    weigh: Callable[[Inputs], Array | None] = lambda rows: None,
    **settings: Any,
) -> WalkForward:
    """Predict each test fold with what was known before it, calibration and threshold too.

    The method of calibration ("auto") is chosen for each fold by the earlier folds, for the first
    by the rows that stop its fit: what is reported chose nothing. The version's own is the one
    that all folds choose.
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
    picks: list[str] = []
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
        if len(test) == 0 or len(train) < MIN_ROWS // 4 or (is_class and not both(train.y)):
            continue
        model = fresh(f"{name} {fold.fold}")
        split = early_stopping_split(train)
        if split is None:
            model.fit(
                train.x, train.y, rounds=model.blind_rounds, progress=part, weight=weigh(train)
            )
        else:
            # How long to train is found on later rows; then all rows train.
            early, late = split
            probe = fresh(f"{name} {fold.fold} probe")
            probe.fit(early.x, early.y, valid=(late.x, late.y), progress=part, weight=weigh(early))
            if model.refit:
                model.fit(train.x, train.y, rounds=probe.rounds, progress=part, weight=weigh(train))
            else:
                model = probe
        raw = model.raw(test.x)
        if is_class:
            # What earlier folds have shown corrects this fold: their scores are of models fitted as
            # this one was. The probe's are not, and on the rows that stopped it; they serve the
            # first fold only, which has nothing else.
            ended = _ended(rows, where, fold)
            known_raw = [r[e] for r, e in zip(raws, ended, strict=True)]
            known_y = [rows.y[i][e] for i, e in zip(where, ended, strict=True)]
            if split is not None and not any(both(y) for y in known_y):
                known_raw.append(probe.raw(late.x))
                known_y.append(late.y)
            seen_raw, seen_y = (np.concatenate(v or [np.empty(0)]) for v in (known_raw, known_y))
            pick = _best(methods, calibrated, rows, where, ended, effect)
            picks.append(pick or _first(methods, seen_raw, seen_y, effect))
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
        every = [np.ones(len(i), dtype=bool) for i in where]
        best = _best(methods, calibrated, rows, where, every, effect)
        predicted = np.concatenate([calibrated[m][k] for k, m in enumerate(picks)])
        picked = np.concatenate([chosen[m][k] for k, m in enumerate(picks)])
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
