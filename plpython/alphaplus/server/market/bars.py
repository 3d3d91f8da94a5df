"""Bars of one symbol and length: what was known of each when, in few statements.

Three ways, each giving the same numbers. :meth:`BarQueries.plain` is the quick one for the usual
case: one source, one revision of each bar, no gaps. :meth:`BarQueries.versions` reads every
revision of every bar. :class:`Bulk` reads many symbols with one statement.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from alphaplus.server import codec
from alphaplus.server.database import Database, micros
from alphaplus.server.market import revisions as w
from alphaplus.server.types import DAY, HOUR, MINUTE, NEVER, Floats, Times

CHANNELS = (
    "open", "high", "low", "close", "volume", "quote_volume", "buy_volume", "buy_quote_volume",
)  # fmt: skip
# How the revisions of a bar that hold together are merged.
MERGED = dict(
    zip(
        (*CHANNELS, "trade_count"),
        ("first", "max", "min", "last", "sum", "sum", "sum", "sum", "sum"),
        strict=True,
    )
)
LIVE = 5000  # bars up to which a plan that is kept beats one made for the stretch
# Gaps in a stretch up to which each is asked for by itself; more of them all together.
GAPS = 16

# Lengths of bars that are read in the plain case.
_PLAIN = (MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 4 * HOUR, DAY)
_LONGER = 8 * DAY  # so far back that lengths asked for together need one question
LOADED, MADE, TRADED = 0, 1, 2  # where bars come from, as market.candle_versions numbers it
_PLAIN_FIELDS = {LOADED: 10, MADE: 7, TRADED: 12}
_SPAN = ("text", "int8", "int8")


class BarQueries:
    """Reads bars of a symbol.

    Args:
        known_at: only what became known after it needs a time; all before counts as known. So bars
            made from trades are left alone where a better source was known by then. None: every
            revision is wanted.
        floor: the data are read as if they began at that time (for the audit of warm-up).
        bulk: bars of many symbols, this one among them, read together.
    """

    def __init__(
        self,
        db: Database,
        symbol: str,
        known_at: int | None,
        floor: int | None = None,
        bulk: Bulk | None = None,
    ) -> None:
        self.db, self.symbol, self.known_at = db, symbol, known_at
        self.floor, self.bulk = floor, bulk
        # Of which stretch it was asked whether bars longer than a minute are loaded; the answer.
        self._longer: tuple[int, int, bool] | None = None

    def plain(self, width: int, start: int, end: int, flows: bool) -> w.Series | None:
        """The bars that open in [start, end), by the quick way; None where that does not do.

        It does where they are of one source and one revision, none superseded, each known when it
        closed or by ``known_at``, and none is missing that another source could have.

        Args:
            flows: whether more than open, high, low, close and volume is wanted.
        """
        # A bar that has not closed by the end counts for nothing.
        size = (end - start) // width
        end = start + size * width
        if size <= 0 or start % width or width not in _PLAIN or (flows and width != MINUTE):
            return None
        if self.known_at is None or self.floor is not None or self.bulk is not None:
            return None
        since = self.known_at
        found = self._ask_plain(width, start, end)
        if not len(found):
            return None
        source = found[0]["source"]
        values = np.frombuffer(found[0]["rows"]).reshape(-1, _PLAIN_FIELDS[source])
        if source == TRADED and width > MINUTE:
            return _longer_of_trades(values, width, start, end)
        ts, known = np.ascontiguousarray(values[:, :2].T).view(np.int64)
        if (ts % width).any():
            return None
        if (ts[1:] <= ts[:-1]).any():  # several workers have read it, or there are revisions
            order = np.lexsort((known, ts))
            values, ts, known = values[order], ts[order], known[order]
        if (known > np.maximum(since, ts + width)).any() or (ts[1:] == ts[:-1]).any():
            # Late, or several revisions. Of trades that is all that there is to know.
            return _of_trades(values, ts, known, start, end) if source == TRADED else None
        names = CHANNELS if width == MINUTE else CHANNELS[:5]
        values = values[:, 2 : 2 + len(names)]
        if np.isnan(values[:, :5]).any():
            return None
        if len(ts) != size and source != TRADED and self._elsewhere(ts, width, start, end, source):
            return None
        if len(ts) == size:
            channels = np.ascontiguousarray(values.T)
        else:
            channels = np.full((len(names), size), np.nan)
            channels[:, (ts - start) // width] = values.T
        return w.Series.plain(start, width, dict(zip(names, channels, strict=True)))

    def _ask_plain(self, width: int, start: int, end: int) -> Any:
        values = [self.symbol, *micros(start, end)]
        if width == MINUTE:
            minutes = "feature._candles_1m_plain($1, ops._at($2), ops._at($3))"
            return self.db.execute(f"select b.* from {minutes} b", _SPAN, values)
        longer = self._longer
        if longer is None or longer[0] > start or longer[1] < end:
            begin = min(start, end - _LONGER)
            query = "select feature._longer_loaded($1, ops._at($2), ops._at($3)) as some"
            found = self.db.execute(query, _SPAN, [self.symbol, *micros(begin, end)])
            longer = self._longer = begin, end, found[0]["some"]
        plain = "feature._candles_plain($1, ops._length($5), ops._at($2), ops._at($3), $4)"
        types = (*_SPAN, "bool", "int8")
        return self.db.execute(f"select b.* from {plain} b", types, [*values, longer[2], width])

    def _elsewhere(self, ts: Times, width: int, start: int, end: int, source: int) -> bool:
        """Whether bars that are missing may be made of loaded minutes or hours, or of trades."""
        if width > (MINUTE if source == LOADED else HOUR):
            return True
        gaps = _gaps(ts, width, start, end)
        if len(gaps) > GAPS:
            gaps = [(gaps[0][0], gaps[-1][1])]
        quiet = "select feature._no_trades($1, ops._at($2), ops._at($3)) as quiet"
        return not all(
            self.db.execute(quiet, _SPAN, [self.symbol, *micros(*gap)])[0]["quiet"] for gap in gaps
        )

    def series(self, width: int, start: int, end: int) -> w.Series:
        """The bars that open in [start, end), every revision of each.

        Four-hour and daily bars that the symbol lacks (a venue with hourly candles only) are made
        of the hourly ones that were loaded; a few minutes of trades are not in their way, as bars
        from trades come last.
        """
        versions = self.versions(width, start, end)
        hours = None
        if width > HOUR and width % HOUR == 0:
            hours = self.versions(HOUR, start, end)
        if hours is not None and len(hours.bucket):
            bucket = hours.bucket // width * width
            here = (versions.usable <= versions.bucket + width) & (versions.expires == NEVER)
            here &= versions.priority < TRADED
            wanted = (hours.priority == 0) & ~np.isin(bucket, versions.bucket[here])
            usable = np.maximum(hours.usable, bucket + width)
            wanted &= usable < hours.expires
            versions = w.Versions(
                np.concatenate([versions.bucket, bucket[wanted]]),
                np.concatenate([versions.usable, usable[wanted]]),
                np.concatenate([versions.expires, hours.expires[wanted]]),
                {
                    name: np.concatenate([values, hours.values[name][wanted]])
                    for name, values in versions.values.items()
                },
                MERGED,
                np.concatenate([versions.first_ts, hours.first_ts[wanted]]),
                np.concatenate([versions.last_ts, hours.last_ts[wanted]]),
                np.concatenate(
                    [
                        np.where(versions.priority < TRADED, versions.priority, 20),
                        hours.priority[wanted] + 10,
                    ]
                ),
            )
        return w.Series(versions, start, end, width)

    def versions(self, width: int, start: int, end: int) -> w.Versions:
        """Every revision of the bars that open in [start, end)."""
        if self.floor is not None:
            start = max(start, min(self.floor, end))
        found = None if self.bulk is None else self.bulk.versions(self.symbol, width, start, end)
        if found is not None:
            return found
        function = "_bars_live" if end - start <= LIVE * width else "_bars"
        at = "ops._at($3), ops._at($4), ops._at($5)"
        query = f"select b.rows from feature.{function}($1, ops._length($2), {at}) b"
        since = None if self.known_at is None else micros(self.known_at)[0]
        values = [self.symbol, width, *micros(start, end), since]
        return unpacked(self.db.execute(query, ("text", *["int8"] * 4), values)[0]["rows"])


class Bulk:
    """Bars of one length of many symbols, read one symbol after the other as they are asked for.

    Only of symbols that have nothing but bars loaded at that length; for the others there is none.
    A statement for each symbol over years of chunks would be mostly planning. Valid for one call:
    what was fetched is not read again.
    """

    def __init__(self, db: Database, width: int, start: int, end: int, symbols: list[str]) -> None:
        self.width, self.start, self.end = width, start, end
        at = "ops._at($3), ops._at($4)"
        query = f"select b.* from feature._bars_of_many($1, ops._length($2), {at}) b"
        values = [symbols, width, *micros(start, end)]
        self._cursor = db.cursor(query, ("text[]", "int8", "int8", "int8"), values)
        self._asked = set(symbols)
        self._read: dict[str, Any] = {}
        self._newest: tuple[str | None, w.Versions | None] = None, None

    def versions(self, symbol: str, width: int, start: int, end: int) -> w.Versions | None:
        """The symbol's bars of a length in at least [start, end); None where they cannot be had
        here, or not any more."""
        if start < self.start or end > self.end:
            return None
        if symbol != self._newest[0]:
            while symbol in self._asked and symbol not in self._read:
                self._read |= {row["symbol"]: row for row in self._cursor.fetch(4)}
            self._asked.discard(symbol)
            row = self._read.pop(symbol, None)
            self._newest = (
                symbol,
                (_loaded(row["rows"], self.width) if row and row["bare"] else None),
            )
        bars = self._newest[1]
        # It has bars of that one length only.
        return bars if bars is None or width == self.width else unpacked(None)


def _of_trades(rows: Floats, ts: Times, usable: Times, start: int, end: int) -> w.Series:
    """One-minute bars made from trades, none superseded: each minute one version, and one more for
    each minute in which trades of it became known late."""
    values = dict(zip(CHANNELS, np.ascontiguousarray(rows[:, 2:10].T), strict=True))
    first, last = np.ascontiguousarray(rows[:, 10:].T).view(np.int64)
    never, source = np.full(len(ts), NEVER), np.full(len(ts), TRADED)
    versions = w.Versions(ts, usable, never, values, MERGED, first, last, source)
    return w.Series(versions, start, end, MINUTE)


def _longer_of_trades(rows: Floats, width: int, start: int, end: int) -> w.Series | None:
    """Bars longer than a minute from one-minute bars made from trades, as market.candle_versions
    puts them together; None where only the trades' ids would say which of two came first."""
    times = np.ascontiguousarray(rows[:, [0, 1, 10, 11]].T).view(np.int64)
    bar = times[0] // width * width
    usable = np.maximum(times[1], bar + width)
    order = np.lexsort((times[2], usable, bar))
    bar, usable, first, last = bar[order], usable[order], times[2][order], times[3][order]
    opens, high, low, close, volume = np.ascontiguousarray(rows[order, 2:7].T)
    # Those of one bar that became usable together make one version.
    new = np.append(True, (bar[1:] != bar[:-1]) | (usable[1:] != usable[:-1]))
    begin = np.flatnonzero(new)
    version = np.cumsum(new) - 1
    newest = np.maximum.reduceat(last, begin)
    ends = last == newest[version]
    if np.count_nonzero(ends) > len(begin) or (~new[1:] & (first[1:] == first[:-1])).any():
        return None
    # Volumes are added one by one, in the order of their times.
    place = np.arange(len(bar)) - begin[version]
    volumes = np.zeros((len(begin), place.max() + 1))
    volumes[version, place] = volume
    values = {
        "open": opens[begin],
        "high": np.maximum.reduceat(high, begin),
        "low": np.minimum.reduceat(low, begin),
        "close": close[ends],
        "volume": np.add.accumulate(volumes, axis=1)[:, -1],
    }
    never, source = np.full(len(begin), NEVER), np.full(len(begin), TRADED)
    versions = w.Versions(
        bar[begin], usable[begin], never, values, MERGED, first[begin], newest, source
    )
    return w.Series(versions, start, end, width)


