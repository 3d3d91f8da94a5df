"""The markets that can be streamed, by name."""

from __future__ import annotations

from alphaplus.loaders.streams.binance import Binance, BinanceCoinm, BinanceUsdm
from alphaplus.loaders.streams.venue import BadSubscription, Venue

MARKETS: dict[str, type[Venue]] = {
    venue.name: venue for venue in (Binance, BinanceUsdm, BinanceCoinm)
}


def market(name: str) -> Venue:
    """One of them.

    Raises:
        BadSubscription: no such market.
    """
    made = MARKETS.get(name.lower())
    if made is None:
        raise BadSubscription(f"no exchange {name!r}; there are {', '.join(sorted(MARKETS))}")
    return made()
