"""Training through the queue, with a real trainer process and everything that may befall it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import psycopg
import pytest
from alphaplus import migrations as applier
from psycopg import conninfo as pq

from tests.conftest import SecondServer, Server
from tests.db import lifecycle as toy

Connection = psycopg.Connection[Any]
# Fits for minutes unless stopped.
ENDLESS = {"params": {"rounds": 100_000, "early_stopping": 100_000, "learning_rate": 0.0001}}


@pytest.fixture
def world(db: Connection) -> Connection:
    toy.install(db)
    toy.fill(db)
    db.execute(
        "update ops.settings set value = '\"3 seconds\"' where name = 'training.lease_timeout'"
    )
    return db


@pytest.fixture
def as_trainer(server: Server, world: Connection) -> str:
    return server.conninfo(world.info.dbname, "alphaplus_trainer")


@pytest.fixture
def trainer(as_trainer: str) -> Iterator[Callable[..., Any]]:
    """Start trainers; those still running at the end are killed."""
    started = []

    def start(*arguments: str) -> Any:
        process = toy.run_trainer(as_trainer, "--poll", "0.3", *arguments)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            toy.kill(process)


def versions(conn: Connection) -> int:
    row = conn.execute("select count(*) from ml.model_versions").fetchone()
    assert row is not None
    return int(row[0])


def test_from_retrain_to_a_version(world: Connection, as_trainer: str) -> None:
    toy.fill(world, "BBB", rows=1500, seed=2)
    first = toy.retrain(world)
    assert toy.retrain(world) == first, "a second one for the same is the one that waits"
    volume = toy.retrain(world, "toy_volume", auto_promote=True)
    pooled = toy.retrain(world, symbol=None)
    toy.train_all(as_trainer)
    for number in (first, volume, pooled):
        job = toy.job(world, number)
        assert (job.status, job.progress, job.attempts, job.error) == ("succeeded", 1, 1, None)
    row = world.execute(
        "select v.artifact, v.spec, v.metrics, v.fold_metrics, v.importance, v.reference_stats,"
        " v.row_count, v.features, v.created_by, v.code_version, v.library_versions"
        " from ml.model_versions v where job_id = %s",
        (first,),
    ).fetchone()
    assert row is not None
    artifact, spec, metrics, folds, importance, reference, count, features, by, code, libraries = (
        row
    )
    assert (count, features, by) == (3000, toy.FEATURES, "alphaplus_trainer")
    assert code.startswith("sha256:")
    assert {"lightgbm", "numpy", "python"} <= set(libraries)
    # Held-out figures: better than the base rate, not better than the truth.
    x, p, y = toy.toy_rows(3000)
    from sklearn.metrics import roc_auc_score

    best = roc_auc_score(y, p)
    assert 0.9 < (metrics["auc"] - 0.5) / (best - 0.5) < 1.05
    assert metrics["log_loss"] < metrics["baseline"]["log_loss"]
    assert metrics["auc_low"] < metrics["auc"] < metrics["auc_high"]
    assert len(folds) == 3
    assert importance["gain"]["one"] > importance["gain"]["noise"]
    assert set(reference["features"]) == set(toy.FEATURES)
    assert abs(reference["features"]["three"]["null_share"] - 0.1) < 0.03
    # The artifact stands alone: score, calibration and truth agree.
    from alphaplus.trainer import spec as specs

    raw = lightgbm.Booster(model_str=bytes(artifact).decode()).predict(x, raw_score=True)
    calibrated = specs.probability(spec, np.asarray(raw))
    assert np.corrcoef(calibrated, p)[0, 1] > 0.9
    assert spec["export_gap"] <= 1e-5
    # The policy promoted one, the others wait for a person.
    aliases = world.execute("select model, actor from ml.alias_log").fetchall()
    assert aliases == [("toy_volume", "auto_promote")]


def test_the_same_rows_give_the_same_model(world: Connection, as_trainer: str) -> None:
    for _ in range(2):
        toy.retrain(world)
        toy.train_all(as_trainer)
    rows = world.execute(
        "select sha256, training_sha256, metrics from ml.model_versions"
    ).fetchall()
    assert len(rows) == 2
    assert rows[0] == rows[1]


def test_nothing_to_learn_is_not_promoted(world: Connection, as_trainer: str) -> None:
    toy.fill(world, "BBB", signal_strength=0.0, seed=3)
    toy.retrain(world, symbol="BBB", auto_promote=True)
    toy.train_all(as_trainer)
    assert world.execute("select gates_passed from ml.registry").fetchall() == [(False,)]
    assert world.execute("select count(*) from ml.aliases").fetchone() == (0,)


def test_challenger_and_champion_meet_on_the_same_rows(world: Connection, as_trainer: str) -> None:
    toy.retrain(world, auto_promote=True)
    toy.train_all(as_trainer)
    # Same rows, same recipe; another recipe; then rows that the champion has not seen.
    toy.retrain(world)
    toy.retrain(world, params={"rounds": 5})
    toy.train_all(as_trainer)
    toy.fill(world, rows=2000, start=3000, seed=9)
    toy.retrain(world, seed=2)
    toy.train_all(as_trainer)
    rows = world.execute(
        "select metrics #>> '{champion,method}', (metrics #>> '{champion,rows}')::int,"
        " (metrics #>> '{champion,values,rows}')::int, (metrics #>> '{champion,challenger,rows}')::int,"
        " (metrics #>> '{champion,version_id}')::int"
        " from ml.model_versions order by version_id"
    ).fetchall()
    assert [row[0] for row in rows] == [None, "same_recipe", "refitted", "unseen"]
    assert all(row[1] == row[2] == row[3] and row[4] == 1 for row in rows[1:])
    report = world.execute(
        "select passed from ml.gate_report(4) where against = 'champion'"
    ).fetchall()
    assert len(report) == 2


def test_too_little_data_fails_at_once_with_a_word(world: Connection, as_trainer: str) -> None:
    number = toy.retrain(world, symbol="BBB")
    other = toy.retrain(world)
    world.execute(
        'update ml.training_jobs set options = \'{"algorithm": "magic"}\' where job_id = %s',
        (other,),
    )
    toy.train_all(as_trainer)
    job = toy.job(world, number)
    assert (job.status, job.attempts, job.queue_status) == ("failed", 1, "failed")
    assert "0 labelled rows" in job.error
    assert "unknown algorithm 'magic'" in toy.job(world, other).error


def test_attempts_are_bounded(world: Connection, trainer: Callable[..., Any]) -> None:
    world.execute("update ops.settings set value = '2' where name = 'training.max_attempts'")
    world.execute("drop function ml.training_set cascade")
    world.execute("drop function ml._training_bytes cascade")
    number = toy.retrain(world)
    process = trainer()
    job = toy.until(lambda: (j := toy.job(world, number)).status == "failed" and j)
    assert job.attempts == 2
    assert "_training_bytes" in job.error
    assert process.poll() is None, "a bad job must not end the trainer"


def test_a_waiting_job_is_cancelled_at_once(world: Connection, as_trainer: str) -> None:
    number = toy.retrain(world)
    assert world.execute("select ml.cancel_job(%s)", (number,)).fetchone() == ("cancelled",)
    toy.train_all(as_trainer)
    assert toy.job(world, number).status == "cancelled"
    assert versions(world) == 0
    assert world.execute("select ml.cancel_job(%s)", (number,)).fetchone() == ("cancelled",)


@pytest.mark.parametrize("where", ["fitting", "reading"])
def test_a_running_job_is_cancelled(
    world: Connection, trainer: Callable[..., Any], where: str
) -> None:
    if where == "reading":
        world.execute("insert into public.toy_delay values (120)")
    number = toy.retrain(world, **ENDLESS)
    process = trainer()
    toy.until(
        lambda: (
            {"fitting": "fold", "reading": "reading"}[where] in toy.job(world, number).status_text
        )
    )
    assert world.execute("select ml.cancel_job(%s)", (number,)).fetchone() == ("cancelling",)
    toy.until(lambda: toy.job(world, number).status == "cancelled", timeout=20)
    assert versions(world) == 0
    # The trainer goes on with the next.
    world.execute("delete from public.toy_delay")
    again = toy.retrain(world)
    toy.until(lambda: toy.job(world, again).status == "succeeded")
    assert process.poll() is None


def test_sigterm_gives_the_job_back(world: Connection, trainer: Callable[..., Any]) -> None:
    number = toy.retrain(world, **ENDLESS)
    process = trainer()
    toy.until(lambda: "fold" in toy.job(world, number).status_text)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
    job = toy.job(world, number)
    assert (job.status, job.attempts) == ("queued", 0)
    # Its checkpoints are of its own as_of, so that asking anew does not move it.
    assert toy.retrain(world, **ENDLESS) != number
    assert toy.job(world, number).as_of == job.as_of


def test_kill_9_of_the_trainer(world: Connection, trainer: Callable[..., Any]) -> None:
    world.execute("insert into public.toy_delay values (120)")
    number = toy.retrain(world)
    first = trainer()
    toy.until(lambda: "reading" in toy.job(world, number).status_text)
    toy.kill(first)
    world.execute("delete from public.toy_delay")
    second = trainer()
    job = toy.until(lambda: (j := toy.job(world, number)).status == "succeeded" and j)
    assert job.attempts == 2
    assert job.queue_status in ("doing", "succeeded")
    assert versions(world) == 1
    assert second.poll() is None


def test_the_clock_requeues_too(
    world: Connection, trainer: Callable[..., Any], as_trainer: str
) -> None:
    number = toy.retrain(world, **ENDLESS)
    process = trainer()
    toy.until(lambda: "fold" in toy.job(world, number).status_text)
    toy.kill(process)
    assert world.execute("call ml.requeue_stalled()") is not None
    assert toy.job(world, number).status == "running", "its lease has not run out yet"
    toy.until(
        lambda: (
            world.execute("call ml.requeue_stalled()") and toy.job(world, number).status == "queued"
        )
    )
    world.execute("update ml.training_jobs set options = '{}' where job_id = %s", (number,))
    toy.train_all(as_trainer)
    assert toy.job(world, number).status == "succeeded"
    assert versions(world) == 1


def test_a_job_done_twice_leaves_one_version(world: Connection, as_trainer: str) -> None:
    """Two trainers at one job: the one whose lease is gone hands in nothing."""
    import hashlib

    from alphaplus.trainer import data
    from alphaplus.trainer.train import train
    from psycopg.types.json import Jsonb

    number = toy.retrain(world)
    with psycopg.connect(as_trainer, autocommit=True) as conn:

        def claim() -> Any:
            return world.execute(
                "select state, lease::text, job from ml._claim_job(%s, 'me')", (number,)
            ).fetchone()

        def finish(lease: str) -> int:
            row = conn.execute(
                "select ml._finish_job(%s, %s, %s, %s, %s, %s)",
                (
                    number,
                    lease,
                    Jsonb(made.version),
                    made.artifact,
                    hashlib.sha256(made.artifact).digest(),
                    made.out_of_fold,
                ),
            ).fetchone()
            assert row is not None
            return int(row[0])

        state, lease, job = claim()
        assert state == "claimed"
        assert claim()[0] == "busy"
        matrix = data.read_matrix(lambda: psycopg.connect(as_trainer), number, lease, 4)
        folds = data.read_folds(conn, number, lease, matrix)
        made = train(job, matrix, folds, threads=1)
        # Silent for too long: another takes over.
        world.execute(
            "update ml.training_jobs set heartbeat_at = now() - interval '1 hour' where job_id = %s",
            (number,),
        )
        state, other, _ = claim()
        assert state == "claimed"
        assert other != lease
        with pytest.raises(psycopg.Error) as caught:
            finish(lease)
        assert caught.value.sqlstate == "AP311"
        assert conn.execute("select ml._job_progress(%s, %s)", (number, lease)).fetchone() == (
            "lost",
        )
        version = finish(other)
        assert finish(other) == version, "asked twice, it answers the same"
        assert claim()[0] == "done"
    assert versions(world) == 1


def test_two_trainers_share_the_queue(world: Connection, trainer: Callable[..., Any]) -> None:
    toy.fill(world, "BBB", seed=4)
    jobs = [
        toy.retrain(world, m, s, seed=n)
        for n in (1, 2)
        for m in ("toy", "toy_volume")
        for s in ("AAA", "BBB")
    ]
    processes = [trainer("--drain") for _ in range(2)]
    for process in processes:
        assert process.wait(timeout=toy.HANG) == 0
    toy.until(lambda: all(toy.job(world, j).status == "succeeded" for j in jobs))
    assert versions(world) == len(jobs)
    assert all(toy.job(world, j).attempts == 1 for j in jobs)


def test_kill_9_of_the_server(second_server: SecondServer) -> None:
    name = "killed"
    applier.migrate(second_server.server.conninfo(name))
    db = psycopg.connect(second_server.server.conninfo(name), autocommit=True)
    toy.install(db)
    toy.fill(db)
    db.execute(
        "update ops.settings set value = '\"3 seconds\"' where name = 'training.lease_timeout'"
    )
    db.execute("insert into public.toy_delay values (120)")
    reading = toy.retrain(db)
    process = toy.run_trainer(
        second_server.server.conninfo(name, "alphaplus_trainer"), "--poll", "0.3"
    )
    try:
        toy.until(lambda: "reading" in toy.job(db, reading).status_text)
        db.execute("checkpoint")
        db.execute("delete from public.toy_delay")
        db.close()
        second_server.kill9()
        second_server.start()
        db = psycopg.connect(second_server.server.conninfo(name), autocommit=True)
        toy.until(lambda: toy.job(db, reading).status == "succeeded", timeout=90)
        assert versions(db) == 1
        # While it fits: the fit outlives the server, and hands in to the next one.
        fitting = toy.retrain(
            db, params={"rounds": 3000, "early_stopping": 3000, "learning_rate": 0.001}
        )
        toy.until(lambda: "fold" in toy.job(db, fitting).status_text)
        db.execute("select pg_switch_wal()")
        db.close()
        second_server.kill9()
        second_server.start()
        db = psycopg.connect(second_server.server.conninfo(name), autocommit=True)
        toy.until(lambda: toy.job(db, fitting).status == "succeeded", timeout=90)
        assert versions(db) == 2
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    finally:
        if process.poll() is None:
            toy.kill(process)
        db.close()


def test_kill_9_of_the_server_in_a_promotion(second_server: SecondServer) -> None:
    """What was promoted is, what was being promoted is not; and nothing is half."""
    name = "promoted"
    applier.migrate(second_server.server.conninfo(name))
    db = psycopg.connect(second_server.server.conninfo(name), autocommit=True)
    toy.install(db)
    first, second, third = (toy.register(db, artifact=toy.fake_artifact(n)) for n in "abc")
    db.execute("call ml.promote(%s, 'test', true)", (first,))
    db.execute("call ml.promote(%s, 'test', true)", (second,))
    midway = psycopg.connect(second_server.server.conninfo(name))
    midway.execute("call ml.promote(%s, 'test', true)", (third,))
    db.execute("select pg_switch_wal()")
    db.close()
    second_server.kill9()
    second_server.start()
    with pytest.raises(psycopg.Error):
        midway.commit()
    midway.close()
    db = psycopg.connect(second_server.server.conninfo(name), autocommit=True)
    try:
        serves = "select ml.champion('toy', 'AAA'), (select count(*) from ml.alias_history)"
        assert db.execute(serves).fetchone() == (second, 2)
        # The next promotion and the way back go on from there.
        db.execute("call ml.promote(%s, 'test', true)", (third,))
        db.execute("call ml.rollback('toy', 'AAA')")
        assert db.execute(serves).fetchone() == (second, 4)
    finally:
        db.close()


def test_places_are_for_whoever_asked(world: Connection, as_trainer: str) -> None:
    """training.max_concurrent holds for jobs asked for by hand too, over all trainers."""
    from alphaplus.trainer import job as jobs

    world.execute("select ops.set_setting('training.max_concurrent', '1')")
    toy.fill(world, "BBB", seed=4)
    one, two = toy.retrain(world), toy.retrain(world, symbol="BBB")
    with psycopg.connect(as_trainer, autocommit=True) as conn:
        tokens = [jobs.start(conn) for _ in range(2)]
        first = jobs.take(conn, tokens[0])
        assert isinstance(first, jobs.Claimed)
        assert jobs.take(conn, tokens[1]) == "later"
        world.execute("select ops.set_setting('training.max_concurrent', '2')")
        second = jobs.take(conn, tokens[1])
        assert isinstance(second, jobs.Claimed)
        assert {first.job["job_id"], second.job["job_id"]} == {one, two}
        # One whose trainer is silent holds no place.
        three = toy.retrain(world, "toy_volume")
        assert jobs.take(conn, tokens[0]) == "later"
        world.execute(
            "update ml.training_jobs set heartbeat_at = now() - interval '1 hour' where job_id = %s",
            (first.job["job_id"],),
        )
        third = jobs.take(conn, tokens[0])
        assert isinstance(third, jobs.Claimed) and third.job["job_id"] == three
        for token in tokens:
            conn.execute("select ml._trainer_stop(%s)", (token,))


def test_a_champion_from_elsewhere_without_inputs(world: Connection, as_trainer: str) -> None:
    """Its spec says nothing of its inputs: it reads rows, and is compared all the same."""
    import lightgbm

    x, _, y = toy.toy_rows(2000, seed=7)
    text = lightgbm.train(
        {"objective": "binary", "verbose": -1, "num_threads": 1}, lightgbm.Dataset(x, y), 10
    ).model_to_string()
    champion = toy.register(
        world, artifact=text.encode(), spec={}, train_to=(toy.START - timedelta(days=1)).isoformat()
    )
    world.execute("call ml.promote(%s, 'ours', true)", (champion,))
    number = toy.retrain(world)
    toy.train_all(as_trainer)
    assert toy.job(world, number).status == "succeeded", toy.job(world, number).error
    row = world.execute(
        "select metrics -> 'champion' ->> 'method' from ml.model_versions where job_id = %s",
        (number,),
    ).fetchone()
    assert row == ("unseen",)


def test_the_clock_s_procedures(world: Connection, as_trainer: str) -> None:
    world.execute("call ml.train_all(array['toy'], array['AAA'])")
    toy.train_all(as_trainer)
    assert versions(world) == 1
    world.execute("call ml.retrain_due()")
    assert world.execute("select count(*) from ml.training_jobs").fetchone() == (1,)
    world.execute('update ml.models set training = training || \'{"every": "1 microsecond"}\'')
    world.execute("call ml.retrain_due()")
    world.execute("call ml.retrain_due()")
    assert world.execute("select count(*) from ml.training_jobs").fetchone() == (2,)


def test_no_password_is_an_argument(world: Connection, as_trainer: str) -> None:
    """Arguments are everybody's to read: of the trainer and of what it starts."""
    password = str(pq.conninfo_to_dict(as_trainer)["password"])
    job = toy.retrain(world)
    process = toy.run_trainer(as_trainer, "--poll", "0.3")
    seen = set()
    try:
        while toy.job(world, job).status != "succeeded":
            assert process.poll() is None
            for folder in Path("/proc").glob("[0-9]*"):
                try:
                    if os.getsid(int(folder.name)) == process.pid:
                        line = (folder / "cmdline").read_bytes().decode()
                        seen.add(folder.name)
                        assert password not in line
                except OSError:
                    continue
    finally:
        toy.kill(process)
    assert str(process.pid) in seen
    refused = subprocess.run(
        [sys.executable, "-m", "alphaplus.trainer", "--once", "--conninfo", "password=secret"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=toy.HANG,
        check=False,
    )
    assert refused.returncode == 2
    assert "PGPASSFILE" in refused.stderr and "Traceback" not in refused.stderr
