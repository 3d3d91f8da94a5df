"""Linear models: logistic regression, and ridge regression of values."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import sklearn
from alphaplus.trainer.models.base import (
    Artifact,
    Estimator,
    Features,
    Progress,
    Scaling,
    Space,
    TrainingError,
    _silent,
)
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression as SkLogistic
from sklearn.linear_model import Ridge

Array = NDArray[np.float64]


class LogisticRegression(Estimator):
    """Logistic regression with an L2 penalty; of values, ridge regression.

    Inputs are scaled robustly by the training rows, their missing values the median. Parameters:
    ``C`` (inverse penalty, as scikit-learn's; ridge: alpha = 1/C), ``max_iter``, ``max_rows``
    (more training rows than this are thinned evenly in time; 0: all), ``transform``.
    """

    algorithm = "logistic_regression"
    SPACE: ClassVar[Space] = {"C": ["log_float", 1e-5, 10.0]}

    def __init__(self, task: str, params: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(task, params, **kwargs)
        self.options: dict[str, Any] = {"C": 0.01, "max_iter": 200, "max_rows": 0, **self.params}
        self.model: Any = None
        self.scaling: Scaling | None = None

    def fit(
        self,
        x: Features,
        y: Array,
        *,
        valid: tuple[Features, Array] | None = None,
        rounds: int | None = None,
        progress: Progress = _silent,
        weight: Array | None = None,
    ) -> LogisticRegression:
        """Fit; there is nothing to stop early, so ``valid`` and ``rounds`` change nothing."""
        del valid, rounds
        unknown = set(self.options) - {"C", "max_iter", "max_rows", "transform"}
        if unknown:
            raise TrainingError(f"logistic regression has no parameter {sorted(unknown)}")
        progress(0.1, "fitting")
        self.fit_scale(y)
        most = int(self.options["max_rows"])
        if most and len(y) > most:
            chosen = np.unique(np.linspace(0, len(y) - 1, most).round().astype(np.int64))
            if y[chosen].min() < y[chosen].max():
                x, y = x[chosen], y[chosen]
                weight = None if weight is None else weight[chosen]
        self.scaling = Scaling.of(x)
        scaled = self.scaling.apply(x)
        strength = float(self.options["C"])
        target = self.target(y)
        if self.task == "classification":
            # Newton's method: far more rows than features, and features that move together.
            self.model = SkLogistic(
                C=strength, solver="newton-cholesky", max_iter=int(self.options["max_iter"])
            )
        else:
            self.model = Ridge(alpha=1 / strength)
        try:
            self.model.fit(scaled, target, weight)
        except ValueError as error:
            raise TrainingError(f"scikit-learn: {error}") from None
        return self

    def raw(self, x: Features) -> Array:
        """Log odds, or values before the output's transformation."""
        assert self.scaling is not None
        found: Array = self.scaling.apply(x) @ self._weights() + float(
            np.ravel(self.model.intercept_)[0]
        )
        return found

    def _weights(self) -> Array:
        return np.ravel(self.model.coef_).astype(np.float64)

    def export(self) -> Artifact:
        """ONNX by skl2onnx, in double precision: the decision function as a linear regressor."""
        from skl2onnx import to_onnx
        from skl2onnx.common.data_types import DoubleTensorType

        assert self.scaling is not None
        width = len(self.scaling.center)
        plain = Ridge()
        plain.coef_ = self._weights().reshape(1, -1)
        plain.intercept_ = np.ravel(self.model.intercept_).astype(np.float64)
        plain.n_features_in_ = width
        made = to_onnx(plain, initial_types=[("features", DoubleTensorType([None, width]))])
        return Artifact(
            "onnx",
            made.SerializeToString(),
            {
                "objective": type(self.model).__name__,
                "inputs": {"kind": "row", "features": width, "name": "features"},
                "scaling": self.scaling.spec(),
                "output": self.output(),
                "linear": self._weights().tolist(),
            },
        )

    def importance(self) -> dict[str, dict[str, float]]:
        """Absolute weights of the scaled features."""
        names = self.features or [f"f{i}" for i in range(len(self._weights()))]
        return {"weight": dict(zip(names, np.abs(self._weights()).tolist(), strict=True))}

    @classmethod
    def library_versions(cls) -> dict[str, str]:
        """scikit-learn's version."""
        return {"scikit-learn": sklearn.__version__}
