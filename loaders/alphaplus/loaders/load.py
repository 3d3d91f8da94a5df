"""Files into ``market.*``: streamed, checked, idempotent, resumable.

A file is read in blocks. Each block is parsed, its bad rows go to ``market.quarantine`` with line
and reason, its good ones into their table, and how far the file is loaded is written down, all in
one transaction: a load that is killed goes on where its last committed block ended, with nothing
lost or doubled. Memory does not grow with the file.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import io
import json
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import psycopg
from alphaplus.loaders import feeds, pgcopy
from alphaplus.loaders.formats import (
    BOOK_LEVELS,
    ID_COLUMNS,
    Columns,
    Context,
    Format,
    UnknownFormat,
    detect,
    tardis_funding,
    text,
)
from alphaplus.loaders.instruments import Instrument, Register
from alphaplus.loaders.pgcopy import Interval, Ragged, Text
from psycopg import sql

Floats = npt.NDArray[np.float64]
Refused = tuple[int, str, str, str]  # line, raw text, reason, detail

BLOCK = 4 * 2**20
PARQUET_ROWS = 50_000
EPOCH_2000 = 946_684_800 * 1_000_000
FUTURE = 60 * 1_000_000  # clocks differ; a minute ahead is not yet the future
# No price, size or turnover is beyond it, and what is made of such numbers fits a double.
LARGEST = 1e30
KINDS = (
    "auto",
    "candles",
    "trades",
    "order_book",
    "book_feed",
    "liquidations",
    "funding",
    "open_interest",
)


class TooManyBad(Exception):
    """More rows were refused than the user allows."""


class DamagedFile(Exception):
    """The file cannot be read to its end."""


class LoadRunning(Exception):
    """Another session loads the same file."""


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
    instrument_kind: str | None = None
    again: bool = False
    block: int = BLOCK

    def meaning(self) -> dict[str, Any]:
        """Those options that decide what a file's rows become."""
        apart = {"max_bad", "block", "again", "correct"}
        return {name: value for name, value in vars(self).items() if name not in apart}


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
    """Some rows of a file: a frame, their line numbers (from 1), their text for the quarantine."""

    frame: pd.DataFrame
    lines: npt.NDArray[np.int64]
    raw: Callable[[int], str]
    broken: list[tuple[int, str, str]] = field(default_factory=list)  # line, text, reason
    last_line: int = 0


@dataclass(frozen=True)
class Source:
    """One table or stream: a file, or one member of a zip archive."""

    file: Path
    member: str | None = None

    @property
    def name(self) -> str:
        """What market.loads and market.quarantine call it."""
        return f"{self.file}!{self.member}" if self.member else str(self.file)

    def open(self) -> IO[bytes]:
        """Its bytes, out of zip and gzip."""
        if zipfile.is_zipfile(self.file):
            archive = zipfile.ZipFile(self.file)
            members = _members(archive)
            if not members:
                raise zipfile.BadZipFile("no file in the archive")
            try:
                return archive.open(self.member or members[0])
            except RuntimeError as error:  # encrypted
                raise zipfile.BadZipFile(str(error)) from None
        with self.file.open("rb") as probe:
            head = probe.read(4)
        if head == b"PK\x03\x04":
            raise zipfile.BadZipFile("the end of the archive is missing")
        packed = head[:2] == b"\x1f\x8b"
        return gzip.open(self.file, "rb") if packed else self.file.open("rb")  # type: ignore[return-value]


def _members(archive: zipfile.ZipFile) -> list[str]:
    return [name for name in archive.namelist() if not name.endswith("/")]


