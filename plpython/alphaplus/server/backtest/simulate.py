"""Trading a model's predictions on what was known: trades, costs, equity.

Times are int64 microseconds since 1970. A decision is made when a prediction is known and reads
nothing else but bars known by then; it fills at the first row that happened after the decision and
its latency, in the order in which rows became known.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
DAY = 86_400_000_000
MOST = 3.0  # sizing by volatility: most times the size


@dataclass(frozen=True)
class Rule:
    """A strategy's thresholds, sizes and costs."""

    enter_long: float
    exit_long: float
    enter_short: float
    exit_short: float  # NaN: never
    hold: int  # microseconds; 0: no limit
    sizing: str
    size: float
    target_volatility: float
    capital: float
    latency: int
    max_wait: int
    fee: float
    half_spread: float
    impact: float


@dataclass(frozen=True)
class Rows:
    """Rows that an order can fill at, by time: what a buyer pays and what a seller gets."""

    ts: Ints
    known: Ints
    buy: Floats
    sell: Floats

    @cached_property
    def mid(self) -> Floats:
        """The middle of what is paid and got."""
        return (self.buy + self.sell) / 2

    @cached_property
    def known_list(self) -> list[int]:
        """``known`` for a loop in Python."""
        found: list[int] = self.known.tolist()
        return found

    @cached_property
    def ts_list(self) -> list[int]:
        """``ts`` for a loop in Python."""
        found: list[int] = self.ts.tolist()
        return found


@dataclass(frozen=True)
class Bars:
    """Bars in the order in which they became known: close and volume (base units)."""

    usable: Ints
    close: Floats
    volume: Floats
    width: int


@dataclass(frozen=True)
class Symbol:
    """All that is read of one instrument."""

    known: Ints  # of the predictions, ascending
    value: Floats
    rows: Rows
    bars: Bars
    funding_ts: Ints
    funding_rate: Floats

    @cached_property
    def known_list(self) -> list[int]:
        """``known`` for a loop in Python."""
        found: list[int] = self.known.tolist()
        return found

    @cached_property
    def _fills(self) -> dict[int, Ints]:
        return {}

    def fills(self, latency: int) -> Ints:
        """:func:`first_fills` of an order on each prediction: the same for all rules of one."""
        found = self._fills.get(latency)
        if found is None:
            found = self._fills[latency] = first_fills(self.rows, self.known + latency)
        return found


@dataclass
class Trades:
    """Columns of trades of one instrument."""

    side: Floats
    prediction: Floats
    decided: Ints
    entry_row: Ints
    exit_decided: Ints
    exit_row: Ints
    reason: Ints  # 0 prediction, 1 held, 2 end
    quantity: Floats
    fees_in: Floats
    fees_out: Floats
    spread_in: Floats
    spread_out: Floats
    impact_in: Floats
    impact_out: Floats
    funding: Floats
    given_up: int


def first_fills(rows: Rows, times: Ints) -> Ints:
    """The row at which an order that can fill after each time does; len(rows) where none.

    Of the rows that happened after the time, the one that became known first.
    """
    n = len(rows.ts)
    if n == 0:
        return np.zeros(len(times), np.int64)
    best = np.empty(n + 1, np.int64)
    best[n] = n
    # From the end: the earliest known of the rows from here on; ties go to the earlier row.
    reverse = rows.known[::-1]
    lowest = np.minimum.accumulate(reverse)
    place = np.where(reverse <= lowest, np.arange(n), -1)
    best[:n] = (n - 1 - np.maximum.accumulate(place))[::-1]
    return best[np.searchsorted(rows.ts, times, side="right")]


def trailing(bars: Bars, times: Ints) -> tuple[Floats, Floats]:
    """Daily volatility (of log closes) and volume of the last day's bars known at each time."""
    n = len(bars.close)
    span = max(2, round(DAY / bars.width))
    if n < 2:
        return np.full(len(times), np.nan), np.full(len(times), np.nan)
    steps = np.concatenate([[0.0], np.diff(np.log(bars.close))])
    total = np.concatenate([[0.0], np.cumsum(steps**2)])
    volume = np.concatenate([[0.0], np.cumsum(bars.volume)])
    end = np.searchsorted(bars.usable, times, side="right")
    start = np.maximum(end - span, 0)
    count = end - start
    with np.errstate(invalid="ignore", divide="ignore"):
        sigma = np.sqrt(np.maximum((total[end] - total[start]) / count, 0) * span)
        traded = (volume[end] - volume[start]) * span / count
    few = count < 2
    return np.where(few, np.nan, sigma), np.where(few, np.nan, traded)


class _Next:
    """The next place at or after one where a flag is set; the number of flags: none."""

    def __init__(self, flags: NDArray[np.bool_]) -> None:
        self._places: list[int] = np.flatnonzero(flags).tolist()
        self._none = len(flags)

    def __getitem__(self, at: int) -> int:
        place = bisect_left(self._places, at)
        return self._places[place] if place < len(self._places) else self._none


