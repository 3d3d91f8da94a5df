"""Grid times and days are UTC's: a session's TimeZone changes no answer, on days of 23 and 25 hours."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest

from tests.conftest import Server
from tests.db.market_data import at, fill, instrument

Conn = psycopg.Connection[Any]
SYMBOL = "AAAUSDT"
# Clocks go forward in Berlin on the first of these days, back on the second.
DAYS = [dt.datetime(2024, 3, 31, tzinfo=dt.UTC), dt.datetime(2024, 10, 27, tzinfo=dt.UTC)]
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia"]
SETS = ["liquidation", "order_book", "microstructure", "technical_1m", "patterns_1m"]
HOURLY = ["technical_1h", "factors_1d"]


def minute(time: dt.datetime) -> int:
    return round((time - at(0)) / dt.timedelta(minutes=1))


@pytest.fixture(scope="module")
def market(db_module: Conn) -> Iterator[Conn]:
    conn = db_module
    instrument(conn, "DAYUSDT")
    for number, day in enumerate(DAYS):
        fill(conn, SYMBOL, 420, seed=number + 1, start=minute(day) - 180, gaps=((200, 206),))
        conn.execute(
            "insert into market.candles (symbol, timeframe, ts, known_at, open, high, low, close,"
            " volume) select 'DAYUSDT', interval '1 hour', t, t + interval '1 hour', p, p + 1, p - 1,"
            " p + 0.9 * sin(1.7 * i), 100 + 7 * p from (select t, i, 50 + 5 * sin(i) + i %% 7 as p"
            " from generate_series(%s::timestamptz - interval '960 hours', %s::timestamptz"
            " + interval '48 hours', '1 hour') with ordinality as g (t, i)) x",
            (day, day),
        )
    # Days as a venue gives them, loaded in a session where some have 23 or 25 hours.
    instrument(conn, "VENUSDT")
    conn.execute("set timezone = 'Europe/Berlin'")
    for day in DAYS:
        conn.execute(
            "insert into market.candles (symbol, timeframe, ts, known_at, open, high, low, close,"
            " volume) select 'VENUSDT', interval '1 day', t, t + interval '24 hours', p, p + 1, p - 1,"
            " p + 0.5, 100 + 7 * p from (select t, 50 + 5 * sin(i) as p from generate_series("
            "%s::timestamptz - interval '960 hours', %s::timestamptz + interval '48 hours',"
            " interval '24 hours') with ordinality as g (t, i)) x",
            (day, day),
        )
    with pytest.raises(psycopg.errors.CheckViolation):
        conn.execute(
            "insert into market.candles (symbol, timeframe, ts, known_at, open, high, low, close,"
            " volume) values ('VENUSDT', '1 day', '2023-03-26 00:00Z', '2023-03-26 23:00Z', 1, 1, 1,"
            " 1, 1)"
        )
    conn.execute("reset timezone")
    conn.execute("call market.refresh_aggregates()")
    conn.execute(
        "select feature.create_set('daily', $$select (public.time_bucket('1 day', ts)"
        " + interval '1 day') - interval '1 microsecond' as ts, max(high) - min(low) as range,"
        " count(*) as n from market.candles where timeframe = '1 hour' group by 1$$, '3 days', '1 day')"
    )
    yield conn


def plain(value: Any) -> Any:
    """As it compares: times as instants, numbers to the last bit, NaN and null one thing."""
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat()
    if isinstance(value, list | tuple):
        return tuple(plain(part) for part in value)
    return None if isinstance(value, float) and np.isnan(value) else value


def answers(conn: Conn) -> dict[str, Any]:
    """What every public function of the schema says around the changes of the clocks."""
    found: dict[str, Any] = {}

    def ask(query: str, *params: Any) -> None:
        try:
            rows = conn.execute(query, params).fetchall()
        except psycopg.Error as error:
            rows = [("error", error.sqlstate, str(error).splitlines()[0])]
        found[f"{query} {[str(p) for p in params]}"] = plain(rows)

    for day in DAYS:
        hours = [day + dt.timedelta(hours=h) for h in (0.5, 1, 2, 3)]
        span = (hours[0], hours[3])
        for name in SETS:
            ask(f"select * from feature.{name}(%s, %s)", SYMBOL, hours[2])
            ask(f"select * from feature.{name}_history(%s, %s, %s)", SYMBOL, hours[1], hours[2])
        for name in HOURLY:
            week = (day - dt.timedelta(hours=40), day + dt.timedelta(hours=40))
            ask(f"select * from feature.{name}(%s, %s)", "DAYUSDT", hours[2])
            ask(f"select * from feature.{name}_history(%s, %s, %s)", "DAYUSDT", *week)
            ask("select feature.vector(%s, %s, %s)", name, "DAYUSDT", week[1])
        for hours_on in (-1, 0, 23, 23.5, 24, 25, 47.5, 48):
            moment = day + dt.timedelta(hours=hours_on)
            ask("select * from feature.factors_1d('VENUSDT', %s)", moment)
            ask("select * from feature.technical('VENUSDT', %s, '1 day')", moment)
        ask("select * from feature.technical_1h('VENUSDT', %s)", hours[2])
        ask(
            "select * from feature.audit_lookahead('factors_1d', 'VENUSDT', %s, %s, 20)",
            day - dt.timedelta(days=3),
            day + dt.timedelta(days=2),
        )
        for timeframe in ("5 minutes", "1 hour", "1 day"):
            at_ = ("DAYUSDT", day + dt.timedelta(hours=26), timeframe)
            whole = (
                "DAYUSDT",
                day - dt.timedelta(hours=50),
                day + dt.timedelta(hours=50),
                timeframe,
            )
            ask("select * from feature.technical(%s, %s, %s)", *at_)
            ask("select * from feature.patterns(%s, %s, %s)", *at_)
            ask("select * from feature.patterns_history(%s, %s, %s, %s)", *whole)
            ask("select * from feature.technical_history(%s, %s, %s, %s)", *whole)
            noise = ("DAYUSDT", *whole[1:3], '{"window": 10, "wick_min": 0}', timeframe)
            ask("select * from feature.noise_mask(%s, %s, %s, %s, %s)", *noise)
            ask("select * from feature.noise_counts(%s, %s, %s, %s, %s)", *noise)
            ask("select feature.grid_time(%s, %s)", timeframe, hours[1])
        for score in ("liquidity_score", "volatility_score"):
            ask(f"select feature.{score}(%s, %s)", SYMBOL, hours[3])
        ask(
            "select * from feature.daily_history('DAYUSDT', %s, %s)",
            day,
            day + dt.timedelta(days=2),
        )
        ask("select feature.vector('daily', 'DAYUSDT', %s)", day + dt.timedelta(hours=25))
        ask(
            "select * from feature.as_of('market.trades', array[%s, %s], array[%s, %s]::timestamptz[],"
            " null, '1 day')",
            SYMBOL, SYMBOL, hours[0], day + dt.timedelta(hours=27.9),
        )  # fmt: skip
        for name, symbol in (("order_book", SYMBOL), ("technical_1h", "DAYUSDT")):
            ask("select * from feature.audit_lookahead(%s, %s, %s, %s, 3)", name, symbol, *span)
        ask("select * from feature.audit_warmup('order_book', %s, %s, %s, 1)", SYMBOL, *span)
        ask(
            "select * from feature.audit_warmup('daily', 'DAYUSDT', %s, %s, 1)",
            day,
            day + dt.timedelta(days=2),
        )
    return found


def stored(conn: Conn) -> list[Any]:
    """Vectors stored by the procedures, and the views of them."""
    day = DAYS[0]
    conn.execute(
        "call feature.materialise('daily', 'DAYUSDT', %s, %s)",
        (day - 2 * dt.timedelta(days=1), day + 1 * dt.timedelta(days=1)),
    )
    conn.execute(
        "call feature.materialise('order_book', %s, %s, %s)",
        (SYMBOL, day, day + dt.timedelta(hours=3)),
    )
    conn.execute(
        "call feature.materialise_at('factors_1d', %s, %s)",
        (day + dt.timedelta(hours=25), ["DAYUSDT"]),
    )
    found = [
        conn.execute(query).fetchall()
        for query in (
            "select set_id, symbol, ts, values from feature.vectors order by 1, 2, 3",
            "select set_id, symbol, through from feature.watermarks order by 1, 2",
            "select * from feature.quality_recent order by feature_set, symbol, feature",
            "select feature_set, ts, feature, value from feature.vectors_long order by 1, 2, 3",
            "select * from feature.quality('daily', 'DAYUSDT', '2024-03-01Z', '2024-05-01Z')",
            "select symbol, n, encode(ts, 'hex') from feature.matrix('daily', array['DAYUSDT'],"
            " '2024-03-30Z', '2024-04-02Z')",
        )
    ]
    for table in ("vectors", "watermarks", "pending"):
        conn.execute(f"delete from feature.{table}")
    return [plain(rows) for rows in found]


def test_a_session_s_time_zone_changes_nothing(market: Conn, server: Server) -> None:
    want: dict[str, Any] = {}
    kept: list[Any] = []
    for zone in ZONES:
        # A session of its own: what it has planned is planned in its zone.
        with psycopg.connect(server.conninfo(market.info.dbname), autocommit=True) as conn:
            conn.execute("set client_min_messages = warning")
            conn.execute("select set_config('TimeZone', %s, false)", (zone,))
            found, rows = answers(conn), stored(conn)
        want, kept = want or found, kept or rows
        for query, answer in want.items():
            assert found[query] == answer, (zone, query)
        assert rows == kept, zone
    assert [(query, rows) for query, rows in want.items() if rows and rows[0][0] == "error"] == []
    # No bars of five minutes, and not every bar is a pattern or noise; the shipped sets do not leak.
    may = ("5 minutes", "patterns(", "noise_mask", "audit_lookahead")
    empty = [query for query, rows in want.items() if not rows]
    assert [query for query in empty if not any(part in query for part in may)] == []


def test_days_of_23_and_25_hours_are_24_hours_of_utc(market: Conn) -> None:
    for day in DAYS:
        rows = market.execute(
            "select ts, n from feature.daily_history('DAYUSDT', %s, %s)",
            (day, day + dt.timedelta(days=3)),
        ).fetchall()
        assert rows == [
            (day, 24),
            (day + dt.timedelta(days=1), 24),
            (day + dt.timedelta(days=2), 24),
        ]
