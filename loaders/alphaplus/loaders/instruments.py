"""Which instrument a row is about: exchange, native symbol, base and quote; and its name here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import psycopg

_QUOTES = ("USDT", "USDC", "FDUSD", "BUSD", "TUSD", "USD", "EUR", "BTC", "ETH")
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
        name = parts[0]
        if len(parts) > 1 and parts[1]:
            base, quote = name, parts[1]
        else:
            quote = next((q for q in _QUOTES if name.endswith(q) and name != q), "USD")
            base = name.removesuffix(quote) or name
        return base.replace("XBT", "BTC"), quote

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
            self._conn.execute(
                "insert into market.instruments"
                " (symbol, exchange, native_symbol, base, quote, kind, aliases, priority)"
                " values (%s, %s, %s, %s, %s, %s, %s, %s) on conflict do nothing",
                (
                    symbol,
                    instrument.exchange,
                    instrument.native,
                    base,
                    quote,
                    instrument.kind,
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
