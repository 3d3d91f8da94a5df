"""``alphaplus load``: real files, exchanges' formats, bad rows, twice the same, killed and resumed."""

from __future__ import annotations

import datetime as dt
import gzip
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alphaplus.loaders.formats import UnknownFormat
from alphaplus.loaders.load import DamagedFile, Loader, LoadRunning, Options, Report, TooManyBad

from tests.loader_rules import um

ROOT = Path(__file__).resolve().parents[3]
CONTENT = {
    "candles": "symbol, timeframe, ts, known_at, received_at, open, high, low, close, volume,"
    " quote_volume, trade_count, taker_buy_volume",
    "trades": "symbol, ts, trade_id, known_at, received_at, price, size, side",
    "order_book_snapshots": "symbol, ts, sequence, known_at, received_at, bid_prices, bid_sizes,"
    " ask_prices, ask_sizes, after_gap",
    "liquidation_events": "symbol, ts, event_id, known_at, received_at, side, price, size, notional",
    "funding_rates": "symbol, ts, known_at, received_at, rate, funding_interval",
    "open_interest": "symbol, ts, known_at, received_at, open_interest, value",
}
Conn = psycopg.Connection[Any]


def load(conn: Conn, path: Path, **options: Any) -> Report:
    return Loader(conn, Options(**options)).load(path)


def rows(conn: Conn, query: str, *args: Any) -> list[Any]:
    return conn.execute(query, args).fetchall()  # type: ignore[call-overload,no-any-return]


def hashes(conn: Conn) -> dict[str, Any]:
    """One hash per table over all content."""
    return {
        table: rows(
            conn,
            f"select count(*), md5(string_agg(r::text, '|' order by r::text))"
            f" from (select {columns} from market.{table}) r",
        )[0]
        for table, columns in CONTENT.items()
    }


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def aggtrades(n: int, start: int = 0, ms: int = 1_704_067_200_000) -> str:
    head = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n"
    return head + "".join(
        f"{i},{100 + i % 50}.5,{1 + i % 7}.25,{i},{i},{ms + 50 * i},{'true' if i % 3 else 'false'}\n"
        for i in range(start, start + n)
    )


# --- real files --------------------------------------------------------------------------------


def test_real_hourly_venues(db: Conn, shared_data: Path) -> None:
    import pyarrow.parquet as pq

    folder = shared_data / "perps_hourly"
    for name, table in (
        ("candles", "candles"),
        ("funding_rates", "funding_rates"),
        ("open_interest", "open_interest"),
    ):
        report = load(db, folder / f"{name}.parquet")
        count = pq.read_metadata(folder / f"{name}.parquet").num_rows
        assert report.read == count == report.loaded + report.duplicate + report.quarantined
        assert rows(db, f"select count(*) from market.{table}") == [(report.loaded,)]
    frame = pq.read_table(folder / "candles.parquet").to_pandas()
    for venue, symbol in (("binance", "BTCUSDT"), ("bybit", "BTCUSDT@bybit")):
        want = frame[(frame.venue == venue) & (frame.coin == "BTC")]
        got = rows(
            db,
            "select count(*), sum(close), sum(volume) from market.candles"
            " where symbol = %s and timeframe = '1 hour'",
            symbol,
        )[0]
        assert got[0] == len(want)
        assert got[1:] == pytest.approx((want.c.sum(), want.v.sum()))
    assert rows(db, "select market.resolve('btc/usdt')") == [("BTCUSDT",)]


def test_real_spot_feed_uses_its_snapshot(db: Conn, shared_data: Path) -> None:
    report = load(db, shared_data / "book_feed" / "spot_btcusdt_20240808.gz")
    assert report.counters["snapshots applied"] == 1
    assert report.quarantined == 0
    symbols = rows(db, "select distinct symbol from market.order_book_snapshots")
    assert symbols == [("BTCUSDT.SPOT",)]
    # with the snapshot the book is deep from its first second on
    assert rows(db, "select min(cardinality(bid_prices)) from market.order_book_snapshots") == [
        (20,)
    ]


