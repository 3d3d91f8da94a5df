"""What is done with what comes in live: gaps in answers, predictions at closes, alerts, events."""

from __future__ import annotations

import datetime as dt
import email
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from alphaplus.loaders import calendar
from alphaplus.loaders.dispatch import Dispatcher, Mail, Webhook
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Server
from tests.db import serving
from tests.db.serving import Conn, named, one


@pytest.fixture(scope="module")
def served(db_module: Conn) -> Conn:
    """Two symbols, vectors, and a champion for both."""
    db = db_module
    serving.install(db)
    x, y = serving.synthetic()
    serving.store(db, x)
    serving.register(db, serving.train(x, y), promote=True)
    return db


def gap(db: Conn, start: int, end: int | None, **more: Any) -> int:
    row = {"stream": "t", "symbol": "AAA", "channel": "trades", "how": "sequence", "from_id": start,
           "to_id": start, "from_ts": serving.at(start), "to_ts": None if end is None else serving.at(end),
           "found_at": serving.at(start), **more}  # fmt: skip
    names = ", ".join(row)
    holes = ", ".join(f"%({name})s" for name in row)
    found = db.execute(f"insert into market.gaps ({names}) values ({holes}) returning gap_id", row)  # type: ignore[arg-type]
    (number,) = found.fetchone() or (0,)
    return int(number)


@pytest.fixture
def clean(served: Conn) -> Iterator[Conn]:
    served.execute("truncate market.gaps, ops.alerts, ops.alert_consumers cascade")
    served.execute("delete from ops.alert_rules where not shipped")
    yield served
    served.execute("truncate market.gaps, ops.alerts, ops.alert_consumers cascade")
    served.execute("update ops.settings set value = '\"flag\"' where name = 'ml.gap_policy'")


def test_a_prediction_over_a_gap_is_flagged_null_or_refused_by_policy(clean: Conn) -> None:
    ask = "select * from ml.predict('fixed', 'AAA', %s)"
    whole = named(clean, ask, serving.at(100))
    gap(clean, 98, 100)
    flagged = named(clean, ask, serving.at(100))
    assert flagged.prediction == whole.prediction
    assert flagged.reason.startswith("incomplete: trades are missing from 2026-01-01 01:38")
    # The other symbol, an earlier time, and a time before it was found know nothing of it.
    assert named(clean, ask, serving.at(97)).reason == named(clean, ask, serving.at(97)).reason
    assert "incomplete" not in str(named(clean, ask, serving.at(97)).reason)
    clean.execute("update ops.settings set value = '\"null\"' where name = 'ml.gap_policy'")
    none = named(clean, ask, serving.at(100))
    assert none.prediction is None and none.reason.startswith("incomplete")
    clean.execute("update ops.settings set value = '\"refuse\"' where name = 'ml.gap_policy'")
    with pytest.raises(psycopg.errors.DatabaseError) as error:
        clean.execute(ask, (serving.at(100),))
    assert error.value.sqlstate == "AP930"
    # Once it is filled nothing is missing, but as of before it still is.
    clean.execute("update market.gaps set repaired_at = %s", (serving.at(200),))
    assert named(clean, ask, serving.at(300)).reason is None
    with pytest.raises(psycopg.errors.DatabaseError):
        clean.execute(ask, (serving.at(100),))


def test_bars_over_a_gap_are_named(clean: Conn) -> None:
    number = gap(clean, 10, 12)
    rows = clean.execute("select ts, gap_id from market.incomplete_bars order by ts").fetchall()
    assert rows == [(serving.at(10), number), (serving.at(11), number)]
    clean.execute("update market.gaps set repaired_at = now()")
    assert clean.execute("select from market.incomplete_bars").fetchall() == []


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 50), st.integers(0, 20), st.integers(0, 90),
            st.none() | st.integers(0, 90),
        ),
        max_size=6,
    ),
    st.integers(0, 60), st.integers(1, 20), st.integers(0, 100),
)  # fmt: skip
def test_gaps_as_of_a_time_are_those_known_and_open_then(
    clean: Conn, holes: Any, start: int, width: int, asked: int
) -> None:
    clean.execute("delete from market.gaps")
    expected = []
    for i, (a, length, found, repaired) in enumerate(holes):
        number = gap(clean, a, a + length, from_id=i, to_id=i, found_at=serving.at(found),
                     repaired_at=None if repaired is None else serving.at(repaired))  # fmt: skip
        if (
            a < start + width and a + length > start and found <= asked
            and (repaired is None or repaired > asked)
        ):  # fmt: skip
            expected.append(number)
    got = clean.execute(
        "select gap_id from market.gaps_over('AAA', %s, %s, %s)",
        (serving.at(start), serving.at(start + width), serving.at(asked)),
    ).fetchall()
    assert sorted(n for (n,) in got) == sorted(expected)


