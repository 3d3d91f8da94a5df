"""ONNX in the server: scikit-learn's logistic regression and a sequence model."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import psycopg
import pytest
from onnx import TensorProto, helper
from sklearn.linear_model import LogisticRegression

from tests.db import serving as w
from tests.db.serving import at, named, one

Conn = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def world(db_module: Conn) -> Conn:
    w.install(db_module)
    w.store(db_module, w.synthetic(400)[0])
    return db_module


def logistic() -> tuple[bytes, LogisticRegression, w.Array]:
    """(ONNX bytes, the fitted model, fills of missing values)."""
    from skl2onnx import to_onnx

    x, y = w.synthetic(2000)
    fill = np.nanmedian(x, axis=0)
    fitted = LogisticRegression().fit(np.where(np.isnan(x), fill, x), y)
    content = to_onnx(
        fitted, x[:1].astype(np.float32), options={"zipmap": False}, target_opset=17
    ).SerializeToString()
    return content, fitted, fill


def test_logistic_regression(world: Conn) -> None:
    content, fitted, fill = logistic()
    spec = {
        "inputs": {"kind": "row", "features": 28, "output": "probabilities"},
        "output": {"kind": "probability"},
        "scaling": {"center": [0.0] * 28, "scale": [1.0] * 28, "fill": fill.tolist()},
    }
    id_ = w.register(world, content, format="onnx", algorithm="logistic", spec=spec, promote=True)
    x = w.synthetic(400)[0]
    expected = fitted.predict_proba(np.where(np.isnan(x), fill, x))[:, 1]
    many = world.execute(
        "select ts, prediction, version_id from ml.predict_many('fixed',"
        " 'select v.symbol, v.ts from feature.vectors v') order by ts"
    ).fetchall()
    assert [row[0] for row in many] == [at(i) for i in range(400)]
    assert {row[2] for row in many} == {id_}
    np.testing.assert_allclose([row[1] for row in many], expected, atol=1e-6)
    for i in (0, 50, 399):
        live = named(world, "select * from ml.predict('fixed', 'AAA', %s)", at(i))
        assert live.version_id == id_
        assert live.probability == pytest.approx(many[i][1], abs=1e-7)
        stored = one(world, "select prediction from ml.predict_stored('fixed', 'AAA', %s)", at(i))
        assert stored == live.probability
        rows = world.execute("select * from ml.explain('fixed', 'AAA', %s)", (at(i),)).fetchall()
        raw = one(
            world, "select (ml.score_version(%s, %s)).raw", id_,
            [None if v != v else v for v in x[i].tolist()],  # noqa: PLR0124
        )  # fmt: skip
        assert sum(row[2] for row in rows) == pytest.approx(raw, abs=1e-6)  # float32
        # additive model: occlusion is exact
        filled = np.where(np.isnan(x[i]), fill, x[i])
        exact = dict(zip(w.NAMES, fitted.coef_[0] * (filled - fill), strict=True))
        for name, _, contribution in rows[:-1]:
            assert contribution == pytest.approx(exact[name], abs=2e-4)


def test_a_model_with_operators_or_data_from_outside_is_not_registered(world: Conn) -> None:
    graph = helper.make_graph(
        [helper.make_node("Evil", ["x"], ["y"], domain="my.ops")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 28])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
    )
    content = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("my.ops", 1)]
    ).SerializeToString()
    with pytest.raises(psycopg.Error) as caught:
        w.register(world, content, format="onnx")
    assert caught.value.sqlstate == "AP411" and caught.value.diag.message_hint


def sequence_model(length: int) -> bytes:
    """The mean of all values of the sequence; attention: each time's sum."""
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["x"], ["y"], axes=[1, 2], keepdims=0),
            helper.make_node("ReduceMean", ["x"], ["w"], axes=[2], keepdims=0),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", length, 28])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"]),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, ["n", length]),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 9
    onnx.checker.check_model(made)
    content: bytes = made.SerializeToString()
    return content


def test_a_sequence_model_reads_the_last_vectors_and_never_across_a_gap(db: Conn) -> None:
    w.install(db)
    x = np.random.default_rng(1).normal(size=(60, 28))
    w.store(db, x)
    db.execute("delete from feature.vectors where ts = %s", (at(30),))
    # what is not stored is computed where it can be; here it cannot
    db.execute(
        "create or replace function feature._history(feature_set text, version integer, symbol text,"
        ' "from" timestamptz, "to" timestamptz) returns table (canonical text, ts timestamptz,'
        " vector double precision []) language sql stable as $$ select symbol, ts, values from"
        " feature.vectors v where v.symbol = $3 and v.ts >= $4 and v.ts < $5 $$"
    )
    spec = {
        "inputs": {"kind": "sequence", "length": 8, "features": 28, "name": "x", "output": "y",
                   "attention": "w"},
        "output": {"kind": "identity"},
    }  # fmt: skip
    id_ = w.register(
        db, sequence_model(8), "fixed_value", format="onnx", algorithm="transformer", spec=spec,
        promote=True,
    )  # fmt: skip
    ask = "select * from ml.predict('fixed_value', 'AAA', %s)"
    for i in (7, 20, 29, 38, 59):
        found = named(db, ask, at(i))
        assert found.version_id == id_
        assert found.prediction == pytest.approx(x[i - 7 : i + 1].mean(), abs=1e-6)
    for i in (5, 37):
        found = named(db, ask, at(i))
        assert found.is_fallback and "gap in the last 8 vectors" in found.reason
    many = db.execute(
        "select ts, prediction from ml.predict_many('fixed_value',"
        " 'select symbol, ts from feature.vectors') order by ts"
    ).fetchall()
    whole = [i for i in range(7, 60) if not 30 <= i < 38]
    assert [row[0] for row in many] == [at(i) for i in whole]
    expected = [x[i - 7 : i + 1].mean() for i in whole]
    np.testing.assert_allclose([row[1] for row in many], expected, atol=1e-6)
    recorded = one(db, "select ml.record_prediction('fixed_value', 'AAA', %s)", at(20))
    row = named(db, "select * from ml.deep_learning_predictions where id = %s", recorded)
    assert row.model_type == "transformer" and row.input_sequence_length == 8
    np.testing.assert_allclose(row.attention_weights, x[13:21].mean(axis=1), atol=1e-6)
    assert sum(row.feature_contributions.values()) == pytest.approx(row.prediction_value, abs=1e-6)
    assert row.inference_metadata["latency_ms"] > 0
    again = named(db, "select * from ml.replay(%s)", recorded)
    assert again.recorded == again.replayed
