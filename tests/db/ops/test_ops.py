"""The clock: runs write themselves down, none runs twice at once, health needs no one's log."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

Conn = psycopg.Connection[Any]


@pytest.fixture
def clock(db_module: Conn) -> Conn:
    """Schedules of the test's own, with procedures that work, fail and wait; no runs, no data."""
    db_module.execute(
        """
        create table if not exists public.calls (at timestamptz default clock_timestamp());
        truncate public.calls, ops.runs, market.trades, market.quarantine;
        delete from ml.training_jobs;
        delete from market.instruments;
        create or replace procedure ops.works() language sql as 'insert into public.calls default values';
        create or replace procedure ops.fails() language plpgsql as $$
        begin
            raise exception 'nothing to eat' using errcode = 'AP799', detail = 'empty', hint = 'shop';
        end $$;
        create or replace procedure ops.waits() language sql as 'select pg_sleep(600)';
        delete from ops.schedules where true;
        insert into ops.schedules (name, cron, command, expected_interval, description, updated_at, run_as)
        values
        ('works', '* * * * *', 'call ops.works()', '1 minute', '', '2026-01-01', 'alphaplus_owner'),
        ('fails', '*/5 * * * *', 'call ops.fails()', '5 minutes', '', '2026-01-01', 'alphaplus_owner'),
        ('waits', '0 2 * * *', 'call ops.waits()', '1 day', '', '2026-01-01', 'alphaplus_owner');
        """
    )
    return db_module


def runs(conn: Conn, schedule: str) -> list[tuple[str, str | None]]:
    return conn.execute(
        "select status, sqlstate from ops.runs where schedule = %s order by run_id", (schedule,)
    ).fetchall()


def health(conn: Conn, at: datetime) -> dict[str, str]:
    rows = conn.execute(
        "select subject, status from ops.health_at(%s) where check_name = 'schedule'", (at,)
    )
    return dict(rows.fetchall())


def test_a_run_is_written_down(clock: Conn) -> None:
    clock.execute("call ops.run('works')")
    assert runs(clock, "works") == [("succeeded", None)]
    assert clock.execute("select count(*) from public.calls").fetchone() == (1,)


def test_a_failure_is_written_down_and_passed_on(clock: Conn) -> None:
    with pytest.raises(psycopg.Error) as caught:
        clock.execute("call ops.run('fails')")
    assert caught.value.diag.sqlstate == "AP799"
    assert caught.value.diag.message_hint == "shop"
    assert runs(clock, "fails") == [("failed", "AP799")]
    assert clock.execute("select detail from ops.runs").fetchone() == (
        "nothing to eat\nempty\nshop",
    )


def test_unknown_schedule(clock: Conn) -> None:
    with pytest.raises(psycopg.Error, match="unknown schedule") as caught:
        clock.execute("call ops.run('nap')")
    assert caught.value.diag.sqlstate == "AP711"
    assert "works" in str(caught.value.diag.message_hint)


def test_a_run_still_going_is_not_started_again(
    clock: Conn, connect_as: Callable[[str, str], Conn]
) -> None:
    other = connect_as("postgres", clock.info.dbname)
    row = other.execute("select run_id from ops.begin_run('works')").fetchone()
    assert row is not None
    clock.execute("call ops.run('works')")
    assert runs(clock, "works") == [("running", None), ("skipped", None)]
    assert clock.execute("select count(*) from public.calls").fetchone() == (0,)
    status = clock.execute(
        "select last_status, skipped_last_day from ops.schedule_status where schedule = 'works'"
    ).fetchone()
    assert status == ("running", 1)
    other.execute("select ops.end_run(%s, 'succeeded')", row)
    clock.execute("call ops.run('works')")
    assert runs(clock, "works")[-1] == ("succeeded", None)