# --- predictions at the close --------------------------------------------------------------------


def test_a_bar_that_closes_is_predicted_once_for_all_symbols(served: Conn) -> None:
    db = served
    features = one(db, "select features from feature.sets where name = 'technical_1m'"
                   " order by version desc limit 1")  # fmt: skip
    dice = np.random.default_rng(4)
    x = dice.normal(size=(300, len(features)))
    y = (x[:, 0] > 0).astype(float)
    db.execute(
        "insert into ml.models (model, label, feature_set, feature_version)"
        " select 'live', 'fixed', name, max(version) from feature.sets where name = 'technical_1m'"
        " group by name"
    )
    serving.register(db, serving.train(x, y), "live", features=features, promote=True)
    rule = one(db, "select ml.set_live_prediction('live', array['AAA', 'BBB/USDT'], '5 min')")
    close = serving.at(500)
    for _ in range(2):
        db.execute("call ml.record_live(%s)", (close + dt.timedelta(seconds=20),))
    rows = db.execute(
        "select symbol, as_of, prediction, version_id, features from ml.predictions"
        " where model = 'live' order by symbol"
    ).fetchall()
    assert [(s, at) for s, at, *_ in rows] == [("AAA", close), ("BBB", close)]
    for symbol, _, prediction, version, vector in rows:
        answer = named(db, "select * from ml.predict('live', %s, %s)", symbol, close)
        assert (answer.prediction, answer.version_id) == (prediction, version)
        assert len(vector) == len(features)
    run = named(db, "select * from ml.live_latency where close = %s", close)
    assert (run.symbols, run.stored) == (2, 2)
    assert run.materialise_ms > 0 and run.predict_ms > 0
    db.execute("call ml.record_live(%s)", (serving.at(501),))
    assert one(db, "select count(*) from ml.live_runs where rule_id = %s", rule) == 2
    for bad, code in (("'live', null, '1 day'", "AP938"), ("'nobody'", "AP302"),
                      ("'live', array['nothing']", "AP101")):  # fmt: skip
        with pytest.raises(psycopg.errors.DatabaseError) as error:
            db.execute(f"select ml.set_live_prediction({bad})")  # type: ignore[arg-type]
        assert error.value.sqlstate == code


def test_the_newest_prediction_is_answered_with_its_age_and_hits_are_counted(served: Conn) -> None:
    db = served
    db.execute("delete from ml.predictions where model = 'fixed'")
    before = named(db, "select * from ml.latest_rate")
    assert db.execute("select * from ml.latest('fixed', 'AAA')").fetchall() == []
    db.execute(
        "insert into ml.predictions (as_of, symbol, model, horizon, prediction)"
        " values (now() - interval '1 day', 'AAA', 'fixed', '5 min', 0.2),"
        " (clock_timestamp(), 'AAA', 'fixed', '5 min', 0.4)"
    )
    found = named(db, "select * from ml.latest('fixed', 'AAA/USDT')")
    assert found.prediction == 0.4 and found.is_hit
    assert dt.timedelta(0) <= found.age < dt.timedelta(minutes=1)
    after = named(db, "select * from ml.latest_rate")
    assert (after.hits - before.hits, after.misses - before.misses) == (1, 1)


# --- alerts --------------------------------------------------------------------------------------


def rule(db: Conn, **changes: Any) -> None:
    arguments = {
        "rule": "mine", "view_name": "analytics.live_feed_gaps", "key_columns": ["gap_id"],
        "column_name": "channel", "operator": "=", "threshold": "trades", "kind": "mine",
        "message": "{symbol} misses {channel}", "severity": "low", "resolves": True,
        **changes,
    }  # fmt: skip
    given_ = ", ".join(f"{name} => %({name})s" for name in arguments)
    db.execute(f"select ops.set_alert_rule({given_})", arguments)  # type: ignore[arg-type]


