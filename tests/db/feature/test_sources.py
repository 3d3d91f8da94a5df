"""Users' own tables and other symbols in feature sets: as-of safe, audited, voided by late rows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from tests.db.market_data import at, fill

Conn = psycopg.Connection[Any]
MINUTE = dt.timedelta(minutes=1)
ETH, BTC = "ETHUSDT", "BTCUSDT"
CROSS = """
select c.ts, c.close / lag(c.close) over (order by c.ts) - 1 as mine,
    (select b.close from btc.candles_1m b where b.ts <= c.ts order by b.ts desc limit 1) as theirs,
    (select avg(m.close) from both_of.candles_1m m where m.ts = c.ts) as index
from market.candles_1m c
"""
NEWS = """
select c.ts, c.close, (
        select sum(n.score) from source.news n where n.ts > c.ts - interval '30 minutes'
            and n.ts <= c.ts
    ) as mood, (
        select r.rate from source.rates r where r.ts <= c.ts order by r.ts desc limit 1
    ) as rate
from market.candles_1m c
"""


def one(conn: Conn, query: str, *args: Any) -> Any:
    row = conn.execute(query, args).fetchone()
    return None if row is None else row[0]


def code(conn: Conn, query: str, *args: Any) -> str | None:
    with pytest.raises(psycopg.Error) as caught, conn.transaction():
        conn.execute(query, args)
    assert caught.value.diag.message_hint
    return caught.value.sqlstate


@pytest.fixture(scope="module")
def market(db_module: Conn) -> Iterator[Conn]:
    conn = db_module
    conn.execute("set client_min_messages = warning")
    for seed, symbol in enumerate((ETH, BTC)):
        fill(conn, symbol, 240, seed=seed + 1, per_minute=8)
    conn.execute("call market.refresh_aggregates()")
    conn.execute(
        "select feature.create_set('crossed', %s, '1 hour', symbols => %s)",
        (CROSS, Jsonb({"btc": BTC, "both_of": ["ETH/USDT", "BTC/USDT"]})),
    )
    conn.execute(
        'select feature.create_table(\'news\', \'{"score": "float8", "id": "text"}\', key => \'{id}\')'
    )
    conn.execute(
        "select feature.create_table('rates', '{\"rate\": \"numeric\"}', per_symbol => false)"
    )
    conn.execute("select feature.create_source('research.news', key => '{id}')")
    conn.execute("select feature.create_source('research.rates', symbol => null)")
    conn.execute(
        "insert into research.news (symbol, ts, known_at, id, score)"
        " select 'ETHUSDT', %s::timestamptz + g * interval '7 minutes',"
        "  %s::timestamptz + g * interval '7 minutes' + interval '90 seconds', g::text, g"
        " from generate_series(0, 30) g",
        (at(0), at(0)),
    )
    conn.execute(
        "insert into research.rates (ts, known_at, rate) values (%s, %s, 5), (%s, %s, 6)",
        (at(-30), at(-10), at(100), at(120)),
    )
    conn.execute("select feature.create_set('moody', %s, '3 hours')", (NEWS,))
    yield conn


def test_other_symbols_and_bars_are_what_they_are_at_each_time(market: Conn) -> None:
    """cases/quant 11: another symbol's rows were accepted, and null for ever."""
    closes = {
        s: dict(
            market.execute(
                "select ts, close from market.candles_1m where symbol = %s", (s,)
            ).fetchall()
        )
        for s in (ETH, BTC)
    }
    rows = market.execute(
        "select ts, mine, theirs, index from feature.crossed_history('ETH/USDT', %s, %s)",
        (at(70), at(120)),
    ).fetchall()
    assert len(rows) == 50
    for ts, mine, theirs, index in rows:
        last = ts - MINUTE
        assert theirs == pytest.approx(closes[BTC][last])
        assert mine == pytest.approx(closes[ETH][last] / closes[ETH][last - MINUTE] - 1, abs=1e-12)
        assert index == pytest.approx((closes[BTC][last] + closes[ETH][last]) / 2)
    live = market.execute(
        "select theirs from feature.crossed('ETH/USDT', %s)", (at(100),)
    ).fetchone()
    assert live == (closes[BTC][at(99)],)
    assert (
        market.execute(
            "select * from feature.audit_lookahead('crossed', 'ETH/USDT', %s, %s, 10)",
            (at(70), at(120)),
        ).fetchall()
        == []
    )
    lines = market.execute(
        "select column_name from feature.lineage('crossed') where feature = 'theirs'"
    ).fetchall()
    assert ("btc.candles_1m.close",) in lines


def test_a_symbol_of_its_own_for_each(market: Conn) -> None:
    market.execute(
        "select feature.create_set('paired', %s, '10 minutes', symbols => %s)",
        (
            "select c.ts, o.close as close from market.candles_1m c"
            " join other.candles_1m o on o.ts = c.ts",
            Jsonb({"other": {ETH: BTC, BTC: [ETH]}}),
        ),
    )
    for symbol, other in ((ETH, BTC), (BTC, ETH)):
        got = one(market, "select close from feature.paired(%s, %s)", symbol, at(50))
        assert got == one(
            market,
            "select close from market.candles_1m where symbol = %s and ts = %s",
            other,
            at(49),
        )


