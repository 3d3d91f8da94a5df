"""The networks of the deep models: recurrent, convolutional, attention."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from alphaplus.trainer.models.base import TrainingError
from torch import nn
from torch.nn import functional

# Called while fitting with the part done, words, and the state to keep, if any.
Report = Callable[[float, str, bytes | None], None]


class Recurrent(nn.Module):
    """LSTM or GRU; the last state decides."""

    def __init__(
        self, kind: Callable[..., nn.Module], features: int, options: dict[str, Any]
    ) -> None:
        super().__init__()
        hidden, layers = int(options["hidden"]), int(options["layers"])
        dropout = float(options["dropout"])
        self.enter = nn.Dropout(dropout / 2)
        self.cells = kind(
            features, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0
        )
        self.norm = nn.LayerNorm(hidden)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Scores (b,) of sequences (b, length, features), and the last row's attention, if any."""
        states, _ = self.cells(self.enter(x))
        return self.head(self.drop(self.norm(states[:, -1]))).squeeze(-1), None


class Convolution(nn.Module):
    """Residual causal convolutions, each reaching twice as far back as the one before."""

    def __init__(self, features: int, options: dict[str, Any]) -> None:
        super().__init__()
        hidden, kernel = int(options["hidden"]), int(options["kernel"])
        length = int(options["sequence_length"])
        depth = max(int(options["layers"]), math.ceil(math.log2(max(length / kernel, 1))) + 1)
        self.enter = nn.Conv1d(features, hidden, 1)
        self.reach = [(kernel - 1) * 2**i for i in range(depth)]
        self.blocks = nn.ModuleList(
            nn.Conv1d(hidden, hidden, kernel, dilation=2**i) for i in range(depth)
        )
        self.drop = nn.Dropout(float(options["dropout"]))
        self.norm = nn.LayerNorm(2 * hidden)
        self.head = nn.Linear(2 * hidden, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Scores (b,) of sequences (b, length, features), and the last row's attention, if any."""
        z = self.enter(x.transpose(1, 2))
        for reach, block in zip(self.reach, self.blocks, strict=True):
            z = z + self.drop(functional.relu(block(functional.pad(z, (reach, 0)))))
        summary = torch.cat([z[:, :, -1], z.mean(dim=2)], dim=1)
        return self.head(self.drop(self.norm(summary))).squeeze(-1), None


class _Layer(nn.Module):
    """Pre-norm encoder layer that also tells what the last row looked at."""

    def __init__(self, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.width = heads, hidden // heads
        self.before = nn.LayerNorm(hidden)
        self.project = nn.Linear(hidden, 3 * hidden)
        self.out = nn.Linear(hidden, hidden)
        self.after = nn.LayerNorm(hidden)
        self.inner = nn.Sequential(
            nn.Linear(hidden, 2 * hidden), nn.GELU(), nn.Dropout(dropout),
            nn.Linear(2 * hidden, hidden),
        )  # fmt: skip
        self.drop = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The rows' next states, and the weights (b, length) of the last row's attention."""
        length, hidden = x.shape[1], x.shape[2]
        q, k, v = (
            part.reshape(-1, length, self.heads, self.width).transpose(1, 2)
            for part in self.project(self.before(x)).split(hidden, dim=2)
        )
        weights = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(self.width), dim=-1)
        mixed = (weights @ v).transpose(1, 2).reshape(-1, length, hidden)
        x = x + self.drop(self.out(mixed))
        x = x + self.drop(self.inner(self.after(x)))
        return x, weights[:, :, -1, :].mean(dim=1)


class Attention(nn.Module):
    """Transformer encoder with learned positions; the last row's state decides."""

    def __init__(self, features: int, options: dict[str, Any]) -> None:
        super().__init__()
        hidden, heads = int(options["hidden"]), int(options["heads"])
        if hidden % heads:
            raise TrainingError(f"hidden ({hidden}) must be a multiple of heads ({heads})")
        dropout = float(options["dropout"])
        self.enter = nn.Linear(features, hidden)
        self.position = nn.Parameter(torch.randn(1, int(options["sequence_length"]), hidden) * 0.02)
        self.layers = nn.ModuleList(
            _Layer(hidden, heads, dropout) for _ in range(int(options["layers"]))
        )
        self.norm = nn.LayerNorm(hidden)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores (b,) of sequences (b, length, features), and the last row's attention, if any."""
        z = self.drop(self.enter(x) + self.position)
        looked = torch.zeros(1)
        for layer in self.layers:
            z, looked = layer(z)
        return self.head(self.drop(self.norm(z[:, -1]))).squeeze(-1), looked


class Served(nn.Module):
    """The network as it is exported: scores free of class weights, attention beside them."""

    def __init__(self, net: nn.Module, shift: float, attention: bool) -> None:
        super().__init__()
        self.net = net
        self.shift = shift
        self.attention = attention

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Scores (b,) without class weights, and the attention where there is one."""
        scores, looked = self.net(x)
        return (scores - self.shift, looked) if self.attention else scores - self.shift


@dataclass
class Data:
    """Scaled rows (m, features), where sequences end (n,), and their targets (n,)."""

    rows: torch.Tensor
    last: torch.Tensor
    target: torch.Tensor
    weight: torch.Tensor | None = None

    def to(self, device: torch.device) -> Data:
        """The same on another device."""
        weight = None if self.weight is None else self.weight.to(device)
        return Data(self.rows.to(device), self.last.to(device), self.target.to(device), weight)
