"""Files into ``market.*``: described, streamed, checked, idempotent, resumable.

A file is read in blocks. Before its first row is stored the loader holds a description of it
(:mod:`~alphaplus.loaders.description`); what changes values and is not known is an error. Each
block is parsed, its bad rows go to ``market.quarantine`` with line and reason, its good ones into
their table, and how far the file is loaded is written down, all in one transaction: a load that is
killed goes on where its last committed block ended, with nothing lost or doubled. Memory does not
grow with the file.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import psycopg
from alphaplus.loaders import feeds, files, made_bars, pgcopy, rows, tables
from alphaplus.loaders.description import (
    BadDescription,
    Description,
    Missing,
    Said,
    from_toml,
)
from alphaplus.loaders.files import BROKEN, BeyondLimit, DamagedFile, Limits, Source, file_hash
from alphaplus.loaders.formats import (
    BOOK_LEVELS,
    TWICE,
    Columns,
    Format,
    UnknownFormat,
    detect,
    places,
    tardis_funding,
    text,
)
from alphaplus.loaders.instruments import (
    BadName,
    Instrument,
    OtherContract,
    OtherInstrument,
    Register,
)
from alphaplus.loaders.known_files import published
from alphaplus.loaders.rows import Block, Dialect
from alphaplus.loaders.stamps import BadZone
from alphaplus.loaders.survey import Survey
from alphaplus.loaders.tables import HELD, TABLES, Table, instant
from psycopg import sql

Refused = tuple[int, str, str, str]  # line, raw text, reason, detail

BLOCK = 4 * 2**20
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
# Folders that Binance's archive has of contracts only.
OF_CONTRACTS = ("markPriceKlines", "indexPriceKlines", "premiumIndexKlines")
# What can be wrong with a file, said in one line; other files go on.
FAULTS = (
    UnknownFormat,
    Missing,
    DamagedFile,
    BeyondLimit,
    OtherContract,
    BadDescription,
    BadZone,
    BadName,
)


class TooManyBad(Exception):
    """More rows were refused than the user allows."""


class LoadRunning(Exception):
    """Another session loads the same file."""


class NothingLoaded(Exception):
    """A file of which no row could be stored."""


@dataclass(frozen=True)
class Options:
    """How to load. lag: seconds after its time (a bar: its close) at which history was known.

    since: the first plausible time, in microseconds since 1970.
    """

    kind: str = "auto"
    exchange: str | None = None
    symbol: str | None = None
    timeframe: float | None = None
    unit: str | None = None
    live: bool = False
    lag: float = 0.0
    correct: bool = False
    max_bad: int | None = None
    levels: int = BOOK_LEVELS
    every: float = 1.0
    instrument_kind: str | None = None
    contract_size: float | None = None
    margin: str | None = None
    quote: str | None = None
    tz: str | None = None
    date_format: str | None = None
    columns: tuple[tuple[str, str], ...] | None = None
    series: str | None = None
    negative_prices: bool | None = None
    since: float | None = None
    again: bool = False
    block: int = BLOCK

    def meaning(self) -> dict[str, Any]:
        """Those options that decide what a file's rows become."""
        apart = {"max_bad", "block", "again", "correct"}
        return {
            name: value
            for name, value in vars(self).items()
            if name not in apart and value is not None
        }

    def said(self) -> Said:
        """What they say of the file."""
        return Said(
            self.exchange, self.symbol, self.instrument_kind, self.unit, self.contract_size,
            self.margin, self.quote, self.timeframe, self.tz, self.date_format,
            dict(self.columns) if self.columns else None, self.negative_prices, self.series,
        ).checked()  # fmt: skip


@dataclass
class Report:
    """What became of a file's rows: read = loaded + duplicate + corrected + quarantined + held."""

    file: str
    format: str = ""
    kind: str = ""
    read: int = 0
    loaded: int = 0
    duplicate: int = 0
    corrected: int = 0
    quarantined: int = 0
    held: int = 0
    skipped: bool = False
    counters: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)
    description: dict[str, Any] = field(default_factory=dict)
    summary: list[dict[str, Any]] = field(default_factory=list)
    survey: Survey = field(default_factory=Survey, repr=False)

    def stored(self) -> int:
        """Rows that are in the database now because the file says them."""
        return self.loaded + self.duplicate + self.corrected


