"""Loading: rows a second of ``alphaplus load`` beside a bare COPY of the same rows.

The bare COPY gets a text file with exactly the table's columns, ready made, into the same
hypertable with the same triggers; the loader gets the exchange's archive as it is, detects, parses,
checks and names it first.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from alphaplus.loaders.load import Loader, Options

from tests.bench import _common

ROWS = 500_000
COLUMNS = "symbol, ts, trade_id, known_at, received_at, price, size, side"
HASH = (
    "select count(*), sum(hashtextextended(t::text, 0))"
    f" from (select {COLUMNS} from market.trades) t"
)


def archive(path: Path, n: int) -> None:
    """Binance's aggTrades of two days, as in its public archive."""
    rng = np.random.default_rng(1)
    ts = 1_704_067_200_000 + np.sort(rng.integers(0, 2 * 86_400_000, n))
    price = np.round(42_000 + np.cumsum(rng.standard_normal(n)), 1)
    size = rng.integers(1, 5000, n) / 1000
    maker = rng.random(n) < 0.5
    with path.open("w") as file:
        file.write(
            "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n"
        )
        for i in range(n):
            flag = "true" if maker[i] else "false"
            file.write(f"{10**9 + i},{price[i]},{size[i]},{2 * i},{2 * i + 1},{ts[i]},{flag}\n")


def _load(conninfo: str, path: Path) -> tuple[float, Any]:
    with psycopg.connect(conninfo, autocommit=True) as conn:
        start = time.perf_counter()
        report = Loader(conn, Options()).load(path)
        taken = time.perf_counter() - start
        assert report.loaded == ROWS
        return ROWS / taken, conn.execute(HASH).fetchone()


def _copy(conninfo: str, path: Path) -> tuple[float, Any]:
    with psycopg.connect(conninfo, autocommit=True) as conn:
        start = time.perf_counter()
        with (
            conn.cursor() as cursor,
            path.open("rb") as file,
            cursor.copy(f"copy market.trades ({COLUMNS}) from stdin (format csv)") as stream,
        ):
            while block := file.read(1 << 20):
                stream.write(block)
        return ROWS / (time.perf_counter() - start), conn.execute(HASH).fetchone()


def run(conninfo: str) -> list[dict[str, Any]]:
    """Both ways, each into a fresh database, three times, the best counts."""
    loaded, bare = [], []
    with tempfile.TemporaryDirectory() as folder:
        path, plain = (
            Path(folder) / "um" / "BTCUSDT-aggTrades-2024-01-01.csv",
            Path(folder) / "plain.csv",
        )
        path.parent.mkdir()
        archive(path, ROWS)
        for turn in range(3):
            with _common.database(conninfo, "load") as own:
                rate, rows = _load(own, path)
                loaded.append(rate)
                if turn == 0:
                    with psycopg.connect(own) as conn, plain.open("wb") as file:
                        query = f"copy (select {COLUMNS} from market.trades) to stdout (format csv)"
                        with conn.cursor().copy(query) as stream:  # type: ignore[call-overload]
                            file.writelines(stream)
            with _common.database(conninfo, "copy") as own:
                rate, peer_rows = _copy(own, plain)
                bare.append(rate)
            assert rows == peer_rows, "both ways give the same rows"
    return [
        _common.row(
            "load trades (Binance aggTrades CSV)",
            max(loaded),
            "rows/s",
            peer="bare COPY of the same rows",
            peer_value=max(bare),
            goal="ratio >= 0.7",
        )
    ]
