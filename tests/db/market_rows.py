"""Random market rows, and what the aggregates must say about them, computed plainly in Python.

Values are eighths, so that sums are exact whatever their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString, cast

import psycopg
from hypothesis import strategies as st
from psycopg.rows import dict_row

Row = dict[str, Any]
Connection = psycopg.Connection[Any]
BASE = datetime(2026, 1, 5, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
FOREVER = datetime.max.replace(tzinfo=UTC)
WIDTHS = {
    "candles_5m": timedelta(minutes=5),
    "candles_15m": timedelta(minutes=15),
    "candles_1h": timedelta(hours=1),
    "candles_4h": timedelta(hours=4),
    "candles_1d": timedelta(days=1),
}


@dataclass(frozen=True)
class Kind:
    """A market table, its key, the aggregates made from it, and random rows for it."""

    table: str
    key: tuple[str, ...]
    values: tuple[str, ...]
    rows: st.SearchStrategy[Row]


def eighths(low: int, high: int) -> st.SearchStrategy[float]:
    return st.integers(low * 8, high * 8).map(lambda n: n / 8)


# Few symbols, few distinct times: ties and several rows a bucket are the rule.
SYMBOLS = st.sampled_from(["AAA", "BBB"])
TIMES = st.integers(0, 40).map(lambda n: BASE + n * timedelta(seconds=13))
DELAYS = st.sampled_from([0, 0, 0, 0.5, 20, 61, 200]).map(lambda s: timedelta(seconds=s))
SIDES = st.sampled_from(["buy", "sell"])


@st.composite
def trades(draw: st.DrawFn) -> Row:
    ts = draw(TIMES)
    return {
        "symbol": draw(SYMBOLS),
        "ts": ts,
        "trade_id": str(draw(st.integers(1, 30))),
        "known_at": ts + draw(DELAYS),
        "price": draw(eighths(1, 50)),
        "size": draw(eighths(1, 9)),
        "side": draw(SIDES),
    }


@st.composite
def books(draw: st.DrawFn) -> Row:
    ts = draw(TIMES)
    bid = draw(eighths(10, 20))
    sides = draw(st.sampled_from(["both", "both", "both", "bid", "ask"]))
    return {
        "symbol": draw(SYMBOLS),
        "ts": ts,
        "sequence": draw(st.integers(0, 2)),
        "known_at": ts + draw(DELAYS),
        "bid_prices": [bid, bid - 1] if sides != "ask" else [],
        "bid_sizes": [draw(eighths(1, 4)), 1.0] if sides != "ask" else [],
        "ask_prices": [bid + 0.5] if sides != "bid" else [],
        "ask_sizes": [draw(eighths(1, 4))] if sides != "bid" else [],
    }


@st.composite
def liquidations(draw: st.DrawFn) -> Row:
    ts = draw(TIMES)
    return {
        "symbol": draw(SYMBOLS),
        "ts": ts,
        "event_id": str(draw(st.integers(1, 3))),
        "known_at": ts + draw(DELAYS),
        "side": draw(SIDES),
        "price": 2.0,
        "size": 1.0,
        "notional": draw(eighths(1, 50)),
    }


@st.composite
def candles(draw: st.DrawFn) -> Row:
    minutes = draw(st.integers(0, 12) | st.sampled_from([59, 60, 239, 240, 1439, 1440]))
    ts = BASE + minutes * MINUTE
    low = draw(eighths(1, 9))
    return {
        "symbol": draw(SYMBOLS),
        "timeframe": MINUTE,
        "ts": ts,
        "known_at": ts + MINUTE + draw(DELAYS),
        "open": low + draw(eighths(0, 3)),
        "high": low + 3,
        "low": low,
        "close": low + draw(eighths(0, 3)),
        "volume": draw(eighths(0, 9)),
        "quote_volume": draw(st.none() | eighths(0, 9)),
        "trade_count": draw(st.none() | st.integers(0, 9)),
        "taker_buy_volume": draw(st.none() | eighths(0, 9)),
    }


KINDS = {
    "trades": Kind("trades", ("symbol", "ts", "trade_id"), ("price", "size", "side"), trades()),
    "books": Kind(
        "order_book_snapshots",
        ("symbol", "ts", "sequence"),
        ("bid_prices", "bid_sizes", "ask_prices", "ask_sizes"),
        books(),
    ),
    "liquidations": Kind(
        "liquidation_events", ("symbol", "ts", "event_id"), ("side", "notional"), liquidations()
    ),
    "candles": Kind(
        "candles",
        ("symbol", "timeframe", "ts"),
        ("open", "high", "low", "close", "volume", "quote_volume", "trade_count"),
        candles(),
    ),
}


@st.composite
def operations(draw: st.DrawFn) -> list[tuple[str, str, Row]]:
    """Inserts, corrections and deletions, some of rows that are not there, and refreshes."""
    done: list[tuple[str, str, Row]] = []
    rows: dict[str, list[Row]] = {name: [] for name in KINDS}
    for _ in range(draw(st.integers(4, 24))):
        name = draw(st.sampled_from(sorted(KINDS)))
        kind = KINDS[name]
        word = draw(st.sampled_from(["insert", "insert", "insert", "update", "delete", "refresh"]))
        row = draw(kind.rows)
        if word in {"update", "delete"} and rows[name]:
            old = draw(st.sampled_from(rows[name]))
            # When the correction was made: a while after the row was known.
            later = old["known_at"] + draw(DELAYS) + timedelta(seconds=draw(st.integers(1, 90)))
            row = {**row, **{column: old[column] for column in kind.key}, "known_at": later}
        rows[name].append(row)
        done.append((word, name, row))
    return done


def execute(conn: Connection, query: str, parameters: Any = None) -> psycopg.Cursor[Any]:
    return conn.execute(cast(LiteralString, query), parameters)


def fetch(conn: Connection, query: str, parameters: Any = None) -> list[Row]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(cast(LiteralString, query), parameters).fetchall()


def insert(conn: Connection, table: str, row: Mapping[str, Any]) -> None:
    columns = ", ".join(row)
    values = ", ".join(f"%({column})s" for column in row)
    execute(
        conn,
        f"insert into market.{table} ({columns}) values ({values}) on conflict do nothing",
        row,
    )


def apply(conn: Connection, operation: tuple[str, str, Row]) -> None:
    """Do one operation. Corrections and deletions are dated by the row's known_at, not by now."""
    word, name, row = operation
    kind = KINDS[name]
    match = " and ".join(f"{column} = %({column})s" for column in kind.key)
    if word == "insert":
        insert(conn, kind.table, row)
    elif word == "update":
        setting = ", ".join(f"{column} = %({column})s" for column in (*kind.values, "known_at"))
        execute(
            conn,
            f"update market.{kind.table} set {setting} where {match} and known_at < %(known_at)s",
            row,
        )
    elif word == "delete":
        execute(
            conn, f"delete from market.{kind.table} where {match} and known_at < %(known_at)s", row
        )
        execute(
            conn,
            f"update market.{kind.table}_history set superseded_at = %(known_at)s"
            f" where {match} and superseded_at > now() - interval '1 minute'",
            row,
        )
    else:
        conn.execute("call market.refresh_aggregates()")


