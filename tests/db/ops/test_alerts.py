"""The outbox of alerts: one row per open key, one NOTIFY per batch, delivered at least once."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

Conn = psycopg.Connection[Any]


def raised(db: Conn, key: str = "gap:X", severity: str = "high", **more: Any) -> tuple[int, bool]:
    row = db.execute(
        "select alert_id, is_new from ops.raise_alert('test', %s, %s, %s)",
        (severity, key, more.get("message", "something happened")),
    ).fetchone()
    assert row is not None
    return row[0], row[1]


@pytest.fixture
def quiet(db_module: Conn) -> Conn:
    db_module.execute("truncate ops.alerts, ops.alert_mutes, ops.alert_consumers cascade")
    return db_module


def test_the_same_alert_is_counted_while_open(quiet: Conn) -> None:
    first, is_new = raised(quiet)
    assert is_new
    again, is_new = raised(quiet, message="once more")
    assert (again, is_new) == (first, False)
    row = quiet.execute("select occurrences, message, severity from ops.open_alerts").fetchall()
    assert row == [(2, "once more", "high")]
    quiet.execute("select ops.resolve_alert(%s, 'mended')", (first,))
    later, is_new = raised(quiet)
    assert is_new and later != first


def test_a_transaction_is_announced_once(quiet: Conn) -> None:
    with psycopg.connect(quiet.info.dsn, password=quiet.info.password, autocommit=True) as ear:
        ear.execute("listen alphaplus_alerts")
        with quiet.transaction():
            ids = [raised(quiet, f"k{i}", "low" if i else "critical")[0] for i in range(5)]
        heard = [json.loads(n.payload) for n in ear.notifies(timeout=3, stop_after=1)]
        assert heard == [{"count": 5, "severity": "critical", "kinds": ["test"], "alert_ids": ids}]
        raised(quiet, "k1", "low")  # only counted: nothing new to say
        raised(quiet, "k2", "critical")  # worse
        heard = [json.loads(n.payload) for n in ear.notifies(timeout=1)]
        assert [h["alert_ids"] for h in heard] == [[ids[2]]]
        with pytest.raises(ZeroDivisionError), quiet.transaction():
            raised(quiet, "never")
            raise ZeroDivisionError
        assert list(ear.notifies(timeout=0.5)) == []


def test_each_consumer_gets_each_alert_at_least_once(quiet: Conn) -> None:
    quiet.execute(
        "select ops.add_alert_consumer('mail'), ops.add_alert_consumer('pager', null, 'critical')"
    )
    one, _ = raised(quiet, "one", "low")
    two, _ = raised(quiet, "two", "critical")

    def claim(consumer: str, lease: str = "1 minute") -> list[int]:
        rows = quiet.execute(
            "select alert_id from ops.claim_alerts(%s, lease => %s::interval)", (consumer, lease)
        )
        return [row[0] for row in rows.fetchall()]

    assert claim("mail") == [one, two]
    assert claim("pager") == [two]
    assert claim("mail") == []
    quiet.execute("select ops.confirm_alert('mail', %s)", (one,))
    quiet.execute("select ops.confirm_alert('mail', %s, 'no route')", (two,))
    assert claim("mail", "0") == [two]  # what was not delivered comes again
    quiet.execute("select ops.confirm_alert('mail', %s)", (two,))
    assert claim("mail", "0") == []
    raised(quiet, "one", "high")
    assert claim("mail") == [one]  # worse than what was delivered


def test_acknowledge_assign_mute(quiet: Conn) -> None:
    alert, _ = raised(quiet, "one", "low")
    quiet.execute(
        "select ops.acknowledge_alert(%s, 'seen'), ops.assign_alert(%s, 'ann')", (alert, alert)
    )
    row = quiet.execute("select acknowledged, assigned_to from ops.open_alerts").fetchone()
    assert row == (True, "ann")
    raised(quiet, "one", "critical")
    assert quiet.execute("select acknowledged from ops.open_alerts").fetchone() == (False,)
    mute = quiet.execute(
        "select ops.mute_alerts('noise:%', now() + interval '1 hour', 'known')"
    ).fetchone()
    assert mute is not None
    quiet.execute("select ops.add_alert_consumer('mail')")
    raised(quiet, "noise:a")
    assert quiet.execute("select count(*) from ops.claim_alerts('mail')").fetchone() == (0,)
    quiet.execute("select ops.unmute_alerts(%s)", mute)
    raised(quiet, "noise:b")
    assert quiet.execute("select count(*) from ops.claim_alerts('mail')").fetchone() == (1,)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("ops.raise_alert('a', 'awful', 'k', 'm')", "AP630"),
        ("ops.raise_alert('a', null, 'k', 'm')", "AP630"),
        ("ops.raise_alert('a', 'low', '', 'm')", "AP630"),
        ("ops.raise_alert('a', 'low', 'k', 'm', ts => 'infinity')", "AP630"),
        ("ops.acknowledge_alert(-1)", "AP631"),
        ("ops.resolve_alert(null)", "AP631"),
        ("ops.mute_alerts('x', now() - interval '1 day', 'why')", "AP632"),
        ("ops.mute_alerts(null, 'infinity', 'why')", "AP632"),
        ("ops.unmute_alerts(null)", "AP632"),
        ("ops.claim_alerts('nobody')", "AP633"),
        ("ops.confirm_alert('nobody', 1)", "AP633"),
        ("ops.add_alert_consumer('', null, 'low')", "AP633"),
    ],
)
def test_refused_with_code_and_hint(quiet: Conn, call: str, code: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        quiet.execute(f"select {call}")
    assert caught.value.sqlstate == code
    assert caught.value.diag.message_hint


def test_who_may(quiet: Conn, connect_as: Any) -> None:
    operator = connect_as("alphaplus_operator", quiet.info.dbname)
    assert operator.execute(
        "select is_new from ops.raise_alert('a', 'low', 'k', 'm')"
    ).fetchone() == (True,)
    reader = connect_as("alphaplus_reader", quiet.info.dbname)
    assert reader.execute("select count(*) from ops.open_alerts").fetchone() == (1,)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute("select ops.raise_alert('a', 'low', 'k', 'm')")