def test_a_rule_raises_once_says_what_and_ends(clean: Conn) -> None:
    rule(clean)
    now = dt.datetime.now(dt.UTC)
    gap(clean, 1, 2, found_at=now)
    clean.execute("select ops.check_alert_rules()")
    clean.execute("select ops.check_alert_rules()")
    rows = clean.execute(
        "select message, severity, occurrences from ops.open_alerts where kind = 'mine'"
    ).fetchall()
    assert rows == [("AAA misses trades", "low", 1)]
    # After the cooldown it is counted again, filled it ends.
    clean.execute("select ops.check_alert_rules(now() + interval '1 hour')")
    assert one(clean, "select occurrences from ops.open_alerts where kind = 'mine'") == 2
    clean.execute("update market.gaps set repaired_at = now()")
    clean.execute("select ops.check_alert_rules()")
    assert clean.execute("select from ops.open_alerts where kind = 'mine'").fetchall() == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"view_name": "pg_catalog.pg_authid"}, "AP933"),
        ({"view_name": "ops.alerts"}, "AP933"),
        ({"view_name": "(select 1) x; drop table ops.alerts"}, "AP933"),
        ({"view_name": None}, "AP933"),
        ({"column_name": "channel) or (true"}, "AP934"),
        ({"key_columns": ["gap_id", "nothing"]}, "AP934"),
        ({"message": "{password}"}, "AP934"),
        ({"column_name": "age_s", "threshold": "1); select 1"}, "AP935"),
        ({"operator": "= 1 or"}, "AP936"),
        ({"severity": "worst"}, "AP936"),
        ({"key_columns": []}, "AP936"),
    ],
)
def test_a_rule_is_no_way_to_run_sql(clean: Conn, change: dict[str, Any], code: str) -> None:
    with pytest.raises(psycopg.errors.DatabaseError) as error:
        rule(clean, **change)
    assert error.value.sqlstate == code, error.value


def test_the_shipped_rules_are_fit_and_see_their_rows(clean: Conn) -> None:
    db = clean
    for (shipped,) in db.execute("select r from ops.alert_rules r where r.shipped").fetchall():
        assert shipped
    db.execute("select ops._check_alert_rule(r) from ops.alert_rules r")
    db.execute(
        "insert into market.trades (symbol, ts, trade_id, known_at, price, size, side)"
        " select 'AAA', now() - interval '6 hours' + i * interval '10 s', 'w' || i, now(), 10,"
        " 1 + (i % 100) / 100.0, 'buy' from generate_series(1, 2000) i"
    )
    db.execute("call market.refresh_trade_quantiles()")
    db.execute("insert into market.trades (symbol, ts, trade_id, price, size, side)"
               " values ('AAA', clock_timestamp(), 'whale', 10, 500, 'sell')")  # fmt: skip
    db.execute(
        "insert into market.funding_rates (symbol, ts, rate)"
        " select 'AAA', now() - i * interval '8 hours', case i when 0 then 0.01 else 0.0001 * (i % 3) end"
        " from generate_series(0, 60) i"
    )
    db.execute(
        "insert into market.liquidation_events (symbol, ts, event_id, side, price, size, notional)"
        " select 'AAA', now() - interval '6 days' + i * interval '5 minutes', 'u' || i, 'sell'::market.side, 10, 1, 10"
        " from generate_series(1, 40) i"
        " union all select 'AAA', now() - i * interval '1 s', 'c' || i, 'sell'::market.side, 10, 1000, 10000"
        " from generate_series(1, 8) i"
    )
    db.execute("insert into ml.predictions (as_of, symbol, model, horizon, prediction, probability,"
               " risk_level) values (now(), 'AAA', 'fixed', '5 min', 0.9, 0.9, 'critical')")  # fmt: skip
    gap(db, 1, 2, found_at=dt.datetime.now(dt.UTC) - dt.timedelta(minutes=2))
    db.execute("insert into market.streams (stream, exchange, symbols, channels, heartbeat_at)"
               " values ('dead', 'x', '{}', '{}', now() - interval '1 hour')")  # fmt: skip
    db.execute("select ops.check_alert_rules()")
    found = dict(
        db.execute("select kind, severity from ops.open_alerts where kind <> 'health'").fetchall()
    )
    assert found == {"liquidation_risk": "critical", "whale": "medium", "cascade": "high",
                     "funding": "medium", "gap": "medium", "stream": "high"}  # fmt: skip
    db.execute("delete from market.streams")
    db.execute("delete from market.trades where symbol = 'AAA'")


class Hook:
    """A webhook of the test's own. fail: how many requests it refuses first."""

    def __init__(self, fail: int = 0) -> None:
        self.got: list[dict[str, Any]] = []
        self.fail = fail
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                if outer.fail > 0:
                    outer.fail -= 1
                    self.send_response(503)
                    self.end_headers()
                    return
                outer.got += json.loads(data)["alerts"]
                self.send_response(204)
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def raise_some(db: Conn, count: int) -> list[int]:
    return [
        one(db, "select alert_id from ops.raise_alert('test', 'high', %s, 'it happened')", f"k{i}")
        for i in range(count)
    ]


