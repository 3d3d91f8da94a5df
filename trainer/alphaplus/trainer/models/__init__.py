"""Estimators behind one scikit-learn-like interface, by algorithm name.

A new one is a class that follows :class:`~alphaplus.trainer.models.base.Estimator` and a line in
``ALGORITHMS``; its module is imported only when it is asked for, so that training LightGBM never
loads torch.
"""

from __future__ import annotations

from importlib import import_module

from alphaplus.trainer.models.base import Estimator as Estimator
from alphaplus.trainer.models.base import TrainingError as TrainingError

ALGORITHMS: dict[str, str] = {
    "lightgbm": "alphaplus.trainer.models.gbm:LightGBM",
    "xgboost": "alphaplus.trainer.models.xgb:XGBoost",
    "gradient_boosting": "alphaplus.trainer.models.forest:GradientBoosting",
    "random_forest": "alphaplus.trainer.models.forest:RandomForest",
    "logistic_regression": "alphaplus.trainer.models.linear:LogisticRegression",
    "lstm": "alphaplus.trainer.models.deep:LSTM",
    "gru": "alphaplus.trainer.models.deep:GRU",
    "cnn": "alphaplus.trainer.models.deep:CNN",
    "transformer": "alphaplus.trainer.models.deep:Transformer",
}


def estimator(algorithm: str) -> type[Estimator]:
    """The class of an algorithm.

    Raises:
        TrainingError: no such algorithm, or its library is not installed here.
    """
    try:
        module, name = ALGORITHMS[algorithm].split(":")
    except KeyError:
        raise TrainingError(
            f"unknown algorithm {algorithm!r}; known: {', '.join(sorted(ALGORITHMS))}"
        ) from None
    try:
        found: type[Estimator] = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        raise TrainingError(
            f"{algorithm} needs {error.name}, which this trainer has not: install alphaplus[deep]"
            " (PyTorch) or alphaplus[trainer] (the rest) where it runs"
        ) from error
    return found
