"""What a file holds, symbol by symbol: span, bar length, gaps, first and last row as stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from alphaplus.loaders.instruments import Instrument
from alphaplus.loaders.tables import TABLES, instant

DAY = 86_400_000_000


@dataclass
class Series:
    """The rows of one symbol in one table (of bars: of one length)."""

    symbol: str
    kind: str
    timeframe: int | None  # microseconds; -1: a calendar month
    rows: int = 0
    first: int = 0
    last: int = 0
    first_row: dict[str, Any] = field(default_factory=dict)
    last_row: dict[str, Any] = field(default_factory=dict)
    off_grid: int = 0
    jumps: list[tuple[int, float]] = field(default_factory=list)  # close to open, like a split
    _edge: tuple[int, float] | None = None
    times: list[npt.NDArray[np.int64]] = field(default_factory=list)
    contract: str = ""

    def gaps(self) -> tuple[int, int]:
        """How many holes bars have, and bars missing in the longest."""
        if self.kind != "candles" or not self.timeframe or self.timeframe < 0 or self.rows < 2:
            return 0, 0
        ts = np.unique(np.concatenate(self.times))
        missing = np.diff(ts) // self.timeframe - 1
        return int((missing > 0).sum()), int(missing.max(initial=0))

    def look_for_splits(self, ts: Any, opens: Any, closes: Any) -> None:
        """Jumps from a close to the next open that are a whole ratio, as a split's is."""
        order = np.argsort(ts, kind="stable")
        ts, opens, closes = ts[order], opens[order], closes[order]
        before = np.concatenate([[np.nan if self._edge is None else self._edge[1]], closes[:-1]])
        if self._edge is not None and self._edge[0] > ts[0]:
            before[0] = np.nan  # a file that runs backwards
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = before / opens
            whole = np.where(ratio > 1, ratio, 1 / ratio)
            near = np.abs(whole - np.rint(whole)) < 0.03 * whole
        hits = np.flatnonzero(near & (whole > 1.9) & np.isfinite(whole))
        self.jumps += [(int(ts[i]), float(ratio[i])) for i in hits[: 5 - len(self.jumps)]]
        self._edge = (int(ts[-1]), float(closes[-1]))

    def splits(self) -> list[str]:
        """What these jumps could be, in words."""
        words = []
        for ts, ratio in self.jumps:
            many = f"{round(ratio)}:1" if ratio > 1 else f"1:{round(1 / ratio)}"
            words.append(
                f"{self.symbol} opens at {instant(ts):%Y-%m-%d %H:%M} at a ratio of {many} to the"
                " close before: if that is a split, say so in market.corporate_actions"
            )
        return words

    def length(self) -> str:
        """The bar length in words."""
        if self.timeframe is None:
            return ""
        if self.timeframe < 0:
            return "1M"
        seconds = self.timeframe / 1e6
        for unit, size in (("w", 604_800), ("d", 86_400), ("h", 3600), ("m", 60)):
            if seconds % size == 0:
                return f"{seconds / size:g}{unit}"
        return f"{seconds:g}s"

    def say(self) -> dict[str, Any]:
        """For market.loads.summary."""
        gaps, longest = self.gaps()
        out: dict[str, Any] = {
            "symbol": self.symbol,
            "table": TABLES[self.kind].name,
            "rows": self.rows,
            "first": instant(self.first).isoformat(),
            "last": instant(self.last).isoformat(),
        }
        if self.timeframe is not None:
            out |= {"timeframe": self.length(), "gaps": gaps, "longest_gap_bars": longest}
            if self.off_grid:
                out["off_grid"] = self.off_grid
            if self.jumps:
                out["possible_splits"] = self.splits()
        return out


class Survey:
    """Collects series while blocks go by."""

    def __init__(self) -> None:
        self.series: dict[tuple[str, str, int | None], Series] = {}

    def add(self, kind: str, symbol: str, instrument: Instrument, rows: dict[str, Any]) -> None:
        """Rows of one symbol, as the table takes them."""
        if kind != "candles":
            self._add(kind, symbol, instrument, rows, None, np.arange(len(rows["ts"])))
            return
        lengths = rows["timeframe"]
        for length in np.unique(lengths):
            self._add(
                kind, symbol, instrument, rows, int(length), np.flatnonzero(lengths == length)
            )

    def _add(
        self,
        kind: str,
        symbol: str,
        instrument: Instrument,
        rows: dict[str, Any],
        timeframe: int | None,
        where: npt.NDArray[np.int64],
    ) -> None:
        ts = rows["ts"][where]
        if not len(ts):
            return
        one = self.series.setdefault(
            (kind, symbol, timeframe),
            Series(symbol, kind, timeframe, contract=contract(instrument)),
        )
        low, high = int(where[np.argmin(ts)]), int(where[len(ts) - 1 - np.argmax(ts[::-1])])
        if not one.rows or rows["ts"][low] < one.first:
            one.first, one.first_row = int(rows["ts"][low]), _row(rows, low)
        if not one.rows or rows["ts"][high] >= one.last:
            one.last, one.last_row = int(rows["ts"][high]), _row(rows, high)
        one.rows += len(ts)
        if timeframe is not None:
            one.times.append(ts.copy())
            one.look_for_splits(ts, rows["open"][where], rows["close"][where])
            if 0 < timeframe <= DAY and DAY % timeframe == 0:
                one.off_grid += int((ts % timeframe != 0).sum())


def contract(i: Instrument) -> str:
    """What an instrument is, in a few words."""
    words = [i.series if i.series != "traded" else i.kind or "kind not known"]
    words.append(f"{i.base}/{i.quote or '?'}")
    if i.kind in ("perpetual", "future", "option"):
        words.append(i.margin or "margin not known")
        if i.contract_size is not None and (i.contract_size != 1 or i.margin != "linear"):
            words.append(f"contract {i.contract_size:g}")
    return " ".join(words)


def _row(rows: dict[str, Any], at: int) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in rows.items():
        if name in ("ts", "timeframe", "known_at", "received_at") or value is None:
            continue
        cell: Any = value[at] if not isinstance(value, str) else value
        if name == "side":
            cell = "buy" if value[at] > 0 else "sell"
        elif isinstance(cell, np.ndarray):
            cell = [float(x) for x in cell[:1]]
        out[name] = cell.item() if isinstance(cell, np.generic) else cell
    return out
