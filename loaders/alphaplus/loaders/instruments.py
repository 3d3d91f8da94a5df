"""Instruments: what a venue's name stands for, its contract, and sizes in base units.

An :class:`Instrument` is explicit: what is not known is None, and whoever needs it says so. The
:class:`Catalog` makes them: from rows of ``market.instruments`` first, then from the venue's way of
writing names (kind, base, quote, expiry) and ``market.contract_rules`` (margin, contract size,
unit).
"""

from __future__ import annotations

import datetime as dt
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg

Floats = npt.NDArray[np.float64]
LOCAL = "local"
STABLE = (
    "USDT", "USDC", "FDUSD", "BUSD", "TUSD", "USDP", "USDD", "USDE", "USD1", "DAI", "PYUSD", "UST",
)  # fmt: skip
FIAT = (
    "USD", "EUR", "GBP", "JPY", "KRW", "TRY", "BRL", "AUD", "CAD", "CHF", "CNH", "CNY", "CZK",
    "DKK", "HKD", "HUF", "IDR", "ILS", "INR", "MXN", "NGN", "NOK", "NZD", "PHP", "PLN", "RUB",
    "SEK", "SGD", "THB", "TWD", "UAH", "VND", "ZAR", "ARS", "COP",
)  # fmt: skip
COINS = (
    "BTC", "XBT", "ETH", "BNB", "SOL", "XRP", "DOGE", "ADA", "LTC", "BCH", "DOT", "AVAX", "LINK",
    "TRX", "UNI", "ETC", "FIL", "ATOM", "XLM", "XMR", "EOS", "NEAR", "APT", "ARB", "OP", "SUI",
    "TON", "SHIB", "PEPE", "HYPE", "MATIC", "POL", "AAVE", "ALGO", "ICP", "HBAR", "VET", "XTZ",
    "ZEC", "DASH", "XDG", "CRO", "MKR", "GRT", "SAND", "MANA", "FTM", "RUNE", "INJ", "TIA", "SEI",
    "WLD", "LDO",
)  # fmt: skip
METALS = ("XAU", "XAG", "XPT", "XPD")
QUOTES = (*STABLE, *FIAT, "BTC", "XBT", "ETH", "BNB")
# Venues where nothing but spot is traded under such names.
SPOT_VENUES = frozenset({
    "bitstamp", "kraken", "coinbase", "gemini", "upbit", "bithumb", "bitvavo", "cexio", "exmo",
    "itbit", "poloniex", "binanceus", "coinone", "korbit", "bitso", "mercado", "zaif", "bitbank",
    "coincheck", "independentreserve", "btcmarkets", "lmax", "wazirx", "bittrex", "okcoin",
    "abucoins",
})  # fmt: skip
VENUES = SPOT_VENUES | {
    "binance", "bybit", "okx", "bitmex", "deribit", "krakenfutures", "gate", "kucoin", "huobi",
    "bitfinex", "bitget", "mexc", "hyperliquid", "dydx", "lighter", "ftx", "bingx", "phemex",
    "bitflyer", "coinex", "cryptocom", "whitebit", "woo", "aevo", "paradex", "delta", "cme",
    "oanda", "hitbtc",
}  # fmt: skip
# How people and vendors write venues: the venue here, and the kind that the name implies.
_VENDOR_NAMES: dict[str, tuple[str, str | None]] = {
    "binance-futures": ("binance", "derivative"),
    "binance-delivery": ("binance", "derivative"),
    "binance-options": ("binance", "option"),
    "binance-us": ("binanceus", "spot"),
    "binanceusdm": ("binance", "derivative"),
    "binancecoinm": ("binance", "derivative"),
    "bybit-spot": ("bybit", "spot"),
    "bybit-options": ("bybit", "option"),
    "okex": ("okx", "spot"),
    "okex-swap": ("okx", "perpetual"),
    "okex-futures": ("okx", "future"),
    "okex-options": ("okx", "option"),
    "okx-swap": ("okx", "perpetual"),
    "okx-futures": ("okx", "future"),
    "huobi-dm": ("huobi", "future"),
    "huobi-dm-swap": ("huobi", "perpetual"),
    "huobi-dm-linear-swap": ("huobi", "perpetual"),
    "htx": ("huobi", None),
    "gate-io": ("gate", "spot"),
    "gate-io-futures": ("gate", "perpetual"),
    "gateio": ("gate", None),
    "kucoin-futures": ("kucoin", "derivative"),
    "kucoinfutures": ("kucoin", "derivative"),
    "cryptofacilities": ("krakenfutures", "derivative"),
    "kraken-futures": ("krakenfutures", "derivative"),
    "bitfinex-derivatives": ("bitfinex", "perpetual"),
    "coinbase-international": ("coinbase", "perpetual"),
    "coinbaseexchange": ("coinbase", "spot"),
    "coinbasepro": ("coinbase", "spot"),
    "gdax": ("coinbase", "spot"),
    "crypto-com": ("cryptocom", None),
}  # fmt: skip
# What Tardis' names without a suffix stand for (its exchanges' pages): spot, or derivatives only.
_VENDOR_PLAIN = {
    "binance": "spot", "huobi": "spot", "kucoin": "spot", "bybit": "derivative",
    "bitmex": "derivative", "deribit": None, "bitfinex": "spot", "ftx": None, "okx": None,
    "dydx": "perpetual", "hyperliquid": "perpetual", "krakenfutures": "derivative",
}  # fmt: skip
_KRAKEN_LONG = re.compile(r"[XZ]([A-Z]{3})[XZ]([A-Z]{3})")
_MONTH_CODES = "FGHJKMNQUVXZ"
_MONTHS = {m: i + 1 for i, m in enumerate(
    ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
)}  # fmt: skip
DATED = ("future", "option")
DERIVATIVES = ("perpetual", "future", "option")
KINDS = ("spot", "perpetual", "future", "option", "index", "stock", "fx")
UNITS = ("base", "quote", "contracts")
MARGINS = ("linear", "inverse", "quanto")
SERIES = ("traded", "mark", "index", "premium")


