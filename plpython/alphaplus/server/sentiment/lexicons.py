"""Methods that look words up: VADER, TextBlob, and a lexicon of market words.

VADER: Hutto and Gilbert (2014), ICWSM. TextBlob: the analyser of the pattern library, De Smedt and
Daelemans (2012), JMLR 13. Both are the packages themselves, called as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

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


class Found(NamedTuple):
    """A method's answer: score, and what each word gave of it (these sum to the score)."""

    score: float
    words: list[tuple[str, float]]


@cache
def _vader(market: bool) -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    class Vader(SentimentIntensityAnalyzer):  # type: ignore[misc]
        """VADER, which keeps what it found word by word."""

        found: tuple[list[str], list[float]] = ([], [])

        def _but_check(self, words: list[str], sentiments: list[float]) -> Any:
            sentiments = super()._but_check(words, sentiments)
            self.found = words, sentiments
            return sentiments

    analyser = Vader()
    if market:
        analyser.lexicon = dict(MARKET_WORDS)
        analyser.emojis = {}
    return analyser


@cache
def vader_words() -> frozenset[str]:
    """The words of VADER's lexicon and of the market words, without emoticons."""
    return frozenset(w for w in _vader(False).lexicon if w.isalpha()) | MARKET_WORDS.keys()


def _by_vader(text: str, market: bool) -> Found:
    analyser = _vader(market)
    score = float(analyser.polarity_scores(text)["compound"])
    words, values = analyser.found
    total = sum(values)
    if not total or not score:
        return Found(score, [])
    return Found(score, [(w, v / total * score) for w, v in zip(words, values, strict=True) if v])


def vader(text: str) -> Found:
    """VADER's compound score, and by word its share of it in proportion to the word's valence."""
    return _by_vader(text, False)


def market(text: str) -> Found:
    """The market words with VADER's rules of negation, degree, capitals and but."""
    lower = text.lower()
    if not any(word in lower for word in MARKET_WORDS):
        return Found(0.0, [])
    return _by_vader(text, True)


@cache
def _textblob() -> Callable[[str], Any]:
    from textblob.en import sentiment

    found: Callable[[str], Any] = sentiment
    return found


def textblob(text: str) -> Found:
    """TextBlob's polarity: the mean of its chunks' polarities, each with its share."""
    answer = _textblob()(text)
    chunks = answer.assessments
    return Found(
        float(answer[0]), [(" ".join(words), p / len(chunks)) for words, p, *_ in chunks if p]
    )


def vader_score(text: str) -> float:
    """The score alone."""
    return float(_vader(False).polarity_scores(text)["compound"])


def textblob_score(text: str) -> float:
    """The score alone."""
    return float(_textblob()(text)[0])


def versions() -> dict[str, str]:
    """The packages' versions by method."""
    from importlib.metadata import version

    return {
        "vader": version("vaderSentiment"),
        "textblob": version("textblob"),
        "finance": "1",
    }
