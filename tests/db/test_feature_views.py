"""Views of stored vectors, and point-in-time joins beside their plain definition."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.db.market_data import at, fill
from tests.db.serving import install as install_fixed
from tests.db.serving import register, store, synthetic, train

Conn = psycopg.Connection[Any]
SYMBOLS = ["AAAUSDT", "BBBUSDT"]
MINUTES = 240


@pytest.fixture(scope="module")
def market(db_module: Conn) -> Iterator[Conn]:
    conn = db_module
    for number, symbol in enumerate(SYMBOLS):
        fill(conn, symbol, MINUTES, seed=number, latency=20 * number)
    # Late rows, corrections of every age, and deletions: known_at is by no means ordered as ts is.
    conn.execute(
        "update market.trades set price = price + 1, known_at = ts + interval '40 minutes'"
        " where hashtext(trade_id) % 7 = 0"
    )
    conn.execute(
        "insert into market.trades (symbol, ts, trade_id, known_at, price, size, side)"
        " select 'AAAUSDT', %s::timestamptz + g * interval '90 s', 'late' || g,"
        " %s::timestamptz + g * interval '90 s' + (g %% 50) * interval '1 minute', 7, 1, 'buy'"
        " from generate_series(0, 150) g",
        (at(0), at(0)),
    )
    conn.execute("delete from market.trades where hashtext(trade_id) % 11 = 0")
    # The triggers keep what was superseded as of now; the test needs it to have happened then.
    conn.execute(
        "update market.trades_history set superseded_at = ts + interval '40 minutes'"
        " where hashtext(trade_id) % 7 = 0"
    )
    yield conn


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    keys=st.lists(
        st.tuples(st.sampled_from(SYMBOLS), st.floats(-5, MINUTES + 90)), min_size=1, max_size=40
    ),
    age=st.sampled_from([1, 30, 600]),
)
def test_an_as_of_join_is_its_definition(
    market: Conn, keys: list[tuple[str, float]], age: int
) -> None:
    names, times = [key[0] for key in keys], [at(key[1]) for key in keys]
    limit = dt.timedelta(minutes=age)
    found = market.execute(
        "select symbol, ts, row_ts, row_known_at, row ->> 'price' from"
        " feature.as_of('market.trades', %s, %s, array['price'], %s)",
        (names, times, limit),
    ).fetchall()
    assert [(row[0], row[1]) for row in found] == list(zip(names, times, strict=True))
    versions = market.execute(
        "select symbol, ts, known_at, 'infinity'::timestamptz > now(), price, null::timestamptz"
        " from market.trades union all select symbol, ts, known_at, true, price, superseded_at"
        " from market.trades_history"
    ).fetchall()
    for (symbol, ts, row_ts, known_at, price), name in zip(found, names, strict=True):
        usable = [
            v
            for v in versions
            if v[0] == name and v[1] < ts and v[2] <= ts and ts - v[1] <= limit
            and (v[5] is None or v[5] > ts)
        ]  # fmt: skip
        if not usable:
            assert row_ts is None and price is None
            continue
        newest = max(v[1] for v in usable)
        assert row_ts == newest
        assert (known_at, float(price)) in {(v[2], v[4]) for v in usable if v[1] == newest}
        assert symbol == name


def test_tables_of_ones_own_join_too(market: Conn) -> None:
    market.execute(
        "create table public.news (symbol text, ts timestamptz, known_at timestamptz, score float8)"
    )
    # An article of minute 10 that was known at minute 30.
    market.execute("insert into public.news values ('AAAUSDT', %s, %s, 0.5)", (at(10), at(30)))
    ask = "select row ->> 'score' from feature.as_of('public.news', %s, %s, null, '1 hour')"
    rows = market.execute(ask, (["AAA/USDT"] * 3, [at(20), at(30), at(80)])).fetchall()
    assert rows == [(None,), ("0.5",), (None,)]
    market.execute("drop table public.news")


@pytest.mark.parametrize(
    "times", [[None], ["infinity", "-infinity"], ["-infinity", None, str(at(60))]]
)
def test_a_time_that_is_none_has_its_row_in_the_join(market: Conn, times: list[Any]) -> None:
    found = market.execute(
        "select count(*), count(row_ts) from"
        " feature.as_of('market.trades', %s::text[], %s::timestamptz[])",
        (["AAAUSDT"] * len(times), times),
    ).fetchone()
    assert found == (len(times), times.count(str(at(60))))


@pytest.mark.parametrize(
    ("relation", "symbols", "times", "columns", "age", "code"),
    [
        ("market.trades", ["AAAUSDT"], [], None, "1 h", "AP207"),
        ("market.trades", ["AAAUSDT"], [at(1)], ["nosuch"], "1 h", "AP207"),
        ("market.instruments", ["AAAUSDT"], [at(1)], None, "1 h", "AP207"),
        ("market.trades", ["AAAUSDT"], [at(1)], None, "0", "AP207"),
        ("market.trades", ["nosuch"], [at(1)], None, "1 h", "AP101"),
    ],
)
def test_wrong_joins_are_refused(
    market: Conn, relation: str, symbols: Any, times: Any, columns: Any, age: str, code: str
) -> None:
    with pytest.raises(psycopg.Error) as refused:
        market.execute(
            "select * from feature.as_of(%s, %s::text[], %s::timestamptz[], %s::text[], %s::interval)",
            (relation, symbols, times, columns, age),
        )
    assert refused.value.sqlstate == code
    assert refused.value.diag.message_hint


def test_stored_vectors_in_long_shape_and_their_quality(market: Conn) -> None:
    market.execute(
        "call feature.materialise('order_book', 'AAAUSDT', %s, %s)", (at(0), at(MINUTES))
    )
    wide = market.execute("select v.ts, v.values from feature.vectors v order by v.ts").fetchall()
    names = market.execute("select features from feature.sets where name = 'order_book'").fetchone()
    assert names is not None
    long = market.execute(
        "select feature, value from feature.vectors_long where feature_set = 'order_book'"
        " and symbol = 'AAAUSDT' and ts = %s",
        (wide[50][0],),
    ).fetchall()
    assert [name for name, _ in long] == names[0]
    for (_, value), expected in zip(long, wide[50][1], strict=True):
        assert value == expected or (value is None and np.isnan(expected))
    quality = market.execute(
        "select feature, row_count, null_share, mean, variance, last_value, staleness"
        " from feature.quality('order_book', 'AAA/USDT', %s, %s)",
        (at(0), at(MINUTES)),
    ).fetchall()
    values = np.array([row[1] for row in wide])
    assert [row[0] for row in quality] == names[0]
    for i, (_, count, null_share, mean, variance, last, staleness) in enumerate(quality):
        column = values[:, i]
        known = column[np.isfinite(column)]
        assert count == len(wide)
        assert null_share == pytest.approx(np.isnan(column).mean())
        assert mean == pytest.approx(known.mean(), rel=1e-9, abs=1e-12)
        assert variance == pytest.approx(known.var(ddof=1), rel=1e-6, abs=1e-12)
        assert last == column[-1] or (last is None and np.isnan(column[-1]))
        behind = len(column) - 1 - np.flatnonzero(np.isfinite(column))[-1]
        assert staleness == dt.timedelta(minutes=int(behind))
    recent = market.execute(
        "select count(*) from feature.quality_recent where feature_set = 'order_book'"
    ).fetchone()
    assert recent == (21,)


def test_importance_of_what_serves(db: Conn) -> None:
    install_fixed(db)
    x, y = synthetic()
    store(db, x)
    booster = train(x, y)
    gain = dict(zip(booster.feature_name(), booster.feature_importance("gain"), strict=True))
    named = {f"x{i}": float(gain[f"Column_{i}"]) for i in range(x.shape[1])}
    version = register(db, booster, promote=True, importance={"gain": named})
    register(db, booster, importance={"gain": named})
    rows = db.execute(
        "select version_id, feature, importance, share, rank from feature.importance order by rank"
    ).fetchall()
    assert {row[0] for row in rows} == {version}, "only what plays a part"
    assert len(rows) == x.shape[1]
    assert sum(row[3] for row in rows) == pytest.approx(1)
    assert rows[0][1] == max(named, key=lambda name: named[name])
