"""Files into ``market.*``: streamed, checked, idempotent, resumable.

A file is read in blocks. Each block is parsed, its bad rows go to ``market.quarantine`` with line
and reason, its good ones into their table, and how far the file is loaded is written down, all in
one transaction: a load that is killed goes on where its last committed block ended, with nothing
lost or doubled. Memory does not grow with the file.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import psycopg
from alphaplus.loaders import feeds, pgcopy
from alphaplus.loaders.formats import BOOK_LEVELS, Columns, Context, Format, UnknownFormat, detect
from alphaplus.loaders.instruments import Instrument, Register
from alphaplus.loaders.pgcopy import Interval, Text
from psycopg import sql

Floats = npt.NDArray[np.float64]

BLOCK = 4 * 2**20
PARQUET_ROWS = 50_000
EPOCH_2000 = 946_684_800 * 1_000_000
FUTURE = 60 * 1_000_000  # clocks differ; a minute ahead is not yet the future
KINDS = (
    "auto", "candles", "trades", "order_book", "book_feed", "liquidations", "funding",
    "open_interest",
)  # fmt: skip


class TooManyBad(Exception):
    """More rows were refused than the user allows."""


@dataclass(frozen=True)
class Options:
    """How to load. lag: seconds after its time (a bar: its close) at which history was known."""

    kind: str = "auto"
    exchange: str | None = None
    symbol: str | None = None
    timeframe: float | None = None
    volume_unit: str = "auto"
    live: bool = False
    lag: float = 0.0
    correct: bool = False
    max_bad: int | None = None
    levels: int = BOOK_LEVELS
    every: float = 1.0
    block: int = BLOCK


@dataclass
class Report:
    """What became of a file's rows: read = loaded + duplicate + quarantined (+ corrected)."""

    file: str
    format: str = ""
    kind: str = ""
    read: int = 0
    loaded: int = 0
    duplicate: int = 0
    corrected: int = 0
    quarantined: int = 0
    skipped: bool = False
    counters: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """Where a kind goes: table, key, content columns, and the checks of its rows."""

    name: str
    key: tuple[str, ...]
    content: tuple[str, ...]


TABLES = {
    "candles": Table(
        "market.candles",
        ("symbol", "timeframe", "ts"),
        (
            "open",
            "high",
            "low",
            "close",
            "volume",
            "quote_volume",
            "trade_count",
            "taker_buy_volume",
        ),
    ),
    "trades": Table("market.trades", ("symbol", "ts", "trade_id"), ("price", "size", "side")),
    "order_book": Table(
        "market.order_book_snapshots",
        ("symbol", "ts", "sequence"),
        ("bid_prices", "bid_sizes", "ask_prices", "ask_sizes", "after_gap"),
    ),
    "liquidations": Table(
        "market.liquidation_events",
        ("symbol", "ts", "event_id"),
        ("side", "price", "size", "notional"),
    ),
    "funding": Table("market.funding_rates", ("symbol", "ts"), ("rate", "funding_interval")),
    "open_interest": Table("market.open_interest", ("symbol", "ts"), ("open_interest", "value")),
}


@dataclass
class Block:
    """Some rows of a file: as a frame, their line numbers (from 1), their text for quarantine."""

    frame: pd.DataFrame
    lines: npt.NDArray[np.int64]
    raw: Callable[[int], str]
    broken: list[tuple[int, str, str]] = field(default_factory=list)  # line, text, reason
    last_line: int = 0


def open_bytes(path: Path) -> IO[bytes]:
    """A file's bytes, through gzip or the one member of a zip archive."""
    if path.suffix == ".zip":
        archive = zipfile.ZipFile(path)
        members = [name for name in archive.namelist() if not name.endswith("/")]
        if len(members) != 1:
            raise UnknownFormat(f"{path.name} holds {len(members)} files; one is expected")
        return archive.open(members[0])
    if path.open("rb").read(2) == b"\x1f\x8b":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    return path.open("rb")


def blocks_of_lines(stream: IO[bytes], size: int) -> Iterator[list[bytes]]:
    """Whole lines, about ``size`` bytes at a time, without their ends."""
    rest = b""
    while chunk := stream.read(size):
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        yield lines
    if rest:
        yield [rest]


