"""Nothing that LightGBM's library could not read safely reaches it: a bad text ends a process."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from typing import Any

import lightgbm
import numpy as np
import pytest
from alphaplus.server.serving.booster import Booster, BoosterError
from alphaplus.server.serving.lightgbm_text import check
from hypothesis import given, settings
from hypothesis import strategies as st

ROWS = [[0.1, 0.2, float("nan"), 0.3], [5.0, -1.0, 1.0, 0.0], [11.0, 3.0, None, 1e300]]
WORDS = [
    "0", "1", "-1", "-2", "5", "99", "-99", "1000000", "2147483647", "-2147483648", "4294967296",
    "nan", "inf", "", "x", "1.5", "1e400", "1e-310", ".5", "+3", "-", "4 4",
]  # fmt: skip


def texts() -> list[str]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 4))
    x[:, 0] = rng.integers(0, 12, 400)
    kinds: list[tuple[dict[str, Any], list[int]]] = [
        ({}, []),
        ({"linear_tree": True}, []),
        ({"min_data_per_group": 1, "cat_smooth": 1}, [0]),
        ({"min_data_in_leaf": 1000}, []),
        ({"min_data_in_leaf": 1000, "linear_tree": True}, []),
        ({"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}, []),
    ]
    return [
        lightgbm.train(
            {"verbosity": -1, "num_leaves": 6, "num_threads": 1, **params},
            lightgbm.Dataset(x, x[:, 0] % 3 + x[:, 1], categorical_feature=columns),
            3,
        ).model_to_string()
        for params, columns in kinds
    ]


TEXTS = texts()


def sized(text: str) -> str:
    """The text with the tree_sizes that its trees have."""
    begin, end = text.find("\nTree=") + 1, text.find("end of trees")
    trees = [part for part in re.split(r"(?=^Tree=)", text[begin:end], flags=re.M) if part]
    sizes = " ".join(str(len(part)) for part in trees)
    return re.sub(r"^tree_sizes=.*$", f"tree_sizes={sizes}", text, count=1, flags=re.M)


def changed(text: str, key: str, values: str) -> str:
    """The text with another line in its first tree."""
    found, count = re.subn(rf"^{key}=.*$", f"{key}={values}", text, count=1, flags=re.M)
    assert count == 1
    return sized(found)


def survives(text: str) -> bool:
    """Whether a process that loads, scores and explains with it lives (and ends)."""
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        with contextlib.suppress(BoosterError):
            booster = Booster(text.encode())
            for row in ROWS:
                booster.raw(row)
                booster.contributions([np.nan if v is None else v for v in row])
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("text", TEXTS)
def test_what_lightgbm_writes_is_sound(text: str) -> None:
    check(text.encode())
    assert survives(text)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("split_feature", "4 0 0 0 0"),
        ("split_feature", "-7 0 0 0 0"),
        ("split_feature", "0 0 0 0"),
        ("left_child", "0 -1 -2 -3 -4"),
        ("left_child", "99999999 1 2 3 -1"),
        ("right_child", "-99999999 -3 -4 -5 -6"),
        ("threshold", "0.5"),
        ("threshold", "nan 0 0 0 0"),
        ("num_leaves", "1000000"),
        ("num_leaves", "-1"),
        ("num_cat", "5"),
        ("decision_type", "3 2 2 2 2"),
        ("decision_type", "12 2 2 2 2"),
        ("decision_type", "1e3 2 2 2 2"),
        ("leaf_value", "nan 0 0 0 0 0"),
        ("leaf_count", "x"),
        ("num_tree_per_iteration", "0"),
        ("num_tree_per_iteration", "3"),
        ("num_class", "7"),
        ("objective", ""),
        ("max_feature_idx", "-1"),
    ],
)
def test_what_is_not_sound_is_refused(key: str, values: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        check(changed(TEXTS[0], key, values).encode())


def test_wrong_sizes_and_cut_texts_are_refused() -> None:
    text = TEXTS[0]
    for bad in (
        text[: text.find("Tree=1") + 50],
        text.replace("tree_sizes=", "tree_sizes=1"),
        "",
        "tree\n",
    ):
        with pytest.raises(ValueError, match=r".+"):
            check(bad.encode())


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_what_is_let_through_harms_nobody(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(TEXTS))
    for _ in range(data.draw(st.integers(1, 2))):
        end = text.find("end of trees")
        words = list(re.finditer(r"(?<=[= \n])-?[\w.+-]*", text[5:end]))
        if not words:
            break
        word = words[data.draw(st.integers(0, len(words) - 1))]
        new = data.draw(st.sampled_from([*WORDS, "\n", "=", "\0", "é"]))
        text = sized(text[: 5 + word.start()] + new + text[5 + word.end() :])
    try:
        check(text.encode())
    except ValueError:
        return
    assert survives(text)
