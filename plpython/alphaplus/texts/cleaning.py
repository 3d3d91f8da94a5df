"""What a text is before anything reads it: markup and invisible characters out, length bounded."""

from __future__ import annotations

import html
import re

LIMIT = 10_000  # characters that are read of a text

# Zero-width characters and direction marks; the joiner stays, as emoji are joined by it.
_INVISIBLE = re.compile("[\u00ad\u200b\u200c\u200e\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
_TAG = re.compile(r"<(?:/?[a-zA-Z][a-zA-Z0-9]*(?:\s[^<>]*)?/?|!--.*?--)>", re.DOTALL)
_DROPPED = re.compile(r"<(script|style)\b[^>]*>.*?</\1\s*>", re.DOTALL | re.IGNORECASE)
ADDRESS = re.compile(r"(?:https?://|www\.)\S+|\S+@\S+\.\S+", re.IGNORECASE)
_MARK = re.compile(r"[@#$]\w+")


def clean(text: str) -> str:
    """The text without HTML and invisible characters; plain text comes back as it is."""
    if not text.isascii():
        text = _INVISIBLE.sub("", text)
    if "<" in text and _TAG.search(text):
        text = html.unescape(_TAG.sub(" ", _DROPPED.sub(" ", text)))
    return text


def words_only(text: str) -> str:
    """The text without addresses and mail, and without handles, tags and cashtags."""
    return _MARK.sub(" ", ADDRESS.sub(" ", text))


def has_words(text: str) -> bool:
    """Whether a letter is left once addresses are taken out."""
    return any(c.isalpha() for c in ADDRESS.sub(" ", text))