def test_what_cannot_be_another_symbol_is_refused(market: Conn) -> None:
    create = "select feature.create_set('bad', %s, '1 hour', symbols => %s)"
    query = "select ts, close from btc.candles"
    assert code(market, create, query, Jsonb({})) == "AP204"
    assert code(market, create, query, Jsonb({"btc": "NOBODY"})) == "AP101"
    for wrong in ({"market": BTC}, {"btc": 7}, {"btc": []}, {"B-": BTC}, [BTC], {"btc": {ETH: 3}}):
        assert code(market, create, query, Jsonb(wrong)) == "AP243", wrong
    assert code(market, create, query, Jsonb({"btc": BTC, "eth": ETH})) == "AP244"
    assert code(market, create, "select ts, x from btc.instruments", Jsonb({"btc": BTC})) == "AP204"
    assert code(market, create, "select ts, score from source.nothing", Jsonb({})) == "AP204"
    assert code(market, create, "select ts, score from research.news", Jsonb({})) == "AP204"


def test_a_source_is_read_under_both_clocks(market: Conn) -> None:
    rows = market.execute(
        "select ts, mood, rate from feature.moody_history('ETH/USDT', %s, %s)", (at(30), at(150))
    ).fetchall()
    assert len(rows) == 120
    for ts, mood, rate in rows:
        m = round((ts - at(0)) / MINUTE)
        want = [g for g in range(31) if 7 * g + 1.5 <= m and 7 * g > (m - 1) - 30]
        assert mood == (pytest.approx(sum(want)) if want else None)
        assert rate == (6 if m >= 120 else 5)
    assert one(market, "select mood from feature.moody('BTC/USDT', %s)", at(100)) is None
    assert (
        market.execute(
            "select * from feature.audit_lookahead('moody', 'ETH/USDT', %s, %s, 20)",
            (at(30), at(150)),
        ).fetchall()
        == []
    )


def test_a_correction_holds_from_when_it_is_known(market: Conn) -> None:
    with market.transaction(force_rollback=True):
        before = one(market, "select mood from feature.moody('ETH/USDT', %s)", at(60))
        market.execute(
            "insert into research.news (symbol, ts, known_at, id, score)"
            " values ('ETHUSDT', %s, %s, '7', 107)",
            (at(49), at(65)),
        )
        assert one(market, "select mood from feature.moody('ETH/USDT', %s)", at(60)) == before
        assert (
            one(market, "select mood from feature.moody('ETH/USDT', %s)", at(66))
            == sum(g for g in range(31) if 7 * g + 1.5 <= 66 and 7 * g > 35) + 100
        )


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(minute=st.integers(40, 150), late=st.integers(0, 60), score=st.integers(-50, 50))
def test_later_rows_change_nothing(market: Conn, minute: int, late: int, score: int) -> None:
    """Rows of a source, and of another symbol, that happen or become known after t."""
    with market.transaction(force_rollback=True):
        queries = (
            "select row(mood, rate)::text from feature.moody('ETH/USDT', %s)",
            "select row(mine, theirs, index)::text from feature.crossed('ETH/USDT', %s)",
        )
        before = [one(market, query, at(minute)) for query in queries]
        market.execute(
            "insert into research.news (symbol, ts, known_at, id, score) values"
            " ('ETHUSDT', %s, %s, 'x', %s), ('ETHUSDT', %s, %s, 'y', %s)",
            (
                at(minute - late),
                at(minute + 0.1),
                score,
                at(minute + late),
                at(minute + late),
                score,
            ),
        )
        market.execute(
            "insert into market.trades (symbol, ts, trade_id, known_at, price, size, side) values"
            " ('BTCUSDT', %s, 'xx', %s, 1, 1, 'buy'), ('BTCUSDT', %s, 'xy', %s, 9e5, 1, 'buy')",
            (at(minute - late), at(minute + 1), at(minute + late), at(minute + late)),
        )
        market.execute("delete from research.rates where known_at > %s", (at(minute),))
        assert [one(market, query, at(minute)) for query in queries] == before


