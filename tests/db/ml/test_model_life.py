"""The life of models: comparison, decisions, A/B, schedules, retention, live performance."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from sklearn import metrics

from tests.db import drift_world as world
from tests.db import lifecycle
from tests.db.drift.test_drift import one

Conn = psycopg.Connection[Any]
Floats = NDArray[np.float64]


class Line:
    """A week to train on and a week that follows, f0 and f1 telling of the label; a champion that
    knows only f0."""

    def __init__(self, db: Conn) -> None:
        self.db = db
        rng = np.random.default_rng(11)
        self.set_id = world.install(db)
        rows = 14 * 1440
        self.x = np.column_stack([world.ar(rng, rows, 0.5) for _ in range(4)])
        p = 1 / (1 + np.exp(-1.2 * self.x[:, 0] - 1.5 * self.x[:, 1]))
        self.y = (rng.random(rows) < p).astype(float)
        self.split = world.START + timedelta(days=7)
        self.end = world.store(db, self.set_id, "AAA", world.START, self.x, self.y)
        weak = self.x[: 7 * 1440].copy()
        weak[:, 1:] = rng.normal(size=weak[:, 1:].shape)
        self.weak = self.register(world.booster(weak, self.y[: 7 * 1440]))
        self.good = self.register(world.booster(self.x[: 7 * 1440], self.y[: 7 * 1440]))
        self.twin = self.register(world.booster(weak, self.y[: 7 * 1440], seed=2))

    def register(self, text: str) -> int:
        return world.register(
            self.db, text, "AAA", world.START, self.split, brier=0.2, brier_high=0.2
        )

    def shadows(self) -> None:
        self.db.execute("call ml.record_shadows(%s)", (self.end,))
        self.db.execute("call ml.join_shadow_outcomes(%s)", (self.end,))


@pytest.fixture(scope="module")
def made(db_module: Conn) -> Line:
    line = Line(db_module)
    db_module.execute("call ml.promote(%s, 'first', true)", (line.weak,))
    return line


@pytest.fixture
def line(made: Line) -> Iterator[Line]:
    """The same world for every test: what a test does is undone."""
    with made.db.transaction(force_rollback=True):
        yield made


def refused(db: Conn, call: str, code: str) -> None:
    with pytest.raises(psycopg.Error) as caught, db.transaction():
        db.execute(call)
    assert caught.value.sqlstate == code
    assert caught.value.diag.message_hint


def capital(d: Floats) -> Floats:
    """The mixture's capital, written out."""
    wealth = [np.cumprod(1 + bet * d) for bet in (0.05, 0.1, 0.2, 0.4, 0.6)]
    found: Floats = np.mean(wealth, axis=0)
    return found


def test_compare_is_what_it_says(line: Line) -> None:
    db = line.db
    db.execute("call ml.set_alias(%s, 'challenger')", (line.good,))
    line.shadows()
    import lightgbm

    at = np.arange(7 * 1440 + 4, 14 * 1440 - 4)  # from its as_of on, with known outcomes
    times = [world.START + int(i) * world.MINUTE for i in at]
    apart = np.array([t.minute % 5 == 0 for t in times])
    said = {}
    for version in (line.weak, line.good):
        (text,) = one(
            db,
            "select convert_from(artifact, 'UTF8') from ml.model_versions where version_id = %s",
            version,
        )
        said[version] = np.asarray(lightgbm.Booster(model_str=text).predict(line.x[at]))
    d = ((said[line.weak] - line.y[at]) ** 2 - (said[line.good] - line.y[at]) ** 2)[apart]
    row = one(
        db,
        "select pairs, mean_difference, lower, upper, e_better, e_worse, verdict from ml.compare(%s)",
        line.good,
    )
    assert row[0] == len(d)
    assert row[1] == pytest.approx(d.mean(), abs=1e-9)
    assert row[4] == pytest.approx(capital(d).max(), rel=1e-9)
    assert row[2] < row[1] < row[3] and row[2] > 0
    assert row[6] == "better" and row[5] < 40
    # asked the other way round
    other = one(
        db,
        "select verdict, mean_difference from ml.compare(%s, against => %s)",
        line.weak,
        line.good,
    )
    assert other == ("worse", pytest.approx(-row[1]))
    # a look at an earlier time neither changes anything nor is changed by later ones
    early = one(
        db,
        "select pairs, verdict from ml.compare(%s, until => %s)",
        line.good,
        line.split + timedelta(hours=2),
    )
    assert early[0] < 40 and early[1] == "undecided"


