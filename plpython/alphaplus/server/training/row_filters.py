"""Filters for training rows: which grid times follow a bar that is not to be learned from, and why.

Optional, and only ever for training: features and predictions see every bar. A row t is judged by
the last bar before t and by those before that one, as known at t, so that dropping rows lets
nothing of the future into a training set. (A centred filter, or "it came back at once", would.)

* ``hampel``: abs(return - median) > ``hampel_sigmas`` x 1.4826 MAD of the ``window`` bars up to it
  (Hampel 1974; Davies and Gather 1993), and more than ``hampel_min`` (a still market has MAD 0).
* ``bad_tick``: a wick (high over the body, or low under it, as a fraction of close) longer than
  ``wick_ratio`` x the median range of the window, and than ``wick_min``.
* ``volume``: volume 0 (``zero_volume``), or more than ``volume_ratio`` x the window's median, where
  that is not 0.
* ``spread``: mean relative spread of the bar's book snapshots above ``spread_max``, or above
  ``spread_ratio`` x the window's median. Bars without a book pass.
* ``gap``: no bar is known for the interval just before t.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from alphaplus.server import database
from alphaplus.server.database import Database
from alphaplus.server.features import compute
from alphaplus.server.market.reader import Inputs, MarketReader, Needs, Request
from alphaplus.server.types import MINUTE, Floats, Mask, Times

REASONS = ("hampel", "bad_tick", "volume", "spread", "gap")


@dataclass(frozen=True)
class Params:
    """The filters' parameters; a filter is off when its threshold is null."""

    window: int = 60
    hampel_sigmas: float | None = 8.0
    hampel_min: float = 0.001
    wick_ratio: float | None = 10.0
    wick_min: float = 0.003
    volume_ratio: float | None = 100.0
    zero_volume: bool = True
    spread_ratio: float | None = 10.0
    spread_max: float | None = 0.005
    gap: bool = True

    @classmethod
    def of(cls, text: str | None) -> Params:
        """From a JSON object.

        Raises:
            ValueError: an unknown key, a value of the wrong kind, or a window of less than 10.
        """
        given = json.loads(text) if text else {}
        if given is True:
            given = {}
        if not isinstance(given, dict):
            raise ValueError("noise parameters are a JSON object")
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(given) - known):
            raise ValueError(f"unknown noise parameter {unknown[0]!r}; known: {sorted(known)}")
        params = cls(**given)
        for field in fields(cls):
            value = getattr(params, field.name)
            kind = bool if field.name in ("zero_volume", "gap") else (int, float)
            nullable = field.name in ("hampel_sigmas", "wick_ratio", "volume_ratio") or (
                field.name.startswith("spread")
            )
            right = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
            if not (right or (value is None and nullable)):
                raise ValueError(f"noise parameter {field.name!r} has the wrong kind of value")
        if not isinstance(params.window, int) or params.window < 10:
            raise ValueError("noise parameter 'window' is a whole number of at least 10 bars")
        return params


@dataclass(frozen=True)
class Findings:
    """What was found at each time: reasons (n, 5) in the order of REASONS, and the measures."""

    reasons: Mask
    sigmas: Floats
    wick: Floats
    volume_ratio: Floats
    spread: Floats