def trade(symbol: Symbol, rule: Rule, end: int) -> Trades:
    """Walk through the predictions of one instrument; what is open at the end is closed there."""
    known, value, rows = symbol.known, symbol.value, symbol.rows
    n, last = len(known), len(rows.ts)
    fills = symbol.fills(rule.latency)
    safe = np.minimum(fills, max(last - 1, 0))
    can = (fills < last) if last else np.zeros(n, np.bool_)
    if last:
        can &= rows.ts[safe] <= known + rule.latency + rule.max_wait
        # What is filled after the end is not part of the back-test.
        can &= rows.known[safe] <= end
    with np.errstate(invalid="ignore"):
        wants_long = value >= rule.enter_long
        wants_short = value <= rule.enter_short
        leaves_long = value < rule.exit_long
        leaves_short = value > rule.exit_short
    wants = wants_long | wants_short
    enter = _Next(wants & can)
    leave = {1.0: _Next(leaves_long), -1.0: _Next(leaves_short)}
    asked = np.concatenate([[0], np.cumsum(wants & ~can)])
    columns: list[tuple[float, int, int, int, int, int]] = []
    given_up = 0
    at = 0
    times, row_known, row_ts = symbol.known_list, rows.known_list, rows.ts_list
    before = np.flatnonzero((rows.ts <= end) & (rows.known <= end))
    final = int(before[-1]) if len(before) else 0
    while at < n:
        i = enter[at]
        given_up += int(asked[min(i, n)] - asked[at])
        if i >= n:
            break
        side = 1.0 if wants_long[i] else -1.0
        entry = int(fills[i])
        # From when the position is known to be open, predictions may close it.
        j = leave[side][bisect_right(times, row_known[entry])]
        decided, reason = (times[j], 0) if j < n else (end, 2)
        if rule.hold and row_ts[entry] + rule.hold < decided:
            decided, reason = max(row_ts[entry] + rule.hold, row_known[entry]), 1
        leaving = end
        if decided < end:
            leaving = decided + rule.latency
            found = int(fills[j]) if reason == 0 else _fill(rows, leaving)
        else:
            found = last
        if found >= last or row_known[found] > end:
            found, decided, reason = max(final, entry), end, 2
        columns.append((side, i, entry, decided, found, reason))
        at = bisect_right(times, row_known[found])
        if reason == 2:
            break
    return priced(symbol, rule, columns, given_up)


def _fill(rows: Rows, time: int) -> int:
    """first_fills of one time, by looking on from there."""
    n = len(rows.ts)
    i = bisect_right(rows.ts_list, time)
    if i >= n:
        return n
    best = i
    # Rows that happened after the best was known cannot have become known before it.
    stop = bisect_right(rows.ts_list, rows.known_list[best])
    if stop > i + 1:
        best = i + int(np.argmin(rows.known[i:stop]))
    return best