def test_an_equal_one_stays_a_challenger_a_better_one_is_promoted(line: Line) -> None:
    db = line.db
    db.execute("call ml.set_alias(%s, 'challenger')", (line.twin,))
    line.shadows()
    for _ in range(5):
        db.execute("call ml.decide()")
    assert one(db, "select count(*) from ml.decisions") == (0,)
    assert one(db, "select ml.champion('toy', 'AAA')") == (line.weak,)
    db.execute("call ml.set_alias(%s, 'challenger')", (line.good,))
    line.shadows()
    db.execute("call ml.decide()")
    assert one(db, "select ml.champion('toy', 'AAA')") == (line.good,)
    row = one(
        db,
        "select decision, version_id, against_id, reason, evidence ->> 'verdict' from ml.decisions",
    )
    assert (
        row[:3] == ("promote", line.good, line.weak) and "better" in row[3] and row[4] == "better"
    )
    # did it help?
    line.shadows()
    row = one(db, "select verdict, benefit > 0, cause from ml.retraining_benefit")
    assert row == ("helped", True, "clock or by hand")
    # what was replaced goes on being recorded
    assert one(db, "select part from ml.shadowed where version_id = %s", line.weak) == ("replaced",)


def test_a_worse_challenger_is_refused_and_the_record_says_why(line: Line) -> None:
    db = line.db
    db.execute("call ml.promote(%s, 'better', true)", (line.good,))
    db.execute("call ml.set_alias(%s, 'challenger')", (line.twin,))
    line.shadows()
    db.execute("call ml.decide()")
    assert one(db, "select ml.champion('toy', 'AAA')") == (line.good,)
    row = one(db, "select decision, version_id, reason from ml.decisions")
    assert row[:2] == ("refuse", line.twin) and "worse" in row[2]
    assert one(db, "select count(*) from ml.aliases where alias = 'challenger'") == (0,)


def test_a_worse_champion_is_taken_back(line: Line) -> None:
    db = line.db
    db.execute("call ml.promote(%s, 'better', true)", (line.good,))
    db.execute("call ml.promote(%s, 'a mistake', true)", (line.twin,))
    line.shadows()
    db.execute("call ml.decide()")
    assert one(db, "select ml.champion('toy', 'AAA')") == (line.good,)
    row = one(db, "select decision, version_id, against_id from ml.decisions")
    assert row == ("rollback", line.twin, line.good)
    assert one(db, "select severity, kind from ops.open_alerts where kind = 'lifecycle'") == (
        "high",
        "lifecycle",
    )
    db.execute("call ml.decide()")
    assert one(db, "select ml.champion('toy', 'AAA')") == (line.good,)
    # by policy it is left alone
    db.execute("call ml.set_policy('toy', rollback => false)")
    db.execute("call ml.promote(%s, 'again', true)", (line.twin,))
    db.execute("call ml.decide()")
    assert one(db, "select ml.champion('toy', 'AAA')") == (line.twin,)


def test_traffic_is_split_by_a_stable_hash(line: Line) -> None:
    db = line.db
    db.execute("call ml.set_alias(%s, 'challenger')", (line.good,))
    callers = [f"customer {i}" for i in range(2000)]

    def assigned() -> dict[str, int]:
        rows = db.execute(
            "select c, (ml.assigned('toy', 'AAA', c)).version_id from unnest(%s::text[]) as c",
            (callers,),
        )
        return dict(rows.fetchall())

    assert set(assigned().values()) == {line.weak}
    db.execute("call ml.split_traffic('toy', 'AAA', 0.3)")
    first = assigned()
    share = np.mean([v == line.good for v in first.values()])
    assert abs(share - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 2000)
    assert assigned() == first
    db.execute("call ml.split_traffic('toy', 'AAA', 0.5)")
    second = assigned()
    # Who has the challenger keeps it when its share grows.
    moved = [c for c in callers if first[c] == line.good and second[c] != line.good]
    assert not moved
    for bad in ("null", "-0.1", "1.5", "'NaN'"):
        refused(db, f"call ml.split_traffic('toy', 'AAA', {bad})", "AP643")


