"""Models, versions and trials that are put away or dropped; what is served does not change by the way."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.conftest import Server
from tests.db import lifecycle
from tests.db import serving as w

Conn = psycopg.Connection[Any]


def refused(db: Conn, code: str, query: str, *arguments: Any) -> str:
    with pytest.raises(psycopg.Error) as caught:
        db.execute(query, arguments)
    assert caught.value.sqlstate == code, caught.value
    assert caught.value.diag.message_hint
    return str(caught.value)


@pytest.fixture
def served(db: Conn) -> tuple[Conn, int, int]:
    """A model with a version that was replaced and a champion."""
    w.install(db)
    x, y = w.synthetic()
    w.store(db, x)
    old = w.register(db, w.train(x, y, 5), symbol="AAA", promote=True)
    new = w.register(db, w.train(x, y, 20, seed=2), symbol="AAA", promote=True)
    return db, old, new


def test_a_model_that_is_served_is_not_archived(served: tuple[Conn, int, int]) -> None:
    db, old, new = served
    refused(db, "AP402", "call ml.archive_model('fixed', 'no')")
    archived = db.execute("select version_id from ml.model_versions where archived_at is not null")
    assert archived.fetchall() == []  # all of it or nothing
    assert w.one(db, "select ml.champion('fixed', 'AAA')") == new
    db.execute("call ml.clear_alias('fixed', 'AAA', 'champion')")
    db.execute("call ml.archive_model('fixed', 'no longer wanted')")
    rows = db.execute(
        "select version_id, archived_at is not null, archive_reason from ml.model_versions order by 1"
    ).fetchall()
    assert rows == [(old, True, "no longer wanted"), (new, True, "no longer wanted")]
    with pytest.raises(psycopg.Error, match="archived"):
        db.execute("call ml.promote(%s, 'back', true)", (old,))
    log = "select count(*) from ml.alias_history where action = 'archive'"
    assert w.one(db, log) == 2
    db.execute("call ml.archive_model('fixed', 'again')")  # nothing is left to be done
    assert w.one(db, log) == 2
    refused(db, "AP302", "call ml.archive_model('none')")
    refused(db, "AP302", "call ml.archive_model(null)")


def test_a_model_is_dropped_when_nothing_was_registered(served: tuple[Conn, int, int]) -> None:
    db, _, _ = served
    said = refused(db, "AP436", "call ml.drop_model('fixed')")
    assert "2 versions and 0 jobs" in said
    db.execute(
        "insert into ml.gates (gate, model, metric, comparison, threshold, description) values"
        " ('mine', 'fixed_value', 'rmse', '<=', 1, 'mine')"
    )
    job = w.one(db, "call ml.retrain('fixed_value', 'AAA', as_of => %s)", w.at(500))
    assert "0 versions and 1 jobs" in refused(db, "AP436", "call ml.drop_model('fixed_value')")
    db.execute("select ml.cancel_job(%s)", (job,))
    db.execute("call ml.drop_model('fixed_value')")
    for table in ("models", "gates", "training_jobs", "risk_levels"):
        assert w.one(db, f"select count(*) from ml.{table} where model = 'fixed_value'") == 0
    assert w.one(db, "select count(*) from ml.models where model = 'fixed'") == 1
    refused(db, "AP302", "call ml.drop_model('fixed_value')")


def test_trials_are_read_and_dropped(db: Conn, server: Server) -> None:
    lifecycle.install(db)
    lifecycle.fill(db, "AAA", 500)
    jobs = [
        w.one(
            db, "call ml.retrain('toy', 'AAA', options => %s)",
            Jsonb({"search": {"trials": trials}, "folds": 2}),
        )
        for trials in (3, 2)
    ]  # fmt: skip
    refused(db, "AP437", "call ml.drop_trials(%s)", jobs[0])  # it has not ended
    lifecycle.train_all(server.conninfo(db.info.dbname, "alphaplus_trainer"))
    query = (
        "select job_id, trial, state, loss, params, version_id, finished_at >= started_at"
        " from ml.search_trials order by 1, 2"
    )
    rows = db.execute(query).fetchall()
    assert [(row[0], row[1]) for row in rows] == [
        *((jobs[0], i) for i in (1, 2, 3)), *((jobs[1], i) for i in (1, 2))
    ]  # fmt: skip
    made = dict(db.execute("select job_id, version_id from ml.model_versions").fetchall())
    assert len(made) == 2
    for job in jobs:
        mine = [row for row in rows if row[0] == job]
        assert {row[5] for row in mine} == {made[job]}
        complete = [row for row in mine if row[2] == "complete"]
        assert complete and all(np.isfinite(row[3]) and row[4] and row[6] for row in complete)
        best = min(complete, key=lambda row: row[3])[4]
        params = w.one(db, "select params from ml.model_versions where version_id = %s", made[job])
        assert {name: params[name] for name in best} == pytest.approx(best)
    db.execute("call ml.drop_trials(%s)", (jobs[0],))
    left = db.execute(query).fetchall()
    assert left == [row for row in rows if row[0] == jobs[1]]
    assert w.one(db, "select count(*) from optuna.studies") == 1
    assert w.one(db, "select count(*) from ml.model_versions") == 2  # what was found stays
    db.execute("call ml.drop_trials(%s)", (jobs[0],))  # nothing is left to be done


def test_another_definition_changes_nothing_that_is_served(served: tuple[Conn, int, int]) -> None:
    db, _, new = served
    times = [w.at(minute) for minute in (5, 50, 300)]

    def answers() -> list[Any]:
        return [
            db.execute("select to_jsonb(p) - 'latency_ms' from ml.predict('fixed', 'AAA', %s) p", (at,)).fetchone()
            for at in times
        ]  # fmt: skip

    before = answers()
    about = db.execute("select to_jsonb(r) from ml.registry r order by version_id").fetchall()
    explained = db.execute("select * from ml.explain('fixed', 'AAA', %s)", (times[1],)).fetchall()
    db.execute(
        "insert into feature.sets (name, features, definition, kind, lookback, sha256)"
        " values ('other', array['z'], 'other', 'builtin', '0', sha256('other'))"
    )
    db.execute(
        "update ml.models set params = '{\"max_leaves\": 3}', training = '{\"folds\": 2}',"
        " algorithm = 'xgboost', expires_after = '1 second', feature_set = 'other',"
        " description = 'another one' where model = 'fixed'"
    )
    assert answers() == before
    assert (
        db.execute("select to_jsonb(r) from ml.registry r order by version_id").fetchall() == about
    )
    assert (
        db.execute("select * from ml.explain('fixed', 'AAA', %s)", (times[1],)).fetchall()
        == explained
    )
    assert w.one(db, "select ml.champion('fixed', 'AAA')") == new


def test_a_version_expires_by_its_data_not_by_when_it_was_made(db: Conn) -> None:
    w.install(db)
    x, y = w.synthetic()
    w.store(db, x)
    db.execute("update ml.models set expires_after = '2 hours' where model = 'fixed'")
    version = w.register(
        db, w.train(x, y, 5), symbol="AAA", promote=True,
        train_from=w.at(-60).isoformat(), train_to=w.at(0).isoformat(), as_of=w.at(10).isoformat(),
    )  # fmt: skip
    end = w.at(0) + dt.timedelta(minutes=5)  # the last label's interval ends five minutes later
    expires = w.one(db, "select expires_at from ml.registry where version_id = %s", version)
    assert expires == end + dt.timedelta(hours=2)
    (before,), (after,) = (
        db.execute("select p.is_fallback from ml.predict('fixed', 'AAA', %s) p", (at,)).fetchone() or ()
        for at in (expires - dt.timedelta(minutes=1), expires + dt.timedelta(minutes=1))
    )  # fmt: skip
    assert (before, after) == (False, True)
    status = "select status from ops.health_at(%s) where check_name = 'model'"
    assert w.one(db, status, expires - dt.timedelta(minutes=1)) == "green"
    assert w.one(db, status, expires) == "yellow"
