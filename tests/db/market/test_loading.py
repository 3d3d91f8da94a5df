"""Loading files: real formats, bad rows, twice, killed, large."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from itertools import islice
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alphaplus.cli import load as cli_load
from alphaplus.loaders import simulator
from alphaplus.loaders.formats import UnknownFormat
from alphaplus.loaders.load import Loader, Options, TooManyBad

from tests.conftest import ROOT, Server
from tests.loader_rules import um

Conn = psycopg.Connection[Any]


def one(conn: Conn, query: str, *arguments: Any) -> Any:
    row = conn.execute(query, arguments).fetchone()  # type: ignore[arg-type]
    assert row is not None
    return row[0] if len(row) == 1 else row


def write(path: Path, text: str) -> Path:
    path.write_text(textwrap.dedent(text).lstrip())
    return path


def test_the_real_files_load_whole_and_once(db: Conn, shared_data: Path) -> None:
    paths = [
        *sorted((shared_data / "tardis_samples").iterdir()),
        shared_data / "candles_1m" / "btc-perp-20211231-20220201_1m.csv.gz",
        shared_data / "perps_hourly" / "open_interest.parquet",
        shared_data / "book_feed" / "spot_btcusdt_20240808.gz",
    ]
    for path in paths:
        report = Loader(db).load(path)
        if report.counters == {"one-sided books": 1}:  # bids only, or asks only, in these samples
            continue
        if report.kind != "book_feed":
            refused = report.quarantined
            assert report.read == report.loaded + report.duplicate + refused, report
        assert report.loaded > 0
    assert one(db, "select count(*) from market.candles") == 45_031
    assert one(db, "select count(*) from market.open_interest") == 18_477
    # volume of that file is in quote currency
    assert one(db, "select count(*) from market.candles where quote_volume < volume") == 0
    # Tardis' two samples of one book differ in depth: what differs is refused, not mixed
    assert (
        one(db, "select distinct reason from market.quarantine") == "duplicate with other content"
    )
    counts = "select (select count(*) from market.trades), (select count(*) from market.candles),"
    counts += " (select count(*) from market.order_book_snapshots), (select count(*) from market.quarantine)"
    before = one(db, counts)
    for path in paths:
        report = Loader(db).load(path)
        assert report.loaded == 0
        copied = Loader(db, Options(symbol=None)).load(path)
        assert copied.loaded == 0
    assert one(db, counts) == before


def test_receive_times_become_known_at_but_never_before_the_event(
    db: Conn, shared_data: Path
) -> None:
    Loader(db).load(shared_data / "tardis_samples" / "bitmex_trades_XBTUSD.csv")
    assert one(db, "select count(*) from market.trades where known_at = received_at") == 10
    Loader(db).load(shared_data / "book_feed" / "spot_btcusdt_20240808.gz")
    early = one(
        db,
        "select count(*), count(*) filter (where known_at = ts) from market.trades"
        " where symbol = 'BTCUSDT.SPOT' and received_at < ts",
    )
    assert early[0] > 5000 and early[0] == early[1]


def test_the_rebuilt_book_is_the_book(db: Conn, shared_data: Path, tmp_path: Path) -> None:
    """Against a plain replay of the updates, and the exchange's own best prices."""
    path = tmp_path / "feed.gz"
    with gzip.open(shared_data / "book_feed" / "usdm_btcusdt_20240808.gz", "rb") as whole:
        path.write_bytes(gzip.compress(b"".join(islice(whole, 15_000)), 1))
    Loader(db).load(path)
    rows = db.execute(
        "select sequence, bid_prices, bid_sizes, ask_prices, ask_sizes"
        " from market.order_book_snapshots where symbol = 'BTCUSDT' order by ts"
    ).fetchall()
    wanted = {row[0]: row for row in rows}
    assert len(rows) > 40
    bids: dict[float, float] = {}
    asks: dict[float, float] = {}
    updates: list[dict[str, Any]] = []
    ticker = None
    seen, last = 0, None

    def apply(update: dict[str, Any]) -> None:
        for side, levels in ((bids, update["b"]), (asks, update["a"])):
            for price, size in levels:
                if float(size):
                    side[float(price)] = float(size)
                else:
                    side.pop(float(price), None)

    with gzip.open(path, "rt") as lines:
        for line in lines:
            message = json.loads(line.split(" ", 1)[1])
            data = message.get("data", message)
            if data.get("e") == "bookTicker":
                ticker = data
            if "lastUpdateId" in data:  # the exchange's whole book, then what is newer
                bids.clear()
                asks.clear()
                apply({"b": data["bids"], "a": data["asks"]})
                for update in updates:
                    if update["u"] > data["lastUpdateId"]:
                        apply(update)
            if data.get("e") != "depthUpdate":
                continue
            # a snapshot is the book as it stood before the first update after its time
            row = wanted.pop(last, None)
            if row is not None:
                seen += 1
                b, a = dict(bids), dict(asks)
                if ticker is not None and ticker["u"] > last:
                    bid, ask = float(ticker["b"]), float(ticker["a"])
                    b = {p: s for p, s in bids.items() if p < bid} | {bid: float(ticker["B"])}
                    a = {p: s for p, s in asks.items() if p > ask} | {ask: float(ticker["A"])}
                assert row[1] == sorted(b, reverse=True)[:20]
                assert row[3] == sorted(a)[:20]
                assert row[2] == [b[p] for p in row[1]] and row[4] == [a[p] for p in row[3]]
            apply(data)
            updates.append(data)
            last = data["u"]
    assert seen == len(rows)


