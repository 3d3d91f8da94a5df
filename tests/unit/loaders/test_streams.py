"""Each exchange's protocol as its documentation writes it: rows, numbers, checksums, holes."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from alphaplus.loaders.streams import kraken, okx
from alphaplus.loaders.streams.contiguity import Hole, Sequence
from alphaplus.loaders.streams.markets import MARKETS, market
from alphaplus.loaders.streams.spool import Frame, Spool, control
from alphaplus.loaders.streams.venue import BadSubscription, Parser
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.loader_rules import shipped

NOW = 1_700_000_010_000_000  # microseconds
MS = 1_700_000_005_000


class Reader:
    """A parser, fed message by message."""

    def __init__(
        self, exchange: str, *symbols: str, channels: tuple[str, ...] | None = None
    ) -> None:
        venue = market(exchange)
        self.parser: Parser = venue.parser(
            venue, shipped(), symbols, channels or venue.channels, every=1.0
        )
        self.number = 0
        self.now = NOW
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.holes: list[tuple[str, str, Hole]] = []

    def __call__(self, *messages: Any) -> Reader:
        for message in messages:
            self.number += 1
            self.now += 1000
            raw = message if isinstance(message, bytes) else orjson.dumps(message)
            self.parser.frame(Frame(self.number, self.now, raw))
        for kind, columns, _ in self.parser.columns():
            for i in range(len(columns.ts)):
                row = {name: value[i] for name, value in columns.values.items()}
                self.rows.setdefault(kind, []).append({"ts": columns.ts[i], **row})
        self.holes += self.parser.holes()
        return self

    def later(self, seconds: float) -> Reader:
        self.now += round(seconds * 1e6)
        return self(orjson.loads(control("tick")))

    def found(self) -> list[tuple[str, str, int | None, int | None]]:
        return [(c, h.how, h.from_id, h.to_id) for c, _, h in self.holes]


# --- numbers -------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(
    st.integers(5, 60).flatmap(
        lambda n: st.tuples(
            st.just(n), st.sets(st.integers(2, n - 1)), st.lists(st.integers(0, n), max_size=10),
            st.randoms(use_true_random=False),
        )
    )
)  # fmt: skip
def test_every_hole_is_found_and_none_is_invented(case: Any) -> None:
    n, missing, again, dice = case
    sent = [i for i in range(1, n + 1) if i not in missing]
    for k in again:
        if 0 < k <= len(sent):
            sent.insert(dice.randrange(k, len(sent) + 1), sent[k - 1])
    sequence = Sequence()
    out: list[int] = []
    now = 0
    for i in sent:
        now += 1
        out += [x for x in sequence.take(i, i, i - 1, i, now, i) if x is not None]
    while sequence.held:
        out += [x for x in sequence.give_up(now) if x is not None]
    assert out == sorted(set(sent))
    assert {i for h in sequence.holes for a, b in h.missing for i in range(a, b + 1)} == missing
    for i in sorted(missing):
        assert sequence.take(i, i, i - 1, i, now, i) == [i]
    assert all(h.repaired for h in sequence.holes)
    assert sum(h.rows for h in sequence.holes) == len(missing)


def test_a_state_goes_on_where_it_was() -> None:
    first = Sequence()
    for i in (1, 2, 5):
        first.take(i, i, i - 1, i, 0, i)
    first.give_up(1)
    again = Sequence.of(json.loads(json.dumps(first.state())))
    assert again.take(3, 4, 2, 4, 2, "late") == ["late"]
    assert again.take(6, 6, 5, 6, 2, "next") == ["next"]


# --- the spool -----------------------------------------------------------------------------------


def test_a_spool_gives_back_what_it_took_in_order(tmp_path: Any) -> None:
    spool = Spool(tmp_path)
    lanes = ("book", "trades", "control")
    for i in range(1000):
        spool.put(lanes[i % 3], b"%d" % i, i)
        if i % 7 == 0:
            spool.flush()
    spool.flush()
    got = []
    while frames := spool.read(37):
        got += frames
    assert [f.raw for f in got] == [b"%d" % i for i in range(1000)]
    assert [f.number for f in got] == list(range(1, 1001))
    spool.store_checkpoint(500, b"state")
    spool.close()
    again = Spool(tmp_path)
    assert again.checkpoint() == (500, b"state")
    assert again.next == 1001
    assert [f.number for f in again.read(5000)][-1] == 1000


def test_a_spool_cut_in_a_frame_keeps_the_whole_ones(tmp_path: Any) -> None:
    spool = Spool(tmp_path)
    for i in range(10):
        spool.put("trades", b"x" * 50, i)
    spool.flush()
    path = next(tmp_path.glob("trades-*"))
    data = path.read_bytes()
    for cut in (1, 30, 60, 75):
        path.write_bytes(data[:-cut])
        frames = Spool(tmp_path).read(100)
        assert len(frames) == 10 - (cut + 73) // 74
        path.write_bytes(data)


def test_a_full_spool_drops_the_oldest_of_the_least_valuable(tmp_path: Any) -> None:
    spool = Spool(tmp_path, 64_000)
    for i in range(2000):
        spool.put(("book", "trades", "liquidations")[i % 3], b"y" * 40, i)
        spool.flush()
    assert spool.size() <= 64_000 + 8_000
    assert {lane for lane, _ in spool.said} == {"book", "trades"}
    first_trades = next(i for i, (lane, _) in enumerate(spool.said) if lane == "trades")
    assert first_trades > 0
    got = []
    while frames := spool.read(500):
        got += frames
    assert len(got) + spool.evicted == 2000
    assert sum(1 for f in got if f.received % 3 == 2) == len(range(2, 2000, 3))


# --- exchanges -----------------------------------------------------------------------------------


def binance_depth(first: int, last: int, before: int, price: str = "100") -> dict[str, Any]:
    data = {"e": "depthUpdate", "E": MS + last, "T": MS + last, "s": "BTCUSDT", "U": first,
            "u": last, "pu": before, "b": [[price, "1"]], "a": [["101", "2"]]}  # fmt: skip
    return {"stream": "btcusdt@depth@100ms", "data": data}


def test_binance_a_book_with_a_hole_asks_for_a_snapshot_and_is_whole_by_it() -> None:
    read = Reader("binance-usdm", "BTCUSDT", channels=("book",))
    read(control("connected"), binance_depth(1, 5, 0), binance_depth(6, 9, 5))
    assert [w.what for w in read.parser.wanted] == ["snapshot"]
    read(binance_depth(15, 20, 14)).later(2)
    assert read.found() == [("book", "sequence", 9, 14)]
    assert read.holes[0][2].ended is None
    snapshot = {"lastUpdateId": 18, "bids": [["99", "1"]], "asks": [["101", "1"]], "T": MS, "E": MS}
    read(control("snapshot", symbol="BTCUSDT", data=snapshot), binance_depth(21, 25, 20))
    assert read.holes[-1][2].ended is not None
    assert read.parser.whole_books == {"BTCUSDT"}


def test_binance_a_crossed_book_is_thrown_away() -> None:
    read = Reader("binance-usdm", "BTCUSDT", channels=("book",))
    snapshot = {"lastUpdateId": 5, "bids": [["99", "1"]], "asks": [["101", "1"]], "T": MS, "E": MS}
    read(binance_depth(1, 5, 0), control("snapshot", symbol="BTCUSDT", data=snapshot))
    for i in range(6, 12):
        read(binance_depth(i, i, i - 1, price="103"))
    assert ("book", "crossed", None, None) in read.found()
    assert read.parser.wanted[-1].what == "snapshot"


def test_binance_funding_is_what_held_when_its_time_came() -> None:
    def mark(rate: str, due: int) -> dict[str, Any]:
        return {"stream": "btcusdt@markPrice@1s", "data": {
            "e": "markPriceUpdate", "E": MS, "s": "BTCUSDT", "p": "1", "i": "1", "P": "1",
            "r": rate, "T": due}}  # fmt: skip

    due, hours = 1_700_000_009_000, 8 * 3_600_000
    read = Reader("binance-usdm", "BTCUSDT", channels=("funding",))
    read(mark("0.0001", due), mark("0.0002", due), mark("0.0003", due + hours))
    (row,) = read.rows["funding"]
    assert (row["ts"], row["rate"], row["interval"]) == (due * 1000, 0.0002, 8 * 3600)


def test_binance_coin_margined_trades_count_contracts_of_100_dollars() -> None:
    data = {"e": "aggTrade", "E": MS, "s": "BTCUSD_PERP", "a": 1, "p": "50000", "q": "10", "f": 1,
            "l": 1, "T": MS, "m": True}  # fmt: skip
    read = Reader("binance-coinm", "BTCUSD_PERP")({"stream": "btcusd_perp@aggTrade", "data": data})
    (row,) = read.rows["trades"]
    assert row["size"] == pytest.approx(10 * 100 / 50000)
    assert row["sign"] == -1.0


def bybit_book(kind: str, number: int, bid: str = "100", ask: str = "101") -> dict[str, Any]:
    return {"topic": "orderbook.50.BTCUSDT", "type": kind, "ts": MS + number, "cts": MS + number,
            "data": {"s": "BTCUSDT", "b": [[bid, "1"]], "a": [[ask, "2"]], "u": number, "seq": 9}}  # fmt: skip


def test_bybit_books_start_anew_by_a_snapshot() -> None:
    read = Reader("bybit", "BTCUSDT", channels=("book",))
    read(bybit_book("snapshot", 100), bybit_book("delta", 101), bybit_book("delta", 105)).later(2)
    assert read.found() == [("book", "sequence", 101, 104)]
    read(bybit_book("snapshot", 1), bybit_book("delta", 2))
    assert read.holes[-1][2].ended is not None and len(read.found()) == 2


def test_bybit_trades_of_a_lost_connection_are_asked_for_and_a_long_liquidated_is_sold() -> None:
    trade = {"T": MS, "s": "BTCUSDT", "S": "Buy", "v": "0.5", "p": "100", "L": "PlusTick",
             "i": "x-1", "BT": False}  # fmt: skip
    forced = {"T": MS, "s": "BTCUSDT", "S": "Buy", "v": "2", "p": "90"}
    read = Reader("bybit", "BTCUSDT", channels=("trades", "liquidations"))
    read(
        control("connected"), {"topic": "publicTrade.BTCUSDT", "ts": MS, "data": [trade]},
        {"topic": "allLiquidation.BTCUSDT", "ts": MS, "data": [forced]}, control("lost"),
    )  # fmt: skip
    assert sorted(read.found()) == [
        ("liquidations", "outage", None, None), ("trades", "outage", None, None),
    ]  # fmt: skip
    read(control("connected"))
    assert [(w.what, w.since is not None) for w in read.parser.wanted] == [("trades", True)]
    assert read.rows["liquidations"][0]["sign"] == -1.0
    since = read.parser.wanted[0].since
    rest = [{"execId": "x-2", "time": str(MS + 5), "price": "100", "size": "1", "side": "Sell"}]
    read(control("trades", symbol="BTCUSDT", data=rest, complete=True, since=since))
    assert [row["id"] for row in read.rows["trades"]] == ["x-1", "x-2"]
    assert [h.repaired is not None for c, _, h in read.holes if c == "trades"][-1]


def test_okx_counts_trades_and_checks_books() -> None:
    def trades(last: int, count: int) -> dict[str, Any]:
        item = {"instId": "BTC-USDT-SWAP", "tradeId": str(last), "px": "50000", "sz": "3",
                "side": "sell", "ts": str(MS), "count": str(count)}  # fmt: skip
        return {"arg": {"channel": "trades", "instId": "BTC-USDT-SWAP"}, "data": [item]}

    read = Reader("okx", "BTC-USDT-SWAP")
    read(trades(10, 1), trades(13, 3), trades(20, 2)).later(2)
    assert read.found() == [("trades", "sequence", 14, 18)]
    # 0.01 BTC a contract
    assert read.rows["trades"][0]["size"] == pytest.approx(0.03)

    def book(action: str, number: int, before: int, bid: list[str], crc: int) -> dict[str, Any]:
        item = {"asks": [["8476.98", "415", "0", "13"]], "bids": [[*bid, "0", "1"]], "ts": str(MS),
                "checksum": crc, "seqId": number, "prevSeqId": before}  # fmt: skip
        return {"arg": {"channel": "books", "instId": "BTC-USDT-SWAP"}, "action": action,
                "data": [item]}  # fmt: skip

    # "bid:ask" levels in turn, as in the documentation's example of a checksum
    right = okx.checksum([["8476.97", "256"]], [["8476.98", "415"]])
    read(book("snapshot", 10, -1, ["8476.97", "256"], 0),
         book("update", 15, 10, ["8476.97", "256"], right))  # fmt: skip
    assert read.parser.whole_books == {"BTC-USDT-SWAP"}
    read(book("update", 17, 15, ["8476.97", "256"], right + 1))
    assert ("book", "checksum", None, None) in read.found()


def test_okx_checksum_is_that_of_the_documentation() -> None:
    """docs-v5, "Checksum": 3366.1:7:3366.8:9:3366:6:3368:8 and its CRC-32 as a signed integer."""
    import zlib

    bids, asks = [["3366.1", "7"], ["3366", "6"]], [["3366.8", "9"], ["3368", "8"]]
    value = zlib.crc32(b"3366.1:7:3366.8:9:3366:6:3368:8")
    assert okx.checksum(bids, asks) == (value - 2**32 if value >= 2**31 else value)


def test_kraken_checksum_is_that_of_the_documentation() -> None:
    """docs.kraken.com, "Spot Websockets (v2) Book Checksum": its example's levels and CRC-32."""
    asks = [("45285.2", "0.00100000"), ("45286.4", "1.54571953"), ("45286.6", "1.54571109"),
            ("45289.6", "1.54560911"), ("45290.2", "0.15890660"), ("45291.8", "1.54553491"),
            ("45294.7", "0.04454749"), ("45296.1", "0.35380000"), ("45297.5", "0.09945542"),
            ("45299.5", "0.18772827")]  # fmt: skip
    bids = [("45283.5", "0.10000000"), ("45283.4", "1.54582015"), ("45282.1", "0.10000000"),
            ("45281.0", "0.10000000"), ("45280.3", "1.54592586"), ("45279.0", "0.07990000"),
            ("45277.6", "0.03310103"), ("45277.5", "0.30000000"), ("45277.3", "1.54602737"),
            ("45276.6", "0.15445238")]  # fmt: skip
    assert kraken.checksum(bids, asks) == 3310070434