def clear(conn: Connection) -> None:
    for kind in KINDS.values():
        execute(conn, f"truncate market.{kind.table}")
        execute(conn, f"truncate market.{kind.table}_history")


def is_native(conn: Connection) -> bool:
    """Whether TimescaleDB keeps the aggregates (Community edition), or marks do."""
    row = conn.execute("select bool_or(native) from market.aggregates").fetchone()
    assert row is not None
    return bool(row[0])


# What the aggregates must say, from plain rows.


def total(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) if present else None


def trades_state(rows: list[Row]) -> Row:
    ordered = sorted(rows, key=lambda r: (r["ts"], r["trade_id"]))
    bought = [r for r in rows if r["side"] == "buy"]
    return {
        "open": ordered[0]["price"],
        "high": max(r["price"] for r in rows),
        "low": min(r["price"] for r in rows),
        "close": ordered[-1]["price"],
        "volume": sum(r["size"] for r in rows),
        "quote_volume": sum(r["size"] * r["price"] for r in rows),
        "buy_volume": sum(r["size"] for r in bought),
        "buy_quote_volume": sum(r["size"] * r["price"] for r in bought),
        "trade_count": len(rows),
    }


def books_state(rows: list[Row]) -> Row:
    last = max(rows, key=lambda r: (r["ts"], r["sequence"]))
    both = [r for r in rows if r["bid_prices"] and r["ask_prices"]]
    return {
        "snapshot_count": len(rows),
        "two_sided_count": len(both),
        "spread_sum": total(r["ask_prices"][0] - r["bid_prices"][0] for r in both),
        "mid_sum": total((r["ask_prices"][0] + r["bid_prices"][0]) / 2 for r in both),
        "imbalance_sum": total(
            (r["bid_sizes"][0] - r["ask_sizes"][0]) / (r["bid_sizes"][0] + r["ask_sizes"][0])
            for r in both
        ),
        **{
            column: last[column]
            for column in ("bid_prices", "bid_sizes", "ask_prices", "ask_sizes")
        },
    }