class BadName(ValueError):
    """A name that no symbol can have."""


@dataclass(frozen=True)
class Instrument:
    """A contract at a venue, or a series of its computed prices. None: not known.

    contract_size: base units of a linear contract, quote units of an inverse one, settlement units
    per unit of price of a quanto one. unit: what the venue's own sizes count.
    """

    exchange: str
    native: str
    kind: str | None = None
    base: str = ""
    quote: str | None = None
    settlement: str | None = None
    margin: str | None = None
    contract_size: float | None = None
    unit: str | None = None
    expiry: dt.datetime | None = None
    series: str = "traded"
    negative_prices: bool = False
    source: str | None = None
    source_date: dt.date | None = None

    def symbol(self, default_exchange: str) -> str:
        """The name in market.*: NATIVE at the default exchange, NATIVE@exchange elsewhere.

        A spot pair is NATIVE.SPOT, as its native symbol is often the perpetual's too; a series of
        computed prices is NATIVE.MARK, .INDEX or .PREMIUM.
        """
        name = self.native + (".SPOT" if self.kind == "spot" else "")
        if self.series != "traded":
            name = f"{self.native}.{self.series.upper()}"
        return name if self.exchange == default_exchange else f"{name}@{self.exchange}"

    def aliases(self) -> list[str]:
        """Further names: the native one, BASE/QUOTE, and for a perpetual BASE/QUOTE:SETTLEMENT.

        What is dated or computed goes by its own name only.
        """
        if self.series != "traded":
            return [f"{self.native}.{self.series.upper()}"]
        if self.kind in DATED or self.quote is None:
            return [self.native]
        names = [self.native, f"{self.base}/{self.quote}", f"{self.base}{self.quote}"]
        if self.kind == "perpetual":
            names += [f"{names[1]}:{self.quote}", f"{names[1]}:{self.settlement or self.quote}"]
        return sorted(set(names))

    def missing(self, unit: str | None = None) -> str:
        """Why sizes of ``unit`` (None: the venue's) cannot be told in base units, or ''."""
        unit = unit or self.unit
        name = f"{self.native} at {self.exchange}"
        if unit == "base":
            return ""
        if unit is None and self.kind not in DERIVATIVES:
            return f"what sizes of {name} count is not known"
        if unit is None:
            return f"contract size of {name} not known"
        if unit == "quote":
            return "" if self.margin != "quanto" else f"{name} is a quanto contract"
        if self.contract_size is None or self.margin is None:
            return f"contract size of {name} not known"
        if self.margin == "quanto":
            return (
                f"{name} is a quanto contract: its base size needs the price of"
                f" {self.settlement or 'its settlement currency'} too"
            )
        return ""