def test_a_hole_in_the_sequence_is_marked(db: Conn, tmp_path: Path) -> None:
    def update(i: int, u: int, pu: int, bid: str, ask: str) -> str:
        t = 1_723_161_255_000 + i * 1000
        return json.dumps(
            {"data": {"e": "depthUpdate", "E": t, "T": t, "s": "BTCUSDT", "U": u, "u": u, "pu": pu,
                      "b": [[bid, "1"]], "a": [[ask, "1"]]}}
        )  # fmt: skip

    lines = [
        update(i, 10 + i, 9 + i, f"{100 + i * 0.1:.1f}", f"{110 + i * 0.1:.1f}") for i in range(6)
    ]
    lines += [
        update(i, 20 + i, 19 + i, f"{100 + i * 0.1:.1f}", f"{110 + i * 0.1:.1f}")
        for i in range(6, 12)
    ]
    lines += [update(12, 32, 31, "111.0", "111.5"), update(13, 33, 32, "111.6", "111.9")]
    path = tmp_path / "feed.jsonl"
    path.write_text("\n".join([*lines, "{broken", update(14, 34, 33, "1", "200")]) + "\n")
    report = Loader(db).load(path)
    assert one(db, "select expected, received from market.sequence_gaps") == (15, 25)
    assert one(db, "select count(*) from market.order_book_snapshots where after_gap") == 1
    assert report.counters["sequence gaps"] == 1
    assert report.counters["crossed books"] >= 1
    assert one(db, "select line, reason from market.quarantine")[0] == 15


BAD = """
    agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker
    1,100.5,1.0,1,1,1700000000000,true
    2,abc,1.0,2,2,1700000000001,false
    3,-5,1.0,3,3,1700000000002,false
    4,100,0,4,4,1700000000003,false
    5,100,1.0,5,5,9999999999999,false
    6,100,1.0,6,6,1700000000005,perhaps
    7,100,1.0,7,7
    8,100,1.0,8,8,yesterday,false
    1,100.5,1.0,1,1,1700000000000,true
    1,100.6,1.0,1,1,1700000000000,true
    9,101,2.5,9,9,1700000000009,false
"""


def test_bad_rows_go_to_quarantine_and_good_ones_load(db: Conn, tmp_path: Path) -> None:
    path = write(um(tmp_path) / "BTCUSDT-aggTrades-2023-11-14.csv", BAD)
    report = Loader(db).load(path)
    assert (report.read, report.loaded, report.duplicate, report.quarantined) == (11, 2, 1, 8)
    found = dict(db.execute("select line, reason from market.quarantine order by line").fetchall())
    assert found == {
        3: "unparsable price",
        4: "price not positive",
        5: "size not positive",
        6: "future time",
        7: "unknown side",
        8: "unparsable",
        9: "unparsable time",
        11: "duplicate with other content",
    }
    raw = one(db, "select raw from market.quarantine where line = 3")
    assert raw == "2,abc,1.0,2,2,1700000000001,false"
    sides = db.execute(
        "select trade_id, side::text, price from market.trades order by 1"
    ).fetchall()
    assert sides == [("1", "sell", 100.5), ("9", "buy", 101.0)]
    assert Loader(db, Options(kind="trades")).load(path).loaded == 0
    assert one(db, "select count(*) from market.quarantine") == 8


