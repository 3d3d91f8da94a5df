"""Which regime it was: the simulator's own where it made the symbol, else the verdict."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from alphaplus.server.regime import bars as b
from alphaplus.server.regime import hindsight, verdict
from alphaplus.server.regime.states import BEAR, BULL, CRASH, HIGH, LOW, SIDEWAYS, Floats, Times

EPOCH = 946_684_800_000_000  # labels' times count from 2000, a regime's from 1970
HOUR = 3_600_000_000
# The simulator's words, in the order of market.simulation_truth.
_SIMULATED = {
    "bull": BULL,
    "bear": BEAR,
    "sideways": SIDEWAYS,
    "high_volatility": HIGH,
    "low_volatility": LOW,
    "crash": CRASH,
}


def values(plpy: Any, symbol: str, grid: Times, step: int, as_of: int) -> Floats:
    """The regime of the bars of ``step`` that close at ascending grid times, 0 to 5, NaN where it
    is not known by ``as_of``. Times count from 2000, as labels' do."""
    out = np.full(len(grid), np.nan)
    if not len(grid):
        return out
    times = grid + EPOCH
    truth = _simulated(plpy, symbol, times)
    if truth is not None:
        out[times <= as_of + EPOCH] = truth[times <= as_of + EPOCH]
        return out
    states = verdicts(plpy, symbol, step, times, as_of + EPOCH, exact=True)
    out[states >= 0] = states[states >= 0]
    return out


def verdicts(
    plpy: Any, symbol: str, width: int, times: Times, as_of: int, *, exact: bool = False
) -> Times:
    """The verdicts known by ``as_of`` of the bars that were the newest closed at ascending times
    (``exact``: that closed at these very times), 0 to 5; -1: none. Times count from 1970."""
    out = np.full(len(times), -1, dtype=np.int64)
    if not len(times):
        return out
    plan = plpy.prepare("select regime._thresholds_of($1, $2) as t", ["text", "int8"])
    limits = json.loads(plpy.execute(plan, [symbol, width])[0]["t"])
    start = b.block_of(int(times[0]) - (b.MAX_AGE + 1) * width, width)
    end = min(int(times[-1]) + int(limits["verdict_limit"] + 1) * width, as_of)
    found = b.read(plpy, [symbol], width, start - b.WARMUP * width, end - width + 1)[symbol]
    bars = found.as_known(as_of)
    if not len(bars.bucket):
        return out
    span = b.BLOCK * width
    pairs = [(bars, at) for at in range(start, int(bars.bucket[-1]) + 1, span)]
    made = [block for block in hindsight.blocks(pairs, limits) if block is not None]
    if not made:
        return out
    closes = np.concatenate([block.ts for block in made])
    states = np.concatenate([block.states for block in made])
    at = np.searchsorted(closes, times, "right") - 1
    there = np.maximum(at, 0)
    age = times - closes[there]
    good = (at >= 0) & (age <= (0 if exact else b.MAX_AGE * width)) & (age >= 0)
    good &= states[there] != verdict.OPEN
    out[good] = states[there[good]]
    return out


def _simulated(plpy: Any, symbol: str, times: Times) -> Floats | None:
    """The simulator's regime in the minute before each time; None where the symbol is another."""
    plan = plpy.prepare("select * from regime._simulated($1, $2, $3)", ["text", "int8", "int8"])
    minute = 60_000_000
    rows = plpy.execute(plan, [symbol, int(times[0]) - minute, int(times[-1])])
    if not len(rows):
        # A row without a regime says that the simulator made the symbol, at other times.
        return None
    states = {row["ts"]: float(_SIMULATED[row["regime"]]) for row in rows if row["regime"]}
    return np.array([states.get(t - minute, np.nan) for t in times.tolist()])