def test_a_killed_run_is_known_as_failed(
    clock: Conn, connect_as: Callable[[str, str], Conn]
) -> None:
    other = connect_as("postgres", clock.info.dbname)
    other.execute("select ops.begin_run('works')")
    clock.execute("select pg_terminate_backend(%s, 5000)", (other.info.backend_pid,))
    clock.execute("call ops.run('works')")
    assert runs(clock, "works") == [("failed", None), ("succeeded", None)]


@pytest.mark.parametrize("goes_on", ["", "begin", "select 1/0"])
def test_a_run_that_was_cut_short_keeps_nobody_out(
    clock: Conn, connect_as: Callable[[str, str], Conn], goes_on: str
) -> None:
    clock.execute(
        "insert into ops.schedules (name, cron, command, expected_interval, description, run_as)"
        " values ('refresh', '* * * * *', 'call market.refresh_aggregates()', '1 minute', '', 'alphaplus_owner');"
        "create or replace procedure market.refresh_aggregates() language plpgsql as $$"
        " begin commit; perform pg_sleep(60); end $$"
    )
    other = connect_as("alphaplus_operator", clock.info.dbname)
    other.execute("set statement_timeout = '700ms'")
    with pytest.raises(psycopg.errors.QueryCanceled):
        other.execute("call ops.run('refresh')")
    clock.execute(
        "create or replace procedure market.refresh_aggregates() language plpgsql as $$"
        " begin commit; end $$"
    )
    with contextlib.suppress(psycopg.Error):
        other.execute(goes_on)  # type: ignore[call-overload]
    clock.execute("call ops.run('refresh')")
    assert runs(clock, "refresh") == [("failed", None), ("succeeded", None)]
    other.rollback()
    other.execute("reset statement_timeout")
    other.execute("call ops.run('refresh')")
    assert runs(clock, "refresh")[-1] == ("succeeded", None)


def test_a_run_over_its_time_is_cancelled(
    clock: Conn, connect_as: Callable[[str, str], Conn]
) -> None:
    other = connect_as("alphaplus_owner", clock.info.dbname)
    clock.execute("alter procedure ops.waits() owner to alphaplus_owner")
    errors: list[psycopg.Error] = []

    def wait() -> None:
        try:
            other.execute("call ops.run('waits')")
        except psycopg.Error as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while not runs(clock, "waits"):
        clock.execute("select pg_sleep(0.02)")
    clock.execute("call ops.run('waits', clock_timestamp() + interval '31 minutes')")
    thread.join(30)
    assert [error.sqlstate for error in errors] == ["57014"]
    assert runs(clock, "waits")[0] == ("failed", "57014")


def test_committing_procedures_run_and_their_errors_are_found(clock: Conn) -> None:
    clock.execute(
        "insert into ops.schedules (name, cron, command, expected_interval, description, run_as)"
        " values ('refresh', '* * * * *', 'call market.refresh_aggregates()', '1 minute', '', 'alphaplus_owner')"
    )
    clock.execute("call ops.run('refresh')")
    clock.execute(
        "create or replace procedure market.refresh_aggregates() language plpgsql as $$"
        " begin commit; raise exception 'no' using errcode = 'AP199'; end $$"
    )
    with pytest.raises(psycopg.Error, match="no"):
        clock.execute("call ops.run('refresh')")
    clock.execute(
        "create or replace procedure market.refresh_aggregates() language plpgsql as $$"
        " begin raise exception 'no' using errcode = 'AP199'; end $$"
    )
    with pytest.raises(psycopg.Error, match="no"):
        clock.execute("call ops.run('refresh')")
    assert runs(clock, "refresh") == [("succeeded", None), ("failed", None), ("failed", "AP199")]


def test_overdue_runs_coalesce_and_a_failing_one_does_not_stop_the_others(clock: Conn) -> None:
    clock.execute("update ops.schedules set enabled = false where name = 'waits'")
    at = datetime(2026, 1, 3, 12, 0, 30, tzinfo=UTC)
    clock.execute("call ops.tick(%s)", (at,))
    assert runs(clock, "works") == [("succeeded", None)]
    assert runs(clock, "fails") == [("failed", "AP799")]
    clock.execute("call ops.tick(%s)", (at + timedelta(seconds=20),))
    assert len(runs(clock, "works")) == 1
    clock.execute("call ops.tick(%s)", (at + timedelta(minutes=1),))
    assert len(runs(clock, "works")) == 2
    assert len(runs(clock, "fails")) == 1


