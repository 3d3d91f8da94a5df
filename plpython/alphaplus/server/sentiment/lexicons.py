"""Methods that look words up: VADER, TextBlob, and a lexicon of market words.

VADER: Hutto and Gilbert (2014), ICWSM. TextBlob: the analyser of the pattern library, De Smedt and
Daelemans (2012), JMLR 13. Both are the packages themselves, called as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from alphaplus.texts.words import MARKET_WORDS


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
