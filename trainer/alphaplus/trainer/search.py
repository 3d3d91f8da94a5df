"""Hyperparameter search with Optuna [Akiba et al. 2019], its trials in the same database.

The search sees only what came before the first test fold: the rows of the reported metrics choose
nothing. On those rows it validates walk-forward, fold by fold, so that a trial that falls behind
the median of the others is pruned after its first folds. A search whose trainer was killed goes on
with the trials that are there. Where RAY_ADDRESS is set the trials run on that Ray cluster, each
worker on the same storage; else here.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
from alphaplus.trainer import metrics, spec
from alphaplus.trainer.data import Fold, Matrix
from alphaplus.trainer.models import estimator
from alphaplus.trainer.models.base import Progress, Space, Stopped, TrainingError
from alphaplus.trainer.rows import inputs, purged

log = logging.getLogger("alphaplus.trainer")


def suggest(trial: optuna.Trial, space: Space) -> dict[str, Any]:
    """A trial's parameters.

    Raises:
        TrainingError: a value that is neither a range nor a list of choices.
    """
    found: dict[str, Any] = {}
    for name, given in space.items():
        kind = given[0] if isinstance(given, list | tuple) and given else None
        if kind in ("float", "log_float", "int", "log_int") and len(given) == 3:
            low, high = given[1:]
            logarithmic = str(kind).startswith("log_")
            found[name] = (
                trial.suggest_float(name, low, high, log=logarithmic)
                if str(kind).endswith("float")
                else trial.suggest_int(name, low, high, log=logarithmic)
            )
        elif isinstance(given, list | tuple) and given:
            found[name] = trial.suggest_categorical(name, list(given))
        else:
            raise TrainingError(
                f"search space of {name!r}: give choices, or [kind, low, high] with kind float,"
                f" log_float, int or log_int; not {given!r}"
            )
    return found


def inner_folds(folds: Sequence[Fold], matrix: Matrix, count: int) -> list[Fold]:
    """Walk-forward folds within the rows that the first test fold does not meet."""
    if not folds:
        raise TrainingError("no walk-forward folds: more history is needed")
    first = min(folds, key=lambda fold: fold.test_from)
    usable = (matrix.ts >= first.train_from) & (matrix.label_end <= first.train_to)
    ts = np.sort(matrix.ts[usable])
    if len(ts) < 100:
        raise TrainingError(f"{len(ts)} rows before the first test fold are too few for a search")
    cuts = np.linspace(len(ts) * 0.5, len(ts) - 1, count + 1).astype(int)
    return [
        Fold(
            number + 1, int(ts[0]), int(ts[cuts[number]]) - 1, int(ts[cuts[number]]),
            int(ts[cuts[number + 1]]),
        )
        for number in range(count)
        if ts[cuts[number + 1]] > ts[cuts[number]]
    ]  # fmt: skip


def _objective(
    algorithm: str,
    params: dict[str, Any],
    matrix: Matrix,
    folds: Sequence[Fold],
    job: dict[str, Any],
    space: Space,
    settings: dict[str, Any],
    check: Callable[[], None],
) -> Callable[[optuna.Trial], float]:
    task = job["task"]

    def objective(trial: optuna.Trial) -> float:
        chosen = {**params, **suggest(trial, space)}
        kind = estimator(algorithm)
        losses: list[float] = []
        weights: list[int] = []
        for number, fold in enumerate(folds):
            model = kind(task, chosen, **settings)
            rows = inputs(matrix, model.sequence_length, round(job["grid"] * 1e6))
            in_train, in_test = purged(rows, fold)
            train, test = rows.take(in_train), rows.take(in_test)
            if len(test) == 0 or len(train) < 50 or train.y.min() == train.y.max():
                continue
            model.fit(
                train.x, train.y, valid=(test.x, test.y), progress=lambda part, words: check()
            )
            raw = model.raw(test.x)
            if task == "classification":
                loss = float(metrics.log_losses(test.y, spec.sigmoid(raw)).mean())
            else:
                value = spec.value({"output": model.output()}, raw)
                spread = float(np.mean((test.y - train.y.mean()) ** 2)) or 1.0
                loss = float(np.mean((value - test.y) ** 2)) / spread
            losses.append(loss)
            weights.append(len(test))
            trial.report(float(np.average(losses, weights=weights)), number)
            if trial.should_prune():
                raise optuna.TrialPruned
        if not losses:
            raise TrainingError("no inner fold has rows of both kinds to search on")
        return float(np.average(losses, weights=weights))

    return objective


def _open(storage: str | None, name: str, seed: int) -> optuna.Study:
    return optuna.create_study(
        storage=storage,
        study_name=name,
        load_if_exists=True,
        direction="minimize",
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=5),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=0),
    )


def _run(
    storage: str | None,
    name: str,
    recipe: dict[str, Any],
    trials: int,
    until: float | None,
    check: Callable[[], None] = lambda: None,
    study: optuna.Study | None = None,
) -> None:
    """Run trials of a study until there are ``trials`` of them in all, or the time is over."""
    seed = int(recipe["settings"]["seed"])
    study = study or _open(storage, name, seed + os.getpid())
    objective = _objective(**recipe, check=check)
    ended = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    while until is None or time.time() < until:
        check()
        if len(study.get_trials(deepcopy=False, states=ended)) >= trials:
            return
        study.optimize(objective, n_trials=1, catch=())


def search(
    algorithm: str,
    params: dict[str, Any],
    matrix: Matrix,
    folds: Sequence[Fold],
    job: dict[str, Any],
    wanted: dict[str, Any],
    *,
    storage: str | None = None,
    progress: Progress,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Search hyperparameters.

    Args:
        algorithm: its name.
        params: fixed parameters, which the search overrides.
        matrix: the training set.
        folds: the outer walk-forward folds.
        job: the job.
        wanted: ``{"trials": n, "minutes": m, "space": {…}, "folds": k}``; trials (default 20) or
            minutes or both bound it, ``space`` is over the algorithm's default one.
        storage: SQLAlchemy URL of the study; None: in memory.
        progress: as in :func:`alphaplus.trainer.train.train`.
        settings: seed, threads, … of the estimators.

    Returns:
        study, trials, pruned, best_value (loss; of values in units of the variance), best_params,
        where ("local" or "ray").

    Raises:
        TrainingError: an unknown option, or nothing to search on.
    """
    if not isinstance(wanted, dict):
        raise TrainingError(f'search: {{"trials": n, "minutes": m, …}} is needed, not {wanted!r}')
    unknown = set(wanted) - {"trials", "minutes", "space", "folds"}
    if unknown:
        raise TrainingError(f"search has no option {sorted(unknown)}")
    for option in sorted(set(wanted) - {"space"}):
        if isinstance(wanted[option], bool) or not (
            isinstance(wanted[option], int | float) and wanted[option] > 0
        ):
            raise TrainingError(f"search: {option} is a number above 0, not {wanted[option]!r}")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trials = int(wanted.get("trials", 20 if "minutes" not in wanted else 10_000))
    until = time.time() + 60 * float(wanted["minutes"]) if "minutes" in wanted else None
    space = wanted.get("space") or estimator(algorithm).SPACE
    if not isinstance(space, dict) or not space:
        raise TrainingError(
            f"{algorithm} has no search space of its own: name one, as in"
            ' {"search": {"space": {"parameter": ["float", 0.1, 1.0]}}}'
            if not space
            else f"search: space is an object of parameters, not {space!r}"
        )
    inside = inner_folds(folds, matrix, int(wanted.get("folds", 3)))
    # Nothing later than the search may see reaches it.
    seen = matrix.ts <= max(fold.test_to for fold in inside)
    recipe = {
        "algorithm": algorithm, "params": params, "matrix": matrix.take(seen), "folds": inside,
        "job": {key: job[key] for key in ("task", "grid")}, "space": space, "settings": settings,
    }  # fmt: skip
    name = f"job {job['job_id']}"
    study = _open(storage, name, int(settings["seed"]))
    for trial in study.get_trials(deepcopy=False):
        # Of a trainer that was killed.
        if trial.state == optuna.trial.TrialState.RUNNING:
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    address = os.environ.get("RAY_ADDRESS")
    if address and storage is None:
        raise TrainingError("a search on Ray needs a storage that its workers reach")

    def check() -> None:
        done = [t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]
        values = [t.value for t in done if t.value is not None]
        best = f", best loss {min(values):.4f}" if values else ""
        progress(min(len(done) / trials, 1.0), f"trial {len(done) + 1} of {trials}{best}")

    if address:
        _on_ray(address, storage, name, recipe, trials, until, check)
    else:
        _run(storage, name, recipe, trials, until, check, study)
    complete = [t for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE]
    if not complete:
        raise TrainingError("the search's time was over before one trial was complete")
    return {
        "study": name,
        "trials": len(study.trials),
        "pruned": sum(t.state == optuna.trial.TrialState.PRUNED for t in study.trials),
        "best_value": float(study.best_value),
        "best_params": dict(study.best_params),
        "where": "ray" if address else "local",
    }


