"""File formats: how to tell one, and how its rows become columns.

A :class:`Format` reads a block of rows (a pandas frame as parsed, columns by name) into the columns
of one kind of market data, by the :class:`~alphaplus.loaders.description.Description` of its file.
What cannot be read becomes NaN, and the loader decides what that means; a format drops nothing.
Times become float64 microseconds since 1970 (exact until 2255), sizes base units.

Sources: the exchanges' public archive and stream documentation (Binance data.binance.vision, Bybit
public.bybit.com, OKX, BitMEX, Kraken, Coinbase), Tardis.dev's CSV schemas, HistData and TrueFX.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from alphaplus.loaders import stamps
from alphaplus.loaders.description import Description, vendor_instrument
from alphaplus.loaders.instruments import BadName, Instrument
from alphaplus.loaders.instruments import base_units as in_base
from alphaplus.loaders.stamps import Clock, moment

Floats = npt.NDArray[np.float64]
BOOK_LEVELS = 20
TWICE = "\x1f"  # before the place of a column whose name another one has too


# Columns of ids: to be read as text, since as numbers they lose digits beside an empty cell.
ID_COLUMNS = ("id", "agg_trade_id", "trade_id", "trdMatchID", "update_id")


class UnknownFormat(Exception):
    """No format fits the file; the message says what was seen."""


@dataclass
class Columns:
    """A block of one kind: columns of equal length, NaN where a cell could not be read.

    ``instrument`` is one for all rows, or ``instruments`` an object array of one a row.
    ``open``: which bars were not closed yet. ``told``: which telling of a venue's trades it is.
    """

    ts: Floats
    values: dict[str, Any]
    instrument: Instrument | None = None
    instruments: npt.NDArray[Any] | None = None
    received: Floats | None = None
    rows: npt.NDArray[np.int64] | None = None  # which input rows these are; None: one each
    open: npt.NDArray[np.bool_] | None = None
    told: str = "trade"  # of trades: single ones, or those of one order together (aggTrade)


Reader = Callable[[pd.DataFrame, Description], Columns]


@dataclass(frozen=True)
class Format:
    """One file format.

    ``needs``: the header's column names that tell it. ``headless``: a test of the first row's cells
    for files without a header, and the names to give them. ``told``: which telling of the trades.
    """

    name: str
    kind: str
    needs: frozenset[str]
    read: Reader
    headless: Callable[[list[str], Description], bool] | None = None
    names: Sequence[str] = field(default_factory=tuple)
    told: str = "trade"


def number(column: Any) -> Floats:
    """Floats; NaN for what is no number."""
    return stamps.numbers(pd.Series(column))


def optional(column: Any) -> Floats:
    """Floats of a column that may be empty: NaN for an empty cell, infinity for no number."""
    values = number(column)
    wrong = np.isnan(values) & pd.Series(column).notna().to_numpy()
    return np.where(wrong, np.inf, values) if wrong.any() else values


def sign(column: Any, buy: set[str], sell: set[str]) -> Floats:
    """+1 or -1 from words or flags; NaN for anything else."""
    series = pd.Series(column)
    if series.dtype.kind == "b":
        out = np.where(series.to_numpy(), 1.0, -1.0)
        return out if "true" in buy else -out
    words = series.astype(str).str.strip().str.lower()
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


def _chosen(
    frame: pd.DataFrame, exchange: str, native: str, make: Callable[[str, str], Instrument]
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
    known = {}
    for c in used:
        try:
            known[int(c)] = make(str(venues[c // len(natives)]), str(natives[c % len(natives)]))
        except BadName as error:
            known[int(c)] = Instrument("", "", source=str(error))
    if len(known) == 1:
        return {"instrument": known[int(used[0])]}
    table = np.empty(int(used.max(initial=0)) + 1, dtype=object)
    for c, instrument in known.items():
        table[c] = instrument
    return {"instruments": table[code]}


def vendor_rows(frame: pd.DataFrame, d: Description) -> dict[str, Any]:
    """The instruments of a vendor's rows (columns exchange and symbol)."""
    return _chosen(
        frame, "exchange", "symbol", lambda venue, native: vendor_instrument(d, venue, native)
    )


def venue_rows(
    frame: pd.DataFrame, d: Description, venue: str, native: str, kind: str | None = None
) -> dict[str, Any]:
    """The instruments of one venue's rows, named in a column."""
    if d.said.symbol:
        return {"instrument": d.instrument(venue, kind)}
    return _chosen(frame, venue, native, lambda v, n: d.instrument(v, kind, n))


def base_units(
    chosen: Mapping[str, Any], size: Floats, price: Floats, d: Description | None = None
) -> Floats:
    """Sizes in base units, for the one instrument of a block or one a row."""
    unit = d.said.unit if d is not None else None
    if "instrument" in chosen:
        one = chosen["instrument"]
        return np.asarray(in_base(one, size, price, unit), dtype=np.float64)
    out = size.copy()
    for instrument in set(chosen["instruments"]):
        keep = chosen["instruments"] == instrument
        out[keep] = in_base(instrument, size[keep], price[keep], unit)
    return out


def _venue_clock(d: Description, column: Any, zone: str | None = "UTC") -> Clock:
    """The clock of a layout whose publisher states its zone, unless the user says another."""
    if d.said.tz or d.said.date_format:
        return d.clock(stamps.form(column), zone)
    return stamps.UTC if zone == "UTC" else Clock(zone)


# --- bars ------------------------------------------------------------------------------------------


def bars(
    d: Description,
    ts: Floats,
    values: dict[str, Any],
    chosen: dict[str, Any],
    close: Floats | None = None,
    is_open: npt.NDArray[np.bool_] | None = None,
) -> Columns:
    """Columns of bars: with their length, and the last ones that were not closed."""
    length = d.bar_length(ts, close)
    values["timeframe"] = np.full(len(ts), length)
    for name in ("volume", "quote_volume", "trade_count", "taker_buy_volume"):
        values.setdefault(name, None)
    return Columns(ts, {k: v for k, v in values.items() if v is not None}, **chosen, open=is_open)


def _binance(d: Description, frame: pd.DataFrame, stamp: str) -> Instrument:
    """The instrument of a file in Binance's archives.

    The folder says whether it is spot or a contract, or the symbol, or the content. A header says
    nothing: people write one over spot archives, which have none.
    """
    kind = d.said.kind or d.hints.kind
    if kind is None:
        times = number(frame[stamp])
        if len(times) and np.nanmin(times) >= 1e14:
            kind = (
                "spot"  # microseconds: the spot archives' since 2025, the others keep milliseconds
            )
            d.note("kind", kind, "content", "times in microseconds, as in the spot archive only")
        if "is_best_match" in frame and frame["is_best_match"].notna().all():
            kind = "spot"
            d.note("kind", kind, "content", "a column that the spot archive only has")
        if d.beside:
            kind = "derivative"
            d.note("kind", kind, "path", "beside mark or index prices, which contracts only have")
        if "base_qty" in frame:
            kind = "derivative"
            d.note("kind", kind, "header", "base_qty, a column of the COIN-M archive only")
    return d.instrument("binance", kind)


