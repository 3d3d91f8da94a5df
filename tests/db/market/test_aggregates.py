"""Every aggregate equals the plain GROUP BY, whatever was inserted, corrected and deleted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from alphaplus import migrations
from hypothesis import HealthCheck, given, settings

from tests.db import market_rows as rows
from tests.db.market_rows import BASE, KINDS, MINUTE, STATES, WIDTHS, Connection, Row

SAME_DATABASE = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def stored(conn: Connection, name: str) -> Row:
    """A public view as {(symbol, bucket): state}."""
    bucket = "ts" if name in WIDTHS else "bucket"
    found = rows.fetch(conn, f"select * from market.{name}")
    if name in WIDTHS:
        found = [row for row in found if row["source"] == "minutes"]
    if name == "book_1m":
        partial = rows.fetch(
            conn,
            "select symbol, bucket, sum(two_sided_count)::bigint as two_sided_count,"
            " sum(spread_sum) as spread_sum, sum(mid_sum) as mid_sum,"
            " sum(imbalance_sum) as imbalance_sum from market._book_1m group by 1, 2",
        )
        sums = {(row["symbol"], row["bucket"]): row for row in partial}
        found = [{**sums[row["symbol"], row["bucket"]], **row} for row in found]
    return {(row["symbol"], row[bucket]): row for row in found}


AGGREGATES = [
    ("_trades_1m", MINUTE, "trades"),
    ("_book_1m", MINUTE, "order_book_snapshots"),
    ("_liquidations_1m", MINUTE, "liquidation_events"),
    *((f"_{name}", width, "candles") for name, width in WIDTHS.items()),
]


def relation_of(name: str, width: timedelta) -> tuple[str, str, str]:
    """An aggregate's relation, and its timeframe as an argument and as a condition."""
    if not name.startswith("_candles"):
        return name, "", ""
    seconds = f"interval '{width.total_seconds()} seconds'"
    return "_candles", f"{seconds}, ", f" where timeframe = {seconds}"


def assert_plain(conn: Connection) -> None:
    """The views say what the rows say, and each partial aggregate what its declaration says."""
    tables = {
        name: rows.fetch(conn, f"select * from market.{kind.table}") for name, kind in KINDS.items()
    }
    for name, (kind, state) in STATES.items():
        plain = rows.by_bucket(tables[kind], WIDTHS.get(name, MINUTE), state)
        assert rows.close_to(plain, stored(conn, name)), name
    for name, width, source in AGGREGATES:
        relation, at, where = relation_of(name, width)
        query = (
            f"select a.* from (select distinct symbol from market.{source}) s cross join lateral"
            f" market.{relation}_of(s.symbol, {at}'-infinity', 'infinity') a"
        )
        kept = f"select * from market.{relation}{where}"
        differing = rows.fetch(conn, f"({kept} except {query}) union all ({query} except {kept})")
        # The order of a sum of quotients may differ by a bit; the rest may not.
        for row in differing:
            for column in ("imbalance_sum", "relative_spread_sum"):
                row.pop(column, None)
        assert all(differing.count(row) % 2 == 0 for row in differing), name


def assert_stretches(conn: Connection) -> None:
    """Reading a stretch of one symbol gives what the aggregate holds there."""
    for name, width, _ in AGGREGATES:
        relation, at, where = relation_of(name, width)
        for start, minutes in ((0, 3), (0, 2000), (4, 9)):
            begin = BASE + start * MINUTE
            values = {"begin": begin, "end": begin + minutes * MINUTE}
            wide = rows.fetch(
                conn,
                f"select * from market.{relation}{where or ' where true'} and symbol = 'AAA'"
                " and bucket >= %(begin)s and bucket < %(end)s order by bucket, usable_at",
                values,
            )
            narrow = rows.fetch(
                conn,
                f"select * from market.{relation}_between('AAA', {at}%(begin)s, %(end)s)"
                " order by bucket, usable_at",
                values,
            )
            for row in (*wide, *narrow):
                for column in ("imbalance_sum", "relative_spread_sum"):
                    if row.get(column) is not None:
                        row[column] = round(row[column], 12)
            assert wide == narrow, name


