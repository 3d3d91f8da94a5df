"""`alphaplus stream rss` against a feed served by the test: new entries once, errors said, 304 kept."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import psycopg
import pytest
from alphaplus.loaders.formats import UnknownFormat
from alphaplus.loaders.texts import TextOptions, poll

Conn = psycopg.Connection[Any]
ENTRY = (
    "<item><title>{title}</title><guid>{guid}</guid>"
    "<pubDate>Mon, 04 Mar 2024 14:00:00 GMT</pubDate></item>"
)


class Feed(BaseHTTPRequestHandler):
    """What the next requests get; what they asked for."""

    entries: ClassVar[list[str]] = []
    status = 200
    tags: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        Feed.tags.append(self.headers.get("If-None-Match"))
        tag = f'"{len(Feed.entries)}"'
        status = Feed.status
        if status == 200 and self.headers.get("If-None-Match") == tag:
            status = 304
        body = f"<rss version='2.0'><channel>{''.join(Feed.entries)}</channel></rss>".encode()
        self.send_response(status)
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(body) if status == 200 else 0))
        self.end_headers()
        if status == 200:
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        del args


@pytest.fixture
def feed() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Feed)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Feed.entries, Feed.status, Feed.tags = [], 200, []
    yield f"http://127.0.0.1:{server.server_address[1]}/feed.xml"
    server.shutdown()
    server.server_close()


def test_entries_are_stored_once_and_known_when_first_seen(db: Conn, feed: str) -> None:
    db.execute(
        "insert into market.instruments (symbol, exchange, native_symbol, base, quote)"
        " values ('BTCUSDT', 'binance', 'BTCUSDT', 'BTC', 'USDT')"
    )
    said: list[str] = []
    start = dt.datetime.now(dt.UTC)

    def look() -> Any:
        options = TextOptions(source="news")
        return poll(db, [feed], options, every=0.01, rounds=1, say=said.append)[0]

    Feed.entries = [ENTRY.format(title="BTC soars after the vote", guid="a")]
    assert look().loaded == 1
    Feed.entries.append(ENTRY.format(title="Nothing happened", guid="b"))
    Feed.entries.append("<item><title>No time</title><guid>c</guid></item>")
    report = look()
    assert (report.loaded, report.duplicate, report.quarantined) == (1, 1, 1)
    rows = db.execute(
        "select source, source_id, text, symbols, ts, known_at from sentiment.texts order by source_id"
    ).fetchall()
    assert [row[:4] for row in rows] == [
        ("news", "a", "BTC soars after the vote", ["BTC"]),
        ("news", "b", "Nothing happened", []),
    ]
    for row in rows:
        assert row[4] == dt.datetime(2024, 3, 4, 14, tzinfo=dt.UTC)
        assert start <= row[5] <= dt.datetime.now(dt.UTC)
    Feed.status = 503
    assert look().loaded == 0
    assert "HTTP 503" in said[-1]
    with pytest.raises(UnknownFormat, match="no http address"):
        poll(db, ["file:///etc/passwd"], TextOptions(source="news"), rounds=1)


def test_an_unchanged_feed_is_not_sent_again(db: Conn, feed: str) -> None:
    Feed.entries = [ENTRY.format(title="Only news", guid="a")]
    poll(db, [feed], TextOptions(source="news"), every=0.01, rounds=3, say=lambda words: None)
    assert Feed.tags == [None, '"1"', '"1"']
    assert db.execute("select count(*) from sentiment.texts").fetchone() == (1,)


def test_the_command_follows_a_feed(db: Conn, server: Any, feed: str) -> None:
    Feed.entries = [ENTRY.format(title="From the command line", guid="a")]
    url = psycopg.conninfo.conninfo_to_dict(server.conninfo(db.info.dbname, "alphaplus_loader"))
    names = {
        "host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD",
        "dbname": "PGDATABASE", "sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT",
    }  # fmt: skip
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "DATABASE"))}
    env |= {names[k]: str(v) for k, v in url.items() if k in names}
    command = [
        str(Path(sys.executable).parent / "alphaplus"),
        "stream",
        "rss",
        feed,
        "--rounds",
        "1",
    ]
    done = subprocess.run(
        command, check=False, env=env, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert "1 new texts" in done.stderr
    assert db.execute("select text from sentiment.texts").fetchone() == ("From the command line",)
