"""``alphaplus load FOLDER``, names that fit two instruments, and loading the same data twice."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from alphaplus.cli.pulse import pulse
from alphaplus.loaders.instruments import Instrument, Register
from psycopg import conninfo as pq

from tests.conftest import Server

Conn = psycopg.Connection[Any]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(db: Conn, server: Server, tmp_path: Path) -> Run:
    params = pq.conninfo_to_dict(server.conninfo(db.info.dbname, "alphaplus_loader"))
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD",
             "dbname": "PGDATABASE", "sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT"}  # fmt: skip
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "DATABASE", "ALPHA"))}
    env |= {names[k]: str(v) for k, v in params.items() if k in names} | {"COLUMNS": "300"}

    def go(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "alphaplus.cli.main", "load", *arguments], env=env,
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return go


def bars(n: int = 40, seed: int = 1, factor: float = 1.0) -> str:
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 1e-3, n)))
    lines = ["timestamp,open,high,low,close,volume"]
    for i, price in enumerate(close.tolist()):
        lines.append(
            f"2024-04-01T{i // 60:02}:{i % 60:02}:00Z,{price},{price * 1.001},{price * 0.999},"
            f"{price},{factor * (1 + i % 7)}"
        )
    return "\n".join(lines) + "\n"


def symbols(db: Conn) -> list[str]:
    return [s for (s,) in db.execute("select symbol from market.instruments order by 1").fetchall()]


def test_a_folder(db: Conn, run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "deep" / ".hidden").mkdir(parents=True)
    (folder / "COINBASE_BTC-USD_1m.csv").write_text(bars(seed=1))
    with gzip.open(folder / "deep" / "COINBASE_ETH-USD_1m.csv.gz", "wt") as packed:
        packed.write(bars(seed=2))
    (folder / "README.md").write_text("# what this is\n")
    (folder / "readme.txt").write_text("what this is\n")
    (folder / "deep" / ".hidden" / "COINBASE_SOL-USD_1m.csv").write_text(bars(seed=3))
    (folder / "nonsense.csv").write_text("a;b\nx;y\n")
    done = run("data")
    assert done.returncode == 1  # one file of the folder is no market data; the others are loaded
    assert "nonsense.csv" in done.stderr and "Traceback" not in done.stderr
    assert symbols(db) == ["BTC-USD.SPOT@coinbase", "ETH-USD.SPOT@coinbase"]
    for symbol in symbols(db):
        assert f"{symbol} (spot" in done.stderr
    assert "2024-04-01T00:00:00+00:00 to 2024-04-01T00:39:00+00:00" in done.stderr
    (folder / "nonsense.csv").unlink()
    again = run("auto", "data")
    assert again.returncode == 0 and again.stderr.count("loaded before") == 2
    assert db.execute("select count(*) from market.candles").fetchone() == (80,)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["empty"], 5, "no file in it has a name that market data have"),
        (["nothing/there"], 1, "no such file: nothing/there"),
        (["nothing.csv"], 1, "no such file: nothing.csv"),
        (["candels", "nothing.csv"], 2, "unknown kind candels"),
        (["nothing"], 1, "no such file: nothing"),
    ],
)
def test_what_is_not_there(
    run: Run, tmp_path: Path, arguments: list[str], status: int, words: str
) -> None:
    (tmp_path / "empty").mkdir()
    done = run(*arguments)
    assert (done.returncode, words in done.stderr) == (status, True), done.stderr


def test_the_same_data_never_become_a_second_instrument_silently(
    db: Conn, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "BTC-PERP_1m.csv").write_text(bars())
    said = ("--kind", "perpetual", "--margin", "linear", "--contract-size", "1", "--unit", "base")
    assert run("BTC-PERP_1m.csv", "--symbol", "BTC-PERP", *said).returncode == 0
    (one,) = symbols(db)
    # … by the same file, by a copy under another name, and with its volumes in other units
    (tmp_path / "copy.csv").write_text(bars())
    (tmp_path / "units.csv").write_text(bars(factor=1e-4))
    for name in ("BTC-PERP_1m.csv", "copy.csv", "units.csv"):
        done = run(name, "--symbol", "BTC-PERP", "--exchange", "ftx", "--timeframe", "1m", *said)
        assert done.returncode == 1, done.stderr
        assert f"these rows are there as {one}; as BTC-PERP@ftx" in done.stderr
        assert symbols(db) == [one]
    (tmp_path / "other.csv").write_text(bars(seed=9))  # another market's bars are no question
    done = run("other.csv", "--symbol", "BTC-PERP", "--exchange", "okx", "--timeframe", "1m", *said)
    assert done.returncode == 0 and len(symbols(db)) == 2, done.stderr
    done = run(
        "copy.csv",
        "--symbol",
        "BTC-PERP",
        "--exchange",
        "ftx",
        "--timeframe",
        "1m",
        "--again",
        *said,
    )
    assert done.returncode == 0 and "BTC-PERP@ftx" in symbols(db), done.stderr


def test_a_name_of_two_instruments_is_asked_about(db: Conn) -> None:
    register = Register(db)
    for kind in ("perpetual", "spot"):
        register.symbol(Instrument("binance", "ABCUSDT", kind, "ABC", "USDT", "USDT"))
    with pytest.raises(psycopg.Error) as caught:
        db.execute("select market.resolve('ABC/USDT')")
    assert caught.value.sqlstate == "AP102"
    assert caught.value.diag.message_detail == "It fits ABCUSDT, ABCUSDT.SPOT."
    assert "Name one of them" in str(caught.value.diag.message_hint)
    for name in ("ABCUSDT", "ABCUSDT.SPOT"):
        assert db.execute("select market.resolve(%s)", (name,)).fetchone() == (name,)
    db.execute("select market.set_instrument('ABCUSDT.SPOT', '{\"priority\": 1}')")
    assert db.execute("select market.resolve('ABC/USDT')").fetchone() == ("ABCUSDT.SPOT",)


def test_long_work_says_a_line_now_and_then() -> None:
    import time

    said: list[str] = []
    with pulse(said.append, lambda: "at it", every=0.05):
        time.sleep(0.3)
    count = len(said)
    assert count >= 2 and all(line.startswith("at it (") for line in said)
    time.sleep(0.15)
    assert len(said) == count
    with pulse(said.append, lambda: "at it", on=False, every=0.01):
        time.sleep(0.05)
    assert len(said) == count