def _median(values: Floats) -> Floats:
    """Median of each row, NaN left out; NaN where fewer than half are there."""
    n = np.isfinite(values).sum(axis=1)
    ordered = np.sort(values, axis=1)  # NaN last
    low = np.take_along_axis(ordered, np.maximum((n - 1) // 2, 0)[:, None], axis=1)[:, 0]
    high = np.take_along_axis(ordered, np.minimum(n // 2, values.shape[1] - 1)[:, None], axis=1)[
        :, 0
    ]
    return np.where(n * 2 >= values.shape[1], (low + high) / 2, np.nan)


def judge(bars: dict[str, Floats], spread: Floats, params: Params) -> Findings:
    """Judge the newest bar of each window.

    Args:
        bars: open, high, low, close, volume as (n, window + 1), oldest first, NaN for no bar.
        spread: mean relative spread, the same shape.
        params: thresholds.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        close = bars["close"]
        returns = np.diff(np.log(close), axis=1)
        middle = _median(returns)
        deviation = np.abs(returns[:, -1] - middle)
        mad = 1.4826 * _median(np.abs(returns - middle[:, None]))
        sigmas = deviation / np.maximum(mad, 1e-12)
        body_high = np.maximum(bars["open"], close)[:, -1]
        body_low = np.minimum(bars["open"], close)[:, -1]
        wick = np.maximum(bars["high"][:, -1] - body_high, body_low - bars["low"][:, -1])
        wick = wick / close[:, -1]
        ranges = _median(((bars["high"] - bars["low"]) / close)[:, :-1])
        volume = bars["volume"][:, -1]
        usual_volume = _median(bars["volume"][:, :-1])
        ratio = volume / usual_volume
        wide = spread[:, -1]
        usual = _median(spread[:, :-1])
        found = np.zeros((len(close), len(REASONS)), dtype=bool)
        if params.hampel_sigmas is not None:
            found[:, 0] = (deviation > params.hampel_sigmas * mad) & (deviation > params.hampel_min)
        if params.wick_ratio is not None:
            found[:, 1] = (wick > params.wick_ratio * ranges) & (wick > params.wick_min)
        if params.zero_volume:
            found[:, 2] |= volume == 0
        if params.volume_ratio is not None:
            # Where most bars are without a trade, one with a trade is no outlier.
            found[:, 2] |= (ratio > params.volume_ratio) & (usual_volume > 0)
        if params.spread_max is not None:
            found[:, 3] |= wide > params.spread_max
        if params.spread_ratio is not None:
            found[:, 3] |= wide > params.spread_ratio * usual
        if params.gap:
            found[:, 4] = np.isnan(close[:, -1])
    return Findings(found, sigmas, wick, ratio, wide)


def find(reader: MarketReader, grid: Times, width: int, params: Params) -> Findings:
    """Judge ascending grid times of a symbol, by bars of ``width`` microseconds."""
    minutes = width == MINUTE
    needs = Needs(
        bars=params.window + 1,
        book=params.window + 1 if minutes else 0,
        levels=1 if minutes else 0,
    )
    request = Request(needs, width)
    parts: list[Findings] = []
    for part in compute.parts(grid, width):
        windows = reader.at(part).windows(request, part)
        for at in range(0, len(part), compute.CHUNK):
            parts.append(_judge(windows.inputs(request, part[at : at + compute.CHUNK]), params))
    if not parts:
        none = np.zeros(0)
        return Findings(np.zeros((0, len(REASONS)), dtype=bool), none, none, none, none)
    return Findings(
        *(
            np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(Findings)
        )
    )


def _judge(inputs: Inputs, params: Params) -> Findings:
    names = ("open", "high", "low", "close", "volume")
    bars = {name: inputs.bars[name] for name in names}
    spread = np.full_like(bars["close"], np.nan)
    if inputs.book:
        with np.errstate(invalid="ignore", divide="ignore"):
            spread = inputs.book["relative_spread_sum"] / inputs.book["two_sided_count"]
    return judge(bars, spread, params)


def asked(plpy: Any, text: str | None) -> Params:
    """The parameters of a JSON object; refuses (AP220) invalid ones."""
    try:
        return Params.of(text)
    except (ValueError, TypeError) as error:
        plpy.error(str(error), sqlstate="AP220", hint="See the comment of feature.noise_mask.")
        raise


def keep(reader: MarketReader, grid: Times, width: int, params: str) -> tuple[Mask, Times]:
    """Which grid times a training set keeps, and how many it does not, in the order of REASONS
    (a time may have several) and in all."""
    reasons = find(reader, grid, width, asked(reader.db.plpy, params)).reasons
    kept: Mask = ~np.asarray(reasons.any(axis=1))
    return kept, np.append(reasons.sum(axis=0), (~kept).sum()).astype(np.int64)


Row = tuple[int, list[str], float | None, float | None, float | None, float | None]


def rows(
    plpy: Any, cache: dict[str, Any], symbol: str, start: int, stop: int, width: int, params: str
) -> Iterator[Row]:
    """``(time, reasons, sigmas, wick, volume ratio, spread)`` of the grid times in [start, stop)
    that are to be dropped; ``width``: of the grid, in microseconds."""
    given = asked(plpy, params)
    begin, end = database.moments(plpy, start, stop)
    grid = np.arange(-(-begin // width) * width, end, width, dtype=np.int64)
    return _rows(MarketReader(Database.of(plpy, cache), symbol), grid, width, given)


def _rows(reader: MarketReader, grid: Times, width: int, params: Params) -> Iterator[Row]:
    for begin in range(0, len(grid), compute.READ):
        part = grid[begin : begin + compute.READ]
        found = find(reader, part, width, params)
        times = database.micros(*part.tolist())
        for row in np.flatnonzero(found.reasons.any(axis=1)).tolist():
            reasons = [REASONS[i] for i in np.flatnonzero(found.reasons[row])]
            measures = (
                float(x[row]) if np.isfinite(x[row]) else None
                for x in (found.sigmas, found.wick, found.volume_ratio, found.spread)
            )
            yield (times[row], reasons, *measures)  # type: ignore[misc]