def _klines(frame: pd.DataFrame, d: Description) -> Columns:
    ts = moment(frame["open_time"], _venue_clock(d, frame["open_time"]))
    close = moment(frame["close_time"]) if "close_time" in frame else None
    instrument = _binance(d, frame, "open_time")
    values: dict[str, Any] = {
        name: number(frame[name]) for name in ("open", "high", "low", "close", "volume")
    }
    quote, count = optional(frame["quote_volume"]), optional(frame["count"])
    taker = optional(frame["taker_buy_volume"])
    if instrument.series != "traded":
        # Computed prices: no volume, and what counts them counts no trades.
        del values["volume"]
        return bars(d, ts, values, {"instrument": instrument}, _end(close))
    if len(ts) and "series" not in d.parts and d.said.series is None:
        volume = values["volume"]
        if (volume == 0).all() and (count > 0).any():
            raise d.missing(
                "whether these are traded prices", "series",
                "all volumes are 0 and counts are not, as in mark and index price files",
            )  # fmt: skip
    if instrument.margin == "inverse" and d.said.unit is None:
        # COIN-M: volume counts contracts, and the quote asset's columns hold base units.
        contracts = values["volume"]
        values["volume"] = quote
        size = instrument.contract_size
        quote = contracts * size if size is not None else np.full(len(ts), np.nan)
        if "taker_buy_quote_volume" in frame:
            taker = optional(frame["taker_buy_quote_volume"])
        d.note("unit", "contracts", "header", "COIN-M archive: volume in contracts, base beside it")
    values |= {"quote_volume": quote, "trade_count": count, "taker_buy_volume": taker}
    return bars(d, ts, values, {"instrument": instrument}, _end(close))


def _end(close: Floats | None) -> Floats | None:
    """When bars end, where close times are a millisecond or microsecond before."""
    return None if close is None else np.ceil(close / 1e6 - 1e-9) * 1e6


def _okx_candles(frame: pd.DataFrame, d: Description) -> Columns:
    ts = moment(frame["open_time"], _venue_clock(d, frame["open_time"]))
    if "instrument_name" in frame:
        chosen = venue_rows(frame, d, "okx", "instrument_name")
    else:
        chosen = {"instrument": d.instrument("okx")}
    prices = {name: number(frame[name]) for name in ("open", "high", "low", "close")}
    volume = base_units(chosen, number(frame["vol"]), prices["close"], d)
    one = chosen.get("instrument")
    contracts = one is None or one.kind != "spot"
    if contracts and "vol_ccy" in frame:
        # Of contracts vol_ccy is the base volume, exactly; of spot pairs vol is.
        told = number(frame["vol_ccy"])
        if one is not None:
            volume = told
        else:
            spot = np.array([i.kind == "spot" for i in chosen["instruments"]])
            volume = np.where(spot, volume, told)
    values: dict[str, Any] = {**prices, "volume": volume}
    if "vol_quote" in frame:
        values["quote_volume"] = optional(frame["vol_quote"])
    unfinished = number(frame["confirm"]) == 0 if "confirm" in frame else None
    return bars(d, ts, values, chosen, is_open=unfinished)


def _upbit_candles(frame: pd.DataFrame, d: Description) -> Columns:
    """Upbit's REST answer: the won pair is written quote first, the turnover is called price."""
    utc = frame["candle_date_time_utc"]
    ts = moment(utc, _venue_clock(d, utc))
    values: dict[str, Any] = {
        "open": number(frame["opening_price"]),
        "high": number(frame["high_price"]),
        "low": number(frame["low_price"]),
        "close": number(frame["trade_price"]),
        "volume": number(frame["candle_acc_trade_volume"]),
        "quote_volume": optional(frame["candle_acc_trade_price"]),
    }
    d.note("unit", "base", "header", "candle_acc_trade_volume")
    if "unit" in frame and len(frame) and d.said.timeframe is None:
        d.note("timeframe", float(number(frame["unit"])[0]) * 60.0, "content", "its unit, minutes")
    return bars(d, ts, values, venue_rows(frame, d, "upbit", "market", "spot"))


_TIME_NAMES = (
    "timestamp", "time", "ts", "datetime", "date", "open_time", "opentime", "timestamp_utc",
    "time_utc", "date_utc", "datetime_utc", "utc", "unix", "unix_timestamp", "unix_time", "epoch",
    "start", "start_time", "starttime", "period_start", "window_start", "time_period_start",
    "bar_start", "begin", "t", "timestamp_ms", "unixtime", "gmt_time", "candle_begin_time",
    "dtyyyymmdd", "kline_open_time", "time_open", "timestamp_start", "time_key", "candle_time",
    "open_timestamp", "starttimestamp",
)  # fmt: skip
_SYNONYMS: dict[str, tuple[str, ...]] = {
    "open": ("open", "o", "open_price", "openprice", "price_open"),
    "high": ("high", "h", "high_price", "highprice", "max", "price_high"),
    "low": ("low", "l", "low_price", "lowprice", "min", "price_low"),
    "close": ("close", "c", "close_price", "closeprice", "last", "price_close", "close_last"),
    "volume": (
        "volume", "vol", "v", "base_volume", "volume_base", "base_asset_volume", "volume_traded",
    ),
    "quote_volume": (
        "quote_volume", "quotevolume", "quote_asset_volume", "quote_av", "turnover", "volume_quote",
        "quote_vol", "volccyquote", "vol_quote", "quote_asset_vol",
    ),
    "trade_count": (
        "trade_count", "tradecount", "count", "trades", "number_of_trades", "num_trades",
        "trades_count", "transactions", "n_trades", "numtrades", "number_trades", "num_of_trades",
    ),
    "taker_buy_volume": (
        "taker_buy_volume", "taker_buy_base_asset_volume", "tb_base_av", "taker_buy_base",
        "taker_buy_base_volume", "taker_base_vol", "taker_buy_vol", "taker_buy_base_vol",
    ),
    "close_time": ("close_time", "closetime", "kline_close_time", "end_time", "time_period_end"),
    "symbol": (
        "symbol", "ticker", "pair", "instrument", "instrument_name", "market", "instrument_id",
        "product_id", "tic",
    ),
    "exchange": ("exchange", "venue"),
    "price": ("price", "p", "trade_price"),
    "size": ("size_base", "size", "amount", "qty", "quantity", "q", "base_qty", "vol", "volume"),
    "side": ("side", "taker_side", "takerside", "direction", "aggressor", "aggressor_side"),
    "buyer_maker": ("is_buyer_maker", "isbuyermaker", "buyer_maker"),
    "id": ("id", "trade_id", "tradeid", "tid", "exec_id", "trade_no", "match_id"),
    "received": (
        "local_timestamp", "receipt_timestamp", "received_at", "recv_time", "receive_time",
        "received_time",
    ),
    "bid": ("bid", "bid_price", "best_bid", "best_bid_price", "bidprice", "bid_px"),
    "ask": ("ask", "ask_price", "best_ask", "best_ask_price", "askprice", "ask_px", "offer"),
    "bid_size": (
        "bid_size", "bid_amount", "bid_qty", "best_bid_qty", "best_bid_size", "bidsize", "bid_sz",
        "bid_volume", "best_bid_amount",
    ),
    "ask_size": (
        "ask_size", "ask_amount", "ask_qty", "best_ask_qty", "best_ask_size", "asksize", "ask_sz",
        "ask_volume", "best_ask_amount",
    ),
    "rate": ("funding_rate", "fundingrate", "funding", "last_funding_rate"),
    "funding_time": (
        "funding_time", "fundingtime", "calc_time", "funding_timestamp", "settle_time",
    ),
}  # fmt: skip
_TICKS = ("tickvol", "tick_volume", "tickvolume")


