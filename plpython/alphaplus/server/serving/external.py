"""Models trained elsewhere: their columns put where the feature set has them, and a probe.

A model whose columns are in another order gives an answer for every row, and a wrong one. So names
are matched to the artifact's own, and what the model said where it was trained must come out here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

# Objectives of LightGBM by what their raw score is.
CLASSES = {"binary": "log_odds", "cross_entropy": "log_odds"}
VALUES = {
    "regression": "identity", "regression_l1": "identity", "huber": "identity",
    "fair": "identity", "quantile": "identity", "mape": "identity", "poisson": "exp",
    "gamma": "exp", "tweedie": "exp",
}  # fmt: skip
TOLERANCE = 1e-6
LEAST = 3


class ExternalError(ValueError):
    """The model, its names and its probe do not belong together."""


def own_names(artifact: bytes, format: str) -> list[str] | None:
    """The feature names that an artifact carries; None where it carries none of its own."""
    if format == "lightgbm":
        found = re.search(rb"^feature_names=(.*)$", artifact[: artifact.find(b"\nTree=")], re.M)
        names = found.group(1).decode().split() if found else []
        generic = all(re.fullmatch(rf"(Column_|f){i}", name) for i, name in enumerate(names))
        return None if generic else names
    from alphaplus.server.serving import onnx_check

    for number, value in onnx_check._fields(memoryview(artifact)):
        if number == 14 and isinstance(value, memoryview):  # metadata_props
            pair = {n: bytes(v) for n, v in onnx_check._fields(value) if isinstance(v, memoryview)}
            if pair.get(1) in (b"features", b"feature_names"):
                words = pair.get(2, b"").decode("utf-8", "replace")
                if words.lstrip().startswith("["):
                    return [str(name) for name in json.loads(words)]
                return [name.strip() for name in words.split(",")]
    return None


def objective(artifact: bytes) -> str:
    """A LightGBM text model's objective."""
    found = re.search(rb"^objective=(\S+)", artifact[: artifact.find(b"\nTree=")], re.M)
    return found.group(1).decode() if found else "regression"


def placed(artifact: bytes, given: Sequence[str], wanted: Sequence[str]) -> bytes:
    """A LightGBM text model that reads its features where ``wanted`` has them.

    Args:
        artifact: the model; its features are ``given``, in its order.
        given: names, all of them among ``wanted``.
        wanted: the feature set's names.
    """
    place = {str(i): str(list(wanted).index(name)) for i, name in enumerate(given)}
    begin, end = artifact.find(b"\nTree=") + 1, artifact.find(b"\nend of trees") + 1
    if not begin:
        begin = end
    trees = []
    for block in re.split(r"(?=^Tree=)", artifact[begin:end].decode(), flags=re.M):
        if not block:
            continue
        for key in ("split_feature", "leaf_features"):
            block = re.sub(
                rf"^{key}=(.*)$",
                lambda m, key=key: key + "=" + re.sub(r"\d+", lambda n: place[n[0]], m[1]),
                block,
                flags=re.M,
            )
        trees.append(block)
    head = artifact[:begin].decode()
    infos = re.search(r"^feature_infos=(.*)$", head, re.M)
    old = infos[1].split() if infos else []
    new = ["none"] * len(wanted)
    for i, info in enumerate(old):
        new[int(place[str(i)])] = info
    lines = {
        "max_feature_idx": str(len(wanted) - 1),
        "feature_names": " ".join(wanted),
        "feature_infos": " ".join(new),
        "tree_sizes": " ".join(str(len(tree.encode())) for tree in trees),
    }
    for key, value in lines.items():
        head = re.sub(rf"^{key}=.*$", f"{key}={value}", head, flags=re.M)
    # Constraints by column and the importances are no part of a prediction.
    head = re.sub(r"^monotone_constraints=.*\n", "", head, flags=re.M)
    tail = re.sub(
        r"feature_importances:.*?\n\n", "feature_importances:\n\n",
        artifact[end:].decode(), count=1, flags=re.S,
    )  # fmt: skip
    return (head + "".join(trees) + tail).encode()


