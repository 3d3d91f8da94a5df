"""One fit over several processes: DistributedDataParallel, NCCL between GPUs, gloo between CPUs.

What ``torchrun`` would start by hand is started here, as a job comes from the queue and not from a
command line. Each process holds the model and a share of every epoch's rows; gradients are averaged
at each step [Li et al. 2020, PyTorch Distributed].
"""

from __future__ import annotations

import queue
import socket
from typing import Any

import torch
from alphaplus.trainer.models.base import TrainingError
from alphaplus.trainer.models.networks import Data, Report
from torch import multiprocessing

mp: Any = multiprocessing  # it does not export what it documents


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _worker(rank: int, world: int, port: int, recipe: dict[str, Any], said: Any) -> None:
    model = recipe["kind"](recipe["task"], recipe["params"], **recipe["settings"])
    model.shift, model.scale = recipe["shift"], recipe["scale"]
    train, late = recipe["train"], recipe["late"]
    torch.manual_seed(model.seed)
    model.net = model.build(train.rows.shape[1])
    model.net.load_state_dict(recipe["net"])
    torch.set_num_threads(max(1, (model.threads or mp.cpu_count()) // world))
    kind = "nccl" if model.device.type == "cuda" else "gloo"
    torch.distributed.init_process_group(
        kind, init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world
    )

    def report(part: float, words: str, state: bytes | None) -> None:
        said.put((part, f"{words}, {world} processes", state))

    try:
        state = model.loop(
            train, late, recipe["total"], recipe["weight"], recipe["saved"], report, rank, world
        )
        if rank == 0:
            said.put(("end", "", state))
    except TrainingError as error:
        said.put(("error", str(error), None))
    finally:
        torch.distributed.destroy_process_group()


def fit(
    model: Any,
    train: Data,
    late: Data | None,
    total: int,
    weight: float,
    saved: bytes | None,
    processes: int,
    report: Report,
) -> bytes:
    """The final state of ``model.loop``, of a model of :mod:`.deep`, run by several processes.

    Whatever ``report`` raises (a stop) ends the processes and passes through.

    Raises:
        TrainingError: a process said so, or died.
    """
    if model.device.type == "cuda" and processes > torch.cuda.device_count():
        raise TrainingError(f"{processes} processes, but {torch.cuda.device_count()} GPU(s)")
    assert model.net is not None
    recipe = {
        "kind": type(model), "task": model.task, "params": model.params,
        "settings": {
            "seed": model.seed, "threads": model.threads, "features": model.features,
            "overlap": model.overlap,
        },
        "shift": model.shift, "scale": model.scale, "net": model.net.state_dict(),
        "train": train, "late": late, "total": total, "weight": weight, "saved": saved,
    }  # fmt: skip
    said: Any = mp.get_context("spawn").Queue()
    running = mp.spawn(
        _worker, (processes, _free_port(), recipe, said), nprocs=processes, join=False
    )
    assert running is not None
    try:
        while True:
            try:
                part, words, state = said.get(timeout=0.5)
            except queue.Empty:
                try:
                    ended = running.join(timeout=0.01)
                except mp.ProcessRaisedException as error:
                    raise TrainingError(f"a training process failed: {error}") from error
                except mp.ProcessExitedException as error:
                    raise TrainingError(f"a training process died: {error}") from error
                if ended and said.empty():
                    raise TrainingError("the training processes ended without a result") from None
                continue
            if part == "end":
                return bytes(state)
            if part == "error":
                raise TrainingError(words)
            report(part, words, state)
    finally:
        for process in running.processes:
            if process.is_alive():
                process.join(timeout=5)
                process.kill()
