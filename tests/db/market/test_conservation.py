"""Nothing is gained or lost at the door: sums of size and notional, and random contracts."""

from __future__ import annotations

import datetime as dt
import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pytest
from alphaplus.loaders.load import Loader, Options
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Conn = psycopg.Connection[Any]


def rows(conn: Conn, query: str, *args: Any) -> list[Any]:
    return conn.execute(query, args).fetchall()  # type: ignore[call-overload,no-any-return]


# --- every real file -----------------------------------------------------------------------------

# Contracts of 1 at OKX, in base units: its instruments page.
OKX = {"BTC": 0.01, "ETH": 0.1, "SOL": 1.0, "DOGE": 1000.0, "HYPE": 0.1}


def test_hourly_bars(db: Conn, shared_data: Path) -> None:
    path = shared_data / "perps_hourly" / "candles.parquet"
    report = Loader(db).load(path)
    frame = pl.read_parquet(path).with_columns(
        pl.col("v")
        * pl.when(pl.col("venue") == "okx")
        .then(pl.col("coin").replace_strict(OKX, default=1.0))
        .otherwise(1.0)
    )
    want = {
        (venue, coin): (n, size, notional)
        for venue, coin, n, size, notional in frame.group_by("venue", "coin")
        .agg(pl.len(), pl.col("v").sum(), (pl.col("v") * pl.col("c")).sum().alias("notional"))
        .rows()
    }
    got = {
        (venue.removesuffix("futures"), base): (n, size, notional)
        for venue, base, n, size, notional in rows(
            db,
            "select i.exchange, i.base, count(*), sum(c.volume), sum(c.volume * c.close)"
            " from market.candles c join market.instruments i using (symbol) group by 1, 2",
        )
    }
    assert report.quarantined + report.duplicate == 0
    assert got.keys() == want.keys()
    for key, (n, size, notional) in want.items():
        assert got[key][0] == n
        assert got[key][1:] == pytest.approx((size, notional), rel=1e-9), key


def test_the_month_in_quote_currency(db: Conn, shared_data: Path) -> None:
    path = next((shared_data / "candles_1m").iterdir())
    Loader(db).load(path)
    frame = pl.read_csv(gzip.decompress(path.read_bytes()))
    ((n, base, quote),) = rows(
        db, "select count(*), sum(volume), sum(quote_volume) from market.candles"
    )
    assert n == len(frame)
    assert quote == pytest.approx(frame["volume"].sum(), rel=1e-12)
    assert base == pytest.approx((frame["volume"] / frame["close"]).sum(), rel=1e-12)


@pytest.mark.parametrize("name", ["spot_btcusdt", "usdm_btcusdt", "usdm_ethusdt"])
def test_recorded_trades(db: Conn, shared_data: Path, name: str) -> None:
    path = shared_data / "book_feed" / f"{name}_20240808.gz"
    Loader(db).load(path)
    told: dict[Any, tuple[float, float]] = {}
    with gzip.open(path, "rt") as lines:
        for line in lines:
            data = json.loads(line.split(" ", 1)[1]).get("data", {})
            if data.get("e") == "trade" and data.get("X", "MARKET") == "MARKET":
                told[data["t"]] = (float(data["q"]), float(data["p"]) * float(data["q"]))
    frame = pl.DataFrame(list(told.values()), schema=["size", "notional"], orient="row")
    ((n, size, notional),) = rows(
        db, "select count(*), sum(size), sum(price * size) from market.trades"
    )
    assert n == len(frame) > 0
    assert (size, notional) == pytest.approx(
        (frame["size"].sum(), frame["notional"].sum()), rel=1e-9
    )


