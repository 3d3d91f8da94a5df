"""The serving modules without a database: the cache's bound, the spec's maths, ONNX's refusals."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import onnx
import pytest
from alphaplus.server.serving import score
from alphaplus.server.serving.booster import Booster, BoosterError
from alphaplus.server.serving.model_cache import ModelCache
from alphaplus.server.serving.onnx import OnnxError, Session, check
from alphaplus.trainer import spec as trainer_spec
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

numbers = st.floats(-30, 30)


class Fake:
    def __init__(self, size: int) -> None:
        self.size = size
        self.open = True

    def close(self) -> None:
        assert self.open
        self.open = False


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 60)), max_size=80), st.integers(1, 200))
def test_the_cache_is_bounded_and_least_recently_used(
    calls: list[tuple[int, int]], limit: int
) -> None:
    cache = ModelCache(limit)
    order: list[int] = []  # what an ideal cache holds, least recently used first
    sizes: dict[int, int] = {}
    made: list[Fake] = []
    for key, size in calls:
        if cache.get(key) is None:
            assert key not in order
            model = Fake(size)
            made.append(model)
            cache.put(key, model)
            while order and sum(sizes[k] for k in order) + size > limit:
                order.pop(0)
            sizes[key] = size
        else:
            assert key in order
            order.remove(key)
        order.append(key)
        assert [k for k, _ in cache.status()] == order
        assert cache.size == sum(sizes[k] for k in order)
        assert cache.size <= limit or len(order) == 1
        assert sum(model.open for model in made) == len(order)


@given(numbers, st.floats(-3, 3), st.floats(-3, 3))
def test_platt_is_the_trainers(raw: float, a: float, b: float) -> None:
    spec = {"calibration": {"method": "platt", "a": a, "b": b}}
    found = score._probability(spec)(raw)
    assert found == pytest.approx(
        float(trainer_spec.probability(spec, np.array([raw]))[0]), abs=1e-14
    )


@given(
    numbers,
    st.lists(st.floats(0, 1), min_size=2, max_size=20, unique=True),
    st.lists(st.floats(0, 1), min_size=20, max_size=20),
)
def test_isotonic_is_the_trainers(raw: float, x: list[float], y: list[float]) -> None:
    x = sorted(x)
    if min(np.diff(x)) < 1e-9:
        return
    spec = {"calibration": {"method": "isotonic", "x": x, "y": sorted(y[: len(x)])}}
    found = score._probability(spec)(raw)
    assert found == pytest.approx(
        float(trainer_spec.probability(spec, np.array([raw]))[0]), abs=1e-12
    )


def test_no_heavy_import_on_the_single_row_path() -> None:
    code = (
        "import sys; from alphaplus.server.serving import booster, score; booster.library();"
        " assert not {'numpy', 'lightgbm', 'onnxruntime', 'plpy'} & set(sys.modules), sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": "plpython"})


def test_what_is_no_model_is_refused() -> None:
    for content in (b"", b"tree\nversion=v4\n", b"\x80\x04K\x01.", b"\x00" * 100):
        with pytest.raises(BoosterError):
            Booster(content)
        with pytest.raises(OnnxError):
            check(content)


def model(
    *nodes: Any, width: Any = 2, initializers: tuple[Any, ...] = (), opsets: tuple[Any, ...] = ()
) -> onnx.ModelProto:
    shape = ["n", *width] if isinstance(width, tuple) else ["n", width]
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        list(initializers),
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), *opsets])
    made.ir_version = 9
    return made


SPEC = {"inputs": {"kind": "row", "features": 2}, "output": {"kind": "identity"}}


def test_onnx_that_reaches_outside_itself_is_refused() -> None:
    good = model(helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0))
    check(good.SerializeToString())

    custom = model(
        helper.make_node("Evil", ["x"], ["y"], domain="my.ops"),
        opsets=(helper.make_opsetid("my.ops", 1),),
    )
    with pytest.raises(OnnxError, match=r"custom operators.*my\.ops"):
        check(custom.SerializeToString())

    def outside() -> Any:
        tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2])
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", "/etc/passwd"
        return tensor

    add = helper.make_node("Add", ["x", "w"], ["y"])
    with pytest.raises(OnnxError, match="external data"):
        check(model(add, initializers=(outside(),)).SerializeToString())
    constant = helper.make_node("Constant", [], ["w"], value=outside())
    with pytest.raises(OnnxError, match="external data"):
        check(model(constant, add).SerializeToString())
    # hidden in a branch
    branch = helper.make_graph(
        [constant], "b", [], [helper.make_tensor_value_info("w", TensorProto.FLOAT, [2])]
    )
    chosen = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    with pytest.raises(OnnxError, match="subgraph"):
        Session(model(chosen).SerializeToString(), SPEC)


def test_onnx_with_field_numbers_that_readers_cut_is_refused() -> None:
    # external_data (13) and data_location (14) of an initializer, their keys written with bit 32
    # set: onnxruntime drops that bit and would go for the file.
    def field(key: int, content: bytes) -> bytes:
        return bytes([key << 3 | 2, len(content)]) + content

    entry = field(1, b"location") + field(2, b"/etc/passwd")
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2]).SerializeToString()
    tensor += b"\xea\x80\x80\x80\x10" + bytes([len(entry)]) + entry
    tensor += b"\xf0\x80\x80\x80\x10\x01"
    good = model(helper.make_node("Add", ["x", "w"], ["y"])).SerializeToString()
    with pytest.raises(OnnxError, match="no ONNX model"):
        check(good + field(7, field(5, tensor)))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    try:
        check(content)
    except OnnxError:
        return


def test_scaling_fills_and_scales_before_the_model() -> None:
    identity = model(helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)).SerializeToString()
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    summed = model(
        helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0), initializers=(axes,)
    ).SerializeToString()
    del identity
    spec = {**SPEC, "scaling": {"center": [1.0, 2.0], "scale": [2.0, 4.0], "fill": [5.0, 6.0]}}
    session = Session(summed, spec)
    assert session.raw([3.0, None]) == (3 - 1) / 2 + (6 - 2) / 4
    assert session.many([[3.0, float("nan")], [1.0, 2.0]]).tolist() == [2.0, 0.0]
    rows = session.explain([3.0, None], ["a", "b"])
    assert rows == [("a", 3.0, -1.0), ("b", None, 0.0), ("base", None, 3.0)]


def test_sequences_and_attention() -> None:
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])
    last = helper.make_tensor("last", TensorProto.INT64, [1], [2])
    made = model(
        helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0),
        helper.make_node("ReduceSum", ["x", "last"], ["w"], keepdims=0),
        width=(3, 2),
        initializers=(axes, last),
    )
    made.graph.output.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, None))
    spec = {
        "inputs": {"kind": "sequence", "length": 3, "features": 2, "output": "y", "attention": "w"},
        "output": {"kind": "identity"},
    }
    session = Session(made.SerializeToString(), spec)
    assert session.width == 6
    assert session.raw([1, 2, 3, 4, 5, 6]) == 21
    assert session.attention([1, 2, 3, 4, 5, 6]) == [3, 7, 11]
    with pytest.raises(ValueError, match="another number"):
        session.raw([1, 2])
    rows = session.explain([1, 2, 3, 4, 5, 6], ["a", "b"])
    assert rows == [("b", 6.0, 12.0), ("a", 5.0, 9.0), ("base", None, 0.0)]