def prepare(
    artifact: bytes,
    features: Sequence[str] | None,
    wanted: Sequence[str],
    task: str,
    spec: dict[str, Any],
) -> tuple[bytes, str, dict[str, Any]]:
    """(artifact, format, spec) as the registry takes them.

    Raises:
        ExternalError: names or kinds that do not fit.
    """
    format = "lightgbm" if artifact.startswith(b"tree\n") else "onnx"
    own = own_names(artifact, format)
    if features is None and own is None:
        raise ExternalError("the artifact carries no feature names: give them, in its order")
    if features is not None and own is not None and list(features) != own:
        at = next((i for i, (a, b) in enumerate(zip(features, own, strict=False)) if a != b), None)
        words = "" if at is None else f", {own[at]!r} where {features[at]!r} is given"
        raise ExternalError(f"the artifact's own {len(own)} feature names are others{words}")
    names = list(own if own is not None else features or [])
    unknown = [name for name in names if name not in wanted]
    if unknown or len(set(names)) != len(names):
        raise ExternalError(f"no feature of the set, or twice: {', '.join(unknown[:5]) or names}")
    kind = (spec.get("output") or {}).get("kind")
    if format == "lightgbm":
        expected = _lightgbm_kind(artifact, task)
        if kind not in (None, expected):
            raise ExternalError(f"its output is {expected}, not {kind}")
        kind = expected
        if names != list(wanted):
            artifact = placed(artifact, names, wanted)
    elif names != list(wanted):
        raise ExternalError(
            "an ONNX model has to take all features of the set in their order:"
            f" {', '.join(wanted[:5])}, …"
        )
    allowed = {
        "classification": ("log_odds", "probability"),
        "regression": ("identity", "exp", "expm1"),
    }
    kind = kind or {"classification": "probability", "regression": "identity"}[task]
    if kind not in allowed[task]:
        raise ExternalError(f"an output of kind {kind} predicts no {task}")
    whole = {
        "inputs": {"kind": "row", "features": len(wanted)}, **spec,
        "output": {**(spec.get("output") or {}), "kind": kind},
        "calibration_method": "uncalibrated" if not spec.get("calibration") else "given",
    }  # fmt: skip
    return artifact, format, whole


def _lightgbm_kind(artifact: bytes, task: str) -> str:
    name = objective(artifact)
    known = CLASSES if task == "classification" else VALUES
    if name not in known:
        raise ExternalError(f"its objective {name!r} predicts no {task}")
    return known[name]


def probe(
    artifact: bytes,
    format: str,
    spec: dict[str, Any],
    wanted: Sequence[str],
    task: str,
    names: Sequence[str],
    rows: Sequence[Sequence[float | None]],
    outputs: Sequence[float],
) -> None:
    """Hold the artifact's predictions of some rows against those that are said of it.

    Raises:
        ExternalError: they differ, or say nothing.
    """
    import numpy as np
    from alphaplus.server.serving.score import Model

    given = np.array([[np.nan if v is None else v for v in row] for row in rows], dtype=np.float64)
    said = np.asarray(outputs, dtype=np.float64)
    if given.ndim != 2 or given.shape[1] != len(names) or len(given) != len(said):
        raise ExternalError(
            f"the probe needs rows of {len(names)} values and an output for each, it has"
            f" {given.shape} and {len(said)}"
        )
    if len(said) < LEAST or not np.isfinite(said).all() or np.ptp(said) == 0:
        raise ExternalError(f"the probe needs {LEAST} rows or more whose outputs differ")
    whole = np.full((len(given), len(wanted)), np.nan)
    whole[:, [list(wanted).index(name) for name in names]] = given
    row = {
        "artifact": artifact, "version_id": 0, "task": task, "format": format,
        "features": list(wanted), "spec": json.dumps(spec), "digest": "",
    }  # fmt: skip
    found = np.asarray(Model(row, None).predictions(whole), dtype=np.float64)
    gap = np.abs(found - said) / np.maximum(1.0, np.abs(said))
    if not gap.max() <= TOLERANCE:
        at = int(np.argmax(np.where(np.isnan(gap), np.inf, gap)))
        raise ExternalError(
            f"row {at + 1} of the probe gives {found[at]!r} here, {said[at]!r} was expected"
        )


def accept(
    plpy: Any, artifact: bytes, features: Any, wanted: Any, task: str, spec: str
) -> dict[str, Any]:
    """:func:`prepare` for ``ml._external`` (SQLSTATE AP434)."""
    try:
        made, format, whole = prepare(artifact, features, wanted, task, json.loads(spec or "{}"))
    except (ExternalError, ValueError, KeyError, AttributeError) as error:
        _refuse(plpy, error)
        raise
    names = features or own_names(artifact, format) or []
    return {"artifact": made, "format": format, "spec": json.dumps(whole), "names": list(names)}


def check(
    plpy: Any, artifact: bytes, format: str, spec: str, wanted: Any, task: str, names: Any,
    rows: Any, outputs: Any,
) -> None:  # fmt: skip
    """:func:`probe` for ``ml._external_probe`` (SQLSTATE AP434)."""
    try:
        probe(artifact, format, json.loads(spec), wanted, task, names, rows, outputs)
    except (ExternalError, ValueError, KeyError, TypeError) as error:
        _refuse(plpy, error)
        raise


def _refuse(plpy: Any, error: Exception) -> None:
    plpy.error(
        f"the model does not fit: {error}",
        sqlstate="AP434",
        hint="docs/models.md says how a model of your own is registered: names in the artifact's"
        " own order, an output that fits the label, and rows with what the model says of them.",
    )