def _canon(name: str) -> str:
    """A column's name as it is compared: small letters, words joined by underscores."""
    name = str(name).split(TWICE)[0]
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", str(name).strip().strip("<>"))
    return re.sub(r"[\s.\-/()]+", "_", name).strip("_").lower()


@dataclass(frozen=True)
class Mapped:
    """Which column of a file is which of ours. time: one column, or a date's and a time's."""

    names: Mapping[str, Any]
    time: tuple[Any, ...]
    unit_names: Mapping[str, str] = field(default_factory=dict)  # Volume USD: which currency

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def get(self, frame: pd.DataFrame, name: str) -> Any:
        """The column."""
        return frame[self.names[name]]


def mapped(columns: Sequence[Any], d: Description, *, strict: bool = True) -> Mapped:
    """Our names for a table's columns: the user's map first, then the usual names.

    Raises:
        Missing: two columns could be the same one of ours.
    """
    columns = list(columns)
    canon = [_canon(c) for c in columns]
    names: dict[str, Any] = {}
    time: tuple[Any, ...] = ()
    for ours, theirs in (d.said.columns or {}).items():
        if theirs.startswith("#") and theirs[1:].isdigit() and 0 < int(theirs[1:]) <= len(columns):
            column = columns[int(theirs[1:]) - 1]
        elif theirs in columns:
            column = theirs
        elif "+" in theirs and all(part in columns for part in theirs.split("+")):
            time = tuple(theirs.split("+"))
            continue
        else:
            raise d.missing(
                f"the column {theirs!r}",
                "columns",
                f"its columns are {', '.join(map(str, columns))}",
            )
        if ours in ("ts", "time", "timestamp"):
            time = (column,)
        else:
            names[ours] = column
    if d.said.columns:
        d.note("columns", None, "")
    taken = {*names.values(), *time}
    for ours, usual in _SYNONYMS.items():
        if ours in names:
            continue
        found = [
            c for c, name in zip(columns, canon, strict=True) if name in usual and c not in taken
        ]
        if len(found) > 1:
            best = min(usual.index(_canon(c)) for c in found)
            same = [c for c in found if usual.index(_canon(c)) == best]
            if len(same) > 1 and strict and _canon(same[0]) == _canon(same[1]):
                place = [i + 1 for i, c in enumerate(columns) if c in same]
                raise d.missing(
                    f"which of two columns called {_canon(same[0])!r} counts", "columns",
                    f"name one by its place, as in {ours}=#{place[0]}",
                )  # fmt: skip
            found = same
        if len(found) == 1 or (found and not strict):
            names[ours] = found[0]
    units: dict[str, str] = {}
    for c, name in zip(columns, canon, strict=True):  # CryptoDataDownload: Volume BTC, Volume USD
        if match := re.fullmatch(r"volume_([a-z0-9]{2,10})", name):
            units.setdefault(match[1].upper(), c)
    if not time:
        time = _time_columns(columns, canon, taken)
    return Mapped(names, time, units)


def _time_columns(columns: list[Any], canon: list[str], taken: set[Any]) -> tuple[Any, ...]:
    """The column of times, or those of a date and a time of day. A first column without a name is
    the index that pandas wrote."""
    where = {
        name: c for c, name in reversed(list(zip(columns, canon, strict=True))) if c not in taken
    }
    if "date" in where and "time" in where:
        return (where["date"], where["time"])
    if "dtyyyymmdd" in where and "time" in where:
        return (where["dtyyyymmdd"], where["time"])
    for name in ("unix", "unix_timestamp", "timestamp", *_TIME_NAMES):
        if name in where:
            return (where[name],)
    if canon[:1] in ([""], ["unnamed:_0"]) and columns[0] not in taken:
        return (columns[0],)
    return ()


def stamped(frame: pd.DataFrame, m: Mapped) -> Any:
    """The column of times; a date's and a time's joined."""
    if len(m.time) == 1:
        return frame[m.time[0]]
    day, clock = (frame[c] for c in m.time)
    hours = clock.astype(str).str.strip()
    if hours.str.fullmatch(r"0+(?::00)*(?:\.0+)?").all():
        return day  # bars of whole days, with a time of zero
    digits = hours.str.fullmatch(r"\d{1,6}")
    if digits.all():
        # hhmm where no cell has more than four digits, hhmmss otherwise
        short = hours.str.len().max() <= 4 and pd.to_numeric(hours).max() >= 100
        hours = hours.str.zfill(4) + "00" if short else hours.str.zfill(6)
    if number(day).size and np.isfinite(number(day)).all():
        return pd.Series(day.astype("int64").astype(str) + " " + hours)
    return day.astype(str).str.strip() + " " + hours


def _named(frame: pd.DataFrame, d: Description, m: Mapped) -> dict[str, Any]:
    """The instruments of a plain table: of its symbol column, or of its name."""
    if "symbol" not in m or d.said.symbol:
        return {"instrument": d.instrument()}
    column = m.names["symbol"]
    names = np.unique(text(frame[column]))
    # A column that repeats what the file's name says of one pair may write it otherwise.
    venue = m.names.get("exchange")
    if venue is not None and d.said.exchange is None:
        return _chosen(frame, venue, column, lambda v, n: d.instrument(v, None, n, vendor=True))
    if len(names) == 1 and d.hints.symbol is not None:
        plain = re.sub(r"[^A-Z0-9]", "", str(names[0]).upper())
        if plain == re.sub(r"[^A-Z0-9]", "", d.hints.symbol.upper()):
            return {"instrument": d.instrument()}

    def make(venue: str, native: str) -> Instrument:
        kind = None
        if d.said.kind is None and re.fullmatch(r"\w+/\w+", native) and d.hints.kind is None:
            kind = "spot"  # ccxt's unified name of a spot pair
        return d.instrument(None, kind, native)

    return _chosen(frame, d.venue(), column, make)


