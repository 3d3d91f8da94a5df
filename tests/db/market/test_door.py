"""The door: what is stored is what the file means, or it is refused with what is missing.

Cases after public bug reports (shared/cases/data); the right values are computed here from the files.
"""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
import json
import os
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alphaplus.cli.load import NOTHING, UNKNOWN, one_file
from alphaplus.loaders.load import Options, Report

from tests.conftest import ROOT
from tests.loader_rules import um

Conn = psycopg.Connection[Any]
CASES = ROOT.parent / "shared" / "cases" / "data"
UTC = dt.UTC


@pytest.fixture
def cases() -> Path:
    if not CASES.is_dir():
        pytest.skip(f"REAL DATA ABSENT: {CASES} is not there")
    return CASES


@pytest.fixture
def market(db_module: Conn) -> Iterator[Conn]:
    """An empty market."""
    yield db_module
    for table in ("candles", "trades", "order_book_snapshots", "liquidation_events",
                  "funding_rates", "open_interest", "trade_spans", "quarantine", "sequence_gaps",
                  "candles_history", "trades_history"):  # fmt: skip
        db_module.execute(f"truncate market.{table}")  # type: ignore[call-overload]
    db_module.execute("delete from market.loads")
    db_module.execute("delete from market.instruments")


def load(conn: Conn, path: Path, **options: Any) -> tuple[int, list[str], list[Report]]:
    words: list[str] = []
    status, reports = one_file(conn, path, Options(**options), words.append)
    return status, words, reports


def rows(conn: Conn, query: str, *args: Any) -> list[Any]:
    return conn.execute(query, args).fetchall()  # type: ignore[call-overload,no-any-return]


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open()))


def ms(value: str | int) -> dt.datetime:
    """A time of ms or µs."""
    number = int(value)
    return dt.datetime(1970, 1, 1, tzinfo=UTC) + dt.timedelta(
        microseconds=number if number > 10**14 else number * 1000
    )


# --- trades ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "symbol", "stamp", "maker", "size"),
    [
        ("real/spot/BTCUSDT-trades-2024-12-31.csv", "BTCUSDT.SPOT", 4, 5, 2),
        ("real/spot/BTCUSDT-trades-2025-01-01.csv", "BTCUSDT.SPOT", 4, 5, 2),
        ("real/spot/BTCUSDT-aggTrades-2026-09-16.csv", "BTCUSDT.SPOT", 5, 6, 2),
        ("real/um/BTCUSDT-trades-2026-09-16.csv", "BTCUSDT", 4, 5, 2),
        ("spot/XYZUSDT-trades-2024-03-01.csv", "XYZUSDT.SPOT", 4, 5, 2),
        ("spot/XYZUSDT-trades-2025-03-01.csv", "XYZUSDT.SPOT", 4, 5, 2),
    ],
)
def test_binance_trades(
    market: Conn, cases: Path, name: str, symbol: str, stamp: int, maker: int, size: int
) -> None:
    path = cases / "spot_trades" / name
    status, _, _ = load(market, path)
    assert status == 0
    want = [
        (symbol, row[0], ms(row[stamp]), float(row[1]), float(row[size]),
         "sell" if row[maker].lower() == "true" else "buy")
        for row in csv.reader(path.open())
    ]  # fmt: skip
    got = rows(
        market,
        "select symbol, trade_id, ts, price, size, side::text from market.trades"
        " order by trade_id::bigint",
    )
    assert got == want


@pytest.mark.parametrize(
    "text",
    [
        "id,price,qty,quote_qty,time,is_buyer_maker\n1,100,2,200,1704067200000,true\n",
        "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n"
        "1,100,2,1,1,1704067200000,true\n",
        "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,"
        "taker_buy_quote_volume,ignore\n1704067200000,1,2,1,2,5,1704067259999,9,3,2,4,0\n",
    ],
)
def test_a_header_does_not_say_whether_it_is_spot(market: Conn, tmp_path: Path, text: str) -> None:
    """Spot archives have none, but people write one over them: it is asked for."""
    for name in ("XYZUSDT-2024-01-01.csv", "XYZUSDT-2024-01-01.zip"):
        path = tmp_path / name
        if path.suffix == ".zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("XYZUSDT-2024-01-01.csv", text)
        else:
            path.write_text(text)
        status, said, _ = load(market, path)
        assert status == UNKNOWN and any("--kind" in line for line in said), said
    for kind, symbol in (("spot", "XYZUSDT.SPOT"), ("perpetual", "XYZUSDT")):
        status, said, (report,) = load(market, path, instrument_kind=kind, again=True)
        assert (status, report.loaded) == (0, 1), said
        assert [name for _, name, _ in report.survey.series] == [symbol]


