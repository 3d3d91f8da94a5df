"""Order-book and microstructure features in the database: live = history, both clocks, bad data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest

from tests.db import serving
from tests.db.feature.test_features import history, live
from tests.db.market_data import at, fill, instrument

Conn = psycopg.Connection[Any]
FAMILIES = ("order_book", "microstructure")
MINUTES = 300
SYMBOL = "AAAUSDT"


@pytest.fixture(scope="module")
def market(db_module: Conn) -> Iterator[Conn]:
    """Five hours of a market with latency, a gap, late rows, corrections and deletions."""
    conn = db_module
    fill(conn, SYMBOL, MINUTES, seed=1, latency=20.0, gaps=((200, 210),), per_minute=6.0)
    conn.execute(
        "insert into market.trades (symbol, ts, trade_id, known_at, price, size, side)"
        " select 'AAAUSDT', %s::timestamptz + g * interval '1 minute', 'late' || g,"
        "  %s::timestamptz + g * interval '1 minute' + interval '1 hour', 101, 50, 'buy'"
        " from generate_series(0, 20) g",
        (at(220.2), at(220.2)),
    )
    conn.execute(
        "update market.trades set size = size * 2, known_at = ts + interval '9 minutes'"
        " where symbol = 'AAAUSDT' and ts between %s and %s",
        (at(150), at(155)),
    )
    conn.execute(
        "insert into market.order_book_snapshots (symbol, ts, sequence, known_at, bid_prices,"
        " bid_sizes, ask_prices, ask_sizes)"
        " select symbol, ts + interval '10 s', 9, ts + interval '3 minutes', bid_prices,"
        "  ask_sizes, ask_prices, ask_sizes from market.order_book_snapshots"
        " where symbol = 'AAAUSDT' and ts between %s and %s",
        (at(230), at(240)),
    )
    conn.execute(
        "delete from market.trades where symbol = 'AAAUSDT' and ts between %s and %s",
        (at(120), at(121)),
    )
    conn.execute("call market.refresh_aggregates()")
    yield conn


@pytest.mark.parametrize("family", FAMILIES)
def test_live_is_history_to_the_last_bit(market: Conn, family: str) -> None:
    whole = history(market, 70, MINUTES + 5, SYMBOL, family)
    assert len(whole) > MINUTES - 80
    for minute in range(70, MINUTES, 7):
        if minute in whole:
            np.testing.assert_array_equal(live(market, minute, SYMBOL, family), whole[minute])
    for low in (150, 225):  # wherever a stretch of history was cut
        for minute, vector in history(market, low, low + 30, SYMBOL, family).items():
            np.testing.assert_array_equal(vector, whole[minute])


@pytest.mark.parametrize("family", FAMILIES)
def test_another_backend_gives_the_same(market: Conn, family: str) -> None:
    here = live(market, 260, SYMBOL, family)
    info = market.info
    with psycopg.connect(info.dsn, password=info.password, autocommit=True) as other:
        np.testing.assert_array_equal(live(other, 260, SYMBOL, family), here)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_feature_is_known_somewhere_and_none_is_always_zero(
    market: Conn, family: str
) -> None:
    values = np.array(list(history(market, 100, MINUTES, SYMBOL, family).values()))
    row = market.execute("select features from feature.sets where name = %s", (family,)).fetchone()
    assert row is not None
    known, useful = np.isfinite(values).any(axis=0), (np.nan_to_num(values) != 0).any(axis=0)
    assert [name for name, a, b in zip(row[0], known, useful, strict=True) if not (a and b)] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_stored_is_computed_and_columns_have_names(market: Conn, family: str) -> None:
    market.execute(
        "call feature.materialise(%s, %s, %s, %s)", (family, SYMBOL, at(100), at(MINUTES))
    )
    row = market.execute(
        "select v.values, s.features from feature.vectors v join feature.sets s using (set_id)"
        " where s.name = %s and v.ts = %s",
        (family, at(250)),
    ).fetchone()
    assert row is not None
    np.testing.assert_array_equal(row[0], live(market, 250, SYMBOL, family))
    named = market.execute(f"select * from feature.{family}(%s, %s)", ("AAA/USDT", at(250.7)))
    columns = [c.name for c in named.description or ()]
    assert columns == ["symbol", "ts", *row[1]]
    one = named.fetchone()
    assert one is not None and one[:2] == (SYMBOL, at(250))
    np.testing.assert_equal([np.nan if x is None else x for x in one[2:]], row[0])
    many = market.execute(
        f"select count(*) from feature.{family}_history(%s, %s, %s)", (SYMBOL, at(240), at(250))
    ).fetchone()
    assert many == (10,)
    market.execute("delete from feature.vectors")
    market.execute("delete from feature.watermarks")


def test_bad_markets_give_nulls_not_errors(db: Conn) -> None:
    instrument(db, "ONEUSDT")
    db.execute(
        "insert into market.trades (symbol, ts, trade_id, known_at, price, size, side)"
        " values ('ONEUSDT', %s, '1', %s, 1, 1, 'buy'), ('ONEUSDT', %s, '2', %s, 'NaN', 1, 'buy'),"
        " ('ONEUSDT', %s, '3', %s, 1, 'infinity', 'sell')",
        (at(10), at(10), at(10.1), at(10.1), at(10.2), at(10.2)),
    )
    db.execute(
        "insert into market.order_book_snapshots (symbol, ts, known_at, bid_prices, bid_sizes,"
        " ask_prices, ask_sizes) values ('ONEUSDT', %s, %s, '{1}', '{1}', '{}', '{}'),"
        " ('ONEUSDT', %s, %s, '{}', '{}', '{}', '{}'),"
        " ('ONEUSDT', %s, %s, '{1}', '{1}', '{NaN}', '{1}'),"
        " ('ONEUSDT', %s, %s, '{1}', '{NaN}', '{2}', '{0}')",
        (at(10), at(10), at(11), at(11), at(12), at(12), at(13), at(13)),
    )
    for family in FAMILIES:
        for minute in (5, 11, 12, 13, 14):
            assert np.isnan(live(db, minute, "ONEUSDT", family)).all()


def test_many_symbols_at_one_time_are_stored_as_each_alone(market: Conn) -> None:
    instrument(market, "NEWUSDT")
    fill(market, "BBBUSDT", 90, seed=4, start=200)
    market.execute("call feature.materialise('order_book', 'BBBUSDT', %s, %s)", (at(260), at(270)))
    for family in ("order_book", "microstructure", "liquidation", "patterns_1m"):
        market.execute("call feature.materialise_at(%s, %s)", (family, at(265.8)))
        rows = market.execute(
            "select v.symbol, v.values from feature.vectors v join feature.sets s using (set_id)"
            " where s.name = %s and v.ts = %s order by 1",
            (family, at(265)),
        ).fetchall()
        assert [symbol for symbol, _ in rows] == [SYMBOL, "BBBUSDT"]  # nothing known of the new one
        for symbol, vector in rows:
            np.testing.assert_array_equal(vector, live(market, 265, symbol, family))
    marks = market.execute(
        "select m.symbol, m.through from feature.watermarks m join feature.sets s using (set_id)"
        " where s.name = 'order_book' order by 1"
    ).fetchall()
    assert marks == [(SYMBOL, at(266)), ("BBBUSDT", at(270)), ("NEWUSDT", at(266))]
    # rows that arrive later but were known by then mark what is stored
    market.execute(
        "insert into market.trades (symbol, ts, trade_id, known_at, price, size, side)"
        " values ('AAAUSDT', %s, 'x', %s, 100, 5, 'buy')",
        (at(260.2), at(260.3)),
    )
    row = market.execute(
        "select feature.vector('microstructure', %s, %s)", (SYMBOL, at(265))
    ).fetchone()
    assert row is not None
    np.testing.assert_array_equal(row[0], live(market, 265, SYMBOL, "microstructure"))
    assert market.execute("select count(*) > 0 from feature.pending").fetchone() == (True,)
    some = ["AAA/USDT", "AAAUSDT"]  # one symbol by two names
    market.execute("call feature.materialise_at('liquidation', %s, %s)", (at(266), some))
    found = market.execute(
        "select v.symbol from feature.vectors v join feature.sets s using (set_id)"
        " where v.ts = %s and s.name = 'liquidation'",
        (at(266),),
    )
    assert found.fetchall() == [(SYMBOL,)]
    with pytest.raises(psycopg.Error) as caught:
        market.execute("call feature.materialise_at('liquidation', %s, '{NOPE}')", (at(266),))
    assert caught.value.sqlstate == "AP101"
    for table in ("vectors", "watermarks", "pending"):
        market.execute(f"delete from feature.{table}")


@pytest.mark.parametrize("family", ["technical_1m", "microstructure"])
def test_bars_of_two_sources_live_is_history(db: Conn, family: str) -> None:
    """Loaded bars that come late, lack here and there or are corrected, over bars from trades."""
    fill(db, SYMBOL, 420, seed=6, per_minute=5.0)
    db.execute(
        "insert into market.candles (symbol, timeframe, ts, known_at, open, high, low, close,"
        " volume) select symbol, '1 min', bucket, bucket + interval '1 min' + case"
        "   when extract(minute from bucket)::int % 3 = 0 then interval '0'"
        "   when extract(minute from bucket)::int % 7 = 0 then interval '9 min'"
        "   else interval '2 s' end, open, high, low, close, volume * 2 from market.trades_1m"
        " where extract(minute from bucket)::int % 11 <> 5"
    )
    db.execute(
        "update market.candles set volume = volume * 3, known_at = ts + interval '30 min'"
        " where ts between %s and %s",
        (at(300), at(310)),
    )
    db.execute("call market.refresh_aggregates()")
    whole = history(db, 0, 421, SYMBOL, family)
    late = history(db, 400, 421, SYMBOL, family)
    for minute in (*range(290, 345, 4), *range(400, 421, 3)):
        limit = 1e-9 if family == "technical_1m" else 0
        now = live(db, minute, SYMBOL, family)
        np.testing.assert_allclose(now, whole[minute], rtol=limit, atol=limit)
        if minute in late:
            np.testing.assert_allclose(late[minute], whole[minute], rtol=limit, atol=limit)


def test_refresh_stores_the_newest_bar_of_all_symbols(db: Conn) -> None:
    for seed, symbol in enumerate((SYMBOL, "BBBUSDT", "CCCUSDT")):
        fill(db, symbol, 260, seed=seed + 1, per_minute=5.0)
    db.execute("call market.refresh_aggregates()")
    db.execute(
        "update ml.models set feature_set = 'order_book', feature_version = 2"
        " where model = 'liquidation_5m'"
    )
    db.execute("call feature.refresh()")
    count = (
        "select count(*), count(distinct v.symbol), max(v.ts) from feature.vectors v"
        " join feature.sets s using (set_id) where s.name = 'order_book'"
    )
    before = db.execute(count).fetchone()
    assert before is not None and before[1:] == (3, at(260))
    for seed, symbol in enumerate((SYMBOL, "BBBUSDT")):
        fill(db, symbol, 1, seed=seed + 11, start=260, per_minute=5.0)
    fill(db, "CCCUSDT", 3, seed=13, start=260, per_minute=5.0)  # more than one new time
    db.execute("call feature.refresh()")
    after = db.execute(count).fetchone()
    assert after is not None and after[0] == before[0] + 2 + 3
    for symbol, minute in ((SYMBOL, 261), ("BBBUSDT", 261), ("CCCUSDT", 263)):
        row = db.execute(
            "select v.values from feature.vectors v join feature.sets s using (set_id)"
            " where s.name = 'order_book' and v.symbol = %s and v.ts = %s",
            (symbol, at(minute)),
        ).fetchone()
        assert row is not None
        np.testing.assert_array_equal(row[0], live(db, minute, symbol, "order_book"))
    db.execute("call feature.refresh()")
    assert db.execute(count).fetchone() == after


def test_bars_without_volume_give_nulls_not_zeros(db: Conn) -> None:
    instrument(db, "ZEROUSDT")
    db.execute(
        "insert into market.candles (symbol, timeframe, ts, known_at, open, high, low, close,"
        " volume, quote_volume, trade_count, taker_buy_volume)"
        " select 'ZEROUSDT', '1 min', t, t + interval '1 min', 1, 1, 1, 1, 0, 0, 0, 0"
        " from generate_series(%s, %s, interval '1 min') t",
        (at(0), at(250)),
    )
    db.execute("call market.refresh_aggregates()")
    for family, flat in (
        ("microstructure", {"corwin_schultz_spread", "abdi_ranaldo_spread", "permutation_entropy"}),
        ("liquidation", {"volatility"}),
        ("order_book", set()),
    ):
        row = db.execute("select features from feature.sets where name = %s", (family,)).fetchone()
        assert row is not None
        found = dict(zip(row[0], live(db, 248, "ZEROUSDT", family), strict=True))
        known = {name: value for name, value in found.items() if np.isfinite(value)}
        # a price that does not move has no volatility, and no spread that its range would show
        assert known == dict.fromkeys(flat, 0.0), family


def test_a_version_that_is_no_longer_computed(db: Conn) -> None:
    """After an upgrade: what was stored is served, the rest says so; the next training is on what
    this release computes."""
    fill(db, SYMBOL, 260, seed=1, per_minute=5.0)
    db.execute("call market.refresh_aggregates()")
    now, later = at(240), at(241)
    db.execute("call feature.materialise('order_book', %s, %s, %s)", (SYMBOL, now, later))
    old = serving.one(
        db,
        "insert into feature.sets"
        " (name, version, features, definition, kind, grid, lookback, sha256, description)"
        " select name, 1, features, definition, kind, grid, lookback, sha256('1'), 'of old'"
        " from feature.sets where name = 'order_book' returning set_id",
    )
    for table in ("vectors", "watermarks"):
        db.execute(f"update feature.{table} set set_id = %s", (old,))
    db.execute("select feature._sync()")  # as migrate does
    sets = db.execute(
        "select version, feature._retired(s) from feature.sets s where name = 'order_book'"
        " order by version"
    ).fetchall()
    assert sets == [(1, True), (2, False)]
    one = serving.one
    names = one(db, "select features from feature.sets where name = 'order_book' and version = 2")
    db.execute(
        "insert into ml.models (model, label, feature_set, feature_version)"
        " values ('old', 'direction_5m', 'order_book', 1)"
    )
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1000, len(names)))
    version = serving.register(
        db, serving.train(x, (x[:, 0] > 0).astype(float), 5), "old", features=names, promote=True,
        as_of=now.isoformat(), train_to=now.isoformat(),
    )  # fmt: skip
    db.execute("select feature._sync()")
    assert one(db, "select feature_version from ml.models where model = 'old'") == 2
    ask = "select * from ml.predict('old', %s, %s)"
    stored = serving.named(db, ask, SYMBOL, now)
    assert (stored.version_id, stored.is_fallback, stored.reason) == (version, False, None)
    other = serving.named(db, ask, SYMBOL, later)
    assert (other.version_id, other.is_fallback, other.partition_used) == (None, True, "base rate")
    assert other.reason == "version 1 of feature set order_book is no longer computed"
    assert one(db, "select feature.vector('order_book', %s, %s, 1)", SYMBOL, now) is not None
    with pytest.raises(psycopg.Error) as refused:
        db.execute("select feature.vector('order_book', %s, %s, 1)", (SYMBOL, later))
    assert refused.value.sqlstate == "AP214" and refused.value.diag.message_hint
    db.execute("call feature.refresh()")  # leaves it alone
    assert one(db, "select count(*) from ml.sets_in_use where name = 'order_book'") == 1
    counts = dict(
        db.execute(
            "select s.version, count(*) from feature.vectors v join feature.sets s using (set_id)"
            " where s.name = 'order_book' group by 1"
        ).fetchall()
    )
    assert counts[1] == 1 and counts[2] > 200
