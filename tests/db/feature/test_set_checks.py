"""What is said of a set when it is created, and what users' SELECTs are taken (cases/quant)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.db.market_data import at, fill

Conn = psycopg.Connection[Any]
SYMBOL = "BTCUSDT"
HOURS = 24 * 6
LEGIT = Path(__file__).resolve().parents[3].parent / "shared" / "cases" / "quant" / "legit"
# Refused, with a reason that is true.
REFUSED = {
    "s_no_ts_alias": ("AP204", "no column ts"),
    "u_unqualified": ("AP204", "not known"),
    "zc_dup_names": ("AP204", "plain name of its own"),
}


@pytest.fixture(scope="module")
def market(db_module: Conn) -> Iterator[Conn]:
    conn = db_module
    fill(conn, SYMBOL, 360, seed=2, per_minute=4)
    for symbol in (SYMBOL, "ETHUSDT"):
        conn.execute(
            "insert into market.instruments (symbol, exchange, native_symbol, base, quote)"
            " values (%s, 'test', %s, 'ETH', 'USDT') on conflict do nothing",
            (symbol, symbol),
        )
        conn.execute(
            "insert into market.candles (symbol, timeframe, ts, known_at, open, high, low, close,"
            " volume) select %s, '1 hour', t, t + interval '1 hour', 100, 110, 90,"
            " 100 + 5 * sin(extract(epoch from t) / 9000), 10 + extract(hour from t)"
            " from generate_series(%s::timestamptz, %s, '1 hour') t",
            (symbol, at(-60 * HOURS), at(300)),
        )
        conn.execute(
            "insert into market.candles (symbol, timeframe, ts, known_at, open, high, low, close,"
            " volume) select %s, '1 minute', t, t + interval '1 minute', 100, 110, 90, 101, 3"
            " from generate_series(%s::timestamptz, %s, '1 minute') t",
            (symbol, at(0), at(359)),
        )
    conn.execute("call market.refresh_aggregates()")
    yield conn


def said(conn: Conn, query: str, *args: Any) -> dict[str, tuple[str, str]]:
    """What was said when a set was made: by what, the level and the words."""
    notes: list[tuple[str, str]] = []

    def heard(note: psycopg.errors.Diagnostic) -> None:
        notes.append((str(note.severity), str(note.message_primary)))

    conn.add_notice_handler(heard)
    try:
        conn.execute(query, args)
    finally:
        conn.remove_notice_handler(heard)
    found = {}
    for severity, message in notes:
        parts = message.split(": ", 2)
        if len(parts) == 3:
            found[parts[1]] = (severity, parts[2])
    return found


@pytest.mark.skipif(not LEGIT.is_dir(), reason="the cases are not here")
@pytest.mark.parametrize("path", sorted(LEGIT.glob("*.sql")), ids=lambda path: path.stem)
def test_what_a_user_would_write_is_taken(market: Conn, path: Path) -> None:
    statement = path.read_text()
    code, words = REFUSED.get(path.stem, ("", ""))
    if code:
        with pytest.raises(psycopg.Error) as caught:
            market.execute(statement)
        assert caught.value.sqlstate == code and words in str(caught.value)
        assert caught.value.diag.message_hint
        return
    market.execute(statement)
    found = re.search(r"create_set\('(\w+)'", statement)
    assert found is not None
    row = market.execute(f"select * from feature.{found[1]}(%s, %s)", (SYMBOL, at(300))).fetchone()
    assert row is not None
    assert (
        market.execute(
            "select * from feature.audit_lookahead(%s, %s, %s, %s, 1)",
            (found[1], SYMBOL, at(200), at(240)),
        ).fetchall()
        == []
        or "unchecked" in path.stem
    )


def test_yesterday_and_the_last_daily_close_are_exact(market: Conn) -> None:
    """cases/quant 13: right, and refused."""
    for name, query, want in (
        (
            "yday",
            "select c.ts, (select max(d.close) from market.candles d where d.timeframe = '1 hour'"
            " and d.ts < date_trunc('day', c.ts) and d.ts >= date_trunc('day', c.ts) - interval"
            " '1 day') as x from market.candles c where c.timeframe = '1 hour'",
            "select max(close) from market.candles where symbol = %s and timeframe = '1 hour'"
            " and ts >= '2024-05-31' and ts < '2024-06-01'",
        ),
        (
            "dclose",
            "select c.ts, d.close as x from market.candles c join lateral (select close from"
            " market.candles d where d.timeframe = '1 hour' and d.ts + d.timeframe <="
            " date_trunc('day', c.ts) order by d.ts desc limit 1) d on true"
            " where c.timeframe = '1 hour'",
            "select close from market.candles where symbol = %s and timeframe = '1 hour'"
            " and ts = '2024-05-31 23:00+00'",
        ),
        (
            "aliased",
            "with e as (select ts, close as r from market.candles where timeframe = '1 hour')"
            " select b.ts, e.r as x from market.candles b left join e on e.ts = b.ts"
            " where b.timeframe = '1 hour'",
            "select close from market.candles where symbol = %s and timeframe = '1 hour'"
            " and ts = '2024-06-01 03:00+00'",
        ),
    ):
        market.execute("select feature.create_set(%s, %s, '3 days', '1 hour')", (name, query))
        got = market.execute(f"select x from feature.{name}(%s, %s)", (SYMBOL, at(240))).fetchone()
        assert got == market.execute(want, (SYMBOL,)).fetchone() and got is not None


def test_what_is_said_when_a_set_is_made(market: Conn) -> None:
    create = "select feature.create_set(%s, %s, %s, %s)"
    good = said(
        market, create, "said_good",
        "select ts, avg(close) over (order by ts rows 23 preceding) as a from market.candles"
        " where timeframe = '1 hour'", "2 days", "1 hour",
    )  # fmt: skip
    assert good["history"] == ("NOTICE", "needs 24 rows, 24 hours; 2 days are read")
    assert good["nulls"][0] == good["later rows"][0] == good["cost"][0] == "NOTICE"
    assert "over a stretch" in good["cost"][1]
    nothing = said(
        market, create, "said_null",
        "select c.ts, (select e.close from market.candles e where e.symbol = 'ETHUSDT'"
        " order by e.ts desc limit 1) as eth from market.candles c where c.timeframe = '1 hour'",
        "2 days", "1 hour",
    )  # fmt: skip
    assert nothing["nulls"][0] == "WARNING" and "no feature is known" in nothing["nulls"][1]
    fails = said(
        market, create, "said_fails",
        "select ts, 1 / (volume - volume) as x from market.candles where timeframe = '1 hour'",
        "2 days", "1 hour",
    )  # fmt: skip
    assert fails["errors"][0] == "WARNING" and "division by zero" in fails["errors"][1]
    whole = said(
        market, create, "said_whole",
        "select ts, close - avg(close) over () as x, close from market.candles"
        " where timeframe = '1 hour'", "2 days", "1 hour",
    )  # fmt: skip
    assert whole["later rows"] == (
        "WARNING", "out of reach, so nothing of the future is in it; over a whole table other: x",
    )  # fmt: skip
    rows = market.execute("select what, ok from feature.check_set('said_whole', %s)", (SYMBOL,))
    assert ("later rows", False) in rows.fetchall()
    assert market.execute("select ok from feature.check_set('technical_1m')").fetchone() == (True,)


def test_a_lookback_too_short_for_a_window_is_refused(market: Conn) -> None:
    query = (
        "select ts, avg(close) over (order by ts rows 199 preceding) as a from market.candles"
        " where timeframe = '1 hour'"
    )
    create = "select feature.create_set('long', %s, %s, '1 hour')"
    with pytest.raises(psycopg.Error) as caught:
        market.execute(create, (query, "2 days"))
    assert caught.value.sqlstate == "AP203" and "200 hours" in str(caught.value)
    assert "200 hours" in str(caught.value.diag.message_hint)
    market.execute(create, (query, "200 hours"))
    with pytest.raises(psycopg.Error) as caught:
        market.execute(
            create,
            ("select ts, sum(volume) over (partition by date_trunc('day', ts) order by ts) as v"
             " from market.candles where timeframe = '1 hour'", "6 hours"),
        )  # fmt: skip
    assert caught.value.sqlstate == "AP203"
