"""The loader's login simulates a market, and again; it forgets no real one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from alphaplus.loaders import simulator

Conn = psycopg.Connection[Any]


def test_the_loader_simulates_twice(db: Conn, connect_as: Callable[[str, str], Conn]) -> None:
    loader = connect_as("alphaplus_loader", db.info.dbname)
    counts = []
    for seed in (7, 8):
        (symbol,) = simulator.run(loader, ["BTC"], 0.1, seed)
        row = db.execute(
            "select count(*), (select count(*) from market.trades_history) from market.trades"
            " where symbol = %s",
            (symbol,),
        ).fetchone()
        assert row is not None and row[0] > 0 and row[1] == 0
        counts.append(row[0])
    assert counts[0] != counts[1]
    db.execute(
        "insert into market.instruments (symbol, exchange, native_symbol, base, quote)"
        " values ('REAL', 'test', 'REAL', 'R', 'USD')"
    )
    with pytest.raises(psycopg.Error) as caught:
        loader.execute("call market.forget_simulation('REAL')")
    assert caught.value.sqlstate == "AP438"