def test_kraken_a_wrong_checksum_is_a_gap_and_trades_are_counted() -> None:
    def book(kind: str, crc: int, bid: str = "0.10000000") -> bytes:
        head = f'{{"channel":"book","type":"{kind}","data":[{{"symbol":"BTC/USD",'
        levels = f'"bids":[{{"price":45283.5,"qty":{bid}}}],"asks":[{{"price":45285.2,"qty":0.00100000}}],'
        tail = f'"checksum":{crc},"timestamp":"2023-11-14T22:13:25.000000Z"}}]}}'
        return (head + levels + tail).encode()

    right = kraken.checksum([("45283.5", "0.10000000")], [("45285.2", "0.00100000")])
    more = kraken.checksum([("45283.5", "0.20000000")], [("45285.2", "0.00100000")])
    read = Reader("kraken", "BTC/USD")
    read(book("snapshot", right), book("update", more, "0.20000000"))
    assert not read.found() and read.parser.whole_books
    read(book("update", more, "0.30000000"))
    assert read.found() == [("book", "checksum", None, None)]

    def trade(number: int) -> dict[str, Any]:
        return {"channel": "trade", "type": "update", "data": [
            {"symbol": "BTC/USD", "side": "sell", "price": 45000.1, "qty": 0.5,
             "ord_type": "market", "trade_id": number,
             "timestamp": "2023-11-14T22:13:25.123456Z"}]}  # fmt: skip

    read(trade(7), trade(9)).later(2)
    assert ("trades", "sequence", 8, 8) in read.found()
    assert read.rows["trades"][0]["ts"] == 1_700_000_005_123_456