def test_a_clock_that_jumps_ahead_and_back_stops_nothing(clock: Conn) -> None:
    clock.execute("update ops.schedules set enabled = false where name <> 'works'")
    at = datetime(2026, 1, 3, 12, 0, 30, tzinfo=UTC)
    minute = timedelta(minutes=1)
    clock.execute("call ops.tick(%s)", (at,))
    for ahead in (timedelta(hours=2), timedelta(hours=2, minutes=1)):
        clock.execute("call ops.tick(%s)", (at + ahead,))
    assert len(runs(clock, "works")) == 3
    # Back again: what is due runs, at once and each minute.
    for later in (1, 2, 3):
        clock.execute("call ops.tick(%s)", (at + later * minute,))
        assert len(runs(clock, "works")) == 3 + later
    assert health(clock, at + 3 * minute)["works"] == "green"
    said = clock.execute(
        "select status, detail from ops.health_at(%s) where check_name = 'clock'",
        (at + 3 * minute,),
    ).fetchall()
    assert len(said) == 1 and said[0][0] == "yellow" and "2 runs are dated later" in said[0][1]
    # If nothing runs any more, that shows, whatever the future holds.
    assert health(clock, at + 6 * minute)["works"] == "red"
    done = at + timedelta(hours=3)
    assert not clock.execute(
        "select from ops.health_at(%s) where check_name = 'clock'", (done,)
    ).fetchall()


