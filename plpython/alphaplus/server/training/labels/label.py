"""What a label is, what its parameters are, and how its kinds read the market.

A label is declared once, with its horizon h. Its value at grid time ``t`` looks at [t, t + h) and
is given only where that interval had ended, and its rows were known, by ``as_of``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from alphaplus.server.database import Database
from alphaplus.server.market import revisions as w
from alphaplus.server.market.reader import MarketReader
from alphaplus.server.training.labels.schema import LabelError, Number, Param, checked
from alphaplus.server.types import DAY, HOUR, MINUTE, Floats, Mask, Times

CHUNK = 512
WIDTHS = (MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 4 * HOUR, DAY)
ABOVE = Number(
    None, -1e18, 1e18, "the label is whether the value is above it (a class), not the value"
)


class Targets(NamedTuple):
    """A label at grid times: values, NaN where not known, and where each interval ended."""

    values: Floats
    ends: Times


@dataclass(frozen=True)
class Label(ABC):
    """A declared label: its horizon in microseconds, its parameters by name."""

    horizon: int
    params: Mapping[str, Any]

    kind: ClassVar[str]
    what: ClassVar[str]
    PARAMS: ClassVar[Mapping[str, Param]] = {}
    task: ClassVar[str] = "regression"
    # Whether the horizon must be whole minutes: bars are the finest that is read.
    minutes: ClassVar[bool] = True

    @classmethod
    def made(cls, horizon: int, given: Mapping[str, Any]) -> Label:
        """With checked parameters; what is not given has its default.

        Raises:
            LabelError: an unknown parameter, or a value out of its range.
        """
        made = cls(horizon, checked(cls.kind, cls.PARAMS, given))
        if horizon <= 0 or (cls.minutes and horizon % MINUTE):
            raise LabelError(
                f"a label of kind {cls.kind} needs a horizon of whole minutes,"
                f" not {horizon / MINUTE:g} minutes"
            )
        made.consistent()
        return made

    def consistent(self) -> None:  # noqa: B027 - most kinds have nothing to refuse
        """Refuse (LabelError) parameters that do not go together."""

    @property
    def task_of(self) -> str:
        """What kind of model predicts it: it follows from the kind and its parameters."""
        return "classification" if self.params.get("above") is not None else self.task

    def completed(self, db: Database) -> Mapping[str, Any]:
        """The parameters as they are to be stored: with what is the database's to say."""
        del db
        return {name: value for name, value in self.params.items() if value is not None}

    def targets(self, db: Database, symbol: str, grid: Times, step: int, as_of: int) -> Targets:
        """The label at ascending grid times; NaN where it is not known by ``as_of``.

        Args:
            grid: (n,) microseconds.
            step: distance of the grid in microseconds.

        Raises:
            LabelError: its horizon is no multiple of the step, and bars that are finer are missing.
        """
        if len(grid) == 0:
            return Targets(np.zeros(0), grid)
        reader = MarketReader(db, symbol, as_of, int(grid[0]))
        with np.errstate(divide="ignore", invalid="ignore"):
            values, ends = self.known(reader, grid, step, as_of)
        above = self.params.get("above")
        if above is not None:
            values = np.where(np.isfinite(values), (values > above).astype(np.float64), np.nan)
        return Targets(values, ends)

    def values(self, db: Database, symbol: str, grid: Times, step: int, as_of: int) -> Floats:
        """The values of :meth:`targets`."""
        return self.targets(db, symbol, grid, step, as_of).values

    @abstractmethod
    def known(self, reader: MarketReader, grid: Times, step: int, as_of: int) -> Targets:
        """The same, of at least one time, from a reader that sees nothing from ``as_of`` on."""

    def whole(self, values: Floats, grid: Times) -> Targets:
        """Values whose intervals all end at the horizon."""
        return Targets(values, grid + self.horizon)

    def bar_width(self, step: int, most: int | None = None) -> int:
        """The length of the bars that the label is made of: the grid's where the horizon is a
        multiple of it, else the longest that both are multiples of; at most ``most``."""
        if self.horizon % step == 0 and (most is None or step <= most):
            return step
        fits = [x for x in WIDTHS if self.horizon % x == 0 and step % x == 0]
        return max((x for x in fits if most is None or x <= most), default=MINUTE)