def test_real_vendor_samples(db: Conn, shared_data: Path) -> None:
    folder = shared_data / "tardis_samples"
    reports = {path.name: load(db, path, every=0.001) for path in sorted(folder.glob("*.csv"))}
    # of books of one message with 25 and with 5 levels the first one loaded stands
    five = "binance-futures_book_snapshot_5_BTCUSDT.csv"
    assert {name: r.quarantined for name, r in reports.items() if r.quarantined} == {five: 4}
    # XBTUSD counts dollars: 2152 of them at 8531.5
    got = rows(db, "select size from market.trades where symbol = 'XBTUSD@bitmex' order by size")
    assert got[-1][0] == pytest.approx(2152 / 8531.5)
    assert rows(db, "select market.resolve('XBTUSD')") == [("XBTUSD@bitmex",)]
    # fifteen asks and no bid make no book
    deribit = reports["deribit_incremental_book_L2_BTC-PERPETUAL.csv"]
    assert (deribit.read, deribit.loaded, deribit.counters) == (15, 0, {"one-sided books": 1})
    books = rows(
        db,
        "select ts, received_at, known_at, bid_prices[1], ask_prices[1], cardinality(ask_prices)"
        " from market.order_book_snapshots where symbol = 'BTCUSDT' order by ts limit 1",
    )[0]
    stamp = dt.datetime(2020, 9, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=3_696_000)
    assert books[0] == stamp
    assert books[1] == books[2] == stamp + dt.timedelta(microseconds=114_979)
    assert books[3:5] == (11657.07, 11657.08)
    snapshot = reports["btcusdt-depth-snap.csv"]
    assert (snapshot.read, snapshot.counters) == (100, {"one-sided books": 1})  # bids only


def test_books_told_level_by_level(db: Conn, tmp_path: Path) -> None:
    """Messages split by the ends of blocks, a crossed book, and a bad row."""
    head = "symbol,timestamp,first_update_id,last_update_id,side,update_type,price,qty,pu\n"
    text = "".join(
        f"BTCUSDT,{1667346579146 + 2000 * i},{i},{i},{side},{'snap' if i == 0 else 'set'},{price},{size},-1\n"
        for i, levels in enumerate(
            [
                [("b", 10, 1), ("b", 9, 2), ("a", 11, 3), ("a", 12, 4)],
                [("b", 10, 0), ("a", 11, 5), ("x", 11, 5)],
                [("b", 11.5, 1)],  # crossed
                [("a", 11, 0), ("a", 11.7, 6)],
            ]
        )
        for side, price, size in levels
    )
    report = load(db, write(tmp_path / "depth.csv", head + text), block=60)
    assert (report.quarantined, report.counters) == (1, {"crossed books": 1})
    got = rows(
        db,
        "select sequence, bid_prices, bid_sizes, ask_prices, ask_sizes"
        " from market.order_book_snapshots order by ts",
    )
    assert got == [
        (0, [10, 9], [1, 2], [11, 12], [3, 4]),
        (1, [9], [2], [11, 12], [5, 4]),
        (3, [11.5, 9], [1, 2], [11.7, 12], [6, 4]),
    ]


def test_gaps_are_marked(db: Conn, tmp_path: Path) -> None:
    import json

    def update(i: int, first: int, last: int, before: int) -> str:
        levels = [[str(100 - k), "1"] for k in range(5)]
        asks = [[str(101 + k), "1"] for k in range(5)]
        return json.dumps(
            {"e": "depthUpdate", "E": 1_704_067_200_000 + i * 1000, "s": "BTCUSDT",
             "U": first, "u": last, "pu": before, "b": levels, "a": asks}
        )  # fmt: skip

    lines = [
        update(i, *ids)
        for i, ids in enumerate(
            [(1, 5, 0), (6, 9, 5), (10, 12, 9), (20, 22, 19), (23, 25, 22), (26, 27, 25)]
        )
    ]
    load(db, write(tmp_path / "feed.jsonl", "\n".join(lines) + "\n"))
    assert rows(db, "select symbol, expected, received from market.sequence_gaps") == [
        ("BTCUSDT", 12, 19)
    ]
    got = rows(db, "select sequence, after_gap from market.order_book_snapshots order by ts")
    assert got == [(5, False), (9, False), (22, True), (25, False)]


