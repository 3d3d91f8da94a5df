"""What happened after t: the targets of models, from what is known by an as-of time.

A label is declared once, with its horizon h. Its value at grid time ``t`` looks at [t, t + h) and
is given only where that interval had ended, and its bars were known, by ``as_of``. Thresholds are
the symbol's own trailing quantile over intervals that had ended by ``t``, as known at ``t``.

To add a kind: write a class that follows :class:`Label`, with its name as ``kind`` and its
parameters as ``PARAMS``, and insert rows of that kind into ml.labels.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from alphaplus.server import interrupts
from alphaplus.server.database import Database
from alphaplus.server.market import revisions as w
from alphaplus.server.market.reader import MarketReader, Needs, Request, Windows
from alphaplus.server.types import DAY, Floats, Mask, Times

CHUNK = 512


class LabelError(ValueError):
    """A label cannot be what it is declared to be; the message says why."""


class Param(NamedTuple):
    """A parameter of a kind of label: a number from ``low`` to ``high``, both included."""

    default: float
    low: float
    high: float
    words: str


@dataclass(frozen=True)
class Label(ABC):
    """A declared label: its horizon in microseconds, its parameters by name."""

    horizon: int
    params: Mapping[str, float]

    kind: ClassVar[str]
    PARAMS: ClassVar[Mapping[str, Param]] = {}

    @staticmethod
    def of(kind: str, horizon: int, params: str | None) -> Label:
        """From a row of ml.labels, its parameters as JSON.

        Raises:
            LabelError: an unknown kind or parameter, or a value out of its range.
        """
        chosen = KINDS.get(kind)
        if chosen is None:
            raise LabelError(f"unknown kind of label {kind!r}; known: {', '.join(sorted(KINDS))}")
        given: Any = json.loads(params or "{}")
        if not isinstance(given, dict):
            raise LabelError(f"the parameters of a label are a JSON object, not {given!r}")
        # A parameter of another kind is passed over: rows may be declared alike.
        known = {name for other in KINDS.values() for name in other.PARAMS}
        if unknown := sorted(set(given) - known):
            raise LabelError(f"unknown parameter {unknown[0]!r}; known: {', '.join(sorted(known))}")
        values = {}
        for name, param in chosen.PARAMS.items():
            value = given.get(name, param.default)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not param.low <= value <= param.high:
                raise LabelError(
                    f"{name} of a label of kind {kind} is {param.words}, from {param.low:g} to"
                    f" {param.high:g}; not {value!r}"
                )
            values[name] = float(value)
        return chosen(horizon, values)

    def values(self, db: Database, symbol: str, grid: Times, step: int, as_of: int) -> Floats:
        """The label at ascending grid times; NaN where it is not known by ``as_of``.

        Args:
            grid: (n,) microseconds.
            step: distance of the grid in microseconds; bars of that length are read.

        Returns:
            (n,) 0 or 1 for classes, numbers for regression.
        """
        if len(grid) == 0:
            return np.zeros(0)
        reader = MarketReader(db, symbol, as_of, int(grid[0]))
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.known(reader, grid, step, as_of)

    @abstractmethod
    def known(self, reader: MarketReader, grid: Times, step: int, as_of: int) -> Floats:
        """The same, of at least one time, from a reader that sees nothing from ``as_of`` on."""


class Outcome(NamedTuple):
    """Closes as known by as_of, and where in them the grid times' intervals lie.

    ``done``: the interval had ended by as_of, and there are bars up to its end. ``position``: the
    first bar of the interval; ``ahead``: bars in an interval.
    """

    series: w.Series
    closes: Floats
    done: Mask
    position: Times
    ahead: int


def _outcome(
    reader: MarketReader, label: Label, grid: Times, step: int, as_of: int, reach: int
) -> Outcome:
    """Read the bars of the intervals and of ``reach`` bars before the first."""
    ahead = -(-label.horizon // step)
    last = int(grid[-1]) + (ahead + 1) * step
    series = reader.bars(step, int(grid[0]) - (reach + 1) * step, last)
    closes = series.at(as_of)["close"]
    # Labels end where bars end: after that, nothing seen does not mean that nothing happened.
    known = np.flatnonzero(np.isfinite(closes))
    bars_end = series.start + (int(known[-1]) + 1) * step if len(known) else series.start
    done = (grid + label.horizon <= as_of) & (grid + label.horizon <= bars_end)
    return Outcome(series, closes, done, (grid - series.start) // step, ahead)


def _change(of: Outcome) -> Floats:
    """Log change over each interval, NaN where it is not known."""
    done = of.done & (of.position + of.ahead - 1 < len(of.closes))
    before = of.closes[np.maximum(of.position - 1, 0)]
    after = of.closes[np.minimum(of.position + of.ahead - 1, len(of.closes) - 1)]
    change: Floats = np.log(after / before)
    return np.where(done & np.isfinite(change), change, np.nan)


class Direction(Label):
    """Whether the close at the end of the interval is above the one before it."""

    kind = "direction"

    def known(self, reader: MarketReader, grid: Times, step: int, as_of: int) -> Floats:
        """See :meth:`Label.known`."""
        change = _change(_outcome(reader, self, grid, step, as_of, 1))
        return np.where(np.isfinite(change), (change > 0).astype(np.float64), np.nan)


class Return(Label):
    """Log return over the interval, in basis points."""

    kind = "return"

    def known(self, reader: MarketReader, grid: Times, step: int, as_of: int) -> Floats:
        """See :meth:`Label.known`."""
        return 1e4 * _change(_outcome(reader, self, grid, step, as_of, 1))


_TRAILING = {
    "quantile": Param(0.9, 0.0, 1.0, "a share"),
    "lookback_days": Param(3.0, 1 / 1440, 400.0, "days"),
}


def _lookback(label: Label) -> int:
    return round(label.params["lookback_days"] * DAY)


class Volatility(Label):
    """Whether the realised variance of the interval is above the symbol's own trailing quantile."""

    kind = "volatility"
    PARAMS: ClassVar[Mapping[str, Param]] = _TRAILING

    def known(self, reader: MarketReader, grid: Times, step: int, as_of: int) -> Floats:
        """See :meth:`Label.known`."""
        back = max(_lookback(self) // step, 1)
        of = _outcome(reader, self, grid, step, as_of, back)
        done = of.done & (of.position + of.ahead - 1 < len(of.closes))
        squares = np.diff(np.log(of.closes), prepend=np.nan) ** 2
        total = np.append(0.0, np.cumsum(np.nan_to_num(squares)))
        holes = np.append(0, np.cumsum(~np.isfinite(squares)))
        stop = np.minimum(of.position + of.ahead, len(of.closes))
        future = total[stop] - total[of.position]
        whole = holes[stop] == holes[of.position]
        limit = np.full(len(grid), np.nan)
        limit[done] = self._limit(of.series, grid[done], of.ahead, back)
        ok = done & whole & np.isfinite(limit)
        out = np.full(len(grid), np.nan)
        out[ok] = future[ok] > limit[ok]
        return out

    def _limit(self, series: w.Series, grid: Times, ahead: int, back: int) -> Floats:
        """The trailing quantile of realised variances of the blocks of [t - lookback, t)."""
        out = np.full(len(grid), np.nan)
        for begin in range(0, len(grid), CHUNK):
            interrupts.process()
            part = grid[begin : begin + CHUNK]
            close = series.windows(part, back + 1, ("close",))["close"]
            squares = np.diff(np.log(close), axis=1) ** 2
            sums = _blocks(squares, ahead).sum(axis=2)
            whole = np.isfinite(sums)
            # Gaps leave blocks out; four fifths of them must be there.
            enough = whole.sum(axis=1) >= 0.8 * sums.shape[1]
            limit = np.full(len(part), np.nan)
            if enough.any():
                limit[enough] = np.nanquantile(sums[enough], self.params["quantile"], axis=1)
            out[begin : begin + CHUNK] = limit
        return out


class LiquidationVolume(Label):
    """Notional liquidated in the interval, in quote currency."""

    kind = "liquidation_volume"

    def known(self, reader: MarketReader, grid: Times, step: int, as_of: int) -> Floats:
        """See :meth:`Label.known`."""
        of, windows, future = _liquidated(reader, self, grid, step, as_of, 1)
        done = of.done & (grid >= windows.covered_from)
        return np.where(done, future, np.nan)


class Liquidation(Label):
    """Whether the notional liquidated is above ``floor`` and the symbol's trailing quantile."""

    kind = "liquidation"
    PARAMS: ClassVar[Mapping[str, Param]] = {
        **_TRAILING,
        "floor": Param(0.0, 0.0, 1e18, "a notional in quote currency"),
    }

    def known(self, reader: MarketReader, grid: Times, step: int, as_of: int) -> Floats:
        """See :meth:`Label.known`."""
        back = max(_lookback(self) // step, 1)
        of, windows, future = _liquidated(reader, self, grid, step, as_of, back)
        done = of.done & (grid >= windows.covered_from)
        limit = np.full(len(grid), np.nan)
        limit[done] = self._limit(windows, grid[done], of.ahead, back)
        limit = np.maximum(limit, self.params["floor"])
        ok = done & np.isfinite(limit)
        out = np.full(len(grid), np.nan)
        out[ok] = future[ok] > limit[ok]
        return out

    def _limit(self, windows: Windows, grid: Times, ahead: int, back: int) -> Floats:
        """The trailing quantile of h-sums over the blocks of [t - lookback, t), as known at t."""
        out = np.full(len(grid), np.nan)
        for begin in range(0, len(grid), CHUNK):
            interrupts.process()
            part = grid[begin : begin + CHUNK]
            seen = windows.liquidations.windows(part, back, ("long_notional", "short_notional"))
            total = np.nan_to_num(seen["long_notional"]) + np.nan_to_num(seen["short_notional"])
            sums = _blocks(total, ahead).sum(axis=2)
            out[begin : begin + CHUNK] = np.quantile(sums, self.params["quantile"], axis=1)
        # The whole lookback must have been covered.
        out[grid < windows.covered_from + _lookback(self)] = np.nan
        return out


def _liquidated(
    reader: MarketReader, label: Label, grid: Times, step: int, as_of: int, reach: int
) -> tuple[Outcome, Windows, Floats]:
    """Notional liquidated in [t, t + h), as known by as_of, and what it was read from."""
    of = _outcome(reader, label, grid, step, as_of, reach)
    request = Request(Needs(liquidations=reach), step)
    windows = reader.stretch(request, int(grid[0]), int(grid[-1]) + (of.ahead + 1) * step)
    seen = windows.liquidations.at(as_of)
    total = np.nan_to_num(seen["long_notional"]) + np.nan_to_num(seen["short_notional"])
    summed = np.append(0.0, np.cumsum(total))
    position = np.clip((grid - windows.liquidations.start) // step, 0, len(total))
    stop = np.minimum(position + of.ahead, len(total))
    # A running total leaves rounding dust where nothing was liquidated.
    events = np.append(0, np.cumsum(total > 0))
    future = np.where(events[stop] > events[position], summed[stop] - summed[position], 0.0)
    return of, windows, future


def _blocks(values: Floats, ahead: int) -> Floats:
    """(n, width) cut from its end into blocks of ``ahead``: (n, blocks, ahead), newest last."""
    count = values.shape[1] // ahead
    return values[:, values.shape[1] - count * ahead :].reshape(len(values), count, ahead)


class _Book(Label):
    """A mean over the snapshots of the last ``step`` of the interval."""

    def mean(self, seen: dict[str, Floats]) -> Floats:
        """The mean of each bucket's snapshots."""
        raise NotImplementedError

    def known(self, reader: MarketReader, grid: Times, step: int, as_of: int) -> Floats:
        """See :meth:`Label.known`."""
        request = Request(Needs(book=1, levels=1), step)
        book = reader.stretch(request, int(grid[0]), int(grid[-1]) + self.horizon + step).book
        mean = self.mean(book.at(as_of))
        then = (grid + self.horizon - book.start) // step - 1
        done = (grid + self.horizon <= as_of) & (then >= 0) & (then < len(mean))
        out = np.full(len(grid), np.nan)
        out[done] = mean[then[done]]
        return self.of_now(out, mean, (grid - book.start) // step - 1)

    def of_now(self, then: Floats, mean: Floats, now: Times) -> Floats:
        """The label from the mean at the interval's end; ``now``: the bucket just before t."""
        del mean, now
        return then


class Spread(_Book):
    """Relative bid-ask spread, in basis points."""

    kind = "spread"

    def mean(self, seen: dict[str, Floats]) -> Floats:
        """See :meth:`_Book.mean`."""
        return 1e4 * seen["relative_spread_sum"] / seen["two_sided_count"]


class Imbalance(_Book):
    """Top-level size imbalance, (bid - ask) / (bid + ask)."""

    kind = "imbalance"

    def mean(self, seen: dict[str, Floats]) -> Floats:
        """See :meth:`_Book.mean`."""
        return seen["imbalance_sum"] / seen["two_sided_count"]


class Mid(_Book):
    """Log change of the mid price since the bucket before t, in basis points."""

    kind = "mid"

    def mean(self, seen: dict[str, Floats]) -> Floats:
        """See :meth:`_Book.mean`."""
        return seen["mid_sum"] / seen["two_sided_count"]

    def of_now(self, then: Floats, mean: Floats, now: Times) -> Floats:
        """See :meth:`_Book.of_now`."""
        there = np.isfinite(then) & (now >= 0) & (now < len(mean))
        out = np.full(len(then), np.nan)
        out[there] = 1e4 * np.log(then[there] / mean[now[there]])
        return out


class Regime(Label):
    """The market's regime, 0 to 5 in the order of regime.states: see :mod:`..regime.truth`."""

    kind = "regime"
    PARAMS: ClassVar[Mapping[str, Param]] = {
        "bar_seconds": Param(3600.0, 60.0, 86400.0, "the length of the bars in seconds"),
    }

    def known(self, reader: MarketReader, grid: Times, step: int, as_of: int) -> Floats:
        """See :meth:`Label.known`."""
        from alphaplus.server.regime import truth

        return truth.values(reader.db.plpy, reader.symbol, grid, step, as_of)


def _kinds(of: type[Label]) -> dict[str, type[Label]]:
    found = {of.kind: of} if hasattr(of, "kind") else {}
    for kind in of.__subclasses__():
        found |= _kinds(kind)
    return found


# Every kind of label, by the name that ml.labels.kind has.
KINDS: dict[str, type[Label]] = _kinds(Label)  # type: ignore[type-abstract]
