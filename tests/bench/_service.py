"""What one would build instead: FastAPI, a psycopg pool, the booster in memory.

``python -m tests.bench._service PORT``: uvicorn with a worker a core, on a socket without Nagle's
algorithm (uvicorn leaves it on with several workers, and each answer then takes 40 ms).
BENCH_CONNINFO, BENCH_SET and BENCH_MODEL say what it serves.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import lightgbm
import numpy as np
import uvicorn
from fastapi import FastAPI
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool
from uvicorn.supervisors import Multiprocess

START = datetime(2026, 1, 1, tzinfo=UTC)
SET = int(os.environ.get("BENCH_SET", "0"))
booster = (
    lightgbm.Booster(model_str=Path(os.environ["BENCH_MODEL"]).read_text())
    if "BENCH_MODEL" in os.environ
    else None
)


async def configure(conn: AsyncConnection) -> None:
    """Prepare each statement at its first use."""
    await conn.set_autocommit(True)
    conn.prepare_threshold = 0


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The pool is open while the service runs."""
    async with AsyncConnectionPool(
        os.environ["BENCH_CONNINFO"], min_size=16, max_size=16, configure=configure, open=False
    ) as pool:
        await pool.wait()
        app.state.pool = pool
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/predict/{symbol}/{minute}")
async def predict(symbol: str, minute: int) -> dict[str, float]:
    """The prediction from the vector stored at a minute."""
    assert booster is not None
    async with app.state.pool.connection() as conn:
        cursor = await conn.execute(
            "select values from feature.vectors where set_id = %s and symbol = %s and ts = %s",
            (SET, symbol, START + timedelta(minutes=minute)),
        )
        (values,) = await cursor.fetchone()
    found = booster.predict(np.array([values]), num_threads=1)
    return {"prediction": float(np.asarray(found)[0])}


if __name__ == "__main__":
    config = uvicorn.Config(
        "tests.bench._service:app", workers=os.cpu_count(), access_log=False, log_level="error"
    )
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
    listener.bind(("127.0.0.1", int(sys.argv[1])))
    listener.set_inheritable(True)
    Multiprocess(config, sockets=[listener]).run()