def test_gaps_of_updates_in_rows(db: Conn, tmp_path: Path) -> None:
    """Binance's archive of depth updates: a snapshot's rows, then updates that name the last one."""

    def message(ms: int, first: int, last: int, before: int, kind: str, shift: float) -> str:
        return "".join(
            f"BTCUSDT,{ms},{first},{last},{side},{kind},{100 + sign * (k + 1) + shift},{k + 1},{before}\n"
            for side, sign in (("b", -1), ("a", 1))
            for k in range(6)
        )

    at = 1_704_067_200_000
    head = "symbol,timestamp,first_update_id,last_update_id,side,update_type,price,qty,pu\n"
    text = head + message(at, 100, 100, -1, "snap", 0)
    text += message(at + 1000, 95, 105, 90, "set", 0)  # begins before and ends after the snapshot
    text += message(at + 2000, 106, 110, 105, "set", 0)
    text += message(at + 3000, 120, 130, 115, "set", 0.5)  # 111 to 119 are missing
    text += message(at + 4000, 131, 140, 130, "set", 0.5)
    report = load(db, write(tmp_path / "BTCUSDT_depth.csv", text))
    assert report.counters == {"sequence gaps": 1}
    assert rows(db, "select expected, received from market.sequence_gaps") == [(110, 115)]
    books = rows(
        db,
        "select sequence, after_gap, cardinality(bid_prices), bid_prices[1]"
        " from market.order_book_snapshots order by ts",
    )
    assert books == [
        (100, False, 6, 99.0),
        (105, False, 6, 99.0),
        (110, False, 6, 99.0),
        (130, True, 6, 99.5),
        (140, False, 6, 99.5),
    ]


# --- formats written by hand from the exchanges' documentation -------------------------------------


def liquidation_rows(conn: Conn) -> list[Any]:
    return rows(
        conn, "select symbol, side::text, price, size from market.liquidation_events order by 1, 2"
    )


def test_liquidation_formats(db: Conn, tmp_path: Path) -> None:
    files = {
        "force.jsonl": '{"e":"forceOrder","E":1568014460893,"o":{"s":"BTCUSDT","S":"SELL","o":"LIMIT","f":"IOC","q":"0.014","p":"9910","ap":"9910.5","X":"FILLED","l":"0.014","z":"0.014","T":1568014460893}}\n',
        "BTCUSDT-liquidationSnapshot-2023-06-25.csv": "time,side,order_type,time_in_force,original_quantity,price,average_price,order_status,last_fill_quantity,accumulated_fill_quantity\n1687651244045,BUY,LIMIT,IOC,0.013,30591.00,30500.00,FILLED,0.013,0.013\n",
        "bybit.jsonl": '{"topic":"liquidation.BTCUSDT","type":"snapshot","ts":1703485237953,"data":{"updatedTime":1703485237953,"symbol":"BTCUSDT","side":"Sell","size":"0.003","price":"43511.70"}}\n'
        '{"topic":"allLiquidation.ETHUSDT","type":"snapshot","ts":1739502303204,"data":[{"T":1739502302929,"s":"ETHUSDT","S":"Buy","v":"2.5","p":"2600.5"}]}\n',
        "okx.jsonl": '{"arg":{"channel":"liquidation-orders","instType":"SWAP"},"data":[{"details":[{"bkLoss":"0","bkPx":"26000","ccy":"","posSide":"short","side":"buy","sz":"13","ts":"1692266434010"}],"instFamily":"BTC-USDT","instId":"BTC-USDT-SWAP","instType":"SWAP","uly":"BTC-USDT"}]}\n',
        "tardis_liquidations.csv": "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\nbitmex,XBTUSD,1598918400000000,1598918400100000,abc,buy,11650,1165\n",
    }
    for name, text in files.items():
        report = load(db, write(tmp_path / name, text))
        assert (report.quarantined, report.loaded) == (0, text.count("\n") - name.endswith("csv"))
    assert liquidation_rows(db) == [
        ("BTC-USDT-SWAP@okx", "buy", 26000.0, pytest.approx(0.13)),
        ("BTCUSDT", "buy", 30500.0, 0.013),
        ("BTCUSDT", "sell", 9910.5, 0.014),
        ("BTCUSDT@bybit", "buy", 43511.7, 0.003),  # a short was closed
        ("ETHUSDT@bybit", "sell", 2600.5, 2.5),  # a long was closed
        ("XBTUSD@bitmex", "buy", 11650.0, pytest.approx(0.1)),
    ]