def liquidations_state(rows: list[Row]) -> Row:
    return {
        "event_count": len(rows),
        "long_notional": sum(r["notional"] for r in rows if r["side"] == "sell"),
        "short_notional": sum(r["notional"] for r in rows if r["side"] == "buy"),
        "max_notional": max(r["notional"] for r in rows),
    }


def candles_state(rows: list[Row]) -> Row:
    ordered = sorted(rows, key=lambda r: r["ts"])
    return {
        "open": ordered[0]["open"],
        "high": max(r["high"] for r in rows),
        "low": min(r["low"] for r in rows),
        "close": ordered[-1]["close"],
        "volume": sum(r["volume"] for r in rows),
        "quote_volume": total(r["quote_volume"] for r in rows),
        "trade_count": total(r["trade_count"] for r in rows),
        "taker_buy_volume": total(r["taker_buy_volume"] for r in rows),
    }


STATES: dict[str, tuple[str, Callable[[list[Row]], Row]]] = {
    "trades_1m": ("trades", trades_state),
    "book_1m": ("books", books_state),
    "liquidations_1m": ("liquidations", liquidations_state),
    **dict.fromkeys(WIDTHS, ("candles", candles_state)),
}


def by_bucket(rows: Iterable[Row], width: timedelta, state: Callable[[list[Row]], Row]) -> Row:
    """The plain GROUP BY symbol, bucket."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        bucket = BASE + (row["ts"] - BASE) // width * width
        groups.setdefault((row["symbol"], bucket), []).append(row)
    return {key: state(group) for key, group in groups.items()}


# Merging the partial rows of the version functions.


def merge_sums(parts: list[Row], sums: Iterable[str]) -> Row:
    return {column: total(p[column] for p in parts) for column in sums}


def trades_merged(parts: list[Row]) -> Row:
    return {
        "open": min(parts, key=lambda p: (p["first_ts"], p["first_id"]))["open"],
        "high": max(p["high"] for p in parts),
        "low": min(p["low"] for p in parts),
        "close": max(parts, key=lambda p: (p["last_ts"], p["last_id"]))["close"],
        **merge_sums(
            parts,
            ("volume", "quote_volume", "buy_volume", "buy_quote_volume", "trade_count"),
        ),
    }


def books_merged(parts: list[Row]) -> Row:
    last = max(parts, key=lambda p: (p["last_ts"], p["last_sequence"]))
    return {
        **merge_sums(
            parts,
            ("snapshot_count", "two_sided_count", "spread_sum", "mid_sum", "imbalance_sum"),
        ),
        **{
            column: last[column]
            for column in ("bid_prices", "bid_sizes", "ask_prices", "ask_sizes")
        },
    }


def liquidations_merged(parts: list[Row]) -> Row:
    return {
        **merge_sums(parts, ("event_count", "long_notional", "short_notional")),
        "max_notional": max(p["max_notional"] for p in parts),
    }


def candles_merged(parts: list[Row]) -> Row:
    return {
        "open": min(parts, key=lambda p: p["first_ts"])["open"],
        "high": max(p["high"] for p in parts),
        "low": min(p["low"] for p in parts),
        "close": max(parts, key=lambda p: p["last_ts"])["close"],
        **merge_sums(parts, ("volume", "quote_volume", "trade_count", "taker_buy_volume")),
    }


MERGED = {
    "trades_1m": trades_merged,
    "book_1m": books_merged,
    "liquidations_1m": liquidations_merged,
    **dict.fromkeys(WIDTHS, candles_merged),
}


def close_to(left: Row, right: Row) -> bool:
    """Equal, but for the last bits of the one sum (imbalances) that is not of eighths."""
    if left.keys() != right.keys():
        return False
    for key, state in left.items():
        for column, value in state.items():
            other = right[key][column]
            if isinstance(value, float) and isinstance(other, float | int):
                if abs(value - other) > 1e-12:
                    return False
            elif value != other:
                return False
    return True