def test_trades_and_aggregated_trades_are_one_stream(market: Conn, tmp_path: Path) -> None:
    """A day's trades in both tellings: the volume is counted once, whichever comes first."""
    at = 1_704_067_200_000
    single = [(i, 100 + i % 3, 0.5, at + 1000 * i, i % 2 == 0) for i in range(40)]
    plain = um(tmp_path) / "BTCUSDT-trades-2024-01-01.csv"
    plain.write_text(
        "id,price,qty,quote_qty,time,is_buyer_maker\n"
        + "".join(f"{i},{p},{q},{p * q},{t},{str(m).lower()}\n" for i, p, q, t, m in single)
    )
    joined = um(tmp_path) / "BTCUSDT-aggTrades-2024-01-01.csv"
    joined.write_text(
        "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n"
        + "".join(f"{i},{p},{q},{i},{i},{t},{str(m).lower()}\n" for i, p, q, t, m in single)
    )
    truth = sum(q for _, _, q, _, _ in single)
    load(market, joined)
    status, _, (report,) = load(market, plain)
    assert (status, report.loaded, report.duplicate) == (0, 0, 40)
    assert rows(market, "select sum(size) from market.trades") == [(truth,)]
    # what was deleted stands in nobody's way
    market.execute("delete from market.trades")
    load(market, plain, again=True)
    assert rows(market, "select sum(size) from market.trades") == [(truth,)]
    # a recording of both streams
    market.execute("truncate market.trades, market.trade_spans")
    feed = tmp_path / "both.jsonl"
    lines = []
    for i, p, q, t, m in single:
        base = {"E": t, "T": t, "s": "ETHUSDT", "p": str(p), "q": str(q), "m": m}
        lines.append(json.dumps({"e": "trade", "t": i, "X": "MARKET", **base}))
        lines.append(json.dumps({"e": "aggTrade", "a": i, "f": i, "l": i, **base}))
    feed.write_text("\n".join(lines) + "\n")
    load(market, feed)
    assert rows(market, "select symbol, sum(size) from market.trades group by 1") == [
        ("ETHUSDT", truth)
    ]


# --- contracts ---------------------------------------------------------------------------------------


def test_coin_margined_streams(market: Conn, cases: Path) -> None:
    load(market, cases / "coin_margined" / "d_coinm.jsonl")
    (size,) = rows(market, "select size from market.trades")[0]
    assert size == pytest.approx(100 * 100 / 60010)
    assert rows(market, "select size, notional from market.liquidation_events") == [
        (pytest.approx(100 * 100 / 60010), pytest.approx(10_000.0))
    ]
    market.execute("truncate market.trades")
    path = cases / "coin_margined" / "btcusd_perp_20240809_excerpt.jsonl"
    load(market, path)
    contracts = {}
    for line in path.read_text().splitlines():
        data = json.loads(line.split(" ", 1)[1])["data"]
        if data["e"] == "trade":
            contracts[str(data["t"])] = float(data["q"]) * 100 / float(data["p"])
    got = dict(rows(market, "select trade_id, size from market.trades"))
    assert got == pytest.approx(contracts)
    told = set()
    for line in path.read_text().splitlines():
        data = json.loads(line.split(" ", 1)[1])["data"]
        levels = [*data["b"], *data["a"]] if data["e"] == "depthUpdate" else []
        if data["e"] == "bookTicker":
            levels = [[data["b"], data["B"]], [data["a"], data["A"]]]
        told |= {(float(p), round(float(q) * 100 / float(p), 9)) for p, q in levels}
    books = rows(
        market,
        "select bid_prices || ask_prices, bid_sizes || ask_sizes from market.order_book_snapshots",
    )
    assert books
    for prices, sizes in books:
        assert {(p, round(s, 9)) for p, s in zip(prices, sizes, strict=True)} <= told


def test_contract_units(market: Conn, cases: Path) -> None:
    path = cases / "contract_units" / "BTCUSD2024-04-01.csv"
    load(market, path)
    want = {r["trdMatchID"]: float(r["homeNotional"]) for r in table(path)}
    assert dict(rows(market, "select trade_id, size from market.trades")) == pytest.approx(want)
    load(market, cases / "contract_units" / "e_bybit.jsonl")
    assert rows(market, "select symbol, size from market.liquidation_events order by 1") == [
        ("BTCUSD@bybit", pytest.approx(6000 / 60000)),
        ("BTCUSDT@bybit", 0.1),
    ]
    market.execute("truncate market.liquidation_events")
    _, words, _ = load(market, cases / "contract_units" / "g_okx.jsonl")
    assert rows(market, "select symbol, size, notional from market.liquidation_events") == [
        ("BTC-USDT-240628@okx", pytest.approx(20 * 0.01), pytest.approx(12_000.0))
    ]
    assert "contract size of PEPE-USDT-SWAP at okx not known" in " ".join(words)


