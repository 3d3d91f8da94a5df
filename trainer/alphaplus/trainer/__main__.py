"""``python -m alphaplus.trainer``: take training jobs from the database's queue."""

from __future__ import annotations

import logging
import os
from typing import Annotated

import typer


def main(
    once: Annotated[bool, typer.Option("--once", help="do one job and end")] = False,
    drain: Annotated[bool, typer.Option("--drain", help="do all waiting jobs and end")] = False,
    concurrency: Annotated[int, typer.Option(min=1, help="jobs at once")] = 1,
    threads: Annotated[int, typer.Option(min=0, help="cores per job; 0: all")] = 0,
    poll: Annotated[
        float, typer.Option(min=0.1, help="seconds between looks for stalled jobs")
    ] = 5.0,
    conninfo: Annotated[
        str, typer.Option(help="no password in it; default: DATABASE_URL, PG*, PGSERVICE")
    ] = "",
    verbose: Annotated[bool, typer.Option("--verbose", "-v")] = False,
) -> None:
    """Train models that `call ml.retrain(…)` asked for.

    Connects as alphaplus_trainer; needs no inbound port; any number may run. SIGTERM gives a
    running job back to the queue. PyTorch, XGBoost and others load only when a job needs them.
    """
    # Threads that wait give up their core: on a machine shared with the database, spinning ones
    # made a small LightGBM training take up to twice as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s trainer: %(message)s",
        datefmt="%H:%M:%S",
    )
    from alphaplus.trainer.worker import Worker, has_password, run, trainer_conninfo

    if has_password(conninfo):
        raise typer.BadParameter(
            "arguments of a process can be read by every user of the machine: pass the password by"
            " PGPASSFILE, PGSERVICE, PGPASSWORD or DATABASE_URL",
            param_hint="--conninfo",
        )
    mode = "once" if once else "drain" if drain else "stay"
    worker = Worker(
        trainer_conninfo(conninfo), concurrency=concurrency, threads=threads, mode=mode, poll=poll
    )
    count = run(worker)
    logging.getLogger("alphaplus.trainer").info("%s job(s) taken", count)


if __name__ == "__main__":
    typer.run(main)