def test_archive_formats(db: Conn, tmp_path: Path) -> None:
    kline = "1704067200000,42314.0,42335.8,42289.6,42331.9,289.641,1704067259999,12256155.27,3310,175.211,7414459.56,0"
    files = {
        "um/BTCUSDT-1m-2024-01.csv": "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore\n"
        + kline,
        "um/ETHUSDT-1m-2020-01.csv": kline,  # older archives have no header: the folder says it
        "um/BTCUSDT-trades-2024.csv": "id,price,qty,quote_qty,time,is_buyer_maker\n4404977,42313.9,0.079,3342.79,1704067200006,true",
        "um/SOLUSDT-trades-2021.csv": "4404977,42.5,0.079,3.3,1704067200006,true",
        "BTCUSDT-fundingRate-2024-01.csv": "calc_time,funding_interval_hours,last_funding_rate\n1704067200003,8,0.00037409",
        "BTCUSDT-metrics-2024-01-01.csv": "create_time,symbol,sum_open_interest,sum_open_interest_value,count_toptrader_long_short_ratio,sum_toptrader_long_short_ratio,count_long_short_ratio,sum_taker_long_short_vol_ratio\n2024-01-01 00:05:00,BTCUSDT,80014.6,3386120345.4,1.7,1.1,1.9,1.3",
        "BTCUSDT2024-01-01.csv": "timestamp,symbol,side,size,price,tickDirection,trdMatchID,grossValue,homeNotional,foreignNotional\n1704067200.1234,BTCUSDT,Sell,0.003,42324.9,ZeroMinusTick,eb8f-1,1.2e+10,0.003,126.97",
        "BTC-USDT-SWAP-trades.csv": "instrument_name,trade_id,side,price,size,created_time\nBTC-USDT-SWAP,77,buy,42320.1,5,1704067200450",
        "ticker.csv": "exchange,symbol,timestamp,local_timestamp,funding_timestamp,funding_rate,predicted_funding_rate,open_interest,last_price,index_price,mark_price\n"
        "deribit,BTC-PERPETUAL,1585699200000000,1585699200100000,,0.0001,,64210,6421,6421,6421",
    }
    (tmp_path / "um").mkdir()
    for name, text in files.items():
        report = load(db, write(tmp_path / name, text + "\n"))
        assert (report.loaded, report.quarantined) == (1, 0), name
    assert rows(db, "select symbol, volume, trade_count, taker_buy_volume from market.candles") == [
        ("BTCUSDT", 289.641, 3310, 175.211),
        ("ETHUSDT", 289.641, 3310, 175.211),
    ]
    assert rows(db, "select symbol, side::text, size from market.trades order by 1") == [
        ("BTC-USDT-SWAP@okx", "buy", 0.05),
        ("BTCUSDT", "sell", 0.079),
        ("BTCUSDT@bybit", "sell", 0.003),
        ("SOLUSDT", "sell", 0.079),
    ]
    assert rows(db, "select ts, funding_interval from market.funding_rates") == [
        (dt.datetime(2024, 1, 1, tzinfo=dt.UTC), dt.timedelta(hours=8))
    ]
    assert rows(db, "select symbol, open_interest from market.open_interest order by 1") == [
        ("BTC-PERPETUAL@deribit", pytest.approx(10.0)),
        ("BTCUSDT", 80014.6),
    ]


@pytest.mark.parametrize(
    "stamp", ["1704067200", "1704067200000", "1704067200000000", "1704067200000000000"]
)
def test_stamps_of_any_unit(db_module: Conn, tmp_path: Path, stamp: str) -> None:
    text = f"timestamp,open,high,low,close,volume\n{stamp},1,2,0.5,1.5,10\n"
    load(db_module, write(tmp_path / f"X{len(stamp)}-1m.csv", text), symbol=f"X{len(stamp)}")
    got = rows(db_module, "select ts from market.candles where symbol = %s", f"X{len(stamp)}@local")
    assert got == [(dt.datetime(2024, 1, 1, tzinfo=dt.UTC),)]


