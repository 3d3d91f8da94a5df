"""Live streams: what was recorded arrives whole, holes are rows, and REST fills them."""

from __future__ import annotations

import json
import random
from itertools import islice
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alphaplus.loaders.load import Loader, Options
from alphaplus.loaders.streams.recording import frames

from tests.conftest import Server
from tests.db.live_exchange import Frames, Rest, run_stream

Conn = psycopg.Connection[Any]
TRADES = "select symbol, ts, trade_id, price, size, side from market.trades order by 1, 2, 3"
CLOCKS = "select symbol, ts, trade_id, known_at, received_at from market.trades order by 1, 2, 3"
BOOKS = (
    "select symbol, ts, sequence, bid_prices, bid_sizes, ask_prices, ask_sizes, after_gap, known_at"
    " from market.order_book_snapshots order by 1, 2, 3"
)
BASE = 1_723_161_255_000


def recorded(path: Path, most: int) -> Frames:
    return [(stamp or 0, raw) for stamp, raw in islice(frames(path), most)]


def loader_of(db: Conn, server: Server) -> str:
    return server.conninfo(db.info.dbname, "alphaplus_loader")


def trade(number: int, symbol: str = "BTCUSDT") -> tuple[int, bytes]:
    at = BASE + number * 100
    data = {"e": "aggTrade", "E": at, "s": symbol, "a": number, "p": str(60_000 + number % 7),
            "q": "0.5", "f": number, "l": number, "T": at, "m": number % 2 == 0}  # fmt: skip
    line = {"stream": f"{symbol.lower()}@aggTrade", "data": data}
    return (at + 50) * 1_000_000, json.dumps(line).encode()


def whole(db: Conn, trades: int) -> bool:
    return db.execute("select count(*) from market.trades").fetchone() == (trades,)


def rest_trades(query: dict[str, str]) -> list[dict[str, Any]]:
    first, limit = int(query["fromId"]), int(query["limit"])
    out = []
    for number in range(first, first + limit):
        data = json.loads(trade(number)[1])["data"]
        out.append({key: data[key] for key in ("a", "p", "q", "f", "l", "T", "m")})
    return out


@pytest.mark.parametrize(
    ("file", "exchange", "symbol"),
    [
        ("usdm_btcusdt_20240808.gz", "binance-usdm", "BTCUSDT"),
        ("spot_btcusdt_20240808.gz", "binance", "BTCUSDT"),
    ],
)
def test_a_recorded_feed_gives_the_rows_of_the_file_loader(
    db: Conn, server: Server, shared_data: Path, tmp_path: Path, file: str, exchange: str,
    symbol: str,
) -> None:  # fmt: skip
    lines = recorded(shared_data / "book_feed" / file, 12_000)
    text = tmp_path / "part.jsonl"
    text.write_bytes(b"".join(b"%d " % stamp + raw + b"\n" for stamp, raw in lines))
    run_stream(
        loader_of(db, server), tmp_path / "spool", [lines], exchange, (symbol,), repair=False
    )
    live = [db.execute(query).fetchall() for query in (TRADES, CLOCKS, BOOKS)]
    assert len(live[0]) > 500 and len(live[2]) > 5
    db.execute("truncate market.trades, market.order_book_snapshots, market.trade_spans")
    Loader(db, Options(kind="book_feed")).load(text)
    assert [db.execute(query).fetchall() for query in (TRADES, CLOCKS, BOOKS)] == live
    assert db.execute("select count(*) from market.gaps").fetchone() == (0,)


def test_missing_trades_are_a_gap_and_rest_fills_it_as_late_rows(
    db: Conn, server: Server, tmp_path: Path
) -> None:
    rest = Rest({"/fapi/v1/aggTrades": rest_trades})
    cut = [trade(n) for n in range(1, 200) if not (60 <= n < 75 or n == 120)]
    try:
        run_stream(
            loader_of(db, server), tmp_path / "spool", [cut], channels=("trades",), until=lambda: whole(db, 199),
            rest=rest.url,
        )  # fmt: skip
    finally:
        rest.close()
    gaps = db.execute(
        "select symbol, channel, how, from_id, to_id, from_ts < to_ts, repaired_at is not null,"
        " repaired_rows from market.gaps order by from_id"
    ).fetchall()
    assert gaps == [
        ("BTCUSDT", "trades", "sequence", 60, 74, True, True, 15),
        ("BTCUSDT", "trades", "sequence", 120, 120, True, True, 1),
    ]
    numbers = db.execute("select trade_id::int, known_at from market.trades order by 1").fetchall()
    assert [n for n, _ in numbers] == list(range(1, 200))
    # What was missed is known since it came: as of then it is still missing.
    late = {n for n, known in numbers if known.year > 2024}
    assert late == {*range(60, 75), 120}


