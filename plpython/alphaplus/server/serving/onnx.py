"""ONNX models in a backend: onnxruntime on one thread, and nothing that reaches outside the bytes.

onnxruntime (imported at the first ONNX model, about 150 ms) would read files that a model names
as external data, and load what custom operators need. So the protobuf is walked first and a model
that names either is refused.

Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto (field numbers).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

DOMAINS = {"", "ai.onnx", "ai.onnx.ml"}


class OnnxError(ValueError):
    """The model is none, or reaches outside its own bytes."""


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise OnnxError("the artifact is no ONNX model: it breaks off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) of a protobuf message: bytes fields as views, the others as numbers."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        if key >> 32:
            # Other readers cut such a key to 32 bits, and would find another field in it.
            raise OnnxError("the artifact is no ONNX model: a field number is too large")
        kind = key & 7
        if kind == 0:
            number, at = _varint(data, at)
            yield key >> 3, number
            continue
        if kind == 2:
            length, at = _varint(data, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise OnnxError("the artifact is no ONNX model: unknown wire type")
        if at + length > len(data):
            raise OnnxError("the artifact is no ONNX model: it breaks off")
        yield key >> 3, data[at : at + length]
        at += length


def _text(value: int | memoryview) -> str:
    return bytes(value).decode("utf-8", "replace") if isinstance(value, memoryview) else ""


# Which fields of which message lead to which message.
_INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 8: "opset", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 9: "opset", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse",
    },
    "sparse": {1: "tensor", 2: "tensor"},
    "opset": {},
    "tensor": {},
}  # fmt: skip
_DOMAIN = {"opset": 1, "node": 7, "function": 10}


def _walk(kind: str, data: memoryview, depth: int = 0) -> None:
    if depth > 64:
        raise OnnxError("the model is nested too deeply")
    for field, value in _fields(data):
        if kind == "tensor" and (field == 13 or (field == 14 and value != 0)):
            raise OnnxError("the model keeps data outside itself (external data)")
        if _DOMAIN.get(kind) == field and _text(value) not in DOMAINS:
            raise OnnxError(f"the model uses custom operators (domain {_text(value)!r})")
        inner = _INSIDE[kind].get(field)
        if inner is not None:
            if not isinstance(value, memoryview):
                raise OnnxError("the artifact is no ONNX model: a message is no message")
            _walk(inner, value, depth + 1)


def check(content: bytes) -> None:
    """Refuse what is no ONNX model, keeps data outside itself or needs custom operators.

    Raises:
        OnnxError: with the reason.
    """
    if not any(field == 7 for field, _ in _fields(memoryview(content))):
        raise OnnxError("the artifact is no ONNX model: it has no graph")
    _walk("model", memoryview(content))


def refuse(plpy: Any, content: bytes) -> None:
    """:func:`check` for the registry (SQLSTATE AP411)."""
    try:
        check(content)
    except OnnxError as error:
        plpy.error(
            str(error),
            sqlstate="AP411",
            hint="Export one self-contained file with the standard operators"
            " (domains ai.onnx and ai.onnx.ml).",
        )


class Session:
    """One model. ``raw(row)`` is its raw score: log odds for classes, the output for values.

    A row is the feature set's values; for a sequence model (spec ``inputs.kind``) the rows of the
    last ``length`` grid times one after the other, oldest first. Scaling is the spec's.
    """

    def __init__(self, content: bytes, spec: dict[str, Any]) -> None:
        check(content)
        import numpy as np
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own classes share no base of their own
            raise OnnxError(str(error)) from None
        self._np = np
        inputs = spec.get("inputs") or {}
        self.features = int(inputs["features"])
        self.length = int(inputs.get("length") or 1) if inputs.get("kind") == "sequence" else 0
        self.width = self.features * max(self.length, 1)
        given = self._session.get_inputs()[0]
        self._input = given.name
        self._kind = np.float64 if given.type == "tensor(double)" else np.float32
        self._output = inputs.get("output") or self._session.get_outputs()[0].name
        self._attention = inputs.get("attention")
        self._probability = (spec.get("output") or {}).get("kind") == "probability"
        scaling = spec.get("scaling")
        self._scaling = scaling and tuple(
            np.asarray(scaling[key], dtype=np.float64) for key in ("fill", "center", "scale")
        )
        reference = (scaling or {}).get("fill") or (spec.get("support") or {}).get("center")
        self._reference = reference or [0.0] * self.features
        self._clip = (scaling or {}).get("clip")
        self._linear = spec.get("linear")

    def _scaled(self, rows: Any) -> Any:
        """(n, length, features) as the model takes them."""
        np = self._np
        x = np.asarray(rows, dtype=np.float64).reshape(-1, max(self.length, 1), self.features)
        if self._scaling:
            fill, center, scale = self._scaling
            x = (np.where(np.isnan(x), fill, x) - center) / scale
            if self._clip:
                x = np.clip(x, -self._clip, self._clip)
        return x

    def _scores(self, rows: Any, outputs: Sequence[str]) -> list[Any]:
        x = self._scaled(rows)
        if not self.length:
            x = x[:, 0, :]
        found: list[Any] = self._session.run(list(outputs), {self._input: x.astype(self._kind)})
        return found

    def many(self, rows: Any) -> Any:
        """Raw scores (n,) of rows (n, width), NaN for missing values."""
        np = self._np
        scores = np.asarray(self._scores(rows, [self._output])[0], dtype=np.float64)
        if scores.ndim > 1:
            scores = scores.reshape(len(scores), -1)[:, -1]
        if self._probability:
            p = np.clip(scores, 1e-7, 1 - 1e-7)
            return np.log(p / (1 - p))
        return scores

    def raw(self, row: Sequence[float | None]) -> float:
        """Raw score of one row of ``width`` values.

        Raises:
            ValueError: another number of values.
        """
        if len(row) != self.width:
            raise ValueError("another number of values")
        return float(self.many([[math.nan if v is None else v for v in row]])[0])

    def explain(
        self, row: Sequence[float | None], names: Sequence[str]
    ) -> list[tuple[str, float | None, float]]:
        """(feature, value, contribution). Linear models (spec ``linear``): weight times the scaled
        value, exactly. Others by occlusion: what replacing a feature (at all times of a
        sequence) by its training median takes from the raw score. "base" is what remains, so the
        rows sum to the raw score; for models with interactions they are no Shapley values.
        """
        np = self._np
        full = np.array([math.nan if v is None else v for v in row], dtype=np.float64)
        if self._linear is not None:
            return self._explain_linear(full, names)
        cube = np.repeat(full.reshape(1, -1, self.features), self.features + 1, axis=0)
        for i in range(self.features):
            cube[i + 1, :, i] = self._reference[i]
        raw = self.many(cube.reshape(self.features + 1, -1))
        last = cube[0, -1].tolist()
        found = [
            (names[i], None if math.isnan(last[i]) else last[i], float(raw[0] - raw[i + 1]))
            for i in range(self.features)
        ]
        found.sort(key=lambda item: -abs(item[2]))
        return [*found, ("base", None, float(raw[0]) - math.fsum(item[2] for item in found))]

    def _explain_linear(
        self, full: Any, names: Sequence[str]
    ) -> list[tuple[str, float | None, float]]:
        raw = float(self.many(full.reshape(1, -1))[0])
        parts = (self._scaled(full)[0, 0] * self._np.asarray(self._linear)).tolist()
        values = full.tolist()
        found = [
            (name, None if math.isnan(value) else value, part)
            for name, value, part in zip(names, values, parts, strict=True)
        ]
        found.sort(key=lambda item: -abs(item[2]))
        return [*found, ("base", None, raw - math.fsum(parts))]

    def attention(self, row: Sequence[float | None]) -> list[float] | None:
        """Weight of each grid time of the sequence, oldest first; None without such an output."""
        if not self._attention:
            return None
        weights = self._scores(
            [[math.nan if v is None else v for v in row]], [str(self._attention)]
        )[0]
        found: list[float] = self._np.asarray(weights, dtype=self._np.float64).ravel().tolist()
        return found

    def close(self) -> None:
        """Give the model's memory back."""
        del self._session