def test_candles_of_several_symbols_in_one_file(db: Conn, tmp_path: Path) -> None:
    lines = [
        f"{1704067200 + 60 * i},{symbol},{1 + j},{2 + j},0.5,{1.5 + j},10"
        for i in range(50)
        for j, symbol in enumerate(("AAA", "BBB"))
    ]
    lines.append(f"{1704067200 + 3000},,1,2,0.5,1.5,10")
    text = "timestamp,symbol,open,high,low,close,volume\n" + "\n".join(lines) + "\n"
    report = load(db, write(tmp_path / "all.csv", text), block=700)
    assert (report.loaded, report.quarantined) == (100, 1)
    assert rows(
        db,
        "select symbol, count(*), min(open), max(open), max(timeframe) from market.candles"
        " group by symbol order by symbol",
    ) == [
        ("AAA@local", 50, 1.0, 1.0, dt.timedelta(minutes=1)),
        ("BBB@local", 50, 2.0, 2.0, dt.timedelta(minutes=1)),
    ]


def test_zip_of_several_and_spot(db: Conn, tmp_path: Path) -> None:
    path = tmp_path / "two.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("BTCUSDT-aggTrades-a.csv", aggtrades(10))
        archive.writestr("ETHUSDT-aggTrades-a.csv", aggtrades(20))
    report = load(db, path, instrument_kind="spot")
    assert report.loaded == 30
    assert rows(db, "select symbol, count(*) from market.trades group by 1 order by 1") == [
        ("BTCUSDT.SPOT", 10),
        ("ETHUSDT.SPOT", 20),
    ]


# --- bad rows ------------------------------------------------------------------------------------


def test_bad_rows_go_to_quarantine(db: Conn, tmp_path: Path) -> None:
    future = int((time.time() + 86_400) * 1000)
    candles = [
        ("1704067200000,1,2,0.5,1.5,10", None),
        ("1704067260000,x,2,0.5,1.5,10", "unparsable price"),
        ("1704067320000,1,-2,0.5,1.5,10", "price not positive"),
        ("1704067380000,1,2,3,1.5,10", "high below low"),
        ("1704067440000,9,2,0.5,1.5,10", "open or close outside the bar's range"),
        (f"{future},1,2,0.5,1.5,10", "future time"),
        ("yesterday,1,2,0.5,1.5,10", "unparsable time"),
        ("1704067500000,1,2,0.5,1.5,-3", "negative volume"),
        ("1704067500000,1,2", "unparsable"),
        ("1704067500000,1,2,0.5,1.5,10,11", "unparsable"),
        ("1704067200000,1,2,0.5,1.6,10", "duplicate with other content"),
        ("1704067200000,1,2,0.5,1.5,10", None),
        ("1704067560000,1,2,0.5,1.5,10", None),
    ]
    path = write(
        tmp_path / "BTC-1m.csv",
        "timestamp,open,high,low,close,volume\n" + "\n".join(row for row, _ in candles) + "\n",
    )
    report = load(db, path, symbol="BTC")
    assert (report.read, report.loaded, report.duplicate, report.quarantined) == (13, 2, 1, 10)
    got = rows(db, "select line, reason, raw from market.quarantine order by line")
    assert got == [(i + 2, why, row) for i, (row, why) in enumerate(candles) if why]

    book = "exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount\n"
    bad = "binance-futures,BTCUSDT,1588291201099000,1588291201234268,1,100,101,1\n"
    trades = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n"
    unknown = "binance-futures,BTCUSDT,1588291201099000,1588291201234268,7,unknown,100,1\n"
    load(db, write(tmp_path / "quotes.csv", book + bad))
    load(db, write(tmp_path / "trades.csv", trades + unknown))
    load(
        db,
        write(tmp_path / "s.jsonl", '{"stream":"x","data":{"e":"trade"\n{"e":"trade","s":"A"}\n'),
    )
    reasons = [
        r for (r,) in rows(db, "select reason from market.quarantine order by quarantine_id")
    ]
    assert reasons[10:12] == ["crossed book", "unknown side"]
    assert [r.split(":")[0] for r in reasons[12:]] == ["unparsable", "unparsable"]


