"""Nowcasts of whole blocks and of single moments, by any classifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from alphaplus.server.regime import bars as b
from alphaplus.server.regime import filtering, observe
from alphaplus.server.regime.filtering import Dynamics
from alphaplus.server.regime.states import COUNT, Floats, Times

LANES = 512  # computed side by side


class Classifier(Protocol):
    """What tells the states apart: evidence of single bars, and how states follow each other."""

    dynamics: Dynamics

    def evidence(self, observations: Floats) -> Floats:
        """Log likelihoods (..., K) of observations, up to a constant per bar."""
        ...


@dataclass(frozen=True)
class Run:
    """What a lane of n bars gives: probabilities (n, K), the shown regime (n,) and for how many
    bars it has been shown; and the state after the last bar."""

    p: Floats
    shown: Times
    held: Times
    observed: observe.Carry
    filtered: filtering.Carry
    observations: Floats | None = None  # (n, observe.COUNT)


def run_lanes(lanes: Sequence[Floats], classifier: Classifier, keep: bool = False) -> list[Run]:
    """Classify lanes of bars (n, CHANNELS), each on its own; ``keep`` their observations."""
    out: list[Run] = []
    for at in range(0, len(lanes), LANES):
        part = lanes[at : at + LANES]
        seen = observe.Carry.start(len(part))
        state = filtering.Carry.start(classifier.dynamics, len(part))
        observations = observe.observe(b.stacked(part), seen)
        p, shown, held = filtering.run(
            classifier.evidence(observations), classifier.dynamics, state
        )
        for i, lane in enumerate(part):
            n = len(lane)
            out.append(
                Run(
                    p[:n, i],
                    shown[:n, i],
                    held[:n, i],
                    observe.Carry.unflat(seen.flat(i)),
                    filtering.Carry.unflat(state.flat(i)),
                    observations[:n, i] if keep else None,
                )
            )
    return out


@dataclass
class Block:
    """Nowcasts of a block's bars; see regime.blocks. shown: -1 where there are too few bars."""

    start: int
    ts: Times
    moment: Times
    shown: Times
    since: Times
    p: Floats
    changes: Times
    carry: Floats


def blocks(
    found: Sequence[tuple[b.Bars, int]], classifier: Classifier, kept: list[Run] | None = None
) -> list[Block | None]:
    """The blocks that begin at the given times of the given bars; None where a block has no bar.
    ``kept`` is given the run of each, with its observations, for :func:`hindsight.blocks`."""
    spans, lanes = [], []
    for bars, start in found:
        low, begin, high = np.searchsorted(
            bars.bucket,
            [start - b.WARMUP * bars.width, start, start + b.BLOCK * bars.width],
        ).tolist()
        spans.append((low, begin, high))
        lanes.append(bars.final(low, high))
    runs = run_lanes([values for _, values in lanes], classifier, kept is not None)
    if kept is not None:
        kept += runs
    out: list[Block | None] = []
    odd: list[tuple[int, int, Times]] = []
    odd_lanes: list[Floats] = []
    for n, ((bars, start), (low, begin, high), (places, _), run) in enumerate(
        zip(found, spans, lanes, runs, strict=True)
    ):
        closes = bars.bucket + bars.width
        moment = bars.moment[begin:high]
        rows = np.arange(len(moment))
        if not len(rows):
            out.append(None)
            continue
        index = begin + rows
        # Clean: at the bar's moment all bars up to it stood as they stand.
        settled = np.maximum.accumulate(bars.settled[low:high])
        clean = settled[index - low] <= bars.moment[index]
        clean &= np.isfinite(bars.values[index, 2])
        at = np.searchsorted(places, index, "right") - 1
        shown = np.full(len(rows), -1, dtype=np.int64)
        since = closes[index].copy()
        p = np.full((len(rows), COUNT), 1.0 / COUNT)
        good = np.flatnonzero(clean & (at >= 0))
        shown[good] = run.shown[at[good]]
        p[good] = run.p[at[good]]
        since[good] = closes[places[at[good] - np.maximum(run.held[at[good]] - 1, 0)]]
        for k in np.flatnonzero(~clean).tolist():
            there, values = bars.at(low, int(index[k]) + 1, int(bars.moment[index[k]]))
            if len(there):
                odd.append((n, k, there))
                odd_lanes.append(values)
        changes = bars.changes(low, high)
        carry = np.concatenate(
            [
                run.observed.flat(0),
                run.filtered.flat(0),
                [float(settled[-1] if len(settled) else 0)],
            ]
        )
        last = places[-1] if len(places) else index[-1]
        held = int(run.held[-1]) if len(places) else 1
        begun = closes[places[len(places) - max(held, 1)]] if len(places) else closes[last]
        carry = np.append(carry, [float(begun), float(closes[last])])
        out.append(Block(start, closes[index], bars.moment[index], shown, since, p, changes, carry))
    for (n, k, there), run in zip(odd, run_lanes(odd_lanes, classifier), strict=True):
        bars, block = found[n][0], out[n]
        assert block is not None
        block.shown[k], block.p[k] = run.shown[-1], run.p[-1]
        block.since[k] = bars.bucket[there[-max(int(run.held[-1]), 1)]] + bars.width
    return out


@dataclass(frozen=True)
class Answer:
    """The regime at a moment. bar: closing time of the last bar; shown: -1 if too few are known."""

    shown: int
    p: Floats
    since: int
    bar: int


