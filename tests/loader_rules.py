"""The shipped contract rules without a database, for tests of modules that need none."""

from __future__ import annotations

import re

from alphaplus.loaders.instruments import Catalog, Rule

from tests.conftest import ROOT

_ROW = re.compile(
    r"^\('([^']*)', '([^']*)', (null|'[^']*'), '([^']*)', ([\d.]+|null), '([^']*)', (null|'[^']*'),"
    r" '([^']*)', '[^']*', true\)",
    re.MULTILINE,
)


def shipped() -> Catalog:
    text = (ROOT / "sql" / "market" / "contract_rules.sql").read_text()

    def word(cell: str) -> str | None:
        return None if cell == "null" else cell.strip("'")

    rules = [
        Rule(
            exchange, pattern, word(kind), margin, None if size == "null" else float(size), unit,
            word(settlement), source, None,
        )
        for exchange, pattern, kind, margin, size, unit, settlement, source in _ROW.findall(text)
    ]  # fmt: skip
    assert len(rules) > 50
    return Catalog(rules)
