"""Training of a regime classifier: an artifact of JSON parameters that the server's filter runs.

The rows are a regime feature set's observations and a label of the six states (0 to 5). Two kinds
of evidence are tried, and weights of it; what predicts best, walk-forward, by log loss of the
*filtered* probabilities, is fitted on all rows. What the parameters mean is said in
``alphaplus.server.regime.learned``; a test holds the two to the same probabilities.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from alphaplus.trainer import provenance
from alphaplus.trainer.data import Array, Fold, Matrix, moment
from alphaplus.trainer.models.base import Progress, TrainingError
from numpy.typing import NDArray

STATES = (
    "bull_trending",
    "bear_trending",
    "sideways",
    "high_volatility",
    "low_volatility",
    "crash",
)
COUNT = len(STATES)
CHANNELS = ("level", "log_volume", "return_local")
LAGS = ("level_before_1", "level_before_3", "level_before_10", "volume_before_2", "volume_before_8")
INPUTS = (
    "log_range", "return", "range_fast", "volatility_z", "volatility_slow_z", "trend_fast",
    "trend", "trend_slow", "drawdown", "fall", "volume_z",
)  # fmt: skip
AGES = (0, 3, 6, 12, 24, 48, 96, 192, 384)
WEIGHTS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0)
KINDS = ("gaussian", "logistic")
MIN_ROWS = 1000
MIN_STATE = 20  # rows of each state that is to be learned
BURN_IN = 1440  # rows that a filter sees before the first that counts
MOST_LOGISTIC = 8000
MARGIN = 0.05
Rows = NDArray[np.int64]


def dynamics(y: Rows, follows: NDArray[np.bool_]) -> dict[str, Any]:
    """Hazards by age, where to, and frequencies, from states row by row; ``follows``: whether a row
    goes on from the one before it. Shrunk towards a constant hazard by three changes."""
    hazard = np.zeros((COUNT, len(AGES)))
    onward = np.full((COUNT, COUNT), 0.5)
    np.fill_diagonal(onward, 0.0)
    starts = np.concatenate([[True], (np.diff(y) != 0) | ~follows[1:]])
    begin = np.maximum.accumulate(np.where(starts, np.arange(len(y)), 0))
    age = np.arange(len(y)) - begin
    cell = np.searchsorted(AGES, age, "right") - 1
    leaves = np.concatenate([(np.diff(y) != 0) & follows[1:], [False]])
    at_risk = np.concatenate([follows[1:], [False]])
    for k in range(COUNT):
        mine = y == k
        exposure = np.bincount(cell[mine & at_risk], minlength=len(AGES)).astype(float)
        events = np.bincount(cell[mine & leaves], minlength=len(AGES)).astype(float)
        base = (events.sum() + 1.0) / (exposure.sum() + 48.0)
        hazard[k] = np.clip((events + 3.0) / (exposure + 3.0 / base), 1e-5, 0.5)
        for to in y[1:][(mine & leaves)[:-1]]:
            onward[k, to] += 1.0
    prior = np.bincount(y, minlength=COUNT) + 1.0
    return {
        "ages": list(AGES),
        "hazard": hazard.tolist(),
        "next": (onward / onward.sum(axis=1, keepdims=True)).tolist(),
        "prior": (prior / prior.sum()).tolist(),
        "margin": MARGIN,
    }


def _column(names: Sequence[str], which: Sequence[str]) -> list[int]:
    missing = [name for name in which if name not in names]
    if missing:
        raise TrainingError(f"the feature set has no {', '.join(missing)}: use one of regimes")
    return [list(names).index(name) for name in which]


def gaussian(names: Sequence[str], x: Array, y: Rows) -> dict[str, Any]:
    """What is new in a bar, normal by state: least squares with an intercept for each state."""
    channels, lags = x[:, _column(names, CHANNELS)], x[:, _column(names, LAGS)]
    states = np.eye(COUNT)[y]
    seen = states.sum(axis=0) > 0
    # Returns have no part in the regression on levels: their mean is what tells a trend.
    regression = np.zeros((len(LAGS), len(CHANNELS)))
    design = np.column_stack([states[:, seen], lags])
    found = np.linalg.lstsq(design, channels[:, :2], rcond=None)[0]
    regression[:, :2] = found[seen.sum() :]
    fresh = channels - lags @ regression
    fresh[:, 2] = np.clip(fresh[:, 2], -6.0, 6.0)
    means, whitening = np.zeros((COUNT, 3)), np.zeros((COUNT, 3, 3))
    total = fresh.mean(axis=0)
    for k in range(COUNT):
        means[k] = fresh[y == k].mean(axis=0) if seen[k] else total
    pooled = np.cov((fresh - means[y]).T) + 1e-6 * np.eye(3)
    for k in range(COUNT):
        own = fresh[y == k]
        share = len(own) / (len(own) + 200.0)
        cov = pooled if len(own) < MIN_STATE else share * np.cov(own.T) + (1 - share) * pooled
        whitening[k] = np.linalg.inv(np.linalg.cholesky(cov + 1e-6 * np.eye(3)))
    return {
        "kind": "gaussian",
        "channels": list(CHANNELS),
        "lags": list(LAGS),
        "regression": regression.tolist(),
        "means": means.tolist(),
        "whitening": whitening.tolist(),
        "clip": 5.0,
    }


def logistic(names: Sequence[str], x: Array, y: Rows) -> dict[str, Any]:
    """Multinomial logistic regression on observations and their squares."""
    from sklearn.linear_model import LogisticRegression

    chosen = x[:, _column(names, INPUTS)]
    step = max(1, len(y) // MOST_LOGISTIC)
    center, scale = chosen.mean(axis=0), np.maximum(chosen.std(axis=0), 1e-6)
    z = np.clip((chosen[::step] - center) / scale, -5.0, 5.0)
    model = LogisticRegression(C=0.1, max_iter=150, tol=1e-3)
    model.fit(np.column_stack([z, z * z]), y[::step])
    weights, bias = np.zeros((COUNT, 2 * len(INPUTS))), np.full(COUNT, -20.0)
    for row, k in enumerate(model.classes_):
        if len(model.classes_) > 2:
            weights[k], bias[k] = model.coef_[row], model.intercept_[row]
        else:
            sign = 0.5 if row else -0.5
            weights[k], bias[k] = sign * model.coef_[0], sign * model.intercept_[0]
    prior = np.bincount(y, minlength=COUNT) + 1.0
    return {
        "kind": "logistic",
        "inputs": list(INPUTS),
        "center": center.tolist(),
        "scale": scale.tolist(),
        "clip": 5.0,
        "weights": weights.tolist(),
        "bias": bias.tolist(),
        "prior": (prior / prior.sum()).tolist(),
    }


def evidence(emission: dict[str, Any], names: Sequence[str], x: Array) -> Array:
    """(n, K) log likelihoods of rows, up to a constant per row."""
    out = np.empty((len(x), COUNT))
    if emission["kind"] == "gaussian":
        fresh = x[:, _column(names, emission["channels"])]
        fresh = fresh - x[:, _column(names, emission["lags"])] @ np.array(emission["regression"])
        for k in range(COUNT):
            root = np.array(emission["whitening"][k])
            white = (fresh - np.array(emission["means"][k])) @ root.T
            white = np.clip(white, -emission["clip"], emission["clip"])
            out[:, k] = np.log(np.diagonal(root)).sum() - 0.5 * (white**2).sum(axis=1)
        return out
    chosen = x[:, _column(names, emission["inputs"])]
    z = (chosen - np.array(emission["center"])) / np.array(emission["scale"])
    z = np.clip(z, -emission["clip"], emission["clip"])
    scores: Array = np.column_stack([z, z * z]) @ np.array(emission["weights"]).T
    scores += np.array(emission["bias"]) - np.log(np.array(emission["prior"]))
    return scores


def filtered(log_likelihood: Array, moves: dict[str, Any]) -> tuple[Array, Rows]:
    """Probabilities (n, lanes, K) and the regime shown (n, lanes) of log likelihoods (n, lanes, K);
    the step is that of ``alphaplus.server.regime.filtering``."""
    n, lanes, _ = log_likelihood.shape
    ages, hazards = np.array(moves["ages"]), np.array(moves["hazard"])
    by_age = hazards[:, np.searchsorted(ages, np.arange(ages[-1] + 1), "right") - 1]
    onward = np.array(moves["next"])
    p = np.repeat(np.array(moves["prior"])[None], lanes, axis=0)
    age = np.zeros((lanes, COUNT))
    shown = np.full(lanes, -1)
    likelihood = np.exp(log_likelihood - log_likelihood.max(axis=2, keepdims=True))
    out, labels = np.empty((n, lanes, COUNT)), np.empty((n, lanes), dtype=np.int64)
    lane, state = np.arange(lanes), np.arange(COUNT)
    for i in range(n):
        at = np.minimum(age, ages[-1]).astype(np.int64)
        leave = p * by_age[state, at]
        stay = p - leave
        q = stay + leave @ onward
        age = stay * (age + 1.0) / np.maximum(q, 1e-300)
        p = q * likelihood[i]
        p /= np.maximum(p.sum(axis=1, keepdims=True), 1e-300)
        p = np.maximum(p, 1e-9)
        p /= p.sum(axis=1, keepdims=True)
        best = p.argmax(axis=1)
        lead = p[lane, best] - p[lane, np.maximum(shown, 0)]
        change = (shown < 0) | ((best != shown) & (lead >= moves["margin"]))
        shown = np.where(change, best, shown)
        out[i], labels[i] = p, shown
    return out, labels


def measure(y: Rows, p: Array, shown: Rows, follows: NDArray[np.bool_]) -> dict[str, float]:
    """How good probabilities and shown regimes are, row by row."""
    right = shown == y
    recall = [float(right[y == k].mean()) for k in range(COUNT) if (y == k).any()]
    best = p.max(axis=1)
    hit = p.argmax(axis=1) == y
    cells = np.clip((best * 10).astype(int), 0, 9)
    ece = sum(
        abs(float(hit[cells == c].mean() - best[cells == c].mean())) * float((cells == c).mean())
        for c in range(10)
        if (cells == c).any()
    )
    changes = np.flatnonzero((np.diff(y) != 0) & follows[1:]) + 1
    delays = []
    for start, stop in zip(changes, np.append(changes[1:], len(y)), strict=True):
        found = np.flatnonzero(right[start:stop])
        delays.append(int(found[0]) if len(found) else int(stop - start))
    return {
        "accuracy": float(right.mean()),
        "balanced_accuracy": float(np.mean(recall)),
        "log_loss": float(-np.log(np.maximum(p[np.arange(len(y)), y], 1e-12)).mean()),
        "brier": float(((p - np.eye(COUNT)[y]) ** 2).sum(axis=1).mean()),
        "ece": float(ece),
        "delay": float(np.median(delays)) if delays else 0.0,
        "changes_ratio": float(((np.diff(shown) != 0) & follows[1:]).sum() / max(1, len(changes))),
    }


class _Rows:
    """The rows of which everything is known, by symbol and time."""

    def __init__(self, matrix: Matrix, names: Sequence[str], grid: int) -> None:
        needed = _column(names, sorted({*CHANNELS, *LAGS, *INPUTS}))
        known = np.isfinite(matrix.x[:, needed]).all(axis=1) & np.isfinite(matrix.y)
        order = np.flatnonzero(known)
        order = order[np.lexsort((matrix.ts[order], matrix.symbol[order]))]
        self.x, self.ts, self.end = matrix.x[order], matrix.ts[order], matrix.label_end[order]
        self.y = matrix.y[order].astype(np.int64)
        self.symbol = matrix.symbol[order]
        self.names = names
        # A bar that is missing is skipped; after five the next row does not go on from the last.
        near = np.diff(self.ts) <= 6 * grid
        self.follows = np.concatenate([[False], near & (np.diff(self.symbol) == 0)])

    def test(self, fold: Fold) -> tuple[Rows, Rows]:
        """Places of a fold's test rows, and those from where its filter starts."""
        test = np.flatnonzero((self.ts >= fold.test_from) & (self.ts < fold.test_to))
        pieces, counted = [], []
        for symbol in np.unique(self.symbol[test]):
            mine = test[self.symbol[test] == symbol]
            first = np.flatnonzero(self.symbol == symbol)[0]
            pieces.append(np.arange(max(first, mine[0] - BURN_IN), mine[-1] + 1))
            counted.append(mine)
        none = np.zeros(0, dtype=np.int64)
        return (
            np.concatenate(counted) if counted else none,
            np.concatenate(pieces) if pieces else none,
        )

    def run(self, places: Rows, likelihood: Array, moves: dict[str, Any]) -> tuple[Array, Rows]:
        """The filter over places of (places, lanes, K) log likelihoods, each symbol on its own."""
        parts = [
            filtered(likelihood[chosen], moves)
            for symbol in np.unique(self.symbol[places])
            for chosen in [np.flatnonzero(self.symbol[places] == symbol)]
        ]
        return np.concatenate([p for p, _ in parts]), np.concatenate([s for _, s in parts])


