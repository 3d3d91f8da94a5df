"""The present champion and the new version, measured on the same held-out rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from alphaplus.trainer import metrics, spec
from alphaplus.trainer.artifacts import raw_scores
from alphaplus.trainer.data import Fold, Matrix, instant
from alphaplus.trainer.hand_in import Rival
from alphaplus.trainer.models import estimator
from alphaplus.trainer.models.base import Progress
from alphaplus.trainer.rows import Inputs, inputs, overlap
from alphaplus.trainer.walk_forward import MIN_ROWS, WalkForward, walk_forward
from numpy.typing import NDArray

MIN_EVENTS = 20


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
) -> tuple[dict[str, Any], Rival | None]:
    """Champion and challenger on the same held-out rows.

    A champion has seen the rows it was trained on, so it is measured as it is on the test rows that
    come after those (``method`` "unseen"). Where there are too few of them its recipe is fitted
    again on the same folds ("refitted"), unless it is the same recipe ("same_recipe").

    Returns:
        version_id, method, rows, values (the champion's metrics), challenger (the new version's on
        the same rows); and the champion's predictions where it made some.
    """
    task = job["task"]
    seed = int(settings["seed"])
    known: dict[str, Any] = {"version_id": champion["version_id"]}
    if list(champion["features"]) != list(job["features"]):
        return known | {"method": "none", "reason": "it has other features"}, None
    y = rows.y[found.rows]
    ours_at = _keys(rows, found.rows)
    last = instant(champion["train_to"])
    # The champion may read longer sequences, or single rows.
    length = int((champion["spec"].get("inputs") or {}).get("length") or 1)
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
        values = metrics.measure(task, y[i], theirs, found.base[i], chosen, None, seed)
        ours = metrics.measure(
            task, y[i], found.predicted[i], found.base[i], found.chosen[i], None, seed
        )
        words = {"method": "unseen", "rows": len(i), "values": values, "challenger": ours}
        return known | words, Rival(i, theirs, chosen)
    own = {"seed", "trained_rounds"}
    their_params = {k: v for k, v in (champion.get("params") or {}).items() if k not in own}
    plain = {key: value for key, value in measured.items() if key != "champion"}
    sample = estimator(recipe[0])(task, recipe[1], **settings)
    our_params = getattr(sample, "options", recipe[1])
    if champion["algorithm"] == recipe[0] and their_params == our_params:
        words = {"method": "same_recipe", "rows": len(y), "values": plain, "challenger": plain}
        return known | words, None
    theirs_sample = estimator(champion["algorithm"])(task, their_params, **settings)
    theirs_rows = inputs(matrix, theirs_sample.sequence_length, round(job["grid"] * 1e6))
    again = walk_forward(
        estimator(champion["algorithm"]), their_params, theirs_rows, folds, task,
        effect=overlap(job), progress=progress, name="champion", **settings,
    )  # fmt: skip
    _, i, at = np.intersect1d(ours_at, _keys(theirs_rows, again.rows), return_indices=True)
    if len(i) < len(y) // 2:
        reason = "its recipe does not cover the same rows"
        return known | {"method": "none", "reason": reason}, None
    values = metrics.measure(
        task, y[i], again.predicted[at], again.base[at], again.chosen[at], None, seed
    )
    ours = metrics.measure(
        task, y[i], found.predicted[i], found.base[i], found.chosen[i], None, seed
    )
    words = {"method": "refitted", "rows": len(i), "values": values, "challenger": ours}
    return known | words, Rival(i, again.predicted[at], again.chosen[at])


def _keys(rows: Inputs, at: NDArray[np.int64]) -> NDArray[np.int64]:
    """One number for each (time, symbol)."""
    symbols = int(rows.symbol.max(initial=0)) + 1
    found: NDArray[np.int64] = rows.ts[at] * symbols + rows.symbol[at]
    return found