class Outcome(NamedTuple):
    """Bars as known by as_of, and where in them the grid times' intervals lie.

    ``done``: the interval had ended by as_of, and there are bars up to its end. ``position``: the
    first bar of the interval; ``ahead``: bars in an interval.
    """

    series: w.Series
    bars: dict[str, Floats]
    done: Mask
    position: Times
    ahead: int
    width: int

    @property
    def closes(self) -> Floats:
        """Closes of the bars."""
        return self.bars["close"]

    @property
    def inside(self) -> Mask:
        """Intervals that are done and lie wholly within the bars."""
        first = self.position >= 1
        return self.done & first & (self.position + self.ahead <= len(self.closes))

    def whole(self, values: Floats, reach: int = 0) -> Mask:
        """Inside, and no bar of the interval (and ``reach`` before it) lacks its value."""
        holes = np.append(0, np.cumsum(~np.isfinite(values)))
        stop = np.minimum(self.position + self.ahead, len(values))
        first = np.clip(self.position - reach, 0, len(values))
        whole: Mask = self.inside & (holes[stop] == holes[first])
        return whole


def outcome(
    reader: MarketReader,
    label: Label,
    grid: Times,
    step: int,
    as_of: int,
    reach: int,
    *,
    width: int | None = None,
    flows: bool = False,
) -> Outcome:
    """Read the bars of the intervals and of ``reach`` bars before the first.

    Raises:
        LabelError: there are bars of the grid's length, but not the finer ones that are needed.
    """
    width = label.bar_width(step) if width is None else width
    ahead = label.horizon // width
    last = int(grid[-1]) + (ahead + 1) * width
    begin = int(grid[0]) // width * width - (reach + 1) * width
    series = reader.bars(width, begin, last, flows=flows)
    bars = series.at(as_of)
    closes = bars["close"]
    # Labels end where bars end: after that, nothing seen does not mean that nothing happened.
    known = np.flatnonzero(np.isfinite(closes))
    if not len(known) and width < step:
        coarse = reader.bars(step, int(grid[0]) - step, int(grid[-1]) + step).at(as_of)["close"]
        if np.isfinite(coarse).any():
            raise LabelError(
                f"a horizon of {label.horizon // MINUTE} minutes on a grid of {step // MINUTE}"
                f" needs bars of {width // MINUTE} minutes, and {reader.symbol} has none here"
            )
    bars_end = series.start + (int(known[-1]) + 1) * width if len(known) else series.start
    if bars_end < last and _more(reader, width, last, as_of):
        bars_end = last  # a hole, not the end: a part of the grid says what the whole says
    done = (grid + label.horizon <= as_of) & (grid + label.horizon <= bars_end)
    return Outcome(series, bars, done, (grid - series.start) // width, ahead, width)


def _more(reader: MarketReader, width: int, start: int, as_of: int) -> bool:
    """Whether a bar that opens at ``start`` or later was known by as_of."""
    until = as_of if reader.as_of is None else min(as_of, reader.as_of)
    span = DAY
    while start < until:
        end = min(start + span, -(-until // width) * width)
        if np.isfinite(reader.bars(width, start, end).at(as_of)["close"]).any():
            return True
        start, span = end, 8 * span
    return False


def change(of: Outcome) -> Floats:
    """Log change over each interval, NaN where it is not known."""
    done = of.done & (of.position + of.ahead - 1 < len(of.closes))
    before = of.closes[np.maximum(of.position - 1, 0)]
    after = of.closes[np.minimum(of.position + of.ahead - 1, len(of.closes) - 1)]
    found: Floats = np.log(after / before)
    return np.where(done & np.isfinite(found), found, np.nan)


def blocks(values: Floats, ahead: int) -> Floats:
    """(n, width) cut from its end into blocks of ``ahead``: (n, blocks, ahead), newest last."""
    count = values.shape[1] // ahead
    return values[:, values.shape[1] - count * ahead :].reshape(len(values), count, ahead)


TRAILING: Mapping[str, Param] = {
    "quantile": Number(0.9, 0.0, 1.0, "a share"),
    "lookback_days": Number(3.0, 1 / 1440, 400.0, "days"),
}


def lookback(label: Label) -> int:
    """Microseconds over which a trailing quantile is taken."""
    days: float = label.params["lookback_days"]
    return round(days * DAY)