@pytest.mark.parametrize(
    ("target", "keep"),
    [("predictions", "5 seconds"), ("predictions", "29 days"), ("vectors", "-1 day"), ("alerts", "1 hour")],
)  # fmt: skip
def test_what_is_deleted_is_kept_for_a_plausible_time(clock: Conn, target: str, keep: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        clock.execute("update ops.retention set keep = %s where target = %s", (keep, target))
    assert caught.value.sqlstate == "AP727" and caught.value.diag.message_hint
    clock.execute("update ops.retention set keep = keep where target = %s", (target,))


def test_health_turns_red_when_the_clock_has_stopped(clock: Conn) -> None:
    at = datetime(2026, 1, 3, 12, 0, 0, tzinfo=UTC)
    for schedule in ("works", "waits"):
        clock.execute(
            "insert into ops.runs (schedule, status, started_at, finished_at)"
            " values (%s, 'succeeded', %s, %s)",
            (schedule, at, at),
        )
    second = timedelta(seconds=1)
    minute = timedelta(minutes=1)
    assert health(clock, at + minute)["works"] == "green"
    assert health(clock, at + 2 * minute - second)["works"] == "yellow"
    late = health(clock, at + 2 * minute)
    assert late["works"] == "red"
    assert late["waits"] == "green"
    assert late["fails"] == "red"  # never ran since it was made, two days ago
    assert health(clock, at + timedelta(days=2))["waits"] == "red"
    # A skipped run is no run.
    clock.execute(
        "insert into ops.runs (schedule, status, started_at) values ('works', 'skipped', %s)",
        (at + 2 * minute,),
    )
    assert health(clock, at + 2 * minute + second)["works"] == "red"


def test_health_follows_a_schedules_cron_expression(clock: Conn) -> None:
    at = datetime(2026, 1, 3, 3, 0, 1, tzinfo=UTC)
    clock.execute(
        "insert into ops.runs (schedule, status, started_at) values ('works', 'succeeded', %s)",
        (at,),
    )
    clock.execute("update ops.schedules set cron = '0 3 * * *' where name = 'works'")
    assert health(clock, at + timedelta(hours=23))["works"] == "green"
    assert health(clock, at + timedelta(hours=48))["works"] == "red"
    clock.execute("update ops.schedules set cron = '*/5 * * * *' where name = 'works'")
    assert health(clock, at + timedelta(minutes=10))["works"] == "red"
    # What is said beside it counts.
    clock.execute(
        "update ops.schedules set cron = '0 3 * * 1', expected_interval = '1 hour'"
        " where name = 'works'"
    )
    assert health(clock, at + timedelta(hours=3))["works"] == "red"
    clock.execute("call ops.schedule_retraining('liquidation_5m', null, '0 4 * * 0')")
    assert clock.execute(
        "select expected_interval from ops.schedules where name = 'retrain:liquidation_5m'"
    ).fetchone() == (timedelta(days=7),)


def test_health_of_failures_and_queue(clock: Conn) -> None:
    at = datetime(2026, 1, 3, 12, 0, 0, tzinfo=UTC)
    for minutes, status in ((0, "succeeded"), (1, "failed")):
        clock.execute(
            "insert into ops.runs (schedule, status, started_at) values ('works', %s, %s)",
            (status, at + timedelta(minutes=minutes)),
        )
    assert health(clock, at + timedelta(minutes=1))["works"] == "yellow"
    clock.execute(
        "insert into ops.runs (schedule, status, started_at) values ('works', 'failed', %s)",
        (at + timedelta(minutes=2),),
    )
    assert health(clock, at + timedelta(minutes=2))["works"] == "red"


def test_health_of_data(clock: Conn) -> None:
    clock.execute(
        """
        insert into market.instruments (symbol, exchange, native_symbol, base, quote)
        values ('AAA', 'x', 'AAA', 'A', 'A'), ('OLD', 'x', 'OLD', 'O', 'O'), ('NEW', 'x', 'NEW', 'N', 'N');
        insert into market.trades (symbol, ts, trade_id, known_at, price, size, side)
        values
        ('AAA', '2026-01-03 11:00Z', '1', '2026-01-03 11:00Z', 1, 1, 'buy'),
        ('OLD', '2025-01-03 11:00Z', '1', '2025-01-03 11:00Z', 1, 1, 'buy'),
        ('NEW', '2026-01-03 11:59Z', '1', '2026-01-03 11:59Z', 1, 1, 'buy');
        """
    )
    rows = clock.execute(
        "select subject, status from ops.health_at('2026-01-03 12:00Z') where check_name = 'data'"
    ).fetchall()
    assert dict(rows) == {"AAA": "red", "OLD": "green", "NEW": "green"}


def test_health_is_readable_by_every_reader(
    db: Conn, connect_as: Callable[[str, str], Conn]
) -> None:
    for role in ("alphaplus_reader", "alphaplus_app", "alphaplus_operator"):
        conn = connect_as(role, db.info.dbname)
        assert conn.execute("select * from ops.health").fetchall()
        assert conn.execute("select * from ops.schedule_status").fetchall()


def months_of_history(db: Conn) -> None:
    """Bars, vectors, models asked for, and queue entries, runs and refused rows of three months."""
    db.execute(
        """
        insert into market.instruments (symbol, exchange, native_symbol, base, quote)
        values ('AAA', 'x', 'AAA', 'A', 'USDT');
        insert into market.candles (
            symbol, timeframe, ts, known_at, open, high, low, close, volume
        )
        select 'AAA', '1 minute', t, t + interval '1 minute', p, p + 1, p - 1, p, 10
        from (
            select t, 100 + 10 * sin(extract(epoch from t) / 7000) as p
            from generate_series(
                date_trunc('hour', now()) - interval '1 day', now() - interval '2 minutes',
                interval '1 minute'
            ) t
        ) b;
        insert into market.candles (
            symbol, timeframe, ts, known_at, open, high, low, close, volume
        )
        select 'AAA', '1 minute', t, t + interval '1 minute', 100, 101, 99, 100, 1
        from generate_series(
            now() - interval '100 days', now() - interval '99 days 20 hours', interval '1 minute'
        ) t;
        insert into market.quarantine (kind, file, line, reason, created_at)
        select 'trades', 'old.csv', n, 'shape', now() - interval '300 days'
        from generate_series(1, 10) n;
        insert into ops.runs (schedule, status, started_at, finished_at)
        select s.name, 'succeeded', t, t
        from ops.schedules s, generate_series(now() - interval '90 days', now() - interval '1 hour',
            interval '1 day') t;
        select ops.set_setting('market.keep_rows', '{"candles": "40 days"}');
        """
    )
    db.execute("call market.refresh_aggregates()")
    db.execute("call feature.materialise('technical_1h', 'AAA', now() - interval '6 hours', now())")
    for days in (1, 90):
        for status in ("succeeded", "failed", "cancelled"):
            db.execute(
                "with j as (insert into procrastinate.procrastinate_jobs"
                " (queue_name, task_name, args, status)"
                " values ('training', 'train', '{}', %s::procrastinate.procrastinate_job_status)"
                " returning id)"
                ", e as (insert into procrastinate.procrastinate_events (job_id, type, at)"
                " select j.id, 'deferred', now() - %s * interval '1 day' from j)"
                " insert into procrastinate.procrastinate_periodic_defers"
                " (task_name, defer_timestamp, job_id, periodic_id)"
                " select 'train', j.id, j.id, j.id::text from j",
                (status, days),
            )
    db.execute(
        "update procrastinate.procrastinate_events set at = now() - interval '90 days'"
        " where job_id in (select id from procrastinate.procrastinate_jobs order by id desc"
        " limit 3)"
    )


def test_the_operator_runs_every_schedule_on_months_of_history(
    db: Conn, connect_as: Callable[[str, str], Conn]
) -> None:
    months_of_history(db)
    assert db.execute("select count(*) from feature.watermarks").fetchone() != (0,)
    operator = connect_as("alphaplus_operator", db.info.dbname)
    for (name,) in db.execute("select name from ops.schedules").fetchall():
        operator.execute("call ops.run(%s)", (name,))
        assert runs(db, name)[-1] == ("succeeded", None), db.execute(
            "select * from ops.runs order by run_id desc limit 1"
        ).fetchone()
    # and each did its work
    assert db.execute("select count(*) from feature.vector_blocks").fetchone() != (0,)
    assert db.execute("select count(*) from procrastinate.procrastinate_jobs").fetchone() == (3,)
    assert db.execute("select count(*) from market.quarantine").fetchone() == (0,)
    assert db.execute(
        "select count(*) from ops.runs where started_at < now() - interval '31 days'"
    ).fetchone() == (0,)
    assert db.execute(
        "select min(ts) > now() - interval '2 days' from market.candles"
    ).fetchone() == (True,)


def test_the_operator_runs_every_schedule_on_an_empty_database(
    db: Conn, connect_as: Callable[[str, str], Conn]
) -> None:
    operator = connect_as("alphaplus_operator", db.info.dbname)
    for (name,) in db.execute("select name from ops.schedules").fetchall():
        operator.execute("call ops.run(%s)", (name,))
        assert runs(db, name) == [("succeeded", None)]


def test_a_schedule_of_ones_own_may_commit(
    clock: Conn, connect_as: Callable[[str, str], Conn]
) -> None:
    """Nothing says so beforehand: ops.run finds out, and knows the next time."""
    clock.execute(
        """
        create or replace procedure ops.commits(word text) language plpgsql as $$
        begin
            insert into public.calls default values;
            commit;
            insert into public.calls default values;
            commit;
            if word <> 'its $x$well' then
                raise exception 'not well' using errcode = 'AP799', hint = 'well';
            end if;
        end $$;
        """
    )
    clock.execute(
        "insert into ops.schedules (name, cron, command, expected_interval, description)"
        " values ('commits', '0 2 * * *', %s, '1 day', '')",
        ("call ops.commits('its $x$well')",),
    )
    for number in (1, 2):
        clock.execute("call ops.run('commits')")
        assert clock.execute("select count(*) from public.calls").fetchone() == (2 * number,)
        assert runs(clock, "commits") == [("succeeded", None)] * number
        assert clock.execute(
            "select commits from ops.schedules where name = 'commits'"
        ).fetchone() == (True,)
    clock.execute(
        "update ops.schedules set command = 'call ops.commits(''ill'')' where name = 'commits'"
    )
    with pytest.raises(psycopg.Error, match="not well"):
        clock.execute("call ops.run('commits')")
    assert runs(clock, "commits")[-1] == ("running", None)


@pytest.mark.parametrize(
    "command",
    [
        "call ops.works(); drop table ml.models",
        "call ops.works((select 1))",
        "call ops.works(pg_sleep(1))",
        "call ops.works('a' || 'b')",
        "drop table ml.models",
        "call ops.works()\n; select 1",
    ],
)
def test_a_schedule_holds_one_plain_call(clock: Conn, command: str) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        clock.execute("update ops.schedules set command = %s where name = 'works'", (command,))


def test_a_bad_cron_expression_is_refused(clock: Conn) -> None:
    for cron in ("* * * *", "60 * * * *", "a b c d e", "*/0 * * * *", "5-1 * * * *"):
        with pytest.raises(psycopg.Error, match="no cron expression") as caught:
            clock.execute("update ops.schedules set cron = %s where name = 'works'", (cron,))
        assert caught.value.diag.sqlstate == "AP703"


@pytest.mark.parametrize(
    ("cron", "at", "due"),
    [
        ("* * * * *", "2026-01-03 12:00:30", "2026-01-03 12:00"),
        ("*/5 * * * *", "2026-01-03 12:04:59", "2026-01-03 12:00"),
        ("0 2 * * *", "2026-01-03 01:59", "2026-01-02 02:00"),
        ("15,45 8-10 * * *", "2026-01-03 12:00", "2026-01-03 10:45"),
        ("0 0 * * 0", "2026-01-07 00:00", "2026-01-04 00:00"),
        ("0 0 * * 7", "2026-01-07 00:00", "2026-01-04 00:00"),
        ("0 0 1 * *", "2026-03-31 00:00", "2026-03-01 00:00"),
        ("0 0 13 * 5", "2026-01-10 00:00", "2026-01-09 00:00"),
        ("0 0 29 2 *", "2026-06-01 00:00", None),
    ],
)
def test_cron_last_due(db_module: Conn, cron: str, at: str, due: str | None) -> None:
    row = db_module.execute(
        "select to_char(ops.cron_last_due(%s, %s::timestamptz) at time zone 'UTC', 'YYYY-MM-DD HH24:MI')",
        (cron, at + "Z"),
    ).fetchone()
    assert row == (due,)


@settings(max_examples=30, deadline=None)
@given(
    minute=st.integers(0, 59),
    step=st.integers(1, 30),
    at=st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),
)
def test_cron_last_due_is_the_last_match(
    db_module: Conn, minute: int, step: int, at: datetime
) -> None:
    row = db_module.execute(
        "select ops.cron_last_due(%s, %s)", (f"{minute}-59/{step} * * * *", at)
    ).fetchone()
    probe = at.replace(second=0, microsecond=0)
    while not (probe.minute >= minute and (probe.minute - minute) % step == 0):
        probe -= timedelta(minutes=1)
    assert row == (probe,)


