"""File formats: how to tell one, and how its rows become columns.

A :class:`Format` reads a block of rows (a pandas frame as parsed, columns by name) into the columns
of one kind of market data. What cannot be read becomes NaN, and the loader decides what that means;
a format drops nothing. Times become float64 microseconds since 1970 (exact until 2255).

Sources: the exchanges' public archive and stream documentation (Binance data.binance.vision, Bybit
public.bybit.com, OKX) and Tardis.dev's CSV schemas.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from alphaplus.loaders.instruments import Instrument

Floats = npt.NDArray[np.float64]
BOOK_LEVELS = 20


# Columns of ids: to be read as text, since as numbers they lose digits beside an empty cell.
ID_COLUMNS = ("id", "agg_trade_id", "trade_id", "trdMatchID")


class UnknownFormat(Exception):
    """No format fits the file; the message says what was seen."""


@dataclass(frozen=True)
class Context:
    """What the file's name and the user's options say where the rows do not."""

    path: Path
    exchange: str | None = None
    symbol: str | None = None
    timeframe: float | None = None
    volume_unit: str = "auto"
    kind: str | None = None

    def native(self) -> str:
        """The native symbol: the user's, else the start of the file's name (BTCUSDT-1m-….csv)."""
        if self.symbol:
            return self.symbol.upper()
        name = self.path.name.split(".")[0]
        match = re.match(r"([a-z]{2,6})[-_]perp", name, re.IGNORECASE)
        if match:
            return f"{match[1].upper()}-PERP"
        return re.split(r"[-_]", name)[0].upper()

    def venue(self, fallback: str) -> str:
        """The exchange: the user's, else what the format implies."""
        return self.exchange or fallback

    def instrument(self, fallback: str) -> Instrument:
        """The file's one instrument, in the archives of the venue ``fallback``.

        Binance's spot and futures archives look alike: the kind is the user's, else spot where a
        folder of the path is called spot (as in the archive), else the venue's.
        """
        kind = self.kind or ("spot" if "spot" in self.path.parts else None)
        venue = self.venue(fallback)
        if kind is None and venue.lower() == fallback.split("-", maxsplit=1)[0]:
            venue = fallback
        return Instrument.of(venue, self.native(), kind)


@dataclass
class Columns:
    """A block of one kind: columns of equal length, NaN where a cell could not be read.

    ``instrument`` is one for all rows, or ``instruments`` an object array of one a row.
    """

    ts: Floats
    values: dict[str, Any]
    instrument: Instrument | None = None
    instruments: npt.NDArray[Any] | None = None
    received: Floats | None = None
    rows: npt.NDArray[np.int64] | None = None  # which input rows these are; None: one each


Reader = Callable[[pd.DataFrame, Context], Columns]


@dataclass(frozen=True)
class Format:
    """One file format.

    ``needs``: the header's column names that tell it. ``headless``: a test of the first row's cells
    for files without a header, and the names to give them.
    """

    name: str
    kind: str
    needs: frozenset[str]
    read: Reader
    headless: Callable[[list[str], Context], bool] | None = None
    names: Sequence[str] = field(default_factory=tuple)


def number(column: Any) -> Floats:
    """Floats; NaN for what is no number."""
    if isinstance(column, pd.Series) and column.dtype.kind in "fiu":
        return column.to_numpy(dtype=np.float64)
    return pd.to_numeric(pd.Series(column), errors="coerce").to_numpy(dtype=np.float64)


def optional(column: Any) -> Floats:
    """Floats of a column that may be empty: NaN for an empty cell, infinity for no number."""
    values = number(column)
    wrong = np.isnan(values) & pd.Series(column).notna().to_numpy()
    return np.where(wrong, np.inf, values) if wrong.any() else values


def moment(column: Any) -> Floats:
    """Microseconds since 1970 from s, ms, µs or ns (told by their size) or from ISO text."""
    values = number(column)
    if np.isnan(values).all() and len(values):
        parsed = pd.to_datetime(pd.Series(column), errors="coerce", utc=True, format="ISO8601")
        micros = parsed.dt.as_unit("us").astype("int64").to_numpy().astype(np.float64)
        return np.where(parsed.isna().to_numpy(), np.nan, micros)
    size = np.abs(values)
    with np.errstate(invalid="ignore"):
        scale = np.select([size < 1e11, size < 1e14, size < 1e17], [1e6, 1e3, 1.0], 1e-3)
    return np.asarray(values * scale, dtype=np.float64)


