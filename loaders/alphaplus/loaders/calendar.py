"""Calendars of events from plain CSV and JSON: good ones load, others are told with their reason.

Columns (or keys): kind, ts and known_at; symbol, title, amount, share_of_float, source_id and
cancelled where there is something to say. What else there is is kept in details.
"""

from __future__ import annotations

import csv
import datetime as dt
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

NAMES = (
    "kind", "ts", "known_at", "symbol", "title", "amount", "share_of_float", "source_id",
    "cancelled",
)  # fmt: skip


@dataclass
class Report:
    """What became of a calendar's rows."""

    loaded: int = 0
    there: int = 0
    refused: list[tuple[int, str]] = field(default_factory=list)


class NoCalendar(ValueError):
    """A file that is none."""


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    text = path.read_text("utf-8-sig")
    if path.suffix.lower() in (".json", ".jsonl", ".ndjson") or text.lstrip()[:1] in ("[", "{"):
        try:
            if path.suffix.lower() in (".jsonl", ".ndjson"):
                items = [json.loads(line) for line in text.splitlines() if line.strip()]
            else:
                items = json.loads(text)
        except json.JSONDecodeError as error:
            raise NoCalendar(f"{path.name}: {error}") from None
        if isinstance(items, dict):
            items = items.get("events", items.get("data"))
        if not isinstance(items, list):
            raise NoCalendar(f"{path.name} holds no list of events")
        for i, item in enumerate(items, 1):
            yield i, item if isinstance(item, dict) else {}
        return
    reader = csv.DictReader(text.splitlines())
    if not reader.fieldnames or not {"kind", "ts"} <= set(reader.fieldnames):
        raise NoCalendar(f"{path.name} needs the columns kind and ts; it has {reader.fieldnames}")
    for row in reader:
        yield reader.line_num, {k: v for k, v in row.items() if k is not None and v != ""}


def _time(value: Any, name: str) -> dt.datetime:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return dt.datetime.fromtimestamp(value if value < 1e11 else value / 1000, dt.UTC)
    try:
        at = dt.datetime.fromisoformat(str(value).strip().replace("Z", "+00:00"))
    except ValueError:
        raise ValueError(f"{name} {value!r} is no time") from None
    if at.tzinfo is None:
        if len(str(value).strip()) > 10:
            raise ValueError(f"{name} {value!r} has no time zone")
        at = at.replace(tzinfo=dt.UTC)  # a day: its beginning in UTC
    return at


def load(
    conn: psycopg.Connection[Any], path: Path, source: str, known_at: dt.datetime | None = None
) -> Report:
    """A file of them. known_at: since when those are known that do not say so (default: now)."""
    report = Report()
    now = known_at or dt.datetime.now(dt.UTC)
    for line, row in _rows(path):
        try:
            known = _time(row["known_at"], "known_at") if row.get("known_at") else now
            cancelled = str(row.get("cancelled", "")).lower() in ("true", "1", "yes", "t")
            arguments = (
                row.get("kind"), _time(row.get("ts"), "ts"), known, row.get("title", ""),
                row.get("symbol"), _number(row.get("amount")), _number(row.get("share_of_float")),
                source, _text(row.get("source_id")), cancelled,
                json.dumps({k: v for k, v in row.items() if k not in NAMES}, default=str),
            )  # fmt: skip
            found = conn.execute(
                "select market.add_event(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s::jsonb)",
                arguments,
            ).fetchone()
        except (ValueError, OverflowError) as error:
            report.refused.append((line, str(error)))
        except psycopg.errors.DatabaseError as error:
            if isinstance(error, psycopg.OperationalError):
                raise
            report.refused.append((line, str(error.diag.message_primary)))
        else:
            if found is not None and found[0] is not None:
                report.loaded += 1
            else:
                report.there += 1
    return report


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