def test_coinbase_numbers_of_the_connection_and_sides_of_the_maker() -> None:
    def message(number: int, channel: str, *events: dict[str, Any]) -> dict[str, Any]:
        return {"channel": channel, "client_id": "", "timestamp": "2023-11-14T22:13:25.5Z",
                "sequence_num": number, "events": list(events)}  # fmt: skip

    def trade(number: int) -> dict[str, Any]:
        return {"type": "update", "trades": [
            {"trade_id": str(number), "product_id": "BTC-USD", "price": "50000", "size": "0.3",
             "side": "BUY", "time": "2023-11-14T22:13:25.123Z"}]}  # fmt: skip

    level = {"type": "snapshot", "product_id": "BTC-USD", "updates": [
        {"side": "bid", "event_time": "x", "price_level": "49999", "new_quantity": "1"},
        {"side": "offer", "event_time": "x", "price_level": "50001", "new_quantity": "1"}]}  # fmt: skip
    read = Reader("coinbase", "BTC-USD")
    read(control("connected"), message(0, "l2_data", level), message(1, "market_trades", trade(5)),
         message(2, "heartbeats"), message(3, "market_trades", trade(6)))  # fmt: skip
    assert not read.found() and read.rows["trades"][0]["sign"] == -1.0
    read(message(6, "market_trades", trade(7)))
    assert read.found() == [("book", "sequence", None, None)]