def test_the_users_limit_of_bad_rows(db: Conn, tmp_path: Path) -> None:
    path = write(um(tmp_path) / "BTCUSDT-aggTrades-2023-11-14.csv", BAD)
    with pytest.raises(TooManyBad, match="8 rows"):
        Loader(db, Options(max_bad=3)).load(path)
    assert one(db, "select count(*) from market.trades") == 2
    assert one(db, "select status from market.loads") == "failed"


def test_candles_that_cannot_be(db: Conn, tmp_path: Path) -> None:
    path = write(
        tmp_path / "ETHUSDT-1m-2024-01.csv",
        """
        1704067200000,100,110,90,105,10,1704067259999,1000,5,6,600,0
        1704067260000,100,90,110,105,10,1704067319999,1000,5,6,600,0
        1704067320000,100,110,90,120,10,1704067379999,1000,5,6,600,0
        1704067380000,100,110,90,105,-1,1704067439999,1000,5,6,600,0
        """,
    )
    report = Loader(db, Options(instrument_kind="perpetual")).load(path)
    assert (report.format, report.loaded, report.quarantined) == ("binance klines", 1, 3)
    assert one(
        db,
        "select symbol, timeframe::text, taker_buy_volume, known_at - ts = '1 min' from market.candles",
    ) == ("ETHUSDT", "00:01:00", 6.0, True)
    assert {reason for (reason,) in db.execute("select reason from market.quarantine")} == {
        "high below low",
        "open or close outside the bar's range",
        "negative volume",
    }


