"""Deep models on the GPU and on the CPU: the same numbers, and how long each takes.

Needs neither a database nor data: ``python tests/bench/gpu.py`` on a machine with PyTorch (and,
to run what was exported, onnxruntime). For each model it trains on synthetic sequences on both
devices, then checks that the network trained on the GPU says the same on both (1e-4), that its
ONNX export does, and that both trainings learned the same (AUC within 0.03).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
AGREE = 1e-4
FEATURES = 32
LENGTH = 32


def sequences(rows: int, seed: int = 1) -> tuple[Any, Any]:
    """(windows, y): whether a recent move of the first feature goes with the second."""
    from alphaplus.trainer.models.base import Windows

    generator = np.random.default_rng(seed)
    x = generator.normal(size=(rows + LENGTH, FEATURES))
    x[generator.random(x.shape) < 0.02] = np.nan
    filled = np.nan_to_num(x)
    trend = np.convolve(filled[:, 0], np.ones(5) / np.sqrt(5), mode="full")[: len(x)]
    logit = 1.5 * trend + filled[:, 1] * np.roll(filled[:, 2], 3) - 0.5
    y = (generator.random(len(x)) < 1 / (1 + np.exp(-logit))).astype(np.float64)
    last = np.arange(LENGTH, rows + LENGTH)
    return Windows(x, last, LENGTH), y[last]


def auc(y: Any, score: Any) -> float:
    """Area under the ROC curve of scores without ties."""
    order = np.argsort(score)
    ranks = np.empty(len(y))
    ranks[order] = np.arange(1, len(y) + 1)
    positive = y == 1
    count = int(positive.sum())
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(y) - count)))


def on_device(model: Any, windows: Any, device: str) -> Any:
    """The fitted network's scores as a device computes them, in single precision."""
    import torch
    from alphaplus.trainer.models import deep

    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    model.net.to(device).eval()
    data = model._data(windows).to(torch.device(device))
    with torch.no_grad():
        found = [
            model.net(
                deep._cut(
                    data,
                    torch.arange(start, min(start + 2048, len(windows)), device=device),
                    LENGTH,
                )
            )[0].cpu()
            for start in range(0, len(windows), 2048)
        ]
    model.net.to("cpu")
    return torch.cat(found).numpy().astype(np.float64) - model.shift


def exported(model: Any, windows: Any) -> Any:
    """The scores of the ONNX export; None without onnxruntime."""
    try:
        import onnxruntime
    except ImportError:
        return None
    artifact = model.export()
    session = onnxruntime.InferenceSession(artifact.content, providers=["CPUExecutionProvider"])
    x = model.scaling.apply(np.asarray(windows)).astype(np.float32)
    found = [
        session.run(["score"], {"sequence": x[start : start + 2048]})[0]
        for start in range(0, len(x), 2048)
    ]
    return np.concatenate(found).astype(np.float64)


def measure(algorithm: str, rows: int, epochs: int, hidden: int) -> dict[str, Any]:
    """Train one model on each device; times and differences."""
    import torch
    from alphaplus.trainer.models import estimator

    x, y = sequences(rows)
    test_x, test_y = sequences(20_000, seed=2)
    found: dict[str, Any] = {
        "algorithm": algorithm, "rows": rows, "epochs": epochs, "hidden": hidden,
    }  # fmt: skip
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    trained = {}
    for device in devices:
        params = {
            "device": device, "epochs": epochs, "hidden": hidden, "layers": 2,
            "sequence_length": LENGTH, "batch": 1024, "processes": 1, "dropout": 0.0,
        }  # fmt: skip
        if device == "cuda":  # its first use makes ready what later ones find
            estimator(algorithm)("classification", {**params, "epochs": 1}).fit(x[:4096], y[:4096])
        model = estimator(algorithm)("classification", params)
        began = time.perf_counter()
        model.fit(x, y, rounds=epochs)
        found[f"{device}_seconds"] = time.perf_counter() - began
        found[f"{device}_auc"] = auc(test_y, model.raw(test_x))
        trained[device] = model
    last: Any = trained[devices[-1]]
    on_cpu = on_device(last, test_x, "cpu")
    scale = max(1.0, float(np.abs(on_cpu).max()))
    if "cuda" in trained:
        found["gpu"] = torch.cuda.get_device_name(0)
        found["speed_up"] = found["cpu_seconds"] / found["cuda_seconds"]
        gap = float(np.abs(on_device(last, test_x, "cuda") - on_cpu).max()) / scale
        found["gap_cuda_to_cpu"] = gap
        if not gap <= AGREE:
            raise SystemExit(f"{algorithm}: CUDA and CPU differ by {gap:g}")
        if abs(found["cuda_auc"] - found["cpu_auc"]) > 0.03:
            raise SystemExit(f"{algorithm}: AUC {found['cuda_auc']} and {found['cpu_auc']}")
    from_onnx = exported(last, test_x)
    if from_onnx is not None:
        gap = float(np.abs(from_onnx - on_cpu).max()) / scale
        found["gap_onnx_to_cpu"] = gap
        if not gap <= AGREE:
            raise SystemExit(f"{algorithm}: the ONNX export differs by {gap:g}")
    return found


def run(conninfo: str) -> list[dict[str, Any]]:
    """Rows for ``python -m tests.bench``: small where there is no GPU."""
    import torch

    from tests.bench._common import row

    del conninfo
    rows = []
    here = torch.cuda.is_available()
    for algorithm in ("lstm", "transformer"):
        found = measure(algorithm, *((100_000, 3, 128) if here else (4_000, 1, 16)))
        rows.append(
            row(
                f"gpu: {algorithm}, an epoch of {found['rows']:,} sequences",
                found["cuda_seconds" if here else "cpu_seconds"] / found["epochs"],
                "s",
                peer="the CPU" if here else None,
                peer_value=found["cpu_seconds"] / found["epochs"] if here else None,
                ratio=found.get("speed_up"),
            )
        )
    return rows


def main() -> None:
    """Measure and print, one line of JSON a model."""
    sys.path.insert(0, str(ROOT / "trainer"))
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=100_000)
    arguments.add_argument("--epochs", type=int, default=3)
    arguments.add_argument("--hidden", type=int, default=128)
    given = arguments.parse_args()
    import torch

    if not torch.cuda.is_available():
        print("no GPU that PyTorch can use: the CPU alone is measured", file=sys.stderr)
    for algorithm in ("lstm", "gru", "cnn", "transformer"):
        found = measure(algorithm, given.rows, given.epochs, given.hidden)
        print(json.dumps(found), flush=True)
    print(f"torch {torch.__version__}: all agree within {AGREE:g}")


if __name__ == "__main__":
    main()
