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
    # Several trades of one moment, as exchanges that stamp milliseconds give them.
    conn.execute(
        "insert into market.trades (symbol, ts, trade_id, known_at, price, size, side)"
        " select symbol, ts, n::text, ts + n * interval '7 s', 200 + n, 1, 'buy'"
        " from market.trades, generate_series(8, 12) n where hashtext(trade_id) % 5 = 0"
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
        "select symbol, ts, known_at, trade_id, price, null::timestamptz"
        " from market.trades union all select symbol, ts, known_at, trade_id, price, superseded_at"
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
        # Of one moment the trade with the greatest id, a number being in its order.
        newest = max(usable, key=lambda v: (v[1], len(v[3]), v[3], v[2]))
        assert (row_ts, known_at, float(price)) == (newest[1], newest[2], newest[4])
        assert symbol == name


@pytest.mark.parametrize("age", ["90 s", "40 minutes", "1 day"])
def test_many_pairs_are_joined_as_each_alone(market: Conn, age: str) -> None:
    rng = np.random.default_rng(7)
    keys = [
        (SYMBOLS[i], at(m))
        for i, m in zip(rng.integers(0, 2, 5000), rng.uniform(-30, 400, 5000), strict=True)
    ]
    keys[::400] = [(name, None) for name, _ in keys[::400]]
    ask = "select r::text from feature.as_of(%s, %s::text[], %s::timestamptz[], null, %s) r"
    market.execute(
        "create table public.own as select symbol, ts, known_at, price, trade_id from market.trades"
    )
    market.execute(
        "create table public.own_history as select symbol, ts, known_at, price, trade_id,"
        " superseded_at from market.trades_history"
    )
    for table in ("market.trades", "public.own", "market.order_book_snapshots"):

        def joined(some: list[tuple[str, Any]], table: str = table) -> list[str]:
            names, times = [key[0] for key in some], [key[1] for key in some]
            return [row[0] for row in market.execute(ask, (table, names, times, age))]

        many = joined(keys)
        assert len(many) == len(keys)
        some = [*range(0, len(keys), 9), *range(0, len(keys), 400)]
        assert joined([keys[i] for i in some]) == [many[i] for i in some]
    market.execute("drop table public.own, public.own_history")


def test_the_newest_of_a_moment_does_not_hang_on_where_rows_lie(market: Conn) -> None:
    """A table without a key, its rows of one moment written in several orders."""
    rows = [(at(10), at(n % 3 + 10), n % 5, f"w{n}", None if n % 2 else [n]) for n in range(40)]
    found = set()
    for seed in range(4):
        market.execute(
            "create table public.words (symbol text, ts timestamptz, known_at timestamptz,"
            " score int, word varchar, parts int[])"
        )
        order = np.random.default_rng(seed).permutation(len(rows))
        with market.cursor() as cursor:
            cursor.executemany(
                "insert into public.words values ('AAAUSDT', %s, %s, %s, %s, %s)",
                [rows[i] for i in order],
            )
        for index in ("", "create index on public.words (symbol, ts)"):
            if index:
                market.execute(index)
                market.execute("analyze public.words")
            for minute in (11, 12, 300):
                for times in (1, 2500):
                    answer = market.execute(
                        "select row ->> 'word' from feature.as_of('public.words', %s, %s, null,"
                        " '1 day') limit 1",
                        (["AAAUSDT"] * times, [at(minute)] * times),
                    ).fetchone()
                    found.add((minute, answer))
        market.execute("drop table public.words")
    # Known last, then the greatest score, then the longest and greatest word.
    assert found == {(11, ("w34",)), (12, ("w29",)), (300, ("w29",))}


def test_a_day_of_max_age_is_24_hours_in_every_time_zone(market: Conn) -> None:
    market.execute(
        "insert into market.funding_rates (symbol, ts, known_at, rate) values"
        " ('AAAUSDT', '2024-03-30 12:00+00', '2024-03-30 12:00+00', 1),"
        " ('AAAUSDT', '2024-10-26 12:00+00', '2024-10-26 12:00+00', 2)"
    )
    found = set()
    for zone in ("UTC", "Europe/Berlin", "America/New_York"):
        with market.transaction(force_rollback=True):
            market.execute("select set_config('TimeZone', %s, true)", (zone,))
            rows = market.execute(
                "select row::text from feature.as_of('market.funding_rates',"
                " array_fill('AAAUSDT'::text, array[4]), array['2024-03-31 11:30+00',"
                " '2024-03-31 12:30+00', '2024-10-27 11:30+00', '2024-10-27 12:30+00']"
                "::timestamptz[], null, '1 day')"
            ).fetchall()
            found.add(tuple(row[0] for row in rows))
    market.execute("delete from market.funding_rates where ts < %s or rate = 2", (at(-1440),))
    ((spring, none, autumn, nor),) = found
    assert '"rate": 1' in spring and '"rate": 2' in autumn
    assert none is None and nor is None


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


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ("symbol text, ts timestamp, known_at timestamptz", "ts timestamp without time zone"),
        ("symbol text, ts timestamptz, known_at date", "known_at date"),
        ("symbol int, ts timestamptz, known_at timestamptz", "symbol integer"),
    ],
)
def test_a_table_of_other_types_is_refused_with_words(
    market: Conn, columns: str, words: str
) -> None:
    with market.transaction(force_rollback=True):
        market.execute(f'create table public."Other Types" ({columns})')
        with pytest.raises(psycopg.Error) as refused, market.transaction():
            market.execute(
                "select * from feature.as_of('public.\"Other Types\"', array['AAAUSDT'], array[%s])",
                (at(1),),
            )
        assert refused.value.sqlstate == "AP207"
        assert words in str(refused.value.diag.message_detail)


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
        "select count(*), min(through), max(through) from feature.quality_recent"
        " where feature_set = 'order_book'"
    ).fetchone()
    assert recent == (21, at(MINUTES), at(MINUTES))
    with pytest.raises(psycopg.Error) as unknown:
        market.execute(
            "select * from feature.quality('patterns_1m', 'NOPE', %s, %s)", (at(0), at(9))
        )
    assert unknown.value.sqlstate == "AP101"


