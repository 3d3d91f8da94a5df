"""Words of markets, and words that speak for English."""

from __future__ import annotations

from functools import cache

# Words of markets and crypto-currencies and how they are meant there, on VADER's scale of -4 to 4.
# Chosen for this project; none is a word whose usual sense is another.
MARKET_WORDS: dict[str, float] = {
    "ath": 2.2, "bagholder": -1.9, "bagholders": -1.9, "bankrupt": -3.0,
    "bankruptcy": -3.0, "bearish": -2.4, "breakdown": -1.8, "breakout": 1.8, "bullish": 2.4,
    "bullrun": 2.4, "buyback": 1.3, "capitulated": -2.0, "capitulation": -2.2, "crash": -2.6,
    "crashed": -2.6, "crashes": -2.6, "crashing": -2.6, "deathcross": -2.0, "delist": -2.2,
    "delisted": -2.4, "delisting": -2.2, "depeg": -2.8, "depegged": -2.8, "dip": -0.9,
    "downgrade": -1.9, "downgraded": -1.9, "downgrades": -1.9, "downtrend": -1.7, "dump": -2.1,
    "dumped": -2.1, "dumping": -2.1, "dumps": -2.1, "etf-approval": 1.8, "exploit": -2.2,
    "exploited": -2.4, "flies": 1.5, "flying": 1.3, "fomo": 0.8, "fud": -1.5, "goldencross": 2.0,
    "hacked": -2.7, "halving": 0.8, "hodl": 1.3, "hodling": 1.3, "inflow": 1.2, "inflows": 1.2,
    "insolvent": -3.0, "insolvency": -3.0, "lambo": 1.6, "lawsuit": -1.7, "liquidated": -2.0,
    "liquidation": -1.7, "liquidations": -1.7, "moon": 1.9, "mooning": 2.3, "moons": 2.0,
    "ngmi": -1.9, "outage": -1.6, "outflow": -1.2, "outflows": -1.2, "outperform": 1.9,
    "outperformed": 1.9, "outperforms": 1.9, "oversold": 0.7, "overbought": -0.7, "plummet": -2.5,
    "plummeted": -2.5, "plummets": -2.5, "plunge": -2.3, "plunged": -2.3, "plunges": -2.3,
    "plunging": -2.3, "ponzi": -3.0, "pump": 1.3, "pumped": 1.3, "pumping": 1.5, "pumps": 1.3,
    "rallied": 2.0, "rallies": 2.0, "rally": 2.0, "rallying": 2.0, "rebound": 1.5,
    "rebounded": 1.5, "rebounds": 1.5, "rekt": -2.5, "resistance": -0.4, "rugged": -2.4,
    "rugpull": -3.2, "scam": -2.9, "scams": -2.9, "selloff": -2.1, "sell-off": -2.1,
    "skyrocket": 2.6, "skyrocketed": 2.6, "skyrockets": 2.6, "slump": -2.0, "slumped": -2.0,
    "slumps": -2.0, "soar": 2.3, "soared": 2.3, "soaring": 2.3, "soars": 2.3, "surge": 2.0,
    "surged": 2.0, "surges": 2.0, "surging": 2.0, "tank": -1.7, "tanked": -2.0, "tanking": -2.0,
    "tanks": -1.7, "tumble": -1.9, "tumbled": -1.9, "tumbles": -1.9, "underperform": -1.9,
    "underperformed": -1.9, "upgrade": 1.6, "upgraded": 1.6, "upgrades": 1.6, "uptrend": 1.7,
    "wagmi": 2.0, "writedown": -1.9,
}  # fmt: skip


@cache
def english() -> frozenset[str]:
    """The words of VADER's lexicon and of the market words, without emoticons."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    lexicon = SentimentIntensityAnalyzer().lexicon
    return frozenset(word for word in lexicon if word.isalpha()) | MARKET_WORDS.keys()
