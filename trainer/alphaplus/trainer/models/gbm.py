"""LightGBM: gradient-boosted trees [Ke et al. 2017]."""

from __future__ import annotations

from typing import Any, ClassVar

import lightgbm
import numpy as np
from alphaplus.trainer.models.base import (
    Artifact,
    Estimator,
    Features,
    Progress,
    Space,
    TrainingError,
    _silent,
)
from numpy.typing import NDArray

Array = NDArray[np.float64]

DEFAULTS: dict[str, Any] = {
    "num_leaves": 31,
    "learning_rate": 0.05,
    "feature_fraction": 0.9,
    "bagging_fraction": 0.8,
    "bagging_freq": 5,
    "rounds": 400,
    "early_stopping": 50,
    "min_rounds": 1,
}
# Ours, not LightGBM's.
_OWN = {"rounds", "min_rounds", "early_stopping", "transform"}


class LightGBM(Estimator):
    """LightGBM, binary or regression.

    Own parameters besides LightGBM's: ``rounds`` (at most that many trees), ``early_stopping``
    (rounds without gain on the later rows), ``min_rounds`` (at least that many, as later rows with
    few events are a poor judge), ``transform`` ("log1p": regression on log1p of the
    target, which predicts near the median; objective "tweedie" predicts the mean of a target with
    many zeros and a heavy tail).
    """

    algorithm = "lightgbm"
    SPACE: ClassVar[Space] = {
        "learning_rate": ["log_float", 0.01, 0.2],
        "num_leaves": ["log_int", 2, 64],
        "feature_fraction": ["float", 0.3, 1.0],
        "lambda_l2": ["log_float", 0.1, 100.0],
    }

    def __init__(self, task: str, params: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(task, params, **kwargs)
        self.options = {**DEFAULTS, **self.params}
        self.booster: lightgbm.Booster | None = None

    def _parameters(self) -> dict[str, Any]:
        parameters = {key: value for key, value in self.options.items() if key not in _OWN}
        parameters.setdefault(
            "objective", "binary" if self.task == "classification" else "regression"
        )
        return parameters | {
            "seed": self.seed,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": self.threads,
            "verbosity": -1,
        }

    def link(self) -> str:
        """The transformation that takes the raw score to the target; tweedie: a log link."""
        if self._parameters()["objective"] in ("tweedie", "poisson", "gamma"):
            return "exp"
        return super().link()

    def fit(
        self,
        x: Features,
        y: Array,
        *,
        valid: tuple[Features, Array] | None = None,
        rounds: int | None = None,
        progress: Progress = _silent,
        weight: Array | None = None,
    ) -> LightGBM:
        """Fit; see :meth:`Estimator.fit`."""
        self.fit_scale(y)
        total = rounds or int(self.options["rounds"])

        def tick(env: Any) -> None:
            if env.iteration % 5 == 0:
                progress(env.iteration / total, f"round {env.iteration} of {total}")

        callbacks: list[Any] = [tick]
        parameters = self._parameters()
        # Overlapping labels repeat: twenty rows of one event are no twenty rows.
        parameters.setdefault("min_data_in_leaf", max(20, int(min(20 * self.overlap, len(y) / 10))))
        names = [f"f{i}" for i in range(x.shape[1])] if self.features is None else self.features
        train = lightgbm.Dataset(
            x, self.target(y), weight=weight, feature_name=names, params=parameters
        )
        sets: list[lightgbm.Dataset] = []
        # dart reweighs earlier trees, so a prefix of it is no model that was judged: no early stop.
        if valid is not None and rounds is None and parameters.get("boosting") != "dart":
            sets = [lightgbm.Dataset(valid[0], self.target(valid[1]), reference=train)]
            callbacks.append(
                lightgbm.early_stopping(
                    max(int(self.options["early_stopping"]), int(self.options["min_rounds"])),
                    verbose=False,
                )
            )
        try:
            self.booster = lightgbm.train(
                parameters, train, num_boost_round=total, valid_sets=sets, callbacks=callbacks
            )
        except lightgbm.basic.LightGBMError as error:
            raise TrainingError(f"LightGBM: {error}") from error
        done = self.booster.current_iteration()
        self.rounds = (
            min(done, max(self.booster.best_iteration, int(self.options["min_rounds"])))
            if sets
            else done
        )
        return self

    def raw(self, x: Features) -> Array:
        """Raw scores of all trees up to the best round."""
        assert self.booster is not None
        return np.asarray(
            self.booster.predict(
                x, raw_score=True, num_iteration=self.rounds, num_threads=self.threads
            ),
            dtype=np.float64,
        )

    def export(self) -> Artifact:
        """LightGBM's text model."""
        assert self.booster is not None
        text: str = self.booster.model_to_string(num_iteration=self.rounds)
        return Artifact(
            "lightgbm",
            text.encode(),
            {
                "objective": self._parameters()["objective"],
                "inputs": {"kind": "row", "features": self.booster.num_feature()},
                "scaling": None,
                "output": self.output(),
            },
        )

    def importance(self) -> dict[str, dict[str, float]]:
        """Gain and split count by feature."""
        assert self.booster is not None
        names = self.booster.feature_name()
        return {
            kind: dict(
                zip(
                    names,
                    map(float, self.booster.feature_importance(kind, self.rounds)),
                    strict=True,
                )
            )
            for kind in ("gain", "split")
        }

    @classmethod
    def library_versions(cls) -> dict[str, str]:
        """LightGBM's version."""
        return {"lightgbm": lightgbm.__version__}