@settings(max_examples=20, deadline=None, suppress_health_check=SAME_DATABASE)
@given(done=rows.operations())
def test_aggregates_equal_the_plain_group_by(
    db_module: Connection, done: list[tuple[str, str, Row]]
) -> None:
    rows.clear(db_module)
    for operation in done:
        rows.apply(db_module, operation)
    assert_plain(db_module)
    assert_stretches(db_module)
    db_module.execute("call market.refresh_aggregates()")
    assert_plain(db_module)
    assert_stretches(db_module)


@pytest.fixture
def market(db_module: Connection) -> Connection:
    """The module's database, with no market data in it."""
    rows.clear(db_module)
    return db_module


def trade(minute: int = 0, trade_id: str = "1", **changes: Any) -> Row:
    ts = BASE + minute * MINUTE
    return {
        "symbol": "AAA",
        "ts": ts,
        "trade_id": trade_id,
        "known_at": ts + timedelta(seconds=1),
        "price": 2.0,
        "size": 1.0,
        "side": "buy",
        **changes,
    }


def count_trades(conn: Connection) -> int:
    row = conn.execute("select coalesce(sum(trade_count), 0) from market.trades_1m").fetchone()
    assert row is not None
    return int(row[0])


@pytest.fixture
def another(market: Connection) -> Any:
    with psycopg.connect(market.info.dsn, password=market.info.password, autocommit=True) as conn:
        yield conn


def dirty(conn: Connection) -> int:
    row = conn.execute("select count(*) from market.dirty_buckets").fetchone()
    assert row is not None
    return int(row[0])


def apache_only(conn: Connection) -> None:
    if rows.is_native(conn):
        pytest.skip("TimescaleDB keeps the aggregates here, without dirty buckets")


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
def test_a_row_committed_after_the_refresh_looked_is_not_lost(
    market: Connection, another: Connection, isolation: str
) -> None:
    """Both rows share a bucket: the second relies on the first one's mark, or writes its own."""
    rows.insert(market, "trades", trade(trade_id="1"))
    rows.execute(another, f"begin isolation level {isolation}")
    another.execute("select 1")
    rows.insert(another, "trades", trade(trade_id="2"))
    market.execute("call market.refresh_aggregates()")
    assert count_trades(market) == 1
    another.execute("commit")
    assert count_trades(market) == 2
    market.execute("call market.refresh_aggregates()")
    assert count_trades(market) == 2


def test_a_rolled_back_row_leaves_nothing(market: Connection, another: Connection) -> None:
    rows.insert(market, "trades", trade(trade_id="1"))
    another.execute("begin")
    rows.insert(another, "trades", trade(trade_id="2"))
    rows.insert(another, "trades", trade(minute=5, trade_id="3"))
    another.execute("rollback")
    assert count_trades(market) == 1
    market.execute("call market.refresh_aggregates()")
    assert count_trades(market) == 1


def test_inserters_corrections_and_refreshes_at_once(market: Connection) -> None:
    """Two writers and two refreshers work at the same buckets; nothing is lost or doubled."""
    stop = threading.Event()
    errors: list[BaseException] = []

    def run(work: Callable[[Connection], None]) -> None:
        try:
            with psycopg.connect(
                market.info.dsn, password=market.info.password, autocommit=True
            ) as conn:
                work(conn)
        except BaseException as error:
            errors.append(error)

    def write(writer: int) -> Callable[[Connection], None]:
        def work(conn: Connection) -> None:
            for n in range(150):
                with conn.transaction():
                    rows.insert(conn, "trades", trade(n % 3, f"{writer}-{n}"))
                    if n % 5 == 4:
                        rows.execute(
                            conn,
                            "update market.trades set size = 2 where trade_id = %s",
                            (f"{writer}-{n - 2}",),
                        )
                    if n % 7 == 6:
                        rows.execute(
                            conn,
                            "delete from market.trades where trade_id = %s",
                            (f"{writer}-{n - 3}",),
                        )

        return work

    def refresh(conn: Connection) -> None:
        while not stop.is_set():
            conn.execute("call market.refresh_aggregate('_trades_1m')")

    writers = [threading.Thread(target=run, args=(write(n),)) for n in range(2)]
    refreshers = [threading.Thread(target=run, args=(refresh,)) for _ in range(2)]
    for thread in (*writers, *refreshers):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in refreshers:
        thread.join()
    assert not errors
    assert_plain(market)
    market.execute("call market.refresh_aggregates()")
    assert_plain(market)


