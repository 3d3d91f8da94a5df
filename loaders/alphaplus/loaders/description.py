"""The description of a source: what a file is taken for, part by part, and who says so.

A part comes from the user's option, from ``alphaplus.toml`` beside the data, from the file's
content or header, from its path, from the layout's publisher, or from the instrument table, in this
order. What none says is unknown: where it would change a value, :class:`Missing` is raised with
the option that says it.
"""

from __future__ import annotations

import datetime as dt
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from alphaplus.loaders import naming
from alphaplus.loaders.instruments import (
    KINDS,
    LOCAL,
    MARGINS,
    SERIES,
    UNITS,
    BadName,
    Catalog,
    Instrument,
    checked_name,
    vendor_venue,
)
from alphaplus.loaders.naming import Hints
from alphaplus.loaders.stamps import Clock

FILE = "alphaplus.toml"
HOW = {
    "exchange": "--exchange",
    "symbol": "--symbol",
    "kind": "--kind spot|perpetual|future|stock|fx",
    "unit": "--unit base|quote|contracts",
    "contract_size": "--contract-size",
    "margin": "--margin linear|inverse|quanto",
    "timeframe": "--timeframe 1m|1h|1d|…",
    "tz": "--tz UTC|Europe/Berlin|…",
    "date_format": "--date-format '%m/%d/%Y %H:%M'",
    "columns": "--columns ts=…,open=…,high=…,low=…,close=…,volume=…",
    "quote": "--quote",
    "series": "--series traded|mark|index|premium",
    "negative_prices": "--negative-prices",
}


class Missing(Exception):
    """A part that would change values is not known; the message names the option that says it."""

    def __init__(self, shown: str, what: str, part: str, why: str = "") -> None:
        self.part = part
        super().__init__(
            f"{shown}: {what} is not known{': ' + why if why else ''}. Say it with {HOW[part]}, or"
            f" {part.replace('_', '-')} in {FILE} beside the data"
        )


class BadDescription(ValueError):
    """An option or an alphaplus.toml that cannot be."""


@dataclass(frozen=True)
class Part:
    """A part of a description and who says it."""

    value: Any
    source: str
    why: str = ""


@dataclass(frozen=True)
class Said:
    """What the user says of a file, by option or in alphaplus.toml; None: nothing."""

    exchange: str | None = None
    symbol: str | None = None
    kind: str | None = None
    unit: str | None = None
    contract_size: float | None = None
    margin: str | None = None
    quote: str | None = None
    timeframe: float | None = None
    tz: str | None = None
    date_format: str | None = None
    columns: Mapping[str, str] | None = None
    negative_prices: bool | None = None
    series: str | None = None
    dataset: str | None = None

    def checked(self) -> Said:
        """Itself.

        Raises:
            BadDescription: a value that cannot be.
        """
        lists = {"kind": KINDS, "unit": UNITS, "margin": MARGINS, "series": SERIES}
        for name, allowed in lists.items():
            value = getattr(self, name)
            if value is not None and value not in allowed:
                raise BadDescription(f"{name} {value!r}: one of {', '.join(allowed)}")
        size = self.contract_size
        if size is not None and not 0 < size < 1e15:
            raise BadDescription(f"contract size {size}: a number above 0")
        if self.timeframe is not None and not (
            self.timeframe == naming.MONTH or 0 < self.timeframe < 1e9
        ):
            raise BadDescription("a bar length is 1s, 1m, 1h, 1d, 1w, 1M or a number of seconds")
        try:
            if self.symbol is not None:
                checked_name(self.symbol)
            if self.exchange is not None:
                checked_name(self.exchange, "exchange")
            if self.quote is not None:
                checked_name(self.quote, "quote currency")
        except BadName as error:
            raise BadDescription(str(error)) from None
        Clock(self.tz)
        return self

    def under(self, other: Said) -> Said:
        """These, and where they say nothing the other's."""
        mine = {name: value for name, value in vars(self).items() if value is not None}
        return replace(other, **mine)