def base_units(instrument: Instrument, size: Any, price: Any, unit: str | None = None) -> Any:
    """Sizes in base units: the one place where contracts and quote amounts are turned into them.

    ``unit``: what ``size`` counts (None: what the venue's sizes count). NaN where that cannot be
    told: :meth:`Instrument.missing` says why.
    """
    unit = unit or instrument.unit
    if unit == "base":
        return size
    if instrument.missing(unit):
        return size * np.nan
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if unit == "quote":
            return np.divide(size, price)
        if instrument.margin == "inverse":
            return np.divide(size * instrument.contract_size, price)
        return size * instrument.contract_size


def checked_name(name: str, what: str = "symbol") -> str:
    """A name that a symbol may have, in capitals as given.

    Raises:
        BadName: empty, too long, or with a character no symbol has.
    """
    name = name.strip()
    if not name:
        raise BadName(f"no {what}")
    if len(name) > 64:
        raise BadName(f"{what} of {len(name)} characters (at most 64)")
    for character in name:
        group = unicodedata.category(character)
        if group[0] not in "LN" and character not in "._-/:+&^=$#!~":
            shown = f"U+{ord(character):04X}"
            raise BadName(f"{what} {name!a} has the character {shown}, which no name has")
    if name[0] in "=+-~!#$&:/.":
        raise BadName(f"{what} {name!a} begins with {name[0]!r}, which spreadsheets run")
    return name


def vendor_venue(name: str, *, vendor: bool = False) -> tuple[str, str | None]:
    """Venue and kind that a vendor's, a library's or a user's exchange name stands for.

    ``vendor``: Tardis' names, in which a plain venue name means one kind of market.
    """
    low = checked_name(name.lower(), "exchange")
    if low in _VENDOR_NAMES:
        return _VENDOR_NAMES[low]
    if low in SPOT_VENUES:
        return low, "spot"
    return low, _VENDOR_PLAIN.get(low) if vendor else None


def _pair_of(word: str) -> tuple[str, str] | None:
    """Base and quote of a pair written without a separator, where that is plain."""
    for quote in sorted(QUOTES, key=len, reverse=True):
        base = word.removesuffix(quote)
        if base == word or not base:
            continue
        known = base in COINS or base in FIAT or base in METALS
        least = 1 if quote in STABLE[:3] else 3
        if known or len(base) >= least:
            return base, quote
    return None


def _plain(name: str) -> str:
    return {"XBT": "BTC", "XDG": "DOGE"}.get(name, name)


def _expiry(text: str) -> dt.datetime | None:
    """8:00 UTC of the day that a dated contract's name says (Binance, OKX, Deribit, Bybit)."""
    try:
        if re.fullmatch(r"\d{6}", text):
            day = dt.datetime.strptime(text, "%y%m%d")
        elif re.fullmatch(r"\d{8}", text):
            day = dt.datetime.strptime(text, "%Y%m%d")
        elif match := re.fullmatch(r"(\d{1,2})([A-Z]{3})(\d{2})", text):
            day = dt.datetime(2000 + int(match[3]), _MONTHS[match[2]], int(match[1]))
        else:
            return None
    except (ValueError, KeyError):
        return None
    return day.replace(hour=8, tzinfo=dt.UTC)