# Is every one of some rows there under one other symbol of the asset?
SAME_CANDLES = """
select c.symbol
from unnest(%(ts)s::bigint[], %(a)s::float8[], %(b)s::float8[], %(c)s::float8[]) r (ts, a, b, c)
join market.candles c on c.ts = timestamptz '2000-01-01 00:00+00' + r.ts * interval '1 microsecond'
    and c.close = r.a and c.high = r.b and c.low = r.c
where c.symbol = any(array(select i.symbol from market.instruments i where i.base = %(base)s))
    and c.timeframe = %(width)s * interval '1 microsecond'
group by c.symbol having count(*) = cardinality(%(ts)s::bigint[]) limit 1
"""
SAME_TRADES = """
select t.symbol from unnest(%(ts)s::bigint[], %(a)s::float8[], %(b)s::float8[]) r (ts, a, b)
join market.trades t on t.ts = timestamptz '2000-01-01 00:00+00' + r.ts * interval '1 microsecond'
    and t.price = r.a and t.size = r.b
where t.symbol = any(array(select i.symbol from market.instruments i where i.base = %(base)s))
group by t.symbol having count(distinct t.ts) = cardinality(%(ts)s::bigint[]) limit 1
"""


def _sample(kind: str, instrument: Instrument, found: dict[str, Any]) -> dict[str, Any]:
    """Some rows that tell one market from another: spread over all, of different times, bars that
    moved. Volumes do not count: they depend on how a file's units were understood."""
    ts = found["ts"]
    names = ("close", "high", "low") if kind == "candles" else ("price", "size", "size")
    a, b, c = (np.asarray(found[name], float) for name in names)
    _, chosen = np.unique(ts, return_index=True)
    if kind == "candles":
        chosen = chosen[b[chosen] > c[chosen]]
    if len(chosen) > 8:
        chosen = chosen[np.linspace(0, len(chosen) - 1, 8).astype(int)]
    if len(chosen) < 3:  # two bars may be alike by chance
        chosen = chosen[:0]
    width = int(found["timeframe"][0]) if kind == "candles" and len(ts) else 0
    return {
        "ts": ts[chosen].tolist(), "a": a[chosen].tolist(), "b": b[chosen].tolist(),
        "c": c[chosen].tolist(), "base": instrument.base or instrument.native, "width": width,
    }  # fmt: skip


