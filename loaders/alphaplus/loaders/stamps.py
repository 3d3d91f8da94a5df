"""Times in files: told by their form and by what is plausible, never by their size alone.

A number since 1980 fits one of seconds, milliseconds, microseconds, nanoseconds,
YYYYMMDD, YYYYMMDDhhmm, YYYYMMDDhhmmss and a spreadsheet's serial day: their ranges do not overlap.
What fits none is no time. A time of day without a zone is one only where the layout's publisher or
the user says which zone it is in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]
FIRST, LAST = 315_532_800.0, 1e10  # 1980 and 2286 in seconds
_EPOCHS = ((1e0, 1e6), (1e3, 1e3), (1e6, 1.0), (1e9, 1e-3))  # of a second; to microseconds
_SERIAL = (29_221.0, 73_051.0)  # 1980 and 2100 as days since 1899-12-30
_CALENDARS = (
    (19_800_101.0, 21_000_101.0, "%Y%m%d"),
    (198_001_010_000.0, 210_001_010_000.0, "%Y%m%d%H%M"),
    (19_800_101_000_000.0, 21_000_101_000_000.0, "%Y%m%d%H%M%S"),
)
TWICE = np.inf  # stands for a local time that occurs twice or never

_ZONE = r"\s*(?:Z|UTC|GMT|[+-]\d\d:?\d\d)"
_TIME = r"\d{1,2}:\d\d(?::\d\d(?:[.,]\d+)?)?"
_FORMS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("zoned", re.compile(rf"\d{{4}}-\d\d-\d\d[T ]{_TIME}{_ZONE}", re.IGNORECASE)),
    ("naive", re.compile(rf"\d{{4}}[-./]\d\d[-./]\d\d[TD ]\s*{_TIME}")),
    ("date", re.compile(r"\d{4}[-./]\d\d[-./]\d\d(?:[T ]00:00(?::00(?:\.0+)?)?)?")),
    ("naive", re.compile(rf"\d{{8}}[T ]\s*(?:{_TIME}|\d{{4,9}})")),
    # With dots the day stands first: no country writes the month so.
    ("date", re.compile(r"\d{1,2}\.\d{1,2}\.\d{4}(?: 00:00(?::00(?:\.0+)?)?)?")),
    ("naive", re.compile(rf"\d{{1,2}}\.\d{{1,2}}\.\d{{4}}[T ]\s*{_TIME}")),
    ("either", re.compile(r"\d{1,2}[-./]\d{1,2}[-./](?:\d{4}|\d\d)(?:[ T].*)?")),
)


class BadZone(ValueError):
    """A time zone that nobody knows."""


@dataclass(frozen=True)
class Clock:
    """How times are read. zone: of times without one (None: not known); pattern: strptime's."""

    zone: str | None = None
    pattern: str | None = None

    def __post_init__(self) -> None:
        if self.zone is not None:
            try:
                ZoneInfo(self.zone)
            except (ZoneInfoNotFoundError, ValueError, OSError):
                raise BadZone(
                    f"unknown time zone {self.zone!a}: use a name such as UTC, Europe/Berlin"
                    " or America/New_York"
                ) from None


UTC = Clock("UTC")


def form(column: Any) -> str:
    """What a column's times are: number, zoned, naive, date, either (day or month first), unknown.

    naive: a time of day without its zone. Of several forms in one column the least certain one.
    """
    series = pd.Series(column)
    if isinstance(series.dtype, pd.DatetimeTZDtype):
        return "zoned"
    if series.dtype.kind == "M":
        whole = bool((series.dropna() == series.dropna().dt.normalize()).all())
        return "date" if whole else "naive"
    values = numbers(series)
    if np.isfinite(values).any():
        size = values[np.isfinite(values)]
        if _epoch(size) is not None:
            return "number"
        for low, high, pattern in _CALENDARS:
            if ((size >= low) & (size < high)).all():
                return "date" if pattern == "%Y%m%d" else "naive"
        if ((size >= _SERIAL[0]) & (size < _SERIAL[1])).all():
            return "date" if (size % 1 == 0).all() else "naive"
        return "number"
    order = ("zoned", "date", "naive", "either", "unknown")
    found = set()
    for text in series.dropna().astype(str).str.strip().head(2000):
        found.add(next((name for name, shape in _FORMS if shape.fullmatch(text)), "unknown"))
    if found >= {"date", "naive"}:  # midnight among times of day
        found.discard("date")
    # One cell that is no time is that row's fault, not the column's.
    if "unknown" in found and len(found) > 1:
        found.discard("unknown")
    return max(found, key=order.index, default="unknown")


