"""ONNX models in a backend: onnxruntime on one thread, bounded in time and open to a cancel.

:mod:`alphaplus.server.serving.onnx_check` reads a model before onnxruntime (imported at the first
ONNX model, about 150 ms) does.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from typing import Any

from alphaplus.server import interrupts
from alphaplus.server.serving.onnx_check import OnnxError, check

__all__ = ["OnnxError", "Session", "check", "refuse"]

# Rows of one call of the library, between which a cancel is looked for; what registration tries.
ROWS = 2048
# Nothing that was let in takes so long for that many rows.
SECONDS = 60.0


def refuse(plpy: Any, content: bytes, features: int) -> None:
    """:func:`check` for the registry (SQLSTATE AP411)."""
    try:
        check(content, features)
    except OnnxError as error:
        plpy.error(
            str(error),
            sqlstate="AP411",
            hint="Export one self-contained file of standard operators (domains ai.onnx and"
            " ai.onnx.ml), without loops and branches; docs/models.md lists what is let in.",
        )


class Session:
    """One model. ``raw(row)`` is its raw score: log odds for classes, the output for values.

    A row is the feature set's values; for a sequence model (spec ``inputs.kind``) the rows of the
    last ``length`` grid times one after the other, oldest first. Scaling is the spec's.
    """

    def __init__(self, content: bytes, spec: dict[str, Any]) -> None:
        check(content, int((spec.get("inputs") or {})["features"]))
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
        self._options = onnxruntime.RunOptions
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
        with self._np.errstate(over="ignore"):
            x = x.astype(self._kind)
        parts = [self._run(x[at : at + ROWS], outputs) for at in range(0, max(len(x), 1), ROWS)]
        if len(parts) == 1:
            return parts[0]
        return [self._np.concatenate(some) for some in zip(*parts, strict=True)]

    def _run(self, x: Any, outputs: Sequence[str]) -> list[Any]:
        """One call of the library, which ends when the statement is cancelled or takes too long."""
        options = self._options()
        with _WATCH.over(options, SECONDS) as watched:
            try:
                found: list[Any] = self._session.run(list(outputs), {self._input: x}, options)
            except Exception as error:
                if watched.ended is None:
                    raise OnnxError(str(error)) from None
        if watched.ended == "cancelled":
            interrupts.process()
        if watched.ended is not None:
            raise OnnxError(f"the model took longer than {SECONDS:g} s for {len(x)} rows")
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


class _Watched:
    """A call that is looked at: its options, until when it may run, and why it was ended."""

    def __init__(self, options: Any, until: float) -> None:
        self.options = options
        self.until = until
        self.ended: str | None = None


class _Watch:
    """A thread that ends a call of onnxruntime: the library knows nothing of PostgreSQL's signals.

    One thread a backend, asleep while no call runs. It takes no signals, which are the backend's
    own thread's to handle.
    """

    def __init__(self) -> None:
        self._call: _Watched | None = None
        self._begun = threading.Semaphore(0)
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def over(self, options: Any, seconds: float) -> _Watch._Over:
        """The calls within the block are watched."""
        return self._Over(self, _Watched(options, time.monotonic() + seconds))

    class _Over:
        def __init__(self, watch: _Watch, call: _Watched) -> None:
            self.watch = watch
            self.call = call

        def __enter__(self) -> _Watched:
            watch = self.watch
            if watch._thread is None:
                watch._thread = interrupts.thread(watch._look)
            watch._done.clear()
            watch._call = self.call
            watch._begun.release()
            return self.call

        def __exit__(self, *error: object) -> None:
            self.watch._call = None
            self.watch._done.set()

    def _look(self) -> None:
        while True:
            self._begun.acquire()
            while (call := self._call) is not None:
                if interrupts.pending():
                    call.ended = "cancelled"
                elif time.monotonic() > call.until:
                    call.ended = "late"
                if call.ended is not None:
                    call.options.terminate = True
                    self._done.wait()
                    break
                self._done.wait(0.02)


_WATCH = _Watch()
