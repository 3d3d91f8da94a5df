"""Every SQL block of docs/regimes.md runs, in order, and the operator's script too."""

from __future__ import annotations

import datetime as dt
import re

from tests.conftest import ROOT
from tests.db.regime.test_regime import Conn, instrument, path

START = dt.datetime(2024, 5, 1, tzinfo=dt.UTC)


def test_the_page_runs(db_module: Conn) -> None:
    instrument(db_module, "BTCUSDT")
    for timeframe, width, n in (
        ("1 hour", dt.timedelta(hours=1), 24 * 60),
        ("5 minutes", dt.timedelta(minutes=5), 12 * 24 * 60),
    ):
        bars = path(1, n)
        with (
            db_module.cursor() as cursor,
            cursor.copy(
                "copy market.candles (symbol, timeframe, ts, known_at, open, high, low, close, volume)"
                " from stdin"
            ) as copy,
        ):
            for i in range(n):
                ts = START + i * width
                copy.write_row(("BTCUSDT", timeframe, ts, ts + width, *map(float, bars[i])))
    blocks = re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "regimes.md").read_text(), re.S)
    assert len(blocks) >= 6
    for block in blocks:
        for statement in filter(str.strip, block.split(";")):
            cursor = db_module.execute(statement)  # type: ignore[call-overload]
            if cursor.description and not statement.strip().startswith("call"):
                assert cursor.fetchall(), statement
