"""Bars as known at each time, and the stretches of them that are classified.

Time is cut into blocks of :data:`BLOCK` bars, counted from 1970. A bar of a block is classified
from the bars since :data:`WARMUP` bars before its block: history, a single question and a training
set read the same stretch and run the same recursion over it. Bars that are missing are skipped.

The nowcast of a bar is made at its *moment*: when the bar had closed and was known. Each earlier
bar counts as it was known at that moment. Times are microseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from alphaplus.server.regime.states import Floats, Times

BLOCK = 720
WARMUP = 720
MAX_AGE = 5  # bars; an older last bar is no answer
NEVER = np.iinfo(np.int64).max
_EPOCH = 946_684_800_000_000  # PostgreSQL's binary times count from 2000
CHANNELS = ("high", "low", "close", "volume")
_TIMES = ("bucket", "usable", "expires", "first", "last", "priority")
_LAYOUT = np.dtype(
    [("count", ">i4")]
    + [
        part
        for name, kind in [*((n, ">i8") for n in _TIMES), *((n, ">f8") for n in CHANNELS)]
        for part in ((f"{name}_type", ">i4"), (f"{name}_size", ">i4"), (name, kind))
    ]
)


@dataclass(frozen=True)
class Bars:
    """Bars of one symbol, oldest first, as they stand and as they were.

    bucket: opening times. values: (n, CHANNELS) as they stand, NaN where a bar is gone. moment:
    when each was first known, not before its close. settled: since when each stands as it does.
    states: for bars that were otherwise for a while, index -> [(from, until, values)].
    """

    width: int
    bucket: Times
    values: Floats
    moment: Times
    settled: Times
    states: dict[int, list[tuple[int, int, Floats]]]

    def at(self, low: int, high: int, when: int) -> tuple[Times, Floats]:
        """Which bars of [low, high) were known at a time, and as what."""
        known = self.moment[low:high] <= when
        values = self.values[low:high].copy()
        for i in np.flatnonzero(known & (self.settled[low:high] > when)):
            values[i] = np.nan
            for begin, end, state in self.states.get(low + int(i), ()):
                if begin <= when < end:
                    values[i] = state
        keep = np.flatnonzero(known & np.isfinite(values[:, 2]))
        return keep + low, values[keep]

    def final(self, low: int, high: int) -> tuple[Times, Floats]:
        """The bars of [low, high) as they stand."""
        keep = np.flatnonzero(np.isfinite(self.values[low:high, 2]))
        return keep + low, self.values[low:high][keep]

    def as_known(self, when: int) -> Bars:
        """The bars as they were known at a time, as if that were all there ever was."""
        there = np.flatnonzero(self.moment <= when)
        values, settled = self.values[there], self.settled[there]
        states: dict[int, list[tuple[int, int, Floats]]] = {}
        for n in np.flatnonzero(settled > when).tolist():
            spans = [span for span in self.states[int(there[n])] if span[0] <= when]
            spans[-1] = (spans[-1][0], NEVER, spans[-1][2])
            settled[n], values[n] = spans[-1][0], spans[-1][2]
        for n, i in enumerate(there.tolist()):
            if i in self.states and len(self.states[i]) > 1:
                kept = [span for span in self.states[i] if span[0] <= when]
                if len(kept) > 1:
                    states[n] = [*kept[:-1], (kept[-1][0], NEVER, kept[-1][2])]
        return Bars(self.width, self.bucket[there], values, self.moment[there], settled, states)

    def changes(self, low: int, high: int) -> Times:
        """The times at which a bar of [low, high) changed, or came after a later one had come."""
        moment = self.moment[low:high]
        if not len(moment):
            return moment
        earliest_later = np.minimum.accumulate(moment[::-1])[::-1]
        late = moment > np.append(earliest_later[1:], NEVER)
        found = [moment[late]]
        for i, states in self.states.items():
            if low <= i < high:
                found.append(
                    np.array([end for _, end, _ in states if end != NEVER], dtype=np.int64)
                )
        return np.unique(np.concatenate(found))


def read(plpy: Any, symbols: Sequence[str], width: int, start: int, end: int) -> dict[str, Bars]:
    """Bars of a length that open in [start, end), of each symbol (of all, an empty one too)."""
    plan = plpy.prepare("select * from regime._bars($1, $2, $3, $4)", ["text[]", *["int8"] * 3])
    out = {symbol: settle(b"", width) for symbol in symbols}
    for row in plpy.execute(plan, [list(symbols), width, start, end]):
        out[row["symbol"]] = settle(row["rows"] or b"", width)
    return out


def settle(raw: bytes, width: int) -> Bars:
    """Bars from the versions that ``regime._bars`` gives, ordered by bucket."""
    rows = np.frombuffer(raw, dtype=_LAYOUT)
    times = {name: rows[name].astype(np.int64) for name in _TIMES}
    for name in ("bucket", "usable", "expires", "first", "last"):
        times[name] = np.where(times[name] == NEVER, NEVER, times[name] + _EPOCH)
    values = np.stack([rows[name].astype(np.float64) for name in CHANNELS], axis=1)
    return merge(width, times, values)


def merge(width: int, times: dict[str, Times], values: Floats) -> Bars:
    """The bars of versions ordered by bucket: see ``market.candle_versions``."""
    bucket = times["bucket"]
    first = (
        np.flatnonzero(np.concatenate([[True], np.diff(bucket) != 0])) if len(bucket) else bucket
    )
    count = np.diff(np.append(first, len(bucket)))
    closes = bucket[first] + width
    moment = np.maximum(times["usable"][first], closes)
    settled = moment.copy()
    final = values[first].copy()
    states: dict[int, list[tuple[int, int, Floats]]] = {}
    odd = (count > 1) | (times["expires"][first] != NEVER)
    for i in np.flatnonzero(odd).tolist():
        low, high = int(first[i]), int(first[i] + count[i])
        part = {name: x[low:high] for name, x in times.items()}
        begin = np.maximum(part["usable"], closes[i])
        cuts = np.unique(np.concatenate([begin, part["expires"]]))
        cuts = cuts[(cuts >= closes[i]) & (cuts != NEVER)].tolist()
        spans = []
        for start, stop in zip(cuts, [*cuts[1:], NEVER], strict=True):
            holds = np.flatnonzero((begin <= start) & (part["expires"] > start))
            spans.append((start, stop, _merged(part, values[low:high], holds)))
        moment[i], settled[i] = cuts[0], cuts[-1]
        final[i] = spans[-1][2]
        if len(spans) > 1:
            states[i] = spans
    return Bars(width, bucket[first], final, moment, settled, states)


def _merged(times: dict[str, Times], values: Floats, holds: Times) -> Floats:
    """One bar of the versions that hold together: those of the best source."""
    if not len(holds):
        return np.full(len(CHANNELS), np.nan)
    holds = holds[times["priority"][holds] == times["priority"][holds].min()]
    order = holds[np.lexsort((times["first"][holds], times["usable"][holds]))]
    part = values[order]
    total = 0.0
    for x in part[:, 3]:
        total += float(x)
    newest = int(np.argmax(times["last"][order]))
    return np.array([part[:, 0].max(), part[:, 1].min(), part[newest, 2], total])


def block_of(t: int, width: int) -> int:
    """The start of the block in which a bar that opens at t lies."""
    return t // (BLOCK * width) * BLOCK * width


def stacked(lanes: Sequence[Floats]) -> dict[str, Floats]:
    """Lanes of bars (n, CHANNELS) side by side, (bars, lanes) a channel, NaN after a lane's end."""
    length = max((len(lane) for lane in lanes), default=0)
    out = np.full((len(CHANNELS), length, len(lanes)), np.nan)
    for i, lane in enumerate(lanes):
        out[:, : len(lane), i] = lane.T
    return {name: out[k] for k, name in enumerate(CHANNELS)}
