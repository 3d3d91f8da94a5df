"""LightGBM's text models, read strictly before the library reads them.

The library trusts what it is given: a number too few, an index that leads nowhere or a tree that
leads back to itself ends the process that loads the model or never lets it go, and with one backend
PostgreSQL ends the sessions of all. So a text goes to the library only when every line of every
tree is what LightGBM itself writes. Format: ``Tree::ToString``, ``GBDT::SaveModelToString``.
"""

from __future__ import annotations

import math
from typing import Any

_INTEGERS = b"0123456789- "
_NUMBERS = b"0123456789-+.e infa"  # and inf, nan
_LEAST, _MOST = -(2**31), 2**31 - 1
_SMALLEST = 2.0**-1022
# Per tree: how many numbers a line holds (s: one a split, l: one a leaf), and of which kind.
_LINES = {
    "split_feature": ("s", int), "split_gain": ("s", float), "threshold": ("s", float),
    "decision_type": ("s", int), "left_child": ("s", int), "right_child": ("s", int),
    "leaf_value": ("l", float), "leaf_weight": ("l", float), "leaf_count": ("l", int),
    "internal_value": ("s", float), "internal_weight": ("s", float),
    "internal_count": ("s", int), "leaf_const": ("l", float), "num_features": ("l", int),
}  # fmt: skip
_OTHERS = {
    "num_leaves", "num_cat", "cat_boundaries", "cat_threshold", "is_linear", "leaf_features",
    "leaf_coeff", "shrinkage",
}  # fmt: skip
_NEEDED = ("split_feature", "threshold", "decision_type", "left_child", "right_child")


# Of a tree's levels: explaining a prediction goes down them by recursion.
MOST_DEPTH = 256


def check(content: bytes, width: int | None = None) -> None:
    """Refuse a text that the library could not read safely.

    Args:
        content: the text.
        width: how many features it has to take; None: any number.

    Raises:
        ValueError: what is wrong with it.
    """
    if b"\0" in content or b"\r" in content:
        raise ValueError("a control character")
    begin = content.find(b"\nTree=") + 1 or content.find(b"\nend of trees") + 1
    if not content.startswith(b"tree\n") or not begin:
        raise ValueError("no LightGBM text model")
    head = _lines(content[5:begin])
    for key in ("num_class", "num_tree_per_iteration"):
        if head.get(key) != b"1":
            raise ValueError(f"{key} is not 1: a prediction is one number")
    if not head.get("objective", b"none").strip():
        raise ValueError("an objective without a name")
    features = _one(head, "max_feature_idx") + 1
    if not 0 < features <= _MOST:
        raise ValueError("max_feature_idx")
    if width is not None and features != width:
        raise ValueError(f"it takes {features} features, not {width}")
    for size in _integers(head.get("tree_sizes", b"")):
        block = content[begin : begin + max(size, 0)]
        if not block.startswith(b"Tree=") or not block.endswith(b"\n\n"):
            raise ValueError("tree_sizes are not those of the trees")
        number, _, rest = block.partition(b"\n")
        try:
            _tree(_lines(rest.rstrip(b"\n"), every=True), features)
        except ValueError as error:
            raise ValueError(f"{number.decode('ascii', 'replace')}: {error}") from None
        begin += size
    if not content.startswith(b"end of trees\n", begin):
        raise ValueError("it does not end where tree_sizes says")


def averaged(content: bytes) -> int:
    """By how many the sum of the trees is divided: their number in a text that says
    ``average_output`` (``boosting=rf``), else 1.

    The library's raw scores and contributions are sums even then; only its predictions are not.
    """
    head, *trees = content.partition(b"\nend of trees")[0].split(b"\nTree=")
    return max(len(trees), 1) if "average_output" in _lines(head) else 1


def refuse(plpy: Any, content: bytes, width: int) -> None:
    """:func:`check` for the registry (SQLSTATE AP411)."""
    try:
        check(content, width)
    except ValueError as error:
        plpy.error(
            "the artifact is no sound LightGBM text model",
            sqlstate="AP411",
            detail=str(error),
            hint="Use Booster.model_to_string().",
        )


def _lines(block: bytes, *, every: bool = False) -> dict[str, bytes]:
    """The values of a block's lines by name; ``every``: no line may be without one."""
    found: dict[str, bytes] = {}
    for line in block.split(b"\n"):
        name, is_one, value = line.partition(b"=")
        if every and not is_one:
            raise ValueError("a line without =")
        key = name.decode("ascii", "replace")
        if key and key in found:
            raise ValueError(f"{key} twice")
        found[key] = value
    return found


def _integers(value: bytes) -> list[int]:
    if value.translate(None, _INTEGERS):
        raise ValueError("what is no whole number")
    found = [int(x) for x in value.split()]
    if found and not _LEAST <= min(found) <= max(found) <= _MOST:
        raise ValueError("a number too large")
    return found