def test_predictions_are_those_of_the_version_assigned(line: Line) -> None:
    """Equal to LightGBM's own of the version that the caller was given."""
    import lightgbm

    db = line.db
    db.execute("call ml.set_alias(%s, 'challenger')", (line.good,))
    db.execute("call ml.split_traffic('toy', 'AAA', 0.4)")
    db.execute(
        "insert into market.candles (symbol, timeframe, ts, known_at, open, high, low, close, volume)"
        " select 'AAA', '1 minute', t, t + interval '1 minute', 1, 1, 1, 1, 1"
        " from generate_series(%s::timestamptz, %s, interval '1 minute') t",
        (line.split, line.split + timedelta(minutes=130)),
    )
    db.execute("delete from feature.pending")  # bars that came late: the vectors hold all the same
    boosters = {
        version: lightgbm.Booster(
            model_str=one(
                db,
                "select convert_from(artifact, 'UTF8') from ml.model_versions where version_id = %s",
                version,
            )[0]
        )
        for version in (line.weak, line.good)
    }
    seen = set()
    for i in range(12):
        at = line.split + timedelta(minutes=100 + i)
        caller = f"customer {i}"
        version, alias = one(
            db, "select version_id, alias from ml.assigned('toy', 'AAA', %s)", caller
        )
        row = one(
            db,
            "select prediction, version_id, alias, as_of from ml.predict_assigned('toy', 'AAA', %s, %s)",
            caller,
            at,
        )
        told = boosters[version].predict(line.x[[7 * 1440 + 100 + i]])[0]
        assert row == (pytest.approx(told, abs=1e-12), version, alias, at)
        seen.add(alias)
    assert seen == {"champion", "challenger"}


def test_schedules_coalesce_and_wait_for_a_place(line: Line) -> None:
    db = line.db
    db.execute("delete from ops.training_schedules")
    db.execute("call ops.set_training_schedule('one', '0 2 * * *', 'toy', 'AAA')")
    db.execute("call ops.set_training_schedule('two', '0 3 * * *', 'toy', 'BBB')")
    db.execute("call ops.set_training_schedule('three', '30 3 * * *', 'toy')")
    db.execute("call ops.set_training_schedule('same', '0 4 * * *', 'toy', 'AAA')")
    db.execute("update ops.training_schedules set updated_at = '2026-03-01 00:00+00'")
    db.execute("call ops.run_training_schedules('2026-03-04 12:00+00')")
    assert one(db, "select count(*) from ops.training_runs") == (0,)  # as delivered: switched off
    db.execute("select ops.set_setting('training.schedules_on', 'true')")
    db.execute("call ops.run_training_schedules('2026-03-04 12:00+00')")

    def runs() -> list[Any]:
        return db.execute(
            "select s.name, r.status, r.missed, r.due_at from ops.training_runs r"
            " join ops.training_schedules s using (schedule_id) order by s.name"
        ).fetchall()

    day = datetime(2026, 3, 4, tzinfo=UTC)
    assert runs() == [
        ("one", "queued", 3, day + timedelta(hours=2)),
        ("same", "waiting", 3, day + timedelta(hours=4)),
        ("three", "waiting", 3, day + timedelta(hours=3, minutes=30)),
        ("two", "queued", 3, day + timedelta(hours=3)),
    ]
    assert one(db, "select count(*) from ml.training_jobs") == (2,)
    # still no place a day later: what waits stays one run
    db.execute("call ops.run_training_schedules('2026-03-05 02:30+00')")
    rows = {r[0]: r for r in runs() if r[1] == "waiting"}
    assert rows["three"][2] == 3 and rows["one"][2] == 0
    db.execute(
        "update ml.training_jobs set status = 'succeeded', finished_at = now() where symbol = 'BBB'"
    )
    db.execute("call ops.run_training_schedules('2026-03-05 02:31+00')")
    by_name: dict[str, list[Any]] = {}
    for name, status, *_ in runs():
        by_name.setdefault(name, []).append(status)
    assert by_name["three"] == ["queued"] and by_name["same"] == ["waiting"]
    db.execute(
        "update ml.training_jobs set status = 'failed', finished_at = now() where symbol is null"
    )
    db.execute("call ops.run_training_schedules('2026-03-05 02:32+00')")
    detail = one(
        db,
        "select r.status, r.detail from ops.training_runs r join ops.training_schedules s"
        " using (schedule_id) where s.name = 'same'",
    )
    assert detail[0] == "skipped" and "at it already" in detail[1]
    calendar = db.execute(
        "select schedule, status from ops.training_calendar('2026-03-04', '2026-03-06')"
    ).fetchall()
    assert ("three", "failed") in calendar and ("same", "skipped") in calendar
    ahead = db.execute(
        "select schedule, at > now() from ops.training_calendar(now(), now() + interval '1 day') where status = 'to come'"
    ).fetchall()
    assert sorted(a[0] for a in ahead) == ["one", "same", "three", "two"] and all(
        a[1] for a in ahead
    )