_DAY = r"(?:\d{6}|\d{8}|\d{1,2}[A-Z]{3}\d{2})"
_SHAPES: tuple[tuple[re.Pattern[str], str | None], ...] = (
    # Options: BTC-28JUN24-70000-C, BTC-USD-240628-70000-C
    (
        re.compile(rf"(?P<base>\w+?)(?:[-_](?P<quote>[A-Z]{{3,5}}))?-(?P<day>{_DAY})-[\dD.]+-[CP]"),
        "option",
    ),
    # OKX and Coinbase: BTC-USDT-SWAP, BTC-USDT-240628, BTC-PERP-INTX
    (re.compile(r"(?P<base>\w+)-(?P<quote>[A-Z]{3,5})-(?:SWAP|PERP|UMCBL|FUTURES)"), "perpetual"),
    (re.compile(rf"(?P<base>\w+)[-_](?P<quote>[A-Z]{{3,5}})[-_](?P<day>{_DAY})"), "future"),
    # Deribit: BTC_USDC-PERPETUAL, BTC-PERPETUAL, BTC-28JUN24; Bybit: BTCUSDT-28JUN24
    (re.compile(r"(?P<base>\w+)_(?P<quote>[A-Z]{3,5})-PERPETUAL"), "perpetual"),
    (re.compile(r"(?P<base>\w+)-PERP(?:ETUAL)?(?:-INTX)?"), "perpetual"),
    (re.compile(rf"(?P<base>[A-Z0-9]+?)(?P<quote>USDT|USDC|USD)-(?P<day>{_DAY})"), "future"),
    (re.compile(rf"(?P<base>[A-Z0-9]+)-(?P<day>{_DAY})"), "future"),
    # Binance: BTCUSD_PERP, BTCUSDT_240628
    (re.compile(r"(?P<base>\w+?)(?P<quote>USDT|USDC|USD)_PERP"), "perpetual"),
    (re.compile(r"(?P<base>\w+?)(?P<quote>USDT|USDC|BUSD|USD)_(?P<day>\d{6})"), "future"),
    # Kraken Futures: PI_XBTUSD, FI_XBTUSD_240628
    (re.compile(r"P[IF]_(?P<base>[A-Z0-9]+?)(?P<quote>USDT|USDC|USD|EUR)"), "perpetual"),
    (
        re.compile(r"F[IF]_(?P<base>[A-Z0-9]+?)(?P<quote>USDT|USDC|USD|EUR)_(?P<day>\d{6})"),
        "future",
    ),
    # ccxt: BTC/USDT:USDT, BTC/USD:BTC-240628
    (
        re.compile(
            rf"(?P<base>\w+)/(?P<quote>\w+):(?P<settle>\w+)-(?P<day>{_DAY})(?:-[\d.]+-[CP])?"
        ),
        "future",
    ),
    (re.compile(r"(?P<base>\w+)/(?P<quote>\w+):(?P<settle>\w+)"), "perpetual"),
    (re.compile(r"(?P<base>\w+)[-_](?P<quote>[A-Z]{3,5})[-_](?P<settle>[A-Z]{3,5})"), "perpetual"),
)  # fmt: skip


@dataclass(frozen=True)
class Name:
    """What the way in which a native symbol is written says."""

    base: str
    quote: str | None = None
    kind: str | None = None
    settlement: str | None = None
    expiry: dt.datetime | None = None


