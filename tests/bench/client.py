"""Frames by alphaplus.client beside pandas.read_sql: training sets, vectors, predictions."""

from __future__ import annotations

import time
from typing import Any

import alphaplus.client as ap
import numpy as np
import pandas as pd
import psycopg
import sqlalchemy

from tests.bench import _common as common
from tests.bench import training

ROWS = 200_000
COLUMNS = training.COLUMNS


def run(conninfo: str) -> list[dict[str, Any]]:
    """GB/s of the numbers that arrive, both ways in the same run."""
    with common.database(conninfo, "client") as own, psycopg.connect(own, autocommit=True) as conn:
        training.fill(conn, ROWS)
        conn.execute("call feature.pack('wide')")  # as the clock does once a day
        conn.execute(
            "insert into ml.predictions (as_of, symbol, model, horizon, prediction, probability,"
            " confidence, risk_level, outcome, outcome_at) select %s + n * interval '1 minute',"
            " 'XXX', 'wide', '5 min', p, p, 1 - p, 'low', (p > 0.5)::int,"
            " %s + n * interval '1 minute' from (select n, (n * 7919 %% 10007) / 10007.0 as p"
            " from generate_series(1, %s) n) r",
            (training.START, training.START, ROWS),
        )
        conn.execute("vacuum analyze")
        engine = sqlalchemy.create_engine(
            "postgresql+psycopg://", creator=lambda: psycopg.connect(own)
        )
        end = training.START + pd.Timedelta(minutes=ROWS + 5)
        with ap.connect(own) as client:
            return [
                _training_set(client, engine, str(end)),
                _vectors(client, engine, str(end)),
                _predictions(client, engine),
            ]


def _timed(work: Any) -> tuple[Any, float]:
    started = time.perf_counter()
    found = work()
    return found, time.perf_counter() - started


def _row(name: str, nbytes: int, ours: float, theirs: float, goal: str) -> dict[str, Any]:
    return common.row(
        name, nbytes / 1e9 / ours, "GB/s", peer="pandas.read_sql",
        peer_value=nbytes / 1e9 / theirs, goal=goal,
    )  # fmt: skip


def _training_set(client: ap.Client, engine: Any, end: str) -> dict[str, Any]:
    ours = common.best(lambda: client.training_set("wide", "XXX", end), 3)
    frame = client.training_set("wide", "XXX", end)
    names = [name for name in frame if str(name).startswith("x")]
    columns = ", ".join(f"t.features[{i + 1}] as {name}" for i, name in enumerate(names))
    query = (
        f"select {columns}, t.target from ml.training_set('wide', 'XXX', '{end}') t order by t.ts"
    )
    peer, theirs = _timed(lambda: pd.read_sql(query, engine))
    assert np.array_equal(peer.to_numpy(), frame[[*names, "target"]].to_numpy())
    size = peer.to_numpy().nbytes
    return _row(
        f"client.training_set, {len(frame):,} x {COLUMNS}", size, ours, theirs, "value >= 0.1"
    )


def _vectors(client: ap.Client, engine: Any, end: str) -> dict[str, Any]:
    def read() -> pd.DataFrame:
        return client.vectors("wide", "XXX", str(training.START), end)

    ours = common.best(read, 3)
    frame = read().iloc[:ROWS]
    columns = ", ".join(f"v.values[{i + 1}] as x{i}" for i in range(COLUMNS))
    peer, theirs = _timed(
        lambda: pd.read_sql(f"select {columns} from feature.vectors v order by v.ts", engine)
    )
    got = frame.drop(columns=["symbol", "ts"]).to_numpy()
    assert np.array_equal(peer.to_numpy(), got)
    return _row(
        f"client.vectors, {len(frame):,} x {COLUMNS}", got.nbytes, ours, theirs, "value >= 0.1"
    )


def _predictions(client: ap.Client, engine: Any) -> dict[str, Any]:
    ours = common.best(lambda: client.predictions("wide"), 3)
    frame = client.predictions("wide")
    names = ", ".join(frame.columns)
    peer, theirs = _timed(
        lambda: pd.read_sql(
            f"select {names} from ml.predictions where model = 'wide' order by as_of", engine
        )
    )
    assert np.array_equal(peer["probability"].to_numpy(), frame["probability"].to_numpy())
    assert list(peer["risk_level"]) == list(frame["risk_level"])
    size = int(frame.memory_usage(index=False).sum())
    return _row(f"client.predictions, {len(frame):,} rows", size, ours, theirs, "ratio >= 2")