def test_dirty_buckets_do_not_pile_up(market: Connection) -> None:
    apache_only(market)
    for n in range(30):
        rows.insert(market, "trades", trade(trade_id=str(n)))
    assert dirty(market) == 1
    market.execute("call market.refresh_aggregates()")
    assert dirty(market) == 0


def test_a_large_load_is_aggregated_in_the_order_of_time(market: Connection) -> None:
    """Else the minutes of a live window would lie on a page each."""
    apache_only(market)
    symbol = trade()["symbol"]
    market.execute(
        "insert into market.trades (symbol, ts, trade_id, known_at, price, size, side)"
        " select %s, t, 'load' || m, t, 1, 1, 'buy' from generate_series(1, 3000) m,"
        " lateral (select %s + m * interval '1 minute' as t) x order by md5(m::text)",
        (symbol, BASE + timedelta(days=40)),
    )

    def lie(table: str) -> list[Any]:
        query = f"select bucket from market.{table} where symbol = %s and bucket > %s order by ctid"
        found = market.execute(query, (symbol, BASE + timedelta(days=39))).fetchall()
        return [bucket for (bucket,) in found]

    marked = lie("dirty_buckets")
    assert len(marked) == 3000 and marked == sorted(marked)
    market.execute("call market.refresh_aggregates()")
    written = lie("_trades_1m_rows")
    assert len(written) == 3000 and written == sorted(written)
    market.execute("delete from market.trades where trade_id like 'load%'")
    market.execute("call market.refresh_aggregates()")


def test_truncation_empties_the_aggregates(market: Connection) -> None:
    rows.insert(market, "trades", trade(trade_id="1"))
    market.execute("call market.refresh_aggregates()")
    rows.insert(market, "trades", trade(trade_id="2"))
    market.execute("truncate market.trades")
    assert count_trades(market) == 0
    market.execute("call market.refresh_aggregates()")
    assert count_trades(market) == 0


def test_open_and_close_on_equal_times_follow_the_key(market: Connection) -> None:
    for trade_id, price in (("b", 3.0), ("a", 2.0), ("c", 1.0)):
        known_at = BASE + timedelta(seconds=90 if trade_id == "a" else 1)
        rows.insert(market, "trades", trade(trade_id=trade_id, price=price, known_at=known_at))
    market.execute("call market.refresh_aggregates()")
    assert market.execute("select open, close from market.trades_1m").fetchall() == [(2.0, 1.0)]


@pytest.mark.parametrize("role", ["loader", "operator"])
def test_loader_and_operator_may_refresh(market: Connection, role: str) -> None:
    """On the Community edition they are told that it is left to the clock."""
    rows.insert(market, "trades", trade())
    rows.execute(market, f"set role alphaplus_{role}")
    market.execute("call market.refresh_aggregates()")
    market.execute("reset role")
    if not rows.is_native(market):
        assert dirty(market) == 0


def test_refreshing_needs_read_committed(market: Connection) -> None:
    apache_only(market)
    market.execute("set default_transaction_isolation = 'repeatable read'")
    with pytest.raises(psycopg.Error) as raised:
        market.execute("call market.refresh_aggregates()")
    market.execute("reset default_transaction_isolation")
    assert raised.value.sqlstate == "AP103"


def test_bars_come_from_the_best_source(market: Connection) -> None:
    """Loaded bars win over bars made of loaded minutes, these over bars made of trades."""
    for minute in (0, 5, 10):
        rows.insert(market, "trades", trade(minute, price=1.0))
    bar: Row = {"symbol": "AAA", "open": 9, "high": 9, "low": 9, "close": 9, "volume": 1}
    for minute in (5, 10):
        ts = BASE + minute * MINUTE
        rows.insert(
            market, "candles", {**bar, "timeframe": MINUTE, "ts": ts, "known_at": ts + MINUTE}
        )
    ts = BASE + 10 * MINUTE
    rows.insert(
        market,
        "candles",
        {**bar, "timeframe": 5 * MINUTE, "ts": ts, "known_at": ts + 5 * MINUTE},
    )
    market.execute("call market.refresh_aggregates()")
    found = market.execute("select ts, source from market.candles_5m order by ts").fetchall()
    assert [source for _, source in found] == ["trades", "minutes", "loaded"]
    found = market.execute("select ts, source from market.candles_1m order by ts").fetchall()
    assert [source for _, source in found] == ["trades", "loaded", "loaded"]


