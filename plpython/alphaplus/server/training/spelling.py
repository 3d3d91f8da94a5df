"""What somebody may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def nearest(word: str, words: Sequence[str]) -> str | None:
    """The word most like another; None where none is like it."""
    found = difflib.get_close_matches(word[:100].lower(), words, 1, 0.6)
    return found[0] if found else None
