"""What the SQL functions of ensembles call: their arguments into :mod:`ensemble` and back."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from alphaplus.server.serving import ensemble

Numbers = Sequence[float | None]


def _setup(text: str) -> tuple[ensemble.Setup, list[str]]:
    """``ml._ensemble_setup``'s object."""
    given = json.loads(text)
    rows = given.get("regime_weights")
    return ensemble.Setup(
        members=tuple(given["members"]),
        regimes=tuple(given["regimes"]),
        weights=tuple(given["weights"]) if given.get("weights") else None,
        regime_weights=tuple(tuple(row) for row in rows) if rows else None,
        stacking=tuple(given["stacking"]) if given.get("stacking") else None,
        horizon=int(given["horizon"]),
        params=given.get("params") or {},
    ), list(given["methods"])


def _table(values: Numbers | None, width: int, height: int) -> list[list[float]]:
    flat = [math.nan if v is None else float(v) for v in values or ()]
    return [flat[i * width : (i + 1) * width] for i in range(height)]


def fold(
    plpy: Any,
    setup: str,
    kept: str | None,
    round_ts: Sequence[int] | None,
    round_known: Sequence[int] | None,
    round_x: Numbers | None,
    round_regimes: Numbers | None,
    outcome_ts: Sequence[int] | None,
    outcome_known: Sequence[int] | None,
    outcomes: Sequence[float] | None,
) -> str:
    """The state after rounds and outcomes that became known since the one kept."""
    found, names = _setup(setup)
    memory = ensemble.Memory(found, names, kept)
    times = round_ts or ()
    x = _table(round_x, len(found.members), len(times))
    regimes = _table(round_regimes, len(found.regimes), len(times))
    memory.replay(
        list(zip(times, round_known or (), x, regimes, strict=True)),
        list(zip(outcome_ts or (), outcome_known or (), outcomes or (), strict=True)),
        pause=lambda: plpy.execute("select"),
    )
    return memory.text()


def say(setup: str, state: str, x: Numbers, regimes: Numbers, method: str) -> dict[str, Any]:
    """What a method says of a round, its interval, its weights and those of the methods in auto."""
    found, names = _setup(setup)
    memory = ensemble.Memory(found, names, state)
    values = [math.nan if v is None else float(v) for v in x]
    answer = memory.predict(values, [0.0 if v is None else float(v) for v in regimes])
    all_methods = [*answer.methods, ensemble.AUTO]
    place = all_methods.index(method) if method in all_methods else -1
    if place < 0 or all(math.isnan(v) for v in values):
        blank = ("lower", "upper", "weights", "method_weights", "outcomes")
        return {"probability": None, "methods": list(answer.methods), **dict.fromkeys(blank)}
    p = float(answer.probability[0, place])
    lower, upper = memory.interval(p)
    return {
        "probability": p,
        "lower": lower,
        "upper": upper,
        "weights": answer.weights[0, place].tolist(),
        "methods": list(answer.methods),
        "method_weights": answer.method_weights[0].tolist(),
        "outcomes": memory.outcomes,
    }


def regrets(setup: str, state: str) -> list[tuple[str, str, float, float, float, float | None]]:
    """:meth:`ensemble.Memory.regrets`."""
    found, names = _setup(setup)
    return ensemble.Memory(found, names, state).regrets()


def fit(
    x: Numbers, regimes: Numbers, outcomes: Sequence[float], members: int, states: int
) -> list[float]:
    """The stacker's coefficients."""
    n = len(outcomes)
    table = np.array(_table(x, members, n)).reshape(n, members)
    known = np.array(_table(regimes, states, n)).reshape(n, states)
    theta: list[float] = ensemble.fit_stacking(
        table, np.nan_to_num(known), np.array(outcomes, dtype=float)
    ).tolist()
    return theta
