"""The market of one symbol as one call reads it: the only way from the tables to a feature."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from alphaplus.server import codec
from alphaplus.server.database import Database, micros
from alphaplus.server.market import bars as b
from alphaplus.server.market import events
from alphaplus.server.market import revisions as w
from alphaplus.server.types import MINUTE, NEVER, Floats, Mask, Times

BOOK = ("two_sided_count", "relative_spread_sum", "imbalance_sum", "mid_sum")
LEVELS = ("bid_prices", "bid_sizes", "ask_prices", "ask_sizes")
LIQUIDATIONS = ("long_notional", "short_notional", "event_count")
QUOTES = ("bid", "bid_size", "ask", "ask_size")
# Of a book's levels, numbers that are worked out once a book: channels of Inputs.book.
OfBook = Callable[[dict[str, Floats]], dict[str, Floats]]


@dataclass(frozen=True)
class Needs:
    """What a family reads before each grid time, in buckets of its grid (0: not at all).

    ``levels``: book levels a side. ``funding``, ``open_interest``: the greatest age that counts.
    ``quotes``: single best quotes of that many minutes.
    """

    bars: int = 0
    book: int = 0
    levels: int = 0
    liquidations: int = 0
    funding: int = 0
    open_interest: int = 0
    open_interest_before: int = 0
    quotes: int = 0

    @property
    def lookback(self) -> int:
        """Buckets before the grid time that can change a value."""
        return max(
            self.bars,
            self.book,
            self.liquidations,
            self.funding,
            self.open_interest + self.open_interest_before,
            self.quotes,
        )

    def alike(self, other: Needs) -> bool:
        """Whether one read can serve both: open interest before is read of one time only."""
        mine, its = self.open_interest_before, other.open_interest_before
        return mine == its or 0 in (mine, its)

    def and_also(self, *others: Needs) -> Needs:
        """What serves all of them."""
        each = (self, *others)
        return Needs(**{n.name: max(getattr(x, n.name) for x in each) for n in fields(Needs)})


@dataclass(frozen=True)
class Inputs:
    """Windows for n grid times: (n, width) per channel, book levels (n, width, levels), these of
    the last buckets only where the family says so."""

    grid: Times
    bars: dict[str, Floats] = field(default_factory=dict)
    book: dict[str, Floats] = field(default_factory=dict)
    liquidations: dict[str, Floats] = field(default_factory=dict)
    liquidations_covered: Mask = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    funding: Floats = field(default_factory=lambda: np.zeros(0))
    open_interest: Floats = field(default_factory=lambda: np.zeros((0, 2)))
    # Single quotes by time: bid, bid_size, ask, ask_size. At least those of the windows of all grid
    # times; look at no others.
    quote_ts: Times = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    quotes: dict[str, Floats] = field(default_factory=dict)
    # By row, times and quotes as they were known then, where that differs from how they stand.
    quotes_then: dict[int, tuple[Times, dict[str, Floats]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """What one family wants read.

    ``of_book``: channels of Inputs.book that are worked out of each book's levels once rather than
    in every window it is in. ``levels_of``: buckets for which the levels themselves are then
    needed; None: all.
    """

    needs: Needs
    grid: int
    family: str = ""
    of_book: OfBook | None = None
    levels_of: int | None = None


class MarketReader:
    """The market of one symbol for one call: whatever is asked of it sees the same market.

    Args:
        db: the boundary to SQL.
        symbol: canonical.
        as_of: nothing that happened at or after it is read, whatever is asked for; None: no bound.
        known_at: everything known by then counts as known, and of what became known later each
            revision is told with its time; None: every revision is told.
        floor: the data are read as if they began at that time (for the audit of warm-up).
        bulk: bars of many symbols, read together.
        keep: what is read is kept, for several families at one time.
    """

    def __init__(
        self,
        db: Database,
        symbol: str,
        as_of: int | None = None,
        known_at: int | None = None,
        *,
        floor: int | None = None,
        bulk: b.Bulk | None = None,
        keep: bool = False,
    ) -> None:
        self.db, self.symbol, self.as_of, self.known_at = db, symbol, as_of, known_at
        self.floor, self.keep = floor, keep
        self._bars = b.BarQueries(db, symbol, known_at, floor, bulk)
        self.events = events.EventQueries(db, symbol, floor, keep)
        # By length and end, from where on bars were read; None: not by the quick way.
        self._kept: dict[tuple[int, int], tuple[int, w.Series | None]] = {}
        # By grid, the requests that one read answers, and what it found.
        self._together: dict[int, tuple[Request, ...]] = {}
        self._windows: dict[int, Windows] = {}

    def at(self, grid: Times) -> MarketReader:
        """The market for ascending grid times: bounded by the last, as known from the first on."""
        if not len(grid):
            return self
        return MarketReader(
            self.db, self.symbol, int(grid[-1]), int(grid[0]), floor=self.floor,
            bulk=self._bars.bulk,
        )  # fmt: skip

    # Bars

    def bars(self, width: int, start: int, end: int, *, flows: bool = False) -> w.Series:
        """Bars of a length that open in [start, end), with what was known of each when.

        Args:
            flows: whether more than open, high, low, close and volume is asked for; without, the
                other channels may be missing.
        """
        end = self._bounded(end)
        plain = self._plain(width, start, end, flows)
        return self._bars.series(width, start, end) if plain is None else plain

    def _bounded(self, end: int) -> int:
        return end if self.as_of is None else min(end, self.as_of)

    def _plain(self, width: int, start: int, end: int, flows: bool) -> w.Series | None:
        if not self.keep or (flows and width != MINUTE):
            return self._bars.plain(width, start, end, flows)
        which = width, start + (end - start) // width * width
        if which in self._kept:
            begin, held = self._kept[which]
            if begin == start:
                return held
            if held is not None and begin < start and not len(held.odd.index):
                skip = (start - begin) // width
                return w.Series.plain(start, width, {n: v[skip:] for n, v in held.final.items()})
        found = self._bars.plain(width, start, end, flows)
        self._kept.setdefault(which, (start, found))
        return found

    def prefetch_bars(self, t: int, lengths: Sequence[tuple[int, int]]) -> None:
        """Read bars of some widths from some times on to t, where the quick way does."""
        for width, start in lengths:
            self._plain(width, start, self._bounded(t), False)

    # Windows of everything that a family can need

    def expect(self, requests: Sequence[Request]) -> None:
        """Say what several families will ask for at one time, so that one read does for all of one
        grid."""
        for request in requests:
            others = self._together.get(request.grid, ())
            if all(request.needs.alike(other.needs) for other in others):
                self._together[request.grid] = (*others, request)

    def windows(self, request: Request, times: Times) -> Windows:
        """What the request wants read for ascending times, the last of them included."""
        if len(times) != 1:
            return self.stretch(request, int(times[0]), int(times[-1]))
        t, grid = int(times[0]), request.grid
        together = self._together.get(grid, ())
        if request not in together:
            return Windows(self, (request,), t, t, live=True)
        if grid not in self._windows:
            self._windows[grid] = Windows(self, together, t, t, live=True)
        return self._windows[grid]

    def stretch(self, request: Request, first: int, last: int) -> Windows:
        """The same for any grid times from first to last."""
        return Windows(self, (request,), first, self._bounded(last), live=False)


class Windows:
    """What was read of a symbol for the grid times from first to last, for requests of one grid.

    ``live``: one time; each relation is then read by the function that plans for little.
    """

    def __init__(
        self,
        reader: MarketReader,
        requests: tuple[Request, ...],
        first: int,
        last: int,
        *,
        live: bool,
    ) -> None:
        self.needs = needs = requests[0].needs.and_also(*(r.needs for r in requests[1:]))
        self.grid = grid = requests[0].grid
        self.end = last
        of_book = {r.family: r.of_book for r in requests if r.of_book}
        plain = None
        if needs.bars:
            plain = reader._plain(grid, first - needs.bars * grid, self.end, True)
        if needs.quotes:
            tops = reader.events.tops(first - needs.quotes * grid, self.end)
            values = {name: getattr(tops, name) for name in QUOTES}
            self.quotes = w.Events(tops.ts, tops.usable, tops.expires, values)
        row = _Query(reader, needs, grid, (first, last), live, bars=plain is None).row()
        if needs.bars:
            begin = first - needs.bars * grid
            self.bars = plain or w.Series(b.unpacked(row["bars_rows"]), begin, self.end, grid)
        if needs.book:
            self._load_book(row, first, of_book)
        if needs.liquidations:
            self._load_liquidations(row, first)
        if needs.funding:
            self.funding = _steps(row, "fund", ("rate",))
        if needs.open_interest:
            self.open_interest = _steps(row, "oi", ("open_interest", "value"))

    def _load_book(self, row: Any, first: int, of_book: Mapping[str, OfBook]) -> None:
        bucket, stamps = codec.times(row["book_bucket"]), codec.times(row["book_last_ts"])
        channels = {name: codec.floats(row[f"book_{name}"]) for name in BOOK}
        channels |= {
            name: codec.arrays(row[f"book_{name}"], len(bucket), self.needs.levels)
            for name in LEVELS
        }
        made: dict[str, Floats] = {}
        self._of_book: dict[str, tuple[str, ...]] = {}
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            for family, make in of_book.items():
                found = make(channels)
                self._of_book[family] = tuple(found)
                made |= found
        self.book = w.Series(
            w.Versions(
                bucket,
                codec.times(row["book_usable"]),
                codec.times(row["book_expires"]),
                channels | made,
                dict.fromkeys(BOOK, "sum") | dict.fromkeys((*LEVELS, *made), "last"),
                stamps,
                stamps,
                np.zeros(len(bucket), dtype=np.int64),
            ),
            first - self.needs.book * self.grid,
            self.end,
            self.grid,
        )

    def _load_liquidations(self, row: Any, first: int) -> None:
        bucket = codec.times(row["liq_bucket"])
        self.liquidations = w.Series(
            w.Versions(
                bucket,
                codec.times(row["liq_usable"]),
                codec.times(row["liq_expires"]),
                {name: codec.floats(row[f"liq_{name}"]) for name in LIQUIDATIONS},
                dict.fromkeys(LIQUIDATIONS, "sum"),
                bucket,
                bucket,
                np.zeros(len(bucket), dtype=np.int64),
            ),
            first - self.needs.liquidations * self.grid,
            self.end,
            self.grid,
        )
        covered = codec.times(row["covered"])
        self.covered_from = int(covered[0]) if len(covered) else NEVER

    def inputs(self, request: Request, times: Times) -> Inputs:
        """Windows of one of the requests, for some of the grid times."""
        needs = request.needs
        parts: dict[str, Any] = {}
        if needs.bars:
            parts["bars"] = self.bars.windows(times, needs.bars, b.CHANNELS)
        if needs.book:
            names = (*BOOK, *self._of_book.get(request.family, ()))
            parts["book"] = self.book.windows(times, needs.book, names)
            levels = self.book.windows(times, request.levels_of or needs.book, LEVELS)
            parts["book"] |= {name: x[..., : needs.levels] for name, x in levels.items()}
        if needs.liquidations:
            parts["liquidations"] = self.liquidations.windows(
                times, needs.liquidations, LIQUIDATIONS
            )
            parts["liquidations_covered"] = times >= self.covered_from
        if needs.funding:
            parts["funding"] = self.funding.at(times, needs.funding * self.grid)["rate"]
        if needs.open_interest:
            age = needs.open_interest * self.grid
            now = self.open_interest.at(times, age)
            before = self._open_interest_before(times, age, needs.open_interest_before * self.grid)
            either = [
                np.where(np.isfinite(v["open_interest"]), v["open_interest"], v["value"])
                for v in (now, before)
            ]
            parts["open_interest"] = np.stack(either, axis=1)
        if needs.quotes:
            age = needs.quotes * self.grid
            if len(times) == 1:
                parts["quote_ts"], parts["quotes"] = self.quotes.known(int(times[0]), age)
            else:
                parts["quote_ts"], parts["quotes"] = self.quotes.settled()
                parts["quotes_then"] = {
                    row: self.quotes.known(int(times[row]), age)
                    for row in np.flatnonzero(self.quotes.unsettled(times, age)).tolist()
                }
        return Inputs(times, **parts)

    def _open_interest_before(self, times: Times, age: int, back: int) -> dict[str, Floats]:
        """Open interest as it stood ``back`` before t, as far as it was known by t.

        Nothing where no row came since: what it has changed by is not known then.
        """
        steps = self.open_interest
        moved = w.Steps(
            steps.ts + back,
            np.maximum(steps.usable, steps.ts + back),
            steps.expires,
            steps.values,
        )
        before = moved.rows(times, age)
        return moved.taken(np.where(before == steps.rows(times, age), -1, before))


class _Query:
    """One statement for everything that is needed: a round trip costs more than a row."""

    def __init__(
        self,
        reader: MarketReader,
        needs: Needs,
        grid: int,
        span: tuple[int, int],
        live: bool,
        *,
        bars: bool,
    ) -> None:
        self.reader, self.grid, (self.first, self.last) = reader, grid, span
        self.columns: list[str] = []
        self.tables: list[str] = []
        self.kinds: list[str] = ["text"]
        self.values: list[Any] = [reader.symbol]
        suffix = "_live" if live else ""
        names: tuple[str, ...]
        version = ("bucket", "usable", "expires")
        step = ("ts", "usable", "expires")
        if needs.bars and bars:
            width = self._argument(grid)
            since = self._time(self.first)
            call = f"$1, ops._length({width}), {self._span(needs.bars)}, {since}"
            self._add("bars", f"_bars{suffix}", ("rows",), call)
        if needs.book:
            names = (*version, "last_ts", *BOOK, "n", *LEVELS)
            self._add("book", f"_book{suffix}", names, f"$1, {self._span(needs.book)}")
        if needs.liquidations:
            call = f"$1, {self._span(needs.liquidations)}"
            self._add("liq", f"_liquidations{suffix}", (*version, *LIQUIDATIONS), call)
            cover = f"feature._liquidation_cover{suffix}($1, {self._time(self.last)})"
            self.columns.append(f"{cover} as covered")
        if needs.funding:
            call = f"$1, {self._span(needs.funding)}"
            self._add("fund", f"_funding{suffix}", (*step, "rate"), call)
        if needs.open_interest:
            back = needs.open_interest + needs.open_interest_before
            call = f"$1, {self._span(back)}"
            if live:
                call += f", {self._time(self.last - needs.open_interest_before * grid)}"
            names = (*step, "open_interest", "value")
            self._add("oi", f"_open_interest{suffix}", names, call)

    def _argument(self, value: int) -> str:
        self.kinds.append("int8")
        self.values.append(value)
        return f"${len(self.values)}"

    def _time(self, t: int) -> str:
        return f"ops._at({self._argument(micros(t)[0])})"

    def _span(self, buckets: int) -> str:
        opens = self.first - buckets * self.grid
        if self.reader.floor is not None:
            opens = max(opens, min(self.reader.floor, self.last))
        return f"{self._time(opens)}, {self._time(self.last)}"

    def _add(self, alias: str, function: str, names: tuple[str, ...], call: str) -> None:
        self.columns.extend(f"{alias}.{name} as {alias}_{name}" for name in names)
        self.tables.append(f"feature.{function}({call}) {alias}")

    def row(self) -> Any:
        """The statement's one row."""
        if not self.tables:
            return {}
        query = f"select {', '.join(self.columns)} from {', '.join(self.tables)}"
        return self.reader.db.execute(query, self.kinds, self.values)[0]


def _steps(row: Any, alias: str, names: tuple[str, ...]) -> w.Steps:
    return w.Steps(
        codec.times(row[f"{alias}_ts"]),
        codec.times(row[f"{alias}_usable"]),
        codec.times(row[f"{alias}_expires"]),
        {name: codec.floats(row[f"{alias}_{name}"]) for name in names},
    )
