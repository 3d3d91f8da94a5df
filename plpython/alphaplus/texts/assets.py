"""Which asset a text, or a part of it, is about."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Where one statement ends and the next begins.
_CLAUSE = re.compile(
    r"[.!?;\n]+(?:\s+|$)|,\s+|\s+[-\u2013\u2014]\s+"
    r"|\s+(?:but|while|whereas|although|though|however)\s+",
    re.IGNORECASE,
)
_TOKEN = re.compile(r"[$#]?\w+(?:[/@:-]\w+)*", re.UNICODE)
# Tickers that are English words too: in running text they need their $ or #.
_WORD_LIST = """
    A ALL AM AN ANY ARE AS AT BE BEST BIG BUY CAN CAT COST DAY DO DOG EAT FOR FUN GAS GO GOLD GOOD
    HAS HE HIGH HIT HOT HOW I IN IS IT ITS KEY LIFE LINK LOVE LOW MAN ME MEME MORE MY NEAR NEW
    NEXT NO NOT NOW OF OLD ON ONE OR OUR OUT OWN PAY PEOPLE PLAY RAY REAL REP RUN SAFE SAND SEE
    SELL SO STEP SUN SUPER THE TIME TO TOP TRUE TRUMP TWO UP US USUAL VERY WAS WAVES WE WELL WIN
    YOU YOUR
"""
_WORDS = frozenset(_WORD_LIST.split())


class Assets:
    """Finds assets by their tickers, aliases and names.

    A ticker (BTC) is found in capitals, or in any case behind $ or #; an alias (BTC/USDT, XBTUSD)
    in capitals; a name (bitcoin) in any case, whole words only.
    """

    def __init__(
        self, tickers: Iterable[tuple[str, str]], names: Iterable[tuple[str, str]]
    ) -> None:
        self.tickers = {ticker.upper(): asset for ticker, asset in tickers if ticker}
        self.names: dict[str, str] = {}
        several: list[tuple[str, str]] = []
        for name, asset in names:
            if " " in name:
                several.append((name, asset))
            else:
                self.names[name.lower()] = asset
        self.several = [
            (re.compile(rf"\b{re.escape(name)}\b", re.IGNORECASE), asset) for name, asset in several
        ]

    def found(self, text: str) -> list[str]:
        """The assets that the text mentions, in order of first mention."""
        seen: dict[str, None] = {}
        shouted = text.isupper()
        tickers, names = self.tickers, self.names
        for token in _TOKEN.findall(text):
            first = token[0]
            if first in "$#":
                asset = tickers.get(token[1:].upper()) or names.get(token[1:].lower())
            else:
                asset = tickers.get(token) if token.upper() == token else None
                if asset is not None and (token in _WORDS or (shouted and len(token) < 3)):
                    asset = None
                if asset is None:
                    asset = names.get(token.lower())
                if asset is None and ("/" in token or "-" in token):
                    asset = tickers.get(re.split(r"[/-]", token)[0])
            if asset is not None:
                seen.setdefault(asset)
        for pattern, asset in self.several:
            if pattern.search(text):
                seen.setdefault(asset)
        return list(seen)

    def about(self, text: str) -> dict[str, str]:
        """The text's parts by asset: {"BTC": "BTC dumps", "ETH": "ETH flies"}.

        A part is a clause; one that names no asset goes with the one before it, one before the
        first mention with the first. A text about a single asset is not cut.
        """
        whole = self.found(text)
        if len(whole) < 2:
            return dict.fromkeys(whole, text)
        parts: dict[str, list[str]] = {asset: [] for asset in whole}
        current: list[str] = []
        waiting: list[str] = []
        for clause in _CLAUSE.split(text):
            if not clause or not clause.strip():
                continue
            assets = self.found(clause)
            if assets:
                current = assets
                for asset in assets:
                    parts[asset] += waiting
                waiting = []
            if not current:
                waiting.append(clause)
                continue
            for asset in current:
                parts[asset].append(clause)
        return {asset: ". ".join(pieces) or text for asset, pieces in parts.items()}