def parse_lines(lines: list[bytes], first: int, names: list[str]) -> Block:
    """CSV lines to a block. Lines with another number of fields are broken, not guessed at."""
    buffer = b"\n".join(lines)
    try:
        frame = pd.read_csv(
            io.BytesIO(buffer),
            header=None,
            names=names,
            index_col=False,
            skip_blank_lines=False,
            low_memory=False,
            encoding_errors="replace",
            on_bad_lines="error",
        )
        short = buffer.count(b",") != (len(names) - 1) * len(lines) or b'"' in buffer
        if not short and len(frame) == len(lines):
            return Block(
                frame,
                np.arange(first, first + len(lines), dtype=np.int64),
                lambda i: lines[i].decode("utf-8", "replace").rstrip("\r"),
            )
    except (pd.errors.ParserError, ValueError):
        pass
    good, numbers, broken = [], [], []
    for i, line in enumerate(lines):
        words = line.decode("utf-8", "replace").rstrip("\r")
        cells = next(csv.reader([words]), [])
        if not cells:
            continue
        if len(cells) != len(names):
            reason = f"{len(cells)} fields, {len(names)} expected"
            broken.append((first + i, words, reason))
            continue
        good.append(cells)
        numbers.append(i)
    frame = pd.DataFrame(good, columns=names).replace("", np.nan)
    where = np.array(numbers, dtype=np.int64)
    return Block(
        frame,
        where + first,
        lambda i: lines[where[i]].decode("utf-8", "replace").rstrip("\r"),
        broken,
    )


