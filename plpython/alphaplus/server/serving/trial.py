"""A model's artifact is tried in a process of its own before it is let in.

Whatever the libraries make of a hostile model (a crash, a hang, all memory) then ends that process
and not the server's sessions. The child limits itself before it reads the artifact; who started it
waits no longer than the limit.
"""

from __future__ import annotations

import json
import math
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

_HEADER = struct.Struct("=Q")
# What serving asks for at most in one call.
_ROWS = (1, 2, 2048)


class TrialError(ValueError):
    """The artifact did not pass; its text says why."""


def attempt(
    artifact: bytes,
    format: str,
    spec: dict[str, Any],
    features: Sequence[str],
    task: str,
    *,
    seconds: float,
    memory: int,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Load a version as serving does, and predict with it, in a child process.

    Args:
        artifact: the model.
        format: "lightgbm" or "onnx".
        spec: the version's spec.
        features: their names.
        task: "classification" or "regression".
        seconds: the child's time on the processor; on the clock it has three times as much, as
            the machine may be busy.
        memory: bytes of the child's address space.
        check: called now and then while waiting; may raise, which ends the child.

    Raises:
        TrialError: with the reason.
    """
    head = {
        "format": format, "spec": spec, "features": list(features), "task": task,
        "seconds": seconds, "memory": memory,
    }  # fmt: skip
    header = json.dumps(head).encode()
    keep = {"PYTHONPATH", "PYTHONNOUSERSITE", "PYTHONPYCACHEPREFIX", "LD_LIBRARY_PATH", "PATH"}
    environment = {key: value for key, value in os.environ.items() if key in keep}
    with os.fdopen(os.memfd_create("artifact"), "w+b") as given:
        given.write(_HEADER.pack(len(header)) + header)
        given.write(artifact)
        given.seek(0)
        try:
            child = subprocess.Popen(
                [_interpreter(), "-m", "alphaplus.server.serving.trial"],
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=environment | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        except OSError as error:
            raise TrialError(f"no process to try it in could be started ({error})") from None
    said = _wait(child, time.monotonic() + 3 * seconds, seconds, check)
    if child.returncode < 0:
        raise TrialError(_ended(-child.returncode, seconds))
    try:
        answer: dict[str, Any] = json.loads(said)
    except ValueError:
        raise TrialError(f"its process ended with code {child.returncode}") from None
    if answer.get("error"):
        raise TrialError(str(answer["error"]))


def _wait(
    child: subprocess.Popen[bytes], until: float, seconds: float, check: Callable[[], None]
) -> bytes:
    """What the child said; it is gone then, whatever happens."""
    try:
        while True:
            try:
                return child.communicate(timeout=0.05)[0]
            except subprocess.TimeoutExpired:
                check()
                if time.monotonic() > until:
                    raise TrialError(f"it took longer than {seconds:g} s") from None
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
        if child.stdout is not None:
            child.stdout.close()


def _ended(number: int, seconds: float) -> str:
    if number in (signal.SIGXCPU, signal.SIGKILL):
        return f"it took longer than {seconds:g} s, or more memory than there is"
    try:
        return f"its process ended with {signal.Signals(number).name}"
    except ValueError:
        return f"its process ended with signal {number}"


def _interpreter() -> str:
    """The interpreter that PL/Python is; inside a server ``sys.executable`` is not it."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for folder in (sys.exec_prefix, sys.base_exec_prefix, "/usr", "/usr/local"):
        for name in (version, "python3"):
            path = os.path.join(folder, "bin", name)  # noqa: PTH118
            if os.access(path, os.X_OK):
                return path
    return "python3"


def refuse(
    plpy: Any,
    artifact: bytes,
    format: str,
    spec: str,
    features: Sequence[str],
    task: str,
    seconds: float,
    memory: int,
) -> None:
    """:func:`attempt` for the registry (SQLSTATE AP411)."""
    from alphaplus.server import interrupts

    try:
        attempt(
            artifact,
            format,
            json.loads(spec),
            features,
            task,
            seconds=seconds,
            memory=memory,
            check=interrupts.process,
        )
    except TrialError as error:
        plpy.error(
            f"the artifact failed when it was tried: {error}",
            sqlstate="AP411",
            hint="It was loaded and run in a process of its own, with little time and memory"
            " (settings registry.trial_seconds and registry.trial_bytes).",
        )


def _rows(width: int) -> Any:
    """Rows as they come and as they should not: missing, infinite, huge, tiny."""
    import numpy as np

    generator = np.random.default_rng(1)
    values = generator.normal(size=(max(_ROWS), width))
    odd = [0.0, np.nan, np.inf, -np.inf, 1e300, -1e300, 5e-324, 1e-40, -1.0, 2.0**63, -(2.0**63)]
    for number, value in enumerate(odd):
        values[number] = value
        values[len(odd) + number, ::2] = value
    return np.ascontiguousarray(values)


def _score(artifact: bytes, head: dict[str, Any]) -> None:
    import numpy as np
    from alphaplus.server.serving.score import Model

    row = {
        "artifact": artifact, "version_id": 0, "task": head["task"], "format": head["format"],
        "features": head["features"], "spec": json.dumps(head["spec"]), "digest": "",
    }  # fmt: skip
    model = Model(row, None)
    rows = _rows(model.booster.width)
    for count in _ROWS:
        scores = np.asarray(model.raws(rows[-count:]), dtype=np.float64)
        if scores.shape != (count,):
            raise ValueError(f"{scores.size} scores for {count} rows")
    single = float(model.raw(rows[-1].tolist()))
    if not math.isfinite(single):
        raise ValueError("a score that is no finite number for an ordinary row")
    if not abs(single - float(scores[-1])) <= 1e-6 * max(1.0, abs(single)):
        raise ValueError(f"a row alone scores {single:g}, among others {float(scores[-1]):g}")
    predicted = model.prediction(single)
    if not math.isfinite(predicted) or (head["task"] == "classification" and abs(predicted) > 1):
        raise ValueError(f"its prediction for an ordinary row is {predicted:g}")
    model.trust(predicted)
    for number in (0, 1, -1):
        values = rows[number].tolist()
        if head["format"] == "lightgbm":
            try:
                model.booster.contributions(values)
            except Exception as error:  # the library has none for linear trees, and says so
                if "linear trees" not in str(error):
                    raise
        else:
            model.booster.explain(values, model.features)
            model.booster.attention(values)
        model.distance(values[-len(model.features) :])


def _child() -> None:
    """Read a header and an artifact from standard input; say on standard output what came of it."""
    import resource

    data = sys.stdin.buffer
    head = json.loads(data.read(_HEADER.unpack(data.read(_HEADER.size))[0]))
    seconds = max(1, round(head["seconds"]))
    limits = {
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_AS: int(head["memory"]),
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
    }
    for limit, value in limits.items():
        resource.setrlimit(limit, (value, value))
    try:
        _score(data.read(), head)
        answer: dict[str, str | None] = {"error": None}
    except MemoryError:
        answer = {"error": "it needs more memory than it may have"}
    except Exception as error:  # whatever the libraries raise is the answer
        answer = {"error": str(error).strip().split("\n")[0][:500] or type(error).__name__}
    # Without the libraries' own clearing up, which may crash too.
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    _child()
