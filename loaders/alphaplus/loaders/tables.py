"""The tables of market data: their keys, what their rows must be, and rows as COPY takes them."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from alphaplus.loaders.formats import Columns
from alphaplus.loaders.instruments import Instrument
from alphaplus.loaders.naming import MONTH
from alphaplus.loaders.pgcopy import Interval, Ragged, Text

Floats = npt.NDArray[np.float64]
EPOCH_2000 = 946_684_800 * 1_000_000
FUTURE = 60 * 1_000_000  # clocks differ; a minute ahead is not yet the future
DELAY = 86_400 * 1_000_000  # a receive time further from the event than this is none
# No price, size or turnover is beyond it, and what is made of such numbers fits a double.
LARGEST = 1e30
HELD = "bar not closed when the file was written"


@dataclass(frozen=True)
class Table:
    """Where a kind goes: table, key, content columns."""

    name: str
    key: tuple[str, ...]
    content: tuple[str, ...]


TABLES = {
    "candles": Table(
        "market.candles",
        ("symbol", "timeframe", "ts"),
        (
            "open",
            "high",
            "low",
            "close",
            "volume",
            "quote_volume",
            "trade_count",
            "taker_buy_volume",
        ),
    ),
    "trades": Table("market.trades", ("symbol", "ts", "trade_id"), ("price", "size", "side")),
    "order_book": Table(
        "market.order_book_snapshots",
        ("symbol", "ts", "sequence"),
        ("bid_prices", "bid_sizes", "ask_prices", "ask_sizes", "after_gap"),
    ),
    "liquidations": Table(
        "market.liquidation_events",
        ("symbol", "ts", "event_id"),
        ("side", "price", "size", "notional"),
    ),
    "funding": Table("market.funding_rates", ("symbol", "ts"), ("rate", "funding_interval")),
    "open_interest": Table("market.open_interest", ("symbol", "ts"), ("open_interest", "value")),
}


def instant(micros_2000: int) -> dt.datetime:
    """A time of microseconds since 2000."""
    return dt.datetime(2000, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=micros_2000)


def closes(ts: Floats, timeframe: Floats) -> Floats:
    """When bars end: a calendar month has its true length. Microseconds since 1970."""
    if len(timeframe) and timeframe[0] == MONTH:
        return _next_month(ts)
    return ts + timeframe * 1e6


def _next_month(ts: Floats) -> Floats:
    """The same day a calendar month later, or that month's last day, as PostgreSQL adds it."""
    good = np.isfinite(ts)
    moments = np.where(good, ts, 0).astype(np.int64).astype("datetime64[us]")
    month = moments.astype("datetime64[M]")
    day = moments.astype("datetime64[D]")
    after = (month + 1).astype("datetime64[D]")
    last = (month + 2).astype("datetime64[D]") - np.timedelta64(1, "D")
    to = np.minimum(after + (day - month.astype("datetime64[D]")), last)
    end = to.astype("datetime64[us]") + (moments - day.astype("datetime64[us]"))
    return np.where(good, end.astype(np.int64).astype(np.float64), np.nan)


def held(columns: Columns, written: float, now: float) -> npt.NDArray[np.bool_]:
    """Which bars were not closed yet: by their own word, by now, or when the file was written.

    A file that holds later bars than its own time of writing tells nothing by it.
    """
    ts = columns.ts
    end = closes(ts, columns.values["timeframe"])
    with np.errstate(invalid="ignore"):
        out = (ts <= now + FUTURE) & (end > now)
        if np.isfinite(written) and not (ts > written).any():
            out |= (ts <= written) & (end > written)
    if columns.open is not None:
        out |= columns.open
    return np.asarray(out, dtype=bool)


