"""Artifacts as the server will run them: from their bytes alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from alphaplus.trainer.models.base import Features, TrainingError
from numpy.typing import NDArray

Array = NDArray[np.float64]


def _log_odds(spec: dict[str, Any], scores: Array) -> Array:
    if (spec.get("output") or {}).get("kind") != "probability":
        return scores
    p = np.clip(scores, 1e-7, 1 - 1e-7)
    found: Array = np.log(p / (1 - p))
    return found


def _scaled(spec: dict[str, Any], x: Features, rows: int = 4096) -> Iterator[Array]:
    """The inputs as the artifact takes them, some rows at a time."""
    scaling = spec.get("scaling")
    for start in range(0, len(x), rows):
        part = np.asarray(x[start : start + rows], dtype=np.float64)
        if scaling:
            part = np.where(np.isnan(part), np.asarray(scaling["fill"]), part)
            part = (part - np.asarray(scaling["center"])) / np.asarray(scaling["scale"])
            clip = scaling.get("clip")
            part = np.clip(part, -clip, clip) if clip else part
        yield part


def raw_scores(
    format: str, content: bytes, spec: dict[str, Any], x: Features, threads: int = 0
) -> Array:
    """Raw scores (n,) of an artifact for inputs (n, features) or (n, length, features).

    Raises:
        TrainingError: the format cannot be run here.
    """
    if format == "lightgbm":
        import lightgbm

        booster = lightgbm.Booster(model_str=content.decode())
        scores = np.asarray(
            booster.predict(x, raw_score=True, num_threads=threads), dtype=np.float64
        )
        # boosting=rf: the prediction is of the mean, what raw_score gives is the sum.
        if b"\naverage_output\n" in content.partition(b"\nTree=")[0]:
            scores = scores / max(booster.num_trees(), 1)
        return _log_odds(spec, scores)
    if format == "onnx":
        try:
            import onnxruntime
        except ImportError:
            raise TrainingError("onnxruntime is needed to run an ONNX artifact") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        given = session.get_inputs()[0]
        kind = np.float64 if given.type == "tensor(double)" else np.float32
        output = (spec.get("inputs") or {}).get("output", session.get_outputs()[0].name)
        scores = np.concatenate(
            [
                np.asarray(session.run([output], {given.name: part.astype(kind)})[0])
                .reshape(len(part), -1)[:, -1]
                .astype(np.float64)
                for part in _scaled(spec, x)
            ]
        )
        return _log_odds(spec, scores)
    raise TrainingError(f"unknown artifact format {format!r}")
