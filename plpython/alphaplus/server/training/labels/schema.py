"""Parameters of kinds of labels: what each may be, and a refusal in words where it is not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alphaplus.server.training import spelling


class LabelError(ValueError):
    """A label cannot be what it is declared to be; the message says why."""


@dataclass(frozen=True)
class Number:
    """A number from ``low`` to ``high``, both included; without a default it may be left out."""

    default: float | None
    low: float
    high: float
    words: str
    whole: bool = False
    type: str = "number"

    def check(self, value: Any) -> float:
        """The value; raises ValueError saying what it should be."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if (
            not number
            or not math.isfinite(value)
            or not self.low <= value <= self.high
            or (self.whole and value != int(value))
        ):
            kind = "a whole number, " if self.whole else ""
            raise ValueError(f"{kind}{self.words}, from {self.low:g} to {self.high:g}")
        return float(value)


@dataclass(frozen=True)
class Choice:
    """One of some words."""

    default: str
    among: tuple[str, ...]
    words: str
    type: str = "choice"

    def check(self, value: Any) -> str:
        """The value; raises ValueError saying what it should be."""
        if value not in self.among:
            meant = spelling.nearest(str(value), self.among)
            hint = f" (did you mean {meant}?)" if meant else ""
            raise ValueError(f"{self.words}: one of {', '.join(self.among)}{hint}")
        return str(value)


@dataclass(frozen=True)
class Text:
    """A text of up to 20,000 characters."""

    default: str | None
    words: str
    type: str = "text"

    def check(self, value: Any) -> str:
        """The value; raises ValueError saying what it should be."""
        if not isinstance(value, str) or not 0 < len(value) <= 20_000:
            raise ValueError(f"{self.words}, a text of up to 20,000 characters")
        return value


@dataclass(frozen=True)
class Texts:
    """A list of texts, each once."""

    default: None
    words: str
    type: str = "list of texts"

    def check(self, value: Any) -> list[str]:
        """The value; raises ValueError saying what it should be."""
        if (
            not isinstance(value, list)
            or not 0 < len(value) <= 2000
            or not all(isinstance(item, str) and item for item in value)
            or len(set(value)) < len(value)
        ):
            raise ValueError(f"{self.words}: a list of texts, each once")
        return list(value)


Param = Number | Choice | Text | Texts


def checked(kind: str, schema: Mapping[str, Param], given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters with their defaults.

    Raises:
        LabelError: one that the kind does not know, or a value that it does not take.
    """
    if not isinstance(given, Mapping):
        raise LabelError(f"the parameters of a label are a JSON object, not {given!r}")
    for name in sorted(set(given) - set(schema)):
        meant = spelling.nearest(name, sorted(schema))
        hint = f"; did you mean {meant!r}?" if meant else ""
        known = ", ".join(sorted(schema)) or "none"
        raise LabelError(f"a label of kind {kind} has no parameter {name!r}{hint}; it has: {known}")
    values: dict[str, Any] = {}
    for name, param in schema.items():
        value = given.get(name, param.default)
        if value is not None:
            try:
                value = param.check(value)
            except ValueError as error:
                raise LabelError(
                    f"{name} of a label of kind {kind} is {error}; not {value!r}"
                ) from None
        values[name] = value
    return values
