"""What happened after t: the targets of models, from what is known by an as-of time.

A label is declared once, with its horizon h. Its value at grid time ``t`` looks at [t, t + h) and
is given only where that interval had ended, and its bars were known, by ``as_of``. Thresholds are
the symbol's own trailing quantile over intervals that had ended by ``t``, as known at ``t``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from alphaplus.server.features import families
from alphaplus.server.market import revisions as w

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]

KINDS = (
    "liquidation", "liquidation_volume", "direction", "return", "volatility", "spread", "imbalance",
    "mid", "regime",
)  # fmt: skip
CHUNK = 512


@dataclass(frozen=True)
class Label:
    """A label's declaration: kind, horizon in microseconds, parameters.

    Parameters: ``quantile`` (0.9), ``lookback_days`` (3), ``floor`` (quote currency, 0).
    """

    kind: str
    horizon: int
    quantile: float = 0.9
    lookback: int = 3 * 1440 * w.MINUTE
    floor: float = 0.0

    @classmethod
    def of(cls, kind: str, horizon_seconds: float, params: str | None) -> Label:
        """From a row of ml.labels."""
        given = json.loads(params or "{}")
        return cls(
            kind,
            round(horizon_seconds * w.SECOND),
            float(given.get("quantile", 0.9)),
            round(float(given.get("lookback_days", 3)) * 1440 * w.MINUTE),
            float(given.get("floor", 0.0)),
        )


def values(
    plpy: Any, cache: dict[str, Any], label: Label, symbol: str, grid: Times, step: int, as_of: int
) -> Floats:
    """The label at ascending grid times; NaN where it is not known by ``as_of``.

    Args:
        grid: (n,) microseconds.
        step: distance of the grid in microseconds; bars of that length are read.

    Returns:
        (n,) 0 or 1 for classes, numbers for regression.
    """
    if len(grid) == 0:
        return np.zeros(0)
    if label.kind == "regime":
        from alphaplus.server.regime import truth

        return truth.values(plpy, symbol, grid, step, as_of)
    ahead = -(-label.horizon // step)
    if label.kind in ("spread", "imbalance", "mid"):
        return _book(plpy, cache, label, symbol, grid, step, as_of)
    back = max(label.lookback // step, 1)
    thresholds = label.kind in ("liquidation", "volatility")
    reach = back if thresholds else 1
    first, last = int(grid[0]), min(int(grid[-1]) + (ahead + 1) * step, as_of)
    read = families.reader(plpy, cache, symbol, first, flows=False)
    series = read(step, first - (reach + 1) * step, last)
    bars = series.at(as_of)["close"]
    origin = series.start
    # Labels end where bars end: after that, nothing seen does not mean that nothing happened.
    known = np.flatnonzero(np.isfinite(bars))
    bars_end = origin + (int(known[-1]) + 1) * step if len(known) else origin
    done = (grid + label.horizon <= as_of) & (grid + label.horizon <= bars_end)
    out = np.full(len(grid), np.nan)
    if label.kind.startswith("liquidation"):
        needs = families.Needs(liquidations=reach)
        family = families.Family("label", 1, "1", "", (), needs, grid=step)
        sources = families.Sources(plpy, cache, (family,), symbol, first, last, live=False)
        future = _liquidated(sources, grid, ahead, step, as_of)
        done &= grid >= sources.covered_from
        if label.kind == "liquidation_volume":
            out[done] = future[done]
            return out
        limit = np.full(len(grid), np.nan)
        limit[done] = _liquidation_limit(sources, label, grid[done], ahead, back)
        limit = np.maximum(limit, label.floor)
        ok = done & np.isfinite(limit)
        out[ok] = future[ok] > limit[ok]
        return out
    position = (grid - origin) // step
    inside = position + ahead - 1 < len(bars)
    done &= inside
    before = bars[np.maximum(position - 1, 0)]
    after = bars[np.minimum(position + ahead - 1, len(bars) - 1)]
    change = np.log(after / before)
    if label.kind == "direction":
        ok = done & np.isfinite(change)
        out[ok] = change[ok] > 0
    elif label.kind == "return":
        ok = done & np.isfinite(change)
        out[ok] = 1e4 * change[ok]
    else:
        squares = np.diff(np.log(bars), prepend=np.nan) ** 2
        total = np.append(0.0, np.cumsum(np.nan_to_num(squares)))
        holes = np.append(0, np.cumsum(~np.isfinite(squares)))
        stop = np.minimum(position + ahead, len(bars))
        future = total[stop] - total[position]
        whole = holes[stop] == holes[position]
        limit = np.full(len(grid), np.nan)
        limit[done] = _volatility_limit(series, label, grid[done], ahead, back)
        ok = done & whole & np.isfinite(limit)
        out[ok] = future[ok] > limit[ok]
    return out


def _book(
    plpy: Any, cache: dict[str, Any], label: Label, symbol: str, grid: Times, step: int, as_of: int
) -> Floats:
    """Means over the snapshots of the last ``step`` before t + h; ``mid``: since that before t."""
    needs = families.Needs(book=1, levels=1)
    family = families.Family("label", 1, "1", "", (), needs, grid=step)
    last = int(grid[-1]) + label.horizon + step
    sources = families.Sources(
        plpy, cache, (family,), symbol, int(grid[0]), min(last, as_of), live=False
    )
    seen = sources.book.at(as_of)
    count = seen["two_sided_count"]
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = {
            "spread": 1e4 * seen["relative_spread_sum"] / count,
            "imbalance": seen["imbalance_sum"] / count,
            "mid": seen["mid_sum"] / count,
        }[label.kind]
    origin = sources.book.start
    then = (grid + label.horizon - origin) // step - 1
    done = (grid + label.horizon <= as_of) & (then >= 0) & (then < len(mean))
    out = np.full(len(grid), np.nan)
    out[done] = mean[then[done]]
    if label.kind == "mid":
        now = (grid - origin) // step - 1
        done &= (now >= 0) & (now < len(mean))
        out[~done] = np.nan
        out[done] = 1e4 * np.log(out[done] / mean[now[done]])
    return out


def _liquidated(
    sources: families.Sources, grid: Times, ahead: int, step: int, as_of: int
) -> Floats:
    """Notional liquidated in [t, t + h), as known by as_of."""
    seen = sources.liquidations.at(as_of)
    total = np.nan_to_num(seen["long_notional"]) + np.nan_to_num(seen["short_notional"])
    summed = np.append(0.0, np.cumsum(total))
    position = np.clip((grid - sources.liquidations.start) // step, 0, len(total))
    stop = np.minimum(position + ahead, len(total))
    # A running total leaves rounding dust where nothing was liquidated.
    events = np.append(0, np.cumsum(total > 0))
    return np.where(events[stop] > events[position], summed[stop] - summed[position], 0.0)


def _blocks(values: Floats, ahead: int) -> Floats:
    """(n, width) cut from its end into blocks of ``ahead``: (n, blocks, ahead), newest last."""
    count = values.shape[1] // ahead
    return values[:, values.shape[1] - count * ahead :].reshape(len(values), count, ahead)


def _liquidation_limit(
    sources: families.Sources, label: Label, grid: Times, ahead: int, back: int
) -> Floats:
    """The trailing quantile of h-sums over the blocks of [t - lookback, t), as known at t."""
    out = np.full(len(grid), np.nan)
    for begin in range(0, len(grid), CHUNK):
        part = grid[begin : begin + CHUNK]
        seen = sources.liquidations.windows(part, back, ("long_notional", "short_notional"))
        total = np.nan_to_num(seen["long_notional"]) + np.nan_to_num(seen["short_notional"])
        sums = _blocks(total, ahead).sum(axis=2)
        out[begin : begin + CHUNK] = np.quantile(sums, label.quantile, axis=1)
    # The whole lookback must have been covered.
    out[grid < sources.covered_from + label.lookback] = np.nan
    return out


def _volatility_limit(series: w.Series, label: Label, grid: Times, ahead: int, back: int) -> Floats:
    """The trailing quantile of realised variances of the blocks of [t - lookback, t)."""
    out = np.full(len(grid), np.nan)
    for begin in range(0, len(grid), CHUNK):
        part = grid[begin : begin + CHUNK]
        close = series.windows(part, back + 1, ("close",))["close"]
        squares = np.diff(np.log(close), axis=1) ** 2
        sums = _blocks(squares, ahead).sum(axis=2)
        whole = np.isfinite(sums)
        # Gaps leave blocks out; four fifths of them must be there.
        enough = whole.sum(axis=1) >= 0.8 * sums.shape[1]
        limit = np.full(len(part), np.nan)
        if enough.any():
            limit[enough] = np.nanquantile(sums[enough], label.quantile, axis=1)
        out[begin : begin + CHUNK] = limit
    return out