class Loader:
    """Loads files through one connection."""

    def __init__(
        self, conn: psycopg.Connection[Any], options: Options | None = None, progress: Any = None
    ) -> None:
        self.conn = conn
        self.options = options or Options()
        self.register = Register(conn)
        self.progress = progress or (lambda report, share: None)

    def load(self, path: Path) -> Report:
        """Load one file.

        Raises:
            UnknownFormat: no format fits.
            TooManyBad: more rows refused than allowed; what was good up to there is loaded.
        """
        report = Report(str(path))
        digest = file_hash(path)
        load_id, resume, state = self._begin(path, digest, report)
        if load_id is None:
            report.skipped = True
            return report
        try:
            if path.suffix == ".parquet":
                self._parquet(path, load_id, resume, report)
            else:
                self._lines(path, load_id, resume, state, report)
        except KeyboardInterrupt:
            self._end(load_id, "interrupted", None)
            raise
        except Exception as error:
            self._end(load_id, "failed", str(error))
            raise
        self._end(load_id, "done", None)
        return report

    # --- the log of loads ----------------------------------------------------------------------

    def _begin(
        self, path: Path, digest: bytes, report: Report
    ) -> tuple[int | None, int, dict[str, Any] | None]:
        options = json.dumps(vars(self.options))
        row = self.conn.execute(
            "select load_id, status, resume_line, resume_state, rows_read, rows_loaded,"
            " rows_duplicate, rows_quarantined, format, kind from market.loads"
            " where file = %s and file_sha256 = %s and kind = %s order by load_id desc limit 1",
            (str(path), digest, self.options.kind),
        ).fetchone()
        if row and row[1] == "done":
            report.read, report.duplicate = row[4], row[4] - row[7]
            report.quarantined, report.format = row[7], row[8] or ""
            if not self.options.correct:
                return None, 0, None
        elif row:
            report.read, report.loaded, report.duplicate, report.quarantined = row[4:8]
            self.conn.execute(
                "update market.loads set status = 'running', error = null where load_id = %s",
                (row[0],),
            )
            return row[0], row[2], row[3]
        report.read = report.duplicate = report.quarantined = 0
        new = self.conn.execute(
            "insert into market.loads (kind, file, file_sha256, options) values (%s, %s, %s, %s)"
            " returning load_id",
            (self.options.kind, str(path), digest, options),
        ).fetchone()
        assert new is not None
        return new[0], 0, None

    def _save(self, load_id: int, line: int, state: Any, report: Report) -> None:
        self.conn.execute(
            "update market.loads set resume_line = %s, resume_state = %s, rows_read = %s,"
            " rows_loaded = %s, rows_duplicate = %s, rows_quarantined = %s, format = %s,"
            " counters = %s, updated_at = clock_timestamp() where load_id = %s",
            (
                line,
                json.dumps(state) if state is not None else None,
                report.read,
                report.loaded,
                report.duplicate,
                report.quarantined,
                report.format,
                json.dumps(report.counters),
                load_id,
            ),
        )

    def _end(self, load_id: int, status: str, error: str | None) -> None:
        self.conn.execute(
            "update market.loads set status = %s, error = %s, finished_at = clock_timestamp()"
            " where load_id = %s",
            (status, error, load_id),
        )

    # --- reading -------------------------------------------------------------------------------

    def _context(self, path: Path) -> Context:
        o = self.options
        return Context(path, o.exchange, o.symbol, o.timeframe, o.volume_unit)

    def _lines(
        self, path: Path, load_id: int, resume: int, state: dict[str, Any] | None, report: Report
    ) -> None:
        context = self._context(path)
        with open_bytes(path) as stream:
            start = time.monotonic()
            total = path.stat().st_size
            number = 0
            layout: tuple[Format, list[str]] | None = None
            feed: feeds.Feed | None = None
            for lines in blocks_of_lines(stream, self.options.block):
                first = number + 1
                number += len(lines)
                if layout is None and feed is None:
                    head = next((line for line in lines if line.strip()), b"")
                    if feeds.looks_like(head) or self.options.kind == "book_feed":
                        feed = feeds.Feed(context, self.options.levels, self.options.every, state)
                        report.format, report.kind = "json stream", "book_feed"
                    else:
                        layout = self._layout(head, context, report)
                        if (
                            head
                            and layout[1]
                            and head.decode("utf-8", "replace").startswith(layout[1][0])
                        ):
                            lines, first = lines[1:], first + 1
                if number <= resume:
                    continue
                skip = max(0, resume - first + 1)
                lines, first = lines[skip:], first + skip
                with self.conn.transaction():
                    if feed is not None:
                        self._feed_block(feed, lines, first, path, load_id, report)
                        self._save(load_id, number, feed.state(), report)
                    else:
                        assert layout is not None
                        block = parse_lines(lines, first, layout[1])
                        self._block(block, layout[0], context, path, load_id, report)
                        self._save(load_id, number, None, report)
                self._check_bad(report)
                self.progress(report, min(1.0, _position(stream) / max(total, 1)))
            if feed is not None:
                with self.conn.transaction():
                    self._feed_end(feed, path, load_id, report)
                    self._save(load_id, number, feed.state(), report)
            del start

    def _layout(self, head: bytes, context: Context, report: Report) -> tuple[Format, list[str]]:
        cells = next(csv.reader([head.decode("utf-8-sig", "replace").rstrip("\r")]), [])
        kind = None if self.options.kind == "auto" else self.options.kind
        if {"first_update_id", "update_type", "qty"} <= set(cells):
            found, header = feeds.SNAPSHOT_ROWS, True
        elif {"is_snapshot", "local_timestamp"} <= set(cells):
            found, header = feeds.INCREMENTAL_ROWS, True
        else:
            found, header = detect(cells, context, kind)
        report.format, report.kind = found.name, found.kind
        return found, [c.strip() for c in cells] if header else list(found.names[: len(cells)])

    def _parquet(self, path: Path, load_id: int, resume: int, report: Report) -> None:
        import pyarrow.parquet as pq

        context = self._context(path)
        file = pq.ParquetFile(path)
        kind = None if self.options.kind == "auto" else self.options.kind
        found, _ = detect(file.schema_arrow.names, context, kind)
        report.format, report.kind = found.name, found.kind
        number = 0
        for batch in file.iter_batches(PARQUET_ROWS):
            first, number = number + 1, number + batch.num_rows
            if number <= resume:
                continue
            frame = batch.to_pandas()
            lines = np.arange(first, number + 1, dtype=np.int64)
            block = Block(frame, lines, lambda i, f=frame: f.iloc[i].to_json(date_format="iso"))  # type: ignore[misc]
            with self.conn.transaction():
                self._block(block, found, context, path, load_id, report)
                self._save(load_id, number, None, report)
            self._check_bad(report)
            self.progress(report, number / max(file.metadata.num_rows, 1))

    def _check_bad(self, report: Report) -> None:
        limit = self.options.max_bad
        if limit is not None and report.quarantined > limit:
            raise TooManyBad(
                f"{report.quarantined} rows of {report.file} were refused, {limit} are allowed"
                " (--max-bad): see market.quarantine"
            )

    # --- one block -----------------------------------------------------------------------------

    def _block(
        self,
        block: Block,
        found: Format,
        context: Context,
        path: Path,
        load_id: int,
        report: Report,
    ) -> None:
        refused = [(line, raw, "unparsable", why) for line, raw, why in block.broken]
        report.read += len(block.frame) + len(block.broken)
        if len(block.frame):
            columns = found.read(block.frame, context)
            lines = block.lines if columns.rows is None else block.lines[columns.rows]
            reasons = check(found.kind, columns, lines)
            bad = np.array([bool(reason) for reason in reasons])
            for i in np.flatnonzero(bad):
                row = int(i if columns.rows is None else columns.rows[i])
                refused.append((int(lines[i]), block.raw(row), reasons[i], ""))
            extra = len(columns.ts) - len(block.frame)
            report.read += extra
            refused += self._store(found.kind, columns, lines, ~bad, block, report)
        self._quarantine(refused, found.kind, path, load_id, report)

    def _quarantine(
        self,
        refused: list[tuple[int, str, str, str]],
        kind: str,
        path: Path,
        load_id: int,
        report: Report,
    ) -> None:
        if not refused:
            return
        report.quarantined += len(refused)
        with self.conn.cursor() as cursor:
            cursor.executemany(
                "insert into market.quarantine (load_id, kind, file, line, reason, detail, raw)"
                " values (%s, %s, %s, %s, %s, nullif(%s, ''), %s) on conflict do nothing",
                [
                    (load_id, kind, str(path), line, reason, detail, raw.replace("\0", ""))
                    for line, raw, reason, detail in refused
                ],
            )

    def _store(
        self,
        kind: str,
        columns: Columns,
        lines: npt.NDArray[np.int64],
        good: npt.NDArray[np.bool_],
        block: Block | None,
        report: Report,
    ) -> list[tuple[int, str, str, str]]:
        """Good rows into their table; returns those refused as duplicates with other content."""
        refused: list[tuple[int, str, str, str]] = []
        for instrument, rows in _by_instrument(columns, good):
            symbol = self.register.symbol(instrument)
            values = _values(kind, columns, rows, self.options)
            refused += self._insert(kind, symbol, values, lines[rows], rows, columns, block, report)
        return refused

    def _insert(
        self,
        kind: str,
        symbol: str,
        values: dict[str, Any],
        lines: npt.NDArray[np.int64],
        rows: npt.NDArray[np.int64],
        columns: Columns,
        block: Block | None,
        report: Report,
    ) -> list[tuple[int, str, str, str]]:
        table = TABLES[kind]
        n = len(lines)
        names = [*table.key, "known_at", "received_at", *table.content]
        values["symbol"] = Text(symbol)
        # Rows after all that is there can go straight in; the rest has to look for its like.
        newest = self.conn.execute(
            sql.SQL("select max(ts) from {} where symbol = %s and ts >= %s").format(
                sql.Identifier(*table.name.split("."))
            ),
            (symbol, _datetime(int(values["ts"].min()))),
        ).fetchone()
        unique = _unique(values, table.key)
        if newest is not None and newest[0] is None and unique:
            report.loaded += pgcopy.copy(self.conn, table.name, names, _batches(values, names, n))
            return []
        return self._merge(table, names, values, lines, rows, columns, block, report)

    def _merge(
        self,
        table: Table,
        names: list[str],
        values: dict[str, Any],
        lines: npt.NDArray[np.int64],
        rows: npt.NDArray[np.int64],
        columns: Columns,
        block: Block | None,
        report: Report,
    ) -> list[tuple[int, str, str, str]]:
        target = sql.Identifier(*table.name.split("."))
        stage = sql.Identifier(f"_load_{table.name.split('.')[1]}")
        listed = sql.SQL(", ").join(map(sql.Identifier, names))
        self.conn.execute(
            sql.SQL(
                "create temporary table if not exists {} on commit delete rows as"
                " select {}, 0::bigint as line from {} with no data"
            ).format(stage, listed, target)
        )
        self.conn.execute(sql.SQL("truncate pg_temp.{}").format(stage))
        values = {**values, "line": np.arange(len(lines), dtype=np.int64)}
        pgcopy.copy(
            self.conn,
            f"pg_temp._load_{table.name.split('.')[1]}",
            [*names, "line"],
            _batches(values, [*names, "line"], len(lines)),
        )
        done = self.conn.execute(
            sql.SQL(
                "insert into {} ({}) select {} from pg_temp.{} order by line on conflict do nothing"
            ).format(target, listed, listed, stage)
        )
        report.loaded += done.rowcount
        if done.rowcount == len(lines):
            return []
        on = sql.SQL(" and ").join(
            sql.SQL("s.{0} = t.{0}").format(sql.Identifier(name)) for name in table.key
        )
        same = sql.SQL(" or ").join(
            sql.SQL("s.{0} is distinct from t.{0}").format(sql.Identifier(name))
            for name in table.content
        )
        different = [
            line
            for (line,) in self.conn.execute(
                sql.SQL(
                    "select s.line from pg_temp.{} s join {} t on {} where {} order by s.line"
                ).format(stage, target, on, same)
            ).fetchall()
        ]
        report.duplicate += len(lines) - done.rowcount - len(different)
        if different and self.options.correct:
            settings = sql.SQL(", ").join(
                sql.SQL("{0} = s.{0}").format(sql.Identifier(name)) for name in table.content
            )
            corrected = self.conn.execute(
                sql.SQL(
                    "update {} t set {} from pg_temp.{} s where {} and s.line = any(%s)"
                ).format(target, settings, stage, on),
                (different,),
            )
            report.corrected += corrected.rowcount
            return []
        refused = []
        for i in different:
            row = int(rows[i] if columns.rows is None else columns.rows[rows[i]])
            raw = block.raw(row) if block is not None else ""
            refused.append(
                (
                    int(lines[i]),
                    raw,
                    "duplicate with other content",
                    "load with --correct to replace",
                )
            )
        return refused

    # --- streams -------------------------------------------------------------------------------

    def _feed_block(
        self,
        feed: feeds.Feed,
        lines: list[bytes],
        first: int,
        path: Path,
        load_id: int,
        report: Report,
    ) -> None:
        refused = []
        for i, line in enumerate(lines):
            if not line.strip():
                continue
            report.read += 1
            problem = feed.take(line)
            if problem:
                refused.append((first + i, line.decode("utf-8", "replace"), problem, ""))
        self._feed_store(feed, path, load_id, report)
        self._quarantine(refused, "book_feed", path, load_id, report)

    def _feed_store(self, feed: feeds.Feed, path: Path, load_id: int, report: Report) -> None:
        for kind, columns in feed.columns():
            lines = np.zeros(len(columns.ts), dtype=np.int64)
            reasons = check(kind, columns, lines)
            bad = np.array([bool(reason) for reason in reasons])
            if bad.any():
                refused = [(int(i), f"{kind} row", reasons[i], "") for i in np.flatnonzero(bad)]
                self._quarantine(refused, kind, path, load_id, report)
            self._store(kind, columns, lines, ~bad, None, report)
        for instrument, ts, stream, expected, received in feed.gaps():
            self.conn.execute(
                "insert into market.sequence_gaps values (%s, %s, %s, %s, %s, %s)"
                " on conflict do nothing",
                (
                    self.register.symbol(instrument),
                    _datetime(ts),
                    stream,
                    expected,
                    received,
                    load_id,
                ),
            )
        report.counters = feed.counters

    def _feed_end(self, feed: feeds.Feed, path: Path, load_id: int, report: Report) -> None:
        feed.flush()
        self._feed_store(feed, path, load_id, report)


