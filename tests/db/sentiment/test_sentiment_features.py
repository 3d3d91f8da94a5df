"""The feature set sentiment: right against pandas, live = history, no look-ahead, voided when late."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.db.feature.test_features import history, live
from tests.db.market_data import at, fill

Conn = psycopg.Connection[Any]
SYMBOL = "AAAUSDT"
MINUTES = 400
SOURCES = ("twitter", "reddit", "news", "telegram", "other")
INSERT = """
insert into sentiment.scores
    (symbol, ts, text_id, method, version, known_at, source, score, label, reason, is_copy, novelty)
values (%s, %s, %s, %s, '1', %s, %s, %s, %s, %s, %s, %s)
"""


def rows_of(seed: int, count: int) -> list[tuple[Any, ...]]:
    """Scores: some late, some copies, some without a score, some on a minute's edge."""
    rng = np.random.default_rng(seed)
    out = []
    for number in range(count):
        minute = float(rng.uniform(-1500, MINUTES))
        if number % 7 == 0:
            minute = round(minute)
        late = float(rng.exponential(90)) if number % 5 == 0 else float(rng.choice([0, 0.5]))
        score = None if number % 11 == 0 else round(float(rng.uniform(-1, 1)), 4)
        label = None if score is None else "neutral"
        reason = "no words" if score is None else None
        novelty = None if number % 3 == 0 else float(rng.random())
        out.append((
            "AAA", at(minute), seed * 100_000 + number, "blend", at(minute + late),
            SOURCES[number % 5], score, label, reason, bool(number % 6 == 0), novelty,
        ))  # fmt: skip
    return out


@pytest.fixture(scope="module")
def market(db_module: Conn) -> Iterator[Conn]:
    conn = db_module
    fill(conn, SYMBOL, MINUTES)
    with conn.cursor() as cursor:
        cursor.executemany(INSERT, rows_of(1, 1200))
        # Of another asset, and by another method: not this one's.
        cursor.executemany(INSERT, [("BBB", *row[1:]) for row in rows_of(2, 50)])
        cursor.executemany(INSERT, [(*r[:3], "vader", *r[4:]) for r in rows_of(3, 50)])
    conn.execute("call market.refresh_aggregates()")
    yield conn


def by_pandas(t: dt.datetime, frame: pd.DataFrame) -> dict[str, float]:
    """The features at a time, by their formulas."""
    seen = frame[(frame.ts < t) & (frame.known <= t)]
    parts = {
        name: seen[seen.ts >= t - pd.Timedelta(name)] for name in ("1h", "4h", "24h")
    }  # fmt: skip
    day = parts["24h"]
    if day.empty:
        return {}
    scored = {name: part[~part["copy"] & part.score.notna()] for name, part in parts.items()}
    out: dict[str, float] = {}
    for name, part in parts.items():
        out[f"mean_{name}"] = scored[name].score.mean()
        out[f"dispersion_{name}"] = scored[name].score.std(ddof=0)
        out[f"texts_{name}"] = len(part)
    out["surprise"] = (
        (out["mean_1h"] - out["mean_24h"])
        * np.sqrt(len(scored["1h"]))
        / (out["dispersion_24h"] or np.nan)
    )
    out["volume_surprise"] = np.log((len(parts["1h"]) + 1) / (len(day) / 24 + 1))
    out["novelty_1h"] = parts["1h"].novelty.mean()
    out["novelty_24h"] = day.novelty.mean()
    out["copies_24h"] = day["copy"].mean()
    for source in SOURCES:
        out[f"mean_{source}"] = scored["24h"][scored["24h"].source == source].score.mean()
        out[f"texts_{source}"] = int((day.source == source).sum())
    return out


def names(conn: Conn) -> list[str]:
    row = conn.execute("select features from feature.sets where name = 'sentiment'").fetchone()
    assert row is not None
    return list(row[0])


def test_features_are_those_of_pandas(market: Conn) -> None:
    frame = pd.DataFrame(
        [(r[1], r[4], r[5], r[6], r[9], r[10]) for r in rows_of(1, 1200)],
        columns=["ts", "known", "source", "score", "copy", "novelty"],
    ).astype({"score": float, "novelty": float})
    whole = history(market, 60, MINUTES, SYMBOL, "sentiment")
    assert len(whole) > 300
    wanted = names(market)
    for minute in range(60, MINUTES, 17):
        expected = by_pandas(at(minute), frame)
        assert set(expected) == set(wanted)
        got = dict(zip(wanted, whole[minute], strict=True))
        for name in wanted:
            right = expected[name]
            if pd.isna(right):
                assert got[name] is None or np.isnan(got[name]), (minute, name)
            else:
                assert got[name] == pytest.approx(right, abs=2e-5), (minute, name)


def test_live_is_history_to_the_last_bit(market: Conn) -> None:
    whole = history(market, 60, MINUTES, SYMBOL, "sentiment")
    for minute in range(60, MINUTES, 13):
        np.testing.assert_array_equal(
            np.array(whole[minute], dtype=float),
            np.array(live(market, minute, SYMBOL, "sentiment"), dtype=float),
        )


@given(
    when=st.integers(0, MINUTES * 60), late=st.integers(1, 200 * 60), asked=st.integers(0, MINUTES)
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_text_changes_nothing_before_it_was_known(
    market: Conn, when: int, late: int, asked: int
) -> None:
    known = (when + late) / 60
    before = live(market, asked, SYMBOL, "sentiment")
    with market.transaction(force_rollback=True):
        market.execute(
            INSERT,
            ("AAA", at(when / 60), 9_000_000, "blend", at(known), "news", 0.9, "positive", None,
             False, 0.5),
        )  # fmt: skip
        after = live(market, asked, SYMBOL, "sentiment")
    same = np.array_equal(np.array(before, float), np.array(after, float), equal_nan=True)
    seen = known <= asked and asked - 1440 <= when / 60 < asked
    assert same is not seen


def test_silence_is_null_and_late_scores_void_what_is_stored(market: Conn) -> None:
    fill(market, "CCCUSDT", MINUTES, seed=5)
    market.execute("call market.refresh_aggregates()")
    assert set(live(market, 300, "CCCUSDT", "sentiment")) == {None} or all(
        value is None or np.isnan(value) for value in live(market, 300, "CCCUSDT", "sentiment")
    )
    market.execute(
        "call feature.materialise('sentiment', %s, %s, %s)", (SYMBOL, at(100), at(300))
    )  # fmt: skip
    valid = (
        "select count(*) from feature.valid_vectors v join feature.sets s using (set_id)"
        " where s.name = 'sentiment' and v.symbol = %s and v.ts = %s"
    )
    for minute in (150, 250):
        assert market.execute(valid, (SYMBOL, at(minute))).fetchone() == (1,)
    market.execute(
        INSERT,
        ("AAA", at(199), 9_100_000, "blend", at(200), "news", 1.0, "positive", None, False, 0.1),
    )
    assert market.execute(valid, (SYMBOL, at(150))).fetchone() == (1,)
    assert market.execute(valid, (SYMBOL, at(250))).fetchone() == (0,)


def test_a_reader_asks_for_it_too(market: Conn, connect_as: Any) -> None:
    with connect_as("alphaplus_reader", market.info.dbname) as reader:
        row = reader.execute(
            "select cardinality(feature.vector('sentiment', %s, %s))", (SYMBOL, at(300))
        ).fetchone()
    assert row == (24,)
