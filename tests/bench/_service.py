"""What one would build instead: FastAPI, a psycopg pool, the booster in memory.

Run by :mod:`tests.bench.predict_key` as ``uvicorn tests.bench._service:app``; BENCH_CONNINFO,
BENCH_SET and BENCH_MODEL say what it serves.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import lightgbm
import numpy as np
from fastapi import FastAPI
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

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
