"""Runs carried on from bar to bar say what a run over all bars says, to the last bit."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from alphaplus.server.features import alpha158, incremental, patterns, series, technical
from alphaplus.server.features.family import Keep
from alphaplus.server.market import revisions as w

from tests.unit.features.test_technical import Market, minutes

Floats = npt.NDArray[np.float64]
PLAN = technical.Plan("1m", technical.NAMES)


def asked(market: Market, t: int, keep: Keep | None) -> Floats:
    """Indicators, patterns and factors at one time."""
    grid = np.array([t], dtype=np.int64)
    stretch = series.Stretch(w.MINUTE, alpha158.WARMUP, alpha158.BLOCK)
    of_factors = series.series_matrix(
        market.read, grid, stretch, alpha158.compute, len(alpha158.FACTORS), keep=keep
    )
    return np.concatenate(
        [
            technical.evaluate(market.read, grid, [PLAN], keep)[0],
            patterns.evaluate(market.read, grid, w.MINUTE, keep)[0],
            of_factors[0],
        ]
    )


def keeper(memory: incremental.Memory) -> Keep:
    def keep(which: Hashable) -> incremental.Run:
        return memory.run("symbol", which)

    return keep


def changed(market: Market, rows: Any, **channels: Any) -> Market:
    return Market(
        market.width,
        market.bucket[rows],
        {name: channels.get(name, values)[rows] for name, values in market.channels.items()},
    )


@pytest.mark.parametrize("kind", ["whole", "holes", "flat"])
def test_a_run_carried_on_is_a_run_over_all_bars(shared_data: Path, kind: str) -> None:
    market = minutes(shared_data, 1700)
    rng = np.random.default_rng(3)
    if kind == "holes":
        market = changed(market, rng.random(1700) > 0.05)
    elif kind == "flat":
        still = {name: np.full(1700, 5.0) for name in ("open", "high", "low", "close")}
        market = changed(market, slice(None), **still, volume=np.zeros(1700))
    keep = keeper(incremental.Memory())
    row = 0
    # From the first bar on, and across the ends of blocks; now and then again, ahead, or back.
    for step in [*[7] * 20, *[1] * 60, *[29] * 30, *rng.choice([0, 1, 1, 1, 2, 3, 9, -5], 300)]:
        row += int(step)
        t = int(market.bucket[0]) + row * w.MINUTE
        np.testing.assert_array_equal(
            asked(market, t, keep), asked(market, t, None), err_msg=str((row, step))
        )


def test_a_run_goes_on_only_from_the_bars_it_has_seen(shared_data: Path) -> None:
    market = minutes(shared_data, 1400)
    start = int(market.bucket[0])
    memory = incremental.Memory()
    keep = keeper(memory)
    for row in range(1000, 1006):
        asked(market, start + row * w.MINUTE, keep)
    for compute in (PLAN.compute, patterns.compute, alpha158.compute):
        assert memory.run("symbol", (w.MINUTE, compute)).open is not None
    volume = market.channels["volume"].copy()
    volume[600] += 1
    others = [
        changed(market, slice(None), volume=volume),  # corrected
        changed(market, np.arange(1400) != 700),  # deleted
        changed(market, slice(None), volume=np.full(1400, np.inf)),
        market,
    ]
    for other in others:
        for row in (1006, 1006, 1007, 1008, 1005):
            t = start + row * w.MINUTE
            np.testing.assert_array_equal(asked(other, t, keep), asked(other, t, None))


def test_runs_that_were_not_asked_for_are_forgotten() -> None:
    memory = incremental.Memory(limit=2)
    first, second = memory.run("a"), memory.run("b")
    assert memory.run("a") is first
    memory.run("c")
    assert memory.run("a") is first
    assert memory.run("b") is not second
