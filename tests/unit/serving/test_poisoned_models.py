"""Models made to harm: refused by their text, and what the reading overlooks ends a child only."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from alphaplus.server.serving import lightgbm_text, onnx_check, trial
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from tests.conftest import DATA

WIDTH = 4
NAMES = [f"f{i}" for i in range(WIDTH)]
SPEC = {"inputs": {"kind": "row", "features": WIDTH}, "output": {"kind": "identity"}}
ROOT = Path(__file__).resolve().parents[3]
CASES = DATA.parent / "cases" / "security"


def value(name: str, kind: int = TensorProto.FLOAT, shape: Any = ("n", WIDTH)) -> Any:
    return helper.make_tensor_value_info(name, kind, list(shape))


def constant(name: str, array: Any) -> Any:
    return numpy_helper.from_array(np.asarray(array), name)


def model(
    *nodes: Any, constants: Any = (), opsets: Any = (("", 17), ("ai.onnx.ml", 3)), **graph: Any
) -> bytes:
    made = helper.make_model(
        helper.make_graph(
            list(nodes), "g", graph.get("inputs", [value("x")]),
            graph.get("outputs", [value("y", shape=("n",))]), initializer=list(constants),
        ),
        opset_imports=[helper.make_opsetid(*one) for one in opsets],
    )  # fmt: skip
    made.ir_version = 9
    content: bytes = made.SerializeToString()
    return content


def mean() -> Any:
    return helper.make_node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=0)


def forest(count: int, **changes: Any) -> bytes:
    """A forest of one chain of so many splits, with some of its lists changed."""
    inner, leaves = range(count), range(count, 2 * count + 1)
    lists: dict[str, Any] = {
        "nodes_treeids": [0] * (2 * count + 1),
        "nodes_nodeids": [*inner, *leaves],
        "nodes_featureids": [0] * (2 * count + 1),
        "nodes_modes": ["BRANCH_LEQ"] * count + ["LEAF"] * (count + 1),
        "nodes_values": [float(-i) for i in inner] + [0.0] * (count + 1),
        "nodes_truenodeids": [i + 1 for i in range(count - 1)] + [2 * count] + [0] * (count + 1),
        "nodes_falsenodeids": [count + i for i in inner] + [0] * (count + 1),
        "target_treeids": [0] * (count + 1), "target_nodeids": list(leaves),
        "target_ids": [0] * (count + 1), "target_weights": [1.0] * (count + 1),
        "n_targets": 1, **changes,
    }  # fmt: skip
    node = helper.make_node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", **lists)
    return model(node, outputs=[value("y", shape=("n", 1))])


def loop(kind: str) -> bytes:
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Identity", ["v"], ["w"])],
        "b", [value("i", TensorProto.INT64, ()), value("c", TensorProto.BOOL, ()), value("v")],
        [value("d", TensorProto.BOOL, ()), value("w")],
    )  # fmt: skip
    if kind == "Loop":
        node = helper.make_node("Loop", ["", "t", "x"], ["y"], body=body)
    elif kind == "If":
        node = helper.make_node("If", ["t"], ["y"], then_branch=body, else_branch=body)
    else:
        node = helper.make_node("Scan", ["x"], ["y"], body=body, num_scan_inputs=1)
    return model(node, constants=[constant("t", np.array(True))])


def outside() -> bytes:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    return model(helper.make_node("Add", ["x", "w"], ["y"]), constants=[tensor])


def whole_numbers(operator: str, at: int) -> bytes:
    return model(
        helper.make_node(operator, ["a", "z"], ["i"]),
        helper.make_node("Cast", ["i"], ["c"], to=1),
        helper.make_node("Add", ["x", "c"], ["y"]),
        constants=[constant("a", np.array([-(2**63)])), constant("z", np.array([at]))],
    )


def huge_tensor() -> bytes:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2**31, 2**31])
    return model(helper.make_node("Add", ["x", "w"], ["y"]), constants=[tensor])


def hidden_function() -> bytes:
    made = helper.make_model(
        helper.make_graph([mean()], "g", [value("x")], [value("y", shape=("n",))]),
        functions=[helper.make_function("ai.onnx", "F", ["a"], ["b"], [], [])],
        opset_imports=[helper.make_opsetid("", 17)],
    )
    content: bytes = made.SerializeToString()
    return content


def from_the_data(operator: str) -> bytes:
    """A tensor as large as the data say."""
    tail = {
        "ConstantOfShape": [helper.make_node("ConstantOfShape", ["s"], ["y"])],
        "Expand": [helper.make_node("Expand", ["x", "s"], ["y"])],
        "Tile": [helper.make_node("Tile", ["x", "s"], ["y"])],
        "Reshape": [helper.make_node("Reshape", ["x", "s"], ["y"])],
    }[operator]
    return model(
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0, axes=[0]),
        helper.make_node("Cast", ["m"], ["s"], to=7),
        *tail,
    )


POISON = {
    "no model": b"\x08\x09",
    "loop": loop("Loop"),
    "branch": loop("If"),
    "scan": loop("Scan"),
    "division by -1": whole_numbers("Div", -1),
    "division by 0": whole_numbers("Div", 0),
    "remainder by 0": whole_numbers("Mod", 0),
    "external data": outside(),
    "huge tensor": huge_tensor(),
    "a function": hidden_function(),
    "shape from data": from_the_data("ConstantOfShape"),
    "expand from data": from_the_data("Expand"),
    "tile from data": from_the_data("Tile"),
    "reshape from data": from_the_data("Reshape"),
    "random": model(helper.make_node("RandomNormalLike", ["x"], ["y"])),
    "not zero": model(helper.make_node("NonZero", ["x"], ["y"])),
    "text": model(helper.make_node("Cast", ["x"], ["y"], to=8)),
    "optional": model(helper.make_node("Optional", ["x"], ["y"])),
    "ring": model(
        helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Add", ["x", "a"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ),
    "twice": model(mean(), mean()),
    "nothing made": model(mean(), outputs=[value("z")]),
    "another width": model(mean(), inputs=[value("x", shape=("n", 7))]),
    "two inputs": model(mean(), inputs=[value("x"), value("q")]),
    "whole numbers": model(mean(), inputs=[value("x", TensorProto.INT64)]),
    "old": model(mean(), opsets=(("", 3),)),
    "new": model(mean(), opsets=(("", 99),)),
    "many": model(
        *[helper.make_node("Relu", [f"r{i}" if i else "x"], [f"r{i + 1}"]) for i in range(10_001)],
        outputs=[value("r5")],
    ),
    "linear, too few weights": model(
        helper.make_node(
            "LinearRegressor", ["x"], ["y"], domain="ai.onnx.ml", coefficients=[1.0], targets=1
        )
    ),
    "linear, too many targets": model(
        helper.make_node(
            "LinearRegressor", ["x"], ["y"], domain="ai.onnx.ml", coefficients=[1.0] * 4,
            targets=10**9,
        )
    ),
    "deep tree": forest(3000),
    "tree: child that is none": forest(3, nodes_falsenodeids=[3, 4, 99, 0, 0, 0, 0]),
    "tree: ring": forest(3, nodes_truenodeids=[1, 2, 0, 0, 0, 0, 0]),
    "tree: shared child": forest(3, nodes_falsenodeids=[3, 3, 5, 0, 0, 0, 0]),
    "tree: feature that is none": forest(3, nodes_featureids=[9, 0, 0, 0, 0, 0, 0]),
    "tree: negative feature": forest(3, nodes_featureids=[-1, 0, 0, 0, 0, 0, 0]),
    "tree: output that is none": forest(3, target_ids=[5, 0, 0, 0]),
    "tree: negative output": forest(3, target_ids=[-7, 0, 0, 0]),
    "tree: weight of a split": forest(3, target_nodeids=[0, 4, 5, 6]),
    "tree: lists of other lengths": forest(3, nodes_values=[0.0]),
    "tree: a billion targets": forest(3, n_targets=10**9),
    "tree: unknown mode": forest(3, nodes_modes=["X"] * 3 + ["LEAF"] * 4),
}  # fmt: skip


@pytest.mark.parametrize("name", POISON)
def test_it_is_refused_before_any_library_reads_it(name: str) -> None:
    with pytest.raises(onnx_check.OnnxError) as caught:
        onnx_check.check(POISON[name], WIDTH)
    assert str(caught.value)


@pytest.mark.parametrize("name", ["div_minint", "infinite_loop", "tree_deep_20000"])
def test_the_models_that_ended_every_session(name: str) -> None:
    path = CASES / f"{name}.onnx"
    if not path.exists():
        pytest.skip("the cases are not here")
    with pytest.raises(onnx_check.OnnxError):
        onnx_check.check(path.read_bytes())


def attempt(artifact: bytes, format: str = "onnx", **limits: Any) -> None:
    os.environ["PYTHONPATH"] = str(ROOT / "plpython")
    given = {"seconds": 20, "memory": 2 << 30, **limits}
    trial.attempt(artifact, format, SPEC, NAMES, "regression", **given)


def test_what_is_sound_is_let_in() -> None:
    for content in (model(mean()), forest(100)):
        onnx_check.check(content, WIDTH)
        attempt(content)


def chain(count: int, size: int) -> bytes:
    """A long but harmless calculation."""
    nodes = [helper.make_node("MatMul", ["x", "first"], ["h0"])]
    nodes += [helper.make_node("MatMul", [f"h{i}", "w"], [f"h{i + 1}"]) for i in range(count)]
    nodes.append(helper.make_node("ReduceMean", [f"h{count}"], ["y"], axes=[1], keepdims=0))
    return model(
        *nodes,
        constants=[
            constant("first", np.zeros((WIDTH, size), dtype=np.float32)),
            constant("w", np.zeros((size, size), dtype=np.float32)),
        ],
    )


def test_a_trial_is_bounded_in_time_and_memory() -> None:
    began = time.monotonic()
    with pytest.raises(trial.TrialError, match="longer than 1 s"):
        attempt(chain(4000, 1024), seconds=1)
    assert time.monotonic() - began < 30  # a hang is what this is about
    wide = model(
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Concat", ["s", "s"], ["t"], axis=0),
        helper.make_node("ConstantOfShape", ["t"], ["u"]),
        helper.make_node("ReduceMean", ["u"], ["y"], axes=[1, 2, 3], keepdims=0),
    )
    with pytest.raises(trial.TrialError):
        attempt(wide, memory=400 << 20)


def test_a_crash_in_a_trial_is_an_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # As if the library itself ended the process.
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nkill -SEGV $$\n")
    script.chmod(0o755)
    monkeypatch.setattr(trial, "_interpreter", lambda: str(script))
    with pytest.raises(trial.TrialError, match="SIGSEGV"):
        attempt(model(mean()))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_change_of_a_byte_gets_past_both_doors_and_crashes(data: st.DataObject) -> None:
    """What the reading lets in, the library must survive: tried here in this very process."""
    import onnxruntime

    content = bytearray(data.draw(st.sampled_from([model(mean()), forest(3)])))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        onnx_check.check(bytes(content), WIDTH)
    except onnx_check.OnnxError:
        return
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(bytes(content), options)
        session.run(None, {session.get_inputs()[0].name: np.zeros((3, WIDTH), dtype=np.float32)})
    except Exception as error:
        assert str(error)


def test_hostile_text_models() -> None:
    x = np.random.default_rng(1).normal(size=(300, WIDTH))
    text = lightgbm.train(
        {"verbosity": -1, "num_leaves": 4, "num_threads": 1}, lightgbm.Dataset(x, x[:, 0]), 2
    ).model_to_string()
    attempt(text.encode(), "lightgbm")
    lightgbm_text.check(text.encode(), WIDTH)
    with pytest.raises(ValueError, match="features"):
        lightgbm_text.check(text.encode(), WIDTH + 1)
    leaf = next(line for line in text.split("\n") if line.startswith("leaf_value="))
    inf = leaf.split("=")[0] + "=" + " ".join(["inf"] * 4)
    with pytest.raises(ValueError, match=r"finite|tree_sizes"):
        lightgbm_text.check(text.replace(leaf, inf.ljust(len(leaf)), 1).encode(), WIDTH)
    with pytest.raises(ValueError, match="deeper"):
        lightgbm_text.check(deep_text(2000).encode(), WIDTH)


def deep_text(depth: int) -> str:
    """A text model of one chain of splits."""
    lefts = " ".join(str(-i - 1) for i in range(depth))
    rights = " ".join([*(str(i + 1) for i in range(depth - 1)), str(-depth - 1)])
    zeros = " ".join(["0"] * depth)
    tree = (
        f"Tree=0\nnum_leaves={depth + 1}\nnum_cat=0\nsplit_feature={zeros}\nthreshold={zeros}\n"
        f"decision_type={zeros}\nleft_child={lefts}\nright_child={rights}\n"
        f"leaf_value={zeros} 0\nis_linear=0\nshrinkage=1\n\n\n"
    )
    return (
        "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\n"
        f"max_feature_idx={WIDTH - 1}\nobjective=regression\nfeature_names={' '.join(NAMES)}\n"
        f"feature_infos=none none none none\ntree_sizes={len(tree)}\n\n{tree}end of trees\n\n"
        "parameters:\n\nend of parameters\n"
    )


def test_attributes_by_reference_and_of_other_kinds_are_refused() -> None:
    node = mean()
    node.attribute.append(AttributeProto(name="q", type=AttributeProto.INT, ref_attr_name="z"))
    with pytest.raises(onnx_check.OnnxError):
        onnx_check.check(model(node), WIDTH)