def read_name(exchange: str, native: str) -> Name:
    """Kind, base, quote and expiry, as far as the venue's way of writing names says them."""
    if exchange == "bitmex":
        if match := re.fullmatch(rf"([A-Z0-9]+?)(USDT|USD|)([{_MONTH_CODES}])(\d\d)", native):
            return Name(_plain(match[1]), match[2] or "USD", "future")
        if "_" not in native and (pair := _pair_of(native)):
            return Name(_plain(pair[0]), pair[1], "perpetual")
    if exchange == "bybit" and (
        match := re.fullmatch(rf"([A-Z0-9]+)(USDT|USD)([{_MONTH_CODES}])(\d\d)", native)
    ):
        return Name(match[1], match[2], "future")
    if exchange == "bybit" and native.endswith("PERP") and len(native) > 4:
        return Name(native.removesuffix("PERP"), "USDC", "perpetual")
    if exchange == "kucoin" and (match := re.fullmatch(r"([A-Z0-9]+?)(USDT|USDC|USD)M", native)):
        return Name(_plain(match[1]), match[2], "perpetual")
    if exchange in ("hyperliquid", "lighter") and re.fullmatch(r"[A-Za-z0-9]+", native):
        return Name(native, "USD", "perpetual")
    for shape, kind in _SHAPES:
        match = shape.fullmatch(native)
        if not match or (match["base"] in ("PI", "PF", "FI", "FF")):
            continue
        found = match.groupdict()
        quote = found.get("quote")
        if (
            shape.groupindex.get("settle")
            and ":" not in native
            and not (quote in QUOTES and found["settle"] in (*QUOTES, found["base"]))
        ):
            continue
        if quote is None and exchange in ("deribit", "bybit"):
            quote = "USDC" if exchange == "bybit" else "USD"
        day = found.get("day")
        return Name(
            _plain(found["base"]), quote, kind, found.get("settle"), _expiry(day) if day else None
        )
    if exchange == "kraken" and (match := _KRAKEN_LONG.fullmatch(native)):
        return Name(_plain(match[1]), match[2], "spot")
    parts = re.split(r"[-_/:]", native)
    if len(parts) == 2 and (
        exchange == "upbit"
        or (parts[0] in (*FIAT, *STABLE) and parts[1] in COINS and "/" not in native)
    ):
        # KRW-BTC: Upbit writes the quote first, and nobody trades won for bitcoins.
        return Name(_plain(parts[1]), parts[0], _of_pair(parts[1], parts[0], exchange))
    if len(parts) == 2 and (parts[1] in QUOTES or "/" in native):
        return Name(_plain(parts[0]), parts[1], _of_pair(parts[0], parts[1], exchange))
    if len(parts) == 1 and (pair := _pair_of(native)):
        return Name(_plain(pair[0]), pair[1], _of_pair(*pair, exchange))
    if exchange == LOCAL and re.fullmatch(r"[A-Z]{1,5}[-.][A-Z]", native):
        return Name(native, None, "stock")
    return Name(_plain(parts[0]) if len(parts) == 1 else native)


def _of_pair(base: str, quote: str, exchange: str) -> str | None:
    if base in (*FIAT, *METALS) and quote in FIAT and exchange in (LOCAL, "oanda", "lmax"):
        return "fx"
    if exchange == "okx":
        return "spot"
    return "spot" if exchange in SPOT_VENUES else None


@dataclass(frozen=True)
class Rule:
    """A row of market.contract_rules."""

    exchange: str
    pattern: str
    kind: str | None
    margin: str | None
    contract_size: float | None
    unit: str
    settlement: str | None
    source: str
    source_date: dt.date | None

    def fits(self, native: str) -> bool:
        """Does its pattern fit? ``*`` any letters, ``?`` a letter, ``#`` a digit."""
        words = {"*": ".*", "?": "[A-Z]", "#": r"\d"}
        return bool(re.fullmatch("".join(words.get(c, re.escape(c)) for c in self.pattern), native))

    def weight(self) -> int:
        """How much of a name it says."""
        return sum(2 if c not in "*?#" else (c != "*") for c in self.pattern)


_PAIR = re.compile(r"([A-Z0-9]+)[_/]([A-Z]+)(?:[_:]([A-Z0-9]+))?")
_XBT = {"BTC": "XBT", "DOGE": "XDG"}