TIMES = {
    "feature.noise_mask('AAAUSDT', {0}, {1})",
    "feature.noise_counts('AAAUSDT', {0}, {1})",
    "feature.audit_lookahead('order_book', 'AAAUSDT', {0}, {1})",
    "feature.audit_warmup('order_book', 'AAAUSDT', {0}, {1})",
    "feature.patterns_history('AAAUSDT', {0}, {1})",
    "feature.technical_history('AAAUSDT', {0}, {1})",
    "feature.liquidation_history('AAAUSDT', {0}, {1})",
}
MOMENTS = {
    "feature.patterns('AAAUSDT', {0})",
    "feature.technical('AAAUSDT', {0})",
    "feature.order_book('AAAUSDT', {0})",
    "feature.vector('order_book', 'AAAUSDT', {0})",
    "feature.volatility_score('AAAUSDT', {0})",
    "feature.liquidity_score('AAAUSDT', {0})",
}


@pytest.mark.parametrize("call", sorted(TIMES | MOMENTS))
def test_a_time_that_is_none_is_refused_with_words(market: Conn, call: str) -> None:
    good = "timestamptz '2024-06-01 01:00+00'"
    bad = ["timestamptz '-infinity'", "timestamptz 'infinity'"]
    pairs = [(word, good) for word in bad]
    if call in TIMES:
        pairs += [(good, word) for word in bad] + [("null", good), (good, "null")]
    for pair in pairs:
        with pytest.raises(psycopg.Error) as refused:
            market.execute(f"select * from {call.format(*pair)}")
        assert refused.value.sqlstate == "AP211", pair
        assert "null, infinite" in str(refused.value)
        assert refused.value.diag.message_hint
    if call in TIMES:
        assert market.execute(f"select * from {call.format(good, good)}").fetchall() is not None


def test_nothing_is_stored_up_to_the_end_of_time(market: Conn) -> None:
    for span in ((at(0), "infinity"), ("-infinity", at(0)), (None, at(0))):
        with pytest.raises(psycopg.Error) as refused:
            market.execute("call feature.materialise('order_book', 'AAAUSDT', %s, %s)", span)
        assert refused.value.sqlstate == "AP211"


@pytest.mark.parametrize("more", ["0", "-1", "null", "3, -1", "3, null", "3, 'NaN'"])
def test_an_audit_of_nothing_is_refused(market: Conn, more: str) -> None:
    for audit in ("audit_lookahead", "audit_warmup"):
        with pytest.raises(psycopg.Error) as refused:
            market.execute(
                f"select * from feature.{audit}('order_book', 'AAAUSDT', %s, %s, {more})",
                (at(60), at(90)),
            )
        assert refused.value.sqlstate == "AP212"


def test_importance_of_what_serves(db: Conn) -> None:
    install_fixed(db)
    x, y = synthetic()
    store(db, x)
    booster = train(x, y)
    gain = dict(zip(booster.feature_name(), booster.feature_importance("gain"), strict=True))
    named = {f"x{i}": float(gain[f"Column_{i}"]) for i in range(x.shape[1])}
    version = register(db, booster, promote=True, importance={"gain": named})
    register(db, booster, importance={"gain": named})
    # A version of somebody's that says something else does not hide the others.
    odd = {"gain": {"x0": "much", "x1": 2}, "words": ["x0"], "text": "x"}
    other = register(db, booster, model="fixed_value", promote=True, importance=odd)
    found = db.execute(
        "select feature, importance from feature.importance where version_id = %s", (other,)
    ).fetchall()
    assert found == [("x1", 2.0)]
    rows = db.execute(
        "select version_id, feature, importance, share, rank from feature.importance"
        " where model = 'fixed' order by rank"
    ).fetchall()
    assert {row[0] for row in rows} == {version}, "only what plays a part"
    assert len(rows) == x.shape[1]
    assert sum(row[3] for row in rows) == pytest.approx(1)
    assert rows[0][1] == max(named, key=lambda name: named[name])