_BELIEVED = 5e9  # no market turns over more US dollars a minute


def _plain_candles(frame: pd.DataFrame, d: Description) -> Columns:
    m = mapped(list(frame.columns), d)
    times = stamped(frame, m)
    ts = moment(times, _plain_clock(d, times))
    chosen = _named(frame, d, m)
    one = chosen.get("instrument") or chosen["instruments"][0] if len(frame) else None
    values: dict[str, Any] = {
        name: number(m.get(frame, name)) for name in ("open", "high", "low", "close")
    }
    close = None
    if "close_time" in m:
        ends = m.get(frame, "close_time")
        if stamps.form(ends) not in ("either", "unknown"):
            close = _end(moment(ends, _plain_clock(d, ends)))
    if one is not None and one.series == "traded":
        _plain_volume(frame, d, m, chosen, values, ts)
    return bars(d, ts, values, chosen, close)


def _plain_clock(d: Description, times: Any) -> Clock:
    key = "_clock"
    if key not in d.cache:
        # A column called so says its zone itself: timestamp_utc, Gmt time.
        name = _canon(getattr(times, "name", None) or "")
        zone = "UTC" if re.search(r"(^|_)(utc|gmt)(_|$)", name) else None
        d.cache[key] = d.clock(stamps.form(times), None if d.said.tz else zone)
    return d.cache[key]  # type: ignore[no-any-return]


def _plain_volume(
    frame: pd.DataFrame,
    d: Description,
    m: Mapped,
    chosen: dict[str, Any],
    values: dict[str, Any],
    ts: Floats,
) -> None:
    """Volume in base units, and what a table has beside it."""
    one: Instrument = chosen.get("instrument") or chosen["instruments"][0]
    price = values["close"]
    named = dict(m.unit_names)
    base, quote = named.get(one.base), named.get(one.quote or "")
    if base is not None and d.said.columns is None:
        values["volume"] = number(frame[base])
        d.note("unit", "base", "header", str(base))
        if quote is not None:
            values["quote_volume"] = optional(frame[quote])
    elif quote is not None and "volume" not in m:
        told = number(frame[quote])
        values["volume"], values["quote_volume"] = np.divide(told, price), told
        d.note("unit", "quote", "header", str(quote))
    elif "volume" in m:
        told = number(m.get(frame, "volume"))
        beside = optional(m.get(frame, "quote_volume")) if "quote_volume" in m else None
        if one.kind == "fx" and beside is None and d.said.unit is None and "unit" not in d.parts:
            # Nobody's exchange: price changes, lots or millions of one bank's, by publisher.
            d.notes.append(
                "the volume of a currency pair may count price changes, lots or millions: it is"
                " not stored unless --unit says what it counts"
            )
        else:
            unit = _volume_unit(d, one, told, beside, price, ts)
            _convert(d, chosen, values, told, price, unit)
            if unit == "quote":
                values["quote_volume"] = told
            elif beside is not None:
                values["quote_volume"] = beside
    elif "quote_volume" in m:
        told = optional(m.get(frame, "quote_volume"))
        with np.errstate(divide="ignore", invalid="ignore"):
            values["volume"], values["quote_volume"] = np.divide(told, price), told
        d.note("unit", "quote", "header", "a column called quote volume")
    for name in ("trade_count", "taker_buy_volume"):
        if name in m:
            values[name] = optional(m.get(frame, name))
    if "taker_buy_volume" in values and d.parts.get("unit") and d.parts["unit"].value != "base":
        taker = values["taker_buy_volume"]
        values["taker_buy_volume"] = _in(d, chosen, taker, price, d.parts["unit"].value)


def _in(d: Description, chosen: dict[str, Any], size: Floats, price: Floats, unit: str) -> Floats:
    if "instrument" in chosen:
        return np.asarray(in_base(chosen["instrument"], size, price, unit), dtype=np.float64)
    out = size.copy()
    for i in set(chosen["instruments"]):
        keep = chosen["instruments"] == i
        out[keep] = in_base(i, size[keep], price[keep], unit)
    return out


def _convert(
    d: Description,
    chosen: dict[str, Any],
    values: dict[str, Any],
    told: Floats,
    price: Floats,
    unit: str,
) -> None:
    one = chosen.get("instrument")
    if one is not None and (why := one.missing(unit)):
        raise d.missing(f"what a contract of {one.native} is", "contract_size", why)
    values["volume"] = _in(d, chosen, told, price, unit)


def _volume_unit(
    d: Description, one: Instrument, told: Floats, beside: Floats | None, price: Floats, ts: Floats
) -> str:
    """What a column called volume counts.

    Of spot pairs and shares it is base units, as is said everywhere; of contracts
    nobody can know, unless turnover in quote currency stands beside it.
    """
    if "unit" in d.parts:
        return str(d.parts["unit"].value)
    if d.said.unit is not None:
        return str(d.note("unit", None, ""))
    if beside is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = beside / (told * price)
        ratio = ratio[np.isfinite(ratio) & (ratio > 0)]
        if len(ratio):
            if 0.8 < np.median(ratio) < 1.25:
                return str(
                    d.note("unit", "base", "content", "volume times price is the quote volume")
                )
            raise d.missing(
                "what volume counts", "unit",
                f"it is not the quote volume over the price (off by {np.median(ratio):.3g})",
            )  # fmt: skip
    if one.kind == "perpetual" and one.unit == "base" and d.hints.tool == "freqtrade":
        # ccxt's candles, and this venue counts base units of its linear contracts.
        return str(d.note("unit", "base", "path", "freqtrade's candles of a venue of base units"))
    if one.kind in ("perpetual", "future", "option"):
        raise d.missing(
            "what volume counts", "unit",
            f"of a {one.kind} contract it may be base units, quote currency or contracts",
        )  # fmt: skip
    with np.errstate(invalid="ignore", over="ignore"):
        turnover = np.abs(told * price)
    turnover = turnover[np.isfinite(turnover)]
    dollars = one.quote in (None, "USD", "USDT", "USDC", "EUR", "GBP", "FDUSD", "BUSD")
    coin = one.base in ("BTC", "ETH", "SOL", "BNB", "XRP", "DOGE") or one.quote is not None
    length = d.parts["timeframe"].value if "timeframe" in d.parts else None
    minutes = max((length or float(d.bar_length(ts))) / 60.0, 1.0)
    limit = _BELIEVED * minutes * (1 if dollars else 30_000)
    if coin and len(turnover) and np.median(turnover) > limit:
        raise d.missing(
            "what volume counts", "unit",
            f"as base units it would turn over {np.median(turnover):.3g} {one.quote or ''} a bar",
        )  # fmt: skip
    return str(d.note("unit", "base", "header", "a column called volume"))