def test_an_unknown_aggregate_is_refused_with_words(market: Connection) -> None:
    with pytest.raises(psycopg.Error, match="unknown aggregate 'zzz'") as raised:
        market.execute("call market.refresh_aggregate('zzz')")
    assert raised.value.sqlstate == "AP108" and raised.value.diag.message_hint


def test_resolve(market: Connection) -> None:
    market.execute(
        "insert into market.instruments (symbol, exchange, native_symbol, base, quote, aliases,"
        " priority) values"
        " ('BTCUSDT', 'binance', 'BTCUSDT', 'BTC', 'USDT', '{BTC/USDT:USDT}', 10),"
        " ('BTCUSDT@bybit', 'bybit', 'BTCUSDT', 'BTC', 'USDT', '{BTC/USDT:USDT,BTC-PERP}', 20),"
        " ('BTCUSD@okx', 'okx', 'BTC-USD', 'BTC', 'USD', '{BTC-PERP,Bitcoin/usd}', 20)"
    )

    def resolve(name: str) -> str:
        row = market.execute("select market.resolve(%s)", (name,)).fetchone()
        assert row is not None
        return str(row[0])

    assert resolve("BTCUSDT") == "BTCUSDT"
    assert resolve("btcusdt") == "BTCUSDT"
    assert resolve("btc/usdt:usdt") == "BTCUSDT"
    assert resolve("btcusdt@BYBIT") == "BTCUSDT@bybit"
    assert resolve("Bitcoin/usd") == resolve("bitcoin/USD") == "BTCUSD@okx"
    with pytest.raises(psycopg.Error) as raised:
        resolve("btc-perp")
    assert raised.value.sqlstate == "AP102"
    with pytest.raises(psycopg.Error) as raised:
        resolve("BTCUSDX")
    assert raised.value.sqlstate == "AP101"
    assert "BTCUSDT" in (raised.value.diag.message_hint or "")


def native_only(conn: Connection) -> None:
    if not rows.is_native(conn):
        pytest.skip("no continuous aggregates: no Community edition of TimescaleDB")


def fill(conn: Connection) -> None:
    """A trade and a bar in each of ten minutes."""
    for minute in range(10):
        rows.insert(conn, "trades", trade(minute, str(minute)))
        bar(conn, minute)


def test_late_rows_that_copy_brings_are_aggregated(market: Connection) -> None:
    rows.insert(market, "trades", trade(9))
    market.execute("call market.refresh_aggregates()")
    columns = "symbol, ts, trade_id, known_at, price, size, side"
    with (
        market.cursor() as cursor,
        cursor.copy(f"copy market.trades ({columns}) from stdin") as copy,
    ):
        copy.write_row(tuple(trade(1, "late").values()))
    assert count_trades(market) == 2
    market.execute("call market.refresh_aggregates()")
    assert count_trades(market) == 2


def bar(conn: Connection, minute: int) -> None:
    ts = BASE + minute * MINUTE
    prices = dict.fromkeys(("open", "high", "low", "close"), 2.0)
    given = {"symbol": "AAA", "timeframe": MINUTE, "ts": ts, "known_at": ts + MINUTE}
    rows.insert(conn, "candles", {**given, **prices, "volume": 1.0})


def late(conn: Connection, trade_id: str) -> None:
    """A late row, a correction and a deletion behind what is refreshed."""
    rows.insert(conn, "trades", trade(1, trade_id))
    conn.execute("update market.trades set size = size + 1 where trade_id = '2'")
    conn.execute("delete from market.trades where trade_id = '3'")
    bar(conn, 12)


def rights(conn: Connection) -> list[Any]:
    return conn.execute(
        "select relname, pg_get_userbyid(relowner), array(select unnest(relacl)::text order by 1)"
        " from pg_class where relnamespace = 'market'::regnamespace and relname ~ '^_.*(_rows|_1m)$'"
        " order by 1"
    ).fetchall()