def _gaps(ts: Times, width: int, start: int, end: int) -> list[tuple[int, int]]:
    """The stretches of [start, end) without a bar; ``ts``: when bars open, ascending."""
    stops = np.append(start, ts + width)
    opens = np.append(ts, end)
    found = np.flatnonzero(stops < opens)
    return list(zip(stops[found].tolist(), opens[found].tolist(), strict=True))


_TIMES = ("bucket", "usable", "expires", "first_ts", "last_ts", "priority")
_LAYOUT = codec.records((*((name, ">i8") for name in _TIMES), *((name, ">f8") for name in MERGED)))


def unpacked(rows: bytes | None) -> w.Versions:
    """Versions of bars from the records of ``feature._bars``."""
    found = np.frombuffer(rows or b"", dtype=_LAYOUT)

    def column(name: str, kind: npt.DTypeLike) -> Any:
        return found[name]["value"].astype(kind)

    return w.Versions(
        column("bucket", np.int64),
        column("usable", np.int64),
        column("expires", np.int64),
        {name: column(name, np.float64) for name in MERGED},
        MERGED,
        column("first_ts", np.int64),
        column("last_ts", np.int64),
        column("priority", np.int64),
    )


_LOADED_LAYOUT = np.dtype(
    [("ts", "<i8"), ("known_at", "<i8"), *((name, "<f8") for name in CHANNELS[:5])]
)


def _loaded(rows: bytes | None, width: int) -> w.Versions:
    """Versions of bars from the rows of ``feature._bars_of_many``: each as it was loaded."""
    found = np.frombuffer(rows or b"", dtype=_LOADED_LAYOUT)
    if (found["ts"][1:] <= found["ts"][:-1]).any():
        found = found[np.argsort(found["ts"])]
    count = len(found)
    ts = found["ts"].copy()
    # As market.usable_at: closed, and known, in whole minutes.
    closed = ((ts + width - MINUTE) // MINUTE + 1) * MINUTE
    return w.Versions(
        ts,
        np.maximum(closed, -(-found["known_at"] // MINUTE) * MINUTE),
        np.full(count, NEVER),
        {name: found[name].copy() for name in CHANNELS[:5]},
        MERGED,
        ts,
        ts,
        np.zeros(count, dtype=np.int64),
    )
