"""Texts into ``sentiment.texts``: posts, news and archives, with the promises of market files.

Read as a stream in blocks; each block is one transaction: its bad records go to
``market.quarantine`` with line and reason, its good ones into the table, and how far the file is
loaded is written down. Languages, assets and near-duplicates are found here, authors are hashed
here, so that the server only stores.
"""

from __future__ import annotations

import contextlib
import csv
import datetime as dt
import email.utils
import hashlib
import hmac
import io
import itertools
import math
import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import orjson
import psycopg
from alphaplus.loaders.description import Description
from alphaplus.loaders.files import BROKEN, DamagedFile, Source
from alphaplus.loaders.formats import UnknownFormat
from alphaplus.loaders.load import Loader, Options, Refused, Report
from alphaplus.texts import cleaning, language, words
from alphaplus.texts.assets import Assets

BLOCK = 5000  # records
LONGEST = 1_000_000  # characters of a text
SOURCES = ("twitter", "reddit", "news", "telegram", "other")
SECOND = 1_000_000
FUTURE = 60 * SECOND  # clocks differ; a minute ahead is not yet the future
LARGEST_COUNT = 10**15

# A plain file's columns, by what they are called.
_COLUMNS = {
    "text": "text content body full_text tweet message text_content headline post",
    "title": "title",
    "time": "ts timestamp time date datetime created_at created_utc published published_at pubdate",
    "known": "known_at received_at retrieved_on retrieved_utc crawled_at",
    "author": "author user username user_name screen_name author_name",
    "id": "source_id id id_str tweet_id post_id message_id",
    "url": "url link permalink source_url",
    "source": "source",
    "symbol": "symbol symbols ticker tickers coin coins asset assets",
    "likes": "likes like_count favorite_count favourites score ups",
    "retweets": "retweets retweet_count shares reposts forwards",
    "comments": "comments num_comments reply_count replies",
    "language": "language lang",
}
_NAMES = {name: what for what, names in _COLUMNS.items() for name in names.split()}


@dataclass(frozen=True)
class TextOptions(Options):
    """How to load texts; see :class:`alphaplus.loaders.load.Options` for the rest.

    source: where the file does not say; symbols: assets that all texts of the file are about.
    """

    kind: str = "texts"
    source: str | None = None
    symbols: tuple[str, ...] = ()