def choose(server: Any, db: Connection, edition: str) -> None:
    """Change over to another back end, as the operator does it."""
    db.execute("set role alphaplus_operator")
    db.execute("select ops.set_setting('market.edition', to_jsonb(%s::text))", (edition,))
    db.execute("reset role")
    migrations.migrate(str(server.conninfo(db.info.dbname)))
    db.execute("discard plans")


def test_there_and_back_between_the_editions(server: Any, db: Connection) -> None:
    """What a database on the Community edition does before it moves to the Apache edition."""
    native_only(db)
    fill(db)
    db.execute("call market.refresh_aggregates()")
    before = rights(db)
    for edition in ("apache", "auto"):
        choose(server, db, edition)
        native = edition == "auto"
        assert rows.is_native(db) == native
        assert_plain(db)
        late(db, f"late {edition}")
        assert_plain(db)
        assert_stretches(db)
        db.execute(f"set role alphaplus_{'owner' if native else 'loader'}")
        db.execute("call market.refresh_aggregates()")
        db.execute("set role alphaplus_reader")
        assert_stretches(db)
        db.execute("reset role")
        assert_plain(db)
    assert rights(db) == before
    found = db.execute(
        "select count(*) from timescaledb_information.jobs"
        " where proc_name = 'policy_refresh_continuous_aggregate'"
    ).fetchone()
    assert found == (8,)


def test_an_edition_is_chosen_by_name(market: Connection) -> None:
    with pytest.raises(psycopg.Error) as raised:
        market.execute("select ops.set_setting('market.edition', '\"enterprise\"')")
    assert raised.value.sqlstate == "AP724" and raised.value.diag.message_hint


def test_policies_keep_the_aggregates(market: Connection) -> None:
    native_only(market)
    fill(market)
    jobs = market.execute(
        "select job_id from timescaledb_information.jobs"
        " where proc_name = 'policy_refresh_continuous_aggregate'"
    ).fetchall()
    assert len(jobs) == 8
    for _ in range(2):
        for job in jobs:
            market.execute("call public.run_job(%s)", job)
        held = market.execute("select sum(trade_count) from market._trades_1m_rows").fetchone()
        plain = market.execute("select count(*) from market.trades").fetchone()
        assert held == plain
        assert_plain(market)
        late(market, "late")


def aggregate_health(conn: Connection, subject: str, at: Any) -> tuple[str, str]:
    found = conn.execute(
        "select status, detail from ops.health_at(%s) where check_name = 'aggregate'"
        " and subject = %s",
        (at, subject),
    ).fetchone()
    assert found is not None
    return found[0], found[1]


def test_health_sees_a_continuous_aggregate_that_nobody_refreshes(market: Connection) -> None:
    native_only(market)
    fill(market)
    day = BASE + timedelta(days=1)
    assert aggregate_health(market, "trades_1m", BASE + 20 * MINUTE)[0] == "green"
    assert aggregate_health(market, "trades_1m", day)[0] == "red"
    market.execute("call market.refresh_aggregates()")
    assert aggregate_health(market, "trades_1m", day)[0] == "green"
    late(market, "late")
    status, detail = aggregate_health(market, "trades_1m", day)
    assert status == "green" and "3 changed buckets" in detail


