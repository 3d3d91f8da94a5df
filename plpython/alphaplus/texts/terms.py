"""A text model that is a table of weights: words, pairs of words, and parts of words.

Every part belongs to a word, so that a text's score is a sum over its words:
``z_c = b_c + sum over words and pairs of w_c(word) / sqrt(number of words)`` for each class c, and
``score = P(positive) - P(negative)`` with the probabilities' softmax. What a word gave is its share
of ``z_positive - z_negative``, scaled so that the words and the intercept sum to the score.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from alphaplus.texts.cleaning import ADDRESS

CLASSES = {2: ("negative", "positive"), 3: ("negative", "neutral", "positive")}
MOST_TERMS = 500_000
KEPT_WORDS = 100_000  # words whose sums a backend keeps
LONGEST = 40  # characters of a word that are read
GRAMS = (3, 4, 5)
_TOKEN = re.compile(r"[$#@]?\w+(?:['\u2019-]\w+)*|[^\w\s]", re.UNICODE)
_DIGITS = re.compile(r"\d+(?:[.,]\d+)*")
INTERCEPT = "(intercept)"


def words_of(text: str) -> list[str]:
    """The words of a text as the model reads them: lower case, numbers as 0, no addresses."""
    if "/" in text or "@" in text or "www" in text:
        text = ADDRESS.sub(" ", text)
    text = text.lower()
    if any(map(str.isdigit, text)):
        text = _DIGITS.sub("0", text)
    return _TOKEN.findall(text)


def parts_of(word: str) -> Iterator[str]:
    """The terms of a single word: itself and its parts of 3 to 5 characters."""
    yield "w:" + word
    if not word.isalpha() or len(word) < 2:
        return
    marked = f"^{word[:LONGEST]}$"
    for n in GRAMS:
        for at in range(len(marked) - n + 1):
            yield "c:" + marked[at : at + n]


def terms_of(text: str) -> tuple[dict[str, int], int]:
    """(how often each term is in the text, number of words)."""
    words = words_of(text)
    counts: dict[str, int] = {}
    for word in words:
        for term in parts_of(word):
            counts[term] = counts.get(term, 0) + 1
    for first, second in pairwise(words):
        pair = f"b:{first} {second}"
        counts[pair] = counts.get(pair, 0) + 1
    return counts, len(words)


@dataclass
class Model:
    """A version: log odds of each term by class, less those of negative."""

    version: str
    language: str
    classes: int
    intercept: tuple[float, float]
    # term -> (positive less negative, neutral less negative)
    terms: dict[str, tuple[float, float]]
    words: dict[str, tuple[float, float, bool]] = field(default_factory=dict)

    def word(self, word: str) -> tuple[float, float, bool]:
        """The sum of the terms of a word, and whether any is known; kept for the next time."""
        found = self.words.get(word)
        if found is None:
            positive = neutral = 0.0
            known = False
            get = self.terms.get
            for term in parts_of(word):
                weights = get(term)
                if weights is not None:
                    positive += weights[0]
                    neutral += weights[1]
                    known = True
            if len(self.words) >= KEPT_WORDS:
                self.words.clear()
            found = self.words[word] = (positive, neutral, known)
        return found


class Told(NamedTuple):
    """What a model says of a text; the words sum to the score."""

    score: float
    label: str
    confidence: float
    words: list[tuple[str, float]]


def parse(content: bytes, version: str = "") -> Model:
    """A model out of its artifact.

    Raises:
        ValueError: it is none; the words say why.
    """
    try:
        read = json.loads(content.decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"it is no JSON ({error})") from None
    if not isinstance(read, dict) or read.get("format") != "alphaplus.terms.1":
        raise ValueError('its "format" is not alphaplus.terms.1')
    names = read.get("classes")
    if names not in [list(found) for found in CLASSES.values()]:
        raise ValueError("its classes are not negative, (neutral,) positive")
    k = len(names)
    language = read.get("language")
    if not isinstance(language, str) or not re.fullmatch(r"[a-z]{2,3}", language):
        raise ValueError("its language is no ISO 639 code")
    table = read.get("terms")
    if not isinstance(table, dict) or not table:
        raise ValueError("it has no terms")
    if len(table) > MOST_TERMS:
        raise ValueError(f"it has {len(table)} terms, the limit is {MOST_TERMS}")
    terms = {term: odds(weights, k, term) for term, weights in table.items()}
    wrong = next((t for t in terms if not re.match(r"[wbc]:.", t, re.DOTALL) or "\0" in t), None)
    if wrong is not None:
        raise ValueError(f"{wrong!r} is no term")
    return Model(version, language, k, odds(read.get("intercept"), k, INTERCEPT), terms)


def odds(weights: Any, k: int, term: str) -> tuple[float, float]:
    """(positive less negative, neutral less negative) of the classes' log odds."""
    good = isinstance(weights, list) and len(weights) == k
    if not good or not all(
        isinstance(x, int | float) and not isinstance(x, bool) and abs(x) < 1e6 for x in weights
    ):
        raise ValueError(f"the weights of {term!r} are not {k} numbers")
    return float(weights[-1] - weights[0]), float(weights[1] - weights[0]) if k == 3 else 0.0