def test_settings(db: Conn) -> None:
    assert db.execute("select ops.setting('ops.run_timeout')").fetchone() == ("30 minutes",)
    assert db.execute("select ops.setting('no.such', '7')").fetchone() == (7,)
    db.execute("""select ops.set_setting('ops.run_timeout', '"1 hour"')""")
    assert db.execute("select ops.setting('ops.run_timeout')").fetchone() == ("1 hour",)
    for call, state in (
        ("select ops.setting('no.such')", "AP701"),
        ("select ops.set_setting('no.such', '1')", "AP701"),
        ("select ops.set_setting('ops.run_timeout', '1')", "AP702"),
        ("select ops.set_setting('ops.run_timeout', null)", "AP702"),
        ("""select ops.set_setting('ops.run_timeout', '"soon"')""", "AP702"),
    ):
        with pytest.raises(psycopg.Error) as caught:
            db.execute(call)
        assert caught.value.diag.sqlstate == state
    db.execute("select ops.set_setting('my.own', '1', 'mine')")
    assert db.execute("select ops.setting('my.own')").fetchone() == (1,)


def test_housekeeping_keeps_what_health_reads(clock: Conn) -> None:
    clock.execute(
        """
        insert into ops.runs (schedule, status, started_at, finished_at)
        select 'works', 'succeeded', t, t from generate_series(
            timestamptz '2026-01-01', '2026-01-02', '1 hour') t;
        insert into market.quarantine (kind, file, line, reason, created_at)
        values ('trades', 'a', 1, 'old', '2025-01-01'), ('trades', 'a', 2, 'new', '2026-05-30');
        call ops.housekeeping('2026-06-01');
        """
    )
    assert clock.execute("select started_at from ops.runs").fetchall() == [
        (datetime(2026, 1, 2, tzinfo=UTC),)
    ]
    assert clock.execute("select reason from market.quarantine").fetchall() == [("new",)]


