"""Several sets as one; sets that fail; functions that users' SELECTs call."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.db import serving
from tests.db.market_data import at, fill

Conn = psycopg.Connection[Any]
MINUTE = dt.timedelta(minutes=1)
SYMBOL = "AAAUSDT"
N = 300


def rows(conn: Conn, query: str, *args: Any) -> list[Any]:
    return conn.execute(query, args).fetchall()


def one(conn: Conn, query: str, *args: Any) -> Any:
    return rows(conn, query, *args)[0][0]


def create(conn: Conn, name: str, query: str, lookback: str = "3 hours", **more: Any) -> int:
    names = "".join(f", {key} => %s" for key in more)
    return int(
        one(
            conn,
            f"select feature.create_set(%s, %s, %s{names})",
            name,
            query,
            lookback,
            *more.values(),
        )
    )


@pytest.fixture(scope="module")
def market(db_module: Conn) -> Iterator[Conn]:
    conn = db_module
    conn.execute("set client_min_messages = error")
    for seed, symbol in enumerate((SYMBOL, "BBBUSDT")):
        fill(conn, symbol, N, seed=seed + 1, per_minute=8)
    conn.execute("call market.refresh_aggregates()")
    create(
        conn, "slow", "select ts, close, volume from market.candles_15m", "1 hour",
        grid="15 minutes",
    )  # fmt: skip
    create(
        conn, "other", "select c.ts, b.close from market.candles_1m c"
        " join b.candles_1m b on b.ts = c.ts", "10 minutes", symbols=Jsonb({"b": "BBBUSDT"}),
    )  # fmt: skip
    yield conn


def test_a_joined_vector_is_its_members_vectors(market: Conn) -> None:
    set_id = one(
        market,
        "select feature.join_sets('all_of_it', '{order_book, slow, other}', '{ob, slow, btc}')",
    )
    assert set_id == one(
        market,
        "select feature.join_sets('all_of_it', '{order_book, slow, other}', '{ob, slow, btc}')",
    )
    names = one(market, "select features from feature.sets where set_id = %s", set_id)
    book = one(market, "select features from feature.sets where name = 'order_book'")
    assert names == [f"ob_{x}" for x in book] + ["slow_close", "slow_volume", "btc_close"]
    got = rows(
        market, "select at, vector from feature._history('all_of_it', 1, %s, %s, %s) as h (s, at, vector)",
        SYMBOL, at(60), at(120),
    )  # fmt: skip
    assert len(got) == 60
    for ts, vector in got:
        parts = [
            one(market, "select feature.vector(%s, %s, %s)", name, SYMBOL, ts)
            for name in ("order_book", "slow", "other")
        ]
        np.testing.assert_array_equal(vector, np.concatenate(parts))
        assert (
            one(market, "select feature.vector('all_of_it', %s, %s)", SYMBOL, ts) == vector
            or np.isnan(vector).any()
        )
    assert rows(
        market, "select slow_close, btc_close from feature.all_of_it(%s, %s)", SYMBOL, at(100)
    )
    lines = {row[0] for row in rows(market, "select feature from feature.lineage('all_of_it')")}
    assert {"slow_close", "btc_close"} <= lines
    assert (
        rows(
            market,
            "select * from feature.audit_lookahead('all_of_it', %s, %s, %s, 5)",
            SYMBOL,
            at(60),
            at(120),
        )
        == []
    )
    assert (
        one(market, "select formula from feature.definitions where feature = 'slow_close'")
        == "close"
    )


def test_stored_joined_vectors_are_void_by_what_its_members_read(market: Conn) -> None:
    one(market, "select feature.join_sets('two', '{slow, other}')")
    market.execute("call feature.materialise('two', %s, %s, %s)", (SYMBOL, at(60), at(160)))
    count = (
        "select count(*) from feature.valid_vectors v join feature.sets s using (set_id)"
        " where s.name = 'two'"
    )
    assert one(market, count) == 100
    with market.transaction(force_rollback=True):
        market.execute(
            "insert into market.trades (symbol, ts, trade_id, known_at, price, size, side)"
            " values ('BBBUSDT', %s, 'lz', %s, 123, 1, 'buy')",
            (at(100), at(110)),
        )
        assert one(market, count) == 50


def test_one_model_is_trained_on_and_served_with_several_sets(market: Conn) -> None:
    import lightgbm

    one(market, "select feature.join_sets('both', '{slow, other}')")
    market.execute(
        "insert into ml.models (model, label, feature_set, feature_version, expires_after)"
        " values ('joint', 'direction_15m', 'both', 1, '10000 days')"
    )
    names = ["slow_close", "slow_volume", "other_close"]
    train = rows(
        market, "select features, target, label_end - ts from ml.training_set('joint', %s, %s)",
        SYMBOL, at(N),
    )  # fmt: skip
    assert len(train) > 200 and {row[2] for row in train} == {dt.timedelta(minutes=15)}
    x, y = np.array([row[0] for row in train]), np.array([row[1] for row in train])
    booster = lightgbm.train(
        {"objective": "binary", "num_leaves": 4, "verbosity": -1, "num_threads": 1},
        lightgbm.Dataset(x, y, feature_name=names), 8,
    )  # fmt: skip
    version = serving.register(
        market, booster, model="joint", symbol=SYMBOL, features=names, promote=True
    )
    vector = np.array([one(market, "select feature.vector('both', %s, %s)", SYMBOL, at(250))])
    answer = rows(
        market,
        "select prediction, is_fallback from ml.predict('joint', %s, %s, version => %s)",
        SYMBOL,
        at(250),
        version,
    )
    assert answer == [(pytest.approx(float(booster.predict(vector)[0]), rel=1e-9), False)]
    told = rows(
        market, "select feature from ml.explain('joint', %s, %s, %s)", SYMBOL, at(250), version
    )
    assert set(names) <= {row[0] for row in told}
    number = one(
        market, "select ml.record_prediction('joint', %s, %s, %s)", SYMBOL, at(250), version
    )
    recorded, replayed = rows(market, "select recorded, replayed from ml.replay(%s)", number)[0]
    assert recorded == replayed == answer[0][0]


def test_what_cannot_be_joined_is_refused(market: Conn) -> None:
    join = "select feature.join_sets(%s, %s, %s)"
    for name, sets, prefixes, code in (
        ("Bad", ["slow", "other"], None, "AP203"), ("technical_1m", ["slow", "other"], None, "AP203"),
        ("j", ["slow"], None, "AP230"), ("j", ["slow", "slow"], None, "AP230"),
        ("j", ["slow", "other"], ["a"], "AP230"), ("j", ["slow", "nobody"], None, "AP202"),
        ("j", ["slow", "other@7"], None, "AP202"), ("j", ["slow", "two"], None, "AP230"),
        ("j", ["slow", "other"], ["a" * 60, "b"], "AP230"), ("j", None, None, "AP230"),
        ("j", ["slow", None], None, "AP230"),
    ):  # fmt: skip
        with pytest.raises(psycopg.Error) as caught:
            market.execute(join, (name, sets, prefixes))
        assert caught.value.sqlstate == code, (name, sets, caught.value)
        assert caught.value.diag.message_hint
    one(market, "select feature.join_sets('kept', '{slow, other}')")
    with pytest.raises(psycopg.Error) as caught:
        market.execute("select feature.drop_set('slow')")
    assert caught.value.sqlstate == "AP206"
    market.execute("select feature.drop_set('kept')")


def test_the_functions_are_pandas(market: Conn) -> None:
    create(
        market, "calculated",
        """
        select c.ts, feature.ewma(array_agg(c.close) over (order by c.ts rows 40 preceding), 5) as ew,
            feature.quantile(array_agg(c.volume) over w, 0.9) as q,
            feature.zscore(c.close, avg(c.close) over w, stddev(c.close) over w) as z,
            feature.safe_div(c.close, c.volume - c.volume) as nothing,
            feature.safe_ln(c.volume - c.volume) as none_either,
            feature.time_of_day(c.ts, 'America/New_York') as hour,
            (select max(d.high) from market.candles_1m d
             where d.ts < feature.session_start(c.ts, 'UTC', '01:00')
                and d.ts >= feature.session_start(c.ts, 'UTC', '01:00') - interval '1 day') as high
        from market.candles_1m c window w as (order by c.ts rows 29 preceding)
        """,
        "4 hours",
    )  # fmt: skip
    frame = pd.DataFrame(
        rows(
            market,
            "select ts, high, close, volume from market.candles_1m where symbol = %s order by 1",
            SYMBOL,
        ),
        columns=["ts", "high", "close", "volume"],
    ).set_index("ts")
    got = rows(
        market, "select * from feature.calculated_history(%s, %s, %s)", SYMBOL, at(100), at(130)
    )
    assert len(got) == 30
    for _, ts, ew, q, z, nothing, none_either, hour, high in got:
        seen = frame[: ts - MINUTE]
        assert ew == pytest.approx(seen["close"][-41:].ewm(halflife=5).mean().iloc[-1], rel=1e-12)
        last = seen[-30:]
        assert q == pytest.approx(last["volume"].quantile(0.9), rel=1e-12)
        want = (last["close"].iloc[-1] - last["close"].mean()) / last["close"].std()
        assert z == pytest.approx(want, rel=1e-6)
        assert nothing is none_either is None
        local = (ts - MINUTE).astimezone(dt.timezone(-dt.timedelta(hours=4)))
        assert hour == pytest.approx((local.hour * 60 + local.minute) / 1440)
        assert high == pytest.approx(frame["high"][: at(59)].max())


def test_a_bad_set_stops_no_other_and_is_seen_and_tried_again(db: Conn) -> None:
    """cases/quant 14: a division by zero, and no set after it was refreshed."""
    db.execute("set client_min_messages = error")
    for seed, symbol in enumerate((SYMBOL, "BBBUSDT")):
        fill(db, symbol, 60, seed=seed + 1, per_minute=8)
    db.execute("call market.refresh_aggregates()")
    create(
        db, "bad", "select c.ts, 1 / (extract(minute from c.ts)::int % 7) as x, c.close"
        " from market.candles_1m c", "10 minutes",
    )  # fmt: skip
    create(db, "good", "select ts, close from market.candles_1m", "10 minutes")
    for name in ("bad", "good"):
        db.execute(
            "insert into ml.models (model, label, feature_set, feature_version)"
            " values (%s, 'return_15m', %s, 1)",
            (name, name),
        )
    db.execute("call feature.refresh()")
    stored = dict(rows(
        db, "select s.name || v.symbol, count(*) from feature.vectors v join feature.sets s using (set_id)"
        " where s.name in ('bad', 'good') group by 1",
    ))  # fmt: skip
    failing = [m for m in range(60) if m % 7 == 0]
    assert stored[f"good{SYMBOL}"] == stored["goodBBBUSDT"] == 60
    assert stored[f"bad{SYMBOL}"] == 60 - len(failing)
    errors = rows(
        db, "select e.ts, e.sqlstate, e.message, e.attempts from feature.set_errors e"
        " where symbol = %s order by ts", SYMBOL,
    )  # fmt: skip
    assert [e[0] for e in errors] == [at(m + 1) for m in failing]
    assert {e[1:] for e in errors} == {("22012", "division by zero", 1)}
    health = rows(
        db, "select status, detail from ops.health where check_name = 'set' and subject = 'bad'"
    )
    assert len(health) == 1 and health[0][0] == "yellow" and "division by zero" in health[0][1]
    db.execute("call feature.refresh()")  # not yet due
    assert one(db, "select max(attempts) from feature.set_errors") == 1
    db.execute("update feature.set_errors set retry_at = now()")
    db.execute("call feature.refresh()")
    assert rows(db, "select distinct attempts from feature.set_errors") == [(2,)]
    assert one(db, "select status from ops.health where check_name = 'set'") == "red"
    # What is the matter goes away: so does the error.
    db.execute(
        "update feature.sets set definition = replace(definition, '% 7', '% 7 + 1') where name = 'bad'"
    )
    with psycopg.connect(db.info.dsn, password=db.info.password, autocommit=True) as other:
        other.execute("update feature.set_errors set retry_at = now()")
        other.execute("call feature.refresh()")
    assert rows(db, "select * from feature.set_errors") == []
    assert (
        one(
            db,
            "select count(*) from feature.vectors v join feature.sets s using (set_id) where s.name = 'bad'",
        )
        == 120
    )


def test_a_member_that_fails_is_told_of_the_joined_set(db: Conn) -> None:
    db.execute("set client_min_messages = error")
    fill(db, SYMBOL, 40, per_minute=8)
    db.execute("call market.refresh_aggregates()")
    create(
        db, "bad", "select c.ts, 1 / (extract(minute from c.ts)::int - 20) as x"
        " from market.candles_1m c", "10 minutes",
    )  # fmt: skip
    create(db, "good", "select ts, close from market.candles_1m", "10 minutes")
    set_id = one(db, "select feature.join_sets('both', '{bad, good}')")
    db.execute("call feature.materialise('both', %s, %s, %s)", (SYMBOL, at(1), at(40)))
    assert rows(db, "select set_id, ts, sqlstate from feature.set_errors") == [
        (set_id, at(21), "22012")
    ]
    vector = one(db, "select values from feature.valid_vectors where ts = %s", at(21))
    assert np.isnan(vector[0]) and vector[1] > 0


def test_a_set_that_cannot_run_at_all_stops_no_other(db: Conn) -> None:
    db.execute("set client_min_messages = error")
    fill(db, SYMBOL, 30, per_minute=8)
    db.execute("call market.refresh_aggregates()")
    create(db, "broken", "select ts, close from market.candles_1m", "10 minutes")
    create(db, "fine", "select ts, close from market.candles_1m", "10 minutes")
    db.execute("update feature.sets set definition = 'select nonsense' where name = 'broken'")
    for name in ("broken", "fine"):
        db.execute(
            "insert into ml.models (model, label, feature_set, feature_version)"
            " values (%s, 'return_15m', %s, 1)",
            (name, name),
        )
    # A backend that made the set keeps it as it was.
    other = psycopg.connect(db.info.dsn, password=db.info.password, autocommit=True)
    other.execute("call feature.refresh()")
    names = rows(
        db, "select distinct s.name from feature.vectors v join feature.sets s using (set_id)"
        " where s.name in ('fine', 'broken')",
    )  # fmt: skip
    assert names == [("fine",)]
    assert rows(
        db,
        "select s.name, e.symbol, e.sqlstate from feature.set_errors e join feature.sets s using (set_id)",
    ) == [("broken", SYMBOL, "42703")]
    other.execute("call feature.refresh()")
    other.close()
    assert one(db, "select attempts from feature.set_errors") == 1
