"""Artifacts as the server will run them: from their bytes alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from alphaplus.trainer.models.base import TrainingError
from numpy.typing import NDArray

Array = NDArray[np.float64]


def raw_scores(
    format: str, content: bytes, spec: dict[str, Any], x: Array, threads: int = 0
) -> Array:
    """Raw scores (n,) of an artifact for inputs (n, features) or (n, length, features).

    Raises:
        TrainingError: the format cannot be run here.
    """
    if format == "lightgbm":
        import lightgbm

        booster = lightgbm.Booster(model_str=content.decode())
        return np.asarray(booster.predict(x, raw_score=True, num_threads=threads), dtype=np.float64)
    if format == "onnx":
        try:
            import onnxruntime
        except ImportError:
            raise TrainingError("onnxruntime is needed to run an ONNX artifact") from None
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        if spec.get("scaling"):
            scaling = spec["scaling"]
            x = np.where(np.isnan(x), np.asarray(scaling["fill"]), x)
            x = (x - np.asarray(scaling["center"])) / np.asarray(scaling["scale"])
        name = session.get_inputs()[0].name
        output = spec["inputs"].get("output", session.get_outputs()[0].name)
        scores = np.asarray(
            session.run([output], {name: x.astype(np.float32)})[0], dtype=np.float64
        )
        if scores.ndim == 2:
            scores = scores[:, -1]
        if spec["output"]["kind"] == "probability":
            p = np.clip(scores, 1e-7, 1 - 1e-7)
            return np.log(p / (1 - p))
        return scores
    raise TrainingError(f"unknown artifact format {format!r}")
