"""``python -m tests.bench [name …]``: measure, print a table, write ``bench.json``.

A benchmark is a module here whose name has no leading underscore, with ``run(conninfo)``: it gets a
superuser's connection string, makes and drops its own databases, checks that both sides give the
same answer, and returns rows made by :func:`tests.bench._common.row`. Without names all run.
``--page`` measures nothing: it writes ``docs/benchmarks.md`` from ``bench.json``.
"""

from __future__ import annotations

import datetime as dt
import importlib
import json
import os
import pkgutil
import platform
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import tests.bench
from tests.bench import _common

OUT = Path("bench.json")
PAGE = Path("docs/benchmarks.md")


def number(x: float | None) -> str:
    """Four significant digits, no exponent."""
    if x is None:
        return ""
    return f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.4g}"


def table(rows: list[dict[str, Any]]) -> Table:
    """The rows as they are printed."""
    shown = Table(title="Benchmarks, measured here and now", title_justify="left")
    for heading, justify in (
        ("name", "left"),
        ("value", "right"),
        ("unit", "left"),
        ("peer", "left"),
        ("peer value", "right"),
        ("ratio", "right"),
        ("goal", "left"),
        ("met", "left"),
    ):
        shown.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        met = {True: "[green]yes[/]", False: "[red]no[/]", None: ""}[row["met"]]
        shown.add_row(
            row["name"],
            number(row["value"]),
            row["unit"],
            row["peer"] or "",
            number(row["peer_value"]),
            number(row["ratio"]),
            row["goal"] or "",
            met,
        )
    return shown


def page(rows: list[dict[str, Any]]) -> str:
    """The rows as docs/benchmarks.md, and on what they were measured."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    measured = dt.datetime.fromtimestamp(OUT.stat().st_mtime, dt.UTC)
    lines = [
        "# Benchmarks",
        "",
        "Written by `python -m tests.bench --page` from what `make bench` measured, each figure"
        " beside what one would do instead, in the same run, with equal answers checked.",
        f"{os.cpu_count()} cores of {cpu}, database and clients on the same machine;"
        f" {measured:%Y-%m-%d}. A goal is the project's own: missed ones stay in the table.",
        "",
        "| what | value | beside | its value | ratio | goal | met |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        met = {True: "yes", False: "**no**", None: ""}[row["met"]]
        cells = (
            row["name"], f"{number(row['value'])} {row['unit']}", row["peer"] or "",
            number(row["peer_value"]), number(row["ratio"]), row["goal"] or "", met,
        )  # fmt: skip
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def main(names: list[str]) -> int:
    """Run the benchmarks; 1 when one of them broke, a missed goal being no error."""
    if names == ["--page"]:
        PAGE.write_text(page(json.loads(OUT.read_text())))
        print(f"{PAGE}: written")
        return 0
    found = [m.name for m in pkgutil.iter_modules(tests.bench.__path__) if m.name[0] != "_"]
    if unknown := [name for name in names if name not in found]:
        print(f"no benchmark {', '.join(unknown)}; there are: {', '.join(found)}", file=sys.stderr)
        return 2
    console = Console(width=None if sys.stdout.isatty() else 160)
    conninfo = _common.superuser()
    rows: list[dict[str, Any]] = []
    broken = []
    for name in names or found:
        console.print(f"[bold]{name}[/] …")
        start = time.monotonic()
        try:
            rows += importlib.import_module(f"tests.bench.{name}").run(conninfo)
        except Exception:
            broken.append(name)
            traceback.print_exc()
        console.print(f"  {time.monotonic() - start:.0f} s")
    console.print(table(rows))
    if names and OUT.exists():  # a part was run: the others keep their last figures
        new = {row["name"] for row in rows}
        rows = [row for row in json.loads(OUT.read_text()) if row["name"] not in new] + rows
    OUT.write_text(json.dumps(rows, indent=1) + "\n")
    missed = [row["name"] for row in rows if row["met"] is False]
    console.print(f"written to {OUT}; goals missed: {', '.join(missed) or 'none'}")
    if broken:
        print(f"bench: broke: {', '.join(broken)}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