def test_a_contract_that_is_set_is_used_and_says_what_to_reload(
    market: Conn, cases: Path, tmp_path: Path
) -> None:
    path = cases / "contract_units" / "g_okx.jsonl"
    market.execute(
        "insert into market.contract_rules values"
        " ('okx', 'PEPE-USDT-SWAP', 'perpetual', 'linear', 1e7, 'contracts', 'USDT', 'mine',"
        "  '2024-01-01', false)"
    )
    load(market, path)
    got = rows(market, "select size from market.liquidation_events where symbol like 'PEPE%%'")
    assert got == [(20 * 1e7,)]
    found = rows(
        market, "select * from market.set_instrument('PEPE-USDT-SWAP', '{\"contract_size\": 1e6}')"
    )
    assert found == [("PEPE-USDT-SWAP@okx", [str(path.resolve())])]
    # nothing was converted anew
    again = rows(market, "select size from market.liquidation_events where symbol like 'PEPE%%'")
    assert again == got
    load(market, path, again=True, correct=True)
    assert rows(
        market, "select size from market.liquidation_events where symbol like 'PEPE%%'"
    ) == [(20 * 1e6,)]
    market.execute("delete from market.contract_rules where not shipped")
    for bad, code in (('{"x": 1}', "AP900"), ('{"margin": "odd"}', "AP901"), ("[]", "AP902")):
        with pytest.raises(psycopg.Error) as error:
            market.execute("select market.set_instrument('PEPE-USDT-SWAP', %s)", (bad,))
        assert error.value.sqlstate == code


# --- names -----------------------------------------------------------------------------------------


def test_one_symbol_each(market: Conn, cases: Path) -> None:
    """No two files of the folder share a symbol; what their names say is kept."""
    seen: dict[str, str] = {}
    for path in sorted((cases / "names").rglob("*.csv")):
        market.execute("truncate market.candles")
        status, _, _ = load(market, path)
        assert status == 0, path
        ((symbol,),) = rows(market, "select distinct symbol from market.candles")
        if path.name != "Bitstamp_BTCUSD_1h_clean.csv":  # the same bars as without _clean
            assert symbol not in seen, (path.name, seen.get(symbol))
        seen[symbol] = path.name
    got = {
        s: (b, q, e)
        for s, b, q, e in rows(
            market, "select symbol, base, quote, exchange from market.instruments"
        )
    }
    assert got["ETH_BTC.SPOT@local"] == ("ETH", "BTC", "local")
    assert got["ETH_USDT.SPOT@local"] == ("ETH", "USDT", "local")
    assert got["BTCUSDT.SPOT"] == ("BTC", "USDT", "binance")
    assert got["BTCUSD.SPOT@bitstamp"] == ("BTC", "USD", "bitstamp")
    assert got["BRK-A@local"][1] is None and got["BRK-B@local"][1] is None
    assert got["EUR_GBP@local"] == ("EUR", "GBP", "local")
    assert got["BTC-EUR@local"] == ("BTC", "EUR", "local")


@pytest.mark.parametrize("first", ["mark", "traded"])
def test_mark_index_and_premium_are_series_of_their_own(
    market: Conn, cases: Path, first: str
) -> None:
    paths = sorted((cases / "mark_and_index").rglob("*.csv"), reverse=first == "traded")
    for path in paths:
        status, words, _ = load(market, path)
        assert status == 0, words
    for path in paths:
        series = {"markPriceKlines": ".MARK", "premiumIndexKlines": ".PREMIUM"}
        native = path.name.split("-")[0]
        end = next((s for part, s in series.items() if part in path.parts), "")
        want = [(float(r["open"]), float(r["low"])) for r in table(path)]
        assert rows(
            market, "select open, low from market.candles where symbol = %s order by ts", native + end
        ) == want  # fmt: skip
    assert rows(market, "select market.resolve('SOLUSDT')") == [("SOLUSDT",)]