def test_deribit_follows_change_ids_and_trade_seq_and_answers_its_heartbeat() -> None:
    def call(channel: str, data: Any) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "method": "subscription",
                "params": {"channel": channel, "data": data}}  # fmt: skip

    def book(kind: str, number: int, before: int | None, size: float = 10) -> dict[str, Any]:
        data = {"timestamp": MS + number, "type": kind, "instrument_name": "BTC-PERPETUAL",
                "change_id": number, "bids": [["new", 50000.0, size]], "asks": [["new", 50001.0, 5]]}  # fmt: skip
        if before is not None:
            data["prev_change_id"] = before
        return call("book.BTC-PERPETUAL.100ms", data)

    def trade(number: int, **more: Any) -> dict[str, Any]:
        return {"timestamp": MS, "price": 50000.0, "amount": 100.0, "direction": "sell",
                "instrument_name": "BTC-PERPETUAL", "trade_seq": number, "trade_id": f"t{number}",
                "index_price": 1, "mark_price": 1, "tick_direction": 0, **more}  # fmt: skip

    read = Reader("deribit", "BTC-PERPETUAL")
    read(book("snapshot", 10, None), book("change", 14, 10), book("change", 20, 18)).later(2)
    assert read.found() == [("book", "sequence", 14, 18)]
    read(call("trades.BTC-PERPETUAL.100ms", [trade(1), trade(2, liquidation="T")]))
    assert [row["size"] for row in read.rows["trades"]] == pytest.approx([0.002, 0.002])
    assert [row["sign"] for row in read.rows["liquidations"]] == [-1.0]
    beat = b'{"jsonrpc":"2.0","method":"heartbeat","params":{"type":"test_request"}}'
    assert b"public/test" in (market("deribit").answer(beat) or b"")


