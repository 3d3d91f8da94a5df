"""A model made to harm is refused whoever registers it, and no prediction is deaf to a cancel."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg
import pytest
from onnx import helper

from tests.db import serving as w
from tests.unit.serving import test_poisoned_models as bad

Conn = psycopg.Connection[Any]
SPEC = {
    "inputs": {"kind": "row", "features": w.WIDTH},
    "output": {"kind": "identity"},
}


@pytest.fixture(scope="module")
def world(db_module: Conn) -> Conn:
    w.install(db_module)
    return db_module


def sqlstate(conn: Conn, content: bytes, **changes: Any) -> str | None:
    try:
        w.register(conn, content, "fixed_value", **{"format": "onnx", "spec": SPEC, **changes})
    except psycopg.Error as error:
        assert error.diag.message_hint
        return error.sqlstate
    return None


def wide(*nodes: Any, constants: Any = ()) -> bytes:
    """A model of as many features as the set has."""
    return bad.model(*nodes, constants=constants, inputs=[bad.value("x", shape=("n", w.WIDTH))])


@pytest.mark.parametrize("name", ["loop", "division by -1", "deep tree", "external data"])
def test_the_operator_cannot_register_it(
    world: Conn, connect_as: Callable[[str, str], Conn], name: str
) -> None:
    operator = connect_as("alphaplus_operator", world.info.dbname)
    assert sqlstate(operator, bad.POISON[name]) == "AP411"
    assert world.execute("select 1").fetchone() == (1,)


def test_what_fails_for_every_input_fails_in_its_trial(world: Conn) -> None:
    # The reading lets it in: its shapes are wrong only when it runs.
    content = wide(
        helper.make_node("Add", ["x", "w"], ["s"]),
        helper.make_node("ReduceMean", ["s"], ["y"], axes=[1], keepdims=0),
        constants=[bad.constant("w", np.zeros((5, 3), dtype=np.float32))],
    )
    assert sqlstate(world, content) == "AP411"


def test_a_spec_that_cannot_serve_is_refused(world: Conn) -> None:
    good = wide(bad.mean())
    assert sqlstate(world, good) is None
    for spec in (
        {},
        {"inputs": {"kind": "row", "features": 7}},
        {"inputs": {"kind": "cube", "features": w.WIDTH}},
        {"inputs": {"kind": "sequence", "features": w.WIDTH, "length": 10**9}},
    ):
        assert sqlstate(world, good, spec=spec) == "AP412", spec
    for change in (
        {"scaling": {"center": [0.0], "scale": [1.0], "fill": [0.0]}},
        {"inputs": {**SPEC["inputs"], "output": "nothing"}},
        {"output": {"kind": "exp", "scale": "x"}},
        {"support": {"center": [], "scale": [], "threshold": 0}},
        {"interval": {"kind": "additive", "lower": "low", "upper": 1}},
    ):
        assert sqlstate(world, good, spec={**SPEC, **change}) == "AP411", change


def test_a_text_model_too_deep_is_refused(world: Conn) -> None:
    text = bad.deep_text(2000).replace("max_feature_idx=3", f"max_feature_idx={w.WIDTH - 1}")
    assert sqlstate(world, text.encode(), format="lightgbm") == "AP411"


def test_scoring_with_a_slow_model_heeds_the_statement_timeout(world: Conn) -> None:
    nodes = [helper.make_node("MatMul", ["x", "first"], ["h0"])]
    nodes += [helper.make_node("MatMul", [f"h{i}", "w"], [f"h{i + 1}"]) for i in range(12)]
    nodes.append(helper.make_node("ReduceMean", ["h12"], ["y"], axes=[1], keepdims=0))
    content = wide(
        *nodes,
        constants=[
            bad.constant("first", np.zeros((w.WIDTH, 512), dtype=np.float32)),
            bad.constant("w", np.zeros((512, 512), dtype=np.float32)),
        ],
    )
    version = w.register(world, content, "fixed_value", format="onnx", spec=SPEC)
    world.execute("set statement_timeout = '1 s'")
    began = time.monotonic()
    with pytest.raises(psycopg.errors.QueryCanceled):
        world.execute(
            "select ml.score_many(%s, (select array_agg(array_fill(0::float8, array[28]))"
            " from generate_series(1, 200000)))",
            (version,),
        )
    world.execute("reset statement_timeout")
    # Far less than the minutes that it would take; the machine may be busy.
    assert time.monotonic() - began < 30