def _kraken_ohlcvt(frame: pd.DataFrame, d: Description) -> Columns:
    ts = moment(frame["time"])
    values: dict[str, Any] = {
        name: number(frame[name]) for name in ("open", "high", "low", "close", "volume")
    }
    values["trade_count"] = optional(frame["count"])
    minutes = re.search(r"_(\d+)(?=\.|$)", d.path.name)
    if minutes and d.said.timeframe is None:
        d.note("timeframe", int(minutes[1]) * 60.0, "path", "Kraken names files by minutes")
    return bars(d, ts, values, {"instrument": d.instrument("kraken", "spot")})


def _histdata_bars(frame: pd.DataFrame, d: Description) -> Columns:
    ts = moment(frame["time"], _venue_clock(d, frame["time"], "Etc/GMT+5"))
    d.note("tz", "Etc/GMT+5", "header", "HistData: Eastern time without daylight saving")
    values: dict[str, Any] = {
        name: number(frame[name]) for name in ("open", "high", "low", "close")
    }
    d.note("timeframe", 60.0, "header")
    return bars(d, ts, values, {"instrument": d.instrument(None, "fx")})


def _venue_candles(frame: pd.DataFrame, d: Description) -> Columns:
    ts = moment(frame["timestamp"], _plain_clock(d, frame["timestamp"]))
    names = {"open": "o", "high": "h", "low": "l", "close": "c"}
    values: dict[str, Any] = {name: number(frame[short]) for name, short in names.items()}
    chosen = _coins(frame, d)
    told = number(frame["v"])
    if d.said.unit:
        values["volume"] = _in(d, chosen, told, values["close"], d.said.unit)
        if d.said.unit == "quote":
            values["quote_volume"] = told
    else:
        values["volume"] = base_units(chosen, told, values["close"])
        d.note("unit", "the venue's own", "instruments", "each venue's rule")
    return bars(d, ts, values, chosen)


def _coins(frame: pd.DataFrame, d: Description) -> dict[str, Any]:
    """Instruments of rows that name a venue and a coin: the description says kind and quote."""
    if d.said.kind is None:
        raise d.missing("the kind of market", "kind", "its rows name a venue and a coin only")
    if d.said.quote is None and not d.quotes:
        raise d.missing("the quote currency", "quote", "its rows name a venue and a coin only")

    def make(venue: str, coin: str) -> Instrument:
        if not coin:
            raise BadName("no symbol")
        quote = d.said.quote or d.quotes.get(venue) or d.quotes["*"]
        contract = d.said.kind == "perpetual"
        # As the venues themselves write the names of their perpetuals.
        forms = {
            "okx": ("okx", f"{coin}-{quote}-SWAP"),
            "kraken": ("krakenfutures", f"PF_{'XBT' if coin == 'BTC' else coin}{quote}"),
            "dydx": ("dydx", f"{coin}-{quote}"),
            "hyperliquid": ("hyperliquid", coin),
            "lighter": ("lighter", coin),
        }
        at, native = forms.get(venue, (venue, f"{coin}{quote}")) if contract else (
            venue, f"{coin}{quote}"
        )  # fmt: skip
        return d.catalog.instrument(at, native, d.said.kind)

    return _chosen(frame, "venue", "coin", make)


def _venue_funding(frame: pd.DataFrame, d: Description) -> Columns:
    # Some stamps carry milliseconds of delay; funding is at whole minutes.
    ts = np.round(moment(frame["timestamp"], _plain_clock(d, frame["timestamp"])) / 60e6) * 60e6
    return Columns(ts, {"rate": number(frame["funding_rate"])}, **_coins(frame, d))


def _venue_interest(frame: pd.DataFrame, d: Description) -> Columns:
    return Columns(
        moment(frame["timestamp"], _plain_clock(d, frame["timestamp"])),
        {"value": number(frame["oi_usd"])},
        **_coins(frame, d),
    )


# --- trades ----------------------------------------------------------------------------------------


def _binance_trades(ids: str, size: str, stamp: str) -> Reader:
    def read(frame: pd.DataFrame, d: Description) -> Columns:
        names = text(frame[ids])
        prices = number(frame["price"])
        instrument = _binance(d, frame, stamp)
        d.unit(instrument)
        return Columns(
            moment(frame[stamp]),
            {
                "id": names,
                "price": prices,
                "size": base_units({"instrument": instrument}, number(frame[size]), prices, d),
                "sign": sign(frame["is_buyer_maker"], *_MAKER),
            },
            instrument,
        )

    return read


def _named_trades(
    ids: str, size: str, stamp: str, native: str, venue: str, kind: str | None
) -> Reader:
    def read(frame: pd.DataFrame, d: Description) -> Columns:
        at = venue
        if venue == "bybit" and str(frame[stamp].iloc[0])[10:11] == "D":
            at = "bitmex"  # whose archive has the same columns, and writes times with a D
        chosen = venue_rows(frame, d, at, native, kind)
        prices = number(frame["price"])
        told = number(frame[size])
        sizes = base_units(chosen, told, prices, d)
        if "homeNotional" in frame:
            # The row's own base size stands in where the contract is not known, or is a quanto.
            home = number(frame["homeNotional"])
            sizes = np.where(np.isfinite(sizes), sizes, np.where(home > 0, home, np.nan))
        return Columns(
            moment(frame[stamp], _venue_clock(d, frame[stamp])),
            {
                "id": text(frame[ids]),
                "price": prices,
                "size": sizes,
                "sign": sign(frame["side"], *_WORDS),
            },
            **chosen,
        )

    return read


def _bybit_spot(frame: pd.DataFrame, d: Description) -> Columns:
    instrument = d.instrument("bybit", "spot")
    return Columns(
        moment(frame["timestamp"]),
        {
            "id": text(frame["id"]),
            "price": number(frame["price"]),
            "size": number(frame["volume"]),
            "sign": sign(frame["side"], *_WORDS),
        },
        instrument,
    )


def _plain_trades(frame: pd.DataFrame, d: Description) -> Columns:
    m = mapped(list(frame.columns), d)
    times = stamped(frame, m)
    ts = moment(times, _plain_clock(d, times))
    chosen = _named(frame, d, m)
    one: Instrument = chosen.get("instrument") or chosen["instruments"][0]
    price, told = number(m.get(frame, "price")), number(m.get(frame, "size"))
    named_base = _canon(m.names["size"]) == "size_base"
    unit = d.unit(one, "base" if named_base else None)
    if unit is None and one.kind is None and one.exchange == "local":
        unit = str(d.note("unit", "base", "header", "a column of sizes"))
    if unit is None:
        raise d.missing("what sizes count", "unit", one.missing())
    if why := one.missing(unit):
        raise d.missing(f"what a contract of {one.native} is", "contract_size", why)
    if "buyer_maker" in m:
        signs = sign(m.get(frame, "buyer_maker"), *_MAKER)
    else:
        signs = sign(m.get(frame, "side"), *_WORDS)
        if one.exchange == "coinbase":
            # Coinbase's side is the maker's: its documentation of /products/{id}/trades.
            signs = -signs
            d.notes.append("Coinbase's side is the maker's order: the aggressor's is the other")
    if "id" in m:
        ids = text(m.get(frame, "id"))
    else:
        raise d.missing("the id of each trade", "columns", "no column of ids, as in id=…")
    received = moment(m.get(frame, "received")) if "received" in m else None
    return Columns(
        ts,
        {"id": ids, "price": price, "size": _in(d, chosen, told, price, unit), "sign": signs},
        received=received,
        **chosen,
    )