def _position(stream: Any) -> int:
    raw = getattr(stream, "fileobj", None) or getattr(stream, "_fileobj", None) or stream
    try:
        return int(raw.tell())
    except (OSError, AttributeError, ValueError):
        return 0


def _datetime(micros_2000: int) -> Any:
    import datetime as dt

    return dt.datetime(2000, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=micros_2000)


def file_hash(path: Path) -> bytes:
    """SHA-256 of the file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def check(kind: str, columns: Columns, lines: npt.NDArray[np.int64]) -> list[str]:
    """For each row the reason why it is refused, or ''."""
    del lines
    n = len(columns.ts)
    v = columns.values
    reasons = np.full(n, "", dtype=object)

    def refuse(mask: npt.NDArray[np.bool_], reason: str) -> None:
        reasons[mask & (reasons == "")] = reason

    now = time.time() * 1e6
    end = columns.ts + (v["timeframe"] * 1e6 if kind == "candles" else 0.0)
    with np.errstate(invalid="ignore"):
        refuse(~np.isfinite(columns.ts) | (columns.ts <= 0), "unparsable time")
        refuse(end > now + FUTURE, "future time")
        if kind == "candles":
            refuse(~np.isfinite(v["timeframe"]), "bar length not known (--timeframe)")
            prices = np.stack([v[name] for name in ("open", "high", "low", "close")])
            refuse(~np.isfinite(prices).all(axis=0), "unparsable price")
            refuse(np.asarray((prices <= 0).any(axis=0)), "price not positive")
            refuse(v["high"] < v["low"], "high below low")
            refuse(
                (v["open"] > v["high"])
                | (v["open"] < v["low"])
                | (v["close"] > v["high"])
                | (v["close"] < v["low"]),
                "open or close outside the bar's range",
            )
            refuse(~np.isfinite(v["volume"]), "unparsable volume")
            refuse(v["volume"] < 0, "negative volume")
        elif kind in ("trades", "liquidations"):
            refuse(~np.isfinite(v["price"]), "unparsable price")
            refuse(v["price"] <= 0, "price not positive")
            refuse(~np.isfinite(v["size"]), "unparsable size")
            refuse(v["size"] <= 0, "size not positive")
            refuse(~np.isfinite(v["sign"]), "unknown side")
        elif kind == "order_book":
            bid, ask = v["bid_prices"][:, 0], v["ask_prices"][:, 0]
            refuse(~np.isfinite(bid) & ~np.isfinite(ask), "empty book")
            refuse(bid >= ask, "crossed book")
            for side in ("bid", "ask"):
                refuse((v[f"{side}_prices"] <= 0).any(axis=1), "price not positive")
                refuse((v[f"{side}_sizes"] < 0).any(axis=1), "negative size")
        elif kind == "funding":
            refuse(~np.isfinite(v["rate"]), "unparsable rate")
            refuse(np.abs(v["rate"]) > 0.5, "funding rate beyond 50 %")
        else:
            some = np.zeros(n, dtype=bool)
            for name in ("open_interest", "value"):
                if name in v:
                    some |= np.isfinite(v[name])
                    refuse(v[name] < 0, "negative open interest")
            refuse(~some, "unparsable open interest")
    return list(reasons)


def _by_instrument(
    columns: Columns, good: npt.NDArray[np.bool_]
) -> Iterator[tuple[Instrument, npt.NDArray[np.int64]]]:
    rows = np.flatnonzero(good)
    if len(rows) == 0:
        return
    if columns.instrument is not None:
        yield columns.instrument, rows
        return
    assert columns.instruments is not None
    names = columns.instruments[rows]
    for instrument in sorted(set(names), key=lambda i: (i.exchange, i.native)):
        yield instrument, rows[names == instrument]


def _values(
    kind: str, columns: Columns, rows: npt.NDArray[np.int64], options: Options
) -> dict[str, Any]:
    """The table's columns for some rows; times in microseconds since 2000."""
    ts = np.rint(columns.ts[rows]).astype(np.int64) - EPOCH_2000
    v = {name: value[rows] for name, value in columns.values.items()}
    closed = ts.copy()
    values: dict[str, Any] = {"ts": ts}
    if kind == "candles":
        length = np.rint(v["timeframe"] * 1e6).astype(np.int64)
        closed = ts + length
        values["timeframe"] = length
        for name in TABLES[kind].content:
            values[name] = v.get(name)
    elif kind in ("trades", "liquidations"):
        values |= {"price": v["price"], "size": v["size"], "side": v["sign"]}
        values["trade_id" if kind == "trades" else "event_id"] = v["id"]
        if kind == "liquidations":
            values["notional"] = v["price"] * v["size"]
    elif kind == "order_book":
        values |= {name: v[name] for name in ("bid_prices", "bid_sizes", "ask_prices", "ask_sizes")}
        values["sequence"] = v.get("sequence", np.zeros(len(ts), dtype=np.int64))
        values["after_gap"] = v.get("after_gap", np.zeros(len(ts), dtype=bool))
    elif kind == "funding":
        values["rate"] = v["rate"]
        interval = v.get("interval")
        values["funding_interval"] = (
            None if interval is None else np.rint(interval * 1e6).astype(np.int64)
        )
    else:
        values |= {name: v.get(name) for name in ("open_interest", "value")}
    values["received_at"] = None
    if columns.received is not None:
        received = np.rint(columns.received[rows]).astype(np.int64) - EPOCH_2000
        values["received_at"] = received
        values["known_at"] = np.maximum(closed, received)
    elif options.live:
        now = round(time.time() * 1e6) - EPOCH_2000
        values["known_at"] = np.maximum(closed, now)
    else:
        values["known_at"] = closed + round(options.lag * 1e6)
    return values


