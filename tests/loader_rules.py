"""The shipped contract rules without a database, for tests of modules that need none."""

from __future__ import annotations

import re
from pathlib import Path

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


def um(folder: Path) -> Path:
    """A folder of Binance's USD-M archive: spot and contracts have the same names and columns."""
    (folder / "um").mkdir(exist_ok=True)
    return folder / "um"