def sources(path: Path) -> list[Source]:
    """What is to be read of a file: itself, or each member of a zip archive of several."""
    path = path.resolve()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            members = _members(archive)
        if len(members) > 1:
            return [Source(path, member) for member in members]
    return [Source(path)]


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

    def parsed(kinds: Any) -> pd.DataFrame:
        return pd.read_csv(
            io.BytesIO(buffer),
            header=None,
            names=names,
            dtype=kinds,
            index_col=False,
            skip_blank_lines=False,
            low_memory=False,
            encoding_errors="replace",
            on_bad_lines="error",
        )

    try:
        frame = parsed({})
        ids = {name: str for name in ID_COLUMNS if name in frame and frame[name].dtype.kind == "f"}
        if ids:
            frame = parsed(ids)
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

    lock_wait = 10.0  # seconds until a file that another session loads is given up

    def __init__(
        self, conn: psycopg.Connection[Any], options: Options | None = None, progress: Any = None
    ) -> None:
        self.conn = conn
        self.options = options or Options()
        self.register = Register(conn)
        self.progress = progress or (lambda report, share: None)
        self.begun: list[Report] = []  # of the files of this load, also of one that failed

    def load(self, path: Path) -> Report:
        """Load one file; of an archive all members.

        Raises:
            UnknownFormat: no format fits.
            TooManyBad: more rows refused than allowed; what was good up to there is loaded.
            LoadRunning: another session loads the same file.
        """
        digest = file_hash(path)
        reports = [self._load(source, digest) for source in sources(path)]
        if len(reports) == 1:
            return reports[0]
        whole = Report(str(path), f"{len(reports)} files", skipped=all(r.skipped for r in reports))
        for report in reports:
            whole.kind = report.kind
            for name in ("read", "loaded", "duplicate", "corrected", "quarantined"):
                setattr(whole, name, getattr(whole, name) + getattr(report, name))
        return whole

    def _load(self, source: Source, digest: bytes) -> Report:
        report = Report(source.name)
        self.begun.append(report)
        lock = f"alphaplus.load:{source.name}"
        self._lock(lock, source)
        try:
            load_id, resume, state = self._begin(source, digest, report)
            if load_id is None:
                report.skipped = True
                return report
            try:
                if source.file.suffix == ".parquet":
                    self._parquet(source, load_id, resume, report)
                else:
                    self._lines(source, load_id, resume, state, report)
            except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
                self._end(load_id, "failed", str(error) or type(error).__name__)
                raise DamagedFile(
                    f"{source.name} is damaged ({error}); {report.read} rows up to there are"
                    " loaded. Load it again once it is whole"
                ) from None
            except BaseException as error:
                status = "failed" if isinstance(error, Exception) else "interrupted"
                with contextlib.suppress(psycopg.OperationalError):
                    self._end(load_id, status, str(error) or type(error).__name__)
                raise
            self._end(load_id, "done", None)
            return report
        finally:
            with contextlib.suppress(psycopg.OperationalError):
                self.conn.execute("select pg_advisory_unlock(hashtextextended(%s, 0))", (lock,))

    def _lock(self, lock: str, source: Source) -> None:
        """Waits a little: the session of a load just killed takes a moment to end."""
        deadline = time.monotonic() + self.lock_wait
        while self.conn.execute(
            "select pg_try_advisory_lock(hashtextextended(%s, 0))", (lock,)
        ).fetchone() != (True,):
            if time.monotonic() > deadline:
                raise LoadRunning(f"{source.name} is being loaded by another session")
            time.sleep(0.1)

    # --- the log of loads ----------------------------------------------------------------------

    def _begin(
        self, source: Source, digest: bytes, report: Report
    ) -> tuple[int | None, int, dict[str, Any] | None]:
        """(load id, line to go on after, state); no id: the file was loaded before.

        The same file with the same options goes on where it stopped. Nobody else loads it: the
        advisory lock is held, so a load that is still called running was killed.
        """
        options = json.dumps(self.options.meaning())
        row = self.conn.execute(
            "select load_id, status, resume_line, resume_state, rows_read, rows_loaded,"
            " rows_duplicate, rows_quarantined, format from market.loads"
            " where file = %s and file_sha256 = %s and options = %s::jsonb"
            " order by load_id desc limit 1",
            (source.name, digest, options),
        ).fetchone()
        if row and row[1] == "done" and not (self.options.correct or self.options.again):
            report.read, report.duplicate = row[4], row[5] + row[6]
            report.quarantined, report.format = row[7], row[8] or ""
            return None, 0, None
        if row and row[1] != "done":
            report.read, report.loaded, report.duplicate, report.quarantined = row[4:8]
            self.conn.execute(
                "update market.loads set status = 'running', error = null where load_id = %s",
                (row[0],),
            )
            return row[0], row[2], row[3]
        new = self.conn.execute(
            "insert into market.loads (kind, file, file_sha256, options)"
            " values (%s, %s, %s, %s) returning load_id",
            (self.options.kind, source.name, digest, options),
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
            (status, error and error.replace("\0", "\\0"), load_id),
        )

    # --- reading -------------------------------------------------------------------------------

    def _context(self, source: Source) -> Context:
        o = self.options
        path = Path(source.member) if source.member else source.file
        return Context(path, o.exchange, o.symbol, o.timeframe, o.volume_unit, o.instrument_kind)

    def _lines(
        self,
        source: Source,
        load_id: int,
        resume: int,
        state: dict[str, Any] | None,
        report: Report,
    ) -> None:
        context = self._context(source)
        total = max(source.file.stat().st_size, 1)
        with source.open() as stream:
            number = 0
            layout: _Layout | None = None
            for lines in blocks_of_lines(stream, self.options.block):
                first = number + 1
                number += len(lines)
                if layout is None:
                    head = next((i for i, line in enumerate(lines) if line.strip()), None)
                    if head is None:
                        continue
                    layout = self._layout(lines[head], context, state, report)
                    if layout.header:
                        lines, first = lines[head + 1 :], first + head + 1
                    if isinstance(layout.reader, Format):
                        start = parse_lines(lines, first, layout.names).frame
                        context = _settled(layout.reader, start, context)
                if number <= resume:
                    continue
                skip = max(0, resume - first + 1)
                lines, first = lines[skip:], first + skip
                with self.conn.transaction():
                    if isinstance(layout.reader, feeds.Feed):
                        self._feed_block(layout.reader, lines, first, load_id, report)
                    elif isinstance(layout.reader, feeds.RowBooks):
                        block = parse_lines(lines, first, layout.names)
                        self._book_rows(layout.reader, block, load_id, report)
                    else:
                        block = parse_lines(lines, first, layout.names)
                        self._block(block, layout.reader, context, load_id, report)
                    self._save(load_id, number, layout.state(), report)
                self._check_bad(report)
                self.progress(report, min(1.0, _position(stream) / total))
            if layout is not None and isinstance(layout.reader, feeds.RowBooks):
                with self.conn.transaction():
                    layout.reader.end()
                    self._store_made(layout.reader, lambda line: "", load_id, report)
                    self._save(load_id, number, layout.state(), report)

    def _layout(
        self, head: bytes, context: Context, state: dict[str, Any] | None, report: Report
    ) -> _Layout:
        o = self.options
        if feeds.looks_like(head):
            if o.kind not in ("auto", "book_feed", "order_book", "trades", "liquidations"):
                raise UnknownFormat(f"{context.path.name} is a recorded stream, not {o.kind}")
            report.format, report.kind = "json stream", "book_feed"
            return _Layout(feeds.Feed(context, o.levels, o.every, state), [], header=False)
        cells = [
            cell.split("/")[0].strip() if not cell.isascii() else cell.strip()  # OKX: name/名
            for cell in next(csv.reader([head.decode("utf-8-sig", "replace").rstrip("\r")]), [])
        ]
        rowwise = {
            "binance": ({"first_update_id", "update_type", "qty"}, "binance depth snapshot"),
            "tardis": ({"is_snapshot", "local_timestamp"}, "tardis incremental_book_L2"),
        }
        for kind, (needs, name) in rowwise.items():
            if needs <= set(cells):
                report.format, report.kind = name, "order_book"
                books = feeds.RowBooks(kind, context, o.levels, o.every, state)
                return _Layout(books, cells, header=True)
        wanted = {"auto": None, "book_feed": "order_book"}.get(o.kind, o.kind)
        found, header = detect(cells, context, wanted)
        report.format, report.kind = found.name, found.kind
        return _Layout(found, cells if header else list(found.names[: len(cells)]), header=header)

    def _parquet(self, source: Source, load_id: int, resume: int, report: Report) -> None:
        import pyarrow.parquet as pq

        context = self._context(source)
        try:
            file = pq.ParquetFile(source.file)
        except ValueError as error:  # pyarrow's own errors are such
            raise EOFError(str(error)) from None
        kind = None if self.options.kind == "auto" else self.options.kind
        found, _ = detect(file.schema_arrow.names, context, kind)
        report.format, report.kind = found.name, found.kind
        number = 0
        for batch in file.iter_batches(PARQUET_ROWS):
            first, number = number + 1, number + batch.num_rows
            if first == 1:
                context = _settled(found, batch.to_pandas(), context)
            if number <= resume:
                continue
            frame = batch.to_pandas()
            lines = np.arange(first, number + 1, dtype=np.int64)
            block = Block(frame, lines, lambda i, f=frame: f.iloc[i].to_json(date_format="iso"))  # type: ignore[misc]
            with self.conn.transaction():
                self._block(block, found, context, load_id, report)
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
        self, block: Block, found: Format, context: Context, load_id: int, report: Report
    ) -> None:
        refused = [(line, raw, "unparsable", why) for line, raw, why in block.broken]
        report.read += len(block.frame) + len(block.broken)
        if len(block.frame):
            columns = _read(found, block.frame, context)
            if found.read is tardis_funding:
                columns = _last_before_paid(columns, block.frame)
                report.read += len(columns.ts) - len(block.frame)
            refused += self._checked(found.kind, columns, block.lines, block.raw, report)
        self._quarantine(refused, found.kind, load_id, report)

    def _checked(
        self,
        kind: str,
        columns: Columns,
        lines: npt.NDArray[np.int64],
        raw: Callable[[int], str],
        report: Report,
    ) -> list[Refused]:
        """Good rows into their table; returns the others. ``lines`` and ``raw``: by input row."""
        rows = np.arange(len(columns.ts)) if columns.rows is None else columns.rows
        reasons = check(kind, columns)
        if columns.instruments is not None:
            for instrument in set(columns.instruments):
                if not instrument.native:
                    for i in np.flatnonzero(columns.instruments == instrument):
                        reasons[i] = reasons[i] or "no symbol"
        elif columns.instrument is not None and not columns.instrument.native:
            reasons = [reason or "no symbol" for reason in reasons]
        bad = np.array([bool(reason) for reason in reasons], dtype=bool)
        refused = [
            (int(lines[rows[i]]), raw(int(rows[i])), reasons[i], "") for i in np.flatnonzero(bad)
        ]
        for instrument, part in _by_instrument(columns, ~bad):
            symbol = self.register.symbol(instrument)
            values = _values(kind, columns, part, self.options)
            different = self._insert(kind, symbol, values, report)
            refused += [
                (int(lines[rows[i]]), raw(int(rows[i])), "duplicate with other content",
                 "load with --correct to replace the row that is there")
                for i in part[different]
            ]  # fmt: skip
        return refused

    def _quarantine(self, refused: list[Refused], kind: str, load_id: int, report: Report) -> None:
        if not refused:
            return
        report.quarantined += len(refused)
        with self.conn.cursor() as cursor:
            cursor.executemany(
                "insert into market.quarantine (load_id, kind, file, line, reason, detail, raw)"
                " values (%s, %s, %s, %s, %s, nullif(%s, ''), %s) on conflict do nothing",
                [
                    (load_id, kind, report.file, line, reason, detail, raw.replace("\0", ""))
                    for line, raw, reason, detail in refused
                ],
            )

    def _insert(
        self, kind: str, symbol: str, values: dict[str, Any], report: Report
    ) -> npt.NDArray[np.int64]:
        """Rows of one symbol; returns the positions of duplicates with other content."""
        table = TABLES[kind]
        n = len(values["ts"])
        names = [*table.key, "known_at", "received_at", *table.content]
        columns = _encoded({**values, "symbol": symbol})
        # Rows after all that is there can go straight in; others have to look for their like.
        newest = self.conn.execute(
            sql.SQL("select max(ts) from {} where symbol = %s and ts >= %s").format(
                sql.Identifier(*table.name.split("."))
            ),
            (symbol, _datetime(int(values["ts"].min()))),
        ).fetchone()
        if newest == (None,) and _unique(values, table.key):
            report.loaded += pgcopy.copy(self.conn, table.name, names, [(columns, n)])
            return np.zeros(0, dtype=np.int64)
        return self._merge(table, names, columns, n, report)

    def _merge(
        self, table: Table, names: list[str], columns: dict[str, Any], n: int, report: Report
    ) -> npt.NDArray[np.int64]:
        target = sql.Identifier(*table.name.split("."))
        name = f"_load_{table.name.split('.')[1]}"
        stage = sql.Identifier("pg_temp", name)
        listed = sql.SQL(", ").join(map(sql.Identifier, names))
        key = sql.SQL(", ").join(sql.Identifier("s", part) for part in table.key)
        on = sql.SQL(" and ").join(
            sql.SQL("s.{0} = t.{0}").format(sql.Identifier(part)) for part in table.key
        )
        differs = sql.SQL(" or ").join(
            sql.SQL("s.{0} is distinct from t.{0}").format(sql.Identifier(part))
            for part in table.content
        )
        self.conn.execute(
            sql.SQL(
                "create temporary table if not exists {} on commit delete rows as"
                " select {}, 0::bigint as position from {} with no data"
            ).format(sql.Identifier(name), listed, target)
        )
        self.conn.execute(sql.SQL("truncate {}").format(stage))
        staged = {**columns, "position": np.arange(n, dtype=np.int64)}
        pgcopy.copy(self.conn, f"pg_temp.{name}", [*names, "position"], [(staged, n)])
        done = self.conn.execute(
            sql.SQL(
                "insert into {} ({}) select {} from {} order by position on conflict do nothing"
            ).format(target, listed, listed, stage)
        )
        report.loaded += done.rowcount
        if done.rowcount == n:
            return np.zeros(0, dtype=np.int64)
        different = [
            position
            for (position,) in self.conn.execute(
                sql.SQL(
                    "select s.position from {} s join {} t on {} where {} order by s.position"
                ).format(stage, target, on, differs)
            ).fetchall()
        ]
        if different and self.options.correct:
            # Of several rows of one key the last one counts.
            settings = sql.SQL(", ").join(
                sql.SQL("{0} = s.{0}").format(sql.Identifier(part)) for part in table.content
            )
            corrected = self.conn.execute(
                sql.SQL(
                    "update {} t set {} from"
                    " (select distinct on ({}) s.* from {} s order by {}, s.position desc) s"
                    " where {} and ({})"
                ).format(target, settings, key, stage, key, on, differs)
            )
            report.corrected += corrected.rowcount
            report.duplicate += n - done.rowcount - corrected.rowcount
            return np.zeros(0, dtype=np.int64)
        report.duplicate += n - done.rowcount - len(different)
        return np.array(different, dtype=np.int64)

    # --- streams and books told level by level -------------------------------------------------

    def _feed_block(
        self, feed: feeds.Feed, lines: list[bytes], first: int, load_id: int, report: Report
    ) -> None:
        refused: list[Refused] = []
        for i, line in enumerate(lines):
            if not line.strip():
                continue
            report.read += 1
            problem = feed.take(line, first + i)
            if problem:
                refused.append((first + i, line.decode("utf-8", "replace"), problem, ""))
        self._quarantine(refused, "book_feed", load_id, report)

        def raw(line: int) -> str:
            at = line - first
            return lines[at].decode("utf-8", "replace") if 0 <= at < len(lines) else ""

        self._store_made(feed, raw, load_id, report)

    def _book_rows(self, books: feeds.RowBooks, block: Block, load_id: int, report: Report) -> None:
        refused = [(line, raw, "unparsable", why) for line, raw, why in block.broken]
        report.read += len(block.frame) + len(block.broken)
        if len(block.frame):
            bad = books.take(block.frame, block.lines)
            refused += [(int(block.lines[i]), block.raw(i), why, "") for i, why in bad.items()]
        self._quarantine(refused, "order_book", load_id, report)
        where = {int(line): i for i, line in enumerate(block.lines)}
        self._store_made(
            books,
            lambda line: block.raw(where[line]) if line in where else "",
            load_id,
            report,
        )

    def _store_made(
        self,
        maker: feeds.Feed | feeds.RowBooks,
        raw: Callable[[int], str],
        load_id: int,
        report: Report,
    ) -> None:
        for kind, columns, lines in maker.columns():
            at = lines
            refused = self._checked(kind, columns, at, lambda i, at=at: raw(int(at[i])), report)  # type: ignore[misc]
            self._quarantine(refused, kind, load_id, report)
        for instrument, ts, stream, expected, received in maker.gaps():
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
        report.counters = maker.counters