def _tardis(
    frame: pd.DataFrame,
    values: dict[str, Any],
    d: Description,
    chosen: dict[str, Any] | None = None,
) -> Columns:
    received = moment(frame["local_timestamp"]) if "local_timestamp" in frame else None
    return Columns(
        moment(frame["timestamp"]),
        values,
        received=received,
        **(vendor_rows(frame, d) if chosen is None else chosen),
    )


def _tardis_trades(frame: pd.DataFrame, d: Description) -> Columns:
    chosen = vendor_rows(frame, d)
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
            "size": base_units(chosen, number(frame["amount"]), price, d),
            "sign": sign(frame["side"], *_WORDS),
        },
        d,
        chosen,
    )


def _tardis_liquidations(frame: pd.DataFrame, d: Description) -> Columns:
    return _tardis_trades(frame, d)


def _tardis_interest(frame: pd.DataFrame, d: Description) -> Columns:
    chosen = vendor_rows(frame, d)
    price = number(frame["mark_price"] if "mark_price" in frame else frame["last_price"])
    return _tardis(
        frame,
        {"open_interest": base_units(chosen, number(frame["open_interest"]), price, d)},
        d,
        chosen,
    )


def tardis_funding(frame: pd.DataFrame, d: Description) -> Columns:
    """Each row as funding at the time it is paid; the loader keeps the last one before then."""
    due = frame.assign(timestamp=frame["funding_timestamp"])
    return _tardis(due, {"rate": number(frame["funding_rate"])}, d)


# --- books -----------------------------------------------------------------------------------------


def _books(
    frame: pd.DataFrame,
    levels: dict[str, list[str]],
    chosen: dict[str, Any],
    d: Description,
) -> dict[str, Any]:
    """Books of ``levels``: names of the columns of bid and ask prices and sizes, best first."""
    values: dict[str, Any] = {
        name: np.stack([number(frame[column]) for column in columns], axis=1)
        for name, columns in levels.items()
    }
    for side in ("bid", "ask"):
        values[f"{side}_sizes"] = np.stack(
            [
                base_units(chosen, values[f"{side}_sizes"][:, i], values[f"{side}_prices"][:, i], d)
                for i in range(values[f"{side}_sizes"].shape[1])
            ],
            axis=1,
        )
    return values


def _tardis_books(frame: pd.DataFrame, levels: dict[str, list[str]], d: Description) -> Columns:
    chosen = vendor_rows(frame, d)
    values = _books(frame, levels, chosen, d)
    # Several books may bear one exchange time; the receive time tells them apart.
    received = moment(frame["local_timestamp"])
    values["sequence"] = np.nan_to_num(received).astype(np.int64)
    return _tardis(frame, values, d, chosen)


def _tardis_snapshots(frame: pd.DataFrame, d: Description) -> Columns:
    count = sum(1 for name in frame.columns if re.fullmatch(r"asks\[\d+\]\.price", name))
    return _tardis_books(
        frame,
        {
            f"{side}_{what}": [f"{side}s[{i}].{column}" for i in range(count)]
            for side in ("bid", "ask")
            for what, column in (("prices", "price"), ("sizes", "amount"))
        },
        d,
    )


def _tardis_quotes(frame: pd.DataFrame, d: Description) -> Columns:
    return _tardis_books(frame, _best("bid_price", "bid_amount", "ask_price", "ask_amount"), d)


def _best(bid: str, bid_size: str, ask: str, ask_size: str) -> dict[str, list[str]]:
    return {
        "bid_prices": [bid], "bid_sizes": [bid_size], "ask_prices": [ask], "ask_sizes": [ask_size],
    }  # fmt: skip


def _binance_ticker(frame: pd.DataFrame, d: Description) -> Columns:
    instrument = d.instrument("binance", "derivative")  # spot has no such archive
    names = _best("best_bid_price", "best_bid_qty", "best_ask_price", "best_ask_qty")
    values = _books(frame, names, {"instrument": instrument}, d)
    values["sequence"] = np.nan_to_num(number(frame["update_id"])).astype(np.int64)
    return Columns(moment(frame["transaction_time"]), values, instrument)


def _plain_quotes(frame: pd.DataFrame, d: Description) -> Columns:
    m = mapped(list(frame.columns), d)
    times = stamped(frame, m)
    ts = moment(times, _plain_clock(d, times))
    chosen = _named(frame, d, m)
    one: Instrument = chosen.get("instrument") or chosen["instruments"][0]
    if one.kind is None and one.exchange != "local":
        raise d.missing(f"the kind of {one.native}", "kind")
    unit = d.unit(one) or ("base" if one.kind is None else None)
    if unit is None:
        raise d.missing("what sizes count", "unit", one.missing())
    names = _best(*(str(m.names[n]) for n in ("bid", "bid_size", "ask", "ask_size")))
    values: dict[str, Any] = {
        name: np.stack([number(frame[c]) for c in columns], axis=1)
        for name, columns in names.items()
    }
    for side in ("bid", "ask"):
        sizes, prices = values[f"{side}_sizes"][:, 0], values[f"{side}_prices"][:, 0]
        values[f"{side}_sizes"] = _in(d, chosen, sizes, prices, unit)[:, None]
    values["sequence"] = d.first + np.arange(len(frame), dtype=np.int64)
    received = moment(m.get(frame, "received")) if "received" in m else None
    return Columns(ts, values, received=received, **chosen)


def _ticks(frame: pd.DataFrame, d: Description, zone: str) -> Columns:
    """Bid and ask without sizes: books of one level of size 0."""
    ts = moment(frame["time"], _venue_clock(d, frame["time"], zone))
    d.note("tz", zone, "header", "the layout's publisher says so")
    if "pair" in frame:
        chosen = _chosen(frame, "local", "pair", lambda v, n: d.instrument(None, "fx", n))
    else:
        chosen = {"instrument": d.instrument(None, "fx")}
    values: dict[str, Any] = {
        "bid_prices": number(frame["bid"])[:, None],
        "ask_prices": number(frame["ask"])[:, None],
        "bid_sizes": np.zeros((len(frame), 1)),
        "ask_sizes": np.zeros((len(frame), 1)),
        "sequence": d.first + np.arange(len(frame), dtype=np.int64),
    }
    d.notes.append("quotes without sizes: stored with size 0")
    return Columns(ts, values, **chosen)