def test_rows_go_and_what_was_aggregated_of_them_stays(server: Any, db: Connection) -> None:
    for day in range(4):
        rows.insert(db, "trades", trade(day * 1440, str(day)))
    with pytest.raises(psycopg.Error) as raised:
        db.execute("call market.drop_rows('trades', %s)", (BASE + timedelta(days=2),))
    assert raised.value.sqlstate == "AP107"
    db.execute("call market.refresh_aggregates()")
    before = rows.fetch(db, "select * from market._trades_1m order by bucket")

    def unchanged() -> None:
        assert rows.fetch(db, "select * from market._trades_1m order by bucket") == before
        for days, found in ((9, before), (1, before[:1])):
            end = BASE + timedelta(days=days)
            query = "select * from market._trades_1m_between('AAA', %s, %s) order by bucket"
            assert rows.fetch(db, query, (BASE, end)) == found

    db.execute("set role alphaplus_operator")
    db.execute("call market.drop_rows('trades', %s)", (BASE + timedelta(days=2, hours=5),))
    db.execute("reset role")
    assert db.execute("select count(*) from market.trades").fetchone() == (2,)
    unchanged()
    rows.insert(db, "trades", trade(1, "late"))
    unchanged()
    db.execute("call market.refresh_aggregates()")
    unchanged()
    rows.insert(db, "trades", trade(3 * 1440, "not late"))
    assert count_trades(db) == 5
    db.execute("delete from market.trades where trade_id = 'not late'")
    unchanged()
    if rows.is_native(db):  # and so they do in a move to the Apache edition
        choose(server, db, "apache")
        unchanged()
        db.execute("call market.refresh_aggregates()")
        unchanged()
        with pytest.raises(psycopg.Error) as refused:
            choose(server, db, "auto")
        assert refused.value.sqlstate == "AP105"
    with pytest.raises(psycopg.Error) as raised:
        db.execute("call market.drop_rows('nonsense', now())")
    assert raised.value.sqlstate == "AP106"


def test_housekeeping_drops_rows_by_setting(db: Connection) -> None:
    for day in range(4):
        rows.insert(db, "trades", trade(day * 1440, str(day)))
    at = BASE + timedelta(days=5)
    db.execute("call ops.housekeeping(%s)", (at,))
    db.execute("select ops.set_setting('market.keep_rows', '{\"trades\": \"3 days\"}')")
    db.execute("call ops.housekeeping(%s)", (at,))  # a warning: nothing is aggregated yet
    assert db.execute("select count(*) from market.trades").fetchone() == (4,)
    db.execute("call market.refresh_aggregates()")
    db.execute("call ops.housekeeping(%s)", (at,))
    assert db.execute("select count(*) from market.trades").fetchone() == (2,)
    assert count_trades(db) == 4


def test_a_timeframe_is_a_row(db: Connection) -> None:
    """Bars of 30 minutes: made of what is there and of what comes, before and after a refresh."""
    bars: list[Row] = []

    def add(minute: int) -> None:
        ts = BASE + minute * MINUTE
        row = {"symbol": "AAA", "timeframe": MINUTE, "ts": ts, "known_at": ts + MINUTE}
        row |= {"open": minute + 1.0, "high": minute + 2.0, "low": 0.5, "close": minute + 1.5}
        bars.append({**row, "volume": minute + 1.0})
        rows.insert(db, "candles", bars[-1])

    def assert_right() -> None:
        half_hour = 30 * MINUTE
        found = db.execute(
            "select bucket, open, high, low, close, volume from market.candle_versions("
            "'AAA', %s, %s, %s) order by bucket",
            (half_hour, BASE, BASE + timedelta(days=1)),
        ).fetchall()
        groups: dict[Any, list[Row]] = {}
        for row in bars:
            bucket = BASE + (row["ts"] - BASE) // half_hour * half_hour
            groups.setdefault(bucket, []).append(row)
        assert found == [
            (
                bucket,
                group[0]["open"],
                max(row["high"] for row in group),
                min(row["low"] for row in group),
                group[-1]["close"],
                sum(row["volume"] for row in group),
            )
            for bucket, group in sorted(groups.items())
        ]

    for minute in range(45):
        add(minute)
    db.execute("set role alphaplus_operator")
    for _ in range(2):
        db.execute("call market.add_timeframe('30 minutes')")
    db.execute("reset role")
    assert_right()
    db.execute("call market.refresh_aggregates()")
    assert_right()
    add(50)
    add(95)
    assert_right()
    db.execute("call market.refresh_aggregate('_candles_30m')")
    assert_right()
    assert db.execute(
        "select status from ops.health_at(%s) where subject = 'candles_30m'", (BASE,)
    ).fetchone() == ("green",)


@pytest.mark.parametrize(
    "width", ["1 minute", "7 minutes", "90 seconds", "-1 hour", "2 days", None]
)
def test_a_timeframe_divides_a_day(market: Connection, width: str | None) -> None:
    with pytest.raises(psycopg.Error) as raised:
        market.execute("call market.add_timeframe(%s::interval)", (width,))
    assert raised.value.sqlstate == "AP740" and raised.value.diag.message_hint