def test_klines_without_volume_are_not_taken_for_traded(market: Conn, tmp_path: Path) -> None:
    path = um(tmp_path) / "SOLUSDT-1m-2024-04-01.csv"
    path.write_text(
        "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,"
        "taker_buy_quote_volume,ignore\n"
        "1711929600000,200.1,200.3,199.9,200.2,0,1711929659999,0,60,0,0,0\n"
    )
    status, words, _ = load(market, path)
    assert status == UNKNOWN and "--series" in words[0]
    assert load(market, path, series="mark")[0] == 0
    assert rows(market, "select symbol, volume from market.candles") == [("SOLUSDT.MARK", None)]


# --- times -----------------------------------------------------------------------------------------


def test_dates(market: Conn, cases: Path) -> None:
    folder = cases / "dates"
    assert load(market, folder / "AAPL.csv")[0] == 0
    want = [
        (dt.datetime.strptime(r["date"], "%Y%m%d").replace(tzinfo=UTC), float(r["volume"]))
        for r in table(folder / "AAPL.csv")
    ]
    assert rows(market, "select ts, volume from market.candles order by ts") == want
    assert rows(market, "select distinct timeframe from market.candles") == [
        (dt.timedelta(days=1),)
    ]
    assert load(market, folder / "BTCUSDT_1m_open_time.csv")[0] == 0
    # before the first plausible day; and from when the user says
    status, words, _ = load(market, folder / "AAPLD_yyyymmdd.csv")
    assert status == NOTHING and "--since" in words[0]
    first = dt.datetime(1990, 1, 1, tzinfo=UTC).timestamp() * 1e6
    assert load(market, folder / "AAPLD_yyyymmdd.csv", since=first)[0] == 0
    assert rows(market, "select min(ts) from market.candles where symbol like 'AAPLD%%'") == [
        (dt.datetime(1998, 1, 2, tzinfo=UTC),)
    ]
    assert rows(market, "select count(*) from market.candles where ts < '1998-01-01'") == [(0,)]


ZONED = {
    "AUDUSD-lean.csv": ("Europe/London", dt.datetime(2024, 1, 2, 9, 30, tzinfo=UTC)),
    "CADUSD-compact.csv": ("America/New_York", dt.datetime(2024, 1, 2, 14, 30, tzinfo=UTC)),
    "EURUSD-mt5.csv": ("Etc/GMT-2", dt.datetime(2024, 1, 2, 7, 30, tzinfo=UTC)),
    "GOOG-1m.csv": ("America/New_York", dt.datetime(2024, 1, 2, 14, 30, tzinfo=UTC)),
    "GBPUSD-us.csv": ("America/New_York", dt.datetime(2024, 1, 2, 14, 30, tzinfo=UTC)),
}


@pytest.mark.parametrize("name", ZONED)
def test_times_without_a_zone_ask_for_it(market: Conn, cases: Path, name: str) -> None:
    path = cases / "dates" / name
    status, words, _ = load(market, path)
    assert status == UNKNOWN
    assert "--tz" in words[0] or "--date-format" in words[0]
    zone, first = ZONED[name]
    more = {"date_format": "%m/%d/%Y %H:%M"} if "us" in name else {}
    assert load(market, path, tz=zone, timeframe=60.0, **more)[0] == 0
    assert rows(market, "select min(ts) from market.candles") == [(first,)]


def test_the_hour_that_clocks_repeat(market: Conn, cases: Path, tmp_path: Path) -> None:
    path = cases / "dates" / "DAX2-dst-naive.csv"
    assert load(market, path, tz="Europe/Berlin", timeframe=3600.0)[0] == 0
    assert rows(market, "select ts, volume from market.candles order by ts") == [
        (dt.datetime(2024, 10, 27, 0, tzinfo=UTC), 1.0),
        (dt.datetime(2024, 10, 27, 1, tzinfo=UTC), 2.0),
        (dt.datetime(2024, 10, 27, 2, tzinfo=UTC), 1.0),
    ]
    once = tmp_path / "DAX-1h.csv"
    once.write_text(
        "timestamp,open,high,low,close,volume\n2024-10-27 01:00:00,1,1,1,1,1\n"
        "2024-10-27 02:00:00,1,1,1,1,1\n2024-10-27 03:00:00,1,1,1,1,1\n"
    )
    _, words, _ = load(market, once, tz="Europe/Berlin")
    assert "local time that occurs twice" in words[0]


