"""What was known when: the version functions against a plain look at current and history rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.db import market_rows as rows
from tests.db.market_rows import (
    BASE,
    FOREVER,
    KINDS,
    MERGED,
    MINUTE,
    STATES,
    WIDTHS,
    Connection,
    Row,
)

SAME_DATABASE = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
TO = BASE + timedelta(days=3)


def all_rows(conn: Connection, kind: str) -> list[Row]:
    table = KINDS[kind].table
    current = rows.fetch(conn, f"select * from market.{table}")
    return [{**row, "superseded_at": FOREVER} for row in current] + rows.fetch(
        conn, f"select * from market.{table}_history"
    )


def plainly(everything: list[Row], name: str, as_of: datetime) -> Row:
    """The closed buckets of an aggregate as known at a whole minute."""
    width = WIDTHS.get(name, MINUTE)
    valid = [row for row in everything if row["known_at"] <= as_of < row["superseded_at"]]
    grouped = rows.by_bucket(valid, width, STATES[name][1])
    return {key: state for key, state in grouped.items() if key[1] + width <= as_of}


def versions(conn: Connection, name: str) -> list[Row]:
    function = "_candles_versions" if name in WIDTHS else f"{name}_versions"
    width = f"interval '{WIDTHS[name].total_seconds()} seconds', " if name in WIDTHS else ""
    found: list[Row] = []
    for symbol in ("AAA", "BBB"):
        # A timestamp 'infinity' has no Python value.
        for row in rows.fetch(
            conn,
            f"select to_jsonb(v) ->> 'expires_at' = 'infinity' as forever,"
            " nullif(expires_at, 'infinity') as until, v.*"
            f" from (select * from market.{function}(%(symbol)s, {width}%(from)s, %(to)s)) v".replace(
                "v.*", ", ".join(f"v.{c}" for c in columns(conn, function) if c != "expires_at")
            ),
            {"symbol": symbol, "from": BASE, "to": TO},
        ):
            found.append({**row, "symbol": symbol, "until": row["until"] or FOREVER})
    return found


def columns(conn: Connection, function: str) -> list[str]:
    return [
        str(name)
        for (name,) in conn.execute(
            "select unnest(proargnames[pronargs + 1:]) from pg_proc"
            " where proname = %s and pronamespace = 'market'::regnamespace",
            (function,),
        )
    ]


def merged(parts: list[Row], name: str, as_of: datetime) -> Row:
    groups: dict[Any, list[Row]] = {}
    for part in parts:
        if part["usable_at"] <= as_of < part["until"]:
            groups.setdefault((part["symbol"], part["bucket"]), []).append(part)
    return {key: MERGED[name](group) for key, group in groups.items()}


def as_of_times() -> st.SearchStrategy[datetime]:
    minutes = st.integers(0, 30) | st.sampled_from([60, 240, 241, 300, 1440, 1450, 2900])
    return minutes.map(lambda n: BASE + n * MINUTE)


@settings(max_examples=20, deadline=None, suppress_health_check=SAME_DATABASE)
@given(done=rows.operations(), times=st.lists(as_of_times(), min_size=4, max_size=8))
def test_versions_say_what_was_known(
    db_module: Connection, done: list[tuple[str, str, Row]], times: list[datetime]
) -> None:
    rows.clear(db_module)
    for operation in done:
        rows.apply(db_module, operation)
    for name, (kind, _) in STATES.items():
        everything = all_rows(db_module, kind)
        parts = versions(db_module, name)
        for as_of in (*times, datetime.now(UTC) + 2 * MINUTE):
            assert rows.close_to(plainly(everything, name, as_of), merged(parts, name, as_of)), (
                name,
                as_of,
            )


@settings(max_examples=12, deadline=None, suppress_health_check=SAME_DATABASE)
@given(first=rows.operations(), then=rows.operations(), times=st.lists(as_of_times(), min_size=4))
def test_what_happens_now_leaves_earlier_answers(
    db_module: Connection,
    first: list[tuple[str, str, Row]],
    then: list[tuple[str, str, Row]],
    times: list[datetime],
) -> None:
    """Corrections, deletions and late rows of today change nothing as of an earlier time."""
    rows.clear(db_module)
    for operation in first:
        rows.apply(db_module, operation)
    db_module.execute("call market.refresh_aggregates()")
    before = {
        (name, as_of): merged(versions(db_module, name), name, as_of)
        for name in STATES
        for as_of in times
    }
    for word, kind, row in then:
        table = KINDS[kind].table
        match = " and ".join(f"{column} = %({column})s" for column in KINDS[kind].key)
        if word == "delete":
            rows.execute(db_module, f"delete from market.{table} where {match}", row)
        elif word == "update":
            setting = ", ".join(f"{column} = %({column})s" for column in KINDS[kind].values)
            rows.execute(db_module, f"update market.{table} set {setting} where {match}", row)
        elif word == "insert":
            live = {column: value for column, value in row.items() if column != "known_at"}
            rows.insert(db_module, table, live)
    for refreshed in (False, True):
        if refreshed:
            db_module.execute("call market.refresh_aggregates()")
        for (name, as_of), answer in before.items():
            again = merged(versions(db_module, name), name, as_of)
            assert rows.close_to(answer, again), (name, as_of)


@pytest.fixture
def market(db_module: Connection) -> Connection:
    """The module's database, with no market data in it."""
    rows.clear(db_module)
    return db_module


