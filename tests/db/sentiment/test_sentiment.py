"""Texts, their scores, and what is asked of them."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from alphaplus.loaders.formats import UnknownFormat
from alphaplus.loaders.load import TooManyBad
from alphaplus.loaders.texts import TextLoader, TextOptions
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Conn = psycopg.Connection[Any]
START = dt.datetime(2024, 3, 4, tzinfo=dt.UTC)
INSTRUMENTS = """
insert into market.instruments (symbol, exchange, native_symbol, base, quote)
values ('BTCUSDT', 'binance', 'BTCUSDT', 'BTC', 'USDT'),
    ('ETHUSDT', 'binance', 'ETHUSDT', 'ETH', 'USDT')
on conflict do nothing
"""
WEIGHTS = {"vader": 0.7, "textblob": 0.3, "finance": 0.3}


@pytest.fixture(scope="module")
def db(db_module: Conn) -> Conn:
    db_module.execute(INSTRUMENTS)
    return db_module


def at(hours: float) -> dt.datetime:
    return START + dt.timedelta(hours=hours)


def one(conn: Conn, query: str, *arguments: Any) -> Any:
    row = conn.execute(query, arguments).fetchone()
    assert row is not None
    return row[0] if len(row) == 1 else row


def clear(conn: Conn) -> None:
    conn.execute("delete from sentiment.texts")
    conn.execute("delete from sentiment.unscored")
    conn.execute("delete from market.quarantine where kind = 'texts'")
    conn.execute("delete from market.loads where kind = 'texts'")


def store(conn: Conn, tmp_path: Path, rows: list[dict[str, Any]], **options: Any) -> Any:
    path = (
        tmp_path
        / f"{hashlib.sha256(json.dumps(rows, default=str).encode()).hexdigest()[:12]}.jsonl"
    )
    path.write_text("".join(json.dumps(row, default=str) + "\n" for row in rows))
    return TextLoader(conn, TextOptions(source="news", **options)).load(path)


def analyze(conn: Conn, text: str | None, symbol: str | None = None, method: str = "blend") -> Any:
    with conn.cursor(row_factory=psycopg.rows.namedtuple_row) as cursor:
        return cursor.execute(
            "select * from sentiment.analyze(%s, %s, %s)", (text, symbol, method)
        ).fetchone()


# --- analyze -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason", "language"),
    [
        (None, "no text", "zxx"),
        ("", "no text", "zxx"),
        (" \n\t", "no text", "zxx"),
        ("\u200b\u200b\ufeff", "no text", "zxx"),
        ("https://t.co/abc http://x.y/z", "no words", "zxx"),
        ("12345 !!! ???", "no words", "zxx"),
        ("Отличные новости для рынка", "the language is not known; blend reads English", "und"),
        ("아주 좋아요 최고", "the language is ko; blend reads English", "ko"),
        (
            "das ist nicht gut und wird noch schlimmer",
            "the language is de; blend reads English",
            "de",
        ),
    ],
)
def test_what_cannot_be_told_has_no_score(
    db: Conn, text: str | None, reason: str, language: str
) -> None:
    got = analyze(db, text)
    assert (got.score, got.label, got.reason, got.language) == (None, None, reason, language)


def test_odd_texts_have_stated_answers(db: Conn) -> None:
    assert analyze(db, "\U0001f600\U0001f600").score > 0  # VADER reads emoji by their names
    long = "This is great news. " * 50_000
    got = analyze(db, long)
    assert got.reason == "only the first 10000 characters are read"
    assert got.score == analyze(db, long[:10_000]).score
    plain = analyze(db, "Great news for holders")
    marked = analyze(db, "<div><p>Great <b>news</b> for holders</p><script>bad()</script></div>")
    assert marked.score == pytest.approx(plain.score)
    assert analyze(db, "Gr\u200beat n\u200bews for hol\u200bders").score == plain.score
    assert analyze(db, "好 Great news for the holders of it").score is not None
    with pytest.raises(psycopg.Error, match="unknown method") as error:
        analyze(db, "x", method="nothing")
    assert error.value.sqlstate == "AP670"
    with pytest.raises(psycopg.Error) as error:
        db.execute("select sentiment.analyze('x', null, null)")
    assert error.value.sqlstate == "AP670"
    with pytest.raises(psycopg.Error) as error:
        analyze(db, "x", symbol="NOTHING")
    assert error.value.sqlstate == "AP101"


def test_each_asset_has_its_own_sign(db: Conn) -> None:
    text = "BTC dumps, ETH flies"
    assert analyze(db, text, "BTC").score < -0.05
    assert analyze(db, text, "ETHUSDT").score > 0.05
    assert analyze(db, text, "ethereum").score == analyze(db, text, "ETH").score
    other = analyze(db, "Only bitcoin is good", "ETH")
    assert (other.score, other.reason) == (None, "it is about BTC, not about ETH")
    assert analyze(db, "This is good", "ETH").score == analyze(db, "This is good").score


@pytest.mark.parametrize("method", ["vader", "textblob", "finance", "blend"])
def test_words_sum_to_the_score(db: Conn, method: str) -> None:
    text = "VERY good rally, but the dump after it was not nice at all! :)"
    got = analyze(db, text, method=method)
    assert sum(w["contribution"] for w in got.per_word) == pytest.approx(got.score, abs=1e-9)
    assert set(got.keywords) <= {w["word"] for w in got.per_word}
    assert got.label == (
        "positive" if got.score >= 0.05 else "negative" if got.score <= -0.05 else "neutral"
    )


def ratings(shared_data: Path, name: str, every: int = 1) -> tuple[np.ndarray, list[str]]:
    lines = (shared_data / "sentiment" / "vader" / f"{name}.tsv").read_text(errors="replace")
    rows = [line.split("\t") for line in lines.splitlines() if line.count("\t") >= 2][::every]
    return np.array([float(r[1]) for r in rows]), [r[2] for r in rows]


SETS = {
    "tweets": 0.88,
    "nytEditorialSnippets": 0,
    "movieReviewSnippets": 0,
    "amazonReviewSnippets": 0,
}


@pytest.mark.long
@pytest.mark.parametrize("name", list(SETS))
def test_lexicons_equal_the_packages_and_the_blend_is_no_worse(
    db: Conn, shared_data: Path, name: str
) -> None:
    from textblob import TextBlob
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    rated, texts = ratings(shared_data, name)
    assert len(texts) > 3000
    rows = db.execute(
        "select (sentiment.analyze(t, null, 'vader', 'en')).score,"
        " (sentiment.analyze(t, null, 'textblob', 'en')).score,"
        " (sentiment.analyze(t, null, 'blend', 'en')).score"
        " from unnest(%s::text[]) with ordinality u (t, n) order by n",
        (texts,),
    ).fetchall()
    vader, textblob, blend = np.array(rows, dtype=float).T
    direct = SentimentIntensityAnalyzer()
    assert np.abs(vader - [direct.polarity_scores(t)["compound"] for t in texts]).max() <= 1e-12
    assert np.abs(textblob - [TextBlob(t).sentiment.polarity for t in texts]).max() <= 1e-12
    r = {n: np.corrcoef(rated, x)[0, 1] for n, x in [("v", vader), ("t", textblob), ("b", blend)]}
    assert r["b"] >= max(r["v"], r["t"], SETS[name])


def test_lexicons_equal_the_packages_on_some_tweets(db: Conn, shared_data: Path) -> None:
    from textblob import TextBlob
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    _, texts = ratings(shared_data, "tweets", every=20)
    direct = SentimentIntensityAnalyzer()
    for text in texts:
        got = analyze(db, text, method="vader")
        if got.language in ("en", "zxx") and got.score is not None:
            assert got.score == pytest.approx(direct.polarity_scores(text)["compound"], abs=1e-12)
            assert analyze(db, text, method="textblob").score == pytest.approx(
                TextBlob(text).sentiment.polarity, abs=1e-12
            )
            assert one(db, "select sentiment.score(%s, 'vader')", text) == got.score


# --- loading -------------------------------------------------------------------------------------


def test_files_of_every_shape_load_once(db: Conn, tmp_path: Path) -> None:
    clear(db)
    files = {
        "plain.csv": "created_at,text,user,likes\n"
        '2024-03-04T10:00:00Z,"Bitcoin is ""great"",\nreally",ann,3\n'
        "2024-03-04T11:00:00,no zone here,ann,1\n"
        "2999-01-01T00:00:00Z,from the future,ann,1\n"
        "2024-03-04T12:00:00Z,,ann,1\n"
        "yesterday,text,ann,1\n"
        "2024-03-04T12:00:00Z,$ETH up,,x\n"
        "2024-03-04T12:00:01Z,nobody wrote it,,\n",
        "reddit.jsonl": json.dumps(
            {"id": "ab1", "created_utc": 1709550000, "title": "ETH is dead", "selftext": "so bad",
             "author": "bob", "score": -4, "num_comments": 7, "permalink": "/r/x/ab1",
             "retrieved_on": 1709553600, "subreddit": "CryptoCurrency"}
        ) + "\n\n" + json.dumps({"id": "c1", "created_utc": "1709550001", "body": "[deleted]"}) + "\nnot json\n",
        "archive.js": "window.YTD.tweets.part0 = " + json.dumps(
            [{"tweet": {"id_str": "17", "created_at": "Mon Mar 04 13:00:00 +0000 2024",
                        "full_text": "RT @x: gm", "favorite_count": "5", "retweet_count": "2", "lang": "en"}}]
        ),
        "v2.jsonl": json.dumps({"id": "18", "text": "btc moon", "created_at": "2024-03-04T13:30:00.000Z",
                                "author_id": "99", "public_metrics": {"like_count": 1, "reply_count": 2}}) + "\n",
        "feed.xml": "<?xml version='1.0'?><rss version='2.0'><channel><title>t</title><item><title>Fed cuts</title>"
        "<description>&lt;p&gt;Bitcoin rallies&lt;/p&gt;</description><link>http://n/1</link>"
        "<pubDate>Mon, 04 Mar 2024 14:00:00 GMT</pubDate></item></channel></rss>",
        "atom.xml": "<feed xmlns='http://www.w3.org/2005/Atom'><entry><id>a1</id><title>Ether falls</title>"
        "<updated>2024-03-04T15:00:00+01:00</updated><link href='http://n/2'/></entry></feed>",
    }  # fmt: skip
    counts = {}
    for name, content in files.items():
        (tmp_path / name).write_text(content)
        report = TextLoader(db, TextOptions(source="news")).load(tmp_path / name)
        counts[name] = (report.read, report.loaded, report.quarantined)
    assert counts == {
        "plain.csv": (7, 2, 5),
        "reddit.jsonl": (3, 1, 2),
        "archive.js": (1, 1, 0),
        "v2.jsonl": (1, 1, 0),
        "feed.xml": (1, 1, 0),
        "atom.xml": (1, 1, 0),
    }
    reasons = db.execute(
        "select line, reason from market.quarantine where kind = 'texts' and file like %s order by line",
        ("%plain.csv",),
    ).fetchall()
    assert reasons == [
        (4, "time without a zone (--tz)"),
        (5, "future time"),
        (6, "no text"),
        (7, "unparsable time"),
        (8, "unparsable likes"),
    ]
    rows = db.execute(
        "select source, text, symbols, language, known_at, engagement, url from sentiment.texts order by ts"
    ).fetchall()
    assert len(rows) == 7
    by_text = {row[1]: row for row in rows}
    quoted = by_text['Bitcoin is "great",\nreally']
    assert quoted[2] == ["BTC"]
    assert quoted[3:5] == ("en", dt.datetime(2024, 3, 4, 10, tzinfo=dt.UTC))
    dead = by_text["ETH is dead\nso bad"]
    assert dead[0] == "reddit"
    assert dead[4] == dt.datetime.fromtimestamp(1709553600, dt.UTC)
    assert dead[5] == {"likes": 0, "comments": 7}
    assert by_text["Ether falls"][2] == ["ETH"]
    assert by_text["btc moon"][6] == "https://twitter.com/i/web/status/18"
    # Loaded again, all of it is there already; a copy of the file under another name too.
    again = TextLoader(db, TextOptions(source="news", again=True)).load(tmp_path / "plain.csv")
    assert (again.loaded, again.duplicate, again.quarantined) == (0, 2, 5)
    assert one(db, "select count(*) from sentiment.texts") == 7


def test_files_that_are_no_texts_are_refused(db: Conn, tmp_path: Path) -> None:
    for name, content, words in [
        ("a.csv", "price,size\n1,2\n", "needs a column of times"),
        ("b.csv", "time,text\n", "where are these texts from"),
        ("c.json", "[1, 2", "no JSON"),
        ("d.xml", "<html><body/></html>", "no feed"),
        ("e.xml", "<!DOCTYPE x [<!ENTITY a 'b'>]><rss/>", "declares entities"),
    ]:
        (tmp_path / name).write_text(content)
        with pytest.raises(UnknownFormat, match=words):
            TextLoader(db, TextOptions()).load(tmp_path / name)


def test_a_load_goes_on_where_it_stopped(
    db: Conn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clear(db)
    monkeypatch.setattr("alphaplus.loaders.texts.BLOCK", 10)
    path = tmp_path / "long.csv"
    rows = [
        f"2024-03-04T10:{i % 60:02}:00Z,this is text number {i} of many words,u{i},news"
        for i in range(95)
    ]
    rows[40] = "never,bad time,u,news"
    path.write_text("time,text,author,source\n" + "\n\n".join(rows) + "\n")

    class Killed(Exception):
        pass

    def kill(report: Any, share: float) -> None:
        if report.read >= 30:
            raise Killed

    with pytest.raises(Killed):
        TextLoader(db, TextOptions(), kill).load(path)
    assert one(db, "select count(*) from sentiment.texts") == 30
    report = TextLoader(db, TextOptions()).load(path)
    assert (report.read, report.loaded, report.quarantined) == (95, 94, 1)
    assert one(db, "select count(*) from sentiment.texts") == 94
    assert TextLoader(db, TextOptions()).load(path).skipped
    with pytest.raises(TooManyBad):
        TextLoader(db, TextOptions(again=True, max_bad=0)).load(path)


def test_authors_are_hashed_with_the_servers_key(
    db: Conn, tmp_path: Path, connect_as: Callable[[str, str], Conn]
) -> None:
    clear(db)
    store(db, tmp_path, [{"time": at(0), "text": "hello to all of you", "author": "Ann Example"}])
    key = bytes(one(db, "select key from sentiment.author_keys"))
    expected = hmac.new(key, b"Ann Example", "sha256").hexdigest()[:32]
    assert one(db, "select author, author_is_hashed from sentiment.texts") == (expected, True)
    assert one(db, "select sentiment.author_hash('Ann Example')") == expected
    for role in ("reader", "app", "operator", "trainer"):
        conn = connect_as(f"alphaplus_{role}", db.info.dbname)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("select key from sentiment.author_keys")
        if role != "operator":
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute("select sentiment.author_hash('Ann Example')")
    db.execute("select ops.set_setting('sentiment.raw_authors', 'true')")
    clear(db)
    store(db, tmp_path, [{"time": at(0), "text": "hello to all of you", "author": "Ann Example"}])
    assert one(db, "select author, author_is_hashed from sentiment.texts") == ("Ann Example", False)
    db.execute("select ops.set_setting('sentiment.raw_authors', 'false')")


def test_near_duplicates_are_counted_once(db: Conn, tmp_path: Path) -> None:
    clear(db)
    words = "Bitcoin had a really awful and terrible day on all of the exchanges"
    rows = [{"time": at(1), "text": words, "author": "first"}]
    rows += [
        {"time": at(1.1 + i / 100), "text": f"RT @first: {words} http://t.co/{i}"} for i in range(9)
    ]
    rows += [
        {"time": at(1.5), "text": "What a wonderful and great morning for bitcoin and its friends"}
    ]
    rows += [{"time": at(1.6), "text": "gm"}, {"time": at(1.61), "text": "gm"}]
    store(db, tmp_path, rows)
    db.execute("call sentiment.score_pending()")
    bad, good = analyze(db, words, "BTC").score, analyze(db, rows[10]["text"], "BTC").score
    with db.cursor(row_factory=psycopg.rows.namedtuple_row) as cursor:
        got = cursor.execute("select * from sentiment.summary('BTC', 2, %s)", (at(2),)).fetchone()
    assert got is not None
    assert (got.text_count, got.copy_count, got.scored_count) == (11, 9, 2)
    assert got.mean == pytest.approx((bad + good) / 2)
    assert (
        one(db, "select count(*) from sentiment.texts where text = 'gm' and duplicate_of is null")
        == 2
    )
    # A copy that comes with a later file finds its original in the database.
    store(db, tmp_path, [{"time": at(3), "text": words + " !"}])
    original = one(db, "select text_id from sentiment.texts where text = %s", words)
    assert one(db, "select duplicate_of from sentiment.texts where ts = %s", at(3)) == original


def test_signatures_are_datasketch_s() -> None:
    from alphaplus.loaders.texts import PERMUTATIONS, Duplicates
    from datasketch import MinHash

    text = "one two three four five six seven eight nine ten"
    signatures, _ = Duplicates(1, 0.8).signatures_of([text, "too short", text.upper()])
    import zlib

    direct = MinHash(num_perm=PERMUTATIONS, seed=1, hashfunc=zlib.crc32)
    words = text.split()
    for triple in zip(words, words[1:], words[2:], strict=False):
        direct.update(" ".join(triple).encode())
    assert (signatures[0] == direct.hashvalues).all()
    assert (signatures[2] == signatures[0]).all()


# --- asking --------------------------------------------------------------------------------------


def texts_of(seed: int, n: int, hours: float = 48) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    good = ["great", "wonderful", "bullish", "love", "amazing"]
    bad = ["awful", "terrible", "bearish", "hate", "horrible"]
    out = []
    for i in range(n):
        word = random.choice(good if random.random() < 0.6 else bad)
        asset = random.choice(["BTC", "ETH"])
        ts = random.uniform(0, hours)
        late = random.choice([0, 0, 0, random.exponential(5)])
        out.append(
            {
                "time": at(ts), "known_at": at(ts + late), "id": f"{seed}-{i}",
                "source": str(random.choice(["twitter", "reddit", "news"])),
                "text": f"{asset} is {word} said number {i} of {seed}: {random.integers(1e9)}",
                "author": f"a{random.integers(20)}", "likes": int(random.integers(100)),
            }
        )  # fmt: skip
    return out


def frame(conn: Conn, symbol: str) -> pd.DataFrame:
    rows = conn.execute(
        "select ts, known_at, source, score, label, is_copy, novelty, weight, weight_known_at"
        " from sentiment.scores where symbol = %s and method = 'blend'",
        (symbol,),
    ).fetchall()
    names = [
        "ts",
        "known",
        "source",
        "score",
        "label",
        "is_copy",
        "novelty",
        "weight",
        "weight_known",
    ]
    return pd.DataFrame(rows, columns=names)


def test_summary_trends_and_sources_are_what_pandas_says(db: Conn, tmp_path: Path) -> None:
    clear(db)
    store(db, tmp_path, texts_of(1, 400))
    db.execute("call sentiment.score_pending(150)")
    for refreshed in (False, True):
        if refreshed:
            db.execute("call sentiment.refresh()")
            assert one(db, "select count(*) from sentiment.hourly_marks") == 0
        for as_of, hours in [(at(30.37), 11.6), (at(24), 24), (at(60), 100), (at(20.2), 0.3)]:
            all_rows = frame(db, "BTC")
            known = all_rows[
                (all_rows.ts >= as_of - dt.timedelta(hours=hours)) & (all_rows.ts < as_of)
                & (all_rows.known <= as_of)
            ]  # fmt: skip
            scored = known[known.score.notna() & ~known.is_copy]
            weight = scored.weight.where(scored.weight_known <= as_of, 1.0)
            with db.cursor(row_factory=psycopg.rows.namedtuple_row) as cursor:
                got = cursor.execute(
                    "select * from sentiment.summary('BTCUSDT', %s, %s)", (hours, as_of)
                ).fetchone()
            assert got is not None
            assert (got.text_count, got.scored_count) == (len(known), len(scored))
            if len(scored):
                assert got.mean == pytest.approx(scored.score.mean())
                assert got.dispersion == pytest.approx(scored.score.std(ddof=0), abs=1e-9)
                assert got.weighted_mean == pytest.approx(np.average(scored.score, weights=weight))
                assert got.share_positive == pytest.approx((scored.label == "positive").mean())
                assert got.novelty == pytest.approx(known.novelty.mean())
            by_source = db.execute(
                "select source, text_count, mean from sentiment.sources('BTC', %s, %s)",
                (hours, as_of),
            ).fetchall()
            assert {r[0]: r[1] for r in by_source} == known.groupby("source").size().to_dict()
            trend = db.execute(
                "select \"from\", text_count, mean from sentiment.trends('BTC', %s, %s)",
                (hours, as_of),
            ).fetchall()
            for start, count, mean in trend:
                part = scored_of(all_rows, start, min(start + dt.timedelta(hours=1), as_of), as_of)
                assert count == part[0]
                assert mean == (None if part[1] is None else pytest.approx(part[1]))
    recent = db.execute(
        "select ts, known_at from sentiment.recent('BTC', 7, %s)", (at(30),)
    ).fetchall()
    expected = frame(db, "BTC")
    expected = expected[(expected.ts <= at(30)) & (expected.known <= at(30))]
    assert [r[0] for r in recent] == sorted(expected.ts.dt.to_pydatetime(), reverse=True)[:7]


def scored_of(rows: pd.DataFrame, start: Any, end: Any, as_of: Any) -> tuple[int, float | None]:
    known = rows[(rows.ts >= start) & (rows.ts < end) & (rows.known <= as_of)]
    scored = known[known.score.notna() & ~known.is_copy]
    return len(known), float(scored.score.mean()) if len(scored) else None


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("select sentiment.summary('BTC', 0)", "AP673"),
        ("select sentiment.summary('BTC', 'nan')", "AP673"),
        ("select sentiment.summary('BTC', 'infinity')", "AP673"),
        ("select sentiment.summary('BTC', null)", "AP673"),
        ("select sentiment.summary('BTC', 1, 'infinity')", "AP674"),
        ("select sentiment.summary('NOTHING', 1)", "AP101"),
        ("select sentiment.trends('BTC', 24, null, null, '1 minute')", "AP675"),
        ("select sentiment.trends('BTC', 24, null, null, null)", "AP675"),
        ("select sentiment.recent('BTC', 0)", "AP676"),
        ("select sentiment.recent('BTC', null)", "AP676"),
        ("call sentiment.score_pending(0)", "AP672"),
        ("select sentiment.correlation('BTC', 48, null, null, '{-1}')", "AP682"),
        ("select sentiment.correlation('BTC', 48, null, null, null)", "AP682"),
        ("select sentiment.correlation('BTC', 48, null, null, '{1}', 0)", "AP683"),
        ("select sentiment.influence('BTC', 48, null, 'nobody')", "AP684"),
        ("select sentiment.influence('BTC', 48, null, 'author', null, 0)", "AP685"),
        ("call sentiment.train('nothing')", "AP681"),
    ],
)
def test_bad_questions_get_a_clear_no(db: Conn, query: str, code: str) -> None:
    with pytest.raises(psycopg.Error) as error:
        db.execute(query)
    assert error.value.sqlstate == code
    assert error.value.diag.message_hint


QUESTIONS = {
    "summary": "select x::text from sentiment.summary(%(s)s, 12, %(t)s) x",
    "trends": "select x::text from sentiment.trends(%(s)s, 12, %(t)s) x",
    "sources": "select x::text from sentiment.sources(%(s)s, 12, %(t)s) x",
    "recent": "select x::text from sentiment.recent(%(s)s, 50, %(t)s) x",
    "events": "select x::text from sentiment.events(%(s)s, 12, %(t)s) x",
    "influence": "select x::text from sentiment.influence(%(s)s, 30, %(t)s, 'source') x",
    "correlation": "select x::text from sentiment.correlation(%(s)s, 30, %(t)s) x",
}


def answers(conn: Conn, as_of: dt.datetime) -> dict[str, Any]:
    return {
        (name, symbol): conn.execute(query, {"s": symbol, "t": as_of}).fetchall()
        for name, query in QUESTIONS.items()
        for symbol in ("BTC", "ETH", None)
    }


@settings(
    max_examples=8, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(seed=st.integers(0, 10**6), as_of=st.floats(6, 30), refresh=st.booleans())
def test_what_becomes_known_late_changes_no_earlier_answer(
    db: Conn, tmp_path: Path, seed: int, as_of: float, refresh: bool
) -> None:
    clear(db)
    rows = texts_of(seed, 60, hours=30)
    copies = [{**row, "id": f"c{row['id']}", "time": row["known_at"] + dt.timedelta(hours=1),
               "known_at": row["known_at"] + dt.timedelta(hours=2)} for row in rows[:10]]  # fmt: skip
    known = [row for row in rows + copies if row["known_at"] <= at(as_of)]
    later = [row for row in rows + copies if row["known_at"] > at(as_of)]
    if known:
        store(db, tmp_path, known)
    db.execute("call sentiment.score_pending()")
    before = answers(db, at(as_of))
    if refresh:
        db.execute("call sentiment.refresh()")
        assert answers(db, at(as_of)) == before
    if later:
        store(db, tmp_path, later)
    db.execute("call sentiment.score_pending()")
    assert answers(db, at(as_of)) == before
    db.execute("call sentiment.refresh()")
    assert answers(db, at(as_of)) == before


def test_the_seeds_view_has_their_columns(db: Conn) -> None:
    names = [
        c.name
        for c in db.execute("select * from sentiment.sentiment_analysis limit 0").description or ()
    ]
    assert names[:14] == [
        "id", "timestamp", "symbol", "source", "sentiment_score", "sentiment_label", "confidence_score",
        "text_content", "source_url", "author", "engagement_metrics", "keywords", "language", "created_at",
    ]  # fmt: skip


# --- text models ---------------------------------------------------------------------------------


def labelled(conn: Conn, shared_data: Path, name: str) -> pd.DataFrame:
    rows = pd.read_csv(shared_data / "sentiment" / "stock_tweets.csv")
    rows["y"] = np.where(rows["sentiment"].str.lower() == "positive", 1.0, -1.0)
    with conn.cursor() as cursor:
        cursor.executemany(
            "insert into sentiment.labelled_texts (label_set, text, language, label) values (%s, %s, 'en', %s)",
            [(name, text, y) for text, y in zip(rows["text"].astype(str), rows["y"], strict=True)],
        )
    return rows


def test_a_text_model_goes_the_way_of_every_model(
    db: Conn, shared_data: Path, server: Any, connect_as: Callable[[str, str], Conn]
) -> None:
    rows = labelled(db, shared_data, "stock")
    db.execute("select sentiment.create_model('stock_terms', 'stock', 'en')")
    db.execute("select sentiment.create_model('stock_terms', 'stock', 'en')")
    none = analyze(db, "buy it", method="stock_terms")
    assert (none.score, none.reason) == (None, "no version of stock_terms is in use yet")
    db.execute("call sentiment.train('stock_terms')")
    drain(server, db)
    status, error = one(db, "select status, error from ml.jobs order by job_id desc limit 1")
    assert (status, error) == ("succeeded", None)
    version, metrics, spec = one(
        db, "select version_id, metrics, spec from ml.model_versions where model = 'stock_terms'"
    )
    assert spec["language"] == "en"
    assert metrics["auc"] > 0.8
    assert metrics["macro_f1"] > max(v["macro_f1"] for v in metrics["beside"].values())
    gates = dict(db.execute("select gate, passed from ml.gate_report(%s)", (version,)).fetchall())
    assert gates == dict.fromkeys(
        ("text_auc", "text_champion", "text_log_loss", "text_macro_f1"), True
    )
    before = one(db, "select clock_timestamp()")
    db.execute("call ml.promote(%s)", (version,))
    reader = connect_as("alphaplus_reader", db.info.dbname)
    with reader.cursor(row_factory=psycopg.rows.namedtuple_row) as cursor:
        for text in rows["text"].astype(str)[:25]:
            got = cursor.execute(
                "select * from sentiment.analyze(%s, null, 'stock_terms', 'en')", (text,)
            ).fetchone()
            assert got is not None
            assert got.version == str(version)
            assert sum(w["contribution"] for w in got.per_word) == pytest.approx(
                got.score, abs=1e-9
            )
            # The same by a join over rows: log odds, and their tanh.
            raw = cursor.execute(
                "select sum(w.weight) / sqrt((select count(distinct o.n) from unnest(%s::text[]) with ordinality o (w, n)))"
                " + (select weight from sentiment.terms where version_id = %s and term = '(intercept)')"
                " from sentiment.term_weights(%s, 'stock_terms') w",
                (words_of(text), version, text),
            ).fetchone()
            assert got.score == pytest.approx(float(np.tanh(raw[0] / 2)), abs=1e-9)
    assert one(db, "select sentiment.score('good news for the shares', 'stock_terms')") is not None
    # As of before its promotion it was nobody's.
    past = one(
        db, "select reason from sentiment.analyze('buy', null, 'stock_terms', 'en', %s)", before
    )
    assert past == "no version of stock_terms is in use yet"
    # A score by it is not known before it was in use.
    db.execute("select ops.set_setting('sentiment.methods', '[\"blend\", \"stock_terms\"]')")
    clear(db)
    db.execute(
        "insert into sentiment.texts (text_id, ts, known_at, source, source_id, symbols, text, language)"
        " values (1, %s, %s, 'news', 'x', '{BTC}', 'BTC is a great buy, what a good day', 'en')",
        (at(0), at(0)),
    )
    db.execute("call sentiment.score_pending()")
    known = dict(
        db.execute("select method, min(known_at) from sentiment.scores group by 1").fetchall()
    )
    assert known["blend"] == at(0)
    assert known["stock_terms"] >= before
    assert (
        one(db, "select text_count from sentiment.summary('BTC', 24, %s, 'stock_terms')", at(12))
        == 0
    )
    db.execute('select ops.set_setting(\'sentiment.methods\', \'["vader", "textblob", "blend"]\')')


def words_of(text: str) -> list[str]:
    from alphaplus.texts import terms

    return terms.words_of(text)


def drain(server: Any, conn: Conn) -> None:
    from alphaplus.trainer.worker import Worker

    Worker(server.conninfo(conn.info.dbname, "alphaplus_trainer"), mode="drain", threads=1).run()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("'Bad Name', 'stock', 'en'", "AP677"),
        ("'vader', 'stock', 'en'", "AP677"),
        ("'m', 'stock', 'english'", "AP678"),
        ("'m', 'nothing', 'en'", "AP679"),
        ("null, 'stock', 'en'", "AP677"),
    ],
)
def test_bad_text_models_are_refused(db: Conn, arguments: str, code: str) -> None:
    with pytest.raises(psycopg.Error) as error:
        db.execute(f"select sentiment.create_model({arguments})")
    assert error.value.sqlstate == code


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x80\x04", "no JSON"),
        (b"[]", "format"),
        (b'{"format": "alphaplus.terms.1", "classes": ["a"]}', "classes"),
        (b'{"format": "alphaplus.terms.1", "classes": ["negative", "positive"], "language": "en", "terms": {}}', "no terms"),
        (
            b'{"format": "alphaplus.terms.1", "classes": ["negative", "positive"], "language": "en",'
            b' "terms": {"w:a": [0, NaN]}, "intercept": [0, 0]}',
            "not 2 numbers",
        ),
        (
            b'{"format": "alphaplus.terms.1", "classes": ["negative", "positive"], "language": "en",'
            b' "terms": {"x": [0, 1]}, "intercept": [0, 0]}',
            "no term",
        ),
    ],
)  # fmt: skip
def test_what_is_no_table_of_terms_is_refused(db: Conn, content: bytes, words: str) -> None:
    with pytest.raises(psycopg.Error, match=words) as error:
        db.execute("select sentiment._check_artifact(%s)", (content,))
    assert error.value.sqlstate == "AP671"


# --- beside chance -------------------------------------------------------------------------------


def test_a_burst_is_an_event_and_an_alert(db: Conn, tmp_path: Path) -> None:
    clear(db)
    now = dt.datetime.now(dt.UTC).replace(minute=0, second=0, microsecond=0)
    rows = [
        {"time": now - dt.timedelta(hours=h, minutes=7 * i + 1), "id": f"q{h}-{i}",
         "text": f"BTC is calm, nothing to see at number {h * 10 + i} of them today"}
        for h in range(1, 60) for i in range(3)
    ]  # fmt: skip
    rows += [
        {"time": now - dt.timedelta(hours=1, seconds=-i), "id": f"b{i}", "author": f"w{i}",
         "text": f"BTC exchange {i} was hacked and withdrawals halted, terrible loss number {i * 7919}"}
        for i in range(40)
    ]  # fmt: skip
    store(db, tmp_path, rows)
    db.execute("call sentiment.score_pending()")
    with db.cursor(row_factory=psycopg.rows.namedtuple_row) as cursor:
        events = cursor.execute("select * from sentiment.events('BTC', 24, %s)", (now,)).fetchall()
    assert len(events) == 1
    assert (events[0].kind, events[0].started_at) == ("volume", now - dt.timedelta(hours=1))
    assert events[0].p < 1e-5
    assert {"hacked", "withdrawals"} <= set(events[0].terms)
    # At its beginning nobody could know of it.
    early = now - dt.timedelta(minutes=59)
    assert db.execute("select * from sentiment.events('BTC', 24, %s)", (early,)).fetchall() == []
    db.execute("call sentiment.raise_events()")
    db.execute("call sentiment.raise_events()")
    kinds = db.execute(
        "select message from ops.alerts where kind = 'sentiment_event' and message like 'BTC%'"
    ).fetchall()
    assert len(kinds) == 1
    assert "hacked" in kinds[0][0]


def test_sentiment_that_leads_the_price_is_found_at_its_lag(db: Conn) -> None:
    clear(db)
    random = np.random.default_rng(5)
    hours = 400
    mood = random.uniform(-0.9, 0.9, hours)
    close = 100 * np.exp(
        np.cumsum(np.r_[0, 0, 0, 0.01 * mood[:-1]] + random.normal(0, 0.002, hours + 2))
    )
    with db.cursor() as cursor:
        cursor.executemany(
            "insert into sentiment.scores (symbol, ts, text_id, method, version, known_at, source, score, label, is_copy)"
            " values ('BTC', %s, %s, 'blend', 'test', %s, 'news', %s, 'neutral', false)",
            [(at(h + 0.5), 10**6 + h, at(h + 0.5), float(mood[h])) for h in range(hours)],
        )
        cursor.executemany(
            "insert into market.candles (symbol, timeframe, ts, known_at, open, high, low, close, volume)"
            " values ('BTCUSDT', '1 hour', %s, %s, %s, %s, %s, %s, 1)",
            [(at(h), at(h + 1), c, c, c, c) for h, c in enumerate(close.tolist())],
        )
    rows = db.execute(
        "select lag_hours, n, r, naive_p, p, q from sentiment.correlation('BTC', %s, %s)",
        (hours, at(hours)),
    ).fetchall()
    found = {row[0]: row for row in rows}
    # The bar of hour h + 3 closes 0.01 mood[h] above the one before: two hours after hour h's end.
    moves = np.log(close[3:hours] / close[2 : hours - 1])
    assert found[2][1] == hours - 3
    assert found[2][2] == pytest.approx(np.corrcoef(mood[: hours - 3], moves)[0, 1], abs=1e-9)
    assert found[2][5] <= 0.05
    assert min(found[lag][5] for lag in found if lag != 2) > 0.05
    db.execute("delete from sentiment.scores")
    db.execute("delete from market.candles")
