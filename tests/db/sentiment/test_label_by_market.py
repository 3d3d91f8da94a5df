"""Texts labelled by the move that followed: right labels, as known, purged folds, no skill on noise."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from alphaplus.trainer.texts import folds_of

from tests.db.market_data import at, fill

Conn = psycopg.Connection[Any]
SYMBOL = "AAAUSDT"
MINUTES = 600
LABEL = "direction_15m"


@pytest.fixture(scope="module")
def market(db_module: Conn) -> Iterator[Conn]:
    conn = db_module
    fill(conn, SYMBOL, MINUTES, per_minute=6)
    conn.execute("call market.refresh_aggregates()")
    insert = (
        "insert into sentiment.texts (text_id, ts, known_at, received_at, source, source_id,"
        " symbols, text, language, duplicate_of)"
        " values (%s, %s, %s, %s, 'news', %s, %s, %s, 'en', %s)"
    )
    for n in range(60):
        ts = at(20 + n * 8 + (0.25 if n % 3 else 0))
        known = ts + dt.timedelta(minutes=n % 4)
        symbols = ["BBB"] if n % 10 == 9 else ["AAA"]
        copy = 1 if n % 10 == 8 else None
        conn.execute(insert, (n + 10, ts, known, known, str(n), symbols, f"text number {n}", copy))
    yield conn


def one(conn: Conn, query: str, *arguments: Any) -> Any:
    row = conn.execute(query, arguments).fetchone()
    assert row is not None
    return row[0]


def test_labels_are_what_followed_the_first_minute_a_text_was_known(market: Conn) -> None:
    as_of = at(400)
    call = "select sentiment.label_by_market('moves', %s, %s, %s, %s, as_of => %s)"
    made = one(market, call, LABEL, SYMBOL, at(0), at(MINUTES), as_of)
    rows = market.execute(
        "select text, ts, known_at, label, label_known_at from sentiment.labelled_texts"
        " where label_set = 'moves' order by ts"
    ).fetchall()
    assert made == len(rows) > 25
    closes = dict(
        market.execute(
            "select bucket + interval '1 minute', close from market.trades_1m where symbol = %s",
            (SYMBOL,),
        ).fetchall()
    )
    for text, _ts, known, label, label_known in rows:
        number = int(text.rsplit(" ", 1)[1])
        assert number % 10 not in (8, 9), "a copy, or a text about another asset"
        since = known if known.second == 0 else known.replace(second=0) + dt.timedelta(minutes=1)
        assert label_known == since + dt.timedelta(minutes=15) <= as_of
        if since in closes and label_known in closes:
            assert label == (1 if closes[label_known] > closes[since] else -1)
    # Again, nothing is added; later, what has become known since.
    assert one(market, call, LABEL, SYMBOL, at(0), at(MINUTES), as_of) == 0
    assert one(market, call, LABEL, SYMBOL, at(0), at(MINUTES), at(MINUTES)) == 10


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("", LABEL, SYMBOL, at(0), at(9), 0.0), "AP686"),
        (("x", "no_label", SYMBOL, at(0), at(9), 0.0), "AP301"),
        (("x", LABEL, "NOTHING", at(0), at(9), 0.0), "AP101"),
        (("x", LABEL, SYMBOL, None, at(9), 0.0), "AP687"),
        (("x", LABEL, SYMBOL, at(0), at(9), -1.0), "AP687"),
        (("x", LABEL, SYMBOL, at(0), at(9), float("nan")), "AP687"),
    ],
)
def test_bad_arguments(market: Conn, arguments: tuple[Any, ...], code: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        market.execute("select sentiment.label_by_market(%s, %s, %s, %s, %s, %s)", arguments)
    assert caught.value.sqlstate == code
    assert caught.value.diag.message_hint


def test_no_label_that_was_unknown_when_a_fold_began_trains_it() -> None:
    rng = np.random.default_rng(1)
    ts = np.sort(rng.integers(0, 10_000, 500))
    known = ts + 300
    y = rng.integers(0, 2, 500)
    folds = folds_of(ts, y, 5, 1, known)
    assert len(folds) == 5
    for train, test in folds:
        assert known[train].max() < ts[test].min()
    # Labels that people gave later are not of the market: all earlier texts train.
    for train, test in folds_of(ts, y, 5, 1, ts + 10**6):
        assert len(train) == (ts < ts[test].min()).sum()