def test_schedule_retraining(clock: Conn) -> None:
    clock.execute(
        """
        insert into market.instruments (symbol, exchange, native_symbol, base, quote)
        values ('BTCUSDT', 'x', 'BTCUSDT', 'BTC', 'USDT'), ('ETHUSDT', 'x', 'ETHUSDT', 'ETH', 'USDT');
        call ops.schedule_retraining('liquidation_5m', 'btcusdt');
        call ops.schedule_retraining('liquidation_5m', 'ETHUSDT');
        call ops.schedule_retraining('liquidation_15m', null, '0 */6 * * *');
        """
    )
    rows = clock.execute(
        "select name, cron, command from ops.schedules where name like 'retrain:%' order by name"
    ).fetchall()
    assert [name for name, _, _ in rows] == [
        "retrain:liquidation_15m",
        "retrain:liquidation_5m:BTCUSDT",
        "retrain:liquidation_5m:ETHUSDT",
    ]
    assert rows[0][1] == "0 */6 * * *"
    assert rows[1][1].split()[1] == "2"
    assert rows[2][1].split()[1] == "3"
    clock.execute("call ops.run('retrain:liquidation_5m:BTCUSDT')")
    assert clock.execute("select model, symbol from ml.training_jobs").fetchall() == [
        ("liquidation_5m", "BTCUSDT")
    ]


