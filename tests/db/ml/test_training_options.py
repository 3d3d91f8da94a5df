"""What may be asked of training is listed; everything else is refused when it is asked for."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.db import lifecycle as toy

Conn = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def world(db_module: Conn) -> Conn:
    toy.install(db_module)
    return db_module


def refused(conn: Conn, options: Any, model: str = "toy") -> tuple[str | None, str]:
    """(SQLSTATE, hint) of asking for training."""
    with pytest.raises(psycopg.Error) as caught:
        conn.execute("call ml.retrain(%s, 'AAA', options => %s)", (model, Jsonb(options)))
    assert caught.value.diag.message_hint
    return caught.value.sqlstate, caught.value.diag.message_hint


# What reached the libraries: files, sockets and machines of the trainer's; unknown names.
UNKNOWN = [
    {"params": {"forcedsplits_filename": "/etc/shadow"}},
    {"params": {"machines": "127.0.0.1:12400"}},
    {"params": {"machine_list_filename": "/etc/passwd"}},
    {"params": {"local_listen_port": 12400}},
    {"params": {"input_model": "/tmp/m.txt"}},
    {"params": {"output_model": "/tmp/m.txt"}},
    {"params": {"forcedbins_filename": "/etc/hostname"}},
    {"params": {"parser_config_file": "/etc/hostname"}},
    {"params": {"data": "/etc/hostname"}},
    {"params": {"device_type": "gpu"}},
    {"params": {"num_threads": 100000}},
    {"params": {"num_class": 3}},
    {"params": {"num_leafs": 3}},
    {"params": {"seed": 1}},
    {"params": {"eta": 0.1}},
    {"algorithm": "xgboost", "params": {"process_type": "update"}},
    {"algorithm": "xgboost", "params": {"updater": "grow_gpu"}},
    {"algorithm": "xgboost", "params": {"num_leaves": 5}},
    {"algorithm": "random_forest", "params": {"n_jobs": 100000}},
    {"algorithm": "random_forest", "params": {"verbose": 1}},
    {"algorithm": "gradient_boosting", "params": {"interaction_cst": [[0]]}},
    {"algorithm": "logistic_regression", "params": {"solver": "saga"}},
    {"algorithm": "lstm", "params": {"path": "/etc/shadow"}},
    {"search": {"storage": "postgresql://evil"}},
    {"search": {"trials": 3, "space": {"machines": ["a"]}}},
    {"fold": 1},
    {"weights": {"path": "x"}},
]
NO_VALUE = [
    {"algorithm": "catboost"},
    {"algorithm": None},
    {"folds": 1},
    {"folds": 999999999},
    {"folds": "x"},
    {"folds": 2.5},
    {"folds": 0},
    {"lookback": "banana"},
    {"lookback": "ten days"},
    {"lookback": 10},
    {"lookback": "10"},
    {"lookback": "-10 days"},
    {"lookback": "infinity"},
    {"threads": 100000},
    {"threads": -1},
    {"seed": None},
    {"auto_promote": "yes"},
    {"min_rows": -1},
    {"calibration": "beta"},
    {"params": [1]},
    {"search": 5},
    {"search": {"trials": -1}},
    {"search": {"minutes": "x"}},
    {"search": {"space": {"num_leaves": ["log_int", 2, 10**9]}}},
    {"search": {"space": {"num_leaves": ["log_int", 60, 2]}}},
    {"search": {"space": {"num_leaves": []}}},
    {"search": {"space": {"num_leaves": ["int", "a", "b"]}}},
    {"params": {"rounds": -5}},
    {"params": {"rounds": 10**9}},
    {"params": {"rounds": 1e308}},
    {"params": {"num_leaves": 10**8}},
    {"params": {"num_leaves": 7.5}},
    {"params": {"num_leaves": "7"}},
    {"params": {"max_bin": 10**7}},
    {"params": {"learning_rate": 0}},
    {"params": {"learning_rate": "fast"}},
    {"params": {"objective": "multiclass"}},
    {"params": {"objective": "regression"}},
    {"params": {"objective": "/etc/shadow"}},
    {"params": {"boosting": "rf"}},
    {"algorithm": "gru", "params": {"device": "cuda:/etc"}},
    {"algorithm": "gru", "params": {"hidden": 10**9}},
    {"sequence_length": 10**6},
    {"weights": {"half_life": "soon"}},
]


@pytest.mark.parametrize("options", UNKNOWN, ids=json.dumps)
def test_what_is_not_listed_reaches_no_library(world: Conn, options: Any) -> None:
    assert refused(world, options)[0] == "AP420"


@pytest.mark.parametrize("options", NO_VALUE, ids=json.dumps)
def test_values_have_types_and_bounds(world: Conn, options: Any) -> None:
    assert refused(world, options)[0] == "AP421"


def test_the_nearest_right_name_is_said(world: Conn) -> None:
    assert "num_leaves" in refused(world, {"params": {"num_leafs": 3}})[1].split("?")[0]
    assert "folds" in refused(world, {"fold": 3})[1].split("?")[0]
    assert "lookback" in refused(world, {"look_back": "1 day"})[1].split("?")[0]


def test_limits_are_settings(world: Conn) -> None:
    limits = {
        "max_rounds": {"params": {"rounds": 50}}, "max_leaves": {"params": {"num_leaves": 50}},
        "max_bins": {"params": {"max_bin": 50}}, "max_folds": {"folds": 20},
        "max_threads": {"threads": 20}, "max_trials": {"search": {"trials": 20}},
        "max_minutes": {"search": {"minutes": 20}},
        "max_epochs": {"algorithm": "gru", "params": {"epochs": 20}},
    }  # fmt: skip
    for name, options in limits.items():
        with world.transaction(force_rollback=True):
            world.execute("call ml.retrain('toy', 'AAA', options => %s)", (Jsonb(options),))
            world.execute(
                "update ops.settings set value = '10' where name = %s", (f"training.{name}",)
            )
            state, hint = refused(world, options)
            assert state == "AP421" and f"training.{name}" in hint


def test_a_model_is_looked_at_when_it_is_written_down(world: Conn) -> None:
    for algorithm, params, training, state in (
        ("lightgmb", {}, {}, "AP421"),
        ("lightgbm", {"num_leafs": 8}, {}, "AP420"),
        ("lightgbm", {"num_leaves": -8}, {}, "AP421"),
        ("lightgbm", {}, {"fold": 3}, "AP420"),
        ("lightgbm", {}, {"folds": 1}, "AP421"),
        ("lightgbm", [], {}, "AP421"),
    ):
        with pytest.raises(psycopg.Error) as caught:
            world.execute(
                "insert into ml.models"
                " (model, label, feature_set, feature_version, algorithm, params, training)"
                " values ('bad', 'toy', 'toy', 1, %s, %s, %s)",
                (algorithm, Jsonb(params), Jsonb(training)),
            )
        assert caught.value.sqlstate == state
    with pytest.raises(psycopg.Error) as caught:
        world.execute("update ml.models set params = '{\"machines\": \"x\"}' where model = 'toy'")
    assert caught.value.sqlstate == "AP420"


def test_what_is_listed_is_taken(world: Conn) -> None:
    """Each parameter at the ends of its range, and each choice."""
    rows = world.execute(
        "select algorithm, parameter, type, task, minimum, minimum_excluded, maximum, choices"
        " from ml.training_parameters where algorithm in (select unnest(choices)"
        " from ml.training_parameters where algorithm is null and parameter = 'algorithm')"
    ).fetchall()
    assert len(rows) > 100
    for algorithm, name, kind, task, low, above, high, choices in rows:
        values: list[Any] = [] if choices is None else list(choices)
        if kind in ("integer", "number"):
            values += [low if not above else low + 1e-3]
            values += [] if high is None else [high]
        values = [int(v) if kind == "integer" else v for v in values]
        model = "toy_volume" if task == "regression" else "toy"
        for value in values:
            world.execute(
                "select ml._check_training(%s, coalesce(%s, l.task), '{}', '{}', %s)"
                " from ml.models m join ml.labels l using (label) where m.model = %s",
                ("lightgbm", task, Jsonb({"algorithm": algorithm, "params": {name: value}}), model),
            )


def test_the_delivered_models_are_sound(db: Conn) -> None:
    db.execute(
        "select ml._check_training(m.algorithm, l.task, m.params, m.training)"
        " from ml.models m join ml.labels l using (label)"
    )
