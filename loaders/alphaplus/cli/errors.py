"""The error codes of AlphaPlus, as its source raises them.

A code has one meaning. One that is raised with a single message has that as its meaning; one with
several has its meaning, and the messages it covers, in ``sql/error_codes.toml``.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from alphaplus.migrations import ROOT

_RAISE = re.compile(
    r"raise\s+exception\s+'((?:[^']|'')*)'(.+?);(?:\s*\n|\s+end\b)", re.DOTALL | re.IGNORECASE
)
_CODE = re.compile(r"errcode = '(AP\d{3})'")


@dataclass(frozen=True)
class ErrorCode:
    """A code, what it means, and the messages it comes with (% stands for a value)."""

    code: str
    meaning: str
    messages: tuple[str, ...]


def raised(root: Path = ROOT) -> dict[str, set[str]]:
    """The messages of each code in sql/ and plpython/."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path in (root / "sql").rglob("*.sql"):
        for message, options in _RAISE.findall(path.read_text()):
            for code in _CODE.findall(options):
                found[code].add(message.replace("''", "'"))
    for path in (root / "plpython").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args:
                for word in node.keywords:
                    if word.arg == "sqlstate" and isinstance(word.value, ast.Constant):
                        found[str(word.value.value)].add(_text(node.args[0]))
    return dict(found)


def _text(node: ast.expr) -> str:
    """A message as the source has it; what is put in at run time becomes %."""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.Constant):
        return str(node.value)
    return "%"


def declared(root: Path = ROOT) -> dict[str, tuple[str, set[str]]]:
    """The codes of sql/error_codes.toml: meaning and messages."""
    table = tomllib.loads((root / "sql" / "error_codes.toml").read_text())
    return {code: (row["meaning"], set(row["messages"])) for code, row in table.items()}


def problems(root: Path = ROOT) -> list[str]:
    """Codes whose meaning is not one: messages that the table does not cover, or has too many."""
    table = declared(root)
    found = raised(root)
    several = {code for code, messages in found.items() if len(messages) > 1}
    wrong = [
        f"{code} is raised with several messages: {sorted(found[code])}; give the others a code of"
        " their own, or say in sql/error_codes.toml what they have in common"
        for code in sorted(several - set(table))
    ]
    for code, (_, messages) in sorted(table.items()):
        if more := found.get(code, set()) - messages:
            wrong.append(f"{code}: not in sql/error_codes.toml: {sorted(more)}")
        if gone := messages - found.get(code, set()):
            wrong.append(f"{code}: no longer raised: {sorted(gone)}")
    return wrong


def codes(root: Path = ROOT) -> list[ErrorCode]:
    """All codes, in order."""
    table = declared(root)
    return [
        ErrorCode(
            code,
            table[code][0] if code in table else next(iter(messages)),
            tuple(sorted(messages)),
        )
        for code, messages in sorted(raised(root).items())
    ]