def check(kind: str, columns: Columns, since: float = 946_684_800e6) -> list[str]:
    """For each row the reason why it is refused, or ''."""
    n = len(columns.ts)
    v = columns.values
    reasons = np.full(n, "", dtype=object)

    def refuse(mask: Any, reason: str) -> None:
        reasons[np.asarray(mask) & (reasons == "")] = reason

    now = time.time() * 1e6
    end = closes(columns.ts, v["timeframe"]) if kind == "candles" else columns.ts
    with np.errstate(invalid="ignore", over="ignore"):
        refuse(np.isinf(columns.ts), "local time that occurs twice or never")
        refuse(~np.isfinite(columns.ts), "unparsable time")
        refuse(columns.ts < since, f"before {_day(since)} (--since)")
        refuse((columns.ts if kind == "candles" else end) > now + FUTURE, "future time")
        if columns.received is not None:
            refuse(columns.received > now + FUTURE, "future receive time")
            refuse(
                np.abs(columns.received - columns.ts) > DELAY,
                "receive time more than a day from the event",
            )
        if kind == "candles":
            _check_bars(columns, refuse)
        elif kind in ("trades", "liquidations"):
            refuse(~np.isfinite(v["price"]), "unparsable price")
            refuse(_not_positive(v["price"], columns), "price not positive")
            for reason, keep in _unconvertible(v["size"], columns):
                refuse(keep, reason)
            refuse(~np.isfinite(v["size"]), "unparsable size")
            refuse(v["size"] <= 0, "size not positive")
            refuse(~np.isfinite(v["sign"]), "unknown side")
            refuse(np.asarray(v["id"]) == "", "no id")
            refuse(v["price"] > LARGEST, "price too large")
            turnover = v["price"] * v["size"]
            refuse((v["size"] > LARGEST) | (turnover > LARGEST), "size too large")
            refuse(turnover <= 0, "size too small")
        elif kind == "order_book":
            for reason, keep in _unconvertible(v["bid_sizes"][:, 0], columns):
                refuse(keep & np.isfinite(v["bid_prices"][:, 0]), reason)
            bid, ask = v["bid_prices"][:, 0], v["ask_prices"][:, 0]
            refuse(~np.isfinite(bid) | ~np.isfinite(ask), "one-sided book")
            refuse(bid >= ask, "crossed book")
            for side, direction in (("bid", -1.0), ("ask", 1.0)):
                price, size = v[f"{side}_prices"], v[f"{side}_sizes"]
                there = np.isfinite(price)
                refuse((there != np.isfinite(size)).any(axis=1), "unparsable level")
                refuse((~there[:, :-1] & there[:, 1:]).any(axis=1), "unparsable level")
                refuse((price <= 0).any(axis=1), "price not positive")
                refuse((size < 0).any(axis=1), "negative size")
                refuse((price > LARGEST).any(axis=1), "price too large")
                refuse((size > LARGEST).any(axis=1), "size too large")
                refuse((direction * np.diff(price, axis=1) <= 0).any(axis=1), "levels out of order")
        elif kind == "funding":
            refuse(~np.isfinite(v["rate"]), "unparsable rate")
            refuse(np.abs(v["rate"]) > 0.5, "funding rate beyond 50 %")
            if "interval" in v:
                refuse(np.isinf(v["interval"]) | (v["interval"] <= 0), "unparsable interval")
        else:
            some = np.zeros(n, dtype=bool)
            if "open_interest" in v and "value" not in v:
                for reason, keep in _unconvertible(v["open_interest"], columns):
                    refuse(keep, reason)
            for name in ("open_interest", "value"):
                if name in v:
                    refuse(np.isinf(v[name]), "unparsable open interest")
                    refuse(v[name] > LARGEST, "open interest too large")
                    some |= np.isfinite(v[name])
                    refuse(v[name] < 0, "negative open interest")
            refuse(~some, "unparsable open interest")
    return list(reasons)


def _day(micros: float) -> str:
    return f"{instant(int(micros) - EPOCH_2000):%Y-%m-%d}"


def _negative_allowed(columns: Columns) -> Any:
    if columns.instrument is not None:
        return columns.instrument.negative_prices
    if columns.instruments is None:
        return False
    return np.array([i.negative_prices for i in columns.instruments], dtype=bool)


def _not_positive(price: Floats, columns: Columns) -> Any:
    return (price <= 0) & ~np.asarray(_negative_allowed(columns))


def _unconvertible(size: Floats, columns: Columns) -> Iterator[tuple[str, Any]]:
    """Rows whose sizes cannot be told in base units, with the reason."""
    nothing = np.isnan(size)
    if not nothing.any():
        return
    if columns.instrument is not None:
        if columns.instrument.native and (why := columns.instrument.missing()):
            yield why, nothing
    elif columns.instruments is not None:
        for instrument in set(columns.instruments[nothing]):
            if instrument.native and (why := instrument.missing()):
                yield why, nothing & (columns.instruments == instrument)


def _check_bars(columns: Columns, refuse: Any) -> None:
    v = columns.values
    refuse(~np.isfinite(v["timeframe"]), "bar length not known (--timeframe)")
    prices = np.stack([v[name] for name in ("open", "high", "low", "close")])
    refuse(~np.isfinite(prices).all(axis=0), "unparsable price")
    refuse(_not_positive(prices.min(axis=0), columns), "price not positive")
    refuse(v["high"] < v["low"], "high below low")
    refuse(
        (v["open"] > v["high"])
        | (v["open"] < v["low"])
        | (v["close"] > v["high"])
        | (v["close"] < v["low"]),
        "open or close outside the bar's range",
    )
    if "volume" in v:
        refuse(~np.isfinite(v["volume"]), "unparsable volume")
        refuse(v["volume"] < 0, "negative volume")
    for name in ("quote_volume", "trade_count", "taker_buy_volume"):
        if name in v:
            refuse(np.isinf(v[name]), f"unparsable {name.replace('_', ' ')}")
            refuse(v[name] < 0, f"negative {name.replace('_', ' ')}")
    if "taker_buy_volume" in v and "volume" in v:
        above = v["taker_buy_volume"] > v["volume"] * (1 + 1e-9)
        refuse(above, "taker buy volume above the volume")
    for name in ("high", "volume", "quote_volume", "trade_count"):
        if name in v:
            limit = LARGEST if name != "trade_count" else 1e15
            refuse(np.abs(v[name]) > limit, f"{name.replace('_', ' ')} too large")