def test_a_row_without_an_id_harms_no_other(db: Conn, tmp_path: Path) -> None:
    ids = ["9007199254740993000", "9007199254740993001", "", "15", "17"]
    lines = [f"{i},100,1,100,{1704067200000 + n},true" for n, i in enumerate(ids)]
    head = "id,price,qty,quote_qty,time,is_buyer_maker\n"
    report = load(db, write(um(tmp_path) / "BTCUSDT-trades.csv", head + "\n".join(lines) + "\n"))
    assert (report.loaded, report.quarantined) == (4, 1)
    assert rows(db, "select trade_id from market.trades order by ts") == [(i,) for i in ids if i]
    head = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n"
    lines = [
        f"binance-futures,{symbol},1588291201099000,1588291201234268,{i},buy,100,1"
        for symbol, i in (("ETHUSDT", 7), ("", 8), ("SOLUSDT", 9))
    ]
    report = load(db, write(tmp_path / "trades.csv", head + "\n".join(lines) + "\n"))
    assert (report.loaded, report.quarantined) == (2, 1)
    assert rows(db, "select symbol from market.trades where trade_id in ('7', '9') order by 1") == [
        ("ETHUSDT",),
        ("SOLUSDT",),
    ]
    assert rows(db, "select line, reason from market.quarantine order by quarantine_id") == [
        (4, "no id"),
        (3, "no symbol"),
    ]


def test_liquidations_without_ids_are_told_apart_by_content(db: Conn, tmp_path: Path) -> None:
    head = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n"
    line = "bitmex,XBTUSD,1588291201099000,1588291201234268,,{},{},10\n"
    text = head + line.format("buy", 100) + line.format("sell", 100) + line.format("buy", 101)
    path = write(tmp_path / "liquidations.csv", text)
    assert load(db, path).loaded == 3
    broken = write(tmp_path / "liquidations_2.csv", text + "x,y\n")
    again = load(db, broken)
    assert (again.loaded, again.duplicate, again.quarantined) == (0, 3, 1)


def test_trades_and_liquidations_are_told_by_their_names(db: Conn, tmp_path: Path) -> None:
    head = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n"
    line = "bitmex,XBTUSD,1588291201099000,1588291201234268,{},buy,100,10\n"
    kinds = {
        "my-liquidations/trades.csv": "trades",
        "liquidations/bitmex_trades_XBTUSD.csv": "trades",
        "my-liquidations/XBTUSD.csv": "trades",
        "liquidations/XBTUSD.csv": "liquidations",
        "x/bitmex_liquidations_XBTUSD.csv": "liquidations",
    }
    for i, (name, kind) in enumerate(kinds.items()):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        assert load(db, write(path, head + line.format(i))).kind == kind, name


def test_numbers_out_of_all_proportion_are_refused(db: Conn, tmp_path: Path) -> None:
    head = "id,price,qty,quote_qty,time,is_buyer_maker\n"
    lines = [
        "1,1e308,1,1,1704067200000,true",
        "2,1e20,1e20,1,1704067200001,true",
        "3,1e-200,1e-200,1,1704067200002,true",
        "4,100,1,1,1704067200003,true",
    ]
    load(db, write(um(tmp_path) / "BTCUSDT-trades.csv", head + "\n".join(lines) + "\n"))
    names = "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume"
    bars = [
        ("55,3,2", None),
        ("-55,3,2", "negative quote volume"),
        ("55,-3,2", "negative trade count"),
        ("55,3,6", "taker buy volume above the volume"),
        ("some,3,2", "unparsable quote volume"),
        ("55,1e300,2", "trade count too large"),
        (",,", None),
    ]
    text = "".join(
        f"{1704067200000 + 60000 * i},1,2,0.5,1.5,5,0,{rest}\n" for i, (rest, _) in enumerate(bars)
    )
    load(db, write(tmp_path / "BTCUSDT-1m.csv", f"{names}\n{text}"))
    assert rows(db, "select reason from market.quarantine order by quarantine_id") == [
        ("price too large",),
        ("size too large",),
        ("size too small",),
        *[(reason,) for _, reason in bars if reason],
    ]
    assert rows(db, "select count(*), count(quote_volume) from market.candles") == [(2, 1)]
    db.execute("call market.refresh_aggregates()")
    assert rows(db, "select trade_count from market.trades_1m") == [(1,)]


