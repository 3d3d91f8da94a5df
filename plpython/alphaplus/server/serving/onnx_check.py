"""ONNX models, read strictly before onnxruntime reads them.

onnxruntime trusts the numbers in a model: a tree 20,000 deep or an integer divided by zero ends the
process, a loop never ends, external data names files. A model is let in only when it consists of
operators whose cost its shapes bound, all of one graph without subgraphs, and when what decides
shapes does not come from the data. What remains (a shape that does not fit, an attribute that
makes no sense) fails for every input alike, and so in :mod:`alphaplus.server.serving.trial`.

Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto (field numbers).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

DOMAINS = {"", "ai.onnx", "ai.onnx.ml"}
# Versions of the standard operators and of those of classical models.
OPSETS = {"": (7, 23), "ai.onnx.ml": (1, 4)}
MOST_NODES = 10_000
MOST_DEPTH = 128
MOST_ELEMENTS = 2**27
FLOAT, INTEGER, BOOLEAN = "float", "integer", "boolean"
# TensorProto.DataType
_KINDS = {1: FLOAT, 10: FLOAT, 11: FLOAT, 6: INTEGER, 7: INTEGER, 9: BOOLEAN}

# Operators by what their output is: of the kind of an input (its number), or of a kind.
_SAME = """
Abs Add AveragePool BatchNormalization Ceil Clip Concat Conv Cos CumSum Div Dropout Elu Erf Exp
Expand Flatten Floor GRU Gather GatherElements Gelu Gemm GlobalAveragePool GlobalMaxPool HardSigmoid
HardSwish Identity InstanceNormalization LSTM LayerNormalization LeakyRelu Log LogSoftmax MatMul Max
MaxPool Mean Min Mish Mul Neg PRelu Pad Pow RNN Reciprocal ReduceL1 ReduceL2 ReduceLogSum
ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape
Round Selu Sigmoid Sign Sin Slice Softmax Softplus Softsign Split Sqrt Squeeze Sub Sum Tan Tanh
ThresholdedRelu Tile Transpose Unsqueeze
"""
OPERATORS: dict[tuple[str, str], int | str] = {
    **dict.fromkeys((("", name) for name in _SAME.split()), 0),
    **{("", name): BOOLEAN for name in (
        "And", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual",
        "Not", "Or", "Xor",
    )},
    **{("", name): INTEGER for name in ("ArgMax", "ArgMin", "Shape", "Size")},
    ("", "Where"): 1,
    # By an attribute: the type that a cast is to, the value of a constant.
    ("", "Cast"): "to",
    ("", "Constant"): "value",
    ("", "ConstantOfShape"): "value",
    ("ai.onnx.ml", "Binarizer"): 0,
    ("ai.onnx.ml", "Imputer"): 0,
    ("ai.onnx.ml", "LinearClassifier"): FLOAT,
    ("ai.onnx.ml", "LinearRegressor"): FLOAT,
    ("ai.onnx.ml", "Normalizer"): FLOAT,
    ("ai.onnx.ml", "Scaler"): FLOAT,
    ("ai.onnx.ml", "TreeEnsembleClassifier"): FLOAT,
    ("ai.onnx.ml", "TreeEnsembleRegressor"): FLOAT,
}  # fmt: skip
# From which input on an operator's inputs are shapes, axes and counts.
_SHAPES = {
    "ConstantOfShape": 0, "CumSum": 1, "Dropout": 1, "Expand": 1, "GRU": 4, "LSTM": 4, "Pad": 1,
    "RNN": 4, "Reshape": 1, "Slice": 1, "Split": 1, "Squeeze": 1, "Tile": 1, "Unsqueeze": 1,
    **dict.fromkeys((n for n in _SAME.split() if n.startswith("Reduce")), 1),
}  # fmt: skip


class OnnxError(ValueError):
    """The model is none, or has what is not let in."""


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise OnnxError("the artifact is no ONNX model: it breaks off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) of a protobuf message: bytes fields as views, the others as numbers."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        if key >> 32:
            # Other readers cut such a key to 32 bits, and would find another field in it.
            raise OnnxError("the artifact is no ONNX model: a field number is too large")
        kind = key & 7
        if kind == 0:
            number, at = _varint(data, at)
            yield key >> 3, number
            continue
        if kind == 2:
            length, at = _varint(data, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise OnnxError("the artifact is no ONNX model: unknown wire type")
        if at + length > len(data):
            raise OnnxError("the artifact is no ONNX model: it breaks off")
        yield key >> 3, data[at : at + length]
        at += length


def _bytes(value: int | memoryview) -> memoryview:
    if not isinstance(value, memoryview):
        raise OnnxError("the artifact is no ONNX model: a message is no message")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_bytes(value)).decode("utf-8", "replace")


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _integers(value: int | memoryview) -> list[int]:
    """Of a repeated integer field: one, or many in one piece."""
    if not isinstance(value, memoryview):
        return [_signed(value)]
    found, at = [], 0
    while at < len(value):
        one, at = _varint(value, at)
        found.append(_signed(one))
    return found


@dataclass
class _Tensor:
    """Name, type (TensorProto.DataType) and number of elements."""

    name: str = ""
    kind: int = 0
    elements: int = 1


@dataclass
class _Attribute:
    """What an attribute holds; ``floats`` is their number only."""

    kind: int = 0
    integer: int = 0
    integers: list[int] = field(default_factory=list)
    floats: int = 0
    strings: list[str] = field(default_factory=list)
    tensor: _Tensor | None = None


@dataclass
class _Node:
    operator: tuple[str, str]
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, _Attribute]


@dataclass
class _Value:
    """What is known of a value: its kind, and whether the data decide it."""

    kind: str
    from_data: bool


def _tensor(data: memoryview) -> _Tensor:
    found = _Tensor()
    for number, value in _fields(data):
        if number == 13 or (number == 14 and value != 0):
            raise OnnxError("the model keeps data outside itself (external data)")
        if number == 1:
            for size in _integers(value):
                if size < 0:
                    raise OnnxError("a tensor of negative size")
                found.elements *= size
                if found.elements > MOST_ELEMENTS:
                    raise OnnxError(f"a tensor of more than {MOST_ELEMENTS} numbers")
        elif number == 2:
            found.kind = int(value) if isinstance(value, int) else 0
        elif number == 8:
            found.name = _text(value)
        elif number == 3:
            raise OnnxError("a tensor in segments")
    if found.kind not in _KINDS:
        raise OnnxError(f"tensors of type {found.kind}: numbers and truth values are let in")
    return found


def _attribute(data: memoryview) -> tuple[str, _Attribute]:
    name, found = "", _Attribute()
    for number, value in _fields(data):
        if number == 1:
            name = _text(value)
        elif number == 20:
            found.kind = int(value) if isinstance(value, int) else 0
        elif number == 3:
            found.integer = _integers(value)[-1]
        elif number == 8:
            found.integers += _integers(value)
        elif number == 7:
            found.floats += len(_bytes(value)) // 4
        elif number == 9:
            found.strings.append(_text(value))
        elif number == 5:
            found.tensor = _tensor(_bytes(value))
        elif number in (6, 11):
            raise OnnxError("the model has a subgraph (a loop, a branch or a scan)")
        elif number in (10, 14, 15, 22, 23):
            raise OnnxError(f"attribute {name!r} is of a kind that is not let in")
        elif number == 21:
            raise OnnxError("an attribute by reference: functions are not let in")
    return name, found


def _node(data: memoryview) -> _Node:
    domain = operator = ""
    inputs, outputs, attributes = [], [], {}
    for number, value in _fields(data):
        if number == 1:
            inputs.append(_text(value))
        elif number == 2:
            outputs.append(_text(value))
        elif number == 4:
            operator = _text(value)
        elif number == 5:
            name, attribute = _attribute(_bytes(value))
            if name in attributes:
                raise OnnxError(f"attribute {name!r} twice")
            attributes[name] = attribute
        elif number == 7:
            domain = _text(value)
    if domain not in DOMAINS:
        raise OnnxError(f"the model uses custom operators (domain {domain!r})")
    domain = "" if domain == "ai.onnx" else domain
    if (domain, operator) not in OPERATORS:
        raise OnnxError(f"operator {operator} is not let in")
    return _Node((domain, operator), inputs, outputs, attributes)


def _dimensions(value_info: memoryview) -> tuple[str, int, list[int | None]]:
    """(name, element type, dimensions) of a ValueInfoProto; None: a dimension without a number."""
    name, kind, dimensions = "", 0, []
    for number, value in _fields(value_info):
        if number == 1:
            name = _text(value)
        elif number == 2:
            for which, type_ in _fields(_bytes(value)):
                if which not in (1, 6):
                    raise OnnxError("inputs and outputs are tensors: no sequences, maps or others"
                                    " (scikit-learn: options={'zipmap': False})")  # fmt: skip
                if which != 1:
                    continue
                for part, inner in _fields(_bytes(type_)):
                    if part == 1:
                        kind = int(inner) if isinstance(inner, int) else 0
                    elif part == 2:
                        for _, dimension in _fields(_bytes(inner)):
                            sizes = [v for n, v in _fields(_bytes(dimension)) if n == 1]
                            dimensions.append(
                                _signed(sizes[-1]) if sizes and isinstance(sizes[-1], int) else None
                            )
    return name, kind, dimensions


def check(content: bytes, features: int | None = None) -> None:
    """Refuse what is no ONNX model, or has what is not let in.

    Args:
        content: the model.
        features: width of its input's last dimension, where that is known.

    Raises:
        OnnxError: with the reason.
    """
    graphs: list[memoryview] = []
    opsets: dict[str, int] = {}
    for number, value in _fields(memoryview(content)):
        if number == 7:
            graphs.append(_bytes(value))
        elif number == 8:
            domain, version = "", 0
            for which, part in _fields(_bytes(value)):
                if which == 1:
                    domain = _text(part)
                elif which == 2:
                    version = _integers(part)[-1]
            if domain not in DOMAINS:
                raise OnnxError(f"the model uses custom operators (domain {domain!r})")
            domain = "" if domain == "ai.onnx" else domain
            low, high = OPSETS[domain]
            if not low <= version <= high:
                raise OnnxError(
                    f"operators of version {version} (domain {domain or 'ai.onnx'!r}):"
                    f" {low} to {high} are let in"
                )
            opsets[domain] = version
        elif number in (20, 25):
            raise OnnxError("training steps and functions are not let in")
    if len(graphs) != 1:
        raise OnnxError("the artifact is no ONNX model: it has no graph, or several")
    _graph(graphs[0], opsets, features)


def _graph(data: memoryview, opsets: dict[str, int], features: int | None) -> None:
    nodes: list[_Node] = []
    values: dict[str, _Value] = {}
    inputs: list[tuple[str, int, list[int | None]]] = []
    outputs: list[str] = []
    for number, value in _fields(data):
        if number == 1:
            nodes.append(_node(_bytes(value)))
            if len(nodes) > MOST_NODES:
                raise OnnxError(f"more than {MOST_NODES} operators")
        elif number == 5:
            tensor = _tensor(_bytes(value))
            values[tensor.name] = _Value(_KINDS[tensor.kind], from_data=False)
        elif number == 11:
            inputs.append(_dimensions(_bytes(value)))
        elif number == 12:
            outputs.append(_dimensions(_bytes(value))[0])
        elif number == 15:
            raise OnnxError("sparse tensors are not let in")
    given = [one for one in inputs if one[0] not in values]
    if len(given) != 1:
        raise OnnxError(f"the model takes {len(given)} inputs: one is needed")
    name, kind, dimensions = given[0]
    if _KINDS.get(kind) != FLOAT or kind == 10:
        raise OnnxError("the model's input is no tensor of float or double")
    width = dimensions[-1] if dimensions else None
    if len(dimensions) not in (2, 3) or (features is not None and width not in (None, features)):
        raise OnnxError(f"the model's input is {dimensions}: rows of {features} features are given")
    values[name] = _Value(FLOAT, from_data=True)
    for node in nodes:
        if node.operator[0] not in opsets:
            raise OnnxError(f"no version of the operators of {node.operator[0] or 'ai.onnx'!r}")
        _apply(node, values, width if features is None else features)
    if not outputs or any(one not in values for one in outputs):
        raise OnnxError("an output that nothing makes")


def _apply(node: _Node, values: dict[str, _Value], width: int | None) -> None:
    """Note what a node makes; refuse what it must not do."""
    name = node.operator[1]
    for one in node.inputs:
        if one and one not in values:
            raise OnnxError(f"{name} takes {one!r}, which nothing before it makes")
    read = [values.get(one, _Value(FLOAT, from_data=False)) for one in node.inputs]
    first = _SHAPES.get(name)
    if first is not None and any(v.from_data for v in read[first:][: 1 if first == 4 else None]):
        raise OnnxError(f"{name}: a shape that the data decide")
    made = _kind(node, read)
    if name == "Div" and any(value.kind != FLOAT for value in read):
        raise OnnxError("Div of whole numbers: a zero would end the process")
    if name.startswith("TreeEnsemble"):
        _trees(node, width)
    elif name.startswith("Linear"):
        _linear(node, width)
    # What shapes are made of does not come from the data.
    from_data = name not in ("Shape", "Size") and any(v.from_data for v in read)
    for one in node.outputs:
        if one and one in values:
            raise OnnxError(f"{one!r} is made twice")
        if one:
            values[one] = _Value(made, from_data)


def _kind(node: _Node, read: list[_Value]) -> str:
    rule = OPERATORS[node.operator]
    if isinstance(rule, int):
        if len(read) <= rule:
            raise OnnxError(f"{node.operator[1]} without its inputs")
        return read[rule].kind
    if rule == "to":
        kind = _KINDS.get(node.attributes["to"].integer if "to" in node.attributes else 0)
        if kind is None:
            raise OnnxError("a cast to what is no number")
        return kind
    if rule == "value":
        names = set(node.attributes) - {"value", "value_float", "value_floats", "value_int",
                                        "value_ints"}  # fmt: skip
        if names:
            raise OnnxError(f"{node.operator[1]} of {min(names)}")
        tensor = node.attributes["value"].tensor if "value" in node.attributes else None
        if tensor is not None:
            return _KINDS[tensor.kind]
        return INTEGER if {"value_int", "value_ints"} & set(node.attributes) else FLOAT
    return rule


def _linear(node: _Node, width: int | None) -> None:
    coefficients = node.attributes.get("coefficients", _Attribute()).floats
    intercepts = node.attributes.get("intercepts", _Attribute()).floats
    targets = node.attributes.get("targets", _Attribute(integer=1)).integer
    rows = targets if node.operator[1] == "LinearRegressor" else max(intercepts, 1)
    if (
        width is None
        or not 1 <= rows <= 1000
        or coefficients != rows * width
        or intercepts not in (0, rows)
    ):
        raise OnnxError(f"{node.operator[1]}: its coefficients do not fit {width} features")
    labels = node.attributes.get("classlabels_ints", _Attribute()).integers
    if node.operator[1] == "LinearClassifier" and len(labels) not in (rows, rows + 1):
        raise OnnxError("LinearClassifier: as many classlabels_ints as classes are needed")


def _trees(node: _Node, width: int | None) -> None:
    """A forest is one: each tree's nodes hang together, none deeper than ``MOST_DEPTH``."""
    regressor = node.operator[1] == "TreeEnsembleRegressor"
    prefix = "target" if regressor else "class"

    def integers(name: str) -> list[int]:
        return node.attributes.get(name, _Attribute()).integers

    def floats(name: str) -> int:
        plain = node.attributes.get(name, _Attribute()).floats
        tensor = node.attributes.get(f"{name}_as_tensor", _Attribute()).tensor
        return plain or (tensor.elements if tensor else 0)

    trees, ids = integers("nodes_treeids"), integers("nodes_nodeids")
    yes, no = integers("nodes_truenodeids"), integers("nodes_falsenodeids")
    used = integers("nodes_featureids")
    modes = node.attributes.get("nodes_modes", _Attribute()).strings
    count = len(trees)
    if not count or any(len(x) != count for x in (ids, yes, no, used, modes)):
        raise OnnxError("a forest whose lists are not of one length")
    if floats("nodes_values") != count or floats("nodes_hitrates") not in (0, count):
        raise OnnxError("a forest whose lists are not of one length")
    if len(integers("nodes_missing_value_tracks_true")) not in (0, count):
        raise OnnxError("a forest whose lists are not of one length")
    place = {key: i for i, key in enumerate(zip(trees, ids, strict=True))}
    if len(place) != count:
        raise OnnxError("a forest with two nodes of one number")
    known = {"BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"}
    parents = [0] * count
    for i, mode in enumerate(modes):
        if mode == "LEAF":
            continue
        if mode not in known:
            raise OnnxError(f"a forest with nodes of mode {mode!r}")
        if width is None or not 0 <= used[i] < width:
            raise OnnxError("a split by a feature that there is not")
        for child in (yes[i], no[i]):
            at = place.get((trees[i], child))
            if at is None:
                raise OnnxError("a split that leads to no node")
            parents[at] += 1
    # The first node of each tree is its root; all others have one parent.
    first: dict[int, int] = {}
    for i, tree in enumerate(trees):
        first.setdefault(tree, i)
    roots = set(first.values())
    if any(parents[i] != (i not in roots) for i in range(count)):
        raise OnnxError("nodes that are no tree")
    seen, depth, level = len(roots), 0, list(roots)
    while level:
        level = [
            place[trees[i], child]
            for i in level if modes[i] != "LEAF" for child in (yes[i], no[i])
        ]  # fmt: skip
        seen += len(level)
        depth += 1
        if depth > MOST_DEPTH + 1:
            raise OnnxError(f"a tree deeper than {MOST_DEPTH}")
    if seen != count:
        raise OnnxError("nodes that are no tree")
    _leaves(node, prefix, place, modes, integers, floats)


def _leaves(
    node: _Node,
    prefix: str,
    place: dict[tuple[int, int], int],
    modes: list[str],
    integers: object,
    floats: object,
) -> None:
    assert callable(integers) and callable(floats)
    trees, ids, outputs = (integers(f"{prefix}_{x}") for x in ("treeids", "nodeids", "ids"))
    if not trees or len(ids) != len(trees) or len(outputs) != len(trees):
        raise OnnxError("a forest whose leaves' lists are not of one length")
    if floats(f"{prefix}_weights") != len(trees):
        raise OnnxError("a forest whose leaves' lists are not of one length")
    if prefix == "target":
        most = node.attributes.get("n_targets", _Attribute(integer=1)).integer
    else:
        most = len(integers("classlabels_int64s"))
    if not 1 <= most <= 1000 or min(outputs) < 0 or max(outputs) >= most:
        raise OnnxError("a leaf of an output that there is not")
    if floats("base_values") not in (0, 1, most):
        raise OnnxError("base values that do not fit the outputs")
    for key in zip(trees, ids, strict=True):
        at = place.get(key)
        if at is None or modes[at] != "LEAF":
            raise OnnxError("a weight of what is no leaf")