def venue_form(venue: str, native: str, kind: str | None) -> str:
    """A pair as tools write it (freqtrade's ETH_USDT_USDT, ccxt's ETH/USDT:USDT) as its venue does.

    One instrument is then one symbol, whichever tool wrote the file. Only where the venue's own
    way is known, and the kind; else the name stays as it is.
    """
    match = _PAIR.fullmatch(native)
    if match is None or kind not in ("spot", "perpetual") or match[2] not in QUOTES:
        return native
    base, quote, settle = match.groups()
    if (settle is not None) != (kind == "perpetual"):
        return native
    plain = f"{base}{quote}"
    if kind == "spot":
        forms = {
            "binance": plain, "bybit": plain, "binanceus": plain, "huobi": plain,
            "okx": f"{base}-{quote}", "kucoin": f"{base}-{quote}", "coinbase": f"{base}-{quote}",
            "kraken": f"{_XBT.get(base, base)}{_XBT.get(quote, quote)}",
        }  # fmt: skip
        return forms.get(venue, native)
    coin = _XBT["BTC"] if base == "BTC" else base
    if settle == quote:
        forms = {
            "binance": plain, "bybit": f"{base}PERP" if quote == "USDC" else plain,
            "okx": f"{base}-{quote}-SWAP", "gate": f"{base}_{quote}", "huobi": f"{base}-{quote}",
            "kucoin": f"{coin}{quote}M", "bitmex": f"{coin}{quote}", "hyperliquid": base,
            "krakenfutures": f"PF_{coin}{quote}", "deribit": f"{base}_{quote}-PERPETUAL",
        }  # fmt: skip
        return forms.get(venue, native)
    if settle == base and quote == "USD":
        forms = {
            "binance": f"{base}USD_PERP", "bybit": f"{base}USD", "okx": f"{base}-USD-SWAP",
            "gate": f"{base}_USD", "huobi": f"{base}-USD", "kucoin": f"{coin}USDM",
            "bitmex": f"{coin}USD", "deribit": f"{base}-PERPETUAL",
            "krakenfutures": f"PI_{coin}USD",
        }  # fmt: skip
        return forms.get(venue, native)
    return native


class Catalog:
    """Instruments by venue and native symbol: rows first, then names and rules."""

    def __init__(self, rules: Iterable[Rule] = (), rows: Iterable[Instrument] = ()) -> None:
        self.rules: dict[str, list[Rule]] = {}
        for rule in rules:
            self.rules.setdefault(rule.exchange, []).append(rule)
        self.rows = {(i.exchange, i.native, i.kind, i.series): i for i in rows}
        self._made: dict[tuple[Any, ...], Instrument] = {}

    @classmethod
    def read(cls, conn: psycopg.Connection[Any]) -> Catalog:
        """From a database."""
        rules = conn.execute(
            "select exchange, pattern, kind, margin, contract_size, size_unit, settlement, source,"
            " source_date from market.contract_rules"
        ).fetchall()
        rows = conn.execute(
            "select exchange, native_symbol, kind, base, quote, settlement, margin, contract_size,"
            " size_unit, expiry, series, negative_prices, source, source_date"
            " from market.instruments where not is_simulated"
        ).fetchall()
        return cls([Rule(*row) for row in rules], [Instrument(*row) for row in rows])

    def instrument(
        self,
        exchange: str,
        native: str,
        kind: str | None = None,
        *,
        vendor: bool = False,
        series: str = "traded",
    ) -> Instrument:
        """What a name stands for at a venue, as a vendor or a user writes it.

        ``kind``: what is known of it besides its name; "derivative" where only that is known.

        Raises:
            BadName: no symbol can have this name.
        """
        key = (exchange, native, kind, vendor, series)
        if key not in self._made:
            self._made[key] = self._make(*key)
        return self._made[key]

    def _make(
        self, exchange: str, native: str, kind: str | None, vendor: bool, series: str
    ) -> Instrument:
        venue, implied = vendor_venue(exchange, vendor=vendor)
        native = checked_name(native)
        if venue not in ("hyperliquid", "lighter"):
            native = native.upper()
        said = read_name(venue, native)
        known = kind if kind not in (None, "derivative") else None
        derivative = "derivative" in (kind, implied)
        kind = known or said.kind or (implied if implied != "derivative" else None)
        if kind is None and derivative:
            kind = "perpetual"
        native = venue_form(venue, native, kind)
        if series != "traded":
            return Instrument(
                venue, native, "index", said.base, said.quote, series=series, unit="base",
                negative_prices=series == "premium",
            )  # fmt: skip
        row = self.rows.get((venue, native, kind, series))
        if row is None and kind is None:
            fits = [
                i for (v, n, _, s), i in self.rows.items() if (v, n, s) == (venue, native, series)
            ]
            row = fits[0] if len(fits) == 1 else None
        if row is not None:
            return row
        made = Instrument(
            venue, native, kind, said.base, said.quote, said.settlement, expiry=said.expiry
        )
        if kind in ("spot", "stock", "fx"):
            return replace(made, unit="base")
        if kind is None:
            return made
        rule = self.rule(venue, native, kind)
        if rule is None:
            return made
        settlement = rule.settlement or said.settlement
        if settlement is None:
            settlement = said.base if rule.margin == "inverse" else said.quote
        return replace(
            made,
            margin=rule.margin,
            contract_size=rule.contract_size,
            unit=rule.unit,
            settlement=settlement,
            source=rule.source,
            source_date=rule.source_date,
        )

    def rule(self, venue: str, native: str, kind: str | None) -> Rule | None:
        """The rule that says most of a name, for that kind."""
        fits = [
            rule
            for rule in self.rules.get(venue, [])
            if rule.kind in (None, kind) and rule.fits(native)
        ]
        return max(fits, key=Rule.weight, default=None)