def test_a_webhook_that_fails_gets_them_later_with_the_same_key(
    clean: Conn, server: Server
) -> None:
    conninfo = server.conninfo(clean.info.dbname, "alphaplus_operator")
    clean.execute("select ops.add_alert_consumer('hook', since => '-infinity')")
    numbers = raise_some(clean, 3)
    hook = Hook(fail=1)
    made = Dispatcher(conninfo, "hook", [Webhook(hook.url)], lease=0.2, check=False, say=print)
    try:
        made.run(once=True)
        assert hook.got == [] and made.delivered == 0
        time.sleep(0.3)
        made.run(once=True)
        made.run(once=True)
    finally:
        hook.close()
    assert [a["alert_id"] for a in hook.got] == numbers
    assert len({a["key"] for a in hook.got}) == 3
    assert one(clean, "select min(attempts) from ops.alert_deliveries") == 2


def test_mail_carries_the_keys(clean: Conn, server: Server) -> None:
    from aiosmtpd.controller import Controller

    got: list[Any] = []

    class Box:
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
            got.append(email.message_from_bytes(envelope.content))
            return "250 OK"

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    controller = Controller(Box(), hostname="127.0.0.1", port=port)
    controller.start()
    clean.execute("select ops.add_alert_consumer('mail', since => '-infinity')")
    numbers = raise_some(clean, 2)
    try:
        Dispatcher(
            server.conninfo(clean.info.dbname, "alphaplus_operator"), "mail",
            [Mail("127.0.0.1", port, ("desk@example.org",))], check=False,
        ).run(once=True)  # fmt: skip
    finally:
        controller.stop()
    (message,) = got
    assert message["Subject"] == "[AlphaPlus high] it happened and 1 more"
    assert message["X-AlphaPlus-Keys"] == f"{numbers[0]}:high,{numbers[1]}:high"


def test_another_channels_alerts_are_left_to_it(clean: Conn, server: Server) -> None:
    conninfo = server.conninfo(clean.info.dbname, "alphaplus_operator")
    # What other tests loaded is not this one's to be told of.
    clean.execute("update ops.alert_rules set enabled = false where shipped")
    clean.execute("select ops.add_alert_consumer('a', since => '-infinity'),"
                  " ops.add_alert_consumer('b', since => '-infinity')")  # fmt: skip
    # The shipped rules would see what other tests of this module have stored.
    clean.execute("update ops.alert_rules set enabled = false where shipped")
    rule(clean, channel="desk")
    gap(clean, 1, 2, found_at=dt.datetime.now(dt.UTC))
    clean.execute("select ops.check_alert_rules()")
    clean.execute("update ops.alert_rules set enabled = true where shipped")
    raise_some(clean, 1)
    got: dict[str, list[str]] = {}
    for consumer, channel in (("a", None), ("b", "desk")):
        hook = Hook()
        Dispatcher(conninfo, consumer, [Webhook(hook.url)], channel, check=False).run(once=True)
        hook.close()
        got[consumer] = sorted(a["kind"] for a in hook.got)
    clean.execute("update ops.alert_rules set enabled = true where shipped")
    assert got == {"a": ["test"], "b": ["mine", "test"]}


@pytest.mark.long
def test_a_dispatcher_killed_at_any_moment_loses_none(clean: Conn, server: Server) -> None:
    hook = Hook()
    params = psycopg.conninfo.conninfo_to_dict(
        server.conninfo(clean.info.dbname, "alphaplus_operator")
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "ALPHAPLUS"))}
    env |= {"PGHOST": str(params["host"]), "PGPORT": str(params["port"]),
            "PGDATABASE": str(params["dbname"]), "PGUSER": str(params["user"]),
            "PGPASSWORD": str(params["password"]), "PGSSLMODE": str(params["sslmode"]),
            "PGSSLROOTCERT": str(params["sslrootcert"])}  # fmt: skip
    clean.execute("select ops.add_alert_consumer('alphaplus', since => '-infinity')")
    numbers: list[int] = []
    dice = np.random.default_rng(1)
    for turn in range(8):
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / "alphaplus"), "alerts", "--webhook", hook.url,
             "--no-check", "--lease", "0.5", "--every", "0.1"], env=env,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        numbers += [
            one(clean, "select alert_id from ops.raise_alert('t', 'low', %s, 'x')", f"{turn}:{i}")
            for i in range(20)
        ]
        time.sleep(float(dice.uniform(0.3, 2.0)))
        process.send_signal(signal.SIGKILL)
        process.wait()
    time.sleep(0.6)
    conninfo = server.conninfo(clean.info.dbname, "alphaplus_operator")
    Dispatcher(conninfo, "alphaplus", [Webhook(hook.url)], check=False, lease=0.5).run(once=True)
    hook.close()
    assert {a["alert_id"] for a in hook.got} == set(numbers)
    assert len({a["key"] for a in hook.got}) == len(numbers)