def test_late_and_repeated_messages_are_no_gap(db: Conn, server: Server, tmp_path: Path) -> None:
    sent = [trade(n) for n in range(1, 300)]
    dice = random.Random(3)
    for i in range(0, 290, 5):
        j = i + dice.randrange(5)
        sent[i], sent[j] = sent[j], sent[i]
    sent = sent[:150] + sent[100:150] + sent[150:]
    stamps = sorted(stamp for stamp, _ in sent)
    sent = [(stamp, raw) for stamp, (_, raw) in zip(stamps, sent, strict=True)]
    run_stream(loader_of(db, server), tmp_path / "spool", [sent], channels=("trades",),
               repair=False)  # fmt: skip
    assert db.execute("select count(*), count(distinct trade_id) from market.trades").fetchone() == (
        299, 299,
    )  # fmt: skip
    assert db.execute("select count(*) from market.gaps").fetchone() == (0,)


def test_what_is_lost_between_two_connections_is_a_gap(
    db: Conn, server: Server, tmp_path: Path
) -> None:
    first = [trade(n) for n in range(1, 50)]
    second = [trade(n) for n in range(55, 90)]
    stream = run_stream(
        loader_of(db, server), tmp_path / "spool", [first, second],
        channels=("trades", "liquidations"), repair=False,
    )  # fmt: skip
    assert stream.connection is not None and stream.connection.connects == 2
    gaps = db.execute(
        "select channel, how, from_id, to_id, repaired_at from market.gaps order by 1"
    ).fetchall()
    assert gaps == [("liquidations", "outage", None, None, None),
                    ("trades", "sequence", 50, 54, None)]  # fmt: skip
    row = db.execute("select status, reconnects, messages from market.streams").fetchone()
    assert row == ("stopped", 1, 84)


def test_unknown_kinds_and_fields_are_counted_and_what_is_unreadable_is_kept(
    db: Conn, server: Server, tmp_path: Path
) -> None:
    stamp, _ = trade(1)
    order = {"s": "BTCUSDT", "S": "SELL", "o": "LIMIT", "f": "IOC", "q": "0.014", "p": "9910",
             "ap": "9910", "X": "FILLED", "l": "0.014", "z": "0.014", "T": BASE, "ps": "BTCUSDT"}  # fmt: skip
    sent = [
        trade(1),
        (stamp, b'{"stream":"!x","data":{"e":"neverSeen","E":1}}'),
        (stamp, json.dumps({"data": {"e": "forceOrder", "E": BASE, "o": order}}).encode()),
        (stamp, b'{"stream":"btcusdt@aggTrade","data":{"e":"aggTr'),
        trade(2),
    ]
    run_stream(
        loader_of(db, server), tmp_path / "spool", [sent],
        channels=("trades", "liquidations"), repair=False,
    )  # fmt: skip
    row = db.execute("select counters from market.streams").fetchone()
    assert row is not None
    assert row[0]["unknown: event neverSeen"] == 1
    assert row[0]["unknown: field ps of order"] == 1
    assert row[0]["unreadable messages"] == 1
    assert db.execute("select count(*) from market.trades").fetchone() == (2,)
    assert db.execute("select side::text, notional from market.liquidation_events").fetchone() == (
        "sell", 9910 * 0.014,
    )  # fmt: skip
    kept = db.execute("select raw from market.quarantine").fetchone()
    assert kept is not None and kept[0].endswith('"e":"aggTr')


def test_a_recording_is_replayed_byte_for_byte(db: Conn, server: Server, tmp_path: Path) -> None:
    sent = [trade(n) for n in range(1, 100)]
    file = tmp_path / "kept.jsonl"
    run_stream(
        loader_of(db, server), tmp_path / "spool", [[(s, r) for s, r in sent]],
        channels=("trades",), repair=False, record=file,
    )  # fmt: skip
    kept = [raw for _, raw in frames(file)]
    assert kept == [b"%d " % stamp + raw for stamp, raw in sent]
