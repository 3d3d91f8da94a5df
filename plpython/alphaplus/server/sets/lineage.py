"""From which columns of the market's tables each feature of a set comes.

Of a user's set the syntax tree tells (sqlglot). A family is a numpy function of channels, so it is
asked: on random inputs, a feature whose value changes when one channel does comes from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from alphaplus.server.features import families
from alphaplus.server.market import revisions as w
from alphaplus.server.sets.sqlcheck.columns import lineage as lineage_of

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]

_BAR = {
    "open": ("candles.open", "trades.price"),
    "high": ("candles.high", "trades.price"),
    "low": ("candles.low", "trades.price"),
    "close": ("candles.close", "trades.price"),
    "volume": ("candles.volume", "trades.size"),
    # Where the source has no quote volume: volume x the mean of high, low and close.
    "quote_volume": (
        "candles.quote_volume", "candles.volume", "candles.high", "candles.low", "candles.close",
        "trades.price", "trades.size",
    ),
    "buy_volume": ("candles.taker_buy_volume", "trades.size", "trades.side"),
    # Candles have none: taker volume x the mean price, quote volume / volume, else the close.
    "buy_quote_volume": (
        "candles.taker_buy_volume", "candles.quote_volume", "candles.volume", "candles.close",
        "trades.price", "trades.size", "trades.side",
    ),
    "trade_count": ("candles.trade_count", "trades.trade_id"),
}  # fmt: skip
_BOOK = ("bid_prices", "bid_sizes", "ask_prices", "ask_sizes")
_BOOKS = {
    "two_sided_count": ("bid_prices", "ask_prices"),
    "relative_spread_sum": ("bid_prices", "ask_prices"),
    "imbalance_sum": ("bid_sizes", "ask_sizes"),
    "mid_sum": ("bid_prices", "ask_prices"),
    **{name: (name,) for name in _BOOK},
}
_LIQUIDATIONS = {
    "long_notional": ("notional", "side"),
    "short_notional": ("notional", "side"),
    "event_count": ("event_id",),
}
_TRADES = {"price": ("price",), "size": ("size",), "sign": ("side",)}
_QUOTES = {
    "bid": ("bid_prices",), "bid_size": ("bid_sizes",), "ask": ("ask_prices",),
    "ask_size": ("ask_sizes",),
}  # fmt: skip
ROWS = 24


def rows(
    plpy: Any, cache: dict[str, Any], definition: str, query: str | None
) -> list[tuple[str, list[str]]]:
    """``(feature, columns)`` of a user's SELECT, else of the family of that name."""
    if query is not None:
        return list(of_query(plpy, query).items())
    return list(of_family(families.find(plpy, cache, definition)).items())


def of_query(plpy: Any, query: str) -> dict[str, list[str]]:
    """Feature to ``schema.table.column`` of a user's SELECT."""
    from alphaplus.server.sets import user

    known = user.catalogue(plpy)
    found = lineage_of(query, known)
    return {name: found[name] for name in found if name not in ("ts", "symbol")}


def of_family(family: families.Family) -> dict[str, list[str]]:
    """Feature to ``schema.table.column`` of a family, found by changing one channel at a time."""
    found: dict[str, set[str]] = {name: set() for name in family.names}
    changes = _window_changes
    if family.series is not None:
        changes = _series_changes
    elif family.rows is not None:
        changes = _event_changes
    for sources, changed in changes(family):
        for name, moved in zip(family.names, changed, strict=True):
            if moved:
                found[name].update(f"market.{source}" for source in sources)
    return {name: sorted(columns) for name, columns in found.items()}


def _differs(one: Floats, other: Floats) -> npt.NDArray[np.bool_]:
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    return np.asarray((~same).any(axis=0))


def _bars(rng: np.random.Generator, shape: tuple[int, ...]) -> dict[str, Floats]:
    close = 100 * np.exp(np.cumsum(rng.normal(0, 2e-3, shape), axis=-1))
    opened = close * np.exp(rng.normal(0, 1e-3, shape))
    volume = rng.lognormal(2, 1, shape)
    buy = volume * rng.random(shape)
    return {
        "open": opened,
        "high": np.maximum(opened, close) * np.exp(np.abs(rng.normal(0, 1e-3, shape))),
        "low": np.minimum(opened, close) * np.exp(-np.abs(rng.normal(0, 1e-3, shape))),
        "close": close,
        "volume": volume,
        "quote_volume": volume * close,
        "buy_volume": buy,
        "buy_quote_volume": buy * close,
        "trade_count": np.rint(volume) + 1,
    }


