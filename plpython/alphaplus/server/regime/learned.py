"""A trained classifier: its parameters as JSON, checked to the last number, and its evidence.

The artifact is an object of ``states``, ``inputs`` (observations it uses), ``dynamics`` and an
``emission`` of one of two kinds:

* ``gaussian``: what is new in a bar is normal, with a mean and covariance of each state. New is
what a linear function of the past, shared by all states, does not say: an autoregressive hidden
Markov model (Hamilton 1989, Econometrica 57(2)), so that the bars' evidence can be multiplied;
* ``logistic``: multinomial logistic regression on the observations and their squares, divided by
the states' frequencies (a hybrid hidden Markov model, Bourlard & Morgan 1994).
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
from alphaplus.server.regime import observe
from alphaplus.server.regime.filtering import Dynamics
from alphaplus.server.regime.states import COUNT, STATES, Floats

MOST = 1_000_000  # bytes
MOST_AGES = 4096


class ArtifactError(ValueError):
    """The artifact is not one; the message says what is wrong with it."""


def _numbers(given: Any, shape: tuple[int, ...], name: str) -> Floats:
    try:
        raw = np.array(given)
        if raw.dtype.kind not in "iuf":
            raise TypeError
        found = raw.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ArtifactError(f"{name} is not an array of numbers") from None
    if found.shape != shape:
        raise ArtifactError(f"{name} has the shape {found.shape}, not {shape}")
    if not np.isfinite(found).all() or np.abs(found).max(initial=0.0) > 1e9:
        raise ArtifactError(f"{name} has a number that is not finite, or too large")
    return found


def _object(given: Any, keys: set[str], name: str) -> dict[str, Any]:
    if not isinstance(given, dict) or set(given) != keys:
        raise ArtifactError(f"{name} is no object of {', '.join(sorted(keys))}")
    return given


def _constant(word: str) -> float:
    raise ArtifactError(f"{word} is no number")


def _places(given: Any, name: str) -> list[int]:
    if (
        not isinstance(given, list)
        or not 1 <= len(given) <= observe.COUNT
        or any(not isinstance(x, str) or x not in observe.NAMES for x in given)
        or len(set(given)) < len(given)
    ):
        raise ArtifactError(f"{name} are no observations, each once")
    return [observe.NAMES.index(x) for x in given]


class Learned:
    """The classifier of an artifact.

    Raises:
        ArtifactError: it is not one.
    """

    def __init__(self, artifact: bytes) -> None:
        if len(artifact) > MOST:
            raise ArtifactError(f"it has {len(artifact)} bytes, more than {MOST}")
        try:
            given = json.loads(artifact.decode("utf-8"), parse_constant=_constant)
        except ArtifactError:
            raise
        except (ValueError, RecursionError):
            raise ArtifactError("it is no JSON") from None
        keys = {"kind", "states", "timeframe", "emission", "dynamics", "evidence"}
        given = _object(given, keys, "the artifact")
        if given["kind"] != "regime_filter" or given["states"] != list(STATES):
            raise ArtifactError("it is no regime_filter of the six states in their order")
        if not isinstance(given["timeframe"], int) or given["timeframe"] <= 0:
            raise ArtifactError("timeframe is no number of microseconds")
        self.timeframe: int = given["timeframe"]
        self.weight = float(_numbers(given["evidence"], (), "evidence"))
        if not 0 < self.weight <= 10:
            raise ArtifactError("evidence is not between 0 and 10")
        self.dynamics = _dynamics(given["dynamics"])
        emission = given["emission"]
        kind = emission.get("kind") if isinstance(emission, dict) else None
        if kind == "gaussian":
            self._gaussian(emission)
        elif kind == "logistic":
            self._logistic(emission)
        else:
            raise ArtifactError("the emission is neither gaussian nor logistic")
        self.kind: str = kind

    def _gaussian(self, given: Any) -> None:
        keys = {"kind", "channels", "lags", "regression", "means", "whitening", "clip"}
        given = _object(given, keys, "the emission")
        self.channels = _places(given["channels"], "channels")
        self.lags = _places(given["lags"], "lags")
        n = len(self.channels)
        self.regression = _numbers(given["regression"], (len(self.lags), n), "regression")
        self.means = _numbers(given["means"], (COUNT, n), "means")
        self.whitening = _numbers(given["whitening"], (COUNT, n, n), "whitening")
        self.clip = float(_numbers(given["clip"], (), "clip"))
        diagonal = np.diagonal(self.whitening, axis1=1, axis2=2)
        if (diagonal <= 0).any() or self.clip <= 0:
            raise ArtifactError("whitening has a diagonal that is not positive, or clip is not")
        self.level: Floats = np.log(diagonal).sum(axis=1)

    def _logistic(self, given: Any) -> None:
        keys = {"kind", "inputs", "center", "scale", "clip", "weights", "bias", "prior"}
        given = _object(given, keys, "the emission")
        self.channels = _places(given["inputs"], "inputs")
        n = len(self.channels)
        self.center = _numbers(given["center"], (n,), "center")
        self.scale = _numbers(given["scale"], (n,), "scale")
        self.clip = float(_numbers(given["clip"], (), "clip"))
        self.weights = _numbers(given["weights"], (COUNT, 2 * n), "weights")
        self.bias = _numbers(given["bias"], (COUNT,), "bias")
        self.prior = _numbers(given["prior"], (COUNT,), "prior")
        if (self.scale <= 0).any() or self.clip <= 0 or (self.prior <= 0).any():
            raise ArtifactError("scale, clip or prior is not positive")

    def evidence(self, observations: Floats) -> Floats:
        """See :class:`alphaplus.server.regime.nowcast.Classifier`.

        Sums are taken term by term in a fixed order, so that a bar's evidence does not depend on
        how many are computed at once.
        """
        found = (
            self._of_gaussian(observations)
            if self.kind == "gaussian"
            else self._of_logistic(observations)
        )
        return self.weight * found

    def _of_gaussian(self, x: Floats) -> Floats:
        fresh = []
        for c, place in enumerate(self.channels):
            new = x[..., place].copy()
            for i, lag in enumerate(self.lags):
                if self.regression[i, c] != 0:
                    new -= self.regression[i, c] * x[..., lag]
            fresh.append(new)
        out = np.empty((*x.shape[:-1], COUNT))
        for k in range(COUNT):
            total = np.zeros(x.shape[:-1])
            for row in range(len(fresh)):
                white = np.zeros(x.shape[:-1])
                for c in range(row + 1):
                    white += self.whitening[k, row, c] * (fresh[c] - self.means[k, c])
                white = np.clip(white, -self.clip, self.clip)
                total += white * white
            out[..., k] = self.level[k] - 0.5 * total
        return out

    def _of_logistic(self, x: Floats) -> Floats:
        out = np.empty((*x.shape[:-1], COUNT))
        out[...] = self.bias - np.log(self.prior)
        n = len(self.channels)
        for i, place in enumerate(self.channels):
            z = np.clip((x[..., place] - self.center[i]) / self.scale[i], -self.clip, self.clip)
            for k in range(COUNT):
                out[..., k] += self.weights[k, i] * z + self.weights[k, n + i] * (z * z)
        return out


def _dynamics(given: Any) -> Dynamics:
    given = _object(given, {"ages", "hazard", "next", "prior", "margin"}, "dynamics")
    ages = given["ages"]
    if (
        not isinstance(ages, list)
        or not 1 <= len(ages) <= 64
        or any(not isinstance(x, int) for x in ages)
        or ages[0] != 0
        or any(later <= age for age, later in pairwise(ages))
        or ages[-1] >= MOST_AGES
    ):
        raise ArtifactError("ages are no rising whole numbers from 0 on")
    hazard = _numbers(given["hazard"], (COUNT, len(ages)), "hazard")
    onward = _numbers(given["next"], (COUNT, COUNT), "next")
    prior = _numbers(given["prior"], (COUNT,), "prior")
    margin = float(_numbers(given["margin"], (), "margin"))
    if (
        (hazard <= 0).any() or (hazard >= 1).any() or (onward < 0).any() or (prior <= 0).any()
        or not 0 <= margin < 1 or np.abs(np.diagonal(onward)).max() > 0
        or np.abs(onward.sum(axis=1) - 1).max() > 1e-6 or abs(prior.sum() - 1) > 1e-6
    ):  # fmt: skip
        raise ArtifactError(
            "hazards must lie between 0 and 1, next and prior be probabilities that sum to 1, next"
            " have no diagonal, margin lie in [0, 1)"
        )
    # By age in bars, one after the other.
    which = np.searchsorted(ages, np.arange(ages[-1] + 1), "right") - 1
    return Dynamics(np.ascontiguousarray(hazard[:, which]), onward, prior, margin)
