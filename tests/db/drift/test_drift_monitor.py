"""Monitoring: checks written down, alerts, actions, the outcome stream, estimates."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import lightgbm
import numpy as np
import psycopg
import pytest
from scipy import stats

from tests.db import drift_world as world
from tests.db.drift.test_drift import World, one

Conn = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def toy(db_module: Conn) -> World:
    return World(db_module)


def monitored(toy: World, as_of: Any) -> None:
    toy.db.execute("call drift.monitor(%s)", (as_of,))


def test_drift_is_told_once_and_left_to_the_clock(toy: World) -> None:
    with psycopg.connect(toy.db.info.dsn, password=toy.db.info.password, autocommit=True) as ear:
        ear.execute("listen alphaplus_alerts")
        monitored(toy, toy.end - timedelta(days=2))
        assert one(toy.db, "select count(*) from drift.alerts") == (0,)
        assert list(ear.notifies(timeout=0.2)) == []
        monitored(toy, toy.end)
        heard = [json.loads(n.payload) for n in ear.notifies(timeout=2, stop_after=1)]
    assert len(heard) == 1 and heard[0]["kinds"] == ["drift"]
    rows = toy.db.execute(
        "select kind, severity, first_feature, symbol from drift.alerts"
    ).fetchall()
    assert rows == [("data", "critical", "f1", "AAA")]
    row = one(toy.db, "select severity, message, model from ops.open_alerts")
    assert row[0] == "critical" and "first f1" in row[1] and row[2] == "toy"
    # The clock is the default: drift asks for nothing.
    row = one(toy.db, "select action, state, outcome from drift.actions")
    assert row[0] == "suppressed" and "clock" in row[2]
    assert one(toy.db, "select count(*) from ml.training_jobs") == (0,)
    monitored(toy, toy.end)  # the same rows again
    assert one(toy.db, "select count(*) from drift.alerts") == (1,)


def test_details_summary_and_history(toy: World) -> None:
    monitored(toy, toy.end)
    summary = toy.db.execute(
        "select model, symbol, checks, with_drift, worst, first_feature, suppressed from drift.summary(days => 7)"
    ).fetchall()
    assert summary == [("toy", "AAA", 2, 1, "critical", "f1", 1)]
    rows = toy.db.execute(
        "select ts_to, drifted from drift.history('toy', 'f1') order by ts_to"
    ).fetchall()
    assert [r[1] for r in rows] == [False, True] and rows[1][0] == toy.end
    blamed = toy.db.execute(
        "select feature, blame from drift.blame('toy', 'AAA', as_of => %s)", (toy.end,)
    ).fetchall()
    assert blamed[0][0] == "f1"


def test_one_drift_asks_for_one_retraining(toy: World) -> None:
    db = toy.db
    db.execute(
        "delete from drift.checks; delete from drift.alerts; update ops.alerts set resolved_at = now()"
    )
    db.execute("insert into ml.retraining_policies (model, policy) values ('toy', 'drift')")
    monitored(toy, toy.end)
    row = one(db, "select action, state, job_id from drift.actions")
    assert row[:2] == ("retrain", "running") and row[2] is not None
    monitored(toy, toy.end - timedelta(hours=1))
    monitored(toy, toy.end - timedelta(hours=2))
    actions = db.execute("select action from drift.actions order by action_id").fetchall()
    assert [a[0] for a in actions] == ["retrain", "suppressed", "suppressed"]
    assert one(db, "select count(*) from ml.training_jobs") == (1,)
    db.execute(
        "update ml.training_jobs set status = 'failed', finished_at = now(), error = 'no rows'"
    )
    db.execute("call drift.act()")
    row = one(db, "select state, outcome from drift.actions order by action_id limit 1")
    assert row[0] == "failed" and "no rows" in row[1]
    # With the cooldown over, and drift of severity high: at the next slot.
    db.execute("update drift.actions set at = at - interval '2 days'")
    db.execute("delete from drift.checks")
    db.execute("update drift.thresholds set threshold = 9 where severity = 'critical'")
    monitored(toy, toy.end)
    row = one(
        db,
        "select action, state, due_at > now() from drift.actions order by action_id desc limit 1",
    )
    assert row == ("schedule", "open", True)
    db.execute("update drift.actions set due_at = now() where state = 'open'")
    db.execute("call drift.act()")
    assert one(
        db, "select state, job_id is not null from drift.actions order by action_id desc limit 1"
    ) == ("running", True)


def test_the_outcome_stream_is_watched(toy: World) -> None:
    """A detector on real outcomes: quiet while all is well, told when the world turns round."""
    db = toy.db
    db.execute("call drift.refresh(%s)", (toy.end,))
    row = one(
        db,
        "select count(*), count(target), min(ts) from ml.shadow_predictions where version_id = %s",
        toy.version,
    )
    assert row[0] == row[1] or row[0] - row[1] <= 10  # the last five minutes are not known yet
    assert row[2] >= toy.split  # nothing it was trained on
    # equal to LightGBM's own
    got = dict(
        db.execute(
            "select ts, prediction from ml.shadow_predictions where version_id = %s order by ts limit 50",
            (toy.version,),
        ).fetchall()
    )
    (text,) = one(
        db,
        "select convert_from(artifact, 'UTF8') from ml.model_versions where version_id = %s",
        toy.version,
    )
    import lightgbm

    booster = lightgbm.Booster(model_str=text)
    at = [(t - world.START) // world.MINUTE for t in got]
    assert list(got.values()) == pytest.approx(booster.predict(toy.x[at]).tolist(), abs=1e-12)
    # no validation figure, no detector
    assert one(db, "select count(*) from drift.detectors") == (0,)


def test_the_detector_finds_what_it_says() -> None:
    from alphaplus.server.drift import betting

    rng = np.random.default_rng(8)
    delays = []
    for _ in range(40):
        errors = (rng.random(2000) < 0.6).astype(float)
        *_, alarms = betting.detect([], errors.tolist(), 0.4, 10_000)
        delays.append(alarms[0] + 1)
    assert np.median(delays) <= 85
    # state by state is the same as at once
    state: list[float] = []
    errors = (rng.random(500) < 0.5).astype(float)
    for part in np.split(errors, 10):
        state, value, _ = betting.detect(state, part.tolist(), 0.4, 1e9)
    whole, whole_value, _ = betting.detect([], errors.tolist(), 0.4, 1e9)
    assert state == pytest.approx(whole) and value == pytest.approx(whole_value)


def test_estimates_come_first_and_are_reconciled(toy: World) -> None:
    db = toy.db
    db.execute("call drift.refresh(%s)", (toy.end,))
    day = toy.split + timedelta(days=2)
    rows = {
        metric: (estimate, realised, n, known)
        for metric, estimate, realised, n, known in db.execute(
            "select metric, estimate, realised, predictions, outcomes from drift.estimates where ts = %s",
            (day,),
        ).fetchall()
    }
    p, y = np.array(
        db.execute(
            "select prediction, target from ml.shadow_predictions where ts >= %s and ts < %s order by ts",
            (day, day + timedelta(days=1)),
        ).fetchall(),
        dtype=float,
    ).T
    assert rows["brier"][:2] == pytest.approx(((p * (1 - p)).mean(), ((p - y) ** 2).mean()))
    assert rows["accuracy"][:2] == pytest.approx(
        (np.maximum(p, 1 - p).mean(), ((p >= 0.5) == y).mean())
    )
    loss = -(y * np.log(p) + (1 - y) * np.log(1 - p))
    assert rows["log_loss"][1] == pytest.approx(loss.mean())
    u = stats.mannwhitneyu(p[y == 1], p[y == 0]).statistic
    assert rows["auc"][1] == pytest.approx(u / ((y == 1).sum() * (y == 0).sum()))
    expected = sum(
        p[i] * ((1 - p[p < p[i]]).sum() + ((1 - p[p == p[i]]).sum() - (1 - p[i])) / 2)
        for i in range(len(p))
    )
    assert rows["auc"][0] == pytest.approx(
        expected / (p.sum() * (1 - p).sum() - (p * (1 - p)).sum())
    )
    assert abs(rows["auc"][0] - rows["auc"][1]) < 0.06  # the model is about calibrated
    assert rows["brier"][2] == rows["brier"][3] == len(p)


def test_estimates_of_values_by_what_was_wrong_before(db: Conn) -> None:
    """Of values: the mean squared error that held-out predictions of that size had, bin by bin."""
    rng = np.random.default_rng(14)
    set_id = world.install(db, task="regression")
    rows = 9 * 1440
    x = np.column_stack([world.ar(rng, rows, 0.3) for _ in range(4)])
    y = np.rint(2 * x[:, 0]) + rng.standard_normal(rows) * (1 + (x[:, 0] > 0))
    split = world.START + timedelta(days=7)
    world.store(db, set_id, "AAA", world.START, x, y)
    fitted = lightgbm.train(
        {"objective": "regression", "num_leaves": 4, "verbose": -1, "num_threads": 1},
        lightgbm.Dataset(x[: 7 * 1440], y[: 7 * 1440]),
        5,
    )
    version = world.register(
        db, fitted.model_to_string(), "AAA", world.START, split, rmse=1.6, rmse_high=1.7
    )
    db.execute("call ml.promote(%s, 'a value', true)", (version,))
    # Few distinct predictions: each edge is a prediction itself.
    held = np.rint(2 * fitted.predict(x[: 7 * 1440 : 7])) / 2
    squares = (held - y[: 7 * 1440 : 7]) ** 2
    db.execute(
        "insert into ml.version_predictions (version_id, symbols, ts, symbol, fold, raw,"
        " prediction, target, base_rate) values (%s, '{AAA}', %s, %s, %s, %s, %s, %s, %s)",
        (
            version, [int(i * 60e6) for i in range(len(held))], [1] * len(held), [1] * len(held),
            held.tolist(), held.tolist(), y[: 7 * 1440 : 7].tolist(), [0.0] * len(held),
        ),
    )  # fmt: skip
    db.execute("call drift.take_references()")
    db.execute("call drift.refresh(%s)", (world.START + timedelta(minutes=rows),))
    day = world.START + timedelta(days=8)
    estimate, realised, n = one(
        db,
        "select estimate, realised, predictions from drift.estimates"
        " where ts = %s and metric = 'squared_error'",
        day,
    )
    said = fitted.predict(x[8 * 1440 :])
    values = np.unique(held)
    assert (
        len(values) <= 20
    )  # each with a bin of its own, the next larger one holds what lies between
    by_value = np.array([squares[held == v].mean() for v in values])
    told = by_value[np.minimum(np.searchsorted(values, said), len(values) - 1)]
    assert n >= 1430
    assert estimate == pytest.approx(told[:n].mean(), abs=1e-9)
    assert realised == pytest.approx(((said - y[8 * 1440 :]) ** 2)[: n - 5].mean(), rel=0.02)
    assert abs(estimate - realised) < 0.2 * realised
    # A prediction that is an edge itself belongs below it, as it was counted.
    for value, square in zip(values[:-1], by_value[:-1], strict=True):
        assert one(db, "select drift._expected_square(%s, 'AAA', %s)", version, float(value)) == (
            pytest.approx(square, abs=1e-12),
        )


def test_calibration_by_segment(toy: World) -> None:
    db = toy.db
    db.execute("call drift.refresh(%s)", (toy.end,))
    rows = db.execute(
        "select segment, n, predicted, observed, p_adjusted from drift.calibration('toy', 'AAA', as_of => %s)",
        (toy.end,),
    ).fetchall()
    assert 4 <= len(rows) <= 6 and sum(r[1] for r in rows) <= 7 * 288
    by_feature = db.execute(
        "select segment, n from drift.calibration('toy', 'AAA', 'f1', '5 days', %s)",
        (toy.end - timedelta(days=1),),
    ).fetchall()
    assert len(by_feature) == 4 and "quarter 1" in by_feature[0][0]
    with pytest.raises(psycopg.Error) as caught:
        db.execute("select * from drift.calibration('toy', 'AAA', 'none')")
    assert caught.value.sqlstate == "AP639"


def test_what_fails_is_told(toy: World) -> None:
    db = toy.db
    db.execute("delete from drift.checks")
    db.execute("update drift.binnings set names = names || array['more'] where kind = 'features'")
    with psycopg.connect(db.info.dsn, password=db.info.password, autocommit=True) as other:
        other.execute("call drift.monitor(%s)", (toy.end,))
        row = one(other, "select message from ops.open_alerts where kind = 'monitoring'")
        assert "drift check of toy for AAA failed" in row[0]
    db.execute("update drift.binnings set names = names[:4] where kind = 'features'")