@pytest.mark.parametrize(
    ("stamps", "want"),
    [
        (["45293", "45294"], dt.datetime(2024, 1, 2, tzinfo=UTC)),  # a spreadsheet's days
        (["20240102", "20240103"], dt.datetime(2024, 1, 2, tzinfo=UTC)),
        (["1704153600", "1704240000"], dt.datetime(2024, 1, 2, tzinfo=UTC)),
        (["2024/01/02", "2024/01/03"], dt.datetime(2024, 1, 2, tzinfo=UTC)),
    ],
)
def test_days_as_they_are_written(
    market: Conn, tmp_path: Path, stamps: list[str], want: dt.datetime
) -> None:
    path = tmp_path / "MSFT.csv"
    path.write_text(
        "Date,Open,High,Low,Close,Volume\n" + "".join(f"{s},1,2,1,2,3\n" for s in stamps)
    )
    assert load(market, path)[0] == 0
    assert rows(market, "select min(ts), count(*) from market.candles") == [(want, 2)]


def test_calendar_months_have_their_length(market: Conn, tmp_path: Path) -> None:
    path = tmp_path / "BTC-USD-1M.csv"
    path.write_text(
        "date,open,high,low,close,volume\n2024-01-01,1,2,1,2,3\n2024-02-01,1,2,1,2,3\n"
        "2024-03-01,1,2,1,2,3\n"
    )
    assert load(market, path)[0] == 0
    got = rows(market, "select known_at, timeframe::text from market.candles order by ts")
    months = [dt.datetime(2024, m, 1, tzinfo=UTC) for m in (2, 3, 4)]
    assert got == [(m, "1 mon") for m in months]


# --- volume, unfinished bars -------------------------------------------------------------------------


def test_volume_is_in_base_units(market: Conn, cases: Path) -> None:
    for name in ("XRPKRW-1m.csv", "XRPKRW-1m-quiet.csv", "005930-1m.csv"):
        path = cases / "volume_unit" / name
        assert load(market, path)[0] == 0
        for row in table(path):
            got = rows(
                market, "select volume, quote_volume from market.candles where ts = %s",
                row["timestamp"],
            )  # fmt: skip
            assert got == [(float(row["volume"]), None)]


def test_volume_that_cannot_be_base_units_is_asked_for(market: Conn, tmp_path: Path) -> None:
    path = tmp_path / "BTC-USD-1m.csv"
    path.write_text(
        "timestamp,open,high,low,close,volume\n1704067200,40000,40000,40000,40000,2e7\n"
        "1704067260,40000,40000,40000,40000,3e7\n"
    )
    status, words, _ = load(market, path)
    assert status == UNKNOWN and "--unit" in words[0]
    assert load(market, path, unit="quote")[0] == 0
    assert rows(market, "select volume, quote_volume from market.candles order by ts") == [
        (500.0, 2e7), (750.0, 3e7),
    ]  # fmt: skip


def bars(now: int, volumes: list[float]) -> str:
    start = now // 60 * 60 - 60 * (len(volumes) - 1)
    return "timestamp,open,high,low,close,volume\n" + "".join(
        f"{start + 60 * i},10,11,9,10.5,{v}\n" for i, v in enumerate(volumes)
    )


def test_an_open_bar_is_held_back(market: Conn, tmp_path: Path) -> None:
    now = int(time.time())
    if now % 60 > 50:
        time.sleep(11)
        now = int(time.time())
    path = tmp_path / "NOWUSDT-1m.csv"
    path.write_text(bars(now, [100, 100, 3]))
    status, _, (report,) = load(market, path)
    assert (status, report.loaded, report.held) == (0, 2, 1)
    # written while a bar was open, loaded later
    old = tmp_path / "OLDUSDT-1m.csv"
    old.write_text(bars(now - 7200, [100, 100, 3]))
    os.utime(old, (now - 7200, now - 7200))
    _, _, (report,) = load(market, old)
    assert (report.loaded, report.held) == (2, 1)
    reason = rows(market, "select distinct reason from market.quarantine")
    assert reason == [("bar not closed when the file was written",)]
    # once it is whole it is a bar like others
    whole = tmp_path / "OLDUSDT-1m-2.csv"
    whole.write_text(bars(now - 7200, [100, 100, 90]))
    _, _, (report,) = load(market, whole)
    assert (report.loaded, report.duplicate, report.quarantined) == (1, 2, 0)


def test_a_bar_taken_too_early_is_corrected_by_the_whole_one(market: Conn, tmp_path: Path) -> None:
    early = tmp_path / "XUSDT-1m-a.csv"
    early.write_text(bars(1_704_067_260, [100, 3]))
    load(market, early)
    later = tmp_path / "XUSDT-1m-b.csv"
    later.write_text(bars(1_704_067_320, [100, 90, 50]))
    before = rows(market, "select clock_timestamp()")[0][0]
    _, _, (report,) = load(market, later)
    assert (report.corrected, report.loaded, report.quarantined) == (1, 1, 0)
    got = rows(market, "select volume, known_at >= %s from market.candles order by ts", before)
    assert got == [(100.0, False), (90.0, True), (50.0, False)]
    assert rows(market, "select volume from market.candles_history") == [(3.0,)]