# One file of each further format, written from the exchanges' documentation.
SAMPLES = {
    "BTCUSDT-trades-2024-01-01.csv": (
        "id,price,qty,quote_qty,time,is_buyer_maker\n5,42000.5,0.01,420.005,1704067200123,true\n",
        ("trades", "BTCUSDT", "sell"),
    ),
    "BTCUSDT-fundingRate-2024-01.csv": (
        "calc_time,funding_interval_hours,last_funding_rate\n1704067200003,8,0.00037409\n",
        ("funding_rates", "BTCUSDT", None),
    ),
    "BTCUSDT-metrics-2024-01-01.csv": (
        "create_time,symbol,sum_open_interest,sum_open_interest_value,"
        "count_toptrader_long_short_ratio,sum_toptrader_long_short_ratio,count_long_short_ratio,"
        "sum_taker_long_short_vol_ratio\n2024-01-01 00:05:00,BTCUSDT,78000.1,3301000000.5,1,1,1,1\n",
        ("open_interest", "BTCUSDT", None),
    ),
    "BTCUSDT-liquidationSnapshot-2024-01-01.csv": (
        "time,side,order_type,time_in_force,original_quantity,price,average_price,order_status,"
        "last_fill_quantity,accumulated_fill_quantity\n"
        "1704067201000,SELL,LIMIT,IOC,0.5,41900.1,41950.0,FILLED,0.5,0.5\n",
        ("liquidation_events", "BTCUSDT", "sell"),
    ),
    "BTCUSD2024-01-01.csv": (
        "timestamp,symbol,side,size,price,tickDirection,trdMatchID,grossValue,homeNotional,foreignNotional\n"
        "1704067200.123,BTCUSDT,Buy,0.05,42100.1,PlusTick,a1-b2,210500000,0.05,2105.005\n",
        ("trades", "BTCUSDT@bybit", "buy"),
    ),
    "okx-trades.csv": (
        "instrument_name,trade_id,side,price,size,created_time\n"
        "BTC-USDT-SWAP,77,buy,42100.1,1.5,1704067200555\n",
        ("trades", "BTC-USDT-SWAP@okx", "buy"),
    ),
    "tardis_liquidations_BTCUSDT.csv": (
        "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n"
        "binance-futures,BTCUSDT,1704067200000000,1704067200100000,,buy,42000,0.4\n",
        ("liquidation_events", "BTCUSDT", "buy"),
    ),
    "force_orders.jsonl": (
        '{"e":"forceOrder","E":1704067200100,"o":{"s":"BTCUSDT","S":"SELL","o":"LIMIT","f":"IOC",'
        '"q":"0.014","p":"9910","ap":"9910","X":"FILLED","l":"0.014","z":"0.014","T":1704067200093}}\n',
        ("liquidation_events", "BTCUSDT", "sell"),
    ),
    "bybit_liquidations.jsonl": (
        '{"topic":"allLiquidation.BTCUSDT","type":"snapshot","ts":1704067200502,"data":[{"T":1704067200441,'
        '"s":"BTCUSDT","S":"Buy","v":"0.2","p":"42100.2"}]}\n',
        ("liquidation_events", "BTCUSDT@bybit", "sell"),
    ),
    "okx_liquidations.jsonl": (
        '{"arg":{"channel":"liquidation-orders","instType":"SWAP"},"data":[{"details":[{"bkLoss":"0",'
        '"bkPx":"42000.5","ccy":"","posSide":"long","side":"sell","sz":"13","ts":"1704067200123"}],'
        '"instFamily":"BTC-USDT","instId":"BTC-USDT-SWAP","instType":"SWAP","uly":"BTC-USDT"}]}\n',
        ("liquidation_events", "BTC-USDT-SWAP@okx", "sell"),
    ),
}


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("packed", ["plain", "gz", "zip"])
def test_documented_formats(db_module: Conn, tmp_path: Path, name: str, packed: str) -> None:
    text, (table, symbol, side) = SAMPLES[name]
    db_module.execute(f"truncate market.{table}")  # type: ignore[arg-type]
    folder = um(tmp_path) if name.startswith("BTCUSDT-") else tmp_path
    path = folder / name
    path.write_text(text)
    if packed == "gz":
        path = folder / (name + ".gz")
        path.write_bytes(gzip.compress(text.encode()))
    elif packed == "zip":
        path = folder / (name.rsplit(".", 1)[0] + ".zip")
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, text)
    report = Loader(db_module).load(path)
    assert report.loaded == 1, report
    got = one(db_module, f"select symbol, ts::date::text from market.{table}")
    assert got == (symbol, "2024-01-01")
    if side:
        assert one(db_module, f"select side::text from market.{table}") == side


def test_an_unknown_file_says_what_is_known(db: Conn, tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "a,b\n1,2\n")
    with pytest.raises(UnknownFormat, match="first row is: a, b"):
        Loader(db).load(path)
    good = um(tmp_path) / "BTCUSDT-trades-2024-01-01.csv"
    good.write_text(SAMPLES[good.name][0])
    with pytest.raises(UnknownFormat, match="alphaplus load trades"):
        Loader(db, Options(kind="candles")).load(good)


def test_a_correction_is_known_from_now(db: Conn, tmp_path: Path) -> None:
    head = "id,price,qty,quote_qty,time,is_buyer_maker\n"
    path = um(tmp_path) / "BTCUSDT-trades-1.csv"
    path.write_text(head + "5,42000,0.01,420,1704067200123,true\n")
    Loader(db).load(path)
    other = um(tmp_path) / "BTCUSDT-trades-2.csv"
    other.write_text(head + "5,42001,0.01,420,1704067200123,true\n")
    report = Loader(db, Options(correct=True)).load(other)
    assert report.corrected == 1
    assert one(db, "select price, known_at > '2025-01-01' from market.trades") == (42001.0, True)
    assert one(db, "select price from market.trades_history") == 42000.0


def big_file(path: Path, rows: int) -> Path:
    with gzip.open(path, "wt", compresslevel=1) as file:
        file.write("id,price,qty,quote_qty,time,is_buyer_maker\n")
        for i in range(rows):
            file.write(f"{i},{40000 + i % 977},{1 + i % 7},1,{1704067200000 + i * 37},true\n")
    return path


LOAD = (
    "import os, sys, psycopg, resource\n"
    "from pathlib import Path\n"
    "from alphaplus.loaders.load import Loader, Options\n"
    "conn = psycopg.connect(os.environ['CONNINFO'], autocommit=True)\n"
    "Loader(conn, Options(block=int(sys.argv[2]))).load(Path(sys.argv[1]))\n"
    "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
)


