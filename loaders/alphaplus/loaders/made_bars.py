"""Bars of one minute, made from trades that do not say who was the aggressor.

``market.trades`` needs a side, and order flow without one would be made up. Price, volume and
number of trades are there all the same: a row of Kraken's trade archive (time, price, volume; no
side, no id) goes into the bar of its minute.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from alphaplus.loaders.description import Description
from alphaplus.loaders.formats import Columns, number
from alphaplus.loaders.instruments import Instrument
from alphaplus.loaders.stamps import moment

Ints = npt.NDArray[np.int64]
MINUTE = 60e6
NAMES = ["time", "price", "volume"]


def is_kraken(cells: list[str], d: Description) -> bool:
    """Does this first row begin Kraken's trade archive: time, price, volume?"""
    if len(cells) != 3 or d.said.columns:
        return False
    try:
        at, price, size = (float(cell) for cell in cells)
    except ValueError:
        return False
    if not (946_684_800 <= at < 4e9 and price > 0 and size > 0):
        return False
    return bool(re.fullmatch(r"[A-Z0-9.]{5,12}\..*", d.path.name))


class TradeBars:
    """Takes trades in the order of their times, and gives the bars of the minutes that are over.

    The newest minute waits for the next block; :meth:`end` closes it.
    """

    def __init__(self, d: Description, state: Any = None) -> None:
        self.context = d
        self.counters: dict[str, int] = {}
        self._rest: list[list[float]] = []  # rows of the newest minute: time, price, size, line
        self._over = False
        self._ready: list[list[float]] = []
        if state:
            self.counters, self._rest = state["counters"], state["rest"]
        # Asked before the first row, so that a file of nobody knows whose is refused.
        self.instrument: Instrument = d.instrument("kraken", "spot") if d.said.exchange or (
            d.hints.exchange
        ) else self._asked()  # fmt: skip
        d.note("unit", "base", "header", "Kraken's trade archive")
        d.note("timeframe", 60.0, "header", "bars of one minute are made of the trades")
        note = "trades without the aggressor's side: bars of one minute are made of them"
        d.notes.append(note)

    def _asked(self) -> Instrument:
        raise self.context.missing(
            "whose trades these are", "exchange",
            "rows of time, price and volume are the form of Kraken's trade archive",
        )  # fmt: skip

    def state(self) -> dict[str, Any]:
        """The rows of the minute that is not over."""
        return {"counters": self.counters, "rest": self._rest}

    def take(self, frame: pd.DataFrame, lines: Ints) -> dict[int, str]:
        """Rows in; returns, by row, why one is refused."""
        ts, price, size = moment(frame["time"]), number(frame["price"]), number(frame["volume"])
        refused: dict[int, str] = {}
        with np.errstate(invalid="ignore"):
            for mask, reason in (
                (~np.isfinite(ts), "unparsable time"),
                (ts < self.context.since, "implausible time"),
                (~np.isfinite(price), "unparsable price"),
                (price <= 0, "price not positive"),
                (~np.isfinite(size), "unparsable size"),
                (size <= 0, "size not positive"),
            ):
                for bad in np.flatnonzero(mask):
                    refused.setdefault(int(bad), reason)
        good = np.array([i for i in range(len(ts)) if i not in refused], dtype=np.int64)
        # A minute is over when the next one begins: what comes after that is late.
        minutes = ts[good] // MINUTE
        newest = self._rest[0][0] // MINUTE if self._rest else -np.inf
        before = np.maximum.accumulate(np.append(newest, minutes))[:-1] if len(good) else minutes
        for bad in good[minutes < before]:
            refused[int(bad)] = "trade after a later minute"
        keep = good[minutes >= before]
        rows = np.column_stack([ts[keep], price[keep], size[keep], lines[keep]]).tolist()
        self._rest += rows
        if rows:
            last = rows[-1][0] // MINUTE
            over = [row for row in self._rest if row[0] // MINUTE < last]
            self._ready += over
            self._rest = self._rest[len(over) :]
        return refused

    def end(self) -> None:
        """The newest minute is over too."""
        self._ready += self._rest
        self._rest = []

    def columns(self) -> Iterator[tuple[str, Columns, Ints]]:
        """The bars of the minutes that are over, and the lines of their first trades."""
        if not self._ready:
            return
        ts, price, size, lines = np.array(self._ready).T
        self._ready = []
        minute = ts // MINUTE * MINUTE
        first = np.flatnonzero(np.append(True, minute[1:] != minute[:-1]))
        last = np.append(first[1:], len(ts)) - 1
        count = (last - first + 1).astype(np.float64)
        what = "trades in bars of a minute"
        self.counters[what] = self.counters.get(what, 0) + len(ts)
        values: dict[str, Any] = {
            "open": price[first],
            "high": np.maximum.reduceat(price, first),
            "low": np.minimum.reduceat(price, first),
            "close": price[last],
            "volume": np.add.reduceat(size, first),
            "trade_count": count,
            "quote_volume": np.add.reduceat(price * size, first),
            "timeframe": np.full(len(first), 60.0),
        }
        yield (
            "candles",
            Columns(minute[first], values, self.instrument),
            lines[first].astype(np.int64),
        )

    def gaps(self) -> list[Any]:
        """None: the rows have no numbers."""
        return []