class Bad(Exception):
    """A record that is refused; its words are reason and detail."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


@dataclass
class Record:
    """One text as its source has it; times in microseconds since 1970."""

    line: int
    text: str
    ts: int
    source: str
    raw: Callable[[], str]
    id: str | None = None
    known: int | None = None
    author: str | None = None
    url: str | None = None
    symbols: list[str] = field(default_factory=list)
    engagement: dict[str, int] = field(default_factory=dict)
    language: str | None = None


# --- times and numbers ---------------------------------------------------------------------------


def moment(value: Any, zone: dt.tzinfo | None) -> int:
    """A time as sources write it: ISO 8601, RFC 822, Twitter's, or a number since 1970.

    Raises:
        Bad: it is none, or names no time zone and none was given.
    """
    if isinstance(value, str):
        value = value.strip()
        if re.fullmatch(r"\d{9,17}(\.\d+)?", value):
            value = float(value) if "." in value else int(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value) or value <= 0:
            raise Bad("unparsable time", str(value))
        # Seconds, milliseconds or microseconds: by size, 1973 to 2286 in each.
        for unit, top in ((SECOND, 1e10), (1000, 1e13), (1, 1e16)):
            if 1e8 <= value < top:
                return round(value * unit) if isinstance(value, float) else value * unit
        raise Bad("unparsable time", str(value))
    if not isinstance(value, str) or not value:
        raise Bad("unparsable time", repr(value)[:100])
    found: dt.datetime | None = None
    with contextlib.suppress(ValueError):
        found = dt.datetime.fromisoformat(value.replace(" UTC", "+00:00"))
    if found is None:
        with contextlib.suppress(ValueError, TypeError):
            found = dt.datetime.strptime(value, "%a %b %d %H:%M:%S %z %Y")
    if found is None:
        with contextlib.suppress(ValueError, TypeError, IndexError):
            found = email.utils.parsedate_to_datetime(value)
    if found is None:
        raise Bad("unparsable time", value[:100])
    if found.tzinfo is None:
        if zone is None:
            raise Bad("time without a zone (--tz)", value[:100])
        found = found.replace(tzinfo=zone)
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return (found - epoch) // dt.timedelta(microseconds=1)


def zone_of(name: str | None) -> dt.tzinfo | None:
    """The time zone of an option: UTC, +02:00 or a name such as Europe/Berlin."""
    if name is None:
        return None
    if name.upper() in ("UTC", "Z"):
        return dt.UTC
    if match := re.fullmatch(r"([+-])(\d\d):?(\d\d)", name):
        minutes = int(match[2]) * 60 + int(match[3])
        return dt.timezone(dt.timedelta(minutes=minutes if match[1] == "+" else -minutes))
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise UnknownFormat(f"{name} is no time zone: UTC, +02:00, Europe/Berlin") from None


def _counts(given: dict[str, Any]) -> dict[str, int]:
    out: dict[str, int] = {}
    for name, value in given.items():
        if value is None or value == "" or isinstance(value, bool):
            continue
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise Bad(f"unparsable {name}", str(value)[:100]) from None
        if not math.isfinite(number) or abs(number) > LARGEST_COUNT:
            raise Bad(f"unparsable {name}", str(value)[:100])
        # Reddit's score is votes for less votes against.
        out[name] = max(0, int(number))
    return out


def _words(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str):
        return [word for word in re.split(r"[\s,;|{}\[\]\"']+", value) if word]
    if isinstance(value, list):
        return [str(word) for word in value]
    raise Bad("unparsable symbol", repr(value)[:100])


# --- formats -------------------------------------------------------------------------------------


def _text(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


def from_json(
    row: Any, line: int, raw: Callable[[], str], options: TextOptions, zone: dt.tzinfo | None
) -> Record:
    """One object: Reddit's and Twitter's own shapes, or plain columns."""
    if isinstance(row, dict) and isinstance(row.get("tweet"), dict):
        row = row["tweet"]
    if isinstance(row, dict) and row.get("kind") in ("t1", "t3") and isinstance(row["data"], dict):
        row = row["data"]
    if not isinstance(row, dict):
        raise Bad("no object", "")
    if "created_utc" in row and ("body" in row or "selftext" in row or "title" in row):
        title, text = row.get("title"), row.get("body", row.get("selftext"))
        if text in ("[deleted]", "[removed]"):
            text = None
        words = "\n".join(str(x) for x in (title, text) if x)
        known = row.get("retrieved_on", row.get("retrieved_utc"))
        link = row.get("permalink")
        kind = "t3" if title else "t1"
        author = row.get("author")
        return Record(
            line, words, moment(row["created_utc"], zone), "reddit", raw,
            id=str(row.get("name") or f"{kind}_{row['id']}") if row.get("id") else None,
            known=moment(known, zone) if known else None,
            author=None if author in (None, "[deleted]") else str(author),
            url=f"https://www.reddit.com{link}" if link else _text(row.get("url")),
            engagement=_counts({"likes": row.get("score"), "comments": row.get("num_comments")}),
        )  # fmt: skip
    user = row.get("user")
    metrics = row.get("public_metrics")
    if (
        isinstance(metrics, dict)
        or "id_str" in row
        or "full_text" in row
        or "favorite_count" in row
    ):
        metrics = metrics if isinstance(metrics, dict) else {}
        user = user if isinstance(user, dict) else {}
        name = user.get("screen_name") or user.get("username") or row.get("author_id")
        number = row.get("id_str") or row.get("id")
        extended = row.get("extended_tweet")
        text = extended.get("full_text") if isinstance(extended, dict) else None
        lang = row.get("lang")
        return Record(
            line, str(text or row.get("full_text") or row.get("text") or ""),
            moment(row.get("created_at"), zone or dt.UTC), "twitter", raw,
            id=str(number) if number else None,
            author=_text(name),
            url=f"https://twitter.com/i/web/status/{number}" if number else None,
            language=lang if isinstance(lang, str) and lang not in ("und", "qme", "zxx") else None,
            engagement=_counts({
                "likes": metrics.get("like_count", row.get("favorite_count")),
                "retweets": metrics.get("retweet_count", row.get("retweet_count")),
                "comments": metrics.get("reply_count", row.get("reply_count")),
            }),
        )  # fmt: skip
    plain: dict[str, Any] = {}
    for name, value in row.items():
        if (what := _NAMES.get(name.lower())) is not None and what not in plain:
            plain[what] = value
    return from_columns(plain, line, raw, options, zone)


def from_columns(
    row: dict[str, Any], line: int, raw: Callable[[], str], options: TextOptions,
    zone: dt.tzinfo | None,
) -> Record:  # fmt: skip
    """A row of a plain file, its columns under our names."""
    source = str(row.get("source") or options.source or "").strip().lower()
    source = {"x": "twitter", "x/twitter": "twitter"}.get(source, source)
    if source not in SOURCES:
        if options.source is None or row.get("source"):
            raise Bad(f"source is none of {', '.join(SOURCES)} (--source)", source[:100])
        raise UnknownFormat(f"--source {options.source} is none of {', '.join(SOURCES)}")
    text = "\n".join(str(row[x]) for x in ("title", "text") if row.get(x))
    known = row.get("known")
    return Record(
        line, text, moment(row.get("time"), zone), source, raw,
        id=_text(row.get("id")),
        known=moment(known, zone) if known not in (None, "") else None,
        author=_text(row.get("author")),
        url=_text(row.get("url")),
        symbols=_words(row.get("symbol")),
        language=_text(row.get("language")),
        engagement=_counts({n: row.get(n) for n in ("likes", "retweets", "comments")}),
    )  # fmt: skip


def feed_entries(content: bytes, options: TextOptions) -> Iterator[Record | Refused]:
    """The entries of an RSS 2.0, RSS 1.0 or Atom document.

    Raises:
        UnknownFormat: it is no such document, or declares entities, which feeds have no use for.
    """
    from xml.etree import ElementTree

    if b"<!ENTITY" in content[:4096].upper() or b"<!ENTITY" in content.upper():
        raise UnknownFormat("the feed declares entities: refused")
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise UnknownFormat(f"the feed is no XML ({error})") from None

    def name(element: Any) -> str:
        return str(element.tag).rsplit("}", 1)[-1].lower()

    entries = [element for element in root.iter() if name(element) in ("item", "entry")]
    if name(root) not in ("rss", "feed", "rdf"):
        raise UnknownFormat(f"<{name(root)}> is no feed: rss, rdf or feed is")
    for number, entry in enumerate(entries, 1):
        parts: dict[str, str] = {}
        for child in entry:
            value = "".join(child.itertext()).strip()
            if name(child) == "link" and not value:
                value = child.get("href", "")
            if value:
                parts.setdefault(name(child), value)
        packed = ElementTree.tostring(entry, encoding="unicode")
        try:
            when = next(
                (parts[x] for x in ("pubdate", "published", "date", "updated") if x in parts), None
            )
            title = parts.get("title", "")
            body = parts.get("description") or parts.get("summary") or parts.get("encoded") or ""
            body = body or parts.get("content", "")
            text = title if body in title else f"{title}\n{body}".strip()
            yield Record(
                number, text, moment(when, zone_of(options.tz)), options.source or "news",
                lambda packed=packed: packed,  # type: ignore[misc]
                id=parts.get("guid") or parts.get("id") or parts.get("link"),
                author=parts.get("creator") or parts.get("author"),
                url=parts.get("link"),
            )  # fmt: skip
        except Bad as error:
            yield number, packed, error.reason, error.detail


def records(
    stream: IO[bytes], options: TextOptions, report: Report, skip: int = 0
) -> Iterator[Record | Refused]:
    """The records of a file, whatever its shape; the first ``skip`` are passed over.

    Raises:
        UnknownFormat: no shape fits.
    """
    zone = zone_of(options.tz)
    buffered: Any = io.BufferedReader(stream, 1 << 20)
    head = buffered.peek(4096)[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")
    report.kind = "texts"
    if head.startswith(b"<"):
        report.format = "feed"
        yield from itertools.islice(feed_entries(buffered.read(), options), skip, None)
    elif head.startswith((b"[", b"window.")):
        report.format = "json array"
        content = buffered.read().lstrip(b"\xef\xbb\xbf \t\r\n")
        if content.startswith(b"window."):
            content = content.partition(b"=")[2]
        try:
            rows = orjson.loads(content)
        except orjson.JSONDecodeError as error:
            raise UnknownFormat(f"the file is no JSON ({error})") from None
        if not isinstance(rows, list):
            raise UnknownFormat("the file holds no list of texts")
        for number, row in enumerate(rows[skip:], skip + 1):
            yield _made(row, number, lambda row=row: orjson.dumps(row).decode(), options, zone)  # type: ignore[misc]
    elif head.startswith(b"{"):
        report.format = "json lines"
        whole = ((n, line) for n, line in enumerate(buffered, 1) if line.strip())
        for number, line in itertools.islice(whole, skip, None):
            as_read = partial(_decoded, line)
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                yield number, as_read(), "no JSON", str(error)
                continue
            yield _made(row, number, as_read, options, zone)
    else:
        report.format = "csv"
        yield from _csv(buffered, options, zone, skip)


def _decoded(line: bytes) -> str:
    return line.decode("utf-8", "replace").rstrip("\r\n")


def _made(
    row: Any, number: int, raw: Callable[[], str], options: TextOptions, zone: dt.tzinfo | None
) -> Record | Refused:
    try:
        return from_json(row, number, raw, options, zone)
    except Bad as error:
        return number, raw(), error.reason, error.detail
    except (TypeError, ValueError, OverflowError, AttributeError, KeyError) as error:
        return number, raw(), "unparsable", str(error)[:200]


def _csv(
    stream: IO[bytes], options: TextOptions, zone: dt.tzinfo | None, skip: int
) -> Iterator[Record | Refused]:
    csv.field_size_limit(2**31 - 1)
    lines = io.TextIOWrapper(stream, "utf-8-sig", errors="replace", newline="")
    first = lines.readline()
    separator = max(",\t;|", key=first.count)
    header = next(csv.reader([first], delimiter=separator), [])
    columns: dict[str, int] = {}
    for at, name in enumerate(header):
        what = _NAMES.get(name.strip().lower())
        if what is not None:
            columns.setdefault(what, at)
    if "time" not in columns or not {"text", "title"} & set(columns):
        raise UnknownFormat(
            f"a file of texts needs a column of times ({_COLUMNS['time'].replace(' ', ', ')})"
            f" and one of texts ({_COLUMNS['text'].replace(' ', ', ')}); it has"
            f" {', '.join(header)[:300]}"
        )
    if "source" not in columns and options.source is None:
        raise UnknownFormat(f"where are these texts from? --source {' | '.join(SOURCES)}")
    reader = csv.reader(lines, delimiter=separator)
    for cells in itertools.islice(filter(None, reader), skip, None):
        number = reader.line_num + 1

        def raw(cells: list[str] = cells) -> str:
            out = io.StringIO()
            csv.writer(out, lineterminator="").writerow(cells)
            return out.getvalue()

        if len(cells) != len(header):
            yield number, raw(), f"{len(cells)} fields, {len(header)} expected", ""
            continue
        try:
            row = {what: cells[at] for what, at in columns.items()}
            yield from_columns(row, number, raw, options, zone)
        except Bad as error:
            yield number, raw(), error.reason, error.detail


# --- near-duplicates -----------------------------------------------------------------------------

PERMUTATIONS = 64
BANDS = 16
LEAST_WORDS = 5  # people say the same few words on their own
_TRIPLE_WORD = re.compile(r"\w+", re.UNICODE)
_RETWEET = re.compile(r"^\s*RT @\w+:?\s*")


class Duplicates:
    """Finds the first known of near-duplicate texts: MinHash (Broder 1997) over word triples.

    The hash functions are datasketch's. A text of fewer than five words is nobody's copy.
    """

    def __init__(self, window: int, similarity: float) -> None:
        from datasketch import MinHash

        self.a, self.b = MinHash(num_perm=PERMUTATIONS, seed=1, scheme="affine32").permutations
        self.window = window
        self.similarity = similarity
        self.bands: list[dict[bytes, int]] = [{} for _ in range(BANDS)]
        self.signatures: list[npt.NDArray[np.uint32]] = []
        self.texts: list[tuple[int, int, int]] = []  # text_id, ts, text_id of the first
        self.read_from: int | None = None
        self.read_to: int | None = None

    def signatures_of(self, texts: list[str]) -> tuple[npt.NDArray[np.uint32], npt.NDArray[Any]]:
        """(n, permutations) signatures, and which texts are long enough to have one."""
        hashes: list[int] = []
        starts: list[int] = []
        long_enough = np.zeros(len(texts), dtype=bool)
        crc = zlib.crc32
        for i, text in enumerate(texts):
            if text.startswith("RT @"):
                text = _RETWEET.sub("", text)
            if "http" in text:
                text = cleaning.words_only(text)
            words = _TRIPLE_WORD.findall(text.lower())
            if len(words) < LEAST_WORDS:
                continue
            long_enough[i] = True
            starts.append(len(hashes))
            coded = " ".join(words).encode().split(b" ")
            hashes += {
                crc(b"%b %b %b" % triple)
                for triple in zip(coded, coded[1:], coded[2:], strict=False)
            }
        out = np.zeros((len(texts), PERMUTATIONS), dtype=np.uint32)
        if hashes:
            # Scheme affine32 of datasketch: MurmurHash3's finalizer, then a h + b modulo 2^32.
            values = np.array(hashes, dtype=np.uint32)
            values ^= values >> np.uint32(16)
            values *= np.uint32(0x85EBCA6B)
            values ^= values >> np.uint32(13)
            values *= np.uint32(0xC2B2AE35)
            values ^= values >> np.uint32(16)
            mins = np.empty((len(starts), PERMUTATIONS), dtype=np.uint32)
            for k in range(PERMUTATIONS):
                mins[:, k] = np.minimum.reduceat(values * self.a[k] + self.b[k], starts)
            out[long_enough] = mins
        return out, long_enough

    def add(
        self, ids: list[int], times: list[int], texts: list[str]
    ) -> list[tuple[int | None, float | None]]:
        """(first of its kind or None, novelty) of texts in the order in which they were known."""
        signatures, good = self.signatures_of(texts)
        found: list[tuple[int | None, float | None]] = []
        width = PERMUTATIONS // BANDS * 4
        for i, number in enumerate(ids):
            if not good[i]:
                found.append((None, None))
                continue
            packed = signatures[i].tobytes()
            keys = [packed[at : at + width] for at in range(0, len(packed), width)]
            best, likest = 0.0, -1
            tried: set[int] = set()
            for band, key in zip(self.bands, keys, strict=True):
                other = band.get(key)
                if other is not None and other not in tried:
                    tried.add(other)
                    if abs(self.texts[other][1] - times[i]) <= self.window:
                        alike = float((self.signatures[other] == signatures[i]).mean())
                        if alike > best:
                            best, likest = alike, other
            first = self.texts[likest][2] if best >= self.similarity else None
            if first == number:
                first = None
            found.append((first, 1.0 - best))
            at = len(self.texts)
            self.texts.append((number, times[i], first if first is not None else number))
            self.signatures.append(signatures[i])
            for band, key in zip(self.bands, keys, strict=True):
                band[key] = at
        self._forget(max(times, default=0))
        return found

    def _forget(self, now: int) -> None:
        """Drop what is out of the window once there is much of it."""
        if len(self.texts) < 400_000:
            return
        keep = [i for i, text in enumerate(self.texts) if now - text[1] <= self.window]
        if len(keep) > len(self.texts) // 2:
            return
        place = {old: new for new, old in enumerate(keep)}
        self.texts = [self.texts[i] for i in keep]
        self.signatures = [self.signatures[i] for i in keep]
        self.bands = [
            {key: place[i] for key, i in band.items() if i in place} for band in self.bands
        ]

    def read(self, conn: psycopg.Connection[Any], start: int, end: int) -> None:
        """Know the stored texts of the window around [start, end]; none is read twice."""
        spans = [(start - self.window, end + self.window)]
        if self.read_from is not None and self.read_to is not None:
            spans = [
                (start - self.window, min(self.read_from, end + self.window)),
                (max(self.read_to, start - self.window), end + self.window),
            ]
        for low, high in spans:
            if low >= high:
                continue
            rows = conn.execute(
                "select text_id, (extract(epoch from ts) * 1000000)::bigint, text"
                " from sentiment.texts where duplicate_of is null"
                " and ts >= to_timestamp(%s) and ts < to_timestamp(%s) order by known_at, text_id",
                (low / SECOND, high / SECOND),
            ).fetchall()
            for at in range(0, len(rows), BLOCK):
                part = rows[at : at + BLOCK]
                self.add([r[0] for r in part], [r[1] for r in part], [r[2] for r in part])
        low, high = start - self.window, end + self.window
        self.read_from = low if self.read_from is None else min(self.read_from, low)
        self.read_to = high if self.read_to is None else max(self.read_to, high)


# --- languages -----------------------------------------------------------------------------------


class Languages:
    """The server's small detector first, and py3langid where that cannot tell."""

    def __init__(self) -> None:
        self.words = words.english()
        self._large: Any = None

    def of(self, text: str) -> tuple[str, float]:
        """(ISO 639-1 code, und or zxx; confidence)."""
        found, sure = language.detect(text[:2000], self.words)
        if found != "und":
            return found, sure
        bare = cleaning.words_only(text[:2000]).strip()
        if len(bare) < 20 or len(bare.split()) < 4:
            return "und", 0.0  # a detector of n-grams guesses at so few
        if self._large is None:
            from py3langid.langid import MODEL_FILE, LanguageIdentifier

            self._large = LanguageIdentifier.from_pickled_model(MODEL_FILE, norm_probs=True)
        name, probability = self._large.classify(bare)
        if probability < 0.8:
            return "und", float(probability)
        return str(name), float(probability)


