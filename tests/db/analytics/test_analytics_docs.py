"""The blocks of the pages on analytics and back-tests run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.db import serving

ROOT = Path(__file__).resolve().parents[3]
Conn = psycopg.Connection[Any]


@pytest.mark.parametrize("page", ["analytics", "backtest"])
def test_every_block_runs(db: Conn, page: str) -> None:
    serving.install(db)
    db.execute(
        "insert into market.instruments (symbol, exchange, native_symbol, base, quote)"
        " values ('BTCUSDT', 'binance', 'BTCUSDT', 'BTC', 'USDT')"
    )
    blocks = re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / f"{page}.md").read_text(), re.S)
    assert blocks
    for block in blocks:
        for statement in block.split(";\n"):
            if statement.strip():
                db.execute(statement.encode())


def test_the_operators_page_runs(db: Conn) -> None:
    serving.install(db)
    text = (ROOT / "sql" / "psql" / "analytics.sql").read_text()
    statements = "\n".join(line for line in text.splitlines() if not line.startswith("\\"))
    for statement in statements.split(";\n"):
        if statement.strip():
            db.execute(statement.encode())
