"""Walk-forward folds over a frame's rows, as the database cuts them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd


def split(
    rows: pd.DataFrame, folds: pd.DataFrame
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """``(train, test)`` row numbers of each fold, as scikit-learn's ``cv`` wants them.

    A row trains when train_from <= ts and its label had ended by train_to; it tests when
    test_from <= ts < test_to. No training label meets the span of the test's labels.

    Args:
        rows: a training set (:meth:`alphaplus.client.Client.training_set`).
        folds: :meth:`alphaplus.client.Client.folds` of the same set.
    """
    for fold in folds.itertuples(index=False):
        train = (rows["ts"] >= fold.train_from) & (rows["label_end"] <= fold.train_to)
        test = (rows["ts"] >= fold.test_from) & (rows["ts"] < fold.test_to)
        yield np.flatnonzero(train), np.flatnonzero(test)


def fold_of(rows: pd.DataFrame, folds: pd.DataFrame) -> npt.NDArray[np.int32]:
    """Each row's fold: the one that tests it, 0 where none does."""
    found = np.zeros(len(rows), dtype=np.int32)
    for fold in folds.itertuples(index=False):
        inside = (rows["ts"] >= fold.test_from) & (rows["ts"] < fold.test_to)
        found[inside.to_numpy()] = int(fold.fold)  # type: ignore[arg-type]
    return found
