"""All nine algorithms, trained through the queue and served by one function."""

from __future__ import annotations

import datetime as dt
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from alphaplus.trainer import spec as specs
from alphaplus.trainer.artifacts import raw_scores
from alphaplus.trainer.models import ALGORITHMS
from psycopg.types.json import Jsonb

from tests.conftest import Server
from tests.db import lifecycle as toy
from tests.db import market_data as market

Conn = psycopg.Connection[Any]
SYMBOL = "AAAUSDT"
MINUTES = 1500
LENGTH = 6
pytestmark = pytest.mark.deep
DEEP = ("lstm", "gru", "cnn", "transformer")
HORIZONS = (5, 15, 30, 60)
SHORT: dict[str, dict[str, Any]] = {
    **{name: {"rounds": 8} for name in ("lightgbm", "xgboost", "gradient_boosting")},
    "random_forest": {"n_estimators": 8},
    "logistic_regression": {"C": 0.001},
    **{name: {"epochs": 1, "hidden": 8, "sequence_length": LENGTH} for name in DEEP},
}
TARGETS = [*(f"event_{h}m" for h in HORIZONS), "volume_5m"]


@pytest.fixture(scope="module")
def world(db_module: Conn, server: Server) -> dict[tuple[str, str], int]:
    """A day of market, and a version of every algorithm for every horizon and for a volume."""
    db = db_module
    market.fill(db, SYMBOL, MINUTES, seed=5)
    db.execute("call market.refresh_aggregates()")
    for h in HORIZONS:
        db.execute(
            "insert into ml.labels (label, task, kind, horizon, params, description)"
            " values (%s, 'classification', 'liquidation', %s, %s, 'test')",
            (
                f"event_{h}m",
                dt.timedelta(minutes=h),
                Jsonb({"quantile": 0.6, "lookback_days": 0.1}),
            ),
        )
    db.execute(
        "insert into ml.labels (label, task, kind, horizon, description)"
        " values ('volume_5m', 'regression', 'liquidation_volume', '5 min', 'test')"
    )
    db.execute(
        "insert into ml.models (model, label, feature_set, feature_version, expires_after)"
        " select l.label, l.label, 'liquidation', 3, '10000 days' from ml.labels l"
        " where l.description = 'test'"
    )
    db.execute(
        "call feature.materialise('liquidation', %s, %s, %s)",
        (SYMBOL, market.at(0), market.at(MINUTES)),
    )
    jobs = {}
    for target in TARGETS:
        for name in ALGORITHMS:
            row = db.execute(
                "call ml.retrain(%s, %s, as_of => %s, options => %s)",
                (
                    target,
                    SYMBOL,
                    market.at(MINUTES),
                    Jsonb(
                        {
                            "algorithm": name, "params": SHORT[name], "folds": 2, "min_rows": 300,
                            "baselines": target == "event_5m",
                        }
                    ),
                ),
            ).fetchone()  # fmt: skip
            assert row is not None
            jobs[row[0]] = (target, name)
    said = toy.train_all(server.conninfo(db.info.dbname, "alphaplus_trainer"))
    found = db.execute("select job_id, version_id, status, error from ml.jobs").fetchall()
    assert {row[2] for row in found} == {"succeeded"}, (said[-3000:], found)
    return {jobs[row[0]]: row[1] for row in found}


