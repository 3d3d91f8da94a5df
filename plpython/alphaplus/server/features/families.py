"""Feature families: declared once, computed for history and for the live edge by the same code.

To add one: write a module with a :class:`Family` (its features with formula, unit and source, what
it needs to read, and a pure function of :class:`Inputs`), and name the module in :data:`MODULES`.
``feature.vector``, ``feature.materialise``, the training sets and the reference page take it from
there. The function is given windows as they were known at each grid time (see
:mod:`alphaplus.server.market.revisions`); it must treat each row on its own.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from alphaplus.server.features import incremental
from alphaplus.server.market import events
from alphaplus.server.market import revisions as w

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]
# Reads bars of a length that open in [start, end), all in microseconds: read(length, start, end).
Reader = Callable[[int, int, int], w.Series]
# The run of a symbol that is kept for a calculation, see features.incremental: keep(which).
Keep = Callable[[Hashable], incremental.Run]

# family name -> module that holds it as FAMILY, or several as FAMILIES
MODULES: dict[str, str] = {
    "liquidation": "alphaplus.server.features.liquidation",
    "technical_1m": "alphaplus.server.features.technical",
    "technical_1h": "alphaplus.server.features.technical",
    "patterns_1m": "alphaplus.server.features.patterns",
    "factors_1d": "alphaplus.server.features.alpha158",
    "order_book": "alphaplus.server.features.order_book",
    "microstructure": "alphaplus.server.features.microstructure",
    "regime_5m": "alphaplus.server.regime.features",
    "regime_15m": "alphaplus.server.regime.features",
    "regime_1h": "alphaplus.server.regime.features",
}

CHUNK = 2048  # grid times computed at once
READ = 1440 * 14  # grid times read at once
SHORT = 5000  # buckets that are read without planning for them
HOLES = 16  # in bars, each of which is asked for by itself; more of them all together
READ_EVENTS = 1440  # where single quotes are read, at first
QUOTES = 200_000  # single quotes wished for at one read

_BARS = ("open", "high", "low", "close", "volume", "quote_volume", "buy_volume", "buy_quote_volume")
_BARS_HOW = dict(
    zip(
        (*_BARS, "trade_count"),
        ("first", "max", "min", "last", "sum", "sum", "sum", "sum", "sum"),
        strict=True,
    )
)
_BOOK = ("two_sided_count", "relative_spread_sum", "imbalance_sum", "mid_sum")
_QUOTES = ("bid", "bid_size", "ask", "ask_size")
_LEVELS = ("bid_prices", "bid_sizes", "ask_prices", "ask_sizes")


class Feature(NamedTuple):
    """One feature: its name, formula, unit and source (paper or definition)."""

    name: str
    formula: str
    unit: str
    source: str


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


@dataclass(frozen=True)
class Inputs:
    """Windows for n grid times: (n, width) per channel, book levels (n, width, levels), these of
    the last buckets only where the family says so."""

    grid: Times
    bars: dict[str, Floats] = field(default_factory=dict)
    book: dict[str, Floats] = field(default_factory=dict)
    liquidations: dict[str, Floats] = field(default_factory=dict)
    liquidations_covered: npt.NDArray[np.bool_] = field(
        default_factory=lambda: np.zeros(0, dtype=np.bool_)
    )
    funding: Floats = field(default_factory=lambda: np.zeros(0))
    open_interest: Floats = field(default_factory=lambda: np.zeros((0, 2)))
    # Single quotes by time: bid, bid_size, ask, ask_size. At least those of the windows of all grid
    # times; look at no others.
    quote_ts: Times = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    quotes: dict[str, Floats] = field(default_factory=dict)
    # Times and quotes of the rows that saw them otherwise than they stand.
    quotes_then: dict[int, tuple[Times, dict[str, Floats]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Family:
    """A set of features computed together.

    ``revision`` is raised whenever the code gives other values; it is part of the set's hash, so
    that models of an older code are not served vectors of a newer one.
    """

    name: str
    version: int
    revision: str
    description: str
    features: tuple[Feature, ...]
    needs: Needs
    # How it is computed is one of three: this from windows, or one of the two below.
    compute: Callable[[Inputs], Floats] | None = None
    grid: int = w.MINUTE
    # What is worked out of each book's levels once rather than in every window it is in: channels
    # of Inputs.book, of one number a bucket; and for how many buckets the levels are then needed.
    of_book: Callable[[dict[str, Floats]], dict[str, Floats]] | None = None
    levels_of: int | None = None
    # For indicators that remember: given a reader of bars instead of windows, for ascending times;
    # and for a single one where its runs are kept, if they are.
    series: Callable[[Reader, Times, Keep | None], Floats] | None = None
    # For what reads by itself, events or a user's query: (plpy, cache, symbol, ascending times).
    rows: Callable[[Any, dict[str, Any], str, Times], Floats] | None = None
    # Reads what one of the last two will ask for at one time: (plpy, cache, symbol, time).
    ahead: Callable[[Any, dict[str, Any], str, int], None] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The features' names in order."""
        return tuple(feature.name for feature in self.features)

    @property
    def sha256(self) -> bytes:
        """Hash of the definition: features, needs, grid and code revision."""
        # Needs that came later count only where there are any: older sets keep their hashes.
        needs = {k: v for k, v in vars(self.needs).items() if v or k != "quotes"}
        text = json.dumps([self.name, self.version, self.revision, self.features, needs, self.grid])
        return hashlib.sha256(text.encode()).digest()


