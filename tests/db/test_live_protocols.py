"""Every exchange's protocol over a socket, by a server that speaks it from its documentation.

Subscriptions as documented, acknowledgements, the exchange's own ping, trades with a hole that its
REST fills, a book that breaks and is whole again with the snapshot of a new subscription.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alphaplus.loaders.streams.markets import market
from alphaplus.loaders.streams.stream import Options, Stream
from websockets.asyncio.server import ServerConnection, serve

from tests.conftest import Server
from tests.db.live_exchange import QUICK, Rest

Conn = psycopg.Connection[Any]
NOW = int(time.time() * 1000) - 60_000  # milliseconds
TRADES = 20
LOST = {8, 9, 10}
BIDS = [99 - i for i in range(6)]
ASKS = [101 + i for i in range(6)]
Json = dict[str, Any]


def at(n: int) -> str:
    """RFC 3339 of the n-th message."""
    moment = dt.datetime.fromtimestamp((NOW + 100 * n) / 1000, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass
class Script:
    """One exchange as its documentation writes it."""

    symbol: str
    stored: str  # its symbol in market.*
    size: float  # base units of a trade of 2 at a price of 100
    hello: list[Json]  # what a client has to send
    again: list[Json]  # … for a new snapshot of a book
    trade: Callable[[int], Json]
    snapshot: Callable[[int], Json]
    update: Callable[[int], Json]  # follows the message before it
    broken: Callable[[int], Json]  # does not
    rest: dict[str, Callable[[dict[str, str]], Any]]
    numbered: bool = True  # whether its trades have numbers without holes
    how: str = "sequence"  # how a broken book is found
    ping: Json | bytes | None = None  # the exchange's own, or the client's
    pong: Json | bytes | None = None  # what the other side answers
    extra: list[Json] = field(default_factory=list)


# OKX: docs-v5, "WebSocket API".
def okx_trade(n: int) -> Json:
    return {"arg": {"channel": "trades", "instId": "BTC-USDT-SWAP"}, "data": [okx_item(n)]}


def okx_item(n: int) -> Json:
    return {"instId": "BTC-USDT-SWAP", "tradeId": str(n), "px": "100", "sz": "2", "side": "buy",
            "ts": str(NOW + 100 * n)}  # fmt: skip


def okx_book(action: str, number: int, before: int, n: int) -> Json:
    item = {"asks": [[str(p), "1", "0", "1"] for p in ASKS],
            "bids": [[str(p), "1", "0", "1"] for p in BIDS], "ts": str(NOW + 100 * n), "prevSeqId": before, "seqId": number}  # fmt: skip
    return {
        "arg": {"channel": "books", "instId": "BTC-USDT-SWAP"},
        "action": action,
        "data": [item],
    }


def okx_rest(query: dict[str, str]) -> Any:
    after = int(query["after"])
    return {"code": "0", "msg": "", "data": [okx_item(n) for n in range(after - 1, 0, -1)]}


OKX = Script(
    "BTC-USDT-SWAP", "BTC-USDT-SWAP@okx", 0.02,
    [{"op": "subscribe", "args": [{"channel": "trades", "instId": "BTC-USDT-SWAP"},
                                  {"channel": "books", "instId": "BTC-USDT-SWAP"}]}],
    [{"op": op, "args": [{"channel": "books", "instId": "BTC-USDT-SWAP"}]}
     for op in ("unsubscribe", "subscribe")],
    okx_trade,
    lambda n: okx_book("snapshot", 100 + 10 * n, -1, n),
    lambda n: okx_book("update", 101 + 10 * (n - 1), 100 + 10 * (n - 1), n),
    lambda n: okx_book("update", 900 + 10 * n, 899 + 10 * n, n),
    {"/api/v5/market/history-trades": okx_rest},
    ping=b"ping", pong=b"pong",
)  # fmt: skip


# Kraken: docs.kraken.com/api, WebSocket v2 "Trade", "Book".
def kraken_trade(n: int) -> Json:
    return {"channel": "trade", "type": "update", "data": [{
        "symbol": "BTC/USD", "side": "buy", "price": 100.0, "qty": 2.0, "ord_type": "market",
        "trade_id": n, "timestamp": at(n)}]}  # fmt: skip


def kraken_book(kind: str, n: int, good: bool = True) -> Json:
    asks, bids = [(f"{p}.0", "1.5") for p in ASKS], [(f"{p}.0", "1.25") for p in BIDS]
    digits = "".join(
        x.replace(".", "").lstrip("0") for side in (asks, bids) for r in side for x in r
    )
    check = zlib.crc32(digits.encode()) if good else 12345
    levels = {side: [{"price": float(p), "qty": float(q)} for p, q in rows]
              for side, rows in (("bids", bids), ("asks", asks))}  # fmt: skip
    return {"channel": "book", "type": kind, "data": [
        {"symbol": "BTC/USD", **levels, "checksum": check, "timestamp": at(n)}]}  # fmt: skip


def kraken_rest(query: dict[str, str]) -> Any:
    since = int(query["since"])
    rows = [["100.0", "2.0", (NOW + 100 * n) / 1000, "b", "m", "", n] for n in range(1, TRADES + 1)
            if (NOW + 100 * n) * 1_000_000 > since]  # fmt: skip
    return {
        "error": [],
        "result": {"XXBTZUSD": rows, "last": str((NOW + 100 * TRADES) * 1_000_000)},
    }


KRAKEN = Script(
    "BTC/USD", "XBTUSD.SPOT@kraken", 2.0,
    [{"method": "subscribe", "params": {"channel": "trade", "symbol": ["BTC/USD"], "snapshot": False}},
     {"method": "subscribe", "params": {"channel": "book", "symbol": ["BTC/USD"], "depth": 100}}],
    [{"method": m, "params": {"channel": "book", "symbol": ["BTC/USD"], "depth": 100}}
     for m in ("unsubscribe", "subscribe")],
    kraken_trade,
    lambda n: kraken_book("snapshot", n),
    lambda n: kraken_book("update", n),
    lambda n: kraken_book("update", n, good=False),
    {"/0/public/Trades": kraken_rest},
    how="checksum", ping={"method": "ping"}, pong={"method": "pong", "time_in": at(0), "time_out": at(0)},
    extra=[{"channel": "heartbeat"}],
)  # fmt: skip


# Coinbase: Advanced Trade WebSocket channels. A trade's side is the maker's.
COUNT = [0]


def coinbase(channel: str, events: list[Json], n: int, skip: int = 0) -> Json:
    COUNT[0] += 1 + skip
    return {"channel": channel, "client_id": "", "timestamp": at(n), "sequence_num": COUNT[0] - 1,
            "events": events}  # fmt: skip


def coinbase_item(n: int) -> Json:
    return {"trade_id": str(n), "product_id": "BTC-USD", "price": "100", "size": "2",
            "side": "SELL", "time": at(n)}  # fmt: skip


def coinbase_book(kind: str, n: int, skip: int = 0) -> Json:
    updates = [{"side": side, "event_time": at(n), "price_level": p, "new_quantity": "1"}
               for side, prices in (("bid", BIDS), ("offer", ASKS)) for p in map(str, prices)]  # fmt: skip
    event = {"type": kind, "product_id": "BTC-USD", "updates": updates}
    return coinbase("l2_data", [event], n, skip)


COINBASE = Script(
    "BTC-USD", "BTC-USD.SPOT@coinbase", 2.0,
    [{"type": "subscribe", "product_ids": ["BTC-USD"], "channel": "market_trades"},
     {"type": "subscribe", "product_ids": ["BTC-USD"], "channel": "level2"},
     {"type": "subscribe", "channel": "heartbeats"}],
    [{"type": t, "product_ids": ["BTC-USD"], "channel": "level2"} for t in ("unsubscribe", "subscribe")],
    lambda n: coinbase("market_trades", [{"type": "update", "trades": [coinbase_item(n)]}], n),
    lambda n: coinbase_book("snapshot", n),
    lambda n: coinbase_book("update", n),
    lambda n: coinbase_book("update", n, skip=1),
    {"/api/v3/brokerage/market/products/BTC-USD/ticker":
     lambda query: {"trades": [coinbase_item(n) for n in range(TRADES, 0, -1)]}},
)  # fmt: skip


# Bybit: v5 "Orderbook", "Trade"; trades have no numbers.
def bybit_book(kind: str, number: int, n: int) -> Json:
    return {"topic": "orderbook.50.BTCUSD", "type": kind, "ts": NOW + 100 * n, "cts": NOW + 100 * n,
            "data": {"s": "BTCUSD", "b": [[str(p), "1"] for p in BIDS],
                     "a": [[str(p), "1"] for p in ASKS], "u": number,
                     "seq": number}}  # fmt: skip


BYBIT = Script(
    "BTCUSD", "BTCUSD@bybit", 0.02,
    [{"op": "subscribe", "args": ["publicTrade.BTCUSD", "orderbook.50.BTCUSD"]}],
    [{"op": op, "args": ["orderbook.50.BTCUSD"]} for op in ("unsubscribe", "subscribe")],
    lambda n: {"topic": "publicTrade.BTCUSD", "type": "snapshot", "ts": NOW + 100 * n, "data": [
        {"T": NOW + 100 * n, "s": "BTCUSD", "S": "Buy", "v": "2", "p": "100", "L": "PlusTick",
         "i": f"id-{n}", "BT": False}]},
    lambda n: bybit_book("snapshot", 100 * n, n),
    lambda n: bybit_book("delta", 100 * (n - 1) + 1, n),
    lambda n: bybit_book("delta", 100 * n + 50, n),
    {}, numbered=False,
    ping={"op": "ping"}, pong={"success": True, "ret_msg": "pong", "conn_id": "x", "op": "ping"},
)  # fmt: skip


# Deribit: JSON-RPC; amounts of inverse contracts are dollars.
def deribit(channel: str, data: Any) -> Json:
    return {
        "jsonrpc": "2.0",
        "method": "subscription",
        "params": {"channel": channel, "data": data},
    }


def deribit_item(n: int) -> Json:
    return {"trade_seq": n, "trade_id": str(1000 + n), "timestamp": NOW + 100 * n, "price": 100.0,
            "amount": 2.0, "direction": "buy", "index_price": 100.0, "mark_price": 100.0,
            "instrument_name": "BTC-PERPETUAL", "tick_direction": 0}  # fmt: skip


def deribit_book(number: int, before: int | None, n: int) -> Json:
    data: Json = {"timestamp": NOW + 100 * n, "instrument_name": "BTC-PERPETUAL",
                  "type": "snapshot" if before is None else "change", "change_id": number,
                  "bids": [["new", float(p), 10.0] for p in BIDS],
                  "asks": [["new", float(p), 10.0] for p in ASKS]}  # fmt: skip
    return deribit("book.BTC-PERPETUAL.100ms",
                   data if before is None else {**data, "prev_change_id": before})  # fmt: skip


def deribit_rest(query: dict[str, str]) -> Any:
    first, last = int(query["start_seq"]), int(query["end_seq"])
    return {"jsonrpc": "2.0", "result": {
        "trades": [deribit_item(n) for n in range(first, last + 1)], "has_more": False}}  # fmt: skip


DERIBIT = Script(
    "BTC-PERPETUAL", "BTC-PERPETUAL@deribit", 0.02,
    [{"jsonrpc": "2.0", "id": 1, "method": "public/set_heartbeat", "params": {"interval": 10}},
     {"jsonrpc": "2.0", "id": 2, "method": "public/subscribe", "params": {
         "channels": ["trades.BTC-PERPETUAL.100ms", "book.BTC-PERPETUAL.100ms"]}}],
    [{"jsonrpc": "2.0", "id": 3, "method": f"public/{m}",
      "params": {"channels": ["book.BTC-PERPETUAL.100ms"]}} for m in ("unsubscribe", "subscribe")],
    lambda n: deribit("trades.BTC-PERPETUAL.100ms", [deribit_item(n)]),
    lambda n: deribit_book(100 * n, None, n),
    lambda n: deribit_book(100 * (n - 1) + 1, 100 * (n - 1), n),
    lambda n: deribit_book(100 * n + 50, 100 * n + 49, n),
    {"/api/v2/public/get_last_trades_by_instrument": deribit_rest},
    ping={"jsonrpc": "2.0", "method": "heartbeat", "params": {"type": "test_request"}},
    pong={"jsonrpc": "2.0", "id": 9, "method": "public/test", "params": {}},
)  # fmt: skip


# BitMEX: tables of rows; an update of a row that is not there says that the book is wrong.
def bitmex_book(action: str, ids: tuple[int, int], n: int) -> Json:
    rows = [{"symbol": "XBTUSD", "id": i, "side": side, "size": 100, "price": price,
             "timestamp": at(n)}
            for first, side, prices in zip(ids, ("Buy", "Sell"), (BIDS, ASKS), strict=True)
            for i, price in enumerate(map(float, prices), first)]  # fmt: skip
    if action == "update":
        rows = [{k: v for k, v in row.items() if k != "price"} for row in rows]
    return {"table": "orderBookL2_25", "action": action, "data": rows}


BITMEX = Script(
    "XBTUSD", "XBTUSD@bitmex", 0.02,
    [{"op": "subscribe", "args": ["trade:XBTUSD", "orderBookL2_25:XBTUSD"]}],
    [{"op": op, "args": ["orderBookL2_25:XBTUSD"]} for op in ("unsubscribe", "subscribe")],
    lambda n: {"table": "trade", "action": "insert", "data": [
        {"timestamp": at(n), "symbol": "XBTUSD", "side": "Buy", "size": 2, "price": 100.0,
         "tickDirection": "PlusTick", "trdMatchID": f"id-{n}", "grossValue": 2_000_000,
         "homeNotional": 0.02, "foreignNotional": 2, "trdType": "Regular"}]},
    lambda n: bitmex_book("partial", (10, 20), n),
    lambda n: bitmex_book("update", (10, 20), n),
    lambda n: bitmex_book("update", (70, 80), n),
    {}, numbered=False, how="checksum", ping=b"ping", pong=b"pong",
    extra=[{"info": "Welcome to the BitMEX Realtime API.", "version": "2", "timestamp": at(0)}],
)  # fmt: skip

SCRIPTS = {"okx": OKX, "kraken": KRAKEN, "coinbase": COINBASE, "bybit-inverse": BYBIT,
           "deribit": DERIBIT, "bitmex": BITMEX}  # fmt: skip


def line(message: Json | bytes) -> str:
    return message.decode() if isinstance(message, bytes) else json.dumps(message)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_protocol_over_a_socket(db: Conn, server: Server, tmp_path: Path, name: str) -> None:
    script = SCRIPTS[name]
    COUNT[0] = 0
    told: list[Any] = []
    done: list[str] = []

    async def expect(socket: ServerConnection, wanted: Sequence[Json | bytes], what: str) -> None:
        """Read until all of these were said."""
        left = [w.decode() if isinstance(w, bytes) else w for w in wanted]
        while left:
            text = await asyncio.wait_for(socket.recv(), 20)
            said = text if text == "ping" else json.loads(text)
            told.append(said)
            if said in left:
                left.remove(said)
            elif script.pong is not None and line(script.ping or b"") == line(
                said if isinstance(said, dict) else str(said).encode()
            ):
                await socket.send(line(script.pong))
        done.append(what)

    async def talk(socket: ServerConnection) -> None:
        for message in script.extra:
            await socket.send(line(message))
        await expect(socket, script.hello, "subscribed")
        await socket.send(line(script.snapshot(1)))
        await socket.send(line(script.update(2)))
        for n in range(1, TRADES + 1):
            if not script.numbered or n not in LOST:
                await socket.send(line(script.trade(n)))
        await socket.send(line(script.broken(3)))
        await expect(socket, script.again, "subscribed anew")
        await socket.send(line(script.snapshot(4)))
        await socket.send(line(script.update(5)))
        if script.ping is not None:
            mine = isinstance(script.ping, dict) and "test_request" in str(script.ping)
            if mine:
                await socket.send(line(script.ping))
                await expect(socket, [script.pong or {}], "answered")
            else:
                await expect(socket, [script.ping], "pinged")
                await socket.send(line(script.pong or b""))
        await socket.wait_closed()

    rest = Rest(script.rest)
    venue = market(name)
    if venue.ping is not None:
        venue.ping = (0.5, venue.ping[1])  # type: ignore[misc]

    def whole() -> bool:
        found = db.execute(
            "select (select count(*) from market.trades), (select count(*) from market.gaps"
            " where channel = 'book' and to_ts is not null)"
        ).fetchone()
        return bool(found and found[0] >= TRADES and found[1] >= 1)

    async def go() -> Stream:
        async with serve(talk, "127.0.0.1", 0, compression=None) as exchange:
            port = exchange.sockets[0].getsockname()[1]
            stream = Stream(
                venue, (script.symbol,), ("trades", "book"),
                server.conninfo(db.info.dbname, "alphaplus_loader"), tmp_path / "spool",
                Options(base=f"ws://127.0.0.1:{port}", rest=rest.url, waiting=QUICK, every=0.05),
            )  # fmt: skip
            task = asyncio.create_task(stream.run())
            steps = 2 + (script.ping is not None)
            for _ in range(500):
                if task.done():
                    task.result()
                if len(done) >= steps and await asyncio.to_thread(whole):
                    break
                await asyncio.sleep(0.05)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return stream

    try:
        asyncio.run(go())
    finally:
        rest.close()
    assert done[:2] == ["subscribed", "subscribed anew"], (done, told)
    assert not script.rest or rest.asked
    assert script.ping is None or done[2] in ("answered", "pinged"), told
    got = db.execute(
        "select symbol, count(*), count(distinct trade_id), min(size), max(size), min(price),"
        " max(price), min(side::text), max(side::text) from market.trades group by 1"
    ).fetchall()
    if script.rest:
        assert any(path.split("?")[0] in script.rest for path in rest.asked), rest.asked
    size = pytest.approx(script.size)
    assert got == [(script.stored, TRADES, TRADES, size, size, 100.0, 100.0, "buy", "buy")]
    gaps = db.execute(
        "select channel, how, from_id, to_id, repaired_at is not null, repaired_rows"
        " from market.gaps where channel = 'trades'"
    ).fetchall()
    if script.numbered:
        assert gaps == [("trades", "sequence", min(LOST), max(LOST), True, len(LOST))]
    else:
        assert gaps == []
    broken = db.execute(
        "select how, to_ts is not null from market.gaps where channel = 'book'"
    ).fetchall()
    assert broken == [(script.how, True)]
    book = db.execute(
        "select symbol, bid_prices[1], ask_prices[1] from market.order_book_snapshots limit 1"
    ).fetchone()
    assert book == (script.stored, 99.0, 101.0)
    row = db.execute("select counters from market.streams").fetchone()
    assert row is not None and not [k for k in row[0] if k.startswith("unknown")], row