def train(
    job: dict[str, Any],
    matrix: Matrix,
    folds: Sequence[Fold],
    champion: bytes | None,
    progress: Progress,
) -> tuple[bytes, dict[str, Any]]:
    """Train one version: the artifact, and the rest as ``ml.register_version`` has it.

    Raises:
        TrainingError: too few rows, or of another feature set.
    """
    rows = _Rows(matrix, job["features"], round(job["grid"] * 1e6))
    count = np.bincount(rows.y, minlength=COUNT)
    if len(rows.y) < MIN_ROWS or (count >= MIN_STATE).sum() < 2:
        raise TrainingError(
            f"{len(rows.y)} rows with a known regime, of which {count.tolist()} of each state:"
            f" {MIN_ROWS} rows, and {MIN_STATE} of at least two states, are needed"
        )
    fitters = {"gaussian": gaussian, "logistic": logistic}
    rival = json.loads(champion) if champion is not None and job.get("champion") else None
    losses = {kind: np.zeros(len(WEIGHTS)) for kind in KINDS}
    held: dict[str, list[Any]] = {kind: [] for kind in (*KINDS, "champion", "rows", "base")}
    for n, fold in enumerate(folds):
        first = rows.ts[(rows.ts >= fold.test_from) & (rows.ts < fold.test_to)].min(
            initial=fold.test_to
        )
        learn = (rows.ts >= fold.train_from) & (rows.end <= min(fold.train_to, int(first) - 1))
        test, places = rows.test(fold)
        if learn.sum() < MIN_ROWS // 2 or not len(test) or len(np.unique(rows.y[learn])) < 2:
            continue
        x, y = rows.x[learn], rows.y[learn]
        moves = dynamics(y, rows.follows[learn])
        counts = np.isin(places, test)
        for kind in KINDS:
            progress(0.05 + 0.7 * (n + 0.5 * KINDS.index(kind)) / len(folds), f"fold {n + 1}")
            found = evidence(fitters[kind](rows.names, x, y), rows.names, rows.x[places])
            likelihood = found[:, None, :] * np.array(WEIGHTS)[None, :, None]
            p, shown = rows.run(places, likelihood, moves)
            truth = rows.y[test]
            picked = np.take_along_axis(p[counts], truth[:, None, None], axis=2)[:, :, 0]
            losses[kind] += -np.log(np.maximum(picked, 1e-12)).sum(axis=0)
            held[kind].append((p[counts], shown[counts]))
        if rival is not None:
            own = evidence(rival["emission"], rows.names, rows.x[places])[:, None, :]
            p, shown = rows.run(places, own * rival["evidence"], rival["dynamics"])
            held["champion"].append((p[counts], shown[counts]))
        held["rows"].append(test)
        held["base"].append(np.repeat(np.array(moves["prior"])[None], len(test), axis=0))
    if not held["rows"]:
        raise TrainingError("no fold has rows enough to learn from and to test on")
    kind = min(KINDS, key=lambda k: losses[k].min())
    at = int(losses[kind].argmin())
    test = np.concatenate(held["rows"])
    truth, follows = rows.y[test], rows.follows[test]
    p = np.concatenate([part for part, _ in held[kind]])[:, at]
    shown = np.concatenate([part for _, part in held[kind]])[:, at]
    base = np.concatenate(held["base"])
    measured: dict[str, Any] = measure(truth, p, shown, follows)
    measured["rows"] = len(test)
    measured["baseline"] = measure(truth, base, base.argmax(axis=1), follows)
    measured["rules"] = _rules(rows, test)
    measured["kinds"] = {
        k: {str(w): float(x) for w, x in zip(WEIGHTS, losses[k] / len(test), strict=True)}
        for k in KINDS
    }
    if rival is not None:
        q = np.concatenate([part for part, _ in held["champion"]])[:, 0]
        other = np.concatenate([part for _, part in held["champion"]])[:, 0]
        names = ("accuracy", "balanced_accuracy", "log_loss", "brier", "ece")
        values = measure(truth, q, other, follows)
        measured["champion"] = {
            "version_id": job["champion"]["version_id"],
            "values": {name: values[name] for name in names},
            "challenger": {name: measured[name] for name in names},
            # It may have been trained on these rows: then it looks better than it is.
            "in_sample": True,
        }
    progress(0.85, "fitting on all rows")
    artifact = {
        "kind": "regime_filter",
        "states": list(STATES),
        "timeframe": round(job["grid"] * 1e6),
        "emission": fitters[kind](rows.names, rows.x, rows.y),
        "dynamics": dynamics(rows.y, rows.follows),
        "evidence": WEIGHTS[at],
    }
    content = json.dumps(artifact, allow_nan=False, separators=(",", ":")).encode()
    version = {
        "algorithm": "regime_filter",
        "format": "json",
        "features": list(job["features"]),
        "spec": {"inputs": {"kind": "bars"}, "emission": kind, "evidence": WEIGHTS[at]},
        "params": {"emission": kind, "evidence": WEIGHTS[at]},
        "metrics": measured,
        "fold_metrics": [],
        "importance": {},
        "reference_stats": {},
        "train_from": moment(int(rows.ts.min())).isoformat(),
        "train_to": moment(int(rows.ts.max())).isoformat(),
        "row_count": len(rows.y),
        "training_sha256": matrix.sha256.hex(),
        "library_versions": provenance.base_versions(),
        "code_version": provenance.code_version(),
        "parent_id": (job.get("champion") or {}).get("version_id"),
    }
    return content, version


def _rules(rows: _Rows, test: Rows) -> dict[str, float] | None:
    """The same figures of the rules as delivered, whose probabilities the set has."""
    names = [f"p_{state}" for state in STATES]
    if any(name not in rows.names for name in names):
        return None
    p = rows.x[test][:, _column(rows.names, names)]
    known = np.isfinite(p).all(axis=1)
    if not known.any():
        return None
    p = np.maximum(p[known], 1e-9)
    p /= p.sum(axis=1, keepdims=True)
    return measure(rows.y[test][known], p, p.argmax(axis=1), rows.follows[test][known])