# --- funding, open interest, liquidations ------------------------------------------------------------


def _binance_funding(frame: pd.DataFrame, d: Description) -> Columns:
    return Columns(
        np.round(moment(frame["calc_time"]) / 60e6) * 60e6,
        {
            "rate": number(frame["last_funding_rate"]),
            "interval": optional(frame["funding_interval_hours"]) * 3600.0,
        },
        d.instrument("binance", "derivative"),
    )


def _plain_funding(frame: pd.DataFrame, d: Description) -> Columns:
    m = mapped(list(frame.columns), d)
    times = m.get(frame, "funding_time") if "funding_time" in m else stamped(frame, m)
    ts = np.round(moment(times, _plain_clock(d, times)) / 60e6) * 60e6
    if "instrument_name" in frame:
        chosen = venue_rows(frame, d, "okx", "instrument_name", None)
    elif "symbol" in m:
        chosen = _named(frame, d, m)
    else:
        chosen = {"instrument": d.instrument(None, "perpetual")}
    return Columns(ts, {"rate": number(m.get(frame, "rate"))}, **chosen)


def _candle_funding(frame: pd.DataFrame, d: Description) -> Columns:
    """Funding rates in the form of candles, as freqtrade keeps them: the rate stands in open."""
    m = mapped(list(frame.columns), d)
    times = stamped(frame, m)
    ts = np.round(moment(times, _plain_clock(d, times)) / 60e6) * 60e6
    rate = number(m.get(frame, "open"))
    for name in ("high", "low", "close"):
        other = np.nan_to_num(number(m.get(frame, name)))
        if ((other != 0) & (other != rate)).any():
            raise UnknownFormat(
                f"{d.shown} is called funding rates, and its {name} is neither 0 nor its open: give"
                " it as a table of funding_time and funding_rate"
            )
    d.notes.append("funding rates in the form of candles: the rate stands in open")
    return Columns(ts, {"rate": rate}, d.instrument(None, "perpetual"))


def _binance_metrics(frame: pd.DataFrame, d: Description) -> Columns:
    ts = moment(frame["create_time"], _venue_clock(d, frame["create_time"]))
    chosen = venue_rows(frame, d, "binance", "symbol", "derivative")
    interest = optional(frame["sum_open_interest"])
    value = optional(frame["sum_open_interest_value"])
    one = chosen.get("instrument")
    if one is not None and one.margin == "inverse":
        # COIN-M: contracts, and their value in base units.
        interest, value = value, interest * (one.contract_size or np.nan)
    return Columns(ts, {"open_interest": interest, "value": value}, **chosen)


def _binance_liquidations(frame: pd.DataFrame, d: Description) -> Columns:
    ts = moment(frame["time"])
    price = number(frame["average_price"])
    price = np.where(price > 0, price, number(frame["price"]))
    instrument = d.instrument("binance", "derivative")
    told = number(frame["accumulated_fill_quantity"])
    return Columns(
        ts,
        {
            "id": np.char.add(
                np.char.add(text(np.nan_to_num(ts).astype(np.int64)), "-"),
                text(frame["accumulated_fill_quantity"]),
            ),
            "price": price,
            "size": base_units({"instrument": instrument}, told, price, d),
            "sign": sign(frame["side"], *_WORDS),
        },
        instrument,
    )


def _refused(why: str) -> Reader:
    def read(frame: pd.DataFrame, d: Description) -> Columns:
        del frame
        raise UnknownFormat(f"{d.shown}: {why}")

    return read


_KLINES = (
    "open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "count",
    "taker_buy_volume", "taker_buy_quote_volume", "ignore",
)  # fmt: skip
_SPOT_TRADES = ("id", "price", "qty", "quote_qty", "time", "is_buyer_maker", "is_best_match")
_AGG = (
    "agg_trade_id", "price", "quantity", "first_trade_id", "last_trade_id", "transact_time",
    "is_buyer_maker", "is_best_match",
)  # fmt: skip
_BAR_CELLS = ("time", "open", "high", "low", "close", "volume")


def _flag(cell: str) -> bool:
    return cell.strip().lower() in {"true", "false"}


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _since_1970(cell: str) -> bool:
    return (
        _is_number(cell)
        and stamps.form(pd.Series([float(cell)])) == "number"
        and bool(np.isfinite(moment(pd.Series([float(cell)]))).all())
    )


def _is_klines(cells: list[str], _: Description) -> bool:
    if len(cells) not in (11, 12) or not all(_is_number(c) for c in cells):
        return False
    begin, end = float(cells[0]), float(cells[6])
    return _since_1970(cells[0]) and _since_1970(cells[6]) and end > begin


def _is_agg(cells: list[str], _: Description) -> bool:
    return (
        len(cells) in (7, 8)
        and _flag(cells[6])
        and not _flag(cells[5])
        and _since_1970(cells[5])
        and (len(cells) == 7 or _flag(cells[7]))
    )


def _is_trades(cells: list[str], _: Description) -> bool:
    return (
        len(cells) in (6, 7)
        and _flag(cells[5])
        and _since_1970(cells[4])
        and (len(cells) == 6 or _flag(cells[6]))
    )


def _is_kraken(cells: list[str], d: Description) -> bool:
    return (
        len(cells) == 7
        and all(_is_number(c) for c in cells)
        and _since_1970(cells[0])
        and bool(
            d.hints.exchange == "kraken"
            or re.fullmatch(r"[A-Z0-9.]+_(1|5|15|30|60|240|720|1440|10080|21600)\..*", d.path.name)
        )
    )


def _is_histdata(width: int) -> Callable[[list[str], Description], bool]:
    def test(cells: list[str], _: Description) -> bool:
        shape = r"\d{8} \d{9}" if width == 4 else r"\d{8} \d{6}"
        return (
            len(cells) == width
            and bool(re.fullmatch(shape, cells[0].strip()))
            and all(_is_number(c) for c in cells[1:])
        )

    return test


def _is_truefx(cells: list[str], _: Description) -> bool:
    return (
        len(cells) == 4
        and bool(re.fullmatch(r"[A-Z]{3}/[A-Z]{3}", cells[0].strip()))
        and bool(re.fullmatch(r"\d{8} \d\d:\d\d:\d\d\.\d+", cells[1].strip()))
    )


