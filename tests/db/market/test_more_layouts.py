"""Layouts of tools and archives: freqtrade's futures, Kraken's trades, one name a venue."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from alphaplus.loaders.description import Missing
from alphaplus.loaders.formats import UnknownFormat
from alphaplus.loaders.instruments import venue_form
from alphaplus.loaders.load import Loader, Options, Report
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Conn = psycopg.Connection[Any]
UTC = dt.UTC


def load(conn: Conn, path: Path, **options: Any) -> Report:
    return Loader(conn, Options(**options)).load(path)


def rows(conn: Conn, query: str, *args: Any) -> list[Any]:
    return conn.execute(query, args).fetchall()  # type: ignore[call-overload,no-any-return]


# --- freqtrade ---------------------------------------------------------------------------------


def candles(n: int, step: str) -> pd.DataFrame:
    date = pd.date_range("2021-11-17 01:00", periods=n, freq=step, tz="UTC")
    price = np.linspace(1.0, 1.2, n)
    return pd.DataFrame(
        {"date": date, "open": price, "high": price * 1.01, "low": price * 0.99, "close": price,
         "volume": np.arange(1.0, n + 1)}
    )  # fmt: skip


def test_freqtrade_futures(db: Conn, tmp_path: Path) -> None:
    """Candles, mark prices and funding of one contract, under the name its venue gives it."""
    folder = tmp_path / "data" / "binance" / "futures"
    folder.mkdir(parents=True)
    frame = candles(50, "1h")
    frame.to_feather(folder / "XRP_USDT_USDT-1h-futures.feather")
    frame.assign(volume=np.nan).to_feather(folder / "XRP_USDT_USDT-1h-mark.feather")
    paid = pd.DataFrame({"date": pd.date_range("2021-11-18", periods=9, freq="8h", tz="UTC")})
    paid["date"] += pd.Timedelta("17ms")
    rate = np.array([1e-4, -2e-4, 3e-4] * 3)
    paid = paid.assign(open=rate, high=0.0, low=0.0, close=0.0, volume=0.0)
    paid.to_feather(folder / "XRP_USDT_USDT-8h-funding_rate.feather")
    for path in sorted(folder.iterdir()):
        assert load(db, path).quarantined == 0
    assert rows(
        db, "select symbol, count(*), sum(volume) from market.candles group by 1 order by 1"
    ) == [("XRPUSDT", 50, frame["volume"].sum()), ("XRPUSDT.MARK", 50, None)]
    got = rows(db, "select symbol, ts, rate from market.funding_rates order by ts")
    assert [r for _, _, r in got] == rate.tolist()
    assert {symbol for symbol, _, _ in got} == {"XRPUSDT"}
    assert got[0][1] == dt.datetime(2021, 11, 18, tzinfo=UTC)  # not 17 ms later
    # An archive's file of the same contract is the same symbol.
    (tmp_path / "um").mkdir()
    other = tmp_path / "um" / "XRPUSDT-fundingRate-2021-11.csv"
    other.write_text("calc_time,funding_interval_hours,last_funding_rate\n1637164800003,8,0.0001\n")
    assert load(db, other).loaded == 1
    assert rows(db, "select count(distinct symbol) from market.funding_rates") == [(1,)]


def test_freqtrade_where_nobody_knows_the_unit(db: Conn, tmp_path: Path) -> None:
    """What ccxt gave as volume of contracts changed with its versions: asked for."""
    folder = tmp_path / "okx" / "futures"
    folder.mkdir(parents=True)
    path = folder / "BTC_USDT_USDT-1h-futures.feather"
    candles(5, "1h").to_feather(path)
    with pytest.raises(Missing, match="what volume counts"):
        load(db, path)
    load(db, path, unit="contracts")
    assert rows(db, "select symbol, sum(volume) from market.candles group by 1") == [
        ("BTC-USDT-SWAP@okx", pytest.approx(15 * 0.01))
    ]


def test_funding_that_is_no_funding_is_refused(db: Conn, tmp_path: Path) -> None:
    folder = tmp_path / "binance" / "futures"
    folder.mkdir(parents=True)
    path = folder / "XRP_USDT_USDT-8h-funding_rate.feather"
    candles(5, "8h").to_feather(path)
    with pytest.raises(UnknownFormat, match="neither 0 nor its open"):
        load(db, path)
    assert rows(db, "select count(*) from market.funding_rates") == [(0,)]


@pytest.mark.parametrize(
    ("venue", "native", "kind", "own"),
    [
        ("binance", "ETH_BTC", "spot", "ETHBTC"),
        ("binance", "ETH/USDT:USDT", "perpetual", "ETHUSDT"),
        ("binance", "BTC_USD_BTC", "perpetual", "BTCUSD_PERP"),
        ("binance", "BTCUSD_PERP", "perpetual", "BTCUSD_PERP"),
        ("binance", "BTCUSDT_240628", "future", "BTCUSDT_240628"),
        ("bybit", "SOL_USDC_USDC", "perpetual", "SOLPERP"),
        ("okx", "BTC_USDT_USDT", "perpetual", "BTC-USDT-SWAP"),
        ("okx", "ETH_BTC", "spot", "ETH-BTC"),
        ("kraken", "BTC_EUR", "spot", "XBTEUR"),
        ("kraken", "DOGE_USD", "spot", "XDGUSD"),
        ("krakenfutures", "BTC/USD:USD", "perpetual", "PF_XBTUSD"),
        ("kucoin", "BTC_USDT_USDT", "perpetual", "XBTUSDTM"),
        ("gate", "BTC_USDT", "spot", "BTC_USDT"),
        ("somewhere", "ETH_BTC", "spot", "ETH_BTC"),
        ("binance", "ETH_BTC", None, "ETH_BTC"),
    ],
)
def test_one_name_a_venue(venue: str, native: str, kind: str | None, own: str) -> None:
    assert venue_form(venue, native, kind) == own


# --- Kraken's trade archive --------------------------------------------------------------------


def kraken(trades: list[tuple[float, float, float]]) -> str:
    return "".join(f"{t:.4f},{p:.5f},{q:.8f}\n" for t, p, q in trades)


@settings(max_examples=15, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(seed=st.integers(0, 10**6), block=st.integers(60, 900))
def test_kraken_trades_become_the_bars_of_their_minutes(
    db_module: Conn, tmp_path: Path, seed: int, block: int
) -> None:
    """No side and no id: bars, whose volume is the file's to the last unit, however it is read."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 120))
    times = 1_672_531_200 + np.cumsum(rng.exponential(25, n).round(4))
    trades = [
        (float(t), round(float(p), 5), round(float(q), 8))
        for t, p, q in zip(times, rng.uniform(80, 90, n), rng.gamma(1, 2, n) + 1e-6, strict=True)
    ]
    (tmp_path / "kraken").mkdir(exist_ok=True)
    path = tmp_path / "kraken" / "BCHEUR.csv"
    path.write_text(kraken(trades))
    db_module.execute("truncate market.candles, market.candles_history")
    report = load(db_module, path, block=block, again=True)
    assert (report.read, report.quarantined) == (n, 0)
    frame = pd.DataFrame(trades, columns=["t", "p", "q"])
    frame["minute"] = (frame["t"] // 60).astype(int)
    want = [
        (dt.datetime.fromtimestamp(m * 60, UTC), part["p"].iloc[0], part["p"].max(),
         part["p"].min(), part["p"].iloc[-1], pytest.approx(part["q"].sum(), rel=1e-12), len(part),
         pytest.approx((part["p"] * part["q"]).sum(), rel=1e-12))
        for m, part in frame.groupby("minute")
    ]  # fmt: skip
    assert want == rows(
        db_module,
        "select ts, open, high, low, close, volume, trade_count, quote_volume from market.candles"
        " where symbol = 'BCHEUR.SPOT@kraken' and timeframe = '1 minute' order by ts",
    )
    assert rows(db_module, "select count(*) from market.trades") == [(0,)]


def test_kraken_trades_late_bad_and_of_nobody(db: Conn, tmp_path: Path) -> None:
    text = kraken([(1_672_531_200, 90, 1), (1_672_531_290, 91, 2), (1_672_531_210, 92, 4)])
    path = tmp_path / "BCHEUR.csv"
    path.write_text(text + "1672531300,x,1\n")
    with pytest.raises(Missing, match="--exchange"):
        load(db, path)
    report = load(db, path, exchange="kraken")
    assert (report.read, report.loaded, report.quarantined) == (4, 2, 2)
    assert {reason for (reason,) in rows(db, "select reason from market.quarantine")} == {
        "trade after a later minute",
        "unparsable price",
    }
    assert rows(db, "select sum(volume) from market.candles") == [(3.0,)]


# --- inputs made after public bug reports --------------------------------------------------------

AT = 1_704_067_200_000


def kline(i: int) -> list[Any]:
    at = AT + 60_000 * i
    return [
        at,
        "42000",
        "42100",
        "41900",
        "42050",
        "1.5",
        at + 59_999,
        "63000",
        10,
        "0.7",
        "1",
        "0",
    ]


def okx(i: int) -> list[Any]:
    at = str(AT + 60_000 * i)
    return [at, "42000", "42100", "41900", "42050", "150", "1.5", "63000", "1"]


def upbit(i: int) -> dict[str, Any]:
    return {
        "market": "KRW-BTC", "candle_date_time_utc": f"2024-01-01T00:0{i}:00", "unit": 1,
        "candle_date_time_kst": f"2024-01-01T09:0{i}:00", "opening_price": 42000,
        "high_price": 42100, "low_price": 41900, "trade_price": 42050,
        "timestamp": AT + 60_000 * i + 58_000, "candle_acc_trade_price": 63000,
        "candle_acc_trade_volume": 1.5,
    }  # fmt: skip


HEAD = "time,open,high,low,close,volume\n"
LINES = "".join(f"{AT // 1000 + 60 * i},42000,42100,41900,42050,1.5\n" for i in range(4))
# name, content, options, symbol, base, quote
INPUTS: dict[str, tuple[str, str, dict[str, Any], tuple[str, str, str | None]]] = {
    "Binance's REST answer": (
        "BTCUSDT-1m.json", json.dumps([kline(i) for i in range(4)]), {"instrument_kind": "spot"},
        ("BTCUSDT.SPOT", "BTC", "USDT"),
    ),
    "OKX's REST answer": (
        "BTC-USDT-SWAP-1m.json", json.dumps([okx(i) for i in range(4)]), {},
        ("BTC-USDT-SWAP@okx", "BTC", "USDT"),
    ),
    "Bybit's REST answer": (
        "bybit/spot/BTCUSDT-1m.json",
        json.dumps([[str(AT + 60_000 * i), *["42000", "42100", "41900", "42050", "1.5", "63000"]]
                    for i in range(4)]), {},
        ("BTCUSDT.SPOT@bybit", "BTC", "USDT"),
    ),
    "Upbit's answer, the quote first": (
        "candles.json", json.dumps([upbit(i) for i in range(4)]), {},
        ("KRW-BTC.SPOT@upbit", "BTC", "KRW"),
    ),
    "CoinAPI's names": (
        "KRAKEN_SPOT_BTC_USD_1m.csv", HEAD + LINES, {}, ("XBTUSD.SPOT@kraken", "BTC", "USD"),
    ),
    "TradingView's names": (
        "BINANCE_BTCUSDT.P, 1.csv", HEAD + LINES, {"unit": "base"}, ("BTCUSDT", "BTC", "USDT"),
    ),
    "TradingView, spot": (
        "BINANCE_BTCUSDT, 1.csv", HEAD + LINES, {}, ("BTCUSDT.SPOT", "BTC", "USDT"),
    ),
    "the index that pandas wrote": (
        "BTCUSDT-1m.csv",
        HEAD.replace("time", "") + "".join(
            f"2024-01-01 00:0{i}:00+00:00,42000,42100,41900,42050,1.5\n" for i in range(4)), {},
        ("BTCUSDT@local", "BTC", "USDT"),
    ),
    "days first, of a column that says its zone": (
        "BTCUSD-1m.csv",
        "Gmt time,Open,High,Low,Close,Volume\n" + "".join(
            f"01.01.2024 00:0{i}:00.000,42000,42100,41900,42050,1.5\n" for i in range(4)), {},
        ("BTCUSD@local", "BTC", "USD"),
    ),
    "three headers of yfinance": (
        "AAPL_1m.csv",
        "Price,Close,High,Low,Open,Volume\nTicker,AAPL,AAPL,AAPL,AAPL,AAPL\nDatetime,,,,,\n" + "".join(
            f"2024-01-01 00:0{i}:00+00:00,42050,42100,41900,42000,1.5\n" for i in range(4)), {},
        ("AAPL@local", "AAPL", None),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", INPUTS)
def test_inputs_after_public_reports(db: Conn, tmp_path: Path, name: str) -> None:
    file, text, options, (symbol, base, quote) = INPUTS[name]
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    report = load(db, path, **options)
    assert (report.loaded, report.quarantined) == (4, 0), report
    got = rows(
        db,
        "select symbol, ts, timeframe, open, high, low, close, volume from market.candles order by ts",
    )
    start = dt.datetime(2024, 1, 1, tzinfo=UTC)
    minute = dt.timedelta(minutes=1)
    assert got == [
        (symbol, start + i * minute, minute, 42000.0, 42100.0, 41900.0, 42050.0, 1.5)
        for i in range(4)
    ]
    assert rows(db, "select base, quote from market.instruments where symbol = %s", symbol) == [
        (base, quote)
    ]


def test_the_size_that_its_column_calls_base(db: Conn, tmp_path: Path) -> None:
    """Bitget's archive: volume(quote) and size(base) side by side."""
    path = tmp_path / "BTCUSDT_UMCBL_1_20240101.csv"
    path.write_text(
        "trade_id,timestamp,price,side,volume(quote),size(base)\n"
        + "".join(f"{i},{AT + i},42000,buy,{420.0 * (i + 1)},{0.01 * (i + 1)}\n" for i in range(3))
    )
    load(db, path)
    assert rows(db, "select sum(size), sum(price * size) from market.trades") == [
        (pytest.approx(0.06), pytest.approx(2520.0))
    ]


def test_several_tickers_side_by_side_are_refused(db: Conn, tmp_path: Path) -> None:
    path = tmp_path / "two.csv"
    path.write_text(
        "Price,Close,Close\nTicker,AAPL,MSFT\nDate,,\n2024-01-02,185.6,370.9\n2024-01-03,1,2\n"
    )
    with pytest.raises(UnknownFormat, match="several tickers"):
        load(db, path)


# --- currency pairs ------------------------------------------------------------------------------


def test_the_volume_of_a_currency_pair_is_stored_only_where_its_unit_is_said(
    db: Conn, tmp_path: Path
) -> None:
    """Dukascopy counts millions, MetaTrader price changes, others lots: never taken for units."""
    text = "Gmt time,Open,High,Low,Close,Volume\n" + "".join(
        f"{i:02}.01.2024 10:00:00.000,1.09,1.1,1.08,1.095,{i * 105.25}\n" for i in range(10, 20)
    )
    plain, said = tmp_path / "EURUSD.csv", tmp_path / "GBPUSD.csv"
    plain.write_text(text)
    said.write_text(text)
    report = load(db, plain, tz="UTC")
    assert (report.loaded, report.quarantined) == (10, 0)
    load(db, said, tz="UTC", unit="base")
    got = dict(rows(db, "select symbol, sum(volume) from market.candles group by 1"))
    assert got["EURUSD@local"] is None
    assert got["GBPUSD@local"] == pytest.approx(sum(i * 105.25 for i in range(10, 20)))
    assert rows(db, "select count(*) from market.candles where close = 1.095") == [(20,)]