def test_pg_cron_calls_what_the_table_says(
    server: Any, connect_as: Callable[[str, str], Conn]
) -> None:
    """On the server's main database, if it is migrated: one entry per enabled schedule."""
    try:
        conn = psycopg.connect(server.conninfo("alphaplus"), autocommit=True)
    except psycopg.OperationalError:
        pytest.skip("the main database is not there (make migrate); its pg_cron is not tested")
    with conn:
        if conn.execute("select to_regprocedure('ops.sync_schedules()')").fetchone() == (None,):
            pytest.skip("the main database is not migrated; its pg_cron is not tested")
        listed = conn.execute(
            "select substr(jobname, 11), schedule, command, username from cron.job"
            " where jobname like 'alphaplus %' order by 1"
        ).fetchall()
        wanted = conn.execute(
            "select name, cron, format('call ops.run(%L)', name), run_as"
            " from ops.schedules where enabled order by 1"
        ).fetchall()
        assert listed == wanted
        # Every minute it does what is due; ours is as old as make migrate.
        until = time.monotonic() + 130
        ran = (0,)
        while ran == (0,) and time.monotonic() < until:
            time.sleep(1)
            ran = conn.execute(
                "select count(*) from cron.job_run_details d join cron.job j using (jobid)"
                " where j.jobname = 'alphaplus refresh aggregates' and d.status = 'succeeded'"
            ).fetchone() or (0,)
        assert ran > (0,), "pg_cron ran nothing in two minutes"