def test_sparse_bars_and_bars_off_the_grid(market: Conn, cases: Path) -> None:
    for name in ("SPARSEUSDT.csv", "SPARSEUSDT_1min.csv"):
        market.execute("truncate market.candles")
        assert load(market, cases / "unfinished" / name)[0] == 0
        assert rows(market, "select distinct timeframe from market.candles") == [
            (dt.timedelta(minutes=1),)
        ]
    path = cases / "unfinished" / "OFFGRIDUSDT-1m-2018-02.csv"
    assert load(market, path)[0] == UNKNOWN  # spot or perpetual: both archives look like it
    _, _, (report,) = load(market, path, instrument_kind="spot")
    off = sum(int(r[0]) % 60_000 != 0 for r in csv.reader(path.open()))
    assert report.summary[0]["off_grid"] == off == 4


# --- streams -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a_partial_depth5_up", "a2_partial_depth5_down",
                                  "a3_partial_depth5_still"])  # fmt: skip
def test_partial_depth_is_whole_books(market: Conn, cases: Path, name: str) -> None:
    path = cases / "feeds" / f"{name}.jsonl"
    load(market, path)
    want = []
    for line in path.read_text().splitlines():
        data = json.loads(line.split(" ", 1)[1])["data"]
        sides = [[float(x[i]) for x in data[side]] for side in "ba" for i in (0, 1)]
        want.append((ms(data["T"]), data["u"], *sides))
    got = rows(
        market,
        "select ts, sequence, bid_prices, bid_sizes, ask_prices, ask_sizes"
        " from market.order_book_snapshots order by ts",
    )
    assert got == want


def test_receive_times_of_any_unit(market: Conn, cases: Path) -> None:
    load(market, cases / "feeds" / "i_us_prefix.jsonl")
    event = ms(1714608000000)
    assert rows(market, "select known_at, received_at from market.trades order by ts") == [
        (event + dt.timedelta(microseconds=5),) * 2,
        (event + dt.timedelta(milliseconds=5),) * 2,
    ]
    for name, late in (("f_tardis_raw", 5123), ("h_cryptofeed", 5100)):
        market.execute("truncate market.trades")
        assert load(market, cases / "feeds" / f"{name}.jsonl")[0] == 0
        ((received,),) = rows(market, "select received_at from market.trades")
        assert abs(received - event - dt.timedelta(microseconds=late)) < dt.timedelta(
            microseconds=2
        )


def test_a_receive_time_far_from_the_event_is_refused(market: Conn, tmp_path: Path) -> None:
    path = tmp_path / "far.jsonl"
    path.write_text(
        '1514608000000 {"e": "aggTrade", "E": 1714608000000, "T": 1714608000000, "s": "AUSDT",'
        ' "a": 1, "p": "1", "q": "1", "m": false}\n'
    )
    status, words, _ = load(market, path)
    assert status == NOTHING and "receive time" in words[0]


def test_nothing_stored_of_a_recording_says_so(market: Conn, tmp_path: Path) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text('{"e": "markPriceUpdate", "E": 1714608000000, "s": "AUSDT", "p": "1"}\n')
    status, words, _ = load(market, path)
    assert status == NOTHING and "nothing" in words[0]


def test_bars_of_a_stream_are_stored_when_closed(market: Conn, tmp_path: Path) -> None:
    def kline(closed: bool, volume: str) -> str:
        k = {"t": 1714608000000, "T": 1714608059999, "s": "BTCUSD_PERP", "i": "1m", "o": "60000",
             "c": "60010", "h": "60020", "l": "59990", "v": volume, "n": 5, "x": closed,
             "q": "0.25", "V": "50", "Q": "0.1"}  # fmt: skip
        return json.dumps({"e": "kline", "E": 1714608060000, "s": "BTCUSD_PERP", "k": k})

    path = tmp_path / "klines.jsonl"
    path.write_text(f"{kline(False, '100')}\n{kline(True, '150')}\n")
    _, _, (report,) = load(market, path)
    assert report.counters == {"bars not closed": 1}
    assert rows(market, "select volume, quote_volume, taker_buy_volume from market.candles") == [
        (0.25, 15_000.0, 0.1)
    ]


# --- formats and files ---------------------------------------------------------------------------------


