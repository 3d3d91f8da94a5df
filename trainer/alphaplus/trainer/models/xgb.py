"""XGBoost: gradient-boosted trees [Chen & Guestrin 2016]."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import numpy as np
import xgboost
from alphaplus.trainer.models import trees
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
    "max_depth": 3,
    "eta": 0.05,
    "subsample": 0.8,
    "colsample_bytree": 0.5,
    "lambda": 10.0,
    "rounds": 400,
    "early_stopping": 50,
    "min_rounds": 1,
}
# Ours, not XGBoost's.
_OWN = {"rounds", "min_rounds", "early_stopping", "transform"}
_LOG_LINK = ("reg:tweedie", "reg:gamma", "count:poisson")


class _Tick(xgboost.callback.TrainingCallback):
    def __init__(self, total: int, progress: Progress) -> None:
        super().__init__()
        self.total = total
        self.progress = progress

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        del model, evals_log
        if epoch % 5 == 0:
            self.progress(epoch / self.total, f"round {epoch} of {self.total}")
        return False


class XGBoost(Estimator):
    """XGBoost, binary or regression; served as a LightGBM text model.

    Own parameters besides XGBoost's: ``rounds``, ``early_stopping``, ``min_rounds`` and
    ``transform`` as of :class:`alphaplus.trainer.models.gbm.LightGBM`.
    """

    algorithm = "xgboost"
    SPACE: ClassVar[Space] = {
        "eta": ["log_float", 0.01, 0.2],
        "max_depth": ["int", 1, 6],
        "colsample_bytree": ["float", 0.3, 1.0],
        "lambda": ["log_float", 0.1, 100.0],
    }

    def __init__(self, task: str, params: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(task, params, **kwargs)
        self.options = {**DEFAULTS, **self.params}
        self.booster: xgboost.Booster | None = None
        self.width = 0

    def _parameters(self) -> dict[str, Any]:
        parameters = {key: value for key, value in self.options.items() if key not in _OWN}
        parameters.setdefault(
            "objective", "binary:logistic" if self.task == "classification" else "reg:squarederror"
        )
        return parameters | {
            "seed": self.seed,
            "nthread": self.threads or -1,
            "tree_method": "hist",
            "verbosity": 0,
            "validate_parameters": True,
        }

    def link(self) -> str:
        """The transformation that takes the raw score to the target."""
        if self._parameters()["objective"] in _LOG_LINK:
            return "exp"
        return super().link()

    def _data(
        self, x: Array, y: Array | None = None, weight: Array | None = None
    ) -> xgboost.DMatrix:
        return xgboost.DMatrix(x, y, weight=weight, nthread=self.threads or -1)

    def fit(
        self,
        x: Features,
        y: Array,
        *,
        valid: tuple[Features, Array] | None = None,
        rounds: int | None = None,
        progress: Progress = _silent,
        weight: Array | None = None,
    ) -> XGBoost:
        """Fit; see :meth:`Estimator.fit`."""
        self.fit_scale(y)
        self.width = x.shape[1]
        total = rounds or int(self.options["rounds"])
        # dart reweighs earlier trees, so a prefix of it is no model that was judged.
        early = valid is not None and rounds is None and self.options.get("booster") != "dart"
        callbacks: list[Any] = [_Tick(total, progress)]
        evals = []
        if valid is not None and early:
            evals = [(self._data(valid[0], self.target(valid[1])), "valid")]
            callbacks.append(
                xgboost.callback.EarlyStopping(
                    rounds=max(int(self.options["early_stopping"]), int(self.options["min_rounds"]))
                )
            )
        parameters = self._parameters()
        # Overlapping labels repeat: twenty rows of one event are no twenty rows.
        base = float(np.clip(y.mean(), 0.01, 0.99))
        curvature = base * (1 - base) if self.task == "classification" else 1.0
        parameters.setdefault(
            "min_child_weight", curvature * max(20.0, min(20 * self.overlap, len(y) / 10))
        )
        try:
            self.booster = xgboost.train(
                parameters,
                self._data(x, self.target(y), weight),
                num_boost_round=total,
                evals=evals,
                callbacks=callbacks,
                verbose_eval=False,
            )
        except xgboost.core.XGBoostError as error:
            words = str(error).strip().splitlines()
            raise TrainingError(f"XGBoost: {words[0] if words else error}") from error
        done = int(self.booster.num_boosted_rounds())
        self.rounds = done
        if early:
            best = int(self.booster.best_iteration) + 1
            self.rounds = min(done, max(best, int(self.options["min_rounds"])))
        return self

    def raw(self, x: Features) -> Array:
        """Margins of all trees up to the best round.

        XGBoost finds the leaves; they are summed here in double precision, as its own sum in single
        precision is off by more than 1e-6 of a large value.
        """
        assert self.booster is not None and self.rounds is not None
        base, *trees_ = self.trees()
        leaves = self.booster.predict(
            self._data(x), pred_leaf=True, iteration_range=(0, self.rounds), strict_shape=True
        ).reshape(len(x), -1)
        total = np.full(len(x), base.value[0])
        for number, tree in enumerate(trees_):
            total += tree.value[leaves[:, number].astype(np.int64)]
        return total

    def _names(self) -> list[str]:
        return self.features or [f"f{i}" for i in range(self.width)]

    def trees(self) -> list[trees.Tree]:
        """The trees up to the best round, after one that holds the base score."""
        assert self.booster is not None and self.rounds is not None
        learner = json.loads(self.booster.save_raw("json"))["learner"]
        base = float(str(learner["learner_model_param"]["base_score"]).strip("[]"))
        objective = self._parameters()["objective"]
        if objective == "binary:logistic":
            base = float(np.log(base / (1 - base)))
        elif objective in _LOG_LINK:
            base = float(np.log(base))
        found = [trees.constant(base)]
        gradient = learner["gradient_booster"]
        share = gradient.get("weight_drop")
        model = gradient["gbtree"]["model"] if share is not None else gradient["model"]
        for number, tree in enumerate(model["trees"][: self.rounds]):
            condition = np.asarray(tree["split_conditions"], dtype=np.float32)
            found.append(
                trees.Tree(
                    np.asarray(tree["left_children"], dtype=np.int64),
                    np.asarray(tree["right_children"], dtype=np.int64),
                    np.asarray(tree["split_indices"], dtype=np.int64),
                    trees.below32(condition),
                    np.asarray(tree["default_left"], dtype=bool),
                    condition.astype(np.float64) * (1.0 if share is None else share[number]),
                    np.asarray(tree["sum_hessian"], dtype=np.float64),
                )
            )
        return found

    def export(self) -> Artifact:
        """The trees as LightGBM's text model."""
        return Artifact(
            "lightgbm",
            trees.lightgbm_text(self.trees(), self._names()).encode(),
            {
                "objective": self._parameters()["objective"],
                "inputs": {"kind": "row", "features": self.width},
                "scaling": None,
                "output": self.output(),
            },
        )

    def importance(self) -> dict[str, dict[str, float]]:
        """Gain and split count by feature."""
        assert self.booster is not None
        found = {}
        for kind, name in (("total_gain", "gain"), ("weight", "split")):
            scores: dict[str, Any] = self.booster.get_score(importance_type=kind)
            found[name] = {
                feature: float(scores.get(f"f{i}", 0.0)) for i, feature in enumerate(self._names())
            }
        return found

    @classmethod
    def library_versions(cls) -> dict[str, str]:
        """XGBoost's version."""
        return {"xgboost": xgboost.__version__}
