"""Verdicts of whole blocks, with the time at which each could be known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from alphaplus.server.regime import bars as b
from alphaplus.server.regime import nowcast, observe, rules, verdict
from alphaplus.server.regime.states import COUNT, Floats, Times


@dataclass(frozen=True)
class Block:
    """Verdicts of a block's bars. states: verdict.OPEN: not known yet; known: then b.NEVER."""

    start: int
    ts: Times
    known: Times
    states: Times


def costs(observations: Floats, thresholds: Mapping[str, float]) -> Floats:
    """What each state costs at each bar: minus the log of its membership under the rules."""
    p = rules.memberships(observations, thresholds)
    out: Floats = -np.log(np.maximum(p, thresholds["floor"]))
    return out


def blocks(
    found: Sequence[tuple[b.Bars, int]],
    thresholds: Mapping[str, float],
    as_of: int = b.NEVER,
    runs: Sequence[nowcast.Run] = (),
) -> list[Block | None]:
    """The blocks that begin at the given times, from bars as known at ``as_of``; None: no bar.
    ``runs``: of the nowcasts of the same blocks, whose observations need not be made again."""
    limit = int(thresholds["verdict_limit"])
    lanes = []
    for bars, start in found:
        low, high = np.searchsorted(
            bars.bucket,
            [start - b.WARMUP * bars.width, start + (b.BLOCK + limit) * bars.width],
        ).tolist()
        lanes.append(bars.final(low, high) if as_of == b.NEVER else bars.at(low, high, as_of))
    out: list[Block | None] = []
    for at in range(0, len(lanes), 256):
        part = lanes[at : at + 256]
        table, early = _costs([values for _, values in part], runs[at : at + 256], thresholds)
        count = np.array([len(values) for _, values in part], dtype=np.int64)
        states, known = verdict.run(table, thresholds["verdict_penalty"], count, limit)
        for i, (places, _) in enumerate(part):
            bars, start = found[at + i]
            n = len(places)
            out.append(_block(bars, start, places, states[:n, i], known[:n, i], early[:n, i]))
    return out


def _costs(
    lanes: Sequence[Floats], runs: Sequence[nowcast.Run], thresholds: Mapping[str, float]
) -> tuple[Floats, np.typing.NDArray[np.bool_]]:
    """Costs (bars, lanes, K) of lanes of bars, and where there is no observation yet; where a run
    has observed a lane's first bars, from there on."""
    if not runs:
        observations = observe.observe(b.stacked(lanes), observe.Carry.start(len(lanes)))
        return costs(observations, thresholds), ~np.isfinite(observations[..., 0])
    done = [len(run.shown) for run in runs]
    later = [values[n:] for values, n in zip(lanes, done, strict=True)]
    state = observe.Carry.of([run.observed for run in runs])
    rest = observe.observe(b.stacked(later), state)
    length = max(len(values) for values in lanes)
    table = np.full((length, len(lanes), COUNT), np.nan)
    early = np.ones((length, len(lanes)), dtype=bool)
    for i, (run, n) in enumerate(zip(runs, done, strict=True)):
        assert run.observations is not None
        m = len(later[i])
        for part, seen in ((slice(0, n), run.observations), (slice(n, n + m), rest[:m, i])):
            table[part, i] = costs(seen, thresholds)
            early[part, i] = ~np.isfinite(seen[:, 0])
    return table, early


def _block(
    bars: b.Bars,
    start: int,
    places: Times,
    states: Times,
    known: Times,
    early: np.typing.NDArray[np.bool_],
) -> Block | None:
    low, high = np.searchsorted(bars.bucket, [start, start + b.BLOCK * bars.width]).tolist()
    if low == high:
        return None
    verdicts = np.full(high - low, verdict.OPEN, dtype=np.int64)
    moment = np.full(high - low, b.NEVER)
    # A verdict is known once all bars up to the one that settled it stand as they stand.
    settled = np.maximum.accumulate(bars.settled[places])
    chosen = np.flatnonzero((places >= low) & (places < high) & (known != verdict.OPEN) & ~early)
    verdicts[places[chosen] - low] = states[chosen]
    moment[places[chosen] - low] = settled[known[chosen]]
    return Block(start, bars.bucket[low:high] + bars.width, moment, verdicts)
