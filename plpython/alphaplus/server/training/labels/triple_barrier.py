"""Which of two prices is reached first, if any is in time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import numpy as np
from alphaplus.server import interrupts
from alphaplus.server.market import revisions as w
from alphaplus.server.market.reader import MarketReader
from alphaplus.server.training.labels.label import CHUNK, WIDTHS, Label, Outcome, Targets, outcome
from alphaplus.server.training.labels.schema import Choice, LabelError, Number, Param
from alphaplus.server.types import MINUTE, Floats, Mask, Times

UP, DOWN, TIME = 1.0, -1.0, 0.0
FAR = 1 << 40


class Hits(NamedTuple):
    """Per grid time: which barrier was hit first (NaN: not known), when that bar ended, the log
    return up to there in basis points, and the two prices (NaN: no barrier)."""

    side: Floats
    ends: Times
    bps: Floats
    upper: Floats
    lower: Floats


class TripleBarrier(Label):
    """An upper and a lower price around the close before t, and a time: which comes first.

    A bar whose high reaches the upper and whose low the lower price at once is looked at by its
    minutes; where one minute does both, or a bar before the first hit is missing (``missing_bars``
    says otherwise), it is not known.
    Source: Lopez de Prado (2018), Advances in Financial Machine Learning, section 3.4.
    """

    kind = "triple_barrier"
    task = "classification"
    what = "Which is hit first: a price above, a price below, or the horizon."
    PARAMS: ClassVar[Mapping[str, Param]] = {
        "up_bps": Number(None, 0.01, 1e5, "the upper barrier, basis points above the close"),
        "down_bps": Number(None, 0.01, 9999, "the lower barrier, basis points below the close"),
        "up_atr": Number(None, 0.01, 1000, "the upper barrier in average true ranges"),
        "down_atr": Number(None, 0.01, 1000, "the lower barrier in average true ranges"),
        "atr_bars": Number(14, 1, 1000, "bars of the average true range, closed by t", whole=True),
        "atr_bar_minutes": Number(
            None, 1, 1440, "minutes of those bars: 1, 5, 15, 60, 240 or 1440; left out, the grid's",
            whole=True,
        ),
        "outcome": Choice(
            "up", ("up", "down", "side", "return"), "up or down: whether that barrier is hit first;"
            " side: whether it is the upper one, of times at which one is hit; return: the log"
            " return up to the first hit or the horizon, basis points",
        ),
        "missing_bars": Choice(
            "unknown", ("unknown", "quiet"), "a bar that is missing before the first hit: unknown:"
            " the label is not known; quiet: nothing was traded in it, so nothing was hit",
        ),
    }  # fmt: skip

    def consistent(self) -> None:
        """See :meth:`.Label.consistent`."""
        p = self.params
        for side in ("up", "down"):
            if p[f"{side}_bps"] is not None and p[f"{side}_atr"] is not None:
                raise LabelError(f"a triple barrier has {side}_bps or {side}_atr, not both")
        up = p["up_bps"] is not None or p["up_atr"] is not None
        down = p["down_bps"] is not None or p["down_atr"] is not None
        if not (up or down) or (not up and p["outcome"] == "up"):
            raise LabelError(
                "a triple barrier needs up_bps or up_atr, and for its other side down_bps or"
                " down_atr"
            )
        if p["outcome"] in ("down", "side") and not (down and (up or p["outcome"] == "down")):
            raise LabelError(f"an outcome {p['outcome']!r} needs that barrier: give its size")
        width = p["atr_bar_minutes"]
        if width is not None and int(width) * MINUTE not in WIDTHS:
            raise LabelError(
                "atr_bar_minutes of a label of kind triple_barrier is 1, 5, 15, 60, 240 or 1440;"
                f" not {width:g}"
            )

    @property
    def task_of(self) -> str:
        """See :meth:`.Label.task_of`."""
        return "regression" if self.params["outcome"] == "return" else "classification"

    def known(self, reader: MarketReader, grid: Times, step: int, as_of: int) -> Targets:
        """See :meth:`.Label.known`."""
        hits = self.hits(reader, grid, step, as_of)
        wanted = self.params["outcome"]
        if wanted == "return":
            return Targets(hits.bps, hits.ends)
        side = hits.side
        sought = (side == (DOWN if wanted == "down" else UP)).astype(np.float64)
        there = np.isfinite(side) & ((wanted != "side") | (side != TIME))
        return Targets(np.where(there, sought, np.nan), hits.ends)

    def hits(self, reader: MarketReader, grid: Times, step: int, as_of: int) -> Hits:
        """What was hit first, when, and at which return."""
        of = outcome(reader, self, grid, step, as_of, 1)
        entry = of.closes[np.maximum(of.position - 1, 0)]
        upper, lower = self._prices(reader, grid, step, entry)
        side = np.full(len(grid), np.nan)
        last = np.full(len(grid), of.ahead - 1)
        both = np.zeros(len(grid), dtype=bool)
        quiet = self.params["missing_bars"] == "quiet"
        wanted = np.isfinite(entry)
        for sort in ("up", "down"):
            if self.params[f"{sort}_bps"] is not None or self.params[f"{sort}_atr"] is not None:
                wanted &= np.isfinite(upper if sort == "up" else lower)
        there = np.flatnonzero(of.inside & wanted)
        for begin in range(0, len(there), CHUNK):
            part = there[begin : begin + CHUNK]
            first = of.position[part]
            high = w.sliding(of.bars["high"], first, of.ahead)
            low = w.sliding(of.bars["low"], first, of.ahead)
            up = _first(high >= upper[part, None])
            down = _first(low <= lower[part, None])
            hole = _first(~(np.isfinite(high) & np.isfinite(low)))
            hit = np.minimum(up, down)
            side[part] = np.where(up < down, UP, np.where(down < up, DOWN, TIME))
            both[part] = (up == down) & (hit < FAR)
            if not quiet:
                side[part[(hole <= hit) & (hole < FAR)]] = np.nan
            last[part] = np.minimum(hit, of.ahead - 1)
        both &= np.isfinite(side)
        ends = grid + (last + 1) * of.width
        final = _carried(of.closes)[np.clip(of.position + last, 0, len(of.closes) - 1)]
        if both.any():
            found = side, ends, final
            self._decide(reader, of, np.flatnonzero(both), (upper, lower), found, as_of)
        bps = 1e4 * np.log(final / entry)
        missing = ~np.isfinite(side)
        bps[missing] = np.nan
        ends[missing] = grid[missing] + self.horizon
        return Hits(side, ends, bps, upper, lower)

    def _prices(
        self, reader: MarketReader, grid: Times, step: int, entry: Floats
    ) -> tuple[Floats, Floats]:
        p = self.params
        upper, lower = np.full(len(grid), np.nan), np.full(len(grid), np.nan)
        if p["up_bps"] is not None:
            upper = entry * (1 + p["up_bps"] / 1e4)
        if p["down_bps"] is not None:
            lower = entry * (1 - p["down_bps"] / 1e4)
        if p["up_atr"] is not None or p["down_atr"] is not None:
            atr = self._atr(reader, grid, step)
            if p["up_atr"] is not None:
                upper = entry + p["up_atr"] * atr
            if p["down_atr"] is not None:
                lower = entry - p["down_atr"] * atr
        return upper, lower

    def _atr(self, reader: MarketReader, grid: Times, step: int) -> Floats:
        """Mean true range of the last bars closed by t, as known at t."""
        count, minutes = int(self.params["atr_bars"]), self.params["atr_bar_minutes"]
        width = step if minutes is None else int(minutes) * MINUTE
        closed = grid // width * width
        start = int(closed[0]) - (count + 1) * width
        series = reader.bars(width, start, int(closed[-1]) + width)
        out = np.full(len(grid), np.nan)
        for begin in range(0, len(grid), CHUNK):
            interrupts.process()
            seen = series.windows(
                closed[begin : begin + CHUNK], count + 1, ("high", "low", "close")
            )
            before, high, low = seen["close"][:, :-1], seen["high"][:, 1:], seen["low"][:, 1:]
            true = np.maximum(high, before) - np.minimum(low, before)
            out[begin : begin + CHUNK] = true.mean(axis=1)
        return out

    def _decide(
        self,
        reader: MarketReader,
        of: Outcome,
        rows: Times,
        prices: tuple[Floats, Floats],
        found: tuple[Floats, Times, Floats],
        as_of: int,
    ) -> None:
        """Which of both barriers came first within one bar, by its minutes."""
        side, ends, final = found
        side[rows] = np.nan
        if of.width == MINUTE:
            return
        opens = ends[rows] - of.width
        minutes = reader.bars(MINUTE, int(opens.min()), int(opens.max()) + of.width)
        seen = minutes.at(as_of)
        size = of.width // MINUTE
        quiet = self.params["missing_bars"] == "quiet"
        places = (opens - minutes.start) // MINUTE
        for row, at in zip(rows.tolist(), places.tolist(), strict=True):
            high, low = seen["high"][at : at + size], seen["low"][at : at + size]
            up = np.flatnonzero(high >= prices[0][row])
            down = np.flatnonzero(low <= prices[1][row])
            holes = np.flatnonzero(~np.isfinite(high))
            # Without its minutes, or with both in one of them, it is not known.
            if len(up) and len(down) and up[0] != down[0]:
                hit = min(up[0], down[0])
                if quiet or not len(holes) or holes[0] > hit:
                    side[row] = UP if up[0] < down[0] else DOWN
                    ends[row] = ends[row] - of.width + (hit + 1) * MINUTE
                    final[row] = seen["close"][at + hit]


def _carried(closes: Floats) -> Floats:
    """Each bar's close, of one that is missing the last before it."""
    place = np.where(np.isfinite(closes), np.arange(len(closes)), 0)
    carried: Floats = closes[np.maximum.accumulate(place)]
    return carried


def _first(found: Mask) -> Times:
    """(n, width) -> (n,) the first true place of each row, FAR where there is none."""
    place: Times = found.argmax(axis=1).astype(np.int64)
    place[~found[np.arange(len(found)), place]] = FAR
    return place