@dataclass
class _Layout:
    """What a file turned out to be: its reader, its columns' names, whether a header tells them."""

    reader: Format | feeds.Feed | feeds.RowBooks
    names: list[str]
    header: bool

    def state(self) -> dict[str, Any] | None:
        """What a later run needs to go on, besides the line."""
        return None if isinstance(self.reader, Format) else self.reader.state()


def _read(found: Format, frame: pd.DataFrame, context: Context) -> Columns:
    try:
        return found.read(frame, context)
    except KeyError as error:
        raise UnknownFormat(
            f"{context.path.name} looks like {found.name}, but has no column {error};"
            f" its columns: {', '.join(map(str, frame.columns))}"
        ) from None


def _settled(found: Format, frame: pd.DataFrame, context: Context) -> Context:
    """With what the first rows of a file of candles say of all of them: length, unit of volume."""
    if found.kind != "candles" or frame.empty:
        return context
    values = _read(found, frame, context).values
    length = float(values["timeframe"][0])
    unit = "quote" if "quote_volume" in values else "base"
    return replace(
        context,
        timeframe=context.timeframe or (length if np.isfinite(length) else None),
        volume_unit=unit if context.volume_unit == "auto" else context.volume_unit,
    )


def _last_before_paid(columns: Columns, frame: pd.DataFrame) -> Columns:
    """Of a ticker's rows those after which the time of payment moves on: the rate that was paid.

    The last rows of a block stay out unless theirs is past, as the rate may still move.
    """
    names = np.char.add(np.char.add(text(frame["exchange"]), "|"), text(frame["symbol"]))
    rows = pd.DataFrame({"name": names, "due": columns.ts})
    following = rows.groupby("name")["due"].shift(-1).to_numpy()
    keep = np.flatnonzero((following > columns.ts) | ~np.isfinite(columns.ts))
    return Columns(
        columns.ts[keep],
        {name: value[keep] for name, value in columns.values.items()},
        columns.instrument,
        None if columns.instruments is None else columns.instruments[keep],
        None if columns.received is None else columns.received[keep],
        keep,
    )


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