def _unique(values: dict[str, Any], key: tuple[str, ...]) -> bool:
    parts = [values[name] for name in key if name != "symbol"]
    frame = pd.DataFrame({str(i): part for i, part in enumerate(parts)})
    return not frame.duplicated().any()


def _batches(values: dict[str, Any], names: list[str], n: int) -> list[tuple[dict[str, Any], int]]:
    """Rows in groups that binary COPY can lay out at once: same text widths, sides and nulls."""
    group = np.zeros(n, dtype=np.int64)

    def split(labels: npt.NDArray[Any]) -> None:
        nonlocal group
        _, codes = np.unique(labels, return_inverse=True)
        group = group * (codes.max(initial=0) + 1) + codes
        _, group = np.unique(group, return_inverse=True)

    for name in names:
        value = values[name]
        if not isinstance(value, np.ndarray):
            continue
        if name in ("trade_id", "event_id"):
            split(np.char.str_len(value))
        elif name in ("side", "timeframe", "funding_interval"):
            split(value)
        elif value.ndim == 2:
            split(np.isfinite(value).sum(axis=1))
        elif value.dtype.kind == "f":
            split(np.isfinite(value))
    out = []
    for code in range(int(group.max(initial=-1)) + 1):
        keep = group == code
        columns: dict[str, Any] = {}
        for name in names:
            value = values[name]
            if not isinstance(value, np.ndarray):
                columns[name] = value
                continue
            part = value[keep]
            if name in ("trade_id", "event_id"):
                encoded = np.char.encode(part.astype(str), "utf-8")
                columns[name] = Text(encoded)
            elif name == "side":
                columns[name] = Text("buy" if part[0] > 0 else "sell")
            elif name in ("timeframe", "funding_interval"):
                columns[name] = Interval(int(part[0]))
            elif part.ndim == 2:
                width = int(np.isfinite(part[0]).sum())
                columns[name] = part[:, :width]
            elif name == "trade_count":
                columns[name] = None if not np.isfinite(part[0]) else part.astype(np.int64)
            elif part.dtype.kind == "f" and not np.isfinite(part[0]):
                columns[name] = None
            else:
                columns[name] = part
        out.append((columns, int(keep.sum())))
    return out
