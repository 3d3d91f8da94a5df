"""Out-of-fold predictions as a trainer hands them in, held against the database's own outcomes.

What a trainer says of a version's quality is not believed: the outcomes, the base rates known at
the time and all metrics are the database's. Only the predictions are the trainer's.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
from alphaplus.server.training import metrics

# A row as it is handed in; what there is none of is NaN.
ROW = np.dtype([
    ("ts", "<i8"), ("symbol", "<i4"), ("fold", "<i2"), ("chosen", "u1"), ("champion_chosen", "u1"),
    ("raw", "<f8"), ("prediction", "<f8"), ("champion", "<f8"), ("persistence", "<f8"),
    ("linear", "<f8"),
])  # fmt: skip
_KEPT = (
    "auc", "average_precision", "log_loss", "brier", "ece", "rmse", "mae", "r2", "spearman", "ic",
    "rank_ic", "auc_low", "auc_high", "log_loss_low", "log_loss_high", "rmse_low", "rmse_high",
)  # fmt: skip
_FOLD_MEANS = ("auc", "average_precision", "log_loss", "brier", "rmse", "r2", "spearman")
LEAST = 50


class HandedInError(ValueError):
    """What was handed in is not out-of-fold predictions of the training set."""


def targets(block: bytes) -> tuple[Any, Any, Any, Any]:
    """(ts, label_end, target, symbol number) of ``ml._training_targets``."""
    n = int(np.frombuffer(block, "<i8", 1)[0])
    found, at = [], 8
    for kind in ("<i8", "<i8", "<f8", "<i4"):
        found.append(np.frombuffer(block, kind, n, at))
        at += found[-1].nbytes
    ts, ends, target, symbols = found
    return ts, ends, target, symbols.astype(np.int64)


def _outcomes(rows: Any, known: tuple[Any, Any, Any, Any]) -> Any:
    """(n,) the database's outcome of each row."""
    ts, _, target, symbols = known
    width = int(max(symbols.max(initial=0), rows["symbol"].max())) + 1
    key = ts * width + symbols
    order = np.argsort(key, kind="stable")
    asked = rows["ts"] * width + rows["symbol"].astype(np.int64)
    if len(np.unique(asked)) != len(asked):
        raise HandedInError("a row is predicted twice")
    place = np.minimum(np.searchsorted(key[order], asked), max(len(key) - 1, 0))
    if not len(key) or (key[order][place] != asked).any():
        raise HandedInError("a row is predicted that the training set has not")
    return target[order][place]


def _base(rows: Any, known: tuple[Any, Any, Any, Any], task: str) -> Any:
    """(n,) the mean outcome that was known when each row's fold began."""
    _, ends, target, _ = known
    base = np.empty(len(rows))
    last = -(2**62)
    for fold in np.unique(rows["fold"]):
        of_fold = rows["fold"] == fold
        first = int(rows["ts"][of_fold].min())
        if first <= last:
            raise HandedInError("folds that overlap in time")
        last = int(rows["ts"][of_fold].max())
        before = target[ends < first]
        if not len(before):
            raise HandedInError("a fold before which no outcome was known")
        mean = float(before.mean())
        base[of_fold] = min(max(mean, 1e-6), 1 - 1e-6) if task == "classification" else mean
    return base


def check(handed: bytes, task: str) -> Any:
    """The rows that were handed in, by time.

    Raises:
        HandedInError: they are no predictions.
    """
    if len(handed) % ROW.itemsize or len(handed) < LEAST * ROW.itemsize:
        raise HandedInError(f"at least {LEAST} rows of {ROW.itemsize} bytes are needed")
    rows = np.frombuffer(handed, ROW)
    rows = rows[np.lexsort((rows["symbol"], rows["ts"]))]
    p = rows["prediction"]
    if not np.isfinite(p).all() or not np.isfinite(rows["raw"]).all():
        raise HandedInError("a prediction that is no finite number")
    for name in ("prediction", "champion", "persistence", "linear"):
        values = rows[name][~np.isnan(rows[name])]
        if task == "classification" and len(values) and not 0 <= values.min() <= values.max() <= 1:
            raise HandedInError(f"{name}: a probability outside of 0 to 1")
    if rows["symbol"].min() < 1 or rows["fold"].min() < 1:
        raise HandedInError("symbols and folds count from 1")
    return rows