def check(kind: str, columns: Columns) -> list[str]:
    """For each row the reason why it is refused, or ''."""
    n = len(columns.ts)
    v = columns.values
    reasons = np.full(n, "", dtype=object)

    def refuse(mask: Any, reason: str) -> None:
        reasons[np.asarray(mask) & (reasons == "")] = reason

    now = time.time() * 1e6
    end = columns.ts + (v["timeframe"] * 1e6 if kind == "candles" else 0.0)
    with np.errstate(invalid="ignore", over="ignore"):
        refuse(~np.isfinite(columns.ts) | (columns.ts <= 0), "unparsable time")
        refuse(end > now + FUTURE, "future time")
        if columns.received is not None:
            refuse(columns.received > now + FUTURE, "future receive time")
        if kind == "candles":
            refuse(~np.isfinite(v["timeframe"]), "bar length not known (--timeframe)")
            prices = np.stack([v[name] for name in ("open", "high", "low", "close")])
            refuse(~np.isfinite(prices).all(axis=0), "unparsable price")
            refuse((prices <= 0).any(axis=0), "price not positive")
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
            for name in ("quote_volume", "trade_count", "taker_buy_volume"):
                if name in v:
                    refuse(np.isinf(v[name]), f"unparsable {name.replace('_', ' ')}")
                    refuse(v[name] < 0, f"negative {name.replace('_', ' ')}")
            if "taker_buy_volume" in v:
                above = v["taker_buy_volume"] > v["volume"] * (1 + 1e-9)
                refuse(above, "taker buy volume above the volume")
            for name in ("high", "volume", "quote_volume", "trade_count"):
                if name in v:
                    limit = LARGEST if name != "trade_count" else 1e15
                    refuse(v[name] > limit, f"{name.replace('_', ' ')} too large")
        elif kind in ("trades", "liquidations"):
            refuse(~np.isfinite(v["price"]), "unparsable price")
            refuse(v["price"] <= 0, "price not positive")
            refuse(~np.isfinite(v["size"]), "unparsable size")
            refuse(v["size"] <= 0, "size not positive")
            refuse(~np.isfinite(v["sign"]), "unknown side")
            refuse(np.asarray(v["id"]) == "", "no id")
            refuse(v["price"] > LARGEST, "price too large")
            turnover = v["price"] * v["size"]
            refuse((v["size"] > LARGEST) | (turnover > LARGEST), "size too large")
            refuse(turnover <= 0, "size too small")
        elif kind == "order_book":
            bid, ask = v["bid_prices"][:, 0], v["ask_prices"][:, 0]
            refuse(~np.isfinite(bid) | ~np.isfinite(ask), "one-sided book")
            refuse(bid >= ask, "crossed book")
            for side, direction in (("bid", -1.0), ("ask", 1.0)):
                price, size = v[f"{side}_prices"], v[f"{side}_sizes"]
                there = np.isfinite(price)
                refuse((there != np.isfinite(size)).any(axis=1), "unparsable level")
                refuse((~there[:, :-1] & there[:, 1:]).any(axis=1), "unparsable level")
                refuse((price <= 0).any(axis=1), "price not positive")
                refuse((size < 0).any(axis=1), "negative size")
                refuse((price > LARGEST).any(axis=1), "price too large")
                refuse((size > LARGEST).any(axis=1), "size too large")
                refuse((direction * np.diff(price, axis=1) <= 0).any(axis=1), "levels out of order")
        elif kind == "funding":
            refuse(~np.isfinite(v["rate"]), "unparsable rate")
            refuse(np.abs(v["rate"]) > 0.5, "funding rate beyond 50 %")
            if "interval" in v:
                refuse(np.isinf(v["interval"]) | (v["interval"] <= 0), "unparsable interval")
        else:
            some = np.zeros(n, dtype=bool)
            for name in ("open_interest", "value"):
                if name in v:
                    refuse(np.isinf(v[name]), "unparsable open interest")
                    refuse(v[name] > LARGEST, "open interest too large")
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
        values["funding_interval"] = None if interval is None else _whole(interval * 1e6)
    else:
        values |= {name: v.get(name) for name in ("open_interest", "value")}
    values["received_at"] = None
    if columns.received is not None:
        received = _whole(columns.received[rows] - EPOCH_2000)
        values["received_at"] = received
        values["known_at"] = np.where(received.mask, closed, np.maximum(closed, received.data))
    elif options.live:
        now = round(time.time() * 1e6) - EPOCH_2000
        values["known_at"] = np.maximum(closed, now)
    else:
        values["known_at"] = closed + round(options.lag * 1e6)
    return values


