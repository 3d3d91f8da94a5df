"""The markets that can be streamed, by name."""

from __future__ import annotations

from alphaplus.loaders.streams.binance import Binance, BinanceCoinm, BinanceUsdm
from alphaplus.loaders.streams.bitmex import Bitmex
from alphaplus.loaders.streams.bybit import BybitInverse, BybitLinear, BybitSpot
from alphaplus.loaders.streams.coinbase import Coinbase
from alphaplus.loaders.streams.deribit import Deribit
from alphaplus.loaders.streams.kraken import Kraken
from alphaplus.loaders.streams.okx import Okx
from alphaplus.loaders.streams.simulated import Simulated
from alphaplus.loaders.streams.venue import BadSubscription, Venue

MARKETS: dict[str, type[Venue]] = {
    venue.name: venue
    for venue in (
        Binance, BinanceUsdm, BinanceCoinm, BybitLinear, BybitInverse, BybitSpot, Okx, Kraken,
        Coinbase, Deribit, Bitmex, Simulated,
    )
}  # fmt: skip


def market(name: str) -> Venue:
    """One of them.

    Raises:
        BadSubscription: no such market.
    """
    made = MARKETS.get(name.lower())
    if made is None:
        raise BadSubscription(f"no exchange {name!r}; there are {', '.join(sorted(MARKETS))}")
    return made()