def test_damaged_files_say_so(db: Conn, tmp_path: Path) -> None:
    text = aggtrades(20_000)
    packed = gzip.compress(text.encode())
    half = um(tmp_path) / "BTCUSDT-aggTrades-half.csv.gz"
    half.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DamagedFile, match=r"damaged .*rows up to there are loaded"):
        load(db, half, block=1 << 16)
    assert rows(db, "select count(*) > 0 from market.trades") == [(True,)]
    whole = um(tmp_path) / "BTCUSDT-aggTrades.zip"
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("BTCUSDT-aggTrades.csv", text)
    cut = um(tmp_path) / "BTCUSDT-aggTrades-cut.zip"
    cut.write_bytes(whole.read_bytes()[:100_000])
    parquet = tmp_path / "x.parquet"
    parquet.write_bytes(b"PAR1garbagePAR1")
    for path in (cut, parquet):
        with pytest.raises(DamagedFile, match="damaged"):
            load(db, path)
    for name, content in (("a.csv", text.encode("utf-16")), ("b.csv", bytes(range(256)) * 9)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnknownFormat):
            load(db, tmp_path / name)
    part = write(
        tmp_path / "c.csv", "price,qty,quote_qty,time,is_buyer_maker\n1,1,1,1704067200000,true\n"
    )
    with pytest.raises(UnknownFormat, match="has no column 'id'"):
        load(db, part)
    assert rows(db, "select distinct status from market.loads") == [("failed",)]


def test_a_file_has_one_bar_length_and_one_unit_of_volume(db: Conn, tmp_path: Path) -> None:
    """Both are told by its first rows, however it falls into blocks."""
    lines = [
        f"{1704067200 + 60 * i},100,101,99,100,{20_000_000 if i < 60 else 1}" for i in range(90)
    ]
    lines.append(f"{1704067200 + 60 * 500},100,101,99,100,1")  # after a gap
    text = "timestamp,open,high,low,close,volume\n" + "\n".join(lines) + "\n"
    for size in (1 << 20, 60 * len(lines[0]), 6 * len(lines[0])):
        db.execute("delete from market.candles")
        path = write(tmp_path / f"BTC{size}.csv", text)
        report = load(db, path, symbol="BTC", unit="quote", block=size)
        assert (report.loaded, report.quarantined) == (91, 0), size
        assert rows(
            db,
            "select count(*), min(timeframe), max(timeframe), count(quote_volume)"
            " from market.candles",
        ) == [(91, dt.timedelta(minutes=1), dt.timedelta(minutes=1), 91)]


def test_limit_of_bad_rows(db: Conn, tmp_path: Path) -> None:
    path = write(
        um(tmp_path) / "BTCUSDT-aggTrades.csv", aggtrades(5) + "6,x,1,6,6,1704067200000,true\n"
    )
    with pytest.raises(TooManyBad):
        load(db, path, max_bad=0)
    assert rows(db, "select status from market.loads") == [("failed",)]
    assert load(db, path, max_bad=1).loaded == 5


# --- twice, corrected, live ----------------------------------------------------------------------


def test_twice_changes_nothing(db: Conn, tmp_path: Path) -> None:
    path = write(um(tmp_path) / "BTCUSDT-aggTrades.csv", aggtrades(5000))
    load(db, path, block=20_000)
    before = hashes(db)
    assert load(db, path).skipped
    again = load(db, path, again=True, block=30_000)
    assert (again.loaded, again.duplicate, again.quarantined) == (0, 5000, 0)
    overlapping = write(um(tmp_path) / "BTCUSDT-aggTrades-2.csv", aggtrades(3000, 1000))
    assert load(db, overlapping, block=20_000).duplicate == 3000
    assert hashes(db) == before
    assert rows(db, "select count(*) from market.trades_history") == [(0,)]


def test_correction_is_known_from_now(db: Conn, tmp_path: Path) -> None:
    head = "timestamp,open,high,low,close,volume\n"
    old = write(tmp_path / "a.csv", head + "1704067200,1,2,0.5,1.5,10\n1704067260,1,2,0.5,1.5,10\n")
    new = write(tmp_path / "b.csv", head + "1704067200,1,2,0.5,1.7,10\n1704067260,1,2,0.5,1.5,10\n")
    load(db, old, symbol="X", timeframe=60)
    report = load(db, new, symbol="X", timeframe=60)
    assert (report.duplicate, report.quarantined) == (1, 1)
    start = rows(db, "select clock_timestamp()")[0][0]
    report = load(db, new, symbol="X", timeframe=60, correct=True)
    assert (report.corrected, report.duplicate) == (1, 1)
    got = rows(db, "select close, known_at >= %s from market.candles order by ts", start)
    assert got == [(1.7, True), (1.5, False)]
    assert rows(db, "select close from market.candles_history") == [(1.5,)]
    report = load(db, new, symbol="X", timeframe=60, correct=True)
    assert (report.corrected, report.duplicate) == (0, 2)