def priced(
    symbol: Symbol,
    rule: Rule,
    columns: Sequence[tuple[float, int, int, int, int, int]],
    given_up: int,
) -> Trades:
    """Trades (side, prediction, entry row, exit decided, exit row, reason) with what they cost."""
    table = np.array(columns, np.float64).reshape(len(columns), 6)
    side = table[:, 0]
    i, entry, exit_row = (table[:, k].astype(np.int64) for k in (1, 2, 4))
    decided_out = np.array([c[3] for c in columns], np.int64)
    reason = table[:, 5].astype(np.int64)
    rows = symbol.rows
    decided = symbol.known[i]
    sigma, traded = trailing(symbol.bars, decided)
    sigma_out, traded_out = trailing(symbol.bars, decided_out)
    mid_in, mid_out = rows.mid[entry], rows.mid[exit_row]
    notional = np.full(len(side), rule.size * rule.capital)
    if rule.sizing == "confidence":
        notional = notional * np.clip(2 * np.abs(symbol.value[i] - 0.5), 0, 1)
    elif rule.sizing == "volatility":
        with np.errstate(divide="ignore", invalid="ignore"):
            times = np.minimum(rule.target_volatility / sigma, MOST)
        notional = notional * np.where(np.isfinite(times), times, 0)
    quantity = notional / mid_in
    paid_in = np.where(side > 0, rows.buy[entry] - mid_in, mid_in - rows.sell[entry])
    paid_out = np.where(side > 0, mid_out - rows.sell[exit_row], rows.buy[exit_row] - mid_out)
    value_in, value_out = quantity * mid_in, quantity * mid_out

    def moved(volatility: Floats, volume: Floats, value: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(quantity > 0, quantity / volume, 0.0)
            cost = rule.impact * volatility * np.sqrt(share) * value
        return np.where(np.isfinite(cost), cost, 0.0) if rule.impact else np.zeros(len(value))

    return Trades(
        side, symbol.value[i], decided, entry, decided_out, exit_row, reason, quantity,
        rule.fee * value_in, rule.fee * value_out,
        paid_in * quantity + rule.half_spread * value_in,
        paid_out * quantity + rule.half_spread * value_out,
        moved(sigma, traded, value_in), moved(sigma_out, traded_out, value_out),
        _funding(symbol, side, quantity, rows.ts[entry], rows.ts[exit_row]), given_up,
    )  # fmt: skip


def _funding(symbol: Symbol, side: Floats, quantity: Floats, start: Ints, stop: Ints) -> Floats:
    """What positions paid: rate times notional at the last known price, in (start, stop]."""
    times, rates = symbol.funding_ts, symbol.funding_rate
    if len(times) == 0 or len(symbol.rows.ts) == 0:
        return np.zeros(len(side))
    paid = np.concatenate([[0.0], np.cumsum(rates * marks(symbol.rows, times))])
    first = np.searchsorted(times, start, side="right")
    after = np.searchsorted(times, stop, side="right")
    total: Floats = side * quantity * (paid[after] - paid[first])
    return total


def price_at(rows: Rows, times: Ints) -> Floats:
    """The middle of the last row at or before each time; the first row's before there is one."""
    place = np.searchsorted(rows.ts, times, side="right") - 1
    return rows.mid[np.maximum(place, 0)]


def marks(rows: Rows, times: Ints) -> Floats:
    """The middle of the latest row known at each time; the first row's before there is one."""
    order = np.argsort(rows.known, kind="stable")
    latest = np.maximum.accumulate(order)
    place = np.searchsorted(rows.known[order], times, side="right") - 1
    found: Floats = rows.mid[np.where(place >= 0, latest[np.maximum(place, 0)], 0)]
    return found


@dataclass(frozen=True)
class Curve:
    """Equity at the ends of bars, gross position and turnover over the capital."""

    ts: Ints
    equity: Floats
    position: Floats
    turnover: Floats


def curve(
    symbols: Sequence[Symbol], trades: Sequence[Trades], rule: Rule, start: int, end: int, bar: int
) -> Curve:
    """Marks to market at the end of each bar; what costs money costs it when it happens."""
    first = start // bar * bar
    count = max(1, -(-(end - first) // bar))
    ends = first + bar * np.arange(1, count + 1, dtype=np.int64)
    equity = np.full(count, rule.capital)
    gross = np.zeros(count)
    turnover = np.zeros(count)
    for symbol, t in zip(symbols, trades, strict=True):
        rows = symbol.rows
        if len(t.side) == 0:
            continue
        into = np.searchsorted(ends, rows.ts[t.entry_row], side="left").clip(0, count - 1)
        out = np.searchsorted(ends, rows.ts[t.exit_row], side="left").clip(0, count - 1)
        mid_in, mid_out = rows.mid[t.entry_row], rows.mid[t.exit_row]
        cash = np.zeros(count)
        held = np.zeros(count)
        size = np.zeros(count)
        signed = t.side * t.quantity
        np.add.at(cash, into, -signed * mid_in - t.fees_in - t.spread_in - t.impact_in)
        np.add.at(cash, out, signed * mid_out - t.fees_out - t.spread_out - t.impact_out)
        np.add.at(held, into, signed)
        np.add.at(held, out, -signed)
        np.add.at(size, into, t.quantity)
        np.add.at(size, out, -t.quantity)
        np.add.at(turnover, into, t.quantity * mid_in)
        np.add.at(turnover, out, t.quantity * mid_out)
        _book_funding(symbol, t, ends, cash)
        price = price_at(rows, ends)
        # Closed positions leave nothing, not even the rest of a sum.
        open_ = np.cumsum(np.bincount(into, minlength=count) - np.bincount(out, minlength=count))
        held = np.where(open_ > 0, np.cumsum(held), 0.0)
        equity += np.cumsum(cash) + held * price
        gross += np.where(open_ > 0, np.cumsum(size), 0.0) * price
    return Curve(ends, equity, gross / rule.capital, turnover / rule.capital)


def _book_funding(symbol: Symbol, t: Trades, ends: Ints, cash: Floats) -> None:
    times = symbol.funding_ts
    if len(times) == 0:
        return
    start, stop = symbol.rows.ts[t.entry_row], symbol.rows.ts[t.exit_row]
    change = np.zeros(len(times) + 1)
    np.add.at(change, np.searchsorted(times, start, side="right"), t.side * t.quantity)
    np.add.at(change, np.searchsorted(times, stop, side="right"), -t.side * t.quantity)
    held = np.cumsum(change)[:-1]
    paid = held * symbol.funding_rate * marks(symbol.rows, times)
    inside = (times > ends[0] - (ends[1] - ends[0] if len(ends) > 1 else 0)) & (times <= ends[-1])
    np.add.at(
        cash,
        np.searchsorted(ends, times[inside], side="left").clip(0, len(ends) - 1),
        -paid[inside],
    )