def test_a_schedule_that_is_refused_is_told(line: Line) -> None:
    db = line.db
    db.execute("delete from ops.training_schedules")
    db.execute(
        "insert into ops.training_schedules (name, cron, model, updated_at)"
        " values ('gone', '0 2 * * *', 'no such model', '2026-03-01')"
    )
    db.execute("select ops.set_setting('training.schedules_on', 'true')")
    db.execute("call ops.run_training_schedules('2026-03-04 12:00+00')")
    assert one(db, "select status from ops.training_runs") == ("failed",)
    assert one(db, "select kind from ops.open_alerts") == ("training",)


def test_a_clock_that_jumps(line: Line) -> None:
    """Forward over many times: one run. Back again: nothing is run twice. And one schedule that
    cannot be read keeps no other from its run."""
    db = line.db
    db.execute("delete from ops.training_schedules")
    db.execute("call ops.set_training_schedule('one', '0 * * * *', 'toy', 'AAA')")
    db.execute(
        "insert into ops.training_schedules (name, cron, model) values ('bad', '99 99 * * *', 'toy')"
    )
    db.execute("update ops.training_schedules set updated_at = '2026-03-01 00:30+00'")
    db.execute("select ops.set_setting('training.schedules_on', 'true')")

    def run(at: str) -> list[Any]:
        db.execute("call ops.run_training_schedules(%s)", (at,))
        return db.execute(
            "select to_char(due_at at time zone 'UTC', 'DD HH24'), missed from ops.training_runs"
            " order by run_id"
        ).fetchall()

    assert run("2026-03-01 01:00+00") == [("01 01", 0)]
    assert run("2026-03-03 12:20+00") == [("01 01", 0), ("03 12", 58)]
    assert run("2026-03-02 06:00+00") == [("01 01", 0), ("03 12", 58)]  # back
    assert run("2026-03-03 12:59+00") == [("01 01", 0), ("03 12", 58)]
    assert len(run("2026-03-03 13:00+00")) == 3
    assert one(db, "select count(*) from ml.training_jobs") == (1,)
    said = db.execute("select message from ops.open_alerts where kind = 'training'").fetchall()
    assert len(said) == 1 and "bad" in said[0][0]


def test_policies_say_who_trains(line: Line) -> None:
    db = line.db
    db.execute("call ml.retrain_due()")
    assert one(db, "select count(*) from ml.training_jobs") == (1,)
    db.execute("delete from ml.training_jobs")
    db.execute("call ml.set_policy('toy', 'drift')")
    db.execute("call ml.retrain_due()")
    assert one(db, "select count(*) from ml.training_jobs") == (0,)
    for bad in ("policy => 'never'", "promotion => 'x'", "alpha => 2", "min_severity => 'info'"):
        refused(db, f"call ml.set_policy('toy', {bad})", "AP642")


def test_live_performance_is_scikit_learns(line: Line) -> None:
    db = line.db
    line.shadows()
    db.execute("call ml.refresh_performance()")
    row = one(
        db,
        "select predictions, outcomes, accuracy, auc, brier, log_loss, ece from ml.live_performance('toy', source => 'shadow')"
        " where version_id = %s",
        line.weak,
    )
    p, y = np.array(
        db.execute(
            "select prediction, target from ml.shadow_predictions where target is not null"
        ).fetchall(),
        dtype=float,
    ).T
    assert row[1] == len(p)
    assert row[2] == pytest.approx(((p >= 0.5) == y).mean())
    assert row[3] == pytest.approx(metrics.roc_auc_score(y, np.floor(p * 100)))
    assert row[4] == pytest.approx(metrics.brier_score_loss(y, p))
    assert row[5] == pytest.approx(metrics.log_loss(y, p))
    cells = np.floor(p * 100).astype(int)
    ece = sum(abs(y[cells == c].sum() - p[cells == c].sum()) for c in np.unique(cells)) / len(p)
    assert row[6] == pytest.approx(ece)
    hours = db.execute(
        "select ts, outcomes from ml.live_performance('toy', source => 'shadow', by_hour => true)"
    ).fetchall()
    assert sum(h[1] for h in hours) == len(p) and len(hours) >= 7 * 24 - 1
    # only what changed is summed again
    db.execute(
        "update ml.shadow_predictions set target = 1 - target where ts = (select max(ts) from ml.shadow_predictions where target is not null)"
    )
    assert one(db, "select count(*) from ml.performance_marks") == (1,)
    db.execute("call ml.refresh_performance()")
    again = one(
        db,
        "select brier from ml.live_performance('toy', source => 'shadow') where version_id = %s",
        line.weak,
    )
    assert again[0] != row[4]


