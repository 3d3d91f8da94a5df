"""Tree ensembles of other libraries as LightGBM text models.

One reader of trees in the server then serves them all in microseconds, and explains them by exact
SHAP values. Nothing is approximated: thresholds become the doubles that split the doubles as the
library's own comparison does after its rounding to float32, missing values keep their side.

Source of the format: https://github.com/microsoft/LightGBM/blob/v4.7.0/src/io/gbdt_model_text.cpp
and tree.cpp (Tree::ToString).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

# decision_type: bits 2 and 3 say that NaN is what is missing, bit 1 that it goes left.
_NAN_IS_MISSING = 8
_MISSING_LEFT = 2
# Covers are integers in the format: the largest becomes this.
_COVER = 10**9


@dataclass(frozen=True)
class Tree:
    """One binary tree: (nodes,) arrays; node 0 is the root.

    Attributes:
        left, right: child nodes; left < 0 at a leaf.
        feature: index of the feature that splits.
        threshold: x <= threshold goes left.
        missing_left: whether NaN goes left.
        value: at leaves, what the tree adds to the raw score.
        cover: weight of training rows that reach the node.
    """

    left: Ints
    right: Ints
    feature: Ints
    threshold: Array
    missing_left: NDArray[np.bool_]
    value: Array
    cover: Array


def below32(threshold: NDArray[np.float32]) -> Array:
    """Largest doubles d with float32(d) < threshold (n,), rounding to nearest, ties to even."""
    return _last_double(np.nextafter(threshold, np.float32(-np.inf)), threshold)


def at_most32(threshold: Array) -> Array:
    """Largest doubles d with float32(d) <= threshold (n,), the threshold itself being a double."""
    below = threshold.astype(np.float32)
    below = np.where(
        below.astype(np.float64) > threshold, np.nextafter(below, np.float32(-np.inf)), below
    )
    return _last_double(below, np.nextafter(below, np.float32(np.inf)))


def _last_double(below: NDArray[np.float32], above: NDArray[np.float32]) -> Array:
    """The last double that rounds to ``below`` and not to ``above``, its neighbour."""
    middle = (below.astype(np.float64) + above.astype(np.float64)) / 2
    found: Array = np.where(
        middle.astype(np.float32) == below, middle, np.nextafter(middle, -np.inf)
    )
    return found


def constant(value: float) -> Tree:
    """A tree of one leaf."""
    none = np.zeros(1)
    return Tree(
        np.array([-1]), np.array([-1]), np.zeros(1, dtype=np.int64), none,
        np.zeros(1, dtype=bool), np.array([value]), np.ones(1),
    )  # fmt: skip


def _words(values: Array | Ints) -> str:
    return " ".join(map(repr, values.tolist()))


def _tree_text(number: int, tree: Tree) -> str:
    leaf = tree.left < 0
    if leaf[0]:
        return (
            f"Tree={number}\nnum_leaves=1\nnum_cat=0\nsplit_feature=\nsplit_gain=\nthreshold=\n"
            "decision_type=\nleft_child=\nright_child=\n"
            f"leaf_value={float(tree.value[0])!r}\nleaf_weight=\nleaf_count=\ninternal_value=\n"
            "internal_weight=\ninternal_count=\nis_linear=0\nshrinkage=1\n\n\n"
        )
    inner = ~leaf
    # A leaf's number is given as its complement.
    place = np.where(leaf, ~(np.cumsum(leaf) - 1), np.cumsum(inner) - 1)
    cover = np.maximum(np.rint(tree.cover / tree.cover[0] * _COVER), 1).astype(np.int64)
    kinds = np.where(tree.missing_left[inner], _MISSING_LEFT, 0) + _NAN_IS_MISSING
    zeros = np.zeros(int(inner.sum()))
    return (
        f"Tree={number}\nnum_leaves={int(leaf.sum())}\nnum_cat=0\n"
        f"split_feature={_words(tree.feature[inner])}\nsplit_gain={_words(zeros)}\n"
        f"threshold={_words(tree.threshold[inner])}\ndecision_type={_words(kinds)}\n"
        f"left_child={_words(place[tree.left[inner]])}\n"
        f"right_child={_words(place[tree.right[inner]])}\n"
        f"leaf_value={_words(tree.value[leaf])}\nleaf_weight={_words(cover[leaf])}\n"
        f"leaf_count={_words(cover[leaf])}\ninternal_value={_words(zeros)}\n"
        f"internal_weight={_words(cover[inner])}\ninternal_count={_words(cover[inner])}\n"
        "is_linear=0\nshrinkage=1\n\n\n"
    )


def lightgbm_text(trees: Sequence[Tree], features: Sequence[str]) -> str:
    """A LightGBM text model whose raw score is the sum of the trees' leaves."""
    texts = [_tree_text(number, tree) for number, tree in enumerate(trees)]
    head = (
        "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\n"
        f"max_feature_idx={len(features) - 1}\nobjective=regression\n"
        f"feature_names={' '.join(features)}\n"
        f"feature_infos={' '.join(['[-inf:inf]'] * len(features))}\n"
        f"tree_sizes={' '.join(str(len(text)) for text in texts)}\n\n"
    )
    return (
        head
        + "".join(texts)
        + "end of trees\n\nfeature_importances:\n\nparameters:\n\nend of parameters\n\n"
        + "pandas_categorical:null\n"
    )