def _inputs(family: families.Family, rng: np.random.Generator) -> families.Inputs:
    needs, grid = family.needs, family.grid
    times = np.arange(1, ROWS + 1, dtype=np.int64) * grid + 10_000 * grid
    parts: dict[str, Any] = {}
    if needs.bars:
        parts["bars"] = _bars(rng, (ROWS, needs.bars))
    if needs.book:
        shape = (ROWS, needs.book)
        steps = np.cumsum(rng.random((2, *shape, needs.levels)) * 3e-4 + 1e-5, axis=-1)
        mid = 100 * np.exp(rng.normal(0, 1e-3, shape))[..., None]
        sizes = rng.lognormal(3, 1.2, (2, *shape, needs.levels)) * rng.choice([0.1, 1], (*shape, 1))
        parts["book"] = {
            "two_sided_count": np.ones(shape),
            "relative_spread_sum": rng.random(shape) * 1e-4,
            "imbalance_sum": rng.random(shape) - 0.5,
            "mid_sum": mid[..., 0],
            "bid_prices": mid * (1 - steps[0]),
            "bid_sizes": sizes[0],
            "ask_prices": mid * (1 + steps[1]),
            "ask_sizes": sizes[1],
        }
    if needs.liquidations:
        shape = (ROWS, needs.liquidations)
        parts["liquidations"] = {name: rng.lognormal(8, 1, shape) for name in _LIQUIDATIONS}
        parts["liquidations_covered"] = np.ones(ROWS, dtype=bool)
    if needs.funding:
        parts["funding"] = rng.normal(0, 1e-4, ROWS)
    if needs.open_interest:
        parts["open_interest"] = rng.lognormal(8, 0.1, (ROWS, 2))
    if needs.quotes:
        count = 20 * (needs.quotes + ROWS)
        ts = np.sort(rng.integers(times[0] - needs.quotes * grid, times[-1], count))
        bid = np.round(100 + np.cumsum(rng.normal(0, 0.01, count)), 2)
        parts["quote_ts"] = ts
        parts["quotes"] = {
            "bid": bid, "bid_size": rng.lognormal(1, 1, count),
            "ask": bid + 0.01, "ask_size": rng.lognormal(1, 1, count),
        }  # fmt: skip
    return families.Inputs(times, **parts)


def _moved(values: Floats, rng: np.random.Generator, name: str) -> Floats:
    """The channel as it might have been: about as large, and as orderly."""
    if name == "sign":
        return np.where(rng.random(values.shape) < 0.5, values, -values)
    if name in ("bid_prices", "low", "bid"):
        return values * (1 - rng.random(values.shape) * 3e-3)
    if name in ("ask_prices", "high", "ask"):
        return values * (1 + rng.random(values.shape) * 3e-3)
    return values * np.exp(
        rng.normal(0, 0.3 if "size" in name or "volume" in name else 3e-3, values.shape)
    )


def _window_changes(
    family: families.Family,
) -> list[tuple[tuple[str, ...], npt.NDArray[np.bool_]]]:
    found = []

    compute = family.compute
    assert compute is not None  # one from windows

    def run(change: tuple[str, str] | None) -> Floats:
        # Made anew each time: a family may fill its windows in place.
        inputs = _inputs(family, np.random.default_rng(1))
        if change is not None:
            group, name = change
            rng = np.random.default_rng(2)
            held = getattr(inputs, group)
            if isinstance(held, dict):
                held[name] = _moved(held[name], rng, name)
            elif name == "ts":
                later = np.sort(held + rng.integers(0, w.MINUTE, held.shape))
                changed: dict[str, Any] = {group: later}
                inputs = replace(inputs, **changed)
            else:
                held *= np.exp(rng.normal(0, 0.1, held.shape))
        if family.of_book is not None:
            inputs.book.update(family.of_book(inputs.book))
        with np.errstate(all="ignore"):
            return compute(inputs)

    plain = run(None)
    needs = family.needs
    channels: list[tuple[str, str, tuple[str, ...]]] = []
    if needs.bars:
        channels += [("bars", name, sources) for name, sources in _BAR.items()]
    tables: tuple[tuple[str, str, Mapping[str, tuple[str, ...]], int], ...] = (
        ("book", "order_book_snapshots", _BOOKS, needs.book),
        ("liquidations", "liquidation_events", _LIQUIDATIONS, needs.liquidations),
        ("quotes", "order_book_snapshots", _QUOTES, needs.quotes),
        ("quote_ts", "order_book_snapshots", {"ts": ("ts",)}, needs.quotes),
        ("funding", "funding_rates", {"": ("rate", "funding_interval")}, needs.funding),
        ("open_interest", "open_interest", {"": ("open_interest", "value")}, needs.open_interest),
    )
    for group, table, columns, wanted in tables:
        if wanted:
            channels += [
                (group, name, tuple(f"{table}.{column}" for column in sources))
                for name, sources in columns.items()
            ]
    for group, name, sources in channels:
        found.append((sources, _differs(plain, run((group, name)))))
    return found


