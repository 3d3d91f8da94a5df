"""Errors as a caller reads them: their own words, code and hint, and nothing of Python's.

PL/Python writes the name of an error's class and a colon before its message, and drops the message
of an error that is raised while it fetches rows one by one ("error fetching next item from
iterator"). So :func:`speak_plainly` names the class by the first words of the message, where it has
a colon of its own, else by its code ("AP501: unknown model version 7"); and :func:`rows` gives, for
an error between rows, a last row whose time is :data:`FAILED`, at which ``ops._at`` raises what
``ops._failure`` tells it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

FAILED = -(2**63)  # the time, in microseconds, of the row that stands for an error
_KEY = "alphaplus.failure"


def speak_plainly(plpy: Any) -> None:
    """Let ``plpy.error`` raise messages without the name of a class before them."""
    if getattr(plpy.error, "__module__", None) == __name__:
        return

    def error(
        message: Any,
        *,
        sqlstate: str = "XX000",
        detail: str | None = None,
        hint: str | None = None,
    ) -> NoReturn:
        head, colon, tail = str(message).partition(": ")
        if not colon or "\n" in head:
            head, tail = sqlstate, str(message)
        kind = type(head, (plpy.Error,), {"__module__": "builtins"})
        found = kind(tail)
        found.sqlstate, found.detail, found.hint = sqlstate, detail, hint
        found.told = str(message)
        raise found

    plpy.error = error
    canceled = plpy.spiexceptions.QueryCanceled
    canceled.__name__, canceled.__module__ = "canceled", "builtins"


def _state(packed: int) -> str:
    """A SQLSTATE of the number that PostgreSQL keeps it as."""
    return "".join(chr((packed >> 6 * i & 0x3F) + ord("0")) for i in range(5))


def parts(error: BaseException) -> dict[str, Any]:
    """SQLSTATE, message, detail and hint of an error of ours or of a statement."""
    spi = getattr(error, "spidata", None)
    if spi:
        return {
            "sqlstate": _state(spi[0]), "message": str(error), "detail": spi[1], "hint": spi[2],
        }  # fmt: skip
    return {
        "sqlstate": getattr(error, "sqlstate", None) or "38000",
        "message": getattr(error, "told", None) or str(error) or type(error).__name__,
        "detail": getattr(error, "detail", None),
        "hint": getattr(error, "hint", None),
    }


def rows(cache: dict[str, Any], found: Iterable[Any], width: int, time: int = 0) -> Iterator[Any]:
    """The rows; in place of an error a last one of this width, :data:`FAILED` in the column that is
    the time."""
    try:
        yield from found
    except Exception as error:
        cache[_KEY] = json.dumps(parts(error))
        yield tuple(FAILED if i == time else None for i in range(width))


def failure(cache: dict[str, Any]) -> str | None:
    """``ops._failure``: the error that the last row of :func:`rows` stood for, as JSON; once."""
    found: str | None = cache.pop(_KEY, None)
    return found


def again(plpy: Any, error: Any) -> NoReturn:
    """Raise a statement's error as one of ours, without the name of its class."""
    found = parts(error)
    plpy.error(
        found["message"],
        sqlstate=found["sqlstate"],
        detail=found["detail"],
        hint=found["hint"],
    )
    raise AssertionError  # plpy.error does not return