def test_formats_are_loaded_or_refused_with_what_is_missing(market: Conn, cases: Path) -> None:
    folder = cases / "formats"
    loaded = {
        "BNBUSDT-bookTicker-2023-06-25.csv": {},
        "BTC-USDT-SWAP-fundingrates-2024-04.csv": {},
        "bybit_spot_BTCUSDT_2024-04-01.csv": {},
        "ccxt_trades_BTC_USDT.csv": {},
        "coinbase_BTC-USD_trades.csv": {},
        "c16_pybinance/TUTUSDT-1m.csv": {},
    }
    asked = {
        "BTC-USDT-candlesticks-2024-04-01.csv": ("--timeframe", {"timeframe": 60.0}),
        "c16_pybinance/PYBUSDT_1m.csv": ("--tz", {"tz": "UTC"}),
        "deribit_dvol.csv": ("--symbol", {"symbol": "BTC-DVOL", "instrument_kind": "index", "timeframe": 3600.0}),
        "ohlc_12cols.csv": ("--symbol", {"symbol": "BTCUSDT"}),
        "gate_BTC_USDT-202404.csv": ("--columns", {
            "columns": tuple(zip(("ts", "quote_volume", "close", "high", "low", "open"),
                                 (f"#{i}" for i in range(1, 7)), strict=True)),
            "timeframe": 60.0, "instrument_kind": "spot"}),
        "BNBUSDT-bookDepth-2023-06-25.csv": ("no book of levels", None),
    }  # fmt: skip
    for name in loaded:
        assert load(market, folder / name)[0] == 0, name
    for name, (words, options) in asked.items():
        status, said, _ = load(market, folder / name)
        assert status != 0 and words in said[0], (name, said)
        if options is not None:
            status, said, reports = load(market, folder / name, **options)
            assert (status, reports[0].loaded) == (0, reports[0].read), (name, said)
    got = dict(rows(market, "select symbol, volume from market.candles where ts = '2024-04-01'"))
    assert got["BTC-USDT.SPOT@okx"] == 1.5 and got["BTC-DVOL@deribit"] is None
    assert got["BTC_USDT.SPOT@gate"] == pytest.approx(105000.5 / 70010)
    sides = dict(rows(market, "select symbol, side::text from market.trades"))
    assert sides["BTC-USD.SPOT@coinbase"] == "buy"  # Coinbase names the maker's side


def test_negative_prices_where_the_instrument_says_so(market: Conn, cases: Path) -> None:
    path = cases / "formats" / "CLK20-1d.csv"
    _, words, (report,) = load(market, path)
    assert (report.loaded, report.quarantined) == (2, 2) and "price not positive" in words[0]
    market.execute("select market.set_instrument('CLK20', '{\"negative_prices\": true}')")
    _, _, (report,) = load(market, path, again=True)
    assert report.quarantined == 0
    assert rows(market, "select close from market.candles order by ts") == [
        (float(r["close"]),) for r in table(path)
    ]