def test_a_row_deleted_and_loaded_again_as_history_counts_once(market: Connection) -> None:
    row: Row = {
        "symbol": "AAA",
        "ts": BASE,
        "trade_id": "1",
        "known_at": BASE + timedelta(seconds=1),
        "price": 2.0,
        "size": 1.0,
        "side": "buy",
    }
    for size in (1.0, 2.0, 3.0):
        rows.insert(market, "trades", {**row, "size": size})
        if size < 3:
            market.execute("delete from market.trades")
    market.execute("call market.refresh_aggregates()")
    for as_of in (BASE + MINUTE, datetime.now(UTC) + 2 * MINUTE):
        state = merged(versions(market, "trades_1m"), "trades_1m", as_of)
        assert [bucket["volume"] for bucket in state.values()] == [3.0]


def test_a_row_deleted_and_arriving_again_leaves_the_gap(market: Connection) -> None:
    values = "('AAA', %s, '1', %s, 2, 1, 'buy')"
    insert = "insert into market.trades (symbol, ts, trade_id, known_at, price, size, side) values "
    rows.execute(market, insert + values, (BASE, BASE + timedelta(seconds=1)))
    market.execute("delete from market.trades")
    rows.execute(
        market, "update market.trades_history set superseded_at = %s", (BASE + 5 * MINUTE,)
    )
    rows.execute(market, insert + values, (BASE, BASE + 10 * MINUTE))
    market.execute("call market.refresh_aggregates()")
    parts = versions(market, "trades_1m")
    known = [minute for minute in range(15) if merged(parts, "trades_1m", BASE + minute * MINUTE)]
    assert known == [1, 2, 3, 4, 10, 11, 12, 13, 14]


def test_funding_and_open_interest_have_versions(market: Connection) -> None:
    market.execute(
        "insert into market.funding_rates (symbol, ts, known_at, rate, funding_interval)"
        " values ('AAA', %s, %s, 0.0001, '8 hours')",
        (BASE, BASE + timedelta(seconds=1)),
    )
    market.execute(
        "insert into market.open_interest (symbol, ts, known_at, open_interest)"
        " values ('AAA', %s, %s, 5)",
        (BASE, BASE),
    )
    correction = BASE + timedelta(minutes=7, seconds=1)
    market.execute("update market.funding_rates set rate = 0.0002, known_at = %s", (correction,))
    market.execute(
        "update market.open_interest set open_interest = 6, known_at = %s", (correction,)
    )
    funding = market.execute(
        "select usable_at, nullif(expires_at, 'infinity'), rate"
        " from market.funding_versions('AAA', %s, %s) order by 1",
        (BASE, TO),
    ).fetchall()
    assert funding == [
        (BASE + MINUTE, BASE + 8 * MINUTE, 0.0001),
        (BASE + 8 * MINUTE, None, 0.0002),
    ]
    interest = market.execute(
        "select usable_at, nullif(expires_at, 'infinity'), open_interest"
        " from market.open_interest_versions('AAA', %s, %s) order by 1",
        (BASE, TO),
    ).fetchall()
    assert interest == [
        (BASE + MINUTE, BASE + 8 * MINUTE, 5.0),
        (BASE + 8 * MINUTE, None, 6.0),
    ]


def test_bars_of_each_source_have_their_priority(market: Connection) -> None:
    ts = BASE
    trade: Row = {
        "symbol": "AAA",
        "ts": ts,
        "trade_id": "1",
        "known_at": ts + timedelta(seconds=1),
        "price": 2.0,
        "size": 1.0,
        "side": "buy",
    }
    bar: Row = {"symbol": "AAA", "ts": ts, "open": 9, "high": 9, "low": 9, "close": 9, "volume": 1}
    rows.insert(market, "trades", trade)
    for timeframe in (MINUTE, 5 * MINUTE, timedelta(minutes=3)):
        rows.insert(
            market,
            "candles",
            {**bar, "timeframe": timeframe, "known_at": ts + timeframe + 2 * MINUTE},
        )

    market.execute("call market.refresh_aggregates()")

    def found(timeframe: timedelta) -> list[tuple[Any, ...]]:
        return market.execute(
            "select priority, usable_at from market.candle_versions('AAA', %s, %s, %s) order by 1",
            (timeframe, BASE, TO),
        ).fetchall()

    assert found(MINUTE) == [(0, BASE + 3 * MINUTE), (2, BASE + MINUTE)]
    assert found(5 * MINUTE) == [
        (0, BASE + 7 * MINUTE),
        (1, BASE + 5 * MINUTE),
        (2, BASE + 5 * MINUTE),
    ]
    assert found(timedelta(minutes=3)) == [(0, BASE + 5 * MINUTE)]