# --- events --------------------------------------------------------------------------------------


def test_a_calendar_is_known_from_when_it_says_and_not_before(served: Conn, tmp_path: Path) -> None:
    db = served
    file = tmp_path / "unlocks.csv"
    file.write_text(
        "kind,ts,known_at,symbol,title,amount,share_of_float,source_id,cancelled,note\n"
        "unlock,2026-03-01,2026-01-10,AAA,cliff,1000,0.05,u1,,team\n"
        "unlock,2026-04-01,2026-01-20,AAA,cliff,1000,0.05,u1,,\n"
        "unlock,2026-02-01,2026-02-15,AAA,later,5,0.01,u2,,\n"
        "macro,2026-02-10T13:30:00Z,2025-12-01,,CPI,,,m1,,\n"
        "macro,2026-02-10T13:30:00Z,2026-02-01,,CPI,,,m1,true,\n"
        "unlock,2026-03-01,,NOTHING,x,,,u3,,\n"
        "unlock,yesterday,,AAA,x,,,u4,,\n"
        "unlock,2026-03-01,,AAA,x,,7,u5,,\n"
    )
    report = calendar.load(db, file, "test")
    assert (report.loaded, report.there) == (5, 0)
    assert [line for line, _ in report.refused] == [7, 8, 9]
    assert calendar.load(db, file, "test").there == 5
    ask = "select * from feature.events('AAA', %s)"

    def day(month: int, number: int) -> dt.datetime:
        return dt.datetime(2026, month, number, tzinfo=dt.UTC)

    before = named(db, ask, day(1, 5))
    assert before.seconds_to_unlock is None and before.seconds_to_macro is not None
    first = named(db, ask, day(1, 15))
    assert first.seconds_to_unlock == (day(3, 1) - day(1, 15)).total_seconds()
    assert first.unlock_share == 0.05
    # Moved: known from the 20th on.
    assert named(db, ask, day(1, 25)).seconds_to_unlock == (
        day(4, 1) - day(1, 25)).total_seconds()  # fmt: skip
    # Cancelled: gone from then on. Announced after it happened: no feature before.
    assert named(db, ask, day(2, 2)).seconds_to_macro is None


def test_an_event_study_answers_in_sql(served: Conn) -> None:
    db = served
    dice = np.random.default_rng(2)
    start = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
    market = dice.normal(0, 0.002, 1200)
    events = [200, 400, 600, 800, 1000]
    own = 0.8 * market + dice.normal(0, 0.002, 1200)
    for event in events:
        own[event] += 0.05
    for symbol, returns in (("AAA", own), ("BBB", market)):
        price = 100 * np.exp(np.cumsum(returns))
        with (
            db.cursor() as cursor,
            cursor.copy(
                "copy market.candles (symbol, timeframe, ts, known_at, open, high, low, close, volume)"
                " from stdin"
            ) as copy,
        ):
            for i, close in enumerate(price):
                ts = start + dt.timedelta(hours=i)
                copy.write_row((symbol, "1 hour", ts, ts + dt.timedelta(hours=1), close, close,
                                close, close, 1))  # fmt: skip
    for event in events:
        ts = start + dt.timedelta(hours=event, minutes=5)
        db.execute("select market.add_event('listing', %s, %s, symbol => 'AAA')", (ts, ts))
    at = start + dt.timedelta(hours=1150)
    found = named(db, "select * from analytics.event_study('listing', 'AAA', '2 hours', %s)", at)
    assert found.events_used == 5 and found.significant
    assert found.mean_abnormal == pytest.approx(0.05, abs=0.005)
    assert found.beta == pytest.approx(0.8, abs=0.1)
    # As of before the third event two are known.
    at = start + dt.timedelta(hours=500)
    assert named(
        db, "select * from analytics.event_study('listing', 'AAA', '2 hours', %s)", at
    ).events_used == 2  # fmt: skip
    assert db.execute("select * from analytics.event_study('nothing', 'AAA')").fetchall() == []
    with pytest.raises(psycopg.errors.DatabaseError) as error:
        db.execute("select * from analytics.event_study('listing', 'AAA', '1 minute')")
    assert error.value.sqlstate == "AP939"