def _on_ray(
    address: str,
    storage: str | None,
    name: str,
    recipe: dict[str, Any],
    trials: int,
    until: float | None,
    check: Callable[[], None],
) -> None:
    """The same trials on a Ray cluster: a worker for each of its cores, at most one a trial."""
    try:
        import ray
    except ImportError:
        raise TrainingError(
            "RAY_ADDRESS is set, but ray is not installed: pip install ray"
        ) from None
    ray.init(
        address=address, ignore_reinit_error=True, log_to_driver=False,
        logging_level=logging.ERROR,
    )  # fmt: skip
    threads = max(1, int(recipe["settings"]["threads"] or 1))
    cores: float = dict(ray.cluster_resources()).get("CPU", 1)  # type: ignore[no-untyped-call]
    workers = max(1, min(trials, int(cores) // threads))
    shared = ray.put(recipe)
    remote = ray.remote(num_cpus=threads, max_retries=2)(_run)
    running = [remote.remote(storage, name, shared, trials, until) for _ in range(workers)]
    log.info("search %s: %s workers on Ray", name, workers)
    try:
        while running:
            ready, running = ray.wait(running, timeout=1.0)
            ray.get(ready)
            check()
    except Stopped:
        for task in running:
            ray.cancel(task, force=True)
        raise