def _floats(value: bytes) -> list[float]:
    if value.translate(None, _NUMBERS):
        raise ValueError("what is no number")
    found = [float(x) for x in value.split()]
    if b"inf" not in value and any(map(math.isinf, found)):
        raise ValueError("a number too large")
    return found


def _one(lines: dict[str, bytes], key: str) -> int:
    found = _integers(lines.get(key, b""))
    if len(found) != 1:
        raise ValueError(f"{key} is not one number")
    return found[0]


def _tree(lines: dict[str, bytes], features: int) -> None:
    unknown = set(lines) - set(_LINES) - _OTHERS
    if unknown:
        raise ValueError(f"unknown line {min(unknown)}")
    leaves, categorical = _one(lines, "num_leaves"), _one(lines, "num_cat")
    if leaves < 1 or categorical < 0:
        raise ValueError("num_leaves or num_cat")
    numbers: dict[str, list[Any]] = {}
    for key, (per, kind) in _LINES.items():
        if key in lines:
            read = _integers if kind is int else _floats
            found: list[Any] = read(lines[key])
            # A tree of one leaf has its value alone: the library looks at nothing else.
            many = leaves - (per == "s")
            if len(found) != many and not (leaves == 1 and key != "leaf_value"):
                raise ValueError(f"{len(found)} numbers in {key}, {many} are needed")
            numbers[key] = found
    _floats(lines.get("shrinkage", b""))
    if not all(map(math.isfinite, numbers.get("leaf_value", [math.nan]))):
        raise ValueError("a leaf whose value is no finite number")
    if lines.get("is_linear", b"0") not in (b"0", b"1"):
        raise ValueError("is_linear")
    if lines.get("is_linear") == b"1":
        _linear(lines, numbers, leaves, features)
    if leaves > 1:
        _splits(lines, numbers, leaves, categorical, features)


def _splits(
    lines: dict[str, bytes],
    numbers: dict[str, list[Any]],
    leaves: int,
    categorical: int,
    features: int,
) -> None:
    for key in _NEEDED:
        if key not in numbers:
            raise ValueError(f"no {key}")
    used = numbers["split_feature"]
    if min(used) < 0 or max(used) >= features:
        raise ValueError("a split by a feature that there is not")
    kinds, thresholds = numbers["decision_type"], numbers["threshold"]
    if min(kinds) < 0 or max(kinds) > 11 or any(map(math.isnan, thresholds)):
        raise ValueError("decision_type or threshold")
    bounds = _integers(lines.get("cat_boundaries", b""))
    sets = lines.get("cat_threshold", b"").split()
    if b"".join(sets).translate(None, b"0123456789") or max(map(int, sets), default=0) >= 2**32:
        raise ValueError("cat_threshold")
    if categorical and (
        len(bounds) != categorical + 1
        or bounds[0] != 0
        or bounds[-1] != len(sets)
        or bounds != sorted(bounds)
    ):
        raise ValueError("cat_boundaries")
    for kind, threshold in zip(kinds, thresholds, strict=True):
        if kind & 1 and (threshold not in range(categorical)):
            raise ValueError("a categorical split without its categories")
    lefts, rights = numbers["left_child"], numbers["right_child"]
    if sorted(lefts + rights) != [*range(-leaves, 0), *range(1, leaves - 1)]:
        raise ValueError("its nodes are no tree")
    seen, depth, level = 0, 0, [0]
    while level:  # a ring apart from the root is the only thing left that it could hold
        seen += len(level)
        depth += 1
        if depth > MOST_DEPTH:
            raise ValueError(f"a tree deeper than {MOST_DEPTH}")
        level = [c for i in level for c in (lefts[i], rights[i]) if c >= 0]
    if seen != leaves - 1:
        raise ValueError("its nodes are no tree")


def _linear(
    lines: dict[str, bytes], numbers: dict[str, list[Any]], leaves: int, features: int
) -> None:
    counts = numbers.get("num_features", [])
    if len(counts) != leaves or len(numbers.get("leaf_const", [])) != leaves or min(counts) < 0:
        raise ValueError("linear leaves without their numbers")
    # These the library reads by strtod, and takes what is too small for a double for an error.
    for word in (lines["leaf_const"] + b" " + lines.get("leaf_coeff", b"")).split():
        if abs(float(word)) < _SMALLEST and word.split(b"e")[0].strip(b"+-.0"):
            raise ValueError("a number too small")
    used = _integers(lines.get("leaf_features", b""))
    coefficients = _floats(lines.get("leaf_coeff", b""))
    if len(used) != sum(counts) or len(coefficients) != sum(counts):
        raise ValueError("linear leaves without their numbers")
    if used and (min(used) < 0 or max(used) >= features):
        raise ValueError("a leaf of a feature that there is not")