def _whole(values: Floats) -> Any:
    """Integers, masked where there is none."""
    missing = ~np.isfinite(values)
    return np.ma.masked_array(
        np.rint(np.where(missing, 0, values)).astype(np.int64), np.asarray(missing)
    )


def _unique(values: dict[str, Any], key: tuple[str, ...]) -> bool:
    if key == ("symbol", "ts") or bool((np.diff(values["ts"]) > 0).all()):
        return bool(len(np.unique(values["ts"])) == len(values["ts"]))
    parts = [values[name] for name in key if name != "symbol"]
    frame = pd.DataFrame({str(i): part for i, part in enumerate(parts)})
    return not frame.duplicated().any()


def _encoded(values: dict[str, Any]) -> dict[str, Any]:
    """The values as :func:`alphaplus.loaders.pgcopy.rows` takes them; NaN becomes null."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, str):
            out[name] = Text(value)
        elif name in ("trade_id", "event_id"):
            out[name] = Text(np.char.encode(value.astype(str), "utf-8"))
        elif name == "side":
            out[name] = Text(np.where(value > 0, b"buy", b"sell"))
        elif value is None:
            out[name] = None
        elif name in ("timeframe", "funding_interval"):
            out[name] = Interval(value)
        elif value.ndim == 2:
            out[name] = Ragged(value)
        elif value.dtype.kind == "f":
            missing = ~np.isfinite(value)
            if name == "trade_count":
                value = np.where(missing, 0, value).astype(np.int64)
            out[name] = np.ma.masked_array(value, missing)
        else:
            out[name] = value
    return out
