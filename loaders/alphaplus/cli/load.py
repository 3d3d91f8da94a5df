"""``alphaplus load`` and ``inspect``: files through the loader, and what became of them.

Exit status: 0 all is well · 1 a file failed · 2 wrong use · 3 more bad rows than allowed · 4 a part
of a file's description that changes values is not known · 5 nothing of a file could be stored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psycopg
from alphaplus.cli.pulse import pulse
from alphaplus.loaders.description import BadDescription, Missing
from alphaplus.loaders.files import BeyondLimit, DamagedFile
from alphaplus.loaders.formats import UnknownFormat
from alphaplus.loaders.instruments import BadName, OtherContract
from alphaplus.loaders.load import (
    KINDS,
    Loader,
    LoadRunning,
    Options,
    Report,
    TooManyBad,
    said_in,
)
from alphaplus.loaders.stamps import BadZone
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

FAILED, USAGE, TOO_MANY_BAD, UNKNOWN, NOTHING = 1, 2, 3, 4, 5
AWAY = 60.0  # seconds for which a server that went away is waited for


def run(
    conninfo: str,
    files: list[Path],
    options: Options,
    *,
    refresh: bool = True,
    dry: bool = False,
    command: str = "load",
) -> int:
    """Load (or with ``dry`` only look at) files; returns the exit status."""
    console = Console(stderr=not dry)
    if not console.is_terminal:
        console = Console(stderr=not dry, width=160)

    def complain(words: str) -> None:
        shown = "".join(c if c.isprintable() else "·" for c in words)
        console.print(f"alphaplus {command}: {shown}", markup=False, soft_wrap=True)

    if options.kind not in KINDS:
        complain(f"unknown kind {options.kind}; one of {', '.join(KINDS)}")
        return USAGE
    try:
        options.said()
    except (BadDescription, BadZone) as error:
        complain(str(error))
        return USAGE
    missing = [str(path) for path in files if not path.exists()]
    if missing:
        complain(f"no such file: {', '.join(missing)}")
        return FAILED
    files, empty = within(files)
    for folder in empty:
        complain(f"{folder}: no file in it has a name that market data have")
    if not files:
        return NOTHING
    statuses: list[int] = []
    reports: list[Report] = []
    try:
        conn = psycopg.connect(conninfo, autocommit=True)
    except psycopg.OperationalError as error:
        complain(f"no connection: {_line(error)}")
        return FAILED
    doing = ["connecting"]
    with (
        pulse(complain, lambda: doing[0], on=not console.is_terminal),
        Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rows]:,} rows"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        ) as progress,
    ):
        for number, path in enumerate(files, 1):
            task = progress.add_task(path.name, total=1.0, rows=0)
            place = f"{path.name} (file {number} of {len(files)})"
            doing[0] = f"{place}: opening it"

            def show(report: Report, share: float, task: Any = task, place: str = place) -> None:
                progress.update(task, completed=share, rows=report.read)
                doing[0] = f"{place}: {share:.0%}, {report.read:,} rows read"

            while True:
                try:
                    status, got = one_file(conn, path, options, complain, show, dry=dry)
                    break
                except psycopg.OperationalError as error:
                    found = _again(conninfo, conn, error, complain)
                    if found is None:
                        return FAILED
                    conn = found  # a load goes on where it was
            statuses.append(status)
            reports += got
            progress.update(task, completed=1.0)
        doing[0] = "refreshing the aggregates"
        while refresh and reports and not dry:
            try:
                conn.execute("call market.refresh_aggregates()")
                break
            except psycopg.OperationalError as error:
                found = _again(conninfo, conn, error, complain)
                if found is None:
                    return FAILED
                conn = found
        conn.close()
    if reports:
        console.print(summary(reports))
        for line in series(reports):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    return next((s for s in (FAILED, UNKNOWN, NOTHING, TOO_MANY_BAD) if s in statuses), 0)


# What files of market data are called; what they are, the loader decides by their content.
ENDINGS = (
    ".csv", ".tsv", ".txt", ".parquet", ".pq", ".feather", ".arrow", ".json", ".jsonl", ".ndjson",
    ".gz", ".zip", ".bz2", ".xz", ".zst", ".tar", ".tgz",
)  # fmt: skip


def is_data(path: Path) -> bool:
    """Does the name look like market data?"""
    name = path.name.lower()
    return name.endswith(ENDINGS) and not name.startswith((".", "readme", "license", "checksum"))


def within(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    """Files as they are, of folders the files in and below them by name; and folders with none.

    What a folder holds beside data (pages, hidden files, what is hidden folders') is passed over.
    """
    files: list[Path] = []
    empty: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        found = sorted(
            one
            for one in path.rglob("*")
            if one.is_file()
            and is_data(one)
            and not any(part.startswith(".") for part in one.relative_to(path).parts)
        )
        files += found
        if not found:
            empty.append(path)
    return files, empty


def _line(error: Exception) -> str:
    return next((one for one in str(error).strip().splitlines() if one), type(error).__name__)


def _again(
    conninfo: str,
    conn: psycopg.Connection[Any],
    error: psycopg.OperationalError,
    complain: Callable[[str], None],
) -> psycopg.Connection[Any] | None:
    """A new connection in the place of a lost one; None, with a line said, where it was not lost
    or the server stays away."""
    if not conn.closed:
        complain(_line(error))
        return None
    complain(f"the connection was lost ({_line(error)}); connecting again")
    pause, until = 0.2, time.monotonic() + AWAY
    while True:
        try:
            return psycopg.connect(conninfo, autocommit=True, connect_timeout=10)
        except psycopg.OperationalError as away:
            if time.monotonic() > until:
                complain(f"no connection: {_line(away)}. Load again: it goes on where it was")
                return None
            time.sleep(pause)
            pause = min(pause * 2, 5.0)


def one_file(
    conn: psycopg.Connection[Any],
    path: Path,
    options: Options,
    complain: Any,
    progress: Any = None,
    *,
    dry: bool = False,
) -> tuple[int, list[Report]]:
    """One file, with its faults said in a line each; status and reports."""
    loader = Loader(conn, options, progress, dry=dry)
    status = 0
    failures: list[str] = []
    try:
        whole = loader.load(path)
        failures = whole.failures
    except TooManyBad as error:
        complain(str(error))
        status = TOO_MANY_BAD
    except Missing as error:
        complain(str(error))
        status = UNKNOWN
    except (
        UnknownFormat, LoadRunning, DamagedFile, BeyondLimit, OtherContract, BadDescription,
        BadName, BadZone, OSError,
    ) as error:  # fmt: skip
        complain(said_in(path.name, error))
        status = FAILED
    except psycopg.OperationalError:
        raise
    except Exception as error:  # nobody foresaw it: the other files load all the same
        complain(f"{path.name} cannot be read: {type(error).__name__}: {error}")
        status = FAILED
    for words in failures:
        complain(words)
        status = FAILED
    reports = [report for report in loader.begun if report.read or report.skipped]
    for report in reports:
        name = report.file.rsplit("/", maxsplit=1)[-1]
        if report.quarantined and not report.stored() and not report.held:
            complain(f"{name}: all {report.quarantined:,} rows are refused: {reasons(report)}")
            status = status or NOTHING
        elif not report.stored() and not report.held and not report.skipped and status == 0:
            counted = ", ".join(f"{n:,} {what}" for what, n in report.counters.items())
            why = counted or "none of a kind that is stored"
            complain(f"{name}: nothing of {report.read:,} rows could be stored ({why})")
            status = NOTHING
        elif report.quarantined:
            complain(f"{name}: {report.quarantined:,} rows are refused: {reasons(report)}")
    return status, reports


def reasons(report: Report, most: int = 4) -> str:
    """Why rows were refused, the commonest first."""
    counted = sorted(report.reasons.items(), key=lambda item: -item[1])
    words = [f"{why} ({n:,})" for why, n in counted[:most]]
    return ", ".join(words) + (f" and {len(counted) - most} more" if len(counted) > most else "")


def summary(reports: list[Report]) -> Table:
    """What became of each file's rows."""
    table = Table()
    for name in (
        "file",
        "format",
        "read",
        "loaded",
        "already there",
        "corrected",
        "refused",
        "held back",
        "more",
    ):
        table.add_column(name)
    for r in reports:
        numbers = (r.read, r.loaded, r.duplicate, r.corrected, r.quarantined, r.held)
        more = ", ".join(f"{count:,} {what}" for what, count in r.counters.items())
        table.add_row(
            r.file.rsplit("/", maxsplit=1)[-1],
            r.format,
            *(f"{n:,}" for n in numbers),
            "loaded before" if r.skipped else more,
        )
    return table


def series(reports: list[Report]) -> Iterable[str]:
    """By file and symbol: what it was taken for and why, span, bar length, unit, gaps, rows."""
    for r in reports:
        if not r.description:
            continue
        yield r.file.rsplit("/", maxsplit=1)[-1]
        parts = [
            f"{name} {part['value']} ({': '.join(filter(None, (part['from'], part.get('why'))))})"
            for name, part in r.description.items()
            if name != "notes"
        ]
        if parts:
            yield "  taken for: " + "; ".join(parts)
        for note in r.description.get("notes", {}).get("value", ()):
            yield f"  note: {note}"
        for one in r.survey.series.values():
            said = one.say()
            line = (
                f"  {said['symbol']} ({one.contract}) {said['table']}: {said['rows']:,} rows,"
                f" {said['first']} to {said['last']}"
            )
            if "timeframe" in said:
                line += f", bars of {said['timeframe']}, {said['gaps']:,} gaps"
                if said["gaps"]:
                    line += f" (longest {said['longest_gap_bars']:,} bars)"
                if "off_grid" in said:
                    line += f", {said['off_grid']:,} bars off the grid of {said['timeframe']}"
            yield line
            for words in one.splits():
                yield f"    note: {words}"
            yield f"    first: {_cells(one.first_row)}"
            yield f"    last:  {_cells(one.last_row)}"
        if r.held:
            yield f"  held back: {r.held:,} bars that were not closed; the whole ones replace them"
        if r.reasons:
            yield f"  refused or held back: {reasons(r, 8)}"


def _cells(row: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.10g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in row.items()
    )