FILES = {
    "BZ2-1m.csv.bz2": 3, "CR-1m.csv": 3, "GZINZIP-1m.zip": 3, "IDXUSDT-1m.parquet": 4,
    "MACUSDT-1m.zip": 3, "QDEC-1m.csv": 2, "SHORTUSDT-1m.pq": 4, "THOUS-1m.csv": 2,
    "TRAILCOMMA-1m.csv": 3, "UPPERUSDT-1m.PARQUET": 4, "XZ-1m.csv.xz": 3, "multi-1m.parquet": 8,
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_files_however_they_are_written(market: Conn, cases: Path, name: str) -> None:
    status, words, _ = load(market, cases / "files" / name)
    assert (status, words) == (0, [])
    assert rows(market, "select count(*) from market.candles") == [(FILES[name],)]
    first = {"THOUS-1m.csv": (61010.5, 1200.0), "QDEC-1m.csv": (10.1, 1200.5),
             "CR-1m.csv": (10.0, 100.0), "XZ-1m.csv.xz": (10.0, 100.0)}.get(name)  # fmt: skip
    if first:
        assert rows(market, "select open, volume from market.candles order by ts limit 1") == [
            first
        ]


def test_files_that_are_refused_say_why(market: Conn, cases: Path) -> None:
    status, words, _ = load(market, cases / "files" / "DUPHEAD-1m.csv")
    assert status == UNKNOWN and "--columns" in words[0] and "volume=#6" in words[0]
    status, words, _ = load(market, cases / "files" / "EXTRA-1m.csv")
    assert status == NOTHING and "all 3 rows are refused" in words[0]
    status, _, _ = load(market, cases / "files" / "DUPHEAD-1m.csv", columns=(("volume", "#7"),))
    assert status == 0
    assert rows(market, "select distinct volume from market.candles") == [(7.0,)]


def test_a_folder_is_described_once(market: Conn, tmp_path: Path) -> None:
    (tmp_path / "alphaplus.toml").write_text(
        '["*.csv"]\nexchange = "ftx"\nkind = "perpetual"\nunit = "contracts"\n'
        'contract-size = 0.001\nmargin = "linear"\ntz = "UTC"\ntimeframe = "1h"\n'
        'columns = {ts = "when", open = "A", high = "B", low = "C", close = "D", volume = "E"}\n'
    )
    path = tmp_path / "BTC-PERP.csv"
    path.write_text("when,A,B,C,D,E\n2022-01-01 00:00,100,110,90,105,5000\n")
    status, words, (report,) = load(market, path)
    assert status == 0, words
    assert rows(market, "select symbol, volume, timeframe from market.candles") == [
        ("BTC-PERP@ftx", 5.0, dt.timedelta(hours=1))
    ]
    assert report.description["unit"]["from"] == "alphaplus.toml: *.csv"
    (tmp_path / "alphaplus.toml").write_text('["*.csv"]\nsimbol = "X"\n')
    _, words, _ = load(market, path, again=True)
    assert "simbol" in words[0]


# --- hostile files -----------------------------------------------------------------------------------

GOOD = "timestamp,open,high,low,close,volume\n1714521600,10,11,9,10.5,100\n"


def test_bombs_end_quickly(market: Conn, tmp_path: Path) -> None:
    bomb = tmp_path / "BOMBUSDT-1m.csv.gz"
    with gzip.open(bomb, "wb", compresslevel=9) as file:
        file.write(GOOD.encode())
        for _ in range(100):
            file.write(b"1714521600,10,11,9,10.5,100\n" * 50_000)
    _, words, _ = load(market, bomb)
    assert "market.load_ratio" in words[0]
    cell = tmp_path / "CELLUSDT-1m.csv"
    cell.write_text(GOOD + "1" * 6_000_000 + ",1,1,1,1,1\n")
    _, words, _ = load(market, cell)
    assert "market.load_line" in words[0]
    many = tmp_path / "many.zip"
    with zipfile.ZipFile(many, "w") as archive:
        for i in range(1500):
            archive.writestr(f"A{i}USDT-1m.csv", GOOD)
    _, words, _ = load(market, many)
    assert "market.load_members" in words[0]


def test_members_that_are_bad_harm_no_other(market: Conn, tmp_path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("x.csv", GOOD)
    members = [
        ("AAAUSDT-1m.csv", GOOD.encode()), ("nested.zip", inner.getvalue()),
        ("BBBUSDT-1m.csv", bytes(range(256)) * 50), ("__MACOSX/._AAAUSDT-1m.csv", b"\0\1\2"),
        ("CCCUSDT-1m.csv", GOOD.encode() + b'"1714521660,10,11,9,10.5,100\n1714521660,1\0,1,1,1,1\n'),
    ]  # fmt: skip
    one = tmp_path / "mixed.zip"
    with zipfile.ZipFile(one, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    packed = tmp_path / "mixed.tar.gz"
    with tarfile.open(packed, "w:gz") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    for path in (one, packed):
        market.execute("truncate market.candles")
        status, words, _ = load(market, path)
        assert status == 1
        assert any("archive in" in w for w in words) and any("binary" in w for w in words)
        assert any("quotes" in w or "unparsable" in w for w in words)
        assert rows(market, "select symbol from market.candles order by 1") == [
            ("AAAUSDT@local",), ("CCCUSDT@local",),
        ]  # fmt: skip


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "A\u202eB", "A\nB", "A" * 80, "@X", "+1"])
def test_names_that_no_symbol_has(market: Conn, tmp_path: Path, name: str) -> None:
    path = tmp_path / "all.csv"
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["timestamp", "symbol", "open", "high", "low", "close", "volume"])
    writer.writerow(["1714521600", name, 1, 1, 1, 1, 1])
    writer.writerow(["1714521600", "GOODUSDT", 1, 1, 1, 1, 1])
    path.write_text(out.getvalue())
    load(market, path, timeframe=60.0)
    assert rows(market, "select symbol from market.instruments") == [("GOODUSDT@local",)]
    words: list[str] = []
    try:
        status, _ = one_file(market, path, Options(symbol=name), words.append)
    except ValueError:
        status = 2
    assert status != 0