def test_vendor_samples(db: Conn, shared_data: Path) -> None:
    path = shared_data / "tardis_samples" / "bitmex_trades_XBTUSD.csv"
    Loader(db).load(path)
    frame = pl.read_csv(path)
    ((size, notional),) = rows(db, "select sum(size), sum(price * size) from market.trades")
    assert size == pytest.approx((frame["amount"] / frame["price"]).sum(), rel=1e-12)
    assert notional == pytest.approx(frame["amount"].sum(), rel=1e-12)
    # dollars of an inverse contract, and contracts of 100 dollars
    for name, one in (("huobi-dm-swap_quotes_BTC-USD.csv", 100.0),
                      ("binance-futures_book_snapshot_5_BTCUSDT.csv", None)):  # fmt: skip
        path = shared_data / "tardis_samples" / name
        db.execute("truncate market.order_book_snapshots")
        Loader(db).load(path)
        frame = pl.read_csv(path)
        bid, amount = ("bid_price", "bid_amount") if one else ("bids[0].price", "bids[0].amount")
        size_of = pl.col(amount) if one is None else pl.col(amount) * one / pl.col(bid)
        ((n, size),) = rows(
            db, "select count(*), sum(bid_sizes[1]) from market.order_book_snapshots"
        )
        assert n == len(frame)
        assert size == pytest.approx(frame.select(size_of.sum()).item(), rel=1e-9)


def test_interest_and_funding(db: Conn, shared_data: Path) -> None:
    folder = shared_data / "perps_hourly"
    Loader(db).load(folder / "open_interest.parquet")
    report = Loader(db).load(folder / "funding_rates.parquet")
    ((value,),) = rows(db, "select sum(value) from market.open_interest")
    assert value == pytest.approx(
        pl.read_parquet(folder / "open_interest.parquet")["oi_usd"].sum(), rel=1e-9
    )
    frame = pl.read_parquet(folder / "funding_rates.parquet")
    ((n, rate),) = rows(db, "select count(*), sum(rate) from market.funding_rates")
    assert n == report.loaded and n + report.duplicate + report.quarantined == len(frame)
    if not report.quarantined and not report.duplicate:
        assert rate == pytest.approx(frame["funding_rate"].sum(), rel=1e-9)


# --- random contracts ------------------------------------------------------------------------------

COINS = ("BTC", "ETH", "SOL", "DOGE", "XRP")
AT = 1_704_067_200_000

# By layout: the file's name and text for (coin, dated, contracts, price), and what a contract is:
# base units of a linear one, dollars of an inverse one. Each written from the venue's documentation.
amounts = st.integers(1, 10**6)
prices = st.floats(0.001, 90_000).map(lambda p: round(p, 4))


def binance_coin(coin: str, dated: bool, trades: list[tuple[int, float]]) -> tuple[str, str, float]:
    native = f"{coin}USD_{'240628' if dated else 'PERP'}"
    text = "id,price,qty,base_qty,time,is_buyer_maker\n" + "".join(
        f"{i},{p},{n},{n * (100 if coin == 'BTC' else 10) / p},{AT + i},true\n"
        for i, (n, p) in enumerate(trades)
    )
    return f"{native}-trades-2024-01-01.csv", text, 100.0 if coin == "BTC" else 10.0


def bybit(coin: str, dated: bool, trades: list[tuple[int, float]]) -> tuple[str, str, float]:
    native = f"{coin}USD{'M24' if dated else ''}"
    head = "timestamp,symbol,side,size,price,tickDirection,trdMatchID,grossValue,homeNotional,foreignNotional\n"
    text = head + "".join(
        f"{(AT + i) / 1000},{native},Buy,{n},{p},PlusTick,{i}-x,1,{n / p},{n}\n"
        for i, (n, p) in enumerate(trades)
    )
    return f"{native}2024-01-01.csv", text, 1.0


def okx_linear(coin: str, dated: bool, trades: list[tuple[int, float]]) -> tuple[str, str, float]:
    native = f"{coin}-USDT-{'240628' if dated else 'SWAP'}"
    text = "instrument_name,trade_id,side,price,size,created_time\n" + "".join(
        f"{native},{i},buy,{p},{n},{AT + i}\n" for i, (n, p) in enumerate(trades)
    )
    return f"{native}-trades-2024-01-01.csv", text, {**OKX, "XRP": 100.0}[coin]