def moment(bars: b.Bars, as_of: int, classifier: Classifier) -> Answer | None:
    """The regime as known at a time; None where no bar is known, or the last one is too old."""
    known = np.flatnonzero(bars.moment <= as_of)
    for newest in known[::-1].tolist():
        start = b.block_of(int(bars.bucket[newest]), bars.width)
        low = int(np.searchsorted(bars.bucket, start - b.WARMUP * bars.width))
        there, values = bars.at(low, newest + 1, as_of)
        if not len(there) or there[-1] != newest:
            continue  # taken back since
        close = int(bars.bucket[newest]) + bars.width
        if as_of - close > b.MAX_AGE * bars.width:
            return None
        run = run_lanes([values], classifier)[0]
        began = there[len(there) - max(int(run.held[-1]), 1)]
        return Answer(int(run.shown[-1]), run.p[-1], int(bars.bucket[began]) + bars.width, close)
    return None


def carried_on(carry: Floats, bars: b.Bars, as_of: int, classifier: Classifier) -> Answer | None:
    """The regime as known at a time from a block's carry and the bars after it; None where that
    does not tell: a bar came late, or there is none."""
    k = observe.CARRY
    seen = observe.Carry.unflat(carry[:k])
    state = filtering.Carry.unflat(carry[k : k + filtering.CARRY])
    settled, since, close = (int(x) for x in carry[k + filtering.CARRY :])
    if settled > as_of:
        return None
    there, values = bars.at(0, len(bars.bucket), as_of)
    shown, p = int(state.shown[0]), state.p[0]
    if len(there):
        if int(bars.settled[there].max()) > as_of:
            return None
        observations = observe.observe(b.stacked([values]), seen)
        ps, shows, held = filtering.run(
            classifier.evidence(observations), classifier.dynamics, state
        )
        shown, p, close = int(shows[-1, 0]), ps[-1, 0], int(bars.bucket[there[-1]]) + bars.width
        started = len(there) - int(held[-1, 0])
        if started >= 0:
            since = int(bars.bucket[there[max(started, 0)]]) + bars.width
    if as_of - close > b.MAX_AGE * bars.width:
        return None
    return Answer(shown, p, since, close)


# Gives, of lanes of bars (n, CHANNELS), what is asked of each of their bars: (n, columns) each.
Compute = Callable[[Sequence[Floats]], Sequence[Floats]]


def at_times(bars: b.Bars, times: Times, columns: int, compute: Compute) -> Floats:
    """What ``compute`` gives of the newest bar known at each ascending time, every bar as it was
    known then: (n, columns), NaN where no bar is known or the newest is too old."""
    out = np.full((len(times), columns), np.nan)
    if not len(bars.bucket) or not len(times):
        return out
    order = np.argsort(bars.moment, kind="stable")
    latest = np.maximum.accumulate(order)
    at = np.searchsorted(bars.moment[order], times, "right") - 1
    newest = np.where(at >= 0, latest[np.maximum(at, 0)], -1)
    closes = bars.bucket + bars.width
    fresh = (newest >= 0) & (times - closes[newest] <= b.MAX_AGE * bars.width)
    starts = bars.bucket // (b.BLOCK * bars.width) * b.BLOCK * bars.width
    lanes: list[Floats] = []
    plain: list[tuple[Times, Times]] = []  # rows of out, and of the lane
    odd: list[int] = []
    odd_lanes: list[Floats] = []
    for start in np.unique(starts[newest[fresh]]).tolist():
        rows = np.flatnonzero(fresh & (starts[newest] == start))
        low, high = np.searchsorted(
            bars.bucket, [start - b.WARMUP * bars.width, start + b.BLOCK * bars.width]
        ).tolist()
        places, values = bars.final(low, high)
        settled = np.maximum.accumulate(bars.settled[low:high])
        clean = settled[newest[rows] - low] <= times[rows]
        clean &= np.isfinite(bars.values[newest[rows], 2])
        chosen = rows[clean]
        plain.append((chosen, np.searchsorted(places, newest[chosen])))
        lanes.append(values)
        for row in rows[~clean].tolist():
            there, known = bars.at(low, int(newest[row]) + 1, int(times[row]))
            if len(there) and times[row] - closes[there[-1]] <= b.MAX_AGE * bars.width:
                odd.append(row)
                odd_lanes.append(known)
    for (rows, at_bar), found in zip(plain, compute(lanes), strict=True):
        out[rows] = found[at_bar]
    for row, found in zip(odd, compute(odd_lanes), strict=True):
        out[row] = found[-1]
    return out


def observations_of(lanes: Sequence[Floats]) -> list[Floats]:
    """A :data:`Compute`: the observations."""
    out: list[Floats] = []
    for at in range(0, len(lanes), LANES):
        part = lanes[at : at + LANES]
        found = observe.observe(b.stacked(part), observe.Carry.start(len(part)))
        out += [found[: len(lane), i] for i, lane in enumerate(part)]
    return out


def regimes_of(classifier: Classifier) -> Compute:
    """A :data:`Compute`: the probabilities, the regime shown (from 0; -1: too few bars) and for how
    many bars it has been shown."""

    def compute(lanes: Sequence[Floats]) -> list[Floats]:
        return [
            np.column_stack([run.p, run.shown, run.held]) for run in run_lanes(lanes, classifier)
        ]

    return compute