class Loader:
    """Loads files through one connection. ``dry``: reads and describes them, and stores nothing."""

    lock_wait = 10.0  # seconds until a file that another session loads is given up

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        options: Options | None = None,
        progress: Any = None,
        *,
        dry: bool = False,
    ) -> None:
        self.conn = conn
        self.options = options or Options()
        self.register = Register(conn)
        self.limits = Limits.read(conn)
        self.progress = progress or (lambda report, share: None)
        self.dry = dry
        self.begun: list[Report] = []  # of the files of this load, also of one that failed
        self._newest: dict[tuple[str, int], Any] = {}  # last bar stored before this file
        self._spans: dict[tuple[str, str], int] = {}

    def load(self, path: Path) -> Report:
        """Load one file; of an archive all members, of which a bad one harms no other.

        Raises:
            UnknownFormat: no format fits.
            Missing: a part of its description that changes values is not known.
            DamagedFile: it cannot be read to its end.
            BeyondLimit: it is beyond a bound.
            TooManyBad: more rows refused than allowed; what was good up to there is loaded.
            LoadRunning: another session loads the same file.
        """
        self.options.said()
        digest = file_hash(path)
        with files.sources(path, self.limits) as found:
            if len(found) == 1 and isinstance(found[0], Source):
                return self._load(found[0], digest)
            reports, failures = [], []
            for source in found:
                if isinstance(source, Exception):
                    failures.append(str(source))
                    continue
                try:
                    reports.append(self._load(source, digest))
                except FAULTS as error:
                    failures.append(said_in(source.shown, error))
        if not reports and len(failures) == 1:
            raise DamagedFile(failures[0])
        whole = Report(
            str(path),
            f"{len(reports)} files",
            skipped=bool(reports) and all(r.skipped for r in reports),
            failures=failures,
        )
        for report in reports:
            whole.kind = report.kind
            for name in ("read", "loaded", "duplicate", "corrected", "quarantined", "held"):
                setattr(whole, name, getattr(whole, name) + getattr(report, name))
            for reason, count in report.reasons.items():
                whole.reasons[reason] = whole.reasons.get(reason, 0) + count
            for what, count in report.counters.items():
                whole.counters[what] = whole.counters.get(what, 0) + count
        return whole

    def _load(self, source: Source, digest: bytes) -> Report:
        report = Report(source.name)
        self.begun.append(report)
        description = self._description(source, digest)
        if self.dry:
            self._read(source, description, 0, 0, None, report)
            return report
        lock = f"load:{source.name}"
        self._lock(lock, source)
        try:
            load_id, resume, state = self._begin(source, digest, description, report)
            if load_id is None:
                report.skipped = True
                return report
            try:
                self._read(source, description, load_id, resume, state, report)
            except BaseException as error:
                status = "failed" if isinstance(error, Exception) else "interrupted"
                with contextlib.suppress(psycopg.OperationalError):
                    self._end(load_id, status, str(error) or type(error).__name__)
                raise
            self._end(load_id, "done", None)
            return report
        finally:
            with contextlib.suppress(psycopg.OperationalError):
                self.conn.execute("select ops._let_go(%s)", (lock,))

    def _description(self, source: Source, digest: bytes) -> Description:
        """What is known of a file before it is opened."""
        by_option = self.options.said()
        beside, where = from_toml(source.file)
        known = published(digest)
        said = by_option.under(beside.under(known.said))
        by = {}
        for name in vars(said):
            if getattr(by_option, name) is not None:
                by[name] = "option"
            elif getattr(beside, name) is not None:
                by[name] = where
            elif getattr(known.said, name) is not None:
                by[name] = known.source
        stat = (source.path or source.file).stat()
        since = self.options.since
        if since is None:
            row = self.conn.execute(
                "select extract(epoch from (value #>> '{}')::timestamptz)::float8"
                " from ops.settings where name = 'market.plausible_from'"
            ).fetchone()
            since = row[0] * 1e6 if row else 946_684_800e6
        return Description(
            source.label,
            self.register.catalog,
            said,
            by,
            written=stat.st_mtime * 1e6 if source.path is None else np.inf,
            since=since,
            quotes=known.quotes,
            beside=any(
                (source.file.resolve().parent.parent / name).is_dir() for name in OF_CONTRACTS
            ),
        )

    def _read(
        self,
        source: Source,
        description: Description,
        load_id: int,
        resume: int,
        state: dict[str, Any] | None,
        report: Report,
    ) -> None:
        self._newest.clear()
        self._spans.clear()
        try:
            how = source.layout()
            if how in ("parquet", "arrow"):
                self._columnar(source, how, description, load_id, resume, report)
            elif how:
                raise UnknownFormat(
                    f"{source.shown} is a {how} file: export it as CSV or Parquet first"
                )
            else:
                self._text(source, description, load_id, resume, state, report)
        except BROKEN as error:
            raise DamagedFile(
                f"{source.name} is damaged ({error}); {report.read} rows up to there are"
                f" {'readable' if self.dry else 'loaded'}. Load it again once it is whole"
            ) from None
        report.description = description.say()
        report.summary = [series.say() for series in report.survey.series.values()]
        if not self.dry:
            self.conn.execute(
                "update market.loads set description = %s, summary = %s where load_id = %s",
                (json.dumps(report.description), json.dumps(report.summary), load_id),
            )

    def _lock(self, lock: str, source: Source) -> None:
        """Waits a little: the session of a load just killed takes a moment to end."""
        deadline = time.monotonic() + self.lock_wait
        while self.conn.execute("select ops._hold(%s)", (lock,)).fetchone() != (True,):
            if time.monotonic() > deadline:
                row = self.conn.execute("select ops._holder(%s)", (lock,)).fetchone()
                who = f" ({row[0]})" if row and row[0] else ""
                raise LoadRunning(f"{source.name} is being loaded by another session{who}")
            time.sleep(0.1)

    # --- the log of loads ----------------------------------------------------------------------

    def _begin(
        self, source: Source, digest: bytes, description: Description, report: Report
    ) -> tuple[int | None, int, dict[str, Any] | None]:
        """(load id, line to go on after, state); no id: the file was loaded before.

        The same file with the same options goes on where it stopped. Nobody else loads it: its
        turn is held, so a load that is still called running was killed.
        """
        said = {
            name: dict(value) if name == "columns" else value
            for name, value in vars(description.said).items()
            if value is not None
        }
        meaning = {**self.options.meaning(), "columns": said.get("columns"), "said": said}
        options = json.dumps({k: v for k, v in meaning.items() if v is not None})
        row = self.conn.execute(
            "select load_id, status, resume_line, resume_state, rows_read, rows_loaded,"
            " rows_duplicate, rows_quarantined, format, kind from market.loads"
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
        if self.dry:
            return
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

    def _transaction(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext() if self.dry else self.conn.transaction()

    def _text(
        self,
        source: Source,
        d: Description,
        load_id: int,
        resume: int,
        state: dict[str, Any] | None,
        report: Report,
    ) -> None:
        total = max((source.path or source.file).stat().st_size, 1)
        layout: _Layout | None = None
        number = 0
        with source.open() as stream:
            if _is_document(stream):
                frame = rows.document(stream, self.limits, source.shown)
                blocks = rows.chunks(frame)
                self._frames(list(map(str, frame)), len(frame), blocks, d, load_id, resume, report)
                return
            pieces = self._pieces(stream, source, d, state, resume, report)
            with contextlib.closing(_ahead(pieces)) as made:
                for piece in made:
                    layout, number = piece.layout, piece.last
                    if number <= resume:
                        continue
                    with self._transaction():
                        if isinstance(layout.reader, feeds.Feed):
                            self._feed_block(
                                layout.reader, piece.lines, piece.first, load_id, report
                            )
                        elif piece.block is not None and not isinstance(layout.reader, Format):
                            self._book_rows(layout.reader, piece.block, load_id, report)
                        elif piece.block is not None and isinstance(layout.reader, Format):
                            self._block(piece.block, layout.reader, d, load_id, report)
                        self._save(load_id, number, layout.state(), report)
                    self._check_bad(report)
                    self.progress(report, min(1.0, piece.taken / total))
            if layout is None:
                raise UnknownFormat(f"{source.shown} is empty")
            if isinstance(layout.reader, feeds.RowBooks | made_bars.TradeBars):
                with self._transaction():
                    layout.reader.end()
                    self._store_made(layout.reader, lambda line: "", load_id, report)
                    self._save(load_id, number, layout.state(), report)

    def _pieces(
        self,
        stream: IO[bytes],
        source: Source,
        d: Description,
        state: dict[str, Any] | None,
        resume: int,
        report: Report,
    ) -> Iterator[_Piece]:
        """The file's lines after ``resume``, a block at a time and parsed; without lines where all
        of a block were loaded before."""
        layout: _Layout | None = None
        number = taken = 0
        for lines in files.blocks_of_lines(stream, self.options.block, self.limits):
            first = number + 1
            number += len(lines)
            taken += sum(map(len, lines)) + len(lines)
            block = None
            if layout is None:
                layout, skip = self._layout(lines, source, d, state, report)
                if layout is None:
                    continue
                lines, first = lines[skip:], first + skip
                if isinstance(layout.reader, Format):
                    # What the first rows say of all of them is settled here, once.
                    block = layout.block(lines, first, self.limits)
                    self._settle(layout, block, d)
            skip = max(0, resume - first + 1)
            if skip:
                lines, first, block = lines[skip:], first + skip, None
            if block is None and lines and not isinstance(layout.reader, feeds.Feed):
                block = layout.block(lines, first, self.limits)
            yield _Piece(layout, number, first, lines, block, taken)

    def _layout(
        self,
        lines: list[bytes],
        source: Source,
        d: Description,
        state: dict[str, Any] | None,
        report: Report,
    ) -> tuple[_Layout | None, int]:
        """How the file is read, and how many of these lines are before its rows."""
        o = self.options
        rows.check_text(lines, source.shown)
        start = next((line for line in lines if line.strip()), None)
        if start is None:
            return None, 0
        if feeds.looks_like(start):
            if o.kind not in (
                "auto",
                "book_feed",
                "order_book",
                "trades",
                "liquidations",
                "candles",
            ):
                raise UnknownFormat(f"{d.shown} is a recorded stream, not {o.kind}")
            report.format, report.kind = "json stream", "book_feed"
            feed = feeds.Feed(d, o.levels, o.every, state)
            return _Layout(feed, [], Dialect(), header=False), 0
        head = rows.sniff(lines)
        if head is None:
            return None, 0
        cells = head.cells
        rowwise = {
            "binance": ({"first_update_id", "update_type", "qty"}, "binance depth snapshot"),
            "tardis": ({"is_snapshot", "local_timestamp"}, "tardis incremental_book_L2"),
        }
        for kind, (needs, name) in rowwise.items():
            if needs <= set(cells):
                report.format, report.kind = name, "order_book"
                d.dataset = "order_book"
                books = feeds.RowBooks(kind, d, o.levels, o.every, state)
                return _Layout(books, cells, head.dialect, header=True), head.index + 1
        if o.kind in ("auto", "candles", "trades") and made_bars.is_kraken(cells, d):
            report.format, report.kind = "kraken trades", "candles"
            d.dataset = "candles"
            bars = made_bars.TradeBars(d, state)
            return _Layout(bars, made_bars.NAMES, head.dialect, header=False), head.index
        wanted = {"auto": None, "book_feed": "order_book"}.get(o.kind, o.kind)
        found, header = detect(cells, d, wanted)
        report.format, report.kind, d.dataset = found.name, found.kind, found.kind
        names = cells if header else list(found.names[: len(cells)]) or places(cells)
        if header and len(set(names)) != len(names):  # two of one name are told by place
            names = [
                n if names.count(n) == 1 else f"{n}{TWICE}{i + 1}" for i, n in enumerate(names)
            ]
        layout = _Layout(found, names, head.dialect, header=header)
        return layout, head.index + 1 if header else head.index

    def _settle(self, layout: _Layout, block: Block, d: Description) -> None:
        found = layout.reader
        assert isinstance(found, Format)
        if len(block.frame):
            d.header = layout.header
            _read(found, block.frame, d)

    def _columnar(
        self,
        source: Source,
        how: str,
        d: Description,
        load_id: int,
        resume: int,
        report: Report,
    ) -> None:
        with source.plain_file() as path:
            total, frames = rows.columnar(path, how)
            first = 1

            def blocks() -> Iterator[Block]:
                nonlocal first
                for frame in frames:
                    yield rows.framed(frame, first)
                    first += len(frame)

            made = blocks()
            start = next(made, None)
            if start is None:
                raise UnknownFormat(f"{source.shown} is empty")

            def all_blocks() -> Iterator[Block]:
                yield start
                yield from made

            names = list(map(str, start.frame))
            self._frames(names, total, all_blocks(), d, load_id, resume, report)

    def _frames(
        self,
        names: list[str],
        total: int,
        blocks: Iterator[Block],
        d: Description,
        load_id: int,
        resume: int,
        report: Report,
    ) -> None:
        kind = None if self.options.kind == "auto" else self.options.kind
        found, _ = detect(names, d, kind)
        report.format, report.kind, d.dataset = found.name, found.kind, found.kind
        number = 0
        for block in blocks:
            if number == 0 and len(block.frame):
                _read(found, block.frame, d)
            number += len(block.frame)
            if number <= resume:
                continue
            with self._transaction():
                self._block(block, found, d, load_id, report)
                self._save(load_id, number, None, report)
            self._check_bad(report)
            self.progress(report, number / max(total, 1))

    def _check_bad(self, report: Report) -> None:
        limit = self.options.max_bad
        if limit is not None and report.quarantined > limit:
            raise TooManyBad(
                f"{report.quarantined} rows of {report.file} were refused, {limit} are allowed"
                " (--max-bad): see market.quarantine"
            )

    # --- one block -----------------------------------------------------------------------------

    def _block(
        self, block: Block, found: Format, d: Description, load_id: int, report: Report
    ) -> None:
        refused = [(line, raw, "unparsable", why) for line, raw, why in block.broken]
        report.read += len(block.frame) + len(block.broken)
        if len(block.frame):
            d.first = int(block.lines[0])
            columns = _read(found, block.frame, d)
            columns.told = found.told
            if found.read is tardis_funding:
                columns = _last_before_paid(columns, block.frame)
                report.read += len(columns.ts) - len(block.frame)
            refused += self._checked(
                found.kind, columns, block.lines, block.raw, load_id, report, d
            )
        self._quarantine(refused, found.kind, load_id, report)

    def _checked(
        self,
        kind: str,
        columns: Columns,
        lines: npt.NDArray[np.int64],
        raw: Callable[[int], str],
        load_id: int,
        report: Report,
        d: Description,
    ) -> list[Refused]:
        """Good rows into their table; returns the others. ``lines`` and ``raw``: by input row."""
        at = np.arange(len(columns.ts)) if columns.rows is None else columns.rows
        reasons = tables.check(kind, columns, d.since)
        if columns.instruments is not None:
            for instrument in set(columns.instruments):
                if not instrument.native:
                    for i in np.flatnonzero(columns.instruments == instrument):
                        reasons[i] = instrument.source or "no symbol"
        elif columns.instrument is not None and not columns.instrument.native:
            reasons = [columns.instrument.source or "no symbol"] * len(reasons)
        if kind == "candles" and len(columns.ts):
            unfinished = tables.held(columns, d.written, time.time() * 1e6)
            for i in np.flatnonzero(unfinished):
                reasons[i] = reasons[i] or HELD
        bad = np.array([bool(reason) for reason in reasons], dtype=bool)
        refused = [
            (int(lines[at[i]]), raw(int(at[i])), reasons[i], "") for i in np.flatnonzero(bad)
        ]
        for instrument, part in tables.by_instrument(columns, ~bad):
            found = tables.values(kind, columns, part, live=self.options.live, lag=self.options.lag)
            symbol = self.register.name(instrument)
            report.survey.add(kind, symbol, instrument, found)
            if self.dry:
                report.loaded += len(part)
                continue
            if not self.options.again and self.register.is_new(instrument):
                self._not_there_already(kind, symbol, instrument, found, load_id)
            symbol = self.register.symbol(instrument)
            if kind == "trades":
                part, found = self._one_telling(columns, part, found, symbol, load_id, report)
                if not len(part):
                    continue
            different = self._insert(kind, symbol, found, report)
            refused += [
                (int(lines[at[i]]), raw(int(at[i])), "duplicate with other content",
                 "load with --correct to replace the row that is there")
                for i in part[different]
            ]  # fmt: skip
        return refused

    def _not_there_already(
        self, kind: str, symbol: str, instrument: Instrument, found: dict[str, Any], load_id: int
    ) -> None:
        """No second instrument of rows that are there under another name.

        Raises:
            OtherInstrument: the same file was loaded as another instrument, or one of the same
                asset has the very rows.
        """
        row = self.conn.execute(
            "select s.symbol from market.loads l join market.loads o on o.file = l.file"
            " and o.file_sha256 = l.file_sha256 and o.load_id <> l.load_id and o.status = 'done'"
            " cross join lateral jsonb_to_recordset(o.summary) s (symbol text)"
            " join market.instruments i on i.symbol = s.symbol and i.base = %s"
            " where l.load_id = %s and o.summary <> '[]' and not o.summary @> %s::jsonb limit 1",
            (instrument.base or instrument.native, load_id, json.dumps([{"symbol": symbol}])),
        ).fetchone()
        if row is None and kind in ("candles", "trades") and instrument.series == "traded":
            row = self.conn.execute(
                SAME_CANDLES if kind == "candles" else SAME_TRADES, _sample(kind, instrument, found)
            ).fetchone()
        if row is not None:
            raise OtherInstrument(
                f"these rows are there as {row[0]}; as {symbol} they would be a second instrument."
                f" Name the one that is there (--symbol, --exchange, --kind; `alphaplus"
                f" instruments list {instrument.base or instrument.native}`), or say --again to"
                " have both"
            )

    def _one_telling(
        self,
        columns: Columns,
        part: npt.NDArray[np.int64],
        found: dict[str, Any],
        symbol: str,
        load_id: int,
        report: Report,
    ) -> tuple[npt.NDArray[np.int64], dict[str, Any]]:
        """Without the trades that another telling of the same stretch has stored already."""
        ts = found["ts"]
        low, high = instant(int(ts.min())), instant(int(ts.max()))
        others = self.conn.execute(
            "select first_ts, last_ts, dataset from market.trade_spans s"
            " where symbol = %s and dataset <> %s and first_ts <= %s and last_ts >= %s"
            # a stretch that was deleted since tells nothing
            " and exists (select from market.trades t where t.symbol = s.symbol"
            " and t.ts between s.first_ts and s.last_ts)",
            (symbol, columns.told, high, low),
        ).fetchall()
        if others:
            again = np.zeros(len(ts), dtype=bool)
            for first, last, _ in others:
                again |= (ts >= _micros(first)) & (ts <= _micros(last))
            if again.any():
                what = f"trades stored already as {others[0][2]}"
                report.counters[what] = report.counters.get(what, 0) + int(again.sum())
                report.duplicate += int(again.sum())
                keep = ~again
                part = part[keep]
                found = {
                    name: value[keep] if isinstance(value, np.ndarray) else value
                    for name, value in found.items()
                }
                if not len(part):
                    return part, found
                ts = found["ts"]
                low, high = instant(int(ts.min())), instant(int(ts.max()))
        key = (symbol, columns.told)
        begin = self._spans.get(key)
        if begin is None:
            self._spans[key] = int(ts.min())
            self.conn.execute(
                "insert into market.trade_spans values (%s, %s, %s, %s, %s)"
                " on conflict (symbol, dataset, first_ts) do update"
                " set last_ts = greatest(trade_spans.last_ts, excluded.last_ts)",
                (symbol, columns.told, low, high, load_id),
            )
        else:
            self._spans[key] = min(begin, int(ts.min()))
            self.conn.execute(
                "update market.trade_spans set first_ts = least(first_ts, %s),"
                " last_ts = greatest(last_ts, %s)"
                " where symbol = %s and dataset = %s and first_ts = %s",
                (low, high, symbol, columns.told, instant(begin)),
            )
        return part, found

    def _quarantine(self, refused: list[Refused], kind: str, load_id: int, report: Report) -> None:
        if not refused:
            return
        held = sum(1 for item in refused if item[2] == HELD)
        report.held += held
        report.quarantined += len(refused) - held
        for _, _, reason, _ in refused:
            report.reasons[reason] = report.reasons.get(reason, 0) + 1
        if self.dry:
            return
        with self.conn.cursor() as cursor:
            cursor.executemany(
                "insert into market.quarantine (load_id, kind, file, line, reason, detail, raw)"
                " values (%s, %s, %s, %s, %s, nullif(%s, ''), %s) on conflict do nothing",
                [
                    (
                        load_id, kind, report.file, line, reason.replace("\0", ""),
                        detail.replace("\0", ""), raw.replace("\0", ""),
                    )
                    for line, raw, reason, detail in refused
                ],
            )  # fmt: skip

    def _insert(
        self, kind: str, symbol: str, found: dict[str, Any], report: Report
    ) -> npt.NDArray[np.int64]:
        """Rows of one symbol; returns the positions of duplicates with other content."""
        table = TABLES[kind]
        n = len(found["ts"])
        names = [*table.key, "known_at", "received_at", *table.content]
        columns = tables.encoded({**found, "symbol": symbol})
        if kind == "candles":
            self._remember_newest(symbol, found["timeframe"])
        # Rows after all that is there can go straight in; others have to look for their like.
        newest = self.conn.execute(
            sql.SQL("select max(ts) from {} where symbol = %s and ts >= %s").format(
                sql.Identifier(*table.name.split("."))
            ),
            (symbol, instant(int(found["ts"].min()))),
        ).fetchone()
        if newest == (None,) and tables.unique(found, table.key):
            report.loaded += pgcopy.copy(self.conn, table.name, names, [(columns, n)])
            return np.zeros(0, dtype=np.int64)
        if newest and newest[0] is not None:
            # A block often begins at the very time at which the one before ended.
            after = found["ts"] > _micros(newest[0])
            if 2 * np.count_nonzero(after) > n:
                late = {name: _part(value, after) for name, value in found.items()}
                if tables.unique(late, table.key):
                    early = np.flatnonzero(~after)
                    different = self._merge(
                        table, names,
                        tables.encoded(
                            {name: _part(value, ~after) for name, value in found.items()}
                            | {"symbol": symbol}
                        ),
                        len(early), report,
                    )  # fmt: skip
                    encoded = tables.encoded({**late, "symbol": symbol})
                    count = n - len(early)
                    report.loaded += pgcopy.copy(self.conn, table.name, names, [(encoded, count)])
                    return np.asarray(early[different], dtype=np.int64)
        return self._merge(table, names, columns, n, report)

    def _remember_newest(self, symbol: str, lengths: npt.NDArray[np.int64]) -> None:
        """The last bar that was there before this file: it may have been taken unfinished."""
        for length in np.unique(lengths):
            key = (symbol, int(length))
            if key not in self._newest:
                row = self.conn.execute(
                    "select max(ts) from market.candles where symbol = %s and timeframe ="
                    " case when %s < 0 then interval '1 month'"
                    " else make_interval(secs => %s / 1e6) end",
                    (symbol, key[1], float(key[1])),
                ).fetchone()
                self._newest[key] = row[0] if row else None

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

        def other() -> list[int]:
            return [
                position
                for (position,) in self.conn.execute(
                    sql.SQL(
                        "select s.position from {} s join {} t on {} where {} order by s.position"
                    ).format(stage, target, on, differs)
                ).fetchall()
            ]

        different = other()
        # Of several rows of one key the last one counts.
        settings = sql.SQL(", ").join(
            sql.SQL("{0} = s.{0}").format(sql.Identifier(part)) for part in table.content
        )
        update = sql.SQL(
            "update {} t set {} from"
            " (select distinct on ({}) s.* from {} s order by {}, s.position desc) s"
            " where {} and ({})"
        ).format(target, settings, key, stage, key, on, differs)
        if different and self.options.correct:
            corrected = self.conn.execute(update)
            report.corrected += corrected.rowcount
            report.duplicate += n - done.rowcount - corrected.rowcount
            return np.zeros(0, dtype=np.int64)
        if different and table.name == "market.candles":
            # The last bar of an earlier file may have been taken before it closed: a bar that goes
            # on from it replaces it, known from now.
            grown = 0
            for (symbol, length), newest in self._newest.items():
                if newest is None:
                    continue
                grown += self.conn.execute(
                    update
                    + sql.SQL(
                        " and t.symbol = %s and t.ts = %s and t.timeframe ="
                        " case when %s < 0 then interval '1 month'"
                        " else make_interval(secs => %s / 1e6) end"
                        " and s.open = t.open and s.high >= t.high and s.low <= t.low"
                        " and coalesce(s.volume >= t.volume, true)"
                        " and coalesce(s.trade_count >= t.trade_count, true)"
                    ),
                    (symbol, newest, length, float(length)),
                ).rowcount
            if grown:
                report.corrected += grown
                what = "bars taken before they closed, now whole"
                report.counters[what] = report.counters.get(what, 0) + grown
                different = other()
                report.duplicate -= grown
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

    def _book_rows(
        self,
        books: feeds.RowBooks | made_bars.TradeBars,
        block: Block,
        load_id: int,
        report: Report,
    ) -> None:
        refused = [(line, raw, "unparsable", why) for line, raw, why in block.broken]
        report.read += len(block.frame) + len(block.broken)
        if len(block.frame):
            try:
                bad = books.take(block.frame, block.lines)
            except KeyError as error:
                raise UnknownFormat(
                    f"{books.context.shown} looks like {report.format}, but has no column {error};"
                    f" its columns: {', '.join(map(str, block.frame.columns))}"
                ) from None
            refused += [(int(block.lines[i]), block.raw(i), why, "") for i, why in bad.items()]
        self._quarantine(refused, report.kind, load_id, report)
        where = {int(line): i for i, line in enumerate(block.lines)}
        self._store_made(
            books,
            lambda line: block.raw(where[line]) if line in where else "",
            load_id,
            report,
        )

    def _store_made(
        self,
        maker: feeds.Feed | feeds.RowBooks | made_bars.TradeBars,
        raw: Callable[[int], str],
        load_id: int,
        report: Report,
    ) -> None:
        for kind, columns, lines in maker.columns():
            at = lines
            refused = self._checked(
                kind, columns, at, _raw_of(raw, at), load_id, report, maker.context
            )
            self._quarantine(refused, kind, load_id, report)
        for instrument, ts, stream, expected, received in maker.gaps():
            if self.dry:
                continue
            self.conn.execute(
                "insert into market.sequence_gaps values (%s, %s, %s, %s, %s, %s)"
                " on conflict do nothing",
                (
                    self.register.symbol(instrument),
                    instant(ts),
                    stream,
                    expected,
                    received,
                    load_id,
                ),
            )
        ours = ("trades stored", "bars taken")
        kept = {name: n for name, n in report.counters.items() if name.startswith(ours)}
        report.counters = {**maker.counters, **kept}


def _part(value: Any, keep: npt.NDArray[np.bool_]) -> Any:
    """Some rows of a column; one value for all rows stays."""
    return value[keep] if isinstance(value, np.ndarray) else value


def _raw_of(raw: Callable[[int], str], lines: npt.NDArray[np.int64]) -> Callable[[int], str]:
    """The text of a made row: that of the line it came from."""
    return lambda i: raw(int(lines[i]))


def _micros(moment: dt.datetime) -> int:
    """Microseconds since 2000."""
    return round((moment - dt.datetime(2000, 1, 1, tzinfo=dt.UTC)) / dt.timedelta(microseconds=1))


def said_in(shown: str, error: Exception) -> str:
    """An error's words, with the file's name in them."""
    words = str(error)
    return words if shown in words else f"{shown}: {words}"


def _is_document(stream: IO[bytes]) -> bool:
    """Is it one JSON array?"""
    head = stream.peek(256)[:256].lstrip() if hasattr(stream, "peek") else b""
    return bool(head.startswith((b"[", b"\xef\xbb\xbf[")))


@dataclass
class _Layout:
    """What a file turned out to be: its reader, its columns' names, whether a header tells them."""

    reader: Format | feeds.Feed | feeds.RowBooks | made_bars.TradeBars
    names: list[str]
    dialect: Dialect
    header: bool

    def state(self) -> dict[str, Any] | None:
        """What a later run needs to go on, besides the line."""
        return None if isinstance(self.reader, Format) else self.reader.state()

    def block(self, lines: list[bytes], first: int, limits: Limits) -> Block:
        """Lines as rows."""
        return rows.parse_lines(lines, first, self.names, self.dialect, limits)


@dataclass(frozen=True)
class _Piece:
    """Some lines of a text file: the number of the last and of the first of them, and parsed where
    they are rows. taken: bytes up to here."""

    layout: _Layout
    last: int
    first: int
    lines: list[bytes]
    block: Block | None
    taken: int


def _ahead(pieces: Iterator[_Piece]) -> Generator[_Piece]:
    """Each piece is read and parsed while the server stores the one before."""
    with ThreadPoolExecutor(1) as worker:
        coming = worker.submit(next, pieces, None)
        while (piece := coming.result()) is not None:
            coming = worker.submit(next, pieces, None)
            yield piece


def _read(found: Format, frame: pd.DataFrame, d: Description) -> Columns:
    try:
        return found.read(frame, d)
    except KeyError as error:
        raise UnknownFormat(
            f"{d.shown} looks like {found.name}, but has no column {error};"
            f" its columns: {', '.join(map(str, frame.columns))}"
        ) from None


def _last_before_paid(columns: Columns, frame: pd.DataFrame) -> Columns:
    """Of a ticker's rows those after which the time of payment moves on: the rate that was paid.

    The last rows of a block stay out unless theirs is past, as the rate may still move.
    """
    names = np.char.add(np.char.add(text(frame["exchange"]), "|"), text(frame["symbol"]))
    table = pd.DataFrame({"name": names, "due": columns.ts})
    following = table.groupby("name")["due"].shift(-1).to_numpy()
    keep = np.flatnonzero((following > columns.ts) | ~np.isfinite(columns.ts))
    return Columns(
        columns.ts[keep],
        {name: value[keep] for name, value in columns.values.items()},
        columns.instrument,
        None if columns.instruments is None else columns.instruments[keep],
        None if columns.received is None else columns.received[keep],
        keep,
    )
