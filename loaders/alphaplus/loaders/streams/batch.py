"""Micro-batches into the market tables: rows, gaps and the position in one transaction."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import psycopg
from alphaplus.loaders import pgcopy, tables
from alphaplus.loaders.formats import Columns
from alphaplus.loaders.instruments import Instrument, OtherContract, Register
from alphaplus.loaders.pgcopy import Text
from alphaplus.loaders.streams.contiguity import Hole
from alphaplus.loaders.streams.venue import Parser
from psycopg import sql

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
FAR = "receive time more than a day from the event"
SPANS_EVERY = 10.0  # seconds between two writings of market.trade_spans


def instant(micros: int) -> dt.datetime:
    """A time of microseconds since 1970."""
    return EPOCH + dt.timedelta(microseconds=micros)


@dataclass
class Batch:
    """What some frames came to, ready to be stored as often as it takes."""

    position: int = 0
    messages: int = 0
    first_received: int = 0
    last_received: int = 0
    rows: dict[str, list[tuple[dict[str, Any], list[Instrument], npt.NDArray[np.int64]]]] = field(
        default_factory=dict
    )
    holes: list[tuple[str, str, Hole]] = field(default_factory=list)
    refused: list[tuple[int, str, str]] = field(default_factory=list)
    status: dict[str, Any] = field(default_factory=dict)
    told: dict[Instrument, str] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Rows in it."""
        return sum(len(part[2]) for parts in self.rows.values() for part in parts)


def take(parser: Parser, batch: Batch) -> None:
    """What the parser made since the last call, into the batch; refused rows with their reasons."""
    for kind, columns, lines in parser.columns():
        _add(parser, kind, columns, lines, batch)
    batch.holes += parser.holes()
    batch.refused += parser.refused
    parser.refused = []
    batch.told = dict(parser._told)


def _add(
    parser: Parser, kind: str, columns: Columns, lines: npt.NDArray[np.int64], batch: Batch
) -> None:
    reasons = tables.check(kind, columns)
    for i, why in enumerate(reasons):
        if why == FAR and int(lines[i]) in parser.repaired_lines:
            reasons[i] = ""
    good = np.array([not reason for reason in reasons], dtype=bool)
    for i in np.flatnonzero(~good).tolist():
        parser._count(f"refused rows: {reasons[i]}")
        batch.refused.append((int(lines[i]), "", str(reasons[i])))
    part = np.flatnonzero(good)
    if not len(part):
        return
    found = tables.values(kind, columns, part, live=True)
    assert columns.instruments is not None
    instruments = columns.instruments[part]
    distinct: dict[Instrument, int] = {}
    which = np.fromiter(
        (distinct.setdefault(i, len(distinct)) for i in instruments), np.int64, len(part)
    )
    batch.rows.setdefault(kind, []).append((found, list(distinct), which))


