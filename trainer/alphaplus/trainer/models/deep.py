"""Deep models over sequences of feature rows (PyTorch), served as ONNX.

LSTM [Hochreiter & Schmidhuber 1997], GRU [Cho et al. 2014], 1-D CNN (causal, dilated: Bai et al.
2018), Transformer encoder [Vaswani et al. 2017, pre-norm].

Every fit is determined by its seed, and goes on where it was when its trainer was killed: the state
after an epoch holds all that the next one needs.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import time
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from alphaplus.trainer.models import distributed
from alphaplus.trainer.models.base import (
    Artifact,
    Estimator,
    Features,
    Progress,
    Scaling,
    Space,
    TrainingError,
    Windows,
    _silent,
)
from alphaplus.trainer.models.networks import (
    Attention,
    Convolution,
    Data,
    Recurrent,
    Report,
    Served,
)
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

Array = NDArray[np.float64]

DEFAULTS: dict[str, Any] = {
    "sequence_length": 32,
    "hidden": 32,
    "layers": 1,
    "heads": 4,
    "kernel": 3,
    "dropout": 0.2,
    "epochs": 20,
    "patience": 4,
    "batch": 256,
    "learning_rate": 1e-3,
    "weight_decay": 0.01,
    "clip_norm": 1.0,
    # "balanced": both classes weigh the same while fitting, which the scores are then freed of.
    "class_weight": "balanced",
    "loss": "mse",
    "device": "auto",
    "precision": "auto",
    "processes": 0,
    "checkpoint_seconds": 10.0,
    "transform": None,
}


def _pack(arrays: dict[str, Any], meta: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    named = {key: np.asarray(value) for key, value in arrays.items()}
    words = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
    named["meta"] = words
    np.savez(out, allow_pickle=False, **named)
    return out.getvalue()


def _unpack(content: bytes) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    with np.load(io.BytesIO(content), allow_pickle=False) as found:
        arrays = {key: torch.from_numpy(found[key]) for key in found.files if key != "meta"}
        meta: dict[str, Any] = json.loads(found["meta"].tobytes())
    return arrays, meta


def _part(arrays: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {key[len(prefix) :]: v for key, v in arrays.items() if key.startswith(prefix)}


class Deep(Estimator):
    """What the four have in common: scaling, loop, checkpoints, export.

    Parameters (``DEFAULTS``): ``sequence_length``, ``hidden``, ``layers``, ``heads``
    (transformer), ``kernel`` (cnn), ``dropout``, ``epochs`` (at most), ``patience`` (epochs without
    gain on the later rows), ``batch``, ``learning_rate``, ``weight_decay``, ``clip_norm`` (of the
    gradient), ``class_weight`` ("balanced" or null), ``loss`` of values ("mse" or "huber"),
    ``device`` ("auto": the GPU where there is one), ``precision`` ("auto": mixed on a GPU, single
    on the CPU), ``processes`` (0: one for each GPU; more than one: DistributedDataParallel),
    ``checkpoint_seconds``, ``transform``.
    """

    SPACE: ClassVar[Space] = {
        "hidden": [16, 32, 64],
        "layers": [1, 2],
        "dropout": ["float", 0.0, 0.5],
        "learning_rate": ["log_float", 3e-4, 1e-2],
    }
    refit = False
    blind_rounds = 5

    def __init__(self, task: str, params: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(task, params, **kwargs)
        unknown = set(self.params) - set(DEFAULTS)
        if unknown:
            raise TrainingError(
                f"{self.algorithm} has no parameter {sorted(unknown)}; known: {sorted(DEFAULTS)}"
            )
        self.options: dict[str, Any] = {**DEFAULTS, **self.params}
        self.sequence_length = int(self.options["sequence_length"])
        self.net: nn.Module | None = None
        self.scaling: Scaling | None = None
        self.shift = 0.0
        self.device = _device(self.options["device"])

    def build(self, features: int) -> nn.Module:
        """The untrained network."""
        raise NotImplementedError

    # Sequences

    def _sequences(self, x: Features) -> Windows:
        if isinstance(x, Windows):
            return x
        cube = np.asarray(x, dtype=np.float64)
        if cube.ndim != 3 or cube.shape[1] != self.sequence_length:
            raise TrainingError(
                f"{self.algorithm} takes sequences (n, {self.sequence_length}, features),"
                f" not {cube.shape}"
            )
        last = np.arange(1, len(cube) + 1, dtype=np.int64) * cube.shape[1] - 1
        return Windows(cube.reshape(-1, cube.shape[2]), last, cube.shape[1])

    def _data(self, windows: Windows, y: Array | None = None) -> Data:
        assert self.scaling is not None
        # Only the rows that some sequence reaches.
        low = int(windows.last.min()) - windows.length + 1
        high = int(windows.last.max()) + 1
        rows = self.scaling.apply(windows.rows[low:high]).astype(np.float32)
        target = np.zeros(len(windows)) if y is None else self.target(y)
        return Data(
            torch.from_numpy(np.ascontiguousarray(rows)),
            torch.from_numpy(np.ascontiguousarray(windows.last - low)),
            torch.from_numpy(target.astype(np.float32)),
        )

    # Fitting

    def fit(
        self,
        x: Features,
        y: Array,
        *,
        valid: tuple[Features, Array] | None = None,
        rounds: int | None = None,
        progress: Progress = _silent,
        weight: Array | None = None,
    ) -> Deep:
        """Fit; see :meth:`Estimator.fit`. ``rounds`` are epochs."""
        windows = self._sequences(x)
        self.fit_scale(y)
        self.scaling = Scaling.of(windows.latest)
        base = float(np.clip(y.mean(), 1e-4, 1 - 1e-4)) if self.task == "classification" else 0.0
        event = 1.0
        if self.task == "classification" and self.options["class_weight"] == "balanced":
            event = min((1 - base) / base, 20.0)
        self.shift = math.log(event) if self.task == "classification" else 0.0
        train = self._data(windows, y)
        if weight is not None:
            train.weight = torch.from_numpy(weight.astype(np.float32))
        late = None
        if valid is not None and rounds is None and len(valid[1]):
            late = self._data(self._sequences(valid[0]), valid[1])
        torch.manual_seed(self.seed)
        self.net = self.build(windows.shape[2])
        with torch.no_grad():
            start = (
                math.log(base / (1 - base)) + self.shift
                if self.task == "classification"
                else float(train.target.mean())
            )
            self.net.head.bias.fill_(start)  # type: ignore[union-attr,operator]
        saved = self.checkpoints.load(self.stage) if self.checkpoints is not None else None
        where = "on the CPU (no GPU)" if self.device.type == "cpu" else "on the GPU"

        def report(part: float, words: str, state: bytes | None) -> None:
            if state is not None and self.checkpoints is not None:
                self.checkpoints.save(self.stage, state)
            progress(part, f"{words} {where}")

        gpus = torch.cuda.device_count() if self.device.type == "cuda" else 1
        processes = int(self.options["processes"]) or max(1, gpus)
        total = rounds or int(self.options["epochs"])
        if processes > 1 and (saved is None or not _unpack(saved)[1]["done"]):
            state = distributed.fit(self, train, late, total, event, saved, processes, report)
        else:
            torch.set_num_threads(self.threads or os.cpu_count() or 1)
            state = self.loop(train, late, total, event, saved, report)
        arrays, meta = _unpack(state)
        self.net.load_state_dict(_part(arrays, "best/"))
        self.net.to("cpu").eval()
        self.rounds = int(meta["best_epoch"])
        return self

    def loop(
        self,
        train: Data,
        late: Data | None,
        total: int,
        weight: float,
        saved: bytes | None,
        report: Report,
        rank: int = 0,
        world: int = 1,
    ) -> bytes:
        """Train to the end; the final state. All ranks see the same losses, so all stop at once."""
        assert self.net is not None
        device = (
            torch.device("cuda", rank) if world > 1 and self.device.type == "cuda" else self.device
        )
        net = self.net.to(device)
        options = self.options
        optimizer = torch.optim.AdamW(
            net.parameters(),
            lr=float(options["learning_rate"]),
            weight_decay=float(options["weight_decay"]),
        )
        meta: dict[str, Any] = {
            "epoch": 0, "best_epoch": 0, "best_loss": math.inf, "done": False, "steps": 0
        }  # fmt: skip
        best = {key: value.detach().cpu().clone() for key, value in net.state_dict().items()}
        if saved is not None:
            arrays, meta = _unpack(saved)
            if meta["done"]:
                return saved
            net.load_state_dict(_part(arrays, "net/"))
            best = _part(arrays, "best/")
            _restore(optimizer, _part(arrays, "adam/"))
        data, later = train.to(device), None if late is None else late.to(device)
        wrapped: nn.Module = net
        if world > 1:
            ids = [rank] if device.type == "cuda" else None
            wrapped = nn.parallel.DistributedDataParallel(net, device_ids=ids)
        mixed = device.type == "cuda" and options["precision"] in ("auto", "mixed")
        scaler = torch.amp.GradScaler(device.type, enabled=mixed)
        began, kept = time.monotonic(), time.monotonic()
        first = int(meta["epoch"])

        def state() -> bytes:
            arrays = {f"net/{key}": value.detach().cpu() for key, value in net.state_dict().items()}
            arrays |= {f"best/{key}": value for key, value in best.items()}
            arrays |= {f"adam/{key}": value for key, value in _moments(optimizer)}
            return _pack(arrays, meta)

        for epoch in range(first, total):
            torch.manual_seed(self.seed * 100_003 + epoch * world + rank)
            wrapped.train()
            # Summed where it is made: to ask a GPU for it after every batch would keep it waiting.
            losses, loss_sum, count = torch.zeros((), device=device), 0.0, 0
            for batch in _batches(
                len(data.last), int(options["batch"]), self.seed + epoch, rank, world
            ):
                # A slow start keeps the first steps of Adam small.
                meta["steps"] += 1
                for group in optimizer.param_groups:
                    group["lr"] = float(options["learning_rate"]) * min(1, meta["steps"] / 50)
                optimizer.zero_grad(set_to_none=True)
                with torch.autocast(device.type, enabled=mixed):
                    scores, _ = wrapped(_cut(data, batch.to(device), self.sequence_length))
                    at = batch.to(device)
                    each = None if data.weight is None else data.weight[at]
                    loss = self._loss(scores.float(), data.target[at], weight, each)
                scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(net.parameters(), float(options["clip_norm"]))
                scaler.step(optimizer)
                scaler.update()
                losses += loss.detach() * len(batch)
                count += len(batch)
                if rank == 0 and meta["steps"] % 20 == 0:
                    loss_sum = float(losses)
                    report(
                        (epoch + count * world / max(len(data.last), 1)) / total,
                        f"epoch {epoch + 1} of {total}, loss {loss_sum / count:.4f}",
                        None,
                    )
            loss_sum = float(losses)
            if not math.isfinite(loss_sum):
                raise TrainingError(
                    f"the loss of {self.algorithm} is not finite: a smaller learning_rate is needed"
                )
            words = f"epoch {epoch + 1} of {total}, loss {loss_sum / count:.4f}"
            meta["epoch"] = epoch + 1
            if later is None:
                found = -float(epoch)
            else:
                found = self._evaluate(net, later)
                words += f", later rows {found:.4f}"
            if found < meta["best_loss"]:
                meta["best_loss"], meta["best_epoch"] = found, epoch + 1
                best = {k: v.detach().cpu().clone() for k, v in net.state_dict().items()}
            late_enough = time.monotonic() - kept >= float(options["checkpoint_seconds"])
            stop = epoch + 1 - int(meta["best_epoch"]) >= int(options["patience"])
            meta["done"] = bool(epoch + 1 == total or (later is not None and stop))
            left = (time.monotonic() - began) / (epoch + 1 - first) * (total - epoch - 1)
            if rank == 0:
                keep = late_enough or meta["done"]
                report(
                    (epoch + 1) / total, f"{words}, {left:.0f} s left", state() if keep else None
                )
                kept = time.monotonic() if keep else kept
            if meta["done"]:
                break
        return state()

    def _loss(
        self,
        scores: torch.Tensor,
        target: torch.Tensor,
        weight: float,
        each: torch.Tensor | None = None,
    ) -> torch.Tensor:
        how = "mean" if each is None else "none"
        if self.task == "classification":
            pos = torch.tensor(weight, device=scores.device)
            loss = functional.binary_cross_entropy_with_logits(
                scores, target, pos_weight=pos, reduction=how
            )
        elif self.options["loss"] == "huber":
            loss = functional.huber_loss(scores, target, reduction=how)
        else:
            loss = functional.mse_loss(scores, target, reduction=how)
        return loss if each is None else (loss * each).mean()

    @torch.no_grad()
    def _evaluate(self, net: nn.Module, data: Data) -> float:
        """Mean loss of the served scores: without class weights."""
        net.eval()
        total = 0.0
        for start in range(0, len(data.last), 2048):
            batch = torch.arange(start, min(start + 2048, len(data.last)), device=data.last.device)
            scores, _ = net(_cut(data, batch, self.sequence_length))
            loss = self._loss(scores.float() - self.shift, data.target[batch], 1.0)
            total += float(loss) * len(batch)
        return total / len(data.last)

    # Serving

    @torch.no_grad()
    def raw(self, x: Features) -> Array:
        """Scores (n,) without class weights."""
        assert self.net is not None
        windows = self._sequences(x)
        if not len(windows):
            return np.empty(0)
        torch.set_num_threads(self.threads or os.cpu_count() or 1)
        self.net.eval()
        data = self._data(windows)
        found = [
            self.net(_cut(data, torch.arange(s, min(s + 2048, len(windows))), windows.length))[0]
            for s in range(0, len(windows), 2048)
        ]
        return torch.cat(found).numpy().astype(np.float64) - self.shift

    def attention(self, x: Features) -> Array | None:
        """Weights (n, length) that the last row gives each row; None where there are none."""
        assert self.net is not None
        windows = self._sequences(x)
        data = self._data(windows)
        with torch.no_grad():
            found = self.net(_cut(data, torch.arange(len(windows)), windows.length))[1]
        return None if found is None else found.numpy().astype(np.float64)

    def export(self) -> Artifact:
        """ONNX by torch.onnx; the transformer's attention is a second output."""
        assert self.net is not None and self.scaling is not None
        features = len(self.scaling.center)
        sample = torch.zeros(2, self.sequence_length, features)
        served = Served(self.net.eval(), self.shift, isinstance(self.net, Attention)).eval()
        names = ["score", "attention"] if served.attention else ["score"]
        out = io.BytesIO()
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                served, (sample,), out,  # type: ignore[arg-type]
                input_names=["sequence"], output_names=names,
                dynamic_axes={name: {0: "rows"} for name in ["sequence", *names]},
                opset_version=17, dynamo=False,
            )  # fmt: skip
        inputs: dict[str, Any] = {
            "kind": "sequence", "length": self.sequence_length, "features": features,
            "name": "sequence", "output": "score",
        }  # fmt: skip
        if served.attention:
            inputs["attention"] = "attention"
        return Artifact(
            "onnx",
            out.getvalue(),
            {
                "objective": self.options["loss"] if self.task == "regression" else "binary",
                "architecture": self.algorithm,
                "parameters": sum(p.numel() for p in self.net.parameters()),
                "device": self.device.type,
                "inputs": inputs,
                "scaling": self.scaling.spec(),
                "output": self.output(),
            },
        )

    @classmethod
    def library_versions(cls) -> dict[str, str]:
        """PyTorch's version."""
        return {"torch": torch.__version__}