def test_bitmex_a_change_of_a_row_that_is_not_there_is_a_gap() -> None:
    def book(action: str, *rows: dict[str, Any]) -> dict[str, Any]:
        return {"table": "orderBookL2_25", "action": action,
                "data": [{"symbol": "XBTUSD", "timestamp": "2023-11-14T22:13:25.000Z", **r}
                         for r in rows]}  # fmt: skip

    read = Reader("bitmex", "XBTUSD")
    read(
        book("partial", {"id": 1, "side": "Buy", "price": 50000, "size": 100},
             {"id": 2, "side": "Sell", "price": 50001, "size": 100}),
        book("update", {"id": 1, "side": "Buy", "size": 50}),
        book("insert", {"id": 3, "side": "Buy", "price": 49999, "size": 10}),
        book("delete", {"id": 3, "side": "Buy"}),
    )  # fmt: skip
    assert not read.found()
    _, held = read.parser.book("XBTUSD")
    assert dict(held.bids) == {50000.0: 50.0}
    read(book("update", {"id": 77, "side": "Buy", "size": 50}))
    assert read.found() == [("book", "checksum", None, None)]


@pytest.mark.parametrize("name", sorted(MARKETS))
def test_every_market_subscribes_to_each_channel_in_json(name: str) -> None:
    venue = market(name)
    venue.check(["AAA-BBB"], venue.channels)
    for line in venue.hello(["AAA-BBB"], venue.channels):
        assert isinstance(json.loads(line), dict)
    assert venue.url(["AAA"], venue.channels).startswith("wss://")
    with pytest.raises(BadSubscription):
        venue.check(["AAA"], ["nothing"])
    with pytest.raises(BadSubscription):
        venue.check([], venue.channels)


@pytest.mark.parametrize("name", sorted(MARKETS))
@given(st.recursive(st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=8),
                    lambda x: st.lists(x, max_size=3) | st.dictionaries(
                        st.sampled_from(["data", "e", "topic", "channel", "table", "params", "arg",
                                         "action", "s", "u", "T", "method", "events", "type"]), x,
                        max_size=4), max_leaves=12))  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_no_message_is_fatal(name: str, message: Any) -> None:
    read = Reader(name, "BTCUSDT")
    read(orjson.dumps(message), b"\xff\xfe", b"", b"{", b"[]", b"pong")


def test_the_command_line_has_every_market() -> None:
    from alphaplus.cli import live

    assert set(live.MARKETS) == set(MARKETS)