def measure(
    task: str,
    horizon: float,
    known: tuple[Any, Any, Any, Any],
    rows: Any,
    champion: dict[str, Any] | None,
) -> tuple[dict[str, Any], list[dict[str, Any]], Any, Any]:
    """(metrics, metrics by fold, outcomes, base rates) of rows as :func:`check` gives them.

    Args:
        task: "classification" or "regression".
        horizon: of the label, seconds.
        known: as :func:`targets` gives it.
        champion: version_id and method of the champion that was compared; None: none was.
    """
    y = _outcomes(rows, known)
    if task == "classification" and not np.isin(y, (0.0, 1.0)).all():
        raise HandedInError("outcomes that are no classes")
    base = _base(rows, known, task)
    ts = rows["ts"].astype(np.int64)
    block = metrics.blocks(ts, round(horizon * 1e6))

    def of(name: str, i: Any = slice(None), chosen: str = "chosen", blocked: bool = False) -> Any:
        picked = rows[chosen][i] != 0
        return metrics.measure(
            task, ts[i], y[i], rows[name][i], base[i], picked, block[i] if blocked else None
        )

    measured = of("prediction", blocked=True)
    folds = []
    for fold in np.unique(rows["fold"]):
        i = np.flatnonzero(rows["fold"] == fold)
        span = {"test_from": int(ts[i[0]]), "test_to": int(ts[i[-1]])}
        folds.append({"fold": int(fold), **span, **of("prediction", i)})
    measured["fold_mean"] = {
        key: float(np.mean([f[key] for f in folds])) for key in _FOLD_MEANS if key in folds[0]
    }
    baselines = {}
    for name in ("persistence", "linear"):
        if np.isfinite(rows[name]).all():
            whole = of(name, blocked=True)
            baselines[name] = {key: whole[key] for key in _KEPT if key in whole}
    if baselines:
        measured["baselines"] = baselines
    if champion:
        measured["champion"] = _champion(champion, rows, measured, of)
    return measured, folds, y, base


def _champion(
    champion: dict[str, Any], rows: Any, measured: dict[str, Any], of: Any
) -> dict[str, Any]:
    kept = {key: champion[key] for key in ("version_id", "method", "reason") if key in champion}
    if champion.get("method") == "same_recipe":
        plain = {k: v for k, v in measured.items() if k not in ("baselines", "champion")}
        return kept | {"rows": measured["rows"], "values": plain, "challenger": plain}
    i = np.flatnonzero(np.isfinite(rows["champion"]))
    if len(i) < LEAST:
        return kept | {"method": "none", "reason": kept.get("reason", "too few rows in common")}
    return kept | {
        "rows": len(i),
        "values": of("champion", i, "champion_chosen"),
        "challenger": of("prediction", i),
    }


def accept(
    plpy: Any, task: str, horizon: float, known: bytes, handed: bytes, champion: str | None
) -> dict[str, Any]:
    """:func:`measure` for ``ml._measured`` (SQLSTATE AP431), with the rows as columns."""
    try:
        rows = check(handed or b"", task)
        said = json.loads(champion) if champion else None
        measured, folds, y, base = measure(task, horizon, targets(known), rows, said)
    except HandedInError as error:
        plpy.error(
            f"these are no out-of-fold predictions of the training set: {error}",
            sqlstate="AP431",
            hint="A trainer of this release hands in the predictions of its walk-forward folds.",
        )
        raise
    return {
        "metrics": json.dumps(metrics.clean(measured)),
        "fold_metrics": json.dumps(metrics.clean(folds)),
        "ts": rows["ts"].tolist(),
        "symbol": rows["symbol"].tolist(),
        "fold": rows["fold"].tolist(),
        "raw": rows["raw"].tolist(),
        "prediction": rows["prediction"].tolist(),
        "target": y.tolist(),
        "base_rate": base.tolist(),
    }


def label_block(
    columns: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]],
) -> bytes:
    """``ml._training_targets``: (ts, label_end, target) of each symbol in order."""
    lengths = [len(one[0]) for one in columns]
    numbers = np.repeat(np.arange(1, len(columns) + 1, dtype="<i4"), lengths)
    parts = [np.array([sum(lengths)], dtype="<i8").tobytes()]
    for i, kind in enumerate(("<i8", "<i8", "<f8")):
        joined = np.concatenate([one[i] for one in columns]) if columns else np.zeros(0)
        parts.append(joined.astype(kind).tobytes())
    return b"".join((*parts, numbers.tobytes()))