def _device(wanted: Any) -> torch.device:
    """Where to train: "auto" (the GPU where there is one), "cpu", "cuda", or one of its GPUs.

    Raises:
        TrainingError: no such device, or none here.
    """
    name = str(wanted)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d{1,2})?", name):
        raise TrainingError(f"device {wanted!r}: auto, cpu, cuda or cuda:<number> is needed")
    device = torch.device(name)
    if device.type == "cuda" and (
        not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()
    ):
        raise TrainingError(
            f"device {name}: this trainer has {torch.cuda.device_count()} GPU(s) that PyTorch can"
            " use; device auto takes the CPU then"
        )
    return device


def _cut(data: Data, batch: torch.Tensor, length: int) -> torch.Tensor:
    """Sequences (b, length, features) of a batch."""
    ends = data.last[batch]
    return data.rows[ends[:, None] + torch.arange(1 - length, 1, device=ends.device)]


def _batches(n: int, size: int, seed: int, rank: int, world: int) -> Iterator[torch.Tensor]:
    """The epoch's batches for one rank: as many for each, in an order that the seed gives."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    order = order[: n // world * world][rank::world]
    size = max(1, size // world)
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _moments(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, torch.Tensor]]:
    for number, moments in optimizer.state_dict()["state"].items():
        for key, value in moments.items():
            yield f"{number}/{key}", torch.as_tensor(value).detach().cpu()


def _restore(optimizer: torch.optim.Optimizer, arrays: dict[str, torch.Tensor]) -> None:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in arrays.items():
        number, key = name.split("/")
        state.setdefault(int(number), {})[key] = value
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )


class LSTM(Deep):
    """Long short-term memory."""

    algorithm: ClassVar[str] = "lstm"

    def build(self, features: int) -> nn.Module:
        """The untrained network."""
        return Recurrent(nn.LSTM, features, self.options)


class GRU(Deep):
    """Gated recurrent units."""

    algorithm: ClassVar[str] = "gru"

    def build(self, features: int) -> nn.Module:
        """The untrained network."""
        return Recurrent(nn.GRU, features, self.options)


class CNN(Deep):
    """Causal dilated convolutions over time."""

    algorithm: ClassVar[str] = "cnn"

    def build(self, features: int) -> nn.Module:
        """The untrained network."""
        return Convolution(features, self.options)


class Transformer(Deep):
    """Transformer encoder; its attention is served beside the score."""

    algorithm: ClassVar[str] = "transformer"
    SPACE: ClassVar[Space] = {**Deep.SPACE, "heads": [2, 4]}

    def build(self, features: int) -> nn.Module:
        """The untrained network."""
        return Attention(features, self.options)