def test_live_and_lagged_rows(db: Conn, tmp_path: Path) -> None:
    path = write(um(tmp_path) / "BTCUSDT-aggTrades.csv", aggtrades(1))
    load(db, path, live=True)
    assert rows(db, "select known_at > now() - interval '1 hour' from market.trades") == [(True,)]
    load(db, path, symbol="ETHUSDT", lag=2.5)
    assert rows(db, "select known_at - ts from market.trades where symbol = 'ETHUSDT'") == [
        (dt.timedelta(seconds=2.5),)
    ]


def test_one_load_of_a_file_at_a_time(db: Conn, connect_as: Any, tmp_path: Path) -> None:
    path = write(um(tmp_path) / "BTCUSDT-aggTrades.csv", aggtrades(1)).resolve()
    with psycopg.connect(db.info.dsn, password=db.info.password, autocommit=True) as other:
        assert rows(other, "select ops._hold(%s)", f"load:{path}") == [(True,)]
        loader = Loader(db)
        loader.lock_wait = 0.2
        with pytest.raises(LoadRunning, match=rf"process {other.info.backend_pid}\b"):
            loader.load(path)
        # What a reader can lock is in nobody's way; who is gone holds nothing.
        reader = connect_as("alphaplus_reader", db.info.dbname)
        reader.execute(
            "select pg_advisory_lock(hashtextextended(%s, 0))", (f"alphaplus.load:{path}",)
        )
        for statement in ("select ops._hold('load:x')", "select ops._let_go('load:x')"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                reader.execute(statement)
    loader.lock_wait = 60
    assert loader.load(path).loaded == 1
    assert rows(db, "select name from ops.locks where name like 'load:%%'") == []


def test_loader_role_may(db: Conn, connect_as: Any, tmp_path: Path) -> None:
    conn = connect_as("alphaplus_loader", db.info.dbname)
    path = write(um(tmp_path) / "BTCUSDT-aggTrades.csv", aggtrades(10) + "x\n")
    assert load(conn, path).loaded == 10
    load(conn, path, again=True)
    conn.execute("call market.refresh_aggregates()")


# --- killed -------------------------------------------------------------------------------------

CHILD = """
import os, sys, psycopg
from pathlib import Path
from alphaplus.loaders.load import Loader, Options
with psycopg.connect(os.environ["CONNINFO"], autocommit=True) as conn:
    Loader(conn, Options(block=int(sys.argv[2]), every=0.1)).load(Path(sys.argv[1]))
"""


def child(conn: Conn, path: Path, block: int) -> subprocess.Popen[str]:
    dsn = psycopg.conninfo.make_conninfo(conn.info.dsn, password=conn.info.password)
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), str(block)],
        env={**os.environ, "CONNINFO": dsn, "PYTHONPATH": str(ROOT / "loaders")},
        stdout=subprocess.PIPE,
        text=True,
    )


def kill_midway(conn: Conn, path: Path, block: int) -> None:
    """Start a load and kill it after some committed blocks."""
    process = child(conn, path, block)
    for _ in range(2000):
        progress = rows(conn, "select resume_line, status from market.loads")
        if progress and progress[0][0] > 0:
            break
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_killed_feed_goes_on_with_its_book(
    db: Conn, admin: Any, template_db: str, server: Any, shared_data: Path
) -> None:
    from tests.conftest import copy_of, drop_database

    path = shared_data / "book_feed" / "spot_btcusdt_20240808.gz"
    kill_midway(db, path, 200_000)
    load(db, path, every=0.1)
    name = copy_of(admin, template_db)
    try:
        with psycopg.connect(server.conninfo(name), autocommit=True) as whole:
            load(whole, path, every=0.1)
            assert hashes(whole) == hashes(db)
    finally:
        drop_database(admin, name)