class OtherContract(Exception):
    """An instrument is registered with another contract than a load says."""


class OtherInstrument(OtherContract):
    """Rows that are there as one instrument would be stored as another one, too."""


class Register:
    """The instruments of a database: registers those not known and remembers their symbols."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self._conn = conn
        row = conn.execute(
            "select value #>> '{}' from ops.settings where name = 'market.default_exchange'"
        ).fetchone()
        self._default = row[0] if row else "binance"
        self._known: dict[Instrument, str] = {}
        self.catalog = Catalog.read(conn)

    def name(self, instrument: Instrument) -> str:
        """The symbol of an instrument, without registering it."""
        return self._known.get(instrument) or instrument.symbol(self._default)

    def is_new(self, instrument: Instrument) -> bool:
        """Is it not registered yet?"""
        if instrument in self._known:
            return False
        row = self._conn.execute(
            "select from market.instruments where exchange = %s and native_symbol = %s"
            " and kind is not distinct from %s and series = %s",
            (instrument.exchange, instrument.native, instrument.kind, instrument.series),
        ).fetchone()
        return row is None

    def symbol(self, instrument: Instrument) -> str:
        """The symbol of an instrument, registered when it is new.

        Raises:
            OtherContract: the row that is there says another contract.
        """
        if instrument not in self._known:
            self._known[instrument] = self._registered(instrument)
        return self._known[instrument]

    def _registered(self, i: Instrument) -> str:
        self._conn.execute(
            "insert into market.instruments"
            " (symbol, exchange, native_symbol, base, quote, kind, margin, settlement,"
            " contract_size, size_unit, expiry, series, negative_prices, aliases, priority, source,"
            " source_date)"
            " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
            " on conflict do nothing",
            (
                i.symbol(self._default), i.exchange, i.native, i.base or i.native, i.quote, i.kind,
                i.margin, i.settlement, i.contract_size, i.unit, i.expiry, i.series,
                i.negative_prices, i.aliases(),
                (10 if i.exchange == self._default else 100)
                # A name that fits a spot pair and a perpetual is asked about; what is dated, or of
                # no known kind, does not stand in their way.
                + (0 if i.kind in ("perpetual", "spot") else 60),
                i.source, i.source_date,
            ),
        )  # fmt: skip
        row = self._conn.execute(
            "select symbol, margin, contract_size from market.instruments"
            " where exchange = %s and native_symbol = %s and kind is not distinct from %s"
            " and series = %s",
            (i.exchange, i.native, i.kind, i.series),
        ).fetchone()
        if row is None:
            other = i.symbol(self._default)
            raise OtherContract(
                f"{other} is already another instrument (see market.instruments):"
                " name this one with --symbol, --exchange or --kind"
            )
        symbol, margin, size = row
        if size is None and i.contract_size is not None:
            self._conn.execute(
                "update market.instruments set margin = %s, contract_size = %s, size_unit = %s,"
                " settlement = %s, source = %s, source_date = %s where symbol = %s",
                (i.margin, i.contract_size, i.unit, i.settlement, i.source, i.source_date, symbol),
            )
            return str(symbol)
        if i.contract_size is not None and (margin, size) != (i.margin, i.contract_size):
            raise OtherContract(
                f"{symbol} is registered as {margin or 'no'} contract of {size or 'unknown size'},"
                f" and this load says {i.margin} of {i.contract_size:g}. Correct it with"
                f" `alphaplus instruments set {symbol} --margin … --contract-size …`, which says"
                " what to reload"
            )
        return str(symbol)
