"""Sentiment: a text in SQL beside the packages in a plain process, an answer from a million texts
beside scanning their scores, and texts loaded a second."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

from tests.bench import _common

TEXTS = 2000
SCORES = 1_000_000
LOADED = 40_000
WORDS = (
    "the market was really {} today because everybody {} bitcoin at the exchange number {} and"
    " nobody knows why it is so {} after the last {} of the week"
)
GOOD, BAD = ("great", "good", "happy", "strong", "nice"), ("bad", "awful", "weak", "sad", "poor")


def made(n: int) -> list[str]:
    """Different texts of about thirty words."""
    out = []
    for i in range(n):
        words = GOOD if i % 3 else BAD
        out.append(
            WORDS.format(words[i % 5], "sold" if i % 2 else "bought", i, words[i % 4], i % 7)
        )
    return out


def _per_text(
    conn: psycopg.Connection[Any], texts: list[str], method: str
) -> tuple[float, list[Any]]:
    best, scores = float("inf"), []
    conn.execute("select sentiment.score('warm up', %s)", (method,))
    for _ in range(3):
        start = time.perf_counter()
        row = conn.execute(
            "select array_agg(sentiment.score(t, %s) order by n)"
            " from unnest(%s::text[]) with ordinality u (t, n)",
            (method, texts),
        ).fetchone()
        best = min(best, time.perf_counter() - start)
        assert row is not None
        scores = row[0]
    return best / len(texts) * 1e6, scores


def _direct(texts: list[str], method: str) -> tuple[float, list[float]]:
    from textblob import TextBlob
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    vader = SentimentIntensityAnalyzer()
    best, scores = float("inf"), []
    for _ in range(3):
        start = time.perf_counter()
        if method == "vader":
            scores = [vader.polarity_scores(text)["compound"] for text in texts]
        else:
            scores = [TextBlob(text).sentiment.polarity for text in texts]
        best = min(best, time.perf_counter() - start)
    return best / len(texts) * 1e6, scores


def _summaries(conn: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    conn.execute(
        "insert into sentiment.scores (symbol, ts, text_id, method, version, known_at, source, score, label, is_copy)"
        " select (array['BTC', 'ETH', 'SOL'])[1 + n %% 3], t.ts, n, 'blend', 'bench', t.ts, 'news',"
        " sin(n)::numeric(6, 4), 'neutral', false from generate_series(1, %s) n"
        " cross join lateral (select timestamptz '2024-01-01 00:00+00' + n * interval '2.5 seconds' as ts) t",
        (SCORES,),
    )  # fmt: skip
    conn.execute("call sentiment.refresh()")
    conn.execute("analyze sentiment.scores")
    conn.execute("analyze sentiment.hourly_rows")
    queries = {
        "kept": "select symbol, bucket, sum(score_sum) / sum(scored_count) from sentiment.hourly group by 1, 2 order by 1, 2",
        "scanned": "select symbol, date_trunc('hour', ts, 'UTC'), avg(score::numeric) from sentiment.scores group by 1, 2 order by 1, 2",
    }
    took, found = {}, {}
    for name, query in queries.items():
        best = float("inf")
        for _ in range(3):
            start = time.perf_counter()
            found[name] = conn.execute(query).fetchall()
            best = min(best, time.perf_counter() - start)
        took[name] = best * 1000
    assert len(found["kept"]) == len(found["scanned"])
    for a, b in zip(found["kept"], found["scanned"], strict=True):
        assert a[:2] == b[:2]
        assert abs(a[2] - b[2]) < 1e-9
    return [
        _common.row(
            "sentiment of 1 M texts by hour and asset", took["kept"], "ms",
            peer="scanning the scores", peer_value=took["scanned"], goal="value <= 50",
        )
    ]  # fmt: skip


def _load(conninfo: str) -> list[dict[str, Any]]:
    from alphaplus.loaders.texts import TextLoader, TextOptions

    with (
        tempfile.TemporaryDirectory() as folder,
        psycopg.connect(conninfo, autocommit=True) as conn,
    ):
        path = Path(folder) / "texts.csv"
        with path.open("w") as file:
            file.write("time,text,author,source\n")
            for i, text in enumerate(made(LOADED)):
                file.write(f"{1_704_067_200 + i},{text},a{i % 1000},news\n")
        start = time.perf_counter()
        report = TextLoader(conn, TextOptions()).load(path)
        taken = time.perf_counter() - start
        assert report.loaded == LOADED
    return [_common.row("load texts (CSV)", LOADED / taken, "texts/s", goal="value >= 20000")]


def run(conninfo: str) -> list[dict[str, Any]]:
    """All of it, each in a fresh database."""
    rows = []
    texts = made(TEXTS)
    with (
        _common.database(conninfo, "sentiment") as own,
        psycopg.connect(own, autocommit=True) as conn,
    ):
        for method in ("vader", "textblob"):
            here, scores = _per_text(conn, texts, method)
            there, direct = _direct(texts, method)
            assert max(abs(a - b) for a, b in zip(scores, direct, strict=True)) <= 1e-12
            rows.append(
                _common.row(
                    f"sentiment of a text, {method}", here, "us", peer="the package in a plain process",
                    peer_value=there, goal="ratio <= 1.2",
                )
            )  # fmt: skip
        rows += _summaries(conn)
    with _common.database(conninfo, "texts") as own:
        rows += _load(own)
    return rows