def load_process(dsn: str, path: Path, block: int) -> subprocess.Popen[str]:
    roots = [str(ROOT / name) for name in ("plpython", "loaders", "trainer")]
    return subprocess.Popen(
        [sys.executable, "-c", LOAD, str(path), str(block)],
        env={**os.environ, "CONNINFO": dsn, "PYTHONPATH": os.pathsep.join(roots)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_killed_load_goes_on_with_nothing_lost_or_doubled(
    db: Conn, server: Server, tmp_path: Path
) -> None:
    rows = 60_000
    path = big_file(um(tmp_path) / "BTCUSDT-trades-2024-01-01.csv.gz", rows)
    dsn = server.conninfo(db.info.dbname)
    for _ in range(3):
        loading = load_process(dsn, path, 40_000)
        before = one(db, "select count(*) from market.trades")
        deadline = time.monotonic() + 60
        while (
            one(db, "select count(*) from market.trades") == before and time.monotonic() < deadline
        ):
            time.sleep(0.02)
        loading.send_signal(signal.SIGKILL)
        loading.wait()
    killed_at = one(db, "select count(*) from market.trades")
    assert 0 < killed_at < rows
    report = Loader(db).load(path)
    assert report.read == rows and report.loaded == rows
    assert one(db, "select count(*), count(distinct trade_id) from market.trades") == (rows, rows)
    assert one(db, "select count(*) from market.loads") == 1


def test_memory_does_not_grow_with_the_file(db: Conn, server: Server, tmp_path: Path) -> None:
    peaks = []
    for i, rows in enumerate((40_000, 240_000)):
        path = big_file(um(tmp_path) / f"M{i}USDT-trades-2024-01-01.csv.gz", rows)
        out, _ = load_process(server.conninfo(db.info.dbname), path, 200_000).communicate(
            timeout=900
        )
        peaks.append(int(out) / 1024)
    assert peaks[1] < peaks[0] + 40, peaks


def test_the_simulator_is_its_seed(db: Conn) -> None:
    first = simulator.simulate(3, 2000, hazards=False)
    again = simulator.simulate(3, 2000, hazards=False)
    other = simulator.simulate(4, 2000, hazards=False)
    for name in ("trades", "books", "liquidations", "truth"):
        for key, column in getattr(first, name).items():
            assert (column == getattr(again, name)[key]).all()
    assert len(first.trades["ts"]) != len(other.trades["ts"])
    symbol = simulator.write(db, "BTC", 3, first)
    assert symbol == "BTCUSDT@sim"
    counts = one(
        db,
        "select (select count(*) from market.trades), (select count(*) from market.simulation_truth),"
        " (select count(*) from market.order_book_snapshots)",
    )
    assert counts == (len(first.trades["ts"]), 2000, 2000)
    assert one(db, "select market.resolve('btc/usdt')") == symbol


def test_a_lost_connection_is_a_line_and_the_load_goes_on(
    db: Conn, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = 60_000
    path = big_file(um(tmp_path) / "BTCUSDT-trades-2024-01-01.csv.gz", rows)
    ended = threading.Event()

    def cut() -> None:
        with psycopg.connect(server.conninfo("postgres"), autocommit=True) as other:
            while not ended.is_set():
                row = other.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity"
                    " where datname = %s and application_name = 'cut me' and query ~ 'market.trades'",
                    (db.info.dbname,),
                ).fetchone()
                if row is not None:
                    return

    killer = threading.Thread(target=cut)
    killer.start()
    name = "application_name='cut me'"
    try:
        status = cli_load.run(
            f"{server.conninfo(db.info.dbname)} {name}", [path], Options(block=40_000)
        )
    finally:
        ended.set()
        killer.join()
    said = capsys.readouterr().err
    assert status == 0, said
    assert said.count("the connection was lost") == 1 and "Traceback" not in said
    assert one(db, "select count(*), count(distinct trade_id) from market.trades") == (rows, rows)
    refused = cli_load.run("host=/nowhere dbname=x", [path], Options())
    said = capsys.readouterr().err
    assert refused == cli_load.FAILED
    assert "no connection" in said and said.count("alphaplus load:") == 1