def sign(column: Any, buy: set[str], sell: set[str]) -> Floats:
    """+1 or -1 from words or flags; NaN for anything else."""
    words = pd.Series(column).astype(str).str.strip().str.lower()
    out = np.full(len(words), np.nan)
    out[words.isin(buy).to_numpy()] = 1.0
    out[words.isin(sell).to_numpy()] = -1.0
    return out


_WORDS = ({"buy", "b", "bid"}, {"sell", "s", "ask"})
# The buyer was the maker: a seller hit the bid.
_MAKER = ({"false", "0"}, {"true", "1"})


def text(column: Any) -> npt.NDArray[np.str_]:
    """Text of ids and names, '' where there is none; without the .0 that a float column gives."""
    series = pd.Series(column)
    if series.dtype.kind == "f" and bool((series.dropna() % 1 == 0).all()):
        series = series.astype("Int64")
    if series.hasnans:  # as str it would cut all to one character
        series = series.astype(object).where(series.notna(), "")
    return series.astype(str).to_numpy(dtype=str)


def _per_row(
    frame: pd.DataFrame, exchange: str, native: str, kind: str | None = None
) -> dict[str, Any]:
    """One instrument for the block when its rows agree, else one a row.

    ``exchange`` is a column, or the venue of all rows.
    """
    natives, which = np.unique(text(frame[native]), return_inverse=True)
    if exchange in frame:
        venues, at = np.unique(text(frame[exchange]), return_inverse=True)
    else:
        venues, at = np.array([exchange]), np.zeros(len(frame), dtype=np.int64)
    code = at * len(natives) + which
    used = np.unique(code)
    known = {
        int(c): Instrument.of(str(venues[c // len(natives)]), str(natives[c % len(natives)]), kind)
        for c in used
    }
    if len(known) == 1:
        return {"instrument": known[int(used[0])]}
    table = np.empty(int(used.max(initial=0)) + 1, dtype=object)
    for c, instrument in known.items():
        table[c] = instrument
    return {"instruments": table[code]}


def base_units(chosen: dict[str, Any], size: Floats, price: Floats) -> Floats:
    """Sizes in base units, for the one instrument of a block or one a row."""
    if "instrument" in chosen:
        return np.asarray(chosen["instrument"].base_units(size, price), dtype=np.float64)
    out = size.copy()
    for instrument in set(chosen["instruments"]):
        keep = chosen["instruments"] == instrument
        out[keep] = instrument.base_units(size[keep], price[keep])
    return out


_INTERVAL = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def _bar_length(context: Context, ts: Floats) -> float:
    """Seconds: the user's, the file name's (…-1m-…), else the commonest distance of rows."""
    if context.timeframe:
        return context.timeframe
    match = re.search(r"[-_](\d+)([smhdw])(?=[-_.])", context.path.name)
    if match:
        return int(match[1]) * _INTERVAL[match[2]]
    steps = np.diff(np.unique(ts[np.isfinite(ts)]))
    if len(steps) == 0:
        return np.nan
    lengths, counts = np.unique(steps, return_counts=True)
    return float(lengths[np.argmax(counts)] / 1e6)


def _klines(frame: pd.DataFrame, context: Context) -> Columns:
    ts = moment(frame["open_time"])
    return Columns(
        ts,
        {
            **{name: number(frame[name]) for name in ("open", "high", "low", "close", "volume")},
            "quote_volume": optional(frame["quote_volume"]),
            "trade_count": optional(frame["count"]),
            "taker_buy_volume": optional(frame["taker_buy_volume"]),
            "timeframe": np.full(len(ts), _bar_length(context, ts)),
        },
        context.instrument("binance-futures"),
    )


def _plain_candles(frame: pd.DataFrame, context: Context) -> Columns:
    stamp = next(name for name in ("timestamp", "time", "date", "ts") if name in frame)
    ts = moment(frame[stamp])
    values = {name: number(frame[name]) for name in ("open", "high", "low", "close", "volume")}
    length = _bar_length(context, ts)
    minutes = max(length / 60.0, 1.0) if np.isfinite(length) else 1.0
    with np.errstate(invalid="ignore", divide="ignore"):
        typical = np.nanmedian(values["volume"] * values["close"]) / minutes if len(ts) else 0.0
        # A billion a minute traded is no base volume: such a file counts quote currency.
        quote = context.volume_unit == "quote" or (context.volume_unit == "auto" and typical > 1e9)
        if quote:
            values["quote_volume"] = values["volume"]
            values["volume"] = values["quote_volume"] / values["close"]
    values["timeframe"] = np.full(len(ts), length)
    if "symbol" in frame and context.symbol is None:
        venue = "exchange" if "exchange" in frame and context.exchange is None else None
        chosen = _per_row(frame, venue or context.venue("local"), "symbol", context.kind)
        return Columns(ts, values, **chosen)
    return Columns(ts, values, context.instrument("local"))


def _venue_candles(frame: pd.DataFrame, context: Context) -> Columns:
    ts = moment(frame["timestamp"])
    names = {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"}
    values: dict[str, Any] = {name: number(frame[short]) for name, short in names.items()}
    values["timeframe"] = np.full(len(ts), _bar_length(context, ts))
    return Columns(ts, values, **_venue_instruments(frame))


def _venue_instruments(frame: pd.DataFrame) -> Any:
    pairs = list(zip(text(frame["venue"]).tolist(), text(frame["coin"]).tolist(), strict=True))
    known = {
        (venue, coin): Instrument(
            venue, coin and coin + ("USDT" if venue in ("binance", "bybit", "okx") else "USD")
        )
        for venue, coin in set(pairs)
    }
    return {"instruments": np.array([known[pair] for pair in pairs], dtype=object)}


def _venue_funding(frame: pd.DataFrame, context: Context) -> Columns:
    del context
    # Some stamps carry milliseconds of delay; funding is at whole minutes.
    ts = np.round(moment(frame["timestamp"]) / 60e6) * 60e6
    return Columns(ts, {"rate": number(frame["funding_rate"])}, **_venue_instruments(frame))


def _venue_interest(frame: pd.DataFrame, context: Context) -> Columns:
    del context
    return Columns(
        moment(frame["timestamp"]), {"value": number(frame["oi_usd"])}, **_venue_instruments(frame)
    )


def _trades(
    ids: str, price: str, size: str, stamp: str, side: str, words: Any, venue: str
) -> Reader:
    def read(frame: pd.DataFrame, context: Context) -> Columns:
        return Columns(
            moment(frame[stamp]),
            {
                "id": text(frame[ids]),
                "price": number(frame[price]),
                "size": number(frame[size]),
                "sign": sign(frame[side], *words),
            },
            context.instrument(venue),
        )

    return read


def _named_trades(
    ids: str, price: str, size: str, stamp: str, side: str, native: str, venue: str
) -> Reader:
    def read(frame: pd.DataFrame, context: Context) -> Columns:
        names = pd.Series(text(frame[native]))
        kind = context.kind
        if kind is None and venue == "okx":
            kind = "perpetual" if names[names != ""].str.endswith("-SWAP").all() else "spot"
        chosen = _per_row(frame, context.venue(venue), native, kind or "perpetual")
        prices = number(frame[price])
        return Columns(
            moment(frame[stamp]),
            {
                "id": text(frame[ids]),
                "price": prices,
                "size": base_units(chosen, number(frame[size]), prices),
                "sign": sign(frame[side], *_WORDS),
            },
            **chosen,
        )

    return read


def _tardis(frame: pd.DataFrame, values: dict[str, Any]) -> Columns:
    received = moment(frame["local_timestamp"]) if "local_timestamp" in frame else None
    return Columns(
        moment(frame["timestamp"]),
        values,
        received=received,
        **_per_row(frame, "exchange", "symbol"),
    )


def _tardis_trades(frame: pd.DataFrame, context: Context) -> Columns:
    del context
    chosen = _per_row(frame, "exchange", "symbol")
    price = number(frame["price"])
    ids = text(frame["id"])
    if (ids == "").any():  # not every venue gives one: its content then tells a row from others
        content = [
            np.char.add("-", number(frame[name]).astype(str)) for name in ("price", "amount")
        ]
        made = np.char.add(text(frame["side"]), np.char.add(*content))
        ids = np.where(ids == "", made, ids)
    return _tardis(
        frame,
        {
            "id": ids,
            "price": price,
            "size": base_units(chosen, number(frame["amount"]), price),
            "sign": sign(frame["side"], *_WORDS),
        },
    )


def _tardis_liquidations(frame: pd.DataFrame, context: Context) -> Columns:
    return _tardis_trades(frame, context)


def _tardis_interest(frame: pd.DataFrame, context: Context) -> Columns:
    del context
    chosen = _per_row(frame, "exchange", "symbol")
    price = number(frame["mark_price"] if "mark_price" in frame else frame["last_price"])
    return _tardis(
        frame, {"open_interest": base_units(chosen, number(frame["open_interest"]), price)}
    )


def tardis_funding(frame: pd.DataFrame, context: Context) -> Columns:
    """Each row as funding at the time it is paid; the loader keeps the last one before then."""
    del context
    due = frame.assign(timestamp=frame["funding_timestamp"])
    return _tardis(due, {"rate": number(frame["funding_rate"])})


def _tardis_books(frame: pd.DataFrame, levels: dict[str, list[str]]) -> Columns:
    """Books of ``levels``: names of the columns of bid and ask prices and sizes, best first."""
    chosen = _per_row(frame, "exchange", "symbol")
    values: dict[str, Any] = {
        name: np.stack([number(frame[column]) for column in columns], axis=1)
        for name, columns in levels.items()
    }
    for side in ("bid", "ask"):
        values[f"{side}_sizes"] = np.stack(
            [
                base_units(chosen, values[f"{side}_sizes"][:, i], values[f"{side}_prices"][:, i])
                for i in range(values[f"{side}_sizes"].shape[1])
            ],
            axis=1,
        )
    # Several books may bear one exchange time; the receive time tells them apart.
    received = moment(frame["local_timestamp"])
    values["sequence"] = np.nan_to_num(received).astype(np.int64)
    return _tardis(frame, values)


def _tardis_snapshots(frame: pd.DataFrame, context: Context) -> Columns:
    del context
    count = sum(1 for name in frame.columns if re.fullmatch(r"asks\[\d+\]\.price", name))
    return _tardis_books(
        frame,
        {
            f"{side}_{what}": [f"{side}s[{i}].{column}" for i in range(count)]
            for side in ("bid", "ask")
            for what, column in (("prices", "price"), ("sizes", "amount"))
        },
    )


def _tardis_quotes(frame: pd.DataFrame, context: Context) -> Columns:
    del context
    return _tardis_books(
        frame,
        {
            f"{side}_{what}": [f"{side}_{column}"]
            for side in ("bid", "ask")
            for what, column in (("prices", "price"), ("sizes", "amount"))
        },
    )


def _binance_funding(frame: pd.DataFrame, context: Context) -> Columns:
    return Columns(
        np.round(moment(frame["calc_time"]) / 60e6) * 60e6,
        {
            "rate": number(frame["last_funding_rate"]),
            "interval": optional(frame["funding_interval_hours"]) * 3600.0,
        },
        context.instrument("binance-futures"),
    )


def _binance_metrics(frame: pd.DataFrame, context: Context) -> Columns:
    return Columns(
        moment(frame["create_time"].astype(str).str.replace(" ", "T")),
        {
            "open_interest": optional(frame["sum_open_interest"]),
            "value": optional(frame["sum_open_interest_value"]),
        },
        **_per_row(frame, context.venue("binance-futures"), "symbol", "perpetual"),
    )


def _binance_liquidations(frame: pd.DataFrame, context: Context) -> Columns:
    ts = moment(frame["time"])
    price = number(frame["average_price"])
    price = np.where(price > 0, price, number(frame["price"]))
    return Columns(
        ts,
        {
            "id": np.char.add(
                np.char.add(text(np.nan_to_num(ts).astype(np.int64)), "-"),
                text(frame["accumulated_fill_quantity"]),
            ),
            "price": price,
            "size": number(frame["accumulated_fill_quantity"]),
            "sign": sign(frame["side"], *_WORDS),
        },
        context.instrument("binance-futures"),
    )


_KLINES = (
    "open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "count",
    "taker_buy_volume", "taker_buy_quote_volume", "ignore",
)  # fmt: skip
_SPOT_TRADES = ("id", "price", "qty", "quote_qty", "time", "is_buyer_maker", "is_best_match")
_AGG = (
    "agg_trade_id", "price", "quantity", "first_trade_id", "last_trade_id", "transact_time",
    "is_buyer_maker", "is_best_match",
)  # fmt: skip


def _flag(cell: str) -> bool:
    return cell.strip().lower() in {"true", "false"}


FORMATS: tuple[Format, ...] = (
    Format(
        "binance klines",
        "candles",
        frozenset({"open_time", "taker_buy_volume", "close_time"}),
        _klines,
        lambda cells, _: len(cells) == len(_KLINES),
        _KLINES,
    ),
    Format(
        "binance aggTrades",
        "trades",
        frozenset({"agg_trade_id", "transact_time"}),
        _trades(
            "agg_trade_id",
            "price",
            "quantity",
            "transact_time",
            "is_buyer_maker",
            _MAKER,
            "binance-futures",
        ),
        lambda cells, _: len(cells) in (7, 8) and _flag(cells[6]),
        _AGG,
    ),
    Format(
        "binance trades",
        "trades",
        frozenset({"quote_qty", "is_buyer_maker", "time"}),
        _trades("id", "price", "qty", "time", "is_buyer_maker", _MAKER, "binance-futures"),
        lambda cells, _: len(cells) in (6, 7) and _flag(cells[5]),
        _SPOT_TRADES,
    ),
    Format(
        "binance fundingRate",
        "funding",
        frozenset({"calc_time", "last_funding_rate"}),
        _binance_funding,
    ),
    Format(
        "binance metrics",
        "open_interest",
        frozenset({"sum_open_interest", "create_time"}),
        _binance_metrics,
    ),
    Format(
        "binance liquidationSnapshot",
        "liquidations",
        frozenset({"accumulated_fill_quantity", "average_price"}),
        _binance_liquidations,
    ),
    Format(
        "bybit trades",
        "trades",
        frozenset({"trdMatchID", "tickDirection"}),
        _named_trades("trdMatchID", "price", "size", "timestamp", "side", "symbol", "bybit"),
    ),
    Format(
        "okx trades",
        "trades",
        frozenset({"instrument_name", "trade_id", "created_time"}),
        _named_trades(
            "trade_id", "price", "size", "created_time", "side", "instrument_name", "okx"
        ),
    ),
    Format(
        "tardis book_snapshot",
        "order_book",
        frozenset({"local_timestamp", "asks[0].price", "bids[0].price"}),
        _tardis_snapshots,
    ),
    Format(
        "tardis quotes",
        "order_book",
        frozenset({"local_timestamp", "ask_amount", "bid_amount"}),
        _tardis_quotes,
    ),
    Format(
        "tardis derivative_ticker",
        "open_interest",
        frozenset({"local_timestamp", "funding_rate", "open_interest"}),
        _tardis_interest,
    ),
    Format(
        "tardis derivative_ticker (funding)",
        "funding",
        frozenset({"local_timestamp", "funding_timestamp", "funding_rate"}),
        tardis_funding,
    ),
    Format(
        "tardis trades",
        "trades",
        frozenset({"exchange", "symbol", "local_timestamp", "id", "side", "price", "amount"}),
        _tardis_trades,
    ),
    Format(
        "tardis liquidations",
        "liquidations",
        frozenset({"exchange", "symbol", "local_timestamp", "id", "side", "price", "amount"}),
        _tardis_liquidations,
    ),
    Format(
        "venue candles", "candles", frozenset({"venue", "coin", "o", "h", "l", "c"}), _venue_candles
    ),
    Format(
        "venue funding", "funding", frozenset({"venue", "coin", "funding_rate"}), _venue_funding
    ),
    Format(
        "venue open interest",
        "open_interest",
        frozenset({"venue", "coin", "oi_usd"}),
        _venue_interest,
    ),
    Format(
        "candles", "candles", frozenset({"open", "high", "low", "close", "volume"}), _plain_candles
    ),
)


def detect(cells: list[str], context: Context, kind: str | None) -> tuple[Format, bool]:
    """The format of a table by its first row, and whether that row is a header.

    Raises:
        UnknownFormat: none fits; or the one that fits is of another kind than asked for.
    """
    names = {cell.strip() for cell in cells}
    fits = [f for f in FORMATS if f.needs <= names and (f.name != "candles" or _stamped(names))]
    wanted = [f for f in fits if kind in (None, f.kind)]
    if kind is None and _of_liquidations(context.path):
        wanted = [f for f in wanted if f.kind == "liquidations"] or wanted
    if wanted:
        return wanted[0], True
    if not fits:
        for f in FORMATS:
            if f.headless and f.headless(cells, context) and kind in (None, f.kind):
                return f, False
    seen = ", ".join(cells[:8])
    if fits:
        raise UnknownFormat(
            f"{context.path.name} looks like {fits[0].name} ({fits[0].kind}), not {kind}:"
            f" load it with `alphaplus load {fits[0].kind}`"
        )
    raise UnknownFormat(
        f"{context.path.name} has no format known here; its first row is: {seen}, …"
        f" Known: {', '.join(f.name for f in FORMATS)}, book feeds and liquidation streams (JSON)"
    )


def _of_liquidations(path: Path) -> bool:
    """Does its name, or else a folder called so, say that it is not of trades?"""
    name = path.name.lower()
    folders = {part.lower() for part in path.parts[:-1]}
    return "liquidation" in name or ("trade" not in name and "liquidations" in folders)


def _stamped(names: set[str]) -> bool:
    return bool(names & {"timestamp", "time", "date", "ts"})
