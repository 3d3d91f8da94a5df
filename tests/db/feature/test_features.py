"""Feature vectors: live = history, nothing from the future, and yesterday stays yesterday."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.db.market_data import at, fill, instrument

Conn = psycopg.Connection[Any]
MINUTES = 480
SYMBOL = "AAAUSDT"


@pytest.fixture(scope="module")
def market(db_module: Conn) -> Iterator[Conn]:
    """Eight hours of a market with latency, a gap, late rows and corrections."""
    conn = db_module
    fill(conn, SYMBOL, MINUTES, seed=1, latency=0.4, gaps=((300, 310),))
    fill(conn, "BBBUSDT", MINUTES, seed=2)
    # rows that became known an hour late, and corrections
    conn.execute(
        "insert into market.trades (symbol, ts, trade_id, known_at, price, size, side)"
        " select 'AAAUSDT', %s::timestamptz + g * interval '1 minute', 'late' || g,"
        "  %s::timestamptz + g * interval '1 minute' + interval '1 hour', 101, 50, 'buy'"
        " from generate_series(0, 20) g",
        (at(320), at(320)),
    )
    conn.execute(
        "update market.trades set size = size * 2, known_at = ts + interval '30 minutes'"
        " where symbol = 'AAAUSDT' and ts between %s and %s",
        (at(200), at(205)),
    )
    conn.execute("call market.refresh_aggregates()")
    yield conn


def live(
    conn: Conn, minute: float, symbol: str = SYMBOL, family: str = "liquidation"
) -> list[float]:
    row = conn.execute(
        "select feature._compute(%s, %s, ops._micros(%s))",
        (family, symbol, at(minute)),
    ).fetchone()
    assert row is not None
    return list(row[0])


def history(
    conn: Conn, low: float, high: float, symbol: str = SYMBOL, family: str = "liquidation"
) -> dict[int, list[float]]:
    rows = conn.execute(
        "select at, vector from feature._compute_rows(%s, %s, ops._micros(%s), ops._micros(%s))",
        (family, symbol, at(low), at(high)),
    ).fetchall()
    origin = at(0).timestamp()
    return {round((micros / 1e6 - origin) / 60): vector for micros, vector in rows}


def test_the_family_is_a_set_with_its_formulas(market: Conn) -> None:
    row = market.execute(
        "select cardinality(features), lookback > interval '0' from feature.sets"
        " where name = 'liquidation' and version = 3"
    ).fetchone()
    assert row == (25, True)
    missing = market.execute(
        "select feature from feature.definitions where formula = '' or unit = '' or source = ''"
    ).fetchall()
    assert missing == []


FAMILIES = ["liquidation", "order_book", "microstructure", "technical_1m", "patterns_1m"]
# Those of which a vector is known at every minute of the test's market.
MINUTELY = FAMILIES[:3]


@pytest.mark.parametrize("family", FAMILIES)
def test_live_is_history_to_the_last_bit(market: Conn, family: str) -> None:
    whole = history(market, 230, MINUTES, family=family)
    if family == "liquidation":
        assert len(whole) == MINUTES - 230
    else:
        assert len(whole) > 200
    # Every one around the late and the corrected rows, the gap, and the backfill's arrival.
    moments = {*range(230, MINUTES, 11), *range(298, 345, 2), *range(378, 402, 3)}
    exact = family in MINUTELY
    for minute in sorted(moments & whole.keys()):
        np.testing.assert_allclose(
            live(market, minute, family=family), whole[minute], rtol=0 if exact else 1e-9,
            atol=0 if exact else 1e-9,
        )  # fmt: skip
    # and a stretch of history does not depend on where it was cut
    for low in (250, 331):
        part = history(market, low, low + 40, family=family)
        for minute, vector in part.items():
            np.testing.assert_allclose(
                vector, whole[minute], rtol=0 if exact else 1e-9, atol=0 if exact else 1e-9
            )


def test_where_nothing_is_seen_any_more_nothing_is_said_to_be_zero(market: Conn) -> None:
    names = market.execute(
        "select features from feature.sets where name = 'liquidation' and version = 3"
    ).fetchall()[0][0]
    whole = history(market, MINUTES - 30, MINUTES + 200)
    seen = dict(zip(names, live(market, MINUTES), strict=True))
    assert not np.isnan([seen["long_liquidations"], seen["open_interest_change"]]).any()
    for minute in (MINUTES + 70, MINUTES + 150, MINUTES + 30 * 24 * 60):
        after = dict(zip(names, live(market, minute), strict=True))
        for name in ("long_liquidations", "short_liquidations", "open_interest_change"):
            assert np.isnan(after[name]), (minute, name)
        if minute in whole:
            np.testing.assert_array_equal(whole[minute], list(after.values()))


@pytest.mark.parametrize("family", MINUTELY)
def test_every_feature_is_known_somewhere_and_none_is_always_zero(
    market: Conn, family: str
) -> None:
    values = np.array(list(history(market, 245, MINUTES, family=family).values()))
    assert np.isfinite(values).any(axis=0).all()
    assert (np.nan_to_num(values) != 0).any(axis=0).all()


def test_windows_that_are_not_full_are_null(market: Conn) -> None:
    names = market.execute(
        "select features from feature.sets where name = 'liquidation'"
    ).fetchone()
    assert names is not None
    index = {name: i for i, name in enumerate(names[0])}
    early = live(market, 100)
    for name in ("order_flow_toxicity", "volume_ratio", "volume_breakout", "buy_volume_ratio"):
        assert np.isnan(early[index[name]])
    assert np.isfinite(early[index["volatility"]])
    assert np.isnan(live(market, 30)[index["long_liquidations"]])  # the feed may not have begun
    assert live(market, 100)[index["long_liquidations"]] >= 0
    # ten minutes without a book: null, not the last one
    assert np.isnan(live(market, 308)[index["spread_bps"]])


def test_stored_is_computed_and_the_row_function_names_it(market: Conn) -> None:
    market.execute(
        "call feature.materialise('liquidation', 'AAA/USDT', %s, %s)", (at(240), at(MINUTES))
    )
    row = market.execute(
        "select values from feature.vectors where symbol = %s and ts = %s", (SYMBOL, at(400))
    ).fetchone()
    assert row is not None
    np.testing.assert_array_equal(row[0], live(market, 400))
    named = market.execute(
        "select ts, order_flow_toxicity, funding_x_momentum from feature.liquidation('AAAUSDT', %s)",
        (at(400.9),),
    ).fetchone()
    assert named is not None
    assert named[0] == at(400)
    np.testing.assert_equal(named[1] if named[1] is not None else np.nan, row[0][0])
    market.execute("delete from feature.vectors")
    market.execute("delete from feature.watermarks")


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    minute=st.integers(245, MINUTES - 20),
    change=st.sampled_from(["append", "alter", "delete"]),
    table=st.sampled_from(
        ["trades", "order_book_snapshots", "liquidation_events", "funding_rates", "open_interest"]
    ),
    symbol=st.sampled_from([SYMBOL, "BBBUSDT"]),
)
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_after_as_of_change_nothing(
    market: Conn, family: str, minute: int, change: str, table: str, symbol: str
) -> None:
    before = live(market, minute, symbol, family)
    with market.transaction(force_rollback=True):
        if change == "delete":
            market.execute(f"delete from market.{table} where ts >= %s", (at(minute),))
        elif change == "alter":
            column = {
                "trades": "price = price * 1.5, size = size * 9",
                "order_book_snapshots": "bid_sizes = ask_sizes",
                "liquidation_events": "notional = notional * 100",
                "funding_rates": "rate = rate + 1",
                "open_interest": "open_interest = open_interest * 7",
            }[table]
            market.execute(f"update market.{table} set {column} where ts >= %s", (at(minute),))
        else:
            fill(market, symbol, 30, seed=minute, start=minute)
        np.testing.assert_array_equal(live(market, minute, symbol, family), before)


def test_the_property_test_catches_a_feature_that_looks_ahead(market: Conn) -> None:
    """The check above, on a spread that is taken a minute too late."""
    leak = (
        "select 1e4 * (ask_prices[1] / bid_prices[1] - 1) from market.order_book_snapshots"
        " where symbol = %s and ts < %s::timestamptz + interval '1 minute' order by ts desc limit 1"
    )
    before = market.execute(leak, (SYMBOL, at(400))).fetchone()
    with market.transaction(force_rollback=True):
        market.execute("delete from market.order_book_snapshots where ts >= %s", (at(400),))
        assert market.execute(leak, (SYMBOL, at(400))).fetchone() != before


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    minute=st.integers(245, MINUTES - 60),
    change=st.sampled_from(["late", "correct", "delete"]),
    back=st.integers(1, 120),
)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_becomes_known_later_changes_nothing_before(
    market: Conn, family: str, minute: int, change: str, back: int
) -> None:
    """Backfills, corrections and deletions of rows *before* t, made after t."""
    before = live(market, minute, family=family)
    past = history(market, minute - 3, minute + 1, family=family)
    span = (at(minute - back), at(minute - back + 5))
    with market.transaction(force_rollback=True):
        if change == "late":
            market.execute(
                "insert into market.trades (symbol, ts, trade_id, price, size, side)"
                " select %s, %s::timestamptz + g * interval '7 s', 'new' || g, 150, 99, 'sell'"
                " from generate_series(0, 30) g",
                (SYMBOL, span[0]),
            )
        elif change == "correct":
            market.execute(
                "update market.trades set size = size * 3 where symbol = %s and ts between %s and %s",
                (SYMBOL, *span),
            )
        else:
            market.execute(
                "delete from market.trades where symbol = %s and ts between %s and %s",
                (SYMBOL, *span),
            )
            market.execute(
                "delete from market.order_book_snapshots where symbol = %s and ts between %s and %s",
                (SYMBOL, *span),
            )
        # Bars of five minutes and longer are summed anew where one of their trades was corrected.
        limit = 0 if family in MINUTELY else 1e-12
        now = live(market, minute, family=family)
        np.testing.assert_allclose(now, before, rtol=limit, atol=limit)
        # History, which reads both, says the same as it did.
        again = history(market, minute - 3, minute + 1, family=family)
        assert again.keys() == past.keys()
        for at_minute, vector in again.items():
            np.testing.assert_allclose(vector, past[at_minute], rtol=limit, atol=limit)
        assert live(market, MINUTES - 1, family=family) is not None


def model(conn: Conn, label: str = "direction_15m") -> None:
    conn.execute(
        "insert into ml.models (model, label, feature_set, feature_version)"
        " values (%s, %s, 'liquidation', 3) on conflict (model) do update"
        " set feature_set = excluded.feature_set, feature_version = excluded.feature_version",
        (label, label),
    )


@pytest.mark.parametrize(
    "label",
    ["direction_15m", "liquidation_5m", "liquidation_volume_15m", "order_book_mid_5m"],
)
def test_a_late_backfill_leaves_yesterdays_training_set_byte_identical(
    market: Conn, label: str
) -> None:
    model(market, label)
    query = "select n, sha256 from ml.training_matrix(%s, %s, %s)"
    market.execute(
        """update ml.labels set params = params || '{"lookback_days": 0.05}'
        where label = %s and params ? 'lookback_days'""",
        (label,),
    )
    before = market.execute(query, (label, SYMBOL, at(450))).fetchone()
    assert before is not None and before[0] > 50
    with market.transaction(force_rollback=True):
        fill(market, SYMBOL, 20, seed=77, start=470)
        market.execute(
            "insert into market.trades (symbol, ts, trade_id, price, size, side)"
            " select %s, %s::timestamptz + g * interval '1 minute', 'b' || g, 150, 99, 'sell'"
            " from generate_series(0, 440) g",
            (SYMBOL, at(0)),
        )
        market.execute("update market.liquidation_events set notional = notional * 50")
        market.execute("delete from market.order_book_snapshots where ts > %s", (at(100),))
        assert market.execute(query, (label, SYMBOL, at(450))).fetchone() == before
    assert market.execute(query, (label, SYMBOL, at(440))).fetchone() != before


def test_labels_equal_their_plain_definition(market: Conn) -> None:
    rows = market.execute(
        "select ts, target from ml.label_values('direction_15m', %s, %s, %s, %s)",
        (SYMBOL, at(0), at(MINUTES), at(MINUTES)),
    ).fetchall()
    close = dict(
        market.execute(
            "select bucket, close from market.trades_1m where symbol = %s", (SYMBOL,)
        ).fetchall()
    )
    minute = dt.timedelta(minutes=1)
    assert len(rows) > 300
    for ts, target in rows:
        later, now = close[ts + 14 * minute], close[ts - minute]
        assert target == (1.0 if later > now else 0.0)
        assert ts + 15 * minute <= at(MINUTES)
    rows = market.execute(
        "select ts, target from ml.label_values('liquidation_volume_30m', %s, %s, %s, %s)",
        (SYMBOL, at(0), at(MINUTES), at(MINUTES)),
    ).fetchall()
    for ts, target in rows[::17]:
        want = market.execute(
            "select coalesce(sum(notional), 0) from market.liquidation_events"
            " where symbol = %s and ts >= %s and ts < %s",
            (SYMBOL, ts, ts + 30 * minute),
        ).fetchone()
        assert want is not None and target == pytest.approx(want[0], rel=1e-9)


def test_order_book_labels_equal_their_plain_definition(market: Conn) -> None:
    minute = dt.timedelta(minutes=1)
    books = market.execute(
        "select public.time_bucket('1 minute', ts), bid_prices[1], ask_prices[1], bid_sizes[1],"
        " ask_sizes[1] from market.order_book_snapshots where symbol = %s",
        (SYMBOL,),
    ).fetchall()
    seen: dict[Any, list[tuple[float, float, float]]] = {}
    for bucket, bid, ask, bid_size, ask_size in books:
        mid = (bid + ask) / 2
        seen.setdefault(bucket, []).append(
            (1e4 * (ask - bid) / mid, (bid_size - ask_size) / (bid_size + ask_size), mid)
        )
    mean = {bucket: np.mean(rows, axis=0) for bucket, rows in seen.items()}
    for label, h in (("spread", 1), ("imbalance", 5), ("mid", 5)):
        rows = market.execute(
            "select ts, label_end, target from ml.label_values(%s, %s, %s, %s, %s)",
            (f"order_book_{label}_{h}m", SYMBOL, at(0), at(MINUTES), at(MINUTES)),
        ).fetchall()
        assert len(rows) > 300
        for ts, end, target in rows:
            assert end == ts + h * minute <= at(MINUTES)
            then = mean[ts + (h - 1) * minute]
            want = {"spread": then[0], "imbalance": then[1]}.get(label)
            if label == "mid":
                want = 1e4 * np.log(then[2] / mean[ts - minute][2])
            assert target == pytest.approx(want, rel=1e-6, abs=1e-6)


def test_the_threshold_is_the_trailing_quantile_known_at_t(market: Conn) -> None:
    market.execute(
        """update ml.labels set params = '{"quantile": 0.8, "lookback_days": 0.125}'
        where label = 'liquidation_15m'"""
    )
    rows = market.execute(
        "select ts, target from ml.label_values('liquidation_15m', 'BBBUSDT', %s, %s, %s)",
        (at(0), at(MINUTES), at(MINUTES)),
    ).fetchall()
    per = dict(
        market.execute(
            "select bucket, long_notional + short_notional from market.liquidations_1m"
            " where symbol = 'BBBUSDT'"
        ).fetchall()
    )
    total = np.array([per.get(at(m), 0.0) for m in range(MINUTES)])
    assert len(rows) > 50
    seen = set()
    for ts, target in rows:
        m = round((ts - at(0)).total_seconds() / 60)
        past = total[m - 180 : m].reshape(12, 15).sum(axis=1)
        want = total[m : m + 15].sum() > np.quantile(past, 0.8)
        assert target == float(want)
        seen.add(target)
    assert seen == {0.0, 1.0}


@settings(max_examples=25, deadline=None)
@given(
    gaps=st.lists(st.integers(1, 50), min_size=30, max_size=200),
    horizon=st.integers(1, 120),
    count=st.integers(1, 8),
)
def test_no_training_label_touches_the_test(gaps: list[int], horizon: int, count: int) -> None:
    from alphaplus.server.training import dataset

    t = np.cumsum(gaps).astype(np.int64) * 1000
    end = t + horizon * 1000
    for _, train_from, train_to, test_from, test_to in dataset.folds(
        None, t.astype(">i8").tobytes(), end.astype(">i8").tobytes(), count
    ):
        test = (t >= test_from) & (t < test_to)
        train = (t >= train_from) & (end <= train_to)
        assert test.any() and train.any() and not (test & train).any()
        span = t[test].min(), end[test].max()
        assert not ((t[train] <= span[1]) & (end[train] >= span[0])).any()


def test_a_row_that_arrives_late_but_was_known_marks_stored_vectors(db: Conn) -> None:
    fill(db, SYMBOL, 300, seed=3)
    db.execute("call feature.materialise('liquidation', %s, %s, %s)", (SYMBOL, at(240), at(300)))
    ts = at(250.5)
    db.execute(
        "insert into market.trades (symbol, ts, trade_id, known_at, price, size, side)"
        " values (%s, %s, 'history', %s, 100, 1000, 'buy')",
        (SYMBOL, ts, ts),
    )
    assert db.execute("select count(*) from feature.pending").fetchone() == (1,)
    # served right before it is recomputed, and stored right after
    row = db.execute("select feature.vector('liquidation', %s, %s)", (SYMBOL, at(260))).fetchone()
    assert row is not None
    np.testing.assert_array_equal(row[0], live(db, 260))
    stored = "select values from feature.vectors where symbol = %s and ts = %s"
    old = db.execute(stored, (SYMBOL, at(260))).fetchone()
    assert old is not None and not np.array_equal(old[0], row[0], equal_nan=True)
    model(db)
    db.execute("call feature.refresh()")
    assert db.execute("select count(*) from feature.pending").fetchone() == (0,)
    new = db.execute(stored, (SYMBOL, at(260))).fetchone()
    assert new is not None
    np.testing.assert_array_equal(new[0], row[0])


def test_bad_markets_give_nulls_not_errors(db: Conn) -> None:
    instrument(db, "ONEUSDT")
    db.execute(
        "insert into market.trades (symbol, ts, trade_id, known_at, price, size, side)"
        " values ('ONEUSDT', %s, '1', %s, 1, 1, 'buy')",
        (at(10), at(10)),
    )
    db.execute(
        "insert into market.order_book_snapshots (symbol, ts, known_at, bid_prices, bid_sizes,"
        " ask_prices, ask_sizes) values ('ONEUSDT', %s, %s, '{1}', '{1}', '{}', '{}')",
        (at(10), at(10)),
    )
    vector = live(db, 12, "ONEUSDT")
    assert len(vector) == 25 and np.isnan(vector).all()
    with pytest.raises(psycopg.Error) as caught:
        db.execute("select feature.vector('liquidation', 'NOPE', now())")
    assert caught.value.sqlstate == "AP101"
    with pytest.raises(psycopg.Error) as caught:
        db.execute("select feature.vector('nope', 'ONEUSDT', now())")
    assert caught.value.sqlstate == "AP202"


@pytest.mark.parametrize("family", FAMILIES)
def test_bad_data_give_nulls_and_no_errors(market: Conn, family: str) -> None:
    """One row of history, NaN, zero volume, an empty side, bars with gaps; a crossed book is none."""
    with market.transaction(force_rollback=True):
        instrument(market, "ODDUSDT")
        market.execute(
            "insert into market.trades (symbol, ts, trade_id, known_at, price, size, side)"
            " values ('ODDUSDT', %(t)s, 'one', %(t)s, 100, 1, 'buy')",
            {"t": at(10)},
        )
        only = np.array(live(market, 12, "ODDUSDT", family), dtype=float)
        assert not np.isinf(only).any()
        # Bars of a quiet day with holes, across the change to summer time, some without volume.
        market.execute(
            "insert into market.candles"
            " (symbol, timeframe, ts, known_at, open, high, low, close, volume)"
            " select 'ODDUSDT', interval '1 minute', t, t + interval '1 minute', 100, 100, 100, 100,"
            " case when extract(minute from t)::int % 3 = 0 then 0 else 5 end"
            " from generate_series(timestamptz '2024-03-30 20:00+00', '2024-03-31 06:00+00',"
            " interval '1 minute') t where extract(minute from t)::int % 17 <> 0"
        )
        books = [
            ([], [], [101.0], [2.0]),
            ([100.0], [1.0], [], []),
            ([100.0, 99.9], [float("nan"), 1.0], [100.1], [3.0]),
        ]
        with pytest.raises(psycopg.errors.CheckViolation), market.transaction():
            market.execute(
                "insert into market.order_book_snapshots"
                " (symbol, ts, bid_prices, bid_sizes, ask_prices, ask_sizes)"
                " values ('ODDUSDT', %s, '{100}', '{1}', '{99}', '{1}')",
                (at(10),),
            )
        for number, (bids, bid_sizes, asks, ask_sizes) in enumerate(books):
            market.execute(
                "insert into market.order_book_snapshots"
                " (symbol, ts, known_at, bid_prices, bid_sizes, ask_prices, ask_sizes)"
                " values ('ODDUSDT', %(t)s, %(t)s, %(b)s, %(bs)s, %(a)s, %(s)s)",
                {
                    "t": dt.datetime(2024, 3, 31, 1, number, 30, tzinfo=dt.UTC),
                    "b": bids, "bs": bid_sizes, "a": asks, "s": ask_sizes,
                },
            )  # fmt: skip
        rows = market.execute(
            "select ts, vector from feature._history(%s, null, 'ODDUSDT', %s, %s)",
            (
                family,
                dt.datetime(2024, 3, 31, 0, 30, tzinfo=dt.UTC),
                dt.datetime(2024, 3, 31, 3, 0, tzinfo=dt.UTC),
            ),
        ).fetchall()
        assert len({ts for ts, _ in rows}) == len(rows), "no hour comes twice"
        for ts, vector in rows[::13]:
            values = np.array(vector, dtype=float)
            assert not np.isinf(values).any()
            one = market.execute(
                "select feature.vector(%s, 'ODDUSDT', %s)", (family, ts)
            ).fetchone()
            assert one is not None
            np.testing.assert_allclose(np.array(one[0], dtype=float), values, rtol=1e-9, atol=1e-9)