def _sums(model: Model, words: list[str]) -> tuple[float, float, bool]:
    positive = neutral = 0.0
    known = False
    kept, fresh = model.words.get, model.word
    for word in words:
        found = kept(word) or fresh(word)
        positive += found[0]
        neutral += found[1]
        known = known or found[2]
    get = model.terms.get
    last = words[0] if words else ""
    for word in words[1:]:
        pair = get(f"b:{last} {word}")
        if pair is not None:
            positive += pair[0]
            neutral += pair[1]
            known = True
        last = word
    return positive, neutral, known


def probabilities(model: Model, positive: float, neutral: float) -> tuple[float, float, float]:
    """(negative, neutral, positive) of log odds against negative."""
    if model.classes == 2:
        p = 1.0 / (1.0 + math.exp(-positive)) if positive > -700 else 0.0
        return 1.0 - p, 0.0, p
    top = max(0.0, positive, neutral)
    odds = math.exp(-top), math.exp(neutral - top), math.exp(positive - top)
    total = sum(odds)
    return odds[0] / total, odds[1] / total, odds[2] / total


def told(model: Model, text: str) -> tuple[float, float, float]:
    """P(negative), P(neutral), P(positive); of a text without a known word, the intercept's."""
    words = words_of(text)
    positive, neutral, _ = _sums(model, words)
    scale = 1.0 / math.sqrt(max(len(words), 1))
    return probabilities(
        model, model.intercept[0] + positive * scale, model.intercept[1] + neutral * scale
    )


def score_only(model: Model, text: str) -> float | None:
    """P(positive) - P(negative); None where no word is known."""
    words = words_of(text)
    positive, neutral, known = _sums(model, words)
    if not known:
        return None
    scale = 1.0 / math.sqrt(len(words))
    p = probabilities(
        model, model.intercept[0] + positive * scale, model.intercept[1] + neutral * scale
    )
    return p[2] - p[0]


def score(model: Model, text: str) -> Told | None:
    """Score, label, the label's probability and what each word gave; None: no word is known."""
    words = words_of(text)
    positive, neutral, known = _sums(model, words)
    if not known:
        return None
    scale = 1.0 / math.sqrt(len(words))
    raw = model.intercept[0] + positive * scale
    p = probabilities(model, raw, model.intercept[1] + neutral * scale)
    value = p[2] - p[0]
    labels = [0, 2] if model.classes == 2 else [0, 1, 2]
    best = max(labels, key=lambda i: p[i])
    # value = p2 (1 - exp(-raw)): as raw goes to 0, a unit of log odds is worth p2.
    unit = value / raw if abs(raw) > 1e-9 else p[2]
    given = [(word, model.word(word)[0] * scale * unit) for word in words]
    for first, second in pairwise(words):
        pair = model.terms.get(f"b:{first} {second}")
        if pair is not None:
            given.append((f"{first} {second}", pair[0] * scale * unit))
    given.append((INTERCEPT, model.intercept[0] * unit))
    return Told(value, CLASSES[3][best], p[best], [(w, v) for w, v in given if v])
