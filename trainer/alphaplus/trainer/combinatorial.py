"""Combinatorial purged cross-validation: many paths through history beside the one of walk-forward.

Time is cut into groups; every choice of some of them is tested by a model fitted on the others,
without the rows whose labels meet the test's. Each group is tested several times, so the tests
join to several whole paths, and what is measured has a distribution. Unlike walk-forward a model
here has seen what came after its test: it tells how much a measure depends on the stretch of time,
not what could have been known. Source: Lopez de Prado (2018), Advances in Financial Machine
Learning, 12.4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import numpy as np
from alphaplus.trainer import metrics, spec
from alphaplus.trainer.data import Array, Times
from alphaplus.trainer.models.base import Estimator, Progress, TrainingError
from alphaplus.trainer.rows import Inputs, both
from alphaplus.trainer.walk_forward import MIN_ROWS
from numpy.typing import NDArray

Places = NDArray[np.int64]
MOST = 60  # models


def group_of(ts: Times, groups: int) -> Places:
    """(n,) the group of each row, rows by time; rows of one time are of one group."""
    n = len(ts)
    group = np.repeat(np.arange(groups), [len(p) for p in np.array_split(np.arange(n), groups)])
    first = np.searchsorted(ts, ts, side="left")
    found: Places = group[first]
    return found


def splits(
    ts: Times, label_end: Times, groups: int, tested: int, embargo: int = 0
) -> Iterator[tuple[tuple[int, ...], Places, Places]]:
    """The groups tested, and the places of training and test rows, for every choice of groups.

    A training row's interval [ts, label_end) meets no test row's, and it does not begin within the
    embargo (µs) after a test row's label is known.
    """
    group = group_of(ts, groups)
    for chosen in combinations(range(groups), tested):
        test = np.isin(group, chosen)
        keep = ~test
        for stretch in _stretches(chosen):
            inside = np.flatnonzero((group >= stretch[0]) & (group <= stretch[-1]))
            if not len(inside):
                continue
            start, stop = ts[inside].min(), label_end[inside].max()
            keep &= ~((ts < stop) & (label_end > start))
            if embargo:
                keep &= ~((ts >= label_end[inside].min()) & (ts <= stop + embargo))
        yield chosen, np.flatnonzero(keep), np.flatnonzero(test)


def _stretches(chosen: tuple[int, ...]) -> list[list[int]]:
    """Groups that follow one another."""
    found: list[list[int]] = []
    for g in chosen:
        if found and found[-1][-1] == g - 1:
            found[-1].append(g)
        else:
            found.append([g])
    return found


def paths(
    predicted: list[tuple[tuple[int, ...], Places, Array]], ts: Times, groups: int, tested: int
) -> Array:
    """(paths, n) whole histories: the first path takes each group from the first choice that tests
    it, and so on."""
    count = math.comb(groups, tested) * tested // groups
    group = group_of(ts, groups)
    whole = np.full((count, len(ts)), np.nan)
    turn = [0] * groups
    for chosen, at, values in predicted:
        for g in chosen:
            mine = group[at] == g
            whole[turn[g], at[mine]] = values[mine]
            turn[g] += 1
    return whole


def options(given: Any) -> tuple[int, int]:
    """Groups and tested groups of the training option.

    Raises:
        TrainingError: they are none.
    """
    if not isinstance(given, dict) or set(given) - {"groups", "tested"}:
        raise TrainingError('combinatorial is an object like {"groups": 6, "tested": 2}')
    groups, tested = given.get("groups", 6), given.get("tested", 2)
    sound = all(isinstance(v, int) and not isinstance(v, bool) for v in (groups, tested))
    if not sound or not 3 <= groups <= 20 or not 1 <= tested < groups:
        raise TrainingError("combinatorial needs 3 to 20 groups, of which some are tested")
    if math.comb(groups, tested) > MOST:
        raise TrainingError(
            f"{tested} of {groups} groups are {math.comb(groups, tested)} models: at most {MOST}"
        )
    return groups, tested


def measure(
    algorithm: type[Estimator],
    params: dict[str, Any],
    rows: Inputs,
    task: str,
    given: Any,
    *,
    rounds: int | None,
    embargo: int,
    progress: Progress,
    weigh: Callable[[Inputs], Array | None] = lambda rows: None,
    **settings: Any,
) -> dict[str, Any]:
    """Metrics of each path, by models of as many rounds as the version's own.

    Scores are not calibrated: no path has rows that came before all others to calibrate on.
    """
    groups, tested = options(given)
    every = math.comb(groups, tested)
    predicted: list[tuple[tuple[int, ...], Places, Array]] = []
    base = np.full(len(rows), np.nan)
    for number, (chosen, train, test) in enumerate(
        splits(rows.ts, rows.label_end, groups, tested, embargo)
    ):
        progress(number / every, f"combinatorial: {number + 1} of {every}")
        mask = np.zeros(len(rows), dtype=bool)
        mask[train] = True
        some = rows.take(mask)
        if len(some) < MIN_ROWS // 4 or (task == "classification" and not both(some.y)):
            raise TrainingError(
                f"combinatorial: the groups other than {chosen} leave {len(some)} rows to train on;"
                " fewer groups are needed, or more history"
            )
        model = algorithm(task, params, **settings)
        model.fit(
            some.x, some.y, rounds=rounds or model.blind_rounds,
            progress=lambda part, words: None, weight=weigh(some),
        )  # fmt: skip
        mask[:] = False
        mask[test] = True
        raw = model.raw(rows.take(mask).x)
        if task == "classification":
            values = spec.probability({}, raw)
        else:
            values = spec.value({"output": model.output()}, raw)
        predicted.append((chosen, test, values))
        base[test] = np.where(np.isnan(base[test]), some.y.mean(), base[test])
    whole = paths(predicted, rows.ts, groups, tested)
    return {
        "groups": groups,
        "tested": tested,
        "models": every,
        **_summary(task, rows, whole, base),
    }


def _summary(task: str, rows: Inputs, whole: Array, base: Array) -> dict[str, Any]:
    found: dict[str, list[float]] = {}
    for path in whole:
        if task == "classification":
            p = np.clip(path, 1e-6, 1 - 1e-6)
            found.setdefault("log_loss", []).append(float(metrics.log_losses(rows.y, p).mean()))
            b = np.clip(base, 1e-6, 1 - 1e-6)
            found.setdefault("base_rate_log_loss", []).append(
                float(metrics.log_losses(rows.y, b).mean())
            )
            found.setdefault("auc", []).append(float(metrics.auc(rows.y, path)))
        else:
            found.setdefault("rmse", []).append(float(np.sqrt(np.mean((path - rows.y) ** 2))))
            found.setdefault("mae", []).append(float(np.abs(path - rows.y).mean()))
            found.setdefault("baseline_rmse", []).append(
                float(np.sqrt(np.mean((base - rows.y) ** 2)))
            )
    spread = {
        name: {"mean": float(np.mean(v)), "sd": float(np.std(v, ddof=1)) if len(v) > 1 else None,
               "min": min(v), "max": max(v)}
        for name, v in found.items()
    }  # fmt: skip
    return {"paths": len(whole), **spread}
