"""What every estimator offers, and what is made of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from alphaplus.trainer import spec as specs
from numpy.typing import NDArray

Array = NDArray[np.float64]
# Called now and then while fitting with the part done (0 to 1) and words; raises Stopped.
Progress = Callable[[float, str], None]


class TrainingError(Exception):
    """Training cannot succeed with this job as it is; trying again would not help."""


class Stopped(Exception):
    """The job was cancelled, its lease was lost, or the trainer is shutting down."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


@dataclass(frozen=True)
class Artifact:
    """A model as bytes that any reader of its format can run; never a pickle.

    Attributes:
        format: "lightgbm" (text model) or "onnx".
        content: the bytes.
        spec: the parts of the version's spec that belong to the artifact: inputs, scaling, output.
    """

    format: str
    content: bytes
    spec: dict[str, Any] = field(default_factory=dict)


def _silent(part: float, words: str) -> None:
    del part, words


class Estimator(ABC):
    """A model of one algorithm.

    Args:
        task: "classification" (y in {0, 1}) or "regression".
        params: the algorithm's hyperparameters over its defaults.
        seed: all randomness comes from it.
        threads: cores to use; 0: all.
        features: names of the columns.
        overlap: rows per label horizon: how many neighbouring rows tell of the same events.
    """

    algorithm: ClassVar[str]
    # Rows of history that one prediction reads; above 1 the inputs are (n, length, features).
    sequence_length: int = 1

    def __init__(
        self,
        task: str,
        params: dict[str, Any] | None = None,
        *,
        seed: int = 1,
        threads: int = 0,
        features: list[str] | None = None,
        overlap: float = 1.0,
    ) -> None:
        self.task = task
        self.params = dict(params or {})
        self.seed = seed
        self.threads = threads
        self.features = features
        self.overlap = overlap
        # How long training went on: rounds or epochs; None where the algorithm has no such thing.
        self.rounds: int | None = None

    @abstractmethod
    def fit(
        self,
        x: Array,
        y: Array,
        *,
        valid: tuple[Array, Array] | None = None,
        rounds: int | None = None,
        progress: Progress = _silent,
    ) -> Estimator:
        """Fit.

        Args:
            x: (n, features) or (n, length, features); NaN where not knowable.
            y: (n,).
            valid: later rows on which to stop early; sets ``self.rounds``.
            rounds: train this long instead, without stopping early.
            progress: called now and then; may raise :class:`Stopped`, which must pass through.
        """

    @abstractmethod
    def raw(self, x: Array) -> Array:
        """Raw scores (n,): log odds, or the regression before ``output``'s transformation."""

    @abstractmethod
    def export(self) -> Artifact:
        """The fitted model as an artifact, without calibration."""

    def output(self) -> dict[str, Any]:
        """The spec's ``output``."""
        return (
            {"kind": "log_odds"}
            if self.task == "classification"
            else {"kind": "identity", "scale": 1.0}
        )

    def importance(self) -> dict[str, dict[str, float]]:
        """Importance by kind ("gain", "split", …) and feature; empty where there is none."""
        return {}

    def predict(self, x: Array) -> Array:
        """Classes 0 and 1, or values in the target's unit."""
        raw = self.raw(x)
        if self.task == "classification":
            return (raw > 0).astype(np.float64)
        return specs.value({"output": self.output()}, raw)

    def predict_proba(self, x: Array) -> Array:
        """(n, 2) uncalibrated probabilities of the classes 0 and 1."""
        p = specs.sigmoid(self.raw(x))
        return np.column_stack([1 - p, p])

    @classmethod
    def library_versions(cls) -> dict[str, str]:
        """Versions of the libraries that this algorithm rests on."""
        return {}
