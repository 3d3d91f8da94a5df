"""What every estimator offers, and what is made of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
from alphaplus.trainer import spec as specs
from numpy.typing import NDArray

Array = NDArray[np.float64]
# (n, features), or (n, length, features) as an array or as Windows; which of the two a class takes
# is its sequence_length's to say, so the type checker cannot.
Features: TypeAlias = Any
# Called now and then while fitting with the part done (0 to 1) and words; raises Stopped.
Progress = Callable[[float, str], None]
# A search space: by parameter its choices, or [kind, low, high] with kind float, log_float, int or
# log_int.
Space = dict[str, Any]


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


@dataclass(frozen=True)
class Windows:
    """Sequences (n, length, features) over rows that are kept once; numpy.asarray cuts them.

    Attributes:
        rows: (m, features) all rows, those of a sequence one after the other.
        last: (n,) where each sequence ends.
        length: rows of a sequence.
    """

    rows: Array
    last: NDArray[np.int64]
    length: int
    ndim: ClassVar[int] = 3

    def __len__(self) -> int:
        return len(self.last)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n, length, features)."""
        return len(self.last), self.length, self.rows.shape[1]

    def __getitem__(self, chosen: Any) -> Windows:
        return Windows(self.rows, self.last[chosen], self.length)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        del copy
        cut: Array = self.rows[self.last[:, None] + np.arange(1 - self.length, 1)]
        return cut if dtype is None else cut.astype(dtype)

    @property
    def latest(self) -> Array:
        """(n, features) the last row of each."""
        return self.rows[self.last]


class Checkpoints(Protocol):
    """Where a fit keeps what it needs to go on after its trainer was killed."""

    def load(self, stage: str) -> bytes | None:
        """What was saved last in this stage of the job."""

    def save(self, stage: str, state: bytes) -> None:
        """Keep the state; it replaces the stage's last one."""


@dataclass(frozen=True)
class Scaling:
    """Robust scaling fitted on training rows: x' = clip((x - center) / scale), NaN as ``fill``.

    Attributes:
        center: (features,) medians.
        scale: (features,) interquartile ranges / 1.349; where that is 0 the standard deviation,
            where that is 0 too, 1.
        fill: (features,) what stands for NaN.
        clip: scaled values beyond ±clip are ±clip.
    """

    center: Array
    scale: Array
    fill: Array
    clip: float = 8.0

    @classmethod
    def of(cls, x: Array) -> Scaling:
        """Fit on rows (n, features)."""
        center, scale = np.zeros(x.shape[1]), np.ones(x.shape[1])
        for number in range(x.shape[1]):
            column = x[:, number]
            known = column[np.isfinite(column)]
            if len(known):
                low, center[number], high = np.quantile(known, [0.25, 0.5, 0.75])
                scale[number] = (high - low) / 1.349 or known.std() or 1.0
        return cls(center, scale, center)

    def apply(self, x: Array) -> Array:
        """Scaled values of (…, features)."""
        filled = np.where(np.isnan(x), self.fill, x)
        found: Array = np.clip((filled - self.center) / self.scale, -self.clip, self.clip)
        return found

    def spec(self) -> dict[str, Any]:
        """The spec's ``scaling``."""
        return {
            "center": self.center.tolist(),
            "scale": self.scale.tolist(),
            "fill": self.fill.tolist(),
            "clip": self.clip,
        }


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
    # What a hyperparameter search tries where the job names no space; empty: it must name one.
    SPACE: ClassVar[Space] = {}
    # Rows of history that one prediction reads; above 1 the inputs are (n, length, features).
    sequence_length: int = 1
    # Whether, once it is known how long to train, a fold's rows are all worth a second fit.
    refit: ClassVar[bool] = True
    # How long to train where there are no later rows to judge by.
    blind_rounds: ClassVar[int] = 100

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
        # Unit of a regression's target: of order one, it keeps losses and links well scaled.
        self.scale = 1.0
        # Where to keep and find the state of this fit, and its name there.
        self.checkpoints: Checkpoints | None = None
        self.stage = ""

    def fit_scale(self, y: Array) -> None:
        """Take the target's unit from its mean size."""
        if self.task == "regression":
            self.scale = float(np.mean(np.abs(y))) or 1.0

    def link(self) -> str:
        """What takes a regression's raw score to the target: "identity", "exp" or "expm1"."""
        options = getattr(self, "options", self.params)
        return "expm1" if options.get("transform") == "log1p" else "identity"

    def target(self, y: Array) -> Array:
        """What is fitted: classes as they are, values in their unit, transformed."""
        if self.task == "classification":
            return y
        found: Array = np.log1p(y / self.scale) if self.link() == "expm1" else y / self.scale
        return found

    @abstractmethod
    def fit(
        self,
        x: Features,
        y: Array,
        *,
        valid: tuple[Features, Array] | None = None,
        rounds: int | None = None,
        progress: Progress = _silent,
        weight: Array | None = None,
    ) -> Estimator:
        """Fit.

        Args:
            x: (n, features), or (n, length, features) as an array or :class:`Windows`; NaN where
                not knowable.
            y: (n,).
            valid: later rows on which to stop early; sets ``self.rounds``.
            rounds: train this long instead, without stopping early.
            progress: called now and then; may raise :class:`Stopped`, which must pass through.
            weight: (n,) what each row weighs; None: all the same.
        """

    @abstractmethod
    def raw(self, x: Features) -> Array:
        """Raw scores (n,): log odds, or the regression before ``output``'s transformation."""

    @abstractmethod
    def export(self) -> Artifact:
        """The fitted model as an artifact, without calibration."""

    def output(self) -> dict[str, Any]:
        """The spec's ``output``."""
        if self.task == "classification":
            return {"kind": "log_odds"}
        return {"kind": self.link(), "scale": self.scale}

    def importance(self) -> dict[str, dict[str, float]]:
        """Importance by kind ("gain", "split", …) and feature; empty where there is none."""
        return {}

    def predict(self, x: Features) -> Array:
        """Classes 0 and 1, or values in the target's unit."""
        raw = self.raw(x)
        if self.task == "classification":
            return (raw > 0).astype(np.float64)
        return specs.value({"output": self.output()}, raw)

    def predict_proba(self, x: Features) -> Array:
        """(n, 2) uncalibrated probabilities of the classes 0 and 1."""
        p = specs.sigmoid(self.raw(x))
        return np.column_stack([1 - p, p])

    @classmethod
    def library_versions(cls) -> dict[str, str]:
        """Versions of the libraries that this algorithm rests on."""
        return {}