FORMATS: tuple[Format, ...] = (
    Format(
        "binance klines",
        "candles",
        frozenset({"open_time", "taker_buy_volume", "close_time", "count", "quote_volume"}),
        _klines,
        _is_klines,
        _KLINES,
    ),
    Format(
        "binance aggTrades",
        "trades",
        frozenset({"agg_trade_id", "transact_time"}),
        _binance_trades("agg_trade_id", "quantity", "transact_time"),
        _is_agg,
        _AGG,
        "aggTrade",
    ),
    Format(
        "binance trades",
        "trades",
        frozenset({"quote_qty", "is_buyer_maker", "time"}),
        _binance_trades("id", "qty", "time"),
        _is_trades,
        _SPOT_TRADES,
    ),
    Format(
        "binance trades (COIN-M)",
        "trades",
        frozenset({"base_qty", "qty", "is_buyer_maker", "time"}),
        _binance_trades("id", "qty", "time"),
    ),
    Format(
        "binance bookTicker",
        "order_book",
        frozenset({"best_bid_price", "best_ask_qty", "transaction_time", "update_id"}),
        _binance_ticker,
    ),
    Format(
        "binance bookDepth",
        "order_book",
        frozenset({"percentage", "depth", "notional"}),
        _refused(
            "depth summed up to a percentage from the price is no book of levels, and there is no"
            " table for it; the venue's depth updates (book_feed) can be loaded"
        ),
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
        _named_trades("trdMatchID", "size", "timestamp", "symbol", "bybit", "derivative"),
    ),
    Format(
        "bybit spot trades",
        "trades",
        frozenset({"id", "timestamp", "price", "volume", "side", "rpi"}),
        _bybit_spot,
    ),
    Format(
        "okx trades",
        "trades",
        frozenset({"instrument_name", "trade_id", "created_time"}),
        _named_trades("trade_id", "size", "created_time", "instrument_name", "okx", None),
    ),
    Format(
        "okx candles",
        "candles",
        frozenset({"instrument_name", "open", "vol", "open_time"}),
        _okx_candles,
    ),
    Format(
        "okx candles (REST)",
        "candles",
        frozenset({"open_time", "vol", "vol_ccy", "confirm"}),
        _okx_candles,
    ),
    Format(
        "upbit candles",
        "candles",
        frozenset({"market", "candle_date_time_utc", "opening_price", "candle_acc_trade_volume"}),
        _upbit_candles,
    ),
    Format(
        "okx funding",
        "funding",
        frozenset({"instrument_name", "funding_rate", "funding_time"}),
        _plain_funding,
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
        frozenset({"exchange", "local_timestamp", "ask_amount", "bid_amount"}),
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
        "kraken OHLCVT",
        "candles",
        frozenset({"_kraken"}),
        _kraken_ohlcvt,
        _is_kraken,
        (*_BAR_CELLS, "count"),
    ),
    Format(
        "histdata ticks",
        "order_book",
        frozenset({"_histdata"}),
        lambda frame, d: _ticks(frame, d, "Etc/GMT+5"),
        _is_histdata(4),
        ("time", "bid", "ask", "volume"),
    ),
    Format(
        "histdata bars",
        "candles",
        frozenset({"_histdata"}),
        _histdata_bars,
        _is_histdata(6),
        _BAR_CELLS,
    ),
    Format(
        "truefx ticks",
        "order_book",
        frozenset({"_truefx"}),
        lambda frame, d: _ticks(frame, d, "UTC"),
        _is_truefx,
        ("pair", "time", "bid", "ask"),
    ),
)

# Tables of no publisher's own, by what their columns mean.
PLAIN: tuple[tuple[frozenset[str], Format], ...] = (
    (
        frozenset({"open", "high", "low", "close"}),
        Format("candles", "candles", frozenset(), _plain_candles),
    ),
    (
        frozenset({"bid", "ask", "bid_size", "ask_size"}),
        Format("quotes", "order_book", frozenset(), _plain_quotes),
    ),
    (
        frozenset({"price", "size"}),
        Format("trades", "trades", frozenset(), _plain_trades),
    ),
    (
        frozenset({"rate"}),
        Format("funding", "funding", frozenset(), _plain_funding),
    ),
)


def detect(cells: list[str], d: Description, kind: str | None) -> tuple[Format, bool]:
    """The format of a table by its first row, and whether that row is a header.

    Raises:
        UnknownFormat: none fits; or the one that fits is of another kind than asked for.
    """
    names = {cell.strip() for cell in cells}
    fits = [f for f in FORMATS if f.needs <= names]
    if d.said.columns or not fits:
        plain = _plain(cells, d)
        fits = [plain] if plain is not None else fits
    wanted = [f for f in fits if kind in (None, f.kind)]
    if kind is None and _of_liquidations(d):
        wanted = [f for f in wanted if f.kind == "liquidations"] or wanted
    if wanted:
        return wanted[0], not all(_is_number(c) for c in cells if c.strip())
    if not fits:
        for f in FORMATS:
            if f.headless and f.headless(cells, d) and kind in (None, f.kind):
                return f, False
    seen = ", ".join(cell[:80] for cell in cells[:8])
    if fits:
        raise UnknownFormat(
            f"{d.shown} looks like {fits[0].name} ({fits[0].kind}), not {kind}:"
            f" load it with `alphaplus load {fits[0].kind}`"
        )
    if cells and all(_is_number(c) for c in cells):
        raise UnknownFormat(
            f"{d.shown} has no header, and no format known here fits; its first row is: {seen}, …"
            " Say which column is which, by place: --columns"
            " ts=#1,open=#2,high=#3,low=#4,close=#5,volume=#6"
        )
    raise UnknownFormat(
        f"{d.shown} has no format known here; its first row is: {seen}, …"
        f" Known: {', '.join(f.name for f in FORMATS)}, tables of candles, trades, quotes and funding"
        " under usual headers (others: --columns), book feeds and liquidation streams (JSON)"
    )


def _plain(cells: list[str], d: Description) -> Format | None:
    """The plain table that these columns make."""
    header = not all(_is_number(c) for c in cells if c.strip())
    if not header and not d.said.columns:
        return None
    columns = places(cells) if not header else cells
    m = mapped(columns, d, strict=False)
    have = {*m.names, *(["time"] if m.time else [])}
    if "funding_time" in have:
        have.add("time")
    if "time" not in have:
        return None
    if {"open", "close"} <= have and re.search(r"funding_?rate", d.path.name, re.IGNORECASE):
        return Format("funding in candles", "funding", frozenset(), _candle_funding)
    for needs, found in PLAIN:
        if needs <= have:
            if found.kind == "trades" and not ({"side", "buyer_maker"} & have):
                raise d.missing(
                    "the side of each trade", "columns", "no column says who was the aggressor"
                )
            return found
    return None


def places(cells: Sequence[str]) -> list[str]:
    """Names for the columns of a table without a header: by place."""
    return [f"#{i + 1}" for i in range(len(cells))]


def _of_liquidations(d: Description) -> bool:
    """Does its name, or else a folder called so, say that it is not of trades?"""
    name = d.path.name.lower()
    folders = d.hints.folders
    return "liquidation" in name or ("trade" not in name and "liquidations" in folders)
