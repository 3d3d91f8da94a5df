"""What sharing a model's pages between backends could gain: LightGBM's C call in 32 processes that
take turns on the cores, each with a model it loaded itself, as backends are, or all with the one
that was loaded before they were forked.

The library keeps its trees on its own heap, so a fork after loading is the only way to share them;
backends are forked long before. The difference is the most that any way of sharing could give one
prediction.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from alphaplus.server.booster import Booster

from tests.bench import _common as common
from tests.db import serving as w

PROCESSES = 32
TURNS = 200  # of each process
ROUNDS = 5

Floats = npt.NDArray[np.float64]


def _worker(text: bytes, booster: Booster | None, rows: Floats, read: int, write: int) -> None:
    """Score a row at each turn; at the end tell the seconds in the C call and the sum of scores."""
    own = booster or Booster(text)
    own.raw(rows[0].tolist())
    os.write(write, b"x")
    spent = total = 0.0
    clock = time.perf_counter
    for values in rows.tolist():
        os.read(read, 1)
        own._row[:] = values
        start = clock()
        own._predict(*own._arguments)
        spent += clock() - start
        total += own._out[0]
        os.write(write, b"x")
    os.write(write, json.dumps([spent, total]).encode())


def taking_turns(text: bytes, rows: Floats, processes: int, shared: bool) -> tuple[float, float]:
    """Microseconds in one C call, and the sum of scores of one process."""
    booster = Booster(text) if shared else None
    pipes = []
    for _ in range(processes):
        (read, tell), (hear, write) = os.pipe(), os.pipe()
        if os.fork() == 0:
            try:
                _worker(text, booster, rows, read, write)
            finally:
                os._exit(0)
        pipes.append((tell, hear))
        os.close(read)
        os.close(write)
    for _, hear in pipes:
        os.read(hear, 1)
    for _ in rows:
        for tell, hear in pipes:
            os.write(tell, b"x")
            os.read(hear, 1)
    spent, totals = 0.0, set()
    for tell, hear in pipes:
        seconds, total = json.loads(os.read(hear, 1000))
        spent += seconds
        totals.add(total)
        os.close(tell)
        os.close(hear)
        os.wait()
    assert len(totals) == 1
    return 1e6 * spent / (processes * len(rows)), totals.pop()


def measure(file: str, columns: int) -> dict[str, float]:
    """The least of several rounds, in turn, so that all see the same machine."""
    text = Path(file).read_bytes()
    rows = np.random.default_rng(3).normal(size=(TURNS, columns))
    ways = {"own": (PROCESSES, False), "shared": (PROCESSES, True), "alone": (1, False)}
    taken: dict[str, list[float]] = {way: [] for way in ways}
    answers = set()
    for _ in range(ROUNDS):
        for way, which in ways.items():
            micros, total = taking_turns(text, rows, *which)
            taken[way].append(micros)
            answers.add(total)
    assert len(answers) == 1
    return {way: min(several) for way, several in taken.items()}


def run(conninfo: str) -> list[dict[str, Any]]:
    """No database takes part."""
    del conninfo
    rows = []
    rng = np.random.default_rng(1)
    for trees, columns in ((25, 10), (400, 25)):
        x = rng.normal(size=(20_000, columns))
        y = (rng.random(len(x)) < 1 / (1 + np.exp(-x[:, 0] - x[:, 1] * x[:, 2]))).astype(float)
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write(w.train(x, y, trees).model_to_string())
            file.flush()
            # In a process of its own: a fork must not follow the threads of training.
            out = subprocess.run(
                [sys.executable, "-m", "tests.bench.shared_model", file.name, str(columns)],
                check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
            ).stdout  # fmt: skip
        found = json.loads(out)
        rows += [
            common.row(
                f"LightGBM's C call in {PROCESSES} processes in turn, {trees} trees x {columns}",
                found["own"],
                "µs",
                peer="one model, loaded before the fork",
                peer_value=found["shared"],
            ),
            common.row(f"the same in one process, {trees} trees x {columns}", found["alone"], "µs"),
        ]
    return rows


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
