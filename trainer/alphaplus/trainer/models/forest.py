"""scikit-learn's trees: random forest [Breiman 2001] and histogram gradient boosting."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import sklearn
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
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)

Array = NDArray[np.float64]


class _Trees(Estimator):
    """What both have in common: they are served as LightGBM text models."""

    def __init__(self, task: str, params: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(task, params, **kwargs)
        self.model: Any = None
        self.width = 0

    def _names(self) -> list[str]:
        return self.features or [f"f{i}" for i in range(self.width)]

    def _build(self, kind: Any, **settings: Any) -> Any:
        try:
            return kind(**settings)
        except TypeError as error:
            raise TrainingError(f"scikit-learn: {error}") from None

    def trees(self) -> list[trees.Tree]:
        """The fitted trees."""
        raise NotImplementedError

    def export(self) -> Artifact:
        """The trees as LightGBM's text model."""
        return Artifact(
            "lightgbm",
            trees.lightgbm_text(self.trees(), self._names()).encode(),
            {
                "objective": type(self.model).__name__,
                "inputs": {"kind": "row", "features": self.width},
                "scaling": None,
                "output": self.output(),
            },
        )

    @classmethod
    def library_versions(cls) -> dict[str, str]:
        """scikit-learn's version."""
        return {"scikit-learn": sklearn.__version__}


