"""From a text to score, label, confidence and words, by one of the methods."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from alphaplus.server.sentiment import entities, lexicons, terms
from alphaplus.texts import cleaning, language
from alphaplus.texts import terms as tables
from alphaplus.texts.words import english

LEXICONS = ("vader", "textblob", "finance", "blend")
NEUTRAL = 0.05  # VADER's own bounds
KEYWORDS = 10
_BY: dict[str, Callable[[str], lexicons.Found]] = {
    "vader": lexicons.vader,
    "textblob": lexicons.textblob,
    "finance": lexicons.market,
}


class Answer(NamedTuple):
    """What is said of a text; score is None where it cannot be told, with the reason."""

    score: float | None
    label: str | None
    confidence: float | None
    keywords: list[str]
    language: str
    words: list[tuple[str, float]]
    reason: str | None
    version: str


def label_of(score: float) -> str:
    """negative, neutral or positive; VADER's bounds of 0.05."""
    return "positive" if score >= NEUTRAL else "negative" if score <= -NEUTRAL else "neutral"


def nothing(found_language: str, reason: str, version: str = "") -> Answer:
    """No score, and why."""
    return Answer(None, None, None, [], found_language, [], reason, version)


def merged(words: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """What each word gave in all, in order of first appearance."""
    sums: dict[str, float] = {}
    for word, value in words:
        sums[word] = sums.get(word, 0.0) + value
    return list(sums.items())


def keywords_of(words: Sequence[tuple[str, float]]) -> list[str]:
    """The words that decided, strongest first."""
    strongest = sorted(words, key=lambda item: -abs(item[1]))
    return [word for word, value in strongest[:KEYWORDS] if value and not word.startswith("(")]


def prepared(text: str | None, given: str | None) -> tuple[str, str, str | None]:
    """(text to read, language, why it cannot be read or what is left out)."""
    if text is None or not text.strip():
        return "", "zxx", "no text"
    text = cleaning.clean(text)
    cut = None
    if len(text) > cleaning.LIMIT:
        text = text[: cleaning.LIMIT]
        cut = f"only the first {cleaning.LIMIT} characters are read"
    if not text.strip():
        return "", "zxx", "no text"
    return text, given or language.detect(text, english())[0], cut


def by_lexicon(
    text: str, method: str, found_language: str, weights: dict[str, float], cut: str | None
) -> Answer:
    """One of the lexicon methods on a prepared text."""
    known = lexicons.versions()
    version = known.get(method) or "+".join(
        f"{part}-{known[part]}*{weight:g}" for part, weight in sorted(weights.items())
    )
    if found_language not in ("en", "zxx"):
        which = "not known" if found_language == "und" else found_language
        return nothing(found_language, f"the language is {which}; {method} reads English", version)
    if method == "blend":
        parts = {part: _BY[part](text) for part in weights}
        raw = sum(weights[part] * found.score for part, found in parts.items())
        score = max(-1.0, min(1.0, raw))
        scale = score / raw if raw else 1.0
        words = merged([
            (word.lower(), weights[part] * value * scale)
            for part, found in parts.items() for word, value in found.words
        ])  # fmt: skip
        told = {part: found.score for part, found in parts.items() if found.words}
        spread = max(told.values()) - min(told.values()) if len(told) > 1 else 0.0
        agreement = 1.0 - spread / 2.0
    else:
        found = _BY[method](text)
        score, words, agreement = found.score, merged(found.words), 1.0
    if found_language == "zxx" and not words and not cleaning.has_words(text):
        return nothing("zxx", "no words", version)
    # Sure where several words say the same, and the parts of a blend agree.
    confidence = agreement * len(words) / (len(words) + 1.0)
    return Answer(
        score, label_of(score), confidence, keywords_of(words), found_language, words, cut, version
    )


def answer(
    text: str | None,
    method: str,
    given: str | None,
    weights: dict[str, float],
    model: tables.Model | None = None,
) -> Answer:
    """A text's answer by a method; ``model`` for the trained ones."""
    read, found_language, why = prepared(text, given)
    if not read:
        return nothing(found_language, why or "no text")
    if method in LEXICONS:
        return by_lexicon(read, method, found_language, weights, why)
    if model is None:
        return nothing(found_language, f"no version of {method} is in use yet")
    if found_language not in (model.language, "zxx"):
        which = "not known" if found_language == "und" else found_language
        return nothing(
            found_language, f"the language is {which}; {method} reads {model.language}",
            model.version,
        )  # fmt: skip
    told = tables.score(model, read)
    if told is None:
        return nothing(found_language, "no word of it is known to the model", model.version)
    return Answer(
        told.score, told.label, told.confidence, keywords_of(told.words), found_language,
        merged(told.words), why, model.version,
    )  # fmt: skip


def _refused(plpy: Any, method: str | None, models: Sequence[str]) -> None:
    plpy.error(
        f"unknown method {method!r}" if method is not None else "no method is given",
        sqlstate="AP670",
        hint=f"Methods: {', '.join((*LEXICONS, *models))}.",
    )


def blend_weights(plpy: Any, cache: dict[str, Any]) -> dict[str, float]:
    """The weights of the blend's parts, those above 0."""
    plan = cache.get("sentiment.weights_plan")
    if plan is None:
        plan = plpy.prepare("select method, weight from sentiment.blend_weights where weight > 0")
        cache["sentiment.weights_plan"] = plan
    return {row["method"]: row["weight"] for row in plpy.execute(plan)}


def analyze(
    plpy: Any, cache: dict[str, Any], text: str | None, symbol: str | None, method: str | None,
    given: str | None, as_of: int | None,
) -> dict[str, Any]:  # fmt: skip
    """The row of ``sentiment.analyze``."""
    model = None
    if method not in LEXICONS:
        model = terms.model(plpy, cache, method, as_of)
        if model is None and not terms.exists(plpy, cache, method):
            _refused(plpy, method, terms.names(plpy))
    assert method is not None
    weights = blend_weights(plpy, cache) if method == "blend" else {}
    read = text
    if symbol is not None and text:
        parts = entities.read(plpy, cache).about(cleaning.clean(text[: cleaning.LIMIT]))
        if symbol in parts:
            read = parts[symbol]
            given = given or language.detect(cleaning.clean(text), english())[0]
        elif parts:
            others = ", ".join(parts)
            found = nothing(given or "und", f"it is about {others}, not about {symbol}")
            return _row(found)
    return _row(answer(read, method, given, weights, model))


def _row(found: Answer) -> dict[str, Any]:
    return {
        "score": found.score,
        "label": found.label,
        "confidence": found.confidence,
        "keywords": found.keywords,
        "language": found.language,
        "per_word": json.dumps(
            [{"word": word, "contribution": value} for word, value in found.words]
        ),
        "reason": found.reason,
        "version": found.version,
    }


def score(
    plpy: Any, cache: dict[str, Any], text: str | None, method: str | None, as_of: int | None
) -> float | None:
    """The score alone, as fast as it can be told."""
    if method in ("vader", "textblob"):
        read, found_language, _ = prepared(text, None)
        if not read or found_language not in ("en", "zxx"):
            return None
        if found_language == "zxx" and not cleaning.has_words(read):
            return answer(text, method, found_language, {}).score
        return (lexicons.vader_score if method == "vader" else lexicons.textblob_score)(read)
    if method not in LEXICONS:
        model = terms.model(plpy, cache, method, as_of)
        if model is None and not terms.exists(plpy, cache, method):
            _refused(plpy, method, terms.names(plpy))
        assert method is not None
        if model is not None:
            read, found_language, _ = prepared(text, None)
            if not read or found_language not in (model.language, "zxx"):
                return None
            return tables.score_only(model, read)
        return None
    weights = blend_weights(plpy, cache) if method == "blend" else {}
    return answer(text, method, None, weights).score


def score_many(
    plpy: Any, cache: dict[str, Any], text: str, symbols: list[str], given: str | None,
    methods: list[str],
) -> list[dict[str, Any]]:  # fmt: skip
    """The rows of one stored text: as a whole (*), and for each asset what is said of it."""
    weights = blend_weights(plpy, cache)
    cut = cleaning.clean(text[: 2 * cleaning.LIMIT])
    parts = entities.read(plpy, cache).about(cut) if symbols else {}
    whole: dict[str, Answer | None] = dict.fromkeys(methods)
    rows = []
    for symbol in ("*", *symbols):
        read = text if symbol == "*" else parts.get(symbol, cut)
        same = symbol == "*" or read in (text, cut)
        for method in methods:
            found = whole[method] if same else None
            if found is None:
                model = None if method in LEXICONS else terms.model(plpy, cache, method, None)
                found = answer(read, method, given, weights, model)
                if symbol == "*":
                    whole[method] = found
            if method not in LEXICONS and not found.version:
                continue
            rows.append(
                {
                    "symbol": symbol, "method": method, "version": found.version,
                    "score": found.score, "label": found.label, "confidence": found.confidence,
                    "keywords": found.keywords, "reason": found.reason,
                }
            )  # fmt: skip
    return rows