def test_late_rows_void_what_they_can_have_changed(market: Conn) -> None:
    market.execute("call feature.materialise('moody', 'ETHUSDT', %s, %s)", (at(40), at(140)))
    market.execute("call feature.materialise('crossed', 'ETHUSDT', %s, %s)", (at(40), at(140)))
    stored = (
        "select count(*) from feature.valid_vectors v join feature.sets s using (set_id)"
        " where s.name = %s and v.symbol = 'ETHUSDT'"
    )
    assert one(market, stored, "moody") == one(market, stored, "crossed") == 100
    with market.transaction(force_rollback=True):
        market.execute(
            "insert into research.news (symbol, ts, known_at, id, score)"
            " values ('ETHUSDT', %s, %s, 'late', 3)",
            (at(80), at(90)),
        )
        assert one(market, stored, "moody") == 50  # from when it was known
        assert one(market, stored, "crossed") == 100
    with market.transaction(force_rollback=True):
        market.execute(
            "insert into research.news (symbol, ts, known_at, id, score)"
            " values ('BTCUSDT', %s, %s, 'late', 3)",
            (at(80), at(90)),
        )
        assert one(market, stored, "moody") == 100  # another symbol's
        market.execute("delete from research.rates where known_at = %s", (at(120),))
        assert one(market, stored, "moody") == 80
    with market.transaction(force_rollback=True):
        market.execute("truncate research.rates")
        assert one(market, stored, "moody") == 0
    with market.transaction(force_rollback=True):
        market.execute(
            "insert into market.trades (symbol, ts, trade_id, known_at, price, size, side)"
            " values ('BTCUSDT', %s, 'lz', %s, 123, 1, 'buy')",
            (at(100), at(110)),
        )
        assert one(market, stored, "crossed") == 70  # the other symbol's late row
        assert one(market, stored, "moody") == 100


def test_what_is_no_source_is_refused(market: Conn) -> None:
    table = "select feature.create_table(%s, %s, key => %s)"
    for name, columns, key, want in (
        ("Bad", {"a": "text"}, [], "AP232"), ("news", {"a": "text"}, [], "AP233"),
        ("other", {}, [], "AP234"), ("other", {"a": "regclass"}, [], "AP234"),
        ("other", {"ts": "text"}, [], "AP234"), ("other", {"a;b": "text"}, [], "AP234"),
        ("other", {"a": "text"}, ["b"], "AP234"),
    ):  # fmt: skip
        assert code(market, table, name, Jsonb(columns), key) == want
    source = "select feature.create_source(%s)"
    for relation in ("market.trades", "pg_class", "ml.labels"):
        assert code(market, source, relation) == "AP237"
    market.execute(
        "create table research.foreigner (symbol text, ts timestamptz, known_at timestamptz, x int)"
    )
    assert code(market, source, "research.foreigner") == "AP237"  # a superuser's
    market.execute("alter table research.foreigner owner to alphaplus_owner")
    market.execute("insert into research.foreigner values ('NOBODY', now(), now(), 1)")
    assert code(market, source, "research.foreigner") == "AP231"
    market.execute("alter table research.foreigner add y point")
    assert code(market, source, "research.foreigner") == "AP239"
    market.execute("alter table research.foreigner drop y, alter ts type text")
    assert code(market, source, "research.foreigner") == "AP238"
    market.execute("drop table research.foreigner")
    assert code(market, "select feature.create_source('research.news')") == "AP240"
    assert one(market, "select feature.create_source('research.news', key => '{id}')") == "news"
    assert (
        code(
            market,
            "insert into research.news (symbol, ts, id, score) values ('nobody', now(), 'z', 1)",
        )
        == "AP231"
    )
    assert code(market, "select feature.drop_source('news')") == "AP242"
    assert code(market, "select feature.drop_source('nothing')") == "AP241"
    assert code(market, "select feature.drop_table('news')") == "AP236"
    assert code(market, "select feature.drop_table('nothing')") == "AP241"


def test_roles_keep_theirs_in_the_schema_of_users(market: Conn, connect_as: Any) -> None:
    name = market.info.dbname
    operator, reader = connect_as("alphaplus_operator", name), connect_as("alphaplus_reader", name)
    operator.execute("select feature.create_table('signals', '{\"x\": \"float8\"}')")
    operator.execute("select feature.create_source('research.signals')")
    operator.execute(
        "insert into research.signals (symbol, ts, known_at, x) values ('ETHUSDT', %s, %s, 2)",
        (at(10), at(11)),
    )
    operator.execute(
        "select feature.create_set('signalled', 'select s.ts, s.x from source.signals s', '1 hour')"
    )
    connect_as("alphaplus_loader", name).execute(
        "insert into research.signals (symbol, ts, known_at, x) values ('ETHUSDT', %s, %s, 4)",
        (at(12), at(12)),
    )
    assert reader.execute("select x from research.signals").fetchall() == [(2.0,), (4.0,)]
    row = reader.execute("select x from feature.signalled('ETHUSDT', %s)", (at(13),)).fetchone()
    assert row == (4.0,)
    for conn, query in (
        (reader, "insert into research.signals (symbol, ts, x) values ('ETHUSDT', now(), 1)"),
        (operator, "create table research.mine (x int)"),
        (reader, "select feature.create_table('r', '{\"x\": \"float8\"}')"),
        (reader, "select * from market._source_now('signals') as (x float8)"),
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute(query)
    operator.execute("select feature.drop_set('signalled')")
    operator.execute("select feature.drop_source('signals')")
    operator.execute("select feature.drop_table('signals')")