def _bar_series(
    width: int, start: int, end: int, first: int, last: int, change: str | None
) -> w.Series:
    """Random bars that open in [start, end): the same one at the same time, wherever it is read."""
    bucket = np.arange(-(-start // width) * width, end, width, dtype=np.int64)
    origin = first // width - 2000
    whole = _bars(np.random.default_rng(width % (2**31)), (last // width - origin + 2,))
    place = np.clip(bucket // width - origin, 0, len(whole["close"]) - 1)
    if change is not None:
        whole[change] = _moved(whole[change], np.random.default_rng(3), change)
    never = np.full(len(bucket), w.NEVER)
    return w.Series(
        w.Versions(
            bucket, bucket + width, never, {k: v[place] for k, v in whole.items()},
            families._BARS_HOW, bucket, bucket, np.zeros(len(bucket), dtype=np.int64),
        ),
        start, end, width,
    )  # fmt: skip


def _event_changes(
    family: families.Family,
) -> list[tuple[tuple[str, ...], npt.NDArray[np.bool_]]]:
    """Of the one family that reads events minute by minute."""
    from alphaplus.server.features import microstructure
    from alphaplus.server.market import events

    assert family.name == microstructure.FAMILY.name
    grid = (np.arange(1, ROWS + 1, dtype=np.int64) + 40_000) * w.MINUTE
    first, last = int(grid[0]), int(grid[-1])
    start = first - (microstructure.MINUTES + microstructure.MID_AGE) * w.MINUTE

    def run(change: tuple[str, str] | None) -> Floats:
        rng = np.random.default_rng(1)
        group, name = change or ("", "")

        def held(of: str, column: str, values: Floats) -> Floats:
            if (group, name) != (of, column):
                return values
            return _moved(values, np.random.default_rng(2), column)

        def times(of: str, count: int) -> Times:
            ts = np.sort(rng.integers(start, last, count))
            if (group, name) == (of, "ts"):
                ts = np.sort(ts + np.random.default_rng(2).integers(0, w.MINUTE, count))
            return ts

        ts = times("trades", 6000)
        closes = -(-(ts + 1) // w.MINUTE) * w.MINUTE
        trades = events.Trades(
            ts, closes, np.full(len(ts), w.NEVER),
            held("trades", "price", np.round(100 + np.cumsum(rng.normal(0, 0.01, 6000)), 2)),
            held("trades", "size", rng.lognormal(0, 1, 6000)),
            held("trades", "sign", rng.choice([-1.0, 1.0], 6000)),
        )  # fmt: skip
        ts = times("quotes", 3000)
        bid = np.round(100 + np.cumsum(rng.normal(0, 0.01, 3000)), 2)
        tops = events.Tops(
            ts, -(-(ts + 1) // w.MINUTE) * w.MINUTE, np.full(len(ts), w.NEVER),
            held("quotes", "bid", bid), held("quotes", "bid_size", rng.lognormal(1, 1, 3000)),
            held("quotes", "ask", bid + 0.01),
            held("quotes", "ask_size", rng.lognormal(1, 1, 3000)), np.zeros(3000, dtype=bool),
        )  # fmt: skip
        series = microstructure.minutes(trades, tops, start, (last - start) // w.MINUTE)
        begin = first - (microstructure.BARS + w.QUIET) * w.MINUTE
        bars = _bar_series(w.MINUTE, begin, last, first, last, name if group == "bars" else None)
        with np.errstate(all="ignore"):
            return microstructure._at(series, bars, grid)

    plain = run(None)
    channels = [("bars", name, sources) for name, sources in _BAR.items()]
    for group, table, columns in (
        ("trades", "trades", {**_TRADES, "ts": ("ts",)}),
        ("quotes", "order_book_snapshots", {**_QUOTES, "ts": ("ts",)}),
    ):
        channels += [
            (group, name, tuple(f"{table}.{column}" for column in sources))
            for name, sources in columns.items()
        ]
    return [(sources, _differs(plain, run((group, name)))) for group, name, sources in channels]


def _series_changes(
    family: families.Family,
) -> list[tuple[tuple[str, ...], npt.NDArray[np.bool_]]]:
    assert family.series is not None
    grid = (np.arange(1, 60, dtype=np.int64) * 7 + 40_000) * family.grid

    def run(change: str | None) -> Floats:
        def read(width: int, start: int, end: int) -> w.Series:
            return _bar_series(width, start, end, int(grid[0]), int(grid[-1]), change)

        with np.errstate(all="ignore"):
            return family.series(read, grid, None)  # type: ignore[misc]

    plain = run(None)
    return [(sources, _differs(plain, run(name))) for name, sources in _BAR.items()]