def numbers(series: pd.Series[Any]) -> Floats:
    """Floats; NaN for what is no number."""
    if series.dtype.kind in "fiu":
        return series.to_numpy(dtype=np.float64)
    if series.dtype.kind == "M" or isinstance(series.dtype, pd.DatetimeTZDtype):
        return np.full(len(series), np.nan)
    return pd.to_numeric(series, errors="coerce").to_numpy(dtype=np.float64)


def _epoch(values: Floats) -> float | None:
    """The factor to microseconds when all are in one unit since 1970."""
    low, high = values.min(initial=np.inf), values.max(initial=-np.inf)
    for unit, scale in _EPOCHS:
        if low >= FIRST * unit and high < LAST * unit:
            return scale
    return None


def moment(column: Any, clock: Clock = UTC) -> Floats:
    """Microseconds since 1970: NaN for what is no time, infinity for what occurs twice or never."""
    series = pd.Series(column)
    if clock.pattern is not None:
        parsed = pd.to_datetime(
            series.astype(str).str.strip(), format=clock.pattern, errors="coerce"
        )
        return _from_datetimes(parsed, clock)
    if series.dtype.kind == "M" or isinstance(series.dtype, pd.DatetimeTZDtype):
        return _from_datetimes(series, clock)
    values = numbers(series)
    finite = np.isfinite(values)
    if not finite.any():
        return _from_text(series, clock)
    with np.errstate(invalid="ignore"):
        if finite.all() and (scale := _epoch(values)) is not None:
            return values * scale
        out = np.full(len(values), np.nan)
        for unit, scale in _EPOCHS:
            keep = (values >= FIRST * unit) & (values < LAST * unit)
            out[keep] = values[keep] * scale
        keep = (values >= _SERIAL[0]) & (values < _SERIAL[1])
        if keep.any():
            days = pd.Series(np.rint((values[keep] - 25_569) * 86_400e6).astype("datetime64[us]"))
            out[keep] = _from_datetimes(days, clock)
        for low, high, pattern in _CALENDARS:
            keep = (values >= low) & (values < high) & (values % 1 == 0)
            if keep.any():
                words = pd.Series(values[keep].astype(np.int64).astype(str))
                parsed = pd.to_datetime(words, format=pattern, errors="coerce")
                out[keep] = _from_datetimes(parsed, clock)
    if not finite.all():
        rest = ~finite & series.notna().to_numpy()
        if rest.any():
            out[rest] = _from_text(series[rest], clock)
    return out


