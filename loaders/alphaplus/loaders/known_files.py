"""Published files that do not say what they are: known by SHA-256, as their publisher says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from alphaplus.loaders.description import Said


@dataclass(frozen=True)
class Published:
    """What a publisher says of a file; quotes: the quote currency of each venue's rows."""

    said: Said = field(default_factory=Said)
    quotes: Mapping[str, str] = field(default_factory=dict)
    source: str = ""


# Perpetuals of seven venues by the hour; rows name venue and coin, volumes as each venue counts.
_PERPS = Published(
    Said(kind="perpetual", tz="UTC"),
    {
        "binance": "USDT", "bybit": "USDT", "okx": "USDT", "kraken": "USD", "hyperliquid": "USD",
        "lighter": "USD", "dydx": "USD", "*": "USD",
    },
    "publisher: 0xknxwledge/group-m-finm33150-final",
)  # fmt: skip
_FILES = {
    "8cecb24c2484ab57aa1d74c81e89f7592870a0c21165038c995b305f00173848": _PERPS,
    "2f58c7a393e7b9b5012edf464e6f48a43adeb02d6b9ed96d4833e8238dedb7cd": _PERPS,
    "abdb89640c52b240daa0ce9e71154594ef1ec475c993842e28133da65f2e6599": _PERPS,
    # BTC-PERP by the minute, January 2022: volume in quote currency, times of UTC.
    "bdea0c0a4c3f7094646b3f2993c5e97f28cc45b80779f119fd8c32f1a79b3075": Published(
        Said(kind="perpetual", unit="quote", tz="UTC", timeframe=60.0),
        source="publisher: nautechsystems/nautilus_trader",
    ),
}


def published(digest: bytes) -> Published:
    """What is known of the file with this SHA-256."""
    return _FILES.get(digest.hex(), Published())
