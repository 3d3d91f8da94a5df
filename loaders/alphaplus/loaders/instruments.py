"""Which instrument a row is about: exchange, native symbol, base and quote; and its name here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import psycopg

_QUOTES = ("USDT", "USDC", "FDUSD", "USD", "EUR", "BTC", "ETH")
_BINANCE_QUOTES = ("BUSD", "TUSD")  # elsewhere BNBUSD and DOTUSD are quoted in USD
_SUFFIXES = ("PERP", "PERPETUAL", "SWAP", "UMCBL")
_VENUES = {
    "binance-futures": ("binance", "perpetual"),
    "binance-delivery": ("binance", "perpetual"),
    "binance": ("binance", "spot"),
    "huobi-dm-swap": ("huobi", "perpetual"),
    "okex-swap": ("okx", "perpetual"),
    "okex": ("okx", "spot"),
    "bybit-spot": ("bybit", "spot"),
}
# Base units of one contract at OKX (its instruments page); other venues count in base units, but
# for the inverse contracts of Instrument.contract.
_OKX_CONTRACTS = {
    "BTC": 0.01, "ETH": 0.1, "SOL": 1.0, "DOGE": 1000.0, "XRP": 100.0, "LTC": 1.0, "BCH": 0.1,
    "ADA": 100.0, "DOT": 1.0, "AVAX": 1.0, "LINK": 1.0, "BNB": 0.01, "TRX": 1000.0, "UNI": 1.0,
}  # fmt: skip


@dataclass(frozen=True)
class Instrument:
    """A contract at a venue."""

    exchange: str
    native: str
    kind: str = "perpetual"

    @classmethod
    def of(cls, exchange: str, native: str, kind: str | None = None) -> Instrument:
        """From a vendor's exchange name (Tardis' binance-futures is binance's perpetuals)."""
        venue, known = _VENUES.get(exchange.lower(), (exchange.lower(), "perpetual"))
        return cls(venue, native.upper(), kind or known)

    def pair(self) -> tuple[str, str]:
        """Base and quote, read off the native symbol; XBT is BTC."""
        parts = [part for part in re.split(r"[-_/:]", self.native) if part not in _SUFFIXES]
        name = parts[0] if parts else self.native
        if len(parts) > 1 and parts[1]:
            base, quote = name, parts[1]
        else:
            quotes: tuple[str, ...] = _QUOTES
            if self.exchange == "binance" and not self.native.endswith("_PERP"):
                quotes = (*_BINANCE_QUOTES, *_QUOTES)
            quote = next((q for q in quotes if name.endswith(q) and name != q), "USD")
            base = name.removesuffix(quote) or name
        return base.replace("XBT", "BTC"), quote

    def contract(self) -> tuple[float, bool]:
        """Contract size and whether it is in quote currency (an inverse contract).

        NaN where a venue counts contracts of a size that is not known here.
        """
        base, quote = self.pair()
        if self.kind == "spot":
            return 1.0, False
        inverse = quote == "USD"
        if self.exchange in ("bitmex", "deribit") and inverse:
            return 1.0, True
        coin_margined = self.exchange in ("huobi", "okx") or self.native.endswith("_PERP")
        if coin_margined and inverse:
            return (100.0 if base == "BTC" else 10.0), True
        if self.exchange == "okx" and self.native.endswith("-SWAP"):
            return _OKX_CONTRACTS.get(base, float("nan")), False
        return 1.0, False

    def base_units(self, size: Any, price: Any) -> Any:
        """Sizes as the venue counts them, in base units."""
        contract, inverse = self.contract()
        return size * contract / price if inverse else size * contract

    def symbol(self, default_exchange: str) -> str:
        """The name in market.*: NATIVE at the default exchange, NATIVE@exchange elsewhere.

        A spot pair is NATIVE.SPOT, as its native symbol is often the perpetual's too.
        """
        name = self.native + (".SPOT" if self.kind == "spot" else "")
        return name if self.exchange == default_exchange else f"{name}@{self.exchange}"

    def aliases(self) -> list[str]:
        """Further names: the native one, BASE/QUOTE, and for a perpetual BASE/QUOTE:QUOTE."""
        base, quote = self.pair()
        names = [self.native, f"{base}/{quote}", f"{base}{quote}"]
        if self.kind != "spot":
            names.append(f"{base}/{quote}:{quote}")
        return sorted(set(names))


class Register:
    """The instruments of a database: registers those not known and remembers their symbols."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self._conn = conn
        row = conn.execute(
            "select value #>> '{}' from ops.settings where name = 'market.default_exchange'"
        ).fetchone()
        self._default = row[0] if row else "binance"
        self._known: dict[Instrument, str] = {}

    def symbol(self, instrument: Instrument) -> str:
        """The symbol of an instrument, registered when it is new."""
        if instrument not in self._known:
            base, quote = instrument.pair()
            symbol = instrument.symbol(self._default)
            contract, inverse = instrument.contract()
            self._conn.execute(
                "insert into market.instruments"
                " (symbol, exchange, native_symbol, base, quote, kind, contract_size, is_inverse,"
                " aliases, priority)"
                " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) on conflict do nothing",
                (
                    symbol,
                    instrument.exchange,
                    instrument.native,
                    base,
                    quote,
                    instrument.kind,
                    contract if contract == contract else 1.0,  # noqa: PLR0124  (NaN: not known)
                    inverse,
                    instrument.aliases(),
                    (10 if instrument.exchange == self._default else 100)
                    + (50 if instrument.kind == "spot" else 0),
                ),
            )
            row = self._conn.execute(
                "select symbol from market.instruments"
                " where exchange = %s and native_symbol = %s and kind = %s",
                (instrument.exchange, instrument.native, instrument.kind),
            ).fetchone()
            self._known[instrument] = row[0] if row else symbol
        return self._known[instrument]