def _from_text(series: pd.Series[Any], clock: Clock) -> Floats:
    words = series.astype("string").str.strip()
    sample = words.dropna()
    first = str(sample.iloc[0]) if len(sample) else ""
    if re.fullmatch(r"\d{4}[./]\d\d[./]\d\d.*", first):
        words = words.str.replace(r"^(\d{4})[./](\d\d)[./](\d\d)", r"\1-\2-\3", regex=True)
    elif re.match(r"\d{4}-\d\d-\d\dD", first):
        words = words.str.replace("D", "T", n=1)
    elif re.match(r"\d{8}[T ]\s*\d", first):
        words = words.str.replace(
            r"^(\d{4})(\d\d)(\d\d)[T ]\s*(\d\d):?(\d\d)(?::?(\d\d))?\.?(\d+)?$",
            lambda m: (
                f"{m[1]}-{m[2]}-{m[3]}T{m[4]}:{m[5]}:{m[6] or '00'}" + (f".{m[7]}" if m[7] else "")
            ),
            regex=True,
        )
    elif re.match(r"\d{1,2}\.\d{1,2}\.\d{4}", first):
        words = words.str.replace(
            r"^(\d{1,2})\.(\d{1,2})\.(\d{4})",
            lambda m: f"{m[3]}-{m[2]:0>2}-{m[1]:0>2}",
            regex=True,
        )
    words = words.str.replace(r"\s*(UTC|GMT)$", "Z", regex=True, case=False)
    # A time's hour may have one digit.
    words = words.str.replace(r"^(\d{4}-\d\d-\d\d[T ])\s*(\d):", r"\g<1>0\2:", regex=True)
    zoned = words.str.contains(r"(?:Z|z|[+-]\d\d:?\d\d)$", regex=True, na=False).to_numpy()
    if not zoned.any():
        plain = pd.to_datetime(words, errors="coerce", format="ISO8601")
        return _from_datetimes(plain, clock)
    out = np.full(len(words), np.nan)
    with_zone = pd.to_datetime(words[zoned], errors="coerce", utc=True, format="ISO8601")
    out[zoned] = _from_datetimes(with_zone, clock)
    if not zoned.all():
        rest = pd.to_datetime(words[~zoned], errors="coerce", format="ISO8601")
        out[~zoned] = _from_datetimes(rest, clock)
    return out


def _from_datetimes(series: pd.Series[Any], clock: Clock) -> Floats:
    missing = series.isna().to_numpy()
    zone = clock.zone or "UTC"
    if isinstance(series.dtype, pd.DatetimeTZDtype):
        local = series.dt.tz_convert("UTC").dt.tz_localize(None)
    elif series.dtype.kind != "M":
        return np.full(len(series), np.nan)
    else:
        local = series
    micros = local.dt.as_unit("us").astype("int64").to_numpy().astype(np.float64)
    micros = np.where(missing, np.nan, micros)
    if isinstance(series.dtype, pd.DatetimeTZDtype) or zone in ("UTC", "Etc/UTC", "GMT"):
        return micros
    first = pd.Series(local).dt.tz_localize(
        zone,
        ambiguous=np.ones(len(local), dtype=bool),
        nonexistent="NaT",
    )
    second = pd.Series(local).dt.tz_localize(
        zone,
        ambiguous=np.zeros(len(local), dtype=bool),
        nonexistent="NaT",
    )
    out = _micros(first)
    other = _micros(second)
    twice = (out != other) & np.isfinite(out) & np.isfinite(other)
    if twice.any():
        out = _in_order(micros, out, other, twice)
    return np.where(missing, np.nan, np.where(np.isnan(out) & ~missing, TWICE, out))


def _micros(series: pd.Series[Any]) -> Floats:
    plain = series.dt.tz_convert("UTC").dt.tz_localize(None)
    micros = plain.dt.as_unit("us").astype("int64").to_numpy().astype(np.float64)
    return np.where(series.isna().to_numpy(), np.nan, micros)


def _in_order(local: Floats, first: Floats, second: Floats, twice: Any) -> Floats:
    """The hour that clocks repeat: its second pass begins where local time does not go on.

    A stretch of it in which local time only goes on is one of two, and nobody knows which: NaN.
    """
    out = first.copy()
    where = np.flatnonzero(twice)
    # One stretch for each autumn: ambiguous times within a few hours of each other.
    for part in np.split(where, np.flatnonzero(np.abs(np.diff(local[where])) > 12 * 3600e6) + 1):
        steps = np.diff(local[part])
        falling = len(steps) > 0 and bool((steps < 0).sum() > (steps > 0).sum())
        back = np.flatnonzero(steps >= 0 if falling else steps <= 0)
        if len(back) == 0:
            out[part] = np.nan
            continue
        turn = back[0] + 1
        early, late = (part[turn:], part[:turn]) if falling else (part[:turn], part[turn:])
        out[early], out[late] = first[early], second[late]
    return out