def okx_inverse(coin: str, dated: bool, trades: list[tuple[int, float]]) -> tuple[str, str, float]:
    name, text, _ = okx_linear(coin, dated, trades)
    return (
        name.replace("USDT", "USD"),
        text.replace("USDT", "USD"),
        100.0 if coin == "BTC" else 10.0,
    )


def tardis_deribit(
    coin: str, dated: bool, trades: list[tuple[int, float]]
) -> tuple[str, str, float]:
    native = f"{coin}-{'28JUN24' if dated else 'PERPETUAL'}"
    text = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n" + "".join(
        f"deribit,{native},{AT * 1000 + i},{AT * 1000 + i},{i},buy,{p},{n}\n"
        for i, (n, p) in enumerate(trades)
    )
    return f"deribit_trades_{native}.csv", text, 1.0  # amounts are dollars


def bitmex_quanto(
    coin: str, dated: bool, trades: list[tuple[int, float]]
) -> tuple[str, str, float]:
    """Base sizes stand in the rows; the contract alone does not tell them."""
    native = f"{coin}USD{'M24' if dated else ''}"
    text = "timestamp,symbol,side,size,price,tickDirection,trdMatchID,grossValue,homeNotional,foreignNotional\n"
    text += "".join(
        f"2024-01-01D00:00:{i:02d}.000000000,{native},Buy,{n},{p},PlusTick,{i}-q,1,{n / 1024},{n * p / 1024}\n"
        for i, (n, p) in enumerate(trades)
    )
    return "trades.csv", text, 1 / 1024


LAYOUTS = {
    "binance COIN-M": (binance_coin, "inverse"),
    "bybit inverse": (bybit, "inverse"),
    "okx linear": (okx_linear, "linear"),
    "okx inverse": (okx_inverse, "inverse"),
    "tardis deribit": (tardis_deribit, "inverse"),
    "bitmex quanto": (bitmex_quanto, "linear"),
}


@settings(max_examples=12, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(
    coin=st.sampled_from(COINS),
    dated=st.booleans(),
    trades=st.lists(st.tuples(amounts, prices), min_size=1, max_size=20),
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_stored_is_the_true_base_size(
    db_module: Conn, tmp_path: Path, layout: str, coin: str, dated: bool,
    trades: list[tuple[int, float]],
) -> None:  # fmt: skip
    if layout == "tardis deribit" and coin not in ("BTC", "ETH"):
        coin = "BTC"  # others are not inverse there
    if layout == "bitmex quanto":
        coin = "ETH"
    write, margin = LAYOUTS[layout]
    name, text, contract = write(coin, dated, trades)
    db_module.execute("truncate market.trades, market.trade_spans")
    path = tmp_path / name
    path.write_text(text)
    report = Loader(db_module, Options(again=True)).load(path)
    assert report.loaded == len(trades), report
    want = [n * contract / (p if margin == "inverse" else 1.0) for n, p in trades]
    got = rows(
        db_module,
        "select size, price * size, symbol from market.trades order by ts, length(trade_id), trade_id",
    )
    assert [size for size, _, _ in got] == pytest.approx(want, rel=1e-12)
    notional = [w * p for w, (_, p) in zip(want, trades, strict=True)]
    assert [value for _, value, _ in got] == pytest.approx(notional, rel=1e-12)
    ((kind, expiry),) = rows(
        db_module, "select kind, expiry from market.instruments where symbol = %s", got[0][2]
    )
    assert kind == ("future" if dated else "perpetual")
    if dated and layout not in ("bybit inverse", "bitmex quanto"):
        assert expiry == dt.datetime(2024, 6, 28, 8, tzinfo=dt.UTC)