def test_retention_keeps_what_replay_needs(line: Line) -> None:
    db = line.db
    line.shadows()
    db.execute(
        "insert into ml.predictions (as_of, symbol, model, horizon, version_id, prediction, features)"
        " values ('2020-01-01', 'AAA', 'toy', '5 min', %s, 0.5, '{1,2,3,4}')",
        (line.twin,),
    )
    db.execute("call ml.archive(%s)", (line.twin,))
    db.execute("call ml.archive(%s)", (line.good,))
    db.execute("alter table ml.model_versions disable trigger user")
    db.execute(
        "update ml.model_versions set archived_at = '2020-01-02' where archived_at is not null"
    )
    db.execute("alter table ml.model_versions enable trigger user")
    db.execute(
        "update ops.retention set keep = case target when 'predictions' then interval '30 days'"
        " when 'shadow predictions' then interval '7 days' else interval '1 day' end"
    )
    db.execute("call ops.apply_retention(%s)", (line.end + timedelta(days=60),))
    left = [
        r[0] for r in db.execute("select version_id from ml.model_versions order by 1").fetchall()
    ]
    assert left == [line.weak, line.twin]  # the champion, and who made a kept prediction
    assert one(db, "select count(*) from ml.predictions") == (1,)  # switched off as delivered
    assert one(db, "select count(*) from ml.shadow_predictions") == (0,)
    assert one(db, "select count(*) > 0 from feature.vectors") == (True,)
    assert one(db, "select count(*) from ops.open_alerts where kind = 'retention'") == (0,)
    assert one(
        db, "select last_cut_rows from ops.retention where target = 'archived versions'"
    ) == (1,)


def test_a_job_that_always_fails_is_told(line: Line) -> None:
    db = line.db
    job = lifecycle.retrain(db)
    db.execute(
        "update ml.training_jobs set status = 'failed', attempts = 3, error = 'no rows',"
        " finished_at = clock_timestamp() where job_id = %s",
        (job,),
    )
    db.execute("call ml.decide()")
    db.execute("call ml.decide()")
    row = one(db, "select kind, severity, message, occurrences from ops.open_alerts")
    assert row[:2] == ("training", "high") and "no rows" in row[2] and row[3] == 1


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("select ml.compare(-1)", "AP404"),
        ("select ml.compare({good}, alpha => 0)", "AP640"),
        ("select ml.compare({good}, symbol => 'NONE')", "AP101"),
        ("call ops.set_training_schedule('x', 'no cron', 'toy')", "AP703"),
        ("call ops.set_training_schedule('x', '0 2 * * *')", "AP644"),
        ("call ops.set_training_schedule('x', '0 2 * * *', 'toy', options => '[]')", "AP646"),
        ("select ops.cron_next_due('* *', now())", "AP703"),
    ],
)
def test_refused_with_code_and_hint(line: Line, call: str, code: str) -> None:
    refused(line.db, call.format(good=line.good), code)


def test_next_due(db_module: Conn) -> None:
    row = one(
        db_module,
        "select ops.cron_next_due('0 2 * * *', '2026-03-01 02:00+00'), ops.cron_next_due('*/7 * * * *', '2026-03-01 02:56:30+00'),"
        " ops.cron_next_due('0 0 29 2 *', '2026-03-01')",
    )
    assert row == (
        datetime(2026, 3, 2, 2, tzinfo=UTC),
        datetime(2026, 3, 1, 3, 0, tzinfo=UTC),
        None,
    )