class RandomForest(_Trees):
    """Random forest; the artifact's score is the mean vote (probability), or the mean value.

    Parameters are scikit-learn's RandomForestClassifier's and -Regressor's, and ``transform``.
    """

    algorithm = "random_forest"
    SPACE: ClassVar[Space] = {
        "max_depth": ["int", 3, 12],
        "max_features": ["float", 0.1, 0.8],
        "max_samples": ["float", 0.2, 0.8],
    }

    def __init__(self, task: str, params: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(task, params, **kwargs)
        self.options: dict[str, Any] = {
            "n_estimators": 200,
            "max_depth": 8,
            "max_features": "sqrt" if task == "classification" else 0.4,
            "max_samples": 0.5,
            **self.params,
        }

    def output(self) -> dict[str, Any]:
        """The spec's ``output``: a probability, whose log odds are the raw score."""
        return {"kind": "probability"} if self.task == "classification" else super().output()

    def fit(
        self,
        x: Features,
        y: Array,
        *,
        valid: tuple[Features, Array] | None = None,
        rounds: int | None = None,
        progress: Progress = _silent,
        weight: Array | None = None,
    ) -> RandomForest:
        """Fit; a forest has no early stopping, so ``valid`` and ``rounds`` change nothing."""
        del valid, rounds
        self.fit_scale(y)
        self.width = x.shape[1]
        options = {key: value for key, value in self.options.items() if key != "transform"}
        total = int(options.pop("n_estimators"))
        options.setdefault("min_samples_leaf", max(20, int(min(5 * self.overlap, len(y) / 20))))
        kind = RandomForestClassifier if self.task == "classification" else RandomForestRegressor
        self.model = self._build(
            kind, n_estimators=0, warm_start=True, random_state=self.seed,
            n_jobs=self.threads or -1, **options,
        )  # fmt: skip
        target = self.target(y)
        # Grown in parts, so that a stop is heeded and progress seen.
        for count in [*range(20, total, 20), total]:
            progress((count - 1) / total, f"tree {count} of {total}")
            self.model.n_estimators = count
            try:
                self.model.fit(x, target, weight)
            except ValueError as error:
                raise TrainingError(f"scikit-learn: {error}") from None
        return self

    def raw(self, x: Features) -> Array:
        """Log odds of the mean vote, clipped as serving does; or the mean value."""
        if self.task == "classification":
            p = np.clip(self.model.predict_proba(x)[:, 1], 1e-7, 1 - 1e-7)
            found: Array = np.log(p / (1 - p))
            return found
        return np.asarray(self.model.predict(x), dtype=np.float64)

    def trees(self) -> list[trees.Tree]:
        """The trees, each with its share of the mean in its leaves."""
        found = []
        for member in self.model.estimators_:
            tree = member.tree_
            value = tree.value[:, 0, :]
            leaf = value[:, 1] / value.sum(axis=1) if value.shape[1] == 2 else value[:, 0]
            missing = getattr(tree, "missing_go_to_left", None)
            found.append(
                trees.Tree(
                    tree.children_left.astype(np.int64),
                    tree.children_right.astype(np.int64),
                    np.maximum(tree.feature, 0).astype(np.int64),
                    trees.at_most32(tree.threshold),
                    np.zeros(len(leaf), dtype=bool) if missing is None else missing.astype(bool),
                    leaf / len(self.model.estimators_),
                    tree.weighted_n_node_samples.astype(np.float64),
                )
            )
        return found

    def importance(self) -> dict[str, dict[str, float]]:
        """Impurity decrease by feature."""
        values = map(float, self.model.feature_importances_)
        return {"gain": dict(zip(self._names(), values, strict=True))}


class GradientBoosting(_Trees):
    """scikit-learn's histogram gradient boosting.

    Parameters are HistGradientBoostingClassifier's and -Regressor's, ``transform``, and ``rounds``,
    ``early_stopping`` and ``min_rounds`` as of LightGBM's class here.
    """

    algorithm = "gradient_boosting"
    SPACE: ClassVar[Space] = {
        "learning_rate": ["log_float", 0.01, 0.2],
        "max_leaf_nodes": ["log_int", 2, 64],
        "l2_regularization": ["log_float", 0.1, 100.0],
    }

    def __init__(self, task: str, params: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(task, params, **kwargs)
        self.options: dict[str, Any] = {
            "learning_rate": 0.05,
            "max_leaf_nodes": 8,
            "l2_regularization": 10.0,
            "max_features": 0.5,
            "rounds": 400,
            "early_stopping": 50,
            "min_rounds": 1,
            **self.params,
        }

    def fit(
        self,
        x: Features,
        y: Array,
        *,
        valid: tuple[Features, Array] | None = None,
        rounds: int | None = None,
        progress: Progress = _silent,
        weight: Array | None = None,
    ) -> GradientBoosting:
        """Fit; see :meth:`Estimator.fit`."""
        self.fit_scale(y)
        self.width = x.shape[1]
        own = ("rounds", "early_stopping", "min_rounds", "transform")
        options = {key: value for key, value in self.options.items() if key not in own}
        options.setdefault("min_samples_leaf", max(20, int(min(20 * self.overlap, len(y) / 10))))
        total = rounds or int(self.options["rounds"])
        patience = max(int(self.options["early_stopping"]), int(self.options["min_rounds"]))
        is_class = self.task == "classification"
        kind = HistGradientBoostingClassifier if is_class else HistGradientBoostingRegressor
        self.model = self._build(
            kind, early_stopping=False, warm_start=True, random_state=self.seed, **options
        )
        target = self.target(y)
        best, best_loss = total, np.inf
        step = 10 if rounds is None else 50
        scores = np.zeros(0)
        for count in [*range(step, total, step), total]:
            progress((count - 1) / total, f"round {count} of {total}")
            self.model.max_iter = count
            try:
                self.model.fit(x, target, weight)
            except ValueError as error:
                raise TrainingError(f"scikit-learn: {error}") from None
            if valid is None or rounds is not None:
                continue
            scores = self.raw(valid[0])
            loss = self._loss(scores, self.target(valid[1]))
            if loss < best_loss:
                best, best_loss = count, loss
            elif count - best >= patience:
                break
        self.rounds = max(best, int(self.options["min_rounds"])) if rounds is None else total
        # Later trees only add: the best round is a prefix.
        del self.model._predictors[self.rounds :]
        self.rounds = len(self.model._predictors)
        return self

    def _loss(self, raw: Array, target: Array) -> float:
        if self.task == "classification":
            return float((np.logaddexp(0, raw) - target * raw).mean())
        return float(((raw - target) ** 2).mean())

    def link(self) -> str:
        """The transformation that takes the raw score to the target."""
        return "exp" if self.options.get("loss") in ("poisson", "gamma") else super().link()

    def raw(self, x: Features) -> Array:
        """Raw scores of the trees."""
        return np.asarray(self.model._raw_predict(x), dtype=np.float64)[:, 0]

    def trees(self) -> list[trees.Tree]:
        """The trees, after one that holds the base score."""
        found = [trees.constant(float(self.model._baseline_prediction.ravel()[0]))]
        for (member,) in self.model._predictors:
            nodes = member.nodes
            leaf = nodes["is_leaf"].astype(bool)
            found.append(
                trees.Tree(
                    np.where(leaf, -1, nodes["left"].astype(np.int64)),
                    np.where(leaf, -1, nodes["right"].astype(np.int64)),
                    nodes["feature_idx"].astype(np.int64),
                    nodes["num_threshold"].astype(np.float64),
                    nodes["missing_go_to_left"].astype(bool),
                    nodes["value"].astype(np.float64),
                    nodes["count"].astype(np.float64),
                )
            )
        return found

    def importance(self) -> dict[str, dict[str, float]]:
        """Gain and split count by feature."""
        gain, split = np.zeros(self.width), np.zeros(self.width)
        for (member,) in self.model._predictors:
            inner = member.nodes[member.nodes["is_leaf"] == 0]
            np.add.at(gain, inner["feature_idx"], inner["gain"])
            np.add.at(split, inner["feature_idx"], 1)
        return {
            "gain": dict(zip(self._names(), gain.tolist(), strict=True)),
            "split": dict(zip(self._names(), split.tolist(), strict=True)),
        }
