"""``alphaplus load``: files through the loader, with a progress bar and counts at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
from alphaplus.cli.connect import role_conninfo
from alphaplus.loaders.formats import UnknownFormat
from alphaplus.loaders.load import (
    KINDS,
    DamagedFile,
    Loader,
    LoadRunning,
    Options,
    Report,
    TooManyBad,
)
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

FAILED, TOO_MANY_BAD = 1, 3


def run(files: list[Path], options: dict[str, Any], *, refresh: bool = True) -> int:
    """Load the files; returns the exit status: 0, 1 (a file failed) or 3 (too many bad rows)."""
    console = Console(stderr=True)
    if options["kind"] not in KINDS:
        console.print(f"alphaplus load: unknown kind {options['kind']}; one of {', '.join(KINDS)}")
        return 2
    missing = [str(path) for path in files if not path.is_file()]
    if missing:
        console.print(f"alphaplus load: no such file: {', '.join(missing)}")
        return FAILED
    status = 0
    reports: list[Report] = []
    with (
        psycopg.connect(role_conninfo("alphaplus_loader"), autocommit=True) as conn,
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
        for path in files:
            task = progress.add_task(path.name, total=1.0, rows=0)

            def show(report: Report, share: float, task: Any = task) -> None:
                progress.update(task, completed=share, rows=report.read)

            loader = Loader(conn, Options(**options), show)
            try:
                reports.append(loader.load(path))
                progress.update(task, completed=1.0)
            except TooManyBad as error:
                console.print(f"alphaplus load: {error}")
                reports += [report for report in loader.begun if report.read]
                status = status or TOO_MANY_BAD
            except (UnknownFormat, LoadRunning, DamagedFile) as error:
                shown = "".join(c if c.isprintable() else "·" for c in str(error))
                console.print(f"alphaplus load: {shown}", markup=False)
                reports += [report for report in loader.begun if report.read]
                status = FAILED
        if refresh and reports:
            conn.execute("call market.refresh_aggregates()")
    console.print(summary(reports))
    return status


def run_texts(files: list[Path], options: dict[str, Any]) -> int:
    """Load files of texts; the exit status as :func:`run`'s."""
    from alphaplus.loaders.texts import Bad, TextLoader, TextOptions

    console = Console(stderr=True)
    missing = [str(path) for path in files if not path.is_file()]
    if missing:
        console.print(f"alphaplus load: no such file: {', '.join(missing)}")
        return FAILED
    status = 0
    reports: list[Report] = []
    with psycopg.connect(role_conninfo("alphaplus_loader"), autocommit=True) as conn:
        for path in files:
            loader: TextLoader | None = None
            try:
                loader = TextLoader(conn, TextOptions(**options))
                reports.append(loader.load(path))
            except TooManyBad as error:
                console.print(f"alphaplus load: {error}")
                reports += loader.begun if loader else []
                status = status or TOO_MANY_BAD
            except (UnknownFormat, LoadRunning, DamagedFile, Bad) as error:
                shown = "".join(c if c.isprintable() else "·" for c in str(error))
                console.print(f"alphaplus load: {path.name}: {shown}", markup=False)
                reports += [r for r in loader.begun if r.read] if loader else []
                status = FAILED
    console.print(summary(reports))
    return status


def run_rss(
    urls: list[str], source: str, every: float, rounds: int | None, symbol: str | None
) -> int:
    """Follow feeds until stopped, or for so many rounds."""
    from alphaplus.loaders.texts import Bad, TextOptions, poll

    console = Console(stderr=True)
    options = TextOptions(source=source, symbols=(symbol,) if symbol else ())
    with psycopg.connect(role_conninfo("alphaplus_loader"), autocommit=True) as conn:
        try:
            reports = poll(
                conn, urls, options, every=every, rounds=rounds,
                say=lambda words: console.print(words, markup=False),
            )  # fmt: skip
        except (UnknownFormat, Bad) as error:
            console.print(f"alphaplus stream: {error}", markup=False)
            return FAILED
        except KeyboardInterrupt:
            return 0
    console.print(summary(reports))
    return 0


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
        "quarantined",
        "more",
    ):
        table.add_column(name)
    for r in reports:
        counts = [f"{n:,}" for n in (r.read, r.loaded, r.duplicate, r.corrected, r.quarantined)]
        more = ", ".join(f"{count:,} {what}" for what, count in r.counters.items())
        table.add_row(Path(r.file).name, r.format, *counts, "loaded before" if r.skipped else more)
    return table