@pytest.mark.parametrize("name", list(ALGORITHMS))
@pytest.mark.parametrize("target", TARGETS)
def test_the_database_predicts_what_the_trainer_does(
    db_module: Conn, world: dict[tuple[str, str], int], target: str, name: str
) -> None:
    db, version_id = db_module, world[target, name]
    db.execute("call ml.promote(%s, 'test', true)", (version_id,))
    row = db.execute(
        "select artifact, spec, format, algorithm from ml.model_versions where version_id = %s",
        (version_id,),
    ).fetchone()
    assert row is not None
    artifact, spec, kind, algorithm = row
    assert algorithm == name
    rows = db.execute(
        "select ts, features from ml.training_set(%s, %s, %s) order by ts",
        (target, SYMBOL, market.at(MINUTES)),
    ).fetchall()
    moments = [at for at, _ in rows]
    x = np.array([features for _, features in rows], dtype=float)
    length = LENGTH if name in DEEP else 1
    for i in (len(rows) // 3, len(rows) // 2 + 7, len(rows) - 1):
        assert moments[i] - moments[i - length + 1] == dt.timedelta(minutes=length - 1)
        one = x[None, i - length + 1 : i + 1] if name in DEEP else x[i : i + 1]
        raw = raw_scores(kind, bytes(artifact), spec, one)
        is_value = target == "volume_5m"
        expected = (specs.value if is_value else specs.probability)(spec, raw)[0]
        scale = spec["output"].get("scale", 1.0)
        got = db.execute(
            "select prediction, version_id, is_fallback, partition_used, confidence"
            " from ml.predict(%s, %s, %s, %s)",
            (target, SYMBOL, moments[i], version_id),
        ).fetchone()
        assert got is not None
        assert got[1:4] == (version_id, False, "symbol")
        assert got[0] == pytest.approx(expected, abs=1e-6 * scale)
        assert 0 <= got[4] <= 1
        # What it says is explained, and adds up.
        parts = db.execute(
            "select feature, contribution from ml.explain(%s, %s, %s, %s)",
            (target, SYMBOL, moments[i], version_id),
        ).fetchall()
        assert len(parts) == x.shape[1] + 1
        whole = raw[0]
        if name == "random_forest" and not is_value:
            whole = 1 / (1 + np.exp(-raw[0]))
        tolerance = 1e-5 if name in DEEP else 1e-9
        assert sum(part for _, part in parts) == pytest.approx(whole, abs=tolerance)


def test_baselines_are_measured_beside_the_model(
    db_module: Conn, world: dict[tuple[str, str], int]
) -> None:
    row = db_module.execute(
        "select metrics -> 'baselines' from ml.model_versions where version_id = %s",
        (world["event_5m", "lightgbm"],),
    ).fetchone()
    assert row is not None
    for name in ("persistence", "linear"):
        found = row[0][name]
        assert 0 <= found["auc_low"] <= found["auc"] <= found["auc_high"] <= 1
        assert found["log_loss"] > 0


def test_deep_predictions_are_recorded_with_their_attention(
    db_module: Conn, world: dict[tuple[str, str], int]
) -> None:
    db = db_module
    at = market.at(MINUTES - 100)
    db.execute("delete from ml.predictions")
    for name in ("transformer", "gru"):
        db.execute("call ml.promote(%s, 'test', true)", (world["event_5m", name],))
        db.execute(
            "select * from ml.record_prediction('event_5m', %s, %s, %s)",
            (SYMBOL, at, world["event_5m", name]),
        )
    seen = dict(
        db.execute(
            "select model_type, (attention_weights, input_sequence_length, feature_contributions,"
            " model_architecture, training_parameters, inference_metadata)"
            " from ml.deep_learning_predictions"
        ).fetchall()
    )
    assert set(seen) == {"transformer", "gru"}
    weights, length, contributions, architecture, parameters, inference = seen["transformer"]
    assert int(length) == LENGTH
    import json

    assert len(json.loads(weights)) == LENGTH
    assert sum(json.loads(weights)) == pytest.approx(1, abs=1e-5)
    assert seen["gru"][0] is None
    assert len(json.loads(contributions)) == 26
    assert json.loads(architecture)["algorithm"] == "transformer"
    assert json.loads(parameters)["hidden"] == 8
    assert json.loads(inference)["latency_ms"] > 0
    replayed = db.execute(
        "select r.recorded, r.replayed from ml.predictions p"
        " cross join lateral ml.replay(p.prediction_id) r"
    ).fetchall()
    assert len(replayed) == 2
    for recorded, again in replayed:
        assert again == recorded


def test_the_order_book_is_forecast(
    db_module: Conn, world: dict[tuple[str, str], int], server: Server
) -> None:
    db = db_module
    at = market.at(MINUTES - 60)
    ask = "select * from ml.forecast_order_book(%s, '1 minute', %s)"
    with db.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        before = cursor.execute(ask, (SYMBOL, at)).fetchone()
        assert before is not None
        assert before["is_fallback"]
        assert "spread: no promoted version" in before["reason"]
        jobs = []
        for kind, name in (("spread", "xgboost"), ("imbalance", "lstm"), ("mid", "lightgbm")):
            row = db.execute(
                "call ml.retrain(%s, %s, as_of => %s, options => %s)",
                (
                    f"order_book_{kind}_1m", SYMBOL, at,
                    Jsonb({"algorithm": name, "params": SHORT[name], "folds": 2, "min_rows": 300}),
                ),
            ).fetchone()  # fmt: skip
            assert row is not None
            jobs.append(row[0])
        toy.train_all(server.conninfo(db.info.dbname, "alphaplus_trainer"))
        for job in jobs:
            version = toy.job(db, job)
            assert version.status == "succeeded", version.error
            db.execute("call ml.promote(%s, 'test', true)", (version.version_id,))
        # A model keeps for seven days; this one is of 2024.
        found = cursor.execute(ask, (SYMBOL, at)).fetchone()
        assert found is not None
    assert not found["is_fallback"], found["reason"]
    assert found["spread_lower"] <= found["spread_bps"] <= found["spread_upper"]
    assert -1 <= found["imbalance"] <= 1
    assert found["mid_change_lower"] <= found["mid_change_bps"] <= found["mid_change_upper"]
    assert len(set(found["versions"].values())) == 3
    with pytest.raises(psycopg.Error) as refused:
        db.execute("select * from ml.forecast_order_book(%s, '7 minutes', %s)", (SYMBOL, at))
    assert refused.value.sqlstate == "AP507"


@pytest.mark.parametrize(
    ("chance", "volume"), [("gru", "lightgbm"), ("xgboost", "lstm"), ("cnn", "transformer")]
)
def test_the_expected_volume_is_the_volume_models_whatever_both_read(
    db_module: Conn, world: dict[tuple[str, str], int], chance: str, volume: str
) -> None:
    db = db_module
    at = market.at(MINUTES)  # as of which they were trained: before it they do not answer
    with db.transaction(force_rollback=True):
        # The delivered models would come first.
        db.execute("delete from ml.models where model ~ '^liquidation'")
        db.execute("call ml.promote(%s, 'test', true)", (world["event_5m", chance],))
        db.execute("call ml.promote(%s, 'test', true)", (world["volume_5m", volume],))
        row = db.execute(
            "select l.model_version, l.expected_volume, v.prediction"
            " from ml.predict_liquidation(%(s)s, '5 minutes', %(t)s) l,"
            " ml.predict('volume_5m', %(s)s, %(t)s) v",
            {"s": SYMBOL, "t": at},
        ).fetchone()
    assert row is not None
    assert row[0] == world["event_5m", chance]
    assert row[1] == pytest.approx(max(0, row[2]), rel=1e-12)


def test_ten_models_at_once_stay_within_their_memory(
    db_module: Conn, world: dict[tuple[str, str], int], server: Server
) -> None:
    """The nine and another, loaded in one backend: what they take is bounded and told."""
    ids = [world["event_5m", name] for name in ALGORITHMS] + [world["event_15m", "gru"]]
    with psycopg.connect(server.conninfo(db_module.info.dbname), autocommit=True) as conn:
        conn.execute("select ml.warm_versions(%s)", (ids[:1],))
        row = conn.execute("select ml.warm_versions(%s)", (ids,)).fetchone()
        assert row == (10,)
        status = conn.execute(
            "select version_id, bytes, total_bytes, limit_bytes from ml.cache_status()"
        ).fetchall()
        assert {row[0] for row in status} == set(ids)
        assert sum(row[1] for row in status) == status[0][2] <= status[0][3]


def test_a_killed_deep_job_goes_on_from_its_checkpoint(db: Conn, server: Server) -> None:
    toy.install(db)
    toy.fill(db, rows=2500)
    db.execute(
        "update ops.settings set value = '\"2 seconds\"' where name = 'training.lease_timeout'"
    )
    db.execute("delete from ml.training_checkpoints")
    options = {
        "algorithm": "gru",
        "params": {
            "epochs": 60, "patience": 60, "hidden": 16, "sequence_length": 4,
            "checkpoint_seconds": 0,
        },
        "folds": 2,
        "baselines": False,
    }  # fmt: skip
    job = toy.retrain(db, **options)
    conninfo = server.conninfo(db.info.dbname, "alphaplus_trainer")
    first = toy.run_trainer(conninfo, "--poll", "0.3")

    def stages() -> Any:
        return db.execute(
            "select stage, updated_at from ml.training_checkpoints where job_id = %s", (job,)
        ).fetchall()

    toy.until(lambda: any("fold 2" in row[0] for row in stages()))
    toy.kill(first)
    kept = dict(stages())
    second = toy.run_trainer(conninfo, "--poll", "0.3")
    try:
        toy.until(
            lambda: "epoch" in toy.job(db, job).status_text and toy.job(db, job).attempts == 2
        )
        # The first fold was done: its state stays as the killed trainer left it.
        assert dict(stages())["fold 1 probe"] == kept["fold 1 probe"]
        db.execute("select ml.cancel_job(%s)", (job,))
        toy.until(lambda: toy.job(db, job).status == "cancelled")
        assert stages() == [], "an ended job keeps no state"
    finally:
        toy.kill(second)


def test_a_search_keeps_its_trials_in_the_database(db: Conn, server: Server) -> None:
    toy.install(db)
    toy.fill(db, rows=2000)
    job = toy.retrain(db, search={"trials": 4}, params={"rounds": 10}, baselines=False)
    toy.train_all(server.conninfo(db.info.dbname, "alphaplus_trainer"))
    assert toy.job(db, job).status == "succeeded", toy.job(db, job).error
    rows = db.execute(
        "select s.study_name, count(*) from optuna.trials t"
        " join optuna.studies s on s.study_id = t.study_id group by 1"
    ).fetchall()
    assert rows == [(f"job {job}", 4)]
    row = db.execute("select metrics -> 'search' ->> 'trials' from ml.model_versions").fetchone()
    assert row == ("4",)


@pytest.fixture
def ray_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A Ray head of its own on this machine."""
    pytest.importorskip("ray")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    address = f"127.0.0.1:{port}"
    command = [str(Path(sys.executable).with_name("ray"))]
    environment = {
        **os.environ,
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": os.pathsep.join(
            str(toy.ROOT / room) for room in ("plpython", "loaders", "trainer")
        ),
    }
    started = subprocess.run(
        [
            *command, "start", "--head", f"--port={port}", "--num-cpus=2",
            "--include-dashboard=false", "--node-ip-address=127.0.0.1",
            "--object-store-memory=100000000",
        ],
        env=environment, capture_output=True, text=True, timeout=toy.HANG, check=False,
    )  # fmt: skip
    assert started.returncode == 0, started.stdout + started.stderr
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    try:
        yield address
    finally:
        subprocess.run(
            [*command, "stop", "--force"], capture_output=True, timeout=toy.HANG, check=False
        )


def test_a_search_runs_on_ray_where_there_is_one(
    db: Conn, server: Server, ray_cluster: str
) -> None:
    toy.install(db)
    toy.fill(db, rows=2000)
    job = toy.retrain(db, search={"trials": 6}, params={"rounds": 10}, baselines=False)
    said = toy.train_all(server.conninfo(db.info.dbname, "alphaplus_trainer"))
    assert toy.job(db, job).status == "succeeded", (toy.job(db, job).error, said)
    row = db.execute("select metrics -> 'search' from ml.model_versions").fetchone()
    assert row is not None
    assert row[0]["where"] == "ray"
    # Two workers may each begin one more than was asked for.
    assert 6 <= row[0]["trials"] <= 7


def test_three_trainers_share_a_sweep_and_one_is_killed(db: Conn, server: Server) -> None:
    """Every job ends once, whichever trainer dies."""
    toy.install(db)
    toy.fill(db, rows=1500)
    db.execute(
        "update ops.settings set value = '\"2 seconds\"' where name = 'training.lease_timeout'"
    )
    jobs = [
        toy.retrain(db, algorithm=name, seed=seed, params=SHORT[name], folds=2, baselines=False)
        for seed in (1, 2)
        for name in ("lightgbm", "xgboost", "random_forest", "gru")
    ]
    assert len(set(jobs)) == 8
    # Jobs of one line of versions wait for each other, so give them lines of their own.
    toy.fill(db, "BBB", rows=1500, seed=2)
    jobs += [
        toy.retrain(db, symbol="BBB", algorithm=name, params=SHORT[name], folds=2, baselines=False)
        for name in ("lightgbm", "xgboost", "gru")
    ]
    jobs += [toy.retrain(db, symbol=None, params={"rounds": 20}, folds=2, baselines=False)]
    conninfo = server.conninfo(db.info.dbname, "alphaplus_trainer")
    trainers = [toy.run_trainer(conninfo, "--poll", "0.3") for _ in range(3)]
    try:

        def running() -> list[str]:
            rows = db.execute("select worker from ml.jobs where status = 'running'").fetchall()
            return [row[0] for row in rows]

        busy = toy.until(running)
        victim = next(t for t in trainers if busy[0].endswith(f"/{t.pid}"))
        toy.kill(victim)
        ended = "select bool_and(status not in ('queued', 'running')) from ml.jobs"
        toy.until(lambda: db.execute(ended).fetchone() == (True,))
    finally:
        for trainer in trainers:
            if trainer.poll() is None:
                toy.kill(trainer)
    states = db.execute("select job_id, status, error from ml.jobs").fetchall()
    assert {row[1] for row in states} == {"succeeded"}, states
    rows = db.execute("select job_id, count(*) from ml.model_versions group by 1").fetchall()
    assert sorted(rows) == [(job, 1) for job in sorted(jobs)]
    workers = db.execute("select count(distinct worker) from ml.jobs").fetchone()
    assert workers is not None and workers[0] >= 2