# --- loading -------------------------------------------------------------------------------------

_COLUMN_NAMES = (
    "text_id, ts, known_at, received_at, source, source_id, symbols, author, author_is_hashed, url,"
    " text, language, language_confidence, engagement, engagement_known_at, novelty, duplicate_of,"
    " load_id"
)
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def text_id(source: str, number: str) -> int:
    """The id of a text: the first eight bytes of a hash of its source and its id there."""
    digest = hashlib.blake2b(f"{source}\0{number}".encode("utf-8", "replace"), digest_size=8)
    return int.from_bytes(digest.digest(), "big", signed=True)


class TextLoader(Loader):
    """Loads files of texts through one connection."""

    options: TextOptions

    def __init__(
        self, conn: psycopg.Connection[Any], options: TextOptions | None = None,
        progress: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(conn, options or TextOptions(), progress)
        rows = conn.execute("select name, asset, is_ticker from sentiment.assets").fetchall()
        self.assets = Assets(
            ((name, asset) for name, asset, ticker in rows if ticker),
            ((name, asset) for name, asset, ticker in rows if not ticker),
        )
        self.named: dict[str, str] = {name.upper(): asset for name, asset, _ in rows}
        settings = dict(
            conn.execute(
                "select name, value from ops.settings where name like 'sentiment.%'"
            ).fetchall()
        )
        self.raw_authors = bool(settings["sentiment.raw_authors"])
        row = conn.execute(
            "select k.key, extract(epoch from %s::interval)::float8 from sentiment.author_keys k",
            (settings["sentiment.duplicate_window"],),
        ).fetchone()
        assert row is not None
        self.key = bytes(row[0])
        self.duplicates = Duplicates(
            round(row[1] * SECOND), float(settings["sentiment.duplicate_similarity"])
        )
        self.languages = Languages()
        self.about = [self._asset(name) for name in self.options.symbols]

    def _read(
        self, source: Source, description: Description, load_id: int, resume: int,
        state: dict[str, Any] | None, report: Report,
    ) -> None:  # fmt: skip
        del description, state
        how = source.layout()
        if how:
            raise UnknownFormat(f"{source.shown} is a {how} file: texts are CSV, JSON or feeds")
        done = resume
        try:
            with source.open() as stream:
                found = records(stream, self.options, report, resume)
                while block := list(itertools.islice(found, BLOCK)):
                    done += len(block)
                    with self.conn.transaction():
                        self.store(block, load_id, report)
                        self._save(load_id, done, None, report)
                    self._check_bad(report)
                    self.progress(report, 0.5)
        except BROKEN as error:
            raise DamagedFile(
                f"{source.name} is damaged ({error}); {report.read} texts up to there are loaded."
                " Load it again once it is whole"
            ) from None

    def store(self, block: Iterable[Record | Refused], load_id: int | None, report: Report) -> None:
        """Check records and write them; the bad ones go to the quarantine."""
        refused: list[Refused] = []
        good: list[tuple[Record, int, int]] = []
        now = round(time.time() * SECOND)
        for record in block:
            report.read += 1
            if not isinstance(record, Record):
                refused.append(record)
                continue
            try:
                self._check(record, now)
                number = text_id(record.source, self._source_id(record))
                good.append((record, number, self._known(record, now)))
            except Bad as error:
                refused.append((record.line, record.raw(), error.reason, error.detail))
        if refused:
            self._quarantine_texts(refused, load_id, report)
        if good:
            self._write(good, load_id, now, report)

    def _check(self, record: Record, now: int) -> None:
        record.text = record.text.replace("\0", "")
        if not record.text.strip():
            raise Bad("no text")
        if len(record.text) > LONGEST:
            raise Bad("text too long", f"{len(record.text)} characters")
        if record.ts > now + FUTURE:
            raise Bad("future time")
        if record.known is not None and record.known > now + FUTURE:
            raise Bad("future receive time")
        record.symbols = list(dict.fromkeys(self._asset(name) for name in record.symbols))

    def _asset(self, name: str) -> str:
        found = self.named.get(name.strip().lstrip("$#").upper())
        if found is None:
            raise Bad("unknown symbol", name[:100])
        return found

    @staticmethod
    def _source_id(record: Record) -> str:
        if record.id:
            return record.id.replace("\0", "")
        parts = (record.author or "", record.url or "", str(record.ts), record.text)
        return hashlib.blake2b(
            "\0".join(parts).encode("utf-8", "replace"), digest_size=16
        ).hexdigest()

    def _known(self, record: Record, now: int) -> int:
        if self.options.live:
            return max(record.ts, now)
        if record.known is not None:
            return max(record.ts, record.known)
        return record.ts + round(self.options.lag * SECOND)

    def author(self, name: str) -> str:
        """As it is stored: the keyed hash of ``sentiment.author_hash``, or the name."""
        if self.raw_authors:
            return name
        return hmac.new(self.key, name.encode("utf-8", "replace"), "sha256").hexdigest()[:32]

    def _write(
        self, rows: list[tuple[Record, int, int]], load_id: int | None, now: int, report: Report
    ) -> None:
        first: dict[tuple[int, int], tuple[Record, int, int]] = {}
        for row in rows:
            first.setdefault((row[1], row[0].ts), row)
        times = [ts for _, ts in first]
        there = {
            tuple(r)
            for r in self.conn.execute(
                "select text_id, (extract(epoch from ts) * 1000000)::bigint from sentiment.texts"
                " where text_id = any(%s) and ts >= to_timestamp(%s) and ts <= to_timestamp(%s)",
                ([number for number, _ in first], min(times) / SECOND - 1, max(times) / SECOND + 1),
            )
        }
        new = [row for key, row in first.items() if key not in there]
        report.duplicate += len(rows) - len(new)
        if not new:
            return
        new.sort(key=lambda row: row[2])
        self.duplicates.read(self.conn, min(times), max(times))
        cleaned = [cleaning.clean(record.text[:20_000]) for record, _, _ in new]
        copies = self.duplicates.add(
            [number for _, number, _ in new], [record.ts for record, _, _ in new], cleaned
        )
        lines = []
        for (record, number, known), text, (copy_of, novelty) in zip(
            new, cleaned, copies, strict=True
        ):
            if record.language is not None and re.fullmatch(r"[a-z]{2,3}", record.language):
                spoken, sure = record.language, None
            else:
                spoken, sure = self.languages.of(text)
            symbols = dict.fromkeys([*record.symbols, *self.about, *self.assets.found(text)])
            author = self.author(record.author) if record.author else None
            counted = None
            if record.engagement:
                # The counts are those of when they were read, which is now where nobody says.
                counted = known if record.known is not None or self.options.live else now
                counted = max(counted, known)
            lines.append("\t".join((
                str(number), _time(record.ts), _time(known), _time(record.known), record.source,
                _cell(self._source_id(record)),
                "{" + ",".join(f'"{s}"' for s in symbols) + "}",
                _cell(author), "f" if self.raw_authors else "t", _cell(record.url),
                _cell(record.text), spoken, "\\N" if sure is None else repr(sure),
                _cell(orjson.dumps(record.engagement).decode()), _time(counted),
                "\\N" if novelty is None else repr(round(novelty, 4)),
                "\\N" if copy_of is None else str(copy_of),
                "\\N" if load_id is None else str(load_id),
            )))  # fmt: skip
        content = ("\n".join(lines) + "\n").encode("utf-8", "replace")
        report.loaded += self._copy(content, len(lines), report)

    def _copy(self, content: bytes, count: int, report: Report) -> int:
        try:
            with (
                self.conn.transaction(),
                self.conn.cursor() as cursor,
                cursor.copy(f"copy sentiment.texts ({_COLUMN_NAMES}) from stdin") as copy,
            ):
                copy.write(content)
            return count
        except psycopg.errors.UniqueViolation:
            pass  # another loader brought one of them meanwhile
        with self.conn.cursor() as cursor:
            cursor.execute(
                "create temporary table if not exists texts_new (like sentiment.texts)"
                " on commit delete rows"
            )
            with cursor.copy(f"copy pg_temp.texts_new ({_COLUMN_NAMES}) from stdin") as copy:
                copy.write(content)
            cursor.execute(
                f"insert into sentiment.texts ({_COLUMN_NAMES}) select {_COLUMN_NAMES}"
                " from pg_temp.texts_new on conflict do nothing"
            )
            inserted = int(cursor.rowcount)
            report.duplicate += count - inserted
            return inserted

    def _quarantine_texts(
        self, refused: list[Refused], load_id: int | None, report: Report
    ) -> None:
        report.quarantined += len(refused)
        with self.conn.cursor() as cursor:
            cursor.executemany(
                "insert into market.quarantine (load_id, kind, file, line, reason, detail, raw)"
                " values (%s, 'texts', %s, %s, %s, %s, %s) on conflict do nothing",
                [
                    (load_id, report.file, line, reason, _clean(detail), _clean(raw[:10_000]))
                    for line, raw, reason, detail in refused
                ],
            )


def _clean(text: str) -> str:
    return text.replace("\0", "\\0").encode("utf-8", "replace").decode()


def _cell(text: str | None) -> str:
    if text is None:
        return "\\N"
    return text.replace("\0", "").translate(_ESCAPES)


_DAYS: dict[int, str] = {}


def _time(micros: int | None) -> str:
    if micros is None:
        return "\\N"
    day, rest = divmod(micros, 86_400_000_000)
    date = _DAYS.get(day)
    if date is None:
        date = _DAYS[day] = (dt.date(1970, 1, 1) + dt.timedelta(days=day)).isoformat()
    seconds, rest = divmod(rest, SECOND)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return f"{date} {hour:02}:{minute:02}:{second:02}.{rest:06}+00"


# --- feeds over the network ----------------------------------------------------------------------


def poll(
    conn: psycopg.Connection[Any], urls: list[str], options: TextOptions, *,
    every: float = 60.0, rounds: int | None = None, say: Callable[[str], None] = print,
) -> list[Report]:  # fmt: skip
    """Read feeds again and again; each entry is known when it is first seen.

    A feed that does not answer is tried again at the next round. ``rounds``: stop after so many.
    """
    import urllib.error
    import urllib.request

    for url in urls:
        if not url.startswith(("http://", "https://")):
            raise UnknownFormat(f"{url} is no http address")
    loader = TextLoader(conn, TextOptions(**{**vars(options), "live": True}))
    marks: dict[str, tuple[str | None, str | None]] = {}
    reports = {url: Report(url, "feed", "texts") for url in urls}
    turn = 0
    while rounds is None or turn < rounds:
        turn += 1
        for url in urls:
            tag, modified = marks.get(url, (None, None))
            request = urllib.request.Request(url, headers={"User-Agent": "alphaplus"})
            if tag:
                request.add_header("If-None-Match", tag)
            if modified:
                request.add_header("If-Modified-Since", modified)
            report = reports[url]
            before = report.loaded
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    content = answer.read(64 * 2**20)
                    marks[url] = answer.headers.get("ETag"), answer.headers.get("Last-Modified")
                with conn.transaction():
                    loader.store(feed_entries(content, loader.options), None, report)
                if report.loaded > before:
                    say(f"{url}: {report.loaded - before} new texts")
            except urllib.error.HTTPError as error:
                if error.code != 304:
                    say(f"{url}: HTTP {error.code}; tried again in {every:g} s")
            except (OSError, UnknownFormat) as error:
                say(f"{url}: {error}; tried again in {every:g} s")
        if rounds is None or turn < rounds:
            time.sleep(every)
    return list(reports.values())