class Store:
    """The database's side of a stream."""

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.conn: psycopg.Connection[Any] | None = None
        self.register: Register | None = None
        self._spans: dict[str, float] = {}
        self._staged: set[str] = set()

    def connect(self, conninfo: str) -> None:
        """A connection of its own; raises psycopg.OperationalError where there is none."""
        self.close()
        self.conn = psycopg.connect(conninfo, autocommit=True, connect_timeout=10)
        self.conn.execute("set synchronous_commit = on")
        self.register = Register(self.conn)
        self._staged = set()

    def close(self) -> None:
        """Let go of the connection."""
        if self.conn is not None:
            self.conn.close()
        self.conn = None

    def begin(self, exchange: str, symbols: Iterable[str], channels: Iterable[str]) -> int:
        """Say that the stream runs; returns the number of the last frame that is stored."""
        assert self.conn is not None
        row = self.conn.execute(
            "insert into market.streams as s (stream, exchange, symbols, channels, status)"
            " values (%s, %s, %s, %s, 'starting') on conflict (stream) do update"
            " set exchange = excluded.exchange, symbols = excluded.symbols,"
            " channels = excluded.channels, status = 'starting', error = null,"
            " started_at = clock_timestamp(), heartbeat_at = clock_timestamp(), messages = 0,"
            " rows_stored = 0, reconnects = 0, evicted = 0, counters = '{}'"
            " returning s.position",
            (self.stream, exchange, list(symbols), list(channels)),
        ).fetchone()
        assert row is not None
        return int(row[0])

    def lock(self) -> bool:
        """One process a stream: its turn, or False."""
        assert self.conn is not None
        row = self.conn.execute("select ops._hold('stream:' || %s)", (self.stream,)).fetchone()
        return bool(row and row[0])

    def holder(self) -> str:
        """Who has the turn, in words."""
        assert self.conn is not None
        row = self.conn.execute("select ops._holder('stream:' || %s)", (self.stream,)).fetchone()
        return (row and row[0]) or "it has just been let go"

    def put(self, batch: Batch) -> int:
        """One transaction: rows, gaps, refused rows, position. Returns the rows that were new."""
        assert self.conn is not None and self.register is not None
        new = 0
        with self.conn.transaction():
            self.conn.execute("set local lock_timeout = '20s'")
            for kind, parts in batch.rows.items():
                for found, distinct, which in parts:
                    new += self._rows(kind, found, distinct, which, batch)
            self._holes(batch)
            self._refused(batch)
            self._status(batch, new)
        return new

    def _symbols(
        self, distinct: list[Instrument], batch: Batch
    ) -> tuple[list[str], npt.NDArray[np.bool_]]:
        assert self.register is not None
        names, good = [], []
        for instrument in distinct:
            try:
                names.append(self.register.symbol(instrument))
                good.append(True)
            except OtherContract as error:
                names.append("")
                good.append(False)
                batch.status["error"] = str(error)
        return names, np.array(good, dtype=bool)

    def _rows(
        self,
        kind: str,
        found: dict[str, Any],
        distinct: list[Instrument],
        which: npt.NDArray[np.int64],
        batch: Batch,
    ) -> int:
        table = tables.TABLES[kind]
        symbols, good = self._symbols(distinct, batch)
        n = len(which)
        if not good.all():
            keep = good[which]
            found = {k: v[keep] if isinstance(v, np.ndarray) else v for k, v in found.items()}
            which, n = which[keep], int(keep.sum())
            if not n:
                return 0
        columns = tables.encoded(found)
        columns["symbol"] = Text(np.array([s.encode() for s in symbols])[which])
        names = [*table.key, "known_at", "received_at", *table.content]
        if kind == "trades":
            self._span(found, symbols, distinct, which, batch)
        assert self.conn is not None
        try:
            with self.conn.transaction():
                return pgcopy.copy(self.conn, table.name, names, [(columns, n)])
        except (psycopg.errors.UniqueViolation, psycopg.errors.CardinalityViolation):
            return self._merge(table, names, columns, n)

    def _merge(self, table: tables.Table, names: list[str], columns: Any, n: int) -> int:
        """Some of the rows are there already."""
        assert self.conn is not None
        target = sql.Identifier(*table.name.split("."))
        stage = f"_stream_{table.name.split('.')[1]}"
        listed = sql.SQL(", ").join(map(sql.Identifier, names))
        if stage not in self._staged:
            self.conn.execute(
                sql.SQL(
                    "create temporary table if not exists {} on commit delete rows as"
                    " select {} from {} with no data"
                ).format(sql.Identifier(stage), listed, target)
            )
            self._staged.add(stage)
        self.conn.execute(sql.SQL("truncate {}").format(sql.Identifier("pg_temp", stage)))
        pgcopy.copy(self.conn, f"pg_temp.{stage}", names, [(columns, n)])
        return self.conn.execute(
            sql.SQL("insert into {} ({}) select {} from {} on conflict do nothing").format(
                target, listed, listed, sql.Identifier("pg_temp", stage)
            )
        ).rowcount

    def _span(
        self,
        found: dict[str, Any],
        symbols: list[str],
        distinct: list[Instrument],
        which: npt.NDArray[np.int64],
        batch: Batch,
    ) -> None:
        """Which telling of its trades is stored, for loads of files that may have the other one."""
        assert self.conn is not None
        now = time.monotonic()
        due = [
            k for k, symbol in enumerate(symbols)
            if now - self._spans.get(symbol, -1e9) > SPANS_EVERY
        ]  # fmt: skip
        for k in due:
            ts = found["ts"][which == k]
            if not len(ts):
                continue
            self._spans[symbols[k]] = now
            told = batch.told.get(distinct[k], "trade")
            low, high = tables.instant(int(ts.min())), tables.instant(int(ts.max()))
            done = self.conn.execute(
                "update market.trade_spans set last_ts = greatest(last_ts, %s)"
                " where symbol = %s and dataset = %s and load_id is null and first_ts <= %s",
                (high, symbols[k], told, low),
            )
            if not done.rowcount:
                self.conn.execute(
                    "insert into market.trade_spans values (%s, %s, %s, %s, null)"
                    " on conflict do nothing",
                    (symbols[k], told, low, high),
                )

    def _holes(self, batch: Batch) -> None:
        if not batch.holes:
            return
        assert self.conn is not None
        names: dict[str, str] = batch.status.get("names", {})
        with self.conn.cursor() as cursor:
            cursor.executemany(
                "insert into market.gaps as g (stream, symbol, channel, how, from_id, to_id,"
                " from_ts, to_ts, ended_at, repaired_at, repaired_rows)"
                " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
                " on conflict (stream, symbol, channel, how, from_id, from_ts) do update"
                " set to_id = excluded.to_id, to_ts = excluded.to_ts, ended_at = excluded.ended_at,"
                " repaired_at = excluded.repaired_at, repaired_rows = excluded.repaired_rows",
                [
                    (
                        self.stream, names.get(symbol, symbol), channel, hole.how, hole.from_id,
                        hole.to_id, instant(hole.from_ts),
                        None if hole.to_ts is None else instant(hole.to_ts),
                        None if hole.ended is None else instant(hole.ended),
                        None if hole.repaired is None else instant(hole.repaired), hole.rows,
                    )
                    for channel, symbol, hole in batch.holes
                ],
            )  # fmt: skip

    def _refused(self, batch: Batch) -> None:
        if not batch.refused:
            return
        assert self.conn is not None
        with self.conn.cursor() as cursor:
            cursor.executemany(
                "insert into market.quarantine (kind, file, line, reason, raw)"
                " values ('stream', %s, %s, %s, nullif(%s, '')) on conflict do nothing",
                [
                    (f"stream {self.stream}", number, why.replace("\0", "")[:1000],
                     raw.replace("\0", ""))
                    for number, raw, why in batch.refused
                ],
            )  # fmt: skip

    def _status(self, batch: Batch, new: int) -> None:
        assert self.conn is not None
        s = batch.status
        last_ts = s.get("last_ts")
        offset = s.get("offset")
        self.conn.execute(
            "update market.streams set position = greatest(position, %s),"
            " heartbeat_at = clock_timestamp(), messages = messages + %s,"
            " rows_stored = rows_stored + %s, status = coalesce(%s, status),"
            " last_received_at = coalesce(%s, last_received_at),"
            " last_ts = greatest(%s, last_ts),"
            " clock_offset = coalesce(%s, clock_offset), reconnects = %s, spool_bytes = %s,"
            " evicted = %s, counters = %s, latency_ms = coalesce(%s, latency_ms),"
            " error = coalesce(%s, error) where stream = %s",
            (
                batch.position, batch.messages, new, s.get("status"),
                instant(batch.last_received) if batch.last_received else None,
                instant(last_ts) if last_ts else None,
                None if offset is None else dt.timedelta(microseconds=offset),
                s.get("reconnects", 0), s.get("spool_bytes", 0), s.get("evicted", 0),
                orjson.dumps(s.get("counters", {})).decode(), s.get("latency"), s.get("error"),
                self.stream,
            ),
        )  # fmt: skip

    def say(self, status: str, error: str | None = None) -> None:
        """Its status, beside any batch."""
        if self.conn is not None:
            self.conn.execute(
                "update market.streams set status = %s, error = coalesce(%s, error),"
                " heartbeat_at = clock_timestamp() where stream = %s",
                (status, error, self.stream),
            )