def by_instrument(
    columns: Columns, good: npt.NDArray[np.bool_]
) -> Iterator[tuple[Instrument, npt.NDArray[np.int64]]]:
    """The good rows of each instrument."""
    rows = np.flatnonzero(good)
    if len(rows) == 0:
        return
    if columns.instrument is not None:
        yield columns.instrument, rows
        return
    assert columns.instruments is not None
    names = columns.instruments[rows]
    for instrument in sorted(set(names), key=lambda i: (i.exchange, i.native, i.kind or "")):
        yield instrument, rows[names == instrument]


def values(
    kind: str,
    columns: Columns,
    rows: npt.NDArray[np.int64],
    *,
    live: bool = False,
    lag: float = 0.0,
) -> dict[str, Any]:
    """The table's columns for some rows; times in microseconds since 2000.

    ``live``: known on arrival; ``lag``: seconds after its time (a bar: its close) at which history
    was known.
    """
    ts = np.rint(columns.ts[rows]).astype(np.int64) - EPOCH_2000
    v = {name: value[rows] for name, value in columns.values.items()}
    closed = ts.copy()
    out: dict[str, Any] = {"ts": ts}
    if kind == "candles":
        end = np.rint(closes(columns.ts[rows], v["timeframe"])).astype(np.int64)
        closed = end - EPOCH_2000
        month = len(v["timeframe"]) > 0 and v["timeframe"][0] == MONTH
        out["timeframe"] = np.full(len(ts), -1) if month else closed - ts
        for name in TABLES[kind].content:
            out[name] = v.get(name)
    elif kind in ("trades", "liquidations"):
        out |= {"price": v["price"], "size": v["size"], "side": v["sign"]}
        out["trade_id" if kind == "trades" else "event_id"] = v["id"]
        if kind == "liquidations":
            out["notional"] = v["price"] * v["size"]
    elif kind == "order_book":
        out |= {name: v[name] for name in ("bid_prices", "bid_sizes", "ask_prices", "ask_sizes")}
        out["sequence"] = v.get("sequence", np.zeros(len(ts), dtype=np.int64))
        out["after_gap"] = v.get("after_gap", np.zeros(len(ts), dtype=bool))
    elif kind == "funding":
        out["rate"] = v["rate"]
        interval = v.get("interval")
        out["funding_interval"] = None if interval is None else _whole(interval * 1e6)
    else:
        out |= {name: v.get(name) for name in ("open_interest", "value")}
    out["received_at"] = None
    if columns.received is not None:
        received = _whole(columns.received[rows] - EPOCH_2000)
        out["received_at"] = received
        out["known_at"] = np.where(received.mask, closed, np.maximum(closed, received.data))
    elif live:
        now = round(time.time() * 1e6) - EPOCH_2000
        out["known_at"] = np.maximum(closed, now)
    else:
        out["known_at"] = closed + round(lag * 1e6)
    return out


def _whole(numbers: Floats) -> Any:
    """Integers, masked where there is none."""
    missing = ~np.isfinite(numbers)
    return np.ma.masked_array(
        np.rint(np.where(missing, 0, numbers)).astype(np.int64), np.asarray(missing)
    )


def unique(rows: dict[str, Any], key: tuple[str, ...]) -> bool:
    """Has each row a key of its own?"""
    if key == ("symbol", "ts") or bool((np.diff(rows["ts"]) > 0).all()):
        return bool(len(np.unique(rows["ts"])) == len(rows["ts"]))
    parts = [rows[name] for name in key if name != "symbol"]
    frame = pd.DataFrame({str(i): part for i, part in enumerate(parts)})
    return not frame.duplicated().any()


def encoded(rows: dict[str, Any]) -> dict[str, Any]:
    """The values as :func:`alphaplus.loaders.pgcopy.rows` takes them; NaN becomes null."""
    out: dict[str, Any] = {}
    for name, value in rows.items():
        if isinstance(value, str):
            out[name] = Text(value)
        elif name in ("trade_id", "event_id"):
            out[name] = Text(np.char.encode(value.astype(str), "utf-8"))
        elif name == "side":
            out[name] = Text(np.where(value > 0, b"buy", b"sell"))
        elif value is None:
            out[name] = None
        elif name == "timeframe" and len(value) and value[0] == -1:
            out[name] = Interval(0, months=1)
        elif name in ("timeframe", "funding_interval"):
            out[name] = Interval(value)
        elif value.ndim == 2:
            out[name] = Ragged(value)
        elif value.dtype.kind == "f":
            missing = ~np.isfinite(value)
            if name == "trade_count":
                value = np.where(missing, 0, value).astype(np.int64)
            out[name] = np.ma.masked_array(value, missing)
        else:
            out[name] = value
    return out