def get(name: str) -> Family:
    """The family of a name.

    Raises:
        KeyError: there is none.
    """
    module = importlib.import_module(MODULES[name])
    if hasattr(module, "FAMILIES"):
        families: tuple[Family, ...] = module.FAMILIES
        return next(family for family in families if family.name == name)
    family: Family = module.FAMILY
    return family


def find(plpy: Any, cache: dict[str, Any], definition: str) -> Family:
    """The family of a name, or the user's set behind ``select:<set_id>``; kept in the cache.

    Raises (SQLSTATE AP214): ``name@version``, a version that an older release computed.
    """
    known: dict[str, Family] = cache.setdefault("alphaplus.families", {})
    if definition not in known:
        if definition.startswith("select:"):
            from alphaplus.server.sets import user

            known[definition] = user.family(plpy, definition)
        elif "@" in definition:
            name, version = definition.split("@")
            plpy.error(
                f"version {version} of feature set {name} is no longer computed",
                sqlstate="AP214",
                detail=f"This release computes version {get(name).version} of it.",
                hint="Vectors that were stored can still be read. Train models anew: call"
                " ml.retrain(model, symbol)",
            )
        else:
            known[definition] = get(definition)
    return known[definition]


def matrix(plpy: Any, cache: dict[str, Any], family: Family, symbol: str, grid: Times) -> Floats:
    """The features at ascending grid times, each as known at its time: (n, k)."""
    if family.rows is not None:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            values = family.rows(plpy, cache, symbol, grid)
        values[~np.isfinite(values)] = np.nan
        return values
    if family.series is not None:
        since = int(grid[0]) if len(grid) else None
        keep = keeper(cache, symbol) if len(grid) == 1 else None
        values = family.series(reader(plpy, cache, symbol, since, flows=False), grid, keep)
        infinite = np.isinf(values)
        if infinite.any():
            values[infinite] = np.nan
        return values
    compute = family.compute
    if compute is None:
        raise TypeError(f"feature family {family.name} does not say how it is computed")
    out = np.full((len(grid), len(family.features)), np.nan)
    at = 0
    reach = (READ_EVENTS if family.needs.quotes else READ) * family.grid
    while at < len(grid):
        stop = int(np.searchsorted(grid, grid[at] + reach))
        part = grid[at:stop]
        sources = _sources(plpy, cache, family, symbol, part)
        for begin in range(0, len(part), CHUNK):
            rows = part[begin : begin + CHUNK]
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                values = compute(sources.inputs(family, rows))
            values[~np.isfinite(values)] = np.nan
            out[at + begin : at + begin + len(rows)] = values
        at = stop
        if family.needs.quotes:
            # A read costs a few milliseconds at least: as much at once as memory has room for.
            count = max(len(sources.quotes.ts), 1)
            reach = min(max(reach * QUOTES // count, family.grid), 8 * reach, READ * family.grid)
    return out


def _sources(plpy: Any, cache: dict[str, Any], family: Family, symbol: str, grid: Times) -> Sources:
    """What a family needs of the grid times; where one call asks for several families, one read
    for all of them."""
    reads: Reads | None = cache.get("alphaplus.reads")
    first, last = int(grid[0]), int(grid[-1])
    if reads is not None and len(grid) == 1:
        others = [f for f in reads.families if f.compute and f.grid == family.grid]
        # Open interest before is read of one time only.
        before = (0, max(f.needs.open_interest_before for f in others))
        if family.needs.open_interest_before in before:
            if family.grid not in reads.sources:
                alike = tuple(f for f in others if f.needs.open_interest_before in before)
                reads.sources[family.grid] = Sources(plpy, cache, alike, symbol, first, last, True)
            return reads.sources[family.grid]
    return Sources(plpy, cache, (family,), symbol, first, last, len(grid) == 1)


def history(
    plpy: Any, cache: dict[str, Any], family: Family, symbol: str, start: int, end: int
) -> Iterator[tuple[Times, Floats]]:
    """Grid times in [start, end) with their features, a bounded number at a time."""
    times = grid(family, start, end)
    for begin in range(0, len(times), READ):
        part = times[begin : begin + READ]
        yield part, matrix(plpy, cache, family, symbol, part)


def grid(family: Family, start: int, end: int) -> Times:
    """The grid times of a family in [start, end)."""
    first = -(-start // family.grid) * family.grid
    return np.arange(first, end, family.grid, dtype=np.int64)


def reader(
    plpy: Any, cache: dict[str, Any], symbol: str, since: int | None = None, flows: bool = True
) -> Reader:
    """Reads a symbol's bars of any length, as :func:`_read_bars` does.

    ``since``: what was known before that time is not asked for, so that bars made from trades are
    left alone where a better source was known by then. ``flows``: whether more than open, high,
    low, close and volume is asked for; without, the other channels may be missing.
    """

    longer: list[tuple[int, bool]] = []

    def read(width: int, start: int, end: int) -> w.Series:
        if since is not None:
            plain = _plain_bars(plpy, cache, symbol, width, (start, end), since, flows, longer)
            if plain is not None:
                return plain
        return _read_bars(plpy, cache, symbol, width, (start, end), since)

    return read


def read_ahead(
    plpy: Any, cache: dict[str, Any], symbol: str, asked: list[tuple[Family, int]]
) -> None:
    """Read what families will ask for, each at its time, before the first of them computes.

    In turns the server's code and numpy's push each other out of the processor's caches.
    """
    for family, t in asked:
        if family.ahead is not None:
            family.ahead(plpy, cache, symbol, t)
        elif family.compute is not None:
            _sources(plpy, cache, family, symbol, np.array([t], dtype=np.int64))


def bars_ahead(
    plpy: Any, cache: dict[str, Any], symbol: str, t: int, stretches: list[tuple[int, int]]
) -> None:
    """Read bars of some lengths from some times on to t, where that takes no thought."""
    longer: list[tuple[int, bool]] = []
    for width, start in stretches:
        _plain_bars(plpy, cache, symbol, width, (start, t), t, False, longer)


def keeper(cache: dict[str, Any], symbol: str) -> Keep | None:
    """Where a symbol's runs of single times are kept; None in a backend that keeps none."""
    memory: incremental.Memory | None = cache.get("alphaplus.runs")
    return None if memory is None else lambda which: memory.run(symbol, which)


@dataclass
class Reads:
    """What one call has read of one symbol at one time, for ``families`` that ask for it again."""

    families: tuple[Family, ...]
    # By length, end and since when it was asked: from where on, and what, None where not plain.
    bars: dict[tuple[int, int, int], tuple[int, w.Series | None]] = field(default_factory=dict)
    sources: dict[int, Sources] = field(default_factory=dict)
    events: dict[str, tuple[int, int, Any]] = field(default_factory=dict)

    def order(self, family: Family) -> tuple[bool, int]:
        """Who reads bars furthest back reads first; who shares all that it reads, last."""
        return family.compute is not None, -family.needs.bars * family.grid


# Functions that read bars in the plain case, by the bars' length.
_PLAIN = {
    w.MINUTE: "_candles_1m_plain",
    5 * w.MINUTE: "_candles_5m_plain",
    15 * w.MINUTE: "_candles_15m_plain",
    60 * w.MINUTE: "_candles_1h_plain",
    240 * w.MINUTE: "_candles_4h_plain",
    1440 * w.MINUTE: "_candles_1d_plain",
}
_LONGER = 8 * 1440 * w.MINUTE  # so far back that lengths asked for together need one question
_LOADED, _MADE, _TRADED = 0, 1, 2  # where bars come from, as market.candle_versions numbers it
_PLAIN_FIELDS = {_LOADED: 10, _MADE: 7, _TRADED: 12}


def _plain_bars(
    plpy: Any,
    cache: dict[str, Any],
    symbol: str,
    width: int,
    span: tuple[int, int],
    since: int,
    flows: bool,
    longer: list[tuple[int, bool]],
) -> w.Series | None:
    """What :func:`_read_bars` finds, where that takes no thought: bars of one source and one
    version, none superseded, each known when it closed or by ``since``, and none missing that
    another source could have (here and there some may be missing everywhere). Else None.

    ``longer``: since when it was asked whether bars longer than a minute are loaded, and whether
    there are; empty until then.
    """
    start, end = span
    # A bar that has not closed by the end counts for nothing.
    size = (end - start) // width
    end = start + size * width
    if size <= 0 or start % width or width not in _PLAIN or (flows and width != w.MINUTE):
        return None
    if "alphaplus.floor" in cache or "alphaplus.bars" in cache:
        return None
    reads: Reads | None = cache.get("alphaplus.reads")
    if reads is None:
        return _asked_bars(plpy, cache, symbol, width, (start, end), since, longer)
    which = width, end, since
    if which in reads.bars:
        begin, held = reads.bars[which]
        if begin == start:
            return held
        if held is not None and begin < start and not len(held.odd.index):
            skip = (start - begin) // width
            return w.Series.plain(start, width, {n: v[skip:] for n, v in held.final.items()})
    found = _asked_bars(plpy, cache, symbol, width, (start, end), since, longer)
    if which not in reads.bars:
        reads.bars[which] = start, found
    return found


def _asked_bars(
    plpy: Any,
    cache: dict[str, Any],
    symbol: str,
    width: int,
    span: tuple[int, int],
    since: int,
    longer: list[tuple[int, bool]],
) -> w.Series | None:
    start, end = span
    size = (end - start) // width

    def ask(query: str, kinds: tuple[str, ...], *values: Any) -> Any:
        plans = cache.setdefault("alphaplus.plans", {})
        if query not in plans:
            plans[query] = plpy.prepare(query, ["text", *kinds])
        return plpy.execute(plans[query], [symbol, *values])

    times = ("float8", "float8")
    ends = start / w.SECOND + w.EPOCH, end / w.SECOND + w.EPOCH
    if width > w.MINUTE and (not longer or longer[-1][0] > start):
        begin = min(start, end - _LONGER)
        query = "select feature._longer_loaded($1, to_timestamp($2), to_timestamp($3)) as some"
        longer.append((begin, ask(query, times, begin / w.SECOND + w.EPOCH, ends[1])[0]["some"]))
    call = f"select b.* from feature.{_PLAIN[width]}($1, to_timestamp($2), to_timestamp($3)"
    if width == w.MINUTE:
        found = ask(f"{call}) b", times, *ends)
    else:
        found = ask(f"{call}, $4) b", (*times, "bool"), *ends, longer[-1][1])
    if not len(found):
        return None
    source = found[0]["source"]
    values = np.frombuffer(found[0]["rows"]).reshape(-1, _PLAIN_FIELDS[source])
    if source == _TRADED and width > w.MINUTE:
        return _longer_of_trades(values, width, start, end)
    ts, known = np.ascontiguousarray(values[:, :2].T).view(np.int64)
    if (ts % width).any():
        return None
    if (ts[1:] <= ts[:-1]).any():  # several workers have read a long stretch, or several versions
        order = np.lexsort((known, ts))
        values, ts, known = values[order], ts[order], known[order]
    if (known > np.maximum(since, ts + width)).any() or (ts[1:] == ts[:-1]).any():
        # Late, or several versions. Of trades that is all that there is to know.
        return _of_trades(values, ts, known, start, end) if source == _TRADED else None
    names = _BARS if width == w.MINUTE else _BARS[:5]
    values = values[:, 2 : 2 + len(names)]
    if np.isnan(values[:, :5]).any():
        return None
    if len(ts) != size and source != _TRADED:
        # What is missing may be made from loaded minutes, from loaded hours, from trades.
        if width > (w.MINUTE if source == _LOADED else 60 * w.MINUTE):
            return None
        holes = _holes(ts, width, start, end)
        if len(holes) > HOLES:
            holes = [(holes[0][0], holes[-1][1])]
        quiet = "select feature._no_trades($1, to_timestamp($2), to_timestamp($3)) as quiet"
        for hole in holes:
            if not ask(quiet, times, *(t / w.SECOND + w.EPOCH for t in hole))[0]["quiet"]:
                return None
    if len(ts) == size:
        channels = np.ascontiguousarray(values.T)
    else:
        channels = np.full((len(names), size), np.nan)
        channels[:, (ts - start) // width] = values.T
    return w.Series.plain(start, width, dict(zip(names, channels, strict=True)))


def _of_trades(rows: Floats, ts: Times, usable: Times, start: int, end: int) -> w.Series:
    """One-minute bars made from trades, none superseded: each minute one version, and one more for
    each minute in which trades of it became known late."""
    values = dict(zip(_BARS, np.ascontiguousarray(rows[:, 2:10].T), strict=True))
    first, last = np.ascontiguousarray(rows[:, 10:].T).view(np.int64)
    never, source = np.full(len(ts), w.NEVER), np.full(len(ts), _TRADED)
    versions = w.Versions(ts, usable, never, values, _BARS_HOW, first, last, source)
    return w.Series(versions, start, end, w.MINUTE)


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
    never, source = np.full(len(begin), w.NEVER), np.full(len(begin), _TRADED)
    versions = w.Versions(
        bar[begin], usable[begin], never, values, _BARS_HOW, first[begin], newest, source
    )
    return w.Series(versions, start, end, width)


def _holes(ts: Times, width: int, start: int, end: int) -> list[tuple[int, int]]:
    """The stretches of [start, end) without a bar, of the ascending openings of bars."""
    stops = np.append(start, ts + width)
    opens = np.append(ts, end)
    found = np.flatnonzero(stops < opens)
    return list(zip(stops[found].tolist(), opens[found].tolist(), strict=True))


def _read_bars(
    plpy: Any,
    cache: dict[str, Any],
    symbol: str,
    width: int,
    span: tuple[int, int],
    since: int | None,
) -> w.Series:
    """Bars of a length that open in [start, end), with what was known of each when.

    Four-hour and daily bars that the symbol lacks (a venue with hourly candles only) are made from
    the hourly ones that were loaded.
    """
    start, end = span
    versions = _bar_versions(plpy, cache, symbol, width, span, since)
    hour = 60 * w.MINUTE
    hours = None
    if width > hour and width % hour == 0:
        hours = _bar_versions(plpy, cache, symbol, hour, span, since)
    if hours is not None and len(hours.bucket):
        bucket = hours.bucket // width * width
        here = (versions.usable <= versions.bucket + width) & (versions.expires == w.NEVER)
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
            _BARS_HOW,
            np.concatenate([versions.first_ts, hours.first_ts[wanted]]),
            np.concatenate([versions.last_ts, hours.last_ts[wanted]]),
            np.concatenate([versions.priority, hours.priority[wanted] + 10]),
        )
    return w.Series(versions, start, end, width)


class Ahead:
    """Bars of one length of many symbols, read one symbol after the other as they are asked for.

    Of the symbols that have nothing but bars loaded at that length; of the others there is none.
    A query for each symbol over years of chunks would be mostly planning.
    """

    def __init__(
        self, plpy: Any, plans: dict[str, Any], width: int, start: int, end: int, symbols: list[str]
    ) -> None:
        self.width, self.start, self.end = width, start, end
        query = (
            "select b.* from feature._bars_of_many($1, make_interval(secs => $2),"
            " to_timestamp($3), to_timestamp($4)) b"
        )
        if query not in plans:
            plans[query] = plpy.prepare(query, ["text[]", "float8", "float8", "float8"])
        ends = [start / w.SECOND + w.EPOCH, end / w.SECOND + w.EPOCH]
        self._cursor = plpy.cursor(plans[query], [symbols, width / w.SECOND, *ends])
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
        return bars if bars is None or width == self.width else _unpacked(None)


def ahead(
    plpy: Any, cache: dict[str, Any], family: str, symbols: list[str], grid: Times
) -> dict[str, Any]:
    """The cache with bars to be read of these symbols, for a family of series at these times.

    It is to be used for a moment only and is no backend's: what is in it grows old.
    """
    found = get(family) if family in MODULES else None
    if found is None or found.series is None or found.grid <= w.MINUTE or not symbols:
        return cache
    start = int(grid[0]) - found.needs.lookback * found.grid
    plans = cache.setdefault("alphaplus.plans", {})
    bars = Ahead(plpy, plans, found.grid, start, int(grid[-1]), symbols)
    return {**cache, "alphaplus.bars": bars}


def _bar_versions(
    plpy: Any,
    cache: dict[str, Any],
    symbol: str,
    width: int,
    span: tuple[int, int],
    since: int | None,
) -> w.Versions:
    start, end = span
    # The audit of warm-up asks what is known when the data begin later.
    start = max(start, min(int(cache.get("alphaplus.floor", start)), end))
    ahead: Ahead | None = cache.get("alphaplus.bars")
    found = None if ahead is None else ahead.versions(symbol, width, start, end)
    if found is not None:
        return found
    # A plan for all values saves planning; for a long stretch it pays to plan for the stretch.
    function = "_bars_live" if end - start <= SHORT * width else "_bars"
    plans = cache.setdefault("alphaplus.plans", {})
    if function not in plans:
        plans[function] = plpy.prepare(
            f"select b.rows from feature.{function}($1, make_interval(secs => $2),"
            " to_timestamp($3), to_timestamp($4), to_timestamp($5)) b",
            ["text", "float8", "float8", "float8", "float8"],
        )
    moments = [None if t is None else t / w.SECOND + w.EPOCH for t in (start, end, since)]
    row = plpy.execute(plans[function], [symbol, width / w.SECOND, *moments])[0]
    return _unpacked(row["rows"])


def _bars_layout() -> npt.DTypeLike:
    """How ``record_send`` writes a row of eight-byte values."""
    head = [("type", ">i4"), ("size", ">i4")]
    times = ("bucket", "usable", "expires", "first_ts", "last_ts", "priority")
    columns = (*((name, ">i8") for name in times), *((name, ">f8") for name in _BARS_HOW))
    return np.dtype([("fields", ">i4"), *((n, [*head, ("value", kind)]) for n, kind in columns)])


_BARS_LAYOUT = _bars_layout()


def _unpacked(rows: bytes | None) -> w.Versions:
    """Versions of bars from the records of ``feature._bars``."""
    found = np.frombuffer(rows or b"", dtype=_BARS_LAYOUT)

    def column(name: str, kind: npt.DTypeLike) -> Any:
        return found[name]["value"].astype(kind)

    return w.Versions(
        column("bucket", np.int64),
        column("usable", np.int64),
        column("expires", np.int64),
        {name: column(name, np.float64) for name in _BARS_HOW},
        _BARS_HOW,
        column("first_ts", np.int64),
        column("last_ts", np.int64),
        column("priority", np.int64),
    )


_LOADED_LAYOUT = np.dtype(
    [("ts", "<i8"), ("known_at", "<i8"), *((name, "<f8") for name in _BARS[:5])]
)


def _loaded(rows: bytes | None, width: int) -> w.Versions:
    """Versions of bars from the rows of ``feature._bars_of_many``: each as it was loaded."""
    found = np.frombuffer(rows or b"", dtype=_LOADED_LAYOUT)
    if (found["ts"][1:] <= found["ts"][:-1]).any():
        found = found[np.argsort(found["ts"])]
    count = len(found)
    ts = found["ts"].copy()
    # As market.usable_at: closed, and known, in whole minutes.
    closed = ((ts + width - w.MINUTE) // w.MINUTE + 1) * w.MINUTE
    return w.Versions(
        ts,
        np.maximum(closed, -(-found["known_at"] // w.MINUTE) * w.MINUTE),
        np.full(count, w.NEVER),
        {name: found[name].copy() for name in _BARS[:5]},
        _BARS_HOW,
        ts,
        ts,
        np.zeros(count, dtype=np.int64),
    )


class Sources:
    """What was read of a symbol for the grid times between ``first`` and ``last``, for families of
    one grid (and that ask for open interest of one time before, if they do)."""

    def __init__(
        self,
        plpy: Any,
        cache: dict[str, Any],
        families: tuple[Family, ...],
        symbol: str,
        first: int,
        last: int,
        live: bool,
    ) -> None:
        self.needs = needs = Needs(
            **{n.name: max(getattr(f.needs, n.name) for f in families) for n in fields(Needs)}
        )
        self.grid = grid = families[0].grid
        self.channels = {f.name: f.of_book for f in families if f.of_book}
        self.end = last
        columns: list[str] = []
        tables: list[str] = []
        types: list[str] = ["text"]
        values: list[Any] = [symbol]

        def argument(kind: str, value: Any) -> str:
            types.append(kind)
            values.append(value)
            return f"${len(values)}"

        def span(buckets: int) -> str:
            opens = max(first - buckets * grid, min(int(cache.get("alphaplus.floor", first)), last))
            opens = first - buckets * grid if "alphaplus.floor" not in cache else opens
            begin = argument("float8", opens / w.SECOND + w.EPOCH)
            stop = argument("float8", last / w.SECOND + w.EPOCH)
            return f"to_timestamp({begin}), to_timestamp({stop})"

        def add(alias: str, function: str, names: tuple[str, ...], call: str) -> None:
            columns.extend(f"{alias}.{name} as {alias}_{name}" for name in names)
            tables.append(f"feature.{function}({call}) {alias}")

        suffix = "_live" if live else ""
        names: tuple[str, ...]
        version = ("bucket", "usable", "expires")
        begin = first - needs.bars * grid
        plain = None
        if needs.bars:
            plain = _plain_bars(plpy, cache, symbol, grid, (begin, last), first, True, [])
        if needs.bars and plain is None:
            width = argument("float8", grid / w.SECOND)
            since = argument("float8", first / w.SECOND + w.EPOCH)
            call = f"$1, make_interval(secs => {width}), {span(needs.bars)}, to_timestamp({since})"
            add("bars", f"_bars{suffix}", ("rows",), call)
        if needs.book:
            names = (*version, "last_ts", *_BOOK, "n", *_LEVELS)
            add("book", f"_book{suffix}", names, f"$1, {span(needs.book)}")
        if needs.liquidations:
            names = (*version, "long_notional", "short_notional", "event_count")
            add("liq", f"_liquidations{suffix}", names, f"$1, {span(needs.liquidations)}")
            stop = argument("float8", last / w.SECOND + w.EPOCH)
            cover = f"feature._liquidation_cover{suffix}($1, to_timestamp({stop}))"
            columns.append(f"{cover} as covered")
        step = ("ts", "usable", "expires")
        if needs.funding:
            add("fund", f"_funding{suffix}", (*step, "rate"), f"$1, {span(needs.funding)}")
        if needs.open_interest:
            back = needs.open_interest + needs.open_interest_before
            names = (*step, "open_interest", "value")
            call = f"$1, {span(back)}"
            if live:
                before = (last - needs.open_interest_before * grid) / w.SECOND + w.EPOCH
                call += f", to_timestamp({argument('float8', before)})"
            add("oi", f"_open_interest{suffix}", names, call)
        if needs.quotes:
            tops = events.tops(plpy, cache, symbol, first - needs.quotes * grid, last)
            values_ = {name: getattr(tops, name) for name in _QUOTES}
            self.quotes = w.Events(tops.ts, tops.usable, tops.expires, values_)
        row: Any = {}
        if tables:
            query = f"select {', '.join(columns)} from {', '.join(tables)}"
            plans = cache.setdefault("alphaplus.plans", {})
            plan = plans.get(query)
            if plan is None:
                plan = plans[query] = plpy.prepare(query, types)
            row = plpy.execute(plan, values)[0]
        self._load(row, first, plain)

    def _load(self, row: Any, first: int, plain: w.Series | None) -> None:
        needs, grid = self.needs, self.grid
        if needs.bars:
            begin = first - needs.bars * grid
            self.bars = plain or w.Series(_unpacked(row["bars_rows"]), begin, self.end, grid)
        if needs.book:
            bucket = w.times(row["book_bucket"])
            stamps = w.times(row["book_last_ts"])
            channels = {name: w.floats(row[f"book_{name}"]) for name in _BOOK}
            levels = needs.levels
            channels |= {
                name: w.arrays(row[f"book_{name}"], len(bucket), levels) for name in _LEVELS
            }
            of_book: dict[str, Floats] = {}
            self.of_book: dict[str, tuple[str, ...]] = {}
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                for name, made in self.channels.items():
                    found = made(channels)
                    self.of_book[name] = tuple(found)
                    of_book |= found
            self.book = w.Series(
                w.Versions(
                    bucket,
                    w.times(row["book_usable"]),
                    w.times(row["book_expires"]),
                    channels | of_book,
                    dict.fromkeys(_BOOK, "sum") | dict.fromkeys((*_LEVELS, *of_book), "last"),
                    stamps,
                    stamps,
                    np.zeros(len(bucket), dtype=np.int64),
                ),
                first - needs.book * grid,
                self.end,
                grid,
            )
        if needs.liquidations:
            bucket = w.times(row["liq_bucket"])
            names = ("long_notional", "short_notional", "event_count")
            self.liquidations = w.Series(
                w.Versions(
                    bucket,
                    w.times(row["liq_usable"]),
                    w.times(row["liq_expires"]),
                    {name: w.floats(row[f"liq_{name}"]) for name in names},
                    dict.fromkeys(names, "sum"),
                    bucket,
                    bucket,
                    np.zeros(len(bucket), dtype=np.int64),
                ),
                first - needs.liquidations * grid,
                self.end,
                grid,
            )
            covered = w.times(row["covered"])
            self.covered_from = int(covered[0]) if len(covered) else w.NEVER
        if needs.funding:
            self.funding = _steps(row, "fund", ("rate",))
        if needs.open_interest:
            self.open_interest = _steps(row, "oi", ("open_interest", "value"))

    def inputs(self, family: Family, grid: Times) -> Inputs:
        """Windows of one of the families for some of the grid times."""
        needs, width = family.needs, family.grid
        parts: dict[str, Any] = {}
        if needs.bars:
            parts["bars"] = self.bars.windows(grid, needs.bars, _BARS)
        if needs.book:
            names = (*_BOOK, *self.of_book.get(family.name, ()))
            parts["book"] = self.book.windows(grid, needs.book, names)
            levels = self.book.windows(grid, family.levels_of or needs.book, _LEVELS)
            parts["book"] |= {name: x[..., : needs.levels] for name, x in levels.items()}
        if needs.liquidations:
            names = ("long_notional", "short_notional", "event_count")
            parts["liquidations"] = self.liquidations.windows(grid, needs.liquidations, names)
            parts["liquidations_covered"] = grid >= self.covered_from
        if needs.funding:
            parts["funding"] = self.funding.at(grid, needs.funding * width)["rate"]
        if needs.open_interest:
            age = needs.open_interest * width
            now = self.open_interest.at(grid, age)
            before = self._open_interest_before(grid, age, needs.open_interest_before * width)
            either = [
                np.where(np.isfinite(v["open_interest"]), v["open_interest"], v["value"])
                for v in (now, before)
            ]
            parts["open_interest"] = np.stack(either, axis=1)
        if needs.quotes:
            age = needs.quotes * width
            if len(grid) == 1:
                parts["quote_ts"], parts["quotes"] = self.quotes.known(int(grid[0]), age)
            else:
                parts["quote_ts"], parts["quotes"] = self.quotes.settled()
                parts["quotes_then"] = {
                    row: self.quotes.known(int(grid[row]), age)
                    for row in np.flatnonzero(self.quotes.unsettled(grid, age)).tolist()
                }
        return Inputs(grid, **parts)

    def _open_interest_before(self, grid: Times, age: int, back: int) -> dict[str, Floats]:
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
        before = moved.rows(grid, age)
        return moved.taken(np.where(before == steps.rows(grid, age), -1, before))


def _steps(row: Any, alias: str, names: tuple[str, ...]) -> w.Steps:
    return w.Steps(
        w.times(row[f"{alias}_ts"]),
        w.times(row[f"{alias}_usable"]),
        w.times(row[f"{alias}_expires"]),
        {name: w.floats(row[f"{alias}_{name}"]) for name in names},
    )