def length_of(text: str | float) -> float:
    """Seconds of a bar length: 1m, 1h, 1M (a calendar month), or a number of seconds.

    Raises:
        BadDescription: it is none.
    """
    if isinstance(text, str) and (found := naming.timeframe(text)) is not None:
        return found
    try:
        seconds = float(text)
    except ValueError:
        raise BadDescription(
            f"bar length {text!r}: 1s, 1m, 1h, 1d, 1w, 1M or a number of seconds"
        ) from None
    if not 0 < seconds < 1e9:
        raise BadDescription(f"bar length {text!r}: a number of seconds above 0")
    return seconds


def columns_of(text: str) -> dict[str, str]:
    """``ts=Date,open=O`` as a map from our names to the file's.

    Raises:
        BadDescription: it is no such list.
    """
    out: dict[str, str] = {}
    for item in text.split(","):
        name, equals, column = item.partition("=")
        if not equals or not name.strip() or not column.strip():
            raise BadDescription(f"--columns {item!r}: our name=the file's, as in ts=Date,open=O")
        out[name.strip()] = column.strip()
    return out


def from_toml(path: Path) -> tuple[Said, str]:
    """What alphaplus.toml beside a file, or in one of the three folders above, says of it.

    The nearest file with a pattern that fits counts; patterns are relative to its folder.

    Raises:
        BadDescription: the file is no description.
    """
    path = path.resolve()
    for folder in list(path.parents)[:4]:
        file = folder / FILE
        if not file.is_file():
            continue
        try:
            tables = tomllib.loads(file.read_text("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise BadDescription(f"{file}: {error}") from None
        relative = path.relative_to(folder).as_posix()
        for pattern, table in tables.items():
            if not isinstance(table, dict):
                raise BadDescription(f'{file}: {pattern!r} is no table: write ["{pattern}"]')
            if fnmatchcase(relative, pattern) or fnmatchcase(path.name, pattern):
                return _said(table, file, pattern), f"{FILE}: {pattern}"
    return Said(), ""


def _said(table: dict[str, Any], file: Path, pattern: str) -> Said:
    values: dict[str, Any] = {}
    known = {name.replace("_", "-"): name for name in Said.__dataclass_fields__}
    for key, value in table.items():
        name = known.get(key.replace("_", "-"))
        if name is None:
            raise BadDescription(
                f"{file}: {pattern!r} has {key!r}; known are {', '.join(sorted(known))}"
            )
        if name == "timeframe":
            value = length_of(value)
        elif name == "columns":
            if not isinstance(value, dict):
                raise BadDescription(f"{file}: columns is a table of our names and the file's")
            value = {str(a): str(b) for a, b in value.items()}
        elif name == "contract_size":
            value = float(value)
        elif name == "negative_prices":
            value = bool(value)
        else:
            value = str(value)
        values[name] = value
    return Said(**values).checked()


# Published files that do not say themselves what they are, by SHA-256: what their publisher says.
_PUBLISHED: dict[str, dict[str, Any]] = {}


@dataclass
class Description:
    """What a source is taken for. Grows while its first rows are read, then stays."""

    path: PurePosixPath
    catalog: Catalog = field(default_factory=Catalog)
    said: Said = field(default_factory=Said)
    said_by: dict[str, str] = field(default_factory=dict)
    written: float = np.inf  # when the file was written, in microseconds
    since: float = 946_684_800e6
    parts: dict[str, Part] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    hints: Hints = field(init=False)
    quotes: Mapping[str, str] = field(default_factory=dict)  # by venue, where rows name a coin only
    dataset: str = ""
    header: bool = True  # whether its first row names the columns
    first: int = 0  # line of the block's first row
    beside: bool = False  # in a folder beside those of mark, index or premium-index prices
    cache: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.hints = naming.read_path(self.path)
        self._fixed: dict[Any, Instrument] = {}

    @property
    def shown(self) -> str:
        """The file's name as messages show it."""
        return self.path.name

    # --- parts -------------------------------------------------------------------------------

    def note(self, name: str, value: Any, source: str, why: str = "") -> Any:
        """Write a part down, unless the user said it; returns what holds."""
        told = getattr(self.said, name, None)
        if told is not None:
            self.parts[name] = Part(told, self.said_by.get(name, "option"))
            return told
        self.parts.setdefault(name, Part(value, source, why))
        return self.parts[name].value

    def missing(self, what: str, part: str, why: str = "") -> Missing:
        """The error to raise."""
        return Missing(self.shown, what, part, why)

    def venue(self, layout: str | None = None) -> str:
        """The exchange: the user's, the layout's, the path's, else local (not known)."""
        if self.said.exchange:
            return str(self.note("exchange", None, ""))
        if layout:
            return str(self.note("exchange", layout, "header", "the layout is that venue's"))
        if self.hints.exchange:
            return str(self.note("exchange", self.hints.exchange, "path"))
        return str(self.note("exchange", LOCAL, "nobody", "not said: stored as @local"))

    def native(self) -> str:
        """The native symbol: the user's or the path's.

        Raises:
            Missing: neither says one.
        """
        if self.said.symbol:
            return str(self.note("symbol", None, ""))
        if self.hints.symbol is None:
            raise self.missing("the symbol", "symbol", "the name of the file does not say one")
        return str(self.note("symbol", self.hints.symbol, "path", self.hints.why))

    def instrument(
        self,
        layout: str | None = None,
        kind: str | None = None,
        native: str | None = None,
        *,
        why: str = "",
        vendor: bool = False,
    ) -> Instrument:
        """The instrument of the file, or the one that a row names.

        ``layout``: the venue whose layout it is; ``kind``: what the layout says of the kind.

        Raises:
            Missing: symbol, or at a venue with several kinds of market the kind, is not known.
        """
        key = (layout, kind, native, vendor)
        if key in self._fixed:
            return self._fixed[key]
        venue = layout if layout and vendor and not self.said.exchange else self.venue(layout)
        name = native if native is not None and not self.said.symbol else self.native()
        told = self.said.kind or kind or self.hints.kind
        series = self.said.series or self.hints.series
        if series != "traded" and self.dataset in ("", "candles"):
            self.note("series", series, "path")
            made = self.catalog.instrument(venue, name, None, series=series)
        else:
            made = self.catalog.instrument(venue, name, told, vendor=vendor)
        if made.kind is None and made.exchange != LOCAL:
            raise self.missing(
                f"the kind of {made.native} at {made.exchange}", "kind",
                "spot and contracts have the same name there",
            )  # fmt: skip
        made = self._with_said(made)
        if native is None:
            source = "option" if self.said.kind else "header" if kind else "path"
            if made.kind and made.kind not in (told,):
                source, why = "name", "the symbol's form"
            if made.kind:
                self.note("kind", made.kind, source, why)
            if made.base:
                self.parts.setdefault("base", Part(made.base, "name"))
            if made.quote:
                self.note("quote", made.quote, "name")
            if made.contract_size is not None:
                self.note("contract_size", made.contract_size, "instruments", made.source or "")
            if made.margin is not None:
                self.note("margin", made.margin, "instruments", made.source or "")
        self._fixed[key] = made
        return made

    def _with_said(self, made: Instrument) -> Instrument:
        said = self.said
        changes: dict[str, Any] = {}
        if said.contract_size is not None:
            changes |= {"contract_size": said.contract_size, "source": "option"}
            changes |= {"source_date": dt.datetime.now(dt.UTC).date()}
            if said.unit is None and made.unit is None:
                changes["unit"] = "contracts"
        if said.margin is not None:
            changes["margin"] = said.margin
        elif said.contract_size is not None and made.margin is None:
            raise self.missing(
                f"whether {made.native} is linear or inverse", "margin",
                "a contract size is base units of a linear contract, quote units of an inverse one",
            )  # fmt: skip
        if said.quote is not None:
            changes["quote"] = said.quote.upper()
        if said.negative_prices is not None:
            changes["negative_prices"] = said.negative_prices
        return replace(made, **changes) if changes else made

    def unit(self, instrument: Instrument, layout: str | None = None) -> str | None:
        """What sizes count: the user's word, the layout's, else the venue's (None: not known)."""
        if self.said.unit:
            return str(self.note("unit", None, ""))
        if layout:
            return str(self.note("unit", layout, "header"))
        if instrument.unit:
            return str(self.note("unit", instrument.unit, "instruments", instrument.source or ""))
        return None

    def clock(self, form: str, layout: str | None = None) -> Clock:
        """How times are read.

        ``form``: what :func:`alphaplus.loaders.stamps.form` says of them; ``layout``: the zone that
        the layout's publisher states.

        Raises:
            Missing: times of day without a zone, or dates of which day and month are not plain.
        """
        said = self.said
        if said.date_format:
            self.note("date_format", None, "")
            if (
                not said.tz
                and not layout
                and any(word in said.date_format for word in ("%H", "%I", "%X", "%T"))
                and "%z" not in said.date_format
            ):
                raise self.missing("the time zone", "tz", "times of day without a zone")
            return Clock(said.tz or layout or "UTC", said.date_format)
        if form == "either":
            raise self.missing(
                "the form of its dates", "date_format", "day and month may be either way round"
            )
        if form == "unknown":
            raise self.missing("the form of its times", "date_format", "no known one")
        if said.tz:
            return Clock(str(self.note("tz", None, "")))
        if layout:
            return Clock(str(self.note("tz", layout, "header", "the layout's publisher says so")))
        if form == "naive":
            raise self.missing("the time zone", "tz", "times of day without a zone")
        if form == "date":
            self.note("tz", "UTC", "content", "dates without a time of day")
        else:
            self.note("tz", "UTC", "content", "times with their zone, or since 1970")
        return Clock("UTC")

    def bar_length(self, ts: Any, close: Any = None, layout: float | None = None) -> float:
        """Seconds of a bar: option, close time, path, or the distance that all rows keep.

        Raises:
            Missing: none of them says it.
        """
        if "timeframe" in self.parts:
            return float(self.parts["timeframe"].value)
        if self.said.timeframe is not None:
            return float(self.note("timeframe", None, ""))
        if layout is not None:
            return float(self.note("timeframe", layout, "header"))
        if self.hints.timeframe is not None:
            return float(self.note("timeframe", self.hints.timeframe, "path"))
        good = np.unique(ts[np.isfinite(ts)])
        if close is not None:
            widths = np.rint((close - ts)[np.isfinite(close - ts)] / 1e6)
            if len(widths) and (widths == widths[0]).all() and widths[0] in naming.LENGTHS:
                return float(self.note("timeframe", float(widths[0]), "content", "its close times"))
        steps = np.diff(good) / 1e6
        if len(steps):
            days = np.unique((good // 86_400e6).astype(np.int64))
            dates = np.array(days, dtype="datetime64[D]").astype(object)
            if (
                len(days) == len(good)
                and all(d.day == dates[0].day for d in dates)
                and steps.min() > 27.9 * 86_400
            ):
                return float(
                    self.note("timeframe", naming.MONTH, "content", "one row a calendar month")
                )
            common = float(np.gcd.reduce(np.rint(steps * 1000).astype(np.int64)) / 1000)
            enough = len(steps) >= 10 or bool((steps == common).all())
            dated = common == 86_400 and bool((good % 86_400e6 == 0).all())  # weekends are missing
            if common in naming.LENGTHS and bool((steps == common).any()) and (enough or dated):
                many = int((steps == common).sum())
                return float(
                    self.note(
                        "timeframe", common, "content",
                        f"all rows lie multiples of it apart, {many} of {len(steps)} exactly it",
                    )
                )  # fmt: skip
        raise self.missing("the bar length", "timeframe", "neither name nor rows say it")

    def say(self) -> dict[str, Any]:
        """For market.loads.description."""
        out = {
            name: {"value": _plain(p.value), "from": p.source} | ({"why": p.why} if p.why else {})
            for name, p in self.parts.items()
        }
        if self.notes:
            out["notes"] = {"value": list(dict.fromkeys(self.notes)), "from": "content"}
        return out


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def vendor_instrument(
    d: Description, exchange: str, native: str, kind: str | None = None
) -> Instrument:
    """What a vendor's row names (Tardis' exchange and symbol)."""
    if d.said.exchange or d.said.symbol or d.said.kind:
        venue, implied = vendor_venue(d.said.exchange or exchange, vendor=not d.said.exchange)
        return d.instrument(venue, kind or implied, native)
    made = d.catalog.instrument(exchange, native, kind, vendor=True)
    return d._with_said(made)
